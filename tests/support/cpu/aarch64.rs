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

/// A handler of a trapped call finds all its arguments.
pub const TRAPS_KEEP_ARGUMENTS: bool = true;

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.regs[0] = result as u64;
}

/// The number is still in its register.
pub fn call_again(context: &mut libc::ucontext_t, _number: libc::c_long) {
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

/// Where the number of a call is that a tracer may change.
pub const TRACED_NUMBER: super::TracedNumber = super::TracedNumber::Word(SYSTEM_CALL, 0);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = Some(32);

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal and goes on after the instruction.
    unsafe { asm!("brk #0") };
}

/// Fills registers of every kind, computes for a while, and returns whether all of them have kept their values.
pub fn registers_keep(seed: u64) -> bool {
    let differences: u64;
    // SAFETY: the code uses only declared registers, and no memory.
    unsafe {
        asm!(
            "mov x3, {seed}", "mov x4, {seed}", "mov x5, {seed}", "mov x6, {seed}",
            "mov x7, {seed}", "mov x8, {seed}", "mov x9, {seed}", "mov x10, {seed}",
            "mov x11, {seed}", "mov x12, {seed}", "mov x13, {seed}", "mov x14, {seed}",
            "mov x15, {seed}", "mov x16, {seed}", "mov x17, {seed}", "fmov d0, {seed}",
            "fmov d7, {seed}", "fmov d8, {seed}", "fmov d15, {seed}", "fmov d31, {seed}",
            "mov x2, #20000", "cmp x2, x2", "2: yield", "sub x2, x2, #1",
            "cbnz x2, 2b", "cset x2, ne",
            // A bit is set for every difference from the seed.
            "eor x3, x3, {seed}", "eor x4, x4, {seed}", "eor x5, x5, {seed}", "eor x6, x6, {seed}",
            "eor x7, x7, {seed}", "eor x8, x8, {seed}", "eor x9, x9, {seed}", "eor x10, x10, {seed}",
            "eor x11, x11, {seed}", "eor x12, x12, {seed}", "eor x13, x13, {seed}", "eor x14, x14, {seed}",
            "eor x15, x15, {seed}", "eor x16, x16, {seed}", "eor x17, x17, {seed}", "orr x2, x2, x3",
            "orr x2, x2, x4", "orr x2, x2, x5", "orr x2, x2, x6", "orr x2, x2, x7",
            "orr x2, x2, x8", "orr x2, x2, x9", "orr x2, x2, x10", "orr x2, x2, x11",
            "orr x2, x2, x12", "orr x2, x2, x13", "orr x2, x2, x14", "orr x2, x2, x15",
            "orr x2, x2, x16", "orr x2, x2, x17", "fmov x3, d0", "eor x3, x3, {seed}",
            "orr x2, x2, x3", "fmov x3, d7", "eor x3, x3, {seed}", "orr x2, x2, x3",
            "fmov x3, d8", "eor x3, x3, {seed}", "orr x2, x2, x3", "fmov x3, d15",
            "eor x3, x3, {seed}", "orr x2, x2, x3", "fmov x3, d31", "eor x3, x3, {seed}",
            "orr x2, x2, x3",
            seed = in(reg) seed,
            out("x2") differences, out("x3") _, out("x4") _, out("x5") _, out("x6") _,
            out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _,
            out("x17") _, out("v0") _, out("v7") _, out("v8") _, out("v15") _,
            out("v31") _,
            options(nostack),
        );
    }
    differences == 0
}
