//! C's libpsx in the same process: it uses signal 33 too (P6). Which version it is, the loader
//! decides; `.ci/run` has a recent one.
#![allow(unsafe_code)]

mod support;

use std::ffi::{CStr, c_long};
use std::sync::atomic::{AtomicBool, Ordering};

use support::{forked, set_slack, slack_here, sleepers};

type PsxSyscall3 = unsafe extern "C" fn(c_long, c_long, c_long, c_long) -> c_long;

/// C's `psx_syscall3`, in a child of its own that the clock ends if nothing else does.
fn beside(body: fn(PsxSyscall3)) {
    // SAFETY: libcap's libpsx may be loaded at any time.
    let library = unsafe { libc::dlopen(c"libpsx.so.2".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        // SAFETY: touches nothing of ours.
        let why = unsafe { libc::dlerror() };
        // SAFETY: after a failure it is a string.
        let why = unsafe { CStr::from_ptr(why) };
        support::skipped(format!("no C libpsx: {}", why.to_string_lossy()));
        return;
    }
    // SAFETY: the name is a string.
    let symbol = unsafe { libc::dlsym(library, c"psx_syscall3".as_ptr()) };
    // SAFETY: sys/psx_syscall.h declares it like this.
    let call = unsafe { std::mem::transmute::<*mut libc::c_void, PsxSyscall3>(symbol) };
    forked(|| {
        // SAFETY: alarm(2) touches no memory.
        unsafe { libc::alarm(60) };
        body(call);
    });
}

fn slack_by_c(call: PsxSyscall3, value: c_long) {
    let set = c_long::from(libc::PR_SET_TIMERSLACK);
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    assert_eq!(unsafe { call(libc::SYS_prctl, set, value, 0) }, 0);
}

#[test]
fn taking_turns() {
    beside(|call| {
        sleepers(5);
        for value in 1..300 {
            set_slack(value).unwrap();
            slack_by_c(call, 1000 + value as c_long);
            assert_eq!(slack_here(), 1000 + value);
        }
    });
}

#[test]
fn at_the_same_time() {
    beside(|call| {
        static OVER: AtomicBool = AtomicBool::new(false);
        sleepers(5);
        set_slack(1).unwrap();
        let other = std::thread::spawn(move || {
            let mut calls = 0;
            while !OVER.load(Ordering::SeqCst) {
                slack_by_c(call, 7);
                calls += 1;
            }
            calls
        });
        for value in 1..300 {
            set_slack(value).unwrap();
        }
        OVER.store(true, Ordering::SeqCst);
        println!("{} calls of C's beside 300 of ours", other.join().unwrap());
    });
}
