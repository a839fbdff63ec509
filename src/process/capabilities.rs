//! Capabilities ([capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html)): the sets of a thread, the
//! bounding set, the ambient set. See capability_set.rs for one set, and securebits.rs for the securebits.
//!
//! A [`Capability`] is a number and not a variant of an enum. A kernel that is newer than this crate has capabilities
//! without a name here, and a program must be able to drop them.
//!
//! ```no_run
//! use libpsx::process::{
//!     Capability, CapabilitySet, CapabilitySets, Securebits, ambient_set, bounding_set, cap_ambient_clear_all,
//!     cap_ambient_lower, cap_ambient_raise, capbset_drop, capbset_read, capset, set_keepcaps, set_securebits,
//! };
//!
//! // Keep one capability, also for programs that are executed, and drop all others.
//! let kept = CapabilitySet::from_slice(&[Capability::NET_BIND_SERVICE]);
//! assert!(CapabilitySet::all().is_superset(kept) && kept.contains(Capability::NET_BIND_SERVICE));
//! for capability in bounding_set().iter().filter(|&capability| !kept.contains(capability)) {
//!     capbset_drop(capability).execute()?;
//! }
//! capset(CapabilitySets { effective: kept, permitted: kept, inheritable: kept }).execute()?;
//! cap_ambient_clear_all().execute()?;
//! cap_ambient_raise(Capability::NET_BIND_SERVICE).execute()?;
//! assert_eq!(ambient_set(), kept);
//! assert_eq!(CapabilitySets::current()?.permitted, kept);
//! assert_eq!(capbset_read(Capability::SYS_ADMIN), Some(false));
//! println!("this kernel knows {} capabilities", Capability::last().number() + 1);
//!
//! // The same by bits, as in /proc/PID/status.
//! assert_eq!(CapabilitySet::from_bits(1 << 10), kept);
//! assert_eq!(kept.bits(), 1 << 10);
//!
//! // No privilege for user ID 0, and no way back.
//! let bits = Securebits::from_bits(Securebits::current()?.bits()) | Securebits::NOROOT | Securebits::NOROOT_LOCKED;
//! assert!(bits.contains(Securebits::NOROOT));
//! set_securebits(bits).execute()?;
//! set_keepcaps(false).execute()?;
//! cap_ambient_lower(Capability::NET_BIND_SERVICE).execute()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use core::fmt;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::{Capability, CapabilitySet, Operation, ParseCapabilitiesError};
use crate::errno::Errno;
use crate::process::operation::pair;
use crate::sys;

/// The three sets of a thread that capset(2) changes. `FromStr` and `Display` use the text of cap_from_text(3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilitySets {
    /// The capabilities that the kernel checks.
    pub effective: CapabilitySet,
    /// The capabilities that may be made effective.
    pub permitted: CapabilitySet,
    /// The capabilities that execve(2) may keep.
    pub inheritable: CapabilitySet,
}

impl CapabilitySets {
    /// Three empty sets.
    pub const EMPTY: Self = Self {
        effective: CapabilitySet::EMPTY,
        permitted: CapabilitySet::EMPTY,
        inheritable: CapabilitySet::EMPTY,
    };

    /// Returns the sets of the calling thread (capget(2)).
    ///
    /// # Errors
    /// The kernel's error number. The call fails only if a seccomp filter refuses it.
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

    /// Reads the external form, as cap_copy_int(3) does. Bytes after it are ignored. The form may have been written
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

/// The number of bytes that [`CapabilitySets::to_external`] writes: four that mark the form, the size of a set, and the sets byte
/// by byte (libcap's cap_extint.c).
pub const EXTERNAL_SIZE: usize = EXTERNAL_MAGIC.len() + 1 + SETS * BYTES;

const EXTERNAL_MAGIC: [u8; 4] = [0x90, 0xc2, 0x01, 0x51];
const SETS: usize = 3;
/// The size of a set.
const BYTES: usize = size_of::<u64>();

/// `_LINUX_CAPABILITY_VERSION_3` (include/uapi/linux/capability.h).
pub(super) const VERSION_3: u32 = 0x2008_0522;

/// Sets the effective, permitted and inheritable set
/// ([capset(2)](https://man7.org/linux/man-pages/man2/capset.2.html)). The kernel ignores capabilities that it does not know.
///
/// # Errors
/// | errno | cause |
/// |---|---|
/// | EPERM | a permitted capability is added; an effective one is not permitted; an inheritable one is neither permitted nor in the bounding set |
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

pub(super) const fn prctl(option: u32, args: [usize; 4]) -> Operation<'static> {
    let [a, b, c, d] = args;
    Operation::new(k::__NR_prctl, [option as usize, a, b, c, d, 0])
}

/// Removes a capability from the bounding set. It cannot be added again. (PR_CAPBSET_DROP(2const))
///
/// # Errors
/// | errno | cause |
/// |---|---|
/// | EINVAL | the kernel does not know the capability |
/// | EPERM | the thread has no CAP_SETPCAP |
pub const fn capbset_drop(capability: Capability) -> Operation<'static> {
    prctl(p::PR_CAPBSET_DROP, [capability.0 as usize, 0, 0, 0])
}

/// Returns whether the capability is in the bounding set of the calling thread, or None if the kernel does not know it.
/// (PR_CAPBSET_READ(2const))
pub fn capbset_read(capability: Capability) -> Option<bool> {
    sys::prctl(p::PR_CAPBSET_READ, [capability.0 as usize, 0, 0]).ok().map(|value| value != 0)
}

/// Returns the bounding set of the calling thread.
pub fn bounding_set() -> CapabilitySet {
    (0..64).map(Capability).filter(|&one| capbset_read(one) == Some(true)).collect()
}

/// Adds a capability to the ambient set. (PR_CAP_AMBIENT(2const), PR_CAP_AMBIENT_RAISE)
///
/// # Errors
/// | errno | cause |
/// |---|---|
/// | EINVAL | the kernel does not know the capability |
/// | EPERM | the capability is not both permitted and inheritable, or [`Securebits::NO_CAP_AMBIENT_RAISE`](crate::process::Securebits::NO_CAP_AMBIENT_RAISE) is set |
pub const fn cap_ambient_raise(capability: Capability) -> Operation<'static> {
    ambient(p::PR_CAP_AMBIENT_RAISE, capability)
}

/// Removes a capability from the ambient set. (PR_CAP_AMBIENT_LOWER)
///
/// # Errors
/// EINVAL if the kernel does not know the capability.
pub const fn cap_ambient_lower(capability: Capability) -> Operation<'static> {
    ambient(p::PR_CAP_AMBIENT_LOWER, capability)
}

/// Empties the ambient set. (PR_CAP_AMBIENT_CLEAR_ALL)
pub const fn cap_ambient_clear_all() -> Operation<'static> {
    prctl(p::PR_CAP_AMBIENT, [p::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0, 0, 0])
}

const fn ambient(action: u32, capability: Capability) -> Operation<'static> {
    prctl(p::PR_CAP_AMBIENT, [action as usize, capability.0 as usize, 0, 0])
}

/// Returns the ambient set of the calling thread. (PR_CAP_AMBIENT_IS_SET)
pub fn ambient_set() -> CapabilitySet {
    let set = |one: &Capability| {
        let args = [p::PR_CAP_AMBIENT_IS_SET as usize, one.0 as usize, 0];
        sys::prctl(p::PR_CAP_AMBIENT, args) == Ok(1)
    };
    (0..64).map(Capability).filter(set).collect()
}

/// Sets whether the permitted set survives a change of all user ids from 0 to others. execve(2) clears the setting.
/// (PR_SET_KEEPCAPS(2const))
///
/// # Errors
/// EPERM if [`Securebits::KEEP_CAPS_LOCKED`](crate::process::Securebits::KEEP_CAPS_LOCKED) is set.
pub const fn set_keepcaps(keep: bool) -> Operation<'static> {
    prctl(p::PR_SET_KEEPCAPS, [keep as usize, 0, 0, 0])
}
