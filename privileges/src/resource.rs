//! The resources that setrlimit(2) limits.

use core::fmt;

/// A resource that setrlimit(2) limits.
///
/// It is a type of its own, because the constants `RLIMIT_*` have other types in other C libraries, and other values on
/// other CPUs. The limits belong to the process, and all threads share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// `RLIMIT_CPU`: the CPU time of the process, in seconds.
    Cpu,
    /// `RLIMIT_FSIZE`: the size of a file that the process writes, in bytes.
    Fsize,
    /// `RLIMIT_DATA`: the size of the data segment, in bytes.
    Data,
    /// `RLIMIT_STACK`: the size of the main thread's stack, in bytes.
    Stack,
    /// `RLIMIT_CORE`: the size of a core file, in bytes.
    Core,
    /// `RLIMIT_RSS`: the size of the resident set, in bytes. Linux does not enforce it.
    Rss,
    /// `RLIMIT_NPROC`: the number of threads of the real user.
    Nproc,
    /// `RLIMIT_NOFILE`: one more than the highest file descriptor.
    Nofile,
    /// `RLIMIT_MEMLOCK`: the memory that may be locked, in bytes.
    Memlock,
    /// `RLIMIT_AS`: the size of the address space, in bytes.
    As,
    /// `RLIMIT_LOCKS`: the number of file locks. Linux does not enforce it.
    Locks,
    /// `RLIMIT_SIGPENDING`: the number of signals that are queued for the real user. libpsx queues one for each thread.
    Sigpending,
    /// `RLIMIT_MSGQUEUE`: the size of the POSIX message queues of the real user, in bytes.
    Msgqueue,
    /// `RLIMIT_NICE`: 20 minus the lowest nice value.
    Nice,
    /// `RLIMIT_RTPRIO`: the highest real-time priority.
    Rtprio,
    /// `RLIMIT_RTTIME`: the CPU time of a real-time thread between two calls that block, in microseconds.
    Rttime,
}

impl Resource {
    /// All resources that are known here.
    #[cfg(any(test, feature = "unit"))]
    pub(crate) const ALL: [Self; 16] = [
        Self::Cpu,
        Self::Fsize,
        Self::Data,
        Self::Stack,
        Self::Core,
        Self::Rss,
        Self::Nproc,
        Self::Nofile,
        Self::Memlock,
        Self::As,
        Self::Locks,
        Self::Sigpending,
        Self::Msgqueue,
        Self::Nice,
        Self::Rtprio,
        Self::Rttime,
    ];

    /// Its number, its name in setrlimit(2), and its name in /proc/PID/limits (`lnames`, fs/proc/base.c).
    const fn row(self) -> (usize, &'static str, &'static str) {
        match self {
            Self::Cpu => (libc::RLIMIT_CPU as usize, "RLIMIT_CPU", "Max cpu time"),
            Self::Fsize => (libc::RLIMIT_FSIZE as usize, "RLIMIT_FSIZE", "Max file size"),
            Self::Data => (libc::RLIMIT_DATA as usize, "RLIMIT_DATA", "Max data size"),
            Self::Stack => (libc::RLIMIT_STACK as usize, "RLIMIT_STACK", "Max stack size"),
            Self::Core => (libc::RLIMIT_CORE as usize, "RLIMIT_CORE", "Max core file size"),
            Self::Rss => (libc::RLIMIT_RSS as usize, "RLIMIT_RSS", "Max resident set"),
            Self::Nproc => (libc::RLIMIT_NPROC as usize, "RLIMIT_NPROC", "Max processes"),
            Self::Nofile => (libc::RLIMIT_NOFILE as usize, "RLIMIT_NOFILE", "Max open files"),
            Self::Memlock => (libc::RLIMIT_MEMLOCK as usize, "RLIMIT_MEMLOCK", "Max locked memory"),
            Self::As => (libc::RLIMIT_AS as usize, "RLIMIT_AS", "Max address space"),
            Self::Locks => (libc::RLIMIT_LOCKS as usize, "RLIMIT_LOCKS", "Max file locks"),
            Self::Sigpending => {
                (libc::RLIMIT_SIGPENDING as usize, "RLIMIT_SIGPENDING", "Max pending signals")
            }
            Self::Msgqueue => {
                (libc::RLIMIT_MSGQUEUE as usize, "RLIMIT_MSGQUEUE", "Max msgqueue size")
            }
            Self::Nice => (libc::RLIMIT_NICE as usize, "RLIMIT_NICE", "Max nice priority"),
            Self::Rtprio => {
                (libc::RLIMIT_RTPRIO as usize, "RLIMIT_RTPRIO", "Max realtime priority")
            }
            Self::Rttime => (libc::RLIMIT_RTTIME as usize, "RLIMIT_RTTIME", "Max realtime timeout"),
        }
    }

    pub(crate) const fn number(self) -> usize {
        self.row().0
    }

    /// Its name in setrlimit(2), without `RLIMIT_`.
    #[cfg(feature = "unit")]
    pub(crate) fn short_name(self) -> &'static str {
        self.row().1.trim_start_matches("RLIMIT_")
    }

    pub(crate) const fn name_in_proc(self) -> &'static str {
        self.row().2
    }
}

/// Writes the name in setrlimit(2), as `RLIMIT_NOFILE`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}
