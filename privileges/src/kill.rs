//! Kills a process that has not dropped its privileges. Nothing here waits: neither for a reader of standard error, nor
//! for a lock, nor for a handler.

// # Safety
//
// Each block makes one call, with numbers or with memory of this function.
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags};

/// The signal by which the engine kills a process.
const SIGNAL: libc::c_int = 33;
/// `PIPE_BUF`: the number of bytes that a pipe with room takes at once.
const PIECE: usize = 4096;
/// The number of bytes that a terminal with room takes at once.
const SMALL_PIECE: usize = 128;

const END: &str = "; process killed\n";

/// Writes a line to standard error, as far as there is room, and kills the process.
pub(crate) fn kill(line: &str) -> ! {
    // From here on no handler of the program runs in this thread.
    mask(u64::MAX);
    let mut length = line.len().min(PIECE.saturating_sub(END.len()));
    while !line.is_char_boundary(length) {
        length = length.saturating_sub(1);
    }
    let line = [line.get(..length).unwrap_or_default(), END].concat();
    complain(line.as_bytes());
    die()
}

fn mask(signals: u64) {
    let set = (&raw const signals).cast::<libc::c_void>();
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel reads eight bytes.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, none, size_of::<u64>())
    };
}

fn error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn complain(line: &[u8]) {
    let fd = libc::STDERR_FILENO;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the line is as long as said.
    let sent = unsafe { libc::send(fd, line.as_ptr().cast(), line.len(), flags) };
    if sent >= 0 || error() != libc::ENOTSOCK {
        return;
    }
    let Some(line) = line.get(..line.len().min(PIECE)) else { return };
    if !has_room(fd) {
        return;
    }
    // SAFETY: the descriptor is one of the program's standard ones, and this is used at once.
    let standard_error = unsafe { BorrowedFd::borrow_raw(fd) };
    // Since Linux 6.4 pipes heed RWF_NOWAIT; so do most file systems. The offset -1 is the present one.
    let written = rustix::io::pwritev2(
        standard_error,
        &[IoSlice::new(line)],
        u64::MAX,
        ReadWriteFlags::NOWAIT,
    );
    let unsupported = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
    if !written.is_err_and(|why| unsupported.contains(&why) || is_regular(standard_error)) {
        return;
    }
    // A file, a terminal, or an old kernel: small pieces, each when there is room.
    for piece in line.chunks(SMALL_PIECE) {
        if !has_room(fd) {
            return;
        }
        // SAFETY: the piece is as long as said.
        if unsafe { libc::write(fd, piece.as_ptr().cast(), piece.len()) } < 0 {
            return;
        }
    }
}

/// Returns whether the descriptor is a file, which accepts every write.
fn is_regular(file: BorrowedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
}

fn has_room(fd: libc::c_int) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: it is one structure; the time is 0.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & libc::POLLOUT != 0 }
}

/// Ends the process: by the signal, by SIGKILL, by exit_group(2), and by an invalid instruction. Process 1 of a PID
/// namespace does not die of the first two.
fn die() -> ! {
    // The kernel's `struct sigaction`, which is not longer than this on any CPU: SIG_DFL, no flags, no mask.
    let default = [0u64; 8];
    let (action, none) = (default.as_ptr(), std::ptr::null_mut::<u64>());
    // SAFETY: the kernel reads the structure.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, SIGNAL, action, none, size_of::<u64>()) };
    // SAFETY: it touches no memory.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    let pid = std::process::id();
    // SAFETY: it takes numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, SIGNAL) };
    mask(!(1 << (SIGNAL - 1)));
    // SAFETY: it takes numbers.
    unsafe { libc::syscall(libc::SYS_kill, pid, libc::SIGKILL) };
    // SAFETY: it takes a number.
    unsafe { libc::syscall(libc::SYS_exit_group, 128 + SIGNAL) };
    // A filter has forbidden all calls above. The signal of this instruction is blocked, so the kernel kills.
    loop {
        // SAFETY: it has no operand but a number.
        unsafe { std::arch::asm!(trap!()) };
    }
}

/// Executes an invalid instruction, or an instruction that traps.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
macro_rules! trap {
    () => {
        "ud2"
    };
}

#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
macro_rules! trap {
    () => {
        "udf #0"
    };
}

#[cfg(target_arch = "riscv64")]
macro_rules! trap {
    () => {
        "unimp"
    };
}

#[cfg(target_arch = "powerpc64")]
macro_rules! trap {
    () => {
        "trap"
    };
}

#[cfg(target_arch = "s390x")]
macro_rules! trap {
    () => {
        ".short 0"
    };
}

#[cfg(target_arch = "loongarch64")]
macro_rules! trap {
    () => {
        "break 0"
    };
}

use trap;
