//! A permanent refusal is reported at once (P5), and the error names what is refused. The deadline is a minute, and the
//! watchdog is shorter than that.
#![allow(unsafe_code)]

mod support;

use std::time::Duration;

use libpsx::{Broadcast, Error, Requirement};
use support::{
    all_have, filter, forked, install_everywhere, isolated, isolated_as_root, prepared, program,
    set_slack,
};

const WATCHDOG: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(60);

fn no_new_privs() -> Result<libpsx::Report, Error> {
    let args = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
    unsafe { Broadcast::new(libc::SYS_prctl, args).deadline(DEADLINE).execute_with_report() }
}

fn set() -> Result<libpsx::Report, Error> {
    let args = [libc::PR_SET_TIMERSLACK as usize, 4321, 0, 0, 0, 0];
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    unsafe { Broadcast::new(libc::SYS_prctl, args).deadline(DEADLINE).execute_with_report() }
}

fn no_slack_has_changed(before: &[(i32, String)]) {
    assert_eq!(slacks(), before);
}

fn slacks() -> Vec<(i32, String)> {
    let mut all: Vec<_> = support::proc::tids()
        .into_iter()
        .map(|tid| {
            (tid, std::fs::read_to_string(format!("/proc/{tid}/timerslack_ns")).unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

fn names(requirement: Requirement, call: libc::c_long, everywhere: bool) {
    for errno in [libc::ENOSYS, libc::EPERM, libc::EACCES] {
        forked(|| {
            for _ in 0..3 {
                prepared(|| {});
            }
            let refuse = libc::SECCOMP_RET_ERRNO | errno as u32;
            if everywhere {
                install_everywhere(&program(&[call], refuse, libc::SECCOMP_RET_ALLOW));
            } else {
                filter(call, refuse);
            }
            let before = slacks();
            for _ in 0..3 {
                let error = set().unwrap_err();
                match &error {
                    Error::Environment { requirement: what, errno: why } => {
                        assert_eq!((*what, why.raw_os_error()), (requirement, errno), "{error}");
                    }
                    _ => panic!("{error}"),
                }
                assert_eq!(error.raw_os_error(), errno);
                no_slack_has_changed(&before);
            }
        });
    }
}

#[test]
fn the_signal_is_refused_in_all_threads() {
    isolated("the_signal_is_refused_in_all_threads", WATCHDOG, || {
        names(Requirement::SendSignal, libc::SYS_rt_tgsigqueueinfo, true);
    });
}

#[test]
fn the_signal_is_refused_in_the_caller() {
    isolated("the_signal_is_refused_in_the_caller", WATCHDOG, || {
        names(Requirement::SendSignal, libc::SYS_rt_tgsigqueueinfo, false);
    });
}

#[test]
fn the_ids_are_refused_in_all_threads() {
    isolated("the_ids_are_refused_in_all_threads", WATCHDOG, || {
        names(Requirement::ThreadId, libc::SYS_gettid, true);
    });
}

#[test]
fn the_ids_are_refused_in_the_caller() {
    isolated("the_ids_are_refused_in_the_caller", WATCHDOG, || {
        names(Requirement::ThreadId, libc::SYS_gettid, false);
    });
}

/// Another thread may lack what only the caller needs. If a held thread may not ask for its tid, it either performs the
/// call, or the call fails at once with nothing changed.
#[test]
fn refused_in_one_other_thread() {
    isolated("refused_in_one_other_thread", WATCHDOG, || {
        for call in [libc::SYS_rt_tgsigqueueinfo, libc::SYS_gettid, libc::SYS_getpid] {
            forked(|| {
                prepared(|| {});
                prepared(move || filter(call, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
                let before = slacks();
                match set() {
                    Ok(report) => {
                        assert_eq!((report.threads(), report.divergent()), (3, 0), "{report:?}");
                        // Only root may read the slack of other threads.
                        let set = |slack: &str| slack.is_empty() || slack.trim() == "4321";
                        assert!(slacks().iter().all(|(_, slack)| set(slack)));
                    }
                    Err(error) => {
                        assert_ne!(call, libc::SYS_rt_tgsigqueueinfo, "{error}");
                        println!("{call}: {error}");
                        no_slack_has_changed(&before);
                    }
                }
            });
        }
    });
}

/// The user's signal queue has no room at all, and waiting does not change that.
#[test]
fn no_signal_may_be_queued() {
    isolated_as_root("no_signal_may_be_queued", WATCHDOG, || {
        prepared(|| {});
        // SAFETY: the ids are numbers.
        unsafe { libpsx::syscall3(libc::SYS_setresuid, 65534, 65534, 65534) }.unwrap();
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads the structure.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) }, 0);
        for _ in 0..3 {
            let error = no_new_privs().unwrap_err();
            assert!(matches!(error, Error::SignalQueueFull), "{error}");
            all_have("NoNewPrivs", "0");
        }
    });
}

/// After a refusal the process is unchanged: without the cause, the next call is made.
#[test]
fn another_thread_may() {
    isolated("another_thread_may", WATCHDOG, || {
        prepared(|| {});
        let refused = std::thread::spawn(|| {
            filter(libc::SYS_rt_tgsigqueueinfo, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
            assert!(set().is_err());
        });
        refused.join().unwrap();
        assert_eq!(set_slack(5).unwrap().divergent(), 0);
    });
}

/// If a broadcast gives every thread its own Landlock domain, the kernel may refuse signals between them (before Linux
/// 6.15). A later call is then made in every thread, or it fails and nothing has changed.
#[test]
fn a_later_call_under_scoped_landlock_domains() {
    isolated("a_later_call_under_scoped_landlock_domains", WATCHDOG, || {
        const SCOPE_SIGNAL: u64 = 1 << 1;
        support::sleepers(6);
        let attributes = [0u64, 0, SCOPE_SIGNAL];
        let at = attributes.as_ptr();
        let size = size_of_val(&attributes);
        // SAFETY: landlock_create_ruleset reads that many bytes.
        let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, at, size, 0) };
        if ruleset < 0 {
            support::skipped(format!("a scoped ruleset: {}", std::io::Error::last_os_error()));
            return;
        }
        support::set_slack(1111).unwrap();
        let (nnp, ruleset) = (libc::PR_SET_NO_NEW_PRIVS as usize, ruleset as usize);
        // SAFETY: the call takes numbers.
        unsafe { libpsx::syscall3(libc::SYS_prctl, nnp, 1, 0) }.unwrap();
        // SAFETY: the call takes numbers.
        unsafe { libpsx::syscall3(libc::SYS_landlock_restrict_self, ruleset, 0, 0) }.unwrap();
        let call = support::slack(2222).deadline(Duration::from_secs(1));
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let done = unsafe { call.execute_with_report() };
        let expected = if done.is_ok() { "2222" } else { "1111" };
        let tids = support::proc::tids();
        for tid in &tids {
            let value = std::fs::read_to_string(format!("/proc/{tid}/timerslack_ns"));
            let value = value.map(|text| text.trim().to_owned()).unwrap_or_default();
            assert!(value.is_empty() || value == expected, "{tid}: {value}, {done:?}");
        }
        assert!(done.is_err() || done.is_ok_and(|report| report.threads() == tids.len()));
    });
}
