//! Refuses each kernel call that libpsx makes, with each error of its manual page, once or for good, and checks
//! what state the process is in afterwards. `scripts/faults` runs it.
//!
//! These outcomes are right:
//! - the change is done in all threads;
//! - an error is returned, and nothing has changed in any thread;
//! - the process was killed by signal 33, after a line on standard error; or by SIGKILL, if signal 33 was refused or
//!   did not come within 100 ms.
//!
//! These outcomes are forbidden:
//! - the process hangs;
//! - the threads differ, or their state is not what the result says;
//! - the process dies in another way, or another process does;
//! - a later call fails, although nothing is refused any more.
#![cfg(not(target_arch = "loongarch64"))]
// `pub` is for the modules of this program.
#![allow(unsafe_code, unreachable_pub)]

mod errnos;
mod program;
mod rows;
mod sandbox;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/tracer.rs"]
mod tracer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use program::{CALLER_DIED, DONE, HEALED, Kind, PARTIAL, State, UNCHANGED};
use rows::{CREATES, Cause, LINE, Outcome, Row, rows_for, table};
use sandbox::{Action, On, Sandbox};
use tracer::{End, Phase, Plan, Role, watchdog};

/// The time limit of a run. A full sweep has a longer one, so that only hangs reach it, not slow runs.
const WATCHDOG: Duration = Duration::from_secs(8);
const FULL_WATCHDOG: Duration = Duration::from_secs(30);
/// After this many forbidden outcomes of a program and a call, their other runs are left out. Hangs take time, and
/// mostly have one cause.
const ENOUGH: u32 = 4;
/// The time in which libpsx may try to stop the threads.
const DEADLINE: Duration = Duration::from_millis(300);

const LATER: &str = "a later call fails";

/// The result of a run.
#[derive(Debug, Clone)]
struct Told {
    outcome: Outcome,
    detail: String,
    seconds: f64,
    /// If nothing was refused: the calls that libpsx made.
    made: BTreeSet<(Role, Phase, String)>,
    /// The outcome is not a fault of libpsx. Either the time was over before the program called libpsx: its set-up
    /// creates threads and waits for them, which takes long on a machine under load. Or a call was refused in the last
    /// step too, as far as libpsx can tell ([`tracer::Run::late`]). libpsx also remembers for a while that a thread's
    /// filter refuses gettid(2), because a filter cannot be removed.
    again: bool,
}

/// The number of attempts for a run that shows nothing ([`Told::again`]).
const ATTEMPTS: u32 = 4;

/// Performs the run of a row. It needs a process with one thread.
fn run(row: Row) -> Told {
    let mut told = run_once(row);
    for _ in 1..ATTEMPTS {
        if !told.again {
            break;
        }
        println!("begun again\t{row}\t{}", told.detail);
        told = run_once(row);
    }
    told
}

fn run_once(row: Row) -> Told {
    let began = Instant::now();
    let (fault, sandbox, traced) = match row.cause {
        Cause::Control { traced } => (None, None, traced),
        Cause::Fault(fault) => (Some(fault), None, true),
        Cause::Sandbox(sandbox) => (None, Some(sandbox), false),
    };
    let asked = program::ASKED;
    let time = watchdog(if full() { FULL_WATCHDOG } else { WATCHDOG });
    let plan = Plan { fault, healed: HEALED, asked, watchdog: time, traced };
    let deadline = watchdog(DEADLINE);
    // A filter still exists in the last step, unless it belonged to a caller that has died.
    let lasting = sandbox
        .is_some_and(|sandbox| sandbox.on != On::Caller || sandbox.action != Action::KillThread);
    let mut expected = State::of(std::process::id() as i32).expect("this process");
    let mut wrong: Option<String> = None;
    let mut codes = Vec::new();
    let mut texts = Vec::new();
    let run = tracer::run(
        &plan,
        move |board| program::program(board, row.kind, sandbox, deadline),
        &mut |pid, board| {
            let (step, code) = (board.step(), board.code.load(SeqCst));
            let last = step >= HEALED;
            let new = match code {
                DONE => expected.after(step),
                PARTIAL => expected.partly_after(),
                // Either all threads have performed the step, or none.
                CALLER_DIED if expected.after(step).count(pid).1 == 0 => expected.after(step),
                _ => expected.clone(),
            };
            let (right, other) = new.count(pid);
            let result = match code {
                DONE => "Ok".to_owned(),
                _ => board.text(),
            };
            if other > 0 {
                let all = right + other;
                let threads = statuses_of(pid);
                wrong = Some(format!(
                    "step {step}: {other} of {all} threads are not in the state that the result states; {result}; {threads}"
                ));
            } else if last && code == UNCHANGED && !lasting {
                wrong = Some(format!("{LATER}: {result}"));
            }
            if code != DONE {
                texts.push(format!("step {step}: {result}"));
            }
            codes.push(code);
            expected = new;
            wrong.is_none()
        },
    );
    let announced = run.complaint.contains("libpsx: ");
    let kills =
        matches!(sandbox, Some(Sandbox { action: Action::KillProcess | Action::KillThread, .. }));
    // The line may need each of these calls.
    let writes = |call: &str| LINE.split('+').any(|needed| call.split('+').any(|c| c == needed));
    let refuses_line = fault.is_some_and(|fault| writes(fault.call))
        || sandbox.is_some_and(|sandbox| writes(sandbox.call));
    // The timer may expire before a traced process has finished.
    let timed = run.made.keys().any(|made| made.call == "timer_settime");
    let divergence = row.kind == Kind::Divergence;
    let (outcome, detail) = match (wrong, run.end) {
        (Some(wrong), _) => (Outcome::Forbidden, wrong),
        _ if run.bystander_killed => {
            (Outcome::Forbidden, "another process of the process group is killed".to_owned())
        }
        (None, End::Hung) => {
            let texts = texts.join("; ");
            let (steps, time) = (codes.len(), plan.watchdog);
            let part =
                if run.began { "" } else { " (in the set-up, before the first call of libpsx)" };
            let hung = &run.hung;
            let detail = format!("not over after {time:.0?}, {steps} steps{part}; {texts}; {hung}");
            (Outcome::Forbidden, detail)
        }
        (None, End::Killed(33)) if announced || refuses_line => (Outcome::Killed, String::new()),
        (None, End::Killed(libc::SIGKILL))
            if announced || divergence && (refuses_line || timed) =>
        {
            (Outcome::Killed, "by signal 9".to_owned())
        }
        (None, End::Exited(161)) if divergence && announced => {
            (Outcome::Killed, "by exit_group".to_owned())
        }
        (None, End::Killed(libc::SIGILL | libc::SIGTRAP)) if divergence && announced => {
            (Outcome::Killed, "by a trap".to_owned())
        }
        (None, End::Killed(libc::SIGSYS)) if kills => (Outcome::Killed, "by the filter".to_owned()),
        (None, End::Killed(signal)) => {
            (Outcome::Forbidden, format!("killed by signal {signal} after {} steps", codes.len()))
        }
        (None, End::Exited(0)) if divergence && codes.contains(&DONE) => (
            Outcome::Forbidden,
            "a thread's result differs, and the process is still alive".to_owned(),
        ),
        (None, End::Exited(0)) if fault.is_some() && run.hits == 0 => {
            (Outcome::NotReached, String::new())
        }
        (None, End::Exited(0)) => {
            let bad = codes.iter().find(|&&code| code != DONE);
            let outcome = match bad {
                None => Outcome::Done,
                Some(&PARTIAL) => Outcome::Partial,
                Some(_) => Outcome::Error,
            };
            (outcome, texts.join("; "))
        }
        (None, End::Exited(code)) => (Outcome::Forbidden, format!("ends with exit code {code}")),
    };
    let complaint = run.complaint.lines().next().unwrap_or_default();
    let detail = if complaint.is_empty() { detail } else { format!("{detail} [{complaint}]") };
    let made = match row.cause {
        Cause::Control { traced: true } => {
            run.made.keys().map(|made| (made.role, made.phase, made.call.to_owned())).collect()
        }
        _ => BTreeSet::new(),
    };
    let forbidden = outcome == Outcome::Forbidden;
    let remembered = fault.is_some_and(|f| f.role == Role::Held && f.call == "gettid")
        && detail.starts_with(LATER);
    let again = forbidden && (run.end == End::Hung && !run.began || run.late || remembered);
    Told { outcome, detail, seconds: began.elapsed().as_secs_f64(), made, again }
}

fn left_out() -> Told {
    let (outcome, detail) = (Outcome::LeftOut, String::new());
    Told { outcome, detail, seconds: 0.0, made: BTreeSet::new(), again: false }
}

/// Returns what the observer sees in each thread.
fn statuses_of(pid: i32) -> String {
    let threads = tracer::statuses(pid).into_iter().map(|(tid, fields)| {
        let field = |key: &str| fields.get(key).cloned().unwrap_or_default().replace('\t', " ");
        let state = field("State");
        format!("{tid} {} {}|{}|{}", &state[..1], field("Groups"), field("Gid"), field("Uid"))
    });
    threads.collect::<Vec<_>>().join(", ")
}

/// Performs the runs of all rows, in as many workers as there are CPUs. Prints the progress.
fn run_all(rows: &[Row]) -> Vec<Told> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(rows.len());
    let next = tracer::shared_memory(size_of::<AtomicUsize>()) as *const AtomicUsize;
    // SAFETY: the memory is zeroed and stays mapped.
    let next = unsafe { &*next };
    // Forbidden outcomes of a program and a call are counted in the word of their first row.
    let counts = tracer::shared_memory(rows.len() * size_of::<AtomicU32>()) as *const AtomicU32;
    // SAFETY: the memory has this many zeroed words and stays mapped.
    let counts = unsafe { std::slice::from_raw_parts(counts, rows.len()) };
    let mut first = BTreeMap::new();
    let key =
        |row: &Row| (row.kind, row.made_by(), row.call(), matches!(row.cause, Cause::Sandbox(_)));
    let places: Vec<usize> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| *first.entry(key(row)).or_insert(index))
        .collect();
    let (told, results) = channel::<(usize, Told)>();
    let mut pids = Vec::new();
    for _ in 0..workers {
        let mut pipe = [0; 2];
        // SAFETY: the kernel writes two descriptors.
        assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        // SAFETY: only this function owns the two descriptors.
        let [read, mut write] = pipe.map(|fd| unsafe { std::fs::File::from_raw_fd(fd) });
        pids.push(tracer::alone(|| {
            loop {
                let index = next.fetch_add(1, SeqCst);
                let Some(&row) = rows.get(index) else { return 0 };
                let count = &counts[places[index]];
                let told = if count.load(SeqCst) < ENOUGH { run(row) } else { left_out() };
                if told.outcome == Outcome::Forbidden {
                    count.fetch_add(1, SeqCst);
                }
                let detail = told.detail.replace(['\n', '\t'], " ");
                let made = told.made.iter().map(|(role, phase, call)| {
                    format!("{}{}{call}", u8::from(*role == Role::Held), *phase as u8)
                });
                let made: Vec<_> = made.collect();
                let (name, made) = (told.outcome.name(), made.join(","));
                let line = format!("{index}\t{name}\t{:.3}\t{detail}\t{made}\n", told.seconds);
                write.write_all(line.as_bytes()).expect("the pipe");
            }
        }));
        drop(write);
        let told = told.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(read).lines().map_while(Result::ok) {
                let fields: Vec<&str> = line.split('\t').collect();
                let made = fields[4].split(',').filter(|made| !made.is_empty()).map(|made| {
                    let role = if made.starts_with('1') { Role::Held } else { Role::Caller };
                    let phase = made[1..2].parse::<usize>().expect("a phase");
                    (role, Phase::ALL[phase], made[2..].to_owned())
                });
                let (outcome, detail) = (Outcome::of(fields[1]), fields[3].to_owned());
                let seconds = fields[2].parse().unwrap_or(0.0);
                let made = made.collect();
                let result = Told { outcome, detail, seconds, made, again: false };
                let _ = told.send((fields[0].parse().expect("a number"), result));
            }
        });
    }
    drop(told);
    let mut all: Vec<Option<Told>> = vec![None; rows.len()];
    let (began, mut shown) = (Instant::now(), Instant::now());
    for (count, (index, result)) in results.iter().enumerate() {
        if result.outcome == Outcome::Forbidden {
            println!("FORBIDDEN\t{}\t{:.1} s\t{}", rows[index], result.seconds, result.detail);
        }
        if shown.elapsed() > Duration::from_secs(5) {
            shown = Instant::now();
            println!(
                "... {} of {} after {:.0} s",
                count + 1,
                rows.len(),
                began.elapsed().as_secs_f64()
            );
        }
        all[index] = Some(result);
    }
    for pid in pids {
        support::reap(pid);
    }
    let lost = Told {
        outcome: Outcome::Forbidden,
        detail: "the tracer failed".to_owned(),
        seconds: 0.0,
        made: BTreeSet::new(),
        again: false,
    };
    all.into_iter().map(|told| told.unwrap_or_else(|| lost.clone())).collect()
}

/// Returns whether all errors and more occurrences are requested.
fn full() -> bool {
    std::env::var_os("PSX_FAULTS_FULL").is_some()
}

/// The sweep. `scripts/faults` runs it, and sets the variables that it reads.
#[test]
#[ignore = "takes minutes: scripts/faults"]
fn sweep() {
    if support::skipped_without_root("the sweep of refused calls") {
        return;
    }
    let only = std::env::var("PSX_FAULTS_ONLY").unwrap_or_default();
    let empty = std::env::temp_dir().join(format!("psx-empty-{}", std::process::id()));
    std::fs::create_dir(&empty).expect("an empty directory");
    let empty = program::EMPTY.get_or_init(|| empty);
    let controls: Vec<Row> = Kind::ALL
        .into_iter()
        .flat_map(|kind| [true, false].map(|traced| Row { kind, cause: Cause::Control { traced } }))
        .collect();
    println!("{} runs with nothing refused", controls.len());
    let mut told = run_all(&controls);
    let mut made: BTreeMap<Kind, BTreeSet<(Role, Phase, String)>> = BTreeMap::new();
    for (row, told) in controls.iter().zip(&mut told) {
        made.entry(row.kind).or_default().extend(told.made.iter().cloned());
        let wanted = match row.kind {
            Kind::Divergence => Outcome::Killed,
            _ => Outcome::Done,
        };
        println!("control\t{row}\t{}\t{}", told.outcome.name(), told.detail);
        if told.outcome != wanted && told.outcome != Outcome::Forbidden {
            told.outcome = Outcome::Forbidden;
            told.detail += " (with nothing refused)";
        }
    }
    let creates = |call: &str| CREATES.contains(&call.split(' ').next().unwrap_or_default());
    assert!(!made.values().flatten().any(|(.., call)| creates(call)), "libpsx creates a task");
    let mut rows = rows_for(&made, full());
    rows.retain(|row| row.to_string().replace('\t', " ").contains(&only));
    println!("{} runs with a call refused", rows.len());
    let results = run_all(&rows);
    told.extend(results);
    let rows = [controls, rows].concat();
    if let Some(file) = std::env::var_os("PSX_FAULTS_TSV") {
        let mut text =
            "program\tmade by\tcall\tanswer\twhen\toutcome\tseconds\tdetail\n".to_owned();
        for (row, told) in rows.iter().zip(&told) {
            text +=
                &format!("{row}\t{}\t{:.3}\t{}\n", told.outcome.name(), told.seconds, told.detail);
        }
        std::fs::write(file, text).expect("the file is written");
    }
    println!("{}", table(&rows, &told));
    let _ = std::fs::remove_dir(empty);
    let forbidden = told.iter().filter(|told| told.outcome == Outcome::Forbidden).count();
    println!("{} runs, {forbidden} with a forbidden outcome", rows.len());
    assert_eq!(forbidden, 0);
}
