//! Capabilities are dropped after the workers have started; glibc aborts the same daemon.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::WATCHDOG;
use crate::support::daemon::Daemon;
use crate::support::isolated_as_root;

/// The set that contains CAP_IPC_LOCK alone.
const KEPT: &str = "0000000000004000";

#[test]
fn keeps_one_capability_in_every_thread() {
    isolated_as_root("keyring_daemon::keeps_one_capability_in_every_thread", WATCHDOG, || {
        let mut daemon = Daemon::start(&mut Command::new(env!("CARGO_BIN_EXE_keyring_daemon")));
        daemon.line_with("4 threads have locked a page");
        let expected = [
            ("Uid", "65534 65534 65534 65534"),
            ("Gid", "65534 65534 65534 65534"),
            ("Groups", ""),
            ("CapPrm", KEPT),
            ("CapEff", KEPT),
            ("CapInh", "0000000000000000"),
        ];
        for one in expected {
            assert!(daemon.all_have(&[one]), "{one:?}: {:?}", daemon.field(one.0));
        }
        // The threads are four workers, the main thread, and the blocking thread that reads.
        assert!(daemon.field("Uid").len() >= 6);
        let locked = daemon.field("VmLck");
        assert!(locked.iter().all(|size| size != "0 kB"), "{locked:?}");
        assert!(daemon.end().success());
    });
}

#[test]
fn plain_calls_abort() {
    isolated_as_root("keyring_daemon::plain_calls_abort", WATCHDOG, || {
        if cfg!(not(target_env = "gnu")) {
            return crate::skipped("another C library than glibc");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyring_daemon"));
        let status = command.arg("plain").stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert_eq!(status.unwrap().signal(), Some(libc::SIGABRT));
    });
}
