//! aarch64.

use std::arch::asm;

std::arch::global_asm!(
    ".balign 4",
    ".globl psx_test_call, psx_test_call_end",
    "psx_test_call:",
    "mov x8, x0",
    "mov x9, x1",
    "ldp x0, x1, [x9]",
    "ldp x2, x3, [x9, #16]",
    "ldp x4, x5, [x9, #32]",
    "svc #0",
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
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, #0",
            "blr {body}",
            "udf #0",
            "2:",
            body = in(reg) body,
            in("x8") libc::SYS_clone,
            inlateout("x0") flags as isize => tid,
            in("x1") stack,
            in("x2") 0usize,
            in("x3") thread_pointer,
            in("x4") 0usize,
        );
    }
    tid
}

pub fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
    std::array::from_fn(|index| context.uc_mcontext.regs[index] as usize)
}

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.regs[0] = result as u64;
}

/// The number is still in its register.
pub fn call_again(context: &mut libc::ucontext_t, _number: i64) {
    context.uc_mcontext.pc -= 4;
}

pub fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.sp as usize
}

pub fn go_on_at(context: &mut libc::ucontext_t, place: extern "C" fn() -> !, stack: usize) {
    context.uc_mcontext.pc = place as *const () as u64;
    context.uc_mcontext.sp = (stack - 64) as u64;
}

macro_rules! jump {
    () => {
        "b {0}"
    };
}
pub(crate) use jump;

pub const FORK_ARGUMENTS: [usize; 2] = [libc::SIGCHLD as usize, 0];

/// What ptrace(2) gives as the registers of a thread: how many words, and where the result of a call is.
pub const TRACED_WORDS: usize = 34;
pub const TRACED_RESULT: usize = 0;

/// NT_ARM_SYSTEM_CALL, include/uapi/linux/elf.h.
const SYSTEM_CALL: usize = 0x404;

/// Where the number of a call is that a tracer may change: the set of registers, and its place there.
pub const TRACED_NUMBER: (usize, usize) = (SYSTEM_CALL, 0);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = Some(32);

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal and goes on after the instruction.
    unsafe { asm!("brk #0") };
}
