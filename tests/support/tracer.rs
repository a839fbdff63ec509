//! Runs a program in a child process and watches, by ptrace(2), the kernel calls that libpsx makes in it. The tracer
//! ignores the program's own calls: it watches a thread from a marker to the next one (the caller), or from the
//! delivery of signal 33 to rt_sigreturn(2) (a held thread).
//!
//! A watched call can be refused with an error: the tracer makes the kernel skip the call, and writes the error number
//! in place of the result. The program cannot distinguish this from a seccomp filter that returns the error
//! (seccomp(2), SECCOMP_RET_ERRNO). Other than a filter, the tracer can refuse a single occurrence.
//!
//! [`run`] must be called in a process of its own with one thread ([`alone`]): it waits for all children.
// Each program that includes this file uses a part of it.
#![allow(dead_code, unreachable_pub, unsafe_code, unused_imports)]

#[path = "tracer/board.rs"]
mod board;
#[path = "tracer/calls.rs"]
mod calls;
#[path = "tracer/observer.rs"]
mod observer;
#[path = "tracer/ptrace.rs"]
mod ptrace;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

pub use board::{Board, shared_memory};
use calls::means;
pub use calls::{Fault, Made, Phase, Role, When, name, number};
pub use observer::{statuses, threads_of};
use ptrace::*;

use crate::support::first_form;

/// The interval at which the tracer checks the watchdog.
const TICK_MICROS: libc::suseconds_t = 10_000;
/// After this many tgkill(2) of signal 0 in a row, the tracer samples the thread's calls: it may make millions.
const FLOOD: u32 = 200;
/// The number of ticks between two samples.
const SAMPLE: u32 = 10;

pub struct Plan {
    pub fault: Option<Fault>,
    /// The first step in which no call is refused.
    pub healed: u32,
    /// The calls that the program requests from libpsx. They are not libpsx's own.
    pub asked: &'static [libc::c_long],
    pub watchdog: Duration,
    pub traced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Killed(i32),
    Hung,
}

pub struct Run {
    pub end: End,
    pub made: BTreeMap<Made, u32>,
    /// The number of calls that were refused.
    pub hits: u32,
    /// A held thread whose call was refused was still in the handler when the first step without refusals began.
    pub late: bool,
    /// Another process of the same process group was killed.
    pub bystander_killed: bool,
    /// If the process hung, where its threads were.
    pub hung: String,
    /// The program has passed its first marker: libpsx was called.
    pub began: bool,
    /// What was written to standard error.
    pub complaint: String,
}

#[derive(Default)]
struct Thread {
    caller: bool,
    /// The number of signal frames: that of signal 33, and those above it.
    frames: u32,
    /// The step in which the first of these frames was made.
    step: u32,
    /// The error to return from the call that the kernel was made to skip.
    skipped: Option<i32>,
    /// A call was refused, and the thread has not left the handler since.
    refused: bool,
    probes: u32,
    flooding: bool,
}

impl Thread {
    fn watched(&self) -> bool {
        self.caller || self.frames > 0
    }
}

struct Tracer<'a> {
    board: &'static Board,
    plan: &'a Plan,
    pid: i32,
    threads: HashMap<i32, Thread>,
    bystander: i32,
    bystander_killed: bool,
    phase: Phase,
    made: BTreeMap<Made, u32>,
    occurrences: u32,
    hits: u32,
    /// The first thread whose call was refused.
    chosen: Option<i32>,
    late: bool,
}

/// Runs `body` in a child of fork(2), which has one thread. Returns the child's pid.
pub fn alone(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: glibc allows everything that `body` does in a child.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        end(done.unwrap_or(101));
    }
    pid
}

pub fn end(code: i32) -> ! {
    use std::io::Write;
    let _ = std::io::stdout().flush();
    // SAFETY: the call ends the process.
    unsafe { libc::_exit(code) }
}

extern "C" fn tick(_: i32) {}

/// Returns the time, multiplied by PSX_WATCHDOG_FACTOR.
pub fn watchdog(time: Duration) -> Duration {
    time.mul_f64(factor())
}

pub fn factor() -> f64 {
    std::env::var("PSX_WATCHDOG_FACTOR").ok().and_then(|f| f.parse().ok()).unwrap_or(1.0)
}

/// Runs `program` in a child. Calls `look` at the end of each step; if it returns false, the child is killed.
pub fn run(
    plan: &Plan,
    program: impl FnOnce(&'static Board),
    look: &mut dyn FnMut(i32, &Board) -> bool,
) -> Run {
    let board = Board::new();
    board.traced.store(u32::from(plan.traced), SeqCst);
    // SAFETY: the call creates a descriptor.
    let complaints = unsafe { libc::memfd_create(c"complaints".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(complaints >= 0);
    // SAFETY: glibc allows everything that the program does in a child.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: the call changes only this process's descriptors.
        unsafe { libc::dup2(complaints, 2) };
        // SAFETY: the call touches no memory.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // A thread that panics would leave the others waiting for it.
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            end(101);
        }));
        while board.go.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        program(board);
        end(0);
    }
    // The child has its own process group. Another process is in that group, and must stay unharmed.
    // SAFETY: the call touches no memory.
    assert_eq!(unsafe { libc::setpgid(pid, pid) }, 0);
    let bystander = alone(|| {
        // SAFETY: the call touches no memory.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        loop {
            // SAFETY: the call touches no memory.
            unsafe { libc::pause() };
        }
    });
    // SAFETY: the call touches no memory.
    assert_eq!(unsafe { libc::setpgid(bystander, pid) }, 0);
    let mut tracer = Tracer {
        bystander,
        bystander_killed: false,
        board,
        plan,
        pid,
        threads: HashMap::from([(pid, Thread::default())]),
        phase: Phase::Open,
        made: BTreeMap::new(),
        occurrences: 0,
        hits: 0,
        chosen: None,
        late: false,
    };
    let (end, hung) = if plan.traced { tracer.follow(look) } else { tracer.observe(look) };
    let mut bystander_killed = tracer.bystander_killed;
    if !bystander_killed {
        // SAFETY: a null pointer requests no status.
        let waited = unsafe { libc::waitpid(bystander, std::ptr::null_mut(), libc::WNOHANG) };
        bystander_killed = waited == bystander;
    }
    if !bystander_killed {
        kill(bystander);
        // SAFETY: a null pointer requests no status.
        unsafe { libc::waitpid(bystander, std::ptr::null_mut(), 0) };
    }
    let began = board.step() > 0;
    let complaint = std::fs::read_to_string(format!("/proc/self/fd/{complaints}"));
    // SAFETY: only this function uses the descriptor.
    unsafe { libc::close(complaints) };
    let board = std::ptr::from_ref(board).cast_mut().cast();
    // SAFETY: `look` has not kept the board.
    unsafe { libc::munmap(board, size_of::<Board>()) };
    let complaint = complaint.unwrap_or_default();
    let Tracer { made, hits, late, .. } = tracer;
    Run { end, made, hits, late, hung, began, complaint, bystander_killed }
}

impl Tracer<'_> {
    /// Watches the program without ptrace(2).
    fn observe(&mut self, look: &mut dyn FnMut(i32, &Board) -> bool) -> (End, String) {
        let (began, board) = (Instant::now(), self.board);
        let (mut hung, mut text) = (false, String::new());
        board.go.store(1, SeqCst);
        loop {
            let mut status = 0;
            // SAFETY: the kernel writes the status.
            let waited = unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) };
            if waited == self.pid {
                return (if hung { End::Hung } else { ended(status) }, text);
            }
            let marker = board.marker.load(SeqCst);
            if marker % 4 == 2 && board.looked.load(SeqCst) != marker && !hung {
                let go_on = look(self.pid, board);
                board.looked.store(marker, SeqCst);
                if !go_on {
                    kill(self.pid);
                }
            }
            if began.elapsed() > self.plan.watchdog && !hung {
                hung = true;
                text = threads_of(self.pid);
                kill(self.pid);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn follow(&mut self, look: &mut dyn FnMut(i32, &Board) -> bool) -> (End, String) {
        let began = Instant::now();
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;
        let options = options | libc::PTRACE_O_EXITKILL;
        let seized = ptrace(SEIZE, self.pid, 0, options as usize);
        assert_eq!(seized, 0, "ptrace: {}", std::io::Error::last_os_error());
        ticking(TICK_MICROS);
        self.board.go.store(1, SeqCst);
        let (mut hung, mut text, mut ticks) = (false, String::new(), 0u32);
        let mut stops = VecDeque::new();
        let end = loop {
            // The kernel reports the first child that has stopped. If the tracer resumed that child at once and it
            // stopped again, the tracer would never learn of the others. So it collects all reports first.
            if stops.is_empty() {
                let mut options = libc::__WALL;
                loop {
                    let mut status = 0;
                    // SAFETY: the kernel writes the status.
                    let tid = unsafe { libc::waitpid(-1, &mut status, options) };
                    if tid <= 0 {
                        break;
                    }
                    stops.push_back((tid, status));
                    options |= libc::WNOHANG;
                }
            }
            let error = std::io::Error::last_os_error();
            let (tid, status) = stops.pop_front().unwrap_or((-1, 0));
            if began.elapsed() > self.plan.watchdog && !hung {
                hung = true;
                text = threads_of(self.pid);
                kill(self.pid);
            }
            if tid < 0 {
                assert_eq!(error.raw_os_error(), Some(libc::EINTR), "waitpid: {error}");
                ticks = ticks.wrapping_add(1);
                for (&tid, thread) in &self.threads {
                    if thread.flooding && ticks % SAMPLE == 0 {
                        ptrace(INTERRUPT, tid, 0, 0);
                    }
                }
                continue;
            }
            if tid == self.bystander {
                self.bystander_killed = true;
                continue;
            }
            if !libc::WIFSTOPPED(status) {
                self.threads.remove(&tid);
                if tid == self.pid {
                    break if hung { End::Hung } else { ended(status) };
                }
                continue;
            }
            self.stopped(tid, status, look);
        };
        ticking(0);
        self.bystander_killed |= stops.iter().any(|&(tid, _)| tid == self.bystander);
        // The kernel may report other threads after the leader.
        loop {
            let options = libc::__WALL | libc::WNOHANG;
            // SAFETY: a null pointer requests no status.
            let tid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), options) };
            self.bystander_killed |= tid == self.bystander;
            if tid <= 0 {
                break;
            }
        }
        (end, text)
    }

    fn stopped(&mut self, tid: i32, status: i32, look: &mut dyn FnMut(i32, &Board) -> bool) {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let thread = self.threads.entry(tid).or_default();
        let mut deliver = 0;
        if signal == libc::SIGTRAP | 0x80 {
            self.call(tid);
        } else if event == libc::PTRACE_EVENT_STOP {
            if thread.flooding {
                (thread.flooding, thread.probes) = (false, FLOOD - 2);
            } else if signal != libc::SIGTRAP {
                ptrace(LISTEN, tid, 0, 0);
                return;
            }
        } else if event == 0 && signal == libc::SIGTRAP {
            pass_breakpoint(tid);
            if !self.marker(tid, look) {
                kill(self.pid);
            }
        } else if event == 0 {
            deliver = signal;
            // The caller kills the process by a signal that has no handler by then.
            let handled = !(thread.caller && self.phase == Phase::Kill);
            if handled && (signal == 33 || thread.frames > 0) {
                if thread.frames == 0 {
                    thread.step = self.board.step();
                }
                thread.frames += 1;
                // While a caller floods, its calls are not seen.
                let signalled = !thread.caller && self.phase == Phase::Open;
                if signalled && self.threads.values().any(|thread| thread.flooding) {
                    self.phase = Phase::Gather;
                }
            }
        }
        let thread = self.threads.entry(tid).or_default();
        let request = if thread.watched() && !thread.flooding { SYSCALL } else { CONT };
        ptrace(request, tid, 0, deliver as usize);
    }

    /// Handles a thread that has passed a marker. Returns whether the program may go on.
    fn marker(&mut self, tid: i32, look: &mut dyn FnMut(i32, &Board) -> bool) -> bool {
        let marker = self.board.marker.load(SeqCst);
        let several = self.threads.len() > 1;
        if self.board.step() == self.plan.healed {
            self.late |= self.threads.values().any(|thread| thread.frames > 0 && thread.refused);
        }
        let thread = self.threads.entry(tid).or_default();
        match marker % 4 {
            0 => {
                thread.caller = true;
                thread.flooding = false;
                self.phase = if several { Phase::Open } else { Phase::Alone };
            }
            1 => {
                // The report is dropped before the next marker.
                thread.flooding = false;
                self.phase = Phase::Report;
            }
            _ => {
                thread.caller = false;
                thread.flooding = false;
                let go_on = look(self.pid, self.board);
                self.board.looked.store(marker, SeqCst);
                return go_on;
            }
        }
        true
    }

    fn call(&mut self, tid: i32) {
        let mut info = CallInfo::default();
        let at = &raw mut info as usize;
        if ptrace(GET_SYSCALL_INFO, tid, size_of::<CallInfo>(), at) < 0 {
            return;
        }
        let thread = self.threads.entry(tid).or_default();
        if info.op == EXIT {
            if let Some(errno) = thread.skipped.take() {
                set_result(tid, -(errno as isize));
            }
            return;
        }
        if info.op != ENTRY {
            return;
        }
        let (nr, args) = (first_form(info.nr_or_result as libc::c_long), info.args);
        let call = name(nr, &args);
        let role = if thread.frames > 0 { Role::Held } else { Role::Caller };
        let step = thread.step;
        if nr == libc::SYS_rt_sigreturn && thread.frames > 0 {
            thread.frames -= 1;
            thread.refused &= thread.frames > 0;
        }
        let probe = nr == libc::SYS_tgkill && args[2] == 0;
        thread.probes = if probe { thread.probes + 1 } else { 0 };
        thread.flooding = thread.probes > FLOOD && role == Role::Caller;
        // A thread that is asked for its identity makes this call itself, but not before another thread is signalled.
        let own = call == "prctl PR_GET_SECCOMP"
            || call == "prctl PR_GET_TIMERSLACK"
            || call == "prctl PR_GET_NO_NEW_PRIVS" && self.phase == Phase::Open;
        if self.plan.asked.contains(&nr) && !own {
            if self.phase != Phase::Alone && self.phase != Phase::Report {
                self.phase = Phase::Commit;
            }
            return;
        }
        let signals_another = nr == libc::SYS_rt_tgsigqueueinfo && args[1] as i32 != tid;
        if signals_another && self.phase == Phase::Open {
            self.phase = Phase::Gather;
        }
        // A timer limits the time until the process is killed. A warning begins with the line.
        let complains = match nr {
            libc::SYS_timer_create => true,
            libc::SYS_pwritev2 | libc::SYS_write => args[0] == 2,
            _ => false,
        };
        if complains && role == Role::Caller {
            self.phase = Phase::Kill;
        }
        // Held threads may leave when the caller has returned, or makes its next call.
        let late = matches!(self.phase, Phase::Report | Phase::Kill) || self.board.step() != step;
        let phase = match (role, self.phase) {
            (Role::Held, _) if late => Phase::Commit,
            // Another caller holds the thread, or the thread has sent the signal to itself.
            (Role::Held, Phase::Open) => Phase::Gather,
            (_, phase) => phase,
        };
        *self.made.entry(Made { role, phase, call }).or_default() += 1;
        let Some(fault) = self.plan.fault else { return };
        if fault.phase.is_some_and(|meant| meant != phase) {
            return;
        }
        if fault.role != role || !means(fault.call, call) || self.board.step() >= self.plan.healed {
            return;
        }
        self.occurrences += 1;
        let meant = match fault.when {
            When::Nth(number) => number == self.occurrences,
            When::From(number) => number <= self.occurrences,
            When::OneThread => *self.chosen.get_or_insert(tid) == tid,
            When::Always => true,
        };
        if meant {
            self.hits += 1;
            skip_call(tid);
            if let Some(thread) = self.threads.get_mut(&tid) {
                thread.skipped = Some(fault.errno);
                thread.refused = true;
            }
        }
    }
}

fn ended(status: i32) -> End {
    if libc::WIFSIGNALED(status) {
        End::Killed(libc::WTERMSIG(status))
    } else {
        End::Exited(libc::WEXITSTATUS(status))
    }
}

fn kill(pid: i32) {
    // SAFETY: the process is a child that was not waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Makes a timer interrupt waitpid(2) at intervals; 0 stops the timer.
fn ticking(micros: libc::suseconds_t) {
    // SAFETY: all fields of the structure are integers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = tick as *const () as usize;
    let time = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the handler does nothing.
    unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
    // SAFETY: the kernel reads the structure.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
}
