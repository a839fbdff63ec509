//! Children of every kind call for themselves, whatever their parent is doing (P8).
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libpsx::{Error, Requirement};
use support::raw::*;
use support::*;

const WATCHDOG: Duration = Duration::from_secs(60);

static STOP: AtomicBool = AtomicBool::new(false);

/// What a child does that shares its parent's memory: 0 if all is well.
extern "C" fn call_alone(_: *mut libc::c_void) -> i32 {
    i32::from(!no_new_privs().is_ok_and(|report| report.threads() == 1))
}

/// What a child does that has memory of its own: it calls, makes a thread, and calls again.
fn call_and_end() -> ! {
    let alone = call_alone(std::ptr::null_mut());
    let made = raw_thread(memory(STACK), None, sleep_for_ever) > 0;
    let both = set_slack(4321).is_ok_and(|report| report.threads() == 2);
    // SAFETY: _exit touches no memory.
    unsafe { libc::_exit(i32::from(alone != 0 || !made || !both)) }
}

/// A child that shares this memory and makes a thread of its own is told that it may not.
extern "C" fn call_with_company(_: *mut libc::c_void) -> i32 {
    let made = raw_thread(memory(STACK), None, sleep_for_ever) > 0;
    let told = matches!(
        no_new_privs(),
        Err(Error::Environment { requirement: Requirement::ExclusiveMemory, .. })
    );
    // SAFETY: _exit touches no memory.
    unsafe { libc::_exit(i32::from(!made || !told)) }
}

/// A child that shares this memory.
fn sharing_child(flags: i32, body: extern "C" fn(*mut libc::c_void) -> i32) -> i32 {
    let top = (memory(4 * STACK) + 4 * STACK) as *mut libc::c_void;
    let flags = libc::CLONE_VM | libc::SIGCHLD | flags;
    // SAFETY: the stack is the child's own for ever.
    unsafe { libc::clone(body, top, flags, std::ptr::null_mut()) }
}

fn child_of_raw_clone() -> i32 {
    // SAFETY: the child makes raw calls.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0usize, 0usize, 0usize, 0) };
    if pid == 0 { call_and_end() } else { pid as i32 }
}

fn child_of_fork_without_handlers() -> i32 {
    // SAFETY: looks a name up.
    let fork = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_Fork".as_ptr()) };
    if fork.is_null() {
        return child_of_raw_clone();
    }
    // SAFETY: that is what the C library says _Fork is.
    let fork = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i32>(fork) };
    let pid = fork();
    if pid == 0 { call_and_end() } else { pid }
}

/// Every kind of child calls for itself, and this process is as it was.
fn children_of_every_kind() {
    let kinds: [fn() -> i32; 6] = [
        || sharing_child(0, call_alone),
        || sharing_child(libc::CLONE_SIGHAND, call_alone),
        || sharing_child(libc::CLONE_VFORK, call_alone),
        || sharing_child(0, call_with_company),
        child_of_raw_clone,
        child_of_fork_without_handlers,
    ];
    for _ in 0..60 {
        for (number, kind) in kinds.iter().enumerate() {
            assert_eq!(reap(kind()), 0, "kind {number}");
            all_have("NoNewPrivs", "0");
        }
    }
}

#[test]
fn children_call_for_themselves() {
    isolated("children_call_for_themselves", WATCHDOG, || {
        sleepers(3);
        raw_threads(1);
        set_slack(1).unwrap();
        children_of_every_kind();
        assert!(no_new_privs().unwrap().threads() >= 6);
        all_have("NoNewPrivs", "1");
    });
}

#[test]
fn children_call_while_the_parent_is_calling() {
    isolated("children_call_while_the_parent_is_calling", WATCHDOG, || {
        sleepers(3);
        set_slack(1).unwrap();
        let caller = std::thread::spawn(|| {
            for value in (1..).take_while(|_| !STOP.load(Ordering::Relaxed)) {
                set_slack(value).unwrap();
            }
        });
        children_of_every_kind();
        STOP.store(true, Ordering::Relaxed);
        caller.join().unwrap();
        no_new_privs().unwrap();
        all_have("NoNewPrivs", "1");
    });
}
