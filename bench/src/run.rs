//! The rows, one engine after the other, round by round.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::engines::{BESIDE_RECENT, Built, Ended, watch};
use crate::plan::{Column, Plan, Row};
use crate::results::{Cell, Results, Run};

/// Longer than ten thousand threads need, with the slowest engine that gets there at all.
const HANGS: Duration = Duration::from_secs(90);

pub(crate) fn all(plan: &Plan, built: &Built, raw: &Path) -> Result<Results> {
    let mut raw = File::create(raw).with_context(|| format!("{}", raw.display()))?;
    let mut results = Results::default();
    for row in &plan.rows {
        eprintln!("{}, {} threads ...", row.scenario, row.threads);
        let mut cells: Vec<Cell> =
            row.columns.iter().map(|&column| Cell::new(row, column)).collect();
        for round in 0..row.rounds {
            for cell in cells.iter_mut().filter(|cell| cell.without.is_none()) {
                once(row, cell, round, built, &mut raw)?;
            }
        }
        results.cells.extend(cells);
    }
    Ok(results)
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

/// One process: what it measured goes to the cell, or why there is nothing.
fn once(row: &Row, cell: &mut Cell, round: usize, built: &Built, raw: &mut File) -> Result<()> {
    let column = cell.column;
    if let Some(Err(why)) = built.get(column.program) {
        cell.without = Some(format!("SKIPPED: {why}"));
        return Ok(());
    }
    let mut command = command(row, column);
    let ended = watch(&mut command, HANGS)?;
    writeln!(
        raw,
        "# {} | {} | {} threads | round {round}",
        row.scenario, column.name, row.threads
    )?;
    match ended {
        Ended::Well(text) => {
            raw.write_all(text.as_bytes())?;
            match text.strip_prefix("SKIPPED ") {
                Some(why) => cell.without = Some(format!("SKIPPED: {}", why.trim())),
                None => cell.runs.push(Run::parse(&text).with_context(|| format!("{command:?}"))?),
            }
        }
        Ended::Badly(how) => cell.without = Some(format!("failed: {how}")),
        Ended::Hung => cell.without = Some(format!("not over after {} s", HANGS.as_secs())),
    }
    if let Some(why) = &cell.without {
        writeln!(raw, "{why}")?;
    }
    Ok(())
}
