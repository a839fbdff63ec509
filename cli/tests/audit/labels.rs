//! The labels of security modules: AppArmor, SELinux, Smack.

use super::*;

/// Reads the label of this process, as the first security module that shows one has it.
fn own_label() -> Option<String> {
    let files = ["/proc/self/attr/current", "/proc/self/attr/apparmor/current"];
    let label = files.into_iter().find_map(|file| std::fs::read_to_string(file).ok())?;
    Some(label.trim_end_matches(['\n', '\0']).to_owned())
}

#[test]
fn the_label_of_the_security_module_is_shown() {
    let Some(label) = own_label() else {
        support::skipped("no security module here shows labels");
        return;
    };
    let subject = Subject::new(|stage| stage.ready(&[]));
    let report = report(&[], subject.pid);
    assert_eq!(report["processes"][0]["groups"][0]["state"]["label"], label, "{report}");
    let finished = audit(&["--expect", &format!("label={label}")], subject.pid);
    assert_eq!(finished.status.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
}

/// Gives the calling thread the profile that the test has loaded.
fn change_profile() {
    let command = b"changeprofile psx-worker";
    let file = ["/proc/thread-self/attr/apparmor/current", "/proc/thread-self/attr/current"];
    assert!(file.iter().any(|file| std::fs::write(file, command).is_ok()));
}

#[test]
fn a_thread_with_another_profile_of_apparmor_differs() {
    const PROFILE: &str = "profile psx-worker flags=(complain) { }\n";
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if enabled.is_ok_and(|enabled| enabled != "Y\n") || own_label().is_none() {
        support::skipped("no AppArmor here");
        return;
    }
    if !is_root("a profile of AppArmor") {
        return;
    }
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("psx-worker");
    std::fs::write(&file, PROFILE).unwrap();
    let loaded =
        Command::new("apparmor_parser").arg("--replace").arg("--skip-cache").arg(&file).output();
    match loaded {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => {
            support::skipped(format!("apparmor_parser: {error}"));
            return;
        }
    }
    let subject = Subject::new(|stage| stage.ready(&[thread(|| {}), thread(change_profile)]));
    let report = report(&[], subject.pid);
    let worker = i64::from(subject.tids[1]);
    assert_eq!(differing(&report["processes"][0]), [(worker, vec!["label"])], "{report}");
    let finished = audit(&[], subject.pid);
    assert_eq!(finished.status.code(), Some(1));
    print!("{}", finished.stdout);
    // The column is narrow: the rest of the label is on the next line.
    assert!(finished.stdout.contains("label psx-worker"), "{}", finished.stdout);
}
