//! The verdict: how much a process may do, in one word, and the reasons.
//!
//! The word is that of the most privileged thread or kernel worker. A worker that is only unprivileged does not count: it
//! executes no program and makes no system calls, so no_new_privs and a filter mean nothing for it. The word follows from
//! what the kernel shows: IDs, capabilities, no_new_privs, seccomp, namespaces and directories. It does not follow from
//! files that the process may open, from descriptors that it holds, from a label, or from a Landlock domain.

use std::sync::LazyLock;

use clap::ValueEnum;
use libpsx::process::{Capability, CapabilitySet};
use serde::Serialize;

use super::mapping;
use super::process::Process;
use super::state::{INITIAL, NAMESPACES, Namespaces, Reference, State};
use crate::ask;

/// How much a process may do, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// No privilege, no way to gain one by execve(2), and a filter of system calls
    Sandboxed,
    /// No capability and no ID of root
    Unprivileged,
    /// Some of root's privilege
    Reduced,
    /// Root, or capabilities that lead to root
    Privileged,
}

impl Verdict {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sandboxed => "sandboxed",
            Self::Unprivileged => "unprivileged",
            Self::Reduced => "reduced",
            Self::Privileged => "privileged",
        }
    }
}

/// A verdict and its reasons.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    /// The most that the task may do, as far as is known.
    pub(crate) verdict: Verdict,
    /// The verdict if no user ID that cannot be seen is 0.
    pub(crate) least: Verdict,
    pub(crate) reasons: Vec<String>,
}

/// A process that has one of these is as good as root, whatever directories and namespaces it sees: it can load code
/// into the kernel or start another kernel, trace any process, or open any file by its handle.
const LEAD_TO_ROOT: [Capability; 6] = [
    Capability::SYS_ADMIN,
    Capability::SYS_MODULE,
    Capability::SYS_RAWIO,
    Capability::SYS_PTRACE,
    Capability::DAC_READ_SEARCH,
    Capability::SYS_BOOT,
];

/// A process that has one of these can become root or change root's files, unless its root directory confines it.
const LEAD_TO_ROOT_BY_FILES: [Capability; 8] = [
    Capability::CHOWN,
    Capability::DAC_OVERRIDE,
    Capability::FOWNER,
    Capability::SETUID,
    Capability::SETGID,
    Capability::SETFCAP,
    Capability::MKNOD,
    Capability::SYS_CHROOT,
];

/// A process that has one of these, or one of [`LEAD_TO_ROOT`], can leave its root directory: by a second chroot(2), or by a
/// device file of the disk.
const LEAD_OUT: [Capability; 2] = [Capability::SYS_CHROOT, Capability::MKNOD];

/// The root directory of this program.
static OWN_ROOT: LazyLock<Option<ask::FileIdentity>> = LazyLock::new(|| ask::file(None, c"/"));

/// The root directory of process 1, if this program may see it.
static FIRST_ROOT: LazyLock<Option<ask::FileIdentity>> =
    LazyLock::new(|| ask::file(None, c"/proc/1/root"));

/// Returns whether the root directory of a task is another one than those of this program and of process 1, and the task
/// cannot leave it. If this program has a root directory of its own, that alone does not tell that the task has one.
///
/// A mount namespace of its own says nothing: the same directories can be mounted in it. A program that the task executes
/// can get the capabilities of the bounding set, unless no_new_privs is set. What cannot be seen confines no task.
fn confined(state: &State) -> bool {
    let credentials = &state.credentials;
    let mut held = credentials.sets.permitted | credentials.sets.effective | credentials.ambient;
    if credentials.no_new_privs != Some(true) {
        held |= credentials.bounding;
    }
    let leads_out = LEAD_TO_ROOT.iter().chain(&LEAD_OUT).any(|&one| held.contains(one));
    let root = state.directories.as_ref().and_then(|both| both.root_file);
    let others = OWN_ROOT.zip(*FIRST_ROOT);
    let differs = root.zip(others).is_some_and(|(one, (own, first))| one != own && one != first);
    !leads_out && differs
}

impl Judgement {
    /// Judges a process. Returns None if none of its tasks runs.
    pub(crate) fn of(process: &Process, reference: &Reference) -> Option<Self> {
        let threads = process.states().map(|alike| Self::of_state(&alike.state, reference));
        let workers = process.workers.iter().filter_map(|worker| {
            let mut judgement = Self::of_state(&worker.state, reference);
            let reason = format!("kernel worker {} has more than each thread", worker.thread.tid);
            judgement.reasons.insert(0, reason);
            (judgement.verdict > Verdict::Unprivileged).then_some(judgement)
        });
        // The last one of those with the most: a worker only if it has more than each thread.
        let mut most = workers.chain(threads).max_by_key(|one| one.verdict)?;
        if !process.complete {
            most.reasons.push("a thread that was not read may have more".to_owned());
        }
        Some(most)
    }

    /// Judges one state.
    pub(crate) fn of_state(state: &State, reference: &Reference) -> Self {
        let mut reasons = Vec::new();
        let place = NAMESPACES.iter().position(|&name| name == "user");
        let of = |all: &Namespaces| place.and_then(|place| all.get(place).copied().flatten());
        let users = state.namespaces.as_ref().and_then(of);
        // Capabilities in the initial user namespace are capabilities, also if psx is in another one.
        let other_user = users
            .zip(reference.own.as_ref().and_then(of))
            .is_some_and(|(theirs, ours)| theirs != ours && Some(theirs) != of(&INITIAL));
        let other_root = state.directories.as_ref().is_some_and(|both| both.root != b"/");
        let apart = reference.apart(state).unwrap_or_default();
        let own_files = apart.certain.contains(&"mnt");
        let other_files = own_files || apart.possible.contains(&"mnt") || other_root;
        let credentials = &state.credentials;
        let held = credentials.sets.permitted | credentials.sets.effective | credentials.ambient;
        let of = |list: &[Capability]| -> CapabilitySet {
            list.iter().copied().filter(|&one| held.contains(one)).collect()
        };
        let mut verdict = Verdict::Unprivileged;
        let mut raise = |to: Verdict, why: String| {
            verdict = verdict.max(to);
            reasons.push(why);
        };
        let user = credentials.user;
        let ids = [
            (user.real, "real"),
            (user.effective, "effective"),
            (user.saved, "saved"),
            (user.filesystem, "file system"),
        ];
        let root: Vec<_> = ids.iter().filter(|(id, _)| *id == 0).map(|(_, name)| *name).collect();
        let confined = confined(state);
        let beside = if confined { Verdict::Reduced } else { Verdict::Privileged };
        match root.len() {
            0 => {}
            4 => raise(beside, "the user ID is 0".to_owned()),
            _ => raise(beside, format!("the {} user ID is 0", root.join(" and "))),
        }
        let (strong, by_files) = (of(&LEAD_TO_ROOT), of(&LEAD_TO_ROOT_BY_FILES));
        if held.is_empty() {
        } else if other_user {
            raise(Verdict::Reduced, "capabilities, but only in its own user namespace".to_owned());
        } else if held.is_superset(CapabilitySet::all()) {
            raise(Verdict::Privileged, "all capabilities".to_owned());
        } else if !strong.is_empty() {
            raise(Verdict::Privileged, format!("leads to root: {strong}"));
        } else if !by_files.is_empty() && !confined {
            raise(Verdict::Privileged, format!("leads to root: {by_files}"));
        } else {
            raise(Verdict::Reduced, format!("capabilities: {held}"));
        }
        if held.is_empty() && !credentials.sets.inheritable.is_empty() {
            let sets = credentials.sets.inheritable;
            raise(Verdict::Unprivileged, format!("inheritable capabilities: {sets}"));
        }
        let least = verdict;
        if ids.iter().any(|(id, _)| mapping::user_unseen(*id)) {
            verdict = verdict.max(beside);
            reasons.push("a user ID that has no number here can be 0".to_owned());
        }
        let filter = credentials.seccomp.is_some_and(|mode| mode != 0);
        let nnp = credentials.no_new_privs == Some(true);
        if verdict == Verdict::Unprivileged {
            reasons.push("no capability, no user ID 0".to_owned());
        }
        let [verdict, least] = [verdict, least].map(|verdict| match verdict {
            Verdict::Unprivileged if nnp && filter => Verdict::Sandboxed,
            verdict => verdict,
        });
        let switches = [
            (nnp, "no_new_privs is set", "no_new_privs is not set: execve(2) can give privilege"),
            (filter, "seccomp filters system calls", "no seccomp filter"),
        ];
        reasons.extend(switches.map(|(on, yes, no)| if on { yes } else { no }.to_owned()));
        if other_files {
            let why = match (other_root, own_files) {
                (true, _) => "its own root directory",
                (false, true) => "its own mount namespace",
                (false, false) => "another mount namespace than psx",
            };
            reasons.push(why.to_owned());
        }
        if state.namespaces.is_none() {
            reasons.push("its namespaces cannot be seen".to_owned());
        }
        Self { verdict, least, reasons }
    }
}
