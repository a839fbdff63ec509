//! Prints what libpsx, glibc's setresuid(2) and C's libpsx do in situations that are hard.
//!
//! Each cell of the table is a process of its own, with a watchdog. The process changes its real
//! user id by one of the engines, and the parent looks at the threads from outside. The loader
//! decides which `libpsx.so.2` is C's libpsx. The argument is the path of the program for Go's
//! column, which is built from bench/go. `scripts/limits` fetches both and runs this program.
#![allow(unsafe_code)]

mod counts;
mod engines;
mod situations;
mod traps;

use std::ffi::CStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use counts::{COUNTS, Count};
use engines::ENGINES;
use situations::{Go, SITUATIONS, forever, sleepers};

const UID: u32 = 1234;
/// Longer than any engine needs that returns at all.
const HANGS: Duration = Duration::from_secs(8);
/// The same for the two rows that count over many calls.
const COUNTING_HANGS: Duration = Duration::from_secs(60);

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().map(|path| File::open(path).expect("a Go program"));
    // A second argument selects the rows whose names contain it.
    let wanted = arguments.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
    libpsx::set_sensitivity(libpsx::Sensitivity::Warning);
    let names = ENGINES.map(|engine| engine.name).join(" | ");
    println!("| | {names} | Go AllThreadsSyscall |");
    println!("|{}", "---|".repeat(ENGINES.len() + 2));
    for situation in SITUATIONS.iter().filter(|situation| situation.name.contains(&wanted)) {
        let outer = situation.name.contains("outer PID namespace");
        let cells = ENGINES.map(|engine| {
            watched(outer, HANGS, |out| {
                say(out, || {
                    sleepers(8);
                    (engine.call)(0).expect("the first call is easy");
                    (situation.set_up)(&engine);
                    calls(engine.call, situation.calls)
                });
            })
        });
        let go = program.as_ref().and_then(|program| match situation.go {
            Go::Never => None,
            Go::Inherits => Some(watched(outer, HANGS, |out| {
                (situation.set_up)(&ENGINES[0]);
                become_program(program, c"call", &out);
            })),
            Go::Argument(name) => {
                Some(watched(outer, HANGS, |out| become_program(program, name, &out)))
            }
        });
        row(situation.name, &cells, go);
    }
    for Count { name, count, go } in COUNTS.iter().filter(|row| row.name.contains(&wanted)) {
        let cells =
            ENGINES.map(|engine| watched(false, COUNTING_HANGS, |out| say(out, || count(&engine))));
        let go = program
            .as_ref()
            .map(|program| watched(false, COUNTING_HANGS, |out| become_program(program, go, &out)));
        row(name, &cells, go);
    }
}

fn row(name: &str, cells: &[String], go: Option<String>) {
    println!("| {name} | {} | {} |", cells.join(" | "), go.as_deref().unwrap_or("-"));
}

/// Makes `count` calls, the last of them with [`UID`], and returns how they ended.
fn calls(call: fn(u32) -> Result<(), String>, count: u32) -> String {
    let mut longest = Duration::ZERO;
    for uid in UID + 1 - count..=UID {
        let start = Instant::now();
        if let Err(error) = call(uid) {
            return format!("error: {error}");
        }
        longest = longest.max(start.elapsed());
    }
    if count == 1 {
        return "Ok".into();
    }
    format!("Ok, the longest of {count} calls took {} ms", longest.as_millis())
}

/// Writes the process's pid, and then the outcome. The process stays alive, so that the parent can look at its threads.
fn say(mut out: UnixStream, outcome: impl FnOnce() -> String) {
    let pid = std::fs::read_link("/proc/self").unwrap_or_default();
    let _ = writeln!(out, "{}", pid.display());
    let _ = writeln!(out, "{}", outcome());
    forever();
}

fn become_program(program: &File, argument: &CStr, out: &UnixStream) {
    let arguments = [c"limits".as_ptr(), argument.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: both descriptors are open.
    unsafe { libc::dup2(out.as_raw_fd(), 1) };
    // SAFETY: the arrays end with null.
    unsafe { libc::fexecve(program.as_raw_fd(), arguments.as_ptr(), environment.as_ptr()) };
}

/// Runs `body` in a child process. If `inner` is set, the child is the first process of a PID namespace. Returns what
/// the child wrote, and how many of its threads had the new id then.
fn watched(inner: bool, patience: Duration, body: impl FnOnce(UnixStream)) -> String {
    let (here, there) = UnixStream::pair().expect("a pair");
    let child = fork(move || {
        if inner {
            // SAFETY: the call affects only the children of this process.
            unsafe { libc::unshare(libc::CLONE_NEWPID) };
            reap(fork(move || body(there)));
        } else {
            body(there);
        }
    });
    here.set_read_timeout(Some(patience)).expect("a time");
    let mut lines = BufReader::new(&here).lines();
    let pid = lines.next().and_then(|line| line.ok()?.parse().ok()).unwrap_or(child);
    let said = lines.next();
    let (new, all) = count_threads(pid);
    if said.is_some() {
        // SAFETY: the child has not been waited for, so that the pid is its own.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    let status = reap(child);
    match said {
        None if libc::WIFSIGNALED(status) => format!("dies of signal {}", libc::WTERMSIG(status)),
        None => format!("ends with status {}", libc::WEXITSTATUS(status)),
        Some(Ok(said)) if said.starts_with(|c: char| c.is_ascii_digit()) => said,
        Some(Ok(said)) => format!("{said}; changed: {new} of {all}"),
        Some(Err(_)) => format!("hangs; changed: {new} of {all}"),
    }
}

fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the call takes no pointer.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads the limit.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        body();
        // SAFETY: _exit touches no memory.
        unsafe { libc::_exit(0) };
    }
    pid
}

fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the kernel writes the status.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// Returns how many threads of a process have the new real user id, and how many there are.
/// Zombies are not counted.
fn count_threads(pid: i32) -> (usize, usize) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return (0, 0) };
    let statuses = tasks.flatten().filter_map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        (!status.contains("State:\tZ")).then_some(status)
    });
    statuses.fold((0, 0), |(new, all), status| {
        (new + usize::from(status.contains(&format!("Uid:\t{UID}\t"))), all + 1)
    })
}
