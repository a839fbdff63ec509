//! Which IDs in /proc tell nothing: a user namespace that does not map every ID shows all others as one ID, the overflow ID
//! (user_namespaces(7), proc_sys_kernel(5)). It is usually that of nobody and nogroup.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::LazyLock;

/// The number of IDs: the last 32-bit number is not an ID.
const ALL: u64 = 0xffff_ffff;

/// How the user namespace of psx numbers users, or groups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    /// The IDs that have a number, or None if this cannot be read.
    ranges: Option<Vec<Range<u64>>>,
    overflow: u32,
}

static USERS: LazyLock<Mapping> = LazyLock::new(|| Mapping::read("uid_map", "overflowuid"));
static GROUPS: LazyLock<Mapping> = LazyLock::new(|| Mapping::read("gid_map", "overflowgid"));

/// Returns whether a user ID in /proc can stand for any ID without a number here.
pub(crate) fn user_unseen(id: u32) -> bool {
    USERS.stands_for_others(id)
}

/// Returns whether a group ID in /proc can stand for any ID without a number here.
pub(crate) fn group_unseen(id: u32) -> bool {
    GROUPS.stands_for_others(id)
}

/// Returns whether /proc shows this user as itself.
pub(crate) fn has_number(user: u32) -> bool {
    USERS.has(user) && !USERS.stands_for_others(user)
}

impl Mapping {
    fn read(map: &str, overflow: &str) -> Self {
        let ranges = match std::fs::read_to_string(format!("/proc/self/{map}")) {
            Ok(text) => parse(&text),
            // A kernel without user namespaces has no such file. Any other error tells nothing about the mapping. Without
            // /proc/self, nothing is known: /proc is that of a PID namespace in which psx has no number.
            Err(error) if error.kind() == ErrorKind::NotFound && is_there("/proc/self/status") => {
                Some(std::iter::once(0..ALL).collect())
            }
            Err(_) => None,
        };
        let overflow = std::fs::read_to_string(format!("/proc/sys/kernel/{overflow}"));
        let overflow = overflow.ok().and_then(|text| text.trim().parse().ok());
        Self { ranges, overflow: overflow.unwrap_or(65534) }
    }

    fn has(&self, id: u32) -> bool {
        let ranges = self.ranges.iter().flatten();
        ranges.into_iter().any(|range| range.contains(&u64::from(id)))
    }

    fn stands_for_others(&self, id: u32) -> bool {
        // The kernel accepts no map with a range twice.
        let mapped: u64 = self.ranges.iter().flatten().map(|range| range.end - range.start).sum();
        id == self.overflow && mapped < ALL
    }
}

fn is_there(path: &str) -> bool {
    std::fs::metadata(path).is_ok()
}

/// Returns the IDs inside the namespace. Each line is: first ID inside, first ID outside, number of IDs.
fn parse(text: &str) -> Option<Vec<Range<u64>>> {
    let range = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>());
        let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?);
        let first = u64::from(first);
        Some(first..first + u64::from(count.ok()?))
    };
    text.lines().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overflow_id_is_unknown_unless_every_id_is_mapped() {
        let of = |text: &str| Mapping { ranges: parse(text), overflow: 65534 };
        let whole = of("         0          0 4294967295\n");
        assert!(!whole.stands_for_others(65534) && whole.has(65534) && whole.has(0));
        // Two parts can be the whole too.
        assert!(!of("0 0 1000\n1000 1000 4294966295\n").stands_for_others(65534));
        for partial in ["", "0 1000 1\n", "0 100000 65536\n", "0 0 4294967294\n", "x", "1 2"] {
            let mapping = of(partial);
            assert!(mapping.stands_for_others(65534), "{partial}");
            assert!(!mapping.stands_for_others(0) && !mapping.stands_for_others(1000));
        }
        assert!(of("0 1000 1\n").has(0) && !of("0 1000 1\n").has(1000));
        assert!(!of("x").has(0));
    }

    /// Only the absence of the file means that the kernel has no user namespaces.
    #[test]
    fn a_mapping_that_cannot_be_read_is_unknown() {
        let of = |map: &str| Mapping::read(map, "overflowuid");
        let absent = of("no_such_map");
        assert!(absent.has(0) && !absent.stands_for_others(absent.overflow));
        // ENOTDIR and EISDIR.
        for unreadable in ["uid_map/x", "fd"] {
            let unknown = of(unreadable);
            assert!(!unknown.has(0) && unknown.stands_for_others(unknown.overflow), "{unreadable}");
        }
    }
}
