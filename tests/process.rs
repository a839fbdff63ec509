//! The typed calls, each seen in every thread: in /proc, or by asking in the thread.
#![allow(unsafe_code)]

mod support;

use std::time::Duration;

use libpsx::process::*;
use libpsx::{Error, Refusal, Transaction, TransactionError};
use support::{Asked, all_have, forked, isolated, isolated_as_root, proc, slack_here, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);

/// One case: a process with threads of the C library, of std, and made by raw clone(2).
#[must_use]
fn threads() -> Asked {
    sleepers(2);
    #[cfg(target_arch = "x86_64")]
    support::raw::raw_threads(1);
    Asked::new(2)
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> i32 {
    match result {
        Err(Error::Call(errno)) => errno.raw(),
        other => panic!("not refused by the kernel: {other:?}"),
    }
}

/// Fields of proc_pid_stat(5), counted from 1.
fn all_stat(field: usize, wanted: &str) {
    for tid in proc::tids() {
        let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
        let after = text.rsplit_once(") ").unwrap().1;
        assert_eq!(after.split(' ').nth(field - 3), Some(wanted), "field {field} of {tid}");
    }
}

fn uid(raw: u32) -> Option<Uid> {
    Uid::new(raw)
}

fn gid(raw: u32) -> Option<Gid> {
    Gid::new(raw)
}

#[test]
fn minus_one_is_nobody() {
    assert_eq!((uid(u32::MAX), gid(u32::MAX)), (None, None));
    assert_eq!((uid(7).unwrap().raw(), gid(8).unwrap().raw()), (7, 8));
}

#[test]
fn user_ids() {
    isolated_as_root("user_ids", WATCHDOG, || {
        forked(|| {
            let _asked = threads();
            setresuid(uid(1), uid(0), None).perform().unwrap();
            all_have("Uid", "1\t0\t0\t0");
            setreuid(uid(2), None).perform().unwrap();
            all_have("Uid", "2\t0\t0\t0");
            setfsuid(uid(5)).perform().unwrap();
            all_have("Uid", "2\t0\t0\t5");
            assert_eq!(setfsuid(None).perform().unwrap(), 5);
            setuid(uid(6).unwrap()).perform().unwrap();
            all_have("Uid", "6\t6\t6\t6");
            assert_eq!(errno(setuid(Uid::ROOT).perform()), libc::EPERM);
            assert_eq!(errno(setreuid(uid(0), None).perform()), libc::EPERM);
            all_have("Uid", "6\t6\t6\t6");
        });
    });
}

#[test]
fn group_ids() {
    isolated_as_root("group_ids", WATCHDOG, || {
        let _asked = threads();
        setgroups(&[3, 1, 2].map(|raw| gid(raw).unwrap())).perform().unwrap();
        all_have("Groups", "1 2 3");
        setgroups(&[]).perform().unwrap();
        all_have("Groups", "");
        let many = vec![Gid::ROOT; 65537];
        assert_eq!(errno(setgroups(&many).perform()), libc::EINVAL);
        setresgid(gid(1), gid(2), gid(3)).perform().unwrap();
        all_have("Gid", "1\t2\t3\t2");
        setregid(None, gid(4)).perform().unwrap();
        all_have("Gid", "1\t4\t4\t4");
        setfsgid(gid(9)).perform().unwrap();
        all_have("Gid", "1\t4\t4\t9");
        setgid(gid(7).unwrap()).perform().unwrap();
        all_have("Gid", "7\t7\t7\t7");
    });
}

#[test]
fn capability_sets() {
    isolated_as_root("capability_sets", WATCHDOG, || {
        let asked = threads();
        let few = CapabilitySet::of(&[Capability::CHOWN, Capability::SETPCAP]);
        let last = Capability::last();
        assert!(last.number() >= 40);
        assert_eq!(errno(bounding_drop(Capability::new(63).unwrap()).perform()), libc::EINVAL);

        for capability in CapabilitySet::all().iter().filter(|&one| !few.contains(one)) {
            bounding_drop(capability).perform().unwrap();
        }
        assert_eq!(bounding_set(), few);
        all_have("CapBnd", "0000000000000101");
        let sets = Capabilities { effective: few, permitted: few, inheritable: few };
        capset(sets).perform().unwrap();
        assert_eq!(Capabilities::of_this_thread().unwrap(), sets);
        for field in ["CapEff", "CapPrm", "CapInh"] {
            all_have(field, "0000000000000101");
        }
        ambient_raise(Capability::CHOWN).perform().unwrap();
        ambient_raise(Capability::SETPCAP).perform().unwrap();
        all_have("CapAmb", "0000000000000101");
        ambient_lower(Capability::SETPCAP).perform().unwrap();
        all_have("CapAmb", "0000000000000001");
        assert_eq!(ambient_set(), Capability::CHOWN.into());
        assert_eq!(errno(ambient_raise(Capability::KILL).perform()), libc::EPERM);
        ambient_clear().perform().unwrap();
        all_have("CapAmb", "0000000000000000");

        let bits = || Securebits::of_this_thread().unwrap().bits().into();
        keepcaps(true).perform().unwrap();
        asked.all_answer(bits, 1 << 4);
        securebits(Securebits::NOROOT | Securebits::NOROOT_LOCKED).perform().unwrap();
        asked.all_answer(bits, 3);
        assert_eq!(errno(securebits(Securebits::EMPTY).perform()), libc::EPERM);

        capset(Capabilities::NONE).perform().unwrap();
        all_have("CapPrm", "0000000000000000");
        assert_eq!(errno(capset(sets).perform()), libc::EPERM);
    });
}

/// Each half of each set is another word in what the kernel reads.
#[test]
fn capabilities_beyond_the_first_word() {
    isolated_as_root("capabilities_beyond_the_first_word", WATCHDOG, || {
        let _asked = threads();
        let permitted = [Capability::BPF, Capability::WAKE_ALARM, Capability::CHOWN];
        let sets = Capabilities {
            effective: Capability::BPF.into(),
            permitted: CapabilitySet::of(&permitted),
            inheritable: Capability::AUDIT_READ.into(),
        };
        capset(sets).perform().unwrap();
        assert_eq!(Capabilities::of_this_thread().unwrap(), sets);
        all_have("CapEff", "0000008000000000");
        all_have("CapPrm", "0000008800000001");
        all_have("CapInh", "0000002000000000");
    });
}

#[test]
fn new_privileges_and_a_filter() {
    isolated("new_privileges_and_a_filter", WATCHDOG, || {
        let asked = threads();
        // getppid(2) fails with ENOTUNIQ.
        let program = support::program(
            &[libc::SYS_getppid],
            libc::SECCOMP_RET_ERRNO | libc::ENOTUNIQ as u32,
            libc::SECCOMP_RET_ALLOW,
        );
        let program: Vec<Instruction> = program
            .iter()
            .map(|step| Instruction { code: step.code, jt: step.jt, jf: step.jf, k: step.k })
            .collect();
        if !support::skipped_without_root("a filter without CAP_SYS_ADMIN") {
            assert_eq!(errno(seccomp(&[], Synchronisation::Kernel).perform()), libc::EINVAL);
            let long = vec![program[0]; 70_000];
            assert_eq!(errno(seccomp(&long, Synchronisation::Broadcast).perform()), libc::EINVAL);
        }
        no_new_privs().perform().unwrap();
        all_have("NoNewPrivs", "1");
        for how in [Synchronisation::Kernel, Synchronisation::Broadcast] {
            seccomp(&program, how).perform().unwrap();
        }
        all_have("Seccomp_filters", "2");
        // SAFETY: getppid touches no memory.
        asked.all_answer(|| unsafe { libc::syscall(libc::SYS_getppid) }, -1);
        // The filters of the broadcast are each thread's own: the kernel finds no common one.
        match seccomp(&program, Synchronisation::Kernel).perform() {
            Err(Error::OutOfSync { tid }) => assert!(proc::tids().contains(&tid)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn landlock() {
    isolated("landlock", WATCHDOG, || {
        // SAFETY: with no ruleset it only says which version there is.
        let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
        if version < 1 {
            support::skipped("no Landlock in this kernel");
            return;
        }
        let asked = threads();
        // LANDLOCK_ACCESS_FS_MAKE_DIR, of which nothing is allowed.
        let handled: u64 = 1 << 7;
        // SAFETY: the kernel reads the eight bytes.
        let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &handled, 8, 0) };
        assert!(ruleset >= 0);
        no_new_privs().perform().unwrap();
        assert_eq!(
            errno(landlock_restrict_self(-1, Synchronisation::Broadcast).perform()),
            libc::EBADF
        );
        let kernel = landlock_restrict_self(ruleset as i32, Synchronisation::Kernel).perform();
        if version < 8 {
            assert_eq!(Synchronisation::of_landlock(), Synchronisation::Broadcast);
            assert_eq!(errno(kernel), libc::EINVAL);
            landlock_restrict_self(ruleset as i32, Synchronisation::Broadcast).perform().unwrap();
        } else {
            assert_eq!(Synchronisation::of_landlock(), Synchronisation::Kernel);
            kernel.unwrap();
        }
        let make_directory = || {
            let name = c"/tmp/made-by-a-test-of-landlock".as_ptr();
            // SAFETY: a string.
            let made = unsafe { libc::mkdir(name, 0o700) };
            // SAFETY: as above.
            unsafe { libc::rmdir(name) };
            made.into()
        };
        asked.all_answer(make_directory, -1);
    });
}

fn namespaces(name: &str) -> Vec<std::path::PathBuf> {
    let link = |tid| std::fs::read_link(format!("/proc/self/task/{tid}/ns/{name}")).unwrap();
    proc::tids().into_iter().map(link).collect()
}

#[test]
fn new_namespaces() {
    isolated_as_root("new_namespaces", WATCHDOG, || {
        let _asked = threads();
        let names = ["net", "uts", "ipc", "cgroup"];
        let before = names.map(|name| namespaces(name)[0].clone());
        unshare(Namespace::Uts).unwrap();
        assert!(namespaces("uts").iter().all(|link| *link == before[1]), "nobody has joined it");
        unshare_all(&Namespace::ALL).unwrap();
        for (name, before) in names.iter().zip(&before) {
            let now = namespaces(name);
            assert!(now.iter().all(|link| link == &now[0] && link != before), "{name}: {now:?}");
        }
        let wrong = std::fs::File::open("/proc/self/ns/net").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&wrong);
        assert_eq!(errno(setns(fd, Namespace::Uts).perform()), libc::EINVAL);
        assert_eq!(errno(setns(-1, Namespace::Uts).perform()), libc::EBADF);
        let many = [Namespace::Uts; 5];
        assert!(matches!(unshare_all(&many), Err(TransactionError::Unchanged(Error::Refused(_)))));

        let now = namespaces("net");
        // Made by every thread, it would be as many namespaces; alone it is nobody's business but ours.
        let plain = || {
            let flags = [libc::CLONE_NEWNET as usize, 0, 0, 0, 0, 0];
            // SAFETY: it touches no memory.
            unsafe { libpsx::Broadcast::new(libc::SYS_unshare, flags).perform() }
        };
        assert!(matches!(plain(), Err(Error::Refused(Refusal::Namespaces))));
        assert_eq!(namespaces("net"), now);
        forked(|| assert_eq!(plain().unwrap(), 0));
        capset(Capabilities::NONE).perform().unwrap();
        assert_eq!(errno(unshare(Namespace::Network)), libc::EPERM);
        assert_eq!(namespaces("net"), now);
    });
}

#[test]
fn scheduling() {
    isolated("scheduling", WATCHDOG, || {
        let asked = threads();
        let first = std::fs::read_to_string("/proc/self/status").unwrap();
        let first = first.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
        let cpu: u32 = first.split([':', '\t', '-', ',']).find_map(|n| n.parse().ok()).unwrap();

        nice(7).perform().unwrap();
        all_stat(19, "7");
        scheduler(Scheduler::Batch(9)).perform().unwrap();
        all_stat(41, "3");
        all_stat(19, "9");
        scheduler(Scheduler::Idle).perform().unwrap();
        all_stat(41, "5");
        assert_eq!(errno(scheduler(Scheduler::Fifo(100)).perform()), libc::EINVAL);

        affinity(&[1 << cpu]).perform().unwrap();
        all_have("Cpus_allowed_list", &cpu.to_string());
        assert_eq!(errno(affinity(&[0]).perform()), libc::EINVAL);

        io_priority(IoPriority::BestEffort(6)).perform().unwrap();
        // SAFETY: it takes numbers.
        asked.all_answer(|| unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }, 2 << 13 | 6);
        io_priority(IoPriority::Idle).perform().unwrap();
        // SAFETY: it takes numbers.
        asked.all_answer(|| unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }, 3 << 13);
        assert_eq!(errno(io_priority(IoPriority::BestEffort(8)).perform()), libc::EINVAL);

        timer_slack(Duration::from_micros(123)).perform().unwrap();
        asked.all_answer(|| slack_here() as i64, 123_000);

        const ADDR_NO_RANDOMIZE: u32 = 0x0040000;
        assert_eq!(personality(ADDR_NO_RANDOMIZE).perform().unwrap(), 0);
        // SAFETY: it only asks.
        asked.all_answer(|| unsafe { libc::personality(u32::MAX.into()) }.into(), 0x0040000);

        match memory_policy(MemoryPolicy::Bind, &[1]).perform() {
            Ok(_) => asked.all_answer(
                || {
                    let mut mode = 0i32;
                    let at = &raw mut mode;
                    // SAFETY: the kernel writes the mode.
                    unsafe { libc::syscall(libc::SYS_get_mempolicy, at, 0, 0, 0, 0) };
                    mode.into()
                },
                2,
            ),
            Err(Error::Call(errno)) if errno.raw() == libc::ENOSYS => {
                support::skipped("no memory policies in this kernel");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn speculation_control() {
    isolated("speculation_control", WATCHDOG, || {
        let asked = threads();
        match speculation(Speculation::StoreBypass, SpeculationControl::Disable).perform() {
            // SAFETY: it only asks.
            Ok(_) => asked.all_answer(|| unsafe { libc::prctl(52, 0, 0, 0, 0) }.into(), 0b101),
            Err(Error::Call(errno)) if [libc::ENXIO, libc::ENODEV].contains(&errno.raw()) => {
                support::skipped(format!("this CPU or kernel has no such control: {errno}"));
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_session_keyring() {
    isolated("a_session_keyring", WATCHDOG, || {
        let asked = threads();
        // keyctl(2): KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING.
        // SAFETY: it only asks.
        let session = || unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) };
        let before = session();
        match new_session_keyring(c"libpsx-test") {
            Ok(keyring) => {
                asked.all_answer(session, before);
                let joined = keyring.join().perform().unwrap();
                assert_eq!(joined as i32, keyring.serial());
                drop(keyring);
                asked.all_answer(session, joined as i64);
            }
            Err(Error::Call(errno)) if errno.raw() == libc::ENOSYS => {
                support::skipped("no keyrings in this kernel");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(errno(new_session_keyring(c".hidden")), libc::EPERM);
    });
}

/// One operation of each kind that points to memory, in one transaction that has been moved.
#[test]
fn arguments_travel_with_the_transaction() {
    isolated_as_root("arguments_travel_with_the_transaction", WATCHDOG, || {
        let _asked = threads();
        let allow = [Instruction { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
        let groups = [gid(5).unwrap()];
        let sets: Capabilities = "cap_sys_admin,cap_kill=ep".parse().unwrap();
        let made = || {
            Transaction::<4>::new()
                .with(setgroups(&groups))
                .with(scheduler(Scheduler::Batch(3)))
                .with(capset(sets))
                .with(seccomp(&allow, Synchronisation::Kernel))
        };
        let boxed = Box::new(made());
        boxed.clone().perform().unwrap();
        all_have("Groups", "5");
        all_stat(41, "3");
        all_have("CapPrm", "0000000000200020");
        all_have("Seccomp_filters", "1");
    });
}

/// What the threads say of themselves is what /proc says of them, the one that differs too.
#[test]
fn identities_of_threads_that_differ() {
    isolated_as_root("identities_of_threads_that_differ", WATCHDOG, || {
        let asked = threads();
        setgroups(&[1, 2, 3].map(|raw| gid(raw).unwrap())).perform().unwrap();
        securebits(Securebits::NOROOT).perform().unwrap();
        setresgid(gid(4), gid(5), gid(6)).perform().unwrap();
        bounding_drop(Capability::SYS_BOOT).perform().unwrap();
        let sent = asked.0[0].0.send(|| {
            // SAFETY: it takes numbers, and changes this thread.
            unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) };
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_setresuid, 7, 8, 9) }
        });
        sent.unwrap();
        assert_eq!(asked.0[0].1.recv().unwrap(), 0);
        let report = identities(8).unwrap();
        assert_eq!(report.identities().count(), proc::tids().len());
        let hex = |set: CapabilitySet| format!("{:016x}", set.bits());
        let ids =
            |ids: Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.files);
        let mut differ = 0;
        for identity in report.identities() {
            let status = proc::status(identity.tid());
            let sets = identity.capabilities().unwrap();
            let groups: Vec<String> = identity.groups().unwrap().map(|g| g.to_string()).collect();
            for (field, told) in [
                ("Uid", ids(identity.user().unwrap())),
                ("Gid", ids(identity.group().unwrap())),
                ("Groups", groups.join(" ")),
                ("CapEff", hex(sets.effective)),
                ("CapPrm", hex(sets.permitted)),
                ("CapInh", hex(sets.inheritable)),
                ("CapBnd", hex(identity.bounding().unwrap())),
                ("CapAmb", hex(identity.ambient().unwrap())),
                ("NoNewPrivs", u8::from(identity.no_new_privs()).to_string()),
            ] {
                assert_eq!(status[field], told, "{field} of {}", identity.tid());
            }
            assert_eq!(identity.securebits(), Some(Securebits::NOROOT));
            differ += usize::from(status["Uid"] == "7\t8\t9\t8");
        }
        assert_eq!(differ, 1);
        let little = identities(1).unwrap();
        assert_eq!(little.identities().filter(|one| one.groups().is_some()).count(), 1);
        forked(|| assert_eq!(identities(8).unwrap().identities().count(), 1));
    });
}
