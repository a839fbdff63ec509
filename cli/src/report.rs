//! The findings of the demo, in the shape that `--json` prints.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::steps::Goal;
use crate::thread_counts::{self, Count, Kind, ThreadCounts};

/// The number of the JSON's shape. Fields may be added under the same number. If a field is removed or changes
/// its meaning, the number goes up.
pub(crate) const SCHEMA: u32 = 1;

/// The findings that the process with the plain calls sends to its parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plain {
    pub(crate) elapsed_us: u64,
    pub(crate) after: ThreadCounts,
}

/// The findings of the process that made the calls through libpsx.
#[derive(Debug)]
pub(crate) struct Everywhere {
    pub(crate) before: ThreadCounts,
    pub(crate) after: ThreadCounts,
    pub(crate) elapsed: Duration,
    pub(crate) max_pause: Duration,
    /// The most threads that performed one of the calls.
    pub(crate) performed: usize,
    pub(crate) sqpoll: usize,
}

/// The output of `psx demo --json`. A count is `{"threads": n, "old": n}`, where `old` is the number of threads
/// that do not have the whole new state.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    /// `mode` is `root` (with `user`, `uid` and `gid`) or `unprivileged`.
    #[serde(flatten)]
    pub(crate) goal: Goal,
    /// The calls, in order.
    pub(crate) calls: Vec<&'static str>,
    /// The value of `--threads`. The main thread and the churn are not included.
    pub(crate) workers: usize,
    /// The groups of threads, one entry each.
    pub(crate) groups: Vec<Group>,
    /// The counts of all groups together.
    pub(crate) total: Counts,
    /// How long the plain calls took, all together.
    pub(crate) plain_us: u64,
    /// How long the calls through libpsx took, all together.
    pub(crate) libpsx_us: u64,
    /// The longest time that one of them held the other threads.
    pub(crate) longest_freeze_us: u64,
    /// How many threads performed a call through libpsx.
    pub(crate) performed: usize,
    /// Whether every thread has the new state after libpsx; the exit status says the same.
    pub(crate) all_changed: bool,
    /// With `--hold`: the processes that stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<Pids>,
    /// Further remarks.
    pub(crate) notes: Vec<String>,
}

/// The process that made plain calls, and the one that made them through libpsx.
#[derive(Debug, Serialize)]
pub(crate) struct Pids {
    pub(crate) plain: u32,
    pub(crate) libpsx: u32,
}

/// The counts of one group of threads.
#[derive(Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) group: Kind,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// The counts before, after the plain calls, and after libpsx.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    pub(crate) before: Count,
    pub(crate) plain: Count,
    pub(crate) libpsx: Count,
}

impl Report {
    pub(crate) fn new(goal: Goal, workers: usize, plain: &Plain, all: &Everywhere) -> Self {
        let total = Counts {
            before: thread_counts::total(&all.before),
            plain: thread_counts::total(&plain.after),
            libpsx: thread_counts::total(&all.after),
        };
        Self {
            schema: SCHEMA,
            calls: goal.steps().into_iter().map(|step| step.name()).collect(),
            workers,
            groups: groups(&all.before, &plain.after, &all.after),
            plain_us: plain.elapsed_us,
            libpsx_us: micros(all.elapsed),
            longest_freeze_us: micros(all.max_pause),
            performed: all.performed,
            all_changed: total.libpsx.old == 0 && total.libpsx.threads > workers,
            notes: notes(&goal, &total, all),
            held: None,
            goal,
            total,
        }
    }
}

fn groups(before: &ThreadCounts, plain: &ThreadCounts, libpsx: &ThreadCounts) -> Vec<Group> {
    let mut kinds: Vec<Kind> =
        [before, plain, libpsx].iter().flat_map(|c| c.keys()).copied().collect();
    kinds.sort_unstable();
    kinds.dedup();
    let of = |counts: &ThreadCounts, kind| counts.get(&kind).copied().unwrap_or_default();
    let counts = |kind| Counts {
        before: of(before, kind),
        plain: of(plain, kind),
        libpsx: of(libpsx, kind),
    };
    kinds.into_iter().map(|group| Group { group, counts: counts(group) }).collect()
}

fn notes(goal: &Goal, total: &Counts, all: &Everywhere) -> Vec<String> {
    let mut notes = Vec::new();
    if *goal == Goal::Unprivileged {
        let n = all.performed;
        notes.push(format!("keepcaps was set as well, in {n} threads; /proc does not show it"));
    }
    if total.before.old == 0 {
        notes.push("the threads had the new state before anything was done".to_owned());
    }
    if all.sqpoll > 0 {
        notes.push(format!("{} io_uring SQPOLL threads keep their credentials", all.sqpoll));
    }
    notes
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
