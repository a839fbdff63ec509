//! The line about an inconsistent process on standard error, and the death after it.
//!
//! Other threads are held meanwhile. A held thread may be the one that reads standard error, so a
//! write that waits for its reader would wait for ever. Nothing in this file waits for a reader. If
//! there is room, the line is written. Otherwise it is lost.
//!
//! 1. `pwritev2(RWF_NOWAIT | RWF_NOSIGNAL)` is tried first. Since Linux 6.18 it is all that a pipe, a
//!    FIFO or a socket needs.
//! 2. If that writes nothing, ppoll(2) is asked for room before each write. What its answer covers
//!    depends on the kind of file ([`Kind`]).
//!
//! O_NONBLOCK is never set: it belongs to the open file description, which other processes share.
//!
//! What remains:
//! - Before Linux 6.4, another process can fill a pipe between ppoll(2) and write(2).
//! - A terminal driver may report room for one byte and need two for the end of the line. (A pty
//!   does not: its room is a multiple of 256 bytes.)
//! - A file on a local disk takes as long as the disk.
//!
//! On the way to a death these end by a timer ([`write_line_and_kill`]).

// # Safety
//
// The system calls are those of `super::call`, with arguments that this file builds from references
// and plain numbers. The unsafe operations read structures of integers that the kernel has filled in.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr;

use linux_raw_sys::{errno, general as k};

use super::arch::{self, KernelMask};
use super::signal::{ALL, MASK_SIZE, set_mask};
use super::{call, kill_process, timed_call};
use crate::errno::Errno;

const STANDARD_ERROR: usize = 2;

/// How long the process lives if a write on the way to its death waits after all.
const WRITE_LIMIT: [i64; 2] = [0, 100_000_000];

/// Writes a line to standard error if there is room for it, and never waits for a reader.
///
/// All signals but SIGSYS are blocked in this thread, so that no handler runs between two writes, and
/// so that the SIGPIPE of a write can be taken back.
pub(crate) fn write_line(line: &[u8]) {
    write(line, false);
}

/// Writes a line as [`write_line`] does, and ends the process.
///
/// 1. Every signal is blocked, SIGSYS too. No handler runs from here on: it could leave by
///    siglongjmp(3), and so keep an inconsistent process alive. If a filter traps one of the calls that
///    follow, the kernel therefore kills the process by SIGSYS.
/// 2. A timer is set that kills the process. It bounds a write that waits after all, for a file server,
///    or for a supervisor that is a held thread (SECCOMP_RET_USER_NOTIF). It stays set, so that a tracer
///    that stops this thread at signal 33 does not keep the process.
/// 3. The line is written, and the process is killed by signal 33.
pub(crate) fn write_line_and_kill(line: &[u8]) -> ! {
    let _ = set_mask(ALL);
    let bounded = kill_after(WRITE_LIMIT).is_ok();
    write(line, bounded);
    kill_process()
}

/// Has the kernel send SIGKILL to this process after this time (timer_create(2)).
fn kill_after(time: [i64; 2]) -> Result<(), Errno> {
    /// `struct sigevent` (include/uapi/asm-generic/siginfo.h).
    #[repr(C)]
    struct Event {
        value: usize,
        signal: i32,
        notify: i32,
        rest: [i32; REST],
    }
    const REST: usize = (64 - size_of::<usize>()) / size_of::<i32>() - 2;
    const _: () = assert!(size_of::<Event>() == size_of::<k::sigevent>());
    const SIGKILL: i32 = 9;
    let event =
        Event { value: 0, signal: SIGKILL, notify: k::SIGEV_SIGNAL as i32, rest: [0; REST] };
    let mut timer = 0i32;
    let (event, at) = (ptr::from_ref(&event) as usize, ptr::from_mut(&mut timer) as usize);
    call(k::__NR_timer_create, [k::CLOCK_MONOTONIC as usize, event, at, 0, 0, 0])?;
    let [seconds, nanoseconds] = time;
    let once = Some([0, 0, seconds, nanoseconds]);
    timed_call(arch::TIMER_SETTIME, [timer as usize, 0, 0, 0, 0, 0], 2, once).map(|_| ())
}

/// What kind of file standard error is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A pipe, a FIFO or a socket. If ppoll(2) says that it is writable, it takes a line at once: a pipe
    /// has room for PIPE_BUF bytes then, and a socket takes one more buffer.
    Stream,
    /// A terminal. If ppoll(2) says that it is writable, it may have room for one byte only, so it gets
    /// the line byte by byte.
    Terminal,
    /// A file or a device that has no reader to wait for.
    Storage,
}

/// `bounded`: something ends a write that waits.
fn write(line: &[u8], bounded: bool) {
    let written = write_no_wait(line, RWF_NOWAIT | RWF_NOSIGNAL).unwrap_or(0);
    let mut rest = line.get(written..).unwrap_or_default();
    if rest.is_empty() {
        return;
    }
    // If the kind is not known, it is not known either what ppoll(2) promises.
    let Some(kind) = kind() else { return };
    if kind == Kind::Storage && !bounded && is_remote() {
        return;
    }
    let most = if kind == Kind::Terminal { 1 } else { rest.len() };
    // Ends: each turn writes at least one byte.
    while !rest.is_empty() && is_writable() {
        let piece = rest.get(..most).unwrap_or(rest);
        let written = match kind {
            Kind::Storage => write_plain(piece),
            Kind::Stream | Kind::Terminal => without_sigpipe(|| write_stream(piece)),
        };
        match written {
            Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
            _ => return,
        }
    }
}

const RWF_NOWAIT: u32 = k::RWF_NOWAIT;
/// No SIGPIPE (include/uapi/linux/fs.h, since Linux 6.18).
const RWF_NOSIGNAL: u32 = 0x100;

fn write_no_wait(bytes: &[u8], flags: u32) -> Result<usize, Errno> {
    let vector = [bytes.as_ptr() as usize, bytes.len()];
    // An offset of -1 is the file's own position.
    let args =
        [STANDARD_ERROR, vector.as_ptr() as usize, 1, usize::MAX, usize::MAX, flags as usize];
    call(k::__NR_pwritev2, args)
}

fn write_plain(bytes: &[u8]) -> Result<usize, Errno> {
    call(k::__NR_write, [STANDARD_ERROR, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0])
}

/// A write where ppoll(2) has just found room.
fn write_stream(bytes: &[u8]) -> Result<usize, Errno> {
    match write_no_wait(bytes, RWF_NOWAIT) {
        // The room is gone again.
        Err(Errno::AGAIN) => Err(Errno::AGAIN),
        Err(errno) if is(errno, errno::EPIPE) => Err(errno),
        // Terminals, and kernels before 6.4 on pipes, know no RWF_NOWAIT; a filter may refuse it.
        Err(_) => write_plain(bytes),
        written => written,
    }
}

fn is(errno: Errno, number: u32) -> bool {
    errno.raw_os_error() == number as i32
}

/// Takes back the SIGPIPE of a write that failed with EPIPE: it is pending in this thread, and would
/// meet the program after the call. If one was pending before, it is the program's and stays.
fn without_sigpipe(write: impl FnOnce() -> Result<usize, Errno>) -> Result<usize, Errno> {
    const SIGPIPE: KernelMask = KernelMask::new(super::bit(13));
    let mut before = KernelMask::new(0);
    let at = ptr::from_mut(&mut before) as usize;
    let _ = call(k::__NR_rt_sigpending, [at, MASK_SIZE, 0, 0, 0, 0]);
    let written = write();
    if written.is_err_and(|errno| is(errno, errno::EPIPE)) && before.get() & SIGPIPE.get() == 0 {
        let set = ptr::from_ref(&SIGPIPE) as usize;
        let args = [set, 0, 0, MASK_SIZE, 0, 0];
        let _ = timed_call(arch::RT_SIGTIMEDWAIT, args, 2, Some([0; 2]));
    }
    written
}

/// Asks ppoll(2), without waiting, whether standard error is writable. A pipe without a reader and a
/// terminal that has hung up are not.
fn is_writable() -> bool {
    let mut file = k::pollfd { fd: STANDARD_ERROR as i32, events: k::POLLOUT as i16, revents: 0 };
    let at = ptr::from_mut(&mut file) as usize;
    // If the call is refused, `revents` stays 0.
    let _ = timed_call(arch::PPOLL, [at, 1, 0, 0, MASK_SIZE, 0], 2, Some([0; 2]));
    let broken = k::POLLERR | k::POLLHUP | k::POLLNVAL;
    u32::from(file.revents as u16) & (k::POLLOUT | broken) == k::POLLOUT
}

fn kind() -> Option<Kind> {
    Some(match mode()? & k::S_IFMT {
        k::S_IFIFO | k::S_IFSOCK => Kind::Stream,
        k::S_IFCHR if may_be_terminal() => Kind::Terminal,
        _ => Kind::Storage,
    })
}

fn mode() -> Option<u32> {
    let mut stat = MaybeUninit::<arch::Stat>::zeroed();
    let args = [STANDARD_ERROR, stat.as_mut_ptr() as usize, 0, 0, 0, 0];
    match call(arch::FSTAT, args) {
        // SAFETY: all its fields are integers, so zeroes, and whatever the kernel wrote, are a value.
        Ok(_) => return Some(unsafe { stat.assume_init() }.st_mode),
        // loongarch64 has had it since Linux 6.11.
        Err(Errno::NOSYS) => {}
        Err(_) => return None,
    }
    let mut statx = MaybeUninit::<k::statx>::zeroed();
    let (empty, at) = (c"".as_ptr() as usize, statx.as_mut_ptr() as usize);
    let flags = k::AT_EMPTY_PATH as usize;
    let args = [STANDARD_ERROR, empty, flags, k::STATX_TYPE as usize, at, 0];
    call(k::__NR_statx, args).ok()?;
    // SAFETY: all its fields are integers.
    Some(unsafe { statx.assume_init() }.stx_mode.into())
}

fn may_be_terminal() -> bool {
    /// ioctl_tty(2).
    const TIOCGWINSZ: usize = linux_raw_sys::ioctl::TIOCGWINSZ as usize;
    let mut size = [0u16; 4];
    let args = [STANDARD_ERROR, TIOCGWINSZ, size.as_mut_ptr() as usize, 0, 0, 0];
    // Any other error may be a filter's.
    !call(k::__NR_ioctl, args).is_err_and(|e| is(e, errno::ENOTTY) || is(e, errno::EINVAL))
}

/// Whether a write may wait for another computer, or for a process that may be this one (FUSE).
fn is_remote() -> bool {
    let mut statfs = MaybeUninit::<k::statfs>::zeroed();
    let args = [STANDARD_ERROR, statfs.as_mut_ptr() as usize, 0, 0, 0, 0];
    if call(k::__NR_fstatfs, args).is_err() {
        return true;
    }
    // SAFETY: all its fields are integers, so zeroes, and whatever the kernel wrote, are a value.
    let kind = unsafe { statfs.assume_init() }.f_type;
    // The field's type differs from CPU to CPU. A magic number has 32 bits.
    matches!(
        kind as usize as u32,
        k::FUSE_SUPER_MAGIC
            | k::NFS_SUPER_MAGIC
            | k::SMB_SUPER_MAGIC
            | k::SMB2_SUPER_MAGIC
            | k::CIFS_SUPER_MAGIC
            | k::V9FS_MAGIC
            | k::CEPH_SUPER_MAGIC
            | k::AFS_SUPER_MAGIC
            | k::AFS_FS_MAGIC
            | k::CODA_SUPER_MAGIC
    )
}
