//! Compares the kernel calls that libpsx makes with the table in docs/kernel-calls.md. The test traces broadcasts
//! in many situations. It fails if a call is made that the table does not list, and if a listed one is never made.
#![cfg(not(target_arch = "loongarch64"))]
#![allow(unsafe_code)]

#[path = "p04_kernel_calls/situations.rs"]
mod situations;
mod support;
#[path = "support/tracer.rs"]
mod tracer;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use situations::{SITUATIONS, Situation, Takes};
use tracer::{End, Made, Phase, Plan, Role, watchdog};

const WATCHDOG: Duration = Duration::from_secs(180);

/// The calls that the programs request from libpsx.
const ASKED: &[libc::c_long] = &[
    libc::SYS_getpriority,
    libc::SYS_nanosleep,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_chdir,
    libc::SYS_fchdir,
];

/// A row of the table in docs/kernel-calls.md.
struct Row {
    calls: Vec<String>,
    role: Role,
    phases: BTreeSet<String>,
    rare: bool,
}

/// Reads the rows of every table whose first column is `call`.
fn table() -> Vec<Row> {
    let text = include_str!("../docs/kernel-calls.md");
    let mut rows = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.trim().starts_with('|') {
            inside = false;
        } else if cells[0] == "call" {
            inside = true;
        } else if inside && !cells[0].starts_with('-') {
            let calls = cells[0].split(',').map(|call| call.trim().replace('`', "")).collect();
            let role = match cells[1] {
                "caller" => Role::Caller,
                "held thread" => Role::Held,
                other => panic!("neither caller nor held thread: {other}: {line}"),
            };
            let words = cells[2].split(|c: char| !c.is_alphanumeric());
            let known = |word: &&str| Phase::ALL.iter().any(|phase| phase.name() == *word);
            let phases: BTreeSet<String> = words.filter(known).map(str::to_owned).collect();
            assert!(!phases.is_empty(), "no phase: {line}");
            let rare = cells[2].contains("rare");
            if rare {
                let reason = cells[2].split_once("rare:").map(|(_, reason)| reason.trim());
                assert!(reason.is_some_and(|reason| !reason.is_empty()), "no reason: {line}");
            }
            rows.push(Row { calls, role, phases, rare });
        }
    }
    assert!(rows.len() > 10, "the table was not found");
    rows
}

/// Traces a situation. Returns the calls, and a text if it did not end as expected.
fn trace(situation: &Situation) -> (BTreeMap<Made, u32>, String) {
    let mut pipe = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: only this function owns the two descriptors.
    let [mut read, write] = pipe.map(|fd| {
        use std::os::fd::FromRawFd;
        // SAFETY: the descriptor is new, and no other code has it.
        unsafe { std::fs::File::from_raw_fd(fd) }
    });
    let pid = tracer::alone(|| {
        use std::io::Write;
        (situation.before)();
        let time = watchdog(WATCHDOG);
        let plan = Plan { fault: None, healed: 0, asked: ASKED, watchdog: time, traced: true };
        let run = tracer::run(&plan, situation.program, &mut |_, _| true);
        for (made, count) in &run.made {
            let (role, phase) = (made.role as u8, made.phase as u8);
            writeln!(&write, "{role}\t{phase}\t{}\t{count}", made.call).expect("the pipe");
        }
        // On a slow machine, the timer kills before the line is written.
        let by_timer = run.end == End::Killed(libc::SIGKILL) && situation.end == End::Killed(33);
        if run.end != situation.end && !by_timer {
            writeln!(&write, "!ended with {:?}; {} {}", run.end, run.complaint, run.hung)
                .expect("the pipe");
        }
        0
    });
    drop(write);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut read, &mut text).expect("the pipe");
    let status = support::reap(pid);
    let mut trouble = if status == 0 { String::new() } else { "the tracer failed".to_owned() };
    let mut made = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [role, phase, call, count] = fields[..] else {
            trouble += line;
            continue;
        };
        let role = if role == "0" { Role::Caller } else { Role::Held };
        let phase = Phase::ALL[phase.parse::<usize>().expect("a phase")];
        let call: &'static str = Box::leak(call.to_owned().into_boxed_str());
        made.insert(Made { role, phase, call }, count.parse().expect("a number"));
    }
    (made, trouble)
}

#[test]
fn the_table_lists_the_calls_that_are_made() {
    let rows = table();
    let mut unseen: BTreeSet<(String, Role)> = BTreeSet::new();
    let mut unseen_phases: BTreeSet<(String, Role, String)> = BTreeSet::new();
    for row in rows.iter().filter(|row| !row.rare) {
        for call in &row.calls {
            unseen.insert((call.clone(), row.role));
            for phase in &row.phases {
                unseen_phases.insert((call.clone(), row.role, phase.clone()));
            }
        }
    }
    let mut failures = Vec::new();
    let mut skipped = false;
    for situation in SITUATIONS {
        let missing = match situation.takes {
            Takes::Nothing => false,
            Takes::Root => support::skipped_without_root(situation.name),
            Takes::Terminal => support::terminal().is_none(),
        };
        if missing {
            skipped = true;
            continue;
        }
        let (mut made, mut trouble) = trace(situation);
        for _ in 0..5 {
            // While the process is being killed, a timer kills it after 100 ms.
            if !(trouble.contains("ended with Killed(9)") && trouble.contains("libpsx: ")) {
                break;
            }
            (made, trouble) = trace(situation);
        }
        println!("{}:", situation.name);
        let mut lines: BTreeMap<(Role, Phase), Vec<String>> = BTreeMap::new();
        for (made, count) in &made {
            let line = lines.entry((made.role, made.phase)).or_default();
            line.push(format!("{} x{count}", made.call));
            let (call, phase) = (made.call.to_owned(), made.phase.name().to_owned());
            // A caller that another one stops, or that gives up a gather, returns to what it did before.
            let phases = match made.phase {
                Phase::Open | Phase::Gather => [Phase::Open, Phase::Gather],
                other => [other, other],
            };
            let then = |row: &Row| phases.iter().any(|phase| row.phases.contains(phase.name()));
            let listed = rows
                .iter()
                .any(|row| row.role == made.role && row.calls.contains(&call) && then(row));
            if !listed {
                failures.push(format!(
                    "{}: {} makes {call} ({phase}), which the table does not list",
                    situation.name,
                    made.role.name()
                ));
            }
            unseen.remove(&(call.clone(), made.role));
            unseen_phases.remove(&(call, made.role, phase));
        }
        for ((role, phase), calls) in lines {
            println!("    {} {}: {}", role.name(), phase.name(), calls.join(", "));
        }
        if !trouble.is_empty() {
            failures.push(format!("{}: {trouble}", situation.name));
        }
    }
    for (call, role, phase) in &unseen_phases {
        println!("not seen in this run: {} {call} ({phase})", role.name());
    }
    for (call, role) in unseen {
        let text = format!("{} never makes {call}, which the table lists", role.name());
        if skipped {
            println!("{text}: SKIPPED: some situations cannot be made here");
        } else {
            failures.push(text);
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
