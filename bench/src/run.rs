//! Runs the rows: one engine after the other, round by round.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::engines::{BESIDE_RECENT, Built, Ended, watch};
use crate::plan::{Column, Plan, Row};
use crate::results::{Cell, Results, Run};

pub(crate) fn all(plan: &Plan, built: &Built, raw: &Path) -> Result<Results> {
    let mut raw = File::create(raw).with_context(|| format!("{}", raw.display()))?;
    let mut results = Results::default();
    for rows in plan.rows.chunk_by(|one, next| one.scenario == next.scenario) {
        let mut cells: Vec<Vec<Cell>> = rows
            .iter()
            .map(|row| row.columns.iter().map(|&column| Cell::new(row, column)).collect())
            .collect();
        let repeats = rows.first().map_or(1, |row| row.repeats);
        for repeat in 0..repeats {
            for (row, cells) in rows.iter().zip(&mut cells) {
                eprintln!("{}, {} threads ...", row.scenario, row.threads);
                rounds(row, cells, repeat, built, &mut raw)?;
            }
        }
        results.cells.extend(cells.into_iter().flatten());
    }
    Ok(results)
}

/// Runs every engine in turn, once per round. The order is reversed in every second round, so that no engine always
/// runs
/// after the same other engine.
fn rounds(
    row: &Row,
    cells: &mut [Cell],
    repeat: usize,
    built: &Built,
    raw: &mut File,
) -> Result<()> {
    for round in 0..row.rounds {
        for cell in cells.iter_mut().filter(|cell| cell.without.is_none()) {
            once(row, cell, (repeat, round), built, raw)?;
        }
        cells.reverse();
    }
    if row.rounds % 2 == 1 {
        cells.reverse();
    }
    Ok(())
}

fn command(row: &Row, column: Column) -> Command {
    let path = format!("target/bench/engines/{}", column.program);
    let mut command = if column.beside_recent {
        let mut beside = Command::new(BESIDE_RECENT);
        beside.arg(path);
        beside
    } else {
        Command::new(path)
    };
    command.args([if column.measure { "asleep" } else { row.scenario }, column.call]);
    command.args([row.threads.to_string(), row.budget.as_millis().to_string()]);
    command.arg(row.calls.to_string());
    command
}

/// Runs one process and adds its values to the cell, or the reason why there are none.
fn once(
    row: &Row,
    cell: &mut Cell,
    (repeat, round): (usize, usize),
    built: &Built,
    raw: &mut File,
) -> Result<()> {
    let column = cell.column;
    if let Some(Err(why)) = built.get(column.program) {
        cell.without = Some(format!("SKIPPED: {why}"));
        return Ok(());
    }
    let mut command = command(row, column);
    let ended = watch(&mut command, row.limit)?;
    writeln!(
        raw,
        "# {} | {} | {} threads | run {repeat} | round {round}",
        row.scenario, column.name, row.threads
    )?;
    match ended {
        Ended::Well(text) => {
            raw.write_all(text.as_bytes())?;
            match text.strip_prefix("SKIPPED ") {
                Some(why) => cell.without = Some(format!("SKIPPED: {}", why.trim())),
                None => {
                    let run = Run::parse(&text).with_context(|| format!("{command:?}"))?;
                    cell.runs.push(Run { repeat, ..run });
                }
            }
        }
        Ended::Badly(how) => cell.without = Some(format!("failed: {how}")),
        Ended::Hung => cell.without = Some(format!("not over after {} s", row.limit.as_secs())),
    }
    if let Some(why) = &cell.without {
        writeln!(raw, "{why}")?;
    }
    Ok(())
}
