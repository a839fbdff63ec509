//! The findings of one look at the processes, and the conclusions from them. All outputs use these.

use super::expect::Failure;
use super::flags::Flag;
use super::process::Process;
use super::state::{Fields, Namespaces};
use super::verdict::{Judgement, Verdict};

/// How processes are read and judged.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The fields in which a difference counts.
    pub(crate) compared: Fields,
    /// The namespaces of this program, with which those of others are compared.
    pub(crate) namespaces: Option<Namespaces>,
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
        let judgement = Judgement::of(&process, settings.namespaces.as_ref());
        let (flags, varies) = (Flag::of(&process), process.varies(settings.compared));
        Self { process, judgement, flags, failures: Vec::new(), varies }
    }

    /// Records the expectations that do not hold.
    pub(crate) fn fail(&mut self, failures: Vec<Failure>) {
        if failures.iter().any(Failure::counts) && !self.flags.contains(&Flag::Unexpected) {
            self.flags.push(Flag::Unexpected);
            self.flags.sort_unstable();
        }
        self.failures.extend(failures);
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.judgement.as_ref().map(|judgement| judgement.verdict)
    }

    /// Returns whether all expectations hold.
    pub(crate) fn as_expected(&self) -> bool {
        !self.failures.iter().any(Failure::counts)
    }
}

/// The findings of one look at the processes.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) processes: Vec<Audited>,
    /// How many processes could not be read. A process that the user named and that cannot be read is an error.
    pub(crate) unreadable: usize,
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

    /// Returns whether the exit status is 0.
    pub(crate) fn good(&self) -> bool {
        self.consistent() && self.as_expected()
    }
}
