//! Units, Landlock and seccomp filters of the started program.

use super::*;

fn unit(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("psx-{name}-{}.service", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

/// The working directory can belong to another user, so a file in it is no unit.
#[test]
fn a_bare_name_is_no_file_in_the_working_directory() {
    let place = std::env::temp_dir().join(format!("psx-cwd-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let name = format!("psx-cwd-{}.service", std::process::id());
    std::fs::write(place.join(&name), "[Service]\nExecStart=/bin/true\nNoNewPrivileges=yes\n")
        .unwrap();
    std::fs::write(place.join(name.trim_end_matches(".service")), "[Service]\nNice=5\n").unwrap();
    let at = |arguments: &[&str]| {
        let mut command = psx(arguments);
        command.current_dir(&place);
        finish(command)
    };
    let path = format!("./{name}");
    for bare in [&*name, name.trim_end_matches(".service")] {
        let found = at(&["run", "--from-unit", bare, "--keep-groups", "--", "true"]);
        assert_eq!(found.status.code(), Some(125), "{}", found.stderr);
        assert!(found.stderr.contains(&format!("unit {name} not found in ")), "{}", found.stderr);
        let found = at(&["audit", "--unit", bare]);
        assert_eq!(found.status.code(), Some(2), "{}", found.stderr);
        assert!(found.stderr.contains(&format!("unit {name} not found in ")), "{}", found.stderr);
    }
    let found = at(&[
        "run",
        "--from-unit",
        &path,
        "--keep-groups",
        "--",
        "grep",
        "NoNew",
        "/proc/self/status",
    ]);
    assert_eq!(found.stdout, "NoNewPrivs:\t1\n", "{}", found.stderr);
    let found = at(&["audit", "--unit", &path]);
    assert!(
        found.stderr.contains(&format!("no process of the unit {name} runs")),
        "{}",
        found.stderr
    );
    std::fs::remove_dir_all(place).unwrap();
}

/// Such a unit restricts no program, so the program must not start with all privileges.
#[test]
fn a_masked_or_idle_unit_starts_nothing() {
    let place = std::env::temp_dir().join(format!("psx-idle-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    std::os::unix::fs::symlink("/dev/null", place.join("masked.service")).unwrap();
    std::fs::write(place.join("empty.service"), "").unwrap();
    std::fs::write(place.join("a.timer"), "[Timer]\nOnCalendar=daily\n").unwrap();
    for (name, said) in [
        ("masked.service", "masked"),
        ("empty.service", "masked"),
        ("a.timer", "executes no program"),
    ] {
        let path = place.join(name);
        let found = run(&["--from-unit", path.to_str().unwrap(), "--", "echo", "it ran"]);
        assert_eq!((found.status.code(), &*found.stdout), (Some(125), ""), "{name}");
        assert!(found.stderr.contains(said), "{name}: {}", found.stderr);
    }
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn a_unit_sets_the_state_of_the_program() {
    if !is_root("psx run") {
        return;
    }
    let path = unit(
        "unit",
        "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\nUser=65534\nGroup=65534\n\
         CapabilityBoundingSet=CAP_NET_RAW CAP_CHOWN\nCapabilityBoundingSet=~CAP_CHOWN\nAmbientCapabilities=CAP_NET_RAW\n\
         NoNewPrivileges=yes\nSystemCallFilter=@system-service\nSystemCallErrorNumber=EPERM\nUMask=0027\nPrivateTmp=yes\n",
    );
    let name = path.to_str().unwrap();
    let refused = run(&["--from-unit", name, "--", "true"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        refused.stderr.contains("14: PrivateTmp=yes: it is not supported here"),
        "{}",
        refused.stderr
    );
    let found = run(&[
        "--from-unit",
        name,
        "--without",
        "PrivateTmp",
        "--check",
        "--",
        "cat",
        "/proc/self/status",
    ]);
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    let fields_found = fields(&found.stdout);
    for (name, value) in [
        ("Uid", "65534 65534 65534 65534"),
        ("Groups", "65534"),
        ("CapBnd", "0000000000002000"),
        ("CapEff", "0000000000002000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Umask", "0027"),
    ] {
        assert_eq!(fields_found[name], value, "{name}");
    }
    // Options and properties come after the unit.
    let found = run(&[
        "--from-unit",
        name,
        "--without",
        "PrivateTmp",
        "--umask",
        "077",
        "-p",
        "CapabilityBoundingSet=CAP_KILL",
        "--groups",
        "4",
        "--",
        "cat",
        "/proc/self/status",
    ]);
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    let changed = fields(&found.stdout);
    assert_eq!((changed["Umask"].as_str(), changed["Groups"].as_str()), ("0077", "4"));
    assert_eq!(changed["CapBnd"], "0000000000002020");
    // A unit without a user stays root.
    let root = unit("root", "[Service]\nExecStart=/bin/true\nCapabilityBoundingSet=CAP_CHOWN\n");
    let found =
        run(&["--from-unit", root.to_str().unwrap(), "--check", "--", "cat", "/proc/self/status"]);
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    let of_root = fields(&found.stdout);
    assert_eq!(of_root["SigBlk"], "0000000000000000", "the mask is that of before");
    assert_eq!(
        (of_root["Uid"].as_str(), of_root["Groups"].as_str(), of_root["CapEff"].as_str()),
        ("0 0 0 0", "", "0000000000000001")
    );
    let unknown = unit("unknown", "[Service]\nUsr=nobody\n");
    let found = run(&["--from-unit", unknown.to_str().unwrap(), "--", "true"]);
    assert!(
        found.stderr.contains(":2: Usr=nobody: systemd has no such directive; did you mean User=?"),
        "{}",
        found.stderr
    );
    for path in [path, root, unknown] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn landlock_lets_only_the_named_files_through() {
    if !is_root("psx run") {
        return;
    }
    let place = std::env::temp_dir().join(format!("psx-landlock-{}", std::process::id()));
    let (inside, outside) = (place.join("in"), place.join("out"));
    for directory in [&inside, &outside] {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("file"), "content\n").unwrap();
    }
    let mut arguments = vec!["--stay-root".to_owned(), "--keep-groups".to_owned()];
    for path in
        ["/usr", "/bin", "/lib", "/lib64", "/etc"].iter().filter(|path| Path::new(path).exists())
    {
        arguments.extend(["--landlock-ro".to_owned(), (*path).to_owned()]);
    }
    arguments.extend(["--landlock-rw".to_owned(), inside.display().to_string()]);
    let with = |script: &str| {
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(["--", "/bin/sh", "-c", script]);
        run(&all)
    };
    let (inside, outside) = (inside.display(), outside.display());
    let found = with(&format!("cat {inside}/file && echo more > {inside}/other"));
    if found.stderr.contains("this kernel has no Landlock") {
        std::fs::remove_dir_all(&place).unwrap();
        return skipped(found.stderr);
    }
    assert_eq!(
        (found.status.code(), found.stdout.as_str()),
        (Some(0), "content\n"),
        "{}",
        found.stderr
    );
    let found = with(&format!("cat {outside}/file"));
    assert!(
        !found.status.success() && found.stderr.contains("Permission denied"),
        "{}",
        found.stderr
    );
    let found = with("echo x > /etc/psx-must-not-be");
    assert!(!found.status.success() && !Path::new("/etc/psx-must-not-be").exists());
    std::fs::remove_dir_all(&place).unwrap();
}

#[test]
fn a_filter_works_in_the_program() {
    if !is_root("psx run") || !installed("chown") {
        return;
    }
    let nobody = ["--stay-root", "--keep-groups"];
    let found = run(
        &[nobody.as_slice(), &["--seccomp", "~@chown:EXDEV", "--", "chown", "0", "/"]].concat()
    );
    assert!(!found.status.success() && found.stderr.contains("cross-device"), "{}", found.stderr);
    let killed =
        run(&[nobody.as_slice(), &["--seccomp", "~@chown", "--check", "--", "chown", "0", "/"]]
            .concat());
    assert_eq!(killed.status.code(), Some(128 + libc::SIGSYS), "{}", killed.stderr);
}
