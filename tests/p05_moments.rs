//! Calls at every moment of a process's life: before main, in handlers, beside its end (P4, P5).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{end, forked_status, isolated, isolated_status, set_slack, slack_here, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);

fn say(line: &str) {
    // SAFETY: the kernel reads the line.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

/// Runs before main. It acts in the one child that asks for it.
extern "C" fn constructor() {
    let wanted = c"before_main";
    // SAFETY: both are strings, or null.
    let asked = unsafe { libc::getenv(c"PSX_CASE".as_ptr()) };
    // SAFETY: as above.
    if asked.is_null() || unsafe { libc::strcmp(asked, wanted.as_ptr()) } != 0 {
        return;
    }
    sleepers(3);
    let done = set_slack(4242).is_ok_and(|report| report.threads() == 4);
    say(if done { "called before main\n" } else { "failed before main\n" });
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

#[test]
fn before_main() {
    let (status, output) = isolated_status("before_main", WATCHDOG, || {
        assert_eq!(slack_here(), 4242);
    });
    assert!(status.success(), "{output}");
    assert!(output.contains("called before main"), "{output}");
}

#[test]
fn in_an_exit_handler() {
    extern "C" fn handler() {
        say(if set_slack(1).is_ok() { "called at exit\n" } else { "failed at exit\n" });
    }
    let (status, output) = isolated_status("in_an_exit_handler", WATCHDOG, || {
        sleepers(3);
        // SAFETY: the handler may run at exit.
        assert_eq!(unsafe { libc::atexit(handler) }, 0);
        // SAFETY: nothing else runs at exit.
        unsafe { libc::exit(7) };
    });
    assert_eq!(status.code(), Some(7), "{output}");
    assert!(output.contains("called at exit"), "{output}");
}

/// The process ends in every way while other threads call.
#[test]
fn beside_the_end_of_the_process() {
    isolated("beside_the_end_of_the_process", WATCHDOG, || {
        for round in 0..200u64 {
            let status = forked_status(|| {
                sleepers(4);
                for _ in 0..2 {
                    std::thread::spawn(|| {
                        for value in 1.. {
                            set_slack(value).unwrap();
                        }
                    });
                }
                std::thread::sleep(Duration::from_micros(round * 37 % 5000));
                if round % 2 == 0 {
                    // SAFETY: runs the exit handlers of the test harness.
                    unsafe { libc::exit(3) };
                }
                end(3);
            });
            assert_eq!(status, 3 << 8, "round {round}");
        }
    });
}

/// Thread-specific destructors run when most of a thread is gone.
#[test]
fn in_a_dying_thread() {
    isolated("in_a_dying_thread", WATCHDOG, || {
        static CALLED: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn destructor(_: *mut libc::c_void) {
            set_slack(1).unwrap();
            CALLED.fetch_add(1, Ordering::SeqCst);
        }
        sleepers(3);
        let mut key = 0;
        // SAFETY: the destructor may run at any end of a thread.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destructor)) }, 0);
        let dying: Vec<_> = (0..50)
            .map(|_| {
                std::thread::spawn(move || {
                    // SAFETY: the key exists; the value is not looked at.
                    unsafe { libc::pthread_setspecific(key, std::ptr::dangling()) };
                })
            })
            .collect();
        dying.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(CALLED.load(Ordering::SeqCst), 50);
    });
}

/// A handler that interrupts anything, the waits of another call among it, may call.
#[test]
fn in_a_signal_handler() {
    isolated("in_a_signal_handler", WATCHDOG, || {
        static CALLED: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn handler(_: i32) {
            set_slack(1).unwrap();
            CALLED.fetch_add(1, Ordering::SeqCst);
        }
        sleepers(3);
        // SAFETY: the handler makes raw calls and changes an atomic.
        unsafe { libc::signal(libc::SIGALRM, handler as *const () as usize) };
        let every = libc::timeval { tv_sec: 0, tv_usec: 3000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        // SAFETY: the kernel reads the timer.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        std::thread::spawn(|| {
            for value in 1.. {
                set_slack(value).unwrap();
            }
        });
        while CALLED.load(Ordering::SeqCst) < 300 {
            set_slack(2).unwrap();
        }
    });
}
