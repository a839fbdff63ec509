//! Children of every kind make calls for themselves, whatever their parent is doing (P8).
#![cfg(not(target_arch = "loongarch64"))]
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libpsx::{Error, Requirement};
use support::raw::*;
use support::*;

const WATCHDOG: Duration = Duration::from_secs(60);

static STOP: AtomicBool = AtomicBool::new(false);

/// Runs in a child that shares its parent's memory. Returns 0 if the call succeeds.
extern "C" fn call_alone(_: *mut libc::c_void) -> i32 {
    i32::from(!no_new_privs().is_ok_and(|report| report.threads() == 1))
}

/// Runs in a child with its own memory: it calls, creates a thread, and calls again.
fn call_and_end() -> ! {
    let alone = call_alone(std::ptr::null_mut());
    let made = raw_thread(memory(STACK), None, sleep_for_ever) > 0;
    let both = set_slack(4321).is_ok_and(|report| report.threads() == 2);
    // SAFETY: _exit touches no memory.
    unsafe { libc::_exit(i32::from(alone != 0 || !made || !both)) }
}

/// A child that shares this memory and creates a thread of its own gets an error.
extern "C" fn call_among_several_threads(_: *mut libc::c_void) -> i32 {
    let made = raw_thread(memory(STACK), None, sleep_for_ever) > 0;
    let told = matches!(
        no_new_privs(),
        Err(Error::Environment { requirement: Requirement::ExclusiveMemory, .. })
    );
    // SAFETY: _exit touches no memory.
    unsafe { libc::_exit(i32::from(!made || !told)) }
}

/// Makes a child that shares this memory.
fn sharing_child(flags: i32, body: extern "C" fn(*mut libc::c_void) -> i32) -> i32 {
    let top = (memory(4 * STACK) + 4 * STACK) as *mut libc::c_void;
    let flags = libc::CLONE_VM | libc::SIGCHLD | flags;
    // SAFETY: only the child uses the stack, which stays allocated.
    unsafe { libc::clone(body, top, flags, std::ptr::null_mut()) }
}

/// The child cannot see this process, and has an id of another namespace. Such a child needs CAP_SYS_ADMIN.
fn child_in_a_pid_namespace() -> i32 {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    let pid = sharing_child(libc::CLONE_NEWPID, call_among_several_threads);
    if pid != -1 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EPERM) {
        return pid;
    }
    if !REFUSED.swap(true, Ordering::SeqCst) {
        skipped("no PID namespace may be made here");
    }
    sharing_child(0, call_among_several_threads)
}

fn child_of_raw_clone() -> i32 {
    let pid = cpu::fork_by_clone();
    if pid == 0 { call_and_end() } else { pid }
}

fn child_of_fork_without_handlers() -> i32 {
    // SAFETY: the function looks up a name.
    let fork = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_Fork".as_ptr()) };
    if fork.is_null() {
        return child_of_raw_clone();
    }
    // SAFETY: the C library declares _Fork with this type.
    let fork = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i32>(fork) };
    let pid = fork();
    if pid == 0 { call_and_end() } else { pid }
}

/// Every kind of child calls for itself, and this process is unchanged.
fn children_of_every_kind() {
    let kinds: [fn() -> i32; 7] = [
        || sharing_child(0, call_alone),
        || sharing_child(libc::CLONE_SIGHAND, call_alone),
        || sharing_child(libc::CLONE_VFORK, call_alone),
        || sharing_child(0, call_among_several_threads),
        child_in_a_pid_namespace,
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
