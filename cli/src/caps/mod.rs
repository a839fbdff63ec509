//! `psx caps`: capabilities in words, of files, and of processes.

mod explain;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use libpsx::process::{Capability, CapabilitySet, Uid};
use privileges::file::{self, FileCapabilities};

use crate::output;
use crate::tasks::{Credentials, Process};
use crate::terminal::printable;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true, after_long_help = AFTER)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Show the sets of a process: those of all its threads, once for all that have the same
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pids: Vec<i32>,
}

const AFTER: &str = "\
Capabilities are written as capabilities(7) names them, in any case, with or without \"cap_\"; or by their number. \
Sets of a file are written as in cap_from_text(3): cap_net_raw,cap_net_admin=ep.

Exit status: 0 if everything was done; 1 if a file or process could not be read or changed, or if a file has no \
capabilities; 2 if the command line is wrong.

Examples:
  psx caps 1234                              the sets of a process, and of its threads if they differ
  psx caps decode 00000000a80425fb           a set as /proc/PID/status shows it
  psx caps explain net_admin                 what it allows, and what it can be used for
  psx caps file get /usr/bin/ping            as getcap(8)
  psx caps file set cap_net_raw=ep ./ping    as setcap(8); it needs CAP_SETFCAP";

#[derive(Subcommand)]
enum Command {
    /// Name the capabilities of a set in hexadecimal, as /proc/PID/status shows it
    Decode {
        /// The set: 00000000a80425fb, with or without 0x
        #[arg(value_name = "HEX", required = true, value_parser = hex)]
        sets: Vec<u64>,
        /// Say of each capability what it allows
        #[arg(long)]
        explain: bool,
    },
    /// Say what capabilities allow; without names, of all
    Explain {
        /// A name or a number
        #[arg(value_name = "NAME", value_parser = capability)]
        names: Vec<Capability>,
    },
    /// Show, set or remove the capabilities of files
    File {
        #[command(subcommand)]
        command: OfFile,
    },
}

#[derive(Subcommand)]
enum OfFile {
    /// Show the capabilities of files
    Get {
        /// Files; symbolic links are followed
        #[arg(value_name = "PATH", required = true, value_hint = clap::ValueHint::FilePath)]
        paths: Vec<PathBuf>,
    },
    /// Give files capabilities, in the place of those they have
    Set {
        /// As cap_from_text(3): cap_net_raw,cap_net_admin=ep
        #[arg(value_name = "CAPS")]
        capabilities: FileCapabilities,
        /// Regular files; symbolic links are not followed
        #[arg(value_name = "PATH", required = true, value_hint = clap::ValueHint::FilePath)]
        paths: Vec<PathBuf>,
        /// The user that is root of the user namespace in which alone they count
        #[arg(long, value_name = "UID")]
        root: Option<u32>,
    },
    /// Take all capabilities of files away
    Remove {
        /// Files; symbolic links are not followed
        #[arg(value_name = "PATH", required = true, value_hint = clap::ValueHint::FilePath)]
        paths: Vec<PathBuf>,
    },
}

pub(crate) fn hex(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = if all { u64::from_str_radix(digits, 16).ok() } else { None };
    bits.ok_or_else(|| "it must be up to 16 hexadecimal digits".to_owned())
}

/// Parses the name of a capability, with or without `cap_`.
pub(crate) fn capability(text: &str) -> Result<Capability, String> {
    let known = |text: &str| text.parse::<Capability>().ok();
    known(text).or_else(|| known(&format!("cap_{text}"))).ok_or_else(|| {
        let names = CapabilitySet::from_bits(u64::MAX).iter().map(|one| one.to_string());
        let near = names.filter(|name| name.contains(&text.to_lowercase())).collect::<Vec<_>>();
        match near.as_slice() {
            [] => "no capability is called that; psx caps explain lists all".to_owned(),
            near => format!("no capability is called that; did you mean {}?", near.join(" or ")),
        }
    })
}

/// Names with commas between them, or `all` or `none`; after `~` all but these. (A second `~` is not a name. An argument
/// of many would otherwise need a deep stack.)
pub(crate) fn set(text: &str) -> Result<CapabilitySet, String> {
    match text.strip_prefix('~') {
        Some(rest) => Ok(CapabilitySet::all() - list(rest)?),
        None => list(text),
    }
}

fn list(text: &str) -> Result<CapabilitySet, String> {
    match text {
        "all" => Ok(CapabilitySet::all()),
        "none" | "" => Ok(CapabilitySet::EMPTY),
        _ => text
            .split(',')
            .map(|name| capability(name).map_err(|why| format!("{name:?}: {why}")))
            .collect(),
    }
}

/// Returns the text of sets without the clause that clears all sets. getcap(8) leaves that clause out.
fn short(text: &str) -> &str {
    text.strip_prefix("= ").unwrap_or(text)
}

/// Describes a set: `none`, `all`, the names, or the missing names if they are fewer.
fn shown(set: CapabilitySet) -> String {
    let (all, missing) = (CapabilitySet::all(), CapabilitySet::all() - set);
    match set {
        set if set.is_empty() => "none".to_owned(),
        set if set == all => "all".to_owned(),
        set if all.is_superset(set) && missing.iter().count() < set.iter().count() => {
            format!("all but {missing}")
        }
        set => set.to_string(),
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<bool> {
        let mut text = String::new();
        let done = match self.command {
            None => processes(&self.pids, &mut text),
            Some(Command::Decode { sets, explain }) => {
                decode(&sets, explain, &mut text);
                Ok(true)
            }
            Some(Command::Explain { names }) => {
                let all = CapabilitySet::all().iter().take(explain::ALL.len()).collect();
                let names = if names.is_empty() { all } else { names };
                names.iter().for_each(|one| describe(*one, &mut text));
                Ok(true)
            }
            Some(Command::File { command }) => of_files(command, &mut text),
        };
        output::print(&text)?;
        done
    }
}

fn decode(sets: &[u64], explained: bool, text: &mut String) {
    for &bits in sets {
        let set = CapabilitySet::from_bits(bits);
        // The format of capsh(1), --decode.
        *text += &format!("0x{bits:016x}={set}\n");
        if explained {
            set.iter().for_each(|one| describe(one, text));
        }
    }
}

fn describe(capability: Capability, text: &mut String) {
    const WIDTH: usize = 76;
    let number = capability.number();
    *text += &format!("{capability} (number {number}, mask {:#x})\n", 1u64 << number);
    let Some(about) = explain::ALL.get(usize::from(number)) else {
        *text += "    It is newer than this program.\n\n";
        return;
    };
    for paragraph in [
        about.allows.to_owned(),
        about.risk.to_owned(),
        format!(
            "Since Linux {}. See capabilities(7), \"Capabilities list\"; {}.",
            about.since, about.pages
        ),
    ] {
        for line in wrapped(&paragraph, WIDTH) {
            *text += &format!("    {line}\n");
        }
    }
    text.push('\n');
}

/// Lines of at most so many characters, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.len().saturating_add(word.len()) < width) {
            Some(line) => *line = format!("{line} {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn of_files(command: OfFile, text: &mut String) -> Result<bool> {
    let mut all = true;
    let paths = match &command {
        OfFile::Get { paths } | OfFile::Set { paths, .. } | OfFile::Remove { paths } => paths,
    };
    for path in paths {
        let name = printable(path.as_os_str().as_encoded_bytes());
        let done = match &command {
            OfFile::Get { .. } => file::get(path).map(|found| match found {
                // getcap(8) prints nothing for a file without capabilities.
                Some(capabilities) => {
                    *text += &format!("{name} {}\n", short(&capabilities.to_string()))
                }
                None => {
                    output::say(format_args!("{name}: it has no capabilities"));
                    all = false;
                }
            }),
            OfFile::Set { capabilities, root, .. } => {
                let mut capabilities = *capabilities;
                if let Some(root) = root {
                    capabilities.root =
                        Uid::new(*root).map_err(|why| anyhow::anyhow!("--root: {why}"))?;
                }
                file::set(path, capabilities)
            }
            OfFile::Remove { .. } => file::remove(path),
        };
        if let Err(error) = done {
            output::say(format_args!("{name}: {error}"));
            all = false;
        }
    }
    Ok(all)
}

/// Appends the sets of processes in the manner of pscap(8) and getpcaps(8), but for every thread.
fn processes(pids: &[i32], text: &mut String) -> Result<bool> {
    let mut all = true;
    for &pid in pids {
        match groups(pid) {
            Ok(Found { name, groups, complete }) => {
                let threads: usize = groups.iter().map(|(_, tids)| tids.len()).sum();
                let plural = if threads == 1 { "thread" } else { "threads" };
                *text += &format!("{pid} ({}): {threads} {plural}\n", printable(&name));
                for (own, tids) in &groups {
                    if groups.len() > 1 {
                        let tids: Vec<_> = tids.iter().map(i32::to_string).collect();
                        *text += &format!(" threads {}\n", tids.join(" "));
                    }
                    *text += &format!("  text         {}\n", short(&own.sets.to_string()));
                    for (what, set) in [
                        ("permitted", own.sets.permitted),
                        ("effective", own.sets.effective),
                        ("inheritable", own.sets.inheritable),
                        ("ambient", own.ambient),
                        ("bounding", own.bounding),
                    ] {
                        *text += &format!("  {what:<12} {}\n", shown(set));
                    }
                }
                if !complete {
                    output::say(format_args!(
                        "{pid}: its threads come and go faster than they can be read"
                    ));
                    all = false;
                }
            }
            Err(error) => {
                output::say(format_args!("{pid}: {error:#}"));
                all = false;
            }
        }
    }
    Ok(all)
}

type Group = (Credentials, Vec<i32>);

/// What was found of a process.
struct Found {
    name: Vec<u8>,
    /// The threads grouped by their sets. The leader's group is the first.
    groups: Vec<Group>,
    /// Whether all threads were read.
    complete: bool,
}

/// Reads the sets of all threads of a process.
fn groups(pid: i32) -> Result<Found> {
    let process = Process::open(pid).context("there is no such process")?;
    let read = |&tid: &i32| process.task(tid).and_then(|task| Ok((task.status()?, task.stat()?)));
    let mut look =
        process.look(|tids| tids.iter().map(read).collect()).context("reading its threads")?;
    look.tasks.retain(|(_, (_, stat))| !stat.dead());
    let complete = look.complete;
    let mut groups: Vec<Group> = Vec::new();
    let mut name = Vec::new();
    for (tid, (status, stat)) in look.without_ended(|(status, _)| (false, &status.credentials)) {
        if name.is_empty() || tid == pid {
            name = stat.name;
        }
        let own = status.credentials;
        let same = |group: &&mut Group| {
            (group.0.sets, group.0.ambient, group.0.bounding)
                == (own.sets, own.ambient, own.bounding)
        };
        match groups.iter_mut().find(same) {
            Some((_, tids)) => tids.push(tid),
            None => groups.push((own, vec![tid])),
        }
    }
    match (groups.is_empty(), complete) {
        (true, true) => bail!("none of its threads runs"),
        (true, false) => bail!("its threads come and go faster than they can be read"),
        _ => {}
    }
    Ok(Found { name, groups, complete })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_tilde_is_an_operator() {
        let kill = CapabilitySet::from(Capability::KILL);
        assert_eq!(set("kill"), Ok(kill));
        assert_eq!(set("~kill"), Ok(CapabilitySet::all() - kill));
        assert!(set("~~kill").is_err());
        // As long as an argument may be.
        assert!(set(&format!("{}kill", "~".repeat(128 << 10))).is_err());
    }
}
