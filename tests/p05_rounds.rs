//! Threads that cannot be reached, because they wait for something that a held thread owns (P5: rounds).
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
    // SAFETY: all fields of the structure are integers.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set has the given size.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&cpus), &mut cpus) }, 0);
    cpus
}

/// Creates a thread with an affinity attribute: glibc's child waits for its parent with every signal blocked. The
/// affinity allows all CPUs. On a single one the child would compete with other programs. musl has no such attribute, and
/// blocks every signal for each new thread.
fn thread_with_affinity() -> Option<libc::pthread_t> {
    let mut attr = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the attribute is initialised before it is used, and destroyed afterwards.
    unsafe { libc::pthread_attr_init(attr.as_mut_ptr()) };
    #[cfg(target_env = "gnu")]
    {
        let (cpus, size) = (own_cpus(), size_of::<libc::cpu_set_t>());
        // SAFETY: the attribute is initialised above.
        unsafe { libc::pthread_attr_setaffinity_np(attr.as_mut_ptr(), size, &cpus) };
    }
    let mut thread = MaybeUninit::uninit();
    let null = std::ptr::null_mut();
    // SAFETY: initialised above; `nothing` takes no argument.
    let made =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), attr.as_ptr(), nothing, null) } == 0;
    // SAFETY: the attribute is initialised above.
    unsafe { libc::pthread_attr_destroy(attr.as_mut_ptr()) };
    // SAFETY: a successful pthread_create has written the value.
    made.then(|| unsafe { thread.assume_init() })
}

fn join(thread: libc::pthread_t) {
    // SAFETY: the thread is joined once.
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
                        // SAFETY: the thread is not joined yet.
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

/// Computes until this thread has used this much CPU time.
fn work(micros: u64) {
    let spent = || {
        let mut now = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the kernel writes the time to the structure.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, now.as_mut_ptr()) };
        // SAFETY: this clock always exists, so the structure is written.
        let now = unsafe { now.assume_init() };
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
    };
    let end = spent() + micros;
    while spent() < end {}
}

/// Threads nearly always block every signal, as in pthread_create, and hardly get the CPU, which other threads want
/// too. They can unblock the signal if the threads that have arrived stay held and leave them the CPU.
#[test]
fn threads_that_block_the_signal_and_wait_for_a_cpu() {
    let name = "threads_that_block_the_signal_and_wait_for_a_cpu";
    isolated(name, WATCHDOG, || {
        let (everything, nothing) = (!0u64, 0u64);
        let mask = |set: &u64| {
            // SAFETY: a kernel signal set has 8 bytes.
            let set =
                unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, 0, 8) };
            assert_eq!(set, 0);
        };
        let mut cpus = own_cpus();
        // SAFETY: the number is within the set.
        let is_own = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &cpus) };
        let first = (0..libc::CPU_SETSIZE as usize).find(is_own).unwrap();
        // SAFETY: all fields of the structure are integers.
        unsafe { libc::CPU_ZERO(&mut cpus) };
        // SAFETY: the set has room for it.
        unsafe { libc::CPU_SET(first, &mut cpus) };
        // SAFETY: the set has the given size.
        assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&cpus), &cpus) }, 0);
        // The parent has no other threads yet, so the child misses no lock.
        let other = support::fork();
        if other == 0 {
            // SAFETY: the call touches no memory. The child must not outlive this process.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                std::hint::spin_loop();
            }
        }
        for _ in 0..6 {
            std::thread::spawn(move || {
                // SAFETY: the call affects only the calling thread.
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
        // SAFETY: the process is a child that has not been waited for.
        unsafe { libc::kill(other, libc::SIGKILL) };
        println!("at most {rounds} rounds, longest freeze {longest:?}");
    });
}

/// With the caller's timer slack a sleep may last for years. It does not: otherwise the caller would hold the process that
/// long. The slack is then as it was.
#[test]
fn a_caller_with_timer_slack() {
    isolated("a_caller_with_timer_slack", WATCHDOG, || {
        const YEARS: usize = if cfg!(target_pointer_width = "64") { 1 << 60 } else { 1 << 31 };
        support::prepared(support::block_all);
        std::thread::spawn(|| {
            // SAFETY: the call touches no memory.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, YEARS) };
            let call = support::slack(5).deadline(Duration::from_millis(300));
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let error = unsafe { call.execute() }.unwrap_err();
            assert_eq!(error.raw_os_error(), libc::ETIMEDOUT, "{error}");
            // prctl(2) of the C library returns an int.
            // SAFETY: gettid touches no memory.
            let file = format!("/proc/{}/timerslack_ns", unsafe { libc::gettid() });
            let slack = std::fs::read_to_string(file).unwrap();
            assert_eq!(slack.trim(), YEARS.to_string());
        })
        .join()
        .unwrap();
    });
}

/// The caller takes a signal every 300 us. A pause between two rounds is none the shorter. A thread that is held in each
/// round counts them: otherwise there would be one in each 4 ms or so.
#[test]
fn signals_do_not_end_a_pause() {
    isolated("signals_do_not_end_a_pause", WATCHDOG, || {
        extern "C" fn handles(_: i32) {}
        support::prepared(support::block_all);
        let rounds = &support::counting(1, |_| {})[0];
        std::thread::spawn(move || {
            // SAFETY: the handler is a function of this type.
            unsafe { libc::signal(libc::SIGUSR1, handles as *const () as usize) };
            // SAFETY: gettid touches no memory.
            let (pid, tid) = (std::process::id(), unsafe { libc::gettid() });
            std::thread::spawn(move || {
                loop {
                    // SAFETY: tgkill touches no memory.
                    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGUSR1) };
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            let call = support::slack(5).deadline(Duration::from_secs(3));
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let error = unsafe { call.execute() }.unwrap_err();
            assert_eq!(error.raw_os_error(), libc::ETIMEDOUT, "{error}");
        })
        .join()
        .unwrap();
        let rounds = rounds.load(Ordering::SeqCst);
        println!("{rounds} rounds");
        assert!((2..180).contains(&rounds), "{rounds} rounds");
    });
}

/// Between two rounds the caller sleeps. It neither looks at the clock again and again, nor asks again for a sleep that a
/// filter refuses.
#[cfg(not(target_arch = "loongarch64"))]
mod no_spinning {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::WATCHDOG;
    use super::support::{self, cpu, emulator, isolated};

    const DEADLINE: Duration = Duration::from_millis(300);
    /// A round takes at least as long.
    const ROUND: Duration = Duration::from_millis(4);

    fn a_call_fails_beside_a_thread_that_blocks_the_signal() {
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let error = unsafe { support::slack(5).deadline(DEADLINE).execute() }.unwrap_err();
        assert_eq!(error.raw_os_error(), libc::ETIMEDOUT, "{error}");
    }

    static LOOKS: AtomicUsize = AtomicUsize::new(0);

    /// Answers clock_gettime(2), and counts it if signal 33 is open, as it is between two rounds.
    extern "C" fn answer(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let interrupted = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel has written the frame, and its set of signals has eight bytes.
        let mask = unsafe { (&raw const (*interrupted).uc_sigmask).cast::<u64>().read() };
        if mask & 1 << 32 == 0 {
            LOOKS.fetch_add(1, SeqCst);
        }
        emulator::answer(libc::SYS_clock_gettime, context);
    }

    #[test]
    fn on_the_clock() {
        isolated("no_spinning::on_the_clock", WATCHDOG, || {
            if !emulator::can_answer() {
                return;
            }
            support::prepared(support::block_all);
            emulator::on_sigsys(answer);
            // Where the vDSO does not know the time, the C library makes this call too.
            support::install(&emulator::trapping(&[libc::SYS_clock_gettime]));
            a_call_fails_beside_a_thread_that_blocks_the_signal();
            let (looks, most) = (LOOKS.load(SeqCst), 6 * DEADLINE.as_millis() / ROUND.as_millis());
            assert!((1..most as usize).contains(&looks), "{looks} looks at the clock");
        });
    }

    static SLEEPS: AtomicUsize = AtomicUsize::new(0);

    /// Refuses a sleep, and counts it if the word lies on the stack: other threads wake a sleep on any other word.
    extern "C" fn refuse(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel has written the frame.
        let interrupted = unsafe { &*context.cast::<libc::ucontext_t>() };
        let [word, ..] = cpu::arguments(interrupted);
        if word.wrapping_sub(cpu::stack_pointer(interrupted)) < 64 << 10 {
            SLEEPS.fetch_add(1, SeqCst);
        }
        emulator::refuse(context);
    }

    #[test]
    fn on_a_refused_sleep() {
        isolated("no_spinning::on_a_refused_sleep", WATCHDOG, || {
            if !emulator::can_answer() {
                return;
            }
            support::prepared(support::block_all);
            emulator::on_sigsys(refuse);
            support::filter_futex(support::private(libc::FUTEX_WAIT), libc::SECCOMP_RET_TRAP);
            a_call_fails_beside_a_thread_that_blocks_the_signal();
            let (sleeps, most) =
                (SLEEPS.load(SeqCst), 2 * DEADLINE.as_millis() / ROUND.as_millis());
            assert!((1..most as usize).contains(&sleeps), "{sleeps} sleeps");
        });
    }
}
