//! Compares one call on many threads in this library and in others, side by side.
//!
//! Each engine is a separate program (`bench/engines`), and all have the same command line. This program has the plan
//! and the tables. In a row, every engine runs once in a fresh process, and then every engine runs again. A drift of
//! the
//! machine therefore affects all engines alike, and the ratio is what counts. An engine that is not available here is
//! reported as SKIPPED, with the reason.
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
#[command(name = "bench", about = "Compare one call on many threads in this library and in others")]
struct Cli {
    /// Run a little of everything in less than five minutes (the default)
    #[arg(long, group = "extent")]
    quick: bool,
    /// Run many rounds and all sizes: about three quarters of an hour
    #[arg(long, group = "extent")]
    full: bool,
    /// Only check that everything still runs
    #[arg(long, group = "extent")]
    smoke: bool,
    /// Run only these scenarios
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',')]
    only: Vec<String>,
    /// Run only these engines, by the names of their programs
    #[arg(long, value_name = "ENGINE", value_delimiter = ',')]
    engines: Vec<String>,
    /// Run only these numbers of threads
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Number of turns of each engine
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Number of times that all rounds of a scenario are run, each with its own median
    #[arg(long, value_name = "COUNT")]
    repeats: Option<usize>,
    /// Also measure this library as it was in a git revision: an engine "baseline"
    #[arg(long, value_name = "REVISION")]
    baseline: Option<String>,
    /// Directory for the results
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

/// Returns false if one of this project's programs died or hung, lost a request, or left a thread its privileges.
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
    eprintln!("building the engines ...");
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
    eprintln!("results are in {}", out.display());
    Ok(results.sound())
}

fn arguments() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
}
