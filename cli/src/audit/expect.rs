//! Conditions that every thread of a process must meet: `--expect`, and the rules of a policy.

mod parse;

use libpsx::process::{CapabilitySet, Ids};
use serde::Serialize;

pub(crate) use self::parse::{groups, keys, nearest, unknown_key, user};
use super::process::{Process, Thread, Worker};
use super::state::{Apart, Field, Reference, State};
use super::verdict::{Judgement, Verdict};
use super::{mapping, names};
use crate::tasks::Credentials;
use crate::terminal::printable;

/// One condition, `KEY=VALUE` or `KEY<=VALUE`.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    /// The text of the condition as it was given.
    pub(crate) text: String,
    wanted: Wanted,
}

/// How serious it is if an expectation does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Reported; does not change the exit status.
    Info,
    /// Reported; does not change the exit status.
    Warning,
    /// A violation: exit status 1.
    Error,
}

impl Level {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    User(Which, u32),
    Group(Which, u32),
    /// The supplementary groups, in order.
    Groups(Comparison, Vec<u32>),
    Sets(Sets, Comparison, CapabilitySet),
    NoNewPrivs(bool),
    Seccomp(u32),
    Filters(Comparison, u32),
    /// The label, or None if no security module gives one.
    Label(Option<String>),
    Policy(u32),
    Priority(u32),
    /// The namespaces of these kinds must be those of neither psx nor process 1, nor the initial ones.
    Namespaces(Comparison, Vec<&'static str>),
    /// A path, or any path except `/`.
    Root(Path),
    /// Another root directory than `/`, or another mount namespace than those of psx and of process 1.
    OtherFiles,
    Cwd(Path),
    Umask(u32),
    Nice(i32),
    Personality(u32),
    TimerSlack(u64),
    Affinity(String),
    IoPriority(String),
    Verdict(Comparison, Verdict),
    Dumpable(bool),
    Consistent(bool),
    /// The kernel does not show this state of another process.
    Hidden(&'static str),
}

/// A directory that is expected.
#[derive(Debug, Clone)]
pub(crate) enum Path {
    Is(String),
    Changed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    AtMost,
    AtLeast,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    All,
    Real,
    Effective,
    Saved,
    Files,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Sets {
    /// Effective, permitted, inheritable and ambient together.
    Any,
    Effective,
    Permitted,
    Inheritable,
    Ambient,
    Bounding,
}

/// An expectation that does not hold, with the first thread for which it does not hold.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The rule of the policy or the unit that expects it.
    pub(crate) rule: Option<String>,
    pub(crate) level: Level,
    pub(crate) expected: String,
    /// None if it is a condition on the whole process, or if no thread runs.
    pub(crate) thread: Option<Thread>,
    /// Whether this is a worker of the kernel.
    pub(crate) worker: bool,
    pub(crate) found: String,
    /// The number of threads and workers for which it does not hold.
    pub(crate) threads: usize,
    /// Whether the state could be seen. If not, it is not known whether the expectation holds.
    pub(crate) seen: bool,
    /// Whether the kernel shows the state to no user. In a policy or a unit, this is a note.
    pub(crate) hidden: bool,
}

impl Failure {
    /// Returns whether it is a violation.
    pub(crate) fn counts(&self) -> bool {
        self.level == Level::Error && self.seen
    }

    /// Returns whether it can be a violation. A state that no user can see does not count for a policy or a unit: both say
    /// more than psx can check. `--expect` asks for the check, so the answer must not be that the expectation holds.
    pub(crate) fn undecided(&self) -> bool {
        let left_out = self.hidden && self.rule.is_some();
        self.level == Level::Error && !self.seen && !left_out
    }
}

/// The result of checking a condition on one state.
enum Outcome {
    Holds,
    /// The condition does not hold; this value was found.
    Missed(String),
    /// The state could not be seen; this is the reason.
    Unseen(String),
    /// The kernel shows the state to no user; this is the reason.
    Hidden(String),
}

impl Comparison {
    fn holds<T: PartialOrd>(self, found: &T, wanted: &T) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::AtMost => found <= wanted,
            Self::AtLeast => found >= wanted,
        }
    }

    fn holds_for_sets(self, found: CapabilitySet, wanted: CapabilitySet) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::AtMost => wanted.is_superset(found),
            Self::AtLeast => found.is_superset(wanted),
        }
    }
}

impl Outcome {
    fn of(holds: bool, found: impl FnOnce() -> String) -> Self {
        if holds { Self::Holds } else { Self::Missed(found()) }
    }

    fn seen<T>(value: Option<T>, what: &str, judge: impl FnOnce(T) -> Self) -> Self {
        value.map_or_else(|| Self::Unseen(format!("{what} cannot be seen")), judge)
    }
}

/// Why it is not known whether an ID is the expected one.
const UNMAPPED: &str = "an ID has no number in the user namespace of psx";

/// Why it is not known whether a process has a namespace for itself.
const FIRST_UNSEEN: &str =
    "the namespaces of process 1 cannot be seen, and those of psx may be its own";

/// Compares IDs. An ID that stands for others can be the expected one.
fn ids_are(
    found: &[u32],
    wanted: u32,
    unseen: fn(u32) -> bool,
    shown: impl FnOnce() -> String,
) -> Outcome {
    let possible = found.iter().all(|&id| id == wanted || unseen(id));
    if possible && found.iter().any(|&id| unseen(id)) {
        return Outcome::Unseen(UNMAPPED.to_owned());
    }
    Outcome::of(possible, shown)
}

fn directory(wanted: &Path, found: &[u8]) -> Outcome {
    let holds = match wanted {
        Path::Is(path) => found == path.as_bytes(),
        Path::Changed => found != b"/",
    };
    Outcome::of(holds, || printable(found))
}

/// The inputs of a check.
pub(crate) struct Checker<'a> {
    pub(crate) names: &'a mut names::Names,
    /// The namespaces with which those of the processes are compared.
    pub(crate) reference: &'a Reference,
}

impl Wanted {
    /// Returns what a kernel worker must meet: it must not have more than what is expected of the threads. Returns None
    /// if it does not matter for a worker. A worker executes no program, so its bounding set and no_new_privs give it
    /// nothing, and no filter applies to what it does. So a sandboxed process may have an unprivileged worker.
    fn of_worker(&self) -> Option<Self> {
        use Comparison::{AtLeast, AtMost};
        match self {
            Self::Groups(AtLeast, _)
            | Self::Sets(Sets::Bounding, ..)
            | Self::Sets(_, AtLeast, _)
            | Self::Verdict(AtLeast, _) => None,
            Self::Groups(_, groups) => Some(Self::Groups(AtMost, groups.clone())),
            Self::Sets(which, _, most) => Some(Self::Sets(*which, AtMost, *most)),
            Self::Verdict(_, most) => {
                Some(Self::Verdict(AtMost, (*most).max(Verdict::Unprivileged)))
            }
            Self::User(..)
            | Self::Group(..)
            | Self::Label(_)
            | Self::Namespaces(..)
            | Self::Root(_)
            | Self::OtherFiles => Some(self.clone()),
            _ => None,
        }
    }

    fn outcome(&self, state: &State, checker: &mut Checker<'_>) -> Outcome {
        let own = &state.credentials;
        let names = &mut *checker.names;
        match self {
            Wanted::User(which, id) => {
                let ids = which.of(own.user);
                ids_are(&ids, *id, mapping::user_unseen, || names.users(own.user))
            }
            Wanted::Group(which, id) => {
                let ids = which.of(own.group);
                ids_are(&ids, *id, mapping::group_unseen, || names.groups(own.group))
            }
            Wanted::Groups(comparison, groups) => {
                let within = |one: &[u32], other: &[u32]| one.iter().all(|id| other.contains(id));
                let unseen = |id: &&u32| mapping::group_unseen(**id);
                let seen: Vec<u32> = own.groups.iter().filter(|id| !unseen(id)).copied().collect();
                let all = seen.len() == own.groups.len();
                // What holds for the groups that are seen, and what can still be true of the others.
                let (holds, possible) = match comparison {
                    Comparison::Equal => {
                        let mut found = own.groups.clone();
                        found.sort_unstable();
                        (all && found == *groups, within(&seen, groups) && !groups.is_empty())
                    }
                    Comparison::AtMost => {
                        let within = within(&seen, groups);
                        (all && within, within && !groups.is_empty())
                    }
                    Comparison::AtLeast => (within(groups, &seen), true),
                };
                if !holds && !all && possible {
                    Outcome::Unseen(UNMAPPED.to_owned())
                } else {
                    Outcome::of(holds, || names.supplementary(&own.groups))
                }
            }
            Wanted::Sets(which, comparison, wanted) => {
                let found = which.of(own);
                Outcome::of(comparison.holds_for_sets(found, *wanted), || names::set(found))
            }
            Wanted::NoNewPrivs(wanted) => Outcome::of(own.no_new_privs == Some(*wanted), || {
                names::yes_no(own.no_new_privs).to_owned()
            }),
            Wanted::Seccomp(mode) => {
                Outcome::of(own.seccomp == Some(*mode), || names::seccomp(own))
            }
            Wanted::Filters(comparison, count) => {
                let holds = own.filters.is_some_and(|found| comparison.holds(&found, count));
                Outcome::of(holds, || names::seccomp(own))
            }
            Wanted::Label(label) => {
                let holds = state.label.as_deref() == label.as_deref().map(str::as_bytes);
                Outcome::seen(state.label_seen.then_some(holds), "the label", |holds| {
                    Outcome::of(holds, || names::label(state))
                })
            }
            Wanted::Policy(policy) => Outcome::of(state.scheduling.policy == *policy, || {
                names::scheduling(state.scheduling)
            }),
            Wanted::Priority(priority) => {
                Outcome::of(state.scheduling.priority == *priority, || {
                    names::scheduling(state.scheduling)
                })
            }
            Wanted::Namespaces(comparison, kinds) => {
                let apart = checker.reference.apart(state);
                Outcome::seen(apart, "the namespaces", |Apart { certain, possible }| {
                    // A namespace for children that is that of the task itself is no other one.
                    let counts = |kind: &&str| kinds.contains(kind) || !state.is_for_children(kind);
                    let least: Vec<_> = certain.into_iter().filter(counts).collect();
                    let unknown: Vec<_> = possible.into_iter().filter(counts).collect();
                    let most = [least.as_slice(), &unknown].concat();
                    let within =
                        |one: &[&str], other: &[&str]| one.iter().all(|k| other.contains(k));
                    // What holds whatever the unknown namespaces are, and what can hold.
                    let (holds, can_hold) = match comparison {
                        Comparison::Equal => {
                            let can_hold = within(&least, kinds) && within(kinds, &most);
                            (can_hold && unknown.is_empty(), can_hold)
                        }
                        Comparison::AtMost => (within(&most, kinds), within(&least, kinds)),
                        Comparison::AtLeast => (within(kinds, &least), within(kinds, &most)),
                    };
                    if can_hold && !holds {
                        return Outcome::Unseen(FIRST_UNSEEN.to_owned());
                    }
                    Outcome::of(holds, || match most.as_slice() {
                        [] => "the namespaces of psx or of process 1".to_owned(),
                        found => format!("other namespaces than psx: {}", found.join(", ")),
                    })
                })
            }
            Wanted::Root(path) => {
                Outcome::seen(state.directories.as_ref(), "the root directory", |both| {
                    directory(path, &both.root)
                })
            }
            Wanted::OtherFiles => {
                let both = state.directories.as_ref().zip(checker.reference.apart(state));
                Outcome::seen(both, "the root directory", |(both, apart)| {
                    let holds = apart.certain.contains(&"mnt") || both.root != b"/";
                    if !holds && apart.possible.contains(&"mnt") {
                        return Outcome::Unseen(FIRST_UNSEEN.to_owned());
                    }
                    Outcome::of(holds, || "the files that psx or process 1 sees".to_owned())
                })
            }
            Wanted::Cwd(path) => {
                Outcome::seen(state.directories.as_ref(), "the working directory", |both| {
                    directory(path, &both.cwd)
                })
            }
            Wanted::Umask(wanted) => Outcome::seen(state.umask, "the umask", |found| {
                Outcome::of(found == *wanted, || format!("{found:04o}"))
            }),
            Wanted::Nice(wanted) => Outcome::of(state.nice == *wanted, || state.nice.to_string()),
            Wanted::Personality(wanted) => {
                Outcome::seen(state.personality, "the personality", |found| {
                    Outcome::of(found == *wanted, || format!("{found:#x}"))
                })
            }
            Wanted::TimerSlack(wanted) => {
                Outcome::seen(state.timer_slack, "the timer slack", |found| {
                    Outcome::of(found == *wanted, || format!("{found} ns"))
                })
            }
            Wanted::Affinity(wanted) => {
                let holds = state.affinity == wanted.as_bytes();
                Outcome::of(holds, || printable(&state.affinity))
            }
            Wanted::IoPriority(wanted) => {
                Outcome::seen(state.io_priority, "the I/O priority", |found| {
                    let found = names::io_priority(found);
                    Outcome::of(found == *wanted, || found.clone())
                })
            }
            Wanted::Verdict(comparison, wanted) => {
                let Judgement { verdict, least, .. } =
                    Judgement::of_state(state, checker.reference);
                match [verdict, least].map(|found| comparison.holds(&found, wanted)) {
                    [true, true] => Outcome::Holds,
                    [false, false] => Outcome::Missed(verdict.name().to_owned()),
                    _ => Outcome::Unseen(UNMAPPED.to_owned()),
                }
            }
            Wanted::Dumpable(_) | Wanted::Consistent(_) => Outcome::Holds,
            Wanted::Hidden(what) => {
                Outcome::Hidden(format!("the kernel does not show the {what} of another process"))
            }
        }
    }
}

impl Expectation {
    /// Makes an expectation from code.
    pub(crate) fn new(text: impl Into<String>, wanted: Wanted) -> Self {
        Self { text: text.into(), wanted }
    }

    /// Gives the expectation another text.
    pub(crate) fn titled(self, text: String) -> Self {
        Self { text, ..self }
    }

    /// Checks a condition on the whole process. Returns None for a condition on threads.
    fn of_process(&self, process: &Process) -> Option<Outcome> {
        match self.wanted {
            Wanted::Dumpable(_) if process.identity.of_root => Some(Outcome::Hidden(
                "the kernel does not show whether a process of root is dumpable".to_owned(),
            )),
            Wanted::Dumpable(wanted) => {
                Some(Outcome::seen(process.identity.dumpable, "whether it is dumpable", |found| {
                    Outcome::of(found == wanted, || names::yes_no(Some(found)).to_owned())
                }))
            }
            Wanted::Consistent(_) if !process.complete && !process.diverges() => {
                Some(Outcome::Unseen("not all threads could be read".to_owned()))
            }
            Wanted::Consistent(_) if !process.diverges() && !process.uncertain.is_empty() => {
                let fields: Vec<_> = process.uncertain.iter().map(Field::to_string).collect();
                Some(Outcome::Unseen(format!("{} cannot be seen", fields.join(", "))))
            }
            Wanted::Consistent(wanted) => Some(Outcome::of(process.consistent() == wanted, || {
                let fields: Vec<_> = process.differs().iter().map(Field::to_string).collect();
                match fields.as_slice() {
                    [] if process.diverges() => "a kernel worker that keeps more".to_owned(),
                    [] => "threads that are all alike".to_owned(),
                    fields => format!("threads that differ in {}", fields.join(", ")),
                }
            })),
            _ => None,
        }
    }

    /// Checks a process.
    pub(crate) fn check<'p>(
        &self,
        process: &'p Process,
        rule: Option<&str>,
        level: Level,
        checker: &mut Checker<'_>,
    ) -> Option<Failure> {
        let rule = rule.map(str::to_owned);
        let expected = self.text.clone();
        let fail = |task: Option<(&Thread, bool)>, found, threads| {
            let (thread, worker) = task.unzip();
            let (thread, worker) = (thread.cloned(), worker.unwrap_or_default());
            let (seen, hidden) = (true, false);
            Failure { rule, level, expected, thread, worker, found, threads, seen, hidden }
        };
        let unknown = |fail: Failure, hidden| Some(Failure { seen: false, hidden, ..fail });
        if process.groups.is_empty() {
            return Some(fail(None, "no thread that runs".to_owned(), 0));
        }
        match self.of_process(process) {
            None => {}
            Some(Outcome::Holds) => return None,
            Some(Outcome::Missed(found)) => return Some(fail(None, found, process.threads())),
            Some(Outcome::Unseen(why)) => return unknown(fail(None, why, 0), false),
            Some(Outcome::Hidden(why)) => return unknown(fail(None, why, 0), true),
        }
        let states = process
            .states()
            .map(|alike| (&self.wanted, &alike.state, alike.threads.as_slice(), false));
        let of_worker = self.wanted.of_worker();
        let workers = of_worker.iter().flat_map(|wanted| {
            let of = move |one: &'p Worker| {
                (wanted, &one.state, std::slice::from_ref(&one.thread), true)
            };
            process.workers.iter().map(of)
        });
        let mut first: Option<((&Thread, bool), String)> = None;
        let (mut tasks, mut unseen) = (0, None);
        for (wanted, state, threads, worker) in states.chain(workers) {
            let found = match wanted.outcome(state, checker) {
                Outcome::Holds => continue,
                Outcome::Missed(found) => found,
                Outcome::Unseen(why) => {
                    unseen = Some((why, false));
                    continue;
                }
                Outcome::Hidden(why) => {
                    unseen = Some((why, true));
                    continue;
                }
            };
            tasks += threads.len();
            let Some(thread) = threads.first() else { continue };
            // A worker is named only if no thread fails.
            let place = |(thread, worker): (&Thread, bool)| (worker, thread.tid);
            if first.as_ref().is_none_or(|(earlier, _)| place((thread, worker)) < place(*earlier)) {
                first = Some(((thread, worker), found));
            }
        }
        match (first, unseen) {
            (Some((task, found)), _) => Some(fail(Some(task), found, tasks)),
            (None, Some((why, hidden))) => unknown(fail(None, why, 0), hidden),
            (None, None) => None,
        }
    }
}

impl Which {
    fn of(self, ids: Ids) -> Vec<u32> {
        match self {
            Self::All => vec![ids.real, ids.effective, ids.saved, ids.filesystem],
            Self::Real => vec![ids.real],
            Self::Effective => vec![ids.effective],
            Self::Saved => vec![ids.saved],
            Self::Files => vec![ids.filesystem],
        }
    }
}

impl Sets {
    fn of(self, own: &Credentials) -> CapabilitySet {
        match self {
            Self::Any => {
                own.sets.effective | own.sets.permitted | own.sets.inheritable | own.ambient
            }
            Self::Effective => own.sets.effective,
            Self::Permitted => own.sets.permitted,
            Self::Inheritable => own.sets.inheritable,
            Self::Ambient => own.ambient,
            Self::Bounding => own.bounding,
        }
    }
}
