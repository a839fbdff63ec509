//! If /proc cannot be used, every thread is still covered, or the call fails (P10).
#![allow(unsafe_code)]

mod support;

use std::time::Duration;

use libpsx::{Error, Requirement, UnreachableReason};
use support::{
    block_all, covers, enter_empty_root, filter, forked, install, isolated, isolated_as_root,
    prepared, proc, set_slack, slack, sleepers, step, watchdog, witnesses,
};

/// It takes seconds to probe every possible tid.
const WATCHDOG: Duration = Duration::from_secs(120);

#[test]
fn empty_chroot_with_the_right_to_mount() {
    isolated_as_root("empty_chroot_with_the_right_to_mount", WATCHDOG, || {
        let witnesses = witnesses(6);
        covers(&witnesses, 1001);
        enter_empty_root();
        covers(&witnesses, 1002);
    });
}

/// The library mounts a proc of its own, in which it finds the name and the state of a thread.
#[test]
fn empty_chroot_with_a_thread_that_blocks_the_signal() {
    isolated_as_root("empty_chroot_with_a_thread_that_blocks_the_signal", WATCHDOG, || {
        prepared(|| {
            // SAFETY: the argument is a string.
            unsafe { libc::prctl(libc::PR_SET_NAME, c"blocker".as_ptr()) };
            block_all();
        });
        enter_empty_root();
        blocker_is_named(false);
    });
}

/// Checks that a call fails, and that the error has the name and the state of the thread that blocks the signal.
fn blocker_is_named(proc_is_mounted: bool) {
    // A thread that gets no CPU falls asleep late.
    let call = slack(1001).deadline(watchdog(Duration::from_millis(300)));
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    let error = unsafe { call.execute_with_report() }.unwrap_err();
    let Error::Unreachable(threads) = &error else { panic!("{error}") };
    let [thread] = threads.threads() else { panic!("{error}") };
    if !proc_is_mounted && thread.state() == '?' {
        support::skipped("no proc can be mounted");
        return;
    }
    assert_eq!((thread.name(), thread.state()), ("blocker", 'S'), "{error}");
    assert_eq!(thread.reason(), UnreachableReason::SignalBlocked, "{error}");
}

/// A thread with a filter mounts no proc, so the /proc of the outer namespace is all that there is.
#[test]
fn outer_namespace_with_a_thread_that_blocks_the_signal() {
    isolated_as_root("outer_namespace_with_a_thread_that_blocks_the_signal", WATCHDOG, || {
        if !support::unshared(libc::CLONE_NEWPID) {
            return;
        }
        forked(|| {
            prepared(|| {
                // SAFETY: the argument is a string.
                unsafe { libc::prctl(libc::PR_SET_NAME, c"blocker".as_ptr()) };
                block_all();
            });
            filter(libc::SYS_fsopen, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
            blocker_is_named(true);
        });
    });
}

#[test]
fn empty_chroot_without_privilege() {
    isolated_as_root("empty_chroot_without_privilege", WATCHDOG, || {
        let witnesses = witnesses(6);
        enter_empty_root();
        // SAFETY: the ids are numbers.
        unsafe { libpsx::syscall3(libc::SYS_setresuid, 65534, 65534, 65534) }.unwrap();
        covers(&witnesses, 1003);
    });
}

#[test]
fn descriptor_table_full() {
    isolated("descriptor_table_full", WATCHDOG, || {
        let witnesses = witnesses(6);
        covers(&witnesses, 1001);
        let few = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
        // SAFETY: the kernel reads the structure. If the limit was lower, it may stay.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &few) };
        let mut held = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        covers(&witnesses, 1002);
        held.pop();
        covers(&witnesses, 1003);
        held.pop();
        covers(&witnesses, 1004);
    });
}

/// Refuses tgkill(2) of that thread to the calling thread, as a security module does.
fn refuse_tgkill(tid: i32) {
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |jf, value| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, jf, value);
    let answer = |action| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    install(&[
        load(0),
        equal(3, libc::SYS_tgkill as u32),
        load(24),
        equal(1, tid as u32),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ]);
}

#[test]
fn thread_that_cannot_be_asked_for() {
    isolated_as_root("thread_that_cannot_be_asked_for", WATCHDOG, || {
        let witnesses = witnesses(3);
        let leader = std::process::id() as i32;
        let other = proc::tids().into_iter().rfind(|&tid| tid != leader).unwrap();
        enter_empty_root();
        refuse_tgkill(other);
        covers(&witnesses, 1001);
    });
}

/// The process is in a PID namespace below that of /proc, where its own number belongs to another thread.
#[test]
fn proc_of_an_outer_namespace() {
    isolated_as_root("proc_of_an_outer_namespace", WATCHDOG, || {
        if !support::unshared(libc::CLONE_NEWPID) {
            return;
        }
        forked(|| {
            let witnesses = witnesses(4);
            let names = proc::tids();
            covers(&witnesses, 1001);
            let last = names.iter().max().unwrap() - 1;
            std::fs::write("/proc/sys/kernel/ns_last_pid", last.to_string()).unwrap();
            let caller = std::thread::spawn(move || {
                // SAFETY: gettid touches no memory.
                let tid = unsafe { libc::gettid() };
                assert!(names.contains(&tid), "{tid} is not among {names:?}");
                covers(&witnesses, 1002);
            });
            caller.join().unwrap();
        });
    });
}

/// If no thread can be probed, the call fails. The library does not guess.
#[test]
fn threads_that_cannot_be_listed() {
    isolated_as_root("threads_that_cannot_be_listed", WATCHDOG, || {
        sleepers(3);
        enter_empty_root();
        // The second answer says that there is no thread, not even the caller.
        for answer in [libc::EPERM, libc::ESRCH] {
            forked(|| {
                sleepers(3);
                filter(libc::SYS_tgkill, libc::SECCOMP_RET_ERRNO | answer as u32);
                let error = set_slack(1001).unwrap_err();
                assert!(
                    matches!(
                        error,
                        Error::Environment { requirement: Requirement::ThreadList, .. }
                    ),
                    "{error}"
                );
                assert_eq!(error.raw_os_error(), libc::EPERM);
            });
        }
    });
}
