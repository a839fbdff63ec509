//! The security state of one task, and in what two of them differ.

use std::fmt;

use clap::ValueEnum;
use libpsx::process::{CapabilitySet, Ids};
use nix::errno::Errno;
use serde::Serialize;

use crate::tasks::{Credentials, Scheduling, Task};

/// A part of the state, by the name that the command line and the JSON have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Field {
    /// Real, effective, saved and file system user id
    Uid,
    /// Real, effective, saved and file system group id
    Gid,
    /// Supplementary groups
    Groups,
    /// Effective, permitted and inheritable capabilities
    Caps,
    /// Ambient capabilities
    Ambient,
    /// Bounding set of capabilities
    Bounding,
    /// no_new_privs
    Nnp,
    /// Seccomp mode and number of filters
    Seccomp,
    /// Namespaces
    Namespaces,
    /// Label of the Linux security module
    Label,
    /// Scheduling policy and priority
    Sched,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uid => "uid",
            Self::Gid => "gid",
            Self::Groups => "groups",
            Self::Caps => "caps",
            Self::Ambient => "ambient",
            Self::Bounding => "bounding",
            Self::Nnp => "nnp",
            Self::Seccomp => "seccomp",
            Self::Namespaces => "namespaces",
            Self::Label => "label",
            Self::Sched => "sched",
        })
    }
}

/// The links in /proc/PID/ns, namespaces(7). A kernel may be without some.
pub(crate) const NAMESPACES: [&str; 10] = [
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
];

/// What tells each namespace from others of its kind; None where there is no such link.
pub(crate) type Namespaces = [Option<u64>; NAMESPACES.len()];

/// All that is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) credentials: Credentials,
    /// None: whoever looks may not see them (ptrace(2), "access mode checking").
    pub(crate) namespaces: Option<Namespaces>,
    /// None: no security module gives one, or it may not be seen.
    pub(crate) label: Option<Vec<u8>>,
    pub(crate) scheduling: Scheduling,
}

/// The namespaces of a task. Whether an error means that it is gone will show when more of it is read:
/// the kernel says EACCES here for that too (`proc_ns_readlink`, fs/proc/namespaces.c).
pub(crate) fn namespaces(task: &Task) -> Option<Namespaces> {
    let mut found = Namespaces::default();
    let mut path = String::new();
    for (name, place) in NAMESPACES.iter().zip(&mut found) {
        path.clear();
        path.push_str("ns/");
        path.push_str(name);
        match task.link(&path) {
            Ok(link) => *place = number(link.as_encoded_bytes()),
            Err(Errno::ENOENT) => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// The number in `net:[4026531840]`.
fn number(link: &[u8]) -> Option<u64> {
    std::str::from_utf8(link).ok()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// The label of the security module that has one to show.
pub(crate) fn label(task: &Task) -> Option<Vec<u8>> {
    let mut label = task.read("attr/current").ok()?;
    while let Some(b'\n' | 0) = label.last() {
        label.pop();
    }
    (!label.is_empty()).then_some(label)
}

impl State {
    /// In what they differ. What could not be seen of one is no difference.
    pub(crate) fn differs(&self, other: &Self) -> Vec<Field> {
        let (a, b) = (&self.credentials, &other.credentials);
        let both = |a: bool, b: bool| a && b;
        let namespaces = both(self.namespaces.is_some(), other.namespaces.is_some());
        let label = both(self.label.is_some(), other.label.is_some());
        let table = [
            (Field::Uid, a.user != b.user),
            (Field::Gid, a.group != b.group),
            (Field::Groups, a.groups != b.groups),
            (Field::Caps, a.sets != b.sets),
            (Field::Ambient, a.ambient != b.ambient),
            (Field::Bounding, a.bounding != b.bounding),
            (Field::Nnp, a.no_new_privs != b.no_new_privs),
            (Field::Seccomp, (a.seccomp, a.filters) != (b.seccomp, b.filters)),
            (Field::Namespaces, namespaces && self.namespaces != other.namespaces),
            (Field::Label, label && self.label != other.label),
            (Field::Sched, self.scheduling != other.scheduling),
        ];
        table.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
    }

    /// Whether all of it could be seen. (Without a security module there is no label to see.)
    pub(crate) const fn complete(&self) -> bool {
        self.namespaces.is_some()
    }

    /// The kinds of namespaces that are not those of `other`.
    pub(crate) fn other_namespaces(&self, other: &Self) -> Vec<&'static str> {
        let (Some(ours), Some(theirs)) = (&self.namespaces, &other.namespaces) else {
            return Vec::new();
        };
        let pairs = NAMESPACES.iter().zip(ours.iter().zip(theirs));
        pairs.filter_map(|(&name, (ours, theirs))| (ours != theirs).then_some(name)).collect()
    }

    /// What a task in this state may do and none of `others`: ids, groups, capabilities, label.
    pub(crate) fn exceeds<'a>(&self, others: impl Iterator<Item = &'a Self> + Clone) -> Vec<Field> {
        let own = &self.credentials;
        let four = |ids: Ids| [ids.real, ids.effective, ids.saved, ids.filesystem];
        let theirs = || others.clone().map(|other| &other.credentials);
        let beyond = |ids: Ids, of: fn(&Credentials) -> Ids| {
            four(ids).iter().any(|id| !theirs().any(|other| four(of(other)).contains(id)))
        };
        let all = |of: fn(&Credentials) -> CapabilitySet| {
            theirs().map(of).fold(CapabilitySet::EMPTY, |all, set| all | set)
        };
        let group = |gid: &u32| {
            theirs().any(|other| four(other.group).contains(gid) || other.groups.contains(gid))
        };
        let label = |label: &Vec<u8>| {
            others.clone().all(|other| other.label.as_ref().is_some_and(|theirs| theirs != label))
        };
        let table = [
            (Field::Uid, beyond(own.user, |other| other.user)),
            (Field::Gid, beyond(own.group, |other| other.group)),
            (Field::Groups, !own.groups.iter().all(group)),
            (
                Field::Caps,
                !all(|other| other.sets.permitted).is_superset(own.sets.permitted)
                    || !all(|other| other.sets.effective).is_superset(own.sets.effective),
            ),
            (Field::Label, self.label.as_ref().is_some_and(label)),
        ];
        table.into_iter().filter_map(|(field, more)| more.then_some(field)).collect()
    }
}
