//! The fuzz targets, in one program: the variable `PSX_FUZZ_TARGET` names the one that runs. `scripts/fuzz` builds and
//! starts it.
//!
//! A target compares a parser with what the format says, written anew here as simply as possible, or with itself: a
//! round trip, the same text in two parts, the same meaning in two formats. A panic is a finding too.
#![no_main]
#![allow(dead_code)] // most of cli is not used here

// The command's sources, under the paths that they use for each other.
#[path = "../../cli/src/ask.rs"]
mod ask;
#[path = "../../cli/src/audit/mod.rs"]
mod audit;
#[path = "../../cli/src/caps/mod.rs"]
mod caps;
#[path = "../../cli/src/complete.rs"]
mod complete;
#[path = "../../cli/src/output.rs"]
mod output;
#[path = "../../cli/src/parallel.rs"]
mod parallel;
#[path = "../../cli/src/raw.rs"]
mod raw;
#[path = "../../cli/src/run/mod.rs"]
mod run;
#[path = "../../cli/src/steps.rs"]
mod steps;
#[path = "../../cli/src/tasks/mod.rs"]
mod tasks;
#[path = "../../cli/src/terminal.rs"]
mod terminal;
#[path = "../../cli/src/unit.rs"]
mod unit;
#[path = "../../cli/src/wrap.rs"]
mod wrap;

mod command;
mod kernel;
mod library;
mod privileges_text;

use std::sync::LazyLock;

/// Checks one input. Panics if something is wrong.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 13] = [
    ("getdents", kernel::getdents),
    ("proc_files", kernel::proc_files),
    ("bpf", kernel::bpf),
    ("capability_text", library::capability_text),
    ("capability_forms", library::capability_forms),
    ("iab_text", privileges_text::iab_text),
    ("unit", privileges_text::unit),
    ("table", privileges_text::table),
    ("audit_files", command::audit_files),
    ("policy", command::policy),
    ("expectation", command::expectation),
    ("caps_arguments", command::caps_arguments),
    ("run_arguments", command::run_arguments),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("PSX_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("PSX_FUZZ_TARGET={name:?} is not a target")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));

/// Splits an input at bytes that no text has.
fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|&byte| byte == 0xff)
}

/// Returns the input as a text, if it is one.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}
