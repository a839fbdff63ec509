//! Memory that the observer and the subject share: what is counted, what each thread has to be, and where each of the
//! subject's loops is.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::state::FIELDS;

/// A table of what is counted: the variant, its text, and whether a count of zero is a failure.
macro_rules! counts {
    ($($name:ident $text:literal $required:literal;)*) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Count { $($name),* }

        impl Count {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// The text in the table, and whether the soak fails if the count stays zero.
            pub(crate) const fn row(self) -> (&'static str, bool) {
                match self { $(Self::$name => ($text, $required)),* }
            }
        }
    };
}

counts! {
    Calls "calls" true;
    Ok "result: ok" true;
    Reports "result: ok, with a report" true;
    Transactions "result: ok, transaction" true;
    Kernel "error: the kernel refused the call" true;
    Partial "error: transaction stopped after its first call" true;
    TsyncConflict "error: TSYNC conflict" true;
    Unreachable "error: unreachable threads" true;
    QueueFull "error: signal queue full" true;
    Busy "error: another call did not end in time" true;
    NotShared "error: a thread has tables of its own" true;
    Refused "error: refused call" true;
    Environment "error: environment" false;
    Reentered "error: reentered" false;
    Ignored "divergence, ignored" true;
    Warned "divergence, warned about" true;
    Lines "lines on standard error" true;
    Killed "children killed for a divergence" true;
    Epochs "checks of every thread" true;
    ThreadsChecked "threads checked from outside" true;
    Witnesses "answers of the kernel to threads" true;
    Observed "checks against the newest state seen" true;
    ObservedOthers "checks of another thread against it" true;
    Threads "threads created (pthread)" true;
    Attributes "threads created with attributes" true;
    Raw "threads created by clone(2)" true;
    Forks "children of fork" true;
    ForkCalls "calls in children of fork" true;
    ForkThreads "calls in children with threads" true;
    Vforks "children of vfork, with a call" true;
    Spawns "posix_spawn" true;
    Execs "fork and exec" true;
    Setxid "glibc's setresuid" true;
    Deferred "threads cancelled, deferred" true;
    Asynchronous "threads cancelled, asynchronous" true;
    Timers "SIGEV_THREAD timers that ran" true;
    Aio "aio requests" true;
    IoUring "io_uring requests of a worker" true;
    Plugins "libraries loaded and unloaded" true;
    PluginThreads "threads created by libraries" true;
    Fifo "bursts of FIFO threads" true;
    Faults "userfaultfd pages served" true;
    Blocks "times that a thread blocked signal 33" true;
    Stops "SIGSTOP and SIGCONT" true;
    Freezes "cgroup freeze and thaw" true;
    TaskLimits "times without room for a task (pids cgroup)" true;
    Attaches "gdb attach and detach" true;
    QueueLimits "times without room in the signal queue" true;
    DescriptorLimits "times without a free descriptor" true;
}

/// One loop of the subject. The observer notices if its latest turn does not end.
#[repr(C)]
pub(crate) struct Loop {
    /// The first bytes of the loop's name.
    name: [AtomicU64; 2],
    pub(crate) tid: AtomicU32,
    /// When the turn began (CLOCK_MONOTONIC, ns), or 0 between two turns.
    pub(crate) began: AtomicU64,
}

impl Loop {
    pub(crate) fn set_name(&self, name: &str) {
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        let (first, second) = bytes.split_at(8);
        for (word, part) in self.name.iter().zip([first, second]) {
            word.store(u64::from_ne_bytes(part.try_into().expect("8 bytes")), SeqCst);
        }
    }

    pub(crate) fn name(&self) -> String {
        let bytes = self.name.iter().flat_map(|word| word.load(SeqCst).to_ne_bytes());
        String::from_utf8_lossy(&bytes.filter(|&byte| byte != 0).collect::<Vec<_>>()).into_owned()
    }
}

pub(crate) const LOOPS: usize = 64;
pub(crate) const WITNESSES: usize = 4;

/// The shared memory. All fields are atomics, and zero is their initial value.
#[repr(C)]
pub(crate) struct Board {
    /// Odd: the initiators make no calls, so that the observer can check.
    pub(crate) phase: AtomicU32,
    /// How many initiators wait for the next phase.
    pub(crate) parked: AtomicU32,
    pub(crate) initiators: AtomicU32,
    /// The subject's state, one of the constants of [`Stage`].
    pub(crate) stage: AtomicU32,
    /// Ends the loops of the subject (1), and then the threads that the calls need (2).
    pub(crate) end: AtomicU32,
    /// The observer asks the subject to go on to the next stage.
    pub(crate) go: AtomicU32,
    /// The process may have no room for another task, or a pthread_create has just failed for that reason. glibc's setresuid
    /// makes no call then: glibc 2.36 alone hangs for ever, because it waits for a thread that has never been created.
    pub(crate) no_room: AtomicU32,
    /// glibc's setresuid makes a call.
    pub(crate) setxid: AtomicU32,
    /// Odd while no descriptor is free.
    pub(crate) descriptors: AtomicU32,
    /// How many of the threads that have to be there first are ready.
    pub(crate) ready: AtomicU32,
    /// How many signals are queued for the users that the subject's real user may be, at the end of a stage.
    pub(crate) queued: AtomicU64,
    pub(crate) violations: AtomicU32,
    /// What every thread has to be, by field.
    pub(crate) expected: [AtomicU64; FIELDS],
    /// The newest state that any thread of the subject has seen in itself.
    pub(crate) seen: [AtomicU64; FIELDS],
    pub(crate) loops: [Loop; LOOPS],
    pub(crate) used_loops: AtomicU32,
    pub(crate) witnesses: [[AtomicU64; FIELDS]; WITNESSES],
    /// The phase for which a witness has answered.
    pub(crate) answered: [AtomicU32; WITNESSES],
    counts: [AtomicU64; 64],
    skipped: [AtomicU32; 64],
}

/// Where the subject is.
pub(crate) struct Stage;

impl Stage {
    pub(crate) const RUNNING: u32 = 1;
    /// The warm-up is over, and all its threads are joined.
    pub(crate) const WARM: u32 = 2;
    pub(crate) const AGAIN: u32 = 3;
    pub(crate) const ENDED: u32 = 4;
}

impl Board {
    /// Creates the memory. Returns the path that the subject opens.
    pub(crate) fn create() -> (&'static Self, File, String) {
        // SAFETY: the name is a string.
        let fd = unsafe { libc::memfd_create(c"soak".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just opened.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(size_of::<Self>() as u64).expect("memory");
        let path = format!("/proc/{}/fd/{fd}", std::process::id());
        (Self::map(&file), file, path)
    }

    pub(crate) fn open(path: &str) -> &'static Self {
        Self::map(&File::options().read(true).write(true).open(path).expect("the board"))
    }

    fn map(file: &File) -> &'static Self {
        let (length, null) = (size_of::<Self>(), std::ptr::null_mut());
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        // SAFETY: the call creates a new mapping.
        let at = unsafe { libc::mmap(null, length, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        // SAFETY: the memory is zeroed or contains a board, is large enough, and stays mapped.
        unsafe { &*at.cast() }
    }

    pub(crate) fn add(&self, what: Count, more: u64) {
        self.counts[what as usize].fetch_add(more, SeqCst);
    }

    pub(crate) fn count(&self, what: Count) {
        self.add(what, 1);
    }

    pub(crate) fn counted(&self, what: Count) -> u64 {
        self.counts[what as usize].load(SeqCst)
    }

    /// Says that this machine cannot do it, and why.
    pub(crate) fn skip(&self, what: Count, why: impl std::fmt::Display) {
        if self.skipped[what as usize].swap(1, SeqCst) == 0 {
            eprintln!("SKIPPED: soak: {}: {why}", what.row().0);
        }
    }

    pub(crate) fn is_skipped(&self, what: Count) -> bool {
        self.skipped[what as usize].load(SeqCst) != 0
    }

    /// Returns whether this count is still zero, although this machine could have reached it.
    pub(crate) fn is_missing(&self, what: Count) -> bool {
        what.row().1 && self.counted(what) == 0 && !self.is_skipped(what)
    }

    /// Reports a broken promise.
    pub(crate) fn violation(&self, what: impl std::fmt::Display) {
        if self.violations.fetch_add(1, SeqCst) < 20 {
            eprintln!("VIOLATION: {what}");
        }
    }

    pub(crate) fn claim_loop(&self, name: &str) -> &Loop {
        let index = self.used_loops.fetch_add(1, SeqCst) as usize;
        let own = &self.loops[index];
        own.set_name(name);
        own.tid.store(crate::sys::gettid(), SeqCst);
        own
    }
}
