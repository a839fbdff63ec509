//! The typed calls, each seen in every thread: in /proc, or by asking in the thread.
#![allow(unsafe_code)]

mod support;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use libpsx::process::*;
use libpsx::{Error, RefusalReason, Transaction};
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
        Err(Error::Call(errno)) => errno.raw_os_error(),
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

fn uid(raw: u32) -> Uid {
    Uid::new(raw).unwrap()
}

fn gid(raw: u32) -> Gid {
    Gid::new(raw).unwrap()
}

#[test]
fn the_number_for_unchanged_is_no_id() {
    let user = Uid::new(u32::MAX).unwrap_err();
    let group = Gid::try_from(u32::MAX).unwrap_err();
    assert_eq!(user, group);
    assert_eq!(user.to_string(), "invalid ID 4294967295: it is reserved for \"unchanged\"");
    assert_eq!(format!("{user:?}"), "InvalidId(4294967295)");
    assert_eq!(Uid::try_from(7), Uid::new(7));
    assert_eq!(
        (uid(7).as_raw(), gid(8).as_raw(), uid(u32::MAX - 1).as_raw()),
        (7, 8, u32::MAX - 1)
    );
}

/// Real, effective, saved and file-access IDs of every thread become the new one, whatever they were before.
#[test]
fn all_ids_at_once() {
    isolated_as_root("all_ids_at_once", WATCHDOG, || {
        let _asked = threads();
        setresgid(gid(1), gid(0), gid(3)).execute().unwrap();
        setfsgid(gid(4)).execute().unwrap();
        setresuid(uid(1), uid(0), uid(3)).execute().unwrap();
        setfsuid(uid(4)).execute().unwrap();
        all_have("Uid", "1\t0\t3\t4");
        all_have("Gid", "1\t0\t3\t4");
        set_all_gids(gid(8)).execute().unwrap();
        set_all_uids(uid(9)).execute().unwrap();
        all_have("Gid", "8\t8\t8\t8");
        all_have("Uid", "9\t9\t9\t9");
        assert_eq!(errno(set_all_uids(Uid::ROOT).execute()), libc::EPERM);
        assert_eq!(errno(set_all_gids(Gid::ROOT).execute()), libc::EPERM);
        all_have("Uid", "9\t9\t9\t9");
    });
}

#[test]
fn user_ids() {
    isolated_as_root("user_ids", WATCHDOG, || {
        forked(|| {
            let _asked = threads();
            setresuid(uid(1), uid(0), Unchanged).execute().unwrap();
            all_have("Uid", "1\t0\t0\t0");
            setreuid(uid(2), Unchanged).execute().unwrap();
            all_have("Uid", "2\t0\t0\t0");
            setfsuid(uid(5)).execute().unwrap();
            all_have("Uid", "2\t0\t0\t5");
            assert_eq!(setfsuid(Unchanged).execute().unwrap(), 5);
            setuid(uid(6)).execute().unwrap();
            all_have("Uid", "6\t6\t6\t6");
            assert_eq!(errno(setuid(Uid::ROOT).execute()), libc::EPERM);
            assert_eq!(errno(setreuid(uid(0), Unchanged).execute()), libc::EPERM);
            all_have("Uid", "6\t6\t6\t6");
        });
    });
}

#[test]
fn group_ids() {
    isolated_as_root("group_ids", WATCHDOG, || {
        let _asked = threads();
        setgroups(&[3, 1, 2].map(gid)).execute().unwrap();
        all_have("Groups", "1 2 3");
        setgroups(&[]).execute().unwrap();
        all_have("Groups", "");
        let many = vec![Gid::ROOT; 65537];
        assert_eq!(errno(setgroups(&many).execute()), libc::EINVAL);
        setresgid(gid(1), gid(2), gid(3)).execute().unwrap();
        all_have("Gid", "1\t2\t3\t2");
        setregid(Unchanged, gid(4)).execute().unwrap();
        all_have("Gid", "1\t4\t4\t4");
        setfsgid(gid(9)).execute().unwrap();
        all_have("Gid", "1\t4\t4\t9");
        setgid(gid(7)).execute().unwrap();
        all_have("Gid", "7\t7\t7\t7");
    });
}

#[test]
fn capability_sets() {
    isolated_as_root("capability_sets", WATCHDOG, || {
        let asked = threads();
        let few = CapabilitySet::from_slice(&[Capability::CHOWN, Capability::SETPCAP]);
        let last = Capability::last();
        assert!(last.number() >= 40);
        assert_eq!(errno(capbset_drop(Capability::new(63).unwrap()).execute()), libc::EINVAL);

        for capability in CapabilitySet::all().iter().filter(|&one| !few.contains(one)) {
            capbset_drop(capability).execute().unwrap();
        }
        assert_eq!(bounding_set(), few);
        all_have("CapBnd", "0000000000000101");
        let sets = CapabilitySets { effective: few, permitted: few, inheritable: few };
        capset(sets).execute().unwrap();
        assert_eq!(CapabilitySets::current().unwrap(), sets);
        for field in ["CapEff", "CapPrm", "CapInh"] {
            all_have(field, "0000000000000101");
        }
        cap_ambient_raise(Capability::CHOWN).execute().unwrap();
        cap_ambient_raise(Capability::SETPCAP).execute().unwrap();
        all_have("CapAmb", "0000000000000101");
        cap_ambient_lower(Capability::SETPCAP).execute().unwrap();
        all_have("CapAmb", "0000000000000001");
        assert_eq!(ambient_set(), Capability::CHOWN.into());
        assert_eq!(errno(cap_ambient_raise(Capability::KILL).execute()), libc::EPERM);
        cap_ambient_clear_all().execute().unwrap();
        all_have("CapAmb", "0000000000000000");

        let bits = || Securebits::current().unwrap().bits().into();
        set_keepcaps(true).execute().unwrap();
        asked.all_answer(bits, 1 << 4);
        set_securebits(Securebits::NOROOT | Securebits::NOROOT_LOCKED).execute().unwrap();
        asked.all_answer(bits, 3);
        assert_eq!(errno(set_securebits(Securebits::EMPTY).execute()), libc::EPERM);

        capset(CapabilitySets::EMPTY).execute().unwrap();
        all_have("CapPrm", "0000000000000000");
        assert_eq!(errno(capset(sets).execute()), libc::EPERM);
    });
}

#[test]
fn capabilities_of_another_thread() {
    isolated_as_root("capabilities_of_another_thread", WATCHDOG, || {
        let asked = threads();
        let own = CapabilitySets::current().unwrap();
        let sent = asked.0[0].0.send(|| {
            // As capset(2) of this thread alone.
            let (header, none) = ([0x2008_0522u32, 0], [0u32; 6]);
            // SAFETY: the kernel reads both.
            unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
            // SAFETY: gettid touches no memory.
            unsafe { libc::syscall(libc::SYS_gettid) }
        });
        sent.unwrap();
        let tid = asked.0[0].1.recv().unwrap() as i32;
        assert_eq!(CapabilitySets::of_pid(tid).unwrap(), CapabilitySets::EMPTY);
        assert_eq!(CapabilitySets::of_pid(std::process::id() as i32).unwrap(), own);
        assert_eq!(CapabilitySets::of_pid(0).unwrap(), own);
        assert_eq!(CapabilitySets::of_pid(i32::MAX).unwrap_err().raw_os_error(), libc::ESRCH);
        assert_eq!(CapabilitySets::of_pid(-1).unwrap_err().raw_os_error(), libc::EINVAL);
    });
}

/// Each half of each set is another word in what the kernel reads.
#[test]
fn capabilities_beyond_the_first_word() {
    isolated_as_root("capabilities_beyond_the_first_word", WATCHDOG, || {
        let _asked = threads();
        let permitted = [Capability::BPF, Capability::WAKE_ALARM, Capability::CHOWN];
        let sets = CapabilitySets {
            effective: Capability::BPF.into(),
            permitted: CapabilitySet::from_slice(&permitted),
            inheritable: Capability::AUDIT_READ.into(),
        };
        capset(sets).execute().unwrap();
        assert_eq!(CapabilitySets::current().unwrap(), sets);
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
        let program = on_getppid(libc::SECCOMP_RET_ERRNO | libc::ENOTUNIQ as u32);
        if !support::skipped_without_root("a filter without CAP_SYS_ADMIN") {
            assert_eq!(
                errno(seccomp(&[], Synchronization::Kernel, SeccompFlags::EMPTY).execute()),
                libc::EINVAL
            );
            let long = vec![program[0]; 70_000];
            assert_eq!(
                errno(seccomp(&long, Synchronization::Broadcast, SeccompFlags::EMPTY).execute()),
                libc::EINVAL
            );
        }
        set_no_new_privs().execute().unwrap();
        all_have("NoNewPrivs", "1");
        for how in [Synchronization::Kernel, Synchronization::Broadcast] {
            seccomp(&program, how, SeccompFlags::EMPTY).execute().unwrap();
        }
        all_have("Seccomp_filters", "2");
        // SAFETY: getppid touches no memory.
        asked.all_answer(|| unsafe { libc::syscall(libc::SYS_getppid) }, -1);
        // The filters of the broadcast are each thread's own: the kernel finds no common one.
        match seccomp(&program, Synchronization::Kernel, SeccompFlags::EMPTY).execute() {
            Err(Error::TsyncConflict { tid }) => assert!(proc::tids().contains(&tid)),
            other => panic!("{other:?}"),
        }
    });
}

/// A filter that does this to getppid(2), and allows the rest.
fn on_getppid(action: u32) -> Vec<Instruction> {
    support::program(&[libc::SYS_getppid], action, libc::SECCOMP_RET_ALLOW)
        .iter()
        .map(|step| Instruction { code: step.code, jt: step.jt, jf: step.jf, k: step.k })
        .collect()
}

#[test]
fn flags_of_a_filter() {
    isolated("flags_of_a_filter", WATCHDOG, || {
        let asked = threads();
        let program = on_getppid(libc::SECCOMP_RET_ERRNO | libc::ENOTUNIQ as u32);
        set_no_new_privs().execute().unwrap();
        let flags = SeccompFlags::LOG | SeccompFlags::SPEC_ALLOW;
        assert_eq!(format!("{flags:?}"), "SeccompFlags(LOG | SPEC_ALLOW)");
        for how in [Synchronization::Kernel, Synchronization::Broadcast] {
            let without_listener = seccomp(&program, how, SeccompFlags::WAIT_KILLABLE_RECV);
            assert_eq!(errno(without_listener.execute()), libc::EINVAL);
        }
        all_have("Seccomp_filters", "0");
        for how in [Synchronization::Kernel, Synchronization::Broadcast] {
            seccomp(&program, how, flags).execute().unwrap();
        }
        all_have("Seccomp_filters", "2");
        // SAFETY: getppid touches no memory.
        asked.all_answer(|| unsafe { libc::syscall(libc::SYS_getppid) }, -1);
        // Now each thread has a filter of its own, and the kernel says only that it cannot synchronise.
        let everywhere = seccomp(&program, Synchronization::Kernel, SeccompFlags::TSYNC_ESRCH);
        assert_eq!(errno(everywhere.execute()), libc::ESRCH);
        let listener = seccomp_with_listener(&program, SeccompFlags::EMPTY).execute();
        assert_eq!(errno(listener), libc::ESRCH);
        all_have("Seccomp_filters", "2");
    });
}

/// Answers every notification with this value.
fn supervise(listener: OwnedFd, value: i64) {
    const RECEIVE: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    let fd = listener.as_raw_fd();
    loop {
        let mut notification = [0u64; 10];
        let at = notification.as_mut_ptr();
        // SAFETY: `struct seccomp_notif` has 80 bytes, and must be zero before.
        if unsafe { libc::ioctl(fd, RECEIVE, at) } != 0 {
            continue;
        }
        // `struct seccomp_notif_resp`: id, value, error and flags.
        let answer = [notification[0], value as u64, 0];
        // SAFETY: it has 24 bytes.
        unsafe { libc::ioctl(fd, SEND, answer.as_ptr()) };
    }
}

#[test]
fn a_filter_with_a_listener() {
    isolated("a_filter_with_a_listener", WATCHDOG, || {
        const USER_NOTIF: u32 = 0x7fc0_0000;
        let program = on_getppid(USER_NOTIF);
        for in_a_transaction in [false, true] {
            forked(|| {
                let asked = threads();
                let filter = seccomp_with_listener(&program, SeccompFlags::WAIT_KILLABLE_RECV);
                let listener = if in_a_transaction {
                    filter.execute_after(Transaction::new().with(set_no_new_privs())).unwrap()
                } else {
                    set_no_new_privs().execute().unwrap();
                    filter.execute().unwrap()
                };
                assert_eq!(listener.fd().as_raw_fd(), listener.as_fd().as_raw_fd());
                all_have("Seccomp_filters", "1");
                // SAFETY: it asks for the flags of a descriptor.
                let flags = unsafe { libc::fcntl(listener.fd().as_raw_fd(), libc::F_GETFD) };
                assert_eq!(flags, libc::FD_CLOEXEC);
                let descriptor = OwnedFd::from(listener);
                std::thread::spawn(move || supervise(descriptor, 4242));
                // SAFETY: getppid touches no memory.
                asked.all_answer(|| unsafe { libc::syscall(libc::SYS_getppid) }, 4242);
                // A second listener is one too many.
                let again = seccomp_with_listener(&program, SeccompFlags::EMPTY).execute();
                assert_eq!(errno(again), libc::EBUSY);
                set_timer_slack(Duration::from_nanos(77)).execute().unwrap();
                asked.all_answer(|| slack_here() as i64, 77);
            });
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
        // SAFETY: the kernel has just opened it.
        let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
        set_no_new_privs().execute().unwrap();
        let by_us = |flags| landlock_restrict_self(&ruleset, Synchronization::Broadcast, flags);
        let no_ruleset = std::fs::File::open("/dev/null").unwrap();
        let wrong =
            landlock_restrict_self(&no_ruleset, Synchronization::Broadcast, LandlockFlags::EMPTY);
        assert_eq!(errno(wrong.execute()), libc::EBADFD);
        let logs = LandlockFlags::LOG_SAME_EXEC_OFF | LandlockFlags::LOG_NEW_EXEC_ON;
        let silent = landlock_log_subdomains_off(Synchronization::Broadcast).execute();
        if version < 7 {
            support::skipped("Landlock's log flags need ABI 7");
            assert_eq!(errno(by_us(logs).execute()), libc::EINVAL);
            assert_eq!(errno(silent), libc::EINVAL);
        } else {
            silent.unwrap();
            by_us(logs).execute().unwrap();
        }
        let kernel =
            landlock_restrict_self(&ruleset, Synchronization::Kernel, LandlockFlags::EMPTY);
        let kernel = kernel.execute();
        if version < 8 {
            assert_eq!(Synchronization::for_landlock(), Synchronization::Broadcast);
            assert_eq!(errno(kernel), libc::EINVAL);
            by_us(LandlockFlags::EMPTY).execute().unwrap();
        } else {
            assert_eq!(Synchronization::for_landlock(), Synchronization::Kernel);
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
        assert_eq!(errno(setns(&wrong, Namespace::Uts).execute()), libc::EINVAL);
        assert_eq!(errno(setns(wrong.as_fd(), Namespace::Uts).execute()), libc::EINVAL);
        // A kind that is named several times is made once.
        unshare_all(&[Namespace::Uts; 5]).unwrap();

        let now = namespaces("net");
        // Made by every thread, it would be as many namespaces; alone it is nobody's business but ours.
        let plain = || {
            let flags = [libc::CLONE_NEWNET as usize, 0, 0, 0, 0, 0];
            // SAFETY: it touches no memory.
            unsafe { libpsx::Broadcast::new(libc::SYS_unshare, flags).execute() }
        };
        assert!(matches!(plain(), Err(Error::Refused(RefusalReason::CreatesNamespace))));
        assert_eq!(namespaces("net"), now);
        forked(|| assert_eq!(plain().unwrap(), 0));
        capset(CapabilitySets::EMPTY).execute().unwrap();
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

        setpriority(7).execute().unwrap();
        all_stat(19, "7");
        sched_setscheduler(SchedPolicy::Batch(9)).execute().unwrap();
        all_stat(41, "3");
        all_stat(19, "9");
        sched_setscheduler(SchedPolicy::Idle).execute().unwrap();
        all_stat(41, "5");
        // SAFETY: it only asks.
        let policy = || unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
        const RESET_ON_FORK: i64 = 0x4000_0000;
        // Without root, a thread may not leave SCHED_IDLE.
        if !support::skipped_without_root("the policy after SCHED_IDLE") {
            let reset = SchedAttr::new(SchedPolicy::Batch(11)).reset_on_fork();
            sched_setattr(reset).execute().unwrap();
            asked.all_answer(policy, RESET_ON_FORK | 3);
            all_stat(19, "11");
        }
        let clamped = sched_setattr(SchedAttr::keep_all().util_min(100).util_max(900));
        match clamped.execute() {
            Ok(_) => {
                asked.all_answer(policy, RESET_ON_FORK | 3);
                all_stat(19, "11");
                let clamps = || {
                    let mut attr = [0u64; 7];
                    let at = attr.as_mut_ptr();
                    // SAFETY: the kernel writes 56 bytes.
                    unsafe { libc::syscall(libc::SYS_sched_getattr, 0, at, 56, 0) };
                    attr[6] as i64
                };
                asked.all_answer(clamps, 900 << 32 | 100);
                let reset = SchedAttr::UTIL_RESET;
                let default = SchedAttr::keep_all().util_min(reset).util_max(reset);
                sched_setattr(default).execute().unwrap();
                asked.all_answer(clamps, 1024 << 32);
                let large = SchedAttr::keep_all().util_max(1025);
                assert_eq!(errno(sched_setattr(large).execute()), libc::EINVAL);
            }
            Err(Error::Call(errno)) if errno.raw_os_error() == libc::EOPNOTSUPP => {
                support::skipped("no utilization clamping in this kernel");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(errno(sched_setscheduler(SchedPolicy::Fifo(100)).execute()), libc::EINVAL);

        sched_setaffinity(&[1 << cpu]).execute().unwrap();
        all_have("Cpus_allowed_list", &cpu.to_string());
        assert_eq!(errno(sched_setaffinity(&[0]).execute()), libc::EINVAL);

        ioprio_set(IoPriority::BestEffort(6)).execute().unwrap();
        // SAFETY: it takes numbers.
        asked.all_answer(|| unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }, 2 << 13 | 6);
        ioprio_set(IoPriority::Idle).execute().unwrap();
        // SAFETY: it takes numbers.
        asked.all_answer(|| unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }, 3 << 13);
        assert_eq!(errno(ioprio_set(IoPriority::BestEffort(8)).execute()), libc::EINVAL);

        set_timer_slack(Duration::from_micros(123)).execute().unwrap();
        asked.all_answer(|| slack_here() as i64, 123_000);

        const ADDR_NO_RANDOMIZE: u32 = 0x0040000;
        assert_eq!(personality(ADDR_NO_RANDOMIZE).execute().unwrap(), 0);
        // SAFETY: it only asks.
        asked.all_answer(|| unsafe { libc::personality(u32::MAX.into()) }.into(), 0x0040000);

        match set_mempolicy(MemoryPolicy::Bind, &[1]).execute() {
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
            Err(Error::Call(errno)) if errno.raw_os_error() == libc::ENOSYS => {
                support::skipped("no memory policies in this kernel");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn prctls_of_each_thread() {
    isolated("prctls_of_each_thread", WATCHDOG, || {
        let asked = threads();
        let signal = || {
            let mut signal = 0i32;
            // SAFETY: the kernel writes an int.
            unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
            signal.into()
        };
        set_parent_process_death_signal(libc::SIGUSR2).execute().unwrap();
        asked.all_answer(signal, libc::SIGUSR2.into());
        assert_eq!(errno(set_parent_process_death_signal(65).execute()), libc::EINVAL);
        set_parent_process_death_signal(0).execute().unwrap();
        asked.all_answer(signal, 0);

        // SAFETY: it only asks.
        let policy = || unsafe { libc::prctl(34, 0, 0, 0, 0) }.into();
        for (wanted, kill) in [(1, MceKill::Early), (0, MceKill::Late), (2, MceKill::Default)] {
            set_mce_kill(kill).execute().unwrap();
            asked.all_answer(policy, wanted);
        }
        if cfg!(target_arch = "x86_64") {
            assert_eq!(errno(set_tagged_addr_ctrl(1).execute()), libc::EINVAL);
        }
        let effective = CapabilitySets::current().unwrap().effective;
        if !effective.contains(Capability::SYS_RESOURCE) {
            support::skipped("PR_SET_IO_FLUSHER needs CAP_SYS_RESOURCE");
            assert_eq!(errno(set_io_flusher(true).execute()), libc::EPERM);
        } else {
            // SAFETY: it only asks.
            let flusher = || unsafe { libc::prctl(58, 0, 0, 0, 0) }.into();
            for wanted in [true, false] {
                set_io_flusher(wanted).execute().unwrap();
                asked.all_answer(flusher, wanted.into());
            }
            capset(CapabilitySets::EMPTY).execute().unwrap();
            assert_eq!(errno(set_io_flusher(true).execute()), libc::EPERM);
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_time_stamp_counter() {
    isolated("the_time_stamp_counter", WATCHDOG, || {
        let asked = threads();
        let mode = || {
            let mut mode = 0i32;
            // SAFETY: the kernel writes an int.
            unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut mode) };
            mode.into()
        };
        asked.all_answer(mode, libc::PR_TSC_ENABLE.into());
        // Until it is on again, nothing here may ask for the time.
        set_tsc(Tsc::Sigsegv).execute().unwrap();
        asked.all_answer(mode, libc::PR_TSC_SIGSEGV.into());
        set_tsc(Tsc::Enable).execute().unwrap();
        asked.all_answer(mode, libc::PR_TSC_ENABLE.into());
    });
}

/// A thread has turned user dispatch on, and lets calls through. After it is off, the selector means nothing.
#[test]
fn user_dispatch_off() {
    static SELECTOR: AtomicU8 = AtomicU8::new(0);
    isolated("user_dispatch_off", WATCHDOG, || {
        const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
        let asked = threads();
        let question: support::Question = || {
            let at = SELECTOR.as_ptr();
            // SAFETY: the selector is static.
            unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, at) }.into()
        };
        asked.0[0].0.send(question).unwrap();
        match asked.0[0].1.recv().unwrap() {
            0 => {}
            other => {
                support::skipped(format!("no syscall user dispatch in this kernel: {other}"));
                return;
            }
        }
        disable_syscall_user_dispatch().execute().unwrap();
        SELECTOR.store(1, Ordering::SeqCst);
        // SAFETY: gettid touches no memory.
        asked.all_answer(|| (unsafe { libc::syscall(libc::SYS_gettid) } > 0).into(), 1);
    });
}

/// What the table says of the options that need no broadcast: one thread sets it, and all have it.
#[test]
fn prctls_of_the_whole_process() {
    isolated("prctls_of_the_whole_process", WATCHDOG, || {
        let asked = threads();
        let in_another_thread = |option: i32, value: usize| {
            let set = move || {
                // SAFETY: the options take numbers.
                let done = unsafe { libc::prctl(option, value, 0, 0, 0) };
                if done == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
            };
            match std::thread::spawn(set).join().unwrap() {
                0 => true,
                libc::EINVAL => {
                    support::skipped(format!("prctl({option}) is not in this kernel"));
                    false
                }
                other => panic!("prctl({option}): {other}"),
            }
        };
        // SAFETY: it only asks.
        let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }.into();
        assert!(in_another_thread(libc::PR_SET_DUMPABLE, 0));
        asked.all_answer(dumpable, 0);
        set_dumpable(true).execute().unwrap();
        asked.all_answer(dumpable, 1);
        assert!(in_another_thread(libc::PR_SET_CHILD_SUBREAPER, 1));
        let subreaper = || {
            let mut value = 0i32;
            // SAFETY: the kernel writes an int.
            unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut value) };
            value.into()
        };
        asked.all_answer(subreaper, 1);
        const PR_SET_THP_DISABLE: i32 = 41;
        if in_another_thread(PR_SET_THP_DISABLE, 1) {
            // SAFETY: it only asks.
            asked.all_answer(|| unsafe { libc::prctl(42, 0, 0, 0, 0) }.into(), 1);
        }
        const PR_SET_MEMORY_MERGE: i32 = 67;
        if in_another_thread(PR_SET_MEMORY_MERGE, 1) {
            // SAFETY: it only asks.
            asked.all_answer(|| unsafe { libc::prctl(68, 0, 0, 0, 0) }.into(), 1);
        }
        const PR_TIMER_CREATE_RESTORE_IDS: i32 = 77;
        if in_another_thread(PR_TIMER_CREATE_RESTORE_IDS, 1) {
            // SAFETY: it only asks.
            asked.all_answer(|| unsafe { libc::prctl(77, 2, 0, 0, 0) }.into(), 1);
        }
        // Last, because it is for good.
        const PR_SET_MDWE: i32 = 65;
        if in_another_thread(PR_SET_MDWE, 1) {
            // SAFETY: it only asks.
            asked.all_answer(|| unsafe { libc::prctl(66, 0, 0, 0, 0) }.into(), 1);
        }
    });
}

/// The answer of a kernel without these modules, and of one that has the module but not the label.
#[test]
fn labels_of_security_modules() {
    isolated("labels_of_security_modules", WATCHDOG, || {
        let _asked = threads();
        let long = LsmContext::new(Lsm::Smack, &[b'a'; 4065]);
        assert_eq!(long.unwrap_err().raw_os_error(), libc::E2BIG);
        for module in [Lsm::Selinux, Lsm::Smack, Lsm::AppArmor] {
            for label in [&b"libpsx-no-such-label"[..], &[b'a'; 4064]] {
                let context = LsmContext::new(module, label).unwrap();
                let result = lsm_set_self_attr(LsmAttribute::Exec, &context).execute();
                match errno(result) {
                    libc::ENOSYS => support::skipped("no lsm_set_self_attr(2) in this kernel"),
                    libc::EOPNOTSUPP => support::skipped(format!("no {module:?} in this kernel")),
                    other => assert!(
                        [libc::EINVAL, libc::EACCES, libc::EPERM, libc::ENOENT].contains(&other),
                        "{module:?}: {other}"
                    ),
                }
            }
        }
        let context = LsmContext::new(Lsm::AppArmor, b"exec \xff").unwrap();
        assert_eq!(format!("{context:?}"), "LsmContext(104, \"exec \\xff\")");
    });
}

#[test]
fn speculation_control() {
    isolated("speculation_control", WATCHDOG, || {
        let asked = threads();
        match set_speculation_ctrl(SpeculationFeature::StoreBypass, SpeculationControl::Disable)
            .execute()
        {
            // SAFETY: it only asks.
            Ok(_) => asked.all_answer(|| unsafe { libc::prctl(52, 0, 0, 0, 0) }.into(), 0b101),
            Err(Error::Call(errno))
                if [libc::ENXIO, libc::ENODEV].contains(&errno.raw_os_error()) =>
            {
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
                let joined = keyring.join().execute().unwrap();
                assert_eq!(joined as i32, keyring.serial());
                drop(keyring);
                asked.all_answer(session, joined as i64);
            }
            Err(Error::Call(errno)) if errno.raw_os_error() == libc::ENOSYS => {
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
        let groups = [gid(5)];
        let sets: CapabilitySets = "cap_sys_admin,cap_kill=ep".parse().unwrap();
        let made = || {
            Transaction::new()
                .with(setgroups(&groups))
                .with(sched_setscheduler(SchedPolicy::Batch(3)))
                .with(capset(sets))
                .with(seccomp(&allow, Synchronization::Kernel, SeccompFlags::EMPTY))
        };
        let boxed = Box::new(made());
        boxed.clone().execute().unwrap();
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
        setgroups(&[1, 2, 3].map(gid)).execute().unwrap();
        set_securebits(Securebits::NOROOT).execute().unwrap();
        setresgid(gid(4), gid(5), gid(6)).execute().unwrap();
        capbset_drop(Capability::SYS_BOOT).execute().unwrap();
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
        let ids = |ids: Ids| {
            format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.filesystem)
        };
        let mut differ = 0;
        for identity in report.identities() {
            let status = proc::status(identity.tid());
            let sets = identity.capabilities().unwrap();
            let groups: Vec<String> = identity.groups().unwrap().map(|g| g.to_string()).collect();
            for (field, told) in [
                ("Uid", ids(identity.uids().unwrap())),
                ("Gid", ids(identity.gids().unwrap())),
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
