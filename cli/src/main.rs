//! `psx`: show and check what every thread of a process may do.
//!
//! Exit status: 0 when every thread has the state it should have, 1 when one has not or something
//! failed, 2 for a command line that makes no sense, or a process to audit that cannot be read.

mod audit;
mod census;
mod demo;
mod doctor;
mod generate;
mod raw;
mod report;
mod steps;
mod tasks;
mod terminal;
mod text;
mod zoo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "psx", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drop privilege in a program of many threads: by a plain call, then by libpsx
    Demo(demo::Demo),
    /// Show whether all threads of a process may do the same
    Audit(audit::Arguments),
    /// Say whether libpsx works here, and what this kernel, C library and sandbox give
    Doctor(doctor::Arguments),
    /// Print what makes a shell complete this command's arguments
    Completions(generate::Completions),
    /// Print or write the manual pages
    Man(generate::Man),
    /// The half of `demo` that does it the plain way, in a process of its own
    #[command(hide = true)]
    DemoPlain(demo::DemoPlain),
}

fn main() -> ExitCode {
    // clap ends the process itself for a bad command line, with status 2.
    let (done, failed) = match Cli::parse().command {
        Command::Audit(audit) => (audit.run(), 2),
        Command::Doctor(doctor) => (doctor.run(), 1),
        Command::Completions(completions) => (completions.run(), 1),
        Command::Man(man) => (man.run(), 1),
        Command::Demo(demo) => (demo.run(), 1),
        Command::DemoPlain(plain) => (plain.run(), 1),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("psx: {e:#}");
            ExitCode::from(failed)
        }
    }
}
