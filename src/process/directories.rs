//! Root and working directory, path_resolution(7).
//!
//! Threads normally share both (CLONE_FS). Then the calling thread alone makes the call, while all other threads are held,
//! and a [`Report`](crate::Report) has its result for each thread. If the transaction also contains unshare(2), each thread
//! makes the call.
//!
//! A thread that has unshared them (unshare(2)) has its own, and would stay outside of a jail. So these calls are made
//! only if their argument means the same in every thread.
//!
//! If a filter refuses kcmp(2), it is not certain that the threads share them. Then each thread makes the calls. In a
//! transaction with fchdir, chroot(".") and another fchdir, one thread's chroot can then come after another thread's last
//! fchdir, and put the process into that directory.
#![forbid(unsafe_code)]

use core::ffi::CStr;

use linux_raw_sys::general as k;

use super::{Fd, Operation};
use crate::engine::call::Shares;

/// Sets the working directory of every thread to an open directory. fchdir(2): EACCES, ENOTDIR.
/// [`Error::NotShared`](crate::Error::NotShared) if a thread has a descriptor table of its own.
///
/// ```no_run
/// use libpsx::Transaction;
/// use libpsx::process::{chroot, fchdir};
///
/// let jail = std::fs::File::open("/var/empty")?;
/// Transaction::new().with(fchdir(&jail)).with(chroot(c".")).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn fchdir<'fd>(directory: impl Into<Fd<'fd>>) -> Operation<'fd> {
    Operation::new(k::__NR_fchdir, [directory.into().arg(), 0, 0, 0, 0, 0])
        .sharing(Shares::FILES)
        .setting_directory()
}

/// Sets the working directory of every thread (chdir(2)).
///
/// ```no_run
/// libpsx::process::chdir(c"/").execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
///
/// # Errors
/// EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, as in path_resolution(7).
/// [`Error::NotShared`](crate::Error::NotShared) if a thread has a root or working directory of its own.
pub fn chdir(path: &CStr) -> Operation<'_> {
    Operation::new(k::__NR_chdir, [path.as_ptr() as usize, 0, 0, 0, 0, 0])
        .sharing(Shares::FS)
        .setting_directory()
}

/// Sets the root directory of every thread; see [`fchdir`] for an example. chroot(2): EPERM without CAP_SYS_CHROOT, and
/// the errors of [`chdir`]. [`Error::NotShared`](crate::Error::NotShared) if a thread has a root or working directory of
/// its own. The working directory and open directories stay where they are, and may lead out of the new root.
pub fn chroot(path: &CStr) -> Operation<'_> {
    Operation::new(k::__NR_chroot, [path.as_ptr() as usize, 0, 0, 0, 0, 0])
        .sharing(Shares::FS)
        .setting_directory()
}
