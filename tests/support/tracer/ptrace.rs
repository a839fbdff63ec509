//! The requests of ptrace(2) that the tracer makes, and their answers.

use crate::support::cpu;

/// The kernel's struct ptrace_syscall_info, ptrace(2).
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub struct CallInfo {
    pub op: u8,
    pub pad: [u8; 3],
    pub arch: u32,
    pub ip: u64,
    pub sp: u64,
    pub nr_or_result: u64,
    pub args: [u64; 6],
    pub rest: [u64; 4],
}

// Requests of ptrace(2), whose type differs between C libraries.
pub const CONT: u32 = 7;
pub const SYSCALL: u32 = 24;
pub const GETREGSET: u32 = 0x4204;
pub const SETREGSET: u32 = 0x4205;
pub const SEIZE: u32 = 0x4206;
pub const INTERRUPT: u32 = 0x4207;
pub const LISTEN: u32 = 0x4208;
pub const GET_SYSCALL_INFO: u32 = 0x420e;

// Answers of ptrace(2): the thread enters a call, or leaves one.
pub const ENTRY: u8 = 1;
pub const EXIT: u8 = 2;

pub fn ptrace(request: u32, tid: i32, address: usize, data: usize) -> libc::c_long {
    // SAFETY: callers pass memory that is as large as the request requires.
    unsafe { libc::syscall(libc::SYS_ptrace, request, tid, address, data) }
}

/// Changes a set of registers.
fn change(tid: i32, set: usize, change: impl FnOnce(&mut [usize; cpu::TRACED_WORDS])) {
    let mut words = [0usize; cpu::TRACED_WORDS];
    let mut old = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
    if ptrace(GETREGSET, tid, set, &raw mut old as usize) == 0 {
        change(&mut words);
        // The kernel has set the length to that of the set.
        let mut new = libc::iovec { iov_base: words.as_mut_ptr().cast(), ..old };
        ptrace(SETREGSET, tid, set, &raw mut new as usize);
    }
}

/// Makes the kernel skip the call that the thread is about to enter.
pub fn skip_call(tid: i32) {
    match cpu::TRACED_NUMBER {
        cpu::TracedNumber::Word(set, at) => change(tid, set, |words| words[at] = usize::MAX),
        cpu::TracedNumber::Request(request) => {
            ptrace(request, tid, 0, usize::MAX);
        }
    }
}

/// Changes the result of the call that the thread is about to leave.
pub fn set_result(tid: i32, result: isize) {
    change(tid, cpu::GENERAL, |words| cpu::set_traced_result(words, result));
}

/// Lets a thread that has stopped at a breakpoint go on after it.
pub fn pass_breakpoint(tid: i32) {
    if let Some(counter) = cpu::TRACED_AT_BREAKPOINT {
        change(tid, cpu::GENERAL, |words| words[counter] += 4);
    }
}
