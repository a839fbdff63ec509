//! Tests which calls are refused before anything is done (P2). The table below is compared in both directions with what
//! a transaction reports for every call number, every code and every flag.
//!
//! No call is made: the first call of the transaction fails, and the tested call comes after it.
#![cfg(not(target_arch = "loongarch64"))]
#![allow(unsafe_code)]

#[cfg_attr(target_arch = "x86_64", path = "p02_refused_calls/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "p02_refused_calls/aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "p02_refused_calls/riscv64.rs")]
#[cfg_attr(target_arch = "s390x", path = "p02_refused_calls/s390x.rs")]
#[cfg_attr(target_arch = "powerpc64", path = "p02_refused_calls/powerpc64le.rs")]
#[cfg_attr(target_arch = "arm", path = "p02_refused_calls/arm.rs")]
#[cfg_attr(target_arch = "x86", path = "p02_refused_calls/i686.rs")]
mod cpu;
mod support;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use libpsx::{Error, RefusalReason, ResultCheck, Transaction, TransactionError};
use support::{first_form, forked, isolated, sleepers};

const WATCHDOG: Duration = Duration::from_secs(120);

type Args = [usize; 6];

/// A call, the arguments with which it is refused, and the reason.
struct Row(libc::c_long, fn(Args) -> bool, RefusalReason);

/// The kernel takes an int or an unsigned int, and ignores the upper half.
const fn int(arg: usize) -> u32 {
    arg as u32
}

const ALWAYS: fn(Args) -> bool = |_| true;

/// The rows of every CPU. The first matching row applies. [`cpu::ROWS`] has those of calls that only some CPUs have.
const TABLE: &[Row] = &[
    Row(libc::SYS_clone, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_clone3, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_execve, ALWAYS, RefusalReason::EndsThread),
    Row(libc::SYS_execveat, ALWAYS, RefusalReason::EndsThread),
    Row(libc::SYS_exit, ALWAYS, RefusalReason::EndsThread),
    Row(libc::SYS_exit_group, ALWAYS, RefusalReason::EndsThread),
    Row(libc::SYS_rt_sigreturn, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_restart_syscall, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_rt_sigprocmask, ALWAYS, RefusalReason::ChangesSignalState),
    Row(libc::SYS_sigaltstack, ALWAYS, RefusalReason::ChangesSignalState),
    Row(libc::SYS_rt_sigaction, |args| int(args[0]) == 33, RefusalReason::ChangesSignalState),
    Row(libc::SYS_ppoll, |args| args[3] != 0, RefusalReason::ChangesSignalState),
    Row(libc::SYS_epoll_pwait, |args| args[4] != 0, RefusalReason::ChangesSignalState),
    Row(libc::SYS_epoll_pwait2, |args| args[4] != 0, RefusalReason::ChangesSignalState),
    Row(libc::SYS_io_uring_enter, |args| args[4] != 0, RefusalReason::ChangesSignalState),
    Row(libc::SYS_pselect6, |args| args[5] != 0, RefusalReason::ChangesSignalState),
    Row(cpu::IO_PGETEVENTS, |args| args[5] != 0, RefusalReason::ChangesSignalState),
    Row(libc::SYS_rt_sigsuspend, ALWAYS, RefusalReason::WaitsForSignal),
    Row(libc::SYS_rt_sigtimedwait, |args| args[2] == 0, RefusalReason::WaitsForSignal),
    Row(libc::SYS_ppoll, |args| int(args[1]) == 0 && args[2] == 0, RefusalReason::WaitsForSignal),
    Row(
        libc::SYS_pselect6,
        |args| int(args[0]) == 0 && args[4] == 0,
        RefusalReason::WaitsForSignal,
    ),
    Row(libc::SYS_set_tid_address, ALWAYS, RefusalReason::ReplacesThreadState),
    Row(libc::SYS_set_robust_list, ALWAYS, RefusalReason::ReplacesThreadState),
    Row(libc::SYS_rseq, ALWAYS, RefusalReason::ReplacesThreadState),
    Row(libc::SYS_seccomp, |args| int(args[0]) == 0, RefusalReason::ForbidsCalls), // SECCOMP_SET_MODE_STRICT
    Row(
        libc::SYS_prctl,
        |args| int(args[0]) == 22 && int(args[1]) == 1,
        RefusalReason::ForbidsCalls,
    ), // PR_SET_SECCOMP
    Row(
        libc::SYS_prctl,
        |args| int(args[0]) == 59 && int(args[1]) != 0,
        RefusalReason::ForbidsCalls,
    ), // PR_SET_SYSCALL_USER_DISPATCH
];

/// Returns the result according to the table.
fn expected(nr: usize, args: Args) -> Option<RefusalReason> {
    let (number, other_abi) = cpu::number(nr);
    if other_abi {
        return Some(RefusalReason::LeavesHandler);
    }
    let number = first_form(number as libc::c_long);
    let fits = |row: &&Row| row.0 == number && row.1(args);
    rows().find(fits).map(|row| row.2)
}

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().chain(cpu::ROWS)
}

/// Returns the result according to a transaction.
fn refusal(nr: usize, args: Args) -> Option<RefusalReason> {
    let fails = [0x7fff_ffff, 0, 0, 0, 0, 0];
    let any = ResultCheck::AnyResult;
    // SAFETY: a prctl(2) that does not exist touches no memory.
    let transaction = unsafe { Transaction::new().with_call(libc::SYS_prctl, fails, any) };
    // SAFETY: the call is not made, because the first call fails.
    let transaction = unsafe { transaction.with_call(nr as libc::c_long, args, any) };
    match transaction.execute() {
        Err(TransactionError::NothingChanged(Error::Refused(why))) => Some(why),
        Err(TransactionError::NothingChanged(Error::Call(errno)))
            if errno.raw_os_error() == libc::EINVAL =>
        {
            None
        }
        other => panic!("call {nr:#x}, {args:x?}: {other:?}"),
    }
}

fn compare(nr: usize, args: Args) {
    let (is, wanted) = (refusal(nr, args), expected(nr, args));
    assert_eq!(is, wanted, "call {nr:#x}, {args:x?}");
}

/// The upper half of a register, or nothing where registers have 32 bits.
const UPPER: usize = (1u64 << 32) as usize;

/// Returns arguments in which each one takes each of several values, while the others are zeroes or ones.
fn arguments() -> impl Iterator<Item = Args> {
    let values = [0, 1, 2, 33, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, UPPER, UPPER | 1, UPPER | 33];
    [[0; 6], [1; 6]].into_iter().flat_map(move |base| {
        (0..6).flat_map(move |at| {
            values.into_iter().map(move |value| {
                let mut args = base;
                args[at] = value;
                args
            })
        })
    })
}

#[test]
fn every_number() {
    isolated("every_number", WATCHDOG, || {
        // In a process of one thread, no thread has to be stopped.
        forked(|| {
            for number in 0..=600usize {
                arguments().for_each(|args| compare(number, args));
                for nr in [number | 0x4000_0000, number | UPPER, number | 0x8000_0000] {
                    compare(nr, [0; 6]);
                    compare(nr, [1; 6]);
                }
            }
            // Each row of the table applies to some call of this test.
            for row in rows() {
                arguments().for_each(|args| compare(row.0 as usize, args));
                let mut codes = [22, 59].into_iter().chain(cpu::CODES.iter().copied());
                let with_code = codes.any(|code| row.1([code as usize, 1, 0, 0, 0, 0]));
                assert!(with_code || arguments().any(row.1), "{}: {:?}", row.0, row.2);
            }
        });
    });
}

#[test]
fn every_code() {
    isolated("every_code", WATCHDOG, || {
        forked(|| {
            // PR_SET_VMA, PR_SET_PTRACER, PR_GET_AUXV.
            let far = [0x5356_4d41, 0x5961_6d61, 0x4155_5856];
            for code in (0..=1000usize).chain(far) {
                for second in [0, 1, 2, 3, 0xffff_ffff, UPPER, UPPER | 1] {
                    for code in [code, code | UPPER] {
                        compare(libc::SYS_prctl as usize, [code, second, 0, 0, 0, 0]);
                    }
                }
            }
            for code in 0..=0x7000usize {
                for code in [code, code | UPPER] {
                    compare(cpu::TAKES_CODE as usize, [code, 0, 0, 0, 0, 0]);
                    compare(libc::SYS_seccomp as usize, [code, 0, 0, 0, 0, 0]);
                }
            }
        });
    });
}

/// `CLONE_NEW*`, namespaces(7).
const NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWCGROUP,
    0x80, // CLONE_NEWTIME
];

fn unshare(flags: usize) -> Option<RefusalReason> {
    refusal(libc::SYS_unshare as usize, [flags, 0, 0, 0, 0, 0])
}

fn setns(file: i32, kinds: i32) -> Option<RefusalReason> {
    let kinds = kinds as u32 as usize;
    refusal(libc::SYS_setns as usize, [file as usize, kinds, 0, 0, 0, 0])
}

/// Opens a namespace of this process by its name.
fn own(name: &str) -> File {
    File::open(format!("/proc/self/ns/{name}")).unwrap()
}

#[test]
fn every_flag_among_several_threads() {
    isolated("every_flag_among_several_threads", WATCHDOG, || {
        sleepers(1);
        for bit in 0..usize::BITS {
            let flag = 1usize << bit;
            let named = bit < 32 && NAMESPACES.contains(&(flag as i32));
            assert_eq!(
                unshare(flag),
                named.then_some(RefusalReason::CreatesNamespace),
                "{flag:#x}"
            );
            let with_files = flag | libc::CLONE_FILES as usize;
            assert_eq!(
                unshare(with_files),
                named.then_some(RefusalReason::CreatesNamespace),
                "{flag:#x}"
            );
            if bit < 32 {
                let pid = flag as i32 == libc::CLONE_NEWPID;
                assert_eq!(
                    setns(-1, flag as i32),
                    pid.then_some(RefusalReason::JoinsPidNamespace),
                    "{flag:#x}"
                );
            }
        }
    });
}

#[test]
fn every_descriptor_of_setns_among_several_threads() {
    isolated("every_descriptor_of_setns_among_several_threads", WATCHDOG, || {
        sleepers(1);
        for name in ["cgroup", "ipc", "mnt", "net", "time", "user", "uts"] {
            match File::open(format!("/proc/self/ns/{name}")) {
                Ok(file) => assert_eq!(setns(file.as_raw_fd(), 0), None, "{name}"),
                Err(error) => support::skipped(format!("no {name} namespace: {error}")),
            }
        }
        for name in ["pid", "pid_for_children"] {
            let file = own(name);
            assert_eq!(
                setns(file.as_raw_fd(), 0),
                Some(RefusalReason::JoinsPidNamespace),
                "{name}"
            );
            assert_eq!(setns(file.as_raw_fd(), libc::CLONE_NEWNET), None, "{name}");
        }
        assert_eq!(setns(-1, 0), None);
        assert_eq!(setns(File::open("/dev/null").unwrap().as_raw_fd(), 0), None);
        // SAFETY: pidfd_open touches no memory.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) } as i32;
        assert!(pidfd >= 0);
        assert_eq!(setns(pidfd, 0), None);
        assert_eq!(setns(pidfd, libc::CLONE_NEWNET), None);
        let both = libc::CLONE_NEWNET | libc::CLONE_NEWPID;
        assert_eq!(setns(pidfd, both), Some(RefusalReason::JoinsPidNamespace));
    });
}

/// If a filter hides the kind of a namespace, it may be a PID namespace.
#[test]
fn setns_of_an_unknown_namespace() {
    isolated("setns_of_an_unknown_namespace", WATCHDOG, || {
        sleepers(1);
        let file = own("net");
        support::filter(libc::SYS_ioctl, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
        assert_eq!(setns(file.as_raw_fd(), 0), Some(RefusalReason::JoinsPidNamespace));
        assert_eq!(setns(file.as_raw_fd(), libc::CLONE_NEWNET), None);
    });
}

#[test]
fn a_single_thread_may_make_the_calls() {
    isolated("a_single_thread_may_make_the_calls", WATCHDOG, || {
        forked(|| {
            for flag in NAMESPACES {
                assert_eq!(unshare(flag as usize), None, "{flag:#x}");
                assert_eq!(setns(-1, flag), None, "{flag:#x}");
            }
            assert_eq!(setns(own("pid").as_raw_fd(), 0), None);
        });
    });
}

/// After the refusal every thread can create threads.
#[test]
fn threads_can_be_created_after_setns_was_refused() {
    isolated("threads_can_be_created_after_setns_was_refused", WATCHDOG, || {
        sleepers(1);
        let file = own("pid");
        for kind in [0, libc::CLONE_NEWPID as usize] {
            let (nr, fd) = (libc::SYS_setns, file.as_raw_fd() as usize);
            // SAFETY: setns touches no memory.
            let error = unsafe { libpsx::syscall3(nr, fd, kind, 0) }.unwrap_err();
            assert!(matches!(error, Error::Refused(RefusalReason::JoinsPidNamespace)), "{error}");
            assert!(error.to_string().contains("PID namespace"), "{error}");
        }
        std::thread::spawn(|| {}).join().unwrap();
    });
}
