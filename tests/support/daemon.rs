//! A program that a test starts and observes from outside.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{skipped, watchdog};

/// Kills the program when it is dropped.
pub struct Daemon {
    pub process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Daemon {
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { input: process.stdin.take(), process, output }
    }

    /// Returns the next line, or `None` if the program has closed its output.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.output.read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    /// Reads lines until one contains this text, and returns that line.
    pub fn line_with(&mut self, text: &str) -> String {
        let mut before = Vec::new();
        while let Some(line) = self.line() {
            if line.contains(text) {
                return line;
            }
            before.push(line);
        }
        panic!("no line with {text:?}, but {before:#?}, {:?}", self.process.wait());
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Closes the program's input, and waits until the program has ended.
    pub fn end(&mut self) -> ExitStatus {
        self.input = None;
        self.process.wait().unwrap()
    }

    /// Returns a field of /proc/PID/task/TID/status, for every thread.
    pub fn field(&self, name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of_one = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            Some(value.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "))
        };
        tasks.flatten().filter_map(of_one).collect()
    }

    /// Returns whether there are at least three threads, and each of them has these values in its status.
    pub fn all_have(&self, expected: &[(&str, &str)]) -> bool {
        expected.iter().all(|(name, value)| {
            let found = self.field(name);
            found.len() > 2 && found.iter().all(|found| found == value)
        })
    }

    /// Returns whether there are at least three threads, and each has dropped its privileges for good: the user
    /// `nobody`, no capabilities, no_new_privs.
    pub fn is_dropped(&self) -> bool {
        const NONE: &str = "0000000000000000";
        const NOBODY: &str = "65534 65534 65534 65534";
        self.all_have(&[
            ("Uid", NOBODY),
            ("Gid", NOBODY),
            ("CapPrm", NONE),
            ("CapEff", NONE),
            ("CapInh", NONE),
            ("CapAmb", NONE),
            ("NoNewPrivs", "1"),
        ])
    }

    pub fn await_drop(&self) {
        let until = Instant::now() + watchdog(Duration::from_secs(30));
        while !self.is_dropped() {
            assert!(Instant::now() < until, "{:?} {:?}", self.field("Uid"), self.field("CapPrm"));
            std::thread::yield_now();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Moves this thread to its own network namespace, in which every port is free. If that is refused, records a skipped
/// test and returns false.
pub fn has_network() -> bool {
    if !super::unshared(libc::CLONE_NEWNET) {
        return false;
    }
    // SAFETY: the call takes only numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: all fields of the structure are integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: the kernel reads the structure.
    assert_eq!(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request) }, 0);
    true
}

pub fn landlock_is_there() -> bool {
    let none: *const u8 = std::ptr::null();
    // SAFETY: without a ruleset the call only returns the version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, 1) };
    if version < 1 {
        skipped("this kernel has no Landlock");
    }
    version >= 1
}
