//! `psx`: show and check what every thread of a process may do.
//!
//! Exit status: 0 if every thread has the state that it should have, 1 if a thread does not or something failed, 2 if
//! the command line is wrong or a process to audit cannot be read.

// These macros panic if the device is full or the pipe is closed. The module `output` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod ask;
mod audit;
mod caps;
mod complete;
mod demo;
mod demo_threads;
mod doctor;
mod generate;
mod output;
mod parallel;
mod raw;
mod report;
mod run;
mod steps;
mod tasks;
mod terminal;
mod text;
mod thread_counts;
mod unit;
mod wrap;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "psx", version, about, arg_required_else_help = true, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
On Linux, IDs, groups, capabilities, no_new_privs and seccomp filters belong to a thread. A program that drops \
them by a plain system call keeps them in its other threads. See it happen, and find it:

  psx demo                    drop root, the wrong way and the right way
  psx demo --hold             the same, and keep both processes running
  psx audit PID --explain     which threads differ, and what to call
  psx audit --all             every process, one line each
  psx audit PID --expect uid=nobody,caps=none,nnp=1
                              check a process; exit status 1 if it fails
  psx doctor                  whether libpsx works on this machine
  psx run --user nobody -- COMMAND
                              a program with the privileges that the options say
  psx caps explain net_admin  what a capability allows

Each command has its own --help. Set it up:

  psx completions bash > /etc/bash_completion.d/psx
  psx man /usr/local/share/man/man1";

#[derive(Subcommand)]
enum Command {
    /// Show whether all threads of a process may do the same
    Audit(Box<audit::Arguments>),
    /// Check whether libpsx works here, and what the kernel, C library and sandbox allow
    Doctor(doctor::Arguments),
    /// Execute a program with the privileges that the options say, and no others
    Run(Box<run::Arguments>),
    /// Explain capabilities, and show or change those of files and processes
    Caps(caps::Arguments),
    /// Drop privileges in a program with many threads: by a plain call, then by libpsx
    Demo(demo::Demo),
    /// Print the completions for a shell
    Completions(generate::Completions),
    /// Print or write the manual pages
    Man(generate::Man),
}

fn main() -> ExitCode {
    // The half of `demo` that makes plain calls, in a process of its own. Only `demo` calls it.
    if std::env::args_os().nth(1).is_some_and(|first| first == demo::PLAIN) {
        return status(demo::DemoPlain::parse_from(std::env::args_os().skip(1)).run(), 1);
    }
    // A shell asks by `psx -- WORD...`. The variable alone must not turn an audit into a success that audits nothing.
    if std::env::args_os().nth(1).is_none_or(|first| first == "--") {
        clap_complete::CompleteEnv::with_factory(generate::command).var(generate::ASK).complete();
    }
    let parsed = Cli::try_parse().unwrap_or_else(|error| std::process::exit(unparsed(&error)));
    match parsed.command {
        Command::Run(run) => ExitCode::from(run.run()),
        Command::Caps(caps) => status(caps.run(), 1),
        Command::Audit(audit) => status(audit.run(), 2),
        Command::Doctor(doctor) => status(doctor.run(), 1),
        Command::Demo(demo) => status(demo.run(), 1),
        Command::Completions(completions) => status(completions.run(), 1),
        Command::Man(man) => status(man.run(), 1),
    }
}

/// Returns 0 if the result is good, 1 if it is bad, and `failed` if there is none.
fn status(done: anyhow::Result<bool>, failed: u8) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::say(format_args!("{error:#}"));
            ExitCode::from(failed)
        }
    }
}

/// Prints the help, or why the command line is wrong. Returns the exit status: for a wrong command line 2, and for one of
/// `run` 125, as env(1) has it.
fn unparsed(error: &clap::Error) -> i32 {
    let run = std::env::args_os().nth(1).is_some_and(|first| first == "run");
    let status = |other| if run { run::FAILED.into() } else { other };
    match error.print() {
        _ if error.use_stderr() => status(2),
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => {
            output::say(format_args!("writing to standard output: {why}"));
            status(1)
        }
        _ => 0,
    }
}
