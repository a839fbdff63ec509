//! The base of every integration test: a separate child process for each case, with a watchdog, and observation from
//! outside.
#![allow(dead_code, unreachable_pub, unsafe_code, unused_imports, unused_macros)]

mod calls;
#[cfg(not(target_arch = "loongarch64"))]
pub mod cpu;
pub mod daemon;
#[cfg(not(target_arch = "loongarch64"))]
pub mod emulator;
mod forms;
mod harness;
mod library;
mod namespaces;
#[cfg(not(target_arch = "loongarch64"))]
pub mod raw;
mod traced;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use calls::*;
pub use forms::{MMAP, NEWFSTATAT, every_form, first_form, last_form};
use harness::CASE;
pub use harness::{repeated, skipped, watchdog};
pub use library::Library;
pub use namespaces::{enter_empty_root, laid_over, private_mounts, unshared, user_namespaces};
pub use traced::traced;

/// Runs `body` in a separate child process, which executes this same test again. Panics if the child fails, or if it
/// has not ended when the watchdog's time is over. The time is multiplied by `PSX_WATCHDOG_FACTOR`.
pub fn isolated(name: &str, watchdog: Duration, body: fn()) {
    let (status, output) = isolated_status(name, watchdog, body);
    print!("{output}");
    assert!(status.success(), "{name}: the child ended with {status}");
}

/// Like [`isolated`], for a child that is meant to die. Returns how it ended and what it wrote.
pub fn isolated_status(name: &str, limit: Duration, body: fn()) -> (ExitStatus, String) {
    // In the child too, where a signal handler may ask again.
    let limit = watchdog(limit);
    if std::env::var(CASE).as_deref() == Ok(name) {
        body();
        end(0);
    }
    let mut child = itself()
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the test starts again");
    let mut pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().expect("piped")),
        Box::new(child.stderr.take().expect("piped")),
    ];
    let readers = pipes
        .each_mut()
        .map(|pipe| std::mem::replace(pipe, Box::new(std::io::empty())))
        .map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = pipe.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
    let started = Instant::now();
    let mut hung = None;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for the child") {
            if !status.success() {
                // A process that it has started, and not ended, would keep the pipes open.
                // SAFETY: the process group was made for this child.
                unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            }
            break status;
        }
        if hung.is_none() && started.elapsed() > limit {
            hung = Some(threads_of(child.id()));
            // SAFETY: the process group was made for this child.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let output: String =
        readers.into_iter().map(|reader| reader.join().unwrap_or_default()).collect();
    if let Some(threads) = hung {
        panic!("{name}: still running after {limit:?}\n{output}\n{threads}");
    }
    // The name of a case in a module has the module before it. A name that no test has would pass silently.
    assert!(output.contains("running 1 test"), "no test is named {name}\n{output}");
    harness::repeat_notes(&output);
    (status, output)
}

/// This test run, to be started again: through the command in PSX_RUNNER, if it is set (an emulator of another CPU, whose
/// programs the kernel cannot start, or the loader of another C library).
fn itself() -> Command {
    let runner = std::env::var("PSX_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(first) = words.next() else {
        return Command::new(std::env::current_exe().expect("the test's own path"));
    };
    // The kernel may have started the command, and not this program.
    let program = std::env::args_os().next().expect("the test's own path");
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}

/// Ends this process as it stands. `std::process::exit` will not do while another thread makes
/// broadcasts: see `libpsx::docs::limitations`, "Signals".
pub fn end(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: _exit(2) touches no memory.
    unsafe { libc::_exit(code) }
}

/// Like [`isolated`]. Records a skipped test if the process is not root.
pub fn isolated_as_root(name: &str, watchdog: Duration, body: fn()) {
    if !skipped_without_root(name) {
        isolated(name, watchdog, body);
    }
}

/// Returns whether a case has to be left out because it needs root. Records that.
pub fn skipped_without_root(name: &str) -> bool {
    // SAFETY: geteuid touches no memory.
    let other = unsafe { libc::geteuid() } != 0;
    if other {
        skipped(format!("{name} needs root"));
    }
    other
}

/// Makes a pseudo-terminal: its master and its slave. Records a skipped test if there is none, as where devpts is not
/// mounted.
pub fn terminal() -> Option<[OwnedFd; 2]> {
    let (mut master, mut slave) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: the C library writes two descriptors.
    if unsafe { libc::openpty(&mut master, &mut slave, none, none.cast(), none.cast()) } != 0 {
        skipped(format!("no pseudo-terminal: {}", std::io::Error::last_os_error()));
        return None;
    }
    // SAFETY: each descriptor is new, and no other code has it.
    Some([master, slave].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Runs `body` in a child of fork(2), a process with one thread. Panics if the child fails.
pub fn forked(body: impl FnOnce()) {
    assert_eq!(forked_status(body), 0);
}

/// Like [`forked`], for a child that ends in its own way. Returns the status as waitpid(2) does.
pub fn forked_status(body: impl FnOnce()) -> i32 {
    let pid = fork();
    if pid == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        end(if done.is_ok() { 0 } else { 101 });
    }
    reap(pid)
}

/// Calls fork(2). Panics if it fails: kill(2) would take -1 for every process, and waitpid(2) for any child.
pub fn fork() -> i32 {
    // SAFETY: glibc allows everything that the tests do in a child.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    pid
}

/// Waits for a child or a tracee. Returns its status as waitpid(2) does.
pub fn reap(pid: i32) -> i32 {
    // waitpid(-1) fails with -1 if there is no child, and leaves the status 0.
    assert!(pid > 0, "no child was made: {pid}, {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: the kernel writes the status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }, pid);
    status
}

/// Checks that libpsx has killed a process with this status; `begun` is a time before the call. Returns whether libpsx
/// had finished with its line on standard error. Signal 33 kills after the line. SIGKILL is that of the timer, which
/// libpsx starts before the line for the case that the line takes longer than 100 ms, as on a busy machine.
pub fn killed_by_libpsx(status: i32, begun: Instant, what: impl std::fmt::Display) -> bool {
    killed_by_libpsx_or(33, status, begun, what)
}

/// Like [`killed_by_libpsx`], where this signal kills the process.
pub fn killed_by_libpsx_or(
    expected: i32,
    status: i32,
    begun: Instant,
    what: impl std::fmt::Display,
) -> bool {
    const TIMER: Duration = Duration::from_millis(100);
    let (signal, time) = (status & 0x7f, begun.elapsed());
    let by_timer = signal == libc::SIGKILL && time >= TIMER;
    assert!(
        signal == expected || by_timer,
        "not killed by signal {expected}: {status:#x} after {time:?}: {what}"
    );
    if by_timer {
        println!("the timer of libpsx was over before its line was written: {what}");
    }
    !by_timer
}

/// Returns where the threads of a process that hangs are.
fn threads_of(pid: u32) -> String {
    let mut text = String::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return text };
    for task in tasks.flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let lines = status.lines().filter(|line| {
            ["Pid:", "State:", "SigBlk:", "SigPnd:"].iter().any(|key| line.starts_with(key))
        });
        text.extend(lines.map(|line| format!("{line}  ")));
        text += &format!("{}  {}\n", read("wchan"), read("syscall").trim());
    }
    text
}

/// Returns the seed of a random test and prints it. It differs each time, unless PSX_SEED sets it.
pub fn seed() -> u64 {
    let given = std::env::var("PSX_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    println!("PSX_SEED={seed}");
    seed
}

/// Returns the next number of xorshift64*.
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Returns the supplementary groups of this process.
pub fn own_groups() -> Vec<u32> {
    let groups = proc::status(std::process::id() as i32).remove("Groups").unwrap_or_default();
    groups.split_whitespace().map(|raw| raw.parse().unwrap()).collect()
}

/// What the kernel reports of the threads of this process.
pub mod proc {
    use super::BTreeMap;

    pub fn tids() -> Vec<i32> {
        tids_of("self")
    }

    /// Returns the threads of a process: its number in the PID namespace of /proc, or `self`.
    pub fn tids_of(process: &str) -> Vec<i32> {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("/proc is mounted");
        tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
    }

    /// Returns the state of a thread and its flags (PF_...), or `None` if it has ended.
    pub fn state_and_flags(tid: i32) -> Option<(char, u32)> {
        of_stat(&std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?)
    }

    /// Returns the state and the flags of a thread from the text of its `stat`. Its name comes before, in brackets.
    pub fn of_stat(stat: &str) -> Option<(char, u32)> {
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        Some((fields.next()?.chars().next()?, fields.nth(5)?.parse().ok()?))
    }

    pub fn status(tid: i32) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/status"));
        text.unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// Returns one field of every thread. A thread that has ended or is ending is left out: it is exempt if it was ending
    /// in the last call, and then keeps its old state.
    pub fn field_in_every_thread(field: &str) -> BTreeMap<i32, String> {
        const PF_EXITING: u32 = 0x4;
        let value = |tid| {
            let value = status(tid).remove(field)?;
            // The flags are read last: a thread that is not ending now was not ending when its status was read.
            let (_, flags) = state_and_flags(tid)?;
            (flags & PF_EXITING == 0).then_some((tid, value))
        };
        tids().into_iter().filter_map(value).collect()
    }
}
