//! seccomp(2) filters as sandboxes install them: on the whole process, on the caller, or on one of the
//! other threads.

use crate::support::emulator::{answer, number, on_sigsys};
use crate::support::{LOWER, cpu, header, step, unless_one_of};
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
        let emulated = cpu::address_of_calls();
        // struct seccomp_data, seccomp(2): the instruction's address is at 8.
        let mut program = unless_one_of(&[tracer::number(self.call)], 5);
        program.extend([
            step(load, 0, 0, 8 + LOWER),
            step(equal, 0, 2, emulated as u32),
            step(load, 0, 0, 12 - LOWER),
            step(equal, 1, 0, (emulated as u64 >> 32) as u32),
            step(answer, 0, 0, action),
            step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]);
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
    on_sigsys(on_trap);
}

/// Makes the call that the interrupted code intended to make.
extern "C" fn on_trap(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    answer(number(info), context);
}
