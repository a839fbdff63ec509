//! The programs of docs/daemons.md, each as a process that is watched from outside: it binds its port as root, and answers
//! after it has dropped root in all of its threads.
#![allow(unsafe_code)]

#[path = "../examples/sandbox.rs"]
mod sandbox;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../examples/transaction.rs"]
mod transaction;
#[path = "../examples/web.rs"]
mod web;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use support::isolated_as_root;

const WATCHDOG: Duration = Duration::from_secs(60);
/// The program that a process of this test is to be.
const PROGRAM: &str = "PSX_DAEMON";

/// Nothing, but in a process that [`Daemon::start`] has made.
#[test]
fn program() {
    let done = match std::env::var(PROGRAM).as_deref() {
        Ok("web") => web::main(),
        Ok("sandbox") => sandbox::main(),
        Ok("transaction") => transaction::main(),
        _ => return,
    };
    done.unwrap();
}

struct Daemon {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Daemon {
    fn start(program: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["program", "--exact", "--nocapture"]).env(PROGRAM, program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// Reads lines up to one with this text.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "no line with {text}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// A field of /proc/PID/task/TID/status, of every thread.
    fn field(&self, name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of_one = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            Some(value.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "))
        };
        tasks.flatten().filter_map(of_one).collect()
    }

    /// Whether each thread is nobody, without capabilities, for good. There are several.
    fn is_dropped(&self) -> bool {
        const NONE: &str = "0000000000000000";
        let nobody = ["65534"; 4].join(" ");
        let expected = [
            ("Uid", nobody.as_str()),
            ("Gid", nobody.as_str()),
            ("CapPrm", NONE),
            ("CapEff", NONE),
            ("CapInh", NONE),
            ("CapAmb", NONE),
            ("NoNewPrivs", "1"),
        ];
        expected.iter().all(|(name, value)| {
            let found = self.field(name);
            found.len() > 2 && found.iter().all(|found| found == value)
        })
    }

    fn await_drop(&self) {
        let until = Instant::now() + Duration::from_secs(30);
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

/// A network of this thread's own, in which every port is free. False, and a line: there is none to be had.
fn has_network() -> bool {
    // SAFETY: it takes a number.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        support::skipped(format!("no network namespace: {}", std::io::Error::last_os_error()));
        return false;
    }
    // SAFETY: it takes numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: it is a structure of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: the kernel reads the structure.
    assert_eq!(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &request) }, 0);
    true
}

#[test]
fn a_web_server() {
    isolated_as_root("a_web_server", WATCHDOG, || {
        if !has_network() {
            return;
        }
        let mut daemon = Daemon::start("web");
        daemon.line_with("setresuid 65534");
        daemon.await_drop();
        for _ in 0..20 {
            let mut stream = TcpStream::connect("127.0.0.1:80").unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello\n"),
                "{answer}"
            );
        }
        // Also the threads that have answered.
        assert!(daemon.is_dropped());
    });
}

#[test]
fn a_sandbox() {
    isolated_as_root("a_sandbox", WATCHDOG, || {
        let mut daemon = Daemon::start("sandbox");
        daemon.await_drop();
        let mut input = daemon.process.stdin.take().unwrap();
        let all = vec!["/proc/self/status"; 64].join(" ");
        writeln!(input, "{all}").unwrap();
        // Without Landlock, which then is told, the files of a user are open to it.
        let plan_is_whole = landlock_is_there();
        let line = daemon.line_with("can be opened");
        let expected = if plan_is_whole { "0 of 64" } else { "64 of 64" };
        assert!(line.contains(expected), "{line}");
        assert!(daemon.is_dropped());
        drop(input);
        assert!(daemon.process.wait().unwrap().success());
    });
}

fn landlock_is_there() -> bool {
    let none: *const u8 = std::ptr::null();
    // SAFETY: it asks for the version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, 1) };
    if version < 1 {
        support::skipped("this kernel has no Landlock");
    }
    version >= 1
}

#[test]
fn a_transaction() {
    isolated_as_root("a_transaction", WATCHDOG, || {
        if !has_network() {
            return;
        }
        let mut daemon = Daemon::start("transaction");
        daemon.line_with("nobody from here on");
        daemon.await_drop();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0u8..20 {
            socket.send_to(&[number], "127.0.0.1:7").unwrap();
            let mut data = [0; 16];
            let (length, _) = socket.recv_from(&mut data).unwrap();
            assert_eq!(data[..length], [number]);
        }
        assert!(daemon.is_dropped() && daemon.field("Uid").len() >= 5);
    });
}

/// The text in docs/daemons.md is that of the programs, but for their first line and for what this file needs to call them.
#[test]
fn the_page_has_them() {
    let page = include_str!("../../docs/daemons.md");
    for program in [
        include_str!("../examples/web.rs"),
        include_str!("../examples/sandbox.rs"),
        include_str!("../examples/transaction.rs"),
    ] {
        let (_, code) = program.split_once("\n\n").unwrap();
        let code = code.replace("pub(crate) ", "");
        assert!(
            page.contains(&format!("```rust,no_run\n{code}```\n")),
            "docs/daemons.md lacks:\n{code}"
        );
    }
}
