//! An operation: one typed call, with the memory that its arguments point to.

// # Safety
//
// Every thread may perform the call of an operation. The functions of `process` ensure this for every argument;
// for other calls the caller of `Transaction::with_call` promises it. The memory that arguments point to is in the
// operation itself, or is borrowed by it.
#![allow(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use crate::broadcast::{Broadcast, Named};
use crate::engine::call::{Call, ResultCheck, Shares};
use crate::error::Error;
use crate::report::Report;

/// One typed call that has not been performed yet. The functions of this module make it.
///
/// ```
/// use libpsx::process::{Operation, set_no_new_privs};
///
/// let operation: Operation = set_no_new_privs();
/// operation.execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
#[derive(Clone, Copy)]
#[must_use = "an operation does nothing until it is performed"]
pub struct Operation<'a> {
    call: Call,
    /// What arguments point to that is not borrowed.
    words: [u64; WORDS],
    /// For each argument that points there: the number of the word, counted from 1.
    points: [u8; 6],
    borrows: PhantomData<&'a [u8]>,
}

const WORDS: usize = 7;

impl fmt::Debug for Operation<'_> {
    /// As C would write it: `setresuid(0xfffe, 0xfffe, 0xfffe, 0x0, 0x0, 0x0)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Named(&self.call()), f)
    }
}

impl Operation<'_> {
    pub(crate) const NOTHING: Self = Self::of(Call::new(0, [0; 6]));

    pub(crate) const fn of(call: Call) -> Self {
        Self { call, words: [0; WORDS], points: [0; 6], borrows: PhantomData }
    }

    pub(crate) const fn new(nr: u32, args: [usize; 6]) -> Self {
        Self::of(Call::new(nr as usize, args))
    }

    pub(crate) const fn result_check(mut self, result_check: ResultCheck) -> Self {
        self.call.result_check = result_check;
        self
    }

    /// The call must return this value. If it returns another one in the calling thread, the process is killed.
    pub(crate) const fn returning(mut self, value: isize) -> Self {
        self.call.required = Some(value);
        self
    }

    /// The call is made only if every thread shares this with the caller.
    pub(crate) const fn sharing(mut self, shares: Shares) -> Self {
        self.call.shares = shares;
        self
    }

    /// The call changes the root or working directory and nothing else.
    pub(crate) const fn setting_directory(mut self) -> Self {
        self.call.sets_directory = true;
        self
    }

    /// Has arguments point to these words: `points` says for each argument which, counted from 1.
    pub(crate) const fn with(mut self, words: [u64; WORDS], points: [u8; 6]) -> Self {
        self.words = words;
        self.points = points;
        self
    }

    /// Performs the call on every thread. Returns what it returned in the calling thread.
    ///
    /// # Errors
    /// Any [`Error`] means that nothing has changed in any thread. [`Error::Call`] has the kernel's error number.
    pub fn execute(&self) -> Result<usize, Error> {
        // SAFETY: promised by its maker.
        unsafe { self.broadcast().execute() }
    }

    /// Performs the call as [`execute`](Self::execute) does, and returns a report.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute).
    pub fn execute_with_report(&self) -> Result<Report, Error> {
        // SAFETY: promised by its maker.
        unsafe { self.broadcast().execute_with_report() }
    }

    fn broadcast(&self) -> Broadcast {
        Broadcast::of(self.call())
    }

    /// The call, with its arguments pointing to where `self` lies now.
    pub(crate) fn call(&self) -> Call {
        let mut call = self.call;
        for (arg, &point) in call.args.iter_mut().zip(&self.points) {
            let word = usize::from(point).checked_sub(1).and_then(|number| self.words.get(number));
            if let Some(word) = word {
                *arg = ptr::from_ref(word) as usize;
            }
        }
        call
    }
}

/// Writes flags by their names, and what has no name as a number: `Flags(A | B | 0x80)`.
pub(crate) fn debug_flags(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    bits: u32,
    names: &[(u32, &str)],
) -> fmt::Result {
    let known = names.iter().fold(0, |known, &(bit, _)| known | bit);
    let set = names.iter().filter(|(bit, _)| bits & bit != 0);
    write!(f, "{kind}(")?;
    let mut separator = "";
    for (_, name) in set {
        write!(f, "{separator}{name}")?;
        separator = " | ";
    }
    match bits & !known {
        0 if bits == 0 => f.write_str("EMPTY")?,
        0 => {}
        rest => write!(f, "{separator}{rest:#x}")?,
    }
    f.write_str(")")
}

/// Two halves of a word, as they lie in memory.
pub(crate) const fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}
