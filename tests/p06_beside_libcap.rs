//! Tests C's libpsx in the same process, which uses signal 33 too (P6). The loader chooses its version; `.ci/run`
//! provides a recent one.
#![allow(unsafe_code)]

mod support;

use std::ffi::{CStr, c_long};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{isolated, set_slack, slack_here, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);

type PsxSyscall3 = unsafe extern "C" fn(c_long, c_long, c_long, c_long) -> c_long;

/// Returns C's `psx_syscall3`. Records a skipped test if it cannot be loaded.
fn function_of_c() -> Option<PsxSyscall3> {
    // SAFETY: libcap's libpsx may be loaded at any time.
    let library = unsafe { libc::dlopen(c"libpsx.so.2".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        // SAFETY: the function changes nothing that this test uses.
        let why = unsafe { libc::dlerror() };
        // SAFETY: after a failure, the function returned a string.
        let why = unsafe { CStr::from_ptr(why) };
        support::skipped(format!("C's libpsx cannot be loaded: {}", why.to_string_lossy()));
        return None;
    }
    // SAFETY: the name is a string.
    let symbol = unsafe { libc::dlsym(library, c"psx_syscall3".as_ptr()) };
    // SAFETY: sys/psx_syscall.h declares the function with this type.
    Some(unsafe { std::mem::transmute::<*mut libc::c_void, PsxSyscall3>(symbol) })
}

fn slack_by_c(call: PsxSyscall3, value: c_long) {
    let set = c_long::from(libc::PR_SET_TIMERSLACK);
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    assert_eq!(unsafe { call(libc::SYS_prctl, set, value, 0) }, 0);
}

#[test]
fn taking_turns() {
    isolated("taking_turns", WATCHDOG, || {
        let Some(call) = function_of_c() else { return };
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
    isolated("at_the_same_time", WATCHDOG, || {
        let Some(call) = function_of_c() else { return };
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
        println!("{} calls of C's libpsx beside 300 of this library", other.join().unwrap());
    });
}
