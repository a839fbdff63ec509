//! The server drops its privileges under load, and no request fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::daemon::{Daemon, has_network};
use crate::support::{isolated_as_root, skipped, until};
use crate::{WATCHDOG, audit};

const ADDRESS: &str = "127.0.0.1:80";
const CLIENTS: usize = 8;

static ANSWERED: AtomicUsize = AtomicUsize::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// Sends requests on one connection, and checks each answer, until the test is over.
fn client() {
    let mut stream = TcpStream::connect(ADDRESS).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    while !OVER.load(Ordering::SeqCst) {
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(answers.read_line(&mut line).unwrap(), 0, "closed after {lines:?}");
            if line == "\r\n" {
                break;
            }
            lines.push(line);
        }
        let mut body = [0; 6];
        answers.read_exact(&mut body).unwrap();
        assert!(lines[0].starts_with("HTTP/1.1 200 ") && body == *b"hello\n", "{lines:?} {body:?}");
        ANSWERED.fetch_add(1, Ordering::SeqCst);
    }
}

fn answer(request: &str) -> String {
    let mut stream = TcpStream::connect(ADDRESS).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Returns how many connections there are in this network namespace.
fn connections() -> usize {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    // The fourth column is the state, proc_net_tcp(5): 01 is ESTABLISHED.
    let established = |line: &&str| line.split_whitespace().nth(3) == Some("01");
    sockets.lines().filter(established).count() / 2
}

fn start() -> Daemon {
    let mut server = Daemon::start(&mut Command::new(env!("CARGO_BIN_EXE_web_server")));
    server.line_with("serving on 0.0.0.0:80");
    server
}

#[test]
fn drops_under_load() {
    isolated_as_root("web_server::drops_under_load", WATCHDOG, || {
        if !has_network() {
            return;
        }
        let server = start();
        let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(client)).collect();
        until(|| ANSWERED.load(Ordering::SeqCst) > 1000);
        // The threads are four workers, four blocking threads that never end, and the main thread.
        let before = server.field("Uid");
        assert!(before.len() >= 9 && before.iter().all(|ids| ids == "0 0 0 0"), "{before:?}");
        assert!(answer("GET /").contains(" threads are root</h1>"));

        let dropped = answer("POST /drop");
        assert!(dropped.starts_with("HTTP/1.1 303 "), "{dropped}");
        assert!(server.is_dropped(), "{:?}", server.field("Uid"));
        let at = ANSWERED.load(Ordering::SeqCst);
        until(|| ANSWERED.load(Ordering::SeqCst) > at + 1000);
        OVER.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        println!("{} requests, each answered", ANSWERED.load(Ordering::SeqCst));

        // The threads that were made since are included. A second request changes nothing.
        assert!(answer("POST /drop").starts_with("HTTP/1.1 303 "));
        let page = answer("GET /");
        assert!(page.contains("<h1>0 of ") && page.contains(">housekeeping<"), "{page}");
        assert!(page.contains("<td class=root>root") && page.contains("<td class=nobody>nobody"));
        assert!(server.is_dropped());
        audit(&server);
    });
}

/// Drops privileges under the load of wrk(1), which counts failed requests.
#[test]
fn drops_under_wrk() {
    isolated_as_root("web_server::drops_under_wrk", WATCHDOG, || {
        if !has_network() {
            return;
        }
        let server = start();
        let mut wrk = Command::new("wrk");
        wrk.args(["-t2", "-c32", "-d2s", "http://127.0.0.1/hello"]);
        let wrk = match wrk.stdout(std::process::Stdio::piped()).spawn() {
            Ok(wrk) => wrk,
            Err(error) => return skipped(format!("no load by wrk: {error}")),
        };
        until(|| connections() >= 32);
        assert!(answer("POST /drop").starts_with("HTTP/1.1 303 "));
        assert!(server.is_dropped());
        let output = wrk.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}");
        assert!(output.status.success() && text.contains("requests in"), "{text}");
        assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        assert!(server.is_dropped());
    });
}
