//! One process: its threads in groups of the same state.
//!
//! This module reads and groups. It does not judge what it finds.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use nix::errno::Errno;
use serde::Serialize;

use super::identity::Identity;
use super::mapping;
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

/// Threads in exactly the same state.
#[derive(Debug)]
pub(crate) struct Alike {
    pub(crate) state: State,
    /// In the order of their numbers.
    pub(crate) threads: Vec<Thread>,
}

/// Threads with the same values in all compared fields: a row of the table. What is judged is each state in it.
#[derive(Debug)]
pub(crate) struct Group {
    /// The threads in the state of the first thread.
    pub(crate) first: Alike,
    /// The threads that differ from them in fields that are not compared.
    pub(crate) others: Vec<Alike>,
    /// The fields in which they differ from the first group.
    pub(crate) differs: Vec<Field>,
    /// Fields that are not compared and in which threads of this group differ.
    pub(crate) varies: Vec<Field>,
}

impl Group {
    /// Returns the threads by their states.
    pub(crate) fn alike(&self) -> impl Iterator<Item = &Alike> + Clone {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Returns all threads, in the order of their numbers.
    pub(crate) fn threads(&self) -> Vec<&Thread> {
        let mut all: Vec<_> = self.alike().flat_map(|alike| &alike.threads).collect();
        all.sort_unstable_by_key(|thread| thread.tid);
        all
    }

    pub(crate) fn count(&self) -> usize {
        self.alike().map(|alike| alike.threads.len()).sum()
    }
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
    /// Compared fields that cannot be seen of some thread or worker, if there are several: they may differ.
    pub(crate) uncertain: Vec<Field>,
    /// Whether every thread was read: at one moment the process had no other threads than these. If not, its threads
    /// come and go faster than they can be read.
    pub(crate) complete: bool,
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
}

/// The tasks that one look found.
struct Sight {
    /// In the order of their numbers.
    seen: Vec<Seen>,
    complete: bool,
}

impl Process {
    /// Reads a process. It is consistent if a complete look found no difference. A difference has to be found by two
    /// looks, because the first one may have been in the middle of a change: if a second look is complete and finds
    /// no difference, only that one counts. If the second look is not complete, the threads that only the first one
    /// saw count too.
    pub(crate) fn read(pid: i32, compared: Fields) -> Result<Self, Unread> {
        let directory = tasks::Process::open(pid)?;
        let first = look(&directory)?;
        let process = Self::sort(&directory, &first, compared)?;
        if process.consistent() {
            return Ok(process);
        }
        let mut second = look(&directory)?;
        if !second.complete {
            second.add(first.seen);
        }
        Self::sort(&directory, &second, compared)
    }

    fn sort(directory: &tasks::Process, sight: &Sight, compared: Fields) -> Result<Self, Unread> {
        let Some(first) = sight.seen.first() else {
            // A process that has not ended has at least one task.
            return Err(if sight.complete { Unread::Gone } else { Unread::Refused(Errno::EAGAIN) });
        };
        let seen = &sight.seen;
        let pid = first.status.process;
        let leader = seen.iter().find(|one| one.thread.tid == pid);
        let of_leader = leader.unwrap_or(first);
        // The files of a dead leader belong to root, and it has no command line any more.
        let thread = seen.iter().find(|one| !one.stat.dead() && !one.worker);
        let living = leader.filter(|one| !one.stat.dead()).or(thread).unwrap_or(of_leader);
        let mut process = Self {
            pid,
            name: of_leader.thread.name.clone(),
            numbers: leader.map(|one| one.status.numbers.clone()).unwrap_or_default(),
            identity: Identity::read(
                directory,
                &of_leader.stat,
                (living.thread.tid, &living.status),
            ),
            groups: Vec::new(),
            workers: Vec::new(),
            leader_dead: leader.is_none_or(|one| one.stat.dead()),
            kernel: of_leader.stat.kernel(),
            uncertain: Vec::new(),
            complete: sight.complete,
        };
        let living = || seen.iter().filter(|one| !one.stat.dead());
        process.groups = grouped(living().filter(|one| !one.worker), compared);
        for worker in living().filter(|one| one.worker) {
            process.workers.push(Worker {
                thread: worker.thread.clone(),
                kind: Kind::of(&worker.thread.name),
                state: worker.state.clone(),
                keeps: Vec::new(),
            });
        }
        process.compare(compared);
        Ok(process)
    }

    /// Moves the group that the others are compared with to the front, and compares.
    fn compare(&mut self, compared: Fields) {
        let pid = self.pid;
        let of_leader = |group: &Group| {
            group.alike().any(|alike| alike.threads.iter().any(|thread| thread.tid == pid))
        };
        self.groups.sort_by_key(|group| (!of_leader(group), usize::MAX - group.count()));
        let counts = |fields: Vec<Field>| -> Vec<Field> {
            fields.into_iter().filter(|&field| compared.contains(field)).collect()
        };
        if let Some((first, others)) = self.groups.split_first_mut() {
            for group in others {
                group.differs = counts(group.first.state.differs(&first.first.state));
            }
            let states = self.groups.iter().flat_map(Group::alike).map(|alike| &alike.state);
            for worker in &mut self.workers {
                worker.keeps = counts(worker.state.exceeds(states.clone()));
            }
        }
        if self.threads() + self.workers.len() > 1 {
            self.uncertain = counts(self.unseen());
        }
    }

    /// Returns the threads of all groups by their states.
    pub(crate) fn states(&self) -> impl Iterator<Item = &Alike> {
        self.groups.iter().flat_map(Group::alike)
    }

    /// Returns whether a thread has this effective user. Returns None if that cannot be seen: not all threads were read,
    /// or neither this user nor that of a thread has a number in the user namespace of psx. An ID that also stands for users
    /// without a number proves nothing.
    pub(crate) fn has_user(&self, id: u32) -> Option<bool> {
        let effective = || self.states().map(|alike| alike.state.credentials.user.effective);
        if !mapping::user_unseen(id) && effective().any(|one| one == id) {
            return Some(true);
        }
        let unmapped = !mapping::has_number(id) && effective().any(mapping::user_unseen);
        (self.complete && !unmapped).then_some(false)
    }

    /// Returns the number of threads that can run code of the process.
    pub(crate) fn threads(&self) -> usize {
        self.groups.iter().map(Group::count).sum()
    }

    /// Returns the compared fields in which any thread differs from the first group.
    pub(crate) fn differs(&self) -> Vec<Field> {
        sorted(self.groups.iter().flat_map(|group| group.differs.iter().copied()))
    }

    /// Returns the other fields in which threads differ.
    pub(crate) fn varies(&self, compared: Fields) -> Vec<Field> {
        let within = self.groups.iter().flat_map(|group| group.varies.iter().copied());
        let first = self.groups.first();
        let among = self.groups.iter();
        let among = among.filter_map(|group| Some(group.first.state.differs(&first?.first.state)));
        sorted(within.chain(among.flatten().filter(|&field| !compared.contains(field))))
    }

    /// Returns the fields that this process may not see of some thread, or of a worker if they tell what it may do.
    pub(crate) fn unseen(&self) -> Vec<Field> {
        let threads = self.states().flat_map(|alike| alike.state.unseen());
        let workers = self.workers.iter().flat_map(|worker| worker.state.unseen());
        sorted(threads.chain(workers.filter(|field| State::EXCEEDED.contains(field))))
    }

    /// Returns whether no thread of the process runs any more.
    pub(crate) fn zombie(&self) -> bool {
        self.complete && self.groups.is_empty()
    }

    /// Returns whether a thread or a worker of the kernel may do what the others may not.
    pub(crate) fn diverges(&self) -> bool {
        self.groups.iter().any(|group| !group.differs.is_empty())
            || self.workers.iter().any(|worker| !worker.keeps.is_empty())
    }

    /// Returns whether all its threads, and the workers of the kernel, may do the same. That is known only if every
    /// thread was read.
    pub(crate) fn consistent(&self) -> bool {
        self.complete && !self.diverges()
    }
}

fn sorted(fields: impl Iterator<Item = Field>) -> Vec<Field> {
    let mut all: Vec<_> = fields.collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Looks at every task once. Most tasks share the directories of the first task; those are read once.
fn look(directory: &tasks::Process) -> Result<Sight, Unread> {
    let mut directories: Option<(i32, Directories)> = None;
    let mut look = directory.look(|tids| {
        let read = |tid: i32, known: Option<&(i32, Directories)>| {
            let known = known.map(|(tid, directories)| Known { tid: *tid, directories });
            directory.task(tid).and_then(|task| Seen::read(&task, known))
        };
        let mut results = Vec::with_capacity(tids.len());
        let rest = match tids {
            [first, rest @ ..] if directories.is_none() => {
                let result = read(*first, None);
                let both = result.as_ref().ok().and_then(|one| one.state.directories.clone());
                directories = both.map(|both| (*first, both));
                results.push(result);
                rest
            }
            all => all,
        };
        let read = |&tid: &i32| read(tid, directories.as_ref());
        if rest.len() > MANY {
            results.extend(parallel::map(rest, read, |_| {}));
        } else {
            results.extend(rest.iter().map(read));
        }
        results
    })?;
    // A dead task has no state that counts. The leader is there until the whole process has ended.
    let tasks = std::mem::take(&mut look.tasks);
    let (dead, living): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|(_, one)| one.stat.dead());
    let there = |tid: &i32| look.present.binary_search(tid).is_ok();
    let dead: Vec<_> = dead.into_iter().filter(|(tid, _)| there(tid)).collect();
    look.tasks = living;
    let complete = look.complete;
    let living = look.without_ended(|one| (one.worker, &one.state));
    let mut seen: Vec<_> = living.into_iter().chain(dead).map(|(_, one)| one).collect();
    seen.sort_by_key(|one| one.thread.tid);
    Ok(Sight { seen, complete })
}

impl Sight {
    /// Adds the tasks of an earlier look that this one did not see.
    fn add(&mut self, earlier: Vec<Seen>) {
        let same = |one: &Seen| (one.thread.tid, one.stat.start);
        let known: HashSet<_> = self.seen.iter().map(same).collect();
        self.seen.extend(earlier.into_iter().filter(|one| !known.contains(&same(one))));
        self.seen.sort_by_key(|one| one.thread.tid);
    }
}

/// Sorts threads by their states, and the states into groups. A state that was not seen completely joins the first group
/// that it agrees with.
fn grouped<'a>(threads: impl Iterator<Item = &'a Seen>, compared: Fields) -> Vec<Group> {
    let mut places: HashMap<&State, usize> = HashMap::new();
    let mut states: Vec<Alike> = Vec::new();
    for one in threads {
        let place = *places.entry(&one.state).or_insert(states.len());
        match states.get_mut(place) {
            Some(alike) => alike.threads.push(one.thread.clone()),
            None => {
                let (state, threads) = (one.state.clone(), vec![one.thread.clone()]);
                states.push(Alike { state, threads });
            }
        }
    }
    let unseen = |alike: &Alike| alike.state.unseen().len();
    states.sort_by_cached_key(unseen);
    let counts = |field: &Field| compared.contains(*field);
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<State, usize> = HashMap::new();
    for alike in states {
        let key = alike.state.key(compared);
        let place = known.get(&key).copied().or_else(|| {
            let agrees =
                |group: &Group| !group.first.state.differs(&alike.state).iter().any(counts);
            if unseen(&alike) == 0 { None } else { groups.iter().position(agrees) }
        });
        match place.and_then(|place| groups.get_mut(place)) {
            Some(group) => {
                let other = group.first.state.differs(&alike.state);
                group.varies.extend(other.into_iter().filter(|field| !counts(field)));
                group.others.push(alike);
            }
            None => {
                known.insert(key, groups.len());
                let (others, differs, varies) = (Vec::new(), Vec::new(), Vec::new());
                groups.push(Group { first: alike, others, differs, varies });
            }
        }
    }
    for group in &mut groups {
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

/// Returns whether the stack pointer or the program counter, the last words of the file `syscall` (proc_pid_syscall(5)), is
/// not 0. Returns None if the task runs, or if the file may not be read; and on s390x if only the program counter is not
/// 0, which is so for a worker, and possible for a thread.
fn has_user_registers(task: &tasks::Task) -> Option<bool> {
    let text = task.read("syscall").ok()?;
    let mut words = std::str::from_utf8(&text).ok()?.split_ascii_whitespace().rev();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (counter, stack) = (number()?, number()?);
    if cfg!(target_arch = "s390x") && stack == 0 && counter != 0 {
        return None;
    }
    Some(counter != 0 || stack != 0)
}
