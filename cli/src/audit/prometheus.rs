//! `--format prometheus`: counts for the textfile collector of node_exporter.
//!
//! Each label has a fixed set of values, so the number of time series does not depend on the machine. There is no
//! timestamp: the collector uses that of the file.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::expect::Level;
use super::look::Audit;
use super::state::Field;
use super::verdict::Verdict;

/// Returns the metrics.
pub(crate) fn render(audit: &Audit) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, help: &str, values: &[(String, usize)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP psx_audit_{name} {help}\n# TYPE psx_audit_{name} gauge");
        for (labels, value) in values {
            let _ = writeln!(text, "psx_audit_{name}{labels} {value}");
        }
    };
    let processes = &audit.processes;
    let alone = |value: usize| vec![(String::new(), value)];
    let by = |name: &str, value: &str, count: usize| (format!("{{{name}=\"{value}\"}}"), count);

    let verdicts = Verdict::value_variants().iter().map(|verdict| {
        let count = processes.iter().filter(|one| one.verdict() == Some(*verdict)).count();
        by("verdict", verdict.name(), count)
    });
    metric("processes", "Processes by verdict.", &verdicts.collect::<Vec<_>>());
    let threads = processes.iter().map(|one| one.process.threads()).sum();
    metric("threads", "Threads of these processes.", &alone(threads));
    let divergent = processes.iter().filter(|one| one.process.diverges()).count();
    metric("divergent_processes", "Processes whose threads differ.", &alone(divergent));
    let incomplete = processes.iter().filter(|one| !one.process.complete).count();
    let help = "Processes whose threads come and go faster than they can be read.";
    metric("incomplete_processes", help, &alone(incomplete));
    let fields = Field::value_variants().iter().map(|field| {
        let count = processes.iter().filter(|one| one.process.differs().contains(field)).count();
        by("field", field.name(), count)
    });
    let help = "Processes whose threads differ in a field.";
    metric("divergent_fields", help, &fields.collect::<Vec<_>>());
    let keeps = |one: &&super::look::Audited| {
        one.process.workers.iter().any(|worker| !worker.keeps.is_empty())
    };
    let workers = processes.iter().filter(keeps).count();
    let help = "Processes for which a kernel worker keeps credentials that no thread has.";
    metric("worker_processes", help, &alone(workers));
    let levels = [Level::Info, Level::Warning, Level::Error].map(|level| {
        let failures = processes.iter().flat_map(|one| &one.failures);
        let count = failures.filter(|failure| failure.level == level && failure.seen).count();
        by("level", level.name(), count)
    });
    metric("violations", "Expectations that do not hold, by level.", &levels);
    let unchecked = processes.iter().flat_map(|one| &one.failures).filter(|one| !one.seen).count();
    metric("unchecked", "Expectations whose state could not be seen.", &alone(unchecked));
    let help = "Rules that require a process, and that no process matches.";
    metric("missing", help, &alone(audit.missing.len()));
    metric("unreadable_processes", "Processes that could not be read.", &alone(audit.unreadable));
    let help = "Whether /proc may hide processes (hidepid).";
    metric("processes_hidden", help, &alone(audit.hidden.into()));
    text
}
