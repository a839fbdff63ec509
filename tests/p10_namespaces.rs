//! Tests processes whose /proc shows other numbers, is forged, or is absent, and process 1 (P10).
#![allow(unsafe_code)]

mod support;

use std::ffi::CStr;
use std::time::Duration;

use libpsx::{Broadcast, Sensitivity};
use linux_raw_sys::general::clone_args;
use support::*;

/// It takes seconds to probe every possible tid.
const WATCHDOG: Duration = Duration::from_secs(120);

/// The exit status of a child whose call has failed.
const FAILED: i32 = 77;

/// Checks that the call reaches all of a few threads, and no other thread.
fn covers_all(witnesses: &[Witness], value: usize) {
    let report = covers(witnesses, value);
    assert_eq!(report.threads(), witnesses.len() + 1, "{report:?}");
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) {
    let (source, target, kind) = (source.as_ptr(), target.as_ptr(), kind.as_ptr());
    // SAFETY: the paths are strings, and there is no data.
    let done = unsafe { libc::mount(source, target, kind, flags, std::ptr::null()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn unmount_proc() {
    // SAFETY: the path is a string.
    assert_eq!(unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH) }, 0);
}

#[test]
fn proc_unmounted_before_the_first_call() {
    isolated_as_root("proc_unmounted_before_the_first_call", WATCHDOG, || {
        forked(|| {
            if !private_mounts() {
                return;
            }
            unmount_proc();
            covers_all(&witnesses(5), 1001);
        });
    });
}

#[test]
fn proc_unmounted_after_the_first_call() {
    isolated_as_root("proc_unmounted_after_the_first_call", WATCHDOG, || {
        forked(|| {
            if !private_mounts() {
                return;
            }
            let witnesses = witnesses(5);
            covers_all(&witnesses, 1001);
            unmount_proc();
            covers_all(&witnesses, 1002);
        });
    });
}

/// A directory in another file system that looks like /proc.
#[test]
fn forged_proc() {
    isolated_as_root("forged_proc", WATCHDOG, || {
        forked(|| {
            if !private_mounts() {
                return;
            }
            let pid = std::process::id();
            mount(c"none", c"/proc", c"tmpfs", 0);
            std::fs::create_dir_all(format!("/proc/self/task/{pid}")).unwrap();
            covers_all(&witnesses(5), 1001);
        });
    });
}

/// In a real /proc, the threads of another process are in the place of ours: fewer than ours, and more.
#[test]
fn task_directory_of_another_process() {
    isolated_as_root("task_directory_of_another_process", WATCHDOG, || {
        for others in [2, 20] {
            // There is no other thread yet, so the child misses no lock.
            let other = support::fork();
            if other == 0 {
                // SAFETY: the call touches no memory.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                support::sleepers(others);
                loop {
                    std::thread::park();
                }
            }
            let theirs = format!("/proc/{other}/task");
            while std::fs::read_dir(&theirs).unwrap().count() <= others {
                std::thread::yield_now();
            }
            forked(|| {
                if !private_mounts() {
                    return;
                }
                let path = |text| std::ffi::CString::new(text).unwrap();
                let ours = path(format!("/proc/{}/task", std::process::id()));
                mount(&path(theirs), &ours, c"", libc::MS_BIND);
                covers_all(&witnesses(5), 1001);
            });
            // SAFETY: the process is a child that has not been waited for.
            unsafe { libc::kill(other, libc::SIGKILL) };
            support::reap(other);
        }
    });
}

/// Process 1 of a PID namespace sees the outer one's /proc. The outer number of one of its threads is also the inner
/// number of a foreign process. The library must leave that process alone.
#[test]
fn proc_of_the_outer_pid_namespace() {
    isolated_as_root("proc_of_the_outer_pid_namespace", WATCHDOG, || {
        if !unshared(libc::CLONE_NEWPID) {
            return;
        }
        forked(|| {
            assert_eq!(std::process::id(), 1);
            let witnesses = witnesses(5);
            let outer = proc::tids();
            assert!(outer.iter().all(|&tid| tid > 10), "{outer:?}");
            let strangers: Vec<i32> = outer.iter().map(|&tid| process_with_pid(tid)).collect();
            for value in 1001..1050 {
                covers_all(&witnesses, value);
            }
            for pid in strangers {
                let mut status = 0;
                // SAFETY: the kernel writes the status.
                let dead = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
                assert_eq!(dead, 0, "the process with pid {pid} was signalled");
            }
        });
    });
}

/// After a tid wrap-around, threads have numbers below their leader's. They are found without a list, which this thread
/// may not read. (If they arrive slowly, the library reads the list, and the call fails. Then another process tries.)
#[test]
fn ids_after_a_wrap_around() {
    isolated_as_root("ids_after_a_wrap_around", WATCHDOG, || {
        if !unshared(libc::CLONE_NEWPID) {
            return;
        }
        forked(|| {
            if !private_mounts() {
                return;
            }
            mount(c"proc", c"/proc", c"proc", 0);
            let limit = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
            let last = limit.trim().parse::<i32>().unwrap() - 4;
            let attempt = || {
                std::fs::write("/proc/sys/kernel/ns_last_pid", last.to_string()).unwrap();
                let status = forked_status(|| {
                    let witnesses = witnesses(8);
                    let (leader, tids) = (std::process::id() as i32, proc::tids());
                    assert!(tids.iter().filter(|&&tid| tid < leader).count() >= 5, "{tids:?}");
                    filter(libc::SYS_getdents64, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
                    let done = set_slack(1001).is_ok();
                    assert!(!done || witnesses.iter().all(|witness| witness.slack() == 1001));
                    // SAFETY: the call ends the process, which has nothing to clean up.
                    unsafe { libc::_exit(if done { 0 } else { FAILED }) };
                });
                let status = libc::WEXITSTATUS(status);
                assert!([0, FAILED].contains(&status), "{status}");
                status == 0
            };
            assert!((0..50).any(|_| attempt()));
        });
    });
}

/// Makes a process that sleeps and has this number in this PID namespace.
fn process_with_pid(pid: i32) -> i32 {
    let set = [pid];
    // SAFETY: a structure of zeros is valid and requests nothing.
    let mut arguments: clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = set.as_ptr() as u64;
    arguments.set_tid_size = 1;
    let size = size_of::<clone_args>();
    // SAFETY: the kernel reads the arguments; the child makes raw calls.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    if made == 0 {
        loop {
            // SAFETY: pause touches no memory.
            unsafe { libc::pause() };
        }
    }
    assert_eq!(made, libc::c_long::from(pid), "{}", std::io::Error::last_os_error());
    pid
}

/// Signal 33 and SIGKILL have no effect on process 1. Its exit status shows the divergence.
#[test]
fn divergence_kills_process_1() {
    if skipped_without_root("divergence_kills_process_1") {
        return;
    }
    let body = || {
        if !unshared(libc::CLONE_NEWPID) {
            return;
        }
        let status = forked_status(|| {
            assert_eq!(std::process::id(), 1);
            let refuse = libc::SECCOMP_RET_ERRNO | libc::EACCES as u32;
            prepared(move || filter(libc::SYS_getpriority, refuse));
            set_slack(1).unwrap();
            let call = Broadcast::new(libc::SYS_getpriority, [0; 6]);
            // SAFETY: getpriority touches no memory.
            let _ = unsafe { call.sensitivity(Sensitivity::Error).execute_with_report() };
        });
        println!("process 1 ended with {status:#x}");
    };
    let (status, output) = isolated_status("divergence_kills_process_1", WATCHDOG, body);
    assert!(status.success(), "{output}");
    if output.contains("SKIPPED: ") {
        return;
    }
    assert!(output.contains(&format!("{:#x}", (128 + 33) << 8)), "{output}");
    assert!(output.contains("getpriority"), "{output}");
    assert!(output.contains("EACCES"), "{output}");
}

/// A Landlock domain denies every file, also /proc, to every thread. Then another call is made.
#[test]
fn landlock_that_hides_proc() {
    isolated("landlock_that_hides_proc", WATCHDOG, || {
        let witnesses = witnesses(5);
        if !support::landlock_denies_all_files() {
            return;
        }
        covers(&witnesses, 1001);
    });
}
