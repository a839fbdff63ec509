//! `psx audit`: shows from outside whether all threads of a process may do the same, and how much that is.
//!
//! All data comes from /proc and from system calls that only read. psx audit needs no privilege of its own, and reports
//! the fields that this user cannot see. Threads and processes can end while they are read; such a thread or process
//! is left out.
//!
//! The modules depend on each other in one direction: `mapping`, `state`, `identity` and `process` read; `verdict`, `flags`,
//! `expect`, `policy` and `unit` judge; `look` holds the result; `table`, `list`, `remarks`, `json`, `ecs`,
//! `prometheus`, `html`, `diff` and `watch` print it.
//!
//! Exit status: 0 if all processes are consistent, as far as this user sees, and as expected, 1 if a process is not, 2 if a process cannot be read
//! (completely), or if the command line or a file is wrong.

mod arguments;
mod diff;
mod ecs;
pub(crate) mod expect;
mod flags;
mod html;
pub(crate) mod identity;
mod json;
mod list;
mod look;
mod mapping;
mod names;
pub(crate) mod policy;
mod process;
mod prometheus;
mod remarks;
mod state;
mod table;
mod unit;
mod verdict;
mod watch;

use std::io::Write as _;

use anyhow::{Context, Result, bail};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::output::print;
use crate::parallel;
use crate::tasks;
use crate::terminal::{self, Progress};
pub(crate) use arguments::Arguments;
use arguments::{Format, Only, SELECT};
pub(crate) use expect::keys;
use expect::{Checker, Expectation, Level};
use look::{Audit, Audited, Settings};
use names::Names;
use policy::Policy;
use process::{Process, Unread};
use state::{Fields, Reference};
use table::Look;
use verdict::Verdict;

/// The contents of the files on the command line.
struct Files {
    policy: Option<Policy>,
    unit: Option<unit::Promises>,
    before: Option<diff::Saved>,
}

impl Arguments {
    /// Returns whether all is well. An error is exit status 2.
    pub(crate) fn run(mut self) -> Result<bool> {
        if self.json {
            self.format = Format::Json;
        }
        let selected =
            !self.pids.is_empty() || self.all || self.name.is_some() || self.user.is_some();
        let implied = self.policy.is_some() || self.unit.is_some() || self.diff.is_some();
        if !selected && !implied && self.save.is_none() && self.html.is_none() {
            bail!("{SELECT}");
        }
        let files = Files {
            policy: self.policy.as_deref().map(Policy::read).transpose()?,
            unit: self.unit.as_deref().map(unit::Promises::read).transpose()?,
            before: self.diff.as_deref().map(diff::Saved::read).transpose()?,
        };
        let mut names = Names::default();
        if let Some(interval) = self.watch {
            return watch::run(&self, &files, interval, &mut names);
        }
        let mut progress = if self.quiet { Progress::silent() } else { Progress::new() };
        let audit = self.look(&files, &mut names, &mut progress)?;
        drop(progress);
        if let Some(path) = &self.save {
            let text = serde_json::to_string(&json::render(&audit, &mut names))? + "\n";
            write_file(path, &text)?;
        }
        if let Some(path) = &self.html {
            write_file(path, &html::render(&audit, &mut names)?)?;
        }
        if let Some(before) = &files.before {
            let changes = before.changes(&json::render(&audit, &mut names));
            if !self.quiet {
                // What makes the exit status 1 without a change is said too.
                let found = remarks::findings(&audit, self.appearance());
                print(&changes.render(self.format == Format::Json, &audit, &found)?)?;
            }
            return if changes.is_empty() { audit.conclude() } else { Ok(false) };
        }
        if !self.quiet {
            print(&self.render(&audit, &mut names)?)?;
        }
        audit.conclude()
    }

    fn render(&self, audit: &Audit, names: &mut Names) -> Result<String> {
        Ok(match self.format {
            Format::Json => serde_json::to_string_pretty(&json::render(audit, names))? + "\n",
            Format::Ecs => ecs::render(audit, names),
            Format::Prometheus => prometheus::render(audit),
            Format::Text => {
                let (look, shown) = (self.appearance(), self.shown(audit));
                let body = if self.lists() {
                    list::list(&shown, self.tree, look, names)
                } else {
                    table::table(&table::rows(&shown, look, names), look) + "\n"
                };
                body + &remarks::remarks(audit, &shown, look)
            }
        })
    }

    /// Returns whether one line for each process is printed.
    fn lists(&self) -> bool {
        self.tree || (self.pids.is_empty() && !self.long)
    }

    fn appearance(&self) -> Look {
        Look {
            colored: self.color.colored(),
            width: terminal::size().map(|(width, _)| width),
            explain: self.explain,
            threads: self.threads,
            long: self.long,
        }
    }

    /// Returns the processes that are shown.
    fn shown<'a>(&self, audit: &'a Audit) -> Vec<&'a Audited> {
        let is = |audited: &Audited, only: &Only| match only {
            Only::Divergent => !audited.process.consistent(),
            Only::Privileged => audited.verdict() == Some(Verdict::Privileged),
            Only::Violations => !audited.as_expected(),
        };
        let shown =
            |one: &&Audited| self.only.is_empty() || self.only.iter().any(|only| is(one, only));
        audit.processes.iter().filter(shown).collect()
    }

    fn settings(&self) -> Settings {
        let mut compared = Fields::usual();
        for &field in &self.compare {
            compared = compared.with(field);
        }
        for &field in &self.ignore {
            compared = compared.without(field);
        }
        Settings { compared, reference: Reference::read() }
    }

    /// Reads the requested processes, and checks them.
    fn look(&self, files: &Files, names: &mut Names, progress: &mut Progress) -> Result<Audit> {
        let settings = self.settings();
        let mut audit = Audit { namespaces: settings.reference.own, ..Audit::default() };
        if self.pids.is_empty() {
            self.search(&mut audit, files, &settings, progress)?;
        } else {
            for &pid in &self.pids {
                match Process::read(pid, settings.compared) {
                    Ok(process) => audit.processes.push(Audited::new(process, &settings)),
                    Err(why) => bail!("process {pid}: {}", said(pid, why)),
                }
                progress.tick(|| format!("reading process {pid}"));
            }
            audit.processes.sort_by_key(|one| one.process.pid);
            audit.processes.dedup_by_key(|one| one.process.pid);
        }
        // A unit is not checked for a zombie.
        if let Some(unit) = files.unit.as_ref().filter(|_| !audit.processes.iter().any(runs)) {
            bail!("no thread of the named processes runs; nothing was checked for {}", unit.name());
        }
        let mut checker = Checker { names, reference: &settings.reference };
        for audited in &mut audit.processes {
            let check =
                |one: &Expectation| one.check(&audited.process, None, Level::Error, &mut checker);
            let failures = self.expect.iter().filter_map(check).collect();
            audited.fail(failures);
            if let Some(unit) = &files.unit {
                let failures = unit.check(&audited.process, &mut checker);
                audited.fail(failures);
            }
        }
        if let Some(policy) = &files.policy {
            policy.apply(&mut audit, &mut checker);
        }
        list::sort(&mut audit, self.sort, names);
        Ok(audit)
    }

    fn search(
        &self,
        audit: &mut Audit,
        files: &Files,
        settings: &Settings,
        progress: &mut Progress,
    ) -> Result<()> {
        let mut pids = tasks::processes().context("reading /proc")?;
        pids.sort_unstable();
        audit.hidden = tasks::hides_processes(&pids);
        let read = |&pid: &i32| self.matching(pid, settings.compared);
        let tick = |done| progress.tick(|| format!("process {done} of {}", pids.len()));
        for found in parallel::map(&pids, read, tick) {
            match found {
                Ok(Some(process)) if process.kernel => audit.kernel += 1,
                Ok(Some(process)) => audit.processes.push(Audited::new(process, settings)),
                Ok(None) | Err(Unread::Gone) => {}
                Err(Unread::Refused(_)) => audit.unreadable += 1,
            }
        }
        let selected = self.all || self.name.is_some() || self.user.is_some();
        if let Some(unit) = files.unit.as_ref().filter(|_| !selected) {
            let unseen = |one: &&Audited| {
                one.process.identity.place_unseen && !one.process.groups.is_empty()
            };
            audit.unreadable += audit.processes.iter().filter(unseen).count();
            audit.processes.retain(|one| unit.is_of(&one.process));
            audit.kernel = 0;
            if !audit.processes.iter().any(runs) {
                let (name, unread) = (unit.name(), audit.unread());
                bail!("no process of the unit {name} runs; nothing was checked{unread}");
            }
        }
        if let Some(policy) = files.policy.as_ref().filter(|_| !selected) {
            audit.processes.retain(|one| policy.concerns(one));
            audit.kernel = 0;
            return Ok(());
        }
        if audit.processes.is_empty() {
            let (selection, unread) = (self.selection(), audit.unread());
            bail!("no readable process matches {selection}{unread}");
        }
        if !audit.processes.iter().any(runs) {
            let (selection, unread) = (self.selection(), audit.unread());
            bail!("only zombies match {selection}; nothing was checked{unread}");
        }
        Ok(())
    }

    /// Returns the selection as it was given.
    fn selection(&self) -> String {
        let name = self.name.as_ref().map(|pattern| format!("--name {pattern}"));
        let user = self.user.as_ref().map(|user| format!("--user {user}"));
        let parts: Vec<_> = name.into_iter().chain(user).collect();
        if parts.is_empty() { "--all".to_owned() } else { parts.join(" ") }
    }

    /// Returns the process if it is selected.
    fn matching(&self, pid: i32, compared: Fields) -> Result<Option<Process>, Unread> {
        if let Some(pattern) = &self.name {
            let leader = tasks::Process::open(pid)?.task(pid)?.stat()?;
            if !pattern.is_match(&leader.name) {
                return Ok(None);
            }
        }
        let process = Process::read(pid, compared)?;
        match self.user.map_or(Some(true), |id| process.has_user(id)) {
            Some(has) => Ok(has.then_some(process)),
            None => Err(Unread::Refused(nix::Error::EAGAIN)),
        }
    }
}

/// Returns whether a thread of the process runs. A thread that was not read may.
fn runs(audited: &Audited) -> bool {
    !audited.process.zombie()
}

/// Replaces a file as a whole: a reader sees the old contents or the new ones. Writes directly to a device or a pipe.
fn write_file(path: &std::path::Path, text: &str) -> Result<()> {
    let shown = path.display();
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return std::fs::write(path, text).with_context(|| format!("writing {shown}"));
    }
    let name = path.file_name().with_context(|| format!("{shown} does not name a file"))?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The error of the write is reported, and an error of the removal is not.
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("writing {shown}"))
}

/// Returns why a process was not read, for people.
fn said(pid: i32, why: Unread) -> String {
    let hidden = "it is there, but /proc does not show it (hidepid, proc(5))";
    match why {
        // kill(2) finds processes that /proc hides.
        Unread::Gone => match kill(Pid::from_raw(pid), None) {
            Ok(()) | Err(nix::Error::EPERM) if tasks::Process::open(pid).is_err() => {
                hidden.to_owned()
            }
            _ => "there is no such process".to_owned(),
        },
        Unread::Refused(error) => format!("it cannot be read: {}", error.desc()),
    }
}
