//! `--watch`: looks again and again, redraws in place on a terminal, and marks what changed.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::look::Audit;
use super::names::Names;
use super::table::{self, Row};
use super::{Arguments, Files, Format, json, remarks};
use crate::output::print;
use crate::terminal::{self, Progress};

/// The texts of the rows at the last look.
type Before = HashMap<(i32, String), [String; 5]>;

/// Looks until it has looked often enough, until a process that was asked for cannot be read any more, or until the reader
/// of standard output has closed the pipe. Returns the worst conclusion of all looks.
pub(crate) fn run(
    arguments: &Arguments,
    files: &Files,
    interval: Duration,
    names: &mut Names,
) -> Result<bool> {
    let mut before: Option<Before> = None;
    let mut looks = 0;
    let mut worst = Ok(true);
    loop {
        let audit = match arguments.look(files, names, &mut Progress::silent()) {
            Ok(audit) => audit,
            Err(error) if matches!(worst, Ok(false)) => {
                crate::output::say(format_args!("{error:#}"));
                return worst;
            }
            Err(error) => return Err(error),
        };
        worst = worse(worst, audit.conclude());
        if let Some(path) = &arguments.save {
            super::write_file(path, &format!("{}\n", json::render(&audit, names)))?;
        }
        if let Some(path) = &arguments.html {
            super::write_file(path, &super::html::render(&audit, names)?)?;
        }
        let text = match arguments.format {
            Format::Json => format!("{}\n", json::render(&audit, names)),
            Format::Text => draw(arguments, &audit, names, &mut before),
            Format::Ecs | Format::Prometheus => arguments.render(&audit, names)?,
        };
        looks += 1;
        if !print(&text)? || arguments.times.is_some_and(|times| looks >= times.get()) {
            return worst;
        }
        thread::sleep(interval);
    }
}

/// Returns the worse conclusion: that a process is not consistent or not as expected, then that something is not known.
fn worse(one: Result<bool>, other: Result<bool>) -> Result<bool> {
    match (one, other) {
        (Ok(false), _) | (_, Ok(false)) => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(true), Ok(true)) => Ok(true),
    }
}

fn draw(
    arguments: &Arguments,
    audit: &Audit,
    names: &mut Names,
    before: &mut Option<Before>,
) -> String {
    let (look, shown) = (arguments.appearance(), arguments.shown(audit));
    let mut rows = table::rows(&shown, look, names);
    let gone = mark(&mut rows, before.as_ref());
    let mut text = table::table(&rows, look) + "\n" + &remarks::remarks(audit, &shown, look);
    text.extend(gone.iter().map(|pid| format!("* {pid}: gone since the last look\n")));
    *before = Some(rows.into_iter().map(|row| (row.key, row.texts)).collect());
    match terminal::size() {
        Some((_, height)) => in_place(&text, usize::from(height)),
        None => text + "\n",
    }
}

/// Marks the rows that are new or have changed. Returns the processes that have ended.
fn mark(rows: &mut [Row], before: Option<&Before>) -> Vec<i32> {
    let Some(before) = before else { return Vec::new() };
    for row in &mut *rows {
        row.changed = before.get(&row.key) != Some(&row.texts);
    }
    let mut gone: Vec<i32> = before.keys().map(|(pid, _)| *pid).collect();
    gone.retain(|pid| !rows.iter().any(|row| row.key.0 == *pid));
    gone.sort_unstable();
    gone.dedup();
    gone
}

/// Returns the text with escape sequences that move the cursor, so that each line overwrites the old line. Leaves out
/// the lines that do not fit, because they would scroll the other lines away.
fn in_place(text: &str, height: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let room = height.saturating_sub(1);
    let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
    let mut drawn = "\x1b[H".to_owned();
    for line in lines.iter().take(shown) {
        drawn += line;
        drawn += "\x1b[K\r\n";
    }
    match lines.len() - shown {
        0 => {}
        more => drawn += &format!("... and {more} more lines\x1b[K\r\n"),
    }
    drawn + "\x1b[J"
}
