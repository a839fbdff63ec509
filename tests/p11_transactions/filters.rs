//! Transactions whose last call is one that the kernel performs in all threads, and filters in other places.

use super::*;

#[test]
fn the_kernel_cannot_synchronise() {
    isolated("filters::the_kernel_cannot_synchronise", WATCHDOG, || {
        let asked = Asked::new(2);
        prepared(|| filter(libc::SYS_vhangup, libc::SECCOMP_RET_LOG));
        set_no_new_privs().execute().unwrap();
        let has_one = proc::tids().into_iter().find(|&tid| proc::status(tid)["Seccomp"] == "2");
        let everywhere = || seccomp(&[ALLOW], Synchronization::Kernel, SeccompFlags::EMPTY);
        match everywhere().execute() {
            Err(Error::TsyncConflict { tid }) => assert_eq!(Some(tid), has_one),
            other => panic!("{other:?}"),
        }
        match Transaction::new().with(slack(77)).with(everywhere()).execute() {
            Err(TransactionError::Partial(partial)) => {
                assert_eq!((partial.index(), partial.tsync_conflict()), (1, has_one));
                assert_eq!(partial.raw_os_error(), libc::ESRCH);
            }
            other => panic!("{other:?}"),
        }
        all_slack(&asked, 77);
        let filtered = proc::field_in_every_thread("Seccomp_filters");
        assert_eq!(filtered.values().filter(|count| *count != "0").count(), 1, "{filtered:?}");
    });
}

/// Questions may follow a filter that the kernel gives to all threads. Each thread answers, and has the filter once.
#[test]
fn questions_after_a_synchronised_filter() {
    isolated("filters::questions_after_a_synchronised_filter", WATCHDOG, || {
        let asked = Asked::new(5);
        set_no_new_privs().execute().unwrap();
        let filter = seccomp(&[ALLOW], Synchronization::Kernel, SeccompFlags::EMPTY);
        let report = Transaction::new()
            .with(slack(4242))
            .with(filter)
            .query_identities(0)
            .execute_with_report()
            .unwrap();
        assert_eq!(report.divergent(), 0);
        let told: Vec<i32> = report.identities().map(|identity| identity.tid()).collect();
        let tids = proc::tids();
        assert_eq!(told.len(), tids.len());
        assert!(tids.iter().all(|tid| told.contains(tid)), "{told:?} {tids:?}");
        assert!(
            report
                .identities()
                .all(|identity| identity.uids().is_some() && identity.no_new_privs())
        );
        all_have("Seccomp_filters", "1");
        all_slack(&asked, 4242);
        // Any other call after the filter is refused.
        let filter = seccomp(&[ALLOW], Synchronization::Kernel, SeccompFlags::EMPTY);
        match Transaction::new().with(filter).with(slack(1)).execute() {
            Err(TransactionError::NothingChanged(Error::Refused(RefusalReason::NotLast))) => {}
            other => panic!("{other:?}"),
        }
        all_have("Seccomp_filters", "1");
        all_slack(&asked, 4242);
    });
}

/// If the calling thread has no_new_privs, no_new_privs and a filter for all threads need no stop. The kernel gives
/// both to every thread, or neither.
#[test]
fn no_new_privs_and_a_synchronised_filter() {
    isolated("filters::no_new_privs_and_a_synchronised_filter", WATCHDOG, || {
        let sandbox = || {
            let filter = seccomp(&[ALLOW], Synchronization::Kernel, SeccompFlags::EMPTY);
            Transaction::new().with(set_no_new_privs()).with(filter)
        };
        let _asked = Asked::new(2);
        // SAFETY: the prctl takes no pointer. The calling thread alone has no_new_privs now.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        prepared(|| filter(libc::SYS_vhangup, libc::SECCOMP_RET_LOG));
        let others = |field: &str, value: &str| {
            let all = proc::field_in_every_thread(field);
            all.values().filter(|has| *has == value).count()
        };
        let before = others("NoNewPrivs", "1");
        match sandbox().on_partial_failure(PartialFailureAction::Kill).execute() {
            Err(TransactionError::NothingChanged(Error::TsyncConflict { .. })) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(others("NoNewPrivs", "1"), before);
        assert_eq!(others("Seccomp_filters", "1"), 1);
    });
}

#[test]
fn no_new_privs_and_a_filter_reach_every_thread() {
    isolated("filters::no_new_privs_and_a_filter_reach_every_thread", WATCHDOG, || {
        let _asked = Asked::new(4);
        // SAFETY: the prctl takes no pointer. The calling thread alone has no_new_privs now.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        let filter = seccomp(&[ALLOW], Synchronization::Kernel, SeccompFlags::EMPTY);
        Transaction::new().with(set_no_new_privs()).with(filter).execute().unwrap();
        all_have("NoNewPrivs", "1");
        all_have("Seccomp_filters", "1");
    });
}

/// The caller's own filter kills it for the last call. The other threads have performed the calls before it, and
/// continue.
#[test]
fn the_caller_dies_in_the_last_call() {
    isolated("filters::the_caller_dies_in_the_last_call", WATCHDOG, || {
        let asked = Asked::new(3);
        set_no_new_privs().execute().unwrap();
        let caller = std::thread::spawn(|| {
            filter(libc::SYS_seccomp, libc::SECCOMP_RET_KILL_THREAD);
            let everywhere = seccomp(&[ALLOW], Synchronization::Kernel, SeccompFlags::EMPTY);
            Transaction::new().with(slack(4321)).with(everywhere).execute()
        });
        while slack_here() != 4321 {
            std::thread::yield_now();
        }
        all_slack(&asked, 4321);
        slack(1234).execute().unwrap();
        all_slack(&asked, 1234);
        // The dead thread never reports its end.
        std::mem::forget(caller);
    });
}
