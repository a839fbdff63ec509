//! The kernel's error numbers.
#![forbid(unsafe_code)]

use core::fmt;

use linux_raw_sys::errno;

use crate::sys::names;

/// An error number of the kernel, `errno(3)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    pub(crate) const AGAIN: Self = Self(errno::EAGAIN as i32);
    pub(crate) const DEADLK: Self = Self(errno::EDEADLK as i32);
    pub(crate) const INVAL: Self = Self(errno::EINVAL as i32);
    pub(crate) const INTR: Self = Self(errno::EINTR as i32);
    pub(crate) const MFILE: Self = Self(errno::EMFILE as i32);
    pub(crate) const NFILE: Self = Self(errno::ENFILE as i32);
    pub(crate) const NOENT: Self = Self(errno::ENOENT as i32);
    pub(crate) const NOMEM: Self = Self(errno::ENOMEM as i32);
    pub(crate) const PERM: Self = Self(errno::EPERM as i32);
    pub(crate) const TOOBIG: Self = Self(errno::E2BIG as i32);
    pub(crate) const SRCH: Self = Self(errno::ESRCH as i32);
    pub(crate) const TIMEDOUT: Self = Self(errno::ETIMEDOUT as i32);

    /// The value a raw system call returned, taken apart: `-4095..=-1` is an error number
    /// (syscall(2), "Return value").
    pub(crate) const fn check(raw: isize) -> Result<usize, Self> {
        if raw < 0 && raw >= -4095 {
            Err(Self(raw.wrapping_neg() as i32))
        } else {
            Ok(raw as usize)
        }
    }

    /// The symbolic name, for a message.
    pub(crate) fn name(self) -> Option<&'static str> {
        names::error(self.0).map(|(name, _)| name)
    }

    /// The number, as `libc::E*` spells it.
    pub const fn raw_os_error(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match names::error(self.0) {
            Some((name, meaning)) => write!(f, "{name} ({meaning})"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::error::Error for Errno {}

/// ```
/// fn no_new_privs() -> std::io::Result<()> {
///     libpsx::process::set_no_new_privs().execute()?;
///     Ok(())
/// }
/// # no_new_privs().unwrap();
/// ```
#[cfg(feature = "std")]
impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}
