//! The state that every thread must have after a plan.

use std::fmt;

use libpsx::process::{CapabilitySet, CapabilitySets, Gid, Securebits, Uid};

use crate::context::Joined;
use crate::names;
use crate::status::Place;

/// The state that every thread must have.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) uid: Option<Uid>,
    /// Whether no id may be 0, although no user was named.
    pub(crate) no_root: bool,
    /// The id by which the kernel shows a user id without a mapping, if there is one. It may be root's.
    pub(crate) unknown_user: Option<u32>,
    pub(crate) gid: Option<Gid>,
    pub(crate) groups: Option<Vec<Gid>>,
    pub(crate) staying: Staying,
    pub(crate) sets: CapabilitySets,
    pub(crate) ambient: CapabilitySet,
    pub(crate) bounding: CapabilitySet,
    pub(crate) securebits: Securebits,
    pub(crate) no_new_privs: bool,
    pub(crate) filtered: bool,
    pub(crate) root: Option<Place>,
    pub(crate) directory: Option<Place>,
    /// The capabilities that the kernel knows.
    pub(crate) known: CapabilitySet,
    /// Whether the calls have compared the directories while the threads were held.
    pub(crate) compared: bool,
    /// The namespaces that change: the link in /proc, and its target.
    pub(crate) namespaces: Vec<(&'static str, Joined)>,
}

impl Expected {
    /// Returns whether a user id that the kernel shows can be root's.
    pub(crate) fn may_be_root(&self, user: u32) -> bool {
        user == 0 || Some(user) == self.unknown_user
    }

    /// Returns the supplementary groups as text, if the plan sets them.
    pub(crate) fn groups(&self) -> Option<String> {
        let groups = self.groups.as_ref()?;
        Some(names::numbers(groups.iter().map(|gid| gid.as_raw())))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(uid) = self.uid {
            write!(f, "uid {}, ", names::user(uid.as_raw()))?;
        }
        if let Some(gid) = self.gid {
            write!(f, "gid {}, ", gid.as_raw())?;
        }
        if let Some(groups) = self.groups() {
            write!(f, "groups {groups}, ")?;
        }
        for (stays, what) in [
            (self.staying.users.is_some(), "the present uid"),
            (self.staying.groups.is_some(), "the present gid"),
            (self.staying.no_more_groups, "no other group"),
        ] {
            if stays {
                write!(f, "{what}, ")?;
            }
        }
        let set = |set| names::set(set, self.known);
        write!(f, "{}, ", names::sets(self.sets, self.known))?;
        write!(f, "ambient {}, bounding {}, ", set(self.ambient), set(self.bounding))?;
        write!(f, "securebits {}, ", names::securebits(self.securebits))?;
        write!(f, "no_new_privs {}", u8::from(self.no_new_privs))
    }
}

/// The ids that no call of the plan sets. The plan has looked at those of the calling thread, so every other thread must
/// have the same.
#[derive(Debug, Default)]
pub(crate) struct Staying {
    /// The real, the effective and the saved user id, unless each thread may keep its own.
    pub(crate) users: Option<[u32; 3]>,
    /// The real, the effective and the saved group id, unless each thread may keep its own.
    pub(crate) groups: Option<[u32; 3]>,
    /// Whether no thread may have a supplementary group that differs from its group id.
    pub(crate) no_more_groups: bool,
    /// The id by which the kernel shows a group id without a mapping, if there is one. It may be any group's.
    pub(crate) unknown_group: Option<u32>,
}

impl Staying {
    /// Returns whether a thread has these ids. Its file-system id has to be one of the three.
    pub(crate) fn same(stay: [u32; 3], found: Option<[u32; 4]>) -> bool {
        found.is_some_and(|[real, effective, saved, filesystem]| {
            stay == [real, effective, saved] && stay.contains(&filesystem)
        })
    }

    /// Returns whether one of the groups gives more access than the effective group id does.
    pub(crate) fn gives_more(&self, effective: Option<u32>, groups: &[u32]) -> bool {
        let differs = |&group: &u32| Some(group) != effective || Some(group) == self.unknown_group;
        groups.iter().any(differs)
    }
}
