//! One process: its threads in groups of the same state.
//!
//! This module reads and groups. It does not judge what it finds.

use std::collections::HashMap;
use std::sync::LazyLock;

use nix::errno::Errno;
use serde::Serialize;

use super::identity::Identity;
use super::state::{Directories, Field, Fields, Known, State};
use crate::parallel;
use crate::tasks::{self, Stat, Status, Task};

/// A process with more tasks than this is read by several threads.
const MANY: usize = 256;

/// A thread of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    pub(crate) name: Vec<u8>,
}

/// Threads with the same values in all compared fields.
#[derive(Debug)]
pub(crate) struct Group {
    /// The state of the first thread.
    pub(crate) state: State,
    pub(crate) threads: Vec<Thread>,
    /// The fields in which they differ from the first group.
    pub(crate) differs: Vec<Field>,
    /// Fields that are not compared and in which threads of this group differ.
    pub(crate) varies: Vec<Field>,
}

/// A task of the kernel that works for the process and runs none of its code.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) thread: Thread,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    /// Fields in which the worker may do what no thread may do.
    pub(crate) keeps: Vec<Field>,
}

/// The subsystem that a kernel worker works for.
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

    /// Returns the kind by the worker's name, which io_uring/sqpoll.c, io_uring/io-wq.c or drivers/vhost/vhost.c sets.
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
    /// Its number in each PID namespace, from the namespace of /proc inwards.
    pub(crate) numbers: Vec<i32>,
    pub(crate) identity: Identity,
    /// The first group is that of the leader, or the largest group if the leader has ended.
    pub(crate) groups: Vec<Group>,
    pub(crate) workers: Vec<Worker>,
    /// Whether the leader has ended while other threads run.
    pub(crate) leader_dead: bool,
    /// Whether it is a thread of the kernel.
    pub(crate) kernel: bool,
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

/// A task that is not in a group yet.
struct Seen {
    worker: bool,
    stat: Stat,
    status: Status,
    thread: Thread,
    state: State,
}

impl Seen {
    fn read(task: &Task, known: Option<Known<'_>>) -> nix::Result<Self> {
        let (status, stat, state) = State::read(task, known)?;
        let worker = is_worker(task, &stat, &status);
        Ok(Self {
            worker,
            thread: Thread { tid: task.tid, name: stat.name.clone() },
            stat,
            status,
            state,
        })
    }

    /// Returns whether a second look finds the same task in the same state.
    fn confirmed(&self, directory: &tasks::Process) -> bool {
        let again = directory.task(self.thread.tid).and_then(|task| Self::read(&task, None));
        again.is_ok_and(|again| {
            again.stat.start == self.stat.start
                && again.stat.dead() == self.stat.dead()
                && again.state == self.state
        })
    }
}

impl Process {
    /// Reads a process. A process whose threads differ may have been in the middle of a change. So the threads of
    /// the smaller groups and one thread of the largest group are looked at again. If one of them has changed
    /// meanwhile, the whole process is read a second time, and the second state counts.
    pub(crate) fn read(pid: i32, compared: Fields) -> Result<Self, Unread> {
        let directory = tasks::Process::open(pid)?;
        let seen = read_all(&directory)?;
        let keys = keys(&seen, compared);
        if settled(&directory, &seen, &keys) {
            return Self::sort(&directory, seen, keys, compared).ok_or(Unread::Gone);
        }
        drop(seen);
        let seen = read_all(&directory)?;
        let keys = self::keys(&seen, compared);
        Self::sort(&directory, seen, keys, compared).ok_or(Unread::Gone)
    }

    fn sort(
        directory: &tasks::Process,
        seen: Vec<Seen>,
        keys: Vec<Option<State>>,
        compared: Fields,
    ) -> Option<Self> {
        let pid = seen.first()?.status.process;
        let leader = seen.iter().find(|one| one.thread.tid == pid);
        let of_leader = leader.or(seen.first())?;
        let mut process = Self {
            pid,
            name: of_leader.thread.name.clone(),
            numbers: leader.map(|one| one.status.numbers.clone()).unwrap_or_default(),
            identity: Identity::read(directory, &of_leader.stat, &of_leader.status),
            groups: Vec::new(),
            workers: Vec::new(),
            leader_dead: leader.is_none_or(|one| one.stat.dead()),
            kernel: of_leader.stat.kernel(),
        };
        let mut threads = Vec::new();
        for (one, key) in seen.into_iter().zip(keys) {
            let Seen { stat, thread, state, .. } = one;
            match key {
                Some(key) => threads.push((thread, state, key)),
                None if stat.dead() => {}
                None => {
                    let kind = Kind::of(&thread.name);
                    process.workers.push(Worker { thread, kind, state, keeps: Vec::new() });
                }
            }
        }
        process.groups = grouped(threads, compared);
        process.compare(compared);
        Some(process)
    }

    /// Moves the group that the others are compared with to the front, and compares.
    fn compare(&mut self, compared: Fields) {
        let pid = self.pid;
        let of_leader = |group: &Group| group.threads.iter().any(|thread| thread.tid == pid);
        self.groups.sort_by_key(|group| (!of_leader(group), usize::MAX - group.threads.len()));
        let counts = |fields: Vec<Field>| -> Vec<Field> {
            fields.into_iter().filter(|&field| compared.contains(field)).collect()
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

    /// Returns the number of threads that can run code of the process.
    pub(crate) fn threads(&self) -> usize {
        self.groups.iter().map(|group| group.threads.len()).sum()
    }

    /// Returns the compared fields in which any thread differs from the first group.
    pub(crate) fn differs(&self) -> Vec<Field> {
        sorted(self.groups.iter().flat_map(|group| group.differs.iter().copied()))
    }

    /// Returns the other fields in which threads differ.
    pub(crate) fn varies(&self, compared: Fields) -> Vec<Field> {
        let within = self.groups.iter().flat_map(|group| group.varies.iter().copied());
        let first = self.groups.first();
        let among = self.groups.iter().filter_map(|group| Some(group.state.differs(&first?.state)));
        sorted(within.chain(among.flatten().filter(|&field| !compared.contains(field))))
    }

    /// Returns the fields that this process may not see of some thread.
    pub(crate) fn unseen(&self) -> Vec<Field> {
        sorted(self.groups.iter().flat_map(|group| group.state.unseen()))
    }

    /// Returns whether all its threads, and the workers of the kernel, may do the same.
    pub(crate) fn consistent(&self) -> bool {
        self.groups.iter().all(|group| group.differs.is_empty())
            && self.workers.iter().all(|worker| worker.keeps.is_empty())
    }
}

fn sorted(fields: impl Iterator<Item = Field>) -> Vec<Field> {
    let mut all: Vec<_> = fields.collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Reads every task that has not ended. Most tasks share the directories of the first task; those are read once.
fn read_all(directory: &tasks::Process) -> Result<Vec<Seen>, Unread> {
    let tids = directory.tids()?;
    let first = tids.first().and_then(|&tid| directory.task(tid).ok());
    let first = first.and_then(|task| Seen::read(&task, None).ok());
    let directories: Option<(i32, Directories)> =
        first.as_ref().and_then(|one| Some((one.thread.tid, one.state.directories.clone()?)));
    let known = directories.as_ref().map(|(tid, directories)| Known { tid: *tid, directories });
    let read = |&tid: &i32| directory.task(tid).and_then(|task| Seen::read(&task, known));
    let rest = match (&first, tids.as_slice()) {
        (Some(_), [_, rest @ ..]) => rest,
        (_, all) => all,
    };
    let results = if rest.len() > MANY {
        parallel::map(rest, read, |_| {})
    } else {
        rest.iter().map(read).collect()
    };
    let mut seen: Vec<_> = first.into_iter().collect();
    for result in results {
        match result {
            Ok(one) => seen.push(one),
            Err(error) if tasks::is_no_such_process(error) => {}
            Err(error) => return Err(Unread::Refused(error)),
        }
    }
    Ok(seen)
}

/// Returns the state that decides the group of each thread, or None if the task has ended or is a worker of the kernel.
fn keys(seen: &[Seen], compared: Fields) -> Vec<Option<State>> {
    let key = |one: &Seen| {
        let thread = !one.stat.dead() && !one.worker;
        thread.then(|| one.state.key(compared))
    };
    seen.iter().map(key).collect()
}

/// Returns whether all threads have the same state, or a second look at those that differ finds them unchanged.
fn settled(directory: &tasks::Process, seen: &[Seen], keys: &[Option<State>]) -> bool {
    let mut counts: HashMap<&State, usize> = HashMap::new();
    for key in keys.iter().flatten() {
        *counts.entry(key).or_default() += 1;
    }
    if counts.len() <= 1 {
        return true;
    }
    let Some(largest) = counts.iter().max_by_key(|(_, count)| **count).map(|(key, _)| *key) else {
        return true;
    };
    let mut sample = true;
    seen.iter().zip(keys).all(|(one, key)| match key {
        Some(key) if key == largest => !std::mem::take(&mut sample) || one.confirmed(directory),
        Some(_) => one.confirmed(directory),
        None => true,
    })
}

/// Sorts threads into groups. A thread whose state was not seen completely joins the first group that it agrees with.
fn grouped(threads: Vec<(Thread, State, State)>, compared: Fields) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<State, usize> = HashMap::new();
    let unseen = |state: &State| state.unseen().len();
    let mut threads = threads;
    threads.sort_by_cached_key(|(_, state, _)| unseen(state));
    for (thread, state, key) in threads {
        let counts = |field: &Field| compared.contains(*field);
        let place = known.get(&key).copied().or_else(|| {
            let alike = |group: &Group| !group.state.differs(&state).iter().any(counts);
            if unseen(&state) == 0 { None } else { groups.iter().position(alike) }
        });
        match place.and_then(|place| groups.get_mut(place)) {
            Some(group) => {
                group.threads.push(thread);
                if group.state != state {
                    let other = group.state.differs(&state);
                    group.varies.extend(other.into_iter().filter(|field| !counts(field)));
                }
            }
            None => {
                known.insert(key, groups.len());
                let (differs, varies) = (Vec::new(), Vec::new());
                groups.push(Group { state, threads: vec![thread], differs, varies });
            }
        }
    }
    for group in &mut groups {
        group.threads.sort_unstable_by_key(|thread| thread.tid);
        group.varies = sorted(group.varies.drain(..));
    }
    groups
}

/// Returns whether a task is a worker of the kernel, by the same evidence as the library's `kernel_worker`
/// (src/sys/proc/worker.rs). It blocks all signals that can be blocked and has a flag (include/linux/sched.h), which meant other
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

/// Returns whether the stack pointer and the program counter, the last words of the file `syscall`
/// (proc_pid_syscall(5)), are not both 0. Returns None if the task runs, or if the file may not be read.
fn has_user_registers(task: &tasks::Task) -> Option<bool> {
    let text = task.read("syscall").ok()?;
    let mut words = std::str::from_utf8(&text).ok()?.split_ascii_whitespace().rev();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    Some((number()?, number()?) != (0, 0))
}
