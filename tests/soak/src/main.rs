//! `soak SECONDS [SEED] [--sabotage WHAT]`
//!
//! Runs everything that the threads of a process can do, at once and in one process (the subject), beside broadcasts of
//! several kinds from several initiators. The observer, which is the subject's parent, disturbs it from outside,
//! checks every thread's state between the calls, and ends with a table of counts. `scripts/soak` builds and runs it.
//!
//! --sabotage breaks something on purpose, and the soak has to notice it:
//! - `undo`: a thread takes a change back for itself, as if a call had missed it;
//! - `twice`: a thread performs a change twice;
//! - `early`: a thread seems to have a state that the others do not have yet;
//! - `hang`: a call does not return;
//! - `descriptor`, `memory`, `signal`: something stays behind at the end.

// # Safety
//
// The soak is made of what Rust does not do by itself: clone, fork, cancellation, other processes' threads.
#![allow(unsafe_code)]

mod activities;
mod board;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "s390x"
))]
#[path = "../../support/cpu.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "the tests use the rest"
)]
mod cpu;
mod disturb;
mod initiators;
mod observer;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "s390x"
))]
#[path = "../../support/raw.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod raw;
mod state;
mod subject;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--subject", board, seed, sabotage] => {
            subject::run(board, seed.parse().expect("a number"), sabotage)
        }
        ["--child", group, groups] => subject::executed(group, groups),
        _ => {}
    }
    let mut numbers = Vec::new();
    let mut sabotage = String::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match (word, word.parse::<u64>()) {
            ("--sabotage", _) => sabotage = words.next().unwrap_or_default().to_owned(),
            (_, Ok(number)) => numbers.push(number),
            _ => {
                eprintln!("usage: soak SECONDS [SEED] [--sabotage WHAT]");
                return ExitCode::from(2);
            }
        }
    }
    let seconds = numbers.first().copied().unwrap_or(600);
    let seed =
        numbers.get(1).copied().unwrap_or_else(|| sys::now() ^ u64::from(std::process::id()) << 40);
    if observer::run(seconds, seed, &sabotage) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
