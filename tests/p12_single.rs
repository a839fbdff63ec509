//! In a process of one thread, a call costs the call itself and the check for other threads (P12).
#![allow(unsafe_code)]

mod support;

use std::time::Duration;

use support::{PtraceRequest, filter, isolated, proc, set_slack, slack_here};

const WATCHDOG: Duration = Duration::from_secs(30);

/// A call that nothing else makes here. It marks the begin and the end of what is counted.
const MARK: i64 = libc::SYS_getpgid;

fn mark() {
    // SAFETY: getpgid touches no memory.
    unsafe { libc::syscall(MARK, 0) };
}

/// Makes ptrace(2) requests with numbers, or with memory that the kernel writes `address` bytes to.
fn ptrace(request: PtraceRequest, pid: i32, address: usize, data: usize) -> bool {
    // SAFETY: the memory is as large as the kernel writes.
    unsafe { libc::ptrace(request, pid, address, data) >= 0 }
}

/// Waits for the next stop of the child. Returns its status as waitpid(2) does.
fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the kernel writes the status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status
}

/// Returns the numbers of the calls that a child makes between two marks, and its exit status. A child of fork has one
/// thread.
/// Returns `None` if the child may not be traced.
fn calls_of_a_child(body: fn() -> i32) -> Option<(Vec<i64>, i32)> {
    // SAFETY: the child takes no lock that another thread could own.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        if !ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            support::end(100);
        }
        // SAFETY: the signal stops this process for its tracer.
        unsafe { libc::raise(libc::SIGSTOP) };
        support::end(body());
    }
    let mut status = wait(pid);
    if libc::WIFEXITED(status) {
        support::skipped("ptrace is not allowed");
        return None;
    }
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    assert!(ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options as usize));
    // include/uapi/linux/ptrace.h; libc has them for glibc only.
    const PTRACE_GET_SYSCALL_INFO: PtraceRequest = 0x420e;
    const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
    let (mut calls, mut marks) = (Vec::new(), 0);
    loop {
        assert!(ptrace(libc::PTRACE_SYSCALL, pid, 0, 0));
        status = wait(pid);
        if !libc::WIFSTOPPED(status) {
            break;
        }
        assert_eq!(libc::WSTOPSIG(status), libc::SIGTRAP | 0x80, "{status:#x}");
        // `struct ptrace_syscall_info`: the kind of the stop, its place, and the number of the call.
        let mut info = [0u64; 11];
        let at = info.as_mut_ptr() as usize;
        assert!(ptrace(PTRACE_GET_SYSCALL_INFO, pid, size_of_val(&info), at));
        let entered = info[0] as u8 == PTRACE_SYSCALL_INFO_ENTRY;
        match info[3] as i64 {
            _ if !entered => {}
            MARK => marks += 1,
            call if marks == 1 => calls.push(call),
            _ => {}
        }
    }
    assert!(libc::WIFEXITED(status), "{status:#x}");
    assert_eq!(marks, 2);
    Some((calls, libc::WEXITSTATUS(status)))
}

/// Returns whether a handler for signal 33 is installed.
fn handler_installed() -> bool {
    let caught = proc::status(std::process::id() as i32).remove("SigCgt").unwrap();
    u64::from_str_radix(&caught, 16).unwrap() & 1 << (33 - 1) != 0
}

/// Removes the handler of a C library that created a thread before this process was forked.
fn no_handler() {
    let default = [0usize; 4];
    let (old, size) = (std::ptr::null_mut::<usize>(), 8usize);
    // SAFETY: the kernel reads the action, which is SIG_DFL.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, 33, default.as_ptr(), old, size) };
    assert!(!handler_installed());
}

fn two_calls(calls: &[i64]) {
    assert_eq!(calls, [libc::SYS_unshare, libc::SYS_prctl]);
}

#[test]
fn one_thread_makes_two_calls() {
    isolated("one_thread_makes_two_calls", WATCHDOG, || {
        let child = || {
            no_handler();
            mark();
            let report = set_slack(1234).unwrap();
            mark();
            assert!(!handler_installed());
            assert_eq!(slack_here(), 1234);
            i32::from(report.threads() != 1)
        };
        let Some((calls, status)) = calls_of_a_child(child) else { return };
        assert_eq!(status, 0);
        two_calls(&calls);
    });
}

#[test]
fn plain_function_and_failing_call_make_two_calls() {
    isolated("plain_function_and_failing_call_make_two_calls", WATCHDOG, || {
        let child = || {
            no_handler();
            mark();
            // SAFETY: there is no such option.
            let failed = unsafe { libpsx::syscall3(libc::SYS_prctl, 0x7fff_ffff, 0, 0) };
            mark();
            assert_eq!(failed.unwrap_err().raw_os_error(), libc::EINVAL);
            i32::from(handler_installed())
        };
        let Some((calls, status)) = calls_of_a_child(child) else { return };
        assert_eq!(status, 0);
        two_calls(&calls);
    });
}

/// A process has made calls with several threads, and forks. The child has one thread, and must not depend on what its
/// parent was doing.
#[test]
fn child_of_a_process_with_threads_makes_two_calls() {
    isolated("child_of_a_process_with_threads_makes_two_calls", WATCHDOG, || {
        std::thread::spawn(|| {
            for value in 1.. {
                set_slack(value).unwrap();
            }
        });
        for _ in 0..30 {
            let child = || {
                mark();
                let done = set_slack(77).is_ok();
                mark();
                i32::from(!done)
            };
            let Some((calls, status)) = calls_of_a_child(child) else { return };
            assert_eq!(status, 0);
            two_calls(&calls);
        }
    });
}

/// Some filters (a container's) refuse unshare. The library then counts the threads, and does nothing else.
#[test]
fn one_thread_without_unshare_counts_threads() {
    isolated("one_thread_without_unshare_counts_threads", WATCHDOG, || {
        let child = || {
            no_handler();
            filter(libc::SYS_unshare, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
            mark();
            let report = set_slack(1234).unwrap();
            mark();
            i32::from(report.threads() != 1 || handler_installed())
        };
        let Some((calls, status)) = calls_of_a_child(child) else { return };
        println!("{calls:?}");
        assert_eq!(status, 0);
        let locks = [libc::SYS_futex, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigaction];
        assert!(!calls.iter().any(|call| locks.contains(call)), "{calls:?}");
    });
}
