//! Defines what is measured: which engine, in which situation, with how many threads, for how long.

use std::time::Duration;

/// An engine and the call that it makes: a column of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    /// The name in the tables.
    pub(crate) name: &'static str,
    /// The name of the program.
    pub(crate) program: &'static str,
    /// The call, as the program's argument.
    pub(crate) call: &'static str,
    /// Whether the program runs with the C library and the libpsx of Debian sid.
    pub(crate) beside_recent: bool,
    /// Whether all threads only sleep, whatever the row's scenario is. This column is the row's reference.
    pub(crate) measure: bool,
}

const fn column(name: &'static str, program: &'static str, call: &'static str) -> Column {
    Column { name, program, call, beside_recent: false, measure: false }
}

const fn recent(column: Column) -> Column {
    Column { beside_recent: true, ..column }
}

pub(crate) const OURS: Column = column("ours", "ours", "setresuid");
/// This library as it was in another revision.
pub(crate) const BASELINE: Column = column("ours, baseline", "baseline", "setresuid");
pub(crate) const OURS_PRCTL: Column = column("ours, prctl", "ours", "prctl");
pub(crate) const MEASURE: Column =
    Column { measure: true, ..column("ours, only asleep", "ours", "setresuid") };
pub(crate) const LIBPSX: Column = recent(column("C libpsx", "libpsx", "setresuid"));
pub(crate) const LIBPSX_PRCTL: Column = recent(column("C libpsx, prctl", "libpsx", "prctl"));
pub(crate) const GLIBC: Column = column("glibc", "glibc", "setresuid");
pub(crate) const GLIBC_SID: Column = recent(column("glibc of sid", "glibc", "setresuid"));
pub(crate) const GO: Column = column("Go AllThreadsSyscall", "go", "setresuid");
pub(crate) const GO_PSX: Column = column("Go psx (cgo)", "go-psx", "setresuid");
pub(crate) const MUSL: Column = column("musl", "musl", "setresuid");
pub(crate) const ONE_BY_ONE: Column = column("one by one", "one_by_one", "setresuid");
pub(crate) const FLOOR: Column = column("floor", "floor", "setresuid");
pub(crate) const FLOOR_PRCTL: Column = column("floor, prctl", "floor", "prctl");
const FLOOR_YIELDS: Column = column("floor, yielding", "floor_yields", "setresuid");
const FLOOR_SPREAD: Column = column("floor, signals by all", "floor_spread", "setresuid");
pub(crate) const TWICE: Column = column("wakes twice", "wakes", "twice");
pub(crate) const ONCE: Column = column("wakes once", "wakes", "once");
pub(crate) const SECCOMP: Column = column("seccomp TSYNC", "tsync", "seccomp");
pub(crate) const LANDLOCK: Column = column("Landlock TSYNC", "tsync", "landlock");

pub(crate) const DROP_ONE: Column = column("ours, one stop", "ours", "one");
pub(crate) const DROP_BASELINE: Column = column("ours, baseline, one stop", "baseline", "one");
pub(crate) const DROP_SIX: Column = column("ours, six stops", "ours", "six");
pub(crate) const DROP_LIBPSX: Column = recent(column("C libpsx, six calls", "libpsx", "six"));
pub(crate) const DROP_MIXED: Column = recent(column("glibc and C libpsx", "libpsx", "mixed"));
pub(crate) const DROP_GO: Column = column("Go, six calls", "go", "six");
pub(crate) const DROP_GO_PSX: Column = column("Go psx (cgo), six calls", "go-psx", "six");
pub(crate) const DROP_FLOOR: Column = column("floor, one stop", "floor", "one");
pub(crate) const DROP_FIRST: Column = column("floor, the first stop", "floor", "first");

/// All engines. The ones with a fixed list of threads run only in scenarios in which no thread is created or ends.
const ALL: &[Column] = &[
    OURS,
    LIBPSX,
    GLIBC,
    GLIBC_SID,
    GO,
    GO_PSX,
    MUSL,
    ONE_BY_ONE,
    FLOOR,
    FLOOR_YIELDS,
    FLOOR_SPREAD,
    TWICE,
    ONCE,
    OURS_PRCTL,
    LIBPSX_PRCTL,
    FLOOR_PRCTL,
    SECCOMP,
    LANDLOCK,
];
const HOGGED: &[Column] = &[OURS, MEASURE, LIBPSX, GLIBC, GLIBC_SID, GO, GO_PSX, MUSL, ONE_BY_ONE];
const REAL: &[Column] = &[OURS, LIBPSX, GLIBC, GLIBC_SID, GO, GO_PSX, MUSL, ONE_BY_ONE];
const FAILING: &[Column] =
    &[OURS, MEASURE, LIBPSX, GLIBC, GO, GO_PSX, MUSL, OURS_PRCTL, LIBPSX_PRCTL];
const DROPS: &[Column] =
    &[DROP_ONE, DROP_SIX, DROP_LIBPSX, DROP_MIXED, DROP_GO, DROP_GO_PSX, DROP_FLOOR, DROP_FIRST];

/// This library and the engines that it is compared with: whole libraries, and the floor.
const PEERS: &[Column] = &[OURS, LIBPSX, GLIBC, GO, GO_PSX, MUSL, FLOOR];
/// Without musl, which takes too long beside 64 threads that compute.
const BUSY_PEERS: &[Column] = &[OURS, LIBPSX, GLIBC, GO, GO_PSX, FLOOR];
const PAIR: &[Column] = &[OURS, LIBPSX, GLIBC, GO, GO_PSX, MUSL];

/// One scenario with one number of threads: every column in turn, repeated for each round.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) threads: usize,
    pub(crate) columns: Vec<Column>,
    pub(crate) rounds: usize,
    /// The number of times that all rounds of the scenario are run. Each repeat has its own median.
    pub(crate) repeats: usize,
    /// The time limit of a process, and whether exceeding it counts as an error of this project's engine.
    pub(crate) limit: Duration,
    pub(crate) may_hang: bool,
    /// The time that each process makes calls, and the maximum number of calls.
    pub(crate) budget: Duration,
    pub(crate) calls: usize,
}

/// A server under load.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    pub(crate) rounds: usize,
    pub(crate) lasts: Duration,
    /// The number of threads that do nothing, beside those that serve.
    pub(crate) idle: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    pub(crate) traffic: Traffic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Smoke,
    Quick,
    Full,
}

/// The name of each scenario, and what its threads do.
pub(crate) const SCENARIOS: [(&str, &str); 14] = [
    ("asleep", "N threads asleep"),
    ("busy", "N threads that compute"),
    ("half", "N threads, every second one computes"),
    (
        "churn",
        "N threads asleep, beside two that start other threads and wait for them all the time",
    ),
    ("fifo", "N threads asleep, and a SCHED_FIFO thread that computes"),
    ("fifos", "N threads asleep, and a SCHED_FIFO thread per CPU, asleep too"),
    (
        "fifo-pair",
        "N threads asleep, and two SCHED_FIFO threads of one priority that compute, all on the caller's CPU",
    ),
    ("freeze", "N threads that wake often: the longest delay of any of them, per call"),
    (
        "freeze-busy",
        "N threads that read the clock all the time: the longest gap between two reads, per call",
    ),
    (
        "last",
        "N threads asleep: from the return of the call until the last of them runs its own code",
    ),
    (
        "last-busy",
        "N threads that compute: from the return of the call until the last of them runs its own code",
    ),
    ("fail", "N threads asleep; the kernel refuses the call"),
    (
        "drop",
        "six calls that drop privileges: setgroups, setresgid, setresuid, capset, no_new_privs, Landlock; N threads asleep",
    ),
    ("traffic", "a server under load"),
];

/// Scenarios in which a sample is what the other threads see of a call, not its length.
pub(crate) const WATCHED: [&str; 4] = ["freeze", "freeze-busy", "last", "last-busy"];

/// Longer than the slowest engine that ends at all needs for ten thousand threads.
const HANGS: Duration = Duration::from_secs(90);

impl Extent {
    fn choose<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

pub(crate) fn of(extent: Extent) -> Plan {
    let mut rows = Vec::new();
    let mut add = |scenario, columns: &[Column], threads: &[usize], rounds, ms, calls| {
        rows.extend(threads.iter().map(|&threads| Row {
            scenario,
            threads,
            columns: columns.to_vec(),
            // It takes a while to create ten thousand threads, and one libpsx call takes seconds.
            rounds: if threads >= 10_000 { extent.choose(1, 1, 5) } else { rounds },
            // The target of a drop is close to the measured value, so that one run does not decide it.
            repeats: if scenario == "drop" { extent.choose(2, 1, 5) } else { 1 },
            limit: if scenario == "fifo-pair" {
                Duration::from_secs(extent.choose(2, 5, 10))
            } else {
                HANGS
            },
            may_hang: scenario == "fifo-pair",
            budget: Duration::from_millis(ms),
            calls,
        }));
    };
    let sizes: &[usize] = extent.choose(
        &[0, 8],
        &[0, 1, 2, 8, 64, 512, 2000, 10_000],
        &[0, 1, 2, 8, 64, 512, 2000, 10_000],
    );
    add("asleep", ALL, sizes, extent.choose(1, 5, 15), extent.choose(5, 60, 250), 20_000);
    let few: &[usize] = extent.choose(&[2], &[2, 8], &[1, 2, 8, 64]);
    add("busy", REAL, few, extent.choose(1, 3, 7), extent.choose(20, 150, 1000), 1000);
    // If the time is short, leave out the engines that take longest.
    let many: &[usize] = extent.choose(&[], &[64], &[]);
    add("busy", BUSY_PEERS, many, 2, 150, 1000);
    add("half", REAL, few, extent.choose(1, 3, 7), extent.choose(20, 150, 1000), 1000);
    let few: &[usize] = extent.choose(&[8], &[8, 64], &[8, 64, 512]);
    add("churn", REAL, few, extent.choose(1, 3, 9), extent.choose(20, 100, 500), 5000);
    add("fail", FAILING, few, extent.choose(1, 3, 9), extent.choose(5, 50, 250), 20_000);
    let few: &[usize] = extent.choose(&[8], &[8], &[8, 64, 512]);
    add("fifo", HOGGED, few, extent.choose(1, 3, 7), extent.choose(20, 100, 500), 5000);
    add("fifos", HOGGED, few, extent.choose(1, 2, 5), extent.choose(20, 100, 500), 5000);
    let few: &[usize] = extent.choose(&[0], &[8], &[0, 8]);
    add("fifo-pair", PAIR, few, extent.choose(1, 2, 5), 0, 1);
    let sizes: &[usize] = extent.choose(&[8], &[8, 64, 512], &[8, 64, 512]);
    add("freeze", PEERS, sizes, extent.choose(1, 3, 5), extent.choose(20, 200, 1000), 10_000);
    add("last", PEERS, sizes, extent.choose(1, 3, 5), extent.choose(20, 150, 1000), 10_000);
    // If there are two CPUs, one computing thread has its own CPU. Its gaps then come from the call alone.
    let few: &[usize] = extent.choose(&[1], &[1, 8, 64], &[1, 8, 64]);
    add(
        "freeze-busy",
        BUSY_PEERS,
        few,
        extent.choose(1, 2, 5),
        extent.choose(20, 200, 1000),
        10_000,
    );
    add("last-busy", BUSY_PEERS, few, extent.choose(1, 2, 5), extent.choose(20, 200, 1000), 10_000);
    let many: &[usize] = extent.choose(&[], &[], &[512]);
    add("last-busy", BUSY_PEERS, many, 2, 1000, 10_000);
    let sizes: &[usize] = extent.choose(&[8], &[0, 8, 64, 512], &[0, 1, 8, 64, 512, 2000]);
    add("drop", DROPS, sizes, extent.choose(1, 7, 9), 0, 1);
    let traffic = Traffic {
        rounds: extent.choose(1, 2, 5),
        lasts: Duration::from_secs(extent.choose(1, 2, 5)),
        idle: 60,
    };
    Plan { rows, traffic }
}

impl Plan {
    /// Keeps only the selected rows. An empty list selects everything.
    pub(crate) fn keep(
        &mut self,
        scenarios: &[String],
        programs: &[String],
        threads: &[usize],
        rounds: Option<usize>,
        repeats: Option<usize>,
    ) {
        let wanted = |list: &[String], name: &str| {
            list.is_empty() || list.iter().any(|wanted| wanted == name)
        };
        self.rows.retain(|row| wanted(scenarios, row.scenario));
        self.rows.retain(|row| threads.is_empty() || threads.contains(&row.threads));
        for row in &mut self.rows {
            row.columns.retain(|column| wanted(programs, column.program));
            row.rounds = rounds.unwrap_or(row.rounds);
            row.repeats = repeats.unwrap_or(row.repeats);
        }
        if !wanted(scenarios, "traffic") {
            self.traffic.rounds = 0;
        }
    }

    /// Adds the baseline engine to each row in which this revision's engine is.
    pub(crate) fn add_baseline(&mut self) {
        for row in &mut self.rows {
            for (ours, baseline) in [(OURS, BASELINE), (DROP_ONE, DROP_BASELINE)] {
                if let Some(place) = row.columns.iter().position(|column| *column == ours) {
                    row.columns.insert(place + 1, baseline);
                }
            }
        }
    }

    pub(crate) fn most_threads(&self) -> usize {
        self.rows.iter().map(|row| row.threads).max().unwrap_or(0)
    }

    /// Returns the programs that the plan needs.
    pub(crate) fn programs(&self) -> Vec<&'static str> {
        let all = self.rows.iter().flat_map(|row| &row.columns).map(|column| column.program);
        let mut programs: Vec<_> = all.collect();
        programs.sort_unstable();
        programs.dedup();
        programs
    }
}
