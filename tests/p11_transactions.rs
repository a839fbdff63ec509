//! Several calls in one stop (P11): every thread performs all of them, or as many as the error says.
#![allow(unsafe_code)]

#[path = "p11_transactions/filters.rs"]
mod filters;
mod support;

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libpsx::process::{Capability, Unchanged, setreuid};
use libpsx::process::{
    CapabilitySets, Gid, Instruction, Operation, SeccompFlags, Synchronization, Uid,
    cap_ambient_clear_all, cap_ambient_lower, capbset_drop, capset, chdir, chroot, fchdir, seccomp,
    set_all_gids, set_all_uids, set_keepcaps, set_no_new_privs, set_timer_slack, setgroups,
};
use libpsx::{
    CallOutcome, Error, PartialFailureAction, RefusalReason, Requirement, ResultCheck, Sensitivity,
    Transaction, TransactionError,
};
use support::{
    Asked, all_have, filter, isolated, isolated_as_root, isolated_status, prepared, proc,
    slack_here, sleepers,
};

const WATCHDOG: Duration = Duration::from_secs(60);

const ALLOW: Instruction = Instruction { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };

fn slack(nanos: u64) -> Operation<'static> {
    set_timer_slack(Duration::from_nanos(nanos))
}

/// An operation with a capability that does not exist, so it fails for every caller.
fn failing() -> Operation<'static> {
    cap_ambient_lower(Capability::new(63).unwrap())
}

/// Checks the slack of this thread and of the threads in `asked`.
fn all_slack(asked: &Asked, wanted: u64) {
    asked.all_answer(|| slack_here() as i64, wanted as i64);
}

#[test]
fn a_failing_call_at_each_position() {
    isolated("a_failing_call_at_each_position", WATCHDOG, || {
        let asked = Asked::new(4);
        for position in 0..4u64 {
            let base = 1000 * (position + 1);
            slack(base).execute().unwrap();
            let mut transaction = Transaction::new();
            for index in 0..4 {
                let next = if index == position { failing() } else { slack(base + index + 1) };
                transaction = transaction.with(next);
            }
            match transaction.execute() {
                Err(TransactionError::NothingChanged(Error::Call(errno))) => {
                    assert_eq!((position, errno.raw_os_error()), (0, libc::EINVAL));
                }
                Err(TransactionError::Partial(partial)) => {
                    assert_eq!(partial.index() as u64, position);
                    assert_eq!(partial.raw_os_error(), libc::EINVAL);
                    let text = partial.to_string();
                    let wanted = format!("call {position} (prctl) failed: EINVAL");
                    assert!(text.starts_with(&wanted), "{text}");
                }
                other => panic!("{other:?}"),
            }
            all_slack(&asked, base + position);
        }
    });
}

#[test]
fn only_a_transaction_without_calls_is_empty() {
    assert_eq!((Transaction::new().len(), Transaction::new().is_empty()), (0, true));
    let one = Transaction::new().with(slack(1));
    assert_eq!((one.len(), one.is_empty()), (1, false));
}

#[test]
fn a_single_thread_gets_the_same_results() {
    isolated("a_single_thread_gets_the_same_results", WATCHDOG, || {
        support::forked(|| {
            let transaction = Transaction::new().with(slack(7)).with(failing()).with(slack(9));
            let Err(TransactionError::Partial(partial)) = transaction.execute() else { panic!() };
            assert_eq!((partial.index(), slack_here()), (1, 7));
        });
    });
}

/// A signal that arrives between the calls is handled after all of them.
#[test]
fn no_handler_runs_between_the_calls_of_a_single_thread() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: i32) {
        SEEN.store(slack_here(), Ordering::SeqCst);
    }
    isolated("no_handler_runs_between_the_calls_of_a_single_thread", WATCHDOG, || {
        support::forked(|| {
            let handler = handler as extern "C" fn(i32);
            // SAFETY: the handler makes a system call.
            unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
            let pid = std::process::id() as usize;
            let raise = [pid, libc::SIGUSR1 as usize, 0, 0, 0, 0];
            let transaction = Transaction::new().with(slack(7));
            // SAFETY: the call takes only numbers.
            let transaction =
                unsafe { transaction.with_call(libc::SYS_kill, raise, ResultCheck::SameResult) };
            transaction.with(slack(9)).execute().unwrap();
            assert_eq!(SEEN.load(Ordering::SeqCst), 9);
            // The signal is unblocked again.
            // SAFETY: see the comment above.
            unsafe { libc::raise(libc::SIGUSR1) };
            slack(11).execute().unwrap();
            // SAFETY: see the comment above.
            unsafe { libc::raise(libc::SIGUSR1) };
            assert_eq!(SEEN.load(Ordering::SeqCst), 11);
        });
    });
}

/// The later questions leave less room than the earlier ones need.
#[test]
fn asked_twice() {
    isolated_as_root("asked_twice", WATCHDOG, || {
        sleepers(5);
        let groups: Vec<Gid> = (1..2000).map(Gid::new).collect::<Result<_, _>>().unwrap();
        setgroups(&groups).execute().unwrap();
        let report = Transaction::new()
            .query_identities(2000)
            .query_identities(1)
            .execute_with_report()
            .unwrap();
        let mut told: Vec<i32> = report.identities().map(|one| one.tid()).collect();
        told.sort_unstable();
        let mut tids = proc::tids();
        tids.sort_unstable();
        assert_eq!(told, tids);
        for one in report.identities() {
            assert_eq!(one.uids().map(|ids| (ids.real, ids.filesystem)), Some((0, 0)));
            assert!(one.capabilities().is_some() && one.bounding().is_some());
        }
    });
}

#[test]
fn killed_rather_than_partial() {
    let begun = Instant::now();
    let (status, output) = isolated_status("killed_rather_than_partial", WATCHDOG, || {
        sleepers(2);
        let transaction = Transaction::new().with(slack(5)).with(failing());
        let done = transaction.on_partial_failure(PartialFailureAction::Kill).execute();
        println!("continued: {done:?}");
    });
    if support::killed_by_libpsx(status.into_raw(), begun, &output) {
        let line = "libpsx: call 1 of a transaction, prctl(0x2f, 0x3, 0x3f,";
        assert!(output.contains(line), "{output}");
        assert!(output.contains("returned -22 (EINVAL)"), "{output}");
    }
    assert!(!output.contains("continued"), "{output}");
}

#[test]
fn refused_before_anything_is_done() {
    isolated("refused_before_anything_is_done", WATCHDOG, || {
        sleepers(2);
        let refused = |transaction: Transaction<'_>| match transaction.execute() {
            Err(TransactionError::NothingChanged(Error::Refused(why))) => why,
            other => panic!("{other:?}"),
        };
        let begun = || Transaction::new().with(slack(12345));
        let before = slack_here();
        let everywhere = seccomp(&[ALLOW], Synchronization::Kernel, SeccompFlags::EMPTY);
        assert_eq!(
            refused(Transaction::new().with(everywhere).with(slack(1))),
            RefusalReason::NotLast
        );
        // SAFETY: the call is refused.
        let exit = unsafe { begun().with_call(libc::SYS_exit, [0; 6], ResultCheck::SameResult) };
        assert_eq!(refused(exit), RefusalReason::EndsThread);
        assert_eq!(slack_here(), before);
        assert_eq!(Transaction::new().execute().unwrap(), 0);
    });
}

/// A transaction has room for as many calls as are appended. Each is performed in its turn, wherever it is stored, and
/// in a copy too.
#[test]
fn any_number_of_calls() {
    isolated("any_number_of_calls", WATCHDOG, || {
        let asked = Asked::new(2);
        for count in [1u64, 15, 16, 17, 40, 500] {
            let slacks = (1..=count).map(|number| slack(1_000_000 * count + number));
            let transaction = Transaction::new().with_all(slacks);
            assert_eq!(transaction.len() as u64, count);
            let failing = transaction.clone().with(failing()).with(slack(1));
            transaction.execute().unwrap();
            drop(transaction);
            all_slack(&asked, 1_000_000 * count + count);
            slack(7).execute().unwrap();
            match failing.execute() {
                Err(TransactionError::Partial(partial)) => {
                    assert_eq!(partial.index() as u64, count);
                }
                other => panic!("{other:?}"),
            }
            all_slack(&asked, 1_000_000 * count + count);
        }
    });
}

/// Questions have no number: an error and a report count only the calls that were appended.
#[test]
fn questions_take_no_number() {
    isolated_as_root("questions_take_no_number", WATCHDOG, || {
        sleepers(2);
        prepared(|| filter(libc::SYS_setfsuid, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
        let asked_in_the_middle =
            || Transaction::new().with(slack(10)).query_identities(0).with(slack(20));
        assert_eq!(asked_in_the_middle().len(), 2);
        let report = asked_in_the_middle().execute_with_report().unwrap();
        assert!(report.results().iter().all(|result| result.call() == 1), "{report:?}");
        assert_eq!(report.identities().count(), 5);
        // The filter refuses setfsuid(2), so one thread cannot report its file-access user ID.
        let told = report.identities().filter(|one| one.uids().is_some()).count();
        assert_eq!(told, 4);

        match asked_in_the_middle().with(failing()).execute() {
            Err(TransactionError::Partial(partial)) => assert_eq!(partial.index(), 2),
            other => panic!("{other:?}"),
        }
        let report = Transaction::new()
            .with(slack(10))
            .with(slack(20))
            .query_identities(0)
            .execute_with_report()
            .unwrap();
        assert!(report.results().iter().all(|result| result.call() == 2), "{report:?}");

        let fsuid = libpsx::process::setfsuid(Unchanged);
        let transaction = asked_in_the_middle().with(fsuid).sensitivity(Sensitivity::Ignore);
        let report = transaction.execute_with_report().unwrap();
        assert_eq!(report.divergent(), 1);
        assert!(report.results().iter().all(|result| result.call() == 2), "{report:?}");
        let report = Transaction::new()
            .with(fsuid)
            .query_identities(0)
            .sensitivity(Sensitivity::Ignore)
            .execute_with_report();
        let report = report.unwrap();
        assert_eq!(report.divergent(), 1);
        let differ: Vec<_> = report.results().iter().filter(|result| result.call() == 0).collect();
        assert_eq!((differ.len(), report.results().len()), (1, 4), "{report:?}");
    });
}

/// The error says for how many calls there was no memory. Nothing is performed.
#[test]
fn no_memory_for_the_calls() {
    isolated("no_memory_for_the_calls", WATCHDOG, || {
        let asked = Asked::new(2);
        slack(5).execute().unwrap();
        let large = Transaction::new().with_all((0..5000).map(|_| slack(6)));
        let none = libc::rlimit { rlim_cur: 1 << 20, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the kernel reads the limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &none) }, 0);
        let lacking = [
            (large.execute(), 5000),
            (large.clone().execute(), 5000),
            (Transaction::new().with_all((0..40).map(|_| slack(6))).execute(), 17),
            (Transaction::new().with(slack(6)).query_identities(0).execute(), 137),
        ];
        let sixteen = Transaction::new().with_all((0..16).map(|_| slack(8))).execute();
        // The test itself needs memory to check the results.
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, ..none };
        // SAFETY: the kernel reads the limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &all) }, 0);
        for (result, wanted) in lacking {
            let Err(TransactionError::NothingChanged(error)) = result else { panic!("{result:?}") };
            let Error::Environment { requirement: Requirement::TransactionMemory(count), .. } =
                error
            else {
                panic!("{error}")
            };
            assert_eq!((count, error.raw_os_error()), (wanted, libc::ENOMEM));
            let text = format!("no memory for the {wanted} calls of the transaction: ENOMEM");
            assert!(error.to_string().starts_with(&text), "{error}");
        }
        // The calls that fit into the value were made.
        sixteen.unwrap();
        all_slack(&asked, 8);
    });
}

/// A thread that sees one of the changes sees all of them, also the change that the kernel makes.
#[test]
fn no_thread_runs_in_an_intermediate_state() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    static BETWEEN: AtomicUsize = AtomicUsize::new(0);
    fn filters() -> bool {
        // SAFETY: PR_GET_SECCOMP touches no memory.
        unsafe { libc::prctl(libc::PR_GET_SECCOMP) == 2 }
    }
    isolated("no_thread_runs_in_an_intermediate_state", WATCHDOG, || {
        for by_kernel in [true, false] {
            support::forked(|| {
                let asked = Asked::new(2);
                set_no_new_privs().execute().unwrap();
                slack(1).execute().unwrap();
                for _ in 0..3 {
                    std::thread::spawn(|| {
                        loop {
                            let (filtered, slack) = (filters(), slack_here());
                            // A thread that has read the new slack reads the filter after that, and must have it.
                            let between = (filtered && slack == 1) || (slack != 1 && !filters());
                            BETWEEN.fetch_add(usize::from(between), Ordering::SeqCst);
                            SEEN.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
                while SEEN.load(Ordering::SeqCst) < 1000 {
                    std::thread::yield_now();
                }
                let transaction = Transaction::new().with(slack(2)).with(slack(3));
                let how =
                    if by_kernel { Synchronization::Kernel } else { Synchronization::Broadcast };
                transaction.with(seccomp(&[ALLOW], how, SeccompFlags::EMPTY)).execute().unwrap();
                all_have("Seccomp_filters", "1");
                all_slack(&asked, 3);
                let seen = SEEN.load(Ordering::SeqCst);
                while SEEN.load(Ordering::SeqCst) < seen + 1000 {
                    std::thread::yield_now();
                }
                assert_eq!(BETWEEN.load(Ordering::SeqCst), 0);
            });
        }
    });
}

/// The thread that differs performs no later call, and the other threads perform all of them.
#[test]
fn a_thread_differs_at_one_of_the_calls() {
    isolated_as_root("a_thread_differs_at_one_of_the_calls", WATCHDOG, || {
        const EPERM: u32 = libc::EPERM as u32;
        sleepers(2);
        prepared(|| filter(libc::SYS_setfsuid, libc::SECCOMP_RET_ERRNO | EPERM));
        let fsuid = libpsx::process::setfsuid(Unchanged);
        let transaction = Transaction::new().with(slack(100)).with(fsuid).with(slack(200));
        let report = transaction.sensitivity(Sensitivity::Ignore).execute_with_report().unwrap();
        assert_eq!((report.threads(), report.divergent()), (5, 1));
        for result in report.results() {
            let path = format!("/proc/{}/timerslack_ns", result.tid());
            let slack = std::fs::read_to_string(path).unwrap();
            match result.outcome() {
                CallOutcome::Returned(_) => assert_eq!((result.call(), slack.trim()), (2, "200")),
                CallOutcome::Failed(errno) => {
                    assert_eq!((result.call(), slack.trim()), (1, "100"));
                    assert_eq!(errno.raw_os_error(), libc::EPERM);
                }
                CallOutcome::Died | CallOutcome::Siglongjmp => panic!("{report:?}"),
            }
        }
    });
}

/// The calls of a daemon that has started.
#[test]
fn dropping_root() {
    isolated_as_root("dropping_root", WATCHDOG, || {
        sleepers(5);
        let (user, group) = (Uid::new(65534).unwrap(), Gid::new(65534).unwrap());
        let extra = [Gid::new(7), Gid::new(100)].map(Result::unwrap);
        let kept = CapabilitySets {
            effective: Capability::NET_BIND_SERVICE.into(),
            permitted: Capability::NET_BIND_SERVICE.into(),
            ..CapabilitySets::EMPTY
        };
        let report = Transaction::new()
            .with(set_keepcaps(true))
            .with(cap_ambient_clear_all())
            .with(capbset_drop(Capability::SYS_PTRACE))
            .with(setgroups(&extra))
            .with(set_all_gids(group))
            .with(set_all_uids(user))
            .with(capset(kept))
            .with(set_no_new_privs())
            .on_partial_failure(PartialFailureAction::Kill)
            .execute_with_report()
            .unwrap();
        assert_eq!((report.threads(), report.divergent()), (7, 0));
        all_have("Uid", "65534\t65534\t65534\t65534");
        all_have("Gid", "65534\t65534\t65534\t65534");
        all_have("Groups", "7 100");
        all_have("CapEff", "0000000000000400");
        all_have("CapPrm", "0000000000000400");
        all_have("CapInh", "0000000000000000");
        all_have("NoNewPrivs", "1");
        let bounding = proc::field_in_every_thread("CapBnd");
        for text in bounding.values() {
            let bits = u64::from_str_radix(text, 16).unwrap();
            assert_eq!(bits & 1 << 19, 0);
        }
        // No thread can become root again.
        let Err(Error::Call(errno)) = setreuid(Uid::ROOT, Unchanged).execute() else { panic!() };
        assert_eq!(errno.raw_os_error(), libc::EPERM);
    });
}

/// Threads share root and working directory. If each of them made the calls, one thread's chroot(".") could come after
/// another thread's last fchdir, and put the process into that directory.
#[test]
fn directories_are_set_once_for_threads_that_share_them() {
    isolated_as_root("directories_are_set_once_for_threads_that_share_them", WATCHDOG, || {
        use std::fs::{File, create_dir_all, metadata};
        sleepers(8);
        let root = std::env::temp_dir().join(format!("psx-directories-{}", std::process::id()));
        create_dir_all(root.join("inside")).unwrap();
        let (outside, inside) =
            (File::open(&root).unwrap(), File::open(root.join("inside")).unwrap());
        // Several times, so that the calls of two threads overlap.
        let calls = [fchdir(&outside), chroot(c"."), fchdir(&inside)];
        let transaction = Transaction::new().with_all(calls.into_iter().cycle().take(30));
        for round in support::repeated(2000, WATCHDOG / 3) {
            transaction.execute().unwrap();
            assert!(metadata("/inside").is_ok(), "call {round}: the root is another directory");
            assert_eq!(std::env::current_dir().unwrap(), std::path::Path::new("/inside"));
        }
    });
}

/// A call of the transaction can end the sharing of the directories. Then each thread has to set its own.
#[test]
fn directories_are_set_by_each_thread_that_unshares_them() {
    isolated("directories_are_set_by_each_thread_that_unshares_them", WATCHDOG, || {
        let asked = Asked::new(4);
        let args = [libc::CLONE_FS as usize, 0, 0, 0, 0, 0];
        // SAFETY: unshare touches no memory.
        let unshared = unsafe {
            Transaction::new().with_call(libc::SYS_unshare, args, ResultCheck::SameResult)
        };
        // The test must not pass because all threads are in "/" already.
        std::env::set_current_dir("/proc").unwrap();
        unshared.with(chdir(c"/")).execute().unwrap();
        asked.all_answer(
            || i64::from(std::env::current_dir().unwrap() == std::path::Path::new("/")),
            1,
        );
    });
}
