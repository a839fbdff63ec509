//! All threads beside tokio are in the same namespaces. The impossible cases have other solutions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use crate::WATCHDOG;
use crate::support::daemon::Daemon;
use crate::support::{isolated_as_root, private_mounts, unshared, user_namespaces};

/// Returns the namespaces of this kind that the threads are in, seen from outside.
fn of(daemon: &Daemon, kind: &str) -> BTreeSet<PathBuf> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.process.id())).unwrap();
    let link = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_link(task.ok()?.path().join("ns").join(kind)).ok()
    };
    tasks.filter_map(link).collect()
}

#[test]
fn beside_tokio() {
    isolated_as_root("namespaces::beside_tokio", WATCHDOG, || {
        let flags =
            libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;
        if !unshared(flags) || !private_mounts() || !user_namespaces() {
            return;
        }
        let own = |kind: &str| std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap();
        let mut daemon = Daemon::start(&mut Command::new(env!("CARGO_BIN_EXE_namespaces")));
        for kind in ["net", "uts", "ipc", "cgroup"] {
            let line = daemon.line_with(&format!("{kind}: all "));
            assert!(!line.contains(own(kind).to_str().unwrap()), "{line}");
        }
        daemon.line_with("net: a task is in net:");
        let back = daemon.line_with("net: all threads back in ");
        assert!(back.ends_with(own("net").to_str().unwrap()), "{back}");
        daemon.line_with("user: refused (EINVAL)");
        daemon.line_with("mount: refused (EINVAL)");
        daemon.line_with("a child process: process 1 in user:");
        daemon.line_with("a file of another mount namespace: from the thread's own mounts");
        daemon.line_with("mnt: all threads in mnt:");
        // The thread with its own mounts has ended, and all other threads are in the same namespace.
        for kind in ["net", "uts", "ipc", "cgroup", "mnt", "user", "pid"] {
            let found = of(&daemon, kind);
            assert_eq!(found.len(), 1, "{kind}: {found:?}");
            let moved = ["uts", "ipc", "cgroup", "mnt"].contains(&kind);
            assert_eq!(found.contains(&own(kind)), !moved, "{kind}: {found:?}");
        }
        assert!(daemon.end().success());
    });
}
