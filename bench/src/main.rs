//! One call on many threads, by us and by others, side by side.
//!
//! Each engine is a program of its own (`bench/engines`), all with the same command line; this one
//! owns the plan and the tables. Of a row, every engine runs in turn, in a fresh process, and then
//! every one again: so a drift of the machine hits all alike, and what counts is the ratio. What
//! cannot be had here says SKIPPED, and why.
//!
//! Standard output, and the directory that `--out` names, get the results: report.md, results.csv,
//! raw.txt (what the engines printed), and plots.
#![forbid(unsafe_code)]

mod drawing;
mod engines;
mod machine;
mod plan;
mod report;
mod results;
mod run;
mod sizes;
mod targets;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;

use plan::Extent;

#[derive(Parser)]
#[command(name = "bench", about = "One call on many threads, by us and by others, side by side")]
struct Cli {
    /// A little of everything, in less than five minutes (what is done if nothing else is said)
    #[arg(long, group = "extent")]
    quick: bool,
    /// Many rounds, all sizes: about three quarters of an hour
    #[arg(long, group = "extent")]
    full: bool,
    /// Only whether it all still runs
    #[arg(long, group = "extent")]
    smoke: bool,
    /// Only these scenarios
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these engines, by the names of their programs
    #[arg(long, value_name = "ENGINE", value_delimiter = ',')]
    engines: Vec<String>,
    /// Only these numbers of threads
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// How often each engine takes its turn
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// How often all rounds of a scenario are run, each time with a median of its own
    #[arg(long, value_name = "COUNT")]
    repeats: Option<usize>,
    /// Also measure this library as it was in a git revision: an engine "baseline"
    #[arg(long, value_name = "REVISION")]
    baseline: Option<String>,
    /// Where the results go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match measure(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False if one of our own programs died or hung, lost a request, or left a thread its privilege.
fn measure(cli: &Cli) -> Result<bool> {
    let extent = match (cli.full, cli.smoke) {
        (true, _) => Extent::Full,
        (_, true) => Extent::Smoke,
        _ => Extent::Quick,
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let out = std::path::absolute(&cli.out)?;
    std::env::set_current_dir(root)?;
    std::fs::create_dir_all(&out).with_context(|| format!("{}", out.display()))?;

    let begun = Instant::now();
    let baseline = cli.baseline.as_deref();
    let mut plan = plan::of(extent);
    if baseline.is_some() {
        plan.add_baseline();
    }
    plan.keep(&cli.only, &cli.engines, &cli.threads, cli.rounds, cli.repeats);
    let threads = plan.most_threads();
    eprintln!("engines are built ...");
    let mut built = engines::build(&plan.programs(), baseline)?;
    let limits = machine::make_room(threads);
    let load = machine::Load::begin()?;
    let mut results = run::all(&plan, &built, &out.join("raw.txt"))?;
    if plan.traffic.rounds > 0 {
        engines::build(&["server"], None)?;
        if baseline.is_some() {
            built.extend(engines::build(&["baseline-server"], baseline)?);
        }
        results.traffic = traffic::all(&plan.traffic, &built)?;
    }
    let mut head = machine::describe(&built);
    head.extend(baseline.map(machine::describe_baseline));
    head.extend(limits);
    head.push(load.end()?);
    head.push(format!("Command: bench {}; {} s", arguments(), begun.elapsed().as_secs()));

    let drawings = drawing::all(&results, &out)?;
    let text = report::markdown(&head, &results, &built, &sizes::of_libraries(), &drawings);
    std::fs::write(out.join("report.md"), &text)?;
    std::fs::write(out.join("results.csv"), report::csv(&head, &results))?;
    print!("{text}");
    eprintln!("written to {}", out.display());
    Ok(results.sound())
}

fn arguments() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
}
