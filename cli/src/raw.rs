//! The three things that cannot be done in safe Rust: threads made by clone(2) itself, a system
//! call that glibc does not pass on to other threads, and the one that libpsx does.

// # Safety
//
// - A raw thread shares the thread-local storage of the thread that made it, for it is cloned
//   without CLONE_SETTLS. It may therefore run nothing but `sleep_forever`, which only makes raw
//   system calls: no allocation, no lock, no errno, no panic, and it never returns.
// - The system calls are those of `Step`; none reads or writes memory.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::AtomicU32;

use libpsx::{Broadcast, Report};
use syscalls::{Sysno, raw_syscall};

use crate::steps::Step;

/// Room for the signal frame, whatever the CPU's registers take (11 KiB with AMX), and a handler.
const STACK: usize = 64 * 1024;

/// The word that the raw threads wait on; nobody ever wakes them.
static NEVER: AtomicU32 = AtomicU32::new(0);

/// The name of every raw thread; the kernel wants it ended by a 0.
const NAME: &[u8] = b"psx-raw\0";

/// Starts a thread that no C library knows of, asleep in futex(2) until the process ends.
pub(crate) fn spawn_sleeper() -> io::Result<()> {
    const FLAGS: c_int = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping where the kernel likes disturbs nothing that exists.
    let stack = unsafe { libc::mmap(ptr::null_mut(), STACK, protection, kind, -1, 0) };
    if stack == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is STACK bytes long; its end may be computed.
    let top = unsafe { stack.cast::<u8>().add(STACK) };
    // SAFETY: the stack is the new thread's alone and is never unmapped, and `sleep_forever` keeps
    // to the rules of this module.
    let tid = unsafe { libc::clone(sleep_forever, top.cast(), FLAGS, ptr::null_mut()) };
    if tid != -1 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // SAFETY: no thread was made, so nobody uses the mapping.
    unsafe { libc::munmap(stack, STACK) };
    Err(error)
}

extern "C" fn sleep_forever(_: *mut c_void) -> c_int {
    let name = NAME.as_ptr();
    // SAFETY: the kernel reads the name, which is static and ends with 0.
    unsafe { raw_syscall!(Sysno::prctl, libc::PR_SET_NAME, name, 0, 0, 0) };
    loop {
        let (word, wait) = (NEVER.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
        // SAFETY: the kernel reads the word, which is static; without a timeout it reads no more.
        unsafe { raw_syscall!(Sysno::futex, word, wait, 0, 0, 0, 0) };
    }
}

/// Performs the step in the calling thread alone, as the kernel has it. (glibc's own setresuid()
/// and its kin would tell the threads that glibc knows of.)
pub(crate) fn plain(step: Step) -> io::Result<()> {
    let (nr, [a, b, c, d, e, f]) = call(step);
    // SAFETY: no step reads or writes memory.
    let result = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Performs the step in every thread, through libpsx.
pub(crate) fn everywhere(step: Step) -> Result<Report, libpsx::Error> {
    let (nr, args) = call(step);
    let broadcast = Broadcast::new(nr, args);
    // SAFETY: no step reads or writes memory, and each is idempotent, so every thread may make it.
    // Nothing in this program relies on the privilege that it takes away.
    unsafe { broadcast.run() }
}

const fn call(step: Step) -> (c_long, [usize; 6]) {
    match step {
        Step::NoGroups => (libc::SYS_setgroups, [0; 6]),
        Step::Gid(id) => (libc::SYS_setresgid, thrice(id)),
        Step::Uid(id) => (libc::SYS_setresuid, thrice(id)),
        Step::NoNewPrivs => (libc::SYS_prctl, switch_on(libc::PR_SET_NO_NEW_PRIVS)),
        Step::KeepCaps => (libc::SYS_prctl, switch_on(libc::PR_SET_KEEPCAPS)),
    }
}

const fn thrice(id: u32) -> [usize; 6] {
    [id as usize, id as usize, id as usize, 0, 0, 0]
}

const fn switch_on(option: c_int) -> [usize; 6] {
    [option as usize, 1, 0, 0, 0, 0]
}
