//! Threads of other runtimes, and garbage collectors that stop them.

use std::process::Command;

use crate::support::daemon::Daemon;
use crate::support::isolated_as_root;
use crate::{WATCHDOG, audit, made};

/// Drops privileges in a program with `count` or more threads while its collector runs.
fn drops(command: &mut Command, started: &str, attempts: &str, count: usize) {
    let mut daemon = Daemon::start(command);
    daemon.line_with(started);
    let before = daemon.field("Uid");
    assert!(before.len() >= count && before.iter().all(|ids| ids == "0 0 0 0"), "{before:?}");
    daemon.say("drop");
    let line = daemon.line_with(" threads are nobody");
    assert!(daemon.is_dropped(), "{:?}", daemon.field("Uid"));
    let collections = daemon.line_with(" collections meanwhile");
    assert!(!collections.starts_with("0 "), "{collections}");
    daemon.line_with(attempts);
    println!("{line}, {collections}");
    audit(&daemon);
    assert!(daemon.end().success());
}

#[test]
fn go() {
    isolated_as_root("foreign::go", WATCHDOG, || {
        if let Some(library) = made("libchurn.so") {
            let mut command = Command::new(env!("CARGO_BIN_EXE_go_library"));
            drops(command.arg(library), "started", "0 threads of Go could become root", 6);
        }
    });
}

#[cfg(feature = "python")]
#[test]
fn python() {
    isolated_as_root("foreign::python", WATCHDOG, || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_embedded_python"));
        let attempts = "0 threads of Python could become root";
        drops(&mut command, "3 threads of Python", attempts, 4);
    });
}

#[cfg(feature = "jvm")]
#[test]
fn java() {
    isolated_as_root("foreign::java", WATCHDOG, || {
        if let Some(class) = made("Churn.class") {
            let mut command = Command::new(env!("CARGO_BIN_EXE_embedded_java"));
            let attempts = "0 threads of Java can read what only root may";
            drops(command.arg(class.parent().unwrap()), "5 threads of Java", attempts, 12);
        }
    });
}

#[cfg(not(all(feature = "python", feature = "jvm")))]
#[test]
fn not_built() {
    for feature in ["python", "jvm"] {
        crate::skipped(format!("scripts/examples builds what needs --features {feature}"));
    }
}
