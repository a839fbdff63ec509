//! `psx doctor`: its broadcast is a real one, and it reports a broadcast that fails.

#![allow(missing_docs, unsafe_code)]

mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;

use support::{Finished, finish, is_root, psx, readable_copy};

fn check(finished: &Finished, works: bool) {
    let (code, last) = if works { (0, "works here") } else { (1, "would fail here") };
    let text = &finished.stdout;
    assert_eq!(finished.status.code(), Some(code), "{text}{}", finished.stderr);
    assert!(text.trim_end().ends_with(&format!("a broadcast {last}")), "{text}");
    for what in ["CPU", "kernel", "C library", "sandbox", "/proc", "signal 33", "signal queue"] {
        assert!(text.contains(what), "{what}: {text}");
    }
    for what in ["alone?", "seccomp TSYNC", "Landlock", "io_uring", "a broadcast"] {
        assert!(text.contains(what), "{what}: {text}");
    }
}

/// Returns the answer to one question with its lines joined, from the line that begins it.
fn line<'a>(finished: &'a Finished, what: &str) -> &'a str {
    let of = |line: &&str| line.split("  ").any(|piece| piece.trim() == what);
    finished.stdout.lines().find(of).unwrap_or_else(|| panic!("{what}: {}", finished.stdout))
}

#[test]
fn here_a_broadcast_works() {
    let finished = finish(psx(&["doctor"]));
    check(&finished, true);
    assert!(line(&finished, "a broadcast").contains("10 threads in "), "{}", finished.stdout);
    assert!(!finished.stdout.contains('\x1b'));
}

#[test]
fn the_json_says_the_same_as_the_table() {
    let finished = finish(psx(&["doctor", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((finished.status.code(), &report["works"]), (Some(0), &true.into()), "{report}");
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 12, "{report}");
    for check in checks {
        assert!(["ok", "limited"].contains(&check["verdict"].as_str().unwrap()), "{check}");
        for member in ["name", "found", "consequence"] {
            assert!(check[member].is_string(), "{check}");
        }
    }
    let table = finish(psx(&["doctor"])).stdout;
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn a_full_signal_queue_is_a_failure() {
    let mut command = Command::new("prlimit");
    command.args(["--sigpending=0"]);
    let program = readable_copy();
    if is_root("a user of its own; runs as this one") {
        // The signals of other processes do not count for this user.
        command.args(["setpriv", "--reuid", "61234", "--regid", "61234", "--clear-groups"]);
    }
    command.arg(program).arg("doctor");
    let finished = finish(command);
    check(&finished, false);
    assert!(line(&finished, "signal queue").trim().starts_with("fails"), "{}", finished.stdout);
    assert!(line(&finished, "a broadcast").trim().starts_with("fails"), "{}", finished.stdout);
}

/// Runs psx under a filter that applies this action to one call.
fn filtered(nr: i64, action: u32) -> Finished {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, nr as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, action),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let mut command = psx(&["doctor"]);
    let install = move || {
        let header = libc::sock_fprog { len: 4, filter: program.as_ptr().cast_mut() };
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let set = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel reads the program.
        match unsafe { libc::syscall(libc::SYS_seccomp, set, 0, &raw const header) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the child makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(install) };
    finish(command)
}

#[test]
fn a_filter_that_forbids_the_signal_is_a_failure() {
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let finished = filtered(libc::SYS_rt_tgsigqueueinfo, refused);
    check(&finished, false);
    assert!(line(&finished, "sandbox").contains("seccomp filters: 1"), "{}", finished.stdout);
}

/// Runs psx under a filter that kills for a question: it kills only the child that asked.
#[test]
fn a_filter_that_kills_is_survived_and_reported() {
    let finished = filtered(libc::SYS_rt_tgsigqueueinfo, libc::SECCOMP_RET_KILL_PROCESS);
    check(&finished, false);
    assert!(line(&finished, "a broadcast").contains("killed by SIGSYS"), "{}", finished.stdout);
}

/// Refuses calls that only make a broadcast cheaper. That is not a failure: the sandboxes of containers refuse
/// unshare(2).
#[test]
fn a_missing_call_that_is_not_needed_is_limited() {
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    for (nr, what) in [
        (libc::SYS_unshare, "alone?"),
        (libc::SYS_landlock_create_ruleset, "Landlock"),
        (libc::SYS_seccomp, "seccomp TSYNC"),
    ] {
        let finished = filtered(nr, refused);
        check(&finished, true);
        assert!(line(&finished, what).trim().starts_with("limited"), "{}", finished.stdout);
    }
}
