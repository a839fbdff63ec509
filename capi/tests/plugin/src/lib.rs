//! A Rust library that a C program loads. Nothing here sets `-z nodelete`: the test links the library with it and
//! without it.
#![allow(unsafe_code)]

use libpsx::syscall3;

/// Sets no_new_privs in every thread. Returns 0 or an error number.
#[unsafe(no_mangle)]
pub extern "C" fn no_new_privs() -> i32 {
    const SET: usize = libc::PR_SET_NO_NEW_PRIVS as usize;
    // SAFETY: the call accesses no memory.
    match unsafe { syscall3(libc::SYS_prctl, SET, 1, 0) } {
        Ok(_) => 0,
        Err(error) => error.raw_os_error(),
    }
}
