//! The rights of a ring's kernel thread, before and after privileges are dropped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::WATCHDOG;
use crate::support::daemon::Daemon;
use crate::support::{isolated_as_root, skipped};

struct Server {
    daemon: Daemon,
    address: String,
    /// A file that only root may read.
    secret: PathBuf,
}

impl Server {
    /// Starts the server. Returns `None` and prints a note if there is no io_uring.
    fn start(arguments: &[&str]) -> Option<Self> {
        let secret =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("secret{}", arguments.len()));
        std::fs::write(&secret, "secret").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        if let Err(error) = io_uring::IoUring::new(2) {
            skipped(format!("no io_uring: {error}"));
            return None;
        }
        let mut daemon = Daemon::start(Command::new(env!("CARGO_BIN_EXE_uring")).args(arguments));
        let line = daemon.line_with("serving on ");
        let address = line.trim_start_matches("serving on ").to_owned();
        Some(Self { daemon, address, secret })
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn secret(&self) -> String {
        self.ask(self.secret.to_str().unwrap())
    }

    /// Returns the ring's kernel threads, found by their names, with their user ids.
    fn kernel_threads(&self) -> Vec<String> {
        let names = self.daemon.field("Name");
        let ids = self.daemon.field("Uid");
        names
            .iter()
            .zip(ids)
            .filter(|(name, _)| name.starts_with("iou-sqp"))
            .map(|(_, id)| id)
            .collect()
    }
}

#[test]
fn closes_the_ring_first() {
    isolated_as_root("uring::closes_the_ring_first", WATCHDOG, || {
        let Some(mut server) = Server::start(&[]) else { return };
        assert_eq!(server.secret(), "secret");
        assert_eq!(server.kernel_threads(), ["0 0 0 0"]);
        let answer = server.ask("drop");
        server.daemon.line_with("1 kernel thread would keep root's privileges");
        assert_eq!(answer, "4 threads are nobody; 0 kernel threads keep the old privileges\n");
        // The new ring has a thread with the user nobody too.
        assert!(server.daemon.is_dropped(), "{:?}", server.daemon.field("Uid"));
        assert_eq!(server.kernel_threads(), ["65534 65534 65534 65534"]);
        let refused = std::io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(server.secret(), format!("{refused}\n"));
        // The server still serves files that every user may read.
        assert_eq!(server.ask("/proc/version"), std::fs::read_to_string("/proc/version").unwrap());
    });
}

/// Keeps the old ring: the server still reads as root after the drop, and the report shows it.
#[test]
fn keeps_the_ring() {
    isolated_as_root("uring::keeps_the_ring", WATCHDOG, || {
        let Some(server) = Server::start(&["--keep-ring"]) else { return };
        let answer = server.ask("drop");
        assert_eq!(answer, "4 threads are nobody; 1 kernel threads keep the old privileges\n");
        assert_eq!(server.kernel_threads(), ["0 0 0 0"]);
        assert_eq!(server.secret(), "secret");
    });
}
