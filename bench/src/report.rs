//! Writes the results as Markdown and as CSV.

use std::fmt::Write;

use crate::engines::Built;
use crate::plan::{self, Column, SCENARIOS};
use crate::results::{Cell, Results, Seen};
use crate::targets;

/// Formats a time with three digits, in a suitable unit.
fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 999.5 => (ns, "ns"),
        ns if ns < 999.5e3 => (ns / 1e3, "us"),
        ns if ns < 999.5e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

fn whole(ns: Option<u64>) -> String {
    ns.map_or("-".to_owned(), |ns| time(ns as f64))
}

fn ratio(value: Option<f64>) -> String {
    // In "last", a median may be 0.
    let value = value.filter(|value| value.is_finite());
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

fn row(text: &mut String, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn heading(text: &mut String, names: &[&str]) {
    row(text, names.iter().map(|&name| name.to_owned()));
    let _ = writeln!(text, "|{}", "---|".repeat(names.len()));
}

pub(crate) fn markdown(
    head: &[String],
    results: &Results,
    built: &Built,
    sizes: &[String],
    drawings: &[(&str, &str)],
) -> String {
    let mut text = String::from("# One call on many threads\n\n");
    for line in head {
        let _ = writeln!(text, "- {line}");
    }
    for (program, result) in built {
        if let Err(why) = result {
            let _ = writeln!(text, "- SKIPPED {program}: {why}");
        }
    }
    text.push_str(
        "\nMedians are the medians of the rounds' medians; p99 and the maximum are of all calls. A call is \
         setresuid(-1, -1, -1), or prctl(PR_SET_KEEPCAPS) if the name says so. In freeze and last, a value is what the \
         other threads see.\n",
    );
    for (file, title) in drawings {
        let _ = write!(text, "\n![{title}]({file})\n");
    }
    for (scenario, what) in SCENARIOS {
        if results.sizes(scenario).is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {scenario}: {what}\n\n");
        medians(&mut text, results, scenario);
        if TAILED.contains(&scenario) {
            tails(&mut text, results, scenario);
        }
        ratios(&mut text, results, scenario);
        repeats(&mut text, results, scenario);
        if plan::WATCHED.contains(&scenario) {
            seen(&mut text, results, scenario);
        } else {
            details(&mut text, results, scenario);
        }
    }
    growth(&mut text, results);
    traffic(&mut text, results);
    delays(&mut text, results);
    if !sizes.is_empty() {
        text.push_str("\n## Size of libpsx.so, stripped, bytes\n\n");
        heading(&mut text, &["", "file", "code", "all read-only", "data", "bss"]);
        sizes.iter().for_each(|line| text.extend([line, "\n"]));
    }
    aims(&mut text, results);
    text
}

/// Scenarios in which a single call may take much longer than the median.
const TAILED: [&str; 4] = ["busy", "half", "last", "last-busy"];

/// Writes the 99th percentile and the maximum of each engine.
fn tails(text: &mut String, results: &Results, scenario: &str) {
    let columns = results.columns(scenario);
    text.push_str("\np99 / maximum\n\n");
    let names: Vec<&str> = std::iter::once("N").chain(columns.iter().map(|c| c.name)).collect();
    heading(text, &names);
    for threads in results.sizes(scenario) {
        let cells = columns.iter().map(|&column| {
            let cell = results.cell(scenario, threads, column);
            cell.filter(|cell| cell.calls() > 0).map_or("-".to_owned(), |cell| {
                format!("{} / {}", whole(cell.percentile(99)), whole(cell.percentile(100)))
            })
        });
        row(text, std::iter::once(threads.to_string()).chain(cells));
    }
}

/// Writes the lowest and the highest median of the repeats. Each repeat runs all rounds and has its own median.
fn repeats(text: &mut String, results: &Results, scenario: &str) {
    let cells = || results.cells.iter().filter(|cell| cell.scenario == scenario);
    let count = cells().map(Cell::repeats).max().unwrap_or(0);
    if count < 2 {
        return;
    }
    let _ = write!(text, "\nThe medians of {count} runs: the median, the lowest, the highest\n\n");
    let columns = results.columns(scenario);
    let names: Vec<&str> = std::iter::once("N").chain(columns.iter().map(|c| c.name)).collect();
    heading(text, &names);
    for threads in results.sizes(scenario) {
        let cells = columns.iter().map(|&column| {
            let Some(cell) = results.cell(scenario, threads, column) else {
                return "-".to_owned();
            };
            if cell.calls() == 0 {
                return "-".to_owned();
            }
            let medians = || (0..cell.repeats()).filter_map(|repeat| cell.median_of(repeat));
            let (low, high) = (medians().min(), medians().max());
            format!("{} ({}..{})", whole(cell.median()), whole(low), whole(high))
        });
        row(text, std::iter::once(threads.to_string()).chain(cells));
    }
}

/// Writes what the other threads see of a call, beside what they see without one.
fn seen(text: &mut String, results: &Results, scenario: &str) {
    text.push_str(
        "\n\"Per call\" is the largest value of any thread in the window of a call; \"per thread\" is the largest value \
         that a thread had in all windows of its process. \"Without\" is the same in the windows without a call.\n\n",
    );
    let names = [
        "N",
        "engine",
        "calls",
        "per call: median",
        "p99",
        "max",
        "without: median",
        "p99",
        "max",
        "per thread: median",
        "max",
        "without: median",
        "max",
        "calls not seen",
    ];
    heading(text, &names);
    for cell in results.cells.iter().filter(|cell| cell.scenario == scenario && cell.calls() > 0) {
        let of = |what, percents: &[usize]| -> Vec<String> {
            let values = cell.seen(what);
            percents.iter().map(|&percent| whole(crate::results::at(&values, percent))).collect()
        };
        let numbers =
            [cell.threads.to_string(), cell.column.name.to_owned(), cell.calls().to_string()];
        let values = [
            of(Seen::Calls, &[50, 99, 100]),
            of(Seen::Control, &[50, 99, 100]),
            of(Seen::Threads, &[50, 100]),
            of(Seen::ControlThreads, &[50, 100]),
        ];
        let last = cell.unseen().to_string();
        row(text, numbers.into_iter().chain(values.into_iter().flatten()).chain([last]));
    }
}

fn medians(text: &mut String, results: &Results, scenario: &str) {
    let columns = results.columns(scenario);
    let names: Vec<&str> = std::iter::once("N").chain(columns.iter().map(|c| c.name)).collect();
    heading(text, &names);
    for threads in results.sizes(scenario) {
        let cells = columns.iter().map(|&column| {
            let cell = results.cell(scenario, threads, column);
            cell.map_or("-".to_owned(), |cell| whole(cell.median()))
        });
        row(text, std::iter::once(threads.to_string()).chain(cells));
    }
    let without = results.cells.iter().filter(|cell| cell.scenario == scenario);
    let mut reasons: Vec<String> = Vec::new();
    for cell in without {
        if let Some(why) = &cell.without {
            let reason = format!("{}: {why}", cell.column.name);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        if cell.failed() > 0 {
            let (name, threads, failed) = (cell.column.name, cell.threads, cell.failed());
            reasons
                .push(format!("{name}, N = {threads}: {failed} calls did not end as they should"));
        }
        if cell.incomplete() {
            let (name, threads) = (cell.column.name, cell.threads);
            reasons.push(format!("{name}, N = {threads}: A THREAD KEPT ITS PRIVILEGE"));
        }
    }
    text.push('\n');
    reasons.iter().for_each(|reason| text.extend(["- ", reason, "\n"]));
}

/// Writes the ratios of this library to the others, for the same call. One table uses the medians. The other uses the
/// best round of each engine, which other load disturbs least.
fn ratios(text: &mut String, results: &Results, scenario: &str) {
    let columns = results.columns(scenario);
    let one = if scenario == "drop" { plan::DROP_ONE } else { plan::OURS };
    let others: Vec<Column> = columns
        .iter()
        .copied()
        .filter(|column| *column != one && !column.call.contains("prctl"))
        .collect();
    if !columns.contains(&one) || others.is_empty() {
        return;
    }
    let best = |cell: &Cell| cell.spread().map(|(low, _)| low);
    for (what, of) in [
        ("The median", Cell::median as fn(&Cell) -> Option<u64>),
        ("The median of the best round", best),
    ] {
        let _ = write!(text, "\n{what} of \"{}\" divided by that of\n\n", one.name);
        let names: Vec<&str> = std::iter::once("N").chain(others.iter().map(|c| c.name)).collect();
        heading(text, &names);
        for threads in results.sizes(scenario) {
            let of = |column| Some(of(results.cell(scenario, threads, column)?)? as f64);
            let cells = others.iter().map(|&other| {
                let both = of(one).zip(of(other));
                ratio(both.map(|(one, other)| one / other))
            });
            row(text, std::iter::once(threads.to_string()).chain(cells));
        }
    }
}

fn details(text: &mut String, results: &Results, scenario: &str) {
    let _ = write!(text, "\n<details><summary>Each engine</summary>\n\n");
    let names = [
        "N",
        "engine",
        "calls",
        "median",
        "of rounds",
        "p99",
        "max",
        "first",
        "CPU/call",
        "switches/call, voluntary",
        "and not",
        "peak KiB",
        "mapped, malloc in the first call",
    ];
    heading(text, &names);
    for cell in results.cells.iter().filter(|cell| cell.scenario == scenario) {
        if !cell.runs.is_empty() {
            row(text, detail(cell));
        }
    }
    text.push_str("\n</details>\n");
}

fn detail(cell: &Cell) -> [String; 13] {
    let spread =
        cell.spread().map(|(low, high)| format!("{}..{}", whole(Some(low)), whole(Some(high))));
    let [voluntary, involuntary] = cell.switches().unwrap_or_default();
    let memory = cell.memory().filter(|_| cell.scenario == "asleep");
    let memory = memory.map(|[mapped, malloc]| format!("{mapped}, {malloc}"));
    [
        cell.threads.to_string(),
        cell.column.name.to_owned(),
        cell.calls().to_string(),
        whole(cell.median()),
        spread.unwrap_or_default(),
        whole(cell.percentile(99)),
        whole(cell.percentile(100)),
        whole(cell.first()),
        cell.cpu().map_or("-".to_owned(), time),
        format!("{voluntary:.1}"),
        format!("{involuntary:.1}"),
        (cell.peak().unwrap_or(0) / 1024).to_string(),
        memory.unwrap_or("-".to_owned()),
    ]
}

fn growth(text: &mut String, results: &Results) {
    let exponents: Vec<(Column, f64)> = results
        .columns("asleep")
        .into_iter()
        .filter_map(|column| Some((column, results.growth(column)?)))
        .collect();
    if exponents.is_empty() {
        return;
    }
    text.push_str("\n## How the cost grows\n\nThe exponent b of a * N^b, fitted to the medians of N >= 64 asleep.\n\n");
    heading(text, &["engine", "b"]);
    for (column, exponent) in exponents {
        row(text, [column.name.to_owned(), format!("{exponent:.2}")]);
    }
}

fn traffic(text: &mut String, results: &Results) {
    if results.traffic.is_empty() {
        return;
    }
    text.push_str(
        "\n## traffic: a server (hyper on tokio, 4 workers, 60 idle threads) under wrk's load, 16 connections\n\n\
         \"calls\": one call every 10 ms. \"drop\": six calls that drop privileges, once, in the middle.\n\n",
    );
    let names = [
        "what",
        "by",
        "requests",
        "failed or lost",
        "late (2 s)",
        "p50",
        "p99",
        "p99 - p99 of \"nothing\"",
        "median of a call",
        "calls that failed",
        "drops that did not change every thread",
    ];
    heading(text, &names);
    let middle = |of: &[u64]| crate::results::median(of.iter().copied()).map(|us| us as f64 * 1e3);
    let quiet = results.traffic.iter().find(|served| served.engine == "nothing");
    let quiet = quiet.and_then(|served| middle(&served.p99));
    for served in &results.traffic {
        if let Some(why) = &served.without {
            let _ = writeln!(text, "| {} | {} | {why} |", served.what, served.engine);
            continue;
        }
        let p99 = middle(&served.p99);
        let added = p99.zip(quiet).map(|(p99, quiet)| {
            format!("{}{}", if p99 < quiet { "-" } else { "" }, time((p99 - quiet).abs()))
        });
        let of_calls = served.call().filter(|_| served.engine != "nothing");
        row(
            text,
            [
                served.what.to_owned(),
                served.engine.to_owned(),
                served.requests.to_string(),
                served.errors.to_string(),
                served.late.to_string(),
                middle(&served.p50).map_or("-".to_owned(), time),
                p99.map_or("-".to_owned(), time),
                added.unwrap_or("-".to_owned()),
                whole(of_calls),
                served.failed.to_string(),
                served.incomplete.to_string(),
            ],
        );
    }
}

/// Writes how long threads of the server stand still.
fn delays(text: &mut String, results: &Results) {
    if results.traffic.iter().all(|served| served.delays.is_empty()) {
        return;
    }
    text.push_str(
        "\nFour more threads of the server wake every millisecond. The table shows how late they were: the latest of the \
         four for each call, and each of the four in each process. \"nothing\" makes no calls and is the control.\n\n",
    );
    heading(
        text,
        &["what", "engine", "per call: median", "p99", "max", "per thread: median", "max"],
    );
    for served in results.traffic.iter().filter(|served| !served.delays.is_empty()) {
        let of = |values: &[u64], percents: &[usize]| -> Vec<String> {
            let mut values = values.to_vec();
            values.sort_unstable();
            percents.iter().map(|&percent| whole(crate::results::at(&values, percent))).collect()
        };
        let names = vec![served.what.to_owned(), served.engine.to_owned()];
        let (calls, threads) =
            (of(&served.delays, &[50, 99, 100]), of(&served.threads, &[50, 100]));
        row(text, [names, calls, threads].into_iter().flatten());
    }
}

fn aims(text: &mut String, results: &Results) {
    let targets = targets::all(results);
    if targets.is_empty() {
        return;
    }
    text.push_str("\n## Targets\n\n");
    heading(text, &["", "measured", "the floor", "at most", ""]);
    for target in targets {
        let [mut ours, floor] = [Some(target.measured), target.floor].map(ratio);
        if let Some((low, high)) = target.spread {
            let _ = write!(ours, " ({low:.2}..{high:.2})");
        }
        let verdict = target.verdict().to_owned();
        row(text, [target.what.clone(), ours, floor, target.at_most.to_string(), verdict]);
    }
}

/// Writes one line per engine, scenario and number of threads. Times are in nanoseconds.
pub(crate) fn csv(head: &[String], results: &Results) -> String {
    let mut text = String::new();
    head.iter().for_each(|line| text.extend(["# ", line, "\n"]));
    text.push_str(
        "scenario,threads,engine,program,call,rounds,calls,failed,median,median_low,median_high,p99,max,first,\
         cpu_per_call,voluntary_per_call,involuntary_per_call,peak_bytes,mapped_bytes,malloc_bytes,note,\
         repeat_medians,control_median,control_p99,control_max,thread_median,thread_max,control_thread_median,\
         control_thread_max,unseen\n",
    );
    let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    for cell in &results.cells {
        let switches = cell.switches().unwrap_or_default().map(|count| format!("{count:.2}"));
        let memory = cell.memory().map(|bytes| bytes.map(|bytes| bytes.to_string()));
        let medians = (0..cell.repeats()).map(|repeat| number(cell.median_of(repeat)));
        let of = |what, percent| number(crate::results::at(&cell.seen(what), percent));
        let fields = [
            [cell.scenario.to_owned(), cell.threads.to_string(), quoted(cell.column.name)]
                .join(","),
            [cell.column.program, cell.column.call].join(","),
            [cell.runs.len().to_string(), cell.calls().to_string(), cell.failed().to_string()]
                .join(","),
            number(cell.median()),
            number(cell.spread().map(|(low, _)| low)),
            number(cell.spread().map(|(_, high)| high)),
            number(cell.percentile(99)),
            number(cell.percentile(100)),
            number(cell.first()),
            cell.cpu().map_or(String::new(), |ns| format!("{ns:.0}")),
            switches.join(","),
            number(cell.peak()),
            memory.unwrap_or_default().join(","),
            quoted(cell.without.as_deref().unwrap_or_default()),
            medians.collect::<Vec<_>>().join(";"),
            [50, 99, 100].map(|percent| of(Seen::Control, percent)).join(","),
            [50, 100].map(|percent| of(Seen::Threads, percent)).join(","),
            [50, 100].map(|percent| of(Seen::ControlThreads, percent)).join(","),
            cell.unseen().to_string(),
        ];
        text.extend([fields.join(","), "\n".to_owned()]);
    }
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let texts = [0.0, 9.994, 9.996, 512.0, 99_960.0, 999_600.0, 5.9e9].map(time);
        let expected = ["0.00 ns", "9.99 ns", "10.0 ns", "512 ns", "100 us", "1.00 ms", "5.90 s"];
        assert_eq!(texts, expected);
    }
}
