//! 32-bit x86.

use std::arch::asm;

std::arch::global_asm!(
    ".globl psx_test_call, psx_test_call_end",
    "psx_test_call:",
    "push %ebp",
    "push %ebx",
    "push %esi",
    "push %edi",
    "mov 20(%esp), %eax",
    "mov 24(%esp), %ebp",
    "mov (%ebp), %ebx",
    "mov 4(%ebp), %ecx",
    "mov 8(%ebp), %edx",
    "mov 12(%ebp), %esi",
    "mov 16(%ebp), %edi",
    "mov 20(%ebp), %ebp",
    "int $0x80",
    "psx_test_call_end:",
    "pop %edi",
    "pop %esi",
    "pop %ebx",
    "pop %ebp",
    "ret",
    options(att_syntax)
);

/// The kernel's struct user_desc, set_thread_area(2).
#[repr(C)]
struct Segment {
    entry: u32,
    base: u32,
    limit: u32,
    flags: u32,
}

/// The segment is one of 32-bit code, its limit counts pages, and programs may use it.
const SEG_32BIT: u32 = 1 << 0;
const LIMIT_IN_PAGES: u32 = 1 << 4;
const USEABLE: u32 = 1 << 6;

/// The thread pointer is the base of a segment, which the kernel keeps for each thread. The thread has the same selector
/// as this one.
///
/// # Safety
/// `stack` is the end of memory for a stack, and `body` uses no TLS if `thread_pointer` leads to none.
pub unsafe fn clone(
    flags: i32,
    stack: usize,
    thread_pointer: usize,
    body: extern "C" fn() -> !,
) -> isize {
    let selector: u32;
    // SAFETY: the instruction reads a register.
    unsafe { asm!("mov {:e}, gs", out(reg) selector, options(nomem, nostack)) };
    let segment = Segment {
        entry: selector >> 3,
        base: thread_pointer as u32,
        limit: 0xf_ffff,
        flags: SEG_32BIT | LIMIT_IN_PAGES | USEABLE,
    };
    let tid;
    // SAFETY: the new thread begins on its own stack, calls `body` there and never returns. esi, which cannot be an
    // operand, is put back. The kernel does not use edi, the address of the child's tid, without a flag for it.
    unsafe {
        asm!(
            "push esi",
            "mov esi, edx",
            "xor edx, edx",
            "int 0x80",
            "test eax, eax",
            "jnz 2f",
            "xor ebp, ebp",
            "call edi",
            "ud2",
            "2:",
            "pop esi",
            inlateout("eax") libc::SYS_clone as isize => tid,
            in("ebx") flags,
            in("ecx") stack,
            inlateout("edx") &raw const segment => _,
            in("edi") body,
        );
    }
    tid
}

pub fn arguments(context: &libc::ucontext_t) -> [usize; 6] {
    let at =
        [libc::REG_EBX, libc::REG_ECX, libc::REG_EDX, libc::REG_ESI, libc::REG_EDI, libc::REG_EBP];
    at.map(|register| context.uc_mcontext.gregs[register as usize] as usize)
}

/// A handler of a trapped call finds all its arguments.
pub const TRAPS_KEEP_ARGUMENTS: bool = true;

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.gregs[libc::REG_EAX as usize] = result as i32;
}

/// After a call by sysenter, which the C library makes, the program counter is after an int 0x80 as well.
pub fn call_again(context: &mut libc::ucontext_t, number: libc::c_long) {
    context.uc_mcontext.gregs[libc::REG_EIP as usize] -= 2;
    context.uc_mcontext.gregs[libc::REG_EAX as usize] = number;
}

pub fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[libc::REG_ESP as usize] as usize
}

pub fn go_on_at(context: &mut libc::ucontext_t, place: extern "C" fn() -> !, stack: usize) {
    context.uc_mcontext.gregs[libc::REG_EIP as usize] = place as *const () as i32;
    // The stack pointer is as after a call instruction.
    context.uc_mcontext.gregs[libc::REG_ESP as usize] = (stack - 64 - 4) as i32;
}

macro_rules! jump {
    () => {
        "jmp {0}"
    };
}
pub(crate) use jump;

pub const FORK_ARGUMENTS: [usize; 2] = [libc::SIGCHLD as usize, 0];

/// What ptrace(2) gives as the registers of a thread: how many words, and where the result of a call is.
pub const TRACED_WORDS: usize = 17;
pub const TRACED_RESULT: usize = 6;

/// Where the number of a call is that a tracer may change.
pub const TRACED_NUMBER: super::TracedNumber = super::TracedNumber::Word(super::GENERAL, 11);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = None;

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal.
    unsafe { asm!("int3") };
}

/// Fills registers of every kind, computes for a while, and returns whether all of them have kept their values.
pub fn registers_keep(seed: u64) -> bool {
    let general: u32;
    let same_bytes: u32;
    // SAFETY: the code uses only declared registers, and those that it puts back; and no memory but the stack.
    unsafe {
        asm!(
            "push esi", "push ebp",
            "mov ebx, eax", "mov edx, eax", "mov esi, eax", "mov edi, eax", "mov ebp, eax",
            "movd xmm0, eax", "pshufd xmm0, xmm0, 0",
            "movdqa xmm1, xmm0", "movdqa xmm2, xmm0", "movdqa xmm3, xmm0", "movdqa xmm4, xmm0",
            "movdqa xmm5, xmm0", "movdqa xmm6, xmm0", "movdqa xmm7, xmm0",
            "mov ecx, 20000",
            "std", "cld", "stc",
            "2: pause", "dec ecx", "jnz 2b",
            // A bit is set for every difference from the seed.
            "xor ebx, eax", "xor edx, eax", "xor esi, eax", "xor edi, eax", "xor ebp, eax",
            "or ebx, edx", "or esi, edi", "or ebx, ebp", "or ebx, esi",
            "pxor xmm0, xmm7", "pxor xmm1, xmm7", "pxor xmm2, xmm7", "pxor xmm3, xmm7",
            "pxor xmm4, xmm7", "pxor xmm5, xmm7", "pxor xmm6, xmm7",
            "por xmm0, xmm1", "por xmm2, xmm3", "por xmm4, xmm5", "por xmm0, xmm6",
            "por xmm2, xmm4", "por xmm0, xmm2",
            "movd xmm1, eax", "pshufd xmm1, xmm1, 0", "pxor xmm7, xmm1", "por xmm0, xmm7",
            // One bit for each byte without a difference.
            "pxor xmm1, xmm1", "pcmpeqb xmm0, xmm1", "pmovmskb edi, xmm0",
            "pop ebp", "pop esi",
            inlateout("eax") seed as u32 => _,
            out("ebx") general, out("edi") same_bytes, out("ecx") _, out("edx") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            out("xmm5") _, out("xmm6") _, out("xmm7") _,
        );
    }
    general == 0 && same_bytes == 0xffff
}
