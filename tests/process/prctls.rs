//! The operations of prctl(2).

use super::*;

#[test]
fn prctls_of_each_thread() {
    isolated("prctls::prctls_of_each_thread", WATCHDOG, || {
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

        // SAFETY: the call only reads a value.
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
            // SAFETY: the call only reads a value.
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

/// PR_SET_TSC is for x86 only.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_time_stamp_counter() {
    isolated("prctls::the_time_stamp_counter", WATCHDOG, || {
        let asked = threads();
        let mode = || {
            let mut mode = 0i32;
            // SAFETY: the kernel writes an int.
            unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut mode) };
            mode.into()
        };
        asked.all_answer(mode, libc::PR_TSC_ENABLE.into());
        // Until it is on again, no code here may read the time.
        set_tsc(Tsc::Sigsegv).execute().unwrap();
        asked.all_answer(mode, libc::PR_TSC_SIGSEGV.into());
        set_tsc(Tsc::Enable).execute().unwrap();
        asked.all_answer(mode, libc::PR_TSC_ENABLE.into());
    });
}

/// A thread has turned user dispatch on, and allows calls. Once it is off, the selector has no effect.
#[test]
fn user_dispatch_off() {
    static SELECTOR: AtomicU8 = AtomicU8::new(0);
    isolated("prctls::user_dispatch_off", WATCHDOG, || {
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
                support::skipped(format!("this kernel has no syscall user dispatch: {other}"));
                return;
            }
        }
        disable_syscall_user_dispatch().execute().unwrap();
        SELECTOR.store(1, Ordering::SeqCst);
        // SAFETY: gettid touches no memory.
        asked.all_answer(|| (unsafe { libc::syscall(libc::SYS_gettid) } > 0).into(), 1);
    });
}

/// Tests the options that need no broadcast according to the table: one thread sets the option, and all threads have
/// it.
#[test]
fn prctls_of_the_whole_process() {
    isolated("prctls::prctls_of_the_whole_process", WATCHDOG, || {
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
        // SAFETY: the call only reads a value.
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
            // SAFETY: the call only reads a value.
            asked.all_answer(|| unsafe { libc::prctl(42, 0, 0, 0, 0) }.into(), 1);
        }
        const PR_SET_MEMORY_MERGE: i32 = 67;
        if in_another_thread(PR_SET_MEMORY_MERGE, 1) {
            // SAFETY: the call only reads a value.
            asked.all_answer(|| unsafe { libc::prctl(68, 0, 0, 0, 0) }.into(), 1);
        }
        const PR_TIMER_CREATE_RESTORE_IDS: i32 = 77;
        if in_another_thread(PR_TIMER_CREATE_RESTORE_IDS, 1) {
            // SAFETY: the call only reads a value.
            asked.all_answer(|| unsafe { libc::prctl(77, 2, 0, 0, 0) }.into(), 1);
        }
        // The last option, because it cannot be undone.
        const PR_SET_MDWE: i32 = 65;
        if in_another_thread(PR_SET_MDWE, 1) {
            // SAFETY: the call only reads a value.
            asked.all_answer(|| unsafe { libc::prctl(66, 0, 0, 0, 0) }.into(), 1);
        }
    });
}

#[test]
fn speculation_control() {
    isolated("prctls::speculation_control", WATCHDOG, || {
        const PR_SPEC_PRCTL: i32 = 1;
        let asked = threads();
        // SAFETY: the call only reads a value.
        let before = unsafe { libc::prctl(52, 0, 0, 0, 0) };
        match set_speculation_ctrl(SpeculationFeature::StoreBypass, SpeculationControl::Disable)
            .execute()
        {
            // SAFETY: the call only reads a value.
            Ok(_) => asked.all_answer(|| unsafe { libc::prctl(52, 0, 0, 0, 0) }.into(), 0b101),
            // EINVAL: on this CPU, Linux has no such control, or only says what the CPU does.
            Err(Error::Call(errno))
                if [libc::ENXIO, libc::ENODEV].contains(&errno.raw_os_error())
                    || before == -1
                    || before & PR_SPEC_PRCTL == 0 =>
            {
                support::skipped(format!("this CPU or kernel has no such control: {errno}"));
            }
            other => panic!("{other:?}"),
        }
    });
}
