//! One system call of a plan: its description, and its calls in the transaction.

// # Safety
//
// The calls that libpsx has no type for take numbers, static strings, or memory of the step, which outlives the
// transaction. Descriptors stay open as long as the step.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libpsx::process::{
    self, IoPriority, LandlockFlags, Namespace, NewNamespace, Operation, SchedAttr, SeccompFlags,
    SessionKeyring, Synchronization,
};
use libpsx::process::{Capability, CapabilitySets, Gid, Instruction, Securebits, Uid};
use libpsx::{ResultCheck, Transaction};

use crate::names::{self, words_to_numbers};
use crate::resource::Resource;

/// The calls of a plan.
pub(crate) type Calls<'a> = Transaction<'a>;

/// A call.
#[derive(Debug)]
pub(crate) enum Step {
    /// Makes the directory the working directory.
    Enter(File, PathBuf),
    /// Makes the working directory the root directory.
    Chroot,
    /// Returns the number that an inotify instance has for the directory at a path. A thread with another directory
    /// gets another number.
    Compare(Arc<OwnedFd>, &'static CStr),
    JoinKeyring,
    NewNamespace(Namespace),
    JoinNamespace(Namespace, Arc<OwnedFd>),
    Scheduling(SchedAttr),
    Nice(i32),
    IoPriority(IoPriority),
    Cpus(Vec<u64>),
    TimerSlack(Duration),
    Umask(u32),
    /// The soft and the hard limit, as the kernel reads them.
    Limit(Resource, [u64; 2]),
    DropBounding(Capability),
    Groups(Vec<Gid>),
    Gid(Gid),
    KeepCapabilities(bool),
    Uid(Uid),
    Capabilities(CapabilitySets),
    ClearAmbient,
    RaiseAmbient(Capability),
    Securebits(Securebits),
    Dumpable,
    ParentDeathSignal(i32),
    NoNewPrivs,
    Landlock(Arc<OwnedFd>, Synchronization, LandlockFlags),
    Seccomp(Vec<Instruction>),
}

impl Step {
    /// Returns whether the step joins a namespace of this kind, or the keyring if `kind` is `None`. These are made
    /// before.
    pub(crate) fn is_made(&self, kind: Option<Namespace>) -> bool {
        match (self, kind) {
            (Self::JoinKeyring, None) => true,
            (Self::NewNamespace(own), Some(kind)) => *own == kind,
            _ => false,
        }
    }

    pub(crate) fn add<'a>(&'a self, calls: Calls<'a>, made: &'a Prepared) -> Calls<'a> {
        let one: Operation<'a> = match self {
            Self::Capabilities(sets) => process::capset(*sets),
            Self::DropBounding(capability) => process::capbset_drop(*capability),
            Self::Groups(groups) => process::setgroups(groups),
            Self::Gid(gid) => process::set_all_gids(*gid),
            Self::KeepCapabilities(keep) => process::set_keepcaps(*keep),
            Self::Uid(uid) => process::set_all_uids(*uid),
            Self::ClearAmbient => process::cap_ambient_clear_all(),
            Self::RaiseAmbient(capability) => process::cap_ambient_raise(*capability),
            Self::Securebits(bits) => process::set_securebits(*bits),
            Self::NoNewPrivs => process::set_no_new_privs(),
            Self::Seccomp(program) => {
                process::seccomp(program, Synchronization::Kernel, SeccompFlags::EMPTY)
            }
            Self::JoinKeyring => match made.keyring() {
                Some(keyring) => keyring.join(),
                None => return calls,
            },
            Self::NewNamespace(kind) => match made.namespace(*kind) {
                Some(namespace) => namespace.join(),
                None => return calls,
            },
            Self::JoinNamespace(kind, namespace) => process::setns(namespace.as_ref(), *kind),
            Self::Scheduling(attributes) => process::sched_setattr(*attributes),
            Self::Nice(value) => process::setpriority(*value),
            Self::IoPriority(priority) => process::ioprio_set(*priority),
            Self::Cpus(cpus) => process::sched_setaffinity(cpus),
            Self::TimerSlack(slack) => process::set_timer_slack(*slack),
            Self::Enter(directory, _) => process::fchdir(directory),
            Self::Chroot => process::chroot(c"."),
            Self::Landlock(ruleset, how, flags) => {
                process::landlock_restrict_self(ruleset.as_ref(), *how, *flags)
            }
            Self::Compare(inotify, path) => {
                let args = [fd(inotify), path.as_ptr() as usize, WATCHED as usize];
                return number(calls, libc::SYS_inotify_add_watch, args, ResultCheck::SameResult);
            }
            Self::Umask(mask) => {
                return number(
                    calls,
                    libc::SYS_umask,
                    [*mask as usize, 0, 0],
                    ResultCheck::AnySuccess,
                );
            }
            Self::Limit(resource, limits) => {
                let args = [0, resource.number(), limits.as_ptr() as usize];
                return number(calls, libc::SYS_prlimit64, args, ResultCheck::SameResult);
            }
            Self::Dumpable => process::set_dumpable(true),
            Self::ParentDeathSignal(signal) => process::set_parent_process_death_signal(*signal),
        };
        calls.with(one)
    }
}

/// The watched event. It hardly occurs in a root directory.
pub(crate) const WATCHED: u32 = libc::IN_DELETE_SELF | libc::IN_ONLYDIR;

fn fd(descriptor: &impl AsRawFd) -> usize {
    descriptor.as_raw_fd() as usize
}

/// Adds a call whose arguments are numbers, or addresses of memory that outlives the transaction.
fn number(
    calls: Calls<'_>,
    nr: libc::c_long,
    [a, b, c]: [usize; 3],
    result_check: ResultCheck,
) -> Calls<'_> {
    // SAFETY: the arguments follow the rules at the head of this file.
    unsafe { calls.with_call(nr, [a, b, c, 0, 0, 0], result_check) }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enter(_, path) => write!(f, "fchdir {}", path.display()),
            Self::Chroot => write!(f, "chroot ."),
            Self::Compare(_, path) => {
                write!(
                    f,
                    "inotify_add_watch {} (the same directory in every thread?)",
                    path.to_string_lossy()
                )
            }
            Self::JoinKeyring => write!(f, "keyctl KEYCTL_JOIN_SESSION_KEYRING (a new one)"),
            Self::NewNamespace(kind) => write!(f, "setns {kind:?} (a new one)"),
            Self::JoinNamespace(kind, _) => write!(f, "setns {kind:?}"),
            Self::Scheduling(attributes) => write!(f, "sched_setattr {attributes:?}"),
            Self::Nice(value) => write!(f, "setpriority {value}"),
            Self::IoPriority(priority) => write!(f, "ioprio_set {priority:?}"),
            Self::Cpus(cpus) => write!(f, "sched_setaffinity {}", cpu_numbers(cpus)),
            Self::TimerSlack(slack) => write!(f, "prctl PR_SET_TIMERSLACK {slack:?}"),
            Self::Umask(mask) => write!(f, "umask {mask:03o}"),
            Self::Limit(resource, [soft, hard]) => {
                write!(f, "prlimit {resource}: soft {soft}, hard {hard}")
            }
            Self::DropBounding(capability) => write!(f, "prctl PR_CAPBSET_DROP {capability}"),
            Self::Groups(groups) => {
                write!(f, "setgroups {}", names::numbers(groups.iter().map(|gid| gid.as_raw())))
            }
            Self::Gid(gid) => write!(f, "setresgid {}", gid.as_raw()),
            Self::KeepCapabilities(keep) => write!(f, "prctl PR_SET_KEEPCAPS {}", u8::from(*keep)),
            Self::Uid(uid) => write!(f, "setresuid {}", uid.as_raw()),
            Self::Capabilities(sets) => write!(f, "capset {sets}"),
            Self::ClearAmbient => write!(f, "prctl PR_CAP_AMBIENT_CLEAR_ALL"),
            Self::RaiseAmbient(capability) => write!(f, "prctl PR_CAP_AMBIENT_RAISE {capability}"),
            Self::Securebits(bits) => {
                write!(f, "prctl PR_SET_SECUREBITS {}", names::securebits(*bits))
            }
            Self::Dumpable => write!(f, "prctl PR_SET_DUMPABLE 1"),
            Self::ParentDeathSignal(signal) => write!(f, "prctl PR_SET_PDEATHSIG {signal}"),
            Self::NoNewPrivs => write!(f, "prctl PR_SET_NO_NEW_PRIVS"),
            Self::Landlock(_, how, flags) => {
                write!(f, "landlock_restrict_self")?;
                if *flags != LandlockFlags::EMPTY {
                    write!(f, ", {flags:?}")?;
                }
                let tsync = *how == Synchronization::Kernel;
                if !tsync {
                    return Ok(());
                }
                write!(f, ", by the kernel in all threads, in place of the domains that they have")
            }
            Self::Seccomp(program) => write!(f, "seccomp, {} instructions", program.len()),
        }
    }
}

fn cpu_numbers(words: &[u64]) -> String {
    names::numbers(words_to_numbers(words))
}

/// The namespaces and the keyring that are made for a plan. No thread has joined them yet.
pub(crate) struct Prepared {
    keyring: Option<SessionKeyring>,
    namespaces: [Option<NewNamespace>; Namespace::ALL.len()],
}

/// The error if a namespace, or else (with `kind` `None`) the keyring, could not be made.
pub(crate) struct PrepareError {
    pub(crate) kind: Option<Namespace>,
    pub(crate) error: libpsx::Error,
}

impl Prepared {
    /// Makes the namespaces and the keyring that the steps join. It does not allocate.
    pub(crate) fn new(steps: &[Step]) -> Result<Self, PrepareError> {
        let keyring = steps
            .iter()
            .any(|step| matches!(step, Step::JoinKeyring))
            .then(process::new_session_keyring)
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

    pub(crate) fn keyring(&self) -> Option<&SessionKeyring> {
        self.keyring.as_ref()
    }

    pub(crate) fn namespace(&self, kind: Namespace) -> Option<&NewNamespace> {
        let mut all = self.namespaces.iter().zip(Namespace::ALL);
        all.find_map(|(made, other)| made.as_ref().filter(|_| other == kind))
    }

    /// Leaves the keyring in the thread keyring, because a filter may kill for the call that would remove it.
    pub(crate) fn forget_keyring(self) {
        std::mem::forget(self.keyring);
    }
}
