//! The table for people: a row for each group of threads and each worker of the kernel.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

use super::look::Audited;
use super::names::{self, Names};
use super::process::{Process, Thread};
use super::state::{Field, State};
use crate::terminal::printable;
use crate::wrap;

/// The style of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) colored: bool,
    /// The width of the terminal. None if standard output is not a terminal.
    pub(crate) width: Option<u16>,
    pub(crate) explain: bool,
    /// Whether all threads of a group are named.
    pub(crate) threads: bool,
    /// Whether all fields are shown.
    pub(crate) long: bool,
}

impl Look {
    /// Returns the width of text that is broken into lines.
    pub(crate) fn columns(self) -> usize {
        self.width.map_or(wrap::PIPED, usize::from)
    }
}

/// One row: a group of threads, or a worker of the kernel.
pub(crate) struct Row {
    /// The process, and the identity of the row in it from one look to the next.
    pub(crate) key: (i32, String),
    pub(crate) texts: [String; 5],
    alarming: bool,
    pub(crate) changed: bool,
}

const HEADER: [&str; 5] = ["process", "threads", "user, group", "capabilities", "confinement"];

/// The width that the table adds to five columns: a space in each, one between them, and one at each end.
const MARGINS: usize = 5 + 4 + 2;

/// Returns the rows of all processes.
pub(crate) fn rows(shown: &[&Audited], look: Look, names: &mut Names) -> Vec<Row> {
    shown.iter().flat_map(|audited| of_process(audited, look, names)).collect()
}

fn of_process(audited: &Audited, look: Look, names: &mut Names) -> Vec<Row> {
    let process = &audited.process;
    let first = process.groups.first().map(|group| &group.first.state);
    let mut rows = Vec::new();
    let mut add =
        |key: String, threads: String, state: &State, varies: &[Field], alarming: bool| {
            let texts = [
                title(audited),
                threads,
                identity(state, varies, names),
                capabilities(state, varies),
                confinement(state, first, varies, look).join("\n"),
            ];
            rows.push(Row { key: (process.pid, key), texts, alarming, changed: false });
        };
    for (index, group) in process.groups.iter().enumerate() {
        let threads = match group.threads().as_slice() {
            [only] if process.threads() > 1 => format!("1: {}", called(only)),
            threads => threads.len().to_string(),
        };
        let differs = !group.differs.is_empty();
        add(format!("group {index}"), threads, &group.first.state, &group.varies, differs);
    }
    for worker in &process.workers {
        let threads = format!("{}\n{}", worker.kind.label(), called(&worker.thread));
        let key = format!("worker {}", worker.thread.tid);
        add(key, threads, &worker.state, &[], !worker.keeps.is_empty());
    }
    if rows.is_empty() {
        let mut texts: [String; 5] = std::array::from_fn(|_| String::new());
        let [first, second, ..] = &mut texts;
        (*first, *second) = (title(audited), "0 (zombie)".to_owned());
        let key = (process.pid, "zombie".to_owned());
        rows.push(Row { key, texts, alarming: false, changed: false });
    }
    rows
}

/// Returns what follows the value of a field that other threads of the row do not share.
fn more(varies: &[Field], field: Field) -> &'static str {
    if varies.contains(&field) { " and others" } else { "" }
}

pub(crate) fn identity(state: &State, varies: &[Field], names: &mut Names) -> String {
    let own = &state.credentials;
    let groups = names.supplementary(&own.groups);
    let more = |field| more(varies, field);
    format!(
        "{}{}\n{}{}\ngroups {groups}{}",
        names.users(own.user),
        more(Field::Uid),
        names.groups(own.group),
        more(Field::Gid),
        more(Field::Groups)
    )
}

pub(crate) fn capabilities(state: &State, varies: &[Field]) -> String {
    let own = &state.credentials;
    let (ambient, bounding) = (names::set(own.ambient), names::set(own.bounding));
    let more = |field| more(varies, field);
    format!(
        "{}{}\nambient {ambient}{}\nbounding {bounding}{}",
        own.sets,
        more(Field::Caps),
        more(Field::Ambient),
        more(Field::Bounding)
    )
}

/// Returns the other fields. A field that has its usual value is shown only if all fields are asked for, or if it
/// differs from that of the first group.
pub(crate) fn confinement(
    state: &State,
    first: Option<&State>,
    varies: &[Field],
    look: Look,
) -> Vec<String> {
    let own = &state.credentials;
    let differs = first.map(|first| state.differs(first)).unwrap_or_default();
    let shown = |field: Field| look.long || differs.contains(&field) || varies.contains(&field);
    let more = |field| more(varies, field);
    let mut lines = vec![
        format!("no_new_privs {}{}", names::yes_no(own.no_new_privs), more(Field::Nnp)),
        format!("seccomp {}{}", names::seccomp(own), more(Field::Seccomp)),
        format!("scheduling {}{}", names::scheduling(state.scheduling), more(Field::Sched)),
    ];
    if state.label.is_some() || varies.contains(&Field::Label) {
        lines.push(format!("label {}{}", names::label(state), more(Field::Label)));
    }
    if let Some(first) = first.filter(|first| !state.other_namespaces(first).is_empty()) {
        let shown = names::namespaces(state, first);
        lines.push(format!("namespaces {shown}{}", more(Field::Namespaces)));
    } else if varies.contains(&Field::Namespaces) {
        lines.push("namespaces the leader's and others".to_owned());
    }
    if let Some(both) = &state.directories {
        if shown(Field::Root) || both.root != b"/" {
            lines.push(format!("root {}{}", printable(&both.root), more(Field::Root)));
        }
        if shown(Field::Cwd) {
            lines.push(format!("cwd {}{}", printable(&both.cwd), more(Field::Cwd)));
        }
    }
    let mut add = |field: Field, usual: bool, text: Option<String>| {
        if let Some(text) = text.filter(|_| !usual || shown(field)) {
            lines.push(format!("{field} {text}{}", more(field)));
        }
    };
    let octal = |umask: u32| format!("{umask:04o}");
    add(Field::Umask, true, state.umask.map(octal));
    let personality = state.personality;
    add(Field::Personality, personality == Some(0), personality.map(|value| format!("{value:#x}")));
    add(Field::Speculation, true, names::speculation(&state.speculation));
    add(Field::Affinity, true, Some(printable(&state.affinity)));
    add(Field::Mems, true, Some(printable(&state.mems)));
    add(Field::Nice, state.nice == 0, Some(state.nice.to_string()));
    add(Field::Ioprio, true, state.io_priority.map(names::io_priority));
    add(Field::TimerSlack, true, state.timer_slack.map(|slack| format!("{slack} ns")));
    lines
}

fn title(audited: &Audited) -> String {
    let process = &audited.process;
    let mut title = format!("{}\n{}", process.pid, printable(&process.name));
    if let [_, inner @ ..] = process.numbers.as_slice() {
        if !inner.is_empty() {
            let inner: Vec<_> = inner.iter().map(i32::to_string).collect();
            let _ = write!(title, "\npid inside: {}", inner.join(", "));
        }
    }
    if let Some(verdict) = audited.verdict() {
        let _ = write!(title, "\n{}", verdict.name());
    }
    if let Some(place) = place(process) {
        let _ = write!(title, "\n{place}");
    }
    title
}

/// Returns the container or the unit of a process.
pub(crate) fn place(process: &Process) -> Option<String> {
    let identity = &process.identity;
    let unit = || identity.unit.as_ref().map(|unit| printable(unit.as_bytes()));
    let container = identity.container.as_ref().map(|container| {
        let short: String = container.id.chars().take(12).collect();
        format!("{}:{}", container.engine.unwrap_or("container"), printable(short.as_bytes()))
    });
    container.or_else(unit)
}

/// Draws the table of these rows.
pub(crate) fn table(rows: &[Row], look: Look) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    if look.colored {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    // The cells are broken into lines here, between words. The table would break lines inside words.
    table.set_content_arrangement(ContentArrangement::Disabled);
    let mut texts = vec![HEADER.map(str::to_owned).to_vec()];
    texts.extend(rows.iter().map(|row| row.texts.to_vec()));
    let widths = wrap::columns(&texts, look.columns().saturating_sub(MARGINS));
    let broken = |column: usize, text: &str| {
        let width = widths.get(column).copied().unwrap_or(usize::MAX);
        wrap::wrap(text, width).join("\n")
    };
    table.set_header(HEADER.iter().enumerate().map(|(column, text)| broken(column, text)));
    let mut before = None;
    for row in rows {
        let again = before == Some(row.key.0);
        before = Some(row.key.0);
        let cells = row.texts.iter().enumerate().map(|(column, text)| {
            let text = if again && column == 0 { "" } else { text };
            let text =
                if row.changed && column == 1 { format!("* {text}") } else { text.to_owned() };
            let cell = Cell::new(broken(column, &text));
            match (row.alarming, row.changed) {
                (_, true) => cell.fg(Color::Yellow).add_attribute(Attribute::Bold),
                (true, false) => cell.fg(Color::Red),
                (false, false) => cell,
            }
        });
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    // Comfy-table fills the last column with spaces.
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Returns `TID (NAME)`.
pub(crate) fn called(thread: &Thread) -> String {
    format!("{} ({})", thread.tid, printable(&thread.name))
}
