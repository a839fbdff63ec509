//! `psx demo`, as a user or a script runs it.

#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Finished, Killed, NOBODY, finish, is_root, psx, readable_copy};

fn json(finished: &Finished) -> Value {
    assert!(finished.status.success(), "{}: {}", finished.status, finished.stderr);
    serde_json::from_str(&finished.stdout).expect("JSON on standard output")
}

/// Checks what must hold for every user: all threads are in the table, and all have changed.
fn check(report: &Value, workers: u64) {
    assert_eq!(report["schema"], 1);
    assert_eq!(report["all_changed"], true);
    assert_eq!(report["workers"], workers);
    let count = |when: &str, what: &str| report["total"][when][what].as_u64().expect("a number");
    for when in ["before", "plain", "libpsx"] {
        // The process has two more threads: the main thread and the parent of the churn.
        assert!(count(when, "threads") >= workers + 2, "{when}: {report}");
    }
    assert_eq!(count("libpsx", "old"), 0);
    assert!(report["performed"].as_u64().expect("a number") >= workers + 2);
    let groups = report["groups"].as_array().expect("groups");
    for kind in ["main", "futex", "epoll", "read", "nanosleep", "busy", "raw", "churn"] {
        let group = groups.iter().find(|g| g["group"] == kind);
        let group = group.unwrap_or_else(|| panic!("no group {kind}: {report}"));
        assert_eq!(group["libpsx"]["old"], 0, "{kind}");
        assert!(group["libpsx"]["threads"].as_u64() >= Some(1), "{kind}");
    }
}

/// Returns whether this process can still gain privilege. If so, threads that a plain call does not change keep that.
fn may_gain_privilege() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    status.lines().any(|l| l.strip_prefix("NoNewPrivs:").is_some_and(|v| v.trim() == "0"))
}

/// Checks that the plain call changed the thread that made it, and no other thread.
fn check_plain(report: &Value) {
    let plain = &report["total"]["plain"];
    let threads = plain["threads"].as_u64().expect("a number");
    assert_eq!(plain["old"].as_u64(), Some(threads - 1), "{report}");
    let before = &report["total"]["before"];
    assert_eq!(before["old"], before["threads"], "{report}");
}

#[test]
fn json_says_that_all_threads_changed() {
    let report = json(&finish(psx(&["demo", "--json", "--threads", "40"])));
    check(&report, 40);
    if is_root("the drop to nobody") {
        assert_eq!(report["mode"], "root");
        check_plain(&report);
    }
}

#[test]
fn works_without_privilege() {
    let mut command = psx(&["demo", "--json", "--threads", "40"]);
    if is_root("becoming an unprivileged user; runs as this one") {
        // The user nobody may lack access to the directories above a build. Therefore the program is
        // passed as an open file, and current_exe() finds it through /proc as well.
        command = Command::new(readable_copy());
        command.args(["demo", "--json", "--threads", "40"]).uid(NOBODY).gid(NOBODY);
    }
    let report = json(&finish(command));
    assert_eq!(report["mode"], "unprivileged");
    check(&report, 40);
    if may_gain_privilege() {
        check_plain(&report);
    }
}

#[test]
fn bad_arguments_exit_2() {
    let bad: [&[&str]; 8] = [
        &[],
        &["demo", "--threads", "0"],
        &["demo", "--threads", "20001"],
        &["demo", "--threads", "-1"],
        &["demo", "--threads", "many"],
        &["demo", "--color", "mauve"],
        &["demo", "--no-such-option"],
        &["no-such-command"],
    ];
    for args in bad {
        let finished = finish(psx(args));
        assert_eq!(finished.status.code(), Some(2), "{args:?}");
        assert!(!finished.stderr.is_empty(), "{args:?}");
        assert!(finished.stdout.is_empty(), "{args:?}");
    }
    let finished = finish(psx(&["demo", "--threads", "20001"]));
    assert!(finished.stderr.contains("1..=20000"), "{}", finished.stderr);
}

#[test]
fn piped_output_has_no_colours() {
    let finished = finish(psx(&["demo", "--threads", "8"]));
    assert!(finished.status.success(), "{}: {}", finished.status, finished.stderr);
    assert!(finished.stdout.contains("after libpsx"), "{}", finished.stdout);
    assert!(!finished.stdout.contains('\x1b'), "{:?}", finished.stdout);
    let fits = finished.stdout.lines().all(|line| line.chars().count() <= 80);
    assert!(fits, "{}", finished.stdout);
    assert_eq!(finished.stderr, "");
}

#[test]
fn colours_are_used_when_requested() {
    let finished = finish(psx(&["demo", "--threads", "8", "--color", "always"]));
    assert!(finished.status.success(), "{}: {}", finished.status, finished.stderr);
    assert!(finished.stdout.contains("\x1b["), "{:?}", finished.stdout);
}

#[test]
fn one_worker_thread_is_enough() {
    let report = json(&finish(psx(&["demo", "--json", "--threads", "1"])));
    assert_eq!(report["all_changed"], true);
}

/// Audits the two processes of `--hold`: threads differ after the plain call, and no thread differs after libpsx.
/// The copy does not outlive the demo.
#[test]
fn hold_keeps_both_processes_for_psx_audit() {
    let mut command = psx(&["demo", "--threads", "8", "--hold"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut demo = Killed(command.spawn().unwrap());
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pids: Vec<String> = lines
        .take_while(|line| line != "interrupt to end them")
        .filter_map(|line| Some(line.split_once(": psx audit ")?.1.to_owned()))
        .collect();
    let [plain, everywhere] = pids.as_slice() else { panic!("{pids:?}") };
    assert_eq!(*everywhere, demo.0.id().to_string());
    if is_root("auditing the process with the plain call") {
        let ignore = ["--ignore", "namespaces"];
        let finished = finish(psx(&[&["audit", plain], &ignore[..]].concat()));
        assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
        snapbox::assert_data_eq!(
            finished.stdout,
            snapbox::str![[r#"
...
[..] (psx): its threads differ: uid, gid, [..]caps, nnp
    other than the leader in uid, gid, [..]caps, nnp: [..] (psx-futex), [..]
1 process, [..] threads: 1 diverges; 1 privileged

"#]]
        );
    }
    let finished = finish(psx(&["audit", "--expect", "nnp=1", everywhere]));
    assert_eq!(finished.status.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    drop(demo);
    while std::fs::read_to_string(format!("/proc/{plain}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z"))
    {
        std::thread::yield_now();
    }
}
