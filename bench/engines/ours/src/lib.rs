//! This library as an engine: the functions that `engine.h` declares, by the crate's public names.
//! An error's text goes to standard error.

// # Safety
//
// `bench.c` passes what `engine.h` says: three numbers, a string.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_long};

use libpsx::process::{
    CapabilitySets, Fd, Gid, LandlockFlags, Operation, Synchronization, Uid, capset,
    landlock_restrict_self, set_all_gids, set_all_uids, set_no_new_privs, setgroups,
};
use libpsx::{Error, Transaction};

const NOBODY: u32 = 65534;

fn number(error: &Error) -> c_int {
    error.raw_os_error()
}

/// See engine.h.
///
/// # Safety
/// `args` are three numbers, with which every thread may make the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn perform(nr: c_long, args: *const c_long) -> c_int {
    if nr == 0 {
        return libc::ENOSYS;
    }
    // SAFETY: the caller's promise.
    let [a, b, c] = unsafe { args.cast::<[c_long; 3]>().read() }.map(|arg| arg as usize);
    // SAFETY: the caller's promise.
    let result = unsafe { libpsx::syscall3(nr, a, b, c) };
    result.map_or_else(|error| number(&error), |_| 0)
}

/// See engine.h: "one" transaction, or "six" stops.
///
/// # Safety
/// `way` is a string, and `ruleset` an open descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn drop_privileges(way: *const c_char, ruleset: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let way = unsafe { CStr::from_ptr(way) };
    let (Ok(user), Ok(group)) = (Uid::new(NOBODY), Gid::new(NOBODY)) else {
        return libc::EINVAL;
    };
    // SAFETY: the caller keeps its ruleset open.
    let ruleset = unsafe { Fd::borrow_raw(ruleset) };
    let operations: [Operation<'_>; 6] = [
        setgroups(&[]),
        set_all_gids(group),
        set_all_uids(user),
        capset(CapabilitySets::EMPTY),
        set_no_new_privs(),
        landlock_restrict_self(ruleset, Synchronization::Broadcast, LandlockFlags::EMPTY),
    ];
    match way.to_bytes() {
        b"one" => {
            let transaction = Transaction::new();
            let transaction = operations.into_iter().fold(transaction, Transaction::with);
            transaction.execute().map_or_else(
                |error| {
                    eprintln!("{error}");
                    libc::EIO
                },
                |_| 0,
            )
        }
        b"six" => {
            let failed = operations.iter().find_map(|one| one.execute().err());
            failed.map_or(0, |error| number(&error))
        }
        _ => libc::ENOSYS,
    }
}
