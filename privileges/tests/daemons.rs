//! The programs of docs/daemons.md. Each runs as a process that the test watches from outside: it binds its port as
//! root, and answers after it has dropped root in all its threads.
#![allow(unsafe_code)]

#[path = "../examples/sandbox.rs"]
mod sandbox;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../examples/transaction.rs"]
mod transaction;
#[path = "../examples/web.rs"]
mod web;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use support::daemon::{Daemon, has_network, landlock_is_there};
use support::isolated_as_root;

const WATCHDOG: Duration = Duration::from_secs(60);
/// The variable that names the program that a process of this test runs.
const PROGRAM: &str = "PSX_DAEMON";

/// Runs a program in a process that [`start`] has made. Does nothing in all other processes.
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

/// Starts this test again as one of the programs.
fn start(program: &str) -> Daemon {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["program", "--exact", "--nocapture"]).env(PROGRAM, program);
    Daemon::start(&mut command)
}

#[test]
fn a_web_server() {
    isolated_as_root("a_web_server", WATCHDOG, || {
        if !has_network() {
            return;
        }
        let mut daemon = start("web");
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
        // The threads that have answered are included.
        assert!(daemon.is_dropped());
    });
}

#[test]
fn a_sandbox() {
    isolated_as_root("a_sandbox", WATCHDOG, || {
        let mut daemon = start("sandbox");
        daemon.await_drop();
        daemon.say(&vec!["/proc/self/status"; 64].join(" "));
        // On a kernel without Landlock, the program reports that, and it can open the files of its user.
        let plan_is_whole = landlock_is_there();
        let line = daemon.line_with("can be opened");
        let expected = if plan_is_whole { "0 of 64" } else { "64 of 64" };
        assert!(line.contains(expected), "{line}");
        assert!(daemon.is_dropped());
        assert!(daemon.end().success());
    });
}

#[test]
fn a_transaction() {
    isolated_as_root("a_transaction", WATCHDOG, || {
        if !has_network() {
            return;
        }
        let mut daemon = start("transaction");
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

/// Compares docs/daemons.md with the programs. Only their first line, and the lines that this file needs, may differ.
#[test]
fn the_page_quotes_the_programs() {
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
