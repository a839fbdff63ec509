//! What the kernel shows of a thread: the lines of its status, and where its links lead.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, statat};

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

/// Returns an error unless /proc and the system calls of this process number processes alike. /proc can be that of another
/// PID namespace, in which the same number is another process.
pub(crate) fn has_own_numbers() -> io::Result<()> {
    let foreign = || {
        let why = "/proc does not show the process numbers of this process's PID namespace; mount a /proc of \
                   that namespace";
        io::Error::other(why)
    };
    // In the /proc of a PID namespace that this process is not in, there is no such file.
    let status = std::fs::read("/proc/self/status").map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => foreign(),
        _ => error,
    })?;
    if has_one_number(&status, std::process::id()) { Ok(()) } else { Err(foreign()) }
}

/// Returns whether this is the only number of a process. `status` is its file in /proc, which has a number for each PID
/// namespace from that of /proc on. A kernel without PID namespaces shows `Pid` only.
fn has_one_number(status: &[u8], number: u32) -> bool {
    let numbers = field(status, b"NSpid").or_else(|| field(status, b"Pid"));
    numbers.is_some_and(|numbers| numbers == number.to_string().as_bytes())
}

/// Returns device and inode number of the file that a path leads to.
pub(crate) fn place_of(path: &str) -> Option<Place> {
    place_at(CWD, &CString::new(path).ok()?)
}

/// Returns the working directory of this thread.
pub(crate) fn here() -> Option<Place> {
    place_at(CWD, c".")
}

/// Returns device and inode number of the file at a path. An empty path is the descriptor's own file.
pub(crate) fn place_at(directory: BorrowedFd<'_>, path: &CStr) -> Option<Place> {
    identify(directory, path, AtFlags::EMPTY_PATH).ok()
}

/// Returns device and inode number of the file of a descriptor.
pub(crate) fn place_of_file(file: &impl AsFd) -> Option<Place> {
    place_at(file.as_fd(), c"")
}

/// Asks the kernel for device and inode number. It neither allocates nor locks. The numbers have 64 bits on every CPU, and
/// no time of the file makes it fail: the C library's `stat` has 32 bits for each in a 32-bit program.
pub(crate) fn identify(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: AtFlags,
) -> rustix::io::Result<Place> {
    let stat = statat(directory, path, flags)?;
    Ok((stat.st_dev, stat.st_ino))
}

pub(crate) fn shown((device, inode): Place) -> String {
    format!("inode {inode} of device {device:#x}")
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_proc_of_another_pid_namespace_is_recognized() {
        for (status, own) in [
            ("Pid:\t7\nNSpid:\t7\n", true),
            ("Pid:\t7\n", true),
            ("Pid:\t8\nNSpid:\t8\n", false),
            ("Pid:\t7\nNSpid:\t7\t1\n", false),
            ("Pid:\t9\nNSpid:\t9\t7\n", false),
            ("", false),
        ] {
            assert_eq!(has_one_number(status.as_bytes(), 7), own, "{status}");
        }
    }

    /// A 32-bit program's `stat` has no room for times after 2038, nor for inode numbers of 64 bits. The verification does
    /// not compare a directory whose place is unknown.
    #[test]
    fn a_directory_of_the_next_century_has_a_place() {
        let path = std::env::temp_dir().join(format!("privileges-place-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let directory = std::fs::File::open(&path).unwrap();
        // In the year 2103.
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(0xfa00_0000);
        let times = FileTimes::new().set_accessed(late).set_modified(late);
        let set = directory.set_times(times).map(|()| std::fs::metadata(&path).unwrap());
        let places = [place_of(path.to_str().unwrap()), place_of_file(&directory)];
        std::fs::remove_dir(&path).unwrap();
        match set {
            Ok(found) if found.modified().unwrap() == late => {
                assert_eq!(places, [Some((found.dev(), found.ino())); 2]);
            }
            _ => println!(
                "SKIPPED: a_directory_of_the_next_century_has_a_place: no such time, {set:?}"
            ),
        }
    }
}
