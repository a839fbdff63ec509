//! The findings of one look at the processes, and the conclusions from them. All outputs use these.

use anyhow::{Result, bail};

use super::expect::Failure;
use super::flags::Flag;
use super::process::Process;
use super::state::{Fields, Namespaces, Reference};
use super::verdict::{Judgement, Verdict};

/// The note that processes may be missing.
pub(crate) const HIDDEN: &str =
    "/proc may hide processes of other users (hidepid, proc(5)): run psx as root";

/// How processes are read and judged.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The fields in which a difference counts.
    pub(crate) compared: Fields,
    /// The namespaces with which those of the processes are compared.
    pub(crate) reference: Reference,
}

/// Returns the number with the word for it.
pub(crate) fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A process and its findings.
#[derive(Debug)]
pub(crate) struct Audited {
    pub(crate) process: Process,
    /// None if no thread of the process runs.
    pub(crate) judgement: Option<Judgement>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) failures: Vec<Failure>,
    /// The fields that are not compared and in which threads differ.
    pub(crate) varies: Vec<super::state::Field>,
}

impl Audited {
    pub(crate) fn new(process: Process, settings: &Settings) -> Self {
        let judgement = Judgement::of(&process, &settings.reference);
        let (flags, varies) = (Flag::of(&process), process.varies(settings.compared));
        Self { process, judgement, flags, failures: Vec::new(), varies }
    }

    /// Records the expectations that do not hold.
    pub(crate) fn fail(&mut self, failures: Vec<Failure>) {
        self.failures.extend(failures);
        let flags = [(Flag::Unexpected, self.violates()), (Flag::Unchecked, self.undecided() > 0)];
        self.flags.extend(flags.into_iter().filter_map(|(flag, is)| is.then_some(flag)));
        self.flags.sort_unstable();
        self.flags.dedup();
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.judgement.as_ref().map(|judgement| judgement.verdict)
    }

    /// Returns whether an expectation does not hold.
    pub(crate) fn violates(&self) -> bool {
        self.failures.iter().any(Failure::counts)
    }

    /// Returns how many expectations could not be checked.
    pub(crate) fn undecided(&self) -> usize {
        self.failures.iter().filter(|failure| failure.undecided()).count()
    }

    /// Returns whether all expectations hold. An expectation about what cannot be seen does not, except one of a policy or a
    /// unit about what the kernel shows to no user.
    pub(crate) fn as_expected(&self) -> bool {
        !self.violates() && self.undecided() == 0
    }
}

/// The findings of one look at the processes.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) processes: Vec<Audited>,
    /// How many processes could not be read, or not be assigned to the user, unit or rule that was asked for. A process
    /// that the user named and that cannot be read is an error.
    pub(crate) unreadable: usize,
    /// Whether processes were looked for in a /proc that may hide some.
    pub(crate) hidden: bool,
    /// How many threads of the kernel were left out.
    pub(crate) kernel: usize,
    /// Rules that require a process, and that no process matches.
    pub(crate) missing: Vec<String>,
    /// The namespaces of this program.
    pub(crate) namespaces: Option<Namespaces>,
}

impl Audit {
    pub(crate) fn consistent(&self) -> bool {
        self.processes.iter().all(|one| one.process.consistent())
    }

    pub(crate) fn as_expected(&self) -> bool {
        self.missing.is_empty() && self.processes.iter().all(Audited::as_expected)
    }

    /// Returns false, which is exit status 1, if threads differ or an expectation does not hold. Otherwise, returns an
    /// error, which is exit status 2, if something could not be read.
    pub(crate) fn conclude(&self) -> Result<bool> {
        let bad = |one: &Audited| one.process.diverges() || one.violates();
        if self.processes.iter().any(bad) || !self.missing.is_empty() {
            return Ok(false);
        }
        let unknown = self.unknown();
        if unknown.is_empty() {
            return Ok(true);
        }
        bail!("{}", unknown.join("; "))
    }

    /// Returns the end of a message: how many processes could not be read.
    pub(crate) fn unread(&self) -> String {
        let hidden = if self.hidden { format!("; {HIDDEN}") } else { String::new() };
        match self.unreadable {
            0 => hidden,
            n => format!("; {n} could not be read{hidden}"),
        }
    }

    /// Returns what could not be read.
    fn unknown(&self) -> Vec<String> {
        let mut all = Vec::new();
        let count = |n| counted(n, "process", "processes");
        if self.unreadable > 0 {
            all.push(format!("{} could not be read and checked", count(self.unreadable)));
        }
        if self.hidden {
            all.push(HIDDEN.to_owned());
        }
        let incomplete = self.processes.iter().filter(|one| !one.process.complete).count();
        if incomplete > 0 {
            all.push(format!(
                "{} could not be read completely: threads come and go faster than they can be read",
                count(incomplete)
            ));
        }
        let undecided = self.processes.iter().map(Audited::undecided).sum();
        if undecided > 0 {
            let undecided = counted(undecided, "expectation", "expectations");
            all.push(format!("{undecided} could not be checked: psx cannot see the state"));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Names;
    use super::super::table::Look;
    use super::super::{ecs, html, json, list, prometheus, remarks};
    use super::*;

    #[test]
    fn a_process_that_was_not_read_completely_is_reported_in_every_format() {
        let settings = Settings { compared: Fields::usual(), reference: Reference::default() };
        let own = i32::try_from(std::process::id()).unwrap();
        let mut process = Process::read(own, settings.compared).unwrap();
        process.groups.truncate(1);
        process.complete = false;
        let audit = Audit { processes: vec![Audited::new(process, &settings)], ..Audit::default() };
        let mut names = Names::default();
        let process = &audit.processes[0].process;
        let own = nix::unistd::geteuid().as_raw();
        assert_eq!((process.has_user(own), process.has_user(own + 1)), (Some(true), None));
        assert!(!audit.consistent());
        let error = audit.conclude().unwrap_err().to_string();
        assert!(error.starts_with("1 process could not be read completely: threads"), "{error}");
        let shown: Vec<_> = audit.processes.iter().collect();
        let look = Look { colored: false, width: None, explain: true, threads: false, long: false };
        let text = remarks::remarks(&audit, &shown, look);
        assert!(text.contains("its threads come and go faster than they can be read"), "{text}");
        assert!(
            text.contains("thread: 1 was not read completely; ") || text.contains("threads: 1 was")
        );
        assert!(text.contains("\nincomplete: "), "{text}");
        let line = list::list(&shown, false, look, &mut names);
        assert!(line.contains("unread"), "{line}");
        let report = json::render(&audit, &mut names);
        let members = &report["processes"][0];
        assert_eq!((&report["consistent"], &members["complete"]), (&false.into(), &false.into()));
        assert_eq!(members["flags"][0], "incomplete", "{members}");
        let line = ecs::render(&audit, &mut names);
        assert!(line.contains("\"outcome\":\"unknown\"") && line.contains("\"complete\":false"));
        let page = html::render(&audit, &mut names).unwrap();
        assert!(page.contains("<p class=\"note\">incomplete: "), "{page}");
        let metrics = prometheus::render(&audit);
        assert!(metrics.contains("\npsx_audit_incomplete_processes 1\n"), "{metrics}");
    }
}
