//! One process: its threads in groups of identical state, and what there is to say of it.

use std::collections::HashMap;
use std::sync::LazyLock;

use nix::errno::Errno;
use serde::Serialize;

use super::expect::Failure;
use super::flags::Flag;
use super::state::{self, Field, State};
use crate::tasks::{self, Stat, Status};

/// A thread of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    pub(crate) name: Vec<u8>,
}

/// Threads in one and the same state.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) state: State,
    pub(crate) threads: Vec<Thread>,
    /// In what they differ from the first group.
    pub(crate) differs: Vec<Field>,
}

/// A task of the kernel that works for the process, and runs none of its code.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) thread: Thread,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    /// What it may do and none of the threads.
    pub(crate) keeps: Vec<Field>,
}

/// What a kernel worker works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The submission queue of an io_uring (IORING_SETUP_SQPOLL).
    Sqpoll,
    /// Requests of an io_uring that may sleep.
    IoWq,
    Vhost,
    Other,
}

impl Kind {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Sqpoll => "io_uring SQPOLL",
            Self::IoWq => "io_uring io-wq",
            Self::Vhost => "vhost",
            Self::Other => "kernel worker",
        }
    }

    /// io_uring/sqpoll.c, io_uring/io-wq.c, drivers/vhost/vhost.c
    fn of(name: &[u8]) -> Self {
        match name {
            [b'i', b'o', b'u', b'-', b's', b'q', b'p', b'-', ..] => Self::Sqpoll,
            [b'i', b'o', b'u', b'-', b'w', b'r', b'k', b'-', ..] => Self::IoWq,
            [b'v', b'h', b'o', b's', b't', b'-', ..] => Self::Vhost,
            _ => Self::Other,
        }
    }
}

/// A process that was read.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: Vec<u8>,
    /// Its number in each PID namespace, from that of /proc inwards.
    pub(crate) numbers: Vec<i32>,
    /// The first is that of the leader, or the largest if the leader is dead.
    pub(crate) groups: Vec<Group>,
    pub(crate) workers: Vec<Worker>,
    /// The leader has ended, and waits for the others.
    pub(crate) leader_dead: bool,
    pub(crate) kernel: bool,
    pub(crate) flags: Vec<Flag>,
    pub(crate) failures: Vec<Failure>,
}

/// Why a process was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    Gone,
    Refused(Errno),
}

impl From<Errno> for Unread {
    fn from(error: Errno) -> Self {
        if tasks::is_no_such_process(error) { Self::Gone } else { Self::Refused(error) }
    }
}

/// A task while its place is not known yet.
struct Seen {
    worker: bool,
    stat: Stat,
    status: Status,
    thread: Thread,
    state: State,
}

impl Process {
    /// Reads a process. One whose threads differ is read again: it may have been in the middle of a
    /// change, and what is seen the second time counts.
    pub(crate) fn read(pid: i32, ignored: &[Field]) -> Result<Self, Unread> {
        let first = Self::read_once(pid, ignored)?;
        if first.groups.len() > 1 { Self::read_once(pid, ignored) } else { Ok(first) }
    }

    fn read_once(pid: i32, ignored: &[Field]) -> Result<Self, Unread> {
        let directory = tasks::Process::open(pid)?;
        let mut seen = Vec::new();
        for tid in directory.tids()? {
            match directory.task(tid).and_then(|task| look(tid, &task)) {
                Ok(one) => seen.push(one),
                Err(error) if tasks::is_no_such_process(error) => {}
                Err(error) => return Err(Unread::Refused(error)),
            }
        }
        Self::sort(seen, ignored).ok_or(Unread::Gone)
    }

    fn sort(seen: Vec<Seen>, ignored: &[Field]) -> Option<Self> {
        let pid = seen.first()?.status.process;
        let leader = seen.iter().find(|one| one.thread.tid == pid);
        let of_leader = leader.or(seen.first())?;
        let mut process = Self {
            pid,
            name: of_leader.thread.name.clone(),
            numbers: leader.map(|one| one.status.numbers.clone()).unwrap_or_default(),
            groups: Vec::new(),
            workers: Vec::new(),
            leader_dead: leader.is_none_or(|one| one.stat.dead()),
            kernel: of_leader.stat.kernel(),
            flags: Vec::new(),
            failures: Vec::new(),
        };
        let mut threads = Vec::new();
        for Seen { worker, stat, thread, state, .. } in seen {
            if stat.dead() {
                continue;
            }
            if worker {
                let kind = Kind::of(&thread.name);
                process.workers.push(Worker { thread, kind, state, keeps: Vec::new() });
            } else {
                threads.push((thread, state));
            }
        }
        process.groups = grouped(threads);
        process.compare(ignored);
        process.flags = Flag::of(&process);
        Some(process)
    }

    /// Puts the group first that the others are compared with, and compares.
    fn compare(&mut self, ignored: &[Field]) {
        let pid = self.pid;
        let of_leader = |group: &Group| group.threads.iter().any(|thread| thread.tid == pid);
        self.groups.sort_by_key(|group| (!of_leader(group), usize::MAX - group.threads.len()));
        let counts = |fields: Vec<Field>| -> Vec<Field> {
            fields.into_iter().filter(|field| !ignored.contains(field)).collect()
        };
        if let Some((first, others)) = self.groups.split_first_mut() {
            for group in &mut *others {
                group.differs = counts(group.state.differs(&first.state));
            }
            let states = std::iter::once(&*first).chain(&*others).map(|group| &group.state);
            for worker in &mut self.workers {
                worker.keeps = counts(worker.state.exceeds(states.clone()));
            }
        }
    }

    /// How many threads can run code of the process.
    pub(crate) fn threads(&self) -> usize {
        self.groups.iter().map(|group| group.threads.len()).sum()
    }

    /// In what any of its threads differ.
    pub(crate) fn differs(&self) -> Vec<Field> {
        let mut all: Vec<_> =
            self.groups.iter().flat_map(|group| group.differs.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether all its threads, and the workers of the kernel, may do the same.
    pub(crate) fn consistent(&self) -> bool {
        self.groups.iter().all(|group| group.differs.is_empty())
            && self.workers.iter().all(|worker| worker.keeps.is_empty())
    }
}

/// Reads a task; last what tells whether it was alive, so that the rest is of a living one.
fn look(tid: i32, task: &tasks::Task) -> nix::Result<Seen> {
    let namespaces = state::namespaces(task);
    let label = state::label(task);
    let status = task.status()?;
    let stat = task.stat()?;
    let worker = is_worker(task, &stat, &status);
    let scheduling = stat.scheduling;
    let state = State { credentials: status.credentials.clone(), namespaces, label, scheduling };
    Ok(Seen { worker, thread: Thread { tid, name: stat.name.clone() }, stat, status, state })
}

/// Threads by state. One whose state was not seen whole joins the first group that it agrees with.
fn grouped(threads: Vec<(Thread, State)>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<State, usize> = HashMap::new();
    let (complete, partial): (Vec<_>, Vec<_>) =
        threads.into_iter().partition(|(_, state)| state.complete());
    for (thread, state) in complete.into_iter().chain(partial) {
        let place = known.get(&state).copied().or_else(|| {
            let alike = |group: &Group| group.state.differs(&state).is_empty();
            if state.complete() { None } else { groups.iter().position(alike) }
        });
        match place.and_then(|place| groups.get_mut(place)) {
            Some(group) => group.threads.push(thread),
            None => {
                known.insert(state.clone(), groups.len());
                groups.push(Group { state, threads: vec![thread], differs: Vec::new() });
            }
        }
    }
    for group in &mut groups {
        group.threads.sort_unstable_by_key(|thread| thread.tid);
    }
    groups
}

/// Returns whether a task is a worker of the kernel, by the same evidence as the library's `kernel_worker`
/// (src/sys/proc.rs). It blocks all signals that can be blocked and has a flag (include/linux/sched.h), which meant other
/// things in older kernels. So the kernel must besides have no user registers for it, or it has PF_NO_SETAFFINITY, which
/// no user thread has, or the kernel is new enough for the flag to mean nothing else. If in doubt, it is a thread.
fn is_worker(task: &tasks::Task, stat: &Stat, status: &Status) -> bool {
    const PF_IO_WORKER: u32 = 0x10;
    const PF_USER_WORKER: u32 = 0x4000;
    const PF_NO_SETAFFINITY: u32 = 0x0400_0000;
    const ALL_BUT_KILL_AND_STOP: u64 = !(1 << (libc::SIGKILL - 1)) & !(1 << (libc::SIGSTOP - 1));
    static VERSION: LazyLock<Option<(u8, u8)>> = LazyLock::new(|| {
        let version = procfs::sys::kernel::Version::current().ok()?;
        Some((version.major, version.minor))
    });
    let since = if stat.flags & PF_IO_WORKER != 0 {
        (5, 12)
    } else if stat.flags & PF_USER_WORKER != 0 {
        (6, 4)
    } else {
        return false;
    };
    if status.blocked != ALL_BUT_KILL_AND_STOP {
        return false;
    }
    match has_user_registers(task) {
        Some(has) => !has,
        None if stat.flags & PF_NO_SETAFFINITY != 0 => true,
        None => VERSION.is_some_and(|version| version >= since),
    }
}

/// Reads the stack pointer and the program counter, with which the file `syscall` ends (proc_pid_syscall(5)): whether
/// they are not both 0. None: the task runs, or the file may not be read.
fn has_user_registers(task: &tasks::Task) -> Option<bool> {
    let text = task.read("syscall").ok()?;
    let mut words = std::str::from_utf8(&text).ok()?.split_ascii_whitespace().rev();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    Some((number()?, number()?) != (0, 0))
}
