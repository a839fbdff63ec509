//! A Landlock ruleset for every thread. A thread keeps the domain that it has. If a program asks for one domain, a scoped
//! ruleset gets one for all threads if the kernel synchronises them (LANDLOCK_RESTRICT_SELF_TSYNC, ABI 8), and one for
//! each thread otherwise.
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreated, Scope};
use libpsx::process::{
    LandlockFlags, Synchronization, landlock_log_subdomains_off, landlock_restrict_self,
    set_no_new_privs,
};
use privileges::Privileges;
use support::{Asked, Question, add_filter, isolated_as_root, proc, set_slack};

const WATCHDOG: Duration = Duration::from_secs(60);

fn abi() -> libc::c_long {
    let none = std::ptr::null::<u64>();
    // SAFETY: it asks for the version.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, 1) }
}

fn ruleset() -> RulesetCreated {
    let rules = Ruleset::default().handle_access(AccessFs::MakeDir).unwrap();
    rules.scope(Scope::from_all(ABI::V6)).unwrap().create().unwrap()
}

fn name() -> SocketAddr {
    SocketAddr::from_abstract_name(format!("psx-{}", std::process::id())).unwrap()
}

/// Returns whether the calling thread reaches the socket of the main thread. A thread reaches no socket outside of its
/// scoped domain.
fn connects() -> i64 {
    UnixStream::connect_addr(&name()).is_ok().into()
}

/// Returns how many more domains the calling thread can enter. It can have at most 16.
fn domains_left() -> i64 {
    // The right is LANDLOCK_ACCESS_FS_EXECUTE. Any other right would do.
    let handled = 1u64;
    // SAFETY: the kernel reads eight bytes.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &handled, 8, 0) };
    let mut count = 0;
    // SAFETY: it takes numbers.
    while unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) } == 0 {
        count += 1;
    }
    count
}

#[test]
fn the_threads_have_one_domain_if_the_kernel_synchronises_them() {
    isolated_as_root(
        "the_threads_have_one_domain_if_the_kernel_synchronises_them",
        WATCHDOG,
        || {
            if abi() < 6 {
                support::skipped(format!("Landlock's ABI here is {}: it has no scopes", abi()));
                return;
            }
            let synchronised = abi() >= 8;
            let others = Asked::new(5);
            let listed = proc::tids().len();
            let privileges = Privileges::new()
                .stay_root()
                .keep_groups()
                .landlock(ruleset())
                .one_landlock_domain();
            let plan = privileges.plan().unwrap();
            println!("{plan}");
            assert_eq!(plan.to_string().contains("by the kernel in all threads"), synchronised);
            let applied = plan.apply().unwrap();
            // Every thread was asked in the same stop, and then by a process from outside.
            assert_eq!((applied.threads, applied.verified), (listed, listed));
            support::all_have("NoNewPrivs", "1");
            let _listener = UnixListener::bind_addr(&name()).unwrap();
            assert_eq!(connects(), 1);
            for (ask, answered) in &others.0 {
                ask.send(connects).unwrap();
                assert_eq!(answered.recv().unwrap(), i64::from(synchronised));
            }
            if synchronised {
                // The engine still reaches every thread.
                set_slack(777).unwrap();
                add_filter(support::LONG).unwrap();
                assert_eq!(set_slack(778).unwrap().threads(), listed);
            } else {
                support::skipped(format!(
                    "LANDLOCK_RESTRICT_SELF_TSYNC: Landlock's ABI is {}",
                    abi()
                ));
            }
            others.all_answer(domains_left, 15);
        },
    );
}

/// Returns whether the calling thread may read a file.
fn reads() -> i64 {
    std::fs::File::open("/proc/self/comm").is_ok().into()
}

/// A ruleset that denies the making of directories.
fn ruleset_of_descriptor() -> OwnedFd {
    let ruleset = Ruleset::default().handle_access(AccessFs::MakeDir).unwrap().create().unwrap();
    Option::<OwnedFd>::from(ruleset).unwrap()
}

/// Forbids the calling thread to read files. Returns 0, or 1 if landlock_restrict_self(2) failed.
fn forbid_reading() -> i64 {
    // LANDLOCK_ACCESS_FS_READ_FILE
    let handled = 1u64 << 2;
    // SAFETY: the kernel reads eight bytes.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &handled, 8, 0) };
    // SAFETY: it takes numbers.
    i64::from(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) } != 0)
}

/// Starts threads. The first one may read no file from then on.
fn with_a_restricted_thread() -> Asked {
    let others = Asked::new(3);
    let (ask, answered) = &others.0[0];
    ask.send(forbid_reading).unwrap();
    assert_eq!(answered.recv().unwrap(), 0);
    others
}

fn answers(threads: &Asked, question: Question) -> Vec<i64> {
    let mut found = Vec::new();
    for (ask, answered) in &threads.0 {
        ask.send(question).unwrap();
        found.push(answered.recv().unwrap());
    }
    found
}

/// LANDLOCK_RESTRICT_SELF_TSYNC would replace the domain of the thread by the caller's.
#[test]
fn a_thread_keeps_its_domain() {
    isolated_as_root("a_thread_keeps_its_domain", WATCHDOG, || {
        if abi() < 1 {
            support::skipped("this kernel has no Landlock");
            return;
        }
        let others = with_a_restricted_thread();
        assert_eq!((reads(), answers(&others, reads)), (1, vec![0, 1, 1]));
        let ruleset = Ruleset::default().handle_access(AccessFs::MakeSock).unwrap();
        let privileges = Privileges::new().stay_root().keep_groups();
        let plan = privileges.landlock(ruleset.create().unwrap()).plan().unwrap();
        assert!(!plan.to_string().contains("by the kernel"), "{plan}");
        assert_eq!(plan.apply().unwrap().threads, proc::tids().len());
        assert_eq!((reads(), answers(&others, reads)), (1, vec![0, 1, 1]));
        // A flag of the kernel's does not change that.
        let file = ruleset_of_descriptor();
        let flags = LandlockFlags::from_bits(1 << 3);
        let restrict = landlock_restrict_self(&file, Synchronization::Broadcast, flags);
        restrict.execute().unwrap();
        assert_eq!((reads(), answers(&others, reads)), (1, vec![0, 1, 1]));
        assert_eq!(answers(&others, domains_left), [13, 14, 14]);
    });
}

#[test]
fn a_thread_keeps_its_domain_when_logs_are_turned_off() {
    isolated_as_root("a_thread_keeps_its_domain_when_logs_are_turned_off", WATCHDOG, || {
        if abi() < 7 {
            support::skipped(format!("Landlock's ABI here is {}: it has no logs", abi()));
            return;
        }
        let others = with_a_restricted_thread();
        set_no_new_privs().execute().unwrap();
        landlock_log_subdomains_off().execute().unwrap();
        assert_eq!((reads(), answers(&others, reads)), (1, vec![0, 1, 1]));
    });
}

/// This is why one domain is not the default.
#[test]
fn one_domain_replaces_that_of_a_thread() {
    isolated_as_root("one_domain_replaces_that_of_a_thread", WATCHDOG, || {
        if abi() < 1 {
            support::skipped("this kernel has no Landlock");
            return;
        }
        let others = with_a_restricted_thread();
        let ruleset = Ruleset::default().handle_access(AccessFs::MakeSock).unwrap();
        let privileges = Privileges::new().stay_root().keep_groups().one_landlock_domain();
        privileges.landlock(ruleset.create().unwrap()).plan().unwrap().apply().unwrap();
        let first = i64::from(abi() >= 8);
        assert_eq!((reads(), answers(&others, reads)), (1, vec![first, 1, 1]));
    });
}
