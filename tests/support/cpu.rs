//! What differs from CPU to CPU in the tests. Each CPU has one file, with the same names. There is none for loongarch64,
//! for which no standard library was at hand: the tests that need these names are not compiled for it.
//!
//! | name | meaning |
//! |---|---|
//! | `psx_test_call`, `psx_test_call_end` | a function that makes the system call of a number and six arguments, and the address after its instruction |
//! | `clone` | clone(2) whose child runs a function on its own stack |
//! | `arguments`, `set_result` | the arguments of a trapped call, and its result, in the frame of the handler |
//! | `TRAPS_KEEP_ARGUMENTS` | whether the first argument is there |
//! | `call_again` | the frame is changed so that the trapped call is made again |
//! | `stack_pointer`, `go_on_at` | where the interrupted code has its stack; another place to go on at |
//! | `jump` | an instruction, for `global_asm!`, that jumps to the operand `{0}` |
//! | `TRACED_...`, `set_traced_result`, `breakpoint` | what a tracer finds and changes in a thread |
//! | `registers_keep` | whether registers keep their values while threads are held |
//! | `FORK_ARGUMENTS` | the first arguments of clone(2) for a child as of fork(2): CPUs differ in their order |

#[cfg_attr(target_arch = "x86_64", path = "cpu/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "cpu/aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "cpu/riscv64.rs")]
#[cfg_attr(target_arch = "s390x", path = "cpu/s390x.rs")]
#[cfg_attr(target_arch = "powerpc64", path = "cpu/powerpc64le.rs")]
#[cfg_attr(target_arch = "arm", path = "cpu/arm.rs")]
#[cfg_attr(target_arch = "x86", path = "cpu/i686.rs")]
mod this;

/// NT_PRSTATUS, include/uapi/linux/elf.h.
pub const GENERAL: usize = 1;

/// Where a tracer changes the number of the call that a thread is about to enter.
pub enum TracedNumber {
    /// A set of registers, and the word there.
    Word(usize, usize),
    /// A request of ptrace(2).
    Request(u32),
}

pub use this::*;

/// Puts the result of a call in the registers of a thread that is about to leave it. On powerpc64 it takes two of them.
#[cfg(not(target_arch = "powerpc64"))]
pub fn set_traced_result(registers: &mut [usize; TRACED_WORDS], result: isize) {
    registers[TRACED_RESULT] = result as usize;
}

unsafe extern "C" {
    fn psx_test_call(number: libc::c_long, arguments: *const usize) -> isize;
    fn psx_test_call_end();
}

/// Makes a system call and returns what the kernel returned. It uses no TLS, so that errno stays as it is.
///
/// # Safety
/// The call must be sound here and now.
pub unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> isize {
    // SAFETY: the function reads six arguments; the call is the caller's duty.
    unsafe { psx_test_call(number, arguments.as_ptr()) }
}

/// Returns the address that the kernel shows a filter for the calls of [`call`]: it is after the instruction.
pub fn address_of_calls() -> usize {
    psx_test_call_end as *const () as usize
}

/// Makes a child as fork(2) does, by clone(2) itself. Returns as fork(2) does.
pub fn fork_by_clone() -> i32 {
    let [first, second] = FORK_ARGUMENTS;
    // SAFETY: the callers' children make raw calls.
    (unsafe { libc::syscall(libc::SYS_clone, first, second, 0usize, 0usize, 0usize) }) as i32
}
