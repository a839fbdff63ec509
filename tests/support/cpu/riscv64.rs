//! riscv64.

use std::arch::asm;

std::arch::global_asm!(
    ".balign 4",
    ".globl psx_test_call, psx_test_call_end",
    "psx_test_call:",
    "mv a7, a0",
    "mv t0, a1",
    "ld a0, 0(t0)",
    "ld a1, 8(t0)",
    "ld a2, 16(t0)",
    "ld a3, 24(t0)",
    "ld a4, 32(t0)",
    "ld a5, 40(t0)",
    "ecall",
    "psx_test_call_end:",
    "ret",
);

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
            "ecall",
            "bnez a0, 2f",
            "jalr {body}",
            "unimp",
            "2:",
            body = in(reg) body,
            in("a7") libc::SYS_clone,
            inlateout("a0") flags as isize => tid,
            in("a1") stack,
            in("a2") 0usize,
            in("a3") thread_pointer,
            in("a4") 0usize,
        );
    }
    tid
}

/// The program counter is in place of the register that is always zero.
const PROGRAM_COUNTER: usize = 0;
const STACK_POINTER: usize = 2;
const A0: usize = 10;

pub fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
    std::array::from_fn(|index| context.uc_mcontext.__gregs[A0 + index] as usize)
}

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.__gregs[A0] = result as u64;
}

/// The number is still in its register.
pub fn call_again(context: &mut libc::ucontext_t, _number: i64) {
    context.uc_mcontext.__gregs[PROGRAM_COUNTER] -= 4;
}

pub fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.__gregs[STACK_POINTER] as usize
}

pub fn go_on_at(context: &mut libc::ucontext_t, place: extern "C" fn() -> !, stack: usize) {
    context.uc_mcontext.__gregs[PROGRAM_COUNTER] = place as *const () as u64;
    context.uc_mcontext.__gregs[STACK_POINTER] = (stack - 64) as u64;
}

macro_rules! jump {
    () => {
        "tail {0}"
    };
}
pub(crate) use jump;

pub const FORK_ARGUMENTS: [usize; 2] = [libc::SIGCHLD as usize, 0];

/// What ptrace(2) gives as the registers of a thread: how many words, and where the result of a call is.
pub const TRACED_WORDS: usize = 32;
pub const TRACED_RESULT: usize = 10;

/// Where the number of a call is that a tracer may change: the set of registers, and its place there.
pub const TRACED_NUMBER: (usize, usize) = (super::GENERAL, 17);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = Some(0);

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal and goes on after the instruction.
    unsafe { asm!(".option push", ".option norvc", "ebreak", ".option pop") };
}
