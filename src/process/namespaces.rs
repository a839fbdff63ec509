//! Namespaces, namespaces(7): joining one with every thread, and making one for all of them.

// # Safety
//
// The calls here take descriptors that are open, and numbers.
#![allow(unsafe_code)]

use core::ffi::CStr;

use linux_raw_sys::general as k;

use super::{Fd, Operation};
use crate::engine::call::Shares;
use crate::engine::divergence;
use crate::error::{Error, Requirement, TransactionError};
use crate::sys::{self, Fd as OwnFd};
use crate::transaction::Transaction;

/// A kind of namespace that threads can change one by one, and so all of them together.
///
/// The others cannot be offered. **User** and **time** namespaces: the kernel lets only a process of one
/// thread change them (setns(2), EINVAL; EUSERS). **PID**: unshare(2) and setns(2) change where the
/// *children* of a thread will be, and a thread that did so can make no more threads (clone(2),
/// EINVAL). **Mount**: setns(2) refuses while threads share their root and working directories
/// (CLONE_FS), and threads that do not share them are no longer what programs take them for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Namespace {
    /// Network devices, addresses, ports: network_namespaces(7).
    Network,
    /// Host and domain name: uts_namespaces(7).
    Uts,
    /// System V IPC, POSIX message queues: ipc_namespaces(7).
    Ipc,
    /// The root of the cgroups that are seen: cgroup_namespaces(7).
    Cgroup,
}

impl Namespace {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Network, Self::Uts, Self::Ipc, Self::Cgroup];

    /// `CLONE_NEW*`.
    const fn flag(self) -> usize {
        let flag = match self {
            Self::Network => k::CLONE_NEWNET,
            Self::Uts => k::CLONE_NEWUTS,
            Self::Ipc => k::CLONE_NEWIPC,
            Self::Cgroup => k::CLONE_NEWCGROUP,
        };
        flag as usize
    }

    const fn path(self) -> &'static CStr {
        match self {
            Self::Network => c"/proc/thread-self/ns/net",
            Self::Uts => c"/proc/thread-self/ns/uts",
            Self::Ipc => c"/proc/thread-self/ns/ipc",
            Self::Cgroup => c"/proc/thread-self/ns/cgroup",
        }
    }
}

/// Moves every thread into a namespace. The descriptor is a file of /proc/PID/ns/, or a pidfd
/// (pidfd_open(2)), which stands for that process's namespace of this kind. Children inherit it.
///
/// setns(2): EINVAL if the descriptor is no namespace, or one of another kind. EPERM without CAP_SYS_ADMIN in the
/// user namespace that owns the namespace and in the thread's own user namespace.
/// [`Error::NotShared`](crate::Error::NotShared) if a thread has a descriptor table of its own.
///
/// ```no_run
/// use libpsx::process::{Namespace, setns};
///
/// let of_init = std::fs::File::open("/proc/1/ns/uts")?;
/// setns(&of_init, Namespace::Uts).execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn setns<'fd>(namespace: impl Into<Fd<'fd>>, kind: Namespace) -> Operation<'fd> {
    let args = [namespace.into().arg(), kind.flag(), 0, 0, 0, 0];
    Operation::new(k::__NR_setns, args).sharing(Shares::FILES)
}

/// A namespace that no thread is in yet, made by [`unshare`].
#[derive(Debug)]
pub struct NewNamespace {
    fd: OwnFd,
    kind: Namespace,
}

impl NewNamespace {
    /// Moves every thread there, as [`setns`].
    pub fn join(&self) -> Operation<'_> {
        // SAFETY: `self` keeps the descriptor open, and the operation borrows `self`.
        setns(unsafe { Fd::borrow_raw(self.fd.raw()) }, self.kind)
    }
}

/// Makes a new namespace for every thread to join. (If every thread called unshare(2), each would make a namespace of
/// its own.) EPERM without CAP_SYS_ADMIN, also in the user namespace that owns the present one; ENOSPC,
/// ENOMEM; [`Requirement::Namespace`] if /proc cannot be read.
///
/// The calling thread is in the new namespace for a moment. All its signals are blocked meanwhile, so it takes
/// part in no broadcast. It is back in the old namespace when this function returns.
///
/// ```no_run
/// use libpsx::process::{Namespace, unshare};
///
/// let network = unshare(Namespace::Network)?;
/// network.join().execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
///
/// # Errors
/// Any [`Error`] means that nothing changed in any thread.
pub fn unshare(kind: Namespace) -> Result<NewNamespace, Error> {
    let blocked = |errno| Error::Environment { requirement: Requirement::SignalMask, errno };
    let mask = sys::set_mask(sys::ALL).map_err(blocked)?;
    // From here on no broadcast moves this thread: what is open is where it returns to. (SIGSYS as it was, for
    // filters that emulate calls.)
    let _ = sys::set_mask(sys::ALL & (mask | !sys::bit(sys::SIGSYS)));
    let made = make(kind);
    let _ = sys::set_mask(mask);
    made.map(|fd| NewNamespace { fd, kind })
}

/// Goes into a new namespace and back, and gives what stands for it.
fn make(kind: Namespace) -> Result<OwnFd, Error> {
    let environment = |errno| Error::Environment { requirement: Requirement::Namespace, errno };
    let open = || OwnFd::open(kind.path(), 0).map_err(environment);
    let old = open()?;
    // Whether there would be a way back: the present one may belong to an outer user namespace.
    sys::setns(old.raw(), kind.flag()).map_err(Error::Call)?;
    sys::unshare(kind.flag()).map_err(Error::Call)?;
    let new = open();
    if sys::setns(old.raw(), kind.flag()).is_err() {
        divergence::lost("a thread could not leave its new namespace");
    }
    new
}

/// Moves every thread into new namespaces of these kinds, in one stop. A kind that is named twice counts once.
///
/// ```no_run
/// use libpsx::process::{Namespace, unshare_all};
///
/// unshare_all(&[Namespace::Network, Namespace::Ipc])?;
/// # Ok::<(), libpsx::TransactionError>(())
/// ```
///
/// # Errors
/// [`TransactionError::NothingChanged`]: nothing changed in any thread. [`TransactionError::Partial`]: the threads are in
/// the new namespaces of the first kinds, in the order of [`Namespace::ALL`].
pub fn unshare_all(kinds: &[Namespace]) -> Result<(), TransactionError> {
    let mut made = [const { None }; Namespace::ALL.len()];
    for (place, kind) in made.iter_mut().zip(Namespace::ALL) {
        if kinds.contains(&kind) {
            *place = Some(unshare(kind)?);
        }
    }
    let joins = made.iter().flatten().map(NewNamespace::join);
    Transaction::new().with_all(joins).execute().map(|_| ())
}
