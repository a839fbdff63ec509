//! Namespaces and scheduling: the kernel's answer for every thread.
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs::{File, read_link};
use std::process::Command;
use std::time::Duration;

use privileges::{
    Error, IoPriority, Namespace, Privileges, Problem, Resource, SchedAttr, SchedPolicy,
};
use support::{filter, isolated_as_root, prepared, proc, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);

fn nobody() -> Privileges {
    Privileges::new().user(65534).group(65534).groups(privileges::Groups::NONE)
}

/// Returns the namespaces of all threads: one entry if all threads are in the same one.
fn namespaces(link: &str) -> BTreeSet<String> {
    let of_one = |tid| read_link(format!("/proc/self/task/{tid}/ns/{link}")).unwrap();
    proc::tids().into_iter().map(|tid| of_one(tid).to_string_lossy().into_owned()).collect()
}

/// Returns whether namespaces can be made, and prints the reason if not.
fn can_unshare() -> bool {
    let made =
        libpsx::process::unshare(Namespace::Network).and(libpsx::process::unshare(Namespace::Uts));
    if let Err(error) = &made {
        support::skipped(format!("no namespace can be made here: {error}"));
    }
    made.is_ok()
}

#[test]
fn all_threads_in_the_same_new_namespaces() {
    isolated_as_root("all_threads_in_the_same_new_namespaces", WATCHDOG, || {
        if !can_unshare() {
            return;
        }
        sleepers(3);
        let before = ["net", "uts", "ipc"].map(namespaces);
        let plan = nobody().new_namespace(Namespace::Network).new_namespace(Namespace::Uts);
        let plan = plan.plan().unwrap();
        let shown = plan.to_string();
        assert!(shown.contains("setns Network (a new one)"), "{shown}");
        assert!(
            shown.contains("the Uts namespace") && shown.contains("other namespaces"),
            "{shown}"
        );
        let applied = plan.apply().unwrap();
        let threads = proc::tids().len();
        assert_eq!((applied.threads, applied.verified), (threads, threads));
        let after = ["net", "uts", "ipc"].map(namespaces);
        assert!(after.iter().all(|kind| kind.len() == 1), "{after:?}");
        assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2]);
        support::all_have("Uid", "65534\t65534\t65534\t65534");
    });
}

#[test]
fn an_existing_namespace_is_joined() {
    isolated_as_root("an_existing_namespace_is_joined", WATCHDOG, || {
        if !can_unshare() {
            return;
        }
        sleepers(3);
        let (file, old) = (File::open("/proc/self/ns/net").unwrap(), namespaces("net"));
        libpsx::process::unshare_all(&[Namespace::Network]).unwrap();
        assert_ne!(namespaces("net"), old);
        nobody().join_namespace(Namespace::Network, file).plan().unwrap().apply().unwrap();
        assert_eq!(namespaces("net"), old);
    });
}

/// Starts a thread whose filter pretends that the thread has moved.
#[test]
fn a_thread_in_the_old_namespace_is_detected() {
    isolated_as_root("a_thread_in_the_old_namespace_is_detected", WATCHDOG, || {
        if !can_unshare() {
            return;
        }
        prepared(|| filter(libc::SYS_setns, libc::SECCOMP_RET_ERRNO));
        let plan = nobody().new_namespace(Namespace::Network).report_failure().plan().unwrap();
        match plan.apply() {
            Err(Error::NotDropped(wrong)) => {
                assert!(
                    wrong.iter().all(|one| one.what == "ns/net") && wrong.len() == 1,
                    "{wrong:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    });
}

/// Lets the filters of all threads, the calling one too, pretend a move. The process stays in its namespace.
#[test]
fn a_process_in_the_old_namespace_is_detected() {
    isolated_as_root("a_process_in_the_old_namespace_is_detected", WATCHDOG, || {
        if !can_unshare() {
            return;
        }
        sleepers(1);
        // The namespace that is joined is not the present one.
        let other = std::thread::spawn(|| {
            // SAFETY: it takes a number.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let other = other.join().unwrap();
        let plan = nobody().join_namespace(Namespace::Network, other).report_failure();
        let plan = plan.plan().unwrap();
        let pretend = support_program();
        let how = libpsx::process::Synchronization::Broadcast;
        libpsx::process::seccomp(&pretend, how, Default::default()).execute().unwrap();
        match plan.apply() {
            Err(Error::NotDropped(wrong)) => {
                assert!(wrong.iter().any(|one| one.what == "ns/net" && one.tid == 0), "{wrong:?}");
            }
            other => panic!("{other:?}"),
        }
    });
}

/// Returns a filter under which setns(2) returns 0 and does nothing.
fn support_program() -> [privileges::Instruction; 4] {
    let step = |code, jt, jf, k| privileges::Instruction { code, jt, jf, k };
    [
        step(0x20, 0, 0, 0),
        step(0x15, 0, 1, libc::SYS_setns as u32),
        step(0x06, 0, 0, libc::SECCOMP_RET_ERRNO),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[test]
fn scheduling_changes_every_thread() {
    isolated_as_root("scheduling_changes_every_thread", WATCHDOG, || {
        sleepers(3);
        let plan = nobody()
            .scheduling(SchedAttr::new(SchedPolicy::Batch(5)))
            .io_priority(IoPriority::Idle)
            .cpus([0])
            .timer_slack(Duration::from_millis(3))
            .plan()
            .unwrap();
        let shown = plan.to_string();
        assert!(
            shown.contains("ioprio_set Idle") && shown.contains("sched_setaffinity 0"),
            "{shown}"
        );
        assert!(!shown.contains("; scheduling"), "{shown}");
        plan.apply().unwrap();
        support::all_have("Cpus_allowed_list", "0");
        for tid in proc::tids() {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
            // Fields 19 and 41, and the second one ends with a bracket.
            let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            assert_eq!((fields[16], fields[38]), ("5", libc::SCHED_BATCH.to_string().as_str()));
            // SAFETY: it takes numbers.
            let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, tid) };
            assert_eq!(priority >> 13, 3);
        }
        // SAFETY: it touches no memory.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }, 3_000_000);
    });
}

#[test]
fn nice_changes_every_thread() {
    isolated_as_root("nice_changes_every_thread", WATCHDOG, || {
        sleepers(2);
        nobody().nice(7).plan().unwrap().apply().unwrap();
        for tid in proc::tids() {
            // SAFETY: it takes numbers.
            assert_eq!(unsafe { libc::getpriority(libc::PRIO_PROCESS, tid as u32) }, 7);
        }
    });
}

#[test]
fn a_program_in_a_new_namespace() {
    isolated_as_root("a_program_in_a_new_namespace", WATCHDOG, || {
        if !can_unshare() {
            return;
        }
        sleepers(2);
        let before = namespaces("net");
        let mut command = Command::new("readlink");
        command.arg("/proc/self/ns/net").stdout(std::process::Stdio::piped());
        let plan = nobody().new_namespace(Namespace::Network).nice(3).plan().unwrap();
        let output = plan.spawn(command).unwrap().wait_with_output().unwrap();
        let theirs = String::from_utf8(output.stdout).unwrap();
        assert!(theirs.starts_with("net:[") && !before.contains(theirs.trim()), "{theirs}");
        assert_eq!(namespaces("net"), before);
    });
}

#[test]
fn contradictions_are_reported_by_the_plan() {
    isolated_as_root("contradictions_are_reported_by_the_plan", WATCHDOG, || {
        let net = || File::open("/proc/self/ns/net").unwrap();
        let twice = |settings: Privileges, first, second| match settings.plan() {
            Err(Error::Plan(problems)) => {
                let [Problem::ConflictingSettings(a, b)] = problems[..] else {
                    panic!("{problems:?}")
                };
                assert_eq!((a, b), (first, second));
            }
            other => panic!("{other:?}"),
        };
        let attributes = SchedAttr::new(SchedPolicy::Idle);
        twice(nobody().scheduling(attributes).nice(1), "scheduling", "nice");
        let both =
            nobody().new_namespace(Namespace::Network).join_namespace(Namespace::Network, net());
        twice(both, "new_namespace", "join_namespace");
        let two = nobody()
            .join_namespace(Namespace::Network, net())
            .join_namespace(Namespace::Network, net());
        twice(two, "join_namespace", "join_namespace");
        // A file that is not a namespace, and a namespace of another kind.
        for name in ["/proc/self/status", "/proc/self/ns/uts"] {
            let file = File::open(name).unwrap();
            let Err(Error::Plan(found)) = nobody().join_namespace(Namespace::Network, file).plan()
            else {
                panic!("{name}")
            };
            let network = Namespace::Network;
            assert!(
                matches!(found[..], [Problem::OtherNamespace { kind }] if kind == network),
                "{name}: {found:?}"
            );
        }
        nobody().plan().unwrap().apply().unwrap();
        match Privileges::new().new_namespace(Namespace::Network).plan() {
            Err(Error::Plan(problems)) => assert!(
                matches!(
                    problems[..],
                    [Problem::MissingCapability {
                        capability: privileges::Capability::SYS_ADMIN,
                        ..
                    }]
                ),
                "{problems:?}"
            ),
            other => panic!("{other:?}"),
        }
    });
}

/// Passes values that the kernel would refuse in the middle, or would change. Each is a problem before any change.
#[test]
fn values_of_scheduling_are_checked_by_the_plan() {
    let problems = |settings: Privileges| match settings.plan() {
        Err(Error::Plan(problems)) => problems,
        other => panic!("{other:?}"),
    };
    let own = || Privileges::new().stay_root().keep_groups();
    let out_of_range: [(Privileges, i64); 10] = [
        (own().nice(20), 20),
        (own().nice(-21), -21),
        (own().scheduling(SchedAttr::new(SchedPolicy::Batch(40))), 40),
        (own().scheduling(SchedAttr::new(SchedPolicy::Fifo(0))), 0),
        (own().scheduling(SchedAttr::new(SchedPolicy::RoundRobin(100))), 100),
        (own().scheduling(SchedAttr::keep_all().util_max(1025)), 1025),
        (own().scheduling(SchedAttr::keep_all().util_min(500).util_max(400)), 500),
        (own().io_priority(IoPriority::BestEffort(8)), 8),
        (own().io_priority(IoPriority::RealTime(9)), 9),
        (own().scheduling(SchedAttr::new(SchedPolicy::Other(-100))), -100),
    ];
    for (settings, value) in out_of_range {
        let shown = format!("{settings:?}");
        let found = problems(settings);
        assert!(
            found.iter().any(
                |one| matches!(one, Problem::OutOfRange { value: other, .. } if *other == value)
            ),
            "{shown}: {found:?}"
        );
    }
    // A register of a 32-bit CPU has no room for it.
    let plan = own().timer_slack(Duration::from_secs(5)).plan();
    assert_eq!(plan.is_err(), cfg!(target_pointer_width = "32"), "{plan:?}");
    let fine = own()
        .scheduling(SchedAttr::keep_all().util_min(SchedAttr::UTIL_RESET).util_max(1024))
        .io_priority(IoPriority::BestEffort(7))
        .cpus([0, 4000])
        .timer_slack(Duration::from_nanos(1));
    assert!(fine.plan().is_ok());
    for nobody_s in [own().cpus([4000, 4001]), own().cpus([])] {
        let found = problems(nobody_s);
        assert!(matches!(found.as_slice(), [Problem::NoCpu { .. }]), "{found:?}");
    }
    let found = problems(own().limit(Resource::Nofile, 2, 1));
    assert!(matches!(found.as_slice(), [Problem::SoftAboveHard { .. }]), "{found:?}");
    assert!(found[0].to_string().contains("RLIMIT_NOFILE"), "{}", found[0]);
}

/// Hides the list of CPUs in /sys. /proc shows them too.
#[test]
fn cpus_are_checked_without_sys() {
    isolated_as_root("cpus_are_checked_without_sys", WATCHDOG, || {
        if !support::laid_over("/sys/devices/system/cpu/online", "/dev/null") {
            return;
        }
        let own = || Privileges::new().stay_root().keep_groups();
        let Err(Error::Plan(problems)) = own().cpus([4000]).plan() else { panic!("a plan") };
        let [Problem::NoCpu { online, .. }] = &problems[..] else { panic!("{problems:?}") };
        assert!(own().cpus(online.iter().map(|&cpu| cpu as u16)).plan().is_ok(), "{online:?}");
    });
}

/// Drops the capability. Values that need it are problems then, and values within the limits are not.
#[test]
fn priorities_need_their_capability() {
    isolated_as_root("priorities_need_their_capability", WATCHDOG, || {
        Privileges::new()
            .user(65534)
            .group(65534)
            .groups(privileges::Groups::NONE)
            .plan()
            .unwrap()
            .apply()
            .unwrap();
        let plan = |settings: Privileges| settings.plan().map(drop);
        let own = Privileges::new;
        for settings in [
            own().nice(-20),
            own().scheduling(SchedAttr::new(SchedPolicy::Fifo(99))),
            own().io_priority(IoPriority::RealTime(0)),
            own().limit(Resource::Nofile, 1, u64::MAX),
        ] {
            let shown = format!("{settings:?}");
            let text = plan(settings).unwrap_err().to_string();
            assert!(text.contains("it needs cap_sys_"), "{shown}: {text}");
        }
        // The highest value is never a lower one, however nice the test is.
        for settings in [own().nice(19), own().scheduling(SchedAttr::new(SchedPolicy::Batch(19)))] {
            plan(settings).unwrap();
        }
    });
}
