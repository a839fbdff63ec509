//! Names in place of numbers: the names of users and groups, each looked up once, and other words.

use std::collections::HashMap;

use libpsx::process::{CapabilitySet, Ids};
use nix::unistd::{Gid, Group, Uid, User};

use super::mapping;
use super::state::{NAMESPACES, State};
use crate::tasks::{Credentials, Deadline, Scheduling, Speculation};
use crate::terminal::printable;

/// The answers of the user database, so that each name is looked up once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
}

impl Names {
    /// Returns the printable name of a user. An ID that stands for others has none.
    pub(crate) fn user(&mut self, id: u32) -> Option<&str> {
        let known = !mapping::user_unseen(id);
        let ask = || User::from_uid(Uid::from_raw(id)).ok().flatten().filter(|_| known);
        let name = self.users.entry(id).or_insert_with(|| Some(printable(ask()?.name.as_bytes())));
        name.as_deref()
    }

    /// Returns the printable name of a group.
    pub(crate) fn group(&mut self, id: u32) -> Option<&str> {
        let known = !mapping::group_unseen(id);
        let ask = || Group::from_gid(Gid::from_raw(id)).ok().flatten().filter(|_| known);
        let name = self.groups.entry(id).or_insert_with(|| Some(printable(ask()?.name.as_bytes())));
        name.as_deref()
    }

    /// Returns `root (0)`, or each of the four IDs if they differ.
    pub(crate) fn users(&mut self, ids: Ids) -> String {
        four(ids, |id| with_number(id, unmapped(mapping::user_unseen(id)).or(self.user(id))))
    }

    pub(crate) fn groups(&mut self, ids: Ids) -> String {
        four(ids, |id| with_number(id, unmapped(mapping::group_unseen(id)).or(self.group(id))))
    }

    pub(crate) fn supplementary(&mut self, groups: &[u32]) -> String {
        if groups.is_empty() {
            return "none".to_owned();
        }
        let name =
            |&id: &u32| with_number(id, unmapped(mapping::group_unseen(id)).or(self.group(id)));
        let names: Vec<_> = groups.iter().map(name).collect();
        names.join(", ")
    }
}

/// Returns the word for an ID that has no number in the user namespace of psx.
fn unmapped(unseen: bool) -> Option<&'static str> {
    unseen.then_some("unmapped")
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

/// Describes a set in few words. Most sets are full or empty.
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

/// The names of the seccomp modes (include/uapi/linux/seccomp.h).
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

/// The names of the scheduling policies (include/uapi/linux/sched.h). The number 4 was never used.
pub(crate) const POLICIES: [&str; 8] =
    ["other", "fifo", "rr", "batch", "iso", "idle", "deadline", "ext"];

pub(crate) fn policy(scheduling: Scheduling) -> String {
    let known = usize::try_from(scheduling.policy).ok().and_then(|number| POLICIES.get(number));
    known.map_or_else(|| scheduling.policy.to_string(), |&name| name.to_owned())
}

pub(crate) fn scheduling(scheduling: Scheduling) -> String {
    let mut details = Vec::new();
    if scheduling.priority != 0 {
        details.push(format!("priority {}", scheduling.priority));
    }
    if let Some(Deadline { runtime, deadline, period }) = scheduling.deadline {
        details.push(format!("runtime {runtime} ns, deadline {deadline} ns, period {period} ns"));
    }
    if scheduling.reset_on_fork {
        details.push("reset on fork".to_owned());
    }
    let policy = policy(scheduling);
    if details.is_empty() { policy } else { format!("{policy} ({})", details.join(", ")) }
}

/// Describes an I/O priority, ioprio_get(2): `best-effort/4`.
pub(crate) fn io_priority(packed: u16) -> String {
    let (class, level) = (packed >> 13, packed & 7);
    match class {
        0 => "none".to_owned(),
        1 => format!("realtime/{level}"),
        2 => format!("best-effort/{level}"),
        3 => "idle".to_owned(),
        other => format!("class {other}/{level}"),
    }
}

/// Describes the speculation controls, or nothing if the kernel shows none.
pub(crate) fn speculation(speculation: &Speculation) -> Option<String> {
    let part = |what: &str, value: &Option<Vec<u8>>| {
        value.as_ref().map(|value| format!("{what}: {}", printable(value)))
    };
    let parts = [
        part("store bypass", &speculation.store_bypass),
        part("indirect branch", &speculation.indirect_branch),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Describes the namespaces that are not those of the first group.
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
