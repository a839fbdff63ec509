//! no_new_privs, seccomp filters, Landlock, and the labels of security modules.

use super::*;

#[test]
fn new_privileges_and_a_filter() {
    isolated("sandbox::new_privileges_and_a_filter", WATCHDOG, || {
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
        asked.all_answer(|| wide(unsafe { libc::syscall(libc::SYS_getppid) }), -1);
        // With the broadcast, each thread has its own filter, and the kernel finds no common one.
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
    isolated("sandbox::flags_of_a_filter", WATCHDOG, || {
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
        asked.all_answer(|| wide(unsafe { libc::syscall(libc::SYS_getppid) }), -1);
        // Now each thread has its own filter, and the kernel says only that it cannot synchronise.
        let everywhere = seccomp(&program, Synchronization::Kernel, SeccompFlags::TSYNC_ESRCH);
        assert_eq!(errno(everywhere.execute()), libc::ESRCH);
        let listener = seccomp_with_listener(&program, SeccompFlags::EMPTY).execute();
        assert_eq!(errno(listener), libc::ESRCH);
        all_have("Seccomp_filters", "2");
    });
}

/// Answers every notification with this value.
fn supervise(listener: OwnedFd, value: i64) {
    let fd = listener.as_raw_fd();
    loop {
        let mut notification = [0u64; 10];
        let at = notification.as_mut_ptr();
        // SAFETY: `struct seccomp_notif` has 80 bytes, and must be zero before the call.
        if unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, at) } != 0 {
            continue;
        }
        // `struct seccomp_notif_resp`: id, value, error and flags.
        let answer = [notification[0], value as u64, 0];
        // SAFETY: the kernel reads 24 bytes.
        unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, answer.as_ptr()) };
    }
}

#[test]
fn a_filter_with_a_listener() {
    isolated("sandbox::a_filter_with_a_listener", WATCHDOG, || {
        const USER_NOTIF: u32 = 0x7fc0_0000;
        let program = on_getppid(USER_NOTIF);
        // Linux before 5.19 does not know this flag: EINVAL. Any other kernel then misses the program.
        let both =
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        let (set, none) = (libc::SECCOMP_SET_MODE_FILTER, 0usize);
        // SAFETY: there is no program to read.
        unsafe { libc::syscall(libc::SYS_seccomp, set, both, none) };
        let known = std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
        let flags = if known { SeccompFlags::WAIT_KILLABLE_RECV } else { SeccompFlags::EMPTY };
        for in_a_transaction in [false, true] {
            forked(|| {
                let asked = threads();
                let filter = seccomp_with_listener(&program, flags);
                let listener = if in_a_transaction {
                    filter.execute_after(Transaction::new().with(set_no_new_privs())).unwrap()
                } else {
                    set_no_new_privs().execute().unwrap();
                    filter.execute().unwrap()
                };
                assert_eq!(listener.fd().as_raw_fd(), listener.as_fd().as_raw_fd());
                all_have("Seccomp_filters", "1");
                // SAFETY: the call reads the flags of a descriptor.
                let flags = unsafe { libc::fcntl(listener.fd().as_raw_fd(), libc::F_GETFD) };
                assert_eq!(flags, libc::FD_CLOEXEC);
                let descriptor = OwnedFd::from(listener);
                std::thread::spawn(move || supervise(descriptor, 4242));
                // SAFETY: getppid touches no memory.
                asked.all_answer(|| wide(unsafe { libc::syscall(libc::SYS_getppid) }), 4242);
                // A second listener is not allowed.
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
    isolated("sandbox::landlock", WATCHDOG, || {
        // SAFETY: without a ruleset the call only returns the version.
        let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
        if version < 1 {
            support::skipped("this kernel has no Landlock");
            return;
        }
        let asked = threads();
        // LANDLOCK_ACCESS_FS_MAKE_DIR; the ruleset allows it nowhere.
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
        let silent = landlock_log_subdomains_off().execute();
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
            assert_eq!(Synchronization::for_one_landlock_domain(), Synchronization::Broadcast);
            assert_eq!(errno(kernel), libc::EINVAL);
            by_us(LandlockFlags::EMPTY).execute().unwrap();
        } else {
            assert_eq!(Synchronization::for_one_landlock_domain(), Synchronization::Kernel);
            kernel.unwrap();
        }
        let make_directory = || {
            let name = c"/tmp/made-by-a-test-of-landlock".as_ptr();
            // SAFETY: the argument is a string.
            let made = unsafe { libc::mkdir(name, 0o700) };
            // SAFETY: see the comment above.
            unsafe { libc::rmdir(name) };
            made.into()
        };
        asked.all_answer(make_directory, -1);
    });
}

/// Accepts the errors of a kernel without these modules, and of a kernel that has the module but not the label.
#[test]
fn labels_of_security_modules() {
    isolated("sandbox::labels_of_security_modules", WATCHDOG, || {
        let _asked = threads();
        let long = LsmContext::new(Lsm::Smack, &[b'a'; 4065]);
        assert_eq!(long.unwrap_err().raw_os_error(), libc::E2BIG);
        for module in [Lsm::Selinux, Lsm::Smack, Lsm::AppArmor] {
            for label in [&b"libpsx-no-such-label"[..], &[b'a'; 4064]] {
                let context = LsmContext::new(module, label).unwrap();
                let result = lsm_set_self_attr(LsmAttribute::Exec, &context).execute();
                match errno(result) {
                    libc::ENOSYS => support::skipped("this kernel has no lsm_set_self_attr(2)"),
                    libc::EOPNOTSUPP => support::skipped(format!("this kernel has no {module:?}")),
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
