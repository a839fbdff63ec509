//! Makes a plan: checks all settings against the state of the process, and puts the calls in their order.

// # Safety
//
// Each block makes one call, with numbers and memory of its function.
#![allow(unsafe_code)]

use std::fs::File;
use std::sync::Arc;

use libpsx::process::Synchronization;
use libpsx::process::{self, Capability, CapabilitySet, CapabilitySets, Gid, Securebits, Uid};

use super::Plan;
use super::files::{comparer, directory, directory_in};
use super::idmap::denies_setgroups;
use super::ids::{Ids, Maps, Now, ids, take};
use crate::expected::Expected;
use crate::filter::Purpose;
use crate::resource::Resource;
use crate::status;
use crate::step::Step;
use crate::target::{INTERPRETER_BITS, TargetState, target_state};
use crate::{Error, Mode, Privileges, Problem, bpf, filter, names, tasks};

/// Returns whether the securebits may change to these: locked bits and the locks must stay.
fn unlocked(now: Securebits, bits: Securebits) -> bool {
    // Each flag has its lock in the next higher bit.
    const LOCKS: u32 = 0xaaaa_aaaa;
    let locks = now.bits() & LOCKS;
    let changed = now.bits() ^ bits.bits();
    changed & (locks | locks >> 1) == 0
}

impl Plan {
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

        let maps = Maps::read();
        let Ids { uid, gid, groups, staying } = ids(&settings, &ids_now, &maps, &mut problems);
        let TargetState { sets, ambient, bounding, securebits } =
            target_state(&settings, now, bits_now, bounding_now, &mut problems);
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
        // A call cannot be left out because the calling thread has the state already: another thread may not have it.
        let can = |capability| now.permitted.contains(capability);
        let dropped = match settings.limits_bounding() && can(Capability::SETPCAP) {
            true => CapabilitySet::all() - bounding,
            false => bounding_now - bounding,
        };
        // The "keep capabilities" flag lets capabilities survive the change of user ids. It does not stay
        // set if it can be cleared.
        let flag_locked = bits_now.contains(Securebits::KEEP_CAPS_LOCKED);
        let flag = if flag_locked { 0 } else { Securebits::KEEP_CAPS.bits() };
        let bits_now_lasting = Securebits::from_bits(bits_now.bits() & !flag);
        let bits = securebits.unwrap_or(bits_now_lasting);
        let new_bits = bits != bits_now_lasting;
        let set_bits = new_bits || securebits.is_some() && can(Capability::SETPCAP);
        let mut locked = |locked: bool, what| {
            if locked {
                problems.push(Problem::SecurebitsLocked { what, bits: bits_now });
            }
        };
        locked(new_bits && !unlocked(bits_now, bits), "changing the securebits");
        let no_raise = bits_now.contains(Securebits::NO_CAP_AMBIENT_RAISE);
        locked(!ambient.is_empty() && no_raise, "raising ambient capabilities");
        // A process that has the groups already needs no privilege to stay so. (But other threads may not be.)
        let denied = denies_setgroups(&maps.groups);
        let ambiguous = maps.groups.ambiguous();
        let new_groups = groups.clone().filter(|groups| {
            can(Capability::SETGID) && !denied || !ids_now.has_groups(groups, ambiguous)
        });

        let setpcap: CapabilitySet = Capability::SETPCAP.into();
        // The bits for interpreters need no capability.
        let privileged_bits = (bits.bits() ^ bits_now_lasting.bits()) & !INTERPRETER_BITS != 0;
        let later = if set_bits { setpcap & now.permitted } else { CapabilitySet::EMPTY };
        let meanwhile = CapabilitySets {
            effective: sets.effective | later,
            permitted: sets.permitted | later,
            inheritable: sets.inheritable,
        };
        let survives = bits_now.contains(Securebits::NO_SETUID_FIXUP);
        let flagged = bits_now.contains(Securebits::KEEP_CAPS);
        let keep = uid.is_some() && !meanwhile.permitted.is_empty();
        let kept = survives || flagged;
        locked(keep && !kept && flag_locked, "keeping capabilities while the user id changes");

        // The capabilities that the calls before the change of the ids need.
        let mut needed = CapabilitySet::EMPTY;
        let mut needs = |is_needed: bool, what, capability: Capability| {
            if is_needed {
                needed |= capability.into();
            }
            if is_needed && !can(capability) {
                problems.push(Problem::MissingCapability { what, capability });
            }
        };
        needs(!dropped.is_empty(), "reducing the bounding set", Capability::SETPCAP);
        needs(privileged_bits, "changing the securebits", Capability::SETPCAP);
        needs(settings.root.is_some(), "changing the root directory", Capability::SYS_CHROOT);
        let namespaces: Vec<_> = settings.context.kinds().collect();
        needs(!namespaces.is_empty(), "changing namespaces", Capability::SYS_ADMIN);
        // The groups may be right already, which the ambiguous number hides.
        let unknown_groups = ambiguous.filter(|_| {
            let hidden = |groups: &Vec<Gid>| ids_now.has_groups(groups, None);
            !can(Capability::SETGID) && new_groups.as_ref().is_some_and(hidden)
        });
        let known = new_groups.is_some() && unknown_groups.is_none();
        needs(known, "setting the supplementary groups", Capability::SETGID);
        let other_gid = gid.is_some_and(|gid| !ids_now.groups.contains(&gid.as_raw()));
        needs(other_gid, "changing the group ids", Capability::SETGID);
        let other_uid = uid.is_some_and(|uid| !ids_now.users.contains(&uid.as_raw()));
        needs(other_uid, "changing the user ids", Capability::SETUID);
        problems.extend(unknown_groups.map(Problem::UnknownGroups));
        if new_groups.is_some() && denied {
            problems.push(Problem::SetgroupsDenied);
        }
        problems.extend(settings.context.problems(now.permitted));
        problems.extend(values_out_of_range(&settings, bits_now, groups.as_deref()));
        for &(resource, [soft, hard]) in &settings.limits {
            if soft > hard {
                problems.push(Problem::SoftAboveHard { resource, soft, hard });
            }
            let raised = limits_of(0, resource).is_some_and(|[_, now]| hard > now);
            if raised {
                needed |= Capability::SYS_RESOURCE.into();
            }
            if raised && !can(Capability::SYS_RESOURCE) {
                let capability = Capability::SYS_RESOURCE;
                problems.push(Problem::RaisedLimit { resource, hard, capability });
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
        if gid.is_some() || new_groups.is_some() {
            needed |= Capability::SETGID.into();
        }
        if uid.is_some() {
            needed |= Capability::SETUID.into();
        }
        if root.is_some() || working.is_some() {
            needed |= Capability::DAC_OVERRIDE | Capability::DAC_READ_SEARCH;
        }
        needed |= settings.context.useful();
        // A capability that is not permitted can become inheritable if CAP_SETPCAP is effective then.
        let beyond = !(now.permitted | now.inheritable).is_superset(sets.inheritable);
        if beyond {
            needed |= Capability::SETPCAP.into();
        }
        needed = needed & now.permitted;
        // A thread may have made a capability ineffective. Another one may have given up what no call needs.
        let early = needed | meanwhile.permitted;
        // A capability that becomes inheritable must still be in the bounding set.
        let first =
            CapabilitySets { effective: early, permitted: early, inheritable: sets.inheritable };
        if beyond {
            let inheritable = now.inheritable & sets.inheritable;
            steps.push(Step::Capabilities(CapabilitySets { inheritable, ..first }));
        }
        if !needed.is_empty() {
            steps.push(Step::Capabilities(first));
        }
        let scheduled = settings.context.is_scheduled();
        let joined = settings.context.expected();
        steps.extend(settings.context.steps());
        let root_place = root.as_ref().and_then(status::place_of_file);
        let directory_place = working.as_ref().or(root.as_ref()).and_then(status::place_of_file);
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
        if keep && !flag_locked {
            steps.push(Step::KeepCapabilities(true));
        }
        steps.extend(uid.map(Step::Uid));
        steps.push(Step::Capabilities(meanwhile));
        steps.push(Step::ClearAmbient);
        steps.extend(ambient.iter().map(Step::RaiseAmbient));
        if !flag_locked {
            steps.push(Step::KeepCapabilities(false));
        }
        if set_bits {
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
        // By broadcast each thread keeps the domain that it has. The kernel's own synchronisation would replace it by
        // the caller's, so the program has to ask for that. Such a call has to be the last call, except for questions.
        // If there is a filter, the filter is that call.
        let how = match settings.one_landlock_domain && !filtered {
            true => Synchronization::for_one_landlock_domain(),
            false => Synchronization::Broadcast,
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
            unknown_user: maps.users.ambiguous(),
            gid,
            groups,
            staying,
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
}

/// Returns a problem for each value that the kernel would refuse, whatever the state of the process is.
fn values_out_of_range(
    settings: &Privileges,
    bits_now: Securebits,
    groups: Option<&[Gid]>,
) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut range = |what, value: i64, to: i64| {
        if !(0..=to).contains(&value) {
            found.push(Problem::OutOfRange { what, value, from: 0, to });
        }
    };
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    range("the parent-death signal", settings.parent_death_signal.unwrap_or(0).into(), SIGNALS);
    // A later kernel may have more.
    let named = settings.securebits.filter(|bits| bits.bits() & !bits_now.bits() > SECUREBITS);
    range(
        "the value of the securebits",
        named.unwrap_or_default().bits().into(),
        SECUREBITS.into(),
    );
    let count = groups.map_or(0, <[Gid]>::len);
    range("the number of supplementary groups", number(count as u64), GROUPS);
    let restricts = settings.landlock.as_ref().is_some_and(|landlock| landlock.ruleset.is_some());
    if let Some(flags) = settings.landlock_flags.filter(|_| restricts) {
        // A later kernel may have more.
        let most = match landlock_abi() {
            ..LANDLOCK_LOGS => 0,
            LANDLOCK_LOGS..=LANDLOCK_KNOWN => LANDLOCK_FLAGS,
            _ => u32::MAX.into(),
        };
        range("the value of the Landlock flags", flags.bits().into(), most);
    }
    if let Some(slack) = settings.context.timer_slack {
        // prctl(2) takes a register, which has room for 4.29 s on a 32-bit CPU.
        let nanoseconds = u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX);
        range("the timer slack in nanoseconds", number(nanoseconds), number(usize::MAX as u64));
    }
    for &(resource, [_, hard]) in &settings.limits {
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
        let most = most.and_then(|text| text.trim().parse().ok());
        if let Some(most) = most.filter(|_| resource == Resource::Nofile) {
            range("the hard limit RLIMIT_NOFILE (/proc/sys/fs/nr_open)", number(hard), most);
        }
    }
    found
}

/// Returns the version of Landlock, or a negative number if the kernel has none.
fn landlock_abi() -> libc::c_long {
    const VERSION: libc::c_long = 1;
    let none: libc::c_long = 0;
    // SAFETY: it only returns the version.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, none, VERSION) }
}

/// The version of Landlock that has flags for its log.
const LANDLOCK_LOGS: libc::c_long = 7;
/// The last version whose flags are known here.
const LANDLOCK_KNOWN: libc::c_long = 8;
/// The flags of [`LandlockFlags`](crate::LandlockFlags).
const LANDLOCK_FLAGS: i64 = 0b111;
/// The highest number of a signal.
const SIGNALS: i64 = 64;
/// All securebits that are known here (include/uapi/linux/securebits.h).
const SECUREBITS: u32 = 0xfff;
/// `NGROUPS_MAX`
const GROUPS: i64 = 65536;

/// Returns the soft and the hard limit of a process (0: this one), or `None` if there is no such process.
pub(crate) fn limits_of(pid: i32, resource: Resource) -> Option<[u64; 2]> {
    // SAFETY: it is a structure of integers.
    let mut found: libc::rlimit64 = unsafe { std::mem::zeroed() };
    let (number, none) = (resource.number(), std::ptr::null::<libc::rlimit64>());
    // SAFETY: the kernel writes the structure.
    let done = unsafe { libc::syscall(libc::SYS_prlimit64, pid, number, none, &mut found) } == 0;
    done.then_some([found.rlim_cur, found.rlim_max])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_securebit_may_stay() {
        let (none, unknown) = (Securebits::EMPTY, Securebits::from_bits(1 << 12));
        let found =
            |settings: Privileges, now| !values_out_of_range(&settings, now, None).is_empty();
        assert!(!found(Privileges::new(), unknown));
        assert!(!found(Privileges::new().securebits(unknown), unknown));
        assert!(found(Privileges::new().securebits(unknown), none));
    }
}
