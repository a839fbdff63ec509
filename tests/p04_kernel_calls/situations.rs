//! The situations in which broadcasts are traced: programs that make the same calls beside different threads, with or
//! without /proc, under filters, and with errors.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use libpsx::{Broadcast, ResultCheck, Sensitivity, Transaction};

use super::support;
use super::tracer::{self, Board, End};

/// What a situation requires.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Root,
    Terminal,
}

pub(super) struct Situation {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    /// Runs in the parent of the program.
    pub(super) before: fn(),
    pub(super) program: fn(&'static Board),
    pub(super) end: End,
}

pub(super) const SITUATIONS: &[Situation] = &[
    Situation { program: all_kinds, ..plain("one thread") },
    Situation { program: unshare_refused_alone, ..plain("one thread; a filter refuses unshare") },
    Situation { program: beside_threads, ..plain("threads that sleep and compute") },
    Situation { program: unshare_refused, ..plain("threads; a filter refuses unshare") },
    Situation { program: many_threads, ..plain("more threads than the first list has room for") },
    Situation { program: zombie_leader, ..plain("a zombie leader, and ids that are far apart") },
    Situation { program: own_root, ..rooted("no /proc, and the right to mount one") },
    Situation { program: own_root_and_filter, ..rooted("no /proc, and no right to mount one") },
    Situation { program: unreachable, ..plain("a thread that blocks all signals") },
    Situation { program: taking_turns, ..plain("a caller that waits for another caller") },
    Situation { program: slow_call, ..plain("a slow call") },
    Situation { program: slow_call_and_sigsys, ..plain("the same, and a handler of SIGSYS") },
    Situation { program: directories, ..plain("calls on resources that the threads must share") },
    Situation { program: unreadable, ..plain("a task directory that cannot be read") },
    Situation { program: queue_full, ..plain("no signal can be queued") },
    Situation {
        program: synchronised,
        ..plain("no_new_privs, and a filter that the kernel gives to all threads")
    },
    Situation { program: chained, ..plain("another library's handler above libpsx's") },
    Situation { program: foreign_signal, ..plain("a signal 33 of another sender") },
    Situation { program: requeue_refused, ..plain("a filter refuses to count sleepers") },
    Situation { program: dies_in_the_call, ..plain("a thread that dies in the call") },
    Situation { program: warned, ..plain("a result that differs: a warning") },
    Situation {
        program: warned_on_a_terminal,
        takes: Takes::Terminal,
        ..plain("the same, on a terminal")
    },
    Situation { program: killed, end: End::Killed(33), ..plain("a result that differs: a kill") },
    Situation {
        program: killed,
        before: new_pid_namespace,
        end: End::Exited(128 + 33),
        ..rooted("the same in the first process of a PID namespace")
    },
];

pub(super) const fn plain(name: &'static str) -> Situation {
    let (takes, end) = (Takes::Nothing, End::Exited(0));
    Situation { name, takes, before: || (), program: |_| (), end }
}

pub(super) const fn rooted(name: &'static str) -> Situation {
    Situation { takes: Takes::Root, ..plain(name) }
}

/// The watchdog ends a hang before this time is over. A traced thread arrives late, so libpsx gives up many rounds, and
/// more of them on a machine under load.
pub(super) const LONG: Duration = Duration::from_secs(3600);

/// Returns a call that changes nothing.
pub(super) fn harmless() -> Broadcast {
    Broadcast::new(libc::SYS_getpriority, [0; 6]).deadline(LONG)
}

/// Makes one broadcast while the tracer watches, and drops its report.
pub(super) fn watched<T>(board: &Board, call: impl FnOnce() -> T) -> bool {
    board.enter();
    let done = call();
    board.leave(0);
    drop(done);
    board.tell(format_args!(""));
    true
}

/// Makes first and later broadcasts with and without a report, transactions, and questions.
pub(super) fn all_kinds(board: &'static Board) {
    for _ in 0..2 {
        // SAFETY: getpriority touches no memory.
        watched(board, || unsafe { harmless().execute() }.unwrap());
        // SAFETY: getpriority touches no memory.
        watched(board, || unsafe { harmless().execute_with_report() }.unwrap());
    }
    let same = ResultCheck::SameResult;
    let two = Transaction::new();
    // SAFETY: getpriority touches no memory.
    let two = unsafe { two.with_call(libc::SYS_getpriority, [0; 6], same) };
    // SAFETY: getpriority touches no memory.
    let two = unsafe { two.with_call(libc::SYS_getpriority, [0; 6], same) };
    let two = two.deadline(LONG);
    watched(board, || two.execute().unwrap());
    watched(board, || two.execute_with_report().unwrap());
    // As `process::identities` does, but without its deadline.
    let asked = Transaction::new().query_identities(8).deadline(LONG);
    watched(board, || asked.execute_with_report().unwrap());
}

/// Waits until another thread has done something. No broadcast is under way.
pub(super) fn until(ready: impl Fn() -> bool) {
    while !ready() {
        std::thread::yield_now();
    }
}

pub(super) fn sleepers(board: &'static Board, count: u32) {
    let wanted = board.ready.load(SeqCst) + count;
    for _ in 0..count {
        std::thread::spawn(|| {
            board.ready.fetch_add(1, SeqCst);
            loop {
                // SAFETY: the call touches no memory.
                unsafe { libc::pause() };
            }
        });
    }
    until(|| board.ready.load(SeqCst) == wanted);
}

pub(super) fn beside_threads(board: &'static Board) {
    sleepers(board, 6);
    std::thread::spawn(|| {
        board.ready.fetch_add(1, SeqCst);
        loop {
            std::hint::spin_loop();
        }
    });
    until(|| board.ready.load(SeqCst) == 7);
    (0..5).for_each(|_| all_kinds(board));
}

pub(super) fn many_threads(board: &'static Board) {
    sleepers(board, 300);
    all_kinds(board);
}

pub(super) fn zombie_leader(board: &'static Board) {
    std::thread::spawn(move || {
        let stat = format!("/proc/{}/stat", std::process::id());
        until(|| std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") Z ")));
        for _ in 0..6 {
            (0..12).for_each(|_| drop(std::thread::spawn(|| ()).join()));
            sleepers(board, 1);
        }
        all_kinds(board);
        tracer::end(0);
    });
    // SAFETY: the call ends only this thread.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

pub(super) fn refuse(call: libc::c_long) {
    support::filter(call, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
}

pub(super) fn unshare_refused_alone(board: &'static Board) {
    refuse(libc::SYS_unshare);
    all_kinds(board);
}

pub(super) fn unshare_refused(board: &'static Board) {
    refuse(libc::SYS_unshare);
    beside_threads(board);
}

/// Changes the root directory to an empty one.
pub(super) fn empty_root() {
    let place = std::env::temp_dir().join(format!("psx-empty-{}", std::process::id()));
    std::fs::create_dir(&place).expect("a directory of its own");
    std::env::set_current_dir(&place).expect("it");
    std::fs::remove_dir(&place).expect("the directory is empty");
    std::os::unix::fs::chroot(".").expect("chroot");
}

pub(super) fn own_root(board: &'static Board) {
    empty_root();
    sleepers(board, 3);
    all_kinds(board);
}

/// If the thread has a filter, libpsx does not try to mount a /proc. It probes each possible id, which may take longer
/// than the deadline.
pub(super) fn own_root_and_filter(board: &'static Board) {
    empty_root();
    refuse(libc::SYS_acct);
    sleepers(board, 3);
    let call = harmless().deadline(Duration::from_secs(30));
    // SAFETY: getpriority touches no memory.
    watched(board, || unsafe { call.execute_with_report() });
}

pub(super) fn unreachable(board: &'static Board) {
    sleepers(board, 3);
    support::prepared(support::block_all);
    let short = harmless().deadline(Duration::from_millis(60));
    // SAFETY: getpriority touches no memory.
    watched(board, || unsafe { short.execute_with_report() }.unwrap_err());
}

/// Three other callers have the lock nearly all the time, because a thread cannot be stopped.
pub(super) fn taking_turns(board: &'static Board) {
    support::prepared(support::block_all);
    let others: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(|| {
                board.ready.fetch_add(1, SeqCst);
                // SAFETY: getpriority touches no memory.
                unsafe { harmless().deadline(Duration::from_secs(1)).execute_with_report() }
                    .unwrap_err();
            })
        })
        .collect();
    until(|| board.ready.load(SeqCst) == 3);
    let short = harmless().deadline(Duration::from_millis(40));
    while !others.iter().all(|other| other.is_finished()) {
        // SAFETY: getpriority touches no memory.
        watched(board, || unsafe { short.execute_with_report() }.unwrap_err());
    }
}

pub(super) fn slow_call(board: &'static Board) {
    sleepers(board, 2);
    let time = libc::timespec { tv_sec: 0, tv_nsec: 350_000_000 };
    let slow = Broadcast::new(libc::SYS_nanosleep, [&raw const time as usize, 0, 0, 0, 0, 0]);
    let slow = slow.deadline(LONG);
    // SAFETY: nanosleep reads the time, which outlives the call.
    watched(board, || unsafe { slow.execute_with_report() }.unwrap());
}

extern "C" fn does_nothing(_: i32) {}

/// A handler of SIGSYS could jump out of a stop, so libpsx checks for threads that do not answer.
pub(super) fn slow_call_and_sigsys(board: &'static Board) {
    // SAFETY: the handler may run anywhere.
    unsafe { libc::signal(libc::SIGSYS, does_nothing as *const () as usize) };
    slow_call(board);
}

/// Makes calls that would act on another object in a thread that does not share it.
pub(super) fn directories(board: &'static Board) {
    sleepers(board, 3);
    let root = std::fs::File::open("/").expect("a directory");
    let change = Transaction::new().with(libpsx::process::fchdir(&root)).deadline(LONG);
    watched(board, || change.execute().unwrap());
    let change = Transaction::new().with(libpsx::process::chdir(c"/")).deadline(LONG);
    watched(board, || change.execute().unwrap());
}

/// A Landlock domain removes the right to list directories. libpsx then knows how many threads there are, but not
/// which.
pub(super) fn unreadable(board: &'static Board) {
    const READ_DIR: u64 = 1 << 3;
    let create = libc::SYS_landlock_create_ruleset;
    // SAFETY: the kernel reads one word.
    let rules = unsafe { libc::syscall(create, &READ_DIR, size_of_val(&READ_DIR), 0) };
    if rules < 0 {
        support::skipped(format!("landlock: {}", std::io::Error::last_os_error()));
        return;
    }
    // SAFETY: the call touches no memory.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the call touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) };
    assert_eq!(done, 0, "landlock: {}", std::io::Error::last_os_error());
    sleepers(board, 3);
    let call = harmless().deadline(Duration::from_secs(30));
    // SAFETY: getpriority touches no memory.
    watched(board, || unsafe { call.execute_with_report() });
}

pub(super) fn queue_full(board: &'static Board) {
    sleepers(board, 3);
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads the structure.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) }, 0);
    // SAFETY: getpriority touches no memory.
    watched(board, || unsafe { harmless().execute_with_report() }.unwrap_err());
}

pub(super) fn synchronised(board: &'static Board) {
    sleepers(board, 3);
    support::no_new_privs().expect("no filter refuses the call");
    let allow = [support::step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW)];
    let filter = support::header(&allow);
    let (set, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    let filter = [set as usize, flags as usize, &raw const filter as usize, 0, 0, 0];
    let no_new_privs = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
    let (both, same) = (Transaction::new().deadline(LONG), ResultCheck::SameResult);
    // SAFETY: the call touches no memory.
    let both = unsafe { both.with_call(libc::SYS_prctl, no_new_privs, same) };
    // SAFETY: the program outlives the call.
    let both = unsafe { both.with_call(libc::SYS_seccomp, filter, same) };
    watched(board, || both.execute().unwrap());
}

/// The kernel's struct sigaction. riscv64 has no restorer.
#[repr(C)]
#[derive(Default)]
pub(super) struct KernelAction {
    pub(super) handler: usize,
    pub(super) flags: usize,
    #[cfg(not(target_arch = "riscv64"))]
    pub(super) restorer: usize,
    pub(super) mask: u64,
}

pub(super) static BELOW: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Installs `handler` for signal 33 by the raw call: the C library would refuse it.
pub(super) fn put_above(handler: usize) {
    let mut action = KernelAction::default();
    let (old, none) = (&raw mut action, 0usize);
    // SAFETY: the kernel writes the structure.
    assert_eq!(unsafe { libc::syscall(libc::SYS_rt_sigaction, 33, none, old, 8usize) }, 0);
    BELOW.store(action.handler, SeqCst);
    action.handler = handler;
    let new = &raw const action;
    // SAFETY: the handler may run anywhere, and the rest of the action is unchanged.
    assert_eq!(unsafe { libc::syscall(libc::SYS_rt_sigaction, 33, new, none, 8usize) }, 0);
}

extern "C" fn passes_on(signal: i32, info: *mut libc::c_void, context: *mut libc::c_void) {
    type Handler = extern "C" fn(i32, *mut libc::c_void, *mut libc::c_void);
    // SAFETY: the address was the handler of this signal.
    let below = unsafe { std::mem::transmute::<usize, Handler>(BELOW.load(SeqCst)) };
    below(signal, info, context);
}

pub(super) fn chained(board: &'static Board) {
    sleepers(board, 3);
    all_kinds(board);
    put_above(passes_on as *const () as usize);
    all_kinds(board);
}

pub(super) static FOREIGN: AtomicBool = AtomicBool::new(false);

extern "C" fn takes_note(_: i32) {
    FOREIGN.store(true, SeqCst);
}

pub(super) fn foreign_signal(board: &'static Board) {
    sleepers(board, 1);
    // glibc installed its own handler when the first thread was created.
    put_above(takes_note as *const () as usize);
    // SAFETY: getpriority touches no memory.
    watched(board, || unsafe { harmless().execute() }.unwrap());
    let (pid, tids) = (std::process::id() as i32, support::proc::tids());
    for tid in tids.into_iter().filter(|&tid| tid != pid) {
        // SAFETY: the signal has a handler.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 33) };
    }
    until(|| FOREIGN.load(SeqCst));
}

pub(super) fn requeue_refused(board: &'static Board) {
    sleepers(board, 3);
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    support::filter_futex(support::private(libc::FUTEX_REQUEUE), refuse);
    all_kinds(board);
}

/// Creates a thread with a filter that applies `action` to the call.
pub(super) fn filtered(action: u32) {
    support::prepared(move || support::filter(libc::SYS_getpriority, action));
}

pub(super) fn dies_in_the_call(board: &'static Board) {
    sleepers(board, 3);
    filtered(libc::SECCOMP_RET_KILL_THREAD);
    let call = harmless().sensitivity(Sensitivity::Ignore);
    // SAFETY: getpriority touches no memory.
    watched(board, || unsafe { call.execute_with_report() }.unwrap());
}

pub(super) fn warned(board: &'static Board) {
    sleepers(board, 3);
    filtered(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let call = harmless().sensitivity(Sensitivity::Warning);
    // SAFETY: getpriority touches no memory.
    watched(board, || unsafe { call.execute_with_report() }.unwrap());
}

pub(super) fn warned_on_a_terminal(board: &'static Board) {
    let [_ours, theirs] = support::terminal().expect("the situation takes one");
    // SAFETY: the call changes only this process's descriptors.
    assert_eq!(unsafe { libc::dup2(theirs.as_raw_fd(), 2) }, 2);
    warned(board);
}

pub(super) fn killed(board: &'static Board) {
    sleepers(board, 3);
    filtered(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let call = harmless().sensitivity(Sensitivity::Error);
    // SAFETY: getpriority touches no memory.
    watched(board, || unsafe { call.execute_with_report() }.unwrap());
}

pub(super) fn new_pid_namespace() {
    // SAFETY: the call affects only children of this process.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
}
