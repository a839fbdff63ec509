//! The ids of a plan: the names of the settings, looked up in the user database, and the ids that the process has now.

use std::ffi::CString;

use libpsx::process::{Gid, Uid};
use nix::unistd::{Group, User};

use super::idmap::IdMap;
use crate::expected::Staying;
use crate::{Error, Groups, Id, Privileges, Problem, names};

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

/// Returns the groups that initgroups(3) would set.
fn groups_of(user: &User, gid: Gid) -> Result<Vec<Gid>, Problem> {
    let name =
        CString::new(user.name.clone()).map_err(|_| Problem::UserNotFound(user.name.clone()))?;
    let found =
        nix::unistd::getgrouplist(&name, gid.as_raw().into()).map_err(Problem::UserDatabase)?;
    found.into_iter().map(|one| new_gid(one.as_raw())).collect()
}

/// The present ids of the calling thread.
pub(crate) struct Now {
    pub(crate) users: [u32; 3],
    pub(crate) groups: [u32; 3],
    pub(crate) supplementary: Vec<u32>,
}

impl Now {
    pub(crate) fn get() -> Result<Self, Error> {
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

    /// Returns whether the process has exactly these groups. A group that is shown with the number `ambiguous` may be any
    /// other group.
    pub(super) fn has_groups(&self, groups: &[Gid], ambiguous: Option<u32>) -> bool {
        let known = self.supplementary.iter().all(|&group| Some(group) != ambiguous);
        known
            && names::numbers(self.supplementary.iter().copied())
                == names::numbers(groups.iter().map(|gid| gid.as_raw()))
    }
}

/// The ids that the plan sets.
pub(super) struct Ids {
    pub(super) uid: Option<Uid>,
    pub(super) gid: Option<Gid>,
    pub(super) groups: Option<Vec<Gid>>,
    pub(super) staying: Staying,
}

/// The mappings of the user namespace.
pub(super) struct Maps {
    pub(super) users: IdMap,
    pub(super) groups: IdMap,
}

impl Maps {
    pub(super) fn read() -> Self {
        Self { users: IdMap::of_users(), groups: IdMap::of_groups() }
    }
}

pub(super) fn ids(
    settings: &Privileges,
    now: &Now,
    maps: &Maps,
    problems: &mut Vec<Problem>,
) -> Ids {
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
    let unmapped = maps.users.ambiguous().filter(|shown| now.users.contains(shown));
    if let Some(shown) = unmapped.filter(|_| settings.user.is_none() && !settings.stay_root) {
        problems.push(Problem::UnknownUser(shown));
    }
    let nothing = settings.user.is_none() && settings.group.is_none() && of_user;
    let staying = Staying {
        users: (uid.is_none() && !settings.stay_root).then_some(now.users),
        groups: (gid.is_none() && !(settings.stay_root && settings.keep_groups))
            .then_some(now.groups),
        no_more_groups: nothing && !settings.keep_groups,
        unknown_group: maps.groups.ambiguous(),
    };
    let [_, effective, _] = now.groups;
    if staying.no_more_groups && staying.gives_more(Some(effective), &now.supplementary) {
        problems.push(Problem::GroupsNotDropped(now.supplementary.clone()));
    }
    let users = uid.map(Uid::as_raw).filter(|&id| !maps.users.has(id));
    problems.extend(users.map(|id| Problem::NotMapped { what: "user", id }));
    let all = gid.iter().chain(groups.iter().flatten()).map(|gid: &Gid| gid.as_raw());
    let mut others: Vec<u32> = all.filter(|&id| !maps.groups.has(id)).collect();
    others.sort_unstable();
    others.dedup();
    problems.extend(others.into_iter().map(|id| Problem::NotMapped { what: "group", id }));
    Ids { uid, gid, groups, staying }
}

/// Returns the value, or adds the problem to the list.
pub(super) fn take<T>(problems: &mut Vec<Problem>, result: Result<T, Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}
