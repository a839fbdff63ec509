//! Children: of fork(2), vfork(2), posix_spawn(3) and execve(2).

use super::*;

/// The newest state that a thread of this process has seen before a child is made.
struct Newest {
    group: u64,
    groups: u64,
}

impl Newest {
    fn of(board: &Board) -> Self {
        let seen = |field: Field| board.seen[field as usize].load(SeqCst);
        Self { group: seen(Field::RealGroup), groups: seen(Field::Groups) }
    }

    /// Whether this process, a child, has a state that is at least as new (P3).
    fn holds(&self) -> bool {
        real_group() >= self.group && group() >= self.groups
    }
}

/// Makes a child that ends with this exit code. It is killed if that takes too long.
fn child(body: impl FnOnce() -> i32) -> i32 {
    let limit = watchdog(Duration::from_secs(120)).as_secs() as u32;
    // SAFETY: the child ends by _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the call touches no memory.
        unsafe { libc::alarm(limit) };
        let code = body();
        // SAFETY: the call ends the process.
        unsafe { libc::_exit(code) };
    }
    pid
}

pub(crate) fn fork(board: &'static Board, _: &mut Random) {
    let newest = Newest::of(board);
    let pid = child(|| i32::from(!newest.holds()));
    if pid > 0 {
        judge(board, Count::Forks, reap(pid));
    }
}

/// The child calls at once, whatever the threads of its parent were doing.
pub(crate) fn fork_and_call(board: &'static Board, random: &mut Random) {
    let newest = Newest::of(board);
    let slack = Duration::from_nanos(1000 + random.below(1000));
    let pid = child(|| {
        let before = slack_here();
        let is_done = done(board, set_timer_slack(slack).execute());
        let expected = if is_done { slack.as_nanos() as i32 } else { before };
        i32::from(!newest.holds()) | i32::from(slack_here() != expected) << 1
    });
    if pid > 0 {
        judge(board, Count::ForkCalls, reap(pid));
    }
}

/// The child creates threads and calls.
pub(crate) fn fork_with_threads(board: &'static Board, random: &mut Random) {
    let newest = Newest::of(board);
    let count = 1 + random.below(4) as usize;
    let pid = child(|| {
        let made = (0..count).filter(|_| pthread(sleeping, ptr::null_mut(), false).is_some());
        let made = made.count();
        let before = real_group();
        let wanted = 7_000_000;
        let call = setresgid(Gid::new(wanted).expect("an id"), Unchanged, Unchanged);
        match call.execute_with_report() {
            Ok(report) => {
                let right = report.threads() == made + 1 && report.divergent() == 0;
                if !right {
                    eprintln!("{made} threads and the caller: {report:?}");
                }
                done(board, Ok(0));
                i32::from(!newest.holds())
                    | i32::from(!right) << 1
                    | i32::from(groups_of_threads().any(|group| group != u64::from(wanted))) << 2
            }
            Err(error) => {
                done::<()>(board, Err(error));
                i32::from(!newest.holds())
                    | i32::from(groups_of_threads().any(|group| group != before)) << 2
            }
        }
    });
    if pid > 0 {
        judge(board, Count::ForkThreads, reap(pid));
    }
}

/// The real groups of this process's threads, or nothing if no descriptor is free.
fn groups_of_threads() -> impl Iterator<Item = u64> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("status")).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("Gid:"))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
}

/// In the child, a thread's result differs, so libpsx kills the child.
pub(crate) fn fork_that_differs(board: &'static Board, _: &mut Random) {
    let pid = child(|| {
        let ready: Box<AtomicBool> = Box::default();
        let at = ptr::from_ref(&*ready).cast_mut().cast();
        if pthread(refusing, at, false).is_none() {
            return 7;
        }
        while !ready.load(SeqCst) {
            std::thread::yield_now();
        }
        let call = Broadcast::new(libc::SYS_setpriority, [0; 6]).sensitivity(Sensitivity::Error);
        // SAFETY: the call touches no memory.
        match unsafe { call.execute() } {
            Ok(_) => 1,
            Err(_) => 7,
        }
    });
    if pid > 0 {
        let status = reap(pid);
        let killed =
            libc::WIFSIGNALED(status) && [33, libc::SIGKILL].contains(&libc::WTERMSIG(status));
        match libc::WEXITSTATUS(status) {
            _ if killed => board.count(Count::Killed),
            7 if libc::WIFEXITED(status) => {}
            _ => judge(board, Count::Killed, status),
        }
    }
}

extern "C" fn refusing(ready: *mut c_void) -> *mut c_void {
    refuse_setpriority();
    // SAFETY: the argument is a flag that lives until the process ends.
    unsafe { &*ready.cast::<AtomicBool>() }.store(true, SeqCst);
    loop {
        sleep(Duration::from_secs(1));
    }
}

/// A child that shares the memory, and whose parent waits, makes a call for itself.
pub(crate) fn vfork(board: &'static Board, _: &mut Random) {
    struct Argument {
        board: &'static Board,
        newest: Newest,
    }
    extern "C" fn body(argument: *mut c_void) -> i32 {
        // SAFETY: the argument lives as long as the parent waits.
        let Argument { board, newest } = unsafe { &*argument.cast::<Argument>() };
        let slack = libc::PR_SET_TIMERSLACK as usize;
        let before = slack_here();
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let is_done = done(board, unsafe { syscall3(libc::SYS_prctl, slack, 1234, 0) });
        let expected = if is_done { 1234 } else { before };
        i32::from(!newest.holds()) | i32::from(slack_here() != expected) << 1
    }
    let mut stack = vec![0u128; 16 << 10];
    let top = stack.as_mut_ptr_range().end;
    let mut argument = Argument { board, newest: Newest::of(board) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child runs on its own stack; the parent waits until it has ended.
    let pid = unsafe { libc::clone(body, top.cast(), flags, (&raw mut argument).cast()) };
    if pid > 0 {
        judge(board, Count::Vforks, reap(pid));
    }
}

/// The arguments of a program that checks that its state is not older than this.
struct Arguments {
    path: &'static CStr,
    _texts: [CString; 4],
    pointers: [*mut libc::c_char; 5],
}

impl Arguments {
    fn new(newest: &Newest) -> Self {
        let text = |text: &str| CString::new(text).expect("no zero");
        let (group, groups) = (newest.group.to_string(), newest.groups.to_string());
        let texts = [text("soak"), text("--child"), text(&group), text(&groups)];
        let [a, b, c, d] = texts.each_ref().map(|text| text.as_ptr().cast_mut());
        Self { path: c"/proc/self/exe", _texts: texts, pointers: [a, b, c, d, ptr::null_mut()] }
    }
}

/// Judges an executed program. Without a free descriptor it cannot load its libraries.
fn judge_program(board: &Board, what: Count, before: u32, status: i32) {
    if before % 2 == 0 && board.descriptors.load(SeqCst) == before {
        judge(board, what, status);
    }
}

pub(crate) fn spawn(board: &'static Board, _: &mut Random) {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    let window = board.descriptors.load(SeqCst);
    let arguments = Arguments::new(&Newest::of(board));
    let (mut pid, null) = (0, ptr::null());
    let (path, argv) = (arguments.path.as_ptr(), arguments.pointers.as_ptr());
    // SAFETY: nothing in this program changes the environment.
    let environment = unsafe { environ };
    // SAFETY: the strings outlive the call.
    if unsafe { libc::posix_spawn(&mut pid, path, null, ptr::null(), argv, environment) } == 0 {
        judge_program(board, Count::Spawns, window, reap(pid));
    }
}

pub(crate) fn exec(board: &'static Board, _: &mut Random) {
    let window = board.descriptors.load(SeqCst);
    let arguments = Arguments::new(&Newest::of(board));
    let (path, argv) = (arguments.path.as_ptr(), arguments.pointers.as_ptr());
    let pid = child(|| {
        // SAFETY: the strings outlive the call.
        unsafe { libc::execv(path, argv.cast()) };
        3
    });
    if pid > 0 {
        judge_program(board, Count::Execs, window, reap(pid));
    }
}
