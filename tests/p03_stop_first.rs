//! No user instruction runs in the old state once any thread has the new state (P3).
//!
//! Each call sets a higher timer slack. Observers read the highest value that any thread has ever seen, and then their
//! own.
//! Their own value must not be lower, and a child that they fork then must not have a lower one either.
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{end, isolated, reap, repeated, set_slack, slack_here, sleepers, until};

const WATCHDOG: Duration = Duration::from_secs(60);
const FIRST: usize = 1_000_000;
const CALLS: usize = 1000;

static HIGHEST: AtomicUsize = AtomicUsize::new(0);
static OLD_STATE_SEEN: AtomicUsize = AtomicUsize::new(0);
/// How often the observers have looked.
static LOOKS: AtomicUsize = AtomicUsize::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// Reads the two values once. Returns false if this thread is behind a value that another thread has seen.
fn look() -> bool {
    let highest = HIGHEST.load(Ordering::SeqCst);
    let own = slack_here();
    HIGHEST.fetch_max(own, Ordering::SeqCst);
    own >= highest
}

fn observers(count: usize) {
    for _ in 0..count {
        std::thread::spawn(|| {
            loop {
                if !look() {
                    OLD_STATE_SEEN.fetch_add(1, Ordering::SeqCst);
                }
                LOOKS.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Waits until the observers have looked since they had looked this often.
fn observers_have_looked_since(before: usize) {
    until(|| LOOKS.load(Ordering::Relaxed) > before);
}

/// Without this test the others would prove nothing: observers notice a call in one thread.
#[test]
fn observers_notice_a_call_on_one_thread() {
    isolated("observers_notice_a_call_on_one_thread", WATCHDOG, || {
        set_slack(FIRST).unwrap();
        observers(2);
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, FIRST + 1) };
        look();
        while OLD_STATE_SEEN.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    });
}

#[test]
fn no_thread_runs_in_the_old_state() {
    isolated("no_thread_runs_in_the_old_state", WATCHDOG, || {
        set_slack(FIRST).unwrap();
        observers(4);
        sleepers(20);
        observers_have_looked_since(0);
        let before = LOOKS.load(Ordering::Relaxed);
        let mut calls = 0;
        for call in repeated(CALLS, WATCHDOG) {
            set_slack(FIRST + call).unwrap();
            assert!(look());
            calls = call;
        }
        let looks = LOOKS.load(Ordering::Relaxed) - before;
        println!("{looks} looks of the observers beside {calls} calls");
        observers_have_looked_since(LOOKS.load(Ordering::Relaxed));
        assert_eq!(OLD_STATE_SEEN.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn no_thread_sees_a_refused_call() {
    isolated("no_thread_sees_a_refused_call", WATCHDOG, || {
        set_slack(FIRST).unwrap();
        observers(4);
        for _ in repeated(CALLS / 2, WATCHDOG) {
            let nonsense = libpsx::Broadcast::new(libc::SYS_prctl, [usize::MAX; 6]);
            // SAFETY: there is no such option.
            let error = unsafe { nonsense.execute_with_report() }.unwrap_err();
            assert_eq!(error.raw_os_error(), libc::EINVAL);
        }
        assert!(look());
        observers_have_looked_since(LOOKS.load(Ordering::Relaxed));
        assert_eq!(HIGHEST.load(Ordering::SeqCst), FIRST);
        assert_eq!(OLD_STATE_SEEN.load(Ordering::SeqCst), 0);
    });
}

/// A child keeps for good the value that its parent's thread had at the fork.
#[test]
fn no_thread_forks_from_the_old_state() {
    isolated("no_thread_forks_from_the_old_state", WATCHDOG, || {
        set_slack(FIRST).unwrap();
        sleepers(8);
        let forkers: Vec<_> = (0..2)
            .map(|_| {
                std::thread::spawn(|| {
                    let mut forks = 0;
                    while !OVER.load(Ordering::SeqCst) {
                        let highest = HIGHEST.load(Ordering::SeqCst);
                        // The child makes one system call, and ends.
                        let pid = support::fork();
                        if pid == 0 {
                            end(i32::from(slack_here() < highest));
                        }
                        assert_eq!(reap(pid), 0, "a child has the old state");
                        look();
                        forks += 1;
                    }
                    forks
                })
            })
            .collect();
        let mut calls = 0;
        for call in repeated(CALLS / 2, WATCHDOG) {
            set_slack(FIRST + call).unwrap();
            look();
            calls = call;
        }
        OVER.store(true, Ordering::SeqCst);
        let forks: usize = forkers.into_iter().map(|forker| forker.join().unwrap()).sum();
        println!("{forks} forks beside {calls} calls");
        assert!(forks > 0);
    });
}
