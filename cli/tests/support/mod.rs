//! Support for the tests of the command: runs of it with a watchdog, and processes to audit.
#![allow(dead_code, unreachable_pub, unsafe_code, unused_imports)]

#[path = "../../../tests/support/harness.rs"]
mod harness;
mod subject;
pub use harness::{skipped, watchdog};
pub use subject::*;

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const NOBODY: u32 = 65534;

/// Returns the longest time that a test waits for an event.
pub fn limit() -> Duration {
    watchdog(Duration::from_secs(60))
}

pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

pub fn psx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psx"));
    command.args(args).env_remove("NO_COLOR");
    command
}

/// Runs a command to its end, or kills it and fails if it takes too long.
pub fn finish(mut command: Command) -> Finished {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("psx starts");
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = watch(&mut child);
    Finished {
        status,
        stdout: stdout.join().expect("standard output is text"),
        stderr: stderr.join().expect("standard error is text"),
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    let mut pipe = pipe.expect("a pipe");
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).expect("UTF-8");
        text
    })
}

fn watch(child: &mut Child) -> ExitStatus {
    let limit = limit();
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().expect("the child is ours");
            child.wait().expect("the child is ours");
            panic!("psx did not end within {limit:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns whether the tests run as root, which can become any user. Prints a note if not.
pub fn is_root(what: &str) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let uids = status.lines().find_map(|l| l.strip_prefix("Uid:")).expect("Uid:");
    let root = uids.split_whitespace().nth(1) == Some("0");
    if !root {
        skipped(format!("{what} needs root"));
    }
    root
}

/// Returns whether this process may see the root directory of process 1. Records a skipped test if not: psx then takes no
/// process for confined by its own root directory.
pub fn sees_process_1(what: &str) -> bool {
    let seen = std::fs::metadata("/proc/1/root").is_ok();
    if !seen {
        skipped(format!("{what}: the root directory of process 1 cannot be seen"));
    }
    seen
}

/// Returns the path of a copy that any user can execute: other users may lack access to the build directory.
pub fn readable_copy() -> std::path::PathBuf {
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("psx-test-{}-{number}", std::process::id()));
    // Another process copies. If this process did, a child that another thread forks meanwhile would
    // have the file open for writing, and execve(2) of the file would fail.
    let mut copy = Command::new("cp");
    let status = copy.arg(env!("CARGO_BIN_EXE_psx")).arg(&path).status().expect("cp starts");
    assert!(status.success(), "no copy");
    path
}

/// A child that does not outlive its test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another process that the test ends, for example a grandchild.
pub struct KilledById(pub i32);

impl Drop for KilledById {
    fn drop(&mut self) {
        // SAFETY: a signal touches no memory. The process was started for the test.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

/// Runs `psx audit` on one process.
pub fn audit(args: &[&str], pid: i32) -> Finished {
    let pid = pid.to_string();
    finish(psx(&[&["audit"], args, &[&pid]].concat()))
}

/// Returns the JSON that `psx audit` writes about one process.
pub fn report(args: &[&str], pid: i32) -> serde_json::Value {
    let finished = audit(&[&["--json"], args].concat(), pid);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {}", finished.stderr))
}
