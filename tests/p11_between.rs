//! Several calls in one stop (P11): between two of them only the handler of SIGSYS may run. A report names the call
//! that it is about.
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use libpsx::process::{personality, set_keepcaps, set_timer_slack};
use libpsx::{CallOutcome, ResultCheck, Sensitivity, Transaction};
use support::{filter, isolated, prepared, shared_word, slack_here, sleepers};

const WATCHDOG: Duration = Duration::from_secs(100);

#[test]
fn the_call_in_which_a_thread_died() {
    isolated("the_call_in_which_a_thread_died", WATCHDOG, || {
        prepared(|| filter(libc::SYS_personality, libc::SECCOMP_RET_KILL_THREAD));
        let report = Transaction::new()
            .sensitivity(Sensitivity::Ignore)
            .with(set_keepcaps(true))
            .with(set_timer_slack(Duration::from_micros(50)))
            .with(personality(0))
            .execute_with_report()
            .unwrap();
        let died: Vec<usize> = report
            .results()
            .iter()
            .filter(|result| result.outcome() == CallOutcome::Died)
            .map(|result| result.call())
            .collect();
        assert_eq!(died, [2], "{report:?}");
    });
}

/// Another process sends signals while transactions change a value to an intermediate and then to a final one. A
/// handler never sees the intermediate one.
#[test]
fn no_handler_runs_between_two_calls() {
    isolated("no_handler_runs_between_two_calls", WATCHDOG, || {
        const BETWEEN: usize = 4242;
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn look(_: i32) {
            RUNS.fetch_add(1, SeqCst);
            SEEN.fetch_add(usize::from(slack_here() == BETWEEN), SeqCst);
        }
        let signals = [libc::SIGUSR1, libc::SIGALRM, libc::SIGCHLD, libc::SIGRTMAX()];
        for signal in signals {
            // SAFETY: the handler makes a raw call and counts.
            unsafe { libc::signal(signal, look as *const () as usize) };
        }
        sleepers(4);
        let parent = std::process::id() as i32;
        let over = shared_word();
        // The child makes raw calls.
        let pid = support::fork();
        if pid == 0 {
            for signal in signals.into_iter().cycle() {
                if over.load(SeqCst) != 0 {
                    support::end(0);
                }
                // SAFETY: the call touches no memory.
                unsafe { libc::kill(parent, signal) };
                // SAFETY: the call touches no memory.
                unsafe { libc::usleep(50) };
            }
        }
        let slack = |value: usize| set_timer_slack(Duration::from_nanos(value as u64));
        for _ in 0..300 {
            let mut all = Transaction::new().with(slack(BETWEEN)).deadline(support::LONG);
            for _ in 0..100 {
                // SAFETY: getppid touches no memory.
                all = unsafe { all.with_call(libc::SYS_getppid, [0; 6], ResultCheck::AnyResult) };
            }
            all.with(slack(1)).execute().unwrap();
        }
        over.store(1, SeqCst);
        support::reap(pid);
        println!("{} handlers", RUNS.load(SeqCst));
        assert!(RUNS.load(SeqCst) > 0);
        assert_eq!(SEEN.load(SeqCst), 0);
    });
}
