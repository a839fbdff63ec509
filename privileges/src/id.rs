//! Users, groups and sets of capabilities, as a program names them.

use libpsx::process::{Capability, CapabilitySet, Gid, Uid};

/// A user or group, by name or number.
///
/// A name is looked up in the database first. A name of digits that the database does not have is the number, as
/// chown(1) takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// A name of the user database (getpwnam(3), getgrnam(3)), or a number in digits.
    Name(String),
    /// A number.
    Number(u32),
}

impl From<&str> for Id {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<&String> for Id {
    fn from(name: &String) -> Self {
        Self::Name(name.clone())
    }
}

impl From<String> for Id {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl From<u32> for Id {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

impl From<Uid> for Id {
    fn from(uid: Uid) -> Self {
        Self::Number(uid.as_raw())
    }
}

impl From<Gid> for Id {
    fn from(gid: Gid) -> Self {
        Self::Number(gid.as_raw())
    }
}

/// The supplementary groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Groups {
    /// The groups of the user in the database, as for initgroups(3). There is none if no user is set.
    #[default]
    FromUser,
    /// The listed groups.
    Explicit(Vec<Id>),
    /// The groups that the database gives the user, and the listed groups too.
    FromUserAnd(Vec<Id>),
}

impl Groups {
    /// No supplementary group.
    pub const NONE: Self = Self::Explicit(Vec::new());
}

impl<I: Into<Id>, const N: usize> From<[I; N]> for Groups {
    fn from(ids: [I; N]) -> Self {
        Self::Explicit(ids.into_iter().map(Into::into).collect())
    }
}

impl<I: Into<Id>> From<Vec<I>> for Groups {
    fn from(ids: Vec<I>) -> Self {
        Self::Explicit(ids.into_iter().map(Into::into).collect())
    }
}

/// One capability, several capabilities, or a set.
///
/// ```
/// use privileges::{Capability, CapabilitySet, Privileges};
///
/// let one = Privileges::new().keep(Capability::CHOWN);
/// let two = Privileges::new().keep([Capability::CHOWN, Capability::KILL]);
/// let set = Privileges::new().keep(CapabilitySet::from_slice(&[Capability::CHOWN]));
/// ```
pub trait IntoCapabilitySet {
    /// Returns the set.
    fn into_capability_set(self) -> CapabilitySet;
}

impl IntoCapabilitySet for Capability {
    fn into_capability_set(self) -> CapabilitySet {
        self.into()
    }
}

impl IntoCapabilitySet for CapabilitySet {
    fn into_capability_set(self) -> CapabilitySet {
        self
    }
}

impl<const N: usize> IntoCapabilitySet for [Capability; N] {
    fn into_capability_set(self) -> CapabilitySet {
        CapabilitySet::from_slice(&self)
    }
}

impl IntoCapabilitySet for &[Capability] {
    fn into_capability_set(self) -> CapabilitySet {
        CapabilitySet::from_slice(self)
    }
}

impl IntoCapabilitySet for Vec<Capability> {
    fn into_capability_set(self) -> CapabilitySet {
        CapabilitySet::from_slice(&self)
    }
}
