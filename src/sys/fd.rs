//! Descriptors and files.

// # Safety
//
// The unsafe operations read structures of integers that the kernel has filled in.
#![allow(unsafe_code)]

use core::ffi::CStr;
use core::mem::MaybeUninit;

use linux_raw_sys::general as k;

use super::{arch, call};
use crate::errno::Errno;

/// A descriptor with O_CLOEXEC, closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Fd(i32);

impl Fd {
    /// Takes over a descriptor that the kernel has just made.
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

    /// Opens a path with O_PATH, which needs no right to read the file.
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

    /// Mounts a proc file system for this PID namespace, attached nowhere (fsopen(2), fsmount(2)).
    pub(crate) fn mount_proc() -> Result<Self, Errno> {
        const CREATE: usize = k::fsconfig_command::FSCONFIG_CMD_CREATE as usize;
        let name = c"proc".as_ptr() as usize;
        let context = call(k::__NR_fsopen, [name, k::FSOPEN_CLOEXEC as usize, 0, 0, 0, 0])?;
        let context = Self(context as i32);
        call(k::__NR_fsconfig, [context.0 as usize, CREATE, 0, 0, 0, 0])?;
        let args = [context.0 as usize, k::FSMOUNT_CLOEXEC as usize, 0, 0, 0, 0];
        call(k::__NR_fsmount, args).map(|fd| Self(fd as i32))
    }

    /// Reads, and tries again after EINTR, a few times: all signals are blocked, so only a filter can answer EINTR for ever.
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

    /// Returns st_nlink, by the first of these calls that the kernel and its filters allow: newfstatat(2), which current C
    /// libraries use for fstat(3); statx(2); fstat(2).
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

    /// Returns device and inode of the file to which a path in this directory leads, statx(2). The kernel answers from its
    /// cache and does not ask the file system, because a held thread may serve it (FUSE).
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

    /// Returns whether the file lies in a proc file system, fstatfs(2).
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
