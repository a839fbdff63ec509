//! Tests calls beside other activity of a process or of its C library.
#![allow(unsafe_code)]

mod support;

use std::mem::MaybeUninit;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{
    LONG, add_filter, all_have_filters, isolated, no_new_privs, own_cpus, set_slack, sleepers,
};

const WATCHDOG: Duration = Duration::from_secs(60);

static STOP: AtomicBool = AtomicBool::new(false);
static DONE: AtomicUsize = AtomicUsize::new(0);

/// Makes this many calls while two threads execute `what` again and again.
fn beside(calls: usize, what: fn()) {
    no_new_privs().unwrap();
    sleepers(2);
    let doers: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(move || {
                while !STOP.load(Ordering::Relaxed) {
                    what();
                    DONE.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while DONE.load(Ordering::Relaxed) < 10 {
        std::thread::yield_now();
    }
    let mut rounds = 0;
    for _ in 0..calls {
        rounds = rounds.max(add_filter(LONG).unwrap().attempts());
    }
    STOP.store(true, Ordering::Relaxed);
    doers.into_iter().for_each(|doer| doer.join().unwrap());
    println!("at most {rounds} rounds; done {} times", DONE.load(Ordering::Relaxed));
    all_have_filters(calls);
}

/// What a thread executes: pause(2). The thread has no frame of Rust when it is unwound.
fn pause() -> extern "C" fn(*mut libc::c_void) -> *mut libc::c_void {
    let pause: unsafe extern "C" fn() -> i32 = libc::pause;
    // SAFETY: the function takes no argument, and nothing reads its result.
    unsafe { std::mem::transmute(pause) }
}

/// glibc cancels a thread by signal 32, and musl by signal 33, which musl's handler leaves blocked.
#[test]
fn beside_threads_that_are_cancelled() {
    isolated("beside_threads_that_are_cancelled", WATCHDOG, || {
        beside(60, || {
            let (mut thread, null) = (MaybeUninit::uninit(), std::ptr::null_mut());
            // SAFETY: the function writes the thread, and has no attributes to read.
            let made = unsafe {
                libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), pause(), null)
            };
            assert_eq!(made, 0);
            // SAFETY: the thread was written.
            let thread = unsafe { thread.assume_init() };
            // SAFETY: the thread is not joined yet.
            assert_eq!(unsafe { libc::pthread_cancel(thread) }, 0);
            // SAFETY: the thread is joined once.
            assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
        });
    });
}

/// A timer of the C library calls a function in a thread of the C library, in which glibc and musl block signals.
#[test]
fn beside_timers_of_the_c_library() {
    /// The beginning of `struct sigevent`, as both C libraries have it (sigevent(3type)).
    #[repr(C)]
    struct Event {
        value: usize,
        signal: i32,
        notify: i32,
        function: extern "C" fn(usize),
        attributes: usize,
        rest: [usize; 8],
    }
    static FIRED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn fired(_: usize) {
        FIRED.fetch_add(1, Ordering::Relaxed);
    }
    isolated("beside_timers_of_the_c_library", WATCHDOG, || {
        beside(100, || {
            let (value, signal, notify) = (0, 0, libc::SIGEV_THREAD);
            let mut event =
                Event { value, signal, notify, function: fired, attributes: 0, rest: [0; 8] };
            let mut timer = MaybeUninit::uninit();
            let place = (&raw mut event).cast::<libc::sigevent>();
            // SAFETY: the event is as large as the function reads, and the function writes the timer.
            let made =
                unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, place, timer.as_mut_ptr()) };
            assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
            // SAFETY: the timer was written.
            let timer = unsafe { timer.assume_init() };
            let often = libc::timespec { tv_sec: 0, tv_nsec: 200_000 };
            let times = libc::itimerspec { it_interval: often, it_value: often };
            let fired = FIRED.load(Ordering::Relaxed);
            // SAFETY: the timer exists, and the function reads the times.
            assert_eq!(unsafe { libc::timer_settime(timer, 0, &times, std::ptr::null_mut()) }, 0);
            while FIRED.load(Ordering::Relaxed) == fired {
                std::thread::yield_now();
            }
            // SAFETY: the timer is deleted once.
            assert_eq!(unsafe { libc::timer_delete(timer) }, 0);
        });
        println!("fired {} times", FIRED.load(Ordering::Relaxed));
    });
}

#[cfg(target_env = "gnu")]
#[test]
fn beside_threads_with_attributes_that_are_cancelled() {
    isolated("beside_threads_with_attributes_that_are_cancelled", WATCHDOG, || {
        // Each call takes several rounds; see the tests of rounds.
        beside(60, || {
            let cpu = own_cpus()[0];
            // SAFETY: all fields of the structure are integers.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: CPU_SET checks the number against the bounds of the set.
            unsafe { libc::CPU_SET(cpu, &mut set) };
            let mut attr = MaybeUninit::uninit();
            // SAFETY: the function initialises the attribute.
            unsafe { libc::pthread_attr_init(attr.as_mut_ptr()) };
            // SAFETY: the attribute is initialised, and the set has the given size.
            unsafe {
                libc::pthread_attr_setaffinity_np(attr.as_mut_ptr(), size_of_val(&set), &set)
            };
            let null = std::ptr::null_mut();
            let mut thread = 0;
            // SAFETY: the attribute is initialised.
            let made = unsafe { libc::pthread_create(&mut thread, attr.as_ptr(), pause(), null) };
            assert_eq!(made, 0);
            // SAFETY: the thread is not joined yet.
            assert_eq!(unsafe { libc::pthread_cancel(thread) }, 0);
            // SAFETY: the thread is joined once.
            assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
            // SAFETY: the attribute is initialised, and not used afterwards.
            unsafe { libc::pthread_attr_destroy(attr.as_mut_ptr()) };
        });
    });
}

/// The C library makes its own broadcast, by the same signal. musl's holds every thread, with all signals blocked: between
/// two of them a call waits for a pause that keeps no thread, some 0.2 s.
#[test]
fn beside_setresuid_of_the_c_library() {
    isolated("beside_setresuid_of_the_c_library", WATCHDOG, || {
        beside(if cfg!(target_env = "musl") { 50 } else { 1000 }, || {
            // SAFETY: setresuid takes plain numbers; these change nothing.
            assert_eq!(unsafe { libc::setresuid(!0, !0, !0) }, 0);
        });
    });
}

#[test]
fn programs_started_during_calls() {
    isolated("programs_started_during_calls", WATCHDOG, || {
        /// The numbers of the descriptors that are open in a new program.
        fn descriptors() -> Vec<String> {
            let output = Command::new("ls").arg("/proc/self/fd").output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        }
        let before = descriptors();
        sleepers(3);
        let spawners = [(); 2].map(|()| {
            let before = before.clone();
            std::thread::spawn(move || {
                for _ in 0..150 {
                    assert_eq!(descriptors(), before);
                }
            })
        });
        let mut calls = 0;
        while !spawners.iter().all(std::thread::JoinHandle::is_finished) {
            calls += 1;
            set_slack(calls).unwrap();
        }
        println!("{calls} calls");
        spawners.into_iter().for_each(|spawner| spawner.join().unwrap());
    });
}
