//! futex(2): sleep while a word has a value, wake the threads that sleep on it.

#[cfg(not(loom))]
mod kernel;
#[cfg(loom)]
#[path = "futex/loom.rs"]
mod kernel;

use core::sync::atomic::AtomicU32 as Word;

use linux_raw_sys::general as k;

#[cfg(loom)]
pub(crate) use self::kernel::expire;
pub(crate) use self::kernel::{
    is_interrupted_in_sleep, probe, sleepers, wait, wake, wake_one_and_move,
};
use super::{arch, call, timed_call};
use crate::errno::Errno;
use crate::sys::sync::AtomicU32;

pub(crate) fn wake_one(word: &AtomicU32) {
    wake(word, 1);
}

pub(crate) fn wake_all(word: &AtomicU32) {
    wake(word, i32::MAX);
}

/// Returns whether the task is dead although it is still listed: a zombie leader, or one that its tracer has not reaped.
///
/// FUTEX_TRYLOCK_PI of a word that names the task as the owner then fails with ESRCH (`attach_to_pi_owner`,
/// kernel/futex/pi.c), and changes nothing but that word. A filter can be trusted to allow this question, because a
/// thread needs futex(2) anyway.
///
/// qemu-user 7.2 hands the word of a big-endian program to a little-endian kernel as it is, which then looks for another
/// tid. There, and under a filter that answers ESRCH, the calling thread, `me`, seems dead as well, and no answer is
/// believed.
pub(crate) fn is_dead(tid: i32, me: i32) -> bool {
    let seems_dead = |tid: i32| {
        let owned = Word::new(tid as u32);
        let op = (k::FUTEX_TRYLOCK_PI | k::FUTEX_PRIVATE_FLAG) as usize;
        futex([owned.as_ptr() as usize, op, 0, 0, 0, 0], None) == Err(Errno::SRCH)
    };
    seems_dead(tid) && !seems_dead(me)
}

/// Makes futex(2). `time` is its fourth argument. Inlined, the arguments stay in registers: an alternate stack may have room
/// for little more than the signal frame.
#[inline(always)]
fn futex(args: [usize; 6], time: Option<[i64; 2]>) -> Result<usize, Errno> {
    match time {
        None => match call(arch::FUTEX.plain, args) {
            Err(Errno::NOSYS) if arch::FUTEX.plain != arch::FUTEX.wide => {
                call(arch::FUTEX.wide, args)
            }
            result => result,
        },
        time => timed_call(arch::FUTEX, args, 3, time),
    }
}
