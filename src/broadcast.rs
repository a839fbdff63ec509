//! The public entry: one system call, performed by every thread of the process.

// # Safety
//
// The functions here pass a system call on. What the call does to memory is its caller's business
// and is asked of them in each `# Safety` section.
#![allow(unsafe_code)]

use core::ffi::c_long;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;

use crate::engine::answers::Form;
use crate::engine::call::{Call, ResultCheck};
use crate::engine::divergence::Sensitivity;
use crate::engine::{self, Settings};
use crate::error::Error;
use crate::report::Report;

/// How long threads are waited for, unless it is set.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

static SENSITIVITY: AtomicU8 = AtomicU8::new(Sensitivity::Error as u8);

/// Sets what happens, from the next call on, when a thread's result differs from the caller's.
/// It holds for the whole process; the default is [`Sensitivity::Error`].
pub fn set_sensitivity(level: Sensitivity) {
    // Relaxed: a setting on its own, with nothing published beside it.
    SENSITIVITY.store(level as u8, Ordering::Relaxed);
}

/// The process-wide setting made by [`set_sensitivity`].
pub fn sensitivity() -> Sensitivity {
    match SENSITIVITY.load(Ordering::Relaxed) {
        0 => Sensitivity::Ignore,
        1 => Sensitivity::Warning,
        _ => Sensitivity::Error,
    }
}

/// Performs a system call of up to three arguments on every thread of the process.
///
/// The calling thread performs the call first, when every other thread is held. If the kernel
/// refuses it, [`Error::Call`] says why, and no other thread attempts it. If it succeeds, every
/// other thread performs it too before it runs another user instruction; the value is the calling
/// thread's. `nr` is what `libc::SYS_*` gives.
///
/// A call that only reads state needs none of this.
///
/// # Errors
/// Any [`Error`] means that nothing changed in any thread.
///
/// # Safety
/// See [`syscall6`].
pub unsafe fn syscall3(nr: c_long, a1: usize, a2: usize, a3: usize) -> Result<usize, Error> {
    // SAFETY: the caller's promise is the one asked for here.
    unsafe { syscall6(nr, a1, a2, a3, 0, 0, 0) }
}

/// Performs a system call of up to six arguments on every thread of the process; see [`syscall3`].
///
/// # Safety
/// The call must be sound when *every* thread makes it, with these very arguments, at any point of
/// its execution:
/// - What its pointers point to stays valid, and unchanged by others, until this function returns;
///   if the kernel writes through them, each thread writes.
/// - A call that takes effect each time it is made (`nice`, `keyctl`, `close`, a seek) takes effect
///   once per thread. Calls that end, replace or unhinge a thread are refused.
/// - While it runs, the other threads are held: a call that waits for one of them never returns.
/// - Code of this process may rely on privilege or on resources that the call takes away.
pub unsafe fn syscall6(
    nr: c_long,
    a1: usize,
    a2: usize,
    a3: usize,
    a4: usize,
    a5: usize,
    a6: usize,
) -> Result<usize, Error> {
    // SAFETY: the caller's promise is the one asked for here.
    unsafe { Broadcast::new(nr, [a1, a2, a3, a4, a5, a6]).execute() }
}

/// One system call with settings of its own.
///
/// ```
/// use libpsx::{Broadcast, Sensitivity};
/// use std::time::Duration;
///
/// let keep_caps = Broadcast::new(libc::SYS_prctl, [libc::PR_SET_KEEPCAPS as usize, 1, 0, 0, 0, 0])
///     .deadline(Duration::from_secs(2))
///     .sensitivity(Sensitivity::Warning);
/// // SAFETY: PR_SET_KEEPCAPS takes no pointer and touches no memory.
/// let report = unsafe { keep_caps.execute_with_report() }?;
/// println!("{} threads keep their capabilities", report.threads());
/// # Ok::<(), libpsx::Error>(())
/// ```
#[derive(Clone, Copy)]
#[must_use = "a broadcast does nothing until it is run"]
pub struct Broadcast {
    call: Call,
    deadline: Duration,
    sensitivity: Option<Sensitivity>,
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("call", &Named(&self.call))
            .field("result_check", &self.call.result_check)
            .field("deadline", &self.deadline)
            .field("sensitivity", &self.sensitivity)
            .finish()
    }
}

/// A call as C would write it, for `Debug`.
pub(crate) struct Named<'a>(pub(crate) &'a Call);

impl fmt::Debug for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a1, a2, a3, a4, a5, a6] = self.0.args;
        match self.0.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "call {}", self.0.nr)?,
        }
        write!(f, "({a1:#x}, {a2:#x}, {a3:#x}, {a4:#x}, {a5:#x}, {a6:#x})")
    }
}

impl Broadcast {
    /// The call `nr` (`libc::SYS_*`) with these arguments, a deadline of 10 seconds, the
    /// process-wide sensitivity, and [`ResultCheck::SameResult`].
    pub const fn new(nr: c_long, args: [usize; 6]) -> Self {
        Self::of(Call::new(nr as usize, args))
    }

    pub(crate) const fn of(call: Call) -> Self {
        Self { call, deadline: DEADLINE, sensitivity: None }
    }

    /// How long to try to bring all threads to a stop. It does not cover the call itself, once it
    /// has begun.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The sensitivity for this call alone.
    pub const fn sensitivity(mut self, level: Sensitivity) -> Self {
        self.sensitivity = Some(level);
        self
    }

    /// What counts as the same result in the other threads.
    pub const fn result_check(mut self, result_check: ResultCheck) -> Self {
        self.call.result_check = result_check;
        self
    }

    /// Performs the call on every thread, and reports. See [`syscall3`] for what happens and in
    /// which order.
    ///
    /// # Errors
    /// Any [`Error`] means that nothing changed in any thread.
    ///
    /// # Safety
    /// See [`syscall6`].
    pub unsafe fn execute_with_report(&self) -> Result<Report, Error> {
        let mut report = Report::new();
        // SAFETY: the caller's promise is the one asked for here.
        let value =
            unsafe { engine::perform(&mut [self.call], &self.settings(), Some(&mut report)) };
        value.map_err(Error::of_a_single_call)?;
        Ok(report)
    }

    /// As [`execute_with_report`](Self::execute_with_report), for the value alone: no report is kept.
    ///
    /// # Errors
    /// Any [`Error`] means that nothing changed in any thread.
    ///
    /// # Safety
    /// See [`syscall6`].
    pub unsafe fn execute(&self) -> Result<usize, Error> {
        // SAFETY: the caller's promise is the one asked for here.
        let value = unsafe { engine::perform(&mut [self.call], &self.settings(), None) };
        value.map_err(Error::of_a_single_call)
    }

    fn settings(&self) -> Settings {
        Settings {
            deadline: self.deadline,
            sensitivity: self.sensitivity.unwrap_or_else(sensitivity),
            whole_or_dead: false,
            form: Form::default(),
        }
    }
}
