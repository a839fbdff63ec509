//! Drops the privileges of a process, in all its threads at once, and makes sure that they are gone.
//!
//! A daemon that has started says what it wants to be from then on:
//!
//! ```no_run
//! use privileges::{Capability, Privileges};
//!
//! # fn main() -> Result<(), privileges::Error> {
//! Privileges::new()
//!     .user("nobody")
//!     .keep(Capability::NET_BIND_SERVICE)
//!     .no_new_privs()
//!     .plan()?
//!     .apply()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Privileges::plan`] looks everything up and checks what can be checked: an error means that nothing has
//! changed. The [`Plan`] shows what will be done, in the order in which it has to be. [`Plan::apply`] does it
//! in one stop of all threads ([`libpsx::Transaction`]), asks every thread who it is now, looks at
//! /proc/self/task, and tries to come back. What does not hold kills the process, unless
//! [`Privileges::report_failure`] was asked for.
//!
//! What is not mentioned is dropped: a process that says nothing of capabilities keeps none.

pub mod bpf;
mod iab;
mod plan;
mod verify;
mod wanted;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use iab::{BadIab, Iab};
use landlock::RulesetCreated;
pub use libpsx::process::Instruction;
pub use libpsx::process::{Capabilities, Capability, CapabilitySet, Gid, Securebits, Uid};
use libpsx::{Partial, TransactionError};
pub use plan::{Applied, Plan};
pub use verify::Mismatch;

/// A user or group, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// As the user database has it (getpwnam(3), getgrnam(3)).
    Name(String),
    /// As it is.
    Number(u32),
}

impl From<&str> for Id {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<u32> for Id {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

impl From<Uid> for Id {
    fn from(uid: Uid) -> Self {
        Self::Number(uid.raw())
    }
}

impl From<Gid> for Id {
    fn from(gid: Gid) -> Self {
        Self::Number(gid.raw())
    }
}

/// The supplementary groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Groups {
    /// Those that the database gives the user, as initgroups(3); none if no user is set.
    #[default]
    OfUser,
    /// These.
    These(Vec<Id>),
}

/// The modes of libcap, cap_set_mode(3), with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Privilege for nobody, ever: no capability, an empty bounding set, no_new_privs, and user id 0 is
    /// nobody special, locked.
    NoPriv,
    /// Capabilities come from files alone: user id 0 is nobody special, there is no ambient set; locked.
    Pure1e,
    /// [`Pure1e`](Self::Pure1e), and nothing is inheritable to begin with.
    Pure1eInit,
    /// The securebits are all clear: user id 0 is the superuser.
    Hybrid,
}

/// What a process wants to be.
#[derive(Debug, Default)]
#[must_use = "nothing is done until the plan is applied"]
pub struct Privileges {
    user: Option<Id>,
    group: Option<Id>,
    groups: Groups,
    keep: Option<CapabilitySet>,
    inheritable: CapabilitySet,
    ambient: CapabilitySet,
    bounding: Option<CapabilitySet>,
    securebits: Option<Securebits>,
    mode: Option<Mode>,
    no_new_privs: bool,
    landlock: Option<OwnedFd>,
    /// A ruleset was given that the kernel could not make.
    no_landlock: bool,
    seccomp: Option<Vec<Instruction>>,
    root: Option<PathBuf>,
    directory: Option<PathBuf>,
    report_failure: bool,
}

impl Privileges {
    /// Nothing but: no capabilities.
    pub fn new() -> Self {
        Self::default()
    }

    /// The user id, all four of them. Without [`group`](Self::group), the group ids are those of the
    /// user's group; without [`groups`](Self::groups) the supplementary groups are the user's.
    pub fn user(mut self, user: impl Into<Id>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The group id, all four of them.
    pub fn group(mut self, group: impl Into<Id>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// The supplementary groups.
    pub fn groups(mut self, groups: Groups) -> Self {
        self.groups = groups;
        self
    }

    /// The capabilities that stay, permitted and effective. Those that are not named go.
    pub fn keep(mut self, capabilities: impl Into<CapabilitySet>) -> Self {
        self.keep = Some(capabilities.into());
        self
    }

    /// Capabilities that executed programs inherit if their files say so.
    pub fn inheritable(mut self, capabilities: impl Into<CapabilitySet>) -> Self {
        self.inheritable = capabilities.into();
        self
    }

    /// Capabilities that executed programs inherit, which must be kept as well.
    pub fn ambient(mut self, capabilities: impl Into<CapabilitySet>) -> Self {
        self.ambient = capabilities.into();
        self
    }

    /// What the bounding set is to be reduced to.
    pub fn bounding(mut self, capabilities: impl Into<CapabilitySet>) -> Self {
        self.bounding = Some(capabilities.into());
        self
    }

    /// The inheritable, ambient and bounding set as cap_iab_from_text(3) writes them: each as
    /// cap_iab_set_proc(3) would set it.
    pub fn iab(mut self, iab: Iab) -> Self {
        self.inheritable = iab.inheritable;
        self.ambient = iab.ambient;
        let bounding = self.bounding.unwrap_or_else(libpsx::process::bounding_set);
        self.bounding = Some(bounding - iab.blocked);
        self
    }

    /// The securebits.
    pub fn securebits(mut self, bits: Securebits) -> Self {
        self.securebits = Some(bits);
        self
    }

    /// One of libcap's modes. It settles the securebits; without [`keep`](Self::keep) the permitted set
    /// stays as it is, and the effective set becomes empty, as cap_set_mode(3) leaves it.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// execve(2) gives no privilege any more.
    pub fn no_new_privs(mut self) -> Self {
        self.no_new_privs = true;
        self
    }

    /// Landlock's ruleset. It brings no_new_privs. One that the kernel does not support (which the
    /// `landlock` crate allows unless told otherwise) restricts nothing, and [`Plan`] says so.
    pub fn landlock(mut self, ruleset: RulesetCreated) -> Self {
        self.landlock = ruleset.into();
        self.no_landlock = self.landlock.is_none();
        self
    }

    /// A seccomp filter, such as `seccompiler` compiles. It brings no_new_privs. It need not allow what is
    /// done here, for it comes last; but it has to allow what libpsx's CAVEATS name, and then the process
    /// is not looked at from outside any more: that may be forbidden. (And close(2), for what the plan has open.)
    pub fn seccomp(mut self, program: &[seccompiler::sock_filter]) -> Self {
        let instruction = |step: &seccompiler::sock_filter| Instruction {
            code: step.code,
            jt: step.jt,
            jf: step.jf,
            k: step.k,
        };
        self.seccomp = Some(program.iter().map(instruction).collect());
        self
    }

    /// The root directory, chroot(2); the working directory becomes it too.
    pub fn chroot(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// The working directory, chdir(2). In the new root directory, if there is one.
    pub fn chdir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// What fails once something has changed is an error of [`Plan::apply`], where the process would be
    /// killed otherwise.
    pub fn report_failure(mut self) -> Self {
        self.report_failure = true;
        self
    }

    /// Looks up and checks everything.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn plan(self) -> Result<Plan, Error> {
        Plan::of(self)
    }
}

/// Why privileges were not dropped. Nothing has changed, but for [`Error::Partial`] and
/// [`Error::NotDropped`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such user.
    #[error("there is no user {0:?}")]
    NoUser(String),
    /// There is no such group.
    #[error("there is no group {0:?}")]
    NoGroup(String),
    /// The number is -1, which is nobody.
    #[error("{0} is no id")]
    NoId(u32),
    /// The database knows no user with this number: there is nothing to take groups from.
    #[error("no user has the number {0}: name the group, and the supplementary groups")]
    NoEntry(u32),
    /// The user database could not be read.
    #[error("the user database could not be read")]
    Database(#[source] nix::Error),
    /// The running kernel does not know these.
    #[error("the kernel has no capability {0}")]
    UnknownCapabilities(CapabilitySet),
    /// What is to be kept is not there.
    #[error("not permitted to this thread, and so not to be kept: {0}")]
    NotHeld(CapabilitySet),
    /// Ambient capabilities have to be kept.
    #[error("ambient, but not among those that are kept: {0}")]
    AmbientNotKept(CapabilitySet),
    /// What becomes inheritable must be in the bounding set, and permitted, unless CAP_SETPCAP is.
    #[error("inheritable, but not permitted, or not in the bounding set: {0}")]
    NotInheritable(CapabilitySet),
    /// Securebits are set already that forbid it (capabilities(7), the `_LOCKED` ones).
    #[error("the securebits {:#x} forbid it", .0.bits())]
    Locked(Securebits),
    /// The mode and the other wishes exclude each other.
    #[error("{0:?} leaves no {1}")]
    Conflict(Mode, &'static str),
    /// What is asked for needs a capability that this thread has not.
    #[error("{what} needs {capability}")]
    Needs {
        /// What is asked for.
        what: &'static str,
        /// What it needs.
        capability: Capability,
    },
    /// A seccomp program has at least one instruction, and at most 4096.
    #[error("{0} instructions are no seccomp program")]
    BadFilter(usize),
    /// A directory could not be opened.
    #[error("{}: the directory could not be opened", .0.display())]
    Directory(PathBuf, #[source] std::io::Error),
    /// What this thread is could not be asked.
    #[error("the kernel did not say what this thread may do")]
    Unknown(#[source] std::io::Error),
    /// The stop did not come about, or the first call was refused.
    #[error(transparent)]
    Unchanged(#[from] libpsx::Error),
    /// A later call was refused: every thread has performed those before it.
    #[error("{0}")]
    Partial(Partial),
    /// Everything was done, and yet something does not hold.
    #[error("privileges were not dropped: {}", verify::list(.0))]
    NotDropped(Vec<Mismatch>),
}

impl From<TransactionError> for Error {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Unchanged(error) => Self::Unchanged(error),
            TransactionError::Partial(partial) => Self::Partial(partial),
        }
    }
}
