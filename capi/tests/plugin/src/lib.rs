//! A Rust library as a C program loads it. It says nothing of `-z nodelete`: the test links it with
//! and without.
#![allow(unsafe_code)]

use libpsx::syscall3;

/// PR_SET_NO_NEW_PRIVS in every thread. Returns 0, or an error number.
#[unsafe(no_mangle)]
pub extern "C" fn no_new_privs() -> i32 {
    const SET: usize = libc::PR_SET_NO_NEW_PRIVS as usize;
    // SAFETY: it touches no memory.
    match unsafe { syscall3(libc::SYS_prctl, SET, 1, 0) } {
        Ok(_) => 0,
        Err(error) => error.raw_os_error(),
    }
}
