//! A child whose first thread is traced, call by call.

use super::{PtraceRequest, end, first_form, fork, reap, skipped};

/// Makes ptrace(2) requests with numbers, or with memory that the kernel writes `address` bytes to.
fn ptrace(request: PtraceRequest, pid: i32, address: usize, data: usize) -> bool {
    // SAFETY: the memory is as large as the kernel writes.
    unsafe { libc::ptrace(request, pid, address, data) >= 0 }
}

/// Runs `body` in a child of fork(2). `each` is called for each system call of the child's first thread, with its number,
/// while the thread is stopped: before the call, and after it (`true`). Returns the status as waitpid(2) does, or `None` if
/// the child may not be traced.
pub fn traced(body: impl FnOnce() -> i32, mut each: impl FnMut(libc::c_long, bool)) -> Option<i32> {
    // The child takes no lock that another thread could own.
    let pid = fork();
    if pid == 0 {
        if !ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            end(100);
        }
        // SAFETY: the signal stops this process for its tracer.
        unsafe { libc::raise(libc::SIGSTOP) };
        end(body());
    }
    let mut status = reap(pid);
    if libc::WIFEXITED(status) {
        skipped("ptrace is not allowed");
        return None;
    }
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    assert!(ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options as usize));
    // include/uapi/linux/ptrace.h; libc has them for glibc only.
    const PTRACE_GET_SYSCALL_INFO: PtraceRequest = 0x420e;
    const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
    let (mut call, mut signal) = (0, 0);
    loop {
        assert!(ptrace(libc::PTRACE_SYSCALL, pid, 0, signal));
        status = reap(pid);
        if !libc::WIFSTOPPED(status) {
            return Some(status);
        }
        if libc::WSTOPSIG(status) != libc::SIGTRAP | 0x80 {
            signal = libc::WSTOPSIG(status) as usize;
            continue;
        }
        signal = 0;
        // `struct ptrace_syscall_info`: the kind of the stop, its place, and the number of the call.
        let mut info = [0u64; 11];
        let at = info.as_mut_ptr() as usize;
        assert!(ptrace(PTRACE_GET_SYSCALL_INFO, pid, size_of_val(&info), at));
        let ended = info[0].to_ne_bytes()[0] != PTRACE_SYSCALL_INFO_ENTRY;
        if !ended {
            call = first_form(info[3] as libc::c_long);
        }
        each(call, ended);
    }
}
