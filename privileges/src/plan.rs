//! The plan: the calls in the only possible order, and their execution.
//!
//! 1. The calls that need privilege come first: the session keyring, the root directory, the bounding set, groups.
//! 2. The user ids follow. If they change from 0, the kernel clears the effective and ambient sets. It clears the
//!    permitted set too, unless the "keep capabilities" flag is set before.
//! 3. The capability sets follow, with CAP_SETPCAP as long as it is needed; then the ambient set, which has to be
//!    permitted and inheritable; then the securebits, which may forbid raising it; then the final sets.
//! 4. The state that the kernel clears if ids change follows: dumpable, the parent-death signal.
//! 5. The restrictions follow: no_new_privs, Landlock. Then every thread is asked for its credentials. The filter is
//!    the last call.

// # Safety
//
// Each block makes one call, with numbers or with memory of its function.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use libpsx::process::Synchronization;
use libpsx::process::{self, Capability, CapabilitySet, CapabilitySets, Gid, Securebits, Uid};
use libpsx::{PartialFailureAction, Sensitivity, TransactionError};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{Group, User};

use crate::context::{PrepareError, Prepared};
use crate::launch::Launch;
use crate::step::{Calls, Step, WATCHED};
use crate::target::{TargetState, target_state};
use crate::tasks::{self, Tasks};
use crate::verify::{self, Expected, Verification};
use crate::{Error, Groups, Id, Mode, Privileges, Problem, bpf, filter, kill, names};

/// The calls that drop the privileges, in their order. [`Plan::apply`] performs them.
#[derive(Debug)]
#[must_use = "a plan does nothing until it is applied"]
pub struct Plan {
    steps: Arc<Vec<Step>>,
    /// Each step in words, made before a filter may forbid it.
    shown: Vec<String>,
    expected: Expected,
    /// What the process keeps, in words.
    stays: Vec<String>,
    /// What the process loses, in words.
    goes: Vec<String>,
    /// How /proc is read after the stop, in words.
    looks: &'static str,
    /// Whether a child process reads /proc.
    outside: bool,
    deadline: Option<Duration>,
    report_failure: bool,
}

/// The result of a plan that was applied.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Applied {
    /// The number of threads that were changed and asked.
    pub threads: usize,
    /// The number of those threads that were verified in /proc too. It is 0 if there is no /proc of this process, if
    /// the process that reads /proc could not be made, or if the new filter does not let this process ask it.
    pub verified: usize,
    /// The number of kernel threads of an io_uring that keep the old privileges ([`libpsx::Report::sqpoll`]). If it is
    /// not 0, close those rings.
    pub sqpoll: usize,
}

/// Returns the value, or adds the problem to the list.
fn take<T>(problems: &mut Vec<Problem>, result: Result<T, Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn new_uid(raw: u32) -> Result<Uid, Problem> {
    Uid::new(raw).map_err(|_| Problem::InvalidId(raw))
}

fn new_gid(raw: u32) -> Result<Gid, Problem> {
    Gid::new(raw).map_err(|_| Problem::InvalidId(raw))
}

fn user(id: &Id) -> Result<(Uid, Option<User>), Problem> {
    let of_number = |number: u32| User::from_uid(number.into()).map_err(Problem::UserDatabase);
    let (found, number) = match id {
        Id::Name(name) => {
            match (User::from_name(name).map_err(Problem::UserDatabase)?, digits(name)) {
                (Some(found), _) => {
                    let number = found.uid.as_raw();
                    (Some(found), number)
                }
                (None, Some(number)) => (of_number(number)?, number),
                (None, None) => return Err(Problem::UserNotFound(name.clone())),
            }
        }
        Id::Number(number) => (of_number(*number)?, *number),
    };
    Ok((new_uid(number)?, found))
}

fn group(id: &Id) -> Result<Gid, Problem> {
    let number = match id {
        Id::Name(name) => {
            let found = Group::from_name(name).map_err(Problem::UserDatabase)?;
            let number = found.map(|group| group.gid.as_raw()).or_else(|| digits(name));
            number.ok_or_else(|| Problem::GroupNotFound(name.clone()))?
        }
        Id::Number(number) => *number,
    };
    new_gid(number)
}

/// Returns the number that a name of digits alone stands for.
fn digits(name: &str) -> Option<u32> {
    let all = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if all { name.parse().ok() } else { None }
}

fn directory(path: &Path) -> Result<File, Problem> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
    options.open(path).map_err(|error| Problem::OpenDirectory { path: path.to_owned(), error })
}

/// Opens a directory by its path in a new root directory. Neither `..` nor a link leads out of the root directory
/// (openat2(2), RESOLVE_IN_ROOT).
fn directory_in(root: &File, path: &Path) -> Result<File, Problem> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    match openat2(root, path, how) {
        Ok(opened) => Ok(opened.into()),
        Err(errno) => Err(Problem::OpenDirectory { path: path.to_owned(), error: errno.into() }),
    }
}

/// Makes an inotify instance by which threads can compare these directories. Returns `None` if the kernel refuses.
fn comparer(directories: &[&File]) -> Option<Arc<OwnedFd>> {
    // SAFETY: it takes a number.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    if fd < 0 {
        return None;
    }
    // SAFETY: it was just opened.
    let inotify = unsafe { OwnedFd::from_raw_fd(fd) };
    // The calling thread has to be allowed to read the directories.
    let all = directories.iter().all(|directory| {
        CString::new(format!("/proc/self/fd/{}", directory.as_raw_fd())).is_ok_and(|path| {
            // SAFETY: the path is a string.
            unsafe { libc::inotify_add_watch(fd, path.as_ptr(), WATCHED) > 0 }
        })
    });
    all.then(|| Arc::new(inotify))
}

/// Returns whether the securebits may change to these: locked bits and the locks must stay.
fn unlocked(now: Securebits, bits: Securebits) -> bool {
    [0, 2, 4, 6].into_iter().all(|base| {
        let (locked, changed) = (now.bits() >> (base + 1) & 1, now.bits() ^ bits.bits());
        locked == 0 || changed >> base & 0b11 == 0
    })
}

/// The present ids of the calling thread.
pub(crate) struct Now {
    pub(crate) users: [u32; 3],
    pub(crate) groups: [u32; 3],
    pub(crate) supplementary: Vec<u32>,
}

/// The purpose of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The plan is for this process, which goes on.
    Process,
    /// The plan is for a program that is executed after the calls.
    Program,
}

impl Now {
    fn get() -> Result<Self, Error> {
        let unknown = |errno: nix::Error| Error::ReadPrivileges(errno.into());
        let users = nix::unistd::getresuid().map_err(unknown)?;
        let groups = nix::unistd::getresgid().map_err(unknown)?;
        let supplementary = nix::unistd::getgroups().map_err(unknown)?;
        Ok(Self {
            users: [users.real, users.effective, users.saved].map(nix::unistd::Uid::as_raw),
            groups: [groups.real, groups.effective, groups.saved].map(nix::unistd::Gid::as_raw),
            supplementary: supplementary.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        })
    }

    fn has_groups(&self, groups: &[Gid]) -> bool {
        names::numbers(self.supplementary.iter().copied())
            == names::numbers(groups.iter().map(|gid| gid.as_raw()))
    }
}

/// The ids that the plan sets.
struct Ids {
    uid: Option<Uid>,
    gid: Option<Gid>,
    groups: Option<Vec<Gid>>,
}

fn ids(settings: &Privileges, now: &Now, problems: &mut Vec<Problem>) -> Ids {
    let found = settings.user.as_ref().and_then(|id| take(problems, user(id)));
    let (uid, entry) = match found {
        Some((uid, entry)) => (Some(uid), entry),
        None => (None, None),
    };
    let no_entry = uid.filter(|_| entry.is_none()).map(Uid::as_raw);
    let mut lacks_entry = false;
    let gid = match (&settings.group, &entry) {
        (Some(id), _) => take(problems, group(id)),
        (None, Some(entry)) => take(problems, new_gid(entry.gid.as_raw())),
        (None, None) => {
            lacks_entry |= no_entry.is_some();
            None
        }
    };
    let of_user = matches!(settings.groups, None | Some(Groups::FromUser));
    let groups = match (&settings.groups, &entry, gid) {
        _ if settings.keep_groups => None,
        (Some(Groups::Explicit(ids)), ..) => {
            Some(ids.iter().filter_map(|id| take(problems, group(id))).collect())
        }
        (Some(Groups::FromUserAnd(ids)), ..) if settings.user.is_none() => {
            Some(ids.iter().filter_map(|id| take(problems, group(id))).collect())
        }
        (chosen, Some(entry), Some(gid)) => take(problems, groups_of(entry, gid)).map(|mut all| {
            if let Some(Groups::FromUserAnd(ids)) = chosen {
                all.extend(ids.iter().filter_map(|id| take(problems, group(id))));
                all.sort_unstable_by_key(|gid| gid.as_raw());
                all.dedup();
            }
            all
        }),
        (_, None, Some(_)) if settings.user.is_none() => Some(Vec::new()),
        _ => {
            lacks_entry |= no_entry.is_some();
            None
        }
    };
    if let Some(raw) = no_entry.filter(|_| lacks_entry) {
        problems.push(Problem::NoPasswdEntry(raw));
    }
    if settings.user.is_none() && !settings.stay_root && now.users.contains(&0) {
        problems.push(Problem::RootNotDropped);
    }
    let nothing = settings.user.is_none() && settings.group.is_none() && of_user;
    // A supplementary group that is equal to the group id gives no further access.
    let more = now.supplementary.iter().any(|&group| group != now.groups[1]);
    if nothing && !settings.keep_groups && more {
        problems.push(Problem::GroupsNotDropped(now.supplementary.clone()));
    }
    Ids { uid, gid, groups }
}

impl Plan {
    /// Makes a plan for a program. If the process stays root and the settings name no kept capabilities, the permitted
    /// set keeps those that execve(2) gives root. Without them root could not execute every file, and would get none
    /// under no_new_privs.
    pub(crate) fn of_program(mut settings: Privileges) -> Result<Launch, Error> {
        let now = Now::get()?;
        let stays_root = settings.user.is_none() && now.users.contains(&0);
        if stays_root && settings.keep.is_none() && settings.mode.is_none() {
            let permitted = CapabilitySets::current().map(|sets| sets.permitted);
            let bounding = settings.bounding.unwrap_or_else(process::bounding_set);
            settings.keep = Some(permitted.unwrap_or_default() & bounding);
        }
        // Ambient capabilities are kept, because only a permitted capability can be ambient.
        if let Some(ambient) = settings.ambient {
            settings.keep = Some(settings.keep.unwrap_or_default() | ambient);
        }
        Ok(Launch::new(Self::of(settings, Purpose::Program)?, &now))
    }

    pub(crate) fn of(mut settings: Privileges, purpose: Purpose) -> Result<Self, Error> {
        let unknown = |errno: libpsx::Errno| {
            Error::ReadPrivileges(std::io::Error::from_raw_os_error(errno.raw_os_error()))
        };
        let now = CapabilitySets::current().map_err(unknown)?;
        let bits_now = Securebits::current().map_err(unknown)?;
        let bounding_now = process::bounding_set();
        let ids_now = Now::get()?;
        let mut problems = settings.find_contradictions();
        if let Some(iab) = settings.iab {
            settings.inheritable = Some(iab.inheritable);
            settings.ambient = Some(iab.ambient);
            settings.blocked = iab.blocked;
        }
        let settings = settings;

        let Ids { uid, gid, groups } = ids(&settings, &ids_now, &mut problems);
        let TargetState { sets, ambient, bounding, securebits } =
            target_state(&settings, now, bounding_now, &mut problems);
        if let Some(program) = &settings.seccomp {
            take(&mut problems, bpf::Program::new(program).map_err(Problem::InvalidFilter));
            let denied = filter::denied(program, purpose);
            if !denied.is_empty() {
                problems.push(Problem::FilterDeniesCalls(denied));
            }
        }
        let no_new_privs = settings.no_new_privs
            || settings.mode == Some(Mode::NoPriv)
            || settings.landlock.is_some()
            || settings.seccomp.is_some();
        let dropped = bounding_now - bounding;
        // The "keep capabilities" flag lets capabilities survive the change of user ids. It does not stay
        // set if it can be cleared.
        let flag_locked = bits_now.contains(Securebits::KEEP_CAPS_LOCKED);
        let flag = if flag_locked { 0 } else { Securebits::KEEP_CAPS.bits() };
        let bits_now_lasting = Securebits::from_bits(bits_now.bits() & !flag);
        let bits = securebits.unwrap_or(bits_now_lasting);
        let new_bits = bits != bits_now_lasting;
        let mut locked = |locked: bool, what| {
            if locked {
                problems.push(Problem::SecurebitsLocked { what, bits: bits_now });
            }
        };
        locked(new_bits && !unlocked(bits_now, bits), "changing the securebits");
        let no_raise = bits_now.contains(Securebits::NO_CAP_AMBIENT_RAISE);
        locked(!ambient.is_empty() && no_raise, "raising ambient capabilities");
        // A process that has the groups already needs no privilege to stay so. (But other threads may not be.)
        let can = |capability| now.permitted.contains(capability);
        let new_groups =
            groups.clone().filter(|groups| can(Capability::SETGID) || !ids_now.has_groups(groups));

        let setpcap: CapabilitySet = Capability::SETPCAP.into();
        let later = if new_bits { setpcap } else { CapabilitySet::EMPTY };
        let meanwhile = CapabilitySets {
            effective: sets.effective | later,
            permitted: sets.permitted | later,
            inheritable: sets.inheritable,
        };
        let survives = bits_now.contains(Securebits::NO_SETUID_FIXUP);
        let flagged = bits_now.contains(Securebits::KEEP_CAPS);
        let keep = uid.is_some() && !survives && !flagged && !meanwhile.permitted.is_empty();
        locked(keep && flag_locked, "keeping capabilities while the user id changes");

        let mut needs = |needed: bool, what, capability| {
            if needed && !can(capability) {
                problems.push(Problem::MissingCapability { what, capability });
            }
        };
        needs(!dropped.is_empty(), "reducing the bounding set", Capability::SETPCAP);
        needs(new_bits, "changing the securebits", Capability::SETPCAP);
        needs(settings.root.is_some(), "changing the root directory", Capability::SYS_CHROOT);
        let namespaces: Vec<_> = settings.context.kinds().collect();
        needs(!namespaces.is_empty(), "changing namespaces", Capability::SYS_ADMIN);
        needs(new_groups.is_some(), "setting the supplementary groups", Capability::SETGID);
        let other_gid = gid.is_some_and(|gid| !ids_now.groups.contains(&gid.as_raw()));
        needs(other_gid, "changing the group ids", Capability::SETGID);
        let other_uid = uid.is_some_and(|uid| !ids_now.users.contains(&uid.as_raw()));
        needs(other_uid, "changing the user ids", Capability::SETUID);
        problems.extend(settings.context.problems(now.permitted));
        for &(resource, [soft, hard]) in &settings.limits {
            if soft > hard {
                problems.push(Problem::SoftAboveHard { resource, soft, hard });
            }
            let raised = limits_of(0, resource).is_some_and(|[_, now]| hard > now);
            if raised && !can(Capability::SYS_RESOURCE) {
                let what = names::resource(resource);
                let capability = Capability::SYS_RESOURCE;
                problems.push(Problem::RaisedLimit { resource: what, hard, capability });
            }
        }

        let root = settings.root.as_ref().and_then(|path| take(&mut problems, directory(path)));
        let working = settings.directory.as_ref().and_then(|path| match &root {
            Some(root) => take(&mut problems, directory_in(root, path)),
            None if settings.root.is_none() => take(&mut problems, directory(path)),
            // The root directory is a problem already.
            None => None,
        });
        let landlock = settings.landlock.as_ref();
        let flags =
            landlock.and_then(|landlock| match settings.landlock_flags.or(landlock.flags) {
                None if landlock.ruleset.is_some() => {
                    take(&mut problems, Err(Problem::UnknownLandlockFlags))
                }
                flags => flags,
            });
        if !problems.is_empty() {
            return Err(problems.into());
        }

        let mut steps = Vec::new();
        if settings.new_session_keyring {
            steps.push(Step::JoinKeyring);
        }
        // A capability that becomes inheritable must still be in the bounding set.
        let first = CapabilitySets {
            effective: now.permitted,
            permitted: now.permitted,
            inheritable: now.inheritable | sets.inheritable,
        };
        // A capability that is not permitted can become inheritable if CAP_SETPCAP is effective then.
        let beyond = !(now.permitted | now.inheritable).is_superset(first.inheritable);
        if beyond && !now.effective.contains(Capability::SETPCAP) {
            steps.push(Step::Capabilities(CapabilitySets { effective: now.permitted, ..now }));
        }
        if first != now {
            steps.push(Step::Capabilities(first));
        }
        let scheduled = settings.context.is_scheduled();
        let joined = settings.context.expected();
        steps.extend(settings.context.steps());
        let place = |file: &File| verify::place_at(file.as_raw_fd(), c"");
        let root_place = root.as_ref().and_then(place);
        let directory_place = working.as_ref().or(root.as_ref()).and_then(place);
        let directories: Vec<&File> = root.iter().chain(&working).collect();
        let inotify = if directories.is_empty() { None } else { comparer(&directories) };
        let compare =
            |path| inotify.iter().map(move |inotify| Step::Compare(inotify.clone(), path));
        if let Some((root, path)) = root.zip(settings.root) {
            steps.extend([Step::Enter(root, path), Step::Chroot]);
            steps.extend(compare(c"/"));
            if working.is_none() {
                steps.extend(compare(c"."));
            }
        }
        if let Some((working, path)) = working.zip(settings.directory) {
            steps.push(Step::Enter(working, path));
            steps.extend(compare(c"."));
        }
        steps.extend(settings.umask.map(Step::Umask));
        steps.extend(
            settings.limits.iter().map(|&(resource, limits)| Step::Limit(resource, limits)),
        );
        steps.extend(dropped.iter().map(Step::DropBounding));
        steps.extend(new_groups.map(Step::Groups));
        steps.extend(gid.map(Step::Gid));
        if keep {
            steps.push(Step::KeepCapabilities(true));
        }
        steps.extend(uid.map(Step::Uid));
        steps.push(Step::Capabilities(meanwhile));
        steps.push(Step::ClearAmbient);
        steps.extend(ambient.iter().map(Step::RaiseAmbient));
        if keep || flagged && !flag_locked {
            steps.push(Step::KeepCapabilities(false));
        }
        if new_bits {
            steps.push(Step::Securebits(bits));
        }
        if sets != meanwhile {
            steps.push(Step::Capabilities(sets));
        }
        if settings.dumpable {
            steps.push(Step::Dumpable);
        }
        steps.extend(settings.parent_death_signal.map(Step::ParentDeathSignal));
        if no_new_privs {
            steps.push(Step::NoNewPrivs);
        }
        let ruleset = landlock.and_then(|landlock| landlock.ruleset.clone());
        let no_landlock = landlock.is_some() && ruleset.is_none();
        let forbids_proc = ruleset.is_some();
        let filtered = settings.seccomp.is_some();
        // A call that the kernel performs in all threads has to be the last call, except for questions. If there is a
        // filter, the filter is that call, so the ruleset is broadcast.
        let how = match filtered {
            true => Synchronization::Broadcast,
            false => Synchronization::for_landlock(),
        };
        let flags = flags.unwrap_or_default();
        steps.extend(ruleset.map(|ruleset| Step::Landlock(ruleset, how, flags)));
        let may_ask = settings.seccomp.as_ref().is_none_or(|program| tasks::may_ask_under(program));
        steps.extend(settings.seccomp.map(Step::Seccomp));

        let outside = may_ask && (root_place.is_some() || forbids_proc || filtered);
        let looks = match (may_ask, outside) {
            (false, _) => "/proc is not read, because the filter denies futex or wait4 for it",
            (true, true) => "a child process reads /proc of every thread",
            (true, false) => "/proc of every thread is read",
        };
        let known = CapabilitySet::all();
        let mut stays = Vec::new();
        let mut goes = Vec::new();
        let mut tell =
            |set: bool, what: &str, before: String, after: String| match set && before != after {
                true => goes.push(format!("{what} {before} becomes {after}")),
                false => stays.push(format!("{what} {before}")),
            };
        let ids_text = |ids: [u32; 3]| match ids {
            [a, b, c] if a == b && b == c => names::user(a),
            ids => format!("{} (real, effective, saved)", ids.map(names::user).join(" ")),
        };
        tell(
            uid.is_some(),
            "uid",
            ids_text(ids_now.users),
            uid.map_or(String::new(), |uid| names::user(uid.as_raw())),
        );
        tell(
            gid.is_some(),
            "gid",
            ids_text(ids_now.groups),
            gid.map_or(String::new(), |gid| names::user(gid.as_raw())),
        );
        let supplementary = |ids: &mut dyn Iterator<Item = u32>| names::numbers(ids);
        let groups_after = groups.as_ref().map_or(String::new(), |groups| {
            supplementary(&mut groups.iter().map(|gid| gid.as_raw()))
        });
        tell(
            groups.is_some(),
            "groups",
            supplementary(&mut ids_now.supplementary.iter().copied()),
            groups_after,
        );
        let mut set = |what: &str, before: CapabilitySet, after: CapabilitySet| {
            tell(before != after, what, names::set(before, known), names::set(after, known));
        };
        set("permitted capabilities", now.permitted, sets.permitted);
        set("inheritable capabilities", now.inheritable, sets.inheritable);
        set("ambient capabilities", process::ambient_set(), ambient);
        set("bounding set", bounding_now, bounding);
        tell(new_bits, "securebits", names::securebits(bits_now), names::securebits(bits));
        if !settings.new_session_keyring {
            stays.push("the session keyring".to_owned());
        }
        if settings.umask.is_none() {
            stays.push("umask".to_owned());
        }
        let other = if settings.limits.is_empty() {
            "resource limits"
        } else {
            "the other resource limits"
        };
        stays.extend(["open descriptors", other].map(str::to_owned));
        if !scheduled {
            stays.push("scheduling".to_owned());
        }
        let other = if namespaces.is_empty() { "namespaces" } else { "the other namespaces" };
        stays.push(other.to_owned());
        goes.extend(namespaces.iter().map(|kind| format!("the {kind:?} namespace")));
        if uid.is_none_or(|uid| uid == Uid::ROOT)
            && ids_now.users.contains(&0)
            && !no_new_privs
            && !bits.contains(Securebits::NOROOT)
        {
            stays.push("execve(2) gives user 0 the bounding set again".to_owned());
        }
        if no_landlock {
            stays.push(
                "what Landlock would restrict: the kernel does not support the ruleset".to_owned(),
            );
        }
        let expected = Expected {
            uid,
            no_root: uid.is_none() && !settings.stay_root,
            gid,
            groups,
            sets,
            ambient,
            bounding,
            securebits: bits,
            no_new_privs,
            filtered,
            root: root_place,
            directory: directory_place,
            known,
            compared: inotify.is_some(),
            namespaces: joined,
        };
        Ok(Self {
            shown: steps.iter().map(Step::to_string).collect(),
            steps: Arc::new(steps),
            expected,
            stays,
            goes,
            looks,
            outside,
            deadline: settings.deadline,
            report_failure: settings.report_failure,
        })
    }

    /// Performs the calls in all threads, and verifies the result.
    ///
    /// The process is killed, with a line on standard error, if a call fails after another call has changed the
    /// process, or if the verification finds a difference.
    ///
    /// If the plan brings a root directory, a Landlock ruleset or a filter, this makes a child process by clone(2). The
    /// child reads /proc while this process cannot, or must not hold a descriptor of it. The child ends before this
    /// returns. The program gets no SIGCHLD for it.
    ///
    /// # Errors
    /// Nothing has changed. With [`Privileges::report_failure`] there are two exceptions: [`Error::Partial`] and
    /// [`Error::NotDropped`].
    pub fn apply(self) -> Result<Applied, Error> {
        let mut tasks = Tasks::open();
        let filters = tasks.as_mut().filter(|_| self.expected.filtered).and_then(own_filters);
        let tasks = match (self.outside, self.expected.filtered) {
            (true, _) => tasks.and_then(Tasks::outside),
            (false, true) => None,
            (false, false) => tasks,
        };
        let groups = self.expected.groups.as_ref().map_or(0, Vec::len);
        // This replaces the program's settings for its own calls.
        let (on_partial_failure, sensitivity) = match self.report_failure {
            true => (PartialFailureAction::Report, Sensitivity::Ignore),
            false => (PartialFailureAction::Kill, Sensitivity::Error),
        };
        let name = keyring_name();
        let made = Prepared::new(&self.steps, &name).map_err(|PrepareError { kind, error }| {
            Error::Plan(vec![match kind {
                Some(kind) => Problem::CreateNamespace { kind, error },
                None => Problem::CreateKeyring(error),
            }])
        })?;
        let mut calls =
            Calls::new().on_partial_failure(on_partial_failure).sensitivity(sensitivity);
        if let Some(deadline) = self.deadline {
            calls = calls.deadline(deadline);
        }
        let filter = |step: &&Step| matches!(step, Step::Seccomp(_));
        for step in self.steps.iter().filter(|step| !filter(step)) {
            calls = step.add(calls, &made);
        }
        // This comes before the filter, because the filter may deny it.
        calls = calls.query_identities(groups);
        for step in self.steps.iter().filter(filter) {
            calls = step.add(calls, &made);
        }
        let done = calls.execute_with_report();
        drop(calls);
        if self.expected.filtered {
            made.forget_keyring();
        }
        let report = done.map_err(|error| Error::of(error, |index| self.call(index)))?;
        let verification =
            Verification::new(&self.expected, &report, filters.map(|before| before + 1));
        let numbered = |index| self.steps.get(index).map(|_| self.call(index));
        let (wrong, verified) = verification.run(tasks, numbered);
        if wrong.is_empty() {
            let threads = report.identities().count();
            return Ok(Applied { threads, verified, sqpoll: report.sqpoll() });
        }
        if self.report_failure {
            return Err(Error::NotDropped(wrong));
        }
        kill::kill(&verify::in_one_line(&wrong))
    }

    /// Starts a program with the privileges of the plan. The privileges of this process stay.
    ///
    /// The child process performs the calls between fork(2) and execve(2), and nothing else: it neither allocates nor
    /// locks, so this is safe beside other threads. If one call fails, the program is not executed. Only the results of
    /// the calls are verified. execve(2) changes the capabilities by the rules of capabilities(7). A filter has to
    /// allow execve(2).
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use privileges::Privileges;
    ///
    /// let plan = Privileges::new().user("nobody").no_new_privs().plan()?;
    /// plan.spawn(Command::new("worker"))?.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Command::spawn`], and the error of the call that failed.
    pub fn spawn(self, mut command: Command) -> io::Result<Child> {
        self.before_exec(&mut command, |_| {});
        command.spawn()
    }

    /// Lets a command perform the calls before execve(2). If a call fails, `failed` gets its number, in the child. It must
    /// make system calls only.
    pub(crate) fn before_exec(
        &self,
        command: &mut Command,
        failed: impl Fn(usize) + Send + Sync + 'static,
    ) {
        let (steps, name) = (self.steps.clone(), keyring_name());
        let hook = move || {
            Self::perform_in_child(&steps, &name).map_err(|(at, error)| {
                failed(at);
                error
            })
        };
        // SAFETY: the hook makes system calls only.
        unsafe { command.pre_exec(hook) };
    }

    /// Performs the calls in a process of one thread, before execve(2). It does not allocate. The error has the number
    /// of the call that failed.
    ///
    /// A filter is installed by itself after the other calls, and no call comes after it. It need not allow the calls
    /// that end a transaction.
    fn perform_in_child(steps: &[Step], name: &CStr) -> Result<(), (usize, io::Error)> {
        let error = |number: i32| io::Error::from_raw_os_error(number);
        let made = Prepared::new(steps, name);
        let made = made.map_err(|failed| {
            let place = steps.iter().position(|step| step.is_made(failed.kind));
            (place.unwrap_or_default(), error(failed.error.raw_os_error()))
        })?;
        let filters =
            steps.iter().rev().take_while(|step| matches!(step, Step::Seccomp(_))).count();
        let (first, filter) =
            steps.split_at_checked(steps.len().saturating_sub(filters)).unwrap_or_default();
        let mut before = 0;
        for part in [first, filter] {
            let mut calls = Calls::new()
                .on_partial_failure(PartialFailureAction::Report)
                .sensitivity(Sensitivity::Ignore);
            for step in part {
                calls = step.add(calls, &made);
            }
            let done = calls.execute();
            drop(calls);
            done.map_err(|failed| {
                let index = match &failed {
                    TransactionError::Partial(partial) => partial.index(),
                    TransactionError::NothingChanged(_) => 0,
                };
                (index.saturating_add(before), error(failed.raw_os_error()))
            })?;
            before = part.len();
        }
        made.forget_keyring();
        Ok(())
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Describes the call with this number, counted from 0, as the plan shows it.
    pub(crate) fn call(&self, index: usize) -> String {
        match self.shown.get(index) {
            Some(shown) => format!("{} of {} ({shown})", index + 1, self.shown.len()),
            None => (index + 1).to_string(),
        }
    }
}

/// Returns the name of this process's new session keyring. Another process has another name.
fn keyring_name() -> CString {
    CString::new(format!("privileges-{}", std::process::id())).unwrap_or_default()
}

/// Returns how many filters the calling thread has.
fn own_filters(tasks: &mut Tasks) -> Option<usize> {
    verify::filters(&tasks.own_status().ok()?)
}

/// Returns the soft and the hard limit of a process (0: this one), or `None` if there is no such resource or process.
pub(crate) fn limits_of(pid: i32, resource: u32) -> Option<[u64; 2]> {
    // SAFETY: it is a structure of integers.
    let mut found: libc::rlimit64 = unsafe { std::mem::zeroed() };
    let none = std::ptr::null::<libc::rlimit64>();
    // SAFETY: the kernel writes the structure.
    let told = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, none, &mut found) } == 0;
    told.then_some([found.rlim_cur, found.rlim_max])
}

/// Returns the groups that initgroups(3) would set.
fn groups_of(user: &User, gid: Gid) -> Result<Vec<Gid>, Problem> {
    let name =
        CString::new(user.name.clone()).map_err(|_| Problem::UserNotFound(user.name.clone()))?;
    let found =
        nix::unistd::getgrouplist(&name, gid.as_raw().into()).map_err(Problem::UserDatabase)?;
    found.into_iter().map(|one| new_gid(one.as_raw())).collect()
}

impl Plan {
    /// Writes a line for each call, in order, then what stays, and what goes.
    pub(crate) fn show_calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.shown.iter().enumerate() {
            writeln!(f, "{:3} {step}", index + 1)?;
        }
        writeln!(f, "goes: {}", or_nothing(&self.goes))?;
        writeln!(f, "stays: {}", or_nothing(&self.stays))
    }
}

impl fmt::Display for Plan {
    /// Writes a line for each call, in order, then what stays, what goes, and what is verified.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_calls(f)?;
        write!(
            f,
            "all in one stop of all threads; then every thread is asked, and {}: {}",
            self.looks, self.expected
        )
    }
}

fn or_nothing(lines: &[String]) -> String {
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") }
}
