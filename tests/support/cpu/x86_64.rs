//! x86-64.

use std::arch::asm;

std::arch::global_asm!(
    ".globl psx_test_call, psx_test_call_end",
    "psx_test_call:",
    "mov %rdi, %rax",
    "mov %rsi, %rcx",
    "mov (%rcx), %rdi",
    "mov 8(%rcx), %rsi",
    "mov 16(%rcx), %rdx",
    "mov 24(%rcx), %r10",
    "mov 32(%rcx), %r8",
    "mov 40(%rcx), %r9",
    "syscall",
    "psx_test_call_end:",
    "ret",
    options(att_syntax)
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
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => tid,
            in("rdi") flags as isize,
            in("rsi") stack,
            in("rdx") 0,
            in("r10") 0,
            in("r8") thread_pointer,
            in("r12") body,
            out("rcx") _,
            out("r11") _,
        );
    }
    tid
}

pub fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
    let at =
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9];
    at.map(|register| context.uc_mcontext.gregs[register as usize] as usize)
}

/// A handler of a trapped call finds all its arguments.
pub const TRAPS_KEEP_ARGUMENTS: bool = true;

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = result as i64;
}

pub fn call_again(context: &mut libc::ucontext_t, number: libc::c_long) {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] -= 2;
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = number;
}

pub fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize
}

pub fn go_on_at(context: &mut libc::ucontext_t, place: extern "C" fn() -> !, stack: usize) {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] = place as *const () as i64;
    // The stack pointer is as after a call instruction.
    context.uc_mcontext.gregs[libc::REG_RSP as usize] = (stack - 64 - 8) as i64;
}

macro_rules! jump {
    () => {
        "jmp {0}"
    };
}
pub(crate) use jump;

pub const FORK_ARGUMENTS: [usize; 2] = [libc::SIGCHLD as usize, 0];

/// What ptrace(2) gives as the registers of a thread: how many words, and where the result of a call is.
pub const TRACED_WORDS: usize = 27;
pub const TRACED_RESULT: usize = 10;

/// Where the number of a call is that a tracer may change.
pub const TRACED_NUMBER: super::TracedNumber = super::TracedNumber::Word(super::GENERAL, 15);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = None;

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal.
    unsafe { asm!("int3") };
}

/// Fills registers of every kind, computes for a while, and returns whether all of them have kept their values.
pub fn registers_keep(seed: u64) -> bool {
    let mut general = 0u64;
    let mut vector = 0u64;
    // SAFETY: the code uses only declared registers, and no memory.
    unsafe {
        asm!(
            "mov r8, {seed}", "mov r9, {seed}", "mov r10, {seed}", "mov r11, {seed}",
            "mov r12, {seed}", "mov r13, {seed}", "mov r14, {seed}", "mov r15, {seed}",
            "mov rsi, {seed}", "mov rdi, {seed}", "mov rdx, {seed}", "mov rax, {seed}",
            "movq xmm0, {seed}", "movq xmm7, {seed}", "movq xmm8, {seed}", "movq xmm15, {seed}",
            "mov rcx, 20000",
            "std", "cld", "stc",
            "2: pause", "dec rcx", "jnz 2b",
            // A bit is set for every difference from the seed.
            "xor r8, {seed}", "xor r9, {seed}", "xor r10, {seed}", "xor r11, {seed}",
            "xor r12, {seed}", "xor r13, {seed}", "xor r14, {seed}", "xor r15, {seed}",
            "xor rsi, {seed}", "xor rdi, {seed}", "xor rdx, {seed}", "xor rax, {seed}",
            "or r8, r9", "or r10, r11", "or r12, r13", "or r14, r15",
            "or rsi, rdi", "or rdx, rax", "or r8, r10", "or r12, r14",
            "or rsi, rdx", "or r8, r12", "or r8, rsi", "mov rdi, r8",
            "movq xmm1, {seed}", "pxor xmm0, xmm1", "pxor xmm7, xmm1", "pxor xmm8, xmm1",
            "pxor xmm15, xmm1", "por xmm0, xmm7", "por xmm8, xmm15", "por xmm0, xmm8",
            "movq rsi, xmm0",
            seed = in(reg) seed,
            out("rdi") general, out("rsi") vector, out("rax") _, out("rcx") _, out("rdx") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _,
            out("r14") _, out("r15") _, out("xmm0") _, out("xmm1") _, out("xmm7") _,
            out("xmm8") _, out("xmm15") _,
            options(nostack),
        );
    }
    general == 0 && vector == 0
}
