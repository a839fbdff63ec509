//! Daemons in C, Go and Python, with an installed libpsx.so.2.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::{Daemon, has_network};
use crate::support::isolated_as_root;
use crate::{WATCHDOG, made};

const NOBODY: &str = "65534 65534 65534 65534";

/// Starts the daemon, lets it echo, and inspects its threads. `kept` is the contents of its capability sets.
fn drops(command: &mut Command, library: &Path, groups: &str, kept: &str) {
    if !has_network() {
        return;
    }
    command.env("LD_LIBRARY_PATH", library.parent().unwrap());
    let mut daemon = Daemon::start(command.arg("7"));
    daemon.line_with("dropped");
    let expected = [
        ("Uid", NOBODY),
        ("Gid", groups),
        ("Groups", ""),
        ("CapPrm", kept),
        ("CapEff", kept),
        ("NoNewPrivs", "1"),
    ];
    for one in expected {
        assert!(daemon.all_have(&[one]), "{one:?}: {:?}", daemon.field(one.0));
    }
    assert!(daemon.field("Uid").len() >= 5);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.process.id())).unwrap();
    let ours = library.canonicalize().unwrap();
    assert!(maps.contains(ours.to_str().unwrap()), "{maps}");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0u8..20 {
        socket.send_to(&[number], "127.0.0.1:7").unwrap();
        let mut data = [0; 16];
        let (length, _) = socket.recv_from(&mut data).unwrap();
        assert_eq!(data[..length], [number]);
    }
    assert!(daemon.end().success());
}

const LIBRARY: &str = "prefix/lib/libpsx.so.2";
const NONE: &str = "0000000000000000";

#[test]
fn c_on_libcap() {
    isolated_as_root("native::c_on_libcap", WATCHDOG, || {
        if let (Some(program), Some(library)) = (made("daemon-c"), made(LIBRARY)) {
            // The mask is that of CAP_NET_RAW.
            drops(&mut Command::new(program), &library, NOBODY, "0000000000002000");
        }
    });
}

#[test]
fn go() {
    isolated_as_root("native::go", WATCHDOG, || {
        if let (Some(program), Some(library)) = (made("daemon-go"), made(LIBRARY)) {
            drops(&mut Command::new(program), &library, NOBODY, NONE);
        }
    });
}

#[test]
fn python() {
    isolated_as_root("native::python", WATCHDOG, || {
        if let Some(library) = made(LIBRARY) {
            let daemon = concat!(env!("CARGO_MANIFEST_DIR"), "/native/daemon.py");
            let mut command = Command::new("python3");
            drops(command.arg(daemon).env("PYTHONDONTWRITEBYTECODE", "1"), &library, NOBODY, NONE);
        }
    });
}
