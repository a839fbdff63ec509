//! What the demo found, in the shape that `--json` prints.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::census::{self, Census, Count, Kind};
use crate::steps::Goal;

/// The number of the JSON's shape. Fields may be added under the same number; a field that
/// changes its meaning, or goes, takes the next one.
pub(crate) const SCHEMA: u32 = 1;

/// What the process that did it the plain way tells its parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plain {
    pub(crate) elapsed_us: u64,
    pub(crate) after: Census,
}

/// The same for the process that did it through libpsx.
#[derive(Debug)]
pub(crate) struct Everywhere {
    pub(crate) before: Census,
    pub(crate) after: Census,
    pub(crate) elapsed: Duration,
    pub(crate) max_pause: Duration,
    /// The most threads that performed one of the calls.
    pub(crate) performed: usize,
    pub(crate) sqpoll: usize,
}

/// `psx demo --json`. A count is `{"threads": n, "old": n}`, where `old` is how many of the
/// threads have not the whole of the new state.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    /// `mode` is `root` (with `user`, `uid` and `gid`) or `unprivileged`.
    #[serde(flatten)]
    pub(crate) goal: Goal,
    /// The calls, in order.
    pub(crate) calls: Vec<&'static str>,
    /// What `--threads` asked for; the main thread and the churn come on top.
    pub(crate) workers: usize,
    /// One entry per group of threads.
    pub(crate) groups: Vec<Group>,
    /// All groups together.
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
    /// What else there is to know.
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
            before: census::total(&all.before),
            plain: census::total(&plain.after),
            libpsx: census::total(&all.after),
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

fn groups(before: &Census, plain: &Census, libpsx: &Census) -> Vec<Group> {
    let mut kinds: Vec<Kind> =
        [before, plain, libpsx].iter().flat_map(|c| c.keys()).copied().collect();
    kinds.sort_unstable();
    kinds.dedup();
    let of = |census: &Census, kind| census.get(&kind).copied().unwrap_or_default();
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
