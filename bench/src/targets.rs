//! What is aimed at, and whether it was reached: ratios within one run.

use crate::plan::{
    Column, DROP_GO, DROP_GO_PSX, DROP_LIBPSX, DROP_MIXED, DROP_ONE, GLIBC, GO, LIBPSX,
    LIBPSX_PRCTL, MEASURE, OURS, OURS_PRCTL,
};
use crate::results::Results;

/// One aim, measured.
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) at_most: f64,
}

impl Target {
    pub(crate) fn met(&self) -> bool {
        self.measured <= self.at_most
    }
}

/// Ours by the better of some others.
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

/// Bytes mapped for each thread, without what is mapped for the first one.
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
    let mut add = |what: String, measured: Option<f64>, at_most| {
        targets.extend(measured.map(|measured| Target { what, measured, at_most }));
    };
    for threads in results.sizes("asleep") {
        let limit = match threads {
            0 => 0.5,
            64 => 0.85,
            10_000 => 0.1,
            512.. => 0.55,
            _ => 1.0,
        };
        for (one, other) in [(OURS, LIBPSX), (OURS_PRCTL, LIBPSX_PRCTL)] {
            let ratio = results.ratio("asleep", threads, one, other);
            add(format!("asleep, N = {threads}: {} / {}", one.name, other.name), ratio, limit);
        }
        if (8..=512).contains(&threads) {
            let ratio = to_the_best(results, "asleep", threads, OURS, &[GLIBC, GO]);
            add(format!("asleep, N = {threads}: ours / the better of glibc and Go"), ratio, 1.35);
        }
        if threads >= 2000 {
            let limit = if threads >= 10_000 { 0.4 } else { 1.0 };
            let ratio = results.ratio("asleep", threads, OURS, GLIBC);
            add(format!("asleep, N = {threads}: ours / glibc"), ratio, limit);
        }
        if threads > 0 {
            let ratio = results
                .cell("asleep", threads, OURS)
                .and_then(|cell| Some(cell.percentile(99)? as f64 / cell.median()? as f64));
            add(format!("asleep, N = {threads}: ours, p99 / median"), ratio, 4.0);
        }
        let ratio = results.ratio("fail", threads, OURS, MEASURE);
        add(format!("N = {threads}: ours, failing / successful"), ratio, 1.0);
        for hog in ["fifo", "fifos"] {
            let ratio = results.ratio(hog, threads, OURS, MEASURE);
            add(format!("N = {threads}: ours, {hog} / asleep"), ratio, 5.0);
        }
    }
    let alone = results.median("asleep", 0, OURS_PRCTL).map(|ns| ns / 1e3);
    add("asleep, N = 0: ours, prctl, microseconds".to_owned(), alone, 3.0);
    for threads in results.sizes("drop").into_iter().filter(|&threads| threads >= 8) {
        let others = [DROP_LIBPSX, DROP_MIXED, DROP_GO, DROP_GO_PSX];
        let ratio = to_the_best(results, "drop", threads, DROP_ONE, &others);
        add(format!("drop, N = {threads}: ours / the best peer"), ratio, 0.35);
    }
    add("growth: exponent of ours, N >= 64".to_owned(), results.growth(OURS), 1.1);
    let memory = memory_per_thread(results);
    add("bytes mapped per thread".to_owned(), memory.map(|(mapped, _)| mapped), 64.0);
    add("bytes of malloc, all in all".to_owned(), memory.map(|(_, malloc)| malloc as f64), 0.0);
    targets
}
