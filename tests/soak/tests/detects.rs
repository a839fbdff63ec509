//! The soak notices what it is for: each case breaks something on purpose, and the soak has to fail for that reason.

use std::process::Command;

#[path = "../../support/harness.rs"]
#[allow(dead_code, unreachable_pub, reason = "other packages use the rest")]
mod harness;

/// Runs a short soak with this sabotage. It fails, and says this.
fn fails(sabotage: &str, wanted: &str) {
    let mut soak = Command::new(env!("CARGO_BIN_EXE_soak"));
    // A number that any run may use; the soak prints it.
    let soak = soak.args(["2", "17", "--sabotage", sabotage]);
    let output = soak.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let text = text.concat();
    if text.contains("needs root") {
        harness::skipped(format!("{sabotage}: the soak needs root"));
        return;
    }
    let line = text.lines().find(|line| line.starts_with("VIOLATION") && line.contains(wanted));
    println!("{sabotage}: {line:?}");
    assert!(line.is_some() && !output.status.success(), "{}\n{text}", output.status);
}

#[test]
fn a_thread_that_takes_a_change_back() {
    fails("undo", "SavedUser Some(100000)");
}

#[test]
fn a_thread_that_performs_a_call_twice() {
    fails("twice", "has Filters");
}

#[test]
fn a_thread_that_runs_before_the_others_have_the_new_state() {
    fails("early", "after a thread has run with");
}

#[test]
fn a_call_that_does_not_return() {
    fails("hang", "sabotage");
}

#[test]
fn a_descriptor_that_stays_open() {
    fails("descriptor", "descriptors did not come back");
}

#[test]
fn memory_that_is_lost() {
    fails("memory", "memory did not come back");
}

#[test]
fn a_signal_that_stays_pending() {
    fails("signal", "queued signals did not come back");
}
