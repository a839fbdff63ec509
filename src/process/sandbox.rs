//! Restrictions that no thread can undo: no_new_privs, seccomp(2) filters, Landlock domains.
#![forbid(unsafe_code)]

use core::fmt;
use core::mem::offset_of;
use core::ops::BitOr;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;
use linux_raw_sys::ptrace::sock_fprog;

use super::{Fd, Operation};
use crate::engine::call::Shares;
use crate::process::operation::pair;
use crate::sys;

/// Sets no_new_privs: execve(2) gives no privilege any more, because set-user-ID bits and file capabilities have no
/// effect. No thread can undo it, and children inherit it. The kernel reports no errors. (PR_SET_NO_NEW_PRIVS(2const))
///
/// ```
/// libpsx::process::set_no_new_privs().execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn set_no_new_privs() -> Operation<'static> {
    Operation::new(k::__NR_prctl, [p::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0])
}

/// One instruction of a seccomp program: `struct sock_filter` (include/uapi/linux/filter.h), as
/// `libc::sock_filter` and `seccompiler::sock_filter` are laid out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// The number of instructions to skip if a comparison holds.
    pub jt: u8,
    /// The number of instructions to skip if it does not hold.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The way in which a filter or a Landlock domain reaches all threads.
///
/// The two differ if a thread has a restriction of its own, which the calling thread does not have. There is no default,
/// because the better choice for a filter is the dangerous one for a Landlock domain.
///
/// | | [`Kernel`](Self::Kernel) | [`Broadcast`](Self::Broadcast) |
/// |---|---|---|
/// | a seccomp filter | the call fails and names the thread | the thread keeps its filters and adds the new one |
/// | a Landlock domain | **the thread loses its own domain**, and gets the caller's | the thread keeps its domain, and is restricted further |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Synchronization {
    /// The kernel gives it to all threads: SECCOMP_FILTER_FLAG_TSYNC, LANDLOCK_RESTRICT_SELF_TSYNC. In a transaction
    /// such a call can only be the last.
    ///
    /// With LANDLOCK_RESTRICT_SELF_TSYNC the kernel replaces the domain of every other thread by the caller's. A thread
    /// that had restricted itself can then do what its old domain denied, and there is no error.
    Kernel,
    /// Each thread performs the call, and keeps the restrictions that it has. From then on no two threads share their
    /// filters, so the kernel can no longer synchronise them, or their Landlock domain.
    Broadcast,
}

impl Synchronization {
    /// Returns [`Kernel`](Self::Kernel) if the running kernel can put all threads under one Landlock domain (Landlock's
    /// ABI is 8 or later), otherwise [`Broadcast`](Self::Broadcast). Scoped rulesets need one domain
    /// ([`landlock_restrict_self`]).
    ///
    /// Use it only if no other thread has a Landlock domain that the calling thread does not have: such a thread would
    /// lose its domain. No call shows whether there is such a thread.
    ///
    /// ```
    /// use libpsx::process::Synchronization;
    ///
    /// println!("{:?}", Synchronization::for_one_landlock_domain());
    /// ```
    pub fn for_one_landlock_domain() -> Self {
        const ABI: usize = 8;
        let has = sys::landlock_abi().is_ok_and(|abi| abi >= ABI);
        if has { Self::Kernel } else { Self::Broadcast }
    }
}

/// How the kernel treats a filter: the SECCOMP_FILTER_FLAG_* of seccomp(2) that do not say which threads get it
/// ([`Synchronization`] does). Combine them with `|`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeccompFlags(u32);

impl SeccompFlags {
    /// No flag.
    pub const EMPTY: Self = Self(0);
    /// `SECCOMP_FILTER_FLAG_LOG`: the kernel logs every action of the filter but SECCOMP_RET_ALLOW, as
    /// /proc/sys/kernel/seccomp/actions_logged permits. Linux 4.14.
    pub const LOG: Self = Self(linux_raw_sys::ptrace::SECCOMP_FILTER_FLAG_LOG);
    /// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: the filter does not turn on the mitigation of speculative store bypass.
    /// Linux 4.17.
    pub const SPEC_ALLOW: Self = Self(linux_raw_sys::ptrace::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    /// `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`: if the kernel cannot synchronise the threads, the error is
    /// [`Error::Call`](crate::Error::Call) with ESRCH, and not [`Error::TsyncConflict`](crate::Error::TsyncConflict), which
    /// names the thread. It has no effect with [`Synchronization::Broadcast`]. Linux 5.7.
    pub const TSYNC_ESRCH: Self = Self(linux_raw_sys::ptrace::SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: once the supervisor has received a notification, only a fatal
    /// signal interrupts the thread that waits for the answer. EINVAL without a listener:
    /// [`seccomp_with_listener`](super::seccomp_with_listener). Linux 5.19.
    pub const WAIT_KILLABLE_RECV: Self =
        Self(linux_raw_sys::ptrace::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);

    const NAMES: [(Self, &str); 4] = [
        (Self::LOG, "LOG"),
        (Self::SPEC_ALLOW, "SPEC_ALLOW"),
        (Self::TSYNC_ESRCH, "TSYNC_ESRCH"),
        (Self::WAIT_KILLABLE_RECV, "WAIT_KILLABLE_RECV"),
    ];

    /// Returns the kernel's bits.
    ///
    /// ```
    /// use libpsx::process::SeccompFlags;
    ///
    /// assert_eq!((SeccompFlags::LOG | SeccompFlags::SPEC_ALLOW).bits(), 0b110);
    /// ```
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Makes flags of the bits that the kernel takes. Bits without a name here stay: a newer kernel may know them, and any
    /// other refuses them with EINVAL.
    ///
    /// ```
    /// use libpsx::process::{LandlockFlags, SeccompFlags};
    ///
    /// let logged = LandlockFlags::LOG_NEW_EXEC_ON;
    /// assert_eq!(LandlockFlags::from_bits(logged.bits()), logged);
    /// assert!(SeccompFlags::from_bits(0b110).contains(SeccompFlags::LOG));
    /// ```
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

impl BitOr for SeccompFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for SeccompFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.map(|(flag, name)| (flag.0, name));
        super::operation::debug_flags(f, "SeccompFlags", self.0, &names)
    }
}

/// Adds a filter that decides about every later system call of the thread. Children inherit it.
/// ([seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html), SECCOMP_SET_MODE_FILTER; kernel/seccomp.c)
///
/// By [`Synchronization::Kernel`], the kernel gives all threads the caller's filters, old and new, and no_new_privs
/// with them. By [`Synchronization::Broadcast`], each thread adds the filter to its own.
///
/// # Errors
/// - EACCES without [`set_no_new_privs`] or CAP_SYS_ADMIN.
/// - EINVAL for a flag or a program that the kernel does not take, an empty program, or one of more than 4096
///   instructions.
/// - ENOMEM if the thread's filters together would be larger than 32768 instructions.
/// - [`Error::TsyncConflict`](crate::Error::TsyncConflict), with [`Synchronization::Kernel`]: it names a thread that has a
///   filter which the calling thread does not have.
///
/// With [`Synchronization::Broadcast`] the filter must allow futex, rt_sigreturn and rt_sigprocmask
/// ([`docs::limitations`](crate::docs::limitations)), and in a transaction the calls that come after it.
///
/// ```no_run
/// use libpsx::process::{Instruction, SeccompFlags, Synchronization, set_no_new_privs, seccomp};
///
/// // BPF_RET | BPF_K, SECCOMP_RET_ALLOW: a filter that allows everything.
/// let program = [Instruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];
/// set_no_new_privs().execute()?;
/// seccomp(&program, Synchronization::Kernel, SeccompFlags::LOG).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub fn seccomp(
    program: &[Instruction],
    how: Synchronization,
    flags: SeccompFlags,
) -> Operation<'_> {
    let synchronise = if how == Synchronization::Kernel { TSYNC } else { 0 };
    set_mode_filter(program, flags.0 | synchronise)
}

const TSYNC: u32 = linux_raw_sys::ptrace::SECCOMP_FILTER_FLAG_TSYNC;

/// The seccomp(2) call with exactly these flags.
pub(super) fn set_mode_filter(program: &[Instruction], flags: u32) -> Operation<'_> {
    const SET_MODE_FILTER: usize = linux_raw_sys::ptrace::SECCOMP_SET_MODE_FILTER as usize;
    // A length that does not fit is one that the kernel refuses.
    let len = u16::try_from(program.len()).unwrap_or(u16::MAX);
    // `struct sock_fprog`: a short number, and a pointer, which is aligned.
    const _: () = assert!(offset_of!(sock_fprog, filter) == size_of::<usize>());
    let [a, b] = len.to_ne_bytes();
    let at = program.as_ptr() as usize;
    let words = if cfg!(target_pointer_width = "32") {
        [pair(u32::from_ne_bytes([a, b, 0, 0]), at as u32), 0, 0, 0, 0, 0, 0]
    } else {
        [u64::from_ne_bytes([a, b, 0, 0, 0, 0, 0, 0]), at as u64, 0, 0, 0, 0, 0]
    };
    let args = [SET_MODE_FILTER, flags as usize, 0, 0, 0, 0];
    Operation::new(k::__NR_seccomp, args).with(words, [0, 0, 1, 0, 0, 0])
}

/// What the kernel logs of the accesses that a Landlock domain denies: the LANDLOCK_RESTRICT_SELF_LOG_* flags of
/// landlock_restrict_self(2). Combine them with `|`. They need Landlock's ABI 7 (Linux 6.15).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LandlockFlags(u32);

impl LandlockFlags {
    /// No flag: the kernel logs what it denies to the program that restricted itself, and nothing after execve(2).
    pub const EMPTY: Self = Self(0);
    /// `LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF`: the kernel logs nothing before execve(2).
    pub const LOG_SAME_EXEC_OFF: Self = Self(1 << 0);
    /// `LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON`: the kernel logs also what it denies to programs that are executed
    /// later.
    pub const LOG_NEW_EXEC_ON: Self = Self(1 << 1);
    /// `LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF`: the kernel logs nothing for the domains that are later nested in
    /// this one. [`landlock_log_subdomains_off`] sets it without a ruleset.
    pub const LOG_SUBDOMAINS_OFF: Self = Self(1 << 2);

    const NAMES: [(Self, &str); 3] = [
        (Self::LOG_SAME_EXEC_OFF, "LOG_SAME_EXEC_OFF"),
        (Self::LOG_NEW_EXEC_ON, "LOG_NEW_EXEC_ON"),
        (Self::LOG_SUBDOMAINS_OFF, "LOG_SUBDOMAINS_OFF"),
    ];

    /// Returns the kernel's bits.
    ///
    /// ```
    /// use libpsx::process::LandlockFlags;
    ///
    /// assert_eq!(LandlockFlags::LOG_NEW_EXEC_ON.bits(), 0b10);
    /// ```
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Makes flags of the bits that the kernel takes. Bits without a name here stay: a newer kernel may know them, and any
    /// other refuses them with EINVAL.
    ///
    /// ```
    /// use libpsx::process::{LandlockFlags, SeccompFlags};
    ///
    /// let logged = LandlockFlags::LOG_NEW_EXEC_ON;
    /// assert_eq!(LandlockFlags::from_bits(logged.bits()), logged);
    /// assert!(SeccompFlags::from_bits(0b110).contains(SeccompFlags::LOG));
    /// ```
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

impl BitOr for LandlockFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for LandlockFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.map(|(flag, name)| (flag.0, name));
        super::operation::debug_flags(f, "LandlockFlags", self.0, &names)
    }
}

/// `LANDLOCK_RESTRICT_SELF_TSYNC`.
const LANDLOCK_TSYNC: usize = 1 << 3;

/// Restricts every thread by a Landlock ruleset. Children inherit it.
///
/// By [`Synchronization::Broadcast`], each thread keeps its restrictions and adds the ruleset. By
/// [`Synchronization::Kernel`], the calling thread adds the ruleset, and **the kernel replaces the domain of every
/// other thread by the caller's**: a thread that had restricted itself further loses that restriction, and there is no
/// error. Use it only if the program knows that no other thread has a domain of its own.
/// ([landlock_restrict_self(2)](https://man7.org/linux/man-pages/man2/landlock_restrict_self.2.html);
/// security/landlock/syscalls.c)
///
/// # Errors
/// - EPERM without [`set_no_new_privs`] or CAP_SYS_ADMIN.
/// - EBADFD if the descriptor is no ruleset.
/// - E2BIG if the thread has 16 rulesets already.
/// - EINVAL for flags that the kernel does not know. [`Synchronization::Kernel`] needs ABI 8 (Linux 7.0).
///   [`LandlockFlags`] need ABI 7.
/// - ENOSYS or EOPNOTSUPP if the kernel has no Landlock, or it is off.
/// - [`Error::NotShared`](crate::Error::NotShared) by broadcast, if a thread has a descriptor table of its own.
///
/// **Scoped rulesets** (LANDLOCK_SCOPE_SIGNAL, LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET) need one domain for all threads,
/// which only [`Synchronization::Kernel`] makes. By broadcast each thread gets a domain of its own. The threads of one
/// process can then no longer connect to each other's abstract sockets and, on kernels without the fix of Linux 6.15, no
/// longer signal each other: every later broadcast fails with [`Error::Unreachable`](crate::Error::Unreachable). A
/// ruleset's descriptor does not tell whether it is scoped, so this call cannot refuse it.
/// [`Synchronization::for_one_landlock_domain`] tells what the kernel can do.
///
/// ```no_run
/// use libpsx::process::{LandlockFlags, Synchronization, landlock_restrict_self, set_no_new_privs};
/// # fn landlock_create_ruleset() -> std::os::fd::OwnedFd { unimplemented!() }
///
/// let ruleset = landlock_create_ruleset();
/// set_no_new_privs().execute()?;
/// landlock_restrict_self(&ruleset, Synchronization::Broadcast, LandlockFlags::EMPTY).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub fn landlock_restrict_self<'fd>(
    ruleset: impl Into<Fd<'fd>>,
    how: Synchronization,
    flags: LandlockFlags,
) -> Operation<'fd> {
    let (ruleset, flags) = (ruleset.into().arg(), flags.0 as usize);
    let restrict =
        |flags| Operation::new(k::__NR_landlock_restrict_self, [ruleset, flags, 0, 0, 0, 0]);
    match how {
        // The calling thread alone makes the call.
        Synchronization::Kernel => restrict(flags | LANDLOCK_TSYNC),
        // Not even by flags that were made from bits: the kernel would take the domains of the other threads away.
        Synchronization::Broadcast => restrict(flags & !LANDLOCK_TSYNC).sharing(Shares::FILES),
    }
}

/// Turns off, for every thread, the log of the domains that it will be restricted by from now on. It restricts
/// nothing, and leaves the domain of each thread: each thread makes landlock_restrict_self(2) with
/// [`LandlockFlags::LOG_SUBDOMAINS_OFF`] and no ruleset. (If the kernel did it for all threads,
/// LANDLOCK_RESTRICT_SELF_TSYNC, each of them would get the caller's domain in place of its own.)
///
/// # Errors
/// EBADF before ABI 7 (Linux 6.15). EPERM without [`set_no_new_privs`] or CAP_SYS_ADMIN. EINVAL and ENOSYS as for
/// [`landlock_restrict_self`].
///
/// # Example
/// ```no_run
/// use libpsx::process::{landlock_log_subdomains_off, set_no_new_privs};
///
/// set_no_new_privs().execute()?;
/// landlock_log_subdomains_off().execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn landlock_log_subdomains_off() -> Operation<'static> {
    let no_ruleset = -1i32 as usize;
    let flags = LandlockFlags::LOG_SUBDOMAINS_OFF.0 as usize;
    Operation::new(k::__NR_landlock_restrict_self, [no_ruleset, flags, 0, 0, 0, 0])
}
