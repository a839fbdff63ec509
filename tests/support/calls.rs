//! Calls that every test makes, and threads that they are made on.

use std::time::Duration;

use libpsx::{Broadcast, Error, Report};

use super::proc;

pub const LONG: Duration = Duration::from_secs(30);

/// The timer slack of this thread, the harmless per-thread value that most tests set.
pub fn slack_here() -> usize {
    // SAFETY: PR_GET_TIMERSLACK touches no memory.
    unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) as usize }
}

/// The call that sets it.
pub fn slack(value: usize) -> Broadcast {
    let set = libc::PR_SET_TIMERSLACK as usize;
    Broadcast::new(libc::SYS_prctl, [set, value, 0, 0, 0, 0])
}

/// Sets it in every thread.
pub fn set_slack(value: usize) -> Result<Report, Error> {
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    unsafe { slack(value).deadline(LONG).run() }
}

/// Threads that sleep for good.
pub fn sleepers(count: usize) {
    for _ in 0..count {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
}

/// A filter for this thread that does `action` to the call `nr`, and allows the rest.
pub fn filter(nr: i64, action: u32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, nr as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, action),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let len = program.len() as u16;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let set = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads the program.
    assert_eq!(unsafe { libc::syscall(libc::SYS_seccomp, set, 0, &program) }, 0);
}

pub fn no_new_privs() -> Result<Report, Error> {
    let args = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
    unsafe { Broadcast::new(libc::SYS_prctl, args).deadline(LONG).run() }
}

/// Adds a filter that allows everything. It is not idempotent: each thread counts its filters. It
/// wants no_new_privs.
pub fn add_filter(deadline: Duration) -> Result<Report, Error> {
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    let allow = libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: (&raw const allow).cast_mut() };
    let set = libc::SECCOMP_SET_MODE_FILTER as usize;
    let args = [set, 0, (&raw const program) as usize, 0, 0, 0];
    // SAFETY: the program outlives the call.
    unsafe { Broadcast::new(libc::SYS_seccomp, args).deadline(deadline).run() }
}

/// Every thread shows this in its status.
pub fn all_have(field: &str, wanted: &str) {
    let seen = proc::field_in_every_thread(field);
    assert!(seen.values().all(|value| value == wanted), "{field}: not {wanted}: {seen:?}");
}

pub fn all_have_filters(count: usize) {
    all_have("Seccomp_filters", &count.to_string());
}

/// Blocks every signal in this thread, past the C library, which would leave signal 33 out.
pub fn block_all() {
    set_mask(!0);
}

/// Sets this thread's mask, past the C library.
pub fn set_mask(mask: u64) {
    let set = libc::SIG_SETMASK;
    let at = &raw const mask;
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, set, at, 0usize, 8usize) };
}
