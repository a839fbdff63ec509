//! `psx audit`: whether all threads of a process may do the same, seen from outside.
//!
//! Everything comes from /proc, and needs no right that the kernel does not ask for: who may not see the
//! namespaces of a process is told so. Threads and processes vanish while they are read; what is gone is
//! left out.
//!
//! Exit status: 0 all are consistent and as expected, 1 one is not, 2 a process that was asked for cannot
//! be read, or the command line makes no sense.

mod expect;
mod flags;
mod json;
mod names;
mod process;
mod state;
mod table;
mod watch;

use std::io::Write as _;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::kill;
use nix::unistd::{Pid, User};
use regex::bytes::Regex;

use crate::tasks;
use crate::terminal::{self, ColorChoice, Progress};
use expect::Expectation;
use flags::Flag;
use names::Names;
use process::{Process, Unread};
use state::Field;
use table::Look;

#[derive(Args)]
#[command(after_long_help = AFTER)]
pub(crate) struct Arguments {
    /// Processes to read; the number of a thread stands for its process
    #[arg(value_name = "PID", required_unless_present_any = ["all", "name", "user"],
          conflicts_with_all = ["all", "name", "user"], value_parser = clap::value_parser!(i32).range(1..))]
    pids: Vec<i32>,
    /// Every process that may be read, but for threads of the kernel
    #[arg(long)]
    all: bool,
    /// Processes whose name (comm, at most 15 bytes) matches
    #[arg(long, value_name = "REGEX")]
    name: Option<Regex>,
    /// Processes of which a thread has this effective user, by name or number
    #[arg(long, value_name = "NAME", value_parser = user)]
    user: Option<u32>,
    /// What must hold for every thread: uid=65534,nnp=1,caps=none
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',')]
    expect: Vec<Expectation>,
    /// Fields in which threads may differ
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',', value_enum)]
    ignore: Vec<Field>,
    /// Say of each flag why it matters, and what to call
    #[arg(long)]
    explain: bool,
    /// Look again every so many seconds, and mark what changed
    #[arg(long, value_name = "SECONDS", value_parser = watch::interval)]
    watch: Option<std::time::Duration>,
    /// With --watch: end after so many looks
    #[arg(long, value_name = "N", requires = "watch")]
    times: Option<std::num::NonZeroU32>,
    /// Print JSON (docs/audit-json.md); with --watch one line for each look
    #[arg(long, conflicts_with = "explain")]
    json: bool,
    /// Print nothing; the exit status tells
    #[arg(long, short, conflicts_with_all = ["json", "explain", "watch"])]
    quiet: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    color: ColorChoice,
}

const AFTER: &str = "\
Threads in the same state are one line. The first line of a process is that of its leader; the others say \
which threads differ from it, and in what. Workers of the kernel (io_uring, vhost) are listed apart.

Keys of --expect: uid, gid (all four ids), ruid, euid, suid, fsuid, rgid, egid, sgid, fsgid: a name or number; \
groups: none, or names joined by +; caps (effective, permitted, inheritable and ambient together), effective, \
permitted, inheritable, ambient, bounding: none, all, or names joined by +; nnp: 0 or 1; seccomp: disabled, \
strict or filter; filters: how many; label; sched: other, fifo, rr, batch, idle, deadline, ext.

Exit status: 0 all threads of each process may do the same, and what was expected holds; 1 not so for some \
process; 2 a process that was asked for cannot be read, none was found, or the command line makes no sense.

Examples:
  psx audit 1234                             one process
  psx audit --name '^nginx$' --explain       all of one name, with advice
  psx audit --all --ignore sched --quiet     a check for cron
  psx audit --expect uid=www-data,nnp=1,caps=none \"$(pidof -s nginx)\"";

fn user(name: &str) -> Result<u32, String> {
    let named = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    name.parse().ok().or_else(named).ok_or_else(|| "there is no such user".to_owned())
}

/// What one look at the processes has found.
pub(crate) struct Audit {
    pub(crate) processes: Vec<Process>,
    /// How many could not be read, of those that nobody named.
    pub(crate) unreadable: usize,
    /// How many threads of the kernel were left out.
    pub(crate) kernel: usize,
}

impl Audit {
    pub(crate) fn consistent(&self) -> bool {
        self.processes.iter().all(Process::consistent)
    }

    pub(crate) fn as_expected(&self) -> bool {
        self.processes.iter().all(|process| process.failures.is_empty())
    }

    fn good(&self) -> bool {
        self.consistent() && self.as_expected()
    }
}

impl Arguments {
    /// Whether all is well; an error is exit status 2.
    pub(crate) fn run(self) -> Result<bool> {
        let mut names = Names::default();
        if let Some(interval) = self.watch {
            return watch::run(&self, interval, &mut names);
        }
        let mut progress = if self.quiet { Progress::silent() } else { Progress::new() };
        let audit = self.look(&mut names, &mut progress)?;
        drop(progress);
        if !self.quiet {
            let text = self.render(&audit, &mut names)?;
            std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
        }
        Ok(audit.good())
    }

    fn render(&self, audit: &Audit, names: &mut Names) -> Result<String> {
        if self.json {
            return Ok(serde_json::to_string_pretty(&json::render(audit, names))? + "\n");
        }
        let look = self.appearance();
        let rows = table::rows(audit, names);
        Ok(table::table(&rows, look) + "\n" + &table::remarks(audit, look))
    }

    fn appearance(&self) -> Look {
        let width = terminal::size().map(|(width, _)| width);
        Look { colored: self.color.colored(), width, explain: self.explain }
    }

    /// Reads the processes that were asked for.
    fn look(&self, names: &mut Names, progress: &mut Progress) -> Result<Audit> {
        let mut audit = Audit { processes: Vec::new(), unreadable: 0, kernel: 0 };
        if self.pids.is_empty() {
            self.search(&mut audit, progress)?;
        } else {
            for &pid in &self.pids {
                match Process::read(pid, &self.ignore) {
                    Ok(process) => audit.processes.push(process),
                    Err(why) => bail!("process {pid}: {}", said(pid, why)),
                }
                progress.tick(|| format!("reading process {pid}"));
            }
            audit.processes.sort_by_key(|process| process.pid);
            audit.processes.dedup_by_key(|process| process.pid);
        }
        for process in &mut audit.processes {
            process.failures = expect::failures(&self.expect, process, names);
            if !process.failures.is_empty() {
                process.flags.push(Flag::Unexpected);
            }
        }
        Ok(audit)
    }

    fn search(&self, audit: &mut Audit, progress: &mut Progress) -> Result<()> {
        let mut pids = tasks::processes().context("reading /proc")?;
        pids.sort_unstable();
        for (done, &pid) in pids.iter().enumerate() {
            progress.tick(|| format!("process {done} of {}", pids.len()));
            match self.matching(pid) {
                Ok(Some(process)) if process.kernel => audit.kernel += 1,
                Ok(Some(process)) => audit.processes.push(process),
                Ok(None) | Err(Unread::Gone) => {}
                Err(Unread::Refused(_)) => audit.unreadable += 1,
            }
        }
        if audit.processes.is_empty() {
            bail!("no process is like that, of those that may be read");
        }
        Ok(())
    }

    /// The process, if it is one of those that are sought.
    fn matching(&self, pid: i32) -> Result<Option<Process>, Unread> {
        if let Some(pattern) = &self.name {
            let leader = tasks::Process::open(pid)?.task(pid)?.stat()?;
            if !pattern.is_match(&leader.name) {
                return Ok(None);
            }
        }
        let process = Process::read(pid, &self.ignore)?;
        let effective =
            |id| process.groups.iter().any(|group| group.state.credentials.user.effective == id);
        Ok(self.user.is_none_or(effective).then_some(process))
    }
}

/// Why a process was not read, for people.
fn said(pid: i32, why: Unread) -> String {
    let hidden = "it is there, but /proc does not show it (hidepid, proc(5))";
    match why {
        // kill(2) knows of processes that /proc hides.
        Unread::Gone => match kill(Pid::from_raw(pid), None) {
            Ok(()) | Err(nix::Error::EPERM) if tasks::Process::open(pid).is_err() => {
                hidden.to_owned()
            }
            _ => "there is no such process".to_owned(),
        },
        Unread::Refused(error) => format!("it cannot be read: {}", error.desc()),
    }
}
