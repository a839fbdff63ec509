//! Kernel workers: tasks of the process that never return to user mode.

use super::parse::{contains, parse_hex};
use super::{Task, Tasks};
use crate::report::SkipReason;
use crate::sys::{self, Mask, bit};

impl Tasks {
    /// Returns whether the kernel has saved user registers for a thread, to which the thread will return
    /// (proc_pid_syscall(5)). Returns None if the kernel does not tell: the thread runs, or the file cannot be read
    /// (it belongs to root if the process is not dumpable).
    ///
    /// A worker has a program counter and a stack pointer of 0: `copy_thread` sets both for every thread that starts
    /// in a kernel function. A user thread cannot have both while it sleeps. A call instruction cannot end at address
    /// 0, so a thread in a system call has another program counter. A thread that jumped to address 0 without a stack
    /// dies of SIGSEGV, even if it blocks that signal.
    ///
    /// On s390x a worker has a program counter, and a stack pointer of 0 (arch/s390/kernel/process.c). A user thread
    /// can have both, so the kernel does not tell. On powerpc64 it shows no registers of a worker, as of a thread that
    /// runs (arch/powerpc/kernel/process.c).
    ///
    /// Before Linux 5.7, this read waits for a thread that is in execve(2), which may wait for a held thread. No such
    /// kernel has workers in a process, so the file is not read there.
    pub(super) fn has_user_registers(&self, task: Task, state: u8) -> Option<bool> {
        if state == b'R' || sys::kernel_version().is_some_and(|version| version < (5, 7)) {
            return None;
        }
        let mut buffer = [0; 256];
        user_registers(self.read(task.name, c"syscall", &mut buffer).ok()?)
    }

    /// Whether an io_uring's worker is certainly one of io-wq: it waits in `io_wq_worker` (io_uring/io-wq.c), which
    /// was called `io_wqe_worker` before Linux 6.4. Its name proves nothing, because every thread of the process can
    /// change it.
    pub(super) fn is_io_wq(&self, task: Task) -> bool {
        let mut buffer = [0; 2048];
        [c"wchan", c"stack"].into_iter().any(|file| {
            let text = self.read(task.name, file, &mut buffer).unwrap_or_default();
            contains(text, b"io_wq_worker") || contains(text, b"io_wqe_worker")
        })
    }
}

/// Returns what kind of kernel worker a thread is: a task of the process that never returns to user mode. None: it is a
/// user thread, or may be one. A worker of io_uring counts as SQPOLL until it is known to be another.
///
/// Every worker blocks all signals but KILL and STOP, and cannot unblock them. It has a flag, but each flag had another
/// meaning in older kernels, which a user thread can have: PF_VCPU (KVM runs the thread's guest) and PF_USED_ASYNC (the
/// thread has loaded a module). Stable kernels and distributions have the workers of newer kernels under old version
/// numbers. So more evidence is needed:
///
/// 1. The registers decide, if the kernel shows them; see [`Tasks::has_user_registers`].
/// 2. PF_NO_SETAFFINITY: no user thread has it, since `fork` and `execve` clear it. Some kernels give it to workers.
/// 3. The version, for a worker that runs (a busy SQPOLL thread): from this one on, the flag has no other meaning.
///    Newer code is carried to kernels with older numbers, and never the reverse. A lower version proves nothing.
pub(super) fn kernel_worker(
    flags: u32,
    blocked: Mask,
    has_user_registers: impl FnOnce() -> Option<bool>,
    version: impl FnOnce() -> Option<(u32, u32)>,
) -> Option<SkipReason> {
    const PF_IO_WORKER: u32 = 0x10;
    const PF_USER_WORKER: u32 = 0x4000;
    const PF_NO_SETAFFINITY: u32 = 0x0400_0000;
    const KILL_AND_STOP: Mask = bit(9) | bit(sys::SIGSTOP);
    if blocked | KILL_AND_STOP != sys::ALL {
        return None;
    }
    let (reason, since) = if flags & PF_IO_WORKER != 0 {
        (SkipReason::SqPoll, (5, 12))
    } else if flags & PF_USER_WORKER != 0 {
        (SkipReason::UserWorker, (6, 4))
    } else {
        return None;
    };
    // P1: a user thread is never taken for a worker.
    let is_worker = match has_user_registers() {
        Some(has) => !has,
        None if flags & PF_NO_SETAFFINITY != 0 => true,
        None => version().is_some_and(|version| version >= since),
    };
    is_worker.then_some(reason)
}

/// Reads /proc/TID/syscall: whether the stack pointer or the program counter, which end the line, is not 0. The line of a
/// thread that runs has no numbers.
fn user_registers(line: &[u8]) -> Option<bool> {
    let mut words = line.trim_ascii().rsplit(|&byte| byte == b' ');
    let (counter, stack) = (words.next()?, words.next()?);
    let number = |word: &[u8]| parse_hex(word.strip_prefix(b"0x")?);
    let (counter, stack) = (number(counter)?, number(stack)?);
    if cfg!(target_arch = "s390x") && stack == 0 && counter != 0 {
        return None;
    }
    Some(counter != 0 || stack != 0)
}
