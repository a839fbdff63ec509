//! If threads cannot be stopped, the error names them and nothing has changed (P2, P5). A temporary obstacle does not
//! matter.
#![allow(unsafe_code)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use libpsx::{Error, SkipReason, UnreachableReason};
use support::{
    LONG, PtraceRequest, add_filter, all_have_filters, isolated, no_new_privs, on_cpu, proc, reap,
    scheduler, sleepers,
};

const WATCHDOG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

static LEAVE: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

/// Starts a thread with the name "target" that executes `body`. Returns its tid.
fn target(body: fn()) -> i32 {
    static TID: AtomicI32 = AtomicI32::new(0);
    let builder = std::thread::Builder::new().name("target".into());
    let run = move || {
        // SAFETY: gettid touches no memory.
        TID.store(unsafe { libc::gettid() }, Ordering::SeqCst);
        body();
    };
    builder.spawn(run).unwrap();
    while TID.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    TID.load(Ordering::SeqCst)
}

fn until_told_to_leave() {
    while !LEAVE.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_for_state(tid: i32, state: char) {
    while !proc::status(tid).get("State").is_some_and(|seen| seen.starts_with(state)) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Checks that calls fail, name the target, and leave every thread unchanged.
fn target_is_named(tid: i32, state: char, obstacle: UnreachableReason) {
    for _ in 0..3 {
        let error = add_filter(SHORT).unwrap_err();
        assert_eq!(error.raw_os_error(), libc::ETIMEDOUT);
        let Error::Unreachable(threads) = &error else { panic!("{error}") };
        let [thread] = threads.threads() else { panic!("{error}") };
        assert_eq!((threads.total(), thread.tid(), thread.name()), (1, tid, "target"), "{error}");
        assert_eq!((thread.state(), thread.reason()), (state, obstacle), "{error}");
        all_have_filters(0);
    }
}

/// Checks that the next call covers every thread, once.
fn next_call_succeeds() {
    add_filter(LONG).unwrap();
    all_have_filters(1);
}

/// Forks a process that executes `body`, and returns a stream to it.
fn helper(body: impl FnOnce(UnixStream) -> Option<()>) -> (i32, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // The child makes raw calls.
    let pid = support::fork();
    if pid == 0 {
        drop(ours);
        let done = body(theirs).is_some();
        support::end(i32::from(!done));
    }
    (pid, ours)
}

fn tell(mut stream: &UnixStream) -> Option<()> {
    stream.write_all(b".").ok()
}

/// Waits for a byte from the other side. Returns `None` if the other side has closed the stream.
fn hear(mut stream: &UnixStream) -> Option<()> {
    stream.read_exact(&mut [0]).ok()
}

/// Makes ptrace(2) requests that use no memory.
fn ptrace(request: PtraceRequest, tid: i32, data: i32) -> Option<()> {
    // SAFETY: the requests used here take plain numbers.
    let result = unsafe { libc::ptrace(request, tid, 0usize, data as usize) };
    (result == 0).then_some(())
}

/// Starts a tracer of `tid`. It executes `begin`, if it may, and `end` when it is told to.
fn tracer(
    tid: i32,
    begin: fn(i32) -> Option<()>,
    end: fn(i32) -> Option<()>,
) -> Option<UnixStream> {
    // SAFETY: PR_SET_PTRACER touches no memory. Without Yama it fails, and is not needed.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
    let (_, stream) = helper(|stream| {
        begin(tid)?;
        tell(&stream)?;
        hear(&stream)?;
        end(tid)?;
        tell(&stream)?;
        hear(&stream)
    });
    if hear(&stream).is_none() {
        support::skipped("ptrace is not allowed");
        return None;
    }
    Some(stream)
}

#[test]
fn thread_stopped_by_a_tracer() {
    isolated("thread_stopped_by_a_tracer", WATCHDOG, || {
        no_new_privs().unwrap();
        sleepers(3);
        let tid = target(until_told_to_leave);
        let begin = |tid| {
            ptrace(libc::PTRACE_ATTACH, tid, 0)?;
            reap(tid);
            Some(())
        };
        let end = |tid| ptrace(libc::PTRACE_DETACH, tid, 0);
        let Some(tracer) = tracer(tid, begin, end) else { return };
        target_is_named(tid, 't', UnreachableReason::Traced);
        tell(&tracer).unwrap();
        hear(&tracer).unwrap();
        next_call_succeeds();
    });
}

#[test]
fn dead_thread_that_its_tracer_keeps_is_exempt() {
    isolated("dead_thread_that_its_tracer_keeps_is_exempt", WATCHDOG, || {
        no_new_privs().unwrap();
        sleepers(3);
        let tid = target(until_told_to_leave);
        let end = |tid| {
            reap(tid);
            Some(())
        };
        let Some(tracer) = tracer(tid, |tid| ptrace(libc::PTRACE_SEIZE, tid, 0), end) else {
            return;
        };
        LEAVE.store(true, Ordering::SeqCst);
        wait_for_state(tid, 'Z');
        for count in 1..=50 {
            let report = add_filter(LONG).unwrap();
            let [exempt] = report.skipped() else { panic!("{report:?}") };
            assert_eq!((exempt.tid(), exempt.reason()), (tid, SkipReason::Exiting));
            let mut seen = proc::field_in_every_thread("Seccomp_filters");
            seen.remove(&tid);
            assert!(seen.values().all(|value| *value == count.to_string()), "{seen:?}");
        }
        tell(&tracer).unwrap();
        hear(&tracer).unwrap();
        assert!(add_filter(LONG).unwrap().skipped().is_empty());
        all_have_filters(51);
    });
}

/// The kernel does not report the thread as exiting yet.
#[test]
fn thread_stopped_by_a_tracer_as_it_exits() {
    isolated("thread_stopped_by_a_tracer_as_it_exits", WATCHDOG, || {
        no_new_privs().unwrap();
        sleepers(3);
        let tid = target(until_told_to_leave);
        let begin = |tid| ptrace(libc::PTRACE_SEIZE, tid, libc::PTRACE_O_TRACEEXIT);
        let end = |tid| {
            // The first wait returns the stop, the second one the end.
            reap(tid);
            ptrace(libc::PTRACE_CONT, tid, 0)?;
            reap(tid);
            Some(())
        };
        let Some(tracer) = tracer(tid, begin, end) else { return };
        LEAVE.store(true, Ordering::SeqCst);
        wait_for_state(tid, 't');
        target_is_named(tid, 't', UnreachableReason::Traced);
        tell(&tracer).unwrap();
        hear(&tracer).unwrap();
        next_call_succeeds();
        assert!(!proc::tids().contains(&tid));
    });
}

static CHILD: AtomicI32 = AtomicI32::new(0);

/// Creates a child that shares this memory, as vfork(2) does, but with its own stack. The child only waits.
fn vfork_a_sleeping_child() {
    extern "C" fn child(_: *mut libc::c_void) -> i32 {
        // SAFETY: the call touches no memory. If the test fails, the child ends with it.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // SAFETY: getpid touches no memory.
        CHILD.store(unsafe { libc::getpid() }, Ordering::SeqCst);
        loop {
            // SAFETY: pause touches no memory.
            unsafe { libc::pause() };
        }
    }
    let stack = Box::leak(Box::new([0u128; 4096]));
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let null = std::ptr::null_mut();
    // SAFETY: the child alone has the stack, for ever, and it touches one atomic.
    let pid = unsafe { libc::clone(child, stack.as_mut_ptr_range().end.cast(), flags, null) };
    reap(pid);
    until_told_to_leave();
}

fn thread_in_vfork_is_named(vfork: fn(), prepare: fn(i32) -> bool) {
    no_new_privs().unwrap();
    sleepers(3);
    let tid = target(vfork);
    // Before that, the thread may be in this state for a moment for other reasons.
    while CHILD.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    wait_for_state(tid, 'D');
    if prepare(tid) {
        target_is_named(tid, 'D', UnreachableReason::Vfork);
    }
    let child = CHILD.load(Ordering::SeqCst);
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    next_call_succeeds();
}

#[test]
fn thread_in_vfork() {
    isolated("thread_in_vfork", WATCHDOG, || {
        thread_in_vfork_is_named(vfork_a_sleeping_child, |_| true);
    });
}

/// If the kernel does not tell where the thread waits, the system call does.
#[test]
fn thread_in_vfork_without_wchan() {
    isolated("thread_in_vfork_without_wchan", WATCHDOG, || {
        thread_in_vfork_is_named(vfork_a_sleeping_child, without_wchan);
    });
}

/// The child is made by vfork(2) itself, and uses no stack. Newer CPUs have only clone(2) with CLONE_VFORK, which the
/// other cases make.
#[cfg(target_arch = "x86_64")]
fn vfork_by_its_own_number() {
    let pid: usize;
    // SAFETY: the child stores its pid to an atomic, and then only sleeps. It calls nothing and returns nowhere. If the
    // test fails, the child ends with it.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test eax, eax",
            "jnz 3f",
            "mov eax, {prctl}",
            "mov edi, {death}",
            "mov esi, {kill}",
            "syscall",
            "mov eax, {getpid}",
            "syscall",
            "mov [{place}], eax",
            "2: mov eax, {pause}",
            "syscall",
            "jmp 2b",
            "3:",
            prctl = const libc::SYS_prctl,
            death = const libc::PR_SET_PDEATHSIG,
            kill = const libc::SIGKILL,
            getpid = const libc::SYS_getpid,
            pause = const libc::SYS_pause,
            place = in(reg) CHILD.as_ptr(),
            inlateout("rax") libc::SYS_vfork as usize => pid,
            out("rcx") _,
            out("rdi") _,
            out("rsi") _,
            out("r11") _,
        );
    }
    reap(pid as i32);
    until_told_to_leave();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn thread_in_vfork_by_its_own_number_without_wchan() {
    isolated("thread_in_vfork_by_its_own_number_without_wchan", WATCHDOG, || {
        thread_in_vfork_is_named(vfork_by_its_own_number, without_wchan);
    });
}

/// Kernels do not always tell where a thread waits: x86-64 before Linux 5.16 does not.
fn without_wchan(tid: i32) -> bool {
    support::laid_over(&format!("/proc/self/task/{tid}/wchan"), "/dev/null")
}

/// Makes a control group (version 2) for one thread, below a control group for its process.
fn put_in_own_group(tid: i32) -> std::io::Result<PathBuf> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
    let root = root.ok_or(std::io::ErrorKind::NotFound)?;
    let outer = root.join(format!("psx-{}", std::process::id()));
    let inner = outer.join("thread");
    fs::create_dir(&outer)?;
    fs::write(outer.join("cgroup.procs"), "0")?;
    fs::create_dir(&inner)?;
    fs::write(inner.join("cgroup.type"), "threaded")?;
    fs::write(inner.join("cgroup.threads"), tid.to_string())?;
    Ok(inner)
}

/// Removes the control groups, as far as they were made.
fn leave_own_group() {
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new) {
        let outer = root.join(format!("psx-{}", std::process::id()));
        if outer.exists() {
            let _ = fs::write(root.join("cgroup.procs"), "0");
            let _ = fs::remove_dir(outer.join("thread"));
            let _ = fs::remove_dir(outer);
        }
    }
}

fn frozen_thread_is_named(prepare: fn(i32) -> bool) {
    no_new_privs().unwrap();
    sleepers(3);
    let tid = target(until_told_to_leave);
    if !prepare(tid) {
        return;
    }
    match put_in_own_group(tid) {
        Err(error) => support::skipped(format!("no control group of its own: {error}")),
        Ok(group) => {
            fs::write(group.join("cgroup.freeze"), "1").unwrap();
            while !fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1") {
                std::thread::yield_now();
            }
            target_is_named(tid, 'S', UnreachableReason::Frozen);
            fs::write(group.join("cgroup.freeze"), "0").unwrap();
            next_call_succeeds();
        }
    }
    leave_own_group();
}

#[test]
fn thread_in_a_frozen_control_group() {
    isolated("thread_in_a_frozen_control_group", WATCHDOG, || frozen_thread_is_named(|_| true));
}

#[test]
fn thread_in_a_frozen_control_group_without_wchan() {
    isolated("thread_in_a_frozen_control_group_without_wchan", WATCHDOG, || {
        frozen_thread_is_named(without_wchan);
    });
}

#[test]
fn process_stopped_and_continued_in_the_middle() {
    isolated("process_stopped_and_continued_in_the_middle", WATCHDOG, || {
        no_new_privs().unwrap();
        sleepers(4);
        // SAFETY: getpid touches no memory.
        let parent = unsafe { libc::getpid() };
        let (pid, stream) = helper(|stream| {
            let mut random = 1u32;
            let mut moment = || {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                std::thread::sleep(Duration::from_micros(u64::from(random >> 22)));
            };
            for signal in [libc::SIGSTOP, libc::SIGCONT].into_iter().cycle() {
                // SAFETY: the parent waits for this process to end, so it exists.
                unsafe { libc::kill(parent, signal) };
                moment();
                if signal == libc::SIGCONT {
                    tell(&stream)?;
                }
            }
            None
        });
        let calls = 500;
        for count in 1..=calls {
            let report = add_filter(LONG).unwrap();
            assert_eq!(report.divergent(), 0, "{report:?}");
            if count % 5 == 0 {
                hear(&stream).unwrap();
            }
        }
        drop(stream);
        reap(pid);
        all_have_filters(calls);
    });
}

/// Threads with a real-time priority compute for a limited time, one on each CPU.
#[test]
fn busy_real_time_threads() {
    isolated("busy_real_time_threads", WATCHDOG, || {
        no_new_privs().unwrap();
        sleepers(3);
        static BUSY: AtomicI32 = AtomicI32::new(0);
        let cpus = std::thread::available_parallelism().unwrap().get();
        for cpu in 0..cpus {
            std::thread::spawn(move || {
                on_cpu(cpu);
                let real = scheduler(libc::SCHED_FIFO, 50);
                BUSY.fetch_add(if real { 1 } else { -1000 }, Ordering::SeqCst);
                // For a limited time, so that the other programs of this machine can run again.
                let limit = Instant::now() + Duration::from_secs(4);
                while !STOP.load(Ordering::Relaxed) && Instant::now() < limit {
                    std::hint::spin_loop();
                }
            });
        }
        while (0..cpus as i32).contains(&BUSY.load(Ordering::SeqCst)) {
            std::thread::yield_now();
        }
        if BUSY.load(Ordering::SeqCst) < 0 {
            support::skipped("SCHED_FIFO is not allowed");
            return;
        }
        for count in 1..=3 {
            let report = add_filter(LONG).unwrap();
            println!("{} rounds, longest freeze {:?}", report.attempts(), report.max_pause());
            assert!(report.threads() > count);
        }
        STOP.store(true, Ordering::Relaxed);
        all_have_filters(3);
    });
}
