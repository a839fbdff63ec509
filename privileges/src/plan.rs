//! The plan: what will be done, in the only order in which it can be; and doing it.
//!
//! 1. What needs privilege comes first: the root directory, the bounding set, groups.
//! 2. The user ids. Away from 0 they take the effective and ambient sets along, and the permitted set too
//!    unless the "keep capabilities" flag is set before.
//! 3. The capability sets as they will be, with CAP_SETPCAP for as long as it is needed; the ambient set, which
//!    wants them permitted and inheritable; the securebits, which may forbid to raise it; the final sets.
//! 4. What forbids: no_new_privs, Landlock. Every thread is asked who it is; and the filter comes last.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libpsx::process::{self, LandlockFlags, Operation, SeccompFlags, Synchronisation};
use libpsx::process::{Capabilities, Capability, CapabilitySet, Gid, Instruction, Securebits, Uid};
use libpsx::{Agreement, OnPartial, Sensitivity, Transaction};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{Group, User};

use crate::verify::{self, Expected};
use crate::wanted::{Wanted, wanted};
use crate::{Error, Groups, Id, Mode, Privileges};

/// One of them.
#[derive(Debug)]
enum Step {
    Chroot(File, PathBuf),
    Chdir(File, PathBuf),
    DropBounding(Capability),
    Groups(Vec<Gid>),
    Gid(Gid),
    KeepCapabilities(bool),
    Uid(Uid),
    Capabilities(Capabilities),
    ClearAmbient,
    RaiseAmbient(Capability),
    Securebits(Securebits),
    NoNewPrivs,
    Landlock(OwnedFd),
    Seccomp(Vec<Instruction>),
}

/// What will be done.
#[derive(Debug)]
#[must_use = "a plan does nothing until it is applied"]
pub struct Plan {
    steps: Vec<Step>,
    expected: Expected,
    no_landlock: bool,
    report_failure: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Applied {
    /// How many threads were changed and asked.
    pub threads: usize,
    /// How many of them were looked at in /proc as well. Fewer, or none: it could not be read, or a filter that
    /// was to be installed might have forbidden it.
    pub seen: usize,
    /// How many kernel threads of an io_uring go on with the privileges of before
    /// ([`libpsx::Report::sqpoll`]). If it is not 0, close those rings.
    pub sqpoll: usize,
}

fn user(id: &Id) -> Result<(Uid, Option<User>), Error> {
    let (found, number) = match id {
        Id::Name(name) => {
            let found = User::from_name(name).map_err(Error::Database)?;
            let found = found.ok_or_else(|| Error::NoUser(name.clone()))?;
            let number = found.uid.as_raw();
            (Some(found), number)
        }
        Id::Number(number) => (User::from_uid((*number).into()).map_err(Error::Database)?, *number),
    };
    Ok((Uid::new(number).map_err(|_| Error::NoId(number))?, found))
}

fn group(id: &Id) -> Result<Gid, Error> {
    let number = match id {
        Id::Name(name) => {
            let found = Group::from_name(name).map_err(Error::Database)?;
            found.ok_or_else(|| Error::NoGroup(name.clone()))?.gid.as_raw()
        }
        Id::Number(number) => *number,
    };
    Gid::new(number).map_err(|_| Error::NoId(number))
}

fn directory(path: &Path) -> Result<File, Error> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
    options.open(path).map_err(|error| Error::Directory(path.to_owned(), error))
}

/// A directory as it will be found in a new root directory: neither `..` nor a link leads out of that
/// (openat2(2), RESOLVE_IN_ROOT).
fn directory_in(root: &File, path: &Path) -> Result<File, Error> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    match openat2(root, path, how) {
        Ok(opened) => Ok(opened.into()),
        Err(errno) => Err(Error::Directory(path.to_owned(), errno.into())),
    }
}

/// Whether bits may become others: what is locked stays, and the locks too.
fn unlocked(now: Securebits, bits: Securebits) -> bool {
    [0, 2, 4, 6].into_iter().all(|base| {
        let (locked, changed) = (now.bits() >> (base + 1) & 1, now.bits() ^ bits.bits());
        locked == 0 || changed >> base & 0b11 == 0
    })
}

impl Plan {
    pub(crate) fn of(wish: Privileges) -> Result<Self, Error> {
        let unknown =
            |errno: libpsx::Errno| Error::Unknown(std::io::Error::from_raw_os_error(errno.raw()));
        let now = Capabilities::of_this_thread().map_err(unknown)?;
        let bits_now = Securebits::of_this_thread().map_err(unknown)?;
        let bounding_now = process::bounding_set();

        let found = wish.user.as_ref().map(user).transpose()?;
        let uid = found.as_ref().map(|(uid, _)| *uid);
        let entry = found.as_ref().and_then(|(_, entry)| entry.as_ref());
        let no_entry = || Error::NoEntry(uid.map_or(u32::MAX, Uid::raw));
        let gid = match (&wish.group, uid) {
            (Some(id), _) => Some(group(id)?),
            (None, None) => None,
            (None, Some(_)) => {
                let raw = entry.ok_or_else(no_entry)?.gid.as_raw();
                Some(Gid::new(raw).map_err(|_| Error::NoId(raw))?)
            }
        };
        let groups = match (&wish.groups, uid, gid) {
            (Groups::These(ids), ..) => Some(ids.iter().map(group).collect::<Result<_, _>>()?),
            (Groups::OfUser, Some(_), Some(gid)) => {
                Some(groups_of(entry.ok_or_else(no_entry)?, gid)?)
            }
            (Groups::OfUser, None, Some(_)) => Some(Vec::new()),
            (Groups::OfUser, ..) => None,
        };

        let Wanted { sets, ambient, bounding, securebits } = wanted(&wish, now, bounding_now)?;
        let length = wish.seccomp.as_ref().map_or(1, Vec::len);
        if !(1..=libc::BPF_MAXINSNS as usize).contains(&length) {
            return Err(Error::BadFilter(length));
        }
        let no_new_privs = wish.no_new_privs
            || wish.mode == Some(Mode::NoPriv)
            || wish.landlock.is_some()
            || wish.seccomp.is_some();
        let dropped = bounding_now - bounding;
        // The flag that lets capabilities survive the change of user ids is no setting to keep, if it can be
        // cleared.
        let flag_locked = bits_now.contains(Securebits::KEEP_CAPS_LOCKED);
        let flag = if flag_locked { 0 } else { Securebits::KEEP_CAPS.bits() };
        let bits_now_lasting = Securebits::from_bits(bits_now.bits() & !flag);
        let bits = securebits.unwrap_or(bits_now_lasting);
        let new_bits = bits != bits_now_lasting;
        if new_bits && !unlocked(bits_now, bits) {
            return Err(Error::Locked(bits_now));
        }
        if !ambient.is_empty() && bits_now.contains(Securebits::NO_CAP_AMBIENT_RAISE) {
            return Err(Error::Locked(bits_now));
        }
        // Who has the groups already needs no privilege to stay so. (But other threads may not be.)
        let can = |capability| now.permitted.contains(capability);
        let new_groups =
            groups.clone().filter(|groups| can(Capability::SETGID) || !has_groups(groups));

        let needs = |needed: bool, what, capability| {
            if needed && !can(capability) { Err(Error::Needs { what, capability }) } else { Ok(()) }
        };
        needs(!dropped.is_empty(), "reducing the bounding set", Capability::SETPCAP)?;
        needs(new_bits, "changing the securebits", Capability::SETPCAP)?;
        needs(wish.root.is_some(), "chroot", Capability::SYS_CHROOT)?;
        needs(new_groups.is_some(), "setting the supplementary groups", Capability::SETGID)?;
        let other_gid = gid.is_some_and(|gid| !is_group(gid));
        needs(other_gid, "changing the group ids", Capability::SETGID)?;
        let other_uid = uid.is_some_and(|uid| !is_user(uid));
        needs(other_uid, "changing the user ids", Capability::SETUID)?;

        let setpcap: CapabilitySet = Capability::SETPCAP.into();
        let later = if new_bits { setpcap } else { CapabilitySet::EMPTY };
        let meanwhile = Capabilities {
            effective: sets.effective | later,
            permitted: sets.permitted | later,
            inheritable: sets.inheritable,
        };
        let survives = bits_now.contains(Securebits::NO_SETUID_FIXUP);
        let flagged = bits_now.contains(Securebits::KEEP_CAPS);
        let keep = uid.is_some() && !survives && !flagged && !meanwhile.permitted.is_empty();
        if keep && flag_locked {
            return Err(Error::Locked(bits_now));
        }

        let mut steps = Vec::new();
        // What becomes inheritable has to be in the bounding set still.
        let first = Capabilities {
            effective: now.permitted,
            permitted: now.permitted,
            inheritable: now.inheritable | sets.inheritable,
        };
        // It may be what is not permitted, for who has CAP_SETPCAP in effect by then.
        let beyond = !(now.permitted | now.inheritable).contains_all(first.inheritable);
        if beyond && !now.effective.contains(Capability::SETPCAP) {
            steps.push(Step::Capabilities(Capabilities { effective: now.permitted, ..now }));
        }
        if first != now {
            steps.push(Step::Capabilities(first));
        }
        let root = wish.root.as_ref().map(|path| directory(path)).transpose()?;
        let working = wish.directory.as_ref().map(|path| match &root {
            Some(root) => directory_in(root, path),
            None => directory(path),
        });
        let working = working.transpose()?;
        if let Some((root, path)) = root.zip(wish.root) {
            steps.push(Step::Chroot(root, path));
        }
        if let Some((working, path)) = working.zip(wish.directory) {
            steps.push(Step::Chdir(working, path));
        }
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
        if no_new_privs {
            steps.push(Step::NoNewPrivs);
        }
        let filtered = wish.seccomp.is_some();
        steps.extend(wish.landlock.map(Step::Landlock));
        steps.extend(wish.seccomp.map(Step::Seccomp));
        let expected = Expected {
            uid,
            gid,
            groups,
            sets,
            ambient,
            bounding,
            securebits: bits,
            no_new_privs,
            filtered,
        };
        Ok(Self {
            steps,
            expected,
            no_landlock: wish.no_landlock,
            report_failure: wish.report_failure,
        })
    }

    /// Does it, and makes sure.
    ///
    /// The process is killed, with a line on standard error, if something fails after something has changed,
    /// or if in the end something does not hold.
    ///
    /// # Errors
    /// Nothing has changed. With [`Privileges::report_failure`]: but for [`Error::Partial`] and
    /// [`Error::NotDropped`].
    pub fn apply(self) -> Result<Applied, Error> {
        let witness = verify::Witness::new(&self.expected);
        let groups = self.expected.groups.as_ref().map_or(0, Vec::len);
        // Whatever the program has settled for its own calls.
        let (on_partial, sensitivity) = match self.report_failure {
            true => (OnPartial::Report, Sensitivity::Ignore),
            false => (OnPartial::Kill, Sensitivity::Error),
        };
        let mut transaction = Transaction::new().on_partial(on_partial).sensitivity(sensitivity);
        let filter = |step: &&Step| matches!(step, Step::Seccomp(_));
        for step in self.steps.iter().filter(|step| !filter(step)) {
            transaction = step.add(transaction);
        }
        // Before the filter, which may not allow it.
        transaction = transaction.ask(groups);
        for step in self.steps.iter().filter(filter) {
            transaction = step.add(transaction);
        }
        let report = transaction.run()?;
        let calls: Vec<&str> = self.steps.iter().flat_map(Step::calls).copied().collect();
        let (wrong, seen) = witness.look(&self.expected, &report, &calls);
        if wrong.is_empty() {
            let threads = report.identities().count();
            return Ok(Applied { threads, seen, sqpoll: report.sqpoll() });
        }
        if self.report_failure {
            return Err(Error::NotDropped(wrong));
        }
        verify::kill(&wrong)
    }
}

/// Whether it is one of the ids that this thread may go back to, setresuid(2).
fn is_user(uid: Uid) -> bool {
    let raw = uid.raw().into();
    nix::unistd::getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved].contains(&raw))
}

fn is_group(gid: Gid) -> bool {
    let raw = gid.raw().into();
    nix::unistd::getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved].contains(&raw))
}

fn has_groups(groups: &[Gid]) -> bool {
    let sorted = |mut all: Vec<u32>| {
        all.sort_unstable();
        all
    };
    let wanted = sorted(groups.iter().map(|gid| gid.raw()).collect());
    let now = nix::unistd::getgroups();
    now.is_ok_and(|now| sorted(now.into_iter().map(|gid| gid.as_raw()).collect()) == wanted)
}

/// As initgroups(3).
fn groups_of(user: &User, gid: Gid) -> Result<Vec<Gid>, Error> {
    let name =
        std::ffi::CString::new(user.name.clone()).map_err(|_| Error::NoUser(user.name.clone()))?;
    let found = nix::unistd::getgrouplist(&name, gid.raw().into()).map_err(Error::Database)?;
    found
        .into_iter()
        .map(|one| Gid::new(one.as_raw()).map_err(|_| Error::NoId(one.as_raw())))
        .collect()
}

impl Step {
    /// The names of the calls that [`add`](Self::add) adds.
    fn calls(&self) -> &'static [&'static str] {
        match self {
            Self::Chroot(..) => &["fchdir", "chroot"],
            Self::Chdir(..) => &["fchdir"],
            Self::Groups(_) => &["setgroups"],
            Self::Gid(_) => &["setresgid"],
            Self::Uid(_) => &["setresuid"],
            Self::Capabilities(_) => &["capset"],
            Self::DropBounding(_) => &["PR_CAPBSET_DROP"],
            Self::KeepCapabilities(_) => &["PR_SET_KEEPCAPS"],
            Self::ClearAmbient | Self::RaiseAmbient(_) => &["PR_CAP_AMBIENT"],
            Self::Securebits(_) => &["PR_SET_SECUREBITS"],
            Self::NoNewPrivs => &["PR_SET_NO_NEW_PRIVS"],
            Self::Landlock(_) => &["landlock_restrict_self"],
            Self::Seccomp(_) => &["seccomp"],
        }
    }

    fn add<'a>(&'a self, transaction: Transaction<'a>) -> Transaction<'a> {
        let one: Operation<'a> = match self {
            Self::Capabilities(sets) => process::capset(*sets),
            Self::Chroot(directory, _) => {
                return chroot_here(enter(transaction, directory));
            }
            Self::Chdir(directory, _) => return enter(transaction, directory),
            Self::DropBounding(capability) => process::bounding_drop(*capability),
            Self::Groups(groups) => process::setgroups(groups),
            Self::Gid(gid) => process::set_all_gids(*gid),
            Self::KeepCapabilities(keep) => process::keepcaps(*keep),
            Self::Uid(uid) => process::set_all_uids(*uid),
            Self::ClearAmbient => process::ambient_clear(),
            Self::RaiseAmbient(capability) => process::ambient_raise(*capability),
            Self::Securebits(bits) => process::securebits(*bits),
            Self::NoNewPrivs => process::no_new_privs(),
            // By each thread, because the questions come after it.
            Self::Landlock(ruleset) => {
                let how = Synchronisation::Broadcast;
                process::landlock_restrict_self(ruleset, how, LandlockFlags::EMPTY)
            }
            Self::Seccomp(program) => {
                process::seccomp(program, Synchronisation::Kernel, SeccompFlags::EMPTY)
            }
        };
        transaction.with(one)
    }
}

/// Threads share their root and working directory, most of them: by a descriptor, each may do it again.
#[allow(unsafe_code)]
fn enter<'a>(transaction: Transaction<'a>, directory: &File) -> Transaction<'a> {
    let args = [directory.as_raw_fd() as usize, 0, 0, 0, 0, 0];
    // SAFETY: it takes a number, and the plan keeps the descriptor open.
    unsafe { transaction.with_call(libc::SYS_fchdir, args, Agreement::SameResult) }
}

#[allow(unsafe_code)]
fn chroot_here(transaction: Transaction<'_>) -> Transaction<'_> {
    let args = [c".".as_ptr() as usize, 0, 0, 0, 0, 0];
    // SAFETY: the string is static.
    unsafe { transaction.with_call(libc::SYS_chroot, args, Agreement::SameResult) }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chroot(_, path) => write!(f, "chroot {}", path.display()),
            Self::Chdir(_, path) => write!(f, "chdir {}", path.display()),
            Self::DropBounding(capability) => write!(f, "prctl PR_CAPBSET_DROP {capability}"),
            Self::Groups(groups) => {
                write!(f, "setgroups")?;
                if groups.is_empty() { write!(f, " none") } else { Ok(()) }?;
                groups.iter().try_for_each(|group| write!(f, " {}", group.raw()))
            }
            Self::Gid(gid) => write!(f, "setresgid {}", gid.raw()),
            Self::KeepCapabilities(keep) => write!(f, "prctl PR_SET_KEEPCAPS {}", u8::from(*keep)),
            Self::Uid(uid) => write!(f, "setresuid {}", uid.raw()),
            Self::Capabilities(sets) => write!(f, "capset {sets}"),
            Self::ClearAmbient => write!(f, "prctl PR_CAP_AMBIENT_CLEAR_ALL"),
            Self::RaiseAmbient(capability) => write!(f, "prctl PR_CAP_AMBIENT_RAISE {capability}"),
            Self::Securebits(bits) => write!(f, "prctl PR_SET_SECUREBITS {:#x}", bits.bits()),
            Self::NoNewPrivs => write!(f, "prctl PR_SET_NO_NEW_PRIVS"),
            Self::Landlock(_) => write!(f, "landlock_restrict_self"),
            Self::Seccomp(program) => write!(f, "seccomp, {} instructions", program.len()),
        }
    }
}

impl fmt::Display for Plan {
    /// A line for each call, in order; then what will be looked at.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:2} {step}", index + 1)?;
        }
        if self.no_landlock {
            writeln!(f, "   (no Landlock: the kernel does not support the ruleset)")?;
        }
        write!(f, "   in one stop of all threads; then: {}", self.expected)
    }
}
