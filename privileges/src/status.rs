//! What the kernel shows of a thread: the lines of its status, and where its links lead.

use std::os::fd::RawFd;

/// Device and inode number.
pub(crate) type Place = (u64, u64);

/// Returns the value of a line of /proc/PID/status, without white space around it.
pub(crate) fn field<'t>(status: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let lines = status.split(|&byte| byte == b'\n');
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(b":"));
    values.next().map(<[u8]>::trim_ascii)
}

/// Returns how many seccomp filters a thread has, if its status shows it (since Linux 5.9).
pub(crate) fn filters(status: &[u8]) -> Option<usize> {
    std::str::from_utf8(field(status, b"Seccomp_filters")?).ok()?.parse().ok()
}

/// Returns device and inode number of the file that a path leads to.
pub(crate) fn place_of(path: &str) -> Option<Place> {
    place_at(libc::AT_FDCWD, &std::ffi::CString::new(path).ok()?)
}

/// Returns the working directory of this thread.
pub(crate) fn here() -> Option<Place> {
    place_at(libc::AT_FDCWD, c".")
}

/// Returns device and inode number of the file at a path.
#[allow(unsafe_code)]
pub(crate) fn place_at(directory: RawFd, path: &std::ffi::CStr) -> Option<Place> {
    // SAFETY: it is a structure of integers.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a string, and the kernel writes the structure.
    let done =
        unsafe { libc::fstatat(directory, path.as_ptr(), &mut stat, libc::AT_EMPTY_PATH) } == 0;
    done.then_some((stat.st_dev, stat.st_ino))
}

pub(crate) fn shown((device, inode): Place) -> String {
    format!("inode {inode} of device {device:#x}")
}
