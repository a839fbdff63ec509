//! `psx`: show and check what every thread of a process may do.
//!
//! Exit status: 0 when every thread has the state it should have, 1 when one has not or something
//! failed, 2 for a command line that makes no sense, or a process to audit that cannot be read.

mod audit;
mod demo;
mod demo_threads;
mod doctor;
mod generate;
mod raw;
mod report;
mod steps;
mod tasks;
mod terminal;
mod text;
mod thread_counts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "psx", version, about, arg_required_else_help = true, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
On Linux ids, groups, capabilities, no_new_privs and seccomp filters belong to a thread, so a program that drops \
them by a plain system call keeps them in its other threads. See it happen, and see it found:

  psx demo                    root is dropped, the wrong way and the right one
  psx demo --hold             the same, and both processes stay
  psx audit PID --explain     which threads of a process differ, in what, and what to call
  psx audit --all             every process that may be read
  psx audit PID --expect uid=nobody,caps=none,nnp=1
                              exit status 1, and the first thread for which it is not so
  psx doctor                  whether libpsx works on this machine, in this container

Each command has its own --help. Set it up:

  psx completions bash > /etc/bash_completion.d/psx
  psx man /usr/local/share/man/man1";

#[derive(Subcommand)]
enum Command {
    /// Show whether all threads of a process may do the same
    Audit(audit::Arguments),
    /// Say whether libpsx works here, and what this kernel, C library and sandbox give
    Doctor(doctor::Arguments),
    /// Drop privilege in a program of many threads: by a plain call, then by libpsx
    Demo(demo::Demo),
    /// Print what makes a shell complete this command's arguments
    Completions(generate::Completions),
    /// Print or write the manual pages
    Man(generate::Man),
}

fn main() -> ExitCode {
    // The half of `demo` that does it the plain way, in a process of its own: for nobody else to call.
    let copy = std::env::args_os().nth(1).is_some_and(|first| first == demo::PLAIN);
    if copy {
        return status(demo::DemoPlain::parse_from(std::env::args_os().skip(1)).run(), 1);
    }
    // clap ends the process itself for a bad command line, with status 2.
    match Cli::parse().command {
        Command::Audit(audit) => status(audit.run(), 2),
        Command::Doctor(doctor) => status(doctor.run(), 1),
        Command::Demo(demo) => status(demo.run(), 1),
        Command::Completions(completions) => status(completions.run(), 1),
        Command::Man(man) => status(man.run(), 1),
    }
}

/// 0 for good news, 1 for bad news, and `failed` for none.
fn status(done: anyhow::Result<bool>, failed: u8) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("psx: {error:#}");
            ExitCode::from(failed)
        }
    }
}
