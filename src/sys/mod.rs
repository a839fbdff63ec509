//! The few kernel calls we make, typed. Nothing here touches errno, TLS, or a lock.

// # Safety
//
// Every function makes one system call whose arguments it builds itself from references and plain
// numbers, so a safe one is safe for every argument; what takes raw memory or another's promise is
// unsafe and says why.
#![allow(unsafe_code)]
// Under loom nobody sleeps in the kernel.
#![cfg_attr(loom, allow(dead_code))]

pub(crate) mod arch;
pub(crate) mod futex;
pub(crate) mod names;
pub(crate) mod proc;
pub(crate) mod signal;
mod standard_error;
pub(crate) mod sync;

use core::ffi::CStr;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use linux_raw_sys::errno as e;
use linux_raw_sys::general as k;

use self::arch::{KernelMask, KernelSigaction, Timed};
pub(crate) use self::standard_error::{write_line, write_line_and_kill};
use crate::errno::Errno;

/// The signal: glibc and musl keep applications from blocking it. See DESIGN.md.
pub(crate) const SIGNAL: i32 = 33;

/// What a filter sends in place of a call, seccomp(2), SECCOMP_RET_TRAP.
pub(crate) const SIGSYS: i32 = 31;

/// What a debugger and job control stop a process by.
pub(crate) const SIGSTOP: i32 = 19;

/// A set of signals: bit `n - 1` stands for signal `n`.
pub(crate) type Mask = u64;

pub(crate) const ALL: Mask = !0;

pub(crate) const fn bit(signal: i32) -> Mask {
    1 << (signal - 1)
}

/// Returns a mask that blocks every signal, except that SIGSYS is as `interrupted` has it.
///
/// If a filter traps a call (seccomp(2), SECCOMP_RET_TRAP) or user dispatch catches it, the kernel sends
/// SIGSYS, and kills the process if the thread blocks it. A thread that can emulate calls therefore
/// keeps SIGSYS open for ours.
pub(crate) const fn all_but_sigsys(interrupted: Mask) -> Mask {
    ALL & (interrupted | !bit(SIGSYS))
}

/// `sizeof(sigset_t)` in the kernel.
const MASK_SIZE: usize = size_of::<KernelMask>();

fn call(nr: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: private to this module, whose functions pass what their call asks for.
    Errno::check(unsafe { arch::syscall6(nr as usize, args) })
}

/// Makes a call one of whose arguments, number `place`, is the address of times, or null. On 32-bit CPUs the call that
/// takes 32-bit times is made first, because filters have known it for longer. A kernel without it says ENOSYS, and gets
/// the call that takes 64-bit times.
fn timed_call<const N: usize>(
    number: Timed,
    mut args: [usize; 6],
    place: usize,
    times: Option<[i64; N]>,
) -> Result<usize, Errno> {
    let mut call_at = |number, address| {
        args.iter_mut().skip(place).take(1).for_each(|arg| *arg = address);
        call(number, args)
    };
    if cfg!(target_pointer_width = "32") {
        let limit = |time: i64| i32::try_from(time).unwrap_or(i32::MAX);
        let narrow = times.map(|times| times.map(limit));
        let address = narrow.as_ref().map_or(0, |times| times.as_ptr() as usize);
        let result = call_at(number.plain, address);
        if result != Err(Errno::NOSYS) {
            return result;
        }
    }
    call_at(number.wide, times.as_ref().map_or(0, |times| times.as_ptr() as usize))
}

/// Performs any call, and gives what the kernel returned.
///
/// # Safety
/// The call must be sound here and now: `syscall6`'s caller has promised it.
pub(crate) unsafe fn raw_syscall(nr: usize, args: &[usize; 6]) -> isize {
    // SAFETY: promised by the caller.
    unsafe { arch::syscall6(nr, *args) }
}

// Tasks and processes

/// gettid(2), which only a filter refuses.
pub(crate) fn thread_id() -> Result<i32, Errno> {
    call(k::__NR_gettid, [0; 6]).map(|tid| tid as i32)
}

/// getpid(2), which only a filter refuses.
pub(crate) fn process_id() -> Result<i32, Errno> {
    call(k::__NR_getpid, [0; 6]).map(|pid| pid as i32)
}

pub(crate) fn gettid() -> i32 {
    thread_id().unwrap_or(0)
}

pub(crate) fn getpid() -> i32 {
    process_id().unwrap_or(0)
}

/// unshare(CLONE_THREAD) changes nothing; it says whether this task is alone: Some(true), has
/// company: Some(false), or that a filter answers in the kernel's place: None.
pub(crate) fn is_single_threaded() -> Option<bool> {
    match call(k::__NR_unshare, [k::CLONE_THREAD as usize, 0, 0, 0, 0, 0]) {
        Ok(_) => Some(true),
        Err(Errno::INVAL) => Some(false),
        Err(_) => None,
    }
}

/// unshare(2) of a namespace.
pub(crate) fn unshare(flag: usize) -> Result<(), Errno> {
    call(k::__NR_unshare, [flag, 0, 0, 0, 0, 0]).map(|_| ())
}

pub(crate) fn setns(fd: i32, flag: usize) -> Result<(), Errno> {
    call(k::__NR_setns, [fd as usize, flag, 0, 0, 0, 0]).map(|_| ())
}

/// Returns whether a descriptor may stand for a PID namespace (ioctl_ns(2), NS_GET_NSTYPE, since Linux
/// 4.11). Returns false only if the kernel says that it stands for something else.
pub(crate) fn may_be_pid_namespace(fd: i32) -> bool {
    const NS_GET_NSTYPE: usize = linux_raw_sys::ioctl::NS_GET_NSTYPE as usize;
    match call(k::__NR_ioctl, [fd as usize, NS_GET_NSTYPE, 0, 0, 0, 0]) {
        Ok(kind) => kind == k::CLONE_NEWPID as usize,
        // It is not open, or it is not a namespace. Any other error may be a filter's.
        Err(errno) => ![e::EBADF, e::ENOTTY, e::EINVAL].contains(&(errno.raw_os_error() as u32)),
    }
}

/// Which version of Landlock the kernel has, landlock_create_ruleset(2).
pub(crate) fn landlock_abi() -> Result<usize, Errno> {
    const LANDLOCK_CREATE_RULESET_VERSION: usize = 1;
    call(k::__NR_landlock_create_ruleset, [0, 0, LANDLOCK_CREATE_RULESET_VERSION, 0, 0, 0])
}

/// prctl(PR_GET_SECCOMP): whether this thread has a filter.
pub(crate) fn has_seccomp_filter() -> bool {
    prctl(linux_raw_sys::prctl::PR_GET_SECCOMP, [0; 3]) != Ok(0)
}

/// prctl(PR_GET_NO_NEW_PRIVS): whether this thread has it.
pub(crate) fn has_no_new_privs() -> bool {
    prctl(linux_raw_sys::prctl::PR_GET_NO_NEW_PRIVS, [0; 3]) == Ok(1)
}

/// A prctl(2) that takes numbers and changes nothing: its callers ask.
pub(crate) fn prctl(option: u32, [a, b, c]: [usize; 3]) -> Result<usize, Errno> {
    call(k::__NR_prctl, [option as usize, a, b, c, 0, 0])
}

/// capget(2) of this thread: effective, permitted, inheritable, the lower half of each first.
pub(crate) fn capget(version: u32, data: &mut [u32; 6]) -> Result<(), Errno> {
    let header = [version, 0];
    let (header, data) = (ptr::from_ref(&header) as usize, ptr::from_mut(data) as usize);
    call(k::__NR_capget, [header, data, 0, 0, 0, 0]).map(|_| ())
}

/// capget(2) of another thread, as [`capget`].
pub(crate) fn capget_of(pid: i32, version: u32, data: &mut [u32; 6]) -> Result<(), Errno> {
    let header = [version, pid as u32];
    let (header, data) = (ptr::from_ref(&header) as usize, ptr::from_mut(data) as usize);
    call(k::__NR_capget, [header, data, 0, 0, 0, 0]).map(|_| ())
}

/// The running kernel's version, major and minor, uname(2).
pub(crate) fn kernel_version() -> Option<(u32, u32)> {
    let mut names = MaybeUninit::<linux_raw_sys::system::new_utsname>::zeroed();
    call(k::__NR_uname, [names.as_mut_ptr() as usize, 0, 0, 0, 0, 0]).ok()?;
    // SAFETY: all its fields are arrays of characters.
    let release = unsafe { names.assume_init() }.release;
    // A character is an i8 or an u8, as the CPU's C has it.
    let release = release.map(|c| u8::from_ne_bytes(c.to_ne_bytes()));
    let mut numbers = release.split(|c| !c.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0u32, |n, c| n.wrapping_mul(10).wrapping_add(u32::from(*c - b'0')))
    });
    Some((numbers.next()?, numbers.next()?))
}

pub(crate) fn exit_group(status: i32) {
    let _ = call(k::__NR_exit_group, [status as usize, 0, 0, 0, 0, 0]);
}

/// Whether this task is dead though it is still listed: a zombie leader, or one that its tracer has
/// not reaped. FUTEX_TRYLOCK_PI of a word that names it as the owner fails with ESRCH then
/// (`attach_to_pi_owner`, kernel/futex/pi.c), and has no other effect than on that word. It is the
/// one such question that a filter may be trusted to let through: a thread needs futex(2) anyhow.
///
/// qemu-user 7.2 hands the word of a big-endian program to a little-endian kernel as it is, which then looks for another
/// tid. There, the calling thread seems dead as well, and no answer is believed.
pub(crate) fn is_dead(tid: i32) -> bool {
    let seems_dead = |tid: i32| {
        let owned = AtomicU32::new(tid as u32);
        let op = (k::FUTEX_TRYLOCK_PI | k::FUTEX_PRIVATE_FLAG) as usize;
        futex([owned.as_ptr() as usize, op, 0, 0, 0, 0], None) == Err(Errno::SRCH)
    };
    seems_dead(tid) && (cfg!(target_endian = "little") || !seems_dead(gettid()))
}

/// Whether a thread of this process is dead, for certain: the task is no more, or is a zombie.
pub(crate) fn is_gone(pid: i32, tid: u32) -> bool {
    tgkill(pid, tid as i32, 0) == Err(Errno::SRCH) || is_dead(tid as i32)
}

/// Whether this thread and another one share their descriptor table, kcmp(2). Err: the kernel, or a filter, does not
/// tell.
pub(crate) fn shares_files(me: i32, tid: i32) -> Result<bool, Errno> {
    const KCMP_FILES: usize = 2;
    call(k::__NR_kcmp, [me as usize, tid as usize, KCMP_FILES, 0, 0, 0]).map(|order| order == 0)
}

/// The same for root directory, working directory and umask.
pub(crate) fn shares_fs(me: i32, tid: i32) -> Result<bool, Errno> {
    const KCMP_FS: usize = 3;
    call(k::__NR_kcmp, [me as usize, tid as usize, KCMP_FS, 0, 0, 0]).map(|order| order == 0)
}

// Keyrings

const KEY_SPEC_THREAD_KEYRING: usize = usize::MAX;

/// add_key(2) of a keyring to the keyring of this thread.
pub(crate) fn add_to_thread_keyring(name: &CStr) -> Result<i32, Errno> {
    let (kind, name) = (c"keyring".as_ptr() as usize, name.as_ptr() as usize);
    let args = [kind, name, 0, 0, KEY_SPEC_THREAD_KEYRING, 0];
    call(k::__NR_add_key, args).map(|serial| serial as i32)
}

/// keyctl(2), KEYCTL_SETPERM: all rights for a thread that possesses it; view, read, search and link for its user.
pub(crate) fn permit_user_to_search(serial: i32) -> Result<(), Errno> {
    const KEYCTL_SETPERM: usize = 5;
    const PERMISSIONS: usize = 0x3f1b_0000;
    call(k::__NR_keyctl, [KEYCTL_SETPERM, serial as usize, PERMISSIONS, 0, 0, 0]).map(|_| ())
}

pub(crate) fn unlink_from_thread_keyring(serial: i32) {
    const KEYCTL_UNLINK: usize = 9;
    let args = [KEYCTL_UNLINK, serial as usize, KEY_SPEC_THREAD_KEYRING, 0, 0, 0];
    let _ = call(k::__NR_keyctl, args);
}

// Time

/// CLOCK_MONOTONIC, since boot.
pub(crate) fn clock() -> Result<Duration, Errno> {
    let duration = |seconds: i64, nanos: i64| {
        sum(Duration::from_secs(seconds as u64), Duration::from_nanos(nanos as u64))
    };
    let ask = |number, at| call(number, [k::CLOCK_MONOTONIC as usize, at, 0, 0, 0, 0]);
    if cfg!(target_pointer_width = "32") {
        let mut time = [0i32; 2];
        match ask(arch::CLOCK_GETTIME.plain, time.as_mut_ptr() as usize) {
            Ok(_) => return Ok(duration(time[0].into(), time[1].into())),
            Err(Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut time = [0i64; 2];
    ask(arch::CLOCK_GETTIME.wide, time.as_mut_ptr() as usize)?;
    Ok(duration(time[0], time[1]))
}

/// `a + b`. (Duration's own arithmetic can panic, as far as a linker can tell.)
pub(crate) fn sum(a: Duration, b: Duration) -> Duration {
    from_nanos(a.as_nanos().saturating_add(b.as_nanos()))
}

/// `a - b`, or nothing.
pub(crate) fn difference(a: Duration, b: Duration) -> Duration {
    from_nanos(a.as_nanos().saturating_sub(b.as_nanos()))
}

fn from_nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The same, where [`clock`] has been seen to work.
pub(crate) fn now() -> Duration {
    clock().unwrap_or_default()
}

// Futexes

/// futex(2). `time` is its fourth argument.
fn futex(args: [usize; 6], time: Option<[i64; 2]>) -> Result<usize, Errno> {
    match time {
        None => match call(arch::FUTEX.plain, args) {
            Err(Errno::NOSYS) if arch::FUTEX.plain != arch::FUTEX.wide => {
                call(arch::FUTEX.wide, args)
            }
            result => result,
        },
        time => timed_call(arch::FUTEX, args, 3, time),
    }
}

/// Sleeps while `word` is `expected`, at most for `timeout`. May return at any time; the caller looks again. Returns
/// false if the time is over, or if the kernel refuses to let it sleep: a loop that waits for a condition must then
/// look at the clock, or at what it waits for. It does not ask for the time: a filter that lets programs sleep need not
/// let them do that by a system call.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> bool {
    let time = timeout.map(|t| [t.as_secs() as i64, i64::from(t.subsec_nanos())]);
    let op = (k::FUTEX_WAIT | k::FUTEX_PRIVATE_FLAG) as usize;
    match futex([word.as_ptr() as usize, op, expected as usize, 0, 0, 0], time) {
        Ok(_) => true,
        // The word has changed. If it has not, a filter answers.
        Err(Errno::AGAIN) => word.load(Ordering::SeqCst) != expected,
        // The caller looks at the clock rather than to sleep anew, over and over.
        Err(Errno::INTR) => timeout.is_none(),
        Err(_) => false,
    }
}

/// Makes the system call of a sleep on `word`, for a filter to see, and returns at once. The address is one too
/// high and therefore invalid: EINVAL comes before the kernel looks for anything (get_futex_key,
/// kernel/futex/core.c).
pub(crate) fn futex_probe(word: &AtomicU32) {
    let op = (k::FUTEX_WAIT | k::FUTEX_PRIVATE_FLAG) as usize;
    let _ = futex([word.as_ptr() as usize + 1, op, 0, 0, 0, 0], None);
}

pub(crate) fn futex_wake(word: &AtomicU32, count: i32) {
    let op = (k::FUTEX_WAKE | k::FUTEX_PRIVATE_FLAG) as usize;
    let _ = futex([word.as_ptr() as usize, op, count as usize, 0, 0, 0], None);
}

/// futex(2), FUTEX_REQUEUE: wakes up to `wake` threads that sleep on `from`, and has up to `most` others sleep on
/// `to` instead. Returns how many threads both are.
pub(crate) fn futex_requeue(
    from: &AtomicU32,
    wake: i32,
    most: i32,
    to: &AtomicU32,
) -> Result<usize, Errno> {
    let op = (k::FUTEX_REQUEUE | k::FUTEX_PRIVATE_FLAG) as usize;
    let (from, to) = (from.as_ptr() as usize, to.as_ptr() as usize);
    futex([from, op, wake as usize, most as usize, to, 0], None)
}

// Memory

/// Zeroed memory with every page present.
pub(crate) fn map_anonymous(bytes: usize) -> Result<NonNull<u8>, Errno> {
    let protection = (k::PROT_READ | k::PROT_WRITE) as usize;
    let flags = (k::MAP_PRIVATE | k::MAP_ANONYMOUS | k::MAP_POPULATE) as usize;
    let args = [0, bytes, protection, flags, usize::MAX, 0];
    let at = if arch::MMAP_READS_MEMORY {
        call(arch::MMAP, [args.as_ptr() as usize, 0, 0, 0, 0, 0])?
    } else {
        call(arch::MMAP, args)?
    };
    NonNull::new(at as *mut u8).ok_or(Errno::INVAL)
}

/// # Safety
/// `at` is a whole mapping of `bytes` that nothing refers to any more.
pub(crate) unsafe fn unmap(at: NonNull<u8>, bytes: usize) {
    let _ = call(k::__NR_munmap, [at.as_ptr() as usize, bytes, 0, 0, 0, 0]);
}

/// In a child of fork this memory reads zero (MADV_WIPEONFORK, since Linux 4.14).
pub(crate) fn wipe_on_fork(at: NonNull<u8>, bytes: usize) -> Result<(), Errno> {
    let args = [at.as_ptr() as usize, bytes, k::MADV_WIPEONFORK as usize, 0, 0, 0];
    call(k::__NR_madvise, args).map(|_| ())
}

/// A child of fork does not have this memory (MADV_DONTFORK).
pub(crate) fn keep_from_fork(at: NonNull<u8>, bytes: usize) -> Result<(), Errno> {
    let args = [at.as_ptr() as usize, bytes, k::MADV_DONTFORK as usize, 0, 0, 0];
    call(k::__NR_madvise, args).map(|_| ())
}

// Signals

/// Sets this thread's mask, and gives the one from before.
pub(crate) fn set_mask(mask: Mask) -> Result<Mask, Errno> {
    change_mask(k::SIG_SETMASK, mask)
}

/// Blocks every signal but SIGSYS, which stays as it is, and gives the mask from before.
pub(crate) fn block_all_but_sigsys() -> Result<Mask, Errno> {
    change_mask(k::SIG_BLOCK, ALL & !bit(SIGSYS))
}

/// Takes our signal if it is pending, and blocks it again.
pub(crate) fn receive_own_signal() {
    let _ = change_mask(k::SIG_UNBLOCK, bit(SIGNAL));
    let _ = change_mask(k::SIG_BLOCK, bit(SIGNAL));
}

fn change_mask(how: u32, mask: Mask) -> Result<Mask, Errno> {
    let (mask, mut before) = (KernelMask::new(mask), KernelMask::new(0));
    let (new, old) = (ptr::from_ref(&mask) as usize, ptr::from_mut(&mut before) as usize);
    call(k::__NR_rt_sigprocmask, [how as usize, new, old, MASK_SIZE, 0, 0])?;
    Ok(before.get())
}

pub(crate) fn sigaction() -> Result<KernelSigaction, Errno> {
    exchange_sigaction(SIGNAL, 0)
}

/// Whether the program has a handler for SIGSYS: then a thread can run user code in the middle of a stop.
pub(crate) fn sigsys_is_handled() -> bool {
    const SIG_IGN: usize = 1;
    exchange_sigaction(SIGSYS, 0).is_ok_and(|action| action.handler > SIG_IGN)
}

fn exchange_sigaction(signal: i32, new: usize) -> Result<KernelSigaction, Errno> {
    let mut old = MaybeUninit::<KernelSigaction>::zeroed();
    let at = old.as_mut_ptr() as usize;
    call(k::__NR_rt_sigaction, [signal as usize, new, at, MASK_SIZE, 0, 0])?;
    // SAFETY: all its fields are integers, so zeroes, and whatever the kernel wrote, are a value.
    Ok(unsafe { old.assume_init() })
}

/// Sets the action, and gives the one before.
///
/// # Safety
/// `action.handler` is SIG_DFL, SIG_IGN, or a function that may run at any instruction of any
/// thread for ever.
pub(crate) unsafe fn set_sigaction(action: &KernelSigaction) -> Result<KernelSigaction, Errno> {
    exchange_sigaction(SIGNAL, ptr::from_ref(action) as usize)
}

/// Queues our signal for one thread of this process, with a value. The kernel finds the thread by
/// both ids, so a thread of another process is never hit.
pub(crate) fn queue_signal(pid: i32, tid: i32, value: usize) -> Result<(), Errno> {
    queue(pid, tid, SIGNAL, value)
}

/// Whether the kernel would let us: signal 0 is checked like any other and not sent.
pub(crate) fn may_queue_signal(pid: i32, tid: i32) -> Result<(), Errno> {
    queue(pid, tid, 0, 0)
}

fn queue(pid: i32, tid: i32, signal: i32, value: usize) -> Result<(), Errno> {
    let info = SigInfo {
        signo: signal,
        errno: 0,
        code: k::SI_QUEUE,
        pad: [0; SigInfo::PAD],
        pid,
        uid: 0,
        value,
        rest: [0; SigInfo::REST],
    };
    let at = ptr::from_ref(&info) as usize;
    let args = [pid as usize, tid as usize, signal as usize, at, 0, 0];
    call(k::__NR_rt_tgsigqueueinfo, args).map(|_| ())
}

/// RLIMIT_SIGPENDING: how many signals may be queued for this user, prlimit(2).
pub(crate) fn signal_queue_limit() -> Option<u64> {
    let mut limit = [0u64; 2];
    let args = [0, k::RLIMIT_SIGPENDING as usize, 0, limit.as_mut_ptr() as usize, 0, 0];
    call(k::__NR_prlimit64, args).ok()?;
    limit.first().copied()
}

/// tgkill(2).
pub(crate) fn tgkill(pid: i32, tid: i32, signal: i32) -> Result<(), Errno> {
    let args = [pid as usize, tid as usize, signal as usize, 0, 0, 0];
    call(k::__NR_tgkill, args).map(|_| ())
}

/// kill(2) of this very process. (A filter may answer for getpid(2). Without a pid the call is not made: 0 would stand
/// for the process group, and a negative number for more.)
pub(crate) fn kill_self(signal: i32) {
    if let Some(pid) = process_id().ok().filter(|&pid| pid > 0) {
        let _ = call(k::__NR_kill, [pid as usize, signal as usize, 0, 0, 0, 0]);
    }
}

/// siginfo_t as it is laid out for a queued signal (include/uapi/asm-generic/siginfo.h): what depends on the kind of signal
/// begins at a multiple of a register's size.
#[repr(C)]
pub(crate) struct SigInfo {
    pub(crate) signo: i32,
    pub(crate) errno: i32,
    pub(crate) code: i32,
    pad: [i32; Self::PAD],
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) value: usize,
    rest: [usize; Self::REST],
}

impl SigInfo {
    const WORD: usize = size_of::<usize>();
    const PAD: usize = Self::WORD / 4 - 1;
    const SIZE: usize = 128;
    /// After three numbers, the padding, two ids and the value.
    const REST: usize = (Self::SIZE - (3 + Self::PAD + 2) * 4) / Self::WORD - 1;

    /// Words that no kind of signal uses, in pairs. The kernel's own siginfo ends before them, at byte
    /// 48 or earlier, and what it delivers is zero from there on (copy_siginfo_to_user, kernel/signal.c).
    const FREE: core::ops::Range<usize> = Self::REST - 64 / Self::WORD..Self::REST;

    /// What the second word of a pair has in its upper bits while the pair is in use. (An emulator may leave in these
    /// words what was on the stack, where the kernel writes zeroes.)
    const IN_USE: usize = 0xb5 << (usize::BITS - 8);

    /// A stamp must be less than this.
    pub(crate) const STAMPS: usize = 1 << (usize::BITS - 8);

    /// The pair that belongs to `owner`, or a free one: its place and its stamp, which is 0 in a free pair. None if all
    /// pairs belong to others.
    pub(crate) fn progress(&self, owner: usize) -> Option<(usize, usize)> {
        let pair = |at: usize| Some((*self.rest.get(at)?, *self.rest.get(at.wrapping_add(1))?));
        let pairs = || Self::FREE.step_by(2).filter_map(|at| Some((at, pair(at)?)));
        let is_used = |second: usize| second & !(Self::STAMPS - 1) == Self::IN_USE;
        let mut own = pairs().filter(|&(_, (first, second))| first == owner && is_used(second));
        let free = || pairs().find(|&(_, (_, second))| !is_used(second)).map(|(at, _)| (at, 0));
        own.next().map(|(at, (_, second))| (at, second & (Self::STAMPS - 1))).or_else(free)
    }

    /// What a pair of an owner contains.
    pub(crate) const fn pair(owner: usize, stamp: usize) -> (usize, usize) {
        (owner, Self::IN_USE | stamp)
    }

    /// Writes a pair, and returns what was there.
    pub(crate) fn mark_progress(&mut self, at: usize, pair: (usize, usize)) -> (usize, usize) {
        let mut replace = |at: usize, word| {
            self.rest.get_mut(at).map_or(0, |place| core::mem::replace(place, word))
        };
        (replace(at, pair.0), replace(at.wrapping_add(1), pair.1))
    }
}

const _: () = {
    type Fields = k::siginfo__bindgen_ty_1__bindgen_ty_1;
    type Queued = k::__sifields__bindgen_ty_3;
    let fields = offset_of!(Fields, _sifields);
    assert!(size_of::<SigInfo>() == SigInfo::SIZE && size_of::<k::siginfo>() == SigInfo::SIZE);
    assert!(offset_of!(SigInfo, code) == offset_of!(Fields, si_code));
    assert!(offset_of!(SigInfo, pid) == fields + offset_of!(Queued, _pid));
    assert!(offset_of!(SigInfo, uid) == fields + offset_of!(Queued, _uid));
    assert!(offset_of!(SigInfo, value) == fields + offset_of!(Queued, _sigval));
    assert!(offset_of!(SigInfo, value) == if cfg!(target_pointer_width = "64") { 24 } else { 20 });
};

/// `SI_QUEUE`: sent by rt_sigqueueinfo(2) or rt_tgsigqueueinfo(2).
pub(crate) const SI_QUEUE: i32 = k::SI_QUEUE;

// Files

/// A descriptor, closed when dropped. Every one is O_CLOEXEC.
#[derive(Debug)]
pub(crate) struct Fd(i32);

impl Fd {
    /// Takes a descriptor over that the kernel has just made.
    pub(crate) const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    pub(crate) const fn raw(&self) -> i32 {
        self.0
    }

    pub(crate) fn open(path: &CStr, flags: u32) -> Result<Self, Errno> {
        Self::open_at(k::AT_FDCWD, path, flags)
    }

    pub(crate) fn open_in(&self, path: &CStr, flags: u32) -> Result<Self, Errno> {
        Self::open_at(self.0, path, flags)
    }

    /// A descriptor that stands for the place alone (O_PATH): it needs no right to read.
    pub(crate) fn open_path(path: &CStr) -> Result<Self, Errno> {
        Self::open_at(k::AT_FDCWD, path, k::O_PATH)
    }

    pub(crate) fn open_path_in(&self, path: &CStr) -> Result<Self, Errno> {
        Self::open_at(self.0, path, k::O_PATH)
    }

    fn open_at(directory: i32, path: &CStr, flags: u32) -> Result<Self, Errno> {
        // P9: no descriptor leaks into a program that is executed meanwhile.
        let flags = (flags | k::O_RDONLY | k::O_CLOEXEC) as usize;
        let args = [directory as usize, path.as_ptr() as usize, flags, 0, 0, 0];
        call(k::__NR_openat, args).map(|fd| Self(fd as i32))
    }

    pub(crate) fn duplicate(&self) -> Result<Self, Errno> {
        let args = [self.0 as usize, k::F_DUPFD_CLOEXEC as usize, 0, 0, 0, 0];
        call(k::__NR_fcntl, args).map(|fd| Self(fd as i32))
    }

    /// A new mount of proc for this PID namespace, attached nowhere (fsopen(2), fsmount(2)).
    pub(crate) fn mount_proc() -> Result<Self, Errno> {
        const CREATE: usize = k::fsconfig_command::FSCONFIG_CMD_CREATE as usize;
        let name = c"proc".as_ptr() as usize;
        let context = call(k::__NR_fsopen, [name, k::FSOPEN_CLOEXEC as usize, 0, 0, 0, 0])?;
        let context = Self(context as i32);
        call(k::__NR_fsconfig, [context.0 as usize, CREATE, 0, 0, 0, 0])?;
        let args = [context.0 as usize, k::FSMOUNT_CLOEXEC as usize, 0, 0, 0, 0];
        call(k::__NR_fsmount, args).map(|fd| Self(fd as i32))
    }

    /// read(2). A file of /proc has no reason to be interrupted, as all signals are blocked; so a few attempts are enough,
    /// and a filter that always answers EINTR does not keep the caller.
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        const ATTEMPTS: usize = 4;
        let args = [self.0 as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
        let read = || call(k::__NR_read, args);
        (1..ATTEMPTS).map(|_| read()).find(|read| *read != Err(Errno::INTR)).unwrap_or_else(read)
    }

    pub(crate) fn rewind(&self) -> Result<(), Errno> {
        call(k::__NR_lseek, [self.0 as usize, 0, k::SEEK_SET as usize, 0, 0, 0]).map(|_| ())
    }

    pub(crate) fn getdents(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let args = [self.0 as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
        call(k::__NR_getdents64, args)
    }

    /// st_nlink: newfstatat(2), which current C libraries use for fstat(3), so that filters let it through; or
    /// statx(2); or fstat(2).
    pub(crate) fn links(&self) -> Result<usize, Errno> {
        let mut stat = MaybeUninit::<arch::Stat>::zeroed();
        let (fd, at, empty) = (self.0 as usize, stat.as_mut_ptr() as usize, c"".as_ptr() as usize);
        let flags = k::AT_EMPTY_PATH as usize;
        if call(arch::FSTATAT, [fd, empty, at, flags, 0, 0]).is_err() {
            let mut statx = MaybeUninit::<k::statx>::zeroed();
            let args = [fd, empty, flags, k::STATX_NLINK as usize, statx.as_mut_ptr() as usize, 0];
            if call(k::__NR_statx, args).is_ok() {
                // SAFETY: all its fields are integers.
                return Ok(unsafe { statx.assume_init() }.stx_nlink as usize);
            }
            call(arch::FSTAT, [fd, at, 0, 0, 0, 0])?;
        }
        // SAFETY: all its fields are integers.
        Ok(unsafe { stat.assume_init() }.st_nlink as usize)
    }

    /// Device and inode of what a path in this directory leads to, statx(2). The file system is not asked for what it has
    /// cached: a held thread may serve it (FUSE).
    pub(crate) fn identity_of(&self, path: &CStr) -> Result<(u32, u32, u64), Errno> {
        let mut statx = MaybeUninit::<k::statx>::zeroed();
        let (fd, at) = (self.0 as usize, statx.as_mut_ptr() as usize);
        let flags = (k::AT_EMPTY_PATH | k::AT_STATX_DONT_SYNC) as usize;
        let args = [fd, path.as_ptr() as usize, flags, k::STATX_INO as usize, at, 0];
        call(k::__NR_statx, args)?;
        // SAFETY: all its fields are integers.
        let statx = unsafe { statx.assume_init() };
        Ok((statx.stx_dev_major, statx.stx_dev_minor, statx.stx_ino))
    }

    /// Whether it lies in a proc file system, fstatfs(2). Err: the kernel, or a filter, does not tell.
    pub(crate) fn is_proc(&self) -> Result<bool, Errno> {
        let mut statfs = MaybeUninit::<k::statfs>::zeroed();
        let args = [self.0 as usize, statfs.as_mut_ptr() as usize, 0, 0, 0, 0];
        call(k::__NR_fstatfs, args)?;
        // SAFETY: all its fields are integers.
        let kind = unsafe { statfs.assume_init() }.f_type;
        Ok(kind as u64 == u64::from(k::PROC_SUPER_MAGIC))
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = call(k::__NR_close, [self.0 as usize, 0, 0, 0, 0, 0]);
    }
}

/// Ends the process by signal 33, in every situation. No call here waits.
///
/// 1. The default action of signal 33, sent to this thread. If the action cannot be set, the signal would run the
///    handler of another library, so it is not sent.
/// 2. SIGKILL, if that did not end the process.
/// 3. Both leave the init process of a PID namespace alone (pid_namespaces(7)). It ends with an exit
///    status that tells the signal.
/// 4. If a filter refuses all of these, the thread executes an instruction that traps.
pub(crate) fn kill_process() -> ! {
    // SAFETY: the default action runs no code of ours.
    if unsafe { set_sigaction(&KernelSigaction::DEFAULT) }.is_ok() {
        let _ = tgkill(getpid(), gettid(), SIGNAL);
        let _ = set_mask(ALL & !bit(SIGNAL));
    }
    kill_process_without_signal_33()
}

/// The same without the first step, for a thread that has seen another one die on that way.
pub(crate) fn kill_process_without_signal_33() -> ! {
    const SIGKILL: i32 = 9;
    kill_self(SIGKILL);
    exit_group(128 + SIGNAL);
    arch::trap()
}
