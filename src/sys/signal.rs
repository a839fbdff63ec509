//! Signals: masks, actions, and signals to one thread.

// # Safety
//
// The unsafe operation reads a structure of integers that the kernel has filled in. [`set_sigaction`] is unsafe, because
// a handler runs at any instruction.
#![allow(unsafe_code)]

pub(crate) mod disposition;
mod siginfo;

use core::mem::MaybeUninit;
use core::ptr;

use linux_raw_sys::general as k;

pub(crate) use self::siginfo::SigInfo;
use super::arch::{KernelMask, KernelSigaction};
use super::call;
use crate::errno::Errno;

/// The signal: glibc and musl keep applications from blocking it. See DESIGN.md.
pub(crate) const SIGNAL: i32 = 33;

/// The signal that a filter sends in place of a call, seccomp(2), SECCOMP_RET_TRAP.
pub(crate) const SIGSYS: i32 = 31;

/// The signal by which a debugger and job control stop a process.
pub(crate) const SIGSTOP: i32 = 19;

/// A set of signals: bit `n - 1` stands for signal `n`.
pub(crate) type Mask = u64;

pub(crate) const ALL: Mask = !0;

pub(crate) const fn bit(signal: i32) -> Mask {
    1 << (signal - 1)
}

/// Returns a mask that blocks every signal, except that SIGSYS is as `interrupted` has it.
///
/// If a filter traps a call (seccomp(2), SECCOMP_RET_TRAP) or user dispatch catches it, the kernel sends
/// SIGSYS, and kills the process if the thread blocks it. A thread that can emulate calls therefore
/// keeps SIGSYS open for ours.
pub(crate) const fn all_but_sigsys(interrupted: Mask) -> Mask {
    ALL & (interrupted | !bit(SIGSYS))
}

/// `sizeof(sigset_t)` in the kernel.
pub(super) const MASK_SIZE: usize = size_of::<KernelMask>();

/// `SI_QUEUE`: sent by rt_sigqueueinfo(2) or rt_tgsigqueueinfo(2).
pub(crate) const SI_QUEUE: i32 = k::SI_QUEUE;

/// Sets this thread's mask. Returns the mask from before.
pub(crate) fn set_mask(mask: Mask) -> Result<Mask, Errno> {
    change_mask(k::SIG_SETMASK, mask)
}

/// Blocks every signal but SIGSYS, which stays as it is. Returns the mask from before.
pub(crate) fn block_all_but_sigsys() -> Result<Mask, Errno> {
    change_mask(k::SIG_BLOCK, ALL & !bit(SIGSYS))
}

/// Takes our signal if it is pending, and blocks it again.
pub(crate) fn receive_own_signal() {
    let _ = change_mask(k::SIG_UNBLOCK, bit(SIGNAL));
    let _ = change_mask(k::SIG_BLOCK, bit(SIGNAL));
}

fn change_mask(how: u32, mask: Mask) -> Result<Mask, Errno> {
    let (mask, mut before) = (KernelMask::new(mask), KernelMask::new(0));
    let (new, old) = (ptr::from_ref(&mask) as usize, ptr::from_mut(&mut before) as usize);
    call(k::__NR_rt_sigprocmask, [how as usize, new, old, MASK_SIZE, 0, 0])?;
    Ok(before.get())
}

pub(crate) fn sigaction() -> Result<KernelSigaction, Errno> {
    exchange_sigaction(SIGNAL, 0)
}

/// Returns whether the program has a handler for SIGSYS. If it has, a thread can run user code in the middle of a stop.
pub(crate) fn sigsys_is_handled() -> bool {
    const SIG_IGN: usize = 1;
    exchange_sigaction(SIGSYS, 0).is_ok_and(|action| action.handler > SIG_IGN)
}

fn exchange_sigaction(signal: i32, new: usize) -> Result<KernelSigaction, Errno> {
    let mut old = MaybeUninit::<KernelSigaction>::zeroed();
    let at = old.as_mut_ptr() as usize;
    call(k::__NR_rt_sigaction, [signal as usize, new, at, MASK_SIZE, 0, 0])?;
    // SAFETY: all its fields are integers, so zeroes, and whatever the kernel wrote, are a value.
    Ok(unsafe { old.assume_init() })
}

/// Sets the action of signal 33. Returns the action from before.
///
/// # Safety
/// `action.handler` is SIG_DFL, SIG_IGN, or a function that may run at any instruction of any
/// thread for ever.
pub(crate) unsafe fn set_sigaction(action: &KernelSigaction) -> Result<KernelSigaction, Errno> {
    exchange_sigaction(SIGNAL, ptr::from_ref(action) as usize)
}

/// Queues our signal for one thread of this process, with a value. The kernel finds the thread by
/// both ids, so a thread of another process is never hit.
pub(crate) fn queue_signal(pid: i32, tid: i32, value: usize) -> Result<(), Errno> {
    queue(pid, tid, SIGNAL, value)
}

/// Returns whether the kernel would queue a signal for a thread. Signal 0 is checked like any other, and not sent.
pub(crate) fn may_queue_signal(pid: i32, tid: i32) -> Result<(), Errno> {
    queue(pid, tid, 0, 0)
}

fn queue(pid: i32, tid: i32, signal: i32, value: usize) -> Result<(), Errno> {
    let info = SigInfo::queued(signal, pid, value);
    let at = ptr::from_ref(&info) as usize;
    let args = [pid as usize, tid as usize, signal as usize, at, 0, 0];
    call(k::__NR_rt_tgsigqueueinfo, args).map(|_| ())
}

/// Returns RLIMIT_SIGPENDING, how many signals may be queued for this user, prlimit(2).
pub(crate) fn signal_queue_limit() -> Option<u64> {
    let mut limit = [0u64; 2];
    let args = [0, k::RLIMIT_SIGPENDING as usize, 0, limit.as_mut_ptr() as usize, 0, 0];
    call(k::__NR_prlimit64, args).ok()?;
    limit.first().copied()
}

/// Sends a signal to one thread of a process, tgkill(2). Signal 0 asks whether the thread exists.
pub(crate) fn tgkill(pid: i32, tid: i32, signal: i32) -> Result<(), Errno> {
    let args = [pid as usize, tid as usize, signal as usize, 0, 0, 0];
    call(k::__NR_tgkill, args).map(|_| ())
}
