//! Labels of Linux security modules, lsm_set_self_attr(2).
#![forbid(unsafe_code)]

use core::fmt;
use core::ptr;

use linux_raw_sys::general as k;

use super::Operation;
use crate::errno::Errno;

/// A security module that has labels. include/uapi/linux/lsm.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lsm {
    /// `LSM_ID_SELINUX`.
    Selinux,
    /// `LSM_ID_SMACK`.
    Smack,
    /// `LSM_ID_APPARMOR`.
    AppArmor,
}

impl Lsm {
    const fn id(self) -> u64 {
        match self {
            Self::Selinux => 101,
            Self::Smack => 102,
            Self::AppArmor => 104,
        }
    }
}

/// Which attribute of a thread, `LSM_ATTR_*`. Each module knows some of them. include/uapi/linux/lsm.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LsmAttribute {
    /// `LSM_ATTR_CURRENT`: what the thread is now.
    Current,
    /// `LSM_ATTR_EXEC`: what it will be after execve(2).
    Exec,
    /// `LSM_ATTR_FSCREATE`: the label of files that it makes.
    FsCreate,
    /// `LSM_ATTR_KEYCREATE`: the label of keys that it makes.
    KeyCreate,
    /// `LSM_ATTR_SOCKCREATE`: the label of sockets that it makes.
    SockCreate,
}

impl LsmAttribute {
    const fn number(self) -> usize {
        match self {
            Self::Current => 100,
            Self::Exec => 101,
            Self::FsCreate => 102,
            Self::KeyCreate => 103,
            Self::SockCreate => 105,
        }
    }
}

/// The kernel takes at most a page.
const ROOM: usize = 4096 - size_of::<[u64; 4]>();

/// A label for one security module: `struct lsm_ctx` with room for the longest that the kernel takes.
#[derive(Clone)]
#[repr(C)]
pub struct LsmContext {
    id: u64,
    flags: u64,
    /// Of the whole, and of the label.
    len: u64,
    label_len: u64,
    label: [u8; ROOM],
}

impl LsmContext {
    /// Makes a context of a label, in the module's own form: for AppArmor a command such as
    /// `changeprofile NAME`, for SELinux a context, for Smack a label. SELinux and Smack take it with or without a zero
    /// byte at its end.
    ///
    /// # Errors
    /// E2BIG if it is longer than the kernel takes, 4064 bytes.
    pub fn new(module: Lsm, label: &[u8]) -> Result<Self, Errno> {
        let mut context =
            Self { id: module.id(), flags: 0, len: 0, label_len: 0, label: [0; ROOM] };
        let place = context.label.get_mut(..label.len()).ok_or(Errno::TOOBIG)?;
        place.copy_from_slice(label);
        context.label_len = label.len() as u64;
        context.len = context.size() as u64;
        Ok(context)
    }

    const fn size(&self) -> usize {
        (self.label_len as usize).wrapping_add(size_of::<[u64; 4]>())
    }
}

impl fmt::Debug for LsmContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.label.get(..self.label_len as usize).unwrap_or_default();
        write!(f, "LsmContext({}, \"{}\")", self.id, label.escape_ascii())
    }
}

/// Gives every thread a label. lsm_set_self_attr(2); security/lsm_syscalls.c. Linux 6.8. (Before it, each thread writes
/// to /proc/thread-self/attr, which a broadcast cannot do for it.)
///
/// Errors:
/// - ENOSYS before Linux 6.8.
/// - EOPNOTSUPP if the kernel does not run this module, or the module does not have this attribute.
/// - EINVAL for a label that the module does not know; EACCES or EPERM if its policy does not allow the change. SELinux
///   lets a process of several threads change [`LsmAttribute::Current`] only to a context that is bounded by the old
///   one.
///
/// ```no_run
/// use libpsx::process::{Lsm, LsmAttribute, LsmContext, lsm_set_self_attr};
///
/// let profile = LsmContext::new(Lsm::AppArmor, b"changeprofile worker")?;
/// lsm_set_self_attr(LsmAttribute::Current, &profile).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lsm_set_self_attr(attribute: LsmAttribute, context: &LsmContext) -> Operation<'_> {
    let at = ptr::from_ref(context) as usize;
    let args = [attribute.number(), at, context.size(), 0, 0, 0];
    Operation::new(k::__NR_lsm_set_self_attr, args)
}
