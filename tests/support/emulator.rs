//! A program's own handler for SIGSYS that answers trapped calls in place of the kernel. x86-64 only.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

use super::step;

std::arch::global_asm!(
    // emulated_call(number, arguments)
    "emulated_call:",
    "mov %rdi, %rax",
    "mov %rsi, %rcx",
    "mov (%rcx), %rdi",
    "mov 8(%rcx), %rsi",
    "mov 16(%rcx), %rdx",
    "mov 24(%rcx), %r10",
    "mov 32(%rcx), %r8",
    "mov 40(%rcx), %r9",
    "syscall",
    "after_emulated_call:",
    "ret",
    options(att_syntax)
);

unsafe extern "C" {
    fn emulated_call(number: i64, arguments: *const i64) -> i64;
    fn after_emulated_call();
}

/// The number of calls that the handler has answered.
pub static TRAPPED: AtomicUsize = AtomicUsize::new(0);

/// After this many answers the handler returns `-EPERM`.
pub static EMULATED_CALLS: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The latest trapped call.
pub static LATEST: AtomicI64 = AtomicI64::new(-1);

extern "C" fn emulate(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: struct siginfo of SIGSYS: the number of the call is at byte 24.
    let number = i64::from(unsafe { info.cast::<i32>().wrapping_add(6).read() });
    LATEST.store(number, SeqCst);
    if TRAPPED.fetch_add(1, SeqCst) < EMULATED_CALLS.load(SeqCst) {
        answer(number, context);
    } else {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel has written the frame.
        let registers = unsafe { &mut (*context).uc_mcontext.gregs };
        registers[libc::REG_RAX as usize] = -i64::from(libc::EPERM);
    }
}

/// Called in a handler: makes the trapped call, and leaves what the kernel returned where the interrupted code finds it. A
/// filter of [`trapping`] lets it pass.
pub fn answer(number: i64, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel has written the frame.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let at =
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9];
    let arguments = at.map(|register| registers[register as usize]);
    // SAFETY: the interrupted code makes this call with these arguments.
    registers[libc::REG_RAX as usize] = unsafe { emulated_call(number, arguments.as_ptr()) };
}

/// Makes the handler emulate the kernel from now on.
pub fn emulate_trapped_calls() {
    on_sigsys(emulate);
}

/// Installs a handler for SIGSYS.
pub fn on_sigsys(handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) {
    // SAFETY: all-zero is a valid value of the structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the kernel reads the structure.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) }, 0);
}

/// Returns a filter that traps these calls, except those of the emulator.
pub fn trapping(calls: &[i64]) -> Vec<libc::sock_filter> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let (number_at, instruction_at) = (0, 8);
    let own = after_emulated_call as *const () as usize as u32;
    let mut program = vec![
        step(load, 0, 0, instruction_at),
        step(equal, 0, 1, own),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(load, 0, 0, number_at),
    ];
    for &call in calls {
        program.push(step(equal, 0, 1, call as u32));
        program.push(step(answer, 0, 0, libc::SECCOMP_RET_TRAP));
    }
    program.push(step(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

/// Removes the alternate stack: two handlers and their frames need more space than std's has.
pub fn without_alternate_stack() {
    let none =
        libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the kernel reads the structure.
    assert_eq!(unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) }, 0);
}

/// Called in a handler. The interrupted code does not continue: the thread continues at `place` on a new stack, with no
/// signal blocked, as after siglongjmp(3).
pub fn leave_by_jump(context: *mut libc::c_void, place: extern "C" fn() -> !) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel has written the frame.
    let context = unsafe { &mut *context };
    let stack = super::raw::memory(256 << 10) + (256 << 10);
    context.uc_mcontext.gregs[libc::REG_RIP as usize] = place as *const () as i64;
    // The stack pointer is as after a call instruction.
    context.uc_mcontext.gregs[libc::REG_RSP as usize] = (stack - 64 - 8) as i64;
    // SAFETY: all-zero is the empty set.
    context.uc_sigmask = unsafe { std::mem::zeroed() };
}
