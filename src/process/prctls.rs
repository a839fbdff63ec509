//! prctl(2): which options need a broadcast, and typed calls for those that have no other file.
//!
//! An option of prctl(2) changes the calling thread alone, or something that all threads share. Only the first kind
//! needs a broadcast. The tables name the kernel's function that decides it (Linux 6.18).
//!
//! # Options that act on the calling thread
//!
//! | option | what it changes | kernel source | here |
//! |---|---|---|---|
//! | PR_SET_NO_NEW_PRIVS | task flags | kernel/sys.c | [`set_no_new_privs`](super::set_no_new_privs) |
//! | PR_SET_SECUREBITS, PR_SET_KEEPCAPS | the thread's credentials | security/commoncap.c, `cap_task_prctl` | [`set_securebits`](super::set_securebits), [`set_keepcaps`](super::set_keepcaps) |
//! | PR_CAPBSET_DROP | the thread's credentials | security/commoncap.c, `cap_prctl_drop` | [`capbset_drop`](super::capbset_drop) |
//! | PR_CAP_AMBIENT | the thread's credentials | security/commoncap.c, `cap_task_prctl` | [`cap_ambient_raise`](super::cap_ambient_raise), [`cap_ambient_lower`](super::cap_ambient_lower), [`cap_ambient_clear_all`](super::cap_ambient_clear_all) |
//! | PR_SET_SECCOMP | the thread's filters | kernel/seccomp.c | [`seccomp`](super::seccomp), which seccomp(2) does better |
//! | PR_SET_TIMERSLACK | `task->timer_slack_ns` | kernel/sys.c | [`set_timer_slack`](super::set_timer_slack) |
//! | PR_SET_SPECULATION_CTRL | task flags | arch/x86/kernel/cpu/bugs.c | [`set_speculation_ctrl`](super::set_speculation_ctrl) |
//! | PR_SET_PDEATHSIG | `task->pdeath_signal` | kernel/sys.c | [`set_parent_process_death_signal`] |
//! | PR_SET_TSC | thread flags | arch/x86/kernel/process.c, `set_tsc_mode` | [`set_tsc`] |
//! | PR_SET_IO_FLUSHER | task flags | kernel/sys.c | [`set_io_flusher`] |
//! | PR_MCE_KILL | task flags | kernel/sys.c | [`set_mce_kill`] |
//! | PR_SET_TAGGED_ADDR_CTRL | thread flags | arch/arm64/kernel/process.c, `set_tagged_addr_ctrl` | [`set_tagged_addr_ctrl`] |
//! | PR_SET_SYSCALL_USER_DISPATCH | `task->syscall_dispatch` | kernel/entry/syscall_user_dispatch.c | [`disable_syscall_user_dispatch`]; on is refused |
//! | PR_SCHED_CORE with PR_SCHED_CORE_SCOPE_THREAD | `task->core_cookie` | kernel/sched/core_sched.c | the kernel's own PR_SCHED_CORE_SCOPE_THREAD_GROUP does all threads |
//! | PR_TASK_PERF_EVENTS_DISABLE, _ENABLE | the thread's events | kernel/events/core.c | not offered |
//! | PR_SET_NAME | `task->comm` | kernel/sys.c | not offered: each thread has a name of its own |
//! | PR_SVE_SET_VL, PR_SME_SET_VL, PR_PAC_RESET_KEYS, PR_PAC_SET_ENABLED_KEYS, PR_SET_SHADOW_STACK_STATUS | registers and keys | arch/arm64/kernel | not offered: the code that runs depends on them |
//! | PR_SET_FPEMU, PR_SET_FPEXC, PR_SET_UNALIGN, PR_SET_ENDIAN | thread flags | arch | not offered: other CPUs |
//!
//! # Options that act on the whole process already
//!
//! One plain prctl(2) in any thread is enough. A broadcast repeats it in each thread, which changes nothing more.
//!
//! | option | what it changes | kernel source |
//! |---|---|---|
//! | PR_SET_DUMPABLE | the memory's flags, `set_dumpable(mm)`; [`set_dumpable`] for use in a transaction | kernel/sys.c, fs/exec.c |
//! | PR_SET_CHILD_SUBREAPER | `signal->is_child_subreaper` | kernel/sys.c |
//! | PR_SET_THP_DISABLE | the memory's flags | kernel/sys.c |
//! | PR_SET_MDWE | the memory's flags | kernel/sys.c, `prctl_set_mdwe` |
//! | PR_SET_MEMORY_MERGE | the memory's flags | kernel/sys.c, mm/ksm.c |
//! | PR_SET_MM, PR_SET_VMA | the memory | kernel/sys.c |
//! | PR_SET_PTRACER | an entry for the thread group's leader | security/yama/yama_lsm.c |
//! | PR_TIMER_CREATE_RESTORE_IDS | `signal->timer_create_restore_ids` | kernel/time/posix-timers.c |
//! | PR_FUTEX_HASH | the memory's futex hash | kernel/futex/core.c |
//! | PR_SET_FP_MODE | the memory's mode, and with it all threads | arch/mips/kernel/process.c |
//! | PR_SET_TIMING | nothing: the one value that it accepts is the present one | kernel/sys.c |
#![forbid(unsafe_code)]

use core::ffi::c_int;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::Operation;

const fn prctl(option: u32, first: usize) -> Operation<'static> {
    prctl_of_two(option, [first, 0])
}

const fn prctl_of_two(option: u32, [first, second]: [usize; 2]) -> Operation<'static> {
    Operation::new(k::__NR_prctl, [option as usize, first, second, 0, 0, 0])
}

/// Sets the signal that the process gets when the thread that created it ends; 0 for none. PR_SET_PDEATHSIG(2const);
/// kernel/sys.c, and `forget_original_parent` in kernel/exit.c.
///
/// The kernel sends the signal to the process if any of its threads has it set, so one thread that keeps the old value
/// keeps the signal. New threads and children begin without one. A change of a thread's effective or file-access IDs,
/// more permitted capabilities, and execve(2) of a set-user-ID program clear it: set it after the IDs.
///
/// The kernel sends it only if the parent may signal the process (kill(2)) when it ends (`group_send_sig_info` in
/// kernel/signal.c). A parent of another user that has given up CAP_KILL ends without a signal.
///
/// # Errors
/// EINVAL if there is no such signal.
///
/// # Example
/// ```
/// use libpsx::process::set_parent_process_death_signal;
///
/// set_parent_process_death_signal(libc::SIGTERM).execute()?;
/// # set_parent_process_death_signal(0).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn set_parent_process_death_signal(signal: c_int) -> Operation<'static> {
    prctl(p::PR_SET_PDEATHSIG, signal as usize)
}

/// What the RDTSC instruction does in user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tsc {
    /// `PR_TSC_ENABLE`: it returns the time stamp counter.
    Enable,
    /// `PR_TSC_SIGSEGV`: the thread gets SIGSEGV.
    Sigsegv,
}

/// Sets whether threads may read the time stamp counter. PR_SET_TSC(2const); arch/x86/kernel/process.c. Children
/// inherit it.
///
/// With [`Tsc::Sigsegv`], clock_gettime(3) of the C library gets SIGSEGV too, unless the program has turned the vDSO
/// off: the vDSO reads the counter.
///
/// # Errors
/// EINVAL on other CPUs than x86.
///
/// # Example
/// ```
/// use libpsx::process::{Tsc, set_tsc};
///
/// set_tsc(Tsc::Enable).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn set_tsc(mode: Tsc) -> Operation<'static> {
    let mode = match mode {
        Tsc::Enable => p::PR_TSC_ENABLE,
        Tsc::Sigsegv => p::PR_TSC_SIGSEGV,
    };
    prctl(p::PR_SET_TSC, mode as usize)
}

/// Sets whether the threads belong to a file system or block device that is implemented in user space: then memory
/// that the kernel allocates for them does not wait for the device itself. PR_SET_IO_FLUSHER(2const); kernel/sys.c.
/// Children inherit it. Linux 5.6.
///
/// # Errors
/// EPERM without CAP_SYS_RESOURCE. EINVAL before Linux 5.6.
///
/// # Example
/// ```no_run
/// use libpsx::process::set_io_flusher;
///
/// set_io_flusher(true).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn set_io_flusher(flusher: bool) -> Operation<'static> {
    prctl(p::PR_SET_IO_FLUSHER, flusher as usize)
}

/// When a thread gets SIGBUS for a page of its memory that the hardware found broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MceKill {
    /// As /proc/sys/vm/memory_failure_early_kill says.
    Default,
    /// `PR_MCE_KILL_EARLY`: as soon as it is found.
    Early,
    /// `PR_MCE_KILL_LATE`: when a thread touches it.
    Late,
}

/// Sets the policy for broken memory. PR_MCE_KILL(2const); kernel/sys.c, and `find_early_kill_thread` in
/// mm/memory-failure.c. Children inherit it.
///
/// ```
/// use libpsx::process::{MceKill, set_mce_kill};
///
/// set_mce_kill(MceKill::Early).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn set_mce_kill(policy: MceKill) -> Operation<'static> {
    let policy = match policy {
        MceKill::Default => p::PR_MCE_KILL_DEFAULT,
        MceKill::Early => p::PR_MCE_KILL_EARLY,
        MceKill::Late => p::PR_MCE_KILL_LATE,
    };
    prctl_of_two(p::PR_MCE_KILL, [p::PR_MCE_KILL_SET as usize, policy as usize])
}

/// Sets whether the kernel accepts tagged addresses from the threads, and how it checks memory tags (MTE): the bits of
/// `PR_TAGGED_ADDR_ENABLE` and `PR_MTE_*`. PR_SET_TAGGED_ADDR_CTRL(2const); arch/arm64/kernel/process.c. Children
/// inherit it.
///
/// # Errors
/// EINVAL on CPUs without tagged addresses, x86-64 among them, and for bits that the kernel does not know.
///
/// # Example
/// ```
/// use libpsx::process::set_tagged_addr_ctrl;
///
/// const PR_TAGGED_ADDR_ENABLE: u32 = 1;
/// let result = set_tagged_addr_ctrl(PR_TAGGED_ADDR_ENABLE).execute();
/// assert_eq!(result.is_ok(), cfg!(target_arch = "aarch64"));
/// ```
pub const fn set_tagged_addr_ctrl(bits: u32) -> Operation<'static> {
    prctl(p::PR_SET_TAGGED_ADDR_CTRL, bits as usize)
}

/// Turns syscall user dispatch off in every thread: no system call becomes SIGSYS by it.
/// PR_SET_SYSCALL_USER_DISPATCH(2const); kernel/entry/syscall_user_dispatch.c. (To turn it on by a broadcast is
/// refused: held threads could not go on.)
///
/// # Errors
/// EINVAL before Linux 5.11.
///
/// # Example
/// ```no_run
/// use libpsx::process::disable_syscall_user_dispatch;
///
/// disable_syscall_user_dispatch().execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn disable_syscall_user_dispatch() -> Operation<'static> {
    prctl(p::PR_SET_SYSCALL_USER_DISPATCH, p::PR_SYS_DISPATCH_OFF as usize)
}

/// Sets whether the process may be dumped, traced by its user, and has its files in /proc owned by its user.
/// PR_SET_DUMPABLE(2const); kernel/sys.c.
///
/// It belongs to the memory of the process, so each thread that performs it repeats it. It is here for
/// transactions: a change of IDs clears it, and no thread should run before it is set again.
///
/// ```no_run
/// use libpsx::Transaction;
/// use libpsx::process::{Uid, set_all_uids, set_dumpable};
///
/// let user = set_all_uids(Uid::new(65534)?);
/// Transaction::new().with(user).with(set_dumpable(true)).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const fn set_dumpable(dumpable: bool) -> Operation<'static> {
    prctl(p::PR_SET_DUMPABLE, dumpable as usize)
}
