//! Code that the tests of every package of this workspace share: the note that a test is skipped, and the factor for
//! watchdogs. It contains no unsafe code, and each package's support module includes it by its path.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The variable that tells a re-executed test that it is the child.
pub const CASE: &str = "PSX_CASE";
const NOTE: &str = "SKIPPED: ";

/// Records why a test, or a part of it, cannot run here.
pub fn skipped(why: impl Display) {
    let thread = std::thread::current();
    let case = std::env::var(CASE);
    let test = case.as_deref().ok().or(thread.name()).unwrap_or("a thread");
    note(&format!("{NOTE}{}::{test}: {why}", env!("CARGO_CRATE_NAME")), case.is_ok());
}

/// Repeats the notes in the output of a child.
pub fn repeat_notes(output: &str) {
    // A child that ends by _exit leaves its standard output in the middle of a line, before its standard error.
    let notes = output.lines().filter_map(|line| line.get(line.find(NOTE)?..));
    notes.for_each(|line| note(line, false));
}

/// Cargo captures only what `print!` and `eprint!` write. A direct write shows the line at once. The test target
/// `skipped`, which cargo runs last, prints it again. A child leaves that to its parent.
fn note(line: &str, child: bool) {
    let line = format!("{line}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    // An unprivileged user, or a process in another root directory, may have no access to the list.
    if let (false, Ok(mut list)) = (child, File::options().append(true).create(true).open(list())) {
        let _ = list.write_all(line.as_bytes());
    }
}

/// Returns the file with the notes of all test programs that one process, which is cargo, has started.
pub fn list() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("skipped-{}", parent_id()))
}

/// Counts from 0 to `most`, and stops earlier if a third of the limit is over. The time of a round depends on the load of
/// the machine, and that must not fail a test. `PSX_WATCHDOG_FACTOR` does not multiply this limit: a slow machine takes
/// longer to notice that the time is over, and need not do more rounds.
pub fn repeated(most: usize, limit: Duration) -> impl Iterator<Item = usize> {
    let (started, limit) = (Instant::now(), limit / 3);
    (0..most).take_while(move |_| started.elapsed() < limit)
}

/// `PSX_WATCHDOG_FACTOR`.
static FACTOR: LazyLock<Option<f64>> = LazyLock::new(|| {
    let text = std::env::var("PSX_WATCHDOG_FACTOR").ok()?;
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_normal() && *factor > 0.0);
    Some(factor.unwrap_or_else(|| panic!("PSX_WATCHDOG_FACTOR={text}: not a positive number")))
});

/// Returns a time limit that only ends hangs, multiplied by `PSX_WATCHDOG_FACTOR`. The first call in a process reads the
/// environment and allocates; later ones may be made in a signal handler.
pub fn watchdog(limit: Duration) -> Duration {
    let Some(factor) = *FACTOR else { return limit };
    Duration::try_from_secs_f64(limit.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}
