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
//! | user ids | stay; an error if one of them is 0, unless [`stay_root`](Privileges::stay_root); every thread must have those of the calling thread, unless `stay_root` | [`user`](Privileges::user): all four become it | asked, /proc, an attempt to become root |
//! | group ids | the user's group; without a user they stay, and every thread must have those of the calling thread, unless `stay_root` and `keep_groups` | [`group`](Privileges::group): all four become it | asked, /proc |
//! | supplementary groups | the user's; none with a group alone; without both an error if any thread has some, unless [`keep_groups`](Privileges::keep_groups) | [`groups`](Privileges::groups) | asked, /proc |
//! | permitted, effective | become empty | [`keep`](Privileges::keep) | asked, /proc |
//! | inheritable | becomes empty (under [`Mode::Pure1e`] and [`Mode::Hybrid`] it stays) | [`inheritable`](Privileges::inheritable) | asked, /proc |
//! | ambient | becomes empty (under [`Mode::Hybrid`] it stays, as far as it is kept) | [`ambient`](Privileges::ambient) | asked, /proc |
//! | bounding set | stays | [`bounding`](Privileges::bounding), [`iab`](Privileges::iab) | asked, /proc |
//! | securebits | stay, but for `keep_caps` | [`securebits`](Privileges::securebits), [`mode`](Privileges::mode) | asked |
//! | no_new_privs | stays as it is | [`no_new_privs`](Privileges::no_new_privs), a ruleset, a filter, [`Mode::NoPriv`] | asked, /proc |
//! | Landlock | nothing | [`landlock`](Privileges::landlock), [`one_landlock_domain`](Privileges::one_landlock_domain) | the result of the call in each thread; the kernel does not show domains |
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
//! | scheduling | stays | [`scheduling`](Privileges::scheduling), [`nice`](Privileges::nice), [`io_priority`](Privileges::io_priority), [`cpus`](Privileges::cpus), [`timer_slack`](Privileges::timer_slack) | values by the plan; the result of the call in each thread |
//!
//! # The same settings elsewhere
//!
//! The table above says how each setting is verified. "None" means that there is no such setting.
//!
//! | systemd.exec(5) | setpriv(1) | capsh(1) | here | `psx run` |
//! |---|---|---|---|---|
//! | `User=` | `--reuid`, `--ruid`, `--euid` | `--user`, `--uid` | [`user`](Privileges::user), [`stay_root`](Privileges::stay_root) | `--user`, `--stay-root` |
//! | `Group=` | `--regid` | `--gid` | [`group`](Privileges::group) | `--group` |
//! | `SupplementaryGroups=` | `--groups`, `--init-groups`, `--clear-groups`, `--keep-groups` | `--groups` | [`groups`](Privileges::groups), [`keep_groups`](Privileges::keep_groups) | `--groups`, `--keep-groups` |
//! | `AmbientCapabilities=` | `--ambient-caps`, `--inh-caps` | `--addamb`, `--iab` | [`ambient`](Privileges::ambient), [`inheritable`](Privileges::inheritable), [`iab`](Privileges::iab) | `--ambient`, `--inheritable`, `--iab` |
//! | `CapabilityBoundingSet=` | `--bounding-set` | `--drop`, `--iab` | [`bounding`](Privileges::bounding) | `--bounding` |
//! | (a started program has what its file and the ambient set give) | the same | `--caps` | [`keep`](Privileges::keep) | the same as systemd |
//! | `SecureBits=` | `--securebits` | `--secbits`, `--mode` | [`securebits`](Privileges::securebits), [`mode`](Privileges::mode) | `--securebits`, `--mode` |
//! | `NoNewPrivileges=` | `--no-new-privs` | `--no-new-privs` | [`no_new_privs`](Privileges::no_new_privs) | `--no-new-privs` |
//! | `SystemCallFilter=`, `SystemCallErrorNumber=`, `SystemCallArchitectures=native` | `--seccomp-filter` | none | [`seccomp`](Privileges::seccomp), `system_calls::SystemCallFilter` | `--seccomp`, `--seccomp-error` |
//! | none | `--landlock-access`, `--landlock-rule` | none | [`landlock`](Privileges::landlock) | `--landlock-ro`, `--landlock-rw` |
//! | `RootDirectory=` | none | `--chroot` | [`chroot`](Privileges::chroot) | `--chroot` |
//! | `WorkingDirectory=` | none | none | [`chdir`](Privileges::chdir) | `--chdir` |
//! | `UMask=` | none | none | [`umask`](Privileges::umask) | `--umask` |
//! | `LimitNOFILE=` and the like | none | none | [`limit`](Privileges::limit) | `--limit` |
//! | `KeyringMode=private` | none | none | [`new_session_keyring`](Privileges::new_session_keyring) | `--new-session-keyring` |
//! | `PrivateNetwork=`, `PrivateIPC=`, `NetworkNamespacePath=`, `IPCNamespacePath=` | none | none | [`new_namespace`](Privileges::new_namespace), [`join_namespace`](Privileges::join_namespace) | `--new-namespace`, `--join-namespace` |
//! | `Nice=`, `CPUSchedulingPolicy=`, `CPUSchedulingPriority=`, `CPUSchedulingResetOnFork=` | none | none | [`nice`](Privileges::nice), [`scheduling`](Privileges::scheduling) | `--nice`, `--scheduling` |
//! | `IOSchedulingClass=`, `IOSchedulingPriority=` | none | none | [`io_priority`](Privileges::io_priority) | `--io-priority` |
//! | `CPUAffinity=`, `TimerSlackNSec=` | none | none | [`cpus`](Privileges::cpus), [`timer_slack`](Privileges::timer_slack) | `--cpus`, `--timer-slack` |
//! | none | `--pdeathsig` | none | [`parent_death_signal`](Privileges::parent_death_signal) | `--pdeathsig` |
//! | every other directive that restricts | none | none | refused: `unit::Unit::unsupported` lists them | refused, unless `--without` names it |
//! | a unit file, with its drop-ins | none | none | `unit::Unit` | `--from-unit`, `--property` |
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
//! use privileges::{IoPriority, LandlockFlags, Mismatch, Namespace, Resource, Securebits};
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
//!     .one_landlock_domain() // only if no thread has restricted itself
//!     .seccomp(&filter())
//!     .chroot("/var/empty")
//!     .chdir("/")
//!     .limit(Resource::Nofile, 1024, 1024)
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
//!   types of these crates, and this crate exports the crates under their names. `seccompiler` has nothing for big-endian
//!   CPUs (s390x), so there is only [`Privileges::seccomp_program`].
//! - `unit`: `privileges::unit` reads unit files of systemd, and `privileges::system_calls` its filters of system
//!   calls.
//! - `serde`: the directives of a unit are read from a table of any format. It enables `unit`.
//! - `toml`: `Privileges::from_toml` reads such a table from TOML. It enables `serde`.

mod context;
mod current;
mod error;
mod expected;
mod filter;
mod iab;
mod id;
mod kill;
mod launch;
mod names;
mod plan;
mod resource;
mod settings;
mod status;
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

pub use current::capabilities_of;
pub use error::{Error, Problem};
pub use iab::{Iab, ParseIabError};
pub use id::{Groups, Id, IntoCapabilitySet};
#[cfg(feature = "landlock")]
pub use landlock;
pub use launch::{Launch, LaunchError};
pub use libpsx::process::{
    Capability, CapabilitySet, CapabilitySets, Gid, Instruction, IoPriority, LandlockFlags,
    Namespace, SchedAttr, SchedPolicy, Securebits, Uid,
};
pub use plan::{Applied, Plan};
pub use resource::Resource;
#[cfg(all(feature = "seccompiler", target_endian = "little"))]
pub use seccompiler;
pub use settings::Privileges;
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
    /// All securebits about user id 0 are clear, so it is the superuser.
    Hybrid,
}
