//! What /proc knows of one thread, and why a thread that is not held does not arrive.

use super::parse::{Stat, contains, parse, parse_hex, value};
use super::worker::kernel_worker;
use super::{Task, Tasks};
use crate::errno::Errno;
use crate::error::UnreachableReason;
use crate::report::SkipReason;
use crate::sys::{self, Mask, SIGNAL, arch, bit};

/// What could be learnt of a thread that is not held.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TaskStatus {
    /// It is not there (any more).
    NotFound,
    /// It can run no user code; `start` tells it from a later task with the same id.
    Exempt { reason: SkipReason, start: usize },
    /// It can.
    Live(LiveTask),
    /// Nothing could be learnt.
    Unknown,
}

/// What /proc says of a thread that can run user code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiveTask {
    pub(crate) state: u8,
    pub(crate) name: [u8; 16],
    pub(super) blocked: Mask,
    pub(super) pending: Mask,
}

impl LiveTask {
    /// Runnable: it arrives when it gets the CPU, or when it no longer blocks signal 33 (as in pthread_create). A
    /// thread that waits for something that a held thread owns sleeps.
    pub(crate) fn wants_cpu(&self) -> bool {
        self.state == b'R'
    }

    pub(crate) fn blocks_signal_33(&self) -> bool {
        self.blocked & bit(SIGNAL) != 0
    }

    pub(crate) fn has_signal_33_pending(&self) -> bool {
        self.pending & bit(SIGNAL) != 0
    }
}

impl TaskStatus {
    fn of_errno(errno: Errno) -> Self {
        // ENOENT: it was gone when the file was opened. ESRCH: when it was read.
        match errno {
            Errno::NOENT | Errno::SRCH => Self::NotFound,
            _ => Self::Unknown,
        }
    }
}

impl Tasks {
    /// What is known of a thread without /proc.
    pub(crate) fn status_by_tid(&self, tid: i32) -> TaskStatus {
        match sys::tgkill(self.pid, tid, 0) {
            Err(Errno::SRCH) => TaskStatus::NotFound,
            // A dead leader keeps its tid for as long as the process lives.
            _ if sys::futex::is_dead(tid, self.tid) => {
                TaskStatus::Exempt { reason: SkipReason::Exiting, start: 0 }
            }
            _ => TaskStatus::Unknown,
        }
    }

    /// What /proc knows of a thread.
    pub(crate) fn status(&self, task: Task) -> TaskStatus {
        if !self.readable {
            return self.status_by_tid(task.tid);
        }
        let mut buffer = [0; 2048];
        let stat = match self.read(task.name, c"stat", &mut buffer) {
            Ok(bytes) => Stat::parse(bytes),
            Err(errno) => return TaskStatus::of_errno(errno),
        };
        let Some(stat) = stat else { return TaskStatus::Unknown };
        if stat.exiting() {
            return TaskStatus::Exempt { reason: SkipReason::Exiting, start: stat.start };
        }
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(stat.name) {
            *to = *from;
        }
        let (state, start, flags) = (stat.state, stat.start, stat.flags);
        let (mut blocked, mut private, mut shared) = (None, None, None);
        let read = self.lines(task.name, c"status", &mut |line| {
            let keys: [(&[u8], _); 3] =
                [(b"SigBlk:", &mut blocked), (b"SigPnd:", &mut private), (b"ShdPnd:", &mut shared)];
            for (key, place) in keys {
                *place = place.or_else(|| value(line, key).and_then(parse_hex));
            }
        });
        if let Err(errno) = read {
            return TaskStatus::of_errno(errno);
        }
        let (Some(blocked), Some(private), Some(shared)) = (blocked, private, shared) else {
            return TaskStatus::Unknown;
        };
        let registers = || self.has_user_registers(task, state);
        if let Some(mut reason) = kernel_worker(flags, blocked, registers, sys::kernel_version) {
            if reason == SkipReason::SqPoll && self.is_io_wq(task) {
                reason = SkipReason::IoWorker;
            }
            return TaskStatus::Exempt { reason, start };
        }
        TaskStatus::Live(LiveTask { state, name, blocked, pending: private | shared })
    }

    /// Why a live thread did not arrive.
    pub(crate) fn unreachable_reason(&self, task: Task, live: &LiveTask) -> UnreachableReason {
        match live.state {
            b'T' => return UnreachableReason::Stopped,
            b't' => return UnreachableReason::Traced,
            _ => {}
        }
        let mut buffer = [0; 128];
        // proc_pid_wchan(5), proc_pid_syscall(5): both may be empty or forbidden, and then the rest
        // decides.
        let wchan = self.read(task.name, c"wchan", &mut buffer).unwrap_or_default();
        // A stopped thread sleeps in get_signal too, but was seen above; the trap of cgroup v2
        // (do_freezer_trap, kernel/signal.c) is inlined there.
        let trapped = live.state == b'S' && contains(wchan, b"get_signal");
        if trapped || contains(wchan, b"refrigerator") || contains(wchan, b"freezer") {
            return UnreachableReason::Frozen;
        }
        if contains(wchan, b"vfork") {
            return UnreachableReason::Vfork;
        }
        let tells_no_place = matches!(wchan, b"" | b"0");
        let calls = self.read(task.name, c"syscall", &mut buffer).unwrap_or_default();
        let nr = calls.split(|&b| b == b' ').next().and_then(parse::<u32>);
        use linux_raw_sys::general as k;
        match nr {
            Some(k::__NR_execve | k::__NR_execveat) => UnreachableReason::Exec,
            Some(k::__NR_clone | k::__NR_clone3) if live.state == b'D' => UnreachableReason::Vfork,
            Some(nr) if live.state == b'D' && arch::FORKS.contains(&nr) => UnreachableReason::Vfork,
            _ if live.blocked & bit(SIGNAL) != 0 => UnreachableReason::SignalBlocked,
            _ if live.state == b'D' => UnreachableReason::Uninterruptible,
            // A thread that sleeps interruptibly wakes for a signal that it does not block. Only that trap lets it
            // sleep on. Before Linux 5.16, wchan is 0 on x86-64, so that this is all there is to see. A thread that waits
            // for userfaultfd(2) in a system call does not sleep then, but tries again and again. As a rule it has another
            // wchan, or is running; where wchan is always 0, it may be mistaken.
            _ if live.state == b'S'
                && live.has_signal_33_pending()
                && tells_no_place
                && !calls.starts_with(b"running") =>
            {
                UnreachableReason::Frozen
            }
            _ => UnreachableReason::Unresponsive,
        }
    }
}
