//! User and group ids, credentials(7).
#![forbid(unsafe_code)]

use linux_raw_sys::general as k;

use super::Operation;
use crate::engine::call::Agreement;

/// A user id. Never `(uid_t)-1`, which is no user: the calls take it for "leave it as it is".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Uid(u32);

/// A group id. Never `(gid_t)-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Gid(u32);

impl Uid {
    /// The superuser.
    pub const ROOT: Self = Self(0);

    /// None for `(uid_t)-1`.
    pub const fn new(raw: u32) -> Option<Self> {
        if raw == u32::MAX { None } else { Some(Self(raw)) }
    }

    /// The number.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl Gid {
    /// The superuser's group.
    pub const ROOT: Self = Self(0);

    /// None for `(gid_t)-1`.
    pub const fn new(raw: u32) -> Option<Self> {
        if raw == u32::MAX { None } else { Some(Self(raw)) }
    }

    /// The number.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// What the calls take: `(uid_t)-1` leaves an id as it is.
const fn user(id: Option<Uid>) -> usize {
    match id {
        Some(Uid(raw)) => raw as usize,
        None => u32::MAX as usize,
    }
}

const fn group(id: Option<Gid>) -> usize {
    match id {
        Some(Gid(raw)) => raw as usize,
        None => u32::MAX as usize,
    }
}

/// Sets the effective user id; with CAP_SETUID also the real and the saved one. setuid(2): EAGAIN,
/// EINVAL, EPERM.
pub const fn setuid(uid: Uid) -> Operation<'static> {
    Operation::new(k::__NR_setuid, [user(Some(uid)), 0, 0, 0, 0, 0])
}

/// Sets the effective group id; with CAP_SETGID also the real and the saved one. setgid(2): EINVAL,
/// EPERM.
pub const fn setgid(gid: Gid) -> Operation<'static> {
    Operation::new(k::__NR_setgid, [group(Some(gid)), 0, 0, 0, 0, 0])
}

/// Sets the real and effective user ids, and the saved one as setreuid(2) says; None leaves one as
/// it is. EAGAIN, EINVAL, EPERM.
pub const fn setreuid(real: Option<Uid>, effective: Option<Uid>) -> Operation<'static> {
    Operation::new(k::__NR_setreuid, [user(real), user(effective), 0, 0, 0, 0])
}

/// Sets the real and effective group ids, and the saved one as setregid(2) says; None leaves one as
/// it is. EINVAL, EPERM.
pub const fn setregid(real: Option<Gid>, effective: Option<Gid>) -> Operation<'static> {
    Operation::new(k::__NR_setregid, [group(real), group(effective), 0, 0, 0, 0])
}

/// Sets the real, effective and saved user ids; None leaves one as it is. setresuid(2): EAGAIN,
/// EINVAL, EPERM.
pub const fn setresuid(
    real: Option<Uid>,
    effective: Option<Uid>,
    saved: Option<Uid>,
) -> Operation<'static> {
    Operation::new(k::__NR_setresuid, [user(real), user(effective), user(saved), 0, 0, 0])
}

/// Sets the real, effective and saved group ids; None leaves one as it is. setresgid(2): EINVAL,
/// EPERM.
pub const fn setresgid(
    real: Option<Gid>,
    effective: Option<Gid>,
    saved: Option<Gid>,
) -> Operation<'static> {
    Operation::new(k::__NR_setresgid, [group(real), group(effective), group(saved), 0, 0, 0])
}

/// Sets the user id that counts for files. setfsuid(2) has no errors: its value is the id of before,
/// whether or not it has changed it. Without CAP_SETUID it takes only the real, effective, saved or
/// present one. None only asks.
pub const fn setfsuid(uid: Option<Uid>) -> Operation<'static> {
    Operation::new(k::__NR_setfsuid, [user(uid), 0, 0, 0, 0, 0]).agreement(Agreement::AnySuccess)
}

/// Sets the group id that counts for files; as [`setfsuid`]. setfsgid(2).
pub const fn setfsgid(gid: Option<Gid>) -> Operation<'static> {
    Operation::new(k::__NR_setfsgid, [group(gid), 0, 0, 0, 0, 0]).agreement(Agreement::AnySuccess)
}

/// Sets the supplementary groups, at most 65536. setgroups(2): EINVAL, ENOMEM, EPERM.
pub fn setgroups(groups: &[Gid]) -> Operation<'_> {
    Operation::new(k::__NR_setgroups, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0])
}
