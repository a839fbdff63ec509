//! The same settings by setpriv(1) and capsh(1).

use super::*;

const CREDENTIALS: [&str; 9] =
    ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];

fn credentials(fields: &BTreeMap<String, String>) -> Vec<String> {
    CREDENTIALS
        .iter()
        .map(|name| format!("{name}: {}", fields.get(*name).cloned().unwrap_or_default()))
        .collect()
}

/// Applies the same settings by options of setpriv and by options of psx.
#[test]
fn settings_match_setpriv() {
    if !is_root("psx run") || !installed("setpriv") {
        return;
    }
    for (theirs, ours) in [
        (
            vec!["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"],
            vec!["--user", "65534", "--group", "65534", "--groups", "none"],
        ),
        (
            vec![
                "--reuid",
                "65534",
                "--regid",
                "12",
                "--groups",
                "4,27",
                "--inh-caps=-all",
                "--no-new-privs",
            ],
            vec!["-u", "65534", "-g", "12", "--groups", "4,27", "-n"],
        ),
        (
            vec![
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--inh-caps=-all,+net_raw",
                "--ambient-caps=-all,+net_raw",
                "--bounding-set=-all,+net_raw,+chown",
            ],
            vec![
                "-u",
                "65534",
                "-g",
                "65534",
                "--groups",
                "none",
                "--ambient",
                "net_raw",
                "--bounding",
                "net_raw,chown",
            ],
        ),
        (
            vec!["--inh-caps=-all", "--bounding-set=-sys_admin,-sys_module", "--groups", "4"],
            vec!["--stay-root", "--groups", "4", "--bounding", "~sys_admin,sys_module"],
        ),
        (
            vec!["--inh-caps=-all", "--no-new-privs", "--clear-groups", "--securebits=+noroot"],
            vec!["--stay-root", "--groups", "none", "-n", "--securebits", "noroot"],
        ),
    ] {
        let mut command = Command::new("setpriv");
        command.args(&theirs).args(["cat", "/proc/self/status"]);
        let expected = finish(command);
        if !expected.status.success() {
            skipped(format!("this setpriv does not take {theirs:?}: {}", expected.stderr));
            continue;
        }
        let found = run(&[ours.as_slice(), &["--", "cat", "/proc/self/status"]].concat());
        assert_eq!(found.status.code(), Some(0), "{ours:?}: {}", found.stderr);
        assert_eq!(
            credentials(&fields(&found.stdout)),
            credentials(&fields(&expected.stdout)),
            "{ours:?}"
        );
        // With --check, psx compares it from outside, before its first instruction.
        let checked =
            run(&[ours.as_slice(), &["--check", "--", "cat", "/proc/self/status"]].concat());
        assert_eq!(checked.status.code(), Some(0), "{ours:?}: {}", checked.stderr);
        assert_eq!(
            credentials(&fields(&checked.stdout)),
            credentials(&fields(&expected.stdout)),
            "{ours:?}"
        );
    }
}

#[test]
fn settings_match_capsh() {
    if !is_root("psx run") || !installed("/usr/sbin/capsh") {
        return;
    }
    let script = "cat /proc/self/status";
    for (theirs, ours) in [
        (vec!["--drop=cap_sys_admin,cap_bpf"], vec!["--bounding", "~sys_admin,bpf"]),
        (vec!["--iab=!cap_chown,%cap_kill"], vec!["--iab", "!cap_chown,%cap_kill"]),
        (vec!["--mode=NOPRIV"], vec!["--mode", "NOPRIV"]),
    ] {
        let mut command = Command::new("/usr/sbin/capsh");
        command.args(&theirs).args(["--", "-c", script]);
        let expected = finish(command);
        if !expected.status.success() {
            skipped(format!("this capsh does not take {theirs:?}: {}", expected.stderr));
            continue;
        }
        let mut all = vec!["--stay-root", "--keep-groups"];
        all.extend(ours.iter().copied());
        all.extend(["--", "bash", "-c", script]);
        let found = run(&all);
        assert_eq!(found.status.code(), Some(0), "{ours:?}: {}", found.stderr);
        assert_eq!(
            credentials(&fields(&found.stdout)),
            credentials(&fields(&expected.stdout)),
            "{ours:?}"
        );
    }
}
