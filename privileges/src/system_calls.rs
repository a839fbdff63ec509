//! Filters of system calls by name and group, as `SystemCallFilter=` of systemd.exec(5) writes them.
//!
//! ```
//! use privileges::bpf::{Action, Program, SeccompData};
//! use privileges::system_calls::SystemCallFilter;
//!
//! let mut filter = SystemCallFilter::new();
//! filter.add("@system-service")?;
//! filter.add("~@privileged:EPERM")?;
//! let program = filter.program()?;
//! let chroot = SeccompData::native(libc::SYS_chroot as u32, [0; 6]);
//! assert_eq!(Program::new(&program)?.evaluate(&chroot), Action::Errno(libc::EPERM as u16));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A filter returns its answer for a call, and this module lists the known names:
//!
//! ```
//! use privileges::system_calls::{
//!     Denial, ParseDenialError, ParseFilterError, SystemCallFilter, group, group_names, version,
//! };
//!
//! fn filter(text: &str) -> Result<SystemCallFilter, ParseFilterError> {
//!     let mut filter = SystemCallFilter::new();
//!     filter.add(text)?;
//!     Ok(filter)
//! }
//!
//! let mut filter = filter("~@mount")?;
//! assert!(!filter.is_empty());
//! assert_eq!(filter.denial_of(libc::SYS_mount as u32), Some(Denial::Kill));
//! let denial: Result<Denial, ParseDenialError> = "EPERM".parse();
//! filter.set_denial(denial?);
//! assert_eq!(filter.denial_of(libc::SYS_mount as u32), Some(Denial::Errno(1)));
//! assert_eq!(filter.denial_of(libc::SYS_read as u32), None);
//! println!("{} groups of {}", group_names().count(), version());
//! assert!(group("@mount").is_some_and(|members| members.contains("pivot_root")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The groups are those that `systemd-analyze syscall-filter` prints; [`version`] returns systemd's version. The
//! numbers of the calls are those of the kernel's headers for each CPU, as the crate `linux-raw-sys` has them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use libpsx::process::Instruction;

use crate::bpf;
use crate::unit::values::nearest;

/// The version, and the groups, one a line: `@name: member member`. scripts/systemd-tables writes it.
const GROUPS: &str = include_str!("system_calls/groups.txt");

/// The numbers of the calls. The second line names the columns. Each other line has the name of a call, and its number on
/// each CPU, or `-` if the CPU does not have the call. A name without any number is a member of a group.
/// scripts/systemd-tables writes it.
const NUMBERS: &str = include_str!("system_calls/numbers.txt");

/// The CPUs of [`NUMBERS`] that have a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// This CPU has the call with this number.
    Here(u32),
    /// Only other CPUs have the call.
    Elsewhere,
    /// None of the CPUs has the call. A CPU that the table does not have may have it.
    Nowhere,
}

/// Returns the system calls by name.
fn calls() -> &'static BTreeMap<&'static str, Call> {
    static CALLS: OnceLock<BTreeMap<&'static str, Call>> = OnceLock::new();
    CALLS.get_or_init(|| {
        let mut lines = NUMBERS.lines().filter(|line| !line.starts_with('#'));
        let columns = lines.next().unwrap_or_default();
        let column = columns.split(' ').position(|cpu| cpu == std::env::consts::ARCH);
        let call = |line: &'static str| {
            let here = column.and_then(|column| line.split(' ').nth(column)?.parse().ok());
            let mut words = line.split(' ');
            let name = words.next()?;
            let call = match here {
                Some(number) => Call::Here(number),
                None if words.all(|number| number == "-") => Call::Nowhere,
                None => Call::Elsewhere,
            };
            Some((name, call))
        };
        lines.filter_map(call).collect()
    })
}

/// Returns the call that does the same as others on some CPUs (32-bit x86, powerpc64, s390x): socketcall(2) or ipc(2).
fn multiplexer(name: &str) -> Option<&'static str> {
    match name {
        "socket" | "bind" | "connect" | "listen" | "accept" | "accept4" | "getsockname"
        | "getpeername" | "socketpair" | "send" | "sendto" | "sendmsg" | "sendmmsg" | "recv"
        | "recvfrom" | "recvmsg" | "recvmmsg" | "shutdown" | "setsockopt" | "getsockopt" => {
            Some("socketcall")
        }
        "semop" | "semget" | "semctl" | "semtimedop" | "msgsnd" | "msgrcv" | "msgget"
        | "msgctl" | "shmat" | "shmdt" | "shmget" | "shmctl" => Some("ipc"),
        _ => None,
    }
}

/// Returns the version of systemd whose groups these are: `systemd 257.9-1~deb13u1`.
pub fn version() -> &'static str {
    let first = GROUPS.lines().next().and_then(|line| line.strip_prefix("# "));
    first.and_then(|line| line.split(';').next()).unwrap_or_default()
}

/// The consequence of a call that a filter does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Denial {
    /// The kernel kills the process.
    #[default]
    Kill,
    /// The call fails with this error number.
    Errno(u16),
}

/// A filter of system calls, from which [`program`](Self::program) makes a program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemCallFilter {
    /// The kind of the list, or `None` if nothing was added.
    kind: Option<Kind>,
    /// The listed calls, with their denial. A denial of `None` is the default denial.
    listed: BTreeMap<u32, Verdict>,
    denial: Denial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A call that is not listed is denied.
    Allow,
    /// A call that is not listed is allowed.
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Denied(Option<Denial>),
}

/// The text is not a filter of system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseFilterError {
    word: String,
    why: String,
}

impl fmt::Display for ParseFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.word.is_empty() {
            f.write_str(&self.why)
        } else {
            write!(f, "{:?}: {}", self.word, self.why)
        }
    }
}

impl std::error::Error for ParseFilterError {}

impl ParseFilterError {
    fn new(word: &str, why: impl Into<String>) -> Self {
        Self { word: word.to_owned(), why: why.into() }
    }
}

impl SystemCallFilter {
    /// Returns a filter without any assignment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a filter that allows every call in the convention of this CPU.
    pub(crate) fn of_native_calls() -> Self {
        Self { kind: Some(Kind::Deny), ..Self::default() }
    }

    /// Adds one assignment: names of system calls and of groups with white space between them.
    ///
    /// The first one decides. If it begins with `~`, the filter denies what is listed, otherwise it allows nothing
    /// but what is listed and the group `@default`. A later assignment adds to the list, or takes away from it: after
    /// `~` calls are denied, otherwise they are allowed. After `~` a word may end with `:ERRNO` or `:kill`, which is
    /// how these calls are denied. A text without anything makes the filter as it was in the beginning; `~` alone adds
    /// nothing.
    ///
    /// A call that only another CPU has is left out. If a call is denied that socketcall(2) or ipc(2) can make too, then that
    /// one is denied as well, where the CPU has it. Name it in a later assignment to allow it.
    ///
    /// # Errors
    /// A word, or the text after its colon, is not known, or no CPU has the call. The filter has not changed.
    pub fn add(&mut self, assignment: &str) -> Result<(), ParseFilterError> {
        let assignment = assignment.trim();
        if assignment.is_empty() {
            let denial = self.denial;
            *self = Self { denial, ..Self::default() };
            return Ok(());
        }
        let (denies, words) = match assignment.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, assignment),
        };
        let mut next = self.clone();
        if next.kind.is_none() {
            next.kind = Some(if denies { Kind::Deny } else { Kind::Allow });
            if !denies {
                next.list("@default", Verdict::Allowed)?;
            }
        }
        for word in words.split_whitespace() {
            let (name, denial) = match word.split_once(':') {
                Some((name, denial)) => (
                    name,
                    Some(denial.parse().map_err(|why: ParseDenialError| {
                        ParseFilterError::new(word, why.to_string())
                    })?),
                ),
                None => (word, None),
            };
            if denial.is_some() && !denies {
                return Err(ParseFilterError::new(
                    word,
                    "an error number stands only in a list that begins with ~",
                ));
            }
            let verdict = if denies { Verdict::Denied(denial) } else { Verdict::Allowed };
            // A list must not silently deny less than it says, so a call that is in the table for no CPU is an error. A
            // group may have such a member.
            if !name.starts_with('@') && calls().get(name) == Some(&Call::Nowhere) {
                return Err(no_such_call(name));
            }
            next.list(name, verdict)?;
        }
        *self = next;
        Ok(())
    }

    /// Sets what is done with a call that is denied without an error number of its own, `SystemCallErrorNumber=`.
    pub fn set_denial(&mut self, denial: Denial) {
        self.denial = denial;
    }

    /// Returns whether nothing is denied, because nothing was added.
    pub fn is_empty(&self) -> bool {
        self.kind.is_none()
    }

    /// Returns what is done with a system call; `None` if it is allowed.
    pub fn denial_of(&self, number: u32) -> Option<Denial> {
        match (self.listed.get(&number), self.kind) {
            (Some(Verdict::Denied(denial)), _) => Some(denial.unwrap_or(self.denial)),
            (None, Some(Kind::Allow)) => Some(self.denial),
            (Some(Verdict::Allowed), _) | (None, _) => None,
        }
    }

    fn list(&mut self, name: &str, verdict: Verdict) -> Result<(), ParseFilterError> {
        if name.starts_with('@') {
            let members = group(name).ok_or_else(|| {
                let near = nearest(name, groups().map(|(name, _)| name));
                ParseFilterError::new(name, format!("no such group{}", hint(near)))
            })?;
            // A group holds groups, and the file has no group that holds itself.
            return members.split_whitespace().try_for_each(|member| self.list(member, verdict));
        }
        let denied = matches!(verdict, Verdict::Denied(_)).then(|| multiplexer(name)).flatten();
        if let Some(Call::Here(number)) = denied.and_then(|other| calls().get(other)) {
            self.listed.insert(*number, verdict);
        }
        match calls().get(name) {
            Some(Call::Here(number)) => {
                self.listed.insert(*number, verdict);
                Ok(())
            }
            Some(Call::Elsewhere | Call::Nowhere) => Ok(()),
            // The call may be too new for the table.
            None => Err(no_such_call(name)),
        }
    }

    /// Makes the program that the kernel runs.
    ///
    /// A call in another convention than that of this CPU (a 32-bit call, or one of x32) kills the process.
    ///
    /// # Errors
    /// Nothing was added; or the convention of this CPU is not known here.
    pub fn program(&self) -> Result<Vec<Instruction>, ParseFilterError> {
        let native = bpf::NATIVE.ok_or_else(|| {
            ParseFilterError::new("", "the system calls of this CPU are not known here")
        })?;
        let kind = self
            .kind
            .ok_or_else(|| ParseFilterError::new("", "the filter lists no system call"))?;
        let value = |denial: Option<Denial>| match denial {
            None => ALLOW,
            Some(Denial::Kill) => KILL_PROCESS,
            Some(Denial::Errno(number)) => ERRNO | u32::from(number.min(MOST_ERRNO)),
        };
        let otherwise = value(if kind == Kind::Allow { Some(self.denial) } else { None });
        let step = |code, jt, jf, k| Instruction { code, jt, jf, k };
        let mut program = vec![
            step(LOAD, 0, 0, ARCHITECTURE),
            step(JUMP_EQUAL, 1, 0, native),
            step(RETURN, 0, 0, KILL_PROCESS),
            step(LOAD, 0, 0, NUMBER),
        ];
        if cfg!(target_arch = "x86_64") {
            // The number -1 is not a call of x32: a tracer has cancelled the call.
            program.extend([
                step(JUMP_GREATER_OR_EQUAL, 0, 2, X32),
                step(JUMP_EQUAL, 1, 0, u32::MAX),
                step(RETURN, 0, 0, KILL_PROCESS),
            ]);
        }
        for &number in self.listed.keys() {
            let value = value(self.denial_of(number));
            if value != otherwise {
                program.extend([step(JUMP_EQUAL, 0, 1, number), step(RETURN, 0, 0, value)]);
            }
        }
        program.push(step(RETURN, 0, 0, otherwise));
        Ok(program)
    }
}

// Instructions of classic BPF (linux/bpf_common.h), the values that a filter returns (linux/seccomp.h), and the offsets
// that it reads (struct seccomp_data).
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const MOST_ERRNO: u16 = 4095;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;

/// The text is not the name of an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither the name of an error, nor a number from 0 to 4095, nor \"kill\"")]
pub struct ParseDenialError(String);

impl std::str::FromStr for Denial {
    type Err = ParseDenialError;

    /// Parses `kill`, the name of an error such as `EPERM`, or a number.
    fn from_str(text: &str) -> Result<Self, ParseDenialError> {
        if text == "kill" {
            return Ok(Self::Kill);
        }
        let named = || {
            let called = |number: &u16| {
                format!("{:?}", nix::errno::Errno::from_raw(i32::from(*number))) == text
            };
            text.starts_with('E').then(|| (1..=MOST_ERRNO).find(called)).flatten()
        };
        let number = text.parse::<u16>().ok().filter(|number| *number <= MOST_ERRNO).or_else(named);
        number.map(Self::Errno).ok_or_else(|| ParseDenialError(text.to_owned()))
    }
}

fn no_such_call(name: &str) -> ParseFilterError {
    let known = calls().iter().filter(|(_, call)| **call != Call::Nowhere).map(|(name, _)| name);
    ParseFilterError::new(name, format!("no such system call{}", hint(nearest(name, known))))
}

fn hint(near: Option<String>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// Returns the names of the groups, each with its members.
fn groups() -> impl Iterator<Item = (&'static str, &'static str)> {
    GROUPS.lines().filter_map(|line| line.split_once(": "))
}

/// Returns the names of the groups.
pub fn group_names() -> impl Iterator<Item = &'static str> {
    groups().map(|(name, _)| name)
}

/// Returns the members of a group with spaces between them: names of system calls, and of groups.
pub fn group(name: &str) -> Option<&'static str> {
    groups().find(|(other, _)| *other == name).map(|(_, members)| members)
}
