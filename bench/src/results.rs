//! The measured values, and the numbers that are computed from them.

use anyhow::{Context, Result};

use crate::plan::{Column, Row};

/// The output of one process. bench/engines/bench.c documents the words.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) ns: Vec<u64>,
    pub(crate) failed: u64,
    pub(crate) first: Option<u64>,
    pub(crate) memory: Option<[i64; 2]>,
    pub(crate) cpu: u64,
    pub(crate) switches: [u64; 2],
    pub(crate) peak: u64,
    pub(crate) changed: Option<[u64; 2]>,
    /// The values of windows without a call; and each thread's largest value, with a call and without.
    pub(crate) control: Vec<u64>,
    pub(crate) threads: Vec<u64>,
    pub(crate) control_threads: Vec<u64>,
    pub(crate) unseen: u64,
    /// The index of the repeat that the process belongs to.
    pub(crate) repeat: usize,
}

fn list(text: &str) -> Vec<u64> {
    text.split(' ').filter_map(|number| number.parse().ok()).collect()
}

fn numbers<T: std::str::FromStr, const N: usize>(text: &str) -> Option<[T; N]> {
    let numbers: Vec<T> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().ok()
}

impl Run {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut run = Self::default();
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let understood = match word {
                "ns" => {
                    run.ns = list(rest);
                    Some(())
                }
                "control" => {
                    run.control = list(rest);
                    Some(())
                }
                "threads" => {
                    run.threads = list(rest);
                    Some(())
                }
                "control_threads" => {
                    run.control_threads = list(rest);
                    Some(())
                }
                "unseen" => numbers(rest).map(|[count]| run.unseen = count),
                "failed" => numbers(rest).map(|[count]| run.failed = count),
                "first" => numbers(rest).map(|[ns]: [u64; 1]| run.first = Some(ns)),
                "memory" => numbers(rest).map(|bytes| run.memory = Some(bytes)),
                "usage" => numbers(rest).map(|[cpu, voluntary, involuntary]| {
                    (run.cpu, run.switches) = (cpu, [voluntary, involuntary]);
                }),
                "peak" => numbers(rest).map(|[bytes]| run.peak = bytes),
                "changed" => numbers(rest).map(|counts| run.changed = Some(counts)),
                "born" => Some(()),
                _ => None,
            };
            understood.with_context(|| format!("invalid line: {line:.80}"))?;
        }
        anyhow::ensure!(!run.ns.is_empty(), "no measurement");
        Ok(run)
    }
}

/// One engine in one scenario with one number of threads.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) scenario: &'static str,
    pub(crate) threads: usize,
    pub(crate) column: Column,
    pub(crate) runs: Vec<Run>,
    /// The reason why there are no runs, or no further ones.
    pub(crate) without: Option<String>,
    /// Whether a process that exceeds its time limit is a result and not an error.
    may_hang: bool,
}

/// The kinds of values in the tables of what other threads see.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen {
    /// Per call: the largest value of any thread.
    Calls,
    /// The same in a window without a call.
    Control,
    /// Per thread: its largest value in a process.
    Threads,
    ControlThreads,
}

/// Returns the value below which a share of the sorted values lies.
pub(crate) fn at(sorted: &[u64], percent: usize) -> Option<u64> {
    sorted.get(sorted.len().checked_sub(1)? * percent / 100).copied()
}

pub(crate) fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    at(&values, 50)
}

impl Cell {
    pub(crate) fn new(row: &Row, column: Column) -> Self {
        let (scenario, threads) = (row.scenario, row.threads);
        Self { scenario, threads, column, runs: Vec::new(), without: None, may_hang: row.may_hang }
    }

    pub(crate) fn calls(&self) -> usize {
        self.runs.iter().map(|run| run.ns.len()).sum()
    }

    /// Returns all values of a kind, in ascending order.
    pub(crate) fn seen(&self, what: Seen) -> Vec<u64> {
        let of = |run: &'_ Run| match what {
            Seen::Calls => run.ns.clone(),
            Seen::Control => run.control.clone(),
            Seen::Threads => run.threads.clone(),
            Seen::ControlThreads => run.control_threads.clone(),
        };
        let mut all: Vec<u64> = self.runs.iter().flat_map(of).collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn unseen(&self) -> u64 {
        self.runs.iter().map(|run| run.unseen).sum()
    }

    fn medians(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().filter_map(|run| median(run.ns.iter().copied()))
    }

    pub(crate) fn repeats(&self) -> usize {
        self.runs.iter().map(|run| run.repeat + 1).max().unwrap_or(0)
    }

    /// Returns the median of the rounds' medians of one repeat. A round that had time for more calls has no more
    /// weight.
    pub(crate) fn median_of(&self, repeat: usize) -> Option<u64> {
        let runs = self.runs.iter().filter(|run| run.repeat == repeat);
        median(runs.filter_map(|run| median(run.ns.iter().copied())))
    }

    /// Returns the median of the repeats' medians.
    pub(crate) fn median(&self) -> Option<u64> {
        median((0..self.repeats()).filter_map(|repeat| self.median_of(repeat)))
    }

    /// Returns the lowest and the highest of the rounds' medians.
    pub(crate) fn spread(&self) -> Option<(u64, u64)> {
        Some((self.medians().min()?, self.medians().max()?))
    }

    pub(crate) fn percentile(&self, percent: usize) -> Option<u64> {
        at(&self.seen(Seen::Calls), percent)
    }

    pub(crate) fn first(&self) -> Option<u64> {
        median(self.runs.iter().filter_map(|run| run.first))
    }

    pub(crate) fn failed(&self) -> u64 {
        self.runs.iter().map(|run| run.failed).sum()
    }

    fn per_call(&self, what: impl Fn(&Run) -> u64) -> Option<f64> {
        let calls = self.calls();
        (calls > 0).then(|| self.runs.iter().map(what).sum::<u64>() as f64 / calls as f64)
    }

    pub(crate) fn cpu(&self) -> Option<f64> {
        self.per_call(|run| run.cpu)
    }

    pub(crate) fn switches(&self) -> Option<[f64; 2]> {
        let [voluntary, involuntary] =
            [0, 1].map(|kind| self.per_call(|run| run.switches.get(kind).copied().unwrap_or(0)));
        Some([voluntary?, involuntary?])
    }

    pub(crate) fn peak(&self) -> Option<u64> {
        self.runs.iter().map(|run| run.peak).max()
    }

    /// Returns the bytes that the first call mapped, and the bytes that it got from malloc.
    pub(crate) fn memory(&self) -> Option<[i64; 2]> {
        self.runs.iter().filter_map(|run| run.memory).max()
    }

    /// Returns whether no process died or hung, and each drop reached every thread.
    fn sound(&self) -> bool {
        let hung = |why: &str| why.starts_with("not over") && self.may_hang;
        let well = |why: &String| why.starts_with("SKIPPED") || hung(why);
        !self.incomplete() && self.without.as_ref().is_none_or(well)
    }

    /// Returns whether a drop left a thread unchanged.
    pub(crate) fn incomplete(&self) -> bool {
        self.runs.iter().filter_map(|run| run.changed).any(|[changed, all]| changed != all)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) cells: Vec<Cell>,
    pub(crate) traffic: Vec<Served>,
}

impl Results {
    pub(crate) fn cell(&self, scenario: &str, threads: usize, column: Column) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            cell.scenario == scenario && cell.threads == threads && cell.column == column
        })
    }

    pub(crate) fn median(&self, scenario: &str, threads: usize, column: Column) -> Option<f64> {
        Some(self.cell(scenario, threads, column)?.median()? as f64)
    }

    /// Returns the median of one column divided by the median of another.
    pub(crate) fn ratio(
        &self,
        scenario: &str,
        threads: usize,
        one: Column,
        other: Column,
    ) -> Option<f64> {
        Some(self.median(scenario, threads, one)? / self.median(scenario, threads, other)?)
    }

    /// Returns, for each repeat, the median of one column divided by the lowest median of some others.
    pub(crate) fn ratios_to_the_best(
        &self,
        scenario: &str,
        threads: usize,
        one: Column,
        others: &[Column],
    ) -> Vec<f64> {
        let Some(one) = self.cell(scenario, threads, one) else { return Vec::new() };
        let others: Vec<&Cell> =
            others.iter().filter_map(|&other| self.cell(scenario, threads, other)).collect();
        let ratio = |repeat| {
            let best = others.iter().filter_map(|cell| cell.median_of(repeat)).min()?;
            Some(one.median_of(repeat)? as f64 / best as f64)
        };
        (0..one.repeats()).filter_map(ratio).collect()
    }

    /// Returns the numbers of threads that a scenario was run with.
    pub(crate) fn sizes(&self, scenario: &str) -> Vec<usize> {
        let of_it = self.cells.iter().filter(|cell| cell.scenario == scenario);
        let mut sizes: Vec<usize> = of_it.map(|cell| cell.threads).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Returns the engines that a scenario was run with, in their order.
    pub(crate) fn columns(&self, scenario: &str) -> Vec<Column> {
        let mut columns = Vec::new();
        for cell in self.cells.iter().filter(|cell| cell.scenario == scenario) {
            if !columns.contains(&cell.column) {
                columns.push(cell.column);
            }
        }
        columns
    }

    /// Returns the exponent `b` of the power law `a * N^b` that best fits the medians of a column from 64 sleeping
    /// threads on, by least squares on the logarithms. Two points are not enough for a fit.
    pub(crate) fn growth(&self, column: Column) -> Option<f64> {
        let sizes = self.sizes("asleep").into_iter().filter(|&threads| threads >= 64);
        let points: Vec<(f64, f64)> = sizes
            .filter_map(|threads| {
                let median = self.median("asleep", threads, column)?;
                Some(((threads as f64).ln(), median.ln()))
            })
            .collect();
        exponent(&points)
    }

    /// Returns whether this project's programs did everything. Speed does not matter here, and other engines may fail.
    pub(crate) fn sound(&self) -> bool {
        let mut ours = self.cells.iter().filter(|cell| cell.column.program == "ours");
        ours.all(Cell::sound) && self.traffic.iter().all(Served::sound)
    }
}

/// The results of one server under load (traffic.rs).
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) engine: &'static str,
    pub(crate) what: &'static str,
    /// Microseconds, one value per round.
    pub(crate) p50: Vec<u64>,
    pub(crate) p99: Vec<u64>,
    pub(crate) requests: u64,
    /// Requests that failed, as the client counts them; and requests that it waited for more than two seconds.
    pub(crate) errors: u64,
    pub(crate) late: u64,
    /// The number of calls or drops that failed.
    pub(crate) failed: u64,
    /// Nanoseconds of each call or drop.
    pub(crate) ns: Vec<u64>,
    /// Delays, in nanoseconds, of threads that wake every millisecond: the largest of several threads for each call;
    /// and the largest of each thread.
    pub(crate) delays: Vec<u64>,
    pub(crate) threads: Vec<u64>,
    /// The number of drops after which a thread had the old state, or a thread in the old state served a request.
    pub(crate) incomplete: u64,
    pub(crate) without: Option<String>,
}

impl Served {
    /// Returns whether this library's server lost nothing. Losses of other engines do not count.
    pub(crate) fn sound(&self) -> bool {
        let skipped = self.without.as_ref().is_none_or(|why| why.starts_with("SKIPPED"));
        self.engine != "ours" || skipped && self.errors + self.failed + self.incomplete == 0
    }

    pub(crate) fn call(&self) -> Option<u64> {
        median(self.ns.iter().copied())
    }
}

fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    Some(above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_output_of_an_engine() {
        let text = "first 7\nmemory 4096 0\nns 3 1 2\nfailed 0\nusage 9 4 2\nborn 0\npeak 4096\n";
        let run = Run::parse(text).unwrap();
        assert_eq!((run.ns.as_slice(), run.first), ([3, 1, 2].as_slice(), Some(7)));
        assert_eq!((run.cpu, run.switches, run.memory), (9, [4, 2], Some([4096, 0])));
        let run =
            Run::parse("ns 4\ncontrol 2 3\nthreads 4 1\ncontrol_threads 3 0\nunseen 1\n").unwrap();
        assert_eq!((run.control, run.threads), (vec![2, 3], vec![4, 1]));
        assert_eq!((run.control_threads, run.unseen), (vec![3, 0], 1));
        assert!(Run::parse("ns\nfailed 0\n").is_err());
        assert!(Run::parse("ns 1\nnews 1\n").is_err());
        assert!(Run::parse("ns 1\nusage 1 2\n").is_err());
    }

    #[test]
    fn fits_the_exponent_of_a_power_law() {
        let points = |power: f64| {
            [64.0_f64, 512.0, 2000.0, 10_000.0].map(|n| (n.ln(), (7.0 * n.powf(power)).ln()))
        };
        for power in [0.5, 1.0, 1.4] {
            assert!((exponent(&points(power)).unwrap() - power).abs() < 1e-9);
        }
        assert_eq!(exponent(&[(1.0, 1.0), (2.0, 2.0)]), None);
    }

    #[test]
    fn each_repeat_has_its_own_ratio() {
        let mut plan = crate::plan::of(crate::plan::Extent::Smoke);
        let row = plan.rows.remove(0);
        let cell = |column, samples: &[u64]| {
            let mut cell = Cell::new(&row, column);
            cell.runs = (0..samples.len() * 2)
                .map(|i| Run { ns: vec![samples[i / 2]], repeat: i / 2, ..Run::default() })
                .collect();
            cell
        };
        let (one, other, third) = (crate::plan::OURS, crate::plan::GLIBC, crate::plan::LIBPSX);
        let cells =
            vec![cell(one, &[10, 30, 20]), cell(other, &[40, 40, 50]), cell(third, &[80, 30])];
        let results = Results { cells, traffic: Vec::new() };
        let ratios = results.ratios_to_the_best(row.scenario, row.threads, one, &[other, third]);
        assert_eq!(ratios, [0.25, 1.0, 0.4]);
        assert_eq!(results.median(row.scenario, row.threads, one), Some(20.0));
    }

    #[test]
    fn percentiles_lie_within() {
        let sorted: Vec<u64> = (1..=101).collect();
        assert_eq!(
            (at(&sorted, 50), at(&sorted, 99), at(&sorted, 100)),
            (Some(51), Some(100), Some(101))
        );
        assert_eq!(at(&[], 50), None);
        assert_eq!(median([5, 1, 9].into_iter()), Some(5));
    }
}
