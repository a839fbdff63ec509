//! User and group IDs, credentials(7).
//!
//! The IDs are types of their own, because the kernel gives the number 4294967295, `(uid_t)-1`, another meaning: in
//! the calls that set several IDs it stands for "leave this ID unchanged". Here "unchanged" is a value of its own
//! type, [`Unchanged`], and the conversion of a number to an ID is a `Result`. No function takes an `Option`, so a
//! failed conversion cannot become "leave this process root".
#![forbid(unsafe_code)]

use core::fmt;

use linux_raw_sys::general as k;

use super::Operation;
use crate::engine::call::ResultCheck;

/// A user ID. It is never `(uid_t)-1`, which the kernel reserves for "unchanged".
///
/// ```
/// use libpsx::process::Uid;
///
/// let nobody = Uid::new(65534)?;
/// assert_eq!(nobody.as_raw(), 65534);
/// assert!(Uid::new(u32::MAX).is_err());
/// # Ok::<(), libpsx::process::InvalidId>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Uid(u32);

/// A group ID. It is never `(gid_t)-1`, which the kernel reserves for "unchanged".
///
/// ```
/// use libpsx::process::Gid;
///
/// let adm: Gid = 4.try_into()?;
/// assert_eq!(adm.as_raw(), 4);
/// # Ok::<(), libpsx::process::InvalidId>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Gid(u32);

/// The error of a conversion from 4294967295, which the kernel reserves for "unchanged", to an ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId(u32);

impl InvalidId {
    /// Returns the number that is no ID.
    pub const fn as_raw(self) -> u32 {
        self.0
    }
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid ID {}: it is reserved for \"unchanged\"", self.0)
    }
}

impl core::error::Error for InvalidId {}

impl Uid {
    /// The superuser.
    pub const ROOT: Self = Self(0);

    /// Converts a number to a user ID.
    ///
    /// # Errors
    /// [`InvalidId`] for 4294967295.
    pub const fn new(raw: u32) -> Result<Self, InvalidId> {
        if raw == u32::MAX { Err(InvalidId(raw)) } else { Ok(Self(raw)) }
    }

    /// Returns the number.
    pub const fn as_raw(self) -> u32 {
        self.0
    }
}

impl Gid {
    /// The superuser's group.
    pub const ROOT: Self = Self(0);

    /// Converts a number to a group ID.
    ///
    /// # Errors
    /// [`InvalidId`] for 4294967295.
    pub const fn new(raw: u32) -> Result<Self, InvalidId> {
        if raw == u32::MAX { Err(InvalidId(raw)) } else { Ok(Self(raw)) }
    }

    /// Returns the number.
    pub const fn as_raw(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Uid {
    type Error = InvalidId;

    fn try_from(raw: u32) -> Result<Self, InvalidId> {
        Self::new(raw)
    }
}

impl TryFrom<u32> for Gid {
    type Error = InvalidId;

    fn try_from(raw: u32) -> Result<Self, InvalidId> {
        Self::new(raw)
    }
}

/// Stands in the place of an ID that a call leaves as it is.
///
/// ```no_run
/// use libpsx::process::{Uid, Unchanged, setresuid};
///
/// // The real and the saved ID become 1000. The effective ID stays.
/// let user = Uid::new(1000)?;
/// setresuid(user, Unchanged, user).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Unchanged;

/// What a call does with one ID. [`Uid`], [`Gid`] and [`Unchanged`] convert to it, so it is seldom written.
///
/// There is no conversion from `Option` or `Result`: these would turn a failed conversion of a number into
/// "unchanged".
///
/// ```compile_fail
/// use libpsx::process::{Uid, setresuid};
///
/// let user = Uid::new(1000).ok();
/// let _ = setresuid(user, user, user);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change<T> {
    /// The ID becomes this one.
    To(T),
    /// The ID stays as it is.
    Unchanged,
}

impl From<Uid> for Change<Uid> {
    fn from(uid: Uid) -> Self {
        Self::To(uid)
    }
}

impl From<Gid> for Change<Gid> {
    fn from(gid: Gid) -> Self {
        Self::To(gid)
    }
}

impl<T> From<Unchanged> for Change<T> {
    fn from(_: Unchanged) -> Self {
        Self::Unchanged
    }
}

/// The argument for the kernel.
fn user(id: impl Into<Change<Uid>>) -> usize {
    match id.into() {
        Change::To(Uid(raw)) => raw as usize,
        Change::Unchanged => u32::MAX as usize,
    }
}

fn group(id: impl Into<Change<Gid>>) -> usize {
    match id.into() {
        Change::To(Gid(raw)) => raw as usize,
        Change::Unchanged => u32::MAX as usize,
    }
}

/// Makes this user the real, the effective and the saved one of every thread; the ID for file access follows the
/// effective one. This is what a program that drops root means: no thread can return to the former user.
///
/// Call [`set_all_gids`] and [`setgroups`] before it, because these need the privilege that it takes away.
/// The kernel call is setresuid(2).
///
/// Errors: EPERM without CAP_SETUID, unless each thread already has this ID as its real, effective or saved one.
/// EINVAL if the ID has no mapping in the user namespace. EAGAIN if the kernel had no memory.
///
/// ```no_run
/// use libpsx::process::{Gid, Uid, set_all_gids, set_all_uids, setgroups};
///
/// setgroups(&[]).execute()?;
/// set_all_gids(Gid::new(65534)?).execute()?;
/// set_all_uids(Uid::new(65534)?).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const fn set_all_uids(uid: Uid) -> Operation<'static> {
    let raw = uid.0 as usize;
    Operation::new(k::__NR_setresuid, [raw, raw, raw, 0, 0, 0])
}

/// Makes this group the real, the effective and the saved one of every thread; the ID for file access follows the
/// effective one. The supplementary groups stay: see [`setgroups`]. The kernel call is setresgid(2).
///
/// Errors: EPERM without CAP_SETGID, unless each thread already has this ID as its real, effective or saved one.
/// EINVAL if the ID has no mapping in the user namespace. [`set_all_uids`] has an example.
pub const fn set_all_gids(gid: Gid) -> Operation<'static> {
    let raw = gid.0 as usize;
    Operation::new(k::__NR_setresgid, [raw, raw, raw, 0, 0, 0])
}

/// Sets the effective user ID; with CAP_SETUID also the real and the saved one. setuid(2): EAGAIN,
/// EINVAL, EPERM. [`set_all_uids`] does not depend on the capability.
///
/// ```no_run
/// use libpsx::process::{Uid, setuid};
///
/// setuid(Uid::new(1000)?).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const fn setuid(uid: Uid) -> Operation<'static> {
    Operation::new(k::__NR_setuid, [uid.0 as usize, 0, 0, 0, 0, 0])
}

/// Sets the effective group ID; with CAP_SETGID also the real and the saved one. setgid(2): EINVAL,
/// EPERM. [`set_all_gids`] does not depend on the capability.
///
/// ```no_run
/// use libpsx::process::{Gid, setgid};
///
/// setgid(Gid::new(1000)?).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const fn setgid(gid: Gid) -> Operation<'static> {
    Operation::new(k::__NR_setgid, [gid.0 as usize, 0, 0, 0, 0, 0])
}

/// Sets the real and effective user IDs, and the saved one as setreuid(2) says. EAGAIN, EINVAL, EPERM.
///
/// ```no_run
/// use libpsx::process::{Uid, Unchanged, setreuid};
///
/// setreuid(Unchanged, Uid::new(1000)?).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn setreuid(
    real: impl Into<Change<Uid>>,
    effective: impl Into<Change<Uid>>,
) -> Operation<'static> {
    Operation::new(k::__NR_setreuid, [user(real), user(effective), 0, 0, 0, 0])
}

/// Sets the real and effective group IDs, and the saved one as setregid(2) says. EINVAL, EPERM.
/// [`setreuid`] has an example.
pub fn setregid(
    real: impl Into<Change<Gid>>,
    effective: impl Into<Change<Gid>>,
) -> Operation<'static> {
    Operation::new(k::__NR_setregid, [group(real), group(effective), 0, 0, 0, 0])
}

/// Sets the real, effective and saved user IDs. setresuid(2): EAGAIN, EINVAL, EPERM. [`Unchanged`] has an
/// example. If all three are the same, [`set_all_uids`] is shorter.
pub fn setresuid(
    real: impl Into<Change<Uid>>,
    effective: impl Into<Change<Uid>>,
    saved: impl Into<Change<Uid>>,
) -> Operation<'static> {
    Operation::new(k::__NR_setresuid, [user(real), user(effective), user(saved), 0, 0, 0])
}

/// Sets the real, effective and saved group IDs. setresgid(2): EINVAL, EPERM. [`Unchanged`] has an example. If
/// all three are the same, [`set_all_gids`] is shorter.
pub fn setresgid(
    real: impl Into<Change<Gid>>,
    effective: impl Into<Change<Gid>>,
    saved: impl Into<Change<Gid>>,
) -> Operation<'static> {
    Operation::new(k::__NR_setresgid, [group(real), group(effective), group(saved), 0, 0, 0])
}

/// Sets the user ID that the kernel checks for file access. [`Unchanged`] only asks.
///
/// setfsuid(2) has no errors: its value is the ID of before, whether or not the call has changed it. Without
/// CAP_SETUID it accepts only the real, effective, saved or present one.
///
/// ```
/// use libpsx::process::{Unchanged, setfsuid};
///
/// let present = setfsuid(Unchanged).execute()?;
/// println!("files are opened as user {present}");
/// # Ok::<(), libpsx::Error>(())
/// ```
pub fn setfsuid(uid: impl Into<Change<Uid>>) -> Operation<'static> {
    Operation::new(k::__NR_setfsuid, [user(uid), 0, 0, 0, 0, 0])
        .result_check(ResultCheck::AnySuccess)
}

/// Sets the group ID that the kernel checks for file access, as [`setfsuid`] does for the user ID. setfsgid(2).
pub fn setfsgid(gid: impl Into<Change<Gid>>) -> Operation<'static> {
    Operation::new(k::__NR_setfsgid, [group(gid), 0, 0, 0, 0, 0])
        .result_check(ResultCheck::AnySuccess)
}

/// Sets the supplementary groups, at most 65536. setgroups(2): EINVAL, ENOMEM, EPERM.
///
/// ```no_run
/// use libpsx::process::{Gid, setgroups};
///
/// let groups = [Gid::new(4)?, Gid::new(24)?];
/// setgroups(&groups).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn setgroups(groups: &[Gid]) -> Operation<'_> {
    Operation::new(k::__NR_setgroups, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0])
}
