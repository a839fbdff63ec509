//! Threads that wait for memory which their own process fills can be stopped.

use std::process::Command;

use crate::support::daemon::Daemon;
use crate::support::{isolated_as_root, skipped};
use crate::{WATCHDOG, audit};

#[test]
fn serves_on() {
    isolated_as_root("page_server::serves_on", WATCHDOG, || {
        let mut daemon = Daemon::start(&mut Command::new(env!("CARGO_BIN_EXE_page_server")));
        let line = daemon.line().unwrap();
        if line.starts_with("no userfaultfd here") {
            return skipped(line);
        }
        assert_eq!(line, "serving");
        daemon.say("drop");
        daemon.line_with("6 threads are nobody");
        assert!(daemon.is_dropped());
        daemon.line_with("20 more pages");
        assert!(daemon.is_dropped());
        audit(&daemon);
        assert!(daemon.end().success());
    });
}
