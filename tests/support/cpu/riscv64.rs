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

/// A handler of a trapped call finds all its arguments.
pub const TRAPS_KEEP_ARGUMENTS: bool = true;

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.__gregs[A0] = result as u64;
}

/// The number is still in its register.
pub fn call_again(context: &mut libc::ucontext_t, _number: libc::c_long) {
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

/// Where the number of a call is that a tracer may change.
pub const TRACED_NUMBER: super::TracedNumber = super::TracedNumber::Word(super::GENERAL, 17);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = Some(0);

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal and goes on after the instruction.
    unsafe { asm!(".option push", ".option norvc", "ebreak", ".option pop") };
}

/// Fills registers of every kind, computes for a while, and returns whether all of them have kept their values.
pub fn registers_keep(seed: u64) -> bool {
    let differences: u64;
    // SAFETY: the code uses only declared registers, and no memory.
    unsafe {
        asm!(
            "mv t1, {seed}", "mv t2, {seed}", "mv t3, {seed}", "mv t4, {seed}",
            "mv t5, {seed}", "mv t6, {seed}", "mv a0, {seed}", "mv a1, {seed}",
            "mv a2, {seed}", "mv a3, {seed}", "mv a4, {seed}", "mv a5, {seed}",
            "mv a6, {seed}", "mv a7, {seed}", "fmv.d.x ft0, {seed}", "fmv.d.x ft7, {seed}",
            "fmv.d.x fs0, {seed}", "fmv.d.x fs11, {seed}", "fmv.d.x ft11, {seed}", "fmv.d.x fa0, {seed}",
            "li t0, 20000", "2: addi t0, t0, -1", "bnez t0, 2b",
            // A bit is set for every difference from the seed.
            "xor t1, t1, {seed}", "xor t2, t2, {seed}", "xor t3, t3, {seed}", "xor t4, t4, {seed}",
            "xor t5, t5, {seed}", "xor t6, t6, {seed}", "xor a0, a0, {seed}", "xor a1, a1, {seed}",
            "xor a2, a2, {seed}", "xor a3, a3, {seed}", "xor a4, a4, {seed}", "xor a5, a5, {seed}",
            "xor a6, a6, {seed}", "xor a7, a7, {seed}", "or t0, t0, t1", "or t0, t0, t2",
            "or t0, t0, t3", "or t0, t0, t4", "or t0, t0, t5", "or t0, t0, t6",
            "or t0, t0, a0", "or t0, t0, a1", "or t0, t0, a2", "or t0, t0, a3",
            "or t0, t0, a4", "or t0, t0, a5", "or t0, t0, a6", "or t0, t0, a7",
            "fmv.x.d t1, ft0", "xor t1, t1, {seed}", "or t0, t0, t1", "fmv.x.d t1, ft7",
            "xor t1, t1, {seed}", "or t0, t0, t1", "fmv.x.d t1, fs0", "xor t1, t1, {seed}",
            "or t0, t0, t1", "fmv.x.d t1, fs11", "xor t1, t1, {seed}", "or t0, t0, t1",
            "fmv.x.d t1, ft11", "xor t1, t1, {seed}", "or t0, t0, t1", "fmv.x.d t1, fa0",
            "xor t1, t1, {seed}", "or t0, t0, t1",
            seed = in(reg) seed,
            out("t0") differences, out("t1") _, out("t2") _, out("t3") _, out("t4") _,
            out("t5") _, out("t6") _, out("a0") _, out("a1") _, out("a2") _,
            out("a3") _, out("a4") _, out("a5") _, out("a6") _, out("a7") _,
            out("ft0") _, out("ft7") _, out("fs0") _, out("fs11") _, out("ft11") _,
            out("fa0") _,
            options(nostack),
        );
    }
    differences == 0
}
