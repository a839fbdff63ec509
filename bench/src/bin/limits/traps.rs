//! Calls that a seccomp filter or syscall user dispatch refuses or traps, and the handler that makes them all the same.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicU8, Ordering};

/// Installs a filter in the calling thread.
pub(super) fn install(program: &[libc::sock_filter]) {
    let len = program.len() as u16;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the program.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
    assert_eq!(done, 0, "seccomp");
}

pub(super) const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

pub(super) const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
pub(super) const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
pub(super) const NUMBER: u32 = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
pub(super) const FIRST: u32 = std::mem::offset_of!(libc::seccomp_data, args) as u32;
pub(super) const SIXTH: u32 = FIRST + 5 * 8;

/// Installs a filter that answers setresuid(uid, ...) of this thread with `action`.
pub(super) fn refuse(uid: u32, action: u32) {
    install(&[
        step(LOAD, 0, 0, NUMBER),
        step(EQUAL, 0, 3, libc::SYS_setresuid as u32),
        step(LOAD, 0, 0, FIRST),
        step(EQUAL, 0, 1, uid),
        step(libc::BPF_RET, 0, 0, action),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// The sixth argument by which the filter of [`trap`] recognizes the calls of the SIGSYS handler.
pub(super) const PASS: c_long = 0x5afe;

/// Installs a filter that traps gettid and futex of this thread to the SIGSYS handler.
pub(super) fn trap() {
    install(&[
        step(LOAD, 0, 0, NUMBER),
        step(EQUAL, 1, 0, libc::SYS_gettid as u32),
        step(EQUAL, 0, 3, libc::SYS_futex as u32),
        step(LOAD, 0, 0, SIXTH),
        step(EQUAL, 1, 0, PASS as u32),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_TRAP),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

// The selector's values.
pub(super) const ALLOW: u8 = 0;
pub(super) const BLOCK: u8 = 1;
/// Whether the calls of the thread in [`dispatch`] are trapped.
pub(super) static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);

/// Puts the calling thread under Syscall User Dispatch.
pub(super) fn dispatch() {
    const PR_SET_SYSCALL_USER_DISPATCH: c_int = 59;
    const PR_SYS_DISPATCH_ON: usize = 1;
    let (set, on) = (PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON);
    // SAFETY: the selector is a static.
    let done = unsafe { libc::prctl(set, on, 0usize, 0usize, SELECTOR.as_ptr()) };
    assert_eq!(done, 0, "prctl(PR_SET_SYSCALL_USER_DISPATCH)");
}

pub(super) type SignalHandler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

pub(super) fn handle_traps(handler: SignalHandler) {
    // SAFETY: zero is a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the type that SA_SIGINFO requires.
    unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) };
}

/// Makes the trapped call for the interrupted code. The kernel has put the number back into rax.
/// With `PASSES`, the sixth argument tells the filter that the call is the handler's.
pub(super) extern "C" fn emulate<const PASSES: bool>(
    _: c_int,
    _: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    SELECTOR.store(ALLOW, Ordering::Relaxed);
    // SAFETY: the kernel passes a ucontext_t, and the handler is its only user.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |name: c_int| registers[name as usize];
    let sixth = if PASSES { PASS } else { register(libc::REG_R9) };
    // SAFETY: the function takes no argument.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: errno lives as long as the thread, and only the thread uses it.
    let errno = unsafe { &mut *errno };
    let before = *errno;
    // SAFETY: the interrupted code makes this very call.
    let result = unsafe {
        libc::syscall(
            register(libc::REG_RAX),
            register(libc::REG_RDI),
            register(libc::REG_RSI),
            register(libc::REG_RDX),
            register(libc::REG_R10),
            register(libc::REG_R8),
            sixth,
        )
    };
    registers[libc::REG_RAX as usize] = if result == -1 { -i64::from(*errno) } else { result };
    *errno = before;
}
