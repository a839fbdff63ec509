//! The message to systemd, its time, and the unit.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::{isolated_as_root, skipped};
use crate::{WATCHDOG, audit, psx};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/psx-example.service");

#[test]
fn is_ready_when_it_is_nobody() {
    isolated_as_root("notify::is_ready_when_it_is_nobody", WATCHDOG, || {
        // The user nobody may not enter the folder of the source, if that is below /root.
        let path = std::env::temp_dir().join(format!("psx-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).unwrap();
        // The daemon writes to the socket as the user nobody, as it does to systemd's socket.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_notify"));
        let mut daemon = Daemon::start(command.arg("127.0.0.1:0").env("NOTIFY_SOCKET", &path));
        let mut data = [0; 1024];
        // Ends: the message comes, or the daemon ends without it, or the watchdog ends the test.
        let length = loop {
            match manager.recv(&mut data) {
                Ok(length) => break length,
                Err(_) => assert_eq!(daemon.process.try_wait().unwrap(), None, "the daemon ended"),
            }
        };
        std::fs::remove_file(&path).unwrap();
        // When the message arrives, every thread has the user nobody.
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

/// Starts the daemon as systemd does: with the capabilities that the unit allows, in a mount namespace of its own.
/// `psx audit --unit` confirms that the daemon keeps the unit's promises.
#[test]
fn keeps_what_the_unit_promises() {
    isolated_as_root("notify::keeps_what_the_unit_promises", WATCHDOG, || {
        let Some(psx) = psx() else { return };
        let unit = std::fs::read_to_string(UNIT).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let capabilities = line.unwrap().to_lowercase().replace("cap_", "+").replace(' ', ",");
        let mut command = Command::new("unshare");
        command.args(["--mount", "setpriv", &format!("--bounding-set=-all,{capabilities}")]);
        let mut daemon = Daemon::start(command.args([env!("CARGO_BIN_EXE_notify"), "127.0.0.1:0"]));
        let Some(line) = daemon.line() else {
            return skipped("no unshare(1) or setpriv(1) of util-linux, or no mount namespace");
        };
        assert!(line.starts_with("nobody in "), "{line}");
        assert!(daemon.is_dropped());
        let bounding = daemon.field("CapBnd");
        assert!(bounding.iter().all(|set| set == "00000000000004c0"), "{bounding:?}");
        audit(&daemon);
        let help = Command::new(&psx).args(["audit", "--help"]).output().unwrap();
        if !String::from_utf8_lossy(&help.stdout).contains("--unit") {
            return skipped("this psx audit has no --unit");
        }
        let pid = daemon.process.id().to_string();
        let output = Command::new(&psx).args(["audit", &pid, "--unit", UNIT]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    });
}

/// Checks that systemd accepts the unit.
#[test]
fn the_unit() {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    assert!(unit.contains("Type=notify"));
    // The program is not installed, so systemd would report it as missing.
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
