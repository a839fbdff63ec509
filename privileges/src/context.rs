//! What a process is in, apart from its credentials: namespaces, and how its threads are scheduled; and what has to be
//! made for that before all threads are stopped.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use libpsx::process::{self, IoPriority, Namespace, NewNamespace, SchedAttr, SessionKeyring};

use crate::step::Step;
use crate::verify::{self, Joined};

/// The settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExecutionContext {
    /// Kinds of which a new namespace is made.
    pub(crate) new_namespaces: Vec<Namespace>,
    /// Namespaces that are there.
    pub(crate) joined: Vec<(Namespace, Arc<OwnedFd>)>,
    pub(crate) scheduling: Option<SchedAttr>,
    pub(crate) nice: Option<i32>,
    pub(crate) io_priority: Option<IoPriority>,
    /// Bit `n` of the words together is CPU `n`.
    pub(crate) cpus: Option<Vec<u64>>,
    pub(crate) timer_slack: Option<Duration>,
}

impl ExecutionContext {
    /// The kinds of namespaces that change.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Namespace> {
        self.new_namespaces.iter().copied().chain(self.joined.iter().map(|(kind, _)| *kind))
    }

    /// Where the links of /proc to the namespaces will lead.
    pub(crate) fn expected(&self) -> Vec<(&'static str, Joined)> {
        let now = |kind| {
            let path = CString::new(format!("/proc/thread-self/{}", link(kind))).ok()?;
            verify::place_at(libc::AT_FDCWD, &path)
        };
        let new = self.new_namespaces.iter().map(|&kind| (link(kind), Joined::New(now(kind))));
        let these = self
            .joined
            .iter()
            .map(|(kind, fd)| (link(*kind), Joined::This(verify::place_at(fd.as_raw_fd(), c""))));
        new.chain(these).collect()
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.scheduling.is_some()
            || self.nice.is_some()
            || self.io_priority.is_some()
            || self.cpus.is_some()
            || self.timer_slack.is_some()
    }

    /// The calls. They need privilege, so they come before the ids change.
    pub(crate) fn steps(self) -> impl Iterator<Item = Step> {
        let made = self.new_namespaces.into_iter().map(Step::NewNamespace);
        let joined = self.joined.into_iter().map(|(kind, fd)| Step::JoinNamespace(kind, fd));
        made.chain(joined)
            .chain(self.scheduling.map(Step::Scheduling))
            .chain(self.nice.map(Step::Nice))
            .chain(self.io_priority.map(Step::IoPriority))
            .chain(self.cpus.map(Step::Cpus))
            .chain(self.timer_slack.map(Step::TimerSlack))
    }
}

/// Where /proc has a link to the namespace of a thread.
pub(crate) fn link(kind: Namespace) -> &'static str {
    match kind {
        Namespace::Network => "ns/net",
        Namespace::Uts => "ns/uts",
        Namespace::Ipc => "ns/ipc",
        _ => "ns/cgroup",
    }
}

/// What is made for a plan, which no thread is in yet.
pub(crate) struct Prepared<'n> {
    keyring: Option<SessionKeyring<'n>>,
    namespaces: [Option<NewNamespace>; Namespace::ALL.len()],
}

/// Something could not be made: a namespace, or else the keyring.
pub(crate) struct PrepareError {
    pub(crate) kind: Option<Namespace>,
    pub(crate) error: libpsx::Error,
}

impl<'n> Prepared<'n> {
    /// Makes what the steps join. It does not allocate.
    pub(crate) fn new(steps: &[Step], name: &'n CStr) -> Result<Self, PrepareError> {
        let keyring = steps
            .iter()
            .any(|step| matches!(step, Step::JoinKeyring))
            .then(|| process::new_session_keyring(name))
            .transpose()
            .map_err(|error| PrepareError { kind: None, error })?;
        let mut namespaces = [const { None }; Namespace::ALL.len()];
        for (place, kind) in namespaces.iter_mut().zip(Namespace::ALL) {
            let asked = |step: &Step| matches!(step, Step::NewNamespace(asked) if *asked == kind);
            if steps.iter().any(asked) {
                let made = process::unshare(kind);
                *place = Some(made.map_err(|error| PrepareError { kind: Some(kind), error })?);
            }
        }
        Ok(Self { keyring, namespaces })
    }

    pub(crate) fn keyring(&self) -> Option<&SessionKeyring<'n>> {
        self.keyring.as_ref()
    }

    pub(crate) fn namespace(&self, kind: Namespace) -> Option<&NewNamespace> {
        let mut all = self.namespaces.iter().zip(Namespace::ALL);
        all.find_map(|(made, other)| made.as_ref().filter(|_| other == kind))
    }

    /// Leaves the keyring in the thread keyring: its end is a call that a filter may kill for.
    pub(crate) fn forget_keyring(self) {
        std::mem::forget(self.keyring);
    }
}
