//! The targets, and whether they were reached: ratios within one run.

use crate::plan::{
    BASELINE, Column, DROP_FIRST, DROP_GO, DROP_GO_PSX, DROP_LIBPSX, DROP_MIXED, DROP_ONE, FLOOR,
    FLOOR_PRCTL, GLIBC, GO, LIBPSX, LIBPSX_PRCTL, MEASURE, OURS, OURS_PRCTL,
};
use crate::results::Results;

/// One target and its measured value.
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) measured: f64,
    /// The lowest and the highest of several runs, of which `measured` is the median.
    pub(crate) spread: Option<(f64, f64)>,
    /// The value of the floor in place of this library, if the target is a ratio to a peer.
    pub(crate) floor: Option<f64>,
    pub(crate) at_most: f64,
}

impl Target {
    pub(crate) fn verdict(&self) -> &'static str {
        let met = |value| value <= self.at_most;
        match self.floor {
            _ if met(self.measured) => "met",
            Some(floor) if !met(floor) => "MISSED, also by the floor",
            _ => "MISSED",
        }
    }
}

fn median_and_spread(mut values: Vec<f64>) -> (Option<f64>, Option<(f64, f64)>) {
    values.sort_by(f64::total_cmp);
    let spread = values.first().copied().zip(values.last().copied());
    (values.get(values.len().saturating_sub(1) / 2).copied(), spread.filter(|_| values.len() > 1))
}

/// Returns this library's value divided by that of the best of some others.
fn to_the_best(
    results: &Results,
    scenario: &str,
    threads: usize,
    one: Column,
    others: &[Column],
) -> Option<f64> {
    let ratios = others.iter().filter_map(|&other| results.ratio(scenario, threads, one, other));
    ratios.reduce(f64::max)
}

/// Returns the bytes mapped per thread, without those that are mapped for the first one.
fn memory_per_thread(results: &Results) -> Option<(f64, i64)> {
    let sizes = results.sizes("asleep");
    let at = |threads| results.cell("asleep", threads, OURS)?.memory();
    let most = *sizes.last().filter(|&&threads| threads >= 512)?;
    let [mapped, malloc] = at(most)?;
    let [fixed, _] = at(1).or_else(|| at(8)).unwrap_or_default();
    Some(((mapped - fixed) as f64 / most as f64, malloc))
}

pub(crate) fn all(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |what: String, measured: Option<f64>, floor, at_most| {
        targets.extend(measured.map(|measured| Target {
            what,
            measured,
            spread: None,
            floor,
            at_most,
        }));
    };
    for threads in results.sizes("asleep") {
        let limit = match threads {
            0 => 0.5,
            64 => 0.85,
            10_000 => 0.1,
            512.. => 0.55,
            _ => 1.0,
        };
        let calls = [(OURS, FLOOR, LIBPSX), (OURS_PRCTL, FLOOR_PRCTL, LIBPSX_PRCTL)];
        for (one, floor, other) in calls {
            let [ratio, floor] = [one, floor].map(|of| results.ratio("asleep", threads, of, other));
            let what = format!("asleep, N = {threads}: {} / {}", one.name, other.name);
            add(what, ratio, floor, limit);
        }
        let ratio = results.ratio("asleep", threads, OURS, BASELINE);
        add(format!("asleep, N = {threads}: ours / the baseline"), ratio, None, 1.1);
        if (8..=512).contains(&threads) {
            let [ratio, floor] =
                [OURS, FLOOR].map(|of| to_the_best(results, "asleep", threads, of, &[GLIBC, GO]));
            let what = format!("asleep, N = {threads}: ours / the better of glibc and Go");
            add(what, ratio, floor, 1.35);
        }
        if threads >= 2000 {
            let limit = if threads >= 10_000 { 0.4 } else { 1.0 };
            let [ratio, floor] =
                [OURS, FLOOR].map(|of| results.ratio("asleep", threads, of, GLIBC));
            add(format!("asleep, N = {threads}: ours / glibc"), ratio, floor, limit);
        }
        if threads > 0 {
            let ratio = results
                .cell("asleep", threads, OURS)
                .and_then(|cell| Some(cell.percentile(99)? as f64 / cell.median()? as f64));
            add(format!("asleep, N = {threads}: ours, p99 / median"), ratio, None, 4.0);
        }
        let ratio = results.ratio("fail", threads, OURS, MEASURE);
        add(format!("N = {threads}: ours, failing / successful"), ratio, None, 1.0);
        for hog in ["fifo", "fifos"] {
            let ratio = results.ratio(hog, threads, OURS, MEASURE);
            add(format!("N = {threads}: ours, {hog} / asleep"), ratio, None, 5.0);
        }
    }
    let alone = results.median("asleep", 0, OURS_PRCTL).map(|ns| ns / 1e3);
    add("asleep, N = 0: ours, prctl, microseconds".to_owned(), alone, None, 3.0);
    for threads in [8, 64] {
        let ratio = results.ratio("busy", threads, OURS, GLIBC);
        add(format!("busy, N = {threads}: ours / glibc"), ratio, None, 0.05);
    }
    add("growth: exponent of ours, N >= 64".to_owned(), results.growth(OURS), None, 1.1);
    let memory = memory_per_thread(results);
    add("bytes mapped per thread".to_owned(), memory.map(|(mapped, _)| mapped), None, 64.0);
    add("bytes of malloc, in total".to_owned(), memory.map(|(_, malloc)| malloc as f64), None, 0.0);
    targets.extend(drops(results));
    targets
}

/// Computes this library's drop divided by that of the best peer, as the median of all runs.
fn drops(results: &Results) -> Vec<Target> {
    let others = [DROP_LIBPSX, DROP_MIXED, DROP_GO, DROP_GO_PSX];
    let mut targets = Vec::new();
    for threads in results.sizes("drop").into_iter().filter(|&threads| threads >= 8) {
        let [(measured, spread), (floor, _)] = [DROP_ONE, DROP_FIRST]
            .map(|of| median_and_spread(results.ratios_to_the_best("drop", threads, of, &others)));
        let what = format!("drop, N = {threads}: ours / the best peer");
        targets.extend(measured.map(|measured| Target {
            what,
            measured,
            spread,
            floor,
            at_most: 0.35,
        }));
    }
    targets
}
