//! The system calls that come after a filter, and whether the filter allows them.
//!
//! The caller installs the filter while every other thread is held. After that the held threads leave the stop, and
//! the caller verifies. [`NEEDED`] lists their calls. A filter that denies one of them would kill the process, or leave
//! a thread stuck, without a message.

use libpsx::process::Instruction;

use crate::bpf::{Action, Program, SeccompData};

/// The consequence of a refused call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The process cannot go on if the filter makes the call fail, or kills for it.
    Fatal,
    /// The call may fail. It must not kill.
    ErrorIsFine,
}

/// A call, with the arguments that are known.
struct Needed {
    name: &'static str,
    number: libc::c_long,
    arguments: [Argument; 6],
    by: &'static str,
    refused: Refused,
}

#[derive(Clone, Copy)]
enum Argument {
    Is(u64),
    /// An address.
    Address,
}

use Argument::{Address, Is};
use Refused::{ErrorIsFine, Fatal};

const NOTHING: Argument = Is(0);
const WAIT_PRIVATE: u64 = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as u64;
const WAKE_PRIVATE: u64 = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as u64;
const TRYLOCK_PRIVATE: u64 = (libc::FUTEX_TRYLOCK_PI | libc::FUTEX_PRIVATE_FLAG) as u64;
const WAIT_OPTIONS: u64 = (libc::__WALL | libc::WNOHANG) as u64 & 0xffff_ffff;
const SET_MASK: u64 = libc::SIG_SETMASK as u64;
/// By these two the C library of a 32-bit CPU maps memory and asks for flags, in place of calls with 32-bit offsets.
#[cfg(target_pointer_width = "32")]
const MMAP: (&str, libc::c_long) = ("mmap2", libc::SYS_mmap2);
#[cfg(not(target_pointer_width = "32"))]
const MMAP: (&str, libc::c_long) = ("mmap", libc::SYS_mmap);
#[cfg(all(debug_assertions, target_pointer_width = "32"))]
const FCNTL: (&str, libc::c_long) = ("fcntl64", libc::SYS_fcntl64);
#[cfg(all(debug_assertions, not(target_pointer_width = "32")))]
const FCNTL: (&str, libc::c_long) = ("fcntl", libc::SYS_fcntl);
const HELD: &str = "a held thread";
const CALLER: &str = "the calling thread";

const fn needed(
    name: &'static str,
    number: libc::c_long,
    arguments: [Argument; 6],
    by: &'static str,
    refused: Refused,
) -> Needed {
    Needed { name, number, arguments, by, refused }
}

/// The calls after the filter. A call on the way to a kill is not listed: a process that has to die dies of a filter
/// that kills for it, and of a trap instruction if the filter answers every such call with an error.
const NEEDED: &[Needed] = &[
    needed(
        "futex",
        libc::SYS_futex,
        [Address, Is(WAIT_PRIVATE), Is(1), NOTHING, NOTHING, NOTHING],
        HELD,
        Fatal,
    ),
    needed(
        "futex",
        libc::SYS_futex,
        [Address, Is(WAKE_PRIVATE), Is(4), NOTHING, NOTHING, NOTHING],
        HELD,
        Fatal,
    ),
    // A thread that is held for long asks whether the caller is alive.
    needed(
        "futex",
        libc::SYS_futex,
        [Address, Is(TRYLOCK_PRIVATE), NOTHING, NOTHING, NOTHING, NOTHING],
        HELD,
        ErrorIsFine,
    ),
    needed(
        "rt_sigprocmask",
        libc::SYS_rt_sigprocmask,
        [Is(SET_MASK), Address, Address, Is(8), NOTHING, NOTHING],
        HELD,
        Fatal,
    ),
    needed("rt_sigreturn", libc::SYS_rt_sigreturn, [NOTHING; 6], HELD, Fatal),
    needed(
        "futex",
        libc::SYS_futex,
        [Address, Is(WAKE_PRIVATE), Is(1), NOTHING, NOTHING, NOTHING],
        CALLER,
        Fatal,
    ),
    needed(
        "rt_sigprocmask",
        libc::SYS_rt_sigprocmask,
        [Is(SET_MASK), Address, Address, Is(8), NOTHING, NOTHING],
        CALLER,
        Fatal,
    ),
    needed(
        "munmap",
        libc::SYS_munmap,
        [Address, Is(4096), NOTHING, NOTHING, NOTHING, NOTHING],
        CALLER,
        ErrorIsFine,
    ),
    needed(
        "close",
        libc::SYS_close,
        [Is(3), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING],
        CALLER,
        ErrorIsFine,
    ),
    // With debug assertions, Rust's standard library reads the flags of a descriptor before it closes it.
    #[cfg(debug_assertions)]
    needed(
        FCNTL.0,
        FCNTL.1,
        [Is(3), Is(libc::F_GETFD as u64), NOTHING, NOTHING, NOTHING, NOTHING],
        CALLER,
        ErrorIsFine,
    ),
    // The verification allocates.
    needed(
        "brk",
        libc::SYS_brk,
        [Address, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING],
        CALLER,
        ErrorIsFine,
    ),
    needed(
        MMAP.0,
        MMAP.1,
        [NOTHING, Is(1 << 20), Is(3), Is(0x22), Is(usize::MAX as u64), NOTHING],
        CALLER,
        ErrorIsFine,
    ),
];

/// The calls by which this process asks the child that reads /proc, and waits for its end.
const OUTSIDE: [Needed; 3] = [
    needed(
        "futex",
        libc::SYS_futex,
        [Address, Is(libc::FUTEX_WAIT as u64), Is(1), Address, NOTHING, NOTHING],
        CALLER,
        Fatal,
    ),
    needed(
        "futex",
        libc::SYS_futex,
        [Address, Is(libc::FUTEX_WAKE as u64), Is(1), NOTHING, NOTHING, NOTHING],
        CALLER,
        Fatal,
    ),
    needed(
        "wait4",
        libc::SYS_wait4,
        [Is(4242), Address, Is(WAIT_OPTIONS), NOTHING, NOTHING, NOTHING],
        CALLER,
        Fatal,
    ),
];

impl Needed {
    fn judge(&self, program: &Program<'_>) -> Action {
        // A filter cannot distinguish addresses, so an address of the stack stands for all.
        let somewhere = std::ptr::from_ref(self).addr() as u64;
        let arguments = self.arguments.map(|argument| match argument {
            Is(value) => value,
            Address => somewhere,
        });
        program.evaluate(&SeccompData::native(self.number as u32, arguments))
    }

    fn passes(&self, program: &Program<'_>, emulated: bool) -> bool {
        match self.judge(program) {
            action if action.allows() => true,
            Action::Trap => emulated,
            action => self.refused == ErrorIsFine && !action.kills(),
        }
    }
}

/// The calls after the filter if a program is executed.
const EXECUTION: [Needed; 1] = [needed(
    "execve",
    libc::SYS_execve,
    [Address, Address, Address, NOTHING, NOTHING, NOTHING],
    "the new process",
    Fatal,
)];

/// The purpose of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The plan is for this process, which goes on.
    Process,
    /// The plan is for a program that is executed after the calls.
    Program,
}

/// Returns the calls of the table that a filter denies, each with the action of the filter. The list is empty for a
/// program that the kernel refuses.
pub(crate) fn denied(program: &[Instruction], purpose: Purpose) -> Vec<String> {
    let Some(program) = checked(program) else { return Vec::new() };
    let emulated = handles_sigsys();
    let needed = match purpose {
        Purpose::Process => NEEDED,
        Purpose::Program => &EXECUTION,
    };
    let denied = needed.iter().filter(|call| !call.passes(&program, emulated));
    denied
        .map(|call| {
            format!("{} in {} (the filter's verdict: {})", call.name, call.by, call.judge(&program))
        })
        .collect()
}

/// Returns whether a filter allows the calls of [`OUTSIDE`].
pub(crate) fn needed_outside(program: &[Instruction]) -> bool {
    checked(program).is_some_and(|program| OUTSIDE.iter().all(|call| call.judge(&program).allows()))
}

fn checked(program: &[Instruction]) -> Option<Program<'_>> {
    crate::bpf::NATIVE?;
    Program::new(program).ok()
}

/// Returns whether the program has a handler of SIGSYS, which may make a trapped call itself.
#[allow(unsafe_code)]
fn handles_sigsys() -> bool {
    // SAFETY: it is a structure of integers and addresses.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel's answer is written to the structure.
    let done = unsafe { libc::sigaction(libc::SIGSYS, std::ptr::null(), &mut action) } == 0;
    done && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction)
}
