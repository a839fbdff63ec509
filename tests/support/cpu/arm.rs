//! arm, 32 bits. The tests are ARM code, and call a C library of Thumb code.

use std::arch::asm;

std::arch::global_asm!(
    ".arm",
    ".balign 4",
    ".globl psx_test_call, psx_test_call_end",
    ".type psx_test_call, %function",
    "psx_test_call:",
    "push {{r4, r5, r7, lr}}",
    "mov r7, r0",
    "mov ip, r1",
    "ldm ip, {{r0, r1, r2, r3, r4, r5}}",
    "svc #0",
    "psx_test_call_end:",
    "pop {{r4, r5, r7, pc}}",
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
            "mov {kept}, r7",
            "mov r7, {number}",
            "svc #0",
            "mov r7, {kept}",
            "cmp r0, #0",
            "bne 2f",
            "blx {body}",
            "udf #0",
            "2:",
            kept = out(reg) _,
            number = in(reg) libc::SYS_clone,
            body = in(reg) body,
            inlateout("r0") flags as isize => tid,
            in("r1") stack,
            in("r2") 0usize,
            in("r3") thread_pointer,
            in("r4") 0usize,
            out("lr") _,
        );
    }
    tid
}

pub fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
    let frame = &context.uc_mcontext;
    let registers =
        [frame.arm_r0, frame.arm_r1, frame.arm_r2, frame.arm_r3, frame.arm_r4, frame.arm_r5];
    registers.map(|register| register as usize)
}

/// A handler of a trapped call finds all its arguments.
pub const TRAPS_KEEP_ARGUMENTS: bool = true;

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.arm_r0 = result as u32;
}

/// The bit of the status register that says whether the code is Thumb code.
const THUMB: u32 = 1 << 5;

/// The number is still in its register.
pub fn call_again(context: &mut libc::ucontext_t, _number: libc::c_long) {
    let thumb = context.uc_mcontext.arm_cpsr & THUMB != 0;
    context.uc_mcontext.arm_pc -= if thumb { 2 } else { 4 };
}

pub fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.arm_sp as usize
}

pub fn go_on_at(context: &mut libc::ucontext_t, place: extern "C" fn() -> !, stack: usize) {
    // The lowest bit of an address says that there is Thumb code.
    let address = place as *const () as u32;
    context.uc_mcontext.arm_pc = address & !1;
    context.uc_mcontext.arm_cpsr &= !THUMB;
    context.uc_mcontext.arm_cpsr |= (address & 1) * THUMB;
    context.uc_mcontext.arm_sp = (stack - 64) as u32;
}

macro_rules! jump {
    () => {
        "b {0}"
    };
}
pub(crate) use jump;

pub const FORK_ARGUMENTS: [usize; 2] = [libc::SIGCHLD as usize, 0];

/// What ptrace(2) gives as the registers of a thread: how many words, and where the result of a call is.
pub const TRACED_WORDS: usize = 18;
pub const TRACED_RESULT: usize = 0;

/// PTRACE_SET_SYSCALL, arch/arm/include/uapi/asm/ptrace.h.
const SET_SYSCALL: u32 = 23;

/// Where the number of a call is that a tracer may change: the kernel has read the register already.
pub const TRACED_NUMBER: super::TracedNumber = super::TracedNumber::Request(SET_SYSCALL);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = Some(15);

/// Stops a traced thread by SIGTRAP: the instruction that Linux takes for a breakpoint (arch/arm/kernel/ptrace.c).
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal and goes on after the instruction.
    unsafe { asm!(".inst 0xe7f001f0") };
}

/// Fills registers of every kind, computes for a while, and returns whether all of them have kept their values.
pub fn registers_keep(seed: u64) -> bool {
    let differences: u32;
    // SAFETY: the code uses only declared registers, and no memory.
    unsafe {
        asm!(
            "mov r2, {seed}", "mov r3, {seed}", "mov r4, {seed}", "mov r5, {seed}",
            "mov r8, {seed}", "mov r10, {seed}", "mov r12, {seed}", "mov lr, {seed}",
            "vmov s0, {seed}", "vmov s1, {seed}", "vmov s15, {seed}", "vmov s16, {seed}",
            "vmov s31, {seed}", "movw r1, #20000", "2: subs r1, r1, #1", "bne 2b",
            // A bit is set for every difference from the seed.
            "eor r2, r2, {seed}", "eor r3, r3, {seed}", "eor r4, r4, {seed}", "eor r5, r5, {seed}",
            "eor r8, r8, {seed}", "eor r10, r10, {seed}", "eor r12, r12, {seed}", "eor lr, lr, {seed}",
            "orr r1, r1, r2", "orr r1, r1, r3", "orr r1, r1, r4", "orr r1, r1, r5",
            "orr r1, r1, r8", "orr r1, r1, r10", "orr r1, r1, r12", "orr r1, r1, lr",
            "vmov r2, s0", "eor r2, r2, {seed}", "orr r1, r1, r2", "vmov r2, s1",
            "eor r2, r2, {seed}", "orr r1, r1, r2", "vmov r2, s15", "eor r2, r2, {seed}",
            "orr r1, r1, r2", "vmov r2, s16", "eor r2, r2, {seed}", "orr r1, r1, r2",
            "vmov r2, s31", "eor r2, r2, {seed}", "orr r1, r1, r2",
            seed = in(reg) seed as u32,
            out("r1") differences, out("r2") _, out("r3") _, out("r4") _, out("r5") _,
            out("r8") _, out("r10") _, out("r12") _, out("lr") _,
            out("s0") _, out("s1") _, out("s15") _, out("s16") _, out("s31") _,
            options(nostack),
        );
    }
    differences == 0
}
