//! Shell completions and manual pages, from the definitions that the command line is parsed by.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Arg, Args, Command, CommandFactory};
use clap_complete::env::Shells;
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::output;

/// The variable by which a shell asks this program to complete a word.
pub(crate) const ASK: &str = "_PSX_COMPLETE";

#[derive(Args)]
pub(crate) struct Completions {
    /// The shell to complete for
    #[arg(value_name = "SHELL", value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    shell: String,
}

#[derive(Args)]
pub(crate) struct Man {
    /// The directory for psx.1, psx-audit.1 and so on, created if it is missing; without it, psx(1) goes to standard output
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

/// Returns the definition of the command line with its completers.
pub(crate) fn command() -> Command {
    crate::complete::add(crate::Cli::command())
}

impl Completions {
    pub(crate) fn run(self) -> Result<bool> {
        let shells = Shells::builtins();
        let shell = shells.completer(&self.shell).context("this shell is not known")?;
        let mut text = Vec::new();
        // The script names the program without a directory, so that PATH decides. The script stays right when the
        // program is installed anew.
        shell.write_registration(ASK, "psx", "psx", "psx", &mut text)?;
        output::print(&String::from_utf8(text)?)?;
        Ok(true)
    }
}

impl Man {
    pub(crate) fn run(self) -> Result<bool> {
        let mut command = crate::Cli::command().disable_help_subcommand(true);
        command.build();
        let Some(directory) = self.directory else {
            let mut text = Vec::new();
            page(&command, &mut text)?;
            output::print(&String::from_utf8(text)?)?;
            return Ok(true);
        };
        write_pages(&command, &directory)
            .with_context(|| format!("writing to {}", directory.display()))?;
        Ok(true)
    }
}

/// Writes the page of a command, and those of the commands in it.
fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut text = Vec::new();
    page(command, &mut text)?;
    std::fs::write(directory.join(format!("{}.1", file_name(command))), text)?;
    let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    inner
        .filter(|inner| inner.get_name() != "help")
        .try_for_each(|inner| write_pages(inner, directory))
}

/// Returns the file name of a command's page without its section: `psx-caps-file`.
fn file_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// Writes one page, with its sections in the order of man-pages(7).
fn page(command: &Command, out: &mut dyn io::Write) -> io::Result<()> {
    let man = clap_mangen::Man::new(command.clone()).manual("User Commands");
    man.render_title(out)?;
    man.render_name_section(out)?;
    synopsis(command).to_writer(out)?;
    man.render_description_section(out)?;
    if command.get_arguments().any(|one| !one.is_hide_set()) {
        man.render_options_section(out)?;
    }
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        man.render_subcommands_section(out)?;
    }
    sections(command).to_writer(out)
}

/// Returns the text after the options. The paragraphs that begin with "Exit status:" and "Examples:" become sections
/// of their own.
fn sections(command: &Command) -> Roff {
    let text = command.get_after_long_help().or_else(|| command.get_after_help());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let (mut notes, mut exit, mut examples) = (Vec::new(), None, None);
    for paragraph in text.split("\n\n") {
        if let Some(rest) = paragraph.strip_prefix("Exit status: ") {
            exit = Some(rest.to_owned());
        } else if let Some(rest) = paragraph.strip_prefix("Examples:") {
            examples = Some(rest.trim_matches('\n').to_owned());
        } else {
            notes.push(paragraph.to_owned());
        }
    }
    let name = file_name(command);
    let mut page = Roff::new();
    if !notes.iter().all(|one| one.trim().is_empty()) {
        page.control("SH", ["NOTES"]);
        for (index, paragraph) in notes.iter().enumerate() {
            if index > 0 {
                page.control("PP", []);
            }
            // Indented lines are copied without filling.
            if paragraph.lines().any(|line| line.starts_with("  ")) {
                verbatim(&mut page, paragraph);
            } else {
                page.text([roman(paragraph.as_str())]);
            }
        }
    }
    page.control("SH", ["EXIT STATUS"]);
    let exit = exit.unwrap_or_else(|| {
        "0 if the command succeeded and its findings are good; 1 if they are not, or if an operation failed; 2 if the \
         command line is wrong."
            .to_owned()
    });
    for one in exit.trim_end_matches('.').split("; ") {
        let number =
            one.split(' ').next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        let (term, meaning) = match number {
            Some(number) => (number, one.get(number.len()..).unwrap_or_default().trim_start()),
            None => ("otherwise", one),
        };
        page.control("TP", []);
        page.text([bold(term)]);
        page.text([roman(format!("{meaning}."))]);
    }
    let files = files(&name);
    if !files.is_empty() {
        page.control("SH", ["FILES"]);
        for (file, meaning) in files {
            page.control("TP", []);
            page.text([italic(*file)]);
            page.text([roman(*meaning)]);
        }
    }
    page.control("SH", ["EXAMPLES"]);
    verbatim(&mut page, &examples.unwrap_or_else(|| example(&name).to_owned()));
    page.control("SH", ["SEE ALSO"]);
    let related = related(command, &name);
    let mut line = Vec::new();
    for (index, (title, section)) in related.iter().enumerate() {
        line.extend([bold(title.as_str()), roman(format!("({section})"))]);
        line.push(roman(if index.saturating_add(1) < related.len() { ", " } else { "" }));
    }
    page.text(line);
    page
}

fn verbatim(page: &mut Roff, text: &str) {
    page.control("PP", []);
    page.control("RS", ["2"]);
    page.control("nf", []);
    for line in text.lines() {
        page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    page.control("fi", []);
    page.control("RE", []);
}

/// Returns the synopsis: the command with its options and their values.
fn synopsis(command: &Command) -> Roff {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut line = vec![bold(name)];
    let shown = |one: &&Arg| !one.is_hide_set();
    for option in command.get_arguments().filter(shown).filter(|one| !one.is_positional()) {
        if ["help", "version"].contains(&option.get_id().as_str()) {
            continue;
        }
        line.push(roman(if option.is_required_set() { " " } else { " [" }));
        let word = match (option.get_long(), option.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => continue,
        };
        line.push(bold(word));
        if option.get_action().takes_values() {
            line.extend([roman(" "), italic(values(option))]);
        }
        line.push(roman(if option.is_required_set() { "" } else { "]" }));
    }
    for positional in command.get_positionals().filter(shown) {
        let many =
            if matches!(positional.get_action(), clap::ArgAction::Append) { "..." } else { "" };
        let (before, after) = if positional.is_required_set() { (" ", "") } else { (" [", "]") };
        line.extend([roman(before), italic(values(positional)), roman(format!("{many}{after}"))]);
    }
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        line.extend([roman(" "), italic("COMMAND")]);
    }
    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]);
    page.text(line);
    page
}

fn values(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")
}

fn files(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "psx-audit" | "psx-doctor" | "psx-caps" => &[(
            "/proc/PID/task/TID/status",
            "What the kernel shows of a thread, proc_pid_status(5).",
        )],
        "psx-run" => &[
            ("/etc/passwd", "The users, and their groups."),
            (
                "/etc/systemd/system",
                "Units that --from-unit finds, with /run, /usr/local/lib and /usr/lib.",
            ),
        ],
        "psx-completions" => {
            &[("/etc/bash_completion.d/psx", "Where bash looks for what is printed.")]
        }
        "psx-man" => &[("/usr/local/share/man/man1", "Where man(1) looks for what is written.")],
        _ => &[],
    }
}

fn example(name: &str) -> &'static str {
    match name {
        "psx" => "psx audit --all\npsx run --user nobody -- id\npsx caps explain net_admin",
        "psx-demo" => "psx demo\npsx demo --threads 500 --json",
        "psx-doctor" => "psx doctor",
        "psx-completions" => "psx completions bash > /etc/bash_completion.d/psx",
        "psx-man" => "psx man /usr/local/share/man/man1",
        "psx-caps-decode" => "psx caps decode 00000000a80425fb",
        "psx-caps-explain" => "psx caps explain net_raw",
        "psx-caps-file" | "psx-caps-file-get" => "psx caps file get /usr/bin/ping",
        "psx-caps-file-set" => "psx caps file set cap_net_raw=ep ./ping",
        "psx-caps-file-remove" => "psx caps file remove ./ping",
        _ => "psx --help",
    }
}

/// Returns the other pages of this program, and pages of other programs on the same subject.
fn related(command: &Command, name: &str) -> Vec<(String, u8)> {
    let mut all: Vec<(String, u8)> = Vec::new();
    if let Some((parent, _)) = name.rsplit_once('-') {
        all.push((parent.to_owned(), 1));
    }
    let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    all.extend(inner.map(|inner| (file_name(inner), 1)));
    let others: &[(&str, u8)] = match name {
        "psx-run" => {
            &[("capsh", 1), ("env", 1), ("setpriv", 1), ("systemd-run", 1), ("systemd.exec", 5)]
        }
        "psx-audit" => &[("ps", 1), ("proc_pid_status", 5), ("pscap", 8)],
        _ if name.starts_with("psx-caps") => {
            &[("capsh", 1), ("cap_from_text", 3), ("getcap", 8), ("setcap", 8)]
        }
        _ => &[],
    };
    all.extend(others.iter().map(|(title, section)| ((*title).to_owned(), *section)));
    all.extend([("capabilities".to_owned(), 7), ("credentials".to_owned(), 7)]);
    all
}
