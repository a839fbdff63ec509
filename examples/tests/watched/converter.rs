//! An input that takes over a thread of the converter gains no access, in any thread.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::WATCHDOG;
use crate::support::daemon::{Daemon, landlock_is_there};
use crate::support::isolated_as_root;

/// Makes two directories for the test, with a good and an evil picture. The evil picture connects to this port.
fn directories(test: &str, port: u16) -> (PathBuf, PathBuf) {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&place);
    let (from, to) = (place.join("from"), place.join("to"));
    for directory in [&from, &to] {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::fs::write(from.join("good"), b"P6 2 1 255\n\x01\x02\x03\x04\x05\x06").unwrap();
    std::fs::write(from.join("broken"), b"P6 99999999999 99999999 255\n").unwrap();
    std::fs::write(from.join("evil"), format!("TAKE OVER 127.0.0.1:{port}")).unwrap();
    (from, to)
}

/// Returns the attempts of the evil picture, from the six threads that it reaches.
fn attempts(converter: &mut Daemon) -> Vec<String> {
    converter.say("evil");
    let mut lines = Vec::new();
    loop {
        let line = converter.line().unwrap();
        if line.starts_with("evil: ") {
            assert_eq!(line, "evil: converted");
            return lines;
        }
        lines.push(line);
    }
}

const EACH: usize = 6;
const WHAT: [&str; 4] = ["open /etc/shadow", "connect", "start a program", "execve"];

fn of<'a>(lines: &'a [String], what: &str) -> Vec<&'a str> {
    let what = format!(": {what}: ");
    lines.iter().filter_map(|line| Some(line.split_once(&what)?.1)).collect()
}

#[test]
fn contains_a_hostile_input() {
    isolated_as_root("converter::contains_a_hostile_input", WATCHDOG, || {
        if !landlock_is_there() {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (from, to) = directories("contained", port);
        let mut command = Command::new(env!("CARGO_BIN_EXE_converter"));
        let mut converter = Daemon::start(command.args([&from, &to]));
        converter.line_with("5 threads are confined");
        let is_confined = [("Seccomp", "2"), ("Seccomp_filters", "1"), ("NoNewPrivs", "1")];
        assert!(converter.all_have(&is_confined), "{:?}", converter.field("Seccomp"));
        assert!(converter.all_have(&[("CapPrm", "0000000000000000"), ("Uid", "0 0 0 0")]));

        converter.say("good");
        assert_eq!(converter.line().as_deref(), Some("good: converted"));
        let bitmap = std::fs::read(to.join("good.bmp")).unwrap();
        assert_eq!(bitmap[54..], [3, 2, 1, 6, 5, 4, 0, 0]);
        assert_eq!(bitmap[..6], [b'B', b'M', 62, 0, 0, 0]);
        converter.say("broken");
        assert_eq!(converter.line().as_deref(), Some("broken: not a PPM"));

        let lines = attempts(&mut converter);
        for (what, error) in
            WHAT.into_iter().zip([libc::EACCES, libc::ENOSYS, libc::ENOSYS, libc::ENOSYS])
        {
            let expected = std::io::Error::from_raw_os_error(error).to_string();
            let ended = of(&lines, what);
            assert_eq!(ended, [expected.as_str(); EACH], "{what}: {lines:#?}");
        }
        assert!(converter.all_have(&is_confined));
        // The converter goes on working.
        converter.say("good");
        assert_eq!(converter.line().as_deref(), Some("good: converted"));
        assert!(converter.end().success());
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "the converter has connected");
    });
}

/// Runs the same input without the sandbox: each attempt succeeds, so the input is dangerous.
#[test]
fn unconfined() {
    isolated_as_root("converter::unconfined", WATCHDOG, || {
        if !Path::new("/etc/shadow").exists() {
            return crate::skipped("no /etc/shadow");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (from, to) = directories("unconfined", listener.local_addr().unwrap().port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_converter"));
        let mut converter = Daemon::start(command.arg("--unconfined").args([&from, &to]));
        let lines = attempts(&mut converter);
        for what in &WHAT[..3] {
            assert_eq!(of(&lines, what), ["succeeded"; EACH], "{what}: {lines:#?}");
        }
        let absent = std::io::Error::from_raw_os_error(libc::ENOENT).to_string();
        assert_eq!(of(&lines, "execve"), [absent.as_str(); EACH], "{lines:#?}");
        assert!(converter.end().success());
    });
}
