//! The threads of this process as the kernel shows them: /proc/self/task/*/status.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::steps::Goal;
use crate::tasks::{Credentials, Process, Stat};

/// A group of threads, by what they do. The order is that of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Main,
    Futex,
    Epoll,
    Read,
    Nanosleep,
    Busy,
    Raw,
    Churn,
    Other,
}

impl Kind {
    const NAMED: [Self; 7] =
        [Self::Futex, Self::Epoll, Self::Read, Self::Nanosleep, Self::Busy, Self::Raw, Self::Churn];

    /// Returns the name of the thread, by which it is recognized in /proc.
    pub(crate) const fn comm(self) -> &'static str {
        match self {
            Self::Main => "psx",
            Self::Futex => "psx-futex",
            Self::Epoll => "psx-epoll",
            Self::Read => "psx-read",
            Self::Nanosleep => "psx-nanosleep",
            Self::Busy => "psx-busy",
            Self::Raw => "psx-raw",
            Self::Churn => "psx-churn",
            Self::Other => "",
        }
    }

    /// Returns the name of the group that the table shows.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Futex => "asleep in futex",
            Self::Epoll => "asleep in epoll_wait",
            Self::Read => "asleep in read",
            Self::Nanosleep => "asleep in nanosleep",
            Self::Busy => "busy",
            Self::Raw => "raw clone(2)",
            Self::Churn => "churn (born and dying)",
            Self::Other => "other",
        }
    }

    fn of(tid: i32, process: i32, stat: &Stat) -> Self {
        if tid == process {
            return Self::Main;
        }
        let known = Self::NAMED.into_iter().find(|kind| kind.comm().as_bytes() == stat.name);
        known.unwrap_or(Self::Other)
    }
}

/// The number of threads, and the number of those that do not have the new state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) threads: usize,
    pub(crate) old: usize,
}

/// The count of each group that has at least one thread.
pub(crate) type ThreadCounts = BTreeMap<Kind, Count>;

/// Counts the threads, and those that have not reached the goal.
pub(crate) fn count(goal: &Goal) -> Result<ThreadCounts> {
    let mut counts = ThreadCounts::new();
    for_each_thread(|kind, _, credentials| {
        let count = counts.entry(kind).or_default();
        count.threads += 1;
        count.old += usize::from(!goal.reached_by(credentials));
    })?;
    Ok(counts)
}

/// Returns the count of all groups together.
pub(crate) fn total(counts: &ThreadCounts) -> Count {
    counts.values().fold(Count::default(), |sum, count| Count {
        threads: sum.threads + count.threads,
        old: sum.old + count.old,
    })
}

/// Returns how many threads of each kind are in place. A busy thread is always in place, any other if it sleeps.
pub(crate) fn in_place() -> Result<BTreeMap<Kind, usize>> {
    let mut placed = BTreeMap::new();
    for_each_thread(|kind, stat, _| {
        if kind == Kind::Busy || stat.state == b'S' {
            *placed.entry(kind).or_default() += 1;
        }
    })?;
    Ok(placed)
}

/// Shows every thread that can still run code. Threads end while this reads them. A thread that has ended, or is a
/// zombie, is left out, because it can use no privilege.
fn for_each_thread(mut see: impl FnMut(Kind, &Stat, &Credentials)) -> Result<()> {
    let process = Process::myself().context("opening /proc/self/task")?;
    let read = |&tid: &i32| process.task(tid).and_then(|task| Ok((task.status()?, task.stat()?)));
    let look = process.look(|tids| tids.iter().map(read).collect());
    let mut look = look.context("reading /proc/self/task/*/status")?;
    look.tasks.retain(|(_, (_, stat))| !stat.dead());
    for (tid, (status, stat)) in look.without_ended(|(status, _)| (false, &status.credentials)) {
        see(Kind::of(tid, process.pid, &stat), &stat, &status.credentials);
    }
    Ok(())
}
