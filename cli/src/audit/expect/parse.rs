//! The text of a condition: its keys, and the form of their values.

use std::str::FromStr;

use libpsx::process::{Capability, CapabilitySet};
use nix::unistd::{Group, User};

use super::super::names::{POLICIES, SECCOMP};
use super::super::state::NAMESPACES;
use super::super::verdict::Verdict;
use super::{Comparison, Expectation, Path, Sets, Wanted, Which};

/// The keys, and the form of their values.
const KEYS: [(&str, &str); 34] = [
    ("uid", "all four user IDs: a name or number"),
    ("ruid", "the real user ID"),
    ("euid", "the effective user ID"),
    ("suid", "the saved user ID"),
    ("fsuid", "the file system user ID"),
    ("gid", "all four group IDs: a name or number"),
    ("rgid", "the real group ID"),
    ("egid", "the effective group ID"),
    ("sgid", "the saved group ID"),
    ("fsgid", "the file system group ID"),
    (
        "groups",
        "the supplementary groups: none, or names joined by +; >= for groups that must be there",
    ),
    (
        "caps",
        "effective, permitted, inheritable and ambient together: none, all, or names joined by +",
    ),
    ("effective", "the effective set"),
    ("permitted", "the permitted set"),
    ("inheritable", "the inheritable set"),
    ("ambient", "the ambient set"),
    ("bounding", "the bounding set"),
    ("nnp", "no_new_privs: 0 or 1"),
    ("seccomp", "disabled, strict or filter"),
    ("filters", "the number of seccomp filters"),
    ("label", "the label of the security module; none if there is none"),
    ("sched", "other, fifo, rr, batch, idle, deadline or ext"),
    ("priority", "the real-time priority"),
    ("namespaces", "the kinds that are not those of psx: none, or names joined by +"),
    ("root", "the root directory: a path, or changed for any but /"),
    ("cwd", "the working directory: a path, or changed"),
    ("umask", "in octal"),
    ("nice", "the nice value"),
    ("personality", "in hexadecimal"),
    ("timer-slack", "in nanoseconds"),
    ("affinity", "the CPUs, as a list: 0-3,8 (in --expect: 0-3+8)"),
    ("ioprio", "none, idle, best-effort/0 to best-effort/7, or realtime/0 to realtime/7"),
    ("verdict", "sandboxed, unprivileged, reduced or privileged; <= for at most"),
    ("dumpable", "whether the process can be dumped and traced by its user: 0 or 1"),
];

/// Keys that describe the whole process, or a state that the kernel does not show. A policy may use them.
const MORE_KEYS: [(&str, &str); 4] = [
    ("consistent", "whether all threads have the same state: 0 or 1"),
    ("securebits", "the kernel does not show the securebits of another process"),
    ("landlock", "the kernel does not show the Landlock domain of another process"),
    ("keyrings", "the kernel does not show the keyrings of another process"),
];

/// Returns the known word that is most like this one, if one is similar enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|known| (strsim::damerau_levenshtein(word, known), known));
    let (distance, found) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + word.len() / 4).then_some(found)
}

/// Returns all keys.
pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().chain(&MORE_KEYS).map(|(key, _)| *key)
}

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, comparison, value) = if let Some((key, value)) = text.split_once("<=") {
            (key, Comparison::AtMost, value)
        } else if let Some((key, value)) = text.split_once(">=") {
            (key, Comparison::AtLeast, value)
        } else {
            let parts = text.split_once('=');
            let (key, value) = parts.ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
            (key, Comparison::Equal, value)
        };
        if value.is_empty() && keys().any(|known| known == key) {
            return Err(format!("{text:?} has no value; an empty list is written as none"));
        }
        let wanted = Wanted::parse(key, comparison, value)?;
        Ok(Self { text: text.to_owned(), wanted })
    }
}

impl Wanted {
    fn parse(key: &str, comparison: Comparison, value: &str) -> Result<Self, String> {
        use Comparison::{AtLeast, AtMost, Equal};
        let compares = match key {
            "caps" | "effective" | "permitted" | "inheritable" | "ambient" | "bounding"
            | "filters" | "verdict" | "namespaces" => true,
            "groups" => comparison == AtLeast,
            _ => false,
        };
        if comparison != Equal && !compares && keys().any(|known| known == key) {
            let sign = if comparison == AtMost { "<=" } else { ">=" };
            return Err(format!("{key} cannot be compared with {sign}"));
        }
        let number = |what: &str| format!("{value:?} is not {what}");
        Ok(match key {
            "uid" => Self::User(Which::All, user(value)?),
            "ruid" => Self::User(Which::Real, user(value)?),
            "euid" => Self::User(Which::Effective, user(value)?),
            "suid" => Self::User(Which::Saved, user(value)?),
            "fsuid" => Self::User(Which::Files, user(value)?),
            "gid" => Self::Group(Which::All, group(value)?),
            "rgid" => Self::Group(Which::Real, group(value)?),
            "egid" => Self::Group(Which::Effective, group(value)?),
            "sgid" => Self::Group(Which::Saved, group(value)?),
            "fsgid" => Self::Group(Which::Files, group(value)?),
            "groups" => Self::Groups(comparison, groups(value)?),
            "caps" => Self::Sets(Sets::Any, comparison, set(value)?),
            "effective" => Self::Sets(Sets::Effective, comparison, set(value)?),
            "permitted" => Self::Sets(Sets::Permitted, comparison, set(value)?),
            "inheritable" => Self::Sets(Sets::Inheritable, comparison, set(value)?),
            "ambient" => Self::Sets(Sets::Ambient, comparison, set(value)?),
            "bounding" => Self::Sets(Sets::Bounding, comparison, set(value)?),
            "nnp" => Self::NoNewPrivs(switch(value)?),
            "seccomp" => Self::Seccomp(word(value, &SECCOMP)?),
            "filters" => {
                Self::Filters(comparison, value.parse().map_err(|_| number("a number of filters"))?)
            }
            "label" => Self::Label((value != "none").then(|| value.to_owned())),
            "sched" => Self::Policy(word(value, &POLICIES)?),
            "priority" => Self::Priority(value.parse().map_err(|_| number("a priority"))?),
            "namespaces" => Self::Namespaces(comparison, kinds(value)?),
            "root" => Self::Root(path(value)?),
            "cwd" => Self::Cwd(path(value)?),
            "umask" => {
                Self::Umask(u32::from_str_radix(value, 8).map_err(|_| number("an octal number"))?)
            }
            "nice" => Self::Nice(value.parse().map_err(|_| number("a nice value"))?),
            "personality" => {
                let digits = value.trim_start_matches("0x");
                let parsed = u32::from_str_radix(digits, 16);
                Self::Personality(parsed.map_err(|_| number("a hexadecimal number"))?)
            }
            "timer-slack" => {
                Self::TimerSlack(value.parse().map_err(|_| number("a number of nanoseconds"))?)
            }
            "affinity" => Self::Affinity(value.replace('+', ",")),
            "ioprio" => Self::IoPriority(value.to_owned()),
            "verdict" => Self::Verdict(comparison, verdict(value)?),
            "dumpable" => Self::Dumpable(switch(value)?),
            "consistent" => Self::Consistent(switch(value)?),
            "securebits" => Self::Hidden("securebits"),
            "landlock" => Self::Hidden("Landlock domain"),
            "keyrings" => Self::Hidden("keyrings"),
            _ => return Err(unknown_key(key)),
        })
    }
}

/// Returns the message for a key that does not exist.
pub(crate) fn unknown_key(key: &str) -> String {
    match nearest(key, keys()) {
        Some(meant) => format!("unknown key {key:?}: did you mean {meant}?"),
        None => {
            let keys: Vec<_> = keys().collect();
            format!("unknown key {key:?}: the keys are {}", keys.join(", "))
        }
    }
}

/// Returns the number of a user.
pub(crate) fn user(value: &str) -> Result<u32, String> {
    let named = || User::from_name(value).ok().flatten().map(|user| user.uid.as_raw());
    value.parse().ok().or_else(named).ok_or_else(|| format!("there is no user {value:?}"))
}

fn group(value: &str) -> Result<u32, String> {
    let named = || Group::from_name(value).ok().flatten().map(|group| group.gid.as_raw());
    value.parse().ok().or_else(named).ok_or_else(|| format!("there is no group {value:?}"))
}

/// Parses groups. Several values are joined by `+`, because a comma separates expectations.
pub(crate) fn groups(value: &str) -> Result<Vec<u32>, String> {
    let mut all = match value {
        "none" => Vec::new(),
        _ => value.split('+').map(group).collect::<Result<Vec<_>, _>>()?,
    };
    all.sort_unstable();
    Ok(all)
}

fn set(value: &str) -> Result<CapabilitySet, String> {
    match value {
        "none" => Ok(CapabilitySet::EMPTY),
        "all" => Ok(CapabilitySet::all()),
        _ => value
            .split('+')
            .map(|name| name.parse::<Capability>().map_err(|why| format!("{name:?}: {why}")))
            .collect(),
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "1" | "yes" | "true" => Ok(true),
        "0" | "no" | "false" => Ok(false),
        _ => Err(format!("{value:?} is neither 0 nor 1")),
    }
}

/// Returns the index of a word in the list, or the number that the word writes.
fn word(value: &str, words: &[&str]) -> Result<u32, String> {
    let place = words.iter().position(|&word| word == value);
    let known = place.and_then(|place| u32::try_from(place).ok()).or_else(|| value.parse().ok());
    known.ok_or_else(|| format!("{value:?} is not one of {}", words.join(", ")))
}

fn kinds(value: &str) -> Result<Vec<&'static str>, String> {
    let kind = |name: &str| {
        let known = NAMESPACES.into_iter().find(|&known| known == name);
        known.ok_or_else(|| format!("{name:?} is not one of {}", NAMESPACES.join(", ")))
    };
    match value {
        "none" => Ok(Vec::new()),
        _ => value.split('+').map(kind).collect(),
    }
}

fn path(value: &str) -> Result<Path, String> {
    match value {
        "changed" => Ok(Path::Changed),
        _ if value.starts_with('/') => Ok(Path::Is(value.to_owned())),
        _ => Err(format!("{value:?} is neither an absolute path nor \"changed\"")),
    }
}

fn verdict(value: &str) -> Result<Verdict, String> {
    use Verdict::{Privileged, Reduced, Sandboxed, Unprivileged};
    let all = [Sandboxed, Unprivileged, Reduced, Privileged];
    all.into_iter()
        .find(|verdict| verdict.name() == value)
        .ok_or_else(|| format!("{value:?} is not one of {}", all.map(Verdict::name).join(", ")))
}
