//! The report for people: a table, and then in words what is remarkable.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

use super::Audit;
use super::names::{self, Names};
use super::process::{Process, Thread};
use super::state::{Field, State};
use crate::terminal::printable;

/// How many threads are named before it says how many more there are.
const NAMED: usize = 8;

/// How to show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) colored: bool,
    /// Of the terminal; None: as wide as it gets.
    pub(crate) width: Option<u16>,
    pub(crate) explain: bool,
}

/// One line of the table: a group of threads, or a worker of the kernel.
pub(crate) struct Row {
    /// The process and, as far as it lasts from one look to the next, what tells rows of it apart.
    pub(crate) key: (i32, String),
    pub(crate) texts: [String; 5],
    alarming: bool,
    pub(crate) changed: bool,
}

const HEADER: [&str; 5] = ["process", "threads", "user, group", "capabilities", "confinement"];

/// The rows of all processes.
pub(crate) fn rows(audit: &Audit, names: &mut Names) -> Vec<Row> {
    let mut rows = Vec::new();
    for process in &audit.processes {
        let first = process.groups.first().map(|group| &group.state);
        for (index, group) in process.groups.iter().enumerate() {
            let threads = match group.threads.as_slice() {
                [only] if process.threads() > 1 => format!("1: {}", called(only)),
                threads => threads.len().to_string(),
            };
            rows.push(Row {
                key: (process.pid, format!("group {index}")),
                texts: texts(process, threads, &group.state, first, names),
                alarming: !group.differs.is_empty(),
                changed: false,
            });
        }
        for worker in &process.workers {
            let threads = format!("{}\n{}", worker.kind.label(), called(&worker.thread));
            rows.push(Row {
                key: (process.pid, format!("worker {}", worker.thread.tid)),
                texts: texts(process, threads, &worker.state, first, names),
                alarming: !worker.keeps.is_empty(),
                changed: false,
            });
        }
        if process.threads() == 0 && process.workers.is_empty() {
            let texts = [
                title(process),
                "0 (zombie)".to_owned(),
                String::new(),
                String::new(),
                String::new(),
            ];
            let key = (process.pid, "zombie".to_owned());
            rows.push(Row { key, texts, alarming: false, changed: false });
        }
    }
    rows
}

fn texts(
    process: &Process,
    threads: String,
    state: &State,
    first: Option<&State>,
    names: &mut Names,
) -> [String; 5] {
    let own = &state.credentials;
    let identity = format!(
        "{}\n{}\ngroups {}",
        names.users(own.user),
        names.groups(own.group),
        names.supplementary(&own.groups),
    );
    let capabilities = format!(
        "{}\nambient {}\nbounding {}",
        own.sets,
        names::set(own.ambient),
        names::set(own.bounding),
    );
    let mut confinement = format!(
        "no_new_privs {}\nseccomp {}",
        names::yes_no(own.no_new_privs),
        names::seccomp(own),
    );
    // Writing to a String cannot fail.
    let _ = write!(confinement, "\nscheduling {}", names::scheduling(state.scheduling));
    if state.label.is_some() {
        let _ = write!(confinement, "\nlabel {}", names::label(state));
    }
    if first.is_some_and(|first| !state.other_namespaces(first).is_empty()) {
        let namespaces = first.map(|first| names::namespaces(state, first)).unwrap_or_default();
        let _ = write!(confinement, "\nnamespaces {namespaces}");
    }
    [title(process), threads, identity, capabilities, confinement]
}

fn title(process: &Process) -> String {
    let mut title = format!("{}\n{}", process.pid, printable(&process.name));
    if let [_, inner @ ..] = process.numbers.as_slice() {
        if !inner.is_empty() {
            let inner: Vec<_> = inner.iter().map(i32::to_string).collect();
            let _ = write!(title, "\npid inside: {}", inner.join(", "));
        }
    }
    title
}

/// The table of these rows.
pub(crate) fn table(rows: &[Row], look: Look) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    if look.colored {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if let Some(width) = look.width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(HEADER);
    let mut before = None;
    for row in rows {
        let again = before == Some(row.key.0);
        before = Some(row.key.0);
        let cells = row.texts.iter().enumerate().map(|(column, text)| {
            let text = if again && column == 0 { "" } else { text };
            let text =
                if row.changed && column == 1 { format!("* {text}") } else { text.to_owned() };
            let cell = Cell::new(text);
            match (row.alarming, row.changed) {
                (_, true) => cell.fg(Color::Yellow).add_attribute(Attribute::Bold),
                (true, false) => cell.fg(Color::Red),
                (false, false) => cell,
            }
        });
        table.add_row(cells);
    }
    table.to_string()
}

/// What there is to say of the processes, and of those that are not in the table.
pub(crate) fn remarks(audit: &Audit, look: Look) -> String {
    let mut text = String::new();
    for process in &audit.processes {
        of_process(&mut text, process);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", summary(audit));
    if look.explain {
        let flags: BTreeSet<_> = audit.processes.iter().flat_map(|one| one.flags.iter()).collect();
        for flag in flags {
            let _ = writeln!(text, "{flag}: {}", flag.explain());
        }
    }
    text
}

fn of_process(text: &mut String, process: &Process) {
    let who = called(&Thread { tid: process.pid, name: process.name.clone() });
    for failure in &process.failures {
        let found = &failure.found;
        let _ = write!(text, "{who}: expected {}: ", printable(failure.expected.as_bytes()));
        let _ = match &failure.thread {
            Some(thread) => write!(text, "thread {} has {found}", called(thread)),
            None => write!(text, "{found}"),
        };
        let others = failure.threads.saturating_sub(1);
        let _ = match others {
            0 => writeln!(text),
            1 => writeln!(text, ", and 1 other thread has not what is expected"),
            _ => writeln!(text, ", and {others} other threads have not what is expected"),
        };
    }
    let differs = process.differs();
    if !differs.is_empty() {
        let _ = writeln!(text, "{who}: its threads differ: {}", list(&differs));
    }
    let than = if process.leader_dead { "most" } else { "the leader" };
    for group in process.groups.iter().filter(|group| !group.differs.is_empty()) {
        let named: Vec<_> = group.threads.iter().take(NAMED).map(called).collect();
        let _ =
            write!(text, "    other than {than} in {}: {}", list(&group.differs), named.join(", "));
        let _ = match group.threads.len().saturating_sub(NAMED) {
            0 => writeln!(text),
            more => writeln!(text, " and {more} more"),
        };
    }
    for worker in process.workers.iter().filter(|worker| !worker.keeps.is_empty()) {
        let (kind, name) = (worker.kind.label(), called(&worker.thread));
        let _ = writeln!(
            text,
            "{who}: {kind} {name} keeps what no thread has: {}",
            list(&worker.keeps)
        );
    }
    let threads = process.threads();
    if threads == 0 {
        let _ = writeln!(text, "{who}: zombie, nothing of it runs");
    } else if process.leader_dead {
        let _ = writeln!(text, "{who}: the leader is a zombie and shows its old ids; not compared");
    }
}

/// What the last line says.
fn summary(audit: &Audit) -> String {
    let count =
        |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let processes = count(audit.processes.len(), "process", "processes");
    let threads = audit.processes.iter().map(Process::threads).sum();
    let mut text = format!("{processes}, {}: ", count(threads, "thread", "threads"));
    let divergent = audit.processes.iter().filter(|one| !one.consistent()).count();
    text += &match divergent {
        0 => "consistent".to_owned(),
        n => count(n, "diverges", "diverge"),
    };
    let failed = audit.processes.iter().filter(|one| !one.failures.is_empty()).count();
    if failed > 0 {
        text +=
            &count(failed, "is", "are").replacen(&failed.to_string(), &format!(", {failed}"), 1);
        text += " not as expected";
    }
    if audit.unreadable > 0 {
        text += &format!("; {} could not be read", audit.unreadable);
    }
    if audit.kernel > 0 {
        text += &format!("; {} left out", count(audit.kernel, "kernel thread", "kernel threads"));
    }
    text
}

fn called(thread: &Thread) -> String {
    format!("{} ({})", thread.tid, printable(&thread.name))
}

fn list(fields: &[Field]) -> String {
    fields.iter().map(Field::to_string).collect::<Vec<_>>().join(", ")
}
