//! Why a transaction did not perform all of its calls, and which of them it has performed.

use core::fmt;

use super::Error;
use crate::errno::Errno;

/// The `ErrorKind` is that of the error number. `io::Error::get_ref` returns the [`TransactionError`].
#[cfg(feature = "std")]
impl From<TransactionError> for std::io::Error {
    fn from(error: TransactionError) -> Self {
        Self::new(Self::from_raw_os_error(error.raw_os_error()).kind(), error)
    }
}

/// The reason why a [`Transaction`](crate::Transaction) did not perform all of its calls.
///
/// `?` converts an [`Error`] to a `TransactionError`, because "nothing has changed" is one of its cases. The other
/// direction would lose [`PartialFailure`], the one case in which something has changed, so it has no conversion. A function
/// that makes single calls and transactions returns `TransactionError`:
///
/// ```
/// use libpsx::process::set_no_new_privs;
/// use libpsx::{Transaction, TransactionError};
///
/// fn restrict() -> Result<(), TransactionError> {
///     set_no_new_privs().execute()?;
///     Transaction::new().with(set_no_new_privs()).execute()?;
///     Ok(())
/// }
/// # restrict().unwrap();
/// ```
#[derive(Debug)]
pub enum TransactionError {
    /// Nothing has changed in any thread. [`Error::Call`] means that the first call failed.
    NothingChanged(Error),
    /// Every thread has performed the calls before one that failed. The process is consistent.
    Partial(PartialFailure),
}

/// The call of a transaction that failed after others had been performed.
///
/// ```
/// use libpsx::process::{Gid, Uid, set_all_gids, set_all_uids};
/// use libpsx::{Transaction, TransactionError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (uid, gid) = (65534, 65534);
/// let drop = Transaction::new().with(set_all_gids(Gid::new(gid)?)).with(set_all_uids(Uid::new(uid)?));
/// # if false {
/// if let Err(TransactionError::Partial(failure)) = drop.execute() {
///     // Every thread has performed the calls before this one.
///     eprintln!("call {} failed with error number {}", failure.index(), failure.raw_os_error());
///     if let Some(tid) = failure.tsync_conflict() {
///         eprintln!("thread {tid} has a seccomp filter of its own");
///     }
///     std::process::abort();
/// }
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialFailure {
    pub(crate) index: usize,
    pub(crate) name: Option<&'static str>,
    pub(crate) why: CallFailure,
}

/// The way in which a call of the calling thread failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFailure {
    Errno(Errno),
    TsyncConflict { tid: i32 },
}

impl Error {
    /// Converts the error of a transaction that had one call.
    pub(crate) fn from_single_call(error: TransactionError) -> Self {
        match error {
            TransactionError::NothingChanged(error) => error,
            TransactionError::Partial(partial) => partial.why.into(),
        }
    }
}

impl From<CallFailure> for Error {
    fn from(why: CallFailure) -> Self {
        match why {
            CallFailure::Errno(errno) => Self::Call(errno),
            CallFailure::TsyncConflict { tid } => Self::TsyncConflict { tid },
        }
    }
}

impl PartialFailure {
    /// Replaces the index by the number under which the caller of the transaction knows the call.
    pub(crate) const fn at(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// Returns the number of the failed call, counted from 0. Every thread has performed that many calls.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Returns the kernel's error number; see [`Error::raw_os_error`].
    pub const fn raw_os_error(&self) -> i32 {
        match self.why {
            CallFailure::Errno(errno) => errno.raw_os_error(),
            CallFailure::TsyncConflict { .. } => Errno::SRCH.raw_os_error(),
        }
    }

    /// Returns the first thread with a seccomp filter that the calling thread does not have, if that is the reason.
    pub const fn tsync_conflict(&self) -> Option<i32> {
        match self.why {
            CallFailure::Errno(_) => None,
            CallFailure::TsyncConflict { tid } => Some(tid),
        }
    }
}

impl fmt::Display for PartialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.unwrap_or("system call");
        write!(f, "call {} ({name}) failed: ", self.index)?;
        match self.why {
            CallFailure::Errno(errno) => write!(f, "{errno}")?,
            CallFailure::TsyncConflict { tid } => {
                write!(f, "thread {tid} has a filter of its own")?
            }
        }
        write!(f, "; every thread has performed the {} before it", self.index)
    }
}

impl TransactionError {
    /// Returns the error number; see [`Error::raw_os_error`].
    pub const fn raw_os_error(&self) -> i32 {
        match self {
            Self::NothingChanged(error) => error.raw_os_error(),
            Self::Partial(partial) => partial.raw_os_error(),
        }
    }
}

impl From<Error> for TransactionError {
    fn from(error: Error) -> Self {
        Self::NothingChanged(error)
    }
}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingChanged(error) => error.fmt(f),
            Self::Partial(partial) => partial.fmt(f),
        }
    }
}

impl core::error::Error for TransactionError {}
