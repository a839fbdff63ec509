//! Completes the words of a command line: processes, units, users, groups, and names that the kernel gives.
//!
//! The shell runs this program with an environment variable to ask for completions, because a script cannot know which
//! processes run now.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use clap::Command;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use libpsx::process::CapabilitySet;
use privileges::{system_calls, unit};

use crate::tasks;

/// Adds completers to the arguments that have names to complete. Skips an argument that a command does not have.
pub(crate) fn add(command: Command) -> Command {
    const TABLE: [(&[&str], &str, Words); 17] = [
        (&["audit"], "pids", pids),
        (&["audit"], "name", names),
        (&["audit"], "user", users),
        (&["audit"], "unit", units),
        (&["audit"], "expect", expectations),
        (&["caps"], "pids", pids),
        (&["caps", "explain"], "names", capabilities),
        (&["run"], "user", users),
        (&["run"], "group", groups),
        (&["run"], "groups", groups),
        (&["run"], "ambient", capabilities),
        (&["run"], "inheritable", capabilities),
        (&["run"], "bounding", capabilities),
        (&["run"], "seccomp", filters),
        (&["run"], "from_unit", units),
        (&["run"], "property", directives),
        (&["run"], "without", restrictions),
    ];
    TABLE
        .into_iter()
        .fold(command, |command, (path, argument, words)| at(command, path, argument, words))
}

/// A function that returns all words, each with its explanation.
type Words = fn() -> Vec<(String, String)>;

fn at(command: Command, path: &[&str], argument: &str, words: Words) -> Command {
    match path.split_first() {
        Some((first, rest)) if command.find_subcommand(first).is_some() => {
            let first = (*first).to_owned();
            let (rest, argument) = (rest.to_vec(), argument.to_owned());
            command.mut_subcommand(first, |inner| at(inner, &rest, &argument, words))
        }
        Some(_) => command,
        None if command.get_arguments().any(|one| one.get_id() == argument) => {
            let listed =
                command.get_arguments().any(|one| one.get_id() == argument && is_list(one));
            let completer =
                ArgValueCompleter::new(move |typed: &OsStr| complete(typed, listed, words));
            command.mut_arg(argument, |one| one.add(completer))
        }
        None => command,
    }
}

/// Returns whether the value is a list of words with commas between them.
fn is_list(argument: &clap::Arg) -> bool {
    argument.get_value_names().is_some_and(|names| names.iter().any(|name| name.ends_with(",...")))
}

/// Returns the words that begin with the typed text. In a list, only the last element of the typed text counts.
fn complete(typed: &OsStr, listed: bool, words: Words) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let start =
        if listed { typed.rfind(',').map_or(0, |comma| comma.saturating_add(1)) } else { 0 };
    let (before, last) = typed.split_at_checked(start).unwrap_or_default();
    // A set may be inverted.
    let (mark, last) = match last.strip_prefix('~') {
        Some(rest) => ("~", rest),
        None => ("", last),
    };
    let all = words().into_iter().filter(|(word, _)| word.starts_with(last));
    all.map(|(word, help)| {
        let help = (!help.is_empty()).then(|| help.into());
        CompletionCandidate::new(format!("{before}{mark}{word}")).help(help)
    })
    .collect()
}

fn without_help(words: impl IntoIterator<Item = String>) -> Vec<(String, String)> {
    let all: BTreeSet<String> = words.into_iter().collect();
    all.into_iter().map(|word| (word, String::new())).collect()
}

/// Returns the processes whose names a shell need not quote.
fn running() -> Vec<(i32, String)> {
    let of = |pid: i32| {
        let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
        let name = String::from_utf8(name).ok()?.trim_end().to_owned();
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        (plain && !name.is_empty()).then_some((pid, name))
    };
    tasks::processes().unwrap_or_default().into_iter().filter_map(of).collect()
}

fn pids() -> Vec<(String, String)> {
    running().into_iter().map(|(pid, name)| (pid.to_string(), name)).collect()
}

fn names() -> Vec<(String, String)> {
    without_help(running().into_iter().map(|(_, name)| name))
}

/// Returns the first field of each line of a database. The C library reads the same file.
fn first_fields(file: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    without_help(text.lines().filter_map(|line| line.split(':').next().map(str::to_owned)))
}

fn users() -> Vec<(String, String)> {
    first_fields("/etc/passwd")
}

fn groups() -> Vec<(String, String)> {
    first_fields("/etc/group")
}

fn units() -> Vec<(String, String)> {
    let places = [
        "/etc/systemd/system",
        "/run/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    ];
    let entries = places
        .iter()
        .filter_map(|place| std::fs::read_dir(Path::new(place)).ok())
        .flatten()
        .flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    without_help(names.filter(|name| name.ends_with(".service")))
}

fn capabilities() -> Vec<(String, String)> {
    CapabilitySet::all().iter().map(|one| (one.to_string(), String::new())).collect()
}

fn filters() -> Vec<(String, String)> {
    without_help(system_calls::group_names().map(str::to_owned))
}

fn directives() -> Vec<(String, String)> {
    without_help(unit::supported().map(|name| format!("{name}=")))
}

fn restrictions() -> Vec<(String, String)> {
    without_help(unit::restrictions().map(str::to_owned))
}

fn expectations() -> Vec<(String, String)> {
    without_help(crate::audit::keys().map(|key| format!("{key}=")))
}
