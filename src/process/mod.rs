//! The calls that change what a process is, typed: one function per entry of the manual, safe,
//! each made alone or as part of a [`Transaction`].
//!
//! A function here makes an [`Operation`]; [`Operation::perform`] performs it on every thread, as
//! [`syscall6`](crate::syscall6) does, and [`Transaction::with`] puts it beside others.
//!
//! ```
//! use libpsx::process::no_new_privs;
//!
//! no_new_privs().perform()?;
//! # Ok::<(), libpsx::Error>(())
//! ```
//!
//! What every operation has in common:
//!
//! - **Each thread** sees the change from the instruction on at which it was interrupted, and no
//!   thread has run in the old state after another had the new one.
//! - **Errors** are [`Error`], and mean that nothing changed. [`Error::Call`] has the error of the
//!   calling thread's own call: those of the manual page that is named.
//! - Memory that an argument refers to is part of the operation, or borrowed by it.
//!
//! # What a thread has of its own on Linux
//!
//! *By each thread*: whether it makes sense that every thread makes the call. *Twice*: whether it is
//! harmless if a thread makes it twice. *Inherited*: by new threads and by children (fork); execve(2)
//! has rules of its own. *By the kernel*: what does it in all threads without us.
//!
//! | state | here | by each thread | twice | inherited | by the kernel |
//! |---|---|---|---|---|---|
//! | user, group, supplementary ids | [`setresuid`], [`setresgid`], [`setgroups`] ... | yes | yes | yes | no (libc's set*id broadcast as we do) |
//! | ids for files | [`setfsuid`], [`setfsgid`] | yes | yes | yes | no |
//! | capability sets | [`capset`] | yes | yes | yes | no |
//! | bounding set | [`bounding_drop`] | yes | yes | yes | no |
//! | ambient set | [`ambient_raise`], [`ambient_lower`], [`ambient_clear`] | yes | yes | yes | no |
//! | securebits, keepcaps | [`securebits`], [`keepcaps`] | yes | yes | yes | no |
//! | no_new_privs | [`no_new_privs`] | yes | yes | yes | with the two below, when they synchronise |
//! | seccomp filters | [`seccomp`] | yes; better not | no: they add up | yes | SECCOMP_FILTER_FLAG_TSYNC |
//! | Landlock domain | [`landlock_restrict_self`] | yes | no: they add up, to 16 | yes | LANDLOCK_RESTRICT_SELF_TSYNC (7.0) |
//! | network, UTS, IPC, cgroup namespace | [`unshare`], [`setns`] | setns; unshare makes one for each | setns: yes | yes | no |
//! | mount, PID, user, time namespace | not offered: see [`Namespace`] | no | | yes | no |
//! | session keyring | [`new_session_keyring`] | by name; without one each has its own | yes | yes | no |
//! | policy, priority, nice value | [`scheduler`], [`nice`] | yes | yes | yes | no |
//! | priority of input and output | [`io_priority`] | yes | yes | yes | IOPRIO_WHO_PGRP, a process group |
//! | CPUs | [`affinity`] | yes | yes | yes | cpuset cgroups |
//! | memory policy | [`memory_policy`] | yes | yes | yes | cpuset cgroups |
//! | timer slack | [`timer_slack`] | yes | yes | yes | no |
//! | personality | [`personality`] | yes | yes | yes | no |
//! | speculation control | [`speculation`] | yes | yes | yes | no |
//! | strict seccomp, syscall user dispatch | refused | no: held threads could not go on | | | |
//! | signal mask, alternate stack | refused | no: a held thread's are the handler's | | | |
//! | rseq, robust list, clear_child_tid, thread pointer | refused | no: they belong to the run-time | | | |
//! | name, parent-death signal, thread and process keyring, memory of perf events | not offered | no: each has its own, for good reason | | | |

// # Safety
//
// The operations made here are sound for every argument, in every thread: they take numbers, or
// point to memory that the operation holds or borrows. They change who the process is for the
// kernel; what its code may then find missing is no matter of memory safety.
#![allow(unsafe_code)]

mod capabilities;
mod credentials;
mod identity;
mod keyrings;
mod namespaces;
mod sandbox;
mod scheduling;

use core::marker::PhantomData;
use core::ptr;

use crate::broadcast::Broadcast;
use crate::calls::{Agreement, Call};
use crate::error::Error;
use crate::report::Report;
#[cfg(doc)]
use crate::transaction::Transaction;
pub(crate) use identity::Asked;
use scheduling::SchedAttr;

pub use capabilities::*;
pub use credentials::*;
pub use identity::{Identity, Ids, identities};
pub use keyrings::*;
pub use namespaces::*;
pub use sandbox::*;
pub use scheduling::*;

/// One typed call, not performed yet.
#[derive(Debug, Clone, Copy)]
#[must_use = "an operation does nothing until it is performed"]
pub struct Operation<'a> {
    call: Call,
    memory: Memory,
    borrows: PhantomData<&'a [u8]>,
}

/// What an argument points to, if that is not borrowed.
#[derive(Debug, Clone, Copy)]
enum Memory {
    None,
    /// capset(2): `struct __user_cap_header_struct` and two `struct __user_cap_data_struct`, to
    /// which the first and the second argument point.
    Capabilities([u32; 2], [u32; 6]),
    /// seccomp(2): `struct sock_fprog`, to which the third argument points.
    Program(Program),
    /// sched_setattr(2): the second argument points to it.
    Scheduling(SchedAttr),
}

/// `struct sock_fprog` (include/uapi/linux/filter.h).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

// SAFETY: the instructions it points to are borrowed, shared, and plain data.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl<'a> Operation<'a> {
    pub(crate) const NOTHING: Self = Self::of(Call::new(0, [0; 6]));

    pub(crate) const fn of(call: Call) -> Self {
        Self { call, memory: Memory::None, borrows: PhantomData }
    }

    const fn new(nr: u32, args: [usize; 6]) -> Self {
        Self::of(Call::new(nr as usize, args))
    }

    const fn agreement(mut self, agreement: Agreement) -> Self {
        self.call.agreement = agreement;
        self
    }

    const fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// The call, with pointers into `self`.
    pub(crate) const fn call(&self) -> Call {
        self.call
    }

    /// Performs it on every thread. Returns what it returned in the calling thread.
    ///
    /// # Errors
    /// Any [`Error`] means that nothing changed in any thread.
    pub fn perform(&self) -> Result<usize, Error> {
        // SAFETY: made by a function of this module, or by someone who promised it.
        unsafe { self.broadcast().perform() }
    }

    /// As [`perform`](Self::perform), with a report.
    ///
    /// # Errors
    /// As there.
    pub fn run(&self) -> Result<Report, Error> {
        // SAFETY: made by a function of this module, or by someone who promised it.
        unsafe { self.broadcast().run() }
    }

    fn broadcast(&self) -> Broadcast {
        Broadcast::of(self.pointed())
    }

    /// The call, with its arguments pointing to where `self` lies now.
    pub(crate) fn pointed(&self) -> Call {
        let mut call = self.call;
        let [first, second, third, ..] = &mut call.args;
        match &self.memory {
            Memory::None => {}
            Memory::Capabilities(header, data) => {
                *first = ptr::from_ref(header) as usize;
                *second = ptr::from_ref(data) as usize;
            }
            Memory::Program(program) => *third = ptr::from_ref(program) as usize,
            Memory::Scheduling(attr) => *second = ptr::from_ref(attr) as usize,
        }
        call
    }
}
