//! `--expect`: what has to hold for every thread.

use std::str::FromStr;

use libpsx::process::{Capability, CapabilitySet};
use nix::unistd::{Group, User};

use super::names::{self, POLICIES, SECCOMP};
use super::process::{Process, Thread};
use super::state::State;
use crate::tasks::Credentials;

/// One `KEY=VALUE`.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    /// As it was given.
    pub(crate) text: String,
    wanted: Wanted,
}

#[derive(Debug, Clone)]
enum Wanted {
    User(Which, u32),
    Group(Which, u32),
    Groups(Vec<u32>),
    Sets(Sets, CapabilitySet),
    NoNewPrivs(bool),
    Seccomp(u32),
    Filters(u32),
    Label(String),
    Policy(u32),
}

#[derive(Debug, Clone, Copy)]
enum Which {
    All,
    Real,
    Effective,
    Saved,
    Files,
}

#[derive(Debug, Clone, Copy)]
enum Sets {
    /// Effective, permitted, inheritable and ambient together.
    Any,
    Effective,
    Permitted,
    Inheritable,
    Ambient,
    Bounding,
}

/// Something that does not hold, in the first thread of a process for which it does not.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) expected: String,
    /// None: there is no thread at all.
    pub(crate) thread: Option<Thread>,
    pub(crate) found: String,
    /// In how many threads it does not hold.
    pub(crate) threads: usize,
}

const KEYS: &str = "uid, ruid, euid, suid, fsuid, gid, rgid, egid, sgid, fsgid, groups, caps, effective, \
                    permitted, inheritable, ambient, bounding, nnp, seccomp, filters, label, sched";

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("it has to be KEY=VALUE")?;
        let wanted = match key {
            "uid" => Wanted::User(Which::All, user(value)?),
            "ruid" => Wanted::User(Which::Real, user(value)?),
            "euid" => Wanted::User(Which::Effective, user(value)?),
            "suid" => Wanted::User(Which::Saved, user(value)?),
            "fsuid" => Wanted::User(Which::Files, user(value)?),
            "gid" => Wanted::Group(Which::All, group(value)?),
            "rgid" => Wanted::Group(Which::Real, group(value)?),
            "egid" => Wanted::Group(Which::Effective, group(value)?),
            "sgid" => Wanted::Group(Which::Saved, group(value)?),
            "fsgid" => Wanted::Group(Which::Files, group(value)?),
            "groups" => Wanted::Groups(groups(value)?),
            "caps" => Wanted::Sets(Sets::Any, set(value)?),
            "effective" => Wanted::Sets(Sets::Effective, set(value)?),
            "permitted" => Wanted::Sets(Sets::Permitted, set(value)?),
            "inheritable" => Wanted::Sets(Sets::Inheritable, set(value)?),
            "ambient" => Wanted::Sets(Sets::Ambient, set(value)?),
            "bounding" => Wanted::Sets(Sets::Bounding, set(value)?),
            "nnp" => Wanted::NoNewPrivs(switch(value)?),
            "seccomp" => Wanted::Seccomp(word(value, &SECCOMP)?),
            "filters" => Wanted::Filters(value.parse().map_err(|_| "filters: a number")?),
            "label" => Wanted::Label(value.to_owned()),
            "sched" => Wanted::Policy(word(value, &POLICIES)?),
            _ => return Err(format!("the keys are {KEYS}")),
        };
        Ok(Self { text: text.to_owned(), wanted })
    }
}

fn user(value: &str) -> Result<u32, String> {
    let named = || User::from_name(value).ok().flatten().map(|user| user.uid.as_raw());
    value.parse().ok().or_else(named).ok_or_else(|| format!("there is no user {value:?}"))
}

fn group(value: &str) -> Result<u32, String> {
    let named = || Group::from_name(value).ok().flatten().map(|group| group.gid.as_raw());
    value.parse().ok().or_else(named).ok_or_else(|| format!("there is no group {value:?}"))
}

/// Several values are joined by `+`, because the comma is between expectations.
fn groups(value: &str) -> Result<Vec<u32>, String> {
    let mut all = match value {
        "none" | "" => Vec::new(),
        _ => value.split('+').map(group).collect::<Result<Vec<_>, _>>()?,
    };
    all.sort_unstable();
    Ok(all)
}

fn set(value: &str) -> Result<CapabilitySet, String> {
    match value {
        "none" | "" => Ok(CapabilitySet::EMPTY),
        "all" => Ok(CapabilitySet::all()),
        _ => value
            .split('+')
            .map(|name| name.parse::<Capability>().map_err(|why| format!("{name:?}: {why}")))
            .collect(),
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "1" | "yes" => Ok(true),
        "0" | "no" => Ok(false),
        _ => Err("nnp is 0 or 1".to_owned()),
    }
}

/// A word of the list, or its place there.
fn word(value: &str, words: &[&str]) -> Result<u32, String> {
    let place = words.iter().position(|&word| word == value);
    let known = place.and_then(|place| u32::try_from(place).ok()).or_else(|| value.parse().ok());
    known.ok_or_else(|| format!("one of {}", words.join(", ")))
}

impl Expectation {
    /// What is found in its place, if it does not hold.
    fn missed(&self, state: &State, names: &mut names::Names) -> Option<String> {
        let own = &state.credentials;
        match &self.wanted {
            Wanted::User(which, id) => (!which.are(own.user, *id)).then(|| names.users(own.user)),
            Wanted::Group(which, id) => {
                (!which.are(own.group, *id)).then(|| names.groups(own.group))
            }
            Wanted::Groups(groups) => {
                let mut found = own.groups.clone();
                found.sort_unstable();
                (found != *groups).then(|| names.supplementary(&own.groups))
            }
            Wanted::Sets(which, wanted) => {
                let found = which.of(own);
                (found != *wanted).then(|| names::set(found))
            }
            Wanted::NoNewPrivs(wanted) => (own.no_new_privs != Some(*wanted))
                .then(|| names::yes_no(own.no_new_privs).to_owned()),
            Wanted::Seccomp(mode) => (own.seccomp != Some(*mode)).then(|| names::seccomp(own)),
            Wanted::Filters(count) => (own.filters != Some(*count)).then(|| names::seccomp(own)),
            Wanted::Label(label) => {
                (state.label.as_deref() != Some(label.as_bytes())).then(|| names::label(state))
            }
            Wanted::Policy(policy) => {
                (state.scheduling.policy != *policy).then(|| names::scheduling(state.scheduling))
            }
        }
    }

    fn check(&self, process: &Process, names: &mut names::Names) -> Option<Failure> {
        if process.groups.is_empty() {
            let (expected, found) = (self.text.clone(), "no thread that runs".to_owned());
            return Some(Failure { expected, thread: None, found, threads: 0 });
        }
        let mut first: Option<(&Thread, String)> = None;
        let mut threads = 0;
        for group in &process.groups {
            let Some(found) = self.missed(&group.state, names) else { continue };
            threads += group.threads.len();
            let Some(thread) = group.threads.first() else { continue };
            if first.as_ref().is_none_or(|(earlier, _)| thread.tid < earlier.tid) {
                first = Some((thread, found));
            }
        }
        let (thread, found) = first?;
        let thread = Some(thread.clone());
        Some(Failure { expected: self.text.clone(), thread, found, threads })
    }
}

/// What of it does not hold for a process.
pub(crate) fn failures(
    expected: &[Expectation],
    process: &Process,
    names: &mut names::Names,
) -> Vec<Failure> {
    expected.iter().filter_map(|one| one.check(process, names)).collect()
}

impl Which {
    fn are(self, ids: libpsx::process::Ids, id: u32) -> bool {
        match self {
            Self::All => [ids.real, ids.effective, ids.saved, ids.filesystem] == [id; 4],
            Self::Real => ids.real == id,
            Self::Effective => ids.effective == id,
            Self::Saved => ids.saved == id,
            Self::Files => ids.filesystem == id,
        }
    }
}

impl Sets {
    fn of(self, own: &Credentials) -> CapabilitySet {
        match self {
            Self::Any => {
                own.sets.effective | own.sets.permitted | own.sets.inheritable | own.ambient
            }
            Self::Effective => own.sets.effective,
            Self::Permitted => own.sets.permitted,
            Self::Inheritable => own.sets.inheritable,
            Self::Ambient => own.ambient,
            Self::Bounding => own.bounding,
        }
    }
}
