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

/// A handler of a trapped call finds -ENOSYS in place of its first argument: the kernel has put the result of a call that
/// does not exist there (arch/s390/kernel/syscall.c).
pub const TRAPS_KEEP_ARGUMENTS: bool = false;

pub fn set_result(context: &mut libc::ucontext_t, result: isize) {
    context.uc_mcontext.gregs[R2] = result as u64;
}

/// The number is in the instruction, or still in its register.
pub fn call_again(context: &mut libc::ucontext_t, _number: libc::c_long) {
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

/// The number of a call is where its result is going to be, as far as a tracer can see it.
pub const TRACED_NUMBER: super::TracedNumber = super::TracedNumber::Word(super::GENERAL, 4);

/// The program counter, if it is at the breakpoint and not after it when the thread stops there.
pub const TRACED_AT_BREAKPOINT: Option<usize> = None;

/// Stops a traced thread by SIGTRAP.
pub fn breakpoint() {
    // SAFETY: the tracer removes the signal.
    unsafe { asm!(".short 1") };
}

/// Fills registers of every kind, computes for a while, and returns whether all of them have kept their values.
pub fn registers_keep(seed: u64) -> bool {
    let differences: u64;
    // SAFETY: the code uses only declared registers, and no memory.
    unsafe {
        asm!(
            "lgr %r0, {seed}", "lgr %r2, {seed}", "lgr %r3, {seed}", "lgr %r4, {seed}",
            "lgr %r5, {seed}", "lgr %r6, {seed}", "lgr %r7, {seed}", "lgr %r8, {seed}",
            "lgr %r9, {seed}", "lgr %r10, {seed}", "lgr %r14, {seed}", "ldgr %f0, {seed}",
            "ldgr %f2, {seed}", "ldgr %f7, {seed}", "ldgr %f8, {seed}", "ldgr %f15, {seed}",
            "lghi %r1, 20000", "2: brctg %r1, 2b",
            // A bit is set for every difference from the seed.
            "xgr %r0, {seed}", "xgr %r2, {seed}", "xgr %r3, {seed}", "xgr %r4, {seed}",
            "xgr %r5, {seed}", "xgr %r6, {seed}", "xgr %r7, {seed}", "xgr %r8, {seed}",
            "xgr %r9, {seed}", "xgr %r10, {seed}", "xgr %r14, {seed}", "ogr %r1, %r0",
            "ogr %r1, %r2", "ogr %r1, %r3", "ogr %r1, %r4", "ogr %r1, %r5",
            "ogr %r1, %r6", "ogr %r1, %r7", "ogr %r1, %r8", "ogr %r1, %r9",
            "ogr %r1, %r10", "ogr %r1, %r14", "lgdr %r2, %f0", "xgr %r2, {seed}",
            "ogr %r1, %r2", "lgdr %r2, %f2", "xgr %r2, {seed}", "ogr %r1, %r2",
            "lgdr %r2, %f7", "xgr %r2, {seed}", "ogr %r1, %r2", "lgdr %r2, %f8",
            "xgr %r2, {seed}", "ogr %r1, %r2", "lgdr %r2, %f15", "xgr %r2, {seed}",
            "ogr %r1, %r2",
            seed = in(reg) seed,
            out("r1") differences, out("r0") _, out("r2") _, out("r3") _, out("r4") _,
            out("r5") _, out("r6") _, out("r7") _, out("r8") _, out("r9") _,
            out("r10") _, out("r14") _, out("f0") _, out("f2") _, out("f7") _,
            out("f8") _, out("f15") _,
            options(nostack),
        );
    }
    differences == 0
}
