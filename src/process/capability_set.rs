//! One capability, and a set of capabilities.

use core::fmt;
use core::ops::{BitAnd, BitOr, BitOrAssign, BitXor, Sub};

use super::capbset_read;

/// One capability, by its number. `A | B` is a [`CapabilitySet`]. `Debug` prints the name.
///
/// ```
/// use libpsx::process::{Capability, CapabilitySet};
///
/// let web = Capability::NET_BIND_SERVICE | Capability::SETUID | Capability::SETGID;
/// assert_eq!(web, [Capability::SETGID, Capability::SETUID, Capability::NET_BIND_SERVICE].into());
/// assert_eq!("cap_setgid,cap_setuid,cap_net_bind_service".parse(), Ok(web));
/// assert_eq!(format!("{web:?}"), "{cap_setgid, cap_setuid, cap_net_bind_service}");
/// # let _: CapabilitySet = web;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(pub(super) u8);

/// The names of include/uapi/linux/capability.h.
impl Capability {
    /// `CAP_CHOWN`.
    pub const CHOWN: Self = Self(0);
    /// `CAP_DAC_OVERRIDE`.
    pub const DAC_OVERRIDE: Self = Self(1);
    /// `CAP_DAC_READ_SEARCH`.
    pub const DAC_READ_SEARCH: Self = Self(2);
    /// `CAP_FOWNER`.
    pub const FOWNER: Self = Self(3);
    /// `CAP_FSETID`.
    pub const FSETID: Self = Self(4);
    /// `CAP_KILL`.
    pub const KILL: Self = Self(5);
    /// `CAP_SETGID`.
    pub const SETGID: Self = Self(6);
    /// `CAP_SETUID`.
    pub const SETUID: Self = Self(7);
    /// `CAP_SETPCAP`.
    pub const SETPCAP: Self = Self(8);
    /// `CAP_LINUX_IMMUTABLE`.
    pub const LINUX_IMMUTABLE: Self = Self(9);
    /// `CAP_NET_BIND_SERVICE`.
    pub const NET_BIND_SERVICE: Self = Self(10);
    /// `CAP_NET_BROADCAST`.
    pub const NET_BROADCAST: Self = Self(11);
    /// `CAP_NET_ADMIN`.
    pub const NET_ADMIN: Self = Self(12);
    /// `CAP_NET_RAW`.
    pub const NET_RAW: Self = Self(13);
    /// `CAP_IPC_LOCK`.
    pub const IPC_LOCK: Self = Self(14);
    /// `CAP_IPC_OWNER`.
    pub const IPC_OWNER: Self = Self(15);
    /// `CAP_SYS_MODULE`.
    pub const SYS_MODULE: Self = Self(16);
    /// `CAP_SYS_RAWIO`.
    pub const SYS_RAWIO: Self = Self(17);
    /// `CAP_SYS_CHROOT`.
    pub const SYS_CHROOT: Self = Self(18);
    /// `CAP_SYS_PTRACE`.
    pub const SYS_PTRACE: Self = Self(19);
    /// `CAP_SYS_PACCT`.
    pub const SYS_PACCT: Self = Self(20);
    /// `CAP_SYS_ADMIN`.
    pub const SYS_ADMIN: Self = Self(21);
    /// `CAP_SYS_BOOT`.
    pub const SYS_BOOT: Self = Self(22);
    /// `CAP_SYS_NICE`.
    pub const SYS_NICE: Self = Self(23);
    /// `CAP_SYS_RESOURCE`.
    pub const SYS_RESOURCE: Self = Self(24);
    /// `CAP_SYS_TIME`.
    pub const SYS_TIME: Self = Self(25);
    /// `CAP_SYS_TTY_CONFIG`.
    pub const SYS_TTY_CONFIG: Self = Self(26);
    /// `CAP_MKNOD`.
    pub const MKNOD: Self = Self(27);
    /// `CAP_LEASE`.
    pub const LEASE: Self = Self(28);
    /// `CAP_AUDIT_WRITE`.
    pub const AUDIT_WRITE: Self = Self(29);
    /// `CAP_AUDIT_CONTROL`.
    pub const AUDIT_CONTROL: Self = Self(30);
    /// `CAP_SETFCAP`.
    pub const SETFCAP: Self = Self(31);
    /// `CAP_MAC_OVERRIDE`.
    pub const MAC_OVERRIDE: Self = Self(32);
    /// `CAP_MAC_ADMIN`.
    pub const MAC_ADMIN: Self = Self(33);
    /// `CAP_SYSLOG`.
    pub const SYSLOG: Self = Self(34);
    /// `CAP_WAKE_ALARM`.
    pub const WAKE_ALARM: Self = Self(35);
    /// `CAP_BLOCK_SUSPEND`.
    pub const BLOCK_SUSPEND: Self = Self(36);
    /// `CAP_AUDIT_READ`.
    pub const AUDIT_READ: Self = Self(37);
    /// `CAP_PERFMON`.
    pub const PERFMON: Self = Self(38);
    /// `CAP_BPF`.
    pub const BPF: Self = Self(39);
    /// `CAP_CHECKPOINT_RESTORE`.
    pub const CHECKPOINT_RESTORE: Self = Self(40);

    /// Returns the capability with this number, or None from 64 on: the kernel's sets have no room for these.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 64 { Some(Self(number)) } else { None }
    }

    /// Returns its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns the last capability that the running kernel knows (the last that PR_CAPBSET_READ does not refuse).
    pub fn last() -> Self {
        let known = |number: &u8| capbset_read(Self(*number)).is_some();
        Self((0..64).take_while(known).last().unwrap_or(0))
    }
}

/// A set of capabilities. [`Capability`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilitySet(pub(super) u64);

impl CapabilitySet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Makes a set of these capabilities.
    pub const fn from_slice(capabilities: &[Capability]) -> Self {
        let (mut bits, mut rest) = (0, capabilities);
        while let [first, others @ ..] = rest {
            bits |= 1 << first.0;
            rest = others;
        }
        Self(bits)
    }

    /// Returns all capabilities that the running kernel knows.
    pub fn all() -> Self {
        Self(u64::MAX >> 63u32.saturating_sub(u32::from(Capability::last().0)))
    }

    /// Makes a set from the kernel's bits: bit `n` is capability `n`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the kernel's bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns whether the capability is in the set.
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 >> capability.0 & 1 != 0
    }

    /// Returns whether all capabilities of `other` are in the set.
    pub const fn is_superset(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Returns whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the capabilities, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..64).map(Capability).filter(move |&capability| self.contains(capability))
    }
}

impl BitOr for CapabilitySet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr<Capability> for CapabilitySet {
    type Output = Self;

    fn bitor(self, other: Capability) -> Self {
        self | Self::from(other)
    }
}

impl BitOr for Capability {
    type Output = CapabilitySet;

    fn bitor(self, other: Self) -> CapabilitySet {
        CapabilitySet::from(self) | CapabilitySet::from(other)
    }
}

impl BitOr<CapabilitySet> for Capability {
    type Output = CapabilitySet;

    fn bitor(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet::from(self) | other
    }
}

impl BitXor for CapabilitySet {
    type Output = Self;

    fn bitxor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

impl BitOrAssign for CapabilitySet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for CapabilitySet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for CapabilitySet {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl From<Capability> for CapabilitySet {
    fn from(capability: Capability) -> Self {
        Self(1 << capability.0)
    }
}

impl<const N: usize> From<[Capability; N]> for CapabilitySet {
    fn from(capabilities: [Capability; N]) -> Self {
        Self::from_slice(&capabilities)
    }
}

impl From<&[Capability]> for CapabilitySet {
    fn from(capabilities: &[Capability]) -> Self {
        Self::from_slice(capabilities)
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        capabilities.into_iter().fold(Self::EMPTY, |set, one| set | one)
    }
}

impl Extend<Capability> for CapabilitySet {
    fn extend<I: IntoIterator<Item = Capability>>(&mut self, capabilities: I) {
        *self |= capabilities.into_iter().collect::<Self>();
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
