//! seccomp(2) filters as sandboxes install them: on the whole process, on the caller, or on one of the
//! other threads.

use std::arch::global_asm;

use crate::support::{header, step};
use crate::tracer;

/// The threads that have the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum On {
    All,
    Caller,
    OneHeld,
}

/// What the filter does with the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    Errno(i32),
    /// The filter sends SIGSYS. The handler makes the call in place of the program.
    Trap,
    KillThread,
    KillProcess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sandbox {
    pub on: On,
    pub action: Action,
    pub call: &'static str,
}

// The SIGSYS handler makes the call at this address, where the filter allows it.
global_asm!(
    ".globl psx_faults_emulate",
    "psx_faults_emulate:",
    "mov rax, rdi",
    "mov r11, rsi",
    "mov rdi, [r11]",
    "mov rsi, [r11 + 8]",
    "mov rdx, [r11 + 16]",
    "mov r10, [r11 + 24]",
    "mov r8, [r11 + 32]",
    "mov r9, [r11 + 40]",
    "syscall",
    ".globl psx_faults_emulated",
    "psx_faults_emulated:",
    "ret",
);

unsafe extern "C" {
    fn psx_faults_emulate(nr: i64, arguments: *const i64) -> i64;
    fn psx_faults_emulated();
}

impl Sandbox {
    /// Installs the filter in the calling thread, or in all threads at once.
    pub fn install(self) {
        let action = match self.action {
            Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        };
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let answer = libc::BPF_RET | libc::BPF_K;
        let emulated = psx_faults_emulated as *const () as usize;
        // struct seccomp_data, seccomp(2): the number is at 0, the instruction's address at 8, lower half first.
        let program = [
            step(load, 0, 0, 0),
            step(equal, 0, 5, tracer::number(self.call) as u32),
            step(load, 0, 0, 8),
            step(equal, 0, 2, emulated as u32),
            step(load, 0, 0, 12),
            step(equal, 1, 0, (emulated >> 32) as u32),
            step(answer, 0, 0, action),
            step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let header = header(&program);
        let flags = if self.on == On::All { libc::SECCOMP_FILTER_FLAG_TSYNC } else { 0 };
        let set = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel reads the program.
        let done = unsafe { libc::syscall(libc::SYS_seccomp, set, flags, &header) };
        assert_eq!(done, 0, "seccomp: {}", std::io::Error::last_os_error());
    }
}

/// Installs the program's handler of SIGSYS.
pub fn answer_traps(sandbox: Sandbox) {
    if sandbox.action != Action::Trap {
        return;
    }
    // SAFETY: all fields of the structure are integers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler makes one raw call.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) }, 0);
}

extern "C" fn on_trap(_: i32, info: *const libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes a valid context.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    // In the kernel's siginfo_t of SIGSYS the number follows an address.
    // SAFETY: the result is within the structure.
    let at = unsafe { info.cast::<i32>().add(6) };
    // SAFETY: the kernel has written it.
    let nr = unsafe { *at };
    let arguments =
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9]
            .map(|register| registers[register as usize]);
    // SAFETY: this is the call that the interrupted code intended to make.
    registers[libc::REG_RAX as usize] =
        unsafe { psx_faults_emulate(i64::from(nr), arguments.as_ptr()) };
}
