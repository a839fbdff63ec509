//! The errors of making and of applying a plan.

use std::fmt;
use std::path::PathBuf;

use libpsx::process::{Capability, CapabilitySet, Namespace, Securebits};
use libpsx::{PartialFailure, SharedResource, TransactionError};

use crate::bpf::InvalidProgram;
use crate::{Mismatch, Mode, Resource, names};

/// The reason why privileges were not dropped. Nothing has changed in any thread, except for [`Error::Partial`] and
/// [`Error::NotDropped`].
///
/// `Debug` shows the same text as `Display`, because `fn main() -> Result<(), Error>` shows `Debug`.
#[non_exhaustive]
pub enum Error {
    /// The plan is not possible. The list has all of its problems.
    Plan(Vec<Problem>),
    /// The privileges of the calling thread could not be read.
    ReadPrivileges(std::io::Error),
    /// A thread has a descriptor table of its own. In that table the plan's descriptor numbers have another meaning.
    DescriptorsNotShared {
        /// The thread.
        tid: i32,
    },
    /// A thread has a root or working directory of its own, so a new root directory would not hold for it.
    DirectoriesNotShared {
        /// The thread.
        tid: i32,
    },
    /// The threads could not be stopped.
    NotApplied(libpsx::Error),
    /// The kernel refused the first call.
    Refused {
        /// The call, as the plan shows it.
        call: String,
        /// The kernel's error.
        error: libpsx::Error,
    },
    /// The kernel refused a later call. Every thread has performed the calls before it.
    Partial {
        /// The call, as the plan shows it.
        call: String,
        /// The kernel's error.
        error: PartialFailure,
    },
    /// Every call was performed, and the verification has found differences.
    NotDropped(Vec<Mismatch>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNCHANGED: &str = "nothing changed in any thread";
        match self {
            Self::Plan(problems) => match problems.as_slice() {
                [problem] => write!(f, "no plan can be made: {problem}; {UNCHANGED}"),
                problems => {
                    write!(f, "no plan can be made: {} problems; {UNCHANGED}", problems.len())?;
                    problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
                }
            },
            Self::ReadPrivileges(error) => {
                write!(f, "the privileges of this thread could not be read: {error}; {UNCHANGED}")
            }
            Self::DescriptorsNotShared { tid } => write!(
                f,
                "the plan was not applied: thread {tid} has a descriptor table of its own (unshare(2), \
                 CLONE_FILES), in which the plan's directories and rulesets are missing; {UNCHANGED}"
            ),
            Self::DirectoriesNotShared { tid } => write!(
                f,
                "the plan was not applied: thread {tid} has a root or working directory of its own (unshare(2), \
                 CLONE_FS); {UNCHANGED}"
            ),
            Self::NotApplied(error) => write!(f, "the plan was not applied: {error}"),
            Self::Refused { call, error } => write!(f, "call {call} failed: {error}"),
            Self::Partial { call, error } => {
                let errno = std::io::Error::from_raw_os_error(error.raw_os_error());
                write!(f, "call {call} failed: ")?;
                match error.tsync_conflict() {
                    Some(tid) => write!(f, "thread {tid} has a seccomp filter of its own")?,
                    None => write!(f, "{errno}")?,
                }
                write!(f, "; every thread has performed the calls before it")
            }
            Self::NotDropped(wrong) => {
                write!(
                    f,
                    "privileges were not dropped: {} findings; every call was performed",
                    wrong.len()
                )?;
                wrong.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ReadPrivileges(error) => Some(error),
            Self::NotApplied(error) | Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl Error {
    /// Converts the error of a stop; `call` shows the call with this number, counted from 0.
    pub(crate) fn of(error: TransactionError, call: impl Fn(usize) -> String) -> Self {
        match error {
            TransactionError::NothingChanged(error @ libpsx::Error::Call(_)) => {
                Self::Refused { call: call(0), error }
            }
            TransactionError::NothingChanged(libpsx::Error::NotShared {
                tid,
                resource: SharedResource::Descriptors,
            }) => Self::DescriptorsNotShared { tid },
            TransactionError::NothingChanged(libpsx::Error::NotShared {
                tid,
                resource: SharedResource::Directories,
            }) => Self::DirectoriesNotShared { tid },
            TransactionError::NothingChanged(error) => Self::NotApplied(error),
            TransactionError::Partial(error) => Self::Partial { call: call(error.index()), error },
        }
    }
}

impl From<Vec<Problem>> for Error {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Plan(problems)
    }
}

/// A problem that makes a plan impossible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The user database has no such name.
    #[error(
        "user {0:?} not found: the user database has no such name; name an existing user, or give a number"
    )]
    UserNotFound(String),
    /// The group database has no such name.
    #[error(
        "group {0:?} not found: the group database has no such name; name an existing group, or give a number"
    )]
    GroupNotFound(String),
    /// The number stands for "unchanged" in the kernel's calls.
    #[error("invalid id {0}: it is reserved for \"unchanged\"")]
    InvalidId(u32),
    /// The database has no user with this number.
    #[error(
        "user {0} has no entry in the user database, and so no groups: add .group(...) and .groups(...)"
    )]
    NoPasswdEntry(u32),
    /// The user database could not be read.
    #[error("the user database could not be read: {0}")]
    UserDatabase(#[source] nix::Error),
    /// The process keeps the user id 0 in at least one of its ids.
    #[error(
        "the user id stays 0 (root): no user was named; add .user(...), or .stay_root() if that is meant"
    )]
    RootNotDropped,
    /// The process keeps a user id that is shown for every id without a mapping in its user namespace. It may be user 0 of
    /// an outer namespace.
    #[error(
        "the user id stays, and is not known: {0} is also shown for every id without a mapping in a user namespace, and so \
             perhaps for root (/proc/self/uid_map, which is missing or incomplete, has the mappings); add .user(...), or .stay_root() if that is meant"
    )]
    UnknownUser(u32),
    /// An id has no mapping in the user namespace, so the kernel refuses it.
    #[error(
        "{what} {id} has no mapping in this user namespace: name another one, or add it to the mapping"
    )]
    NotMapped {
        /// "user" or "group".
        what: &'static str,
        /// The number.
        id: u32,
    },
    /// The user namespace forbids setgroups(2).
    #[error(
        "setting the supplementary groups is not possible: this user namespace forbids setgroups(2) \
             (/proc/self/setgroups), or no group is mapped in it; add .keep_groups() if they may stay"
    )]
    SetgroupsDenied,
    /// The process seems to have the groups of the plan already. But one of them is shown for every group without a mapping
    /// in its user namespace, and setting the groups needs CAP_SETGID.
    #[error(
        "the supplementary groups are not known: {0} is also shown for every group without a mapping in this user namespace, \
             and setting the groups needs cap_setgid; add .keep_groups() if they may stay, or start the program as root"
    )]
    UnknownGroups(u32),
    /// The process keeps supplementary groups.
    #[error("the supplementary groups {} stay: neither a user nor groups were named; add .groups(Groups::NONE), \
             or .keep_groups() if that is meant", names::numbers(.0.iter().copied()))]
    GroupsNotDropped(Vec<u32>),
    /// The same thing was set twice, to different values.
    #[error("{0} and {1} set the same thing: leave one of them out")]
    ConflictingSettings(&'static str, &'static str),
    /// The running kernel does not know these capabilities.
    #[error("the running kernel has no capability {0}: leave it out")]
    UnknownCapabilities(CapabilitySet),
    /// The plan keeps capabilities that the calling thread does not have.
    #[error(
        "{0} cannot be kept: the calling thread is not permitted it; start the program as root, or with it \
             in the ambient set or in the file's permitted set"
    )]
    NotPermitted(CapabilitySet),
    /// A capability cannot be ambient if it is not kept.
    #[error("{0} cannot be ambient: it is not kept; add it to .keep(...)")]
    AmbientNotKept(CapabilitySet),
    /// An inheritable capability has to be in the bounding set, and permitted unless CAP_SETPCAP is.
    #[error(
        "{0} cannot be inheritable: it is not permitted, or not in the bounding set; start the program with it"
    )]
    NotInheritable(CapabilitySet),
    /// Securebits that would have to change are locked (capabilities(7)), or they forbid a setting.
    #[error("{what} is not possible: the securebits {} are set; start the program without them", names::securebits(*.bits))]
    SecurebitsLocked {
        /// What is asked for.
        what: &'static str,
        /// The securebits of the calling thread.
        bits: Securebits,
    },
    /// The mode and another setting exclude each other.
    #[error("mode {0:?} leaves no {1}: leave one of the two out")]
    ModeConflict(Mode, &'static str),
    /// A setting needs a capability that the calling thread does not have.
    #[error(
        "{what} is not possible: it needs {capability}; start the program as root, or with {capability} in \
             the ambient set"
    )]
    MissingCapability {
        /// What is asked for.
        what: &'static str,
        /// The capability.
        capability: Capability,
    },
    /// The kernel refuses such a seccomp program.
    #[error("the kernel refuses the seccomp filter: {0}")]
    InvalidFilter(#[from] InvalidProgram),
    /// The filter denies calls that come after it. Each would kill the process, or leave a thread stuck.
    #[error("the seccomp filter denies calls that come after it: {}; allow these calls", .0.join(", "))]
    FilterDeniesCalls(Vec<String>),
    /// The flags of Landlock's ruleset could not be read.
    #[error(
        "the flags of the Landlock ruleset are not known: this version of the crate landlock does not tell \
             them; set them with .landlock_flags(...)"
    )]
    UnknownLandlockFlags,
    /// A directory could not be opened.
    #[error("directory {}: it could not be opened: {error}", .path.display())]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        error: std::io::Error,
    },
    /// A value that the kernel would refuse, or would change to another one.
    #[error("{what} {value} is not possible: it must be from {from} to {to}")]
    OutOfRange {
        /// The name of the setting.
        what: &'static str,
        /// The value.
        value: i64,
        /// The lowest possible value.
        from: i64,
        /// The highest possible value.
        to: i64,
    },
    /// None of the requested CPUs is online, so no thread could run.
    #[error(
        "none of the CPUs {} is online: name at least one of {}",
        names::numbers(.asked.iter().copied()),
        names::numbers(.online.iter().copied())
    )]
    NoCpu {
        /// The requested CPUs.
        asked: Vec<u32>,
        /// The CPUs of the machine that are online.
        online: Vec<u32>,
    },
    /// A hard limit is above the present one.
    #[error(
        "raising the hard limit {resource} to {hard} is not possible: it needs {capability}; start the program as root, \
             or with the limit raised"
    )]
    RaisedLimit {
        /// The resource.
        resource: Resource,
        /// The requested hard limit.
        hard: u64,
        /// The capability.
        capability: Capability,
    },
    /// A soft limit is above its hard limit.
    #[error(
        "the soft limit {soft} of {resource} is above the hard limit {hard}: raise the hard limit"
    )]
    SoftAboveHard {
        /// The resource.
        resource: Resource,
        /// The soft limit.
        soft: u64,
        /// The hard limit.
        hard: u64,
    },
    /// A descriptor is not the namespace that it was given as.
    #[error("the {kind:?} namespace cannot be joined: the descriptor is no namespace of this kind")]
    OtherNamespace {
        /// The kind that the descriptor was given as.
        kind: Namespace,
    },
    /// A namespace could not be made.
    #[error("no {kind:?} namespace could be made: {error}")]
    CreateNamespace {
        /// The kind of the namespace.
        kind: Namespace,
        /// The kernel's error.
        #[source]
        error: libpsx::Error,
    },
    /// The session keyring could not be made.
    #[error("no session keyring could be made: {0}")]
    CreateKeyring(#[source] libpsx::Error),
}
