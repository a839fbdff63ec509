//! The ids that are mapped in the user namespace of the process, user_namespaces(7).
//!
//! The kernel shows an id without a mapping as the overflow id, usually 65534. It may be user 0 of an outer namespace, or a
//! group that gives access to files. So what is shown as the overflow id is not known, unless every id is mapped.

// # Safety
//
// Each block makes one call, with numbers. A new descriptor gets one owner.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::MetadataExt;

/// The mapping of user ids or of group ids.
#[derive(Debug)]
pub(crate) struct IdMap {
    /// The first id and the number of ids of each range, or `None` if the kernel does not show them.
    ranges: Option<Vec<[u32; 2]>>,
    /// The id by which the kernel shows an id without a mapping.
    overflow: u32,
    complete: bool,
}

/// The number of ids: the last 32-bit number is not an id.
const ALL: u32 = u32::MAX;
/// `PIDFD_GET_USER_NAMESPACE` (include/uapi/linux/pidfd.h, since Linux 6.11).
const GET_USER_NAMESPACE: u32 = 0xff09;
/// `PROC_USER_INIT_INO` (include/linux/proc_ns.h): the inode number of the initial user namespace.
const INITIAL: u64 = 0xefff_fffd;
/// `DEFAULT_OVERFLOWUID` and `DEFAULT_OVERFLOWGID` (include/linux/highuid.h).
const OVERFLOW: u32 = 65534;

impl IdMap {
    pub(crate) fn of_users() -> Self {
        Self::read("/proc/self/uid_map", "/proc/sys/kernel/overflowuid")
    }

    pub(crate) fn of_groups() -> Self {
        Self::read("/proc/self/gid_map", "/proc/sys/kernel/overflowgid")
    }

    fn read(map: &str, overflow: &str) -> Self {
        let overflow = std::fs::read_to_string(overflow).ok();
        let map = match std::fs::read_to_string(map) {
            Ok(text) => Some(text),
            // A kernel without user namespaces has /proc, and no such file in it. Without /proc, the kernel may tell which
            // namespace this is. After any other error the map is not known.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && (std::fs::exists("/proc/self/status").unwrap_or(false)
                        || is_initial_namespace()) =>
            {
                Some(format!("0 0 {ALL}"))
            }
            Err(_) => None,
        };
        Self::new(map.as_deref(), overflow.as_deref())
    }

    /// Reads the text of /proc/PID/uid_map: on each line the first id inside, the first id outside, and their number.
    fn new(map: Option<&str>, overflow: Option<&str>) -> Self {
        let overflow = overflow.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW);
        let lines: Option<Vec<[u32; 3]>> = map.and_then(|text| {
            let line = |line: &str| {
                let numbers: Result<Vec<u32>, _> =
                    line.split_whitespace().map(str::parse).collect();
                numbers.ok()?.try_into().ok()
            };
            text.lines().map(line).collect()
        });
        // The kernel accepts no map with an id twice, inside or outside. So no other id is left if all are inside.
        let mapped = lines.iter().flatten().map(|[_, _, count]| u64::from(*count)).sum::<u64>();
        let complete = mapped == u64::from(ALL);
        let ranges =
            lines.map(|lines| lines.iter().map(|[from, _, count]| [*from, *count]).collect());
        Self { ranges, overflow, complete }
    }

    /// Returns whether a call can set the id. If the kernel does not show the mappings, the answer is yes.
    pub(crate) fn has(&self, id: u32) -> bool {
        let inside = |[from, count]: &[u32; 2]| id.checked_sub(*from).is_some_and(|at| at < *count);
        self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(inside))
    }

    /// Returns whether no id is mapped yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.as_ref().is_some_and(Vec::is_empty)
    }

    /// Returns the id that may stand for another one, if there is one.
    pub(crate) fn ambiguous(&self) -> Option<u32> {
        (!self.complete).then_some(self.overflow)
    }
}

/// Returns whether this process is in the initial user namespace, in which every id is mapped. The answer is no if the kernel
/// does not tell.
fn is_initial_namespace() -> bool {
    // SAFETY: it takes numbers.
    let own = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) } as RawFd;
    if own < 0 {
        return false;
    }
    // SAFETY: it was just opened.
    let own = unsafe { File::from_raw_fd(own) };
    // SAFETY: it takes a number.
    let namespace = unsafe { libc::ioctl(own.as_raw_fd(), GET_USER_NAMESPACE as _, 0) };
    if namespace < 0 {
        return false;
    }
    // SAFETY: it was just opened.
    let namespace = unsafe { File::from_raw_fd(namespace) };
    namespace.metadata().is_ok_and(|found| found.ino() == INITIAL)
}

/// Returns whether the user namespace forbids setgroups(2) for ever, or until group ids are mapped.
pub(crate) fn denies_setgroups(groups: &IdMap) -> bool {
    let setting = std::fs::read_to_string("/proc/self/setgroups");
    groups.is_empty() || setting.is_ok_and(|text| text.trim() == "deny")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_map_is_unambiguous() {
        let initial = IdMap::new(Some("         0          0 4294967295\n"), Some("65534\n"));
        assert_eq!((initial.ambiguous(), initial.has(u32::MAX - 1)), (None, true));
        let part = IdMap::new(Some("0 100000 65536\n70000 0 1\n"), Some("99\n"));
        assert_eq!(part.ambiguous(), Some(99));
        let ids = [0, 65535, 65536, 69999, 70000, 70001];
        assert_eq!(ids.map(|id| part.has(id)), [true, true, false, false, true, false]);
        let swapped = IdMap::new(Some("0 1 1\n1 0 1\n2 2 4294967293\n"), None);
        assert_eq!(swapped.ambiguous(), None);
        let all_but_one = IdMap::new(Some("0 0 4294967294\n"), None);
        assert_eq!(all_but_one.ambiguous(), Some(OVERFLOW));
        let empty = IdMap::new(Some(""), None);
        assert_eq!(
            (empty.ambiguous(), empty.has(0), empty.is_empty()),
            (Some(OVERFLOW), false, true)
        );
    }

    /// Reading a directory fails with EISDIR, which stands for every error but ENOENT.
    #[test]
    fn only_a_missing_map_is_complete() {
        let read = |map: &str| IdMap::read(map, "/proc/sys/kernel/overflowuid").ambiguous();
        assert_eq!(read("/proc/self/no_such_map"), None);
        assert!(read("/proc/self/ns").is_some());
    }

    #[test]
    fn an_unknown_map_is_ambiguous_and_has_every_id() {
        for map in [None, Some("0 0\n"), Some("a b c\n")] {
            let unknown = IdMap::new(map, None);
            assert_eq!(unknown.ambiguous(), Some(OVERFLOW), "{map:?}");
            assert!(unknown.has(4242) && !unknown.is_empty(), "{map:?}");
        }
    }
}
