//! The requests of ptrace(2) that the tracer makes, and their answers.

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
pub const GETREGS: u32 = 12;
pub const SETREGS: u32 = 13;
pub const SYSCALL: u32 = 24;
pub const SEIZE: u32 = 0x4206;
pub const INTERRUPT: u32 = 0x4207;
pub const LISTEN: u32 = 0x4208;
pub const GET_SYSCALL_INFO: u32 = 0x420e;

// Answers of ptrace(2): the thread enters a call, or leaves one.
pub const ENTRY: u8 = 1;
pub const EXIT: u8 = 2;

pub fn ptrace(request: u32, tid: i32, address: usize, data: usize) -> i64 {
    // SAFETY: callers pass memory that is as large as the request requires.
    unsafe { libc::syscall(libc::SYS_ptrace, request, tid, address, data) }
}

pub fn change_registers(tid: i32, change: impl FnOnce(&mut libc::user_regs_struct)) {
    // SAFETY: all fields of the structure are integers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let at = &raw mut registers as usize;
    if ptrace(GETREGS, tid, 0, at) == 0 {
        change(&mut registers);
        ptrace(SETREGS, tid, 0, &raw mut registers as usize);
    }
}
