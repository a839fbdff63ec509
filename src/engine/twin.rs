//! The engine on a kernel in the program (`sys/arch/twin.rs`): the whole of a call, with all its memory, on std threads.
//! Miri sees every access; `just miri`. Without Miri: `RUSTFLAGS="--cfg psx_twin" cargo test -p libpsx --lib engine::twin`.
//!
//! The kernel is one for the program, so the tests take turns.

extern crate std;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::vec::Vec;

use linux_raw_sys::general as k;

use super::answers::AnswerLayout;
use super::call::{Call, ResultCheck};
use super::divergence::Sensitivity;
use super::{Settings, execute};
use crate::error::TransactionError;
use crate::report::{CallOutcome, Report};
use crate::sys::arch::cpu::{self, Task, clone_task, user_code};

/// Under Miri a step takes a thousand times as long.
const ROUNDS: usize = if cfg!(miri) { 2 } else { 50 };
const THREADS: usize = 3;

static TURN: Mutex<()> = Mutex::new(());

/// Threads that run user code until they are told to end. Each checks P3 at every instruction: no task has been changed
/// more often than the one that runs.
struct Process {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _leader: Task,
    _turn: MutexGuard<'static, ()>,
}

fn run_until(end: &AtomicBool, task: &Task) {
    while !end.load(SeqCst) {
        check_not_behind(task);
        user_code();
    }
}

/// Reads this task's state first: if another task has been changed more often before, this one runs in the old state.
fn check_not_behind(task: &Task) {
    let all = cpu::tasks();
    let me = all.iter().find(|&&(tid, ..)| tid == cpu::me()).map_or(0, |&(.., set)| set);
    let (_, set) = task.uid();
    assert!(
        all.iter().all(|&(.., other)| other <= me),
        "{} after {me}, {set} now: {all:?}",
        cpu::me()
    );
}

impl Process {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let leader = Task::enter(0);
        let end = Arc::new(AtomicBool::new(false));
        let threads = (0..THREADS)
            .map(|_| {
                let end = end.clone();
                clone_task(move |task| run_until(&end, task))
            })
            .collect();
        Self { end, threads, _leader: leader, _turn: turn }
    }

    fn end(self) {
        self.end.store(true, SeqCst);
        // The leader goes on to take signals, as a thread does that waits in pthread_join(3).
        for thread in self.threads {
            while !thread.is_finished() {
                user_code();
            }
            thread.join().unwrap();
        }
    }
}

fn settings(layout: AnswerLayout) -> Settings {
    let deadline = Duration::from_secs(600);
    Settings { deadline, sensitivity: Sensitivity::Error, kill_on_partial_failure: false, layout }
}

fn set(uid: usize) -> Call {
    Call::new(k::__NR_setresuid as usize, [uid, uid, uid, 0, 0, 0])
}

fn broadcast(calls: &mut [Call]) -> Result<usize, TransactionError> {
    // SAFETY: the calls change numbers of the twin.
    unsafe { execute(calls, &settings(AnswerLayout::default()), None) }
}

/// P1, P3: every task is changed once for each call, whatever the others do.
#[test]
fn every_task_is_changed_once() {
    let process = Process::new();
    let before = cpu::tasks()[0].2;
    for round in 1..=ROUNDS {
        broadcast(&mut [set(round)]).unwrap();
        for (tid, uid, set) in cpu::tasks() {
            assert_eq!((uid, set), (round, before + round), "{tid}");
        }
    }
    process.end();
}

/// P2: a call that the caller cannot make changes no task.
#[test]
fn a_failed_call_changes_nothing() {
    let process = Process::new();
    let before = cpu::tasks();
    assert!(broadcast(&mut [set(usize::MAX)]).is_err());
    assert_eq!(cpu::tasks(), before);
    process.end();
}

/// The report and the answers have an entry for each task, written by that task.
#[test]
fn every_task_answers_for_itself() {
    let process = Process::new();
    for round in 1..=ROUNDS {
        let question = Call {
            slot_offsets: 0b111,
            is_query: true,
            result_check: ResultCheck::AnyResult,
            ..Call::new(k::__NR_getresuid as usize, [0, 4, 8, 0, 0, 0])
        };
        let mut report = Report::new();
        let calls = &mut [set(round), question, set(round + 1)];
        // SAFETY: the question writes to a place of its own in each thread.
        unsafe {
            execute(calls, &settings(AnswerLayout { calls: 3, bytes: 12 }), Some(&mut report))
        }
        .unwrap();
        assert_eq!(report.results().len(), THREADS);
        assert!(report.results().iter().all(|result| result.outcome == CallOutcome::Returned(0)));
        let mut tids: Vec<i32> = report
            .answers
            .iter()
            .map(|(tid, values, bytes)| {
                assert_eq!(values, [0, 0, 0]);
                assert_eq!(bytes[0..4], (round as u32).to_ne_bytes());
                tid
            })
            .collect();
        tids.sort_unstable();
        let all: Vec<i32> = cpu::tasks().into_iter().map(|(tid, ..)| tid).collect();
        assert_eq!(tids, all);
    }
    process.end();
}

/// P1: a task that is made meanwhile is changed, or is a child of one that was.
#[test]
fn tasks_come_and_go() {
    let process = Process::new();
    let end = process.end.clone();
    let before = cpu::tasks()[0].2;
    let made = Arc::new(AtomicUsize::new(0));
    let maker = {
        let made = made.clone();
        clone_task(move |task| {
            while !end.load(SeqCst) {
                check_not_behind(task);
                let child = clone_task(|task| {
                    check_not_behind(task);
                    user_code();
                    check_not_behind(task);
                });
                made.fetch_add(1, SeqCst);
                while !child.is_finished() {
                    user_code();
                }
                child.join().unwrap();
            }
        })
    };
    for round in 1..=ROUNDS {
        broadcast(&mut [set(round)]).unwrap();
        for (tid, uid, set) in cpu::tasks() {
            assert_eq!((uid, set), (round, before + round), "{tid}");
        }
    }
    process.end.store(true, SeqCst);
    while !maker.is_finished() {
        user_code();
    }
    maker.join().unwrap();
    assert!(made.load(SeqCst) > 0);
    process.end();
}

/// P7: two initiators take turns, and each can be stopped by the other.
#[test]
fn two_initiators() {
    let process = Process::new();
    let before = cpu::tasks()[0].2;
    let other = clone_task(|_| {
        for round in 1..=ROUNDS {
            broadcast(&mut [set(round)]).unwrap();
        }
    });
    for round in 1..=ROUNDS {
        broadcast(&mut [set(round)]).unwrap();
    }
    while !other.is_finished() {
        user_code();
        thread::yield_now();
    }
    other.join().unwrap();
    assert!(cpu::tasks().iter().all(|&(.., set)| set == before + 2 * ROUNDS));
    process.end();
}
