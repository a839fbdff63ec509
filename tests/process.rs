//! Tests the typed calls. Each result is checked in every thread, in /proc or by a question to the thread.
#![allow(unsafe_code)]

#[path = "process/capabilities.rs"]
mod capabilities;
#[path = "process/identity.rs"]
mod identity;
#[path = "process/prctls.rs"]
mod prctls;
#[path = "process/sandbox.rs"]
mod sandbox;
mod support;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use libpsx::process::*;
use libpsx::{Error, RefusalReason, Transaction};
use support::{
    Asked, all_have, forked, isolated, isolated_as_root, proc, slack_here, sleepers, wide,
};

const WATCHDOG: Duration = Duration::from_secs(60);

/// Prepares one case: a process with threads of the C library, of std, and made by raw clone(2).
#[must_use]
fn threads() -> Asked {
    sleepers(2);
    #[cfg(not(target_arch = "loongarch64"))]
    support::raw::raw_threads(1);
    Asked::new(2)
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> i32 {
    match result {
        Err(Error::Call(errno)) => errno.raw_os_error(),
        other => panic!("not an error of the kernel: {other:?}"),
    }
}

/// Fields of proc_pid_stat(5), counted from 1.
fn all_stat(field: usize, wanted: &str) {
    for tid in proc::tids() {
        let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
        let after = text.rsplit_once(") ").unwrap().1;
        assert_eq!(after.split(' ').nth(field - 3), Some(wanted), "field {field} of {tid}");
    }
}

fn uid(raw: u32) -> Uid {
    Uid::new(raw).unwrap()
}

fn gid(raw: u32) -> Gid {
    Gid::new(raw).unwrap()
}

fn namespaces(name: &str) -> Vec<std::path::PathBuf> {
    let link = |tid| std::fs::read_link(format!("/proc/self/task/{tid}/ns/{name}")).unwrap();
    proc::tids().into_iter().map(link).collect()
}

#[test]
fn new_namespaces() {
    isolated_as_root("new_namespaces", WATCHDOG, || {
        let _asked = threads();
        let names = ["net", "uts", "ipc", "cgroup"];
        let before = names.map(|name| namespaces(name)[0].clone());
        unshare(Namespace::Uts).unwrap();
        assert!(namespaces("uts").iter().all(|link| *link == before[1]), "a thread has joined it");
        unshare_all(&Namespace::ALL).unwrap();
        for (name, before) in names.iter().zip(&before) {
            let now = namespaces(name);
            assert!(now.iter().all(|link| link == &now[0] && link != before), "{name}: {now:?}");
        }
        let wrong = std::fs::File::open("/proc/self/ns/net").unwrap();
        assert_eq!(errno(setns(&wrong, Namespace::Uts).execute()), libc::EINVAL);
        assert_eq!(errno(setns(wrong.as_fd(), Namespace::Uts).execute()), libc::EINVAL);
        // A kind that is named several times is made once.
        unshare_all(&[Namespace::Uts; 5]).unwrap();

        let now = namespaces("net");
        // If every thread made the call, there would be as many namespaces. A single thread affects only itself.
        let plain = || {
            let flags = [libc::CLONE_NEWNET as usize, 0, 0, 0, 0, 0];
            // SAFETY: the call touches no memory.
            unsafe { libpsx::Broadcast::new(libc::SYS_unshare, flags).execute() }
        };
        assert!(matches!(plain(), Err(Error::Refused(RefusalReason::CreatesNamespace))));
        assert_eq!(namespaces("net"), now);
        forked(|| assert_eq!(plain().unwrap(), 0));
        capset(CapabilitySets::EMPTY).execute().unwrap();
        assert_eq!(errno(unshare(Namespace::Network)), libc::EPERM);
        assert_eq!(namespaces("net"), now);
    });
}

#[test]
fn scheduling() {
    isolated("scheduling", WATCHDOG, || {
        let asked = threads();
        let first = std::fs::read_to_string("/proc/self/status").unwrap();
        let first = first.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
        let cpu: u32 = first.split([':', '\t', '-', ',']).find_map(|n| n.parse().ok()).unwrap();

        // Without root, a process that was started with a nice value may only raise it.
        // SAFETY: getpriority touches no memory.
        let started_with = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let [nice, nicer] = [7, 9].map(|nice| started_with.max(nice));
        setpriority(nice).execute().unwrap();
        all_stat(19, &nice.to_string());
        sched_setscheduler(SchedPolicy::Batch(nicer)).execute().unwrap();
        all_stat(41, "3");
        all_stat(19, &nicer.to_string());
        sched_setscheduler(SchedPolicy::Idle).execute().unwrap();
        all_stat(41, "5");
        // SAFETY: the call only reads a value.
        let policy = || wide(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) });
        const RESET_ON_FORK: i64 = 0x4000_0000;
        // Without root, a thread may not leave SCHED_IDLE.
        if !support::skipped_without_root("the policy after SCHED_IDLE") {
            let reset = SchedAttr::new(SchedPolicy::Batch(11)).reset_on_fork();
            sched_setattr(reset).execute().unwrap();
            asked.all_answer(policy, RESET_ON_FORK | 3);
            all_stat(19, "11");
        }
        let clamped = sched_setattr(SchedAttr::keep_all().util_min(100).util_max(900));
        match clamped.execute() {
            Ok(_) => {
                asked.all_answer(policy, RESET_ON_FORK | 3);
                all_stat(19, "11");
                let clamps = || {
                    let mut attr = [0u64; 7];
                    let at = attr.as_mut_ptr();
                    // SAFETY: the kernel writes 56 bytes.
                    unsafe { libc::syscall(libc::SYS_sched_getattr, 0, at, 56, 0) };
                    attr[6] as i64
                };
                asked.all_answer(clamps, 900 << 32 | 100);
                let reset = SchedAttr::UTIL_RESET;
                let default = SchedAttr::keep_all().util_min(reset).util_max(reset);
                sched_setattr(default).execute().unwrap();
                asked.all_answer(clamps, 1024 << 32);
                let large = SchedAttr::keep_all().util_max(1025);
                assert_eq!(errno(sched_setattr(large).execute()), libc::EINVAL);
            }
            Err(Error::Call(errno)) if errno.raw_os_error() == libc::EOPNOTSUPP => {
                support::skipped("this kernel has no utilization clamping");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(errno(sched_setscheduler(SchedPolicy::Fifo(100)).execute()), libc::EINVAL);

        sched_setaffinity(&[1 << cpu]).execute().unwrap();
        all_have("Cpus_allowed_list", &cpu.to_string());
        assert_eq!(errno(sched_setaffinity(&[0]).execute()), libc::EINVAL);

        ioprio_set(IoPriority::BestEffort(6)).execute().unwrap();
        // SAFETY: the call takes only numbers.
        asked
            .all_answer(|| wide(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }), 2 << 13 | 6);
        ioprio_set(IoPriority::Idle).execute().unwrap();
        // SAFETY: the call takes only numbers.
        asked.all_answer(|| wide(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }), 3 << 13);
        assert_eq!(errno(ioprio_set(IoPriority::BestEffort(8)).execute()), libc::EINVAL);

        set_timer_slack(Duration::from_micros(123)).execute().unwrap();
        asked.all_answer(|| slack_here() as i64, 123_000);

        const ADDR_NO_RANDOMIZE: u32 = 0x0040000;
        assert_eq!(personality(ADDR_NO_RANDOMIZE).execute().unwrap(), 0);
        // SAFETY: the call only reads a value.
        asked.all_answer(|| unsafe { libc::personality(u32::MAX.into()) }.into(), 0x0040000);

        match set_mempolicy(MemoryPolicy::Bind, &[1]).execute() {
            Ok(_) => asked.all_answer(
                || {
                    let mut mode = 0i32;
                    let at = &raw mut mode;
                    // SAFETY: the kernel writes the mode.
                    unsafe { libc::syscall(libc::SYS_get_mempolicy, at, 0, 0, 0, 0) };
                    mode.into()
                },
                2,
            ),
            Err(Error::Call(errno)) if errno.raw_os_error() == libc::ENOSYS => {
                support::skipped("this kernel has no memory policies");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_session_keyring() {
    isolated("a_session_keyring", WATCHDOG, || {
        let asked = threads();
        // keyctl(2): KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING.
        // SAFETY: the call only reads a value.
        let session = || wide(unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) });
        let before = session();
        match new_session_keyring() {
            Ok(keyring) => {
                asked.all_answer(session, before);
                let joined = keyring.join().execute().unwrap();
                assert_eq!(joined as i32, keyring.serial());
                // Every thread has it already.
                assert_eq!(keyring.join().execute().unwrap(), 0);
                drop(keyring);
                asked.all_answer(session, joined as i64);
            }
            Err(Error::Call(errno)) if errno.raw_os_error() == libc::ENOSYS => {
                support::skipped("this kernel has no keyrings");
            }
            other => panic!("{other:?}"),
        }
    });
}

/// The user that the thread has become may not search the keyring, so the kernel makes another one of the same name.
#[test]
fn a_thread_that_joins_another_keyring_dies() {
    let name = "a_thread_that_joins_another_keyring_dies";
    if support::skipped_without_root("a keyring of root") {
        return;
    }
    let (status, output) = support::isolated_status(name, WATCHDOG, || {
        if matches!(new_session_keyring(), Err(Error::Call(errno)) if errno.raw_os_error() == libc::ENOSYS)
        {
            support::skipped("this kernel has no keyrings");
            return;
        }
        for count in [0, 3] {
            let begun = Instant::now();
            let status = support::forked_status(|| {
                support::sleepers(count);
                let keyring = new_session_keyring().unwrap();
                let calls = Transaction::new()
                    .sensitivity(libpsx::Sensitivity::Ignore)
                    .with(set_all_uids(uid(65534)))
                    .with(keyring.join());
                println!("no error: {:?}", calls.execute());
            });
            let whole = support::killed_by_libpsx(status, begun, count);
            println!("whole line: {whole}");
        }
    });
    assert!(status.success(), "{output}");
    if output.contains("SKIPPED") {
        return;
    }
    assert_eq!(output.matches("whole line: ").count(), 2, "{output}");
    let whole = output.matches("whole line: true").count();
    let lines = output.matches(" in the calling thread, expected ").count();
    assert!((whole..=2).contains(&lines), "{output}");
}

/// One operation of each kind that points to memory, in one transaction that has been moved.
#[test]
fn arguments_move_with_the_transaction() {
    isolated_as_root("arguments_move_with_the_transaction", WATCHDOG, || {
        let _asked = threads();
        let allow = [Instruction { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
        let groups = [gid(5)];
        let sets: CapabilitySets = "cap_sys_admin,cap_kill=ep".parse().unwrap();
        let made = || {
            Transaction::new()
                .with(setgroups(&groups))
                .with(sched_setscheduler(SchedPolicy::Batch(3)))
                .with(capset(sets))
                .with(seccomp(&allow, Synchronization::Kernel, SeccompFlags::EMPTY))
        };
        let boxed = Box::new(made());
        boxed.clone().execute().unwrap();
        all_have("Groups", "5");
        all_stat(41, "3");
        all_have("CapPrm", "0000000000200020");
        all_have("Seccomp_filters", "1");
    });
}
