//! A borrowed file descriptor, for the calls that take one. It owns and closes nothing.

// # Safety
//
// `Fd` promises that its descriptor stays open for `'fd`. `borrow_raw` asks its caller for this promise; the other
// constructors take it from a type of the standard library that gives it.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::marker::PhantomData;

/// A file descriptor that stays open for `'fd`.
///
/// With the feature `std` (on by default), [`BorrowedFd`](std::os::fd::BorrowedFd) and references to everything
/// that is [`AsFd`](std::os::fd::AsFd) convert to it, so it is seldom written: `setns(&file, ..)`. Without the
/// standard library, [`borrow_raw`](Self::borrow_raw) makes one.
///
/// ```no_run
/// use libpsx::process::{Namespace, setns};
///
/// let network = std::fs::File::open("/run/netns/blue")?;
/// setns(&network, Namespace::Network).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Fd<'fd> {
    raw: c_int,
    borrows: PhantomData<&'fd c_int>,
}

impl Fd<'_> {
    /// Borrows the descriptor with this number.
    ///
    /// ```
    /// use libpsx::process::Fd;
    ///
    /// // SAFETY: nothing closes standard error in this program.
    /// let standard_error = unsafe { Fd::borrow_raw(2) };
    /// assert_eq!(standard_error.as_raw_fd(), 2);
    /// ```
    ///
    /// # Safety
    /// The descriptor is open, and stays open for the lifetime of the result.
    pub const unsafe fn borrow_raw(raw: c_int) -> Self {
        Self { raw, borrows: PhantomData }
    }

    /// Returns the number.
    pub const fn as_raw_fd(self) -> c_int {
        self.raw
    }

    /// Returns the argument for the kernel.
    pub(crate) const fn arg(self) -> usize {
        self.raw as usize
    }
}

#[cfg(feature = "std")]
impl<'fd> From<std::os::fd::BorrowedFd<'fd>> for Fd<'fd> {
    fn from(fd: std::os::fd::BorrowedFd<'fd>) -> Self {
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
        // SAFETY: `BorrowedFd` promises it.
        unsafe { Self::borrow_raw(raw) }
    }
}

#[cfg(feature = "std")]
impl<'fd, T: std::os::fd::AsFd> From<&'fd T> for Fd<'fd> {
    fn from(owner: &'fd T) -> Self {
        owner.as_fd().into()
    }
}
