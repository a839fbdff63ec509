//! Starts each example, puts load on it, and watches it from outside: by /proc, by the kernel's answers, by its output.
#![allow(unsafe_code)]

#[path = "../../../tests/support/mod.rs"]
mod support;

mod converter;
mod foreign;
mod keyring_daemon;
mod namespaces;
mod native;
mod notify;
mod page_server;
mod uring;
mod web_server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::daemon::Daemon;
use support::skipped;

const WATCHDOG: Duration = Duration::from_secs(60);

/// Returns the path of a library, class or program that scripts/examples builds and cargo does not. Prints a note if it
/// is missing.
fn made(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("examples").join(name);
    if path.exists() {
        return Some(path);
    }
    skipped(format!("no {name}: scripts/examples makes it"));
    None
}

/// Returns the path of the command psx. Prints a note if cargo has not built it.
fn psx() -> Option<PathBuf> {
    let psx = Path::new(env!("CARGO_BIN_EXE_web_server")).with_file_name("psx");
    if psx.exists() {
        return Some(psx);
    }
    skipped("no psx: cargo build builds it");
    None
}

/// Runs `psx audit` on the process: each thread has the user nobody and no capabilities.
fn audit(daemon: &Daemon) {
    const EXPECTED: &str = "uid=nobody,caps=none,nnp=1";
    let Some(psx) = psx() else { return };
    let pid = daemon.process.id().to_string();
    let output = Command::new(psx).args(["audit", &pid, "--expect", EXPECTED]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
