//! Starts each example, loads it, and watches it from outside: by /proc, by what the kernel answers it, by its answers.
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

/// What scripts/examples makes: libraries, classes and programs that cargo does not build. Notes it if this is not there.
fn made(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("examples").join(name);
    if path.exists() {
        return Some(path);
    }
    skipped(format!("no {name}: scripts/examples makes it"));
    None
}

/// The command psx. Notes it if cargo has not built it.
fn psx() -> Option<PathBuf> {
    let psx = Path::new(env!("CARGO_BIN_EXE_web_server")).with_file_name("psx");
    if psx.exists() {
        return Some(psx);
    }
    skipped("no psx: cargo build builds it");
    None
}

/// Lets `psx audit` look at the process: each thread is nobody, with nothing left.
fn audit(daemon: &Daemon) {
    const EXPECTED: &str = "uid=nobody,caps=none,nnp=1";
    let Some(psx) = psx() else { return };
    let pid = daemon.process.id().to_string();
    let output = Command::new(psx).args(["audit", &pid, "--expect", EXPECTED]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
