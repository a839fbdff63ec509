//! Values that a shell completes while the user types: names of processes, units, users, capabilities, keys.
//!
//! `clap_complete` writes completions for commands, options and fixed values. Values of this machine are asked for at
//! that moment: the completions call the hidden command `psx complete-values KIND`, which prints one value per line.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};

use anyhow::{Context, Result, bail};
use clap_complete::Shell;
use libpsx::process::CapabilitySet;

use crate::tasks;

/// The hidden command.
pub(crate) const COMMAND: &str = "complete-values";

/// Options, and the kind of their values. They mean the same in every command.
const OPTIONS: [(&str, &str); 4] =
    [("name", "names"), ("user", "users"), ("unit", "units"), ("expect", "keys")];

/// Where systemd looks for units, systemd.unit(5).
pub(crate) const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Prints the values of a kind.
pub(crate) fn run(kind: Option<&str>) -> Result<bool> {
    let values = match kind {
        Some("names") => names(),
        Some("users") => first_fields("/etc/passwd"),
        Some("units") => units(),
        Some("keys") => crate::audit::keys().map(|key| format!("{key}=")).collect(),
        Some("capabilities") => CapabilitySet::all().iter().map(|one| one.to_string()).collect(),
        _ => bail!("the kinds are names, users, units, keys and capabilities"),
    };
    let text: String = values.iter().map(|value| format!("{value}\n")).collect();
    io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
    Ok(true)
}

/// The names of processes, as far as a shell takes them without quotes.
fn names() -> BTreeSet<String> {
    let pids = tasks::processes().unwrap_or_default();
    let name = |&pid: &i32| {
        let stat = tasks::Process::open(pid).ok()?.task(pid).ok()?.stat().ok()?;
        String::from_utf8(stat.name).ok().filter(|_| !stat_is_kernel(stat.flags))
    };
    pids.iter().filter_map(name).filter(|name| plain(name)).collect()
}

fn stat_is_kernel(flags: u32) -> bool {
    flags & 0x20_0000 != 0
}

fn plain(word: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@+".contains(&byte);
    !word.is_empty() && word.bytes().all(usual)
}

fn first_fields(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let first = text.lines().filter_map(|line| line.split(':').next());
    first.filter(|word| plain(word)).map(str::to_owned).collect()
}

fn units() -> BTreeSet<String> {
    let files = UNIT_DIRECTORIES.iter().filter_map(|path| fs::read_dir(path).ok()).flatten();
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".service") && plain(name)).collect()
}

/// Adds to the completions of a shell what asks for values.
pub(crate) fn extend(shell: Shell, text: String) -> String {
    match shell {
        Shell::Bash => text + &bash(),
        Shell::Fish => text + &fish(),
        Shell::Zsh => zsh(text),
        _ => text,
    }
}

fn bash() -> String {
    let cases: String = OPTIONS
        .iter()
        .map(|(option, kind)| format!("        --{option}) kind={kind} ;;\n"))
        .collect();
    format!(
        r#"
_psx_with_values() {{
    local kind= word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    case "$before" in
{cases}        explain) [ "${{COMP_WORDS[1]}}" = caps ] && kind=capabilities ;;
    esac
    if [ -n "$kind" ]; then
        COMPREPLY=($(compgen -W "$("${{COMP_WORDS[0]}}" {COMMAND} $kind 2>/dev/null)" -- "$word"))
    else
        _psx "$@"
    fi
}}
complete -F _psx_with_values -o nosort -o bashdefault -o default psx 2>/dev/null ||
    complete -F _psx_with_values -o bashdefault -o default psx
"#
    )
}

fn fish() -> String {
    let lines = OPTIONS.map(|(option, kind)| {
        format!("complete -c psx -l {option} -x -a \"(psx {COMMAND} {kind} 2>/dev/null)\"\n")
    });
    let capabilities = format!(
        "complete -c psx -n \"__fish_seen_subcommand_from caps; and __fish_seen_subcommand_from explain\" -f -a \
         \"(psx {COMMAND} capabilities 2>/dev/null)\"\n"
    );
    lines.concat() + &capabilities
}

/// An option's line ends with the action that completes its value: `'--name=[...]:REGEX:_default'`.
fn zsh(text: String) -> String {
    let lines = text.lines().map(|line| {
        let start = line.trim_start().trim_start_matches(['*', '\'', '(']);
        let kind = OPTIONS.iter().find(|(option, _)| start.starts_with(&format!("--{option}=[")));
        match kind {
            Some((_, kind)) if line.contains(":_") => {
                let (head, action) = line.rsplit_once(":_").unwrap_or((line, ""));
                let rest = action.find('\'').and_then(|at| action.get(at..)).unwrap_or("' \\");
                format!("{head}:{{compadd -- $(psx {COMMAND} {kind} 2>/dev/null)}}{rest}\n")
            }
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}
