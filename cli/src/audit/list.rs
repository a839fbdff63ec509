//! The list for people: one line for each process, flat or as a tree.

use std::collections::{HashMap, HashSet};

use clap::ValueEnum;

use super::look::{Audit, Audited};
use super::names::Names;
use super::table::{Look, place};
use super::verdict::Verdict;
use crate::terminal::printable;
use crate::wrap::{cut, length};

/// The order of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// By process ID
    Pid,
    /// By name
    Name,
    /// By the name of the user
    User,
    /// The processes with most threads first
    Threads,
    /// The most privileged processes first
    Verdict,
    /// By unit or container
    Unit,
    /// The most recently started processes first
    Start,
}

/// Sorts the processes.
pub(crate) fn sort(audit: &mut Audit, order: Order, names: &mut Names) {
    let pid = |one: &Audited| one.process.pid;
    match order {
        Order::Pid => audit.processes.sort_by_key(pid),
        Order::Name => {
            audit
                .processes
                .sort_by(|a, b| a.process.name.cmp(&b.process.name).then(pid(a).cmp(&pid(b))));
        }
        Order::User => audit.processes.sort_by_cached_key(|one| (user(one, names), pid(one))),
        Order::Threads => {
            audit.processes.sort_by_key(|one| (usize::MAX - one.process.threads(), pid(one)));
        }
        Order::Verdict => {
            audit.processes.sort_by_key(|one| (std::cmp::Reverse(one.verdict()), pid(one)));
        }
        Order::Unit => audit.processes.sort_by_cached_key(|one| (place(&one.process), pid(one))),
        Order::Start => {
            let start = |one: &Audited| std::cmp::Reverse(one.process.identity.start);
            audit.processes.sort_by_key(|one| (start(one), pid(one)));
        }
    }
}

const HEADER: [&str; 7] = ["PID", "VERDICT", "STATE", "USER", "THREADS", "UNIT", "COMMAND"];

/// The maximum width of each column except the last.
const WIDEST: [usize; 6] = [10, 12, 9, 12, 7, 22];

/// Draws the list.
pub(crate) fn list(shown: &[&Audited], tree: bool, look: Look, names: &mut Names) -> String {
    let order = if tree { descending(shown) } else { flat(shown) };
    let mut rows = vec![HEADER.map(str::to_owned)];
    for (audited, depth) in &order {
        rows.push(row(audited, *depth, names));
    }
    let units = order.iter().any(|(audited, _)| place(&audited.process).is_some());
    let mut widths = [0; 6];
    for row in &rows {
        for ((width, text), widest) in widths.iter_mut().zip(row).zip(WIDEST) {
            *width = (*width).max(length(text)).min(widest);
        }
    }
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column == 5 && !units {
                continue;
            }
            match widths.get(column) {
                Some(&width) if matches!(column, 0 | 4) => line += &format!("{cell:>width$} "),
                Some(&width) => line += &format!("{:<width$} ", cut(cell, width)),
                None => line += cell,
            }
        }
        let line = cut(&line, look.columns());
        let line = line.trim_end();
        let audited = index.checked_sub(1).and_then(|index| order.get(index));
        text += &match audited.filter(|_| look.colored).and_then(|(one, _)| color(one)) {
            Some(code) => format!("\x1b[{code}m{line}\x1b[0m\n"),
            None => format!("{line}\n"),
        };
    }
    text
}

/// Returns the colour of a process. Red: threads differ, or an expectation does not hold. Yellow: privileged.
fn color(audited: &Audited) -> Option<&'static str> {
    if !audited.process.consistent() || !audited.as_expected() {
        return Some("31");
    }
    (audited.verdict() == Some(Verdict::Privileged)).then_some("33")
}

fn row(audited: &Audited, depth: usize, names: &mut Names) -> [String; 7] {
    let process = &audited.process;
    let verdict = audited.verdict().map_or("-", Verdict::name);
    let command = process.identity.command.join(&b' ');
    let command = if command.is_empty() {
        format!("[{}]", printable(&process.name))
    } else {
        printable(&command)
    };
    [
        process.pid.to_string(),
        verdict.to_owned(),
        state(audited).to_owned(),
        user(audited, names),
        process.threads().to_string(),
        place(process).unwrap_or_else(|| "-".to_owned()),
        "  ".repeat(depth) + &command,
    ]
}

/// Returns one word for the defect of a process.
pub(crate) fn state(audited: &Audited) -> &'static str {
    let process = &audited.process;
    if audited.violates() {
        "violation"
    } else if process.diverges() {
        "divergent"
    } else if !process.complete {
        "unread"
    } else if !audited.as_expected() {
        "unchecked"
    } else if process.zombie() {
        "zombie"
    } else {
        "ok"
    }
}

/// Returns the name of the effective user, with a plus sign if threads have others.
pub(crate) fn user(audited: &Audited, names: &mut Names) -> String {
    let effective = |state: &super::state::State| state.credentials.user.effective;
    let mut ids: Vec<_> = audited.process.states().map(|alike| effective(&alike.state)).collect();
    let Some(&first) = ids.first() else { return "-".to_owned() };
    ids.retain(|&id| id != first);
    let name = names.user(first).map_or_else(|| first.to_string(), str::to_owned);
    if ids.is_empty() { name } else { name + "+" }
}

fn flat<'a>(shown: &[&'a Audited]) -> Vec<(&'a Audited, usize)> {
    shown.iter().map(|&audited| (audited, 0)).collect()
}

/// Returns the processes with their depth, children after their parents. A process whose parent is not shown is a
/// root of the tree.
fn descending<'a>(shown: &[&'a Audited]) -> Vec<(&'a Audited, usize)> {
    let known: HashSet<i32> = shown.iter().map(|one| one.process.pid).collect();
    let mut children: HashMap<i32, Vec<&Audited>> = HashMap::new();
    let mut pending = Vec::new();
    for &audited in shown {
        let (pid, parent) = (audited.process.pid, audited.process.identity.parent);
        if known.contains(&parent) && parent != pid {
            children.entry(parent).or_default().push(audited);
        } else {
            pending.push((audited, 0));
        }
    }
    pending.reverse();
    let mut order = Vec::new();
    // A process is put into `pending` once, because it has one parent: this ends.
    while let Some((audited, depth)) = pending.pop() {
        order.push((audited, depth));
        let below = children.remove(&audited.process.pid).unwrap_or_default();
        pending.extend(below.into_iter().rev().map(|child| (child, depth + 1)));
    }
    // Parents that were read at different times can form a circle. These processes are listed too.
    let left = children.into_values().flatten().map(|audited| (audited, 0));
    order.extend(left);
    order
}
