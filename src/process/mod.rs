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
