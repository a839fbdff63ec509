//! The threads that could not be stopped, and why.

use core::fmt;
use core::time::Duration;

use crate::sys::mapping::MappedList;

/// The threads that could not be stopped before the deadline.
#[derive(Debug)]
pub struct UnreachableThreads {
    pub(crate) deadline: Duration,
    pub(crate) total: usize,
    pub(crate) threads: MappedList<UnreachableThread>,
    pub(crate) emulated: bool,
}

impl UnreachableThreads {
    /// Returns how many threads there were. 0 means that each of them was gone when it was to be named, because threads
    /// come and go faster than they can be stopped; or that the deadline passed while the threads were looked for.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Returns whether an emulator of this CPU (qemu-user and the like) runs the program: the executable file of this
    /// process, as the kernel has it, is for another CPU. Threads of the emulator itself cannot be stopped, and cannot be
    /// told from threads of the program; see [`docs::limitations`](crate::docs::limitations).
    pub const fn is_emulated(&self) -> bool {
        self.emulated
    }

    /// Returns the threads, as they were found when the last attempt ended. The list is empty, with a `total` above 0,
    /// only if the kernel had no memory for it.
    pub fn threads(&self) -> &[UnreachableThread] {
        self.threads.as_slice()
    }
}

impl fmt::Display for UnreachableThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED: usize = 8;
        let time = Seconds(self.deadline);
        if self.total == 0 {
            return write!(f, "not all threads could be found and stopped within {time}");
        }
        let plural = if self.total == 1 { "thread" } else { "threads" };
        write!(f, "{} {plural} could not be stopped within {time}", self.total)?;
        for (i, thread) in self.threads().iter().take(NAMED).enumerate() {
            write!(f, "{} {thread}", if i == 0 { ":" } else { "," })?;
        }
        if self.total > NAMED {
            f.write_str(", ...")?;
        }
        if self.emulated {
            f.write_str(
                "; an emulator of this CPU runs the program, and no signal reaches a thread of the emulator itself",
            )?;
        }
        Ok(())
    }
}

/// Formats as `10 s` or `0.250 s`. (The linker cannot rule out that Duration's own Debug panics.)
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{} s", self.0.as_secs()),
            millis => write!(f, "{}.{millis:03} s", self.0.as_secs()),
        }
    }
}

/// One thread that could not be stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnreachableThread {
    pub(crate) tid: i32,
    pub(crate) name: [u8; 16],
    pub(crate) state: u8,
    pub(crate) reason: UnreachableReason,
}

impl UnreachableThread {
    /// Returns its thread id (gettid(2)).
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Returns its name (PR_SET_NAME(2const)), up to the first byte that is not UTF-8. The name is empty if /proc could
    /// not be read.
    pub fn name(&self) -> &str {
        let bytes = self.name_bytes();
        match core::str::from_utf8(bytes) {
            Ok(name) => name,
            Err(e) => bytes
                .get(..e.valid_up_to())
                .and_then(|b| core::str::from_utf8(b).ok())
                .unwrap_or_default(),
        }
    }

    /// Returns the name without the zeros that follow it.
    fn name_bytes(&self) -> &[u8] {
        self.name.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Returns its state as in proc_pid_stat(5) (`R`, `S`, `D`, `T`, `t` ...), or `?` if /proc could not be read.
    pub const fn state(&self) -> char {
        self.state as char
    }

    /// Returns why it could not be stopped.
    pub const fn reason(&self) -> UnreachableReason {
        self.reason
    }
}

impl fmt::Debug for UnreachableThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnreachableThread")
            .field("tid", &self.tid)
            .field("name", &format_args!("\"{}\"", self.name_bytes().escape_ascii()))
            .field("state", &self.state())
            .field("reason", &self.reason)
            .finish()
    }
}

impl fmt::Display for UnreachableThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, state {}) {}",
            self.tid,
            self.name_bytes().escape_ascii(),
            self.state(),
            self.reason
        )
    }
}

/// The reason why a thread could not be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnreachableReason {
    /// It blocks signal 33.
    SignalBlocked,
    /// It is stopped by a signal (SIGSTOP, SIGTSTP ...).
    Stopped,
    /// It is stopped by a tracer, ptrace(2).
    Traced,
    /// Its cgroup is frozen, cgroups(7).
    Frozen,
    /// It waits in vfork(2) for its child to execute or exit.
    Vfork,
    /// It is in the middle of execve(2).
    Exec,
    /// It is in uninterruptible sleep.
    Uninterruptible,
    /// The kernel, or a security module, did not let us signal it.
    Forbidden,
    /// Its seccomp filter refuses gettid(2). The thread needs gettid(2) to tell whether a signal is meant for it.
    Filtered,
    /// It has the signal and did not run the handler. Most likely it got no CPU time.
    Unresponsive,
    /// The reason is not known, because /proc cannot be read.
    Unknown,
}

impl fmt::Display for UnreachableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignalBlocked => "blocks signal 33",
            Self::Stopped => "is stopped by a signal",
            Self::Traced => "is stopped by a tracer",
            Self::Frozen => "is frozen by its cgroup",
            Self::Vfork => "waits for its vfork child",
            Self::Exec => "is in execve",
            Self::Uninterruptible => "is in uninterruptible sleep",
            Self::Forbidden => "may not be signalled",
            Self::Filtered => "has a filter that refuses gettid(2)",
            Self::Unresponsive => "did not answer",
            Self::Unknown => "did not answer (and /proc cannot be read)",
        })
    }
}
