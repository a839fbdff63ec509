//! The list of threads is hard to get (P10, P5). The deadline holds, and no tids are probed if that is not necessary.
//! The tests count probes; they do not measure time.
#![cfg(not(target_arch = "loongarch64"))]
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use libpsx::{Broadcast, Error};
use support::emulator::{TRAPPED, emulate_trapped_calls, trapping, without_alternate_stack};
use support::{
    covers, filter, forked, install, isolated, isolated_as_root, prepared, proc, set_slack,
    slack_here, witnesses,
};

const WATCHDOG: Duration = Duration::from_secs(100);

/// From now on, counts how often this thread probes whether a tid is a thread.
fn count_probes() {
    emulate_trapped_calls();
    without_alternate_stack();
    install(&trapping(&[libc::SYS_tgkill, libc::SYS_tkill, libc::SYS_kill, libc::SYS_getpgid]));
}

/// Checks that only the numbers of threads were probed.
fn few_probes(before: usize) {
    let probes = TRAPPED.load(SeqCst) - before;
    assert!(probes < 1000, "{probes} probes");
}

/// The number of tids that are probed one by one where no list says which exist, whatever pid_max is.
const TIDS: usize = 1 << 22;

/// The deadline is 0.1 s, and there is no /proc and no right to mount one. Probing all tids one by one, with a trap for
/// each, takes many times as long. So the call fails, and it has not probed all of them.
#[test]
fn a_deadline_where_tids_are_asked_for() {
    isolated_as_root("a_deadline_where_tids_are_asked_for", WATCHDOG, || {
        for _ in 0..3 {
            prepared(|| {});
        }
        support::enter_empty_root();
        // SAFETY: the ids are numbers.
        unsafe { libpsx::syscall3(libc::SYS_setresuid, 65534, 65534, 65534) }.unwrap();
        let before = slack_here();
        let args = [libc::PR_SET_TIMERSLACK as usize, 4321, 0, 0, 0, 0];
        let call = Broadcast::new(libc::SYS_prctl, args).deadline(Duration::from_millis(100));
        count_probes();
        // If the machine is busy, the time may be over before the first probe.
        while TRAPPED.load(SeqCst) == 0 {
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let error = unsafe { call.execute_with_report() }.unwrap_err();
            let probes = TRAPPED.load(SeqCst);
            println!("{probes} probes: {error}");
            assert!(matches!(error, Error::Unreachable(_) | Error::Environment { .. }), "{error}");
            assert_eq!(slack_here(), before);
            assert!(probes < TIDS, "{probes} probes");
        }
    });
}

/// Landlock hides /proc. The directory cannot be read, but its metadata is enough.
#[test]
fn landlock_costs_no_probes() {
    isolated("landlock_costs_no_probes", WATCHDOG, || {
        let witnesses = witnesses(5);
        if !support::landlock_denies_all_files() {
            return;
        }
        count_probes();
        // The first call after it knows the threads from the last call before it.
        for value in 1001..1005 {
            let before = TRAPPED.load(SeqCst);
            covers(&witnesses, value);
            few_probes(before);
        }
    });
}

/// A filter refuses one of the calls by which the library examines a directory.
#[test]
fn a_directory_that_cannot_be_examined() {
    isolated("a_directory_that_cannot_be_examined", WATCHDOG, || {
        for call in [libc::SYS_fstat, libc::SYS_fstatfs, support::NEWFSTATAT, libc::SYS_statfs] {
            for errno in [libc::EPERM, libc::ENOSYS] {
                forked(|| {
                    for _ in 0..4 {
                        prepared(|| {});
                    }
                    let tids = proc::tids();
                    filter(call, libc::SECCOMP_RET_ERRNO | errno as u32);
                    count_probes();
                    for value in [1001, 1002] {
                        let report = set_slack(value).unwrap();
                        assert_eq!((report.threads(), report.divergent()), (tids.len(), 0));
                    }
                    few_probes(0);
                });
            }
        }
    });
}
