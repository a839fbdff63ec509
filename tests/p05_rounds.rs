//! Threads that wait, out of reach, for something a held thread owns (P5: rounds).
#![allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

mod support;

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libpsx::Broadcast;
use support::{isolated, repeated, watchdog};

const WATCHDOG: Duration = Duration::from_secs(240);

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn nothing(_: *mut libc::c_void) -> *mut libc::c_void {
    std::ptr::null_mut()
}

/// The CPUs that this thread may use.
fn own_cpus() -> libc::cpu_set_t {
    // SAFETY: a set of CPUs is plain data.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as is said.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&cpus), &mut cpus) }, 0);
    cpus
}

/// Makes a thread with an affinity attribute: glibc's child waits for its parent with every signal
/// blocked. Any CPU will do: on a single one the child would compete with whatever else runs there.
fn thread_with_affinity() -> Option<libc::pthread_t> {
    let mut attr = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the attribute is initialised before it is used, and destroyed after.
    unsafe { libc::pthread_attr_init(attr.as_mut_ptr()) };
    let cpus = own_cpus();
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: initialised above.
    unsafe { libc::pthread_attr_setaffinity_np(attr.as_mut_ptr(), size, &cpus) };
    let mut thread = MaybeUninit::uninit();
    let null = std::ptr::null_mut();
    // SAFETY: initialised above; `nothing` takes no argument.
    let made =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), attr.as_ptr(), nothing, null) } == 0;
    // SAFETY: initialised above.
    unsafe { libc::pthread_attr_destroy(attr.as_mut_ptr()) };
    // SAFETY: written by a pthread_create that succeeded.
    made.then(|| unsafe { thread.assume_init() })
}

fn join(thread: libc::pthread_t) {
    // SAFETY: joined once.
    unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
}

#[test]
fn no_call_fails_beside_pthread_create_with_attributes() {
    let name = "no_call_fails_beside_pthread_create_with_attributes";
    isolated(name, WATCHDOG, || {
        for _ in 0..2 {
            std::thread::spawn(|| {
                while !STOP.load(Ordering::Relaxed) {
                    if let Some(thread) = thread_with_affinity() {
                        join(thread);
                    }
                }
            });
        }
        std::thread::spawn(|| {
            // SAFETY: SIGURG is ignored.
            unsafe { libc::signal(libc::SIGURG, libc::SIG_IGN) };
            while !STOP.load(Ordering::Relaxed) {
                if let Some(thread) = thread_with_affinity() {
                    for _ in 0..20 {
                        // SAFETY: not joined yet.
                        unsafe { libc::pthread_kill(thread, libc::SIGURG) };
                    }
                    join(thread);
                }
            }
        });
        let (mut calls, mut rounds, mut longest) = (0, 0, Duration::ZERO);
        for call in repeated(2000, WATCHDOG / 4) {
            calls = call + 1;
            let slack = [libc::PR_SET_TIMERSLACK as usize, calls, 0, 0, 0, 0];
            let call = Broadcast::new(libc::SYS_prctl, slack);
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let report =
                unsafe { call.deadline(watchdog(WATCHDOG / 2)).execute_with_report() }.unwrap();
            rounds = rounds.max(report.attempts());
            longest = longest.max(report.max_pause());
        }
        STOP.store(true, Ordering::Relaxed);
        println!("{calls} calls, at most {rounds} rounds, longest freeze {longest:?}");
    });
}

/// Runs for so long, as far as its own CPU time goes.
fn work(micros: u64) {
    let spent = || {
        let mut now = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: there is room for it.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, now.as_mut_ptr()) };
        // SAFETY: this clock is always there.
        let now = unsafe { now.assume_init() };
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
    };
    let end = spent() + micros;
    while spent() < end {}
}

/// Threads that nearly always block every signal, as in pthread_create, and hardly get the CPU, which
/// others want too: they come out of there if those who have come are kept, and leave them the CPU.
#[test]
fn threads_that_block_the_signal_and_want_for_a_cpu() {
    let name = "threads_that_block_the_signal_and_want_for_a_cpu";
    isolated(name, WATCHDOG, || {
        let (everything, nothing) = (!0u64, 0u64);
        let mask = |set: &u64| {
            // SAFETY: a kernel signal set has 8 bytes.
            let set =
                unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, 0, 8) };
            assert_eq!(set, 0);
        };
        let mut cpus = own_cpus();
        // SAFETY: the numbers are those of the set.
        let is_own = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &cpus) };
        let first = (0..libc::CPU_SETSIZE as usize).find(is_own).unwrap();
        // SAFETY: the set is plain data.
        unsafe { libc::CPU_ZERO(&mut cpus) };
        // SAFETY: the set has room for it.
        unsafe { libc::CPU_SET(first, &mut cpus) };
        // SAFETY: the set is as large as is said.
        assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&cpus), &cpus) }, 0);
        // SAFETY: the child makes no use of what the parent's threads may own; there are none yet.
        let other = unsafe { libc::fork() };
        if other == 0 {
            // SAFETY: so that it does not outlive this process.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                std::hint::spin_loop();
            }
        }
        for _ in 0..6 {
            std::thread::spawn(move || {
                // SAFETY: of the calling thread.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
                loop {
                    mask(&everything);
                    work(1_000);
                    mask(&nothing);
                }
            });
        }
        let (mut rounds, mut longest) = (0, Duration::ZERO);
        for value in 1..=3 {
            let slack = [libc::PR_SET_TIMERSLACK as usize, value, 0, 0, 0, 0];
            let call = Broadcast::new(libc::SYS_prctl, slack).deadline(watchdog(WATCHDOG / 4));
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let report = unsafe { call.execute_with_report() }.unwrap();
            rounds = rounds.max(report.attempts());
            longest = longest.max(report.max_pause());
        }
        // SAFETY: our child.
        unsafe { libc::kill(other, libc::SIGKILL) };
        println!("at most {rounds} rounds, longest freeze {longest:?}");
    });
}
