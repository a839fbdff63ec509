//! The untyped entry: one system call, performed by every thread of the process.

// # Safety
//
// The functions here pass a system call on. The `# Safety` section of each says what its caller must ensure.
#![allow(unsafe_code)]

use core::ffi::c_long;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;

use crate::engine::answers::AnswerLayout;
use crate::engine::call::{Call, ResultCheck};
use crate::engine::divergence::Sensitivity;
use crate::engine::{self, Settings};
use crate::error::Error;
use crate::report::Report;

/// The deadline, unless it is set.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

static SENSITIVITY: AtomicU8 = AtomicU8::new(Sensitivity::Error as u8);

/// Sets what happens from the next call on if the result of a thread differs from the caller's. The setting holds for
/// the whole process. The default is [`Sensitivity::Error`].
///
/// ```
/// use libpsx::{Sensitivity, sensitivity, set_sensitivity};
///
/// set_sensitivity(Sensitivity::Warning);
/// assert_eq!(sensitivity(), Sensitivity::Warning);
/// ```
pub fn set_sensitivity(level: Sensitivity) {
    // Relaxed: a setting on its own, with nothing published beside it.
    SENSITIVITY.store(level as u8, Ordering::Relaxed);
}

/// Returns the setting of [`set_sensitivity`].
pub fn sensitivity() -> Sensitivity {
    match SENSITIVITY.load(Ordering::Relaxed) {
        0 => Sensitivity::Ignore,
        1 => Sensitivity::Warning,
        _ => Sensitivity::Error,
    }
}

/// Performs a system call of up to three arguments on every thread of the process.
///
/// `nr` is one of `libc::SYS_*`. When every other thread is held, the calling thread performs the call. If the kernel
/// refuses it, no other thread attempts it. If it succeeds, every other thread performs it too before any thread runs
/// another user instruction. The value is what the call returned in the calling thread.
///
/// A call that only reads state needs no broadcast.
///
/// ```
/// // SAFETY: PR_SET_KEEPCAPS takes no pointer.
/// unsafe { libpsx::syscall3(libc::SYS_prctl, libc::PR_SET_KEEPCAPS as usize, 0, 0) }?;
/// # Ok::<(), libpsx::Error>(())
/// ```
///
/// # Errors
/// Any [`Error`] means that nothing has changed in any thread. [`Error::Call`] has the kernel's error number.
///
/// # Safety
/// See [`syscall6`].
pub unsafe fn syscall3(nr: c_long, a1: usize, a2: usize, a3: usize) -> Result<usize, Error> {
    // SAFETY: the caller's promise is the one asked for here.
    unsafe { syscall6(nr, a1, a2, a3, 0, 0, 0) }
}

/// Performs a system call of up to six arguments on every thread of the process; see [`syscall3`].
///
/// ```
/// // SAFETY: PR_SET_KEEPCAPS takes no pointer.
/// unsafe { libpsx::syscall6(libc::SYS_prctl, libc::PR_SET_KEEPCAPS as usize, 0, 0, 0, 0, 0) }?;
/// # Ok::<(), libpsx::Error>(())
/// ```
///
/// # Errors
/// Those of [`syscall3`].
///
/// # Safety
/// The call must be sound if *every* thread makes it with these arguments, at any point of its execution:
/// - The memory that its pointers point to stays valid, and is not changed by other code, until this function returns.
///   If the kernel writes through a pointer, each thread writes.
/// - A call that takes effect each time it is made (`nice`, `keyctl`, `close`, a seek) takes effect once for each
///   thread. Calls that end a thread, or that take away what it needs to go on, are refused.
/// - While the call runs, the other threads are held. A call that waits for one of them never returns.
/// - Other code of this process may rely on privilege or on resources that the call takes away.
/// - If an argument is a descriptor or a path, every thread must share its descriptor table, and its root and working
///   directory, with the calling thread. Otherwise the call acts on something else in that thread.
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
/// use libpsx::{Broadcast, ResultCheck, Sensitivity};
/// use std::time::Duration;
///
/// let keep_caps = Broadcast::new(libc::SYS_prctl, [libc::PR_SET_KEEPCAPS as usize, 1, 0, 0, 0, 0])
///     .deadline(Duration::from_secs(2))
///     .sensitivity(Sensitivity::Warning);
/// let keep_caps = keep_caps.result_check(ResultCheck::SameResult);
/// // SAFETY: PR_SET_KEEPCAPS takes no pointer and touches no memory.
/// let report = unsafe { keep_caps.execute_with_report() }?;
/// println!("{} threads keep their capabilities", report.threads());
/// # Ok::<(), libpsx::Error>(())
/// ```
#[derive(Clone, Copy)]
#[must_use = "a broadcast does nothing until it is executed"]
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

/// Formats a call as C would write it, for `Debug`.
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
    /// Describes the call `nr` (`libc::SYS_*`) with these arguments, a deadline of 10 seconds, the process-wide
    /// sensitivity, and [`ResultCheck::SameResult`].
    pub const fn new(nr: c_long, args: [usize; 6]) -> Self {
        Self::of(Call::new(nr as usize, args))
    }

    pub(crate) const fn of(call: Call) -> Self {
        Self { call, deadline: DEADLINE, sensitivity: None }
    }

    /// Sets how long to try to stop all threads. It does not cover the call itself.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the sensitivity for this call alone.
    pub const fn sensitivity(mut self, level: Sensitivity) -> Self {
        self.sensitivity = Some(level);
        self
    }

    /// Sets what counts as the same result in the other threads.
    pub const fn result_check(mut self, result_check: ResultCheck) -> Self {
        self.call.result_check = result_check;
        self
    }

    /// Performs the call on every thread as [`syscall3`] does, and returns a report.
    ///
    /// # Errors
    /// Any [`Error`] means that nothing has changed in any thread.
    ///
    /// # Safety
    /// See [`syscall6`].
    pub unsafe fn execute_with_report(&self) -> Result<Report, Error> {
        let mut report = Report::new();
        // SAFETY: the caller has promised it.
        let value =
            unsafe { engine::execute(&mut [self.call], &self.settings(), Some(&mut report)) };
        value.map_err(Error::from_single_call)?;
        Ok(report)
    }

    /// Performs the call on every thread, and returns what it returned in the calling thread.
    ///
    /// # Errors
    /// Any [`Error`] means that nothing has changed in any thread.
    ///
    /// # Safety
    /// See [`syscall6`].
    pub unsafe fn execute(&self) -> Result<usize, Error> {
        // SAFETY: the caller's promise is the one asked for here.
        let value = unsafe { engine::execute(&mut [self.call], &self.settings(), None) };
        value.map_err(Error::from_single_call)
    }

    fn settings(&self) -> Settings {
        Settings {
            deadline: self.deadline,
            sensitivity: self.sensitivity.unwrap_or_else(sensitivity),
            kill_on_partial_failure: false,
            layout: AnswerLayout::default(),
        }
    }
}
