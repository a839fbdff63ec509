//! The identity of each thread, as the kernel tells it when the thread asks.

use core::fmt;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::capabilities::VERSION_3;
use super::{Capability, CapabilitySet, CapabilitySets, Securebits};
use crate::engine::answers::Form;
use crate::engine::call::{Call, ResultCheck};
use crate::errno::Errno;
use crate::error::Error;
use crate::report::Report;
use crate::transaction::{Asked, Transaction};

/// Real, effective and saved id, and the one that counts for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ids {
    /// The real one.
    pub real: u32,
    /// The effective one.
    pub effective: u32,
    /// The saved one.
    pub saved: u32,
    /// The file system's.
    pub filesystem: u32,
}

/// What one thread said of itself: getresuid(2), getresgid(2), getgroups(2), capget(2), prctl(2). None stands
/// for what the kernel, or a filter, did not tell, and for a thread that was not asked because an earlier call
/// of the transaction had another result there.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    tid: i32,
    values: &'a [isize],
    bytes: &'a [u8],
}

/// Values of the single calls, in this order, and then those of the bounding and of the ambient set.
#[derive(Clone, Copy)]
enum Question {
    Users,
    Groups,
    Supplementary,
    Capabilities,
    FilesUser,
    FilesGroup,
    NoNewPrivs,
    Securebits,
}

const SINGLE: usize = 8;
const NUMBERS: usize = 64;
/// How many calls it takes to ask a thread.
pub(crate) const QUESTIONS: usize = SINGLE + 2 * NUMBERS;

/// Where the answers lie that are written to memory, in bytes.
const USERS: usize = 0;
const GROUPS: usize = 12;
const SETS: usize = 24;
const SUPPLEMENTARY: usize = 48;

/// capget(2) reads it, and leaves a version that it knows as it is.
static HEADER: [u32; 2] = [VERSION_3, 0];

impl Transaction<'_> {
    /// Asks each thread for its identity, after it has performed the calls before this: [`Report::identities`] has the
    /// [`Identity`] of each. Of at most `groups` supplementary groups the numbers are told.
    ///
    /// Each thread is asked once in a transaction. If this is called several times, the last time counts.
    ///
    /// ```
    /// use libpsx::Transaction;
    /// use libpsx::process::set_no_new_privs;
    ///
    /// let report = Transaction::new().with(set_no_new_privs()).query_identities(16).execute_with_report()?;
    /// assert!(report.identities().all(|thread| thread.no_new_privs()));
    /// # Ok::<(), libpsx::TransactionError>(())
    /// ```
    pub fn query_identities(self, groups: usize) -> Self {
        // No thread has more, getgroups(2); and a larger number would not be the kernel's any more.
        const NGROUPS_MAX: usize = 65536;
        self.asking(groups.min(NGROUPS_MAX))
    }
}

impl Asked {
    /// How many calls, from the first of all, have a value that is kept, and how many bytes they write.
    pub(crate) fn form(self) -> Form {
        let calls = self.at.saturating_add(QUESTIONS);
        Form { calls, bytes: SUPPLEMENTARY.saturating_add(self.groups.saturating_mul(4)) }
    }
}

impl Report {
    /// What each thread, the calling one first, said of itself when it was asked:
    /// [`Transaction::query_identities`]. Empty if no thread was asked.
    pub fn identities(&self) -> impl Iterator<Item = Identity<'_>> {
        self.answers().map(|(tid, values, bytes)| Identity { tid, values, bytes })
    }
}

/// Question number `number` of [`QUESTIONS`].
pub(crate) fn question(number: usize, groups: usize) -> Call {
    let prctl = |option: u32, rest: [usize; 2]| {
        (k::__NR_prctl, [option as usize, rest[0], rest[1], 0, 0, 0], 0)
    };
    let unchanged = u32::MAX as usize;
    let (nr, args, own) = match number {
        0 => (k::__NR_getresuid, [USERS, USERS + 4, USERS + 8, 0, 0, 0], 0b111),
        1 => (k::__NR_getresgid, [GROUPS, GROUPS + 4, GROUPS + 8, 0, 0, 0], 0b111),
        2 => (k::__NR_getgroups, [groups, SUPPLEMENTARY, 0, 0, 0, 0], 0b10),
        3 => (k::__NR_capget, [HEADER.as_ptr() as usize, SETS, 0, 0, 0, 0], 0b10),
        4 => (k::__NR_setfsuid, [unchanged, 0, 0, 0, 0, 0], 0),
        5 => (k::__NR_setfsgid, [unchanged, 0, 0, 0, 0, 0], 0),
        6 => prctl(p::PR_GET_NO_NEW_PRIVS, [0, 0]),
        7 => prctl(p::PR_GET_SECUREBITS, [0, 0]),
        bounding if bounding < SINGLE + NUMBERS => {
            prctl(p::PR_CAPBSET_READ, [bounding - SINGLE, 0])
        }
        ambient => {
            let number = ambient - SINGLE - NUMBERS;
            prctl(p::PR_CAP_AMBIENT, [p::PR_CAP_AMBIENT_IS_SET as usize, number])
        }
    };
    let call = Call::new(nr as usize, args);
    Call { own, asks: true, result_check: ResultCheck::AnyResult, ..call }
}

impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Groups<'a>(&'a Identity<'a>);
        impl fmt::Debug for Groups<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0.groups() {
                    Some(groups) => f.debug_list().entries(groups).finish(),
                    None => f.write_str("None"),
                }
            }
        }
        f.debug_struct("Identity")
            .field("tid", &self.tid)
            .field("uids", &self.uids())
            .field("gids", &self.gids())
            .field("groups", &Groups(self))
            .field("capabilities", &self.capabilities())
            .field("bounding", &self.bounding())
            .field("ambient", &self.ambient())
            .field("no_new_privs", &self.no_new_privs())
            .field("securebits", &self.securebits())
            .finish()
    }
}

impl Identity<'_> {
    /// The thread, gettid(2).
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Its user ids.
    pub fn uids(&self) -> Option<Ids> {
        self.ids(Question::Users, USERS, Question::FilesUser)
    }

    /// Its group ids.
    pub fn gids(&self) -> Option<Ids> {
        self.ids(Question::Groups, GROUPS, Question::FilesGroup)
    }

    /// Its supplementary groups; None also if they are more than there was room for.
    pub fn groups(&self) -> Option<impl Iterator<Item = u32>> {
        let count = usize::try_from(self.value(Question::Supplementary)?).ok()?;
        let known = count <= self.bytes.len().saturating_sub(SUPPLEMENTARY) / 4;
        known.then(|| (0..count).filter_map(|n| self.word(SUPPLEMENTARY + 4 * n)))
    }

    /// Its effective, permitted and inheritable capabilities.
    pub fn capabilities(&self) -> Option<CapabilitySets> {
        if self.value(Question::Capabilities)? != 0 {
            return None;
        }
        let set = |first| {
            let low = u64::from(self.word(SETS + first)?);
            Some(CapabilitySet::from_bits(low | u64::from(self.word(SETS + first + 12)?) << 32))
        };
        Some(CapabilitySets { effective: set(0)?, permitted: set(4)?, inheritable: set(8)? })
    }

    /// Its bounding set.
    pub fn bounding(&self) -> Option<CapabilitySet> {
        self.set(SINGLE)
    }

    /// Its ambient set.
    pub fn ambient(&self) -> Option<CapabilitySet> {
        self.set(SINGLE + NUMBERS)
    }

    /// Whether execve(2) gives it no privilege.
    pub fn no_new_privs(&self) -> bool {
        self.value(Question::NoNewPrivs) == Some(1)
    }

    /// Its securebits.
    pub fn securebits(&self) -> Option<Securebits> {
        let bits = u32::try_from(self.value(Question::Securebits)?).ok()?;
        Some(Securebits::from_bits(bits))
    }

    fn value(&self, question: Question) -> Option<isize> {
        self.values.get(question as usize).copied()
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    }

    fn ids(&self, question: Question, at: usize, filesystem: Question) -> Option<Ids> {
        if self.value(question)? != 0 {
            return None;
        }
        Some(Ids {
            real: self.word(at)?,
            effective: self.word(at + 4)?,
            saved: self.word(at + 8)?,
            // The one before is its value, which is no error.
            filesystem: u32::try_from(self.value(filesystem)?).ok()?,
        })
    }

    fn set(&self, first: usize) -> Option<CapabilitySet> {
        let mut set = CapabilitySet::EMPTY;
        for number in 0..NUMBERS {
            match *self.values.get(first + number)? {
                1 => set |= Capability::new(number as u8)?.into(),
                0 => {}
                // The kernel does not know it; or else it did not tell.
                other => Errno::check(other).is_err_and(|e| e == Errno::INVAL).then_some(())?,
            }
        }
        Some(set)
    }
}

/// Asks every thread for its identity. Of at most `groups` supplementary groups the numbers are told. It changes nothing.
/// [`Report::identities`] has the answers.
///
/// ```
/// let report = libpsx::process::identities(16)?;
/// for thread in report.identities() {
///     println!("{}: {:?}", thread.tid(), thread.uids());
/// }
/// # Ok::<(), libpsx::Error>(())
/// ```
///
/// # Errors
/// As [`Broadcast::execute_with_report`](crate::Broadcast::execute_with_report).
pub fn identities(groups: usize) -> Result<Report, Error> {
    // A question that fails is an answer, so the transaction is never partial.
    Transaction::new()
        .query_identities(groups)
        .execute_with_report()
        .map_err(Error::of_a_single_call)
}
