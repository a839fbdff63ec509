//! Identities: the credentials that the kernel returns when a thread asks for its own.

use core::fmt;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::capabilities::VERSION_3;
use super::{Capability, CapabilitySet, CapabilitySets, Securebits};
use crate::engine::answers::AnswerLayout;
use crate::engine::call::{Call, ResultCheck};
use crate::errno::Errno;
use crate::error::Error;
use crate::report::Report;
use crate::sys::arch;
use crate::transaction::{IdentityQuery, Transaction};

/// The four user IDs, or the four group IDs, of a thread (credentials(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ids {
    /// The real ID.
    pub real: u32,
    /// The effective ID.
    pub effective: u32,
    /// The saved set-ID.
    pub saved: u32,
    /// The ID for file access (setfsuid(2)).
    pub filesystem: u32,
}

/// The answers of one thread to getresuid(2), getresgid(2), getgroups(2), capget(2) and prctl(2). A value is None if the
/// kernel or a filter refused the call, or if the thread was not asked because the result of an earlier call of the
/// transaction differed in it.
///
/// ```
/// use libpsx::process::{Identity, Ids, identities};
///
/// let report = identities(16)?;
/// let root: Vec<i32> = report.identities().filter(is_root).map(|thread| thread.tid()).collect();
/// println!("threads that are root: {root:?}");
///
/// fn is_root(thread: &Identity) -> bool {
///     let is_zero = |ids: Ids| [ids.real, ids.effective, ids.saved, ids.filesystem].contains(&0);
///     thread.uids().is_none_or(is_zero)
///         || thread.gids().is_none_or(is_zero)
///         || thread.groups().is_none_or(|mut groups| groups.any(|group| group == 0))
///         || thread.capabilities().is_none_or(|sets| !sets.permitted.is_empty())
///         || thread.bounding().is_none() || thread.ambient().is_none() || thread.securebits().is_none()
/// }
/// # Ok::<(), libpsx::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    tid: i32,
    values: &'a [isize],
    bytes: &'a [u8],
}

/// The order of the values: those of the single calls, then those of the bounding and of the ambient set.
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
/// The number of calls that it takes to ask a thread.
pub(crate) const QUESTIONS: usize = SINGLE + 2 * NUMBERS;

/// The places of the answers that are written to memory, in bytes.
const USERS: usize = 0;
const GROUPS: usize = 12;
const SETS: usize = 24;
const SUPPLEMENTARY: usize = 48;

/// capget(2) reads it, and leaves a version that it knows as it is.
static HEADER: [u32; 2] = [VERSION_3, 0];

impl Transaction<'_> {
    /// Asks each thread for its identity, after it has performed the calls that were appended before.
    /// [`Report::identities`] returns the answers. There is room for `groups` supplementary groups.
    ///
    /// Each thread is asked once in a transaction. If this function is called several times, the last time counts.
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
        // No thread has more groups (getgroups(2)), and the kernel takes an int.
        const NGROUPS_MAX: usize = 65536;
        self.with_identity_query(groups.min(NGROUPS_MAX))
    }
}

impl IdentityQuery {
    /// Returns how many calls, counted from the first of all, have a value that is kept, and how many bytes they write.
    pub(crate) fn layout(self) -> AnswerLayout {
        let calls = self.at.saturating_add(QUESTIONS);
        AnswerLayout { calls, bytes: SUPPLEMENTARY.saturating_add(self.groups.saturating_mul(4)) }
    }
}

impl Report {
    /// Returns the identity of each thread, the calling thread first ([`Transaction::query_identities`]). There is none if
    /// no thread was asked.
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
    let (nr, args, slot_offsets) = match number {
        0 => (arch::GETRESUID, [USERS, USERS + 4, USERS + 8, 0, 0, 0], 0b111),
        1 => (arch::GETRESGID, [GROUPS, GROUPS + 4, GROUPS + 8, 0, 0, 0], 0b111),
        2 => (arch::GETGROUPS, [groups, SUPPLEMENTARY, 0, 0, 0, 0], 0b10),
        3 => (k::__NR_capget, [HEADER.as_ptr() as usize, SETS, 0, 0, 0, 0], 0b10),
        4 => (arch::SETFSUID, [unchanged, 0, 0, 0, 0, 0], 0),
        5 => (arch::SETFSGID, [unchanged, 0, 0, 0, 0, 0], 0),
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
    Call { slot_offsets, is_query: true, result_check: ResultCheck::AnyResult, ..call }
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
    /// Returns the id of the thread (gettid(2)).
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Returns its user IDs.
    pub fn uids(&self) -> Option<Ids> {
        self.ids(Question::Users, USERS, Question::FilesUser)
    }

    /// Returns its group IDs.
    pub fn gids(&self) -> Option<Ids> {
        self.ids(Question::Groups, GROUPS, Question::FilesGroup)
    }

    /// Returns its supplementary groups, or None also if there was not enough room for them.
    pub fn groups(&self) -> Option<impl Iterator<Item = u32>> {
        let count = usize::try_from(self.value(Question::Supplementary)?).ok()?;
        let known = count <= self.bytes.len().saturating_sub(SUPPLEMENTARY) / 4;
        known.then(|| (0..count).filter_map(|n| self.word(SUPPLEMENTARY + 4 * n)))
    }

    /// Returns its effective, permitted and inheritable capabilities.
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

    /// Returns its bounding set.
    pub fn bounding(&self) -> Option<CapabilitySet> {
        self.set(SINGLE)
    }

    /// Returns its ambient set.
    pub fn ambient(&self) -> Option<CapabilitySet> {
        self.set(SINGLE + NUMBERS)
    }

    /// Returns whether no_new_privs is set. False also stands for "not known".
    pub fn no_new_privs(&self) -> bool {
        self.value(Question::NoNewPrivs) == Some(1)
    }

    /// Returns its securebits.
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
            // The call before it returned the number of groups.
            filesystem: Errno::check(self.value(filesystem)?).ok()?.try_into().ok()?,
        })
    }

    fn set(&self, first: usize) -> Option<CapabilitySet> {
        let mut set = CapabilitySet::EMPTY;
        for number in 0..NUMBERS {
            match *self.values.get(first + number)? {
                1 => set |= Capability::new(number as u8)?.into(),
                0 => {}
                // EINVAL: the kernel does not know the capability. Another error: the set is not known.
                other => Errno::check(other).is_err_and(|e| e == Errno::INVAL).then_some(())?,
            }
        }
        Some(set)
    }
}

/// Asks every thread for its identity, and changes nothing. There is room for `groups` supplementary groups.
/// [`Report::identities`] returns the answers.
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
/// Those of [`Broadcast::execute_with_report`](crate::Broadcast::execute_with_report).
pub fn identities(groups: usize) -> Result<Report, Error> {
    // A question that fails is an answer, so the transaction is never partial.
    Transaction::new()
        .query_identities(groups)
        .execute_with_report()
        .map_err(Error::from_single_call)
}
