//! The subject: a process whose threads do everything at once.

use std::ffi::CStr;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use libpsx::process::set_no_new_privs;
use libpsx::syscall3;

use crate::activities as act;
use crate::board::{Board, Count, Stage, WITNESSES};
use crate::initiators::{self as calls, FIRST_ID, FIRST_SLACK, first_user};
use crate::state::{Field, observe, observe_another, of_this_thread};
use crate::sys::{self, Random};

type Turn = fn(&'static Board, &mut Random);

/// What a thread does again and again, and how long it rests at most between two turns, us.
struct Work {
    name: &'static CStr,
    turn: Turn,
    rest: u64,
}

const fn work(name: &'static CStr, turn: Turn, rest: u64) -> Work {
    Work { name, turn, rest }
}

const INITIATORS: [Work; 8] = [
    work(c"real-group", calls::real_group, 20_000),
    work(c"groups", calls::groups, 20_000),
    work(c"filters", calls::filters, 20_000),
    work(c"capabilities", calls::capabilities, 20_000),
    work(c"transaction", calls::transaction, 20_000),
    work(c"slack", calls::slack, 20_000),
    work(c"failures", calls::failures, 20_000),
    work(c"setxid", calls::setxid, 30_000),
];

const ACTIVITIES: [Work; 23] = [
    work(c"churn-1", act::churn, 2_000),
    work(c"churn-2", act::churn, 2_000),
    work(c"attributes", act::attributes, 10_000),
    work(c"raw", act::raw_threads, 10_000),
    work(c"fork", act::fork, 20_000),
    work(c"fork-call", act::fork_and_call, 30_000),
    work(c"fork-threads", act::fork_with_threads, 50_000),
    work(c"fork-differs", act::fork_that_differs, 200_000),
    work(c"vfork", act::vfork, 20_000),
    work(c"spawn", act::spawn, 50_000),
    work(c"exec", act::exec, 50_000),
    work(c"cancel", act::cancel_deferred, 10_000),
    work(c"cancel-async", act::cancel_asynchronous, 10_000),
    work(c"timer", act::timer, 10_000),
    work(c"aio", act::aio, 10_000),
    work(c"uring", act::io_uring, 20_000),
    work(c"plugin", act::plugin, 30_000),
    work(c"fifo-1", act::fifo, 20_000),
    work(c"fifo-2", act::fifo, 20_000),
    work(c"pages", act::userfault, 20_000),
    work(c"blocker", act::block, 50_000),
    work(c"limits", act::limits, 1_000_000),
    work(c"computer", act::compute, 5_000),
];

/// Runs the subject until the observer ends it.
pub(crate) fn run(board: &str, seed: u64, sabotage: &str) -> ! {
    let board = Board::open(board);
    // SAFETY: the call touches no memory. The subject must not outlive its observer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    begin(board);
    stage(board, Stage::RUNNING);
    everything(board, seed, "");
    stage(board, Stage::WARM);
    await_go(board, 1);
    board.end.store(0, SeqCst);
    stage(board, Stage::AGAIN);
    everything(board, !seed, sabotage);
    match sabotage {
        "descriptor" => std::mem::forget(std::fs::File::open("/dev/null")),
        "memory" => std::mem::forget(vec![1u8; 256 << 20]),
        "signal" => act::leave_a_signal_pending(),
        _ => {}
    }
    stage(board, Stage::ENDED);
    await_go(board, 2);
    // SAFETY: the call ends the process.
    unsafe { libc::_exit(0) }
}

fn stage(board: &Board, stage: u32) {
    board.stage.store(stage, SeqCst);
}

fn await_go(board: &Board, number: u32) {
    while board.go.load(SeqCst) < number {
        sleep(Duration::from_millis(1));
    }
}

/// Sets every field once, in the only thread.
fn begin(board: &Board) {
    let id = FIRST_ID as usize;
    let list = [FIRST_ID as u32];
    let slack = libc::PR_SET_TIMERSLACK as usize;
    set_no_new_privs().execute().expect("no_new_privs");
    // SAFETY: the list outlives the call.
    unsafe { syscall3(libc::SYS_setgroups, 1, list.as_ptr() as usize, 0) }.expect("groups");
    // SAFETY: the call touches no memory.
    unsafe { syscall3(libc::SYS_setresgid, id, !0, id) }.expect("groups");
    // SAFETY: the call touches no memory.
    unsafe { syscall3(libc::SYS_setresuid, first_user() as usize, !0, id) }.expect("users");
    // SAFETY: the call touches no memory.
    unsafe { syscall3(libc::SYS_prctl, slack, FIRST_SLACK as usize, 0) }.expect("slack");
    for (field, value) in Field::ALL.into_iter().zip(of_this_thread()) {
        board.expected[field as usize].store(value.unwrap_or(0), SeqCst);
    }
    board.initiators.store(INITIATORS.len() as u32, SeqCst);
}

/// Starts all loops, and joins them when the observer ends them.
fn everything(board: &'static Board, seed: u64, sabotage: &str) {
    board.used_loops.store(0, SeqCst);
    board.ready.store(0, SeqCst);
    // These threads end after all others. The calls of `failures` need the first two.
    let mut outlive = Vec::from(
        [act::dissenter, act::own_table].map(|body| std::thread::spawn(move || body(board))),
    );
    while board.ready.load(SeqCst) < 2 {
        sleep(Duration::from_millis(1));
    }
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut stream = 0;
    let mut start = |work: &'static Work, initiates: bool| {
        stream += 1;
        let random = Random::new(seed, stream);
        threads.push(std::thread::spawn(move || run_loop(board, work, initiates, random)));
    };
    INITIATORS.iter().for_each(|work| start(work, true));
    ACTIVITIES.iter().for_each(|work| start(work, false));
    for number in 0..WITNESSES {
        let random = Random::new(seed, 100 + number as u64);
        threads.push(std::thread::spawn(move || witness(board, number, random)));
    }
    for _ in 0..8 {
        threads.push(std::thread::spawn(move || sleeper(board)));
    }
    if let Some(sabotage) = act::sabotage(sabotage) {
        outlive.push(std::thread::spawn(move || sabotage(board)));
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
    board.end.store(2, SeqCst);
    outlive.into_iter().for_each(|thread| drop(thread.join()));
    board.queued.store(act::queued_signals(), SeqCst);
    is_now_again(board);
}

/// Remembers the real user, which has just been set once more.
fn is_now_again(board: &Board) {
    let user = of_this_thread()[Field::RealUser as usize];
    board.expected[Field::RealUser as usize].store(user.unwrap_or(0), SeqCst);
}

fn run_loop(board: &'static Board, work: &Work, initiates: bool, mut random: Random) {
    sys::set_name(work.name);
    let own = board.claim_loop(work.name.to_str().unwrap_or_default());
    while board.end.load(SeqCst) == 0 {
        if initiates {
            park(board);
        }
        own.began.store(sys::now(), SeqCst);
        (work.turn)(board, &mut random);
        own.began.store(0, SeqCst);
        sleep(random.micros(work.rest));
    }
}

/// Waits while the observer checks.
fn park(board: &Board) {
    let phase = board.phase.load(SeqCst);
    if phase % 2 == 1 {
        board.parked.fetch_add(1, SeqCst);
        while board.phase.load(SeqCst) == phase {
            sleep(Duration::from_millis(1));
        }
    }
}

/// Asks the kernel what this thread is, whenever the observer checks.
fn witness(board: &Board, number: usize, mut random: Random) {
    sys::set_name(c"witness");
    let mut answered = 0;
    while board.end.load(SeqCst) == 0 {
        let phase = board.phase.load(SeqCst);
        let parked = board.parked.load(SeqCst) == board.initiators.load(SeqCst);
        if phase % 2 == 1 && phase != answered && parked {
            for (place, value) in board.witnesses[number].iter().zip(of_this_thread()) {
                place.store(value.unwrap_or(u64::MAX), SeqCst);
            }
            board.answered[number].store(phase, SeqCst);
            answered = phase;
        } else {
            observe(board, false);
            observe_another(board, &mut random);
            sleep(Duration::from_micros(500));
        }
    }
}

fn sleeper(board: &Board) {
    sys::set_name(c"sleeper");
    while board.end.load(SeqCst) == 0 {
        sleep(Duration::from_millis(20));
    }
}

/// The program that children execute: checks that it was not forked from an older state than that.
pub(crate) fn executed(group: &str, groups: &str) -> ! {
    let at_least = |own: u64, text: &str| text.parse().is_ok_and(|wanted: u64| own >= wanted);
    let right =
        at_least(crate::state::real_group(), group) && at_least(crate::state::group(), groups);
    // SAFETY: the call ends the process.
    unsafe { libc::_exit(if right { 0 } else { 1 }) }
}

/// Counts a child's end: it exits with 0, or a promise was broken.
pub(crate) fn judge(board: &Board, what: Count, status: i32) {
    if status == 0 {
        board.count(what);
    } else if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        board.violation(format_args!("{}: a child was killed by signal {signal}", what.row().0));
    } else {
        let code = libc::WEXITSTATUS(status);
        board.violation(format_args!("{}: a child ended with {code}", what.row().0));
    }
}
