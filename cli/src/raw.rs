//! The operations that need unsafe Rust: threads made by clone(2) itself, a system call that glibc does not
//! pass on to other threads, the same call through libpsx, children of fork(2), signal actions, and questions to
//! the kernel for which no safe function exists.

// # Safety
//
// - A raw thread shares the thread-local storage of the thread that made it, for it is cloned
//   without CLONE_SETTLS. It may therefore run nothing but `sleep_forever`, which only makes raw
//   system calls: no allocation, no lock, no errno, no panic, and it never returns.
// - The system calls are those of `Step`, which read and write no memory, calls that only ask, and calls for signals and
//   a traced child. The latter read and write only what they are given.
// - No signal gets an action that runs code of this program.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

// The calls with 32-bit ids. On old 32-bit CPUs, a call without the suffix cuts each id to 16 bits.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID,
};
use libpsx::{Broadcast, Report};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getpid, getppid, pipe};
use syscalls::{Sysno, raw_syscall};

use crate::steps::Step;

/// Gives SIGCHLD its default action, and returns the earlier one. A process inherits an ignored SIGCHLD from the program
/// that started it. The kernel then reaps the children by itself: waitpid(2) finds none, and no signal says that one ended.
pub(crate) fn default_action_of_sigchld() -> nix::Result<SigHandler> {
    // SAFETY: the default action runs no code of this process.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }
}

/// Whether this program was started with an ignored SIGPIPE. The runtime of Rust ignores it before `main`, and the standard
/// library gives it the default action in each program that it executes.
///
/// Written by [`note_sigpipe`], before `main`, and read by [`keep_sigpipe`].
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// The C library calls the functions of this section before `main` of C.
// SAFETY: the section has pointers to functions that take at most the arguments of `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_sigpipe;

extern "C" fn note_sigpipe() {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the C library writes the structure and changes nothing.
    let result = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros are a value of the structure too.
    let action = unsafe { action.assume_init() };
    let ignored = result == 0 && action.sa_sigaction == libc::SIG_IGN;
    // Relaxed: `main` runs later in the same thread.
    SIGPIPE_IGNORED.store(ignored, Ordering::Relaxed);
}

/// Makes a program ignore SIGPIPE if this program was started so.
pub(crate) fn keep_sigpipe(command: &mut std::process::Command) {
    if !SIGPIPE_IGNORED.load(Ordering::Relaxed) {
        return;
    }
    let hook = || {
        // SAFETY: no code runs for an ignored signal.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: the hook makes one system call.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, hook) };
}

/// Every signal, as the kernel numbers the bits. SIGKILL and SIGSTOP cannot be blocked.
const EVERY_SIGNAL: u64 = u64::MAX;

/// The length of the kernel's signal masks.
const MASK_SIZE: usize = size_of::<u64>();

/// Starts a child whose parent traces it (ptrace(2)). The child stops by SIGTRAP before it runs `body`, and ends with the
/// status that `body` returns. All signals are blocked in it, also after execve(2), except that it has the given action of
/// SIGCHLD.
///
/// If this process ends before it has taken the status of the stop, the SIGTRAP kills the child.
pub(crate) fn traced_child(
    sigchld: SigHandler,
    body: impl FnOnce() -> u8,
) -> nix::Result<nix::unistd::Pid> {
    let parent = getpid();
    // SAFETY: this process has one thread, so no lock is held by a thread that is missing in the child. The child
    // ends by execve(2) or _exit(2).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = match stop_for_parent(parent, sigchld) {
                Ok(()) => body(),
                Err(error) => {
                    crate::output::say(format_args!("being traced by the parent: {error}"));
                    crate::run::FAILED
                }
            };
            // SAFETY: it ends the process, and runs none of the process's exit handlers.
            unsafe { libc::_exit(status.into()) }
        }
    }
}

/// Stops this process for its parent, which traces it from then on. Returns ESRCH if the parent has ended: another process
/// would be the tracer, and would not know of it.
fn stop_for_parent(parent: nix::unistd::Pid, sigchld: SigHandler) -> nix::Result<()> {
    // SAFETY: this is the action that psx started with. It is the default or SIG_IGN, as after each execve(2).
    unsafe { signal(Signal::SIGCHLD, sigchld) }?;
    // SAFETY: the default action runs no code of this process.
    let earlier = unsafe { signal(Signal::SIGTRAP, SigHandler::SigDfl) }?;
    // Bit 0 is signal 1.
    set_mask(EVERY_SIGNAL & !(1 << (Signal::SIGTRAP as u32 - 1)))?;
    nix::sys::ptrace::traceme()?;
    if getppid() != parent {
        return Err(nix::Error::ESRCH);
    }
    nix::sys::signal::raise(Signal::SIGTRAP)?;
    set_mask(EVERY_SIGNAL)?;
    // SAFETY: this is the action that psx started with.
    unsafe { signal(Signal::SIGTRAP, earlier) }?;
    Ok(())
}

/// Sets the signal mask of the calling thread, also for the two signals that the C library keeps for itself.
fn set_mask(mask: u64) -> nix::Result<()> {
    let (set, none) = (&raw const mask, ptr::null_mut::<u64>());
    // SAFETY: the kernel reads a mask of the length that it is given, and writes none.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, none, MASK_SIZE) };
    nix::Error::result(result).map(drop)
}

/// Sets the signal mask of a traced process that is stopped. The process has it when it runs again.
pub(crate) fn set_mask_of(
    tracee: nix::unistd::Pid,
    mask: &nix::sys::signal::SigSet,
) -> nix::Result<()> {
    let mask: *const libc::sigset_t = mask.as_ref();
    // SAFETY: the kernel reads a mask of the length that it is given. The C library's type begins with it.
    // Not by the C library's function: in musl it takes a request of another type.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_SETSIGMASK as usize,
            tracee.as_raw(),
            MASK_SIZE,
            mask,
        )
    };
    nix::Error::result(result).map(drop)
}

/// Asks whether a traced child has stopped or a child has ended, and leaves the status to [`changed`] (waitid(2), WNOWAIT).
/// Returns None if it has not. The stop of a child that is not traced does not count: for that the kernel would need
/// WSTOPPED.
pub(crate) fn has_changed(child: nix::unistd::Pid) -> nix::Result<Option<()>> {
    let found = ended(libc::P_PID, child.as_raw().unsigned_abs())?;
    Ok(found.map(|_| ()))
}

/// Asks whether a traced child has stopped or a child has ended, and takes its status (waitpid(2)). Returns None if it has
/// not. Knows all signals, and nix knows no real-time signals.
pub(crate) fn changed(child: nix::unistd::Pid) -> nix::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: the kernel writes the status.
    let found = unsafe { libc::waitpid(child.as_raw(), &raw mut status, libc::WNOHANG) };
    Ok((nix::Error::result(found)? != 0).then(|| ExitStatus::from_raw(status)))
}

/// Returns a child that has ended, or a traced child that has stopped, and leaves the status to [`changed`] (waitid(2),
/// WNOWAIT). Returns None if there is none.
pub(crate) fn ended_child() -> nix::Result<Option<nix::unistd::Pid>> {
    ended(libc::P_ALL, 0)
}

/// Returns one of these children that has ended, or is traced and has stopped. Knows all signals by which a child can end, and
/// nix knows no real-time signals.
fn ended(kind: libc::idtype_t, id: libc::id_t) -> nix::Result<Option<nix::unistd::Pid>> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes the structure.
    let result = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), flags) };
    nix::Error::result(result)?;
    // SAFETY: all zeros are a value of the structure too.
    let info = unsafe { info.assume_init() };
    // SAFETY: the kernel has written the members for SIGCHLD, or zeros.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then(|| nix::unistd::Pid::from_raw(pid)))
}

/// The stack size of a raw thread: room for a handler and for a signal frame with all the CPU's registers (11 KiB
/// with AMX).
const STACK: usize = 64 * 1024;

/// The word that the raw threads wait on. No thread ever wakes them.
static NEVER: AtomicU32 = AtomicU32::new(0);

/// The name of every raw thread. The kernel expects a terminating 0.
const NAME: &[u8] = b"psx-raw\0";

/// Starts a thread that no C library knows. It sleeps in futex(2) until the process ends.
pub(crate) fn spawn_sleeper() -> io::Result<()> {
    const FLAGS: c_int = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses the address of the new anonymous mapping, so no existing mapping changes.
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
    // SAFETY: no thread was made, so no thread uses the mapping.
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

/// Performs the step in the calling thread alone, by the system call itself. (glibc's setresuid() and similar
/// functions would change every thread that glibc knows.)
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
    // No part of this program relies on the privilege that the step takes away.
    unsafe { broadcast.execute_with_report() }
}

const fn call(step: Step) -> (c_long, [usize; 6]) {
    match step {
        Step::NoGroups => (SETGROUPS, [0; 6]),
        Step::Gid(id) => (SETRESGID, thrice(id)),
        Step::Uid(id) => (SETRESUID, thrice(id)),
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

/// The result of a child of fork(2).
pub(crate) enum Fate {
    /// The text that it wrote.
    Said(String),
    /// The signal that killed it.
    Killed(Signal),
    /// It did not end in time, or failed in another way.
    Lost(&'static str),
}

/// Runs a question in a child process, so that a filter that kills for the question kills only the child. Kills
/// the child if it does not end in time.
pub(crate) fn in_a_child(
    patience: PollTimeout,
    body: impl FnOnce() -> String,
) -> nix::Result<Fate> {
    let (reader, writer) = pipe()?;
    // SAFETY: this process has one thread when it asks, so no lock is held by a thread that is missing in
    // the child. The child ends by _exit(2).
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // The child cannot report an error of this write. The parent sees that it got no text.
            let _ = File::from(writer).write_all(body().as_bytes());
            // SAFETY: it ends the process, and runs none of the process's exit handlers.
            unsafe { libc::_exit(0) }
        }
    };
    drop(writer);
    let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    // This read returns the text or the end of the pipe. The text is short, so it comes in one piece.
    if !matches!(poll(&mut ready, patience), Ok(1)) {
        kill(child, Signal::SIGKILL)?;
        waitpid(child, None)?;
        return Ok(Fate::Lost("it did not end in time"));
    }
    let mut said = String::new();
    let read = File::from(reader).read_to_string(&mut said);
    Ok(match waitpid(child, None)? {
        WaitStatus::Signaled(_, signal, _) => Fate::Killed(signal),
        WaitStatus::Exited(_, 0) if read.is_ok() && !said.is_empty() => Fate::Said(said),
        _ => Fate::Lost("it said nothing"),
    })
}

/// Returns whether the kernel can install a seccomp filter in all threads at once. The call passes no program; the
/// kernel tries to read the program only if it knows the flag.
pub(crate) fn knows_seccomp_tsync() -> bool {
    let (set, flag) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the address of the program is 0, so the kernel changes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, set, flag, 0) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Returns the version of Landlock, landlock_create_ruleset(2).
pub(crate) fn landlock_abi() -> io::Result<c_long> {
    const VERSION: c_long = 1;
    // SAFETY: asked for the version, the kernel reads no memory.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, VERSION) };
    if abi < 0 { Err(io::Error::last_os_error()) } else { Ok(abi) }
}

/// Returns the error by which io_uring_setup(2) is refused. Returns None if the only error is that the parameters
/// are missing: then the call is allowed.
pub(crate) fn io_uring_refused() -> Option<io::Error> {
    // SAFETY: the address of the parameters is 0, so the kernel makes no ring.
    unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) };
    let error = io::Error::last_os_error();
    (error.raw_os_error() != Some(libc::EFAULT)).then_some(error)
}

/// Asks the kernel for the action of a signal by sigaction(2). It bypasses the C library, which rejects signal 33.
pub(crate) fn signal_action(signal: c_int) -> io::Result<()> {
    // SAFETY: both addresses are 0, so the kernel reads and writes no memory.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, 0, 0, 8) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the name of the C library and its version.
pub(crate) fn libc_version() -> String {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it has no parameters and returns a static text.
        let version = unsafe { libc::gnu_get_libc_version() };
        // SAFETY: the text ends with 0.
        let version = unsafe { std::ffi::CStr::from_ptr(version) };
        format!("glibc {}", version.to_string_lossy())
    }
    #[cfg(not(target_env = "gnu"))]
    "another libc than glibc".to_owned()
}
