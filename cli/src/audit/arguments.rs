//! The command line of `psx audit`: its options, and what `--help` says after them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use regex::bytes::Regex;

use super::expect::{Expectation, user};
use super::list::Order;
use super::state::Field;
use crate::terminal::ColorChoice;

#[derive(Args)]
#[command(after_long_help = AFTER)]
pub(crate) struct Arguments {
    /// Processes to read; the number of a thread stands for its process
    #[arg(value_name = "PID", conflicts_with_all = ["all", "name", "user"],
          value_parser = clap::value_parser!(i32).range(1..))]
    pub(super) pids: Vec<i32>,
    /// Read every process, except threads of the kernel
    #[arg(long, help_heading = "Which processes")]
    pub(super) all: bool,
    /// Read the processes whose name (comm, at most 15 bytes) matches
    #[arg(long, value_name = "REGEX", help_heading = "Which processes")]
    pub(super) name: Option<Regex>,
    /// Read the processes in which a thread has this effective user, by name or number
    #[arg(long, value_name = "NAME", value_parser = user, help_heading = "Which processes")]
    pub(super) user: Option<u32>,
    /// Show only some of the processes; the exit status is about all of them
    #[arg(
        long,
        value_name = "WHICH,...",
        value_delimiter = ',',
        value_enum,
        help_heading = "Which processes"
    )]
    pub(super) only: Vec<Only>,

    /// Check that this holds for every thread: uid=65534,nnp=1,caps=none
    #[arg(
        long,
        value_name = "KEY=VALUE,...",
        value_delimiter = ',',
        help_heading = "What must hold"
    )]
    pub(super) expect: Vec<Expectation>,
    /// Check the rules of a TOML file (docs/audit-policy.md)
    #[arg(long, value_name = "FILE", help_heading = "What must hold")]
    pub(super) policy: Option<PathBuf>,
    /// Check what a unit of systemd promises: the name of a unit of this system, or the path of a file, with a /; without a
    /// selection, read the processes of this unit
    #[arg(long, value_name = "UNIT|FILE", help_heading = "What must hold")]
    pub(super) unit: Option<PathBuf>,
    /// Compare these fields too, which threads often set for themselves
    #[arg(
        long,
        value_name = "FIELD,...",
        value_delimiter = ',',
        value_enum,
        help_heading = "What must hold"
    )]
    pub(super) compare: Vec<Field>,
    /// Do not compare these fields
    #[arg(
        long,
        value_name = "FIELD,...",
        value_delimiter = ',',
        value_enum,
        help_heading = "What must hold"
    )]
    pub(super) ignore: Vec<Field>,
    /// Save what was found as JSON, for --diff
    #[arg(long, value_name = "FILE", help_heading = "What must hold")]
    pub(super) save: Option<PathBuf>,
    /// Show what changed since FILE was saved, and what is wrong now; exit status 1 if there is either
    #[arg(long, value_name = "FILE", conflicts_with_all = ["watch", "tree"],
          help_heading = "What must hold")]
    pub(super) diff: Option<PathBuf>,

    /// Print the table with all fields, not one line for each process
    #[arg(long, conflicts_with = "tree", help_heading = "Output")]
    pub(super) long: bool,
    /// Print one line for each process, children below their parents
    #[arg(long, help_heading = "Output")]
    pub(super) tree: bool,
    /// The order of the processes
    #[arg(long, value_name = "ORDER", value_enum, default_value = "pid", help_heading = "Output")]
    pub(super) sort: Order,
    /// Name all threads of each group, not the first eight
    #[arg(long, help_heading = "Output")]
    pub(super) threads: bool,
    /// Explain each flag and verdict: why it matters, and which function repairs it
    #[arg(long, help_heading = "Output")]
    pub(super) explain: bool,
    /// Look again every so many seconds, and mark what changed
    #[arg(long, value_name = "SECONDS", value_parser = interval, help_heading = "Output")]
    pub(super) watch: Option<std::time::Duration>,
    /// With --watch: end after this number of looks; the exit status is that of the worst look
    #[arg(long, value_name = "N", requires = "watch", help_heading = "Output")]
    pub(super) times: Option<std::num::NonZeroU32>,
    /// The format of the output
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        conflicts_with = "json",
        help_heading = "Output"
    )]
    pub(super) format: Format,
    /// The same as --format json; with --watch, one line for each look
    #[arg(long, conflicts_with = "explain", help_heading = "Output")]
    pub(super) json: bool,
    /// Also write a page for a browser; it needs no other file and no network
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) html: Option<PathBuf>,
    /// Print nothing; the exit status is the result
    #[arg(long, short, conflicts_with_all = ["json", "explain", "watch"], help_heading = "Output")]
    pub(super) quiet: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto", help_heading = "Output")]
    pub(super) color: ColorChoice,
}

/// Which of the processes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Only {
    /// Processes whose threads differ
    Divergent,
    /// Processes with the verdict privileged
    Privileged,
    /// Processes that are not as expected
    Violations,
}

/// The format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// One object (docs/audit-json.md); with --watch, one line for each look
    Json,
    /// One line of JSON for each thread, with the names of the Elastic Common Schema
    Ecs,
    /// For the textfile collector of Prometheus's node_exporter
    Prometheus,
}

const AFTER: &str = "\
Threads in the same state are one row. The first row of a process is that of its leader. The other rows say which \
threads differ from it, and in which fields. Workers of the kernel (io_uring, vhost) are listed apart. They must not \
have more than is expected of the threads.

Verdicts: privileged: root, or capabilities that lead to root; reduced: some of root's privilege; unprivileged: no \
capability and no user ID of root; sandboxed: unprivileged, with no_new_privs and a seccomp filter. Root is privileged in a mount namespace of its own too, and reduced in a root \
directory of its own only if no capability leads out of it. --explain gives the reasons.

Keys of --expect: uid, gid (all four IDs), ruid, euid, suid, fsuid, rgid, egid, sgid, fsgid: a name or number; \
groups: none, or names joined by +; caps (effective, permitted, inheritable and ambient together), effective, \
permitted, inheritable, ambient, bounding: none, all, or names joined by +; nnp: 0 or 1; seccomp: disabled, \
strict or filter; filters: a number; label, or none; sched: other, fifo, rr, batch, idle, deadline, ext; priority; namespaces: \
the kinds that are those of neither psx nor process 1, nor the initial ones; root, cwd: a path, or changed; umask; nice; ioprio; affinity; timer-slack; \
personality; verdict; dumpable; consistent. Sets, filters, namespaces and verdict can be compared: caps<=cap_kill, \
filters>=1.

Not compared unless --compare names them: affinity, mems, nice, ioprio, timer-slack. Daemons set them per thread on \
purpose. The kernel does not show the securebits, keyrings and Landlock domain of another process.

Exit status: 0 if no threads of a process were found to differ and all expectations hold; 1 if threads differ or an \
expectation does not hold, or if --diff found a change; 2 if none of this was found and a process, all its threads, or a state that an \
expectation is about cannot be read, if /proc may hide processes (hidepid), if no process was found, or if the command line or a file is wrong. What --policy \
and --unit say about a state that the kernel shows to no user is reported as not checked, and changes no exit status. A \
field that this user cannot see (namespaces or directories of other users' processes) is not compared. The output names \
it, and the exit status stays the same: --expect consistent asks that all fields were compared, and returns 2 then.

Examples:
  psx audit 1234                        one process
  psx audit --all --sort verdict        the most privileged ones first
  psx audit --name '^nginx$' --explain  by name, with advice
  psx audit --all -q --ignore sched     a check for cron
  psx audit --unit nginx.service        what the unit promises
  psx audit --expect uid=www-data,nnp=1,caps=none \"$(pidof -s nginx)\"
  psx audit --save before.json; psx audit --diff before.json";

/// The message of `psx audit` if no process was selected.
pub(super) const SELECT: &str = "\
no process was selected; nothing was read. Select processes with one of:

  psx audit PID...              these processes
  psx audit --all               every process
  psx audit --name REGEX        by name, for example --name '^nginx$'
  psx audit --user NAME         by effective user
  psx audit --unit UNIT         the processes of a unit, and what it promises
  psx audit --policy FILE       the processes that the rules of a file match
  psx audit --diff FILE         every process, compared with a saved state

psx audit --help describes all options.";

/// Parses a number of seconds, with or without a fraction.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(interval) if interval >= Duration::from_millis(10) => Ok(interval),
        _ => Err("the interval is at least 0.01 seconds".to_owned()),
    }
}
