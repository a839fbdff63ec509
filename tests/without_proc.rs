//! Where /proc cannot be used, every thread is still covered, or it is an error (P10).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use libpsx::{Broadcast, Error, Need, Report};
use support::{isolated, skipped_without_root};

/// Probing for every possible tid takes seconds.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Threads that answer for themselves, because nobody can look at them from outside.
static ROUND: AtomicU32 = AtomicU32::new(0);
static ANSWERS: AtomicU32 = AtomicU32::new(0);
static WITH_NEW_STATE: AtomicU32 = AtomicU32::new(0);
static WANTED: AtomicI32 = AtomicI32::new(0);

fn wait_for(word: &AtomicU32, done: impl Fn(u32) -> bool) {
    loop {
        let seen = word.load(Ordering::SeqCst);
        if done(seen) {
            return;
        }
        let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word is a static; FUTEX_WAIT only reads it.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, seen, 0usize) };
    }
}

fn wake(word: &AtomicU32) {
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: FUTEX_WAKE does not touch the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, i32::MAX) };
}

fn answering_threads(count: u32) {
    for _ in 0..count {
        std::thread::spawn(|| {
            for round in 1.. {
                wait_for(&ROUND, |now| now >= round);
                // SAFETY: PR_GET_TIMERSLACK touches no memory.
                let slack = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
                if slack == WANTED.load(Ordering::SeqCst) {
                    WITH_NEW_STATE.fetch_add(1, Ordering::SeqCst);
                }
                ANSWERS.fetch_add(1, Ordering::SeqCst);
                wake(&ANSWERS);
            }
        });
    }
}

/// Sets a timer slack on every thread, and lets each of the `count` tell its own.
fn covers(count: u32, slack: i32) -> Report {
    let call = Broadcast::new(
        libc::SYS_prctl,
        [libc::PR_SET_TIMERSLACK as usize, slack as usize, 0, 0, 0, 0],
    );
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    let report = unsafe { call.deadline(Duration::from_secs(60)).run() }.unwrap();
    WANTED.store(slack, Ordering::SeqCst);
    ANSWERS.store(0, Ordering::SeqCst);
    WITH_NEW_STATE.store(0, Ordering::SeqCst);
    ROUND.fetch_add(1, Ordering::SeqCst);
    wake(&ROUND);
    wait_for(&ANSWERS, |now| now == count);
    assert_eq!(WITH_NEW_STATE.load(Ordering::SeqCst), count, "{report:?}");
    assert!(report.threads() > count as usize);
    report
}

fn enter_empty_root() {
    let path = std::env::temp_dir().join("psx-empty");
    std::fs::create_dir_all(&path).unwrap();
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    std::os::unix::fs::chroot(&path).unwrap();
    std::env::set_current_dir("/").unwrap();
}

#[test]
fn empty_chroot_with_the_right_to_mount() {
    if skipped_without_root("empty_chroot_with_the_right_to_mount") {
        return;
    }
    isolated("empty_chroot_with_the_right_to_mount", WATCHDOG, || {
        answering_threads(6);
        covers(6, 1001);
        enter_empty_root();
        covers(6, 1002);
    });
}

#[test]
fn empty_chroot_without_privilege() {
    if skipped_without_root("empty_chroot_without_privilege") {
        return;
    }
    isolated("empty_chroot_without_privilege", WATCHDOG, || {
        answering_threads(6);
        enter_empty_root();
        // SAFETY: the ids are plain numbers.
        unsafe { libpsx::syscall3(libc::SYS_setresuid, 65534, 65534, 65534) }.unwrap();
        covers(6, 1003);
    });
}

#[test]
fn descriptor_table_full() {
    isolated("descriptor_table_full", WATCHDOG, || {
        answering_threads(6);
        covers(6, 1001);
        let mut held = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        covers(6, 1002);
        held.pop();
        covers(6, 1003);
        held.pop();
        covers(6, 1004);
    });
}

/// tgkill(2) of that thread is refused to the calling one, as by a security module.
fn refuse_tgkill(tid: i32) {
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset);
    let equal = |jf, value| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jf, value);
    let answer = |action| step(libc::BPF_RET | libc::BPF_K, 0, action);
    let program = [
        load(0),
        equal(3, libc::SYS_tgkill as u32),
        load(24),
        equal(1, tid as u32),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let len = program.len() as u16;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let set = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads the program.
    assert_eq!(unsafe { libc::syscall(libc::SYS_seccomp, set, 0, &program) }, 0);
}

#[test]
fn thread_that_cannot_be_asked_for() {
    if skipped_without_root("thread_that_cannot_be_asked_for") {
        return;
    }
    isolated("thread_that_cannot_be_asked_for", WATCHDOG, || {
        answering_threads(3);
        let leader = std::process::id() as i32;
        let other = support::proc::tids().into_iter().rfind(|&tid| tid != leader).unwrap();
        enter_empty_root();
        refuse_tgkill(other);
        covers(3, 1001);
    });
}

/// In a PID namespace below that of /proc, where our own number there is another thread's.
#[test]
fn proc_of_an_outer_namespace() {
    if skipped_without_root("proc_of_an_outer_namespace") {
        return;
    }
    isolated("proc_of_an_outer_namespace", WATCHDOG, || {
        // SAFETY: unshare touches no memory.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
        // SAFETY: the child of fork makes threads, which glibc allows here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            answering_threads(4);
            let names = support::proc::tids();
            covers(4, 1001);
            let last = names.iter().max().unwrap() - 1;
            std::fs::write("/proc/sys/kernel/ns_last_pid", last.to_string()).unwrap();
            let caller = std::thread::spawn(move || {
                // SAFETY: gettid touches no memory.
                let tid = unsafe { libc::gettid() };
                assert!(names.contains(&tid), "{tid} is not among {names:?}");
                covers(4, 1002);
            });
            support::end(i32::from(caller.join().is_err()));
        }
        let mut status = 0;
        // SAFETY: the kernel writes the status.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0);
    });
}

/// Where no thread can be asked for, that is an error, and no guess.
#[test]
fn threads_that_cannot_be_listed() {
    if skipped_without_root("threads_that_cannot_be_listed") {
        return;
    }
    isolated("threads_that_cannot_be_listed", WATCHDOG, || {
        answering_threads(3);
        enter_empty_root();
        support::filter(libc::SYS_tgkill, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
        let error = support::set_slack(1001).unwrap_err();
        assert!(matches!(error, Error::Environment { need: Need::Threads, .. }), "{error}");
        assert_eq!(error.raw_os_error(), libc::EPERM);
    });
}
