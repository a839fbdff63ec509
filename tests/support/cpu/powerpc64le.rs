//! powerpc64le.

use std::arch::asm;

std::arch::global_asm!(
    ".balign 16",
    ".globl psx_test_call, psx_test_call_end",
    "psx_test_call:",
    "mr 0, 3",
    "mr 12, 4",
    "ld 3, 0(12)",
    "ld 4, 8(12)",
    "ld 5, 16(12)",
    "ld 6, 24(12)",
    "ld 7, 32(12)",
    "ld 8, 40(12)",
    "sc",
    "psx_test_call_end:",
    "bnslr",
    // An error is a positive number with the summary overflow bit.
    "neg 3, 3",
    "blr",
);

/// What a caller leaves free at the end of its stack: its frame, and what a function may keep there of its arguments.
const CALLEES_AREA: usize = 96;

/// # Safety
/// `stack` is the end of memory for a stack, and `body` uses no TLS if `thread_pointer` leads to none.
pub unsafe fn clone(
    flags: i32,
    stack: usize,
    thread_pointer: usize,
    body: extern "C" fn() -> !,
) -> isize {
    let tid;
    // SAFETY: the new thread begins on its own stack, calls `body` there and never returns. A function finds its own
    // address in r12.
    unsafe {
        asm!(
            "sc",
            "bns 3f",
            "neg 3, 3",
            "3: cmpdi 3, 0",
            "bne 2f",
            "mr 12, {body}",
            "mtctr 12",
            "bctrl",
            "trap",
            "2:",
            body = in(reg) body,
            inlateout("r0") libc::SYS_clone => _,
            inlateout("r3") flags as isize => tid,
            inlateout("r4") stack - CALLEES_AREA => _,
            inlateout("r5") 0usize => _,
            inlateout("r6") thread_pointer => _,
            inlateout("r7") 0usize => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _,
            out("cr0") _, out("ctr") _, out("xer") _, out("lr") _,
        );
    }
    tid
}

// Places in the general registers of a frame, and in those that ptrace(2) gives (include/uapi/asm/ptrace.h).
const STACK_POINTER: usize = 1;
const R3: usize = 3;
const R12: usize = 12;
const PROGRAM_COUNTER: usize = 32;
const FIRST_ARGUMENT: usize = 34;
const CONDITIONS: usize = 38;
const TRAP: usize = 40;

/// The bit of the conditions that marks an error after `sc`. The C library makes its calls by `scv` where the CPU has it:
/// there, an error is a negative number (Documentation/arch/powerpc/syscall64-abi.rst).
const SUMMARY_OVERFLOW: u64 = 1 << 28;
const BY_SCV: u64 = 0x3000;

/// r3 has the first argument too, or what the kernel makes of it if it looks like an error.
pub fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
    let at = |index| if index == 0 { FIRST_ARGUMENT } else { R3 + index };
    std::array::from_fn(|index| context.uc_mcontext.gp_regs[at(index)] as usize)
}

/// A handler of a trapped call finds all its arguments.
pub const TRAPS_KEEP_ARGUMENTS: bool = true;

fn put_result(registers: &mut [u64], result: isize) {
    let by_scv = registers[TRAP] & !0xf == BY_SCV;
    let failed = !by_scv && (-4095..0).contains(&result);
    registers[R3] = if failed { -result } else { result } as u64;
    registers[CONDITIONS] &= !SUMMARY_OVERFLOW;
    registers[CONDITIONS] |= if failed { SUMMARY_OVERFLOW } else { 0 };
}

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    put_result(&mut context.uc_mcontext.gp_regs, result);
}

/// The number is still in its register.
pub fn call_again(context: &mut libc::ucontext_t, _number: libc::c_long) {
    let registers = &mut context.uc_mcontext.gp_regs;
    registers[PROGRAM_COUNTER] -= 4;
    registers[R3] = registers[FIRST_ARGUMENT];
}

pub fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gp_regs[STACK_POINTER] as usize
}

pub fn go_on_at(context: &mut libc::ucontext_t, place: extern "C" fn() -> !, stack: usize) {
    let registers = &mut context.uc_mcontext.gp_regs;
    registers[PROGRAM_COUNTER] = place as *const () as u64;
    registers[R12] = registers[PROGRAM_COUNTER];
    registers[STACK_POINTER] = (stack - CALLEES_AREA) as u64;
}

/// Four instructions. A function finds its own address in r12, which is here that of the jump.
macro_rules! jump {
    () => {
        "0: addis 12, 12, {0} - 0b@ha; addi 12, 12, {0} - 0b@l; mtctr 12; bctr"
    };
}
pub(crate) use jump;

pub const FORK_ARGUMENTS: [usize; 2] = [libc::SIGCHLD as usize, 0];

/// How many words ptrace(2) gives as the registers of a thread.
pub const TRACED_WORDS: usize = 48;

/// Puts the result of a call in the registers of a thread that is about to leave it.
pub fn set_traced_result(registers: &mut [usize; TRACED_WORDS], result: isize) {
    let mut words = registers.map(|word| word as u64);
    put_result(&mut words, result);
    *registers = words.map(|word| word as usize);
}

/// Where the number of a call is that a tracer may change.
pub const TRACED_NUMBER: super::TracedNumber = super::TracedNumber::Word(super::GENERAL, 0);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = Some(PROGRAM_COUNTER);

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal and goes on after the instruction.
    unsafe { asm!("trap") };
}

/// Fills registers of every kind, computes for a while, and returns whether all of them have kept their values.
pub fn registers_keep(seed: u64) -> bool {
    let differences: u64;
    // SAFETY: the code uses only declared registers, and no memory.
    unsafe {
        asm!(
            "mr 0, {seed}", "mr 5, {seed}", "mr 6, {seed}", "mr 7, {seed}",
            "mr 8, {seed}", "mr 9, {seed}", "mr 10, {seed}", "mr 11, {seed}",
            "mr 12, {seed}", "mr 14, {seed}", "mr 15, {seed}", "mr 16, {seed}",
            "mr 17, {seed}", "mr 18, {seed}", "mtlr {seed}", "mtfprd 0, {seed}",
            "mtfprd 1, {seed}", "mtfprd 13, {seed}", "mtfprd 14, {seed}", "mtfprd 31, {seed}",
            "mtvrd 0, {seed}", "mtvrd 19, {seed}", "mtvrd 20, {seed}", "mtvrd 31, {seed}",
            "li 3, 20000", "mtctr 3", "cmpd 1, 3, 3", "cmpd 5, 3, 3", "2: bdnz 2b",
            // A bit is set for every difference from the seed.
            "li 3, 0", "beq 1, 3f", "li 3, 1", "3: beq 5, 4f", "li 3, 1",
            "4: xor 0, 0, {seed}", "xor 5, 5, {seed}", "xor 6, 6, {seed}", "xor 7, 7, {seed}",
            "xor 8, 8, {seed}", "xor 9, 9, {seed}", "xor 10, 10, {seed}", "xor 11, 11, {seed}",
            "xor 12, 12, {seed}", "xor 14, 14, {seed}", "xor 15, 15, {seed}", "xor 16, 16, {seed}",
            "xor 17, 17, {seed}", "xor 18, 18, {seed}", "or 3, 3, 0", "or 3, 3, 5",
            "or 3, 3, 6", "or 3, 3, 7", "or 3, 3, 8", "or 3, 3, 9",
            "or 3, 3, 10", "or 3, 3, 11", "or 3, 3, 12", "or 3, 3, 14",
            "or 3, 3, 15", "or 3, 3, 16", "or 3, 3, 17", "or 3, 3, 18",
            "mflr 5", "xor 5, 5, {seed}", "or 3, 3, 5", "mffprd 5, 0",
            "xor 5, 5, {seed}", "or 3, 3, 5", "mffprd 5, 1", "xor 5, 5, {seed}",
            "or 3, 3, 5", "mffprd 5, 13", "xor 5, 5, {seed}", "or 3, 3, 5",
            "mffprd 5, 14", "xor 5, 5, {seed}", "or 3, 3, 5", "mffprd 5, 31",
            "xor 5, 5, {seed}", "or 3, 3, 5", "mfvrd 5, 0", "xor 5, 5, {seed}",
            "or 3, 3, 5", "mfvrd 5, 19", "xor 5, 5, {seed}", "or 3, 3, 5",
            "mfvrd 5, 20", "xor 5, 5, {seed}", "or 3, 3, 5", "mfvrd 5, 31",
            "xor 5, 5, {seed}", "or 3, 3, 5",
            seed = in(reg) seed,
            out("r3") differences, out("r0") _, out("r5") _, out("r6") _, out("r7") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _,
            out("r14") _, out("r15") _, out("r16") _, out("r17") _, out("r18") _,
            out("lr") _, out("ctr") _, out("cr1") _, out("cr5") _, out("f0") _,
            out("f1") _, out("f13") _, out("f14") _, out("f31") _, out("v0") _,
            out("v19") _, out("v20") _, out("v31") _,
            options(nostack),
        );
    }
    differences == 0
}
