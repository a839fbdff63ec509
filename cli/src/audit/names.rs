//! The names of users and groups, asked for once each; and what else people read in place of numbers.

use std::collections::HashMap;

use libpsx::process::{CapabilitySet, Ids};
use nix::unistd::{Gid, Group, Uid, User};

use super::state::{NAMESPACES, State};
use crate::tasks::{Credentials, Scheduling};
use crate::terminal::printable;

/// What the user database has said.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
}

impl Names {
    /// The name of a user, printable.
    pub(crate) fn user(&mut self, id: u32) -> Option<&str> {
        let ask = || User::from_uid(Uid::from_raw(id)).ok().flatten();
        let name = self.users.entry(id).or_insert_with(|| Some(printable(ask()?.name.as_bytes())));
        name.as_deref()
    }

    /// The name of a group, printable.
    pub(crate) fn group(&mut self, id: u32) -> Option<&str> {
        let ask = || Group::from_gid(Gid::from_raw(id)).ok().flatten();
        let name = self.groups.entry(id).or_insert_with(|| Some(printable(ask()?.name.as_bytes())));
        name.as_deref()
    }

    /// `root (0)`, or each of the four where they are not the same.
    pub(crate) fn users(&mut self, ids: Ids) -> String {
        four(ids, |id| with_number(id, self.user(id)))
    }

    pub(crate) fn groups(&mut self, ids: Ids) -> String {
        four(ids, |id| with_number(id, self.group(id)))
    }

    pub(crate) fn supplementary(&mut self, groups: &[u32]) -> String {
        if groups.is_empty() {
            return "none".to_owned();
        }
        let names: Vec<_> = groups.iter().map(|&id| with_number(id, self.group(id))).collect();
        names.join(", ")
    }
}

fn with_number(id: u32, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{name} ({id})"),
        None => id.to_string(),
    }
}

fn four(ids: Ids, mut name: impl FnMut(u32) -> String) -> String {
    let Ids { real, effective, saved, filesystem } = ids;
    if [effective, saved, filesystem] == [real; 3] {
        return name(real);
    }
    let mut text = format!("real {}, effective {}", name(real), name(effective));
    text += &format!(", saved {}, fs {}", name(saved), name(filesystem));
    text
}

/// A set of which most often everything or nothing is in it.
pub(crate) fn set(set: CapabilitySet) -> String {
    let all = CapabilitySet::all();
    let missing = all - set;
    if set.is_empty() {
        "none".to_owned()
    } else if missing.is_empty() {
        "all".to_owned()
    } else if missing.iter().count() < set.iter().count() {
        format!("all but {missing}")
    } else {
        set.to_string()
    }
}

pub(crate) const fn yes_no(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
}

/// include/uapi/linux/seccomp.h
pub(crate) const SECCOMP: [&str; 3] = ["disabled", "strict", "filter"];

pub(crate) fn seccomp_mode(mode: Option<u32>) -> Option<&'static str> {
    SECCOMP.get(usize::try_from(mode?).ok()?).copied()
}

pub(crate) fn seccomp(credentials: &Credentials) -> String {
    let mode = seccomp_mode(credentials.seccomp).unwrap_or("unknown");
    match credentials.filters {
        Some(1) => format!("{mode} (1 filter)"),
        Some(count) if count > 0 => format!("{mode} ({count} filters)"),
        _ => mode.to_owned(),
    }
}

/// include/uapi/linux/sched.h; 4 was never used.
pub(crate) const POLICIES: [&str; 8] =
    ["other", "fifo", "rr", "batch", "iso", "idle", "deadline", "ext"];

pub(crate) fn policy(scheduling: Scheduling) -> String {
    let known = usize::try_from(scheduling.policy).ok().and_then(|number| POLICIES.get(number));
    known.map_or_else(|| scheduling.policy.to_string(), |&name| name.to_owned())
}

pub(crate) fn scheduling(scheduling: Scheduling) -> String {
    match scheduling.priority {
        0 => policy(scheduling),
        priority => format!("{} (priority {priority})", policy(scheduling)),
    }
}

/// The kinds in which the namespaces are not the first group's.
pub(crate) fn namespaces(state: &State, first: &State) -> String {
    let others = state.other_namespaces(first);
    let Some(namespaces) = &state.namespaces else { return "unseen".to_owned() };
    if others.is_empty() {
        return "the leader's".to_owned();
    }
    let pairs = NAMESPACES.iter().zip(namespaces);
    let shown = pairs.filter(|(name, _)| others.contains(name)).map(|(name, number)| {
        number.map_or_else(|| format!("no {name}"), |number| format!("{name} {number}"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

pub(crate) fn label(state: &State) -> String {
    state.label.as_deref().map_or_else(|| "none".to_owned(), printable)
}
