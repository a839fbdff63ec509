//! The ids that are mapped in the user namespace of the process, user_namespaces(7).
//!
//! The kernel shows an id without a mapping as the overflow id, usually 65534. It may be user 0 of an outer namespace, or a
//! group that gives access to files. So what is shown as the overflow id is not known, unless every id is mapped.

use std::io::ErrorKind;

/// The mapping of user ids or of group ids.
#[derive(Debug)]
pub(crate) struct IdMap {
    /// The first id and the number of ids of each range, or `None` if the kernel does not show them.
    ranges: Option<Vec<[u32; 2]>>,
    /// The id by which the kernel shows an id without a mapping.
    overflow: u32,
    complete: bool,
}

/// The line of the initial user namespace, and of every other one in which all ids are mapped.
const ALL: [u32; 3] = [0, 0, u32::MAX];
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
            // A kernel without user namespaces has /proc, and no such file in it. After any other error the map is not known.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && std::fs::exists("/proc/self/status").unwrap_or(false) =>
            {
                Some(ALL.map(|number| number.to_string()).join(" "))
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
        let complete = lines.as_deref() == Some(&[ALL]);
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
        let shifted = IdMap::new(Some("0 1 4294967295\n"), None);
        assert_eq!(shifted.ambiguous(), Some(OVERFLOW));
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
