//! Drops the privileges of a process, in all its threads at once, and verifies that they are gone.
//!
//! A daemon that has started states the privileges that it keeps from then on:
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
//! [`Privileges::plan`] looks up all names and checks all settings. An error names every problem that was
//! found, and means that nothing has changed. The [`Plan`] shows the calls in their order, what goes, and what stays.
//! [`Plan::apply`] performs the calls in one stop of all threads ([`libpsx::Transaction`]), asks every thread for its
//! credentials, reads /proc/self/task, and tries to become root again. If the verification finds a difference, the
//! process is killed, unless [`Privileges::report_failure`] was called.
//!
//! The module [`mod@file`] sets the capabilities of files, which a program gets when it is executed.
//!
//! # Settings that are not mentioned
//!
//! Capabilities that are not mentioned are dropped. A setting that the table calls an error has to be mentioned.
//!
//! | what | not mentioned | mentioned | verified how |
//! |---|---|---|---|
//! | user ids | stay; an error if one of them is 0, unless [`stay_root`](Privileges::stay_root) | [`user`](Privileges::user): all four become it | asked, /proc, an attempt to become root |
//! | group ids | the user's group; without a user they stay | [`group`](Privileges::group): all four become it | asked, /proc |
//! | supplementary groups | the user's; none with a group alone; without both an error if there are any, unless [`keep_groups`](Privileges::keep_groups) | [`groups`](Privileges::groups) | asked, /proc |
//! | permitted, effective | become empty | [`keep`](Privileges::keep) | asked, /proc |
//! | inheritable | becomes empty (under [`Mode::Pure1e`] and [`Mode::Hybrid`] it stays) | [`inheritable`](Privileges::inheritable) | asked, /proc |
//! | ambient | becomes empty (under [`Mode::Hybrid`] it stays, as far as it is kept) | [`ambient`](Privileges::ambient) | asked, /proc |
//! | bounding set | stays | [`bounding`](Privileges::bounding), [`iab`](Privileges::iab) | asked, /proc |
//! | securebits | stay, but for `keep_caps` | [`securebits`](Privileges::securebits), [`mode`](Privileges::mode) | asked |
//! | no_new_privs | stays as it is | [`no_new_privs`](Privileges::no_new_privs), a ruleset, a filter, [`Mode::NoPriv`] | asked, /proc |
//! | Landlock | nothing | [`landlock`](Privileges::landlock) | the result of the call in each thread; the kernel does not show domains |
//! | seccomp filter | none | [`seccomp`](Privileges::seccomp) | /proc: mode and number of filters |
//! | root and working directory | stay | [`chroot`](Privileges::chroot), [`chdir`](Privileges::chdir) | compared by a call in each thread, /proc |
//! | keyrings | stay: keys of the session keyring remain readable by the new user | [`new_session_keyring`](Privileges::new_session_keyring) | the result of the call in each thread |
//! | descriptors | stay open | close them before | no |
//! | dumpable | the kernel clears it if an id changes, prctl(2) | [`dumpable`](Privileges::dumpable) | the result of the call |
//! | parent-death signal | the kernel clears it if an id changes | [`parent_death_signal`](Privileges::parent_death_signal) | the result of the call in each thread |
//! | umask | stays | [`umask`](Privileges::umask) | the call cannot fail |
//! | resource limits | stay | [`limit`](Privileges::limit) | the result of the call |
//! | network, UTS, IPC and cgroup namespace | stay | [`new_namespace`](Privileges::new_namespace), [`join_namespace`](Privileges::join_namespace) | the result of the call in each thread, /proc |
//! | other namespaces | stay | a process of several threads cannot change them ([`Namespace`]) | no |
//! | scheduling | stays | [`scheduling`](Privileges::scheduling), [`nice`](Privileges::nice), [`io_priority`](Privileges::io_priority), [`cpus`](Privileges::cpus), [`timer_slack`](Privileges::timer_slack) | the result of the call in each thread |
//!
//! # Where the settings come from
//!
//! | systemd.exec(5) | setpriv(1) | capsh(1) | here | `psx run` | verified how |
//! |---|---|---|---|---|---|
//! | `User=` | `--reuid`, `--ruid`, `--euid` | `--user`, `--uid` | [`user`](Privileges::user), [`stay_root`](Privileges::stay_root) | `--user`, `--stay-root` | asked, /proc, an attempt to return |
//! | `Group=` | `--regid` | `--gid` | [`group`](Privileges::group) | `--group` | asked, /proc |
//! | `SupplementaryGroups=` | `--groups`, `--init-groups`, `--clear-groups`, `--keep-groups` | `--groups` | [`groups`](Privileges::groups), [`keep_groups`](Privileges::keep_groups) | `--groups`, `--keep-groups` | asked, /proc |
//! | `AmbientCapabilities=` | `--ambient-caps`, `--inh-caps` | `--addamb`, `--iab` | [`ambient`](Privileges::ambient), [`inheritable`](Privileges::inheritable), [`iab`](Privileges::iab) | `--ambient`, `--inheritable`, `--iab` | asked, /proc |
//! | `CapabilityBoundingSet=` | `--bounding-set` | `--drop`, `--iab` | [`bounding`](Privileges::bounding) | `--bounding` | asked, /proc |
//! | (a started program has what its file and the ambient set give) | the same | `--caps` | [`keep`](Privileges::keep) | the same as systemd | asked, /proc |
//! | `SecureBits=` | `--securebits` | `--secbits`, `--mode` | [`securebits`](Privileges::securebits), [`mode`](Privileges::mode) | `--securebits`, `--mode` | asked |
//! | `NoNewPrivileges=` | `--no-new-privs` | `--no-new-privs` | [`no_new_privs`](Privileges::no_new_privs) | `--no-new-privs` | asked, /proc |
//! | `SystemCallFilter=`, `SystemCallErrorNumber=`, `SystemCallArchitectures=native` | `--seccomp-filter` | none | [`seccomp`](Privileges::seccomp), `system_calls::SystemCallFilter` | `--seccomp`, `--seccomp-error` | /proc: mode and number of filters |
//! | none | `--landlock-access`, `--landlock-rule` | none | [`landlock`](Privileges::landlock) | `--landlock-ro`, `--landlock-rw` | the result in each thread |
//! | `RootDirectory=` | none | `--chroot` | [`chroot`](Privileges::chroot) | `--chroot` | compared in each thread, /proc |
//! | `WorkingDirectory=` | none | none | [`chdir`](Privileges::chdir) | `--chdir` | compared in each thread, /proc |
//! | `UMask=` | none | none | [`umask`](Privileges::umask) | `--umask` | the result of the call |
//! | `LimitNOFILE=` and the like | none | none | [`limit`](Privileges::limit) | `--limit` | the result of the call |
//! | `KeyringMode=private` | none | none | [`new_session_keyring`](Privileges::new_session_keyring) | `--new-session-keyring` | the result in each thread |
//! | `PrivateNetwork=`, `PrivateIPC=`, `NetworkNamespacePath=`, `IPCNamespacePath=` | none | none | [`new_namespace`](Privileges::new_namespace), [`join_namespace`](Privileges::join_namespace) | `--new-namespace`, `--join-namespace` | the result in each thread, /proc |
//! | `Nice=`, `CPUSchedulingPolicy=`, `CPUSchedulingPriority=`, `CPUSchedulingResetOnFork=` | none | none | [`nice`](Privileges::nice), [`scheduling`](Privileges::scheduling) | `--nice`, `--scheduling` | values by the plan; the result in each thread |
//! | `IOSchedulingClass=`, `IOSchedulingPriority=` | none | none | [`io_priority`](Privileges::io_priority) | `--io-priority` | values by the plan; the result in each thread |
//! | `CPUAffinity=`, `TimerSlackNSec=` | none | none | [`cpus`](Privileges::cpus), [`timer_slack`](Privileges::timer_slack) | `--cpus`, `--timer-slack` | CPUs by the plan; the result in each thread |
//! | none | `--pdeathsig` | none | [`parent_death_signal`](Privileges::parent_death_signal) | `--pdeathsig` | the result in each thread |
//! | every other directive that restricts | none | none | refused: `unit::Unit::unsupported` lists them | refused, unless `--without` names it | |
//! | a unit file, with its drop-ins | none | none | `unit::Unit` | `--from-unit`, `--property` | as its directives |
//!
//! A program that `psx run` or [`Launch`] starts is verified by the results of the calls. `psx run --check` and
//! [`Launch::check`] also compare the program with the plan from outside.
//!
//! # Every setting
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use privileges::file::{self, FileCapabilities, ParseFileCapabilitiesError};
//! use privileges::{Applied, Capability, Groups, Iab, Id, Mode, ParseIabError, Plan, Privileges, Problem};
//! use privileges::{IoPriority, LandlockFlags, Mismatch, Namespace, Securebits};
//!
//! # fn filter() -> Vec<privileges::seccompiler::sock_filter> { unimplemented!() }
//! # fn ruleset() -> privileges::landlock::RulesetCreated { unimplemented!() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let user: Id = "daemon".into();
//! let groups: Groups = ["adm", "ssl-cert"].into();
//! let daemon = Privileges::new()
//!     .user(user)
//!     .group("daemon")
//!     .groups(groups)
//!     .keep(Capability::NET_BIND_SERVICE)
//!     .inheritable(Capability::NET_BIND_SERVICE)
//!     .ambient(Capability::NET_BIND_SERVICE)
//!     .bounding(Capability::NET_BIND_SERVICE)
//!     .securebits(Securebits::NOROOT | Securebits::NOROOT_LOCKED)
//!     .no_new_privs()
//!     .landlock(ruleset())
//!     .landlock_flags(LandlockFlags::LOG_NEW_EXEC_ON)
//!     .seccomp(&filter())
//!     .chroot("/var/empty")
//!     .chdir("/")
//!     .limit(7, 1024, 1024) // RLIMIT_NOFILE
//!     .umask(0o077)
//!     .new_session_keyring()
//!     .dumpable()
//!     .parent_death_signal(15) // SIGTERM
//!     .new_namespace(Namespace::Network)
//!     .nice(5)
//!     .io_priority(IoPriority::BestEffort(6))
//!     .cpus([0, 1])
//!     .timer_slack(Duration::from_millis(1))
//!     .deadline(Duration::from_secs(2))
//!     .report_failure();
//! let plan: Plan = daemon.plan()?;
//! println!("{plan}");
//! match plan.apply() {
//!     Ok(applied) => {
//!         let applied: Applied = applied;
//!         println!("verified {} threads in /proc", applied.verified);
//!     }
//!     // Only with `report_failure`: otherwise the process is dead by now.
//!     Err(privileges::Error::NotDropped(list)) => list.iter().for_each(|one: &Mismatch| println!("{one}")),
//!     Err(error) => return Err(error.into()),
//! }
//!
//! // Some settings replace others: libcap's modes and its text of three sets.
//! let iab: Result<Iab, ParseIabError> = "!cap_chown,^cap_setuid".parse();
//! let helper = Privileges::new().stay_root().keep_groups().mode(Mode::NoPriv);
//! let caps = Privileges::new().user("nobody").iab(iab?).seccomp_program(Vec::new());
//! if let Err(privileges::Error::Plan(problems)) = helper.plan().and(caps.plan()) {
//!     problems.iter().for_each(|problem: &Problem| println!("{problem}"));
//! }
//!
//! // The state of other processes, and of files.
//! println!("{:?} {}", Mode::current()?, Iab::of_pid(1)?);
//! if let Some(capabilities) = file::get("/usr/bin/ping")? {
//!     let bytes = capabilities.to_bytes();
//!     let read: Result<FileCapabilities, ParseFileCapabilitiesError> = FileCapabilities::from_bytes(&bytes);
//!     assert_eq!(read?, capabilities);
//!     let copy = std::fs::File::open("/tmp/ping")?;
//!     file::set_fd(&copy, capabilities)?;
//!     println!("{:?}", file::get_fd(&copy)?);
//!     file::remove_fd(&copy)?;
//!     file::remove("/tmp/ping")?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What the kernel does not show
//!
//! - The kernel does not show the Landlock domain of a thread, or its securebits, in /proc. A thread with a seccomp
//!   filter of its own that answers calls in the kernel's place can hide that it has no domain.
//! - The kernel does not show what a filter does. It shows only how many filters a thread has.
//! - The kernel shows the root directory of a thread whose ids have changed only to a process with CAP_SYS_PTRACE.
//!   Without it (in a container, for example) only the comparison by the calls counts.
//! - The kernel does not show the keyrings of a thread.
//!
//! # Features
//!
//! - `landlock` and `seccompiler`, both on by default: [`Privileges::landlock`] and [`Privileges::seccomp`] take the
//!   types of these crates, and this crate exports the crates under their names.
//! - `unit`: `privileges::unit` reads unit files of systemd, and `privileges::system_calls` its filters of system
//!   calls.
//! - `serde`: the directives of a unit are read from a table of any format. It enables `unit`.
//! - `toml`: `Privileges::from_toml` reads such a table from TOML. It enables `serde`.

mod context;
mod current;
mod error;
mod filter;
mod iab;
mod id;
mod kill;
mod launch;
mod names;
mod plan;
mod step;
mod target;
mod tasks;
mod verify;

pub mod bpf;
pub mod file;
#[cfg(feature = "unit")]
pub mod system_calls;
#[cfg(feature = "unit")]
pub mod unit;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use context::ExecutionContext;
pub use current::capabilities_of;
pub use error::{Error, Problem};
pub use iab::{Iab, ParseIabError};
pub use id::{Groups, Id, IntoCapabilitySet};
#[cfg(feature = "landlock")]
pub use landlock;
#[cfg(feature = "landlock")]
use landlock::RulesetCreated;
pub use launch::{Launch, LaunchError};
pub use libpsx::process::{
    Capability, CapabilitySet, CapabilitySets, Gid, Instruction, IoPriority, LandlockFlags,
    Namespace, SchedAttr, SchedPolicy, Securebits, Uid,
};
use plan::Purpose;
pub use plan::{Applied, Plan};
#[cfg(feature = "seccompiler")]
pub use seccompiler;
pub use verify::Mismatch;

/// The modes of libcap, cap_set_mode(3), with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The process can never have a privilege: it has no capability, an empty bounding set, and no_new_privs. User id 0
    /// gives no capabilities, and this is locked.
    NoPriv,
    /// Capabilities come from files alone: user id 0 gives none, and there is no ambient set. This is locked.
    Pure1e,
    /// The mode [`Pure1e`](Self::Pure1e) with an inheritable set that is empty at first.
    Pure1eInit,
    /// All securebits are clear, so user id 0 is the superuser.
    Hybrid,
}

/// The settings: the privileges that a process keeps.
///
/// A setting that is made twice with different values is an error of [`plan`](Self::plan); sets of capabilities add
/// up.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing is done until the plan is applied"]
pub struct Privileges {
    user: Option<Id>,
    stay_root: bool,
    group: Option<Id>,
    groups: Option<Groups>,
    keep_groups: bool,
    keep: Option<CapabilitySet>,
    inheritable: Option<CapabilitySet>,
    ambient: Option<CapabilitySet>,
    bounding: Option<CapabilitySet>,
    iab: Option<Iab>,
    /// The capabilities that the bounding set loses.
    blocked: CapabilitySet,
    securebits: Option<Securebits>,
    mode: Option<Mode>,
    no_new_privs: bool,
    landlock: Option<Ruleset>,
    landlock_flags: Option<LandlockFlags>,
    seccomp: Option<Vec<Instruction>>,
    root: Option<PathBuf>,
    directory: Option<PathBuf>,
    umask: Option<u32>,
    limits: Vec<(u32, [u64; 2])>,
    new_session_keyring: bool,
    dumpable: bool,
    parent_death_signal: Option<i32>,
    context: ExecutionContext,
    deadline: Option<Duration>,
    report_failure: bool,
    /// Settings that were made twice with different values.
    twice: Vec<&'static str>,
}

/// A ruleset of Landlock, with the properties that the crate `landlock` shows.
#[derive(Debug, Clone)]
struct Ruleset {
    /// The descriptor, or `None` if the kernel does not support the ruleset.
    ruleset: Option<Arc<OwnedFd>>,
    /// The flags of landlock_restrict_self(2); `None` if they are not known.
    flags: Option<LandlockFlags>,
}

impl Privileges {
    /// Returns the settings without any change: no capability is kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a setting, and records if it was made before with another value.
    fn once<T: PartialEq>(
        mut self,
        name: &'static str,
        value: T,
        place: impl FnOnce(&mut Self) -> &mut Option<T>,
    ) -> Self {
        let place = place(&mut self);
        let other = place.as_ref().is_some_and(|before| *before != value);
        *place = Some(value);
        if other {
            self.twice.push(name);
        }
        self
    }

    /// Sets the user id, all four of them. Without [`group`](Self::group), the group ids are those of the
    /// user's group; without [`groups`](Self::groups) the supplementary groups are the user's.
    pub fn user(self, user: impl Into<Id>) -> Self {
        self.once("user", user.into(), |all| &mut all.user)
    }

    /// States that a process whose user id is 0 keeps it. Without this and without [`user`](Self::user), that is an
    /// error.
    pub fn stay_root(mut self) -> Self {
        self.stay_root = true;
        self
    }

    /// Sets the group id, all four of them.
    pub fn group(self, group: impl Into<Id>) -> Self {
        self.once("group", group.into(), |all| &mut all.group)
    }

    /// Sets the supplementary groups: [`Groups::NONE`], `["adm", "audio"]`, [`Groups::FromUser`].
    pub fn groups(self, groups: impl Into<Groups>) -> Self {
        self.once("groups", groups.into(), |all| &mut all.groups)
    }

    /// States that the process keeps its supplementary groups. Without this, a user, a group or
    /// [`groups`](Self::groups), that is an error.
    pub fn keep_groups(mut self) -> Self {
        self.keep_groups = true;
        self
    }

    /// Adds to the capabilities that stay, permitted and effective. Those that are not named are dropped.
    pub fn keep(mut self, capabilities: impl IntoCapabilitySet) -> Self {
        add(&mut self.keep, capabilities);
        self
    }

    /// Adds to the capabilities that executed programs inherit if their files say so.
    pub fn inheritable(mut self, capabilities: impl IntoCapabilitySet) -> Self {
        add(&mut self.inheritable, capabilities);
        self
    }

    /// Adds to the capabilities that executed programs inherit. They have to be kept as well.
    pub fn ambient(mut self, capabilities: impl IntoCapabilitySet) -> Self {
        add(&mut self.ambient, capabilities);
        self
    }

    /// Adds to the capabilities that stay in the bounding set. The others leave it.
    pub fn bounding(mut self, capabilities: impl IntoCapabilitySet) -> Self {
        add(&mut self.bounding, capabilities);
        self
    }

    /// Sets the inheritable, ambient and bounding set as cap_iab_from_text(3) writes them: each as
    /// cap_iab_set_proc(3) would set it. Setting one of the three besides is an error.
    pub fn iab(self, iab: Iab) -> Self {
        self.once("iab", iab, |all| &mut all.iab)
    }

    /// Sets the securebits.
    pub fn securebits(self, bits: Securebits) -> Self {
        self.once("securebits", bits, |all| &mut all.securebits)
    }

    /// Sets one of libcap's modes. It settles the securebits; without [`keep`](Self::keep) the permitted set
    /// stays as it is, and the effective set becomes empty, as cap_set_mode(3) leaves it.
    pub fn mode(self, mode: Mode) -> Self {
        self.once("mode", mode, |all| &mut all.mode)
    }

    /// Sets no_new_privs, so that execve(2) gives no privilege any more.
    pub fn no_new_privs(mut self) -> Self {
        self.no_new_privs = true;
        self
    }

    /// Puts every thread under Landlock's ruleset, with the flags for logging that were set on it. It sets
    /// no_new_privs too, even on a kernel without Landlock. A ruleset that the kernel does not support (which the
    /// `landlock` crate allows unless told otherwise) restricts nothing, and [`Plan`] says so.
    #[cfg(feature = "landlock")]
    pub fn landlock(mut self, ruleset: RulesetCreated) -> Self {
        if self.landlock.is_some() {
            self.twice.push("landlock");
        }
        let flags = flags_of(&ruleset);
        let ruleset: Option<OwnedFd> = ruleset.into();
        self.landlock = Some(Ruleset { ruleset: ruleset.map(Arc::new), flags });
        self
    }

    /// Sets the flags of landlock_restrict_self(2), in place of those of the ruleset. This is necessary if the version
    /// of the crate `landlock` does not show the flags of its rulesets.
    pub fn landlock_flags(self, flags: LandlockFlags) -> Self {
        self.once("landlock_flags", flags, |all| &mut all.landlock_flags)
    }

    /// Installs a seccomp filter, such as `seccompiler` compiles. It brings no_new_privs. The filter comes last, so it
    /// need not allow the calls of the plan. It has to allow what the threads need to leave the stop, and the calling
    /// thread to verify; [`plan`](Self::plan) runs the filter over these calls ([`bpf`]), and an error lists those
    /// that it denies.
    #[cfg(feature = "seccompiler")]
    pub fn seccomp(self, program: &[seccompiler::sock_filter]) -> Self {
        let instruction = |step: &seccompiler::sock_filter| Instruction {
            code: step.code,
            jt: step.jt,
            jf: step.jf,
            k: step.k,
        };
        self.seccomp_program(program.iter().map(instruction).collect())
    }

    /// Installs a seccomp filter of instructions, as [`seccomp`](Self::seccomp) does.
    pub fn seccomp_program(self, program: Vec<Instruction>) -> Self {
        self.once("seccomp", program, |all| &mut all.seccomp)
    }

    /// Sets the root directory, chroot(2). The working directory becomes it too.
    pub fn chroot(self, root: impl Into<PathBuf>) -> Self {
        self.once("chroot", root.into(), |all| &mut all.root)
    }

    /// Sets the working directory, chdir(2): in the new root directory, if there is one.
    pub fn chdir(self, directory: impl Into<PathBuf>) -> Self {
        self.once("chdir", directory.into(), |all| &mut all.directory)
    }

    /// Sets a resource limit of the process, setrlimit(2): `libc::RLIMIT_NOFILE`, the soft and the hard limit.
    pub fn limit(mut self, resource: u32, soft: u64, hard: u64) -> Self {
        if self.limits.iter().any(|(other, limits)| *other == resource && *limits != [soft, hard]) {
            self.twice.push("limit");
        }
        self.limits.retain(|(other, _)| *other != resource);
        self.limits.push((resource, [soft, hard]));
        self
    }

    /// Sets the file mode creation mask, umask(2).
    pub fn umask(self, mask: u32) -> Self {
        self.once("umask", mask & 0o777, |all| &mut all.umask)
    }

    /// Gives all threads a new, empty session keyring (session-keyring(7)). Without it the new user can go on to read
    /// the keys of the present session keyring, root's for example, because it possesses them.
    pub fn new_session_keyring(mut self) -> Self {
        self.new_session_keyring = true;
        self
    }

    /// Makes the process dumpable again (PR_SET_DUMPABLE(2const)), which the kernel undoes if an id changes. A process
    /// of the same user can then trace it, and a core dump is written.
    pub fn dumpable(mut self) -> Self {
        self.dumpable = true;
        self
    }

    /// Sets the signal that the process gets when its parent ends (PR_SET_PDEATHSIG(2const)). The kernel clears it if
    /// an id changes.
    pub fn parent_death_signal(self, signal: i32) -> Self {
        self.once("parent_death_signal", signal, |all| &mut all.parent_death_signal)
    }

    /// Moves the process into a new namespace of this kind ([`libpsx::process::unshare`]): all threads into the same
    /// one.
    pub fn new_namespace(mut self, kind: Namespace) -> Self {
        let new = &mut self.context.new_namespaces;
        if !new.contains(&kind) {
            new.push(kind);
        }
        self
    }

    /// Moves the process into a namespace, setns(2): a file of /proc/PID/ns, or one that was mounted from there.
    ///
    /// ```no_run
    /// use privileges::{Namespace, Privileges};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let network = std::fs::File::open("/run/netns/blue")?;
    /// Privileges::new().user("nobody").join_namespace(Namespace::Network, network).plan()?.apply()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_namespace(mut self, kind: Namespace, namespace: impl Into<OwnedFd>) -> Self {
        if self.context.joined.iter().any(|(other, _)| *other == kind) {
            self.twice.push("join_namespace");
        }
        self.context.joined.push((kind, Arc::new(namespace.into())));
        self
    }

    /// Sets the scheduling policy with its attributes, sched_setattr(2).
    ///
    /// ```
    /// use privileges::{Privileges, SchedAttr, SchedPolicy};
    ///
    /// let settings = Privileges::new().scheduling(SchedAttr::new(SchedPolicy::Batch(5)).reset_on_fork());
    /// ```
    pub fn scheduling(self, attributes: SchedAttr) -> Self {
        self.once("scheduling", attributes, |all| &mut all.context.scheduling)
    }

    /// Sets the nice value and leaves the policy, setpriority(2): from -20 (the most CPU time) to 19.
    pub fn nice(self, value: i32) -> Self {
        self.once("nice", value, |all| &mut all.context.nice)
    }

    /// Sets the priority of input and output, ioprio_set(2).
    pub fn io_priority(self, priority: IoPriority) -> Self {
        self.once("io_priority", priority, |all| &mut all.context.io_priority)
    }

    /// Sets the CPUs that the threads may run on, by their numbers, sched_setaffinity(2).
    pub fn cpus(self, numbers: impl IntoIterator<Item = u16>) -> Self {
        let mut words = Vec::new();
        for number in numbers {
            let (word, bit) = (usize::from(number / 64), number % 64);
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            if let Some(word) = words.get_mut(word) {
                *word |= 1 << bit;
            }
        }
        self.once("cpus", words, |all| &mut all.context.cpus)
    }

    /// Sets how late the kernel may let a thread's timers expire, PR_SET_TIMERSLACK(2const).
    pub fn timer_slack(self, slack: Duration) -> Self {
        self.once("timer_slack", slack, |all| &mut all.context.timer_slack)
    }

    /// Sets how long to try to bring all threads to a stop; 10 seconds if it is not set.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.once("deadline", deadline, |all| &mut all.deadline)
    }

    /// Makes [`Plan::apply`] return an error if it fails after it has changed the process. Otherwise the process is
    /// killed.
    pub fn report_failure(mut self) -> Self {
        self.report_failure = true;
        self
    }

    /// Reads settings from TOML: directives of systemd.exec(5), each with a value or a list of values, as [`unit`]
    /// reads them from a unit file.
    ///
    /// ```
    /// use privileges::Privileges;
    ///
    /// let settings = Privileges::from_toml(
    ///     r#"
    ///     User = "nobody"
    ///     CapabilityBoundingSet = ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]
    ///     NoNewPrivileges = true
    ///     LimitNOFILE = "1024:4096"
    ///     "#,
    /// )?;
    /// # let _ = settings;
    /// # Ok::<(), privileges::unit::UnitError>(())
    /// ```
    ///
    /// # Errors
    /// The text is not TOML; a name is not one of systemd.exec(5) (the nearest one is named), or is not supported; a
    /// value is not one of its directive; a file that one names cannot be opened.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self, unit::UnitError> {
        toml::from_str::<unit::Directives>(text).map_err(unit::UnitError::of_table)?.privileges()
    }

    /// Looks up all names, checks all settings, and returns the plan.
    ///
    /// # Errors
    /// [`Error::Plan`] lists all problems that were found. Nothing has changed.
    pub fn plan(self) -> Result<Plan, Error> {
        Plan::of(self, Purpose::Process)
    }

    /// Returns the plan for a program that is executed, in the place of this process or in a child.
    ///
    /// It differs from [`plan`](Self::plan) in three points. A filter need not allow the calls of a stop, but has to
    /// allow execve(2). [`ambient`](Self::ambient) includes [`keep`](Self::keep). A process that stays root keeps its
    /// capabilities until execve(2), which gives root the bounding set again.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use privileges::{Capability, Privileges};
    ///
    /// let launch = Privileges::new().user("www-data").ambient(Capability::NET_BIND_SERVICE).plan_launch()?;
    /// println!("{launch}");
    /// // It returns only if it fails.
    /// launch.exec(Command::new("/usr/local/bin/server"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Plan`] lists all problems that were found. Nothing has changed.
    pub fn plan_launch(self) -> Result<Launch, Error> {
        Plan::of_program(self)
    }

    /// Returns a problem for each pair of settings that contradict each other.
    fn find_contradictions(&self) -> Vec<Problem> {
        let mut found: Vec<Problem> =
            self.twice.iter().map(|name| Problem::ConflictingSettings(name, name)).collect();
        let iab = self.iab.is_some();
        let context = &self.context;
        let both_namespaces =
            context.joined.iter().any(|(kind, _)| context.new_namespaces.contains(kind));
        for (both, first, second) in [
            (self.user.is_some() && self.stay_root, "user", "stay_root"),
            (self.groups.is_some() && self.keep_groups, "groups", "keep_groups"),
            (iab && self.inheritable.is_some(), "iab", "inheritable"),
            (iab && self.ambient.is_some(), "iab", "ambient"),
            (iab && self.bounding.is_some(), "iab", "bounding"),
            (context.scheduling.is_some() && context.nice.is_some(), "scheduling", "nice"),
            (both_namespaces, "new_namespace", "join_namespace"),
        ] {
            if both {
                found.push(Problem::ConflictingSettings(first, second));
            }
        }
        found
    }
}

fn add(place: &mut Option<CapabilitySet>, more: impl IntoCapabilitySet) {
    *place = Some(place.unwrap_or_default() | more.into_capability_set());
}

/// Returns the flags of landlock_restrict_self(2) that were set on a ruleset. The crate `landlock` returns the
/// descriptor without them, and shows them in `Debug` alone. TSYNC is not among them, because the plan decides how all
/// threads get the ruleset. Returns `None` if this version of the crate does not show the flags.
#[cfg(feature = "landlock")]
fn flags_of(ruleset: &RulesetCreated) -> Option<LandlockFlags> {
    const TSYNC: u32 = 1 << 3;
    let shown = format!("{ruleset:?}");
    let (_, rest) = shown.split_once(" actual_restrict_self_flags: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let bits = digits.parse::<u32>().ok()? & !TSYNC;
    Some(LandlockFlags::from_bits(bits))
}
