//! s390x.

use std::arch::asm;

std::arch::global_asm!(
    ".balign 8",
    ".globl psx_test_call, psx_test_call_end",
    "psx_test_call:",
    // The caller's frame has room for registers.
    "stmg %r6, %r7, 48(%r15)",
    "lgr %r1, %r2",
    "lg %r2, 0(%r3)",
    "lmg %r4, %r7, 16(%r3)",
    "lg %r3, 8(%r3)",
    "svc 0",
    "psx_test_call_end:",
    "lmg %r6, %r7, 48(%r15)",
    "br %r14",
);

/// What a caller leaves free at the end of its stack.
const CALLEES_AREA: usize = 160;

/// # Safety
/// `stack` is the end of memory for a stack, and `body` uses no TLS if `thread_pointer` leads to none.
pub unsafe fn clone(
    flags: i32,
    stack: usize,
    thread_pointer: usize,
    body: extern "C" fn() -> !,
) -> isize {
    let tid;
    // SAFETY: the new thread begins on its own stack, calls `body` there and never returns.
    unsafe {
        asm!(
            "svc 0",
            "ltgr %r2, %r2",
            "jnz 2f",
            "basr %r14, {body}",
            ".short 0",
            "2:",
            body = in(reg_addr) body,
            in("r1") libc::SYS_clone,
            inlateout("r2") stack - CALLEES_AREA => tid,
            in("r3") flags as isize,
            in("r4") 0usize,
            in("r5") 0usize,
            in("r6") thread_pointer,
            out("r14") _,
        );
    }
    tid
}

const R2: usize = 2;
const STACK_POINTER: usize = 15;

pub fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
    std::array::from_fn(|index| context.uc_mcontext.gregs[R2 + index] as usize)
}

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.gregs[R2] = result as u64;
}

/// The number is in the instruction, or still in its register.
pub fn call_again(context: &mut libc::ucontext_t, _number: i64) {
    context.uc_mcontext.psw.addr -= 2;
}

pub fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[STACK_POINTER] as usize
}

pub fn go_on_at(context: &mut libc::ucontext_t, place: extern "C" fn() -> !, stack: usize) {
    context.uc_mcontext.psw.addr = place as *const () as u64;
    context.uc_mcontext.gregs[STACK_POINTER] = (stack - CALLEES_AREA) as u64;
}

macro_rules! jump {
    () => {
        "jg {0}"
    };
}
pub(crate) use jump;

/// The stack comes first.
pub const FORK_ARGUMENTS: [usize; 2] = [0, libc::SIGCHLD as usize];

/// What ptrace(2) gives as the registers of a thread: how many words, and where the result of a call is.
pub const TRACED_WORDS: usize = 27;
pub const TRACED_RESULT: usize = 4;

/// The number of a call is where its result is going to be, as far as a tracer can see it: the set of registers, and its place there.
pub const TRACED_NUMBER: (usize, usize) = (super::GENERAL, 4);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = None;

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal.
    unsafe { asm!(".short 1") };
}
