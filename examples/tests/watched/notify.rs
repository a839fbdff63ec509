//! What systemd is told, and when; and the unit.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::Daemon;
use crate::support::{isolated_as_root, skipped, watchdog};
use crate::{WATCHDOG, audit};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/psx-example.service");

#[test]
fn is_ready_when_it_is_nobody() {
    isolated_as_root("notify::is_ready_when_it_is_nobody", WATCHDOG, || {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("notify");
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).unwrap();
        // The daemon writes to the socket when it is nobody, as it does to systemd's.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .unwrap();
        manager.set_read_timeout(Some(watchdog(WATCHDOG))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_notify"));
        let daemon = Daemon::start(command.arg("127.0.0.1:0").env("NOTIFY_SOCKET", &path));
        let mut data = [0; 1024];
        let length = manager.recv(&mut data).unwrap();
        // No thread is anything else when the message is there.
        assert!(daemon.is_dropped(), "{:?}", daemon.field("Uid"));
        let text = std::str::from_utf8(&data[..length]).unwrap();
        assert!(text.starts_with("READY=1\nSTATUS=nobody in "), "{text}");
        let (_, address) = text.trim_end().rsplit_once(' ').unwrap();
        let mut answer = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello\n");
        audit(&daemon);
    });
}

/// systemd takes the unit as it is.
#[test]
fn the_unit() {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    assert!(unit.contains("Type=notify"));
    // The program is not installed: it is the one thing that systemd would miss.
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("psx-example.service");
    let unit = unit.replace("/usr/local/bin/notify", env!("CARGO_BIN_EXE_notify"));
    std::fs::write(&place, unit).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg(&place).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let about_it: Vec<_> =
                said.lines().filter(|line| line.contains("psx-example")).collect();
            assert!(about_it.is_empty(), "{about_it:#?}");
        }
        Err(error) => skipped(format!("no systemd-analyze: {error}")),
    }
}
