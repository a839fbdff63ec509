//! The kernel calls that libpsx makes, typed, one file for each subject. Nothing here touches errno, TLS or a lock.

// # Safety
//
// [`call`] makes any system call. It is private to this module. The functions of the files build its arguments from
// references and plain numbers, so a safe function is safe for every argument. A function that takes raw memory, or
// that relies on what its caller promises, is unsafe and says why.
#![allow(unsafe_code)]
// Under loom no thread sleeps in the kernel.
#![cfg_attr(loom, allow(dead_code))]

pub(crate) mod arch;
mod fd;
pub(crate) mod futex;
pub(crate) mod keyring;
mod kill;
pub(crate) mod mapping;
pub(crate) mod names;
pub(crate) mod proc;
pub(crate) mod signal;
mod standard_error;
pub(crate) mod sync;
mod task;
mod time;

use self::arch::Timed;
pub(crate) use self::fd::Fd;
pub(crate) use self::kill::{kill_process, kill_process_without_signal_33};
pub(crate) use self::signal::*;
pub(crate) use self::standard_error::{write_line, write_line_and_kill};
pub(crate) use self::task::*;
pub(crate) use self::time::{clock, difference, now, sum};
use crate::errno::Errno;

fn call(nr: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: private to this module, whose functions pass what their call asks for.
    Errno::check(unsafe { arch::syscall6(nr as usize, args) })
}

/// Makes a call one of whose arguments, number `place`, is the address of times, or null. On 32-bit CPUs the call that
/// takes 32-bit times is made first, because filters have known it for longer. A kernel without it says ENOSYS, and gets
/// the call that takes 64-bit times.
fn timed_call<const N: usize>(
    number: Timed,
    mut args: [usize; 6],
    place: usize,
    times: Option<[i64; N]>,
) -> Result<usize, Errno> {
    let mut call_at = |number, address| {
        args.iter_mut().skip(place).take(1).for_each(|arg| *arg = address);
        call(number, args)
    };
    if cfg!(target_pointer_width = "32") {
        let limit = |time: i64| i32::try_from(time).unwrap_or(i32::MAX);
        let narrow = times.map(|times| times.map(limit));
        let address = narrow.as_ref().map_or(0, |times| times.as_ptr() as usize);
        let result = call_at(number.plain, address);
        if result != Err(Errno::NOSYS) {
            return result;
        }
    }
    call_at(number.wide, times.as_ref().map_or(0, |times| times.as_ptr() as usize))
}

/// Performs any call, and gives what the kernel returned.
///
/// # Safety
/// The call must be sound here and now: `syscall6`'s caller has promised it.
pub(crate) unsafe fn raw_syscall(nr: usize, args: &[usize; 6]) -> isize {
    // SAFETY: promised by the caller.
    unsafe { arch::syscall6(nr, *args) }
}
