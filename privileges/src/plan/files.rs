//! The directories of a plan: opened before the stop, and compared by each thread afterwards.

// # Safety
//
// Each block makes one call, with numbers or with a string of its function.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::Problem;
use crate::step::WATCHED;

pub(super) fn directory(path: &Path) -> Result<File, Problem> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
    options.open(path).map_err(|error| Problem::OpenDirectory { path: path.to_owned(), error })
}

/// Opens a directory by its path in a new root directory. Neither `..` nor a link leads out of the root directory
/// (openat2(2), RESOLVE_IN_ROOT).
pub(super) fn directory_in(root: &File, path: &Path) -> Result<File, Problem> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    match openat2(root, path, how) {
        Ok(opened) => Ok(opened.into()),
        Err(errno) => Err(Problem::OpenDirectory { path: path.to_owned(), error: errno.into() }),
    }
}

/// Makes an inotify instance by which threads can compare these directories. Returns `None` if the kernel refuses.
pub(super) fn comparer(directories: &[&File]) -> Option<Arc<OwnedFd>> {
    // SAFETY: it takes a number.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    if fd < 0 {
        return None;
    }
    // SAFETY: it was just opened.
    let inotify = unsafe { OwnedFd::from_raw_fd(fd) };
    // The calling thread has to be allowed to read the directories.
    let all = directories.iter().all(|directory| {
        CString::new(format!("/proc/self/fd/{}", directory.as_raw_fd())).is_ok_and(|path| {
            // SAFETY: the path is a string.
            unsafe { libc::inotify_add_watch(fd, path.as_ptr(), WATCHED) > 0 }
        })
    });
    all.then(|| Arc::new(inotify))
}
