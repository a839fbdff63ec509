//! Shell completions and man pages, from the definitions that the command line is parsed by.
//!
//! The text after a command's long help has a form that this module knows: a paragraph that begins with "Exit status:"
//! becomes the section EXIT STATUS, the lines after "Examples:" become the section EXAMPLES, and the other paragraphs
//! become the section NOTES.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

#[derive(Args)]
pub(crate) struct Completions {
    /// The shell to complete for
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Args)]
pub(crate) struct Man {
    /// The directory for psx.1, psx-audit.1 and so on; it is created if it is missing. Without it, psx(1) goes to
    /// standard output
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self) -> Result<bool> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "psx", &mut text);
        let text = String::from_utf8(text).context("the completions are not text")?;
        let text = crate::complete::extend(self.shell, text);
        io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
        Ok(true)
    }
}

impl Man {
    pub(crate) fn run(self) -> Result<bool> {
        let mut command = crate::Cli::command();
        command.build();
        let Some(directory) = self.directory else {
            let page = page(&command, "psx")?;
            io::stdout().write_all(&page).context("writing to standard output")?;
            return Ok(true);
        };
        let shown = directory.display();
        fs::create_dir_all(&directory).with_context(|| format!("creating {shown}"))?;
        let subcommands = command.get_subcommands().filter(|one| listed(one));
        let pages = subcommands.map(|one| (one, format!("psx-{}", one.get_name())));
        for (command, name) in std::iter::once((&command, "psx".to_owned())).chain(pages) {
            let path = directory.join(format!("{name}.1"));
            fs::write(&path, page(command, &name)?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(true)
    }
}

/// Whether a command has a page: `help` has none.
fn listed(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

/// Returns the page of a command, in the language of man(7).
fn page(command: &Command, name: &str) -> Result<Vec<u8>> {
    let version = env!("CARGO_PKG_VERSION");
    let man = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    let mut head = Roff::new();
    let source = format!("psx {version}");
    head.control("TH", [name.to_uppercase().as_str(), "1", "", &source, "psx"]);
    head.control("SH", ["NAME"]);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    head.text([roman(format!("{name} - {}", lower(&about)))]);
    head.control("SH", ["SYNOPSIS"]);
    synopsis(&mut head, command, name);
    head.to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut rest = Roff::new();
    if command.get_subcommands().any(listed) {
        rest.control("SH", ["COMMANDS"]);
        for one in command.get_subcommands().filter(|one| listed(one)) {
            rest.control("TP", []);
            rest.text([bold(format!("psx-{}", one.get_name())), roman("(1)")]);
            rest.text([roman(one.get_about().map(ToString::to_string).unwrap_or_default())]);
        }
    }
    let long = command.get_after_long_help().or(command.get_after_help());
    notes(&mut rest, &long.map(ToString::to_string).unwrap_or_default());
    files(&mut rest, name);
    see_also(&mut rest, command, name);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// NAME begins with a small letter, as man-pages(7) has it.
fn lower(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}

fn synopsis(page: &mut Roff, command: &Command, name: &str) {
    let mut line = vec![bold(name.replacen("psx-", "psx ", 1))];
    let arguments = || command.get_arguments().filter(|one| !one.is_hide_set());
    for one in arguments().filter(|one| !one.is_positional()) {
        line.extend([roman(" "), roman("[")]);
        line.extend(option(one));
        line.push(roman("]"));
    }
    for one in arguments().filter(|one| one.is_positional()) {
        let many = matches!(one.get_action(), ArgAction::Append);
        let value = value(one).unwrap_or_else(|| one.get_id().as_str().to_owned());
        let (open, close) = if one.is_required_set() { ("", "") } else { ("[", "]") };
        let dots = if many { "..." } else { "" };
        line.extend([roman(" "), roman(open), italic(value), roman(format!("{close}{dots}"))]);
    }
    if command.get_subcommands().any(listed) {
        line.extend([roman(" "), italic("COMMAND"), roman(" [...]")]);
    }
    page.text(line);
}

/// `-q|--quiet`, or `--name REGEX`.
fn option(one: &Arg) -> Vec<Inline> {
    let short = one.get_short().map(|short| format!("-{short}"));
    let long = one.get_long().map(|long| format!("--{long}"));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let mut parts = vec![bold(names.join("|"))];
    if let Some(value) = value(one).filter(|_| one.get_action().takes_values()) {
        parts.extend([roman(" "), italic(value)]);
    }
    parts
}

fn value(one: &Arg) -> Option<String> {
    let names = one.get_value_names()?;
    Some(names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

/// Writes the sections that come from the text after the long help.
fn notes(page: &mut Roff, text: &str) {
    let (mut exit, mut examples, mut other) = (None, None, Vec::new());
    for paragraph in text.split("\n\n").map(str::trim_end).filter(|one| !one.is_empty()) {
        if let Some(status) = paragraph.strip_prefix("Exit status: ") {
            exit = Some(status);
        } else if let Some(lines) = paragraph.strip_prefix("Examples:\n") {
            examples = Some(lines);
        } else {
            other.push(paragraph);
        }
    }
    if !other.is_empty() {
        page.control("SH", ["NOTES"]);
    }
    for (index, paragraph) in other.into_iter().enumerate() {
        if index > 0 {
            page.control("PP", []);
        }
        // Indented lines are commands: they keep their lines.
        let block = paragraph.lines().any(|line| line.starts_with("  "));
        if block {
            page.control("nf", []);
        }
        for line in paragraph.lines() {
            page.text([roman(line)]);
        }
        if block {
            page.control("fi", []);
        }
    }
    page.control("SH", ["EXIT STATUS"]);
    let usual = "0 success; 1 it failed; 2 the command line is wrong";
    for one in exit.unwrap_or(usual).trim_end_matches('.').split("; ") {
        match one.split_once(' ') {
            Some((code, meaning)) if code.bytes().all(|byte| byte.is_ascii_digit()) => {
                page.control("TP", []);
                page.text([bold(code)]);
                page.text([roman(meaning)]);
            }
            // A semicolon within the text of one status.
            _ => {
                page.text([roman(one)]);
            }
        }
    }
    if let Some(lines) = examples {
        page.control("SH", ["EXAMPLES"]);
        page.control("nf", []);
        for line in lines.lines() {
            page.text([roman(line)]);
        }
        page.control("fi", []);
    }
}

fn files(page: &mut Roff, name: &str) {
    let all: &[(&str, &str)] = match name {
        "psx-audit" => &[
            ("/proc/PID/task", "the threads and their state"),
            ("/proc/PID/cgroup", "the unit and the container"),
            (
                "/etc/systemd/system, /run/systemd/system, /usr/lib/systemd/system",
                "units for --unit",
            ),
        ],
        "psx-doctor" | "psx-demo" => &[("/proc/self/task", "the threads and their state")],
        _ => &[],
    };
    if !all.is_empty() {
        page.control("SH", ["FILES"]);
    }
    for (file, what) in all {
        page.control("TP", []);
        page.text([italic(*file)]);
        page.text([roman(*what)]);
    }
}

fn see_also(page: &mut Roff, command: &Command, name: &str) {
    let own: &[&str] = match name {
        "psx" => &["credentials(7)", "capabilities(7)", "pthreads(7)", "psx_syscall3(3)"],
        "psx-audit" => {
            &["proc(5)", "ps(1)", "pscap(8)", "credentials(7)", "capabilities(7)", "seccomp(2)"]
        }
        "psx-doctor" => &["seccomp(2)", "landlock(7)", "signal(7)", "getrlimit(2)"],
        "psx-demo" => &["setresuid(2)", "credentials(7)", "nptl(7)"],
        "psx-run" => &["setpriv(1)", "capsh(1)", "systemd.exec(5)", "env(1)"],
        "psx-caps" => &["capabilities(7)", "getcap(8)", "setcap(8)", "pscap(8)"],
        _ => &[],
    };
    let commands = command.get_subcommands().filter(|one| listed(one));
    let mut all: Vec<_> = commands.map(|one| format!("psx-{}(1)", one.get_name())).collect();
    if name != "psx" {
        all.push("psx(1)".to_owned());
    }
    all.extend(own.iter().map(|&page| page.to_owned()));
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(all.join(", "))]);
}
