//! Making a namespace for all threads, beside what else may happen then.
#![allow(unsafe_code)]

mod support;

use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libpsx::Error;
use libpsx::process::{Namespace, setns, unshare};
use support::{forked, isolated_as_root, proc, random, seed, sleepers};

const WATCHDOG: Duration = Duration::from_secs(120);

fn links(name: &str) -> Vec<std::path::PathBuf> {
    let link = |tid| std::fs::read_link(format!("/proc/self/task/{tid}/ns/{name}")).unwrap();
    proc::tids().into_iter().map(link).collect()
}

/// Another thread moves all of them while one makes a namespace: that one comes along.
#[test]
fn while_another_thread_moves_all() {
    isolated_as_root("while_another_thread_moves_all", WATCHDOG, || {
        static OVER: AtomicBool = AtomicBool::new(false);
        let mut state = seed();
        let first = std::fs::File::open("/proc/self/ns/uts").unwrap();
        unshare(Namespace::Uts).unwrap().join().execute().unwrap();
        let second = std::fs::File::open("/proc/self/ns/uts").unwrap();
        let together: &Barrier = Box::leak(Box::new(Barrier::new(2)));
        let making = std::thread::spawn(|| {
            loop {
                together.wait();
                if OVER.load(Ordering::SeqCst) {
                    return;
                }
                unshare(Namespace::Uts).unwrap();
                together.wait();
            }
        });
        for round in 0..3000 {
            let target = if round % 2 == 0 { &first } else { &second };
            together.wait();
            for _ in 0..random(&mut state) % 4000 {
                std::hint::spin_loop();
            }
            setns(target, Namespace::Uts).execute().unwrap();
            together.wait();
            let now = links("uts");
            let wanted =
                std::fs::read_link(format!("/proc/self/fd/{}", target.as_raw_fd())).unwrap();
            assert!(
                now.iter().all(|link| *link == wanted),
                "round {round}: {now:?}, not {wanted:?}"
            );
        }
        OVER.store(true, Ordering::SeqCst);
        together.wait();
        making.join().unwrap();
    });
}

/// The namespace that a process is in belongs to a user namespace in which it may do nothing: it could not go
/// back, and does not leave.
#[test]
fn where_there_is_no_way_back() {
    isolated_as_root("where_there_is_no_way_back", WATCHDOG, || {
        forked(|| {
            if !support::unshared(libc::CLONE_NEWUSER) {
                return;
            }
            std::fs::write("/proc/self/uid_map", "0 0 1\n").unwrap();
            sleepers(2);
            for kind in Namespace::ALL {
                match unshare(kind) {
                    Err(Error::Call(errno)) => assert_eq!(errno.raw_os_error(), libc::EPERM),
                    other => panic!("{kind:?}: {other:?}"),
                }
            }
            for name in ["net", "uts", "ipc", "cgroup"] {
                let now = links(name);
                assert!(now.iter().all(|link| link == &now[0]), "{now:?}");
            }
        });
    });
}
