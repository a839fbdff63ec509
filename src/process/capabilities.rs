//! Capabilities, capabilities(7): the sets of a thread, the bounding and the ambient set, securebits.
//!
//! A [`Capability`] is a number, not one of a closed list: a kernel newer than this crate has some
//! that have no name here, and they must be droppable all the same.

use core::fmt;
use core::ops::{BitAnd, BitOr, BitOrAssign, BitXor, Sub};

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::{Operation, ParseCapabilitiesError};
use crate::errno::Errno;
use crate::process::operation::{debug_flags, pair};
use crate::sys;

/// One capability, by its number. `A | B` is a [`CapabilitySet`]. Its `Debug` is its name.
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
pub struct Capability(u8);

/// The names as the header spells them.
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

    /// The capability with this number; None from 64 on, which the kernel's sets have no room for.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 64 { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The last one that the running kernel knows: what prctl(2), PR_CAPBSET_READ, does not refuse.
    pub fn last() -> Self {
        let known = |number: &u8| capbset_read(Self(*number)).is_some();
        Self((0..64).take_while(known).last().unwrap_or(0))
    }
}

/// Several capabilities. [`Capability`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// These.
    pub const fn from_slice(capabilities: &[Capability]) -> Self {
        let (mut bits, mut rest) = (0, capabilities);
        while let [first, others @ ..] = rest {
            bits |= 1 << first.0;
            rest = others;
        }
        Self(bits)
    }

    /// All that the running kernel knows.
    pub fn all() -> Self {
        Self(u64::MAX >> 63u32.saturating_sub(u32::from(Capability::last().0)))
    }

    /// As the kernel has them: bit `n` is capability `n`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As the kernel has them.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether it is in the set.
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 >> capability.0 & 1 != 0
    }

    /// Whether all of `other` are in the set.
    pub const fn is_superset(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, by number.
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

/// The three sets of a thread that capset(2) changes. Its text is that of cap_from_text(3), both ways.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilitySets {
    /// Those that count.
    pub effective: CapabilitySet,
    /// Those that may be made effective.
    pub permitted: CapabilitySet,
    /// Those that execve(2) may keep.
    pub inheritable: CapabilitySet,
}

impl CapabilitySets {
    /// None at all.
    pub const EMPTY: Self = Self {
        effective: CapabilitySet::EMPTY,
        permitted: CapabilitySet::EMPTY,
        inheritable: CapabilitySet::EMPTY,
    };

    /// The sets of the calling thread, capget(2).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn current() -> Result<Self, Errno> {
        let mut data = [0; 6];
        sys::capget(VERSION_3, &mut data)?;
        Ok(Self::of_words(data))
    }

    /// Returns the sets of another thread by its ID in this PID namespace; a process ID is that of the first thread.
    /// 0 is the calling thread. capget(2), as cap_get_pid(3).
    ///
    /// ```
    /// use libpsx::process::CapabilitySets;
    ///
    /// let own = i32::try_from(std::process::id())?;
    /// println!("{}", CapabilitySets::of_pid(own)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// ESRCH if there is no such thread, EINVAL for a negative number.
    pub fn of_pid(pid: i32) -> Result<Self, Errno> {
        let mut data = [0; 6];
        sys::capget_of(pid, VERSION_3, &mut data)?;
        Ok(Self::of_words(data))
    }

    fn of_words(data: [u32; 6]) -> Self {
        let [e0, p0, i0, e1, p1, i1] = data.map(u64::from);
        let set = |low, high| CapabilitySet(low | high << 32);
        Self { effective: set(e0, e1), permitted: set(p0, p1), inheritable: set(i0, i1) }
    }

    /// Returns, for each of the three sets, the capabilities that only one of `self` and `other` has: none of them if
    /// they are equal. (cap_compare(3) tells which of the three sets are not empty then.)
    ///
    /// ```
    /// use libpsx::process::{CapabilitySets, Capability};
    ///
    /// let before: CapabilitySets = "cap_kill,cap_chown=ep".parse()?;
    /// let after: CapabilitySets = "cap_kill=ep".parse()?;
    /// let changed = before.compare(after);
    /// assert_eq!(changed.permitted, Capability::CHOWN.into());
    /// assert!(changed.inheritable.is_empty());
    /// # Ok::<(), libpsx::process::ParseCapabilitiesError>(())
    /// ```
    pub const fn compare(self, other: Self) -> Self {
        Self {
            effective: CapabilitySet(self.effective.0 ^ other.effective.0),
            permitted: CapabilitySet(self.permitted.0 ^ other.permitted.0),
            inheritable: CapabilitySet(self.inheritable.0 ^ other.inheritable.0),
        }
    }

    /// Returns the external form of cap_copy_ext(3), which does not depend on the machine.
    ///
    /// ```
    /// use libpsx::process::CapabilitySets;
    ///
    /// let sets: CapabilitySets = "cap_kill=ep".parse()?;
    /// assert_eq!(CapabilitySets::from_external(&sets.to_external()), Ok(sets));
    /// # Ok::<(), libpsx::process::ParseCapabilitiesError>(())
    /// ```
    pub fn to_external(self) -> [u8; EXTERNAL_SIZE] {
        let mut form = [0; EXTERNAL_SIZE];
        let sets = self.in_order().map(|set| set.0.to_le_bytes());
        let body = (0..BYTES).flat_map(|byte| sets.map(|set| set.get(byte).copied().unwrap_or(0)));
        let head = EXTERNAL_MAGIC.into_iter().chain([BYTES as u8]);
        form.iter_mut().zip(head.chain(body)).for_each(|(place, byte)| *place = byte);
        form
    }

    /// Reads the external form, as cap_copy_int(3). What follows it is not looked at. The form may have been written
    /// for a kernel with fewer or more capabilities.
    ///
    /// # Errors
    /// [`ParseCapabilitiesError::InvalidExternal`] if it is not that form, if it ends too early, or if it has a capability from 64
    /// on, for which the sets have no room.
    pub fn from_external(form: &[u8]) -> Result<Self, ParseCapabilitiesError> {
        let read = || {
            let (&size, body) = form.strip_prefix(&EXTERNAL_MAGIC)?.split_first()?;
            let body = body.get(..usize::from(size).checked_mul(SETS)?)?;
            let mut sets = [0u64; SETS];
            for (byte, row) in body.chunks_exact(SETS).enumerate() {
                for (set, &bits) in sets.iter_mut().zip(row) {
                    match bits {
                        0 => {}
                        _ if byte >= BYTES => return None,
                        _ => *set |= u64::from(bits) << (8 * byte),
                    }
                }
            }
            let [effective, permitted, inheritable] = sets.map(CapabilitySet);
            Some(Self { effective, permitted, inheritable })
        };
        read().ok_or(ParseCapabilitiesError::InvalidExternal)
    }

    /// `CAP_EFFECTIVE`, `CAP_PERMITTED`, `CAP_INHERITABLE`.
    const fn in_order(self) -> [CapabilitySet; SETS] {
        [self.effective, self.permitted, self.inheritable]
    }
}

impl fmt::Debug for CapabilitySets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapabilitySets({self})")
    }
}

/// How many bytes [`CapabilitySets::to_external`] writes: four that mark the form, the size of a set, and the sets byte
/// by byte (libcap's cap_extint.c).
pub const EXTERNAL_SIZE: usize = EXTERNAL_MAGIC.len() + 1 + SETS * BYTES;

const EXTERNAL_MAGIC: [u8; 4] = [0x90, 0xc2, 0x01, 0x51];
const SETS: usize = 3;
/// The size of a set.
const BYTES: usize = size_of::<u64>();

/// `_LINUX_CAPABILITY_VERSION_3` (include/uapi/linux/capability.h).
pub(super) const VERSION_3: u32 = 0x2008_0522;

/// Sets the effective, permitted and inheritable set. capset(2): EPERM for a permitted capability
/// that the thread has not, or an inheritable one that neither the bounding set nor it has.
///
/// What the kernel does not know is left out of the sets, as the kernel does.
pub const fn capset(sets: CapabilitySets) -> Operation<'static> {
    let CapabilitySets { effective: e, permitted: p, inheritable: i } = sets;
    // `struct __user_cap_header_struct`, and two of `struct __user_cap_data_struct`.
    let words = [
        pair(VERSION_3, 0),
        pair(e.0 as u32, p.0 as u32),
        pair(i.0 as u32, (e.0 >> 32) as u32),
        pair((p.0 >> 32) as u32, (i.0 >> 32) as u32),
        0,
        0,
        0,
    ];
    Operation::new(k::__NR_capset, [0; 6]).with(words, [1, 2, 0, 0, 0, 0])
}

const fn prctl(option: u32, args: [usize; 4]) -> Operation<'static> {
    let [a, b, c, d] = args;
    Operation::new(k::__NR_prctl, [option as usize, a, b, c, d, 0])
}

/// Takes a capability out of the bounding set, for good. PR_CAPBSET_DROP(2const): EINVAL if the
/// kernel does not know it, EPERM without CAP_SETPCAP.
pub const fn capbset_drop(capability: Capability) -> Operation<'static> {
    prctl(p::PR_CAPBSET_DROP, [capability.0 as usize, 0, 0, 0])
}

/// Whether it is in the bounding set of the calling thread, PR_CAPBSET_READ(2const). None: the
/// kernel does not know it.
pub fn capbset_read(capability: Capability) -> Option<bool> {
    sys::prctl(p::PR_CAPBSET_READ, [capability.0 as usize, 0, 0]).ok().map(|value| value != 0)
}

/// The bounding set of the calling thread.
pub fn bounding_set() -> CapabilitySet {
    (0..64).map(Capability).filter(|&one| capbset_read(one) == Some(true)).collect()
}

/// Puts a capability into the ambient set. PR_CAP_AMBIENT(2const), PR_CAP_AMBIENT_RAISE: EINVAL if
/// the kernel does not know it; EPERM if it is not both permitted and inheritable, or
/// [`Securebits::NO_CAP_AMBIENT_RAISE`] is set.
pub const fn cap_ambient_raise(capability: Capability) -> Operation<'static> {
    ambient(p::PR_CAP_AMBIENT_RAISE, capability)
}

/// Takes a capability out of the ambient set. PR_CAP_AMBIENT_LOWER: EINVAL.
pub const fn cap_ambient_lower(capability: Capability) -> Operation<'static> {
    ambient(p::PR_CAP_AMBIENT_LOWER, capability)
}

/// Empties the ambient set. PR_CAP_AMBIENT_CLEAR_ALL.
pub const fn cap_ambient_clear_all() -> Operation<'static> {
    prctl(p::PR_CAP_AMBIENT, [p::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0, 0, 0])
}

const fn ambient(action: u32, capability: Capability) -> Operation<'static> {
    prctl(p::PR_CAP_AMBIENT, [action as usize, capability.0 as usize, 0, 0])
}

/// The ambient set of the calling thread, PR_CAP_AMBIENT_IS_SET.
pub fn ambient_set() -> CapabilitySet {
    let set = |one: &Capability| {
        let args = [p::PR_CAP_AMBIENT_IS_SET as usize, one.0 as usize, 0];
        sys::prctl(p::PR_CAP_AMBIENT, args) == Ok(1)
    };
    (0..64).map(Capability).filter(set).collect()
}

/// Whether the permitted set survives the change of all user ids from 0 to others.
/// PR_SET_KEEPCAPS(2const): EPERM if [`Securebits::KEEP_CAPS_LOCKED`] is set. execve(2) clears it.
pub const fn set_keepcaps(keep: bool) -> Operation<'static> {
    prctl(p::PR_SET_KEEPCAPS, [keep as usize, 0, 0, 0])
}

/// Flags that take the superuser's special treatment away, capabilities(7), "The securebits flags". Combine them with
/// `|`.
///
/// ```
/// use libpsx::process::Securebits;
///
/// let no_root = Securebits::NOROOT | Securebits::NOROOT_LOCKED;
/// assert_eq!(format!("{no_root:?}"), "Securebits(NOROOT | NOROOT_LOCKED)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Securebits(u32);

impl Securebits {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// `SECBIT_NOROOT`: user id 0 gives no capabilities at execve(2).
    pub const NOROOT: Self = Self(1 << 0);
    /// `SECBIT_NOROOT_LOCKED`.
    pub const NOROOT_LOCKED: Self = Self(1 << 1);
    /// `SECBIT_NO_SETUID_FIXUP`: changes of the user id leave the capabilities alone.
    pub const NO_SETUID_FIXUP: Self = Self(1 << 2);
    /// `SECBIT_NO_SETUID_FIXUP_LOCKED`.
    pub const NO_SETUID_FIXUP_LOCKED: Self = Self(1 << 3);
    /// `SECBIT_KEEP_CAPS`: what [`set_keepcaps`] sets.
    pub const KEEP_CAPS: Self = Self(1 << 4);
    /// `SECBIT_KEEP_CAPS_LOCKED`.
    pub const KEEP_CAPS_LOCKED: Self = Self(1 << 5);
    /// `SECBIT_NO_CAP_AMBIENT_RAISE`.
    pub const NO_CAP_AMBIENT_RAISE: Self = Self(1 << 6);
    /// `SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED`.
    pub const NO_CAP_AMBIENT_RAISE_LOCKED: Self = Self(1 << 7);

    /// As the kernel has them.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// As the kernel has them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Those of the calling thread, PR_GET_SECUREBITS(2const).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn current() -> Result<Self, Errno> {
        sys::prctl(p::PR_GET_SECUREBITS, [0; 3]).map(|bits| Self(bits as u32))
    }
}

impl fmt::Debug for Securebits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::NOROOT, "NOROOT"),
            (Self::NOROOT_LOCKED, "NOROOT_LOCKED"),
            (Self::NO_SETUID_FIXUP, "NO_SETUID_FIXUP"),
            (Self::NO_SETUID_FIXUP_LOCKED, "NO_SETUID_FIXUP_LOCKED"),
            (Self::KEEP_CAPS, "KEEP_CAPS"),
            (Self::KEEP_CAPS_LOCKED, "KEEP_CAPS_LOCKED"),
            (Self::NO_CAP_AMBIENT_RAISE, "NO_CAP_AMBIENT_RAISE"),
            (Self::NO_CAP_AMBIENT_RAISE_LOCKED, "NO_CAP_AMBIENT_RAISE_LOCKED"),
        ];
        debug_flags(f, "Securebits", self.0, &names.map(|(bit, name)| (bit.0, name)))
    }
}

impl BitOr for Securebits {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Sets all of the securebits. PR_SET_SECUREBITS(2const): EPERM without CAP_SETPCAP, or to change a
/// locked one.
pub const fn set_securebits(bits: Securebits) -> Operation<'static> {
    prctl(p::PR_SET_SECUREBITS, [bits.0 as usize, 0, 0, 0])
}
