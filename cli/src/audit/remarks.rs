//! The remarks about processes that follow the table or the list.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::expect::Failure;
use super::look::{self, Audit, Audited, counted};
use super::process::{Group, Thread};
use super::state::Field;
use super::table::{Look, called};
use super::verdict::Verdict;
use crate::terminal::printable;
use crate::wrap::paragraph;

/// How many threads are named unless all are asked for.
const NAMED: usize = 8;

/// The state of another process that the kernel shows to no user.
const HIDDEN: &str = "The kernel does not show these of another process: securebits, keyrings, the Landlock domain, \
                      the memory policy, the parent-death signal.";

/// Returns the remarks. `shown` are the processes in the table or list.
pub(crate) fn remarks(audit: &Audit, shown: &[&Audited], look: Look) -> String {
    let mut text = String::new();
    for audited in shown {
        of_process(&mut text, audited, look);
    }
    for line in notes(audit, shown) {
        say(&mut text, look, "", &line);
    }
    let hidden = audit.processes.len().saturating_sub(shown.len());
    let mut line = summary(audit);
    if hidden > 0 {
        line += &format!("; {} not shown", counted(hidden, "process", "processes"));
    }
    say(&mut text, look, "", &line);
    if look.explain {
        let flags: BTreeSet<_> = shown.iter().flat_map(|one| one.flags.iter()).collect();
        for flag in flags {
            text += &paragraph(&format!("{flag}: {}", flag.explain()), look.columns(), "    ");
        }
        text += &paragraph(HIDDEN, look.columns(), "");
    }
    text
}

/// Returns the remarks about the processes that are not consistent or not as expected.
pub(crate) fn findings(audit: &Audit, look: Look) -> String {
    let mut text = String::new();
    let bad = |one: &&Audited| !one.process.consistent() || !one.failures.is_empty();
    let bad: Vec<_> = audit.processes.iter().filter(bad).collect();
    for audited in &bad {
        of_process(&mut text, audited, look);
    }
    for line in notes(audit, &bad) {
        say(&mut text, look, "", &line);
    }
    text
}

/// Returns the remarks that are not about one process.
pub(crate) fn notes(audit: &Audit, shown: &[&Audited]) -> Vec<String> {
    let missing = audit.missing.iter().map(|rule| printable(rule.as_bytes()));
    let missing =
        missing.map(|rule| format!("{rule}: no process matches, and the rule requires one"));
    missing.chain(unseen(shown)).collect()
}

/// Adds a line. On a terminal it is broken between words; a program that reads a pipe gets it whole.
fn say(text: &mut String, look: Look, indent: &str, line: &str) {
    match look.width {
        Some(width) => {
            let inner = format!("{indent}    ");
            *text += indent;
            *text += &paragraph(line, usize::from(width), &inner);
        }
        // Writing to a String cannot fail.
        None => {
            let _ = writeln!(text, "{indent}{line}");
        }
    }
}

fn of_process(text: &mut String, audited: &Audited, look: Look) {
    let process = &audited.process;
    let subject = called(&Thread { tid: process.pid, name: process.name.clone() });
    for failure in &audited.failures {
        say(text, look, "", &format!("{subject}: {}", failed(failure)));
    }
    let differs = process.differs();
    if !differs.is_empty() {
        say(text, look, "", &format!("{subject}: its threads differ: {}", list(&differs)));
    }
    if !process.complete {
        let line = "its threads come and go faster than they can be read: a thread that was not read may differ";
        say(text, look, "", &format!("{subject}: {line}"));
    }
    let than = if process.leader_dead { "most" } else { "the leader" };
    for group in process.groups.iter().filter(|group| !group.differs.is_empty()) {
        let line = format!("other than {than} in {}: {}", list(&group.differs), named(group, look));
        say(text, look, "    ", &line);
    }
    if look.threads {
        for group in process.groups.iter().filter(|group| group.differs.is_empty()) {
            say(text, look, "    ", &format!("threads of {subject}: {}", named(group, look)));
        }
    }
    if !audited.varies.is_empty() && look.explain {
        let line = format!(
            "{subject}: its threads also differ in {}: this is not compared unless --compare says so",
            list(&audited.varies)
        );
        say(text, look, "", &line);
    }
    for worker in process.workers.iter().filter(|worker| !worker.keeps.is_empty()) {
        let (kind, name) = (worker.kind.label(), called(&worker.thread));
        let keeps = list(&worker.keeps);
        say(text, look, "", &format!("{subject}: {kind} {name} keeps what no thread has: {keeps}"));
    }
    if process.zombie() {
        say(text, look, "", &format!("{subject}: zombie, no thread of it runs"));
    } else if process.leader_dead {
        let line = "the leader is a zombie and shows its old IDs; it is not compared";
        say(text, look, "", &format!("{subject}: {line}"));
    }
    if let Some(judgement) = audited.judgement.as_ref().filter(|_| look.explain) {
        let (verdict, reasons) = (judgement.verdict.name(), judgement.reasons.join("; "));
        say(text, look, "", &format!("{subject}: {verdict}: {reasons}"));
    }
}

/// Describes an expectation that does not hold.
pub(crate) fn failed(failure: &Failure) -> String {
    let mut line = String::new();
    if let Some(rule) = &failure.rule {
        let rule = printable(rule.as_bytes());
        let _ = write!(line, "{}: {rule}: ", failure.level.name());
    }
    let _ = write!(line, "expected {}: ", printable(failure.expected.as_bytes()));
    if !failure.seen {
        let _ = write!(line, "not checked: ");
    }
    let found = &failure.found;
    let _ = match &failure.thread {
        Some(thread) => {
            let what = if failure.worker { "kernel worker" } else { "thread" };
            write!(line, "{what} {} has {found}", called(thread))
        }
        None => write!(line, "{found}"),
    };
    if failure.thread.is_some() {
        match failure.threads.saturating_sub(1) {
            0 => {}
            1 => line += ", and 1 other thread does not have what is expected",
            others => {
                let _ = write!(line, ", and {others} other threads do not have what is expected");
            }
        }
    }
    line
}

fn named(group: &Group, look: Look) -> String {
    let most = if look.threads { usize::MAX } else { NAMED };
    let named: Vec<_> = group.threads().into_iter().take(most).map(called).collect();
    let mut text = named.join(", ");
    if let more @ 1.. = group.count().saturating_sub(most) {
        let _ = write!(text, " and {more} more");
    }
    text
}

/// Returns the fields that this user cannot see, of how many processes, and why.
fn unseen(shown: &[&Audited]) -> Vec<String> {
    const IDS: [Field; 3] = [Field::Uid, Field::Gid, Field::Groups];
    let line = |ids: bool| {
        let of = |one: &&Audited| -> Vec<Field> {
            let unseen = one.process.unseen().into_iter();
            unseen.filter(|field| IDS.contains(field) == ids).collect()
        };
        let processes = shown.iter().filter(|one| !of(one).is_empty()).count();
        let fields: BTreeSet<_> = shown.iter().flat_map(of).collect();
        let why = if ids {
            "they have IDs that are not mapped into the user namespace of psx"
        } else if nix::unistd::geteuid().is_root() {
            "psx lacks a capability that they have"
        } else {
            "run psx as root to see them"
        };
        let fields = list(&fields.into_iter().collect::<Vec<_>>());
        let of = counted(processes, "process", "processes");
        (processes > 0).then(|| format!("not seen: {fields} of {of}: {why}"))
    };
    [true, false].into_iter().filter_map(line).collect()
}

/// Returns the last line.
pub(crate) fn summary(audit: &Audit) -> String {
    let processes = counted(audit.processes.len(), "process", "processes");
    let threads = audit.processes.iter().map(|one| one.process.threads()).sum();
    let mut text = format!("{processes}, {}: ", counted(threads, "thread", "threads"));
    let divergent = audit.processes.iter().filter(|one| one.process.diverges()).count();
    let incomplete = audit.processes.iter().filter(|one| !one.process.complete).count();
    let uncertain = |one: &Audited| !one.process.uncertain.is_empty();
    let incomplete = counted(incomplete, "was not read completely", "were not read completely");
    text += &match (divergent, audit.processes.iter().all(|one| one.process.complete)) {
        (0, true) if audit.processes.iter().any(uncertain) => {
            "consistent in what could be seen".to_owned()
        }
        (0, true) => "consistent".to_owned(),
        (0, false) => incomplete,
        (n, true) => counted(n, "diverges", "diverge"),
        (n, false) => format!("{}, {incomplete}", counted(n, "diverges", "diverge")),
    };
    let verdicts =
        [Verdict::Privileged, Verdict::Reduced, Verdict::Unprivileged, Verdict::Sandboxed];
    let verdicts = verdicts.map(|verdict| {
        let n = audit.processes.iter().filter(|one| one.verdict() == Some(verdict)).count();
        (n > 0).then(|| format!("{n} {}", verdict.name()))
    });
    let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
    if !verdicts.is_empty() {
        let _ = write!(text, "; {}", verdicts.join(", "));
    }
    let failed = audit.processes.iter().filter(|one| one.violates()).count();
    if failed > 0 {
        let _ = write!(text, "; {}", counted(failed, "is not as expected", "are not as expected"));
    }
    let unchecked = audit.processes.iter().filter(|one| one.undecided() > 0).count();
    if unchecked > 0 {
        let _ = write!(text, "; {unchecked} could not be checked");
    }
    if audit.unreadable > 0 {
        let _ = write!(text, "; {} could not be read", audit.unreadable);
    }
    if audit.hidden {
        let _ = write!(text, "; {}", look::HIDDEN);
    }
    if audit.kernel > 0 {
        let kernel = counted(audit.kernel, "kernel thread", "kernel threads");
        let _ = write!(text, "; {kernel} left out");
    }
    text
}

fn list(fields: &[Field]) -> String {
    fields.iter().map(Field::to_string).collect::<Vec<_>>().join(", ")
}
