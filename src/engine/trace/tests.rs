//! Runs under load, and whether what they did is a path of the protocol.
//!
//! The test checks what holds for any number of threads. `PSX_TRACES=FILE` names a file for the calls that the model has
//! threads enough for: a line for each kind, with how often it was seen. `model/traces` asks Spin whether each is a path.

extern crate std;

use std::collections::{BTreeMap, HashMap};
use std::format;
use std::string::String;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use std::vec::Vec;

use linux_raw_sys::general as k;

use super::sink::records;
use super::{LEFT, PERFORMED};
use crate::engine::answers::AnswerLayout;
use crate::engine::call::Call;
use crate::engine::divergence::Sensitivity;
use crate::engine::{Settings, execute};
use crate::sys;

/// Threads that the model has beside the caller.
const MODELLED: usize = 3;

const CLOSED: u64 = 0;
const GATHERING: u64 = 1;
const FULL: u64 = 2;
const COMMITTING: u64 = 3;

/// `Rendezvous::state`: epoch, phase, count.
fn unpack(word: u64) -> (u64, u64, u64) {
    (word >> 32, word >> 30 & 3, word & ((1 << 30) - 1))
}

fn call(number: u32, args: [usize; 6], deadline: Duration) -> bool {
    let settings = Settings {
        deadline,
        sensitivity: Sensitivity::Ignore,
        kill_on_partial_failure: false,
        layout: AnswerLayout::default(),
    };
    // SAFETY: the calls change nothing that anything depends on.
    unsafe { execute(&mut [Call::new(number as usize, args)], &settings, None) }.is_ok()
}

/// Calls that succeed, calls that fail in the caller, and rounds that are given up because a thread blocks the signal
/// for some milliseconds: beside threads that compute, that sleep, that come and go.
fn load(seconds: u64, churn: bool) -> (u64, u64) {
    let end = Arc::new(AtomicBool::new(false));
    let spawn = |body: fn()| {
        let end = end.clone();
        thread::spawn(move || {
            while !end.load(Relaxed) {
                body();
            }
        })
    };
    let mut threads = Vec::from([
        spawn(|| thread::sleep(Duration::from_micros(300))),
        spawn(|| {
            let mask = sys::block_all_but_sigsys();
            thread::sleep(Duration::from_millis(6));
            let _ = mask.and_then(sys::set_mask);
            thread::sleep(Duration::from_millis(6));
        }),
    ]);
    if churn {
        threads.push(spawn(|| drop(thread::spawn(|| {}).join())));
        threads.push(spawn(|| {
            call(k::__NR_getpid, [0; 6], Duration::from_secs(10));
            thread::sleep(Duration::from_millis(1));
        }));
    }
    let (mut done, mut not_done) = (0, 0);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let ok = match (done + not_done) % 8 {
            0 => call(k::__NR_setpriority, [99, 0, 0, 0, 0, 0], Duration::from_secs(10)),
            1 => call(k::__NR_getppid, [0; 6], Duration::from_millis(2)),
            _ => call(k::__NR_getppid, [0; 6], Duration::from_secs(10)),
        };
        *if ok { &mut done } else { &mut not_done } += 1;
    }
    end.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    (done, not_done)
}

/// The changes in their one order: tid, before, after. Every value but the first was made by exactly one change.
fn chain() -> Vec<(u64, u64, u64)> {
    let mut by_before = HashMap::new();
    for (tid, before, after) in records().filter(|&(_, before, _)| before != u64::MAX) {
        assert!(by_before.insert(before, (tid, after)).is_none(), "two changes of {before:#x}");
    }
    let mut chain = Vec::new();
    let mut state = 0;
    while let Some((tid, after)) = by_before.remove(&state) {
        chain.push((tid, state, after));
        state = after;
    }
    assert!(by_before.is_empty(), "changes that follow from no other: {by_before:?}");
    chain
}

/// What may follow what, for any number of threads.
fn check_change(before: u64, after: u64) {
    let ((from, was, old), (to, is, new)) = (unpack(before), unpack(after));
    let fine = match (was, is) {
        (CLOSED, GATHERING) => to == from + 1 && new == 0,
        (GATHERING, GATHERING) => to == from && new == old + 1,
        (GATHERING, FULL) | (FULL, COMMITTING) => to == from && new == old,
        (COMMITTING, COMMITTING) => to == from && new + 1 == old,
        // Before `publish`: untouched. After it: all have reported.
        (GATHERING | FULL, CLOSED) => to == from,
        (COMMITTING, CLOSED) => to == from && old == 0,
        _ => false,
    };
    assert!(fine, "{before:#x} -> {after:#x}");
}

/// Each thread arrives, performs and reports if the stop is published, and leaves: in this order, and once.
fn check_threads(published: &HashMap<u64, bool>) {
    let mut at: HashMap<u64, (u64, Vec<&str>)> = HashMap::new();
    let mut stops = 0;
    for (tid, before, after) in records() {
        let (epoch, phase, count) = unpack(after);
        let (_, was, old) = unpack(before);
        let visit = at.entry(tid).or_default();
        if before == u64::MAX {
            visit.1.push(if after == PERFORMED { "performed" } else { "left" });
        } else if (was, phase) == (GATHERING, GATHERING) {
            assert!(visit.1.is_empty(), "{tid} arrives after {:?}", visit.1);
            *visit = (epoch, Vec::from(["arrived"]));
        } else if (was, phase) == (COMMITTING, COMMITTING) && count < old {
            assert_eq!(visit.0, epoch);
            visit.1.push("reported");
        }
        if before == u64::MAX && after == LEFT {
            let whole = ["arrived", "performed", "reported", "left"].as_slice();
            let expected = if published[&visit.0] { whole } else { &["arrived", "left"] };
            assert_eq!(visit.1, expected, "thread {tid} in stop {}", visit.0);
            visit.1.clear();
            stops += 1;
        }
    }
    std::println!("{stops} visits of threads, each in order");
}

/// A call and its rounds, as the model names them: o open, a arrive, c close the gate, p publish, r report, x release,
/// g give up; and which thread, in the order of their first arrival.
fn calls_in(chain: &[(u64, u64, u64)]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let mut line = String::new();
    let mut threads: Vec<u64> = Vec::new();
    for &(tid, before, after) in chain {
        let ((_, was, _), (_, is, _)) = (unpack(before), unpack(after));
        let what = match (was, is) {
            (CLOSED, GATHERING) => 'o',
            (GATHERING, GATHERING) => 'a',
            (GATHERING, FULL) => 'c',
            (FULL, COMMITTING) => 'p',
            (COMMITTING, COMMITTING) => 'r',
            (GATHERING, CLOSED) => 'g',
            _ => 'x',
        };
        let thread = match what {
            'a' | 'r' => match threads.iter().position(|&thread| thread == tid) {
                Some(known) => known + 1,
                None => {
                    threads.push(tid);
                    threads.len()
                }
            },
            _ => 0,
        };
        line += &format!("{what}{thread}");
        if what == 'x' {
            if threads.len() <= MODELLED {
                *kinds.entry(core::mem::take(&mut line)).or_default() += 1;
            }
            line.clear();
            threads.clear();
        }
    }
    kinds
}

#[test]
fn a_run_is_a_path_of_the_protocol() {
    let seconds = std::env::var("PSX_TRACE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let (done, not_done) = load(seconds, false);
    let modelled = chain();
    let kinds = calls_in(&modelled);
    let (more, failed) = load(seconds, true);
    let chain = chain();
    std::println!(
        "{} calls done, {} failed, {} changes of the state, {} kinds of call for the model",
        done + more,
        not_done + failed,
        chain.len(),
        kinds.len()
    );
    let mut published = HashMap::new();
    for &(_, before, after) in &chain {
        check_change(before, after);
        let ((epoch, ..), (_, phase, _)) = (unpack(before), unpack(after));
        *published.entry(epoch).or_insert(false) |= phase == COMMITTING;
    }
    check_threads(&published);
    if let Some(file) = std::env::var_os("PSX_TRACES") {
        let lines: Vec<String> =
            kinds.iter().map(|(kind, seen)| format!("{seen} {kind}\n")).collect();
        std::fs::write(file, lines.concat()).unwrap();
    }
}
