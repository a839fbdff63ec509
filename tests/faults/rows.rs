//! The runs: what is refused in each of them, and the table of how they ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Told;
use super::errnos;
use super::program::Kind;
use super::sandbox::{Action, On, Sandbox};
use super::tracer::{Fault, Phase, Role, When};

/// What is refused in a run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// Nothing is refused.
    Control {
        traced: bool,
    },
    Fault(Fault),
    Sandbox(Sandbox),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) cause: Cause,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Outcome {
    Done,
    Error,
    /// A transaction said that only its first call was performed, and that was true in all threads.
    Partial,
    Killed,
    NotReached,
    /// See [`ENOUGH`].
    LeftOut,
    Forbidden,
}

impl Outcome {
    pub(super) const ALL: [(Self, &'static str); 7] = [
        (Self::Done, "done"),
        (Self::Error, "error"),
        (Self::Partial, "partial"),
        (Self::Killed, "killed"),
        (Self::NotReached, "not-reached"),
        (Self::LeftOut, "left-out"),
        (Self::Forbidden, "FORBIDDEN"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(outcome, _)| *outcome == self).map_or("?", |(_, name)| name)
    }

    pub(super) fn of(name: &str) -> Self {
        let named = Self::ALL.iter().find(|(_, known)| *known == name);
        named.map_or(Self::Forbidden, |&(outcome, _)| outcome)
    }
}

impl Row {
    pub(super) fn made_by(&self) -> &'static str {
        match self.cause {
            Cause::Control { .. } => "-",
            Cause::Fault(fault) => fault.role.name(),
            Cause::Sandbox(sandbox) => match sandbox.on {
                On::All => "all threads",
                On::Caller => "caller",
                On::OneHeld => "one thread",
            },
        }
    }

    pub(super) fn call(&self) -> &'static str {
        match self.cause {
            Cause::Control { .. } => "(nothing)",
            Cause::Fault(fault) => fault.call,
            Cause::Sandbox(sandbox) => sandbox.call,
        }
    }

    /// Returns the error, or what the filter does instead.
    pub(super) fn answer(&self) -> String {
        match self.cause {
            Cause::Control { .. } => "-".to_owned(),
            Cause::Fault(fault) => errnos::name(fault.errno),
            Cause::Sandbox(sandbox) => match sandbox.action {
                Action::Errno(errno) => errnos::name(errno),
                Action::Trap => "trap".to_owned(),
                Action::KillThread => "kill thread".to_owned(),
                Action::KillProcess => "kill process".to_owned(),
            },
        }
    }

    pub(super) fn when(&self) -> String {
        match self.cause {
            Cause::Control { traced: true } => "traced".to_owned(),
            Cause::Control { traced: false } => "untraced".to_owned(),
            Cause::Fault(fault) => {
                let phase = fault.phase.map_or(String::new(), |phase| format!("{} ", phase.name()));
                match fault.when {
                    When::Nth(number) => format!("{phase}{number}"),
                    When::From(number) => format!("{phase}from {number} on"),
                    When::OneThread => format!("{phase}always in one"),
                    When::Always => format!("{phase}always"),
                }
            }
            Cause::Sandbox(_) => "filter".to_owned(),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, role, call) = (self.kind.name(), self.made_by(), self.call());
        write!(f, "{kind}\t{role}\t{call}\t{}\t{}", self.answer(), self.when())
    }
}

/// Returns the rows for the calls that libpsx made when nothing was refused.
pub(super) fn rows_for(
    made: &BTreeMap<Kind, BTreeSet<(Role, Phase, String)>>,
    full: bool,
) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut refuse = |kind, role, call, phase, errno, when| {
        let fault = Fault { role, call, phase, errno, when };
        rows.push(Row { kind, cause: Cause::Fault(fault) });
    };
    for (&kind, calls) in made {
        let usual = matches!(kind, Kind::Threads | Kind::ZombieLeader | Kind::OneThread);
        let mut always = BTreeSet::new();
        for (role, phase, call) in calls {
            // Without rt_sigreturn no handler of any program returns. Until it is killed, a program whose threads
            // differ behaves like any other.
            let same = kind == Kind::Divergence && *phase != Phase::Kill;
            if call == "rt_sigreturn" || same {
                continue;
            }
            let call: &'static str = Box::leak(call.clone().into_boxed_str());
            let of_page = errnos::of(call);
            let errnos: BTreeSet<i32> = match (full, usual) {
                (true, _) => [of_page, errnos::FILTERS, errnos::MOMENTARY].concat(),
                (false, true) => [&of_page[..of_page.len().min(1)], &errnos::FILTERS[..1]].concat(),
                (false, false) => vec![libc::EPERM],
            }
            .into_iter()
            .collect();
            let occurrences: &[When] = match (full, role) {
                (true, Role::Caller) => &[When::Nth(1), When::Nth(2), When::Nth(3), When::Always],
                (true, Role::Held) => &[When::Nth(1), When::Nth(9), When::OneThread, When::Always],
                (false, Role::Caller) => &[When::Nth(1), When::Always],
                (false, Role::Held) => &[When::OneThread, When::Always],
            };
            for errno in errnos {
                for &when in occurrences {
                    refuse(kind, *role, call, Some(*phase), errno, when);
                }
                if full && kind != Kind::Divergence && always.insert((*role, call, errno)) {
                    refuse(kind, *role, call, None, errno, When::Always);
                }
            }
        }
        // A resource is used up from a point on: at every point of the three steps.
        if kind != Kind::Divergence && kind != Kind::OneThread {
            for (calls, errno, points) in EXHAUSTED {
                // Without room in the signal queue, each call takes the whole deadline.
                let each = full || kind == Kind::Threads && errno != libc::EAGAIN;
                let (points, step) =
                    (if full { 4 * points } else { points }, if each { 1 } else { 3 });
                for number in (1..=points).step_by(step) {
                    refuse(kind, Role::Caller, calls, None, errno, When::From(number));
                }
            }
        }
        if kind == Kind::Threads {
            // Another call of the group can replace a refused one.
            for (role, calls) in
                [(Role::Caller, COUNTS), (Role::Caller, "futex"), (Role::Held, "futex")]
            {
                refuse(kind, role, calls, None, libc::EPERM, When::Always);
            }
        }
        if kind == Kind::Divergence {
            // libpsx has several ways to kill the process. It uses the later ones if the first ones fail.
            let timer = "timer_create+timer_settime";
            for call in
                [timer, LINE, "tgkill+kill", "getpid+gettid", "rt_sigaction+rt_sigprocmask", ENDS]
            {
                refuse(kind, Role::Caller, call, Some(Phase::Kill), libc::EPERM, When::Always);
            }
        }
    }
    // These filters check the number of the call, not its operation.
    let calls: BTreeSet<&str> = made.values().flatten().map(|(.., call)| call.as_str()).collect();
    let calls = calls.into_iter().filter_map(|call| call.split(' ').next());
    let calls: BTreeSet<String> = calls.map(str::to_owned).collect();
    for call in calls {
        let call: &'static str = Box::leak(call.into_boxed_str());
        let kill = |on| [(on, Action::KillThread), (on, Action::KillProcess)];
        let mut filters = Vec::from(kill(On::OneHeld));
        filters.push((On::Caller, Action::KillThread));
        if call != "rt_sigreturn" {
            for on in [On::All, On::Caller, On::OneHeld] {
                filters.push((on, Action::Trap));
                filters.push((on, Action::Errno(libc::EPERM)));
                if full {
                    filters.push((on, Action::Errno(libc::ENOSYS)));
                }
            }
        }
        let kinds: &[Kind] = match full {
            true => &[Kind::Threads, Kind::ZombieLeader, Kind::WithoutProc],
            false => &[Kind::Threads],
        };
        for &kind in kinds {
            for &(on, action) in &filters {
                rows.push(Row { kind, cause: Cause::Sandbox(Sandbox { on, action, call }) });
            }
        }
    }
    rows
}

/// Every call that needs a descriptor, memory, or a place in the signal queue: the error if there is none, and at how many
/// points.
const EXHAUSTED: [(&str, i32, u32); 3] = [
    ("openat+fcntl+fsopen+fsmount", libc::EMFILE, 8),
    ("mmap+mremap+madvise+mprotect", libc::ENOMEM, 6),
    ("rt_tgsigqueueinfo", libc::EAGAIN, 12),
];

/// Every call that creates a task, for which there may be no room (RLIMIT_NPROC, a pids cgroup). libpsx makes none of them.
pub(crate) const CREATES: [&str; 4] = ["clone", "clone3", "fork", "vfork"];

/// Every call that the line on standard error may need.
pub(super) const LINE: &str = "pwritev2+fstat+fstatfs+ioctl+ppoll+write";
/// Every call that can tell the number of threads.
pub(super) const COUNTS: &str = "newfstatat+statx+fstat";
/// Every call that ends a process.
pub(super) const ENDS: &str = "tgkill+kill+exit_group";

/// Returns the table: for each call and answer, how often each outcome occurred.
pub(super) fn table(rows: &[Row], told: &[Told]) -> String {
    let mut counts: BTreeMap<(&str, &str, String), BTreeMap<Outcome, usize>> = BTreeMap::new();
    for (row, told) in rows.iter().zip(told) {
        let key = (row.call(), row.made_by(), row.answer());
        *counts.entry(key).or_default().entry(told.outcome).or_default() += 1;
    }
    let mut text = format!("{:24} {:12} {:13}", "call", "made by", "answer");
    Outcome::ALL.iter().for_each(|(_, name)| text += &format!(" {name:>11}"));
    for ((call, role, answer), counts) in counts {
        text += &format!("\n{call:24} {role:12} {answer:13}");
        for (outcome, _) in Outcome::ALL {
            let count = counts.get(&outcome).map_or("-".to_owned(), usize::to_string);
            text += &format!(" {count:>11}");
        }
    }
    text
}
