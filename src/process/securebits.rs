//! The securebits of a thread.

use core::fmt;
use core::ops::BitOr;

use linux_raw_sys::prctl as p;

use super::Operation;
use super::capabilities::prctl;
use crate::errno::Errno;
use crate::process::operation::debug_flags;
use crate::sys;

/// Flags that end the special treatment of user ID 0 (capabilities(7), "The securebits flags"), and flags for interpreters
/// of scripts. Combine them with `|`.
///
/// ```
/// use libpsx::process::Securebits;
///
/// let no_root = Securebits::NOROOT | Securebits::NOROOT_LOCKED;
/// assert_eq!(format!("{no_root:?}"), "Securebits(NOROOT | NOROOT_LOCKED)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Securebits(u32);

impl Securebits {
    /// No flag.
    pub const EMPTY: Self = Self(0);
    /// `SECBIT_NOROOT`: user id 0 gives no capabilities at execve(2).
    pub const NOROOT: Self = Self(1 << 0);
    /// `SECBIT_NOROOT_LOCKED`.
    pub const NOROOT_LOCKED: Self = Self(1 << 1);
    /// `SECBIT_NO_SETUID_FIXUP`: changes of the user id leave the capabilities alone.
    pub const NO_SETUID_FIXUP: Self = Self(1 << 2);
    /// `SECBIT_NO_SETUID_FIXUP_LOCKED`.
    pub const NO_SETUID_FIXUP_LOCKED: Self = Self(1 << 3);
    /// `SECBIT_KEEP_CAPS`: the flag that [`set_keepcaps`](crate::process::set_keepcaps) sets.
    pub const KEEP_CAPS: Self = Self(1 << 4);
    /// `SECBIT_KEEP_CAPS_LOCKED`.
    pub const KEEP_CAPS_LOCKED: Self = Self(1 << 5);
    /// `SECBIT_NO_CAP_AMBIENT_RAISE`.
    pub const NO_CAP_AMBIENT_RAISE: Self = Self(1 << 6);
    /// `SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED`.
    pub const NO_CAP_AMBIENT_RAISE_LOCKED: Self = Self(1 << 7);
    /// `SECBIT_EXEC_RESTRICT_FILE`: an interpreter should execute a file only if the kernel would (execveat(2),
    /// AT_EXECVE_CHECK). Linux 6.14.
    pub const EXEC_RESTRICT_FILE: Self = Self(1 << 8);
    /// `SECBIT_EXEC_RESTRICT_FILE_LOCKED`.
    pub const EXEC_RESTRICT_FILE_LOCKED: Self = Self(1 << 9);
    /// `SECBIT_EXEC_DENY_INTERACTIVE`: an interpreter should execute no command that a user types. Linux 6.14.
    pub const EXEC_DENY_INTERACTIVE: Self = Self(1 << 10);
    /// `SECBIT_EXEC_DENY_INTERACTIVE_LOCKED`.
    pub const EXEC_DENY_INTERACTIVE_LOCKED: Self = Self(1 << 11);

    /// Makes flags from the kernel's bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns the kernel's bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Returns the flags of the calling thread. (PR_GET_SECUREBITS(2const))
    ///
    /// # Errors
    /// The kernel's error number. The call fails only if a seccomp filter refuses it.
    pub fn current() -> Result<Self, Errno> {
        sys::prctl(p::PR_GET_SECUREBITS, [0; 3]).map(|bits| Self(bits as u32))
    }
}

impl fmt::Debug for Securebits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::NOROOT, "NOROOT"),
            (Self::NOROOT_LOCKED, "NOROOT_LOCKED"),
            (Self::NO_SETUID_FIXUP, "NO_SETUID_FIXUP"),
            (Self::NO_SETUID_FIXUP_LOCKED, "NO_SETUID_FIXUP_LOCKED"),
            (Self::KEEP_CAPS, "KEEP_CAPS"),
            (Self::KEEP_CAPS_LOCKED, "KEEP_CAPS_LOCKED"),
            (Self::NO_CAP_AMBIENT_RAISE, "NO_CAP_AMBIENT_RAISE"),
            (Self::NO_CAP_AMBIENT_RAISE_LOCKED, "NO_CAP_AMBIENT_RAISE_LOCKED"),
            (Self::EXEC_RESTRICT_FILE, "EXEC_RESTRICT_FILE"),
            (Self::EXEC_RESTRICT_FILE_LOCKED, "EXEC_RESTRICT_FILE_LOCKED"),
            (Self::EXEC_DENY_INTERACTIVE, "EXEC_DENY_INTERACTIVE"),
            (Self::EXEC_DENY_INTERACTIVE_LOCKED, "EXEC_DENY_INTERACTIVE_LOCKED"),
        ];
        debug_flags(f, "Securebits", self.0, &names.map(|(bit, name)| (bit.0, name)))
    }
}

impl BitOr for Securebits {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Sets all securebits. (PR_SET_SECUREBITS(2const))
///
/// # Errors
/// EPERM if the thread has no CAP_SETPCAP, or if a locked flag would change.
pub const fn set_securebits(bits: Securebits) -> Operation<'static> {
    prctl(p::PR_SET_SECUREBITS, [bits.0 as usize, 0, 0, 0])
}
