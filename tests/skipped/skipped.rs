//! Prints which tests of this run of cargo were skipped, and why. It never fails.

#[path = "../support/harness.rs"]
#[allow(dead_code, unreachable_pub, reason = "other packages use the rest")]
mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn main() {
    // A test runner passes this argument to get the names of tests.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let list = harness::list();
    let text = fs::read_to_string(&list).unwrap_or_default();
    let lines: BTreeSet<&str> = text.lines().collect();
    println!("\n{} tests, or parts of them, were skipped", lines.len());
    lines.iter().for_each(|line| println!("{line}"));
    // Also removes the lists of runs that have ended before this program.
    for file in list.parent().into_iter().flat_map(fs::read_dir).flatten().flatten() {
        let name = file.file_name();
        let run = name.to_str().and_then(|name| name.strip_prefix("skipped-"));
        if run.is_some_and(|run| file.path() == list || !Path::new("/proc").join(run).exists()) {
            let _ = fs::remove_file(file.path());
        }
    }
}
