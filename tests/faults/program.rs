//! The programs whose calls are refused, and the states that an observer expects in their threads.
//!
//! Each program makes three changes while calls are refused, and a fourth one afterwards. The observer reads the state
//! of every thread after each change.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libpsx::{Broadcast, Error, ResultCheck, Sensitivity, Transaction, TransactionError};

use crate::sandbox::{self, Action, On, Sandbox};
use crate::support::last_form;
use crate::tracer::{self, Board, statuses};

/// The threads and the environment of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Only the caller.
    OneThread,
    /// Threads that sleep, and a thread that computes.
    Threads,
    /// The leader has exited and is a zombie; the ids of the threads are far apart.
    ZombieLeader,
    /// The root directory is empty: there is no /proc.
    WithoutProc,
    /// The call fails in one thread, so that the process has to be killed.
    Divergence,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::OneThread, Self::Threads, Self::ZombieLeader, Self::WithoutProc, Self::Divergence];

    pub fn name(self) -> &'static str {
        match self {
            Self::OneThread => "one-thread",
            Self::Threads => "threads",
            Self::ZombieLeader => "zombie-leader",
            Self::WithoutProc => "without-proc",
            Self::Divergence => "divergence",
        }
    }
}

/// The first step in which nothing is refused.
pub const HEALED: u32 = 4;

/// The calls that the steps request from libpsx.
pub const ASKED: &[libc::c_long] =
    &[libc::SYS_setgroups, libc::SYS_setresgid, libc::SYS_setresuid, libc::SYS_prctl];

/// How a step ended.
pub const DONE: u32 = 0;
pub const UNCHANGED: u32 = 1;
/// A transaction's first call was performed, and its second one failed.
pub const PARTIAL: u32 = 2;
/// The caller's own filter killed it.
pub const CALLER_DIED: u32 = 3;

/// An empty directory.
pub static EMPTY: OnceLock<PathBuf> = OnceLock::new();

const SLEEPERS: u32 = 7;
const GROUPS: [u32; 2] = [4711, 4712];
const GROUP: usize = 4242;
/// Only the real id is set. Without /proc, a call takes seconds in a process that may not mount one.
const USER: usize = 4343;

/// The lines of /proc/PID/status that the steps change.
const FIELDS: [&str; 4] = ["Groups", "Gid", "Uid", "NoNewPrivs"];

/// The state of a thread, as its status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State([String; 4]);

impl State {
    pub fn of(pid: i32) -> Option<Self> {
        let threads = statuses(pid);
        let mut living = threads.into_values().filter(|fields| !is_dead(fields));
        living.next().map(Self::in_fields)
    }

    fn in_fields(fields: std::collections::HashMap<String, String>) -> Self {
        let field = |key: &str| {
            let words = fields.get(key).map_or("", String::as_str).split_whitespace();
            words.collect::<Vec<_>>().join(" ")
        };
        Self(FIELDS.map(field))
    }

    /// Returns the state after this step.
    pub fn after(&self, step: u32) -> Self {
        let mut new = self.clone();
        let four = |id: usize| vec![id.to_string(); 4].join(" ");
        match step {
            1 => new.0[0] = format!("{} {}", GROUPS[0], GROUPS[1]),
            2 => {
                new.0[1] = four(GROUP);
                new.0[0] = String::new();
            }
            3 => new.0[2] = format!("{USER} 0 0 0"),
            _ => new.0[3] = "1".to_owned(),
        }
        new
    }

    /// Returns the state after the first call of the transaction alone.
    pub fn partly_after(&self) -> Self {
        let mut new = self.after(2);
        new.0[0].clone_from(&self.0[0]);
        new
    }

    /// Returns the number of living threads that are in this state, and of those that are in another.
    pub fn count(&self, pid: i32) -> (usize, usize) {
        let threads = statuses(pid);
        let living = threads.into_values().filter(|fields| !is_dead(fields));
        let (same, other): (Vec<_>, Vec<_>) =
            living.map(Self::in_fields).partition(|state| state == self);
        (same.len(), other.len())
    }
}

fn is_dead(fields: &std::collections::HashMap<String, String>) -> bool {
    fields.get("State").is_none_or(|state| state.starts_with(['Z', 'X']))
}

/// Runs the program.
pub fn program(board: &'static Board, kind: Kind, sandbox: Option<Sandbox>, deadline: Duration) {
    match kind {
        Kind::OneThread | Kind::Threads => {}
        Kind::Divergence => {
            let action = Action::Errno(libc::EPERM);
            let refuse = Sandbox { on: On::OneHeld, action, call: "setgroups" };
            sleeper(board, Some(Box::new(move || refuse.install())));
        }
        Kind::WithoutProc => {
            let place = EMPTY.get().expect("made before");
            std::os::unix::fs::chroot(place).expect("chroot");
            std::env::set_current_dir("/").expect("the new root");
        }
        Kind::ZombieLeader => {
            std::thread::spawn(move || {
                wait_for_the_leader();
                go(board, kind, sandbox, deadline);
                tracer::end(0);
            });
            // SAFETY: the call ends only this thread.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
    }
    go(board, kind, sandbox, deadline);
}

fn wait_for_the_leader() {
    let stat = format!("/proc/{}/stat", std::process::id());
    while !std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") Z ")) {
        std::thread::yield_now();
    }
}

/// Removes the alternate stack. The one of std has no room for a handler of SIGSYS above the handler of signal 33.
fn without_alternate_stack() {
    let none =
        libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the kernel reads the structure.
    unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) };
}

fn sleeper(board: &'static Board, prepare: Option<Box<dyn FnOnce() + Send>>) {
    let before = board.ready.load(SeqCst);
    std::thread::spawn(move || {
        without_alternate_stack();
        prepare.into_iter().for_each(|prepare| prepare());
        board.ready.fetch_add(1, SeqCst);
        loop {
            // SAFETY: the call touches no memory.
            unsafe { libc::pause() };
        }
    });
    while board.ready.load(SeqCst) == before {
        std::thread::yield_now();
    }
}

fn go(board: &'static Board, kind: Kind, sandbox: Option<Sandbox>, deadline: Duration) {
    if let Some(sandbox) = sandbox {
        sandbox::answer_traps(sandbox);
    }
    let others = if kind == Kind::OneThread { 0 } else { SLEEPERS };
    for number in 0..others {
        if kind == Kind::ZombieLeader {
            // The threads in between use ids that libpsx could guess.
            (0..12 + number).for_each(|_| drop(std::thread::spawn(|| ()).join()));
        }
        let own = sandbox.filter(|sandbox| number == 3 && sandbox.on == On::OneHeld);
        sleeper(board, own.map(|sandbox| Box::new(move || sandbox.install()) as _));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (turns, stopped) = (Arc::new(AtomicU32::new(0)), stop.clone());
    let computed = turns.clone();
    if kind != Kind::OneThread {
        std::thread::spawn(move || {
            without_alternate_stack();
            while !stopped.load(SeqCst) {
                computed.fetch_add(1, SeqCst);
                std::hint::spin_loop();
            }
        });
        while turns.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
    }
    let killed =
        |sandbox: Sandbox| sandbox.on == On::Caller && sandbox.action == Action::KillThread;
    if sandbox.is_some_and(killed) {
        let tid = Arc::new(AtomicU32::new(0));
        let told = tid.clone();
        std::thread::spawn(move || {
            // SAFETY: the call touches no memory.
            told.store(unsafe { libc::gettid() } as u32, SeqCst);
            sandbox.into_iter().for_each(Sandbox::install);
            three_steps(board, kind, deadline);
            board.ready.store(0, SeqCst);
            loop {
                std::hint::spin_loop();
            }
        });
        let (pid, died) = (std::process::id(), || board.ready.load(SeqCst) != 0);
        // SAFETY: signal 0 only tests whether the thread exists.
        let lives = |tid: u32| unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) } == 0;
        while died() && (tid.load(SeqCst) == 0 || lives(tid.load(SeqCst))) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if died() {
            board.leave(CALLER_DIED);
            board.tell(format_args!("the caller died"));
        }
    } else {
        sandbox.filter(|sandbox| sandbox.on != On::OneHeld).into_iter().for_each(Sandbox::install);
        three_steps(board, kind, deadline);
    }
    if kind == Kind::Divergence {
        return;
    }
    while board.step() + 1 < HEALED {
        board.enter();
    }
    let arguments = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
    let last = Broadcast::new(libc::SYS_prctl, arguments).sensitivity(Sensitivity::Error);
    // SAFETY: the call touches no memory.
    single(board, || unsafe { last.deadline(deadline * 10).execute().map(drop) });
    stop.store(true, SeqCst);
}

/// Makes the changes during which calls are refused.
fn three_steps(board: &'static Board, kind: Kind, deadline: Duration) {
    let groups = GROUPS;
    let set_groups =
        Broadcast::new(last_form(libc::SYS_setgroups), [2, groups.as_ptr() as usize, 0, 0, 0, 0]);
    // SAFETY: the groups outlive the call.
    single(board, || unsafe { set_groups.deadline(deadline).execute().map(drop) });
    if kind == Kind::Divergence {
        return;
    }

    let group = [GROUP, GROUP, GROUP, 0, 0, 0];
    let both = Transaction::new();
    let same = ResultCheck::SameResult;
    // SAFETY: the call touches no memory.
    let both = unsafe { both.with_call(last_form(libc::SYS_setresgid), group, same) };
    // SAFETY: with zero groups the call reads no memory.
    let both = unsafe { both.with_call(last_form(libc::SYS_setgroups), [0; 6], same) };
    board.enter();
    let done = both.deadline(deadline).execute_with_report().map(drop);
    board.leave(match &done {
        Ok(()) => DONE,
        Err(TransactionError::NothingChanged(_)) => UNCHANGED,
        Err(_) => PARTIAL,
    });
    match done {
        Ok(()) => board.tell(format_args!("")),
        Err(error) => board.tell(format_args!("{error}")),
    }

    let set_user = Broadcast::new(last_form(libc::SYS_setresuid), [USER, 0, 0, 0, 0, 0]);
    // SAFETY: the call touches no memory.
    single(board, || unsafe { set_user.deadline(deadline).execute_with_report().map(drop) });
}

fn single(board: &Board, call: impl FnOnce() -> Result<(), Error>) {
    board.enter();
    let done = call();
    board.leave(if done.is_ok() { DONE } else { UNCHANGED });
    match done {
        Ok(()) => board.tell(format_args!("")),
        Err(error) => board.tell(format_args!("{error}")),
    }
}
