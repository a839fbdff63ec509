//! A seccomp filter whose notifications a supervisor answers, seccomp_unotify(2).

// # Safety
//
// A `Listener` owns a descriptor that the kernel has just made for it.
#![allow(unsafe_code)]

use super::sandbox::set_mode_filter;
use super::{Fd, Instruction, Operation, SeccompFlags};
use crate::error::{Error, TransactionError};
use crate::sys::Fd as OwnFd;
use crate::transaction::Transaction;

/// A filter with a listener, not installed yet. [`seccomp_with_listener`] makes it.
#[derive(Debug, Clone, Copy)]
#[must_use = "a filter does nothing until it is installed"]
pub struct FilterWithListener<'a> {
    operation: Operation<'a>,
}

/// The descriptor of a filter's notifications, closed when it is dropped. It is O_CLOEXEC. With the feature `std` it
/// converts to an `OwnedFd`.
///
/// When the last copy of the descriptor is closed, each call that the filter notifies of fails with ENOSYS.
#[derive(Debug)]
pub struct Listener(OwnFd);

/// Makes a filter for all threads that notifies a supervisor: the kernel gives it to every thread
/// (SECCOMP_FILTER_FLAG_TSYNC), and the process gets one descriptor for the notifications of all of them
/// (SECCOMP_FILTER_FLAG_NEW_LISTENER). Children inherit the filter. seccomp(2), seccomp_unotify(2);
/// kernel/seccomp.c. Linux 5.7.
///
/// There is no variant that performs the call on each thread: each would make a filter and a listener of its own, and
/// the kernel allows one listener in a thread's filters.
///
/// **The filter must not notify of the calls that a broadcast makes** (docs/kernel-calls.md has the list, futex(2) is on it) if
/// the supervisor is a thread of this process: while the threads are held, no thread can answer.
///
/// Errors: as [`seccomp`](super::seccomp). ESRCH if another thread has a filter that the calling thread does not have.
/// EBUSY if one of the caller's filters has a listener already.
///
/// ```no_run
/// use std::os::fd::OwnedFd;
///
/// use libpsx::process::{Instruction, SeccompFlags, set_no_new_privs, seccomp_with_listener};
///
/// # let program: Vec<Instruction> = Vec::new();
/// set_no_new_privs().execute()?;
/// let listener = seccomp_with_listener(&program, SeccompFlags::EMPTY).execute()?;
/// let descriptor = OwnedFd::from(listener);
/// # Ok::<(), libpsx::Error>(())
/// ```
pub fn seccomp_with_listener(
    program: &[Instruction],
    flags: SeccompFlags,
) -> FilterWithListener<'_> {
    use linux_raw_sys::ptrace as t;
    // With a listener the value is its descriptor, so the kernel asks that a failure to synchronise is told as ESRCH.
    let flags = flags.bits()
        | t::SECCOMP_FILTER_FLAG_TSYNC
        | t::SECCOMP_FILTER_FLAG_TSYNC_ESRCH
        | t::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    FilterWithListener { operation: set_mode_filter(program, flags) }
}

impl<'a> FilterWithListener<'a> {
    /// Installs the filter in every thread.
    ///
    /// # Errors
    /// Any [`Error`] means that nothing changed in any thread.
    pub fn execute(&self) -> Result<Listener, Error> {
        self.operation.execute().map(Listener::of_value)
    }

    /// Performs a transaction whose last call installs the filter in every thread.
    ///
    /// ```no_run
    /// use libpsx::Transaction;
    /// use libpsx::process::{Instruction, SeccompFlags, set_no_new_privs, seccomp_with_listener};
    ///
    /// # let program: Vec<Instruction> = Vec::new();
    /// let filter = seccomp_with_listener(&program, SeccompFlags::EMPTY);
    /// let listener = filter.execute_after(Transaction::new().with(set_no_new_privs()))?;
    /// # drop(listener);
    /// # Ok::<(), libpsx::TransactionError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Transaction::execute`].
    pub fn execute_after(
        &self,
        transaction: Transaction<'a>,
    ) -> Result<Listener, TransactionError> {
        transaction.with(self.operation).execute().map(Listener::of_value)
    }
}

impl Listener {
    /// The value of a call that made a listener.
    fn of_value(value: usize) -> Self {
        Self(OwnFd::from_raw(value as i32))
    }

    /// Borrows the descriptor.
    pub fn fd(&self) -> Fd<'_> {
        // SAFETY: `self` keeps it open.
        unsafe { Fd::borrow_raw(self.0.raw()) }
    }
}

#[cfg(feature = "std")]
impl std::os::fd::AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: `self` keeps it open.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0.raw()) }
    }
}

#[cfg(feature = "std")]
impl From<Listener> for std::os::fd::OwnedFd {
    fn from(listener: Listener) -> Self {
        let raw = listener.0.raw();
        core::mem::forget(listener);
        // SAFETY: the listener owned it, and does not close it any more.
        unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) }
    }
}
