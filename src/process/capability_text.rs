//! Capabilities as text: names, and the form of cap_from_text(3) both ways. What is a text, and what it means, is
//! what libcap says, but for a capability that the running kernel does not know: beside `all` libcap forgets it.
#![forbid(unsafe_code)]

use core::fmt;
use core::str::FromStr;

use super::{Capability, CapabilitySet, CapabilitySets};

/// The names, without `cap_`, as include/uapi/linux/capability.h numbers them.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

impl fmt::Display for Capability {
    /// `cap_chown`; a number where there is no name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.number())) {
            Some(name) => write!(f, "cap_{name}"),
            None => write!(f, "{}", self.number()),
        }
    }
}

impl fmt::Debug for Capability {
    /// As [`Display`](fmt::Display) has it, but `Capability(63)` where there is no name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.number())) {
            Some(name) => write!(f, "cap_{name}"),
            None => write!(f, "Capability({})", self.number()),
        }
    }
}

impl FromStr for Capability {
    type Err = ParseCapabilitiesError;

    /// `cap_chown`, in any case, or a number as C writes it: `5`, `0x5`, `05`.
    fn from_str(text: &str) -> Result<Self, ParseCapabilitiesError> {
        let bare = match text.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("cap_") => text.get(4..).unwrap_or(""),
            _ => {
                return number(text)
                    .and_then(Self::new)
                    .ok_or(ParseCapabilitiesError::UnknownCapability);
            }
        };
        let known = NAMES.iter().position(|name| name.eq_ignore_ascii_case(bare));
        known
            .and_then(|number| Self::new(number as u8))
            .ok_or(ParseCapabilitiesError::UnknownCapability)
    }
}

/// strtoul(3) with base 0, without what that allows before the digits.
fn number(text: &str) -> Option<u8> {
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    let unsigned = digits.starts_with(|c: char| c.is_digit(base));
    unsigned.then(|| u8::from_str_radix(digits, base).ok()).flatten()
}

impl fmt::Display for CapabilitySet {
    /// The names, with commas between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, capability) in self.iter().enumerate() {
            write!(f, "{}{capability}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for CapabilitySet {
    type Err = ParseCapabilitiesError;

    /// Names or numbers with commas between them, or `all`, which are the capabilities that the running kernel knows;
    /// nothing is the empty set.
    fn from_str(text: &str) -> Result<Self, ParseCapabilitiesError> {
        if text.is_empty() { Ok(Self::EMPTY) } else { listed(text) }
    }
}

const E: u8 = 1;
const I: u8 = 2;
const P: u8 = 4;

/// Not the text of capabilities, cap_from_text(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseCapabilitiesError {
    /// No capability has this name or number.
    UnknownCapability,
    /// A clause has no operator of `=`, `+` and `-`.
    MissingOperator,
    /// A clause that names no capability has an operator other than one `=`.
    MissingNames,
    /// Something else than the flags `e`, `i` and `p`, or none of them after `+` or `-`.
    InvalidFlag,
    /// Not the external form of cap_copy_ext(3).
    InvalidExternal,
}

impl fmt::Display for ParseCapabilitiesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownCapability => "no capability has this name or number",
            Self::MissingOperator => "a clause needs one of =, + and - after the names",
            Self::MissingNames => "a clause without names has one =",
            Self::InvalidExternal => "not the external form of capabilities",
            Self::InvalidFlag => "the flags are e, i and p, and + and - have at least one",
        })
    }
}

impl core::error::Error for ParseCapabilitiesError {}

impl FromStr for CapabilitySets {
    type Err = ParseCapabilitiesError;

    /// The form of cap_from_text(3): `cap_chown,cap_kill=ep cap_kill-e`, `=`, `all=p`. `all` and the
    /// empty name are the capabilities that the running kernel knows.
    fn from_str(text: &str) -> Result<Self, ParseCapabilitiesError> {
        let mut sets = Self::EMPTY;
        // isspace(3) in the C locale.
        let space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
        for clause in text.split(space).filter(|clause| !clause.is_empty()) {
            sets.apply(clause)?;
        }
        Ok(sets)
    }
}

impl CapabilitySets {
    fn flags(&self, capability: Capability) -> u8 {
        let has = |set: CapabilitySet, flag| if set.contains(capability) { flag } else { 0 };
        has(self.effective, E) | has(self.inheritable, I) | has(self.permitted, P)
    }

    fn change(&mut self, set: CapabilitySet, flags: u8, raise: bool) {
        for (flag, target) in
            [(E, &mut self.effective), (I, &mut self.inheritable), (P, &mut self.permitted)]
        {
            if flags & flag != 0 {
                *target = if raise { *target | set } else { *target - set };
            }
        }
    }

    /// Names and `=` with flags or none, or `+` or `-` with flags; then more of the latter two. Without names
    /// `=` is all.
    fn apply(&mut self, clause: &str) -> Result<(), ParseCapabilitiesError> {
        let operator = |c: char| matches!(c, '=' | '+' | '-');
        let first = clause.find(operator).ok_or(ParseCapabilitiesError::MissingOperator)?;
        let (names, mut rest) = clause.split_at_checked(first).unwrap_or_default();
        let set = if names.is_empty() { CapabilitySet::all() } else { listed(names)? };
        if let Some(after) = rest.strip_prefix('=') {
            self.change(set, E | I | P, false);
            let (flags, more) = flags(after)?;
            self.change(set, flags, true);
            rest = more;
        }
        if names.is_empty() && !rest.is_empty() {
            return Err(ParseCapabilitiesError::MissingNames);
        }
        while let Some((action, after)) = rest.split_at_checked(1) {
            let (flags, more) = flags(after)?;
            if flags == 0 {
                return Err(ParseCapabilitiesError::InvalidFlag);
            }
            self.change(set, flags, action == "+");
            rest = more;
        }
        Ok(())
    }
}

/// Names or numbers with commas between them, or `all`.
fn listed(names: &str) -> Result<CapabilitySet, ParseCapabilitiesError> {
    names.split(',').try_fold(CapabilitySet::EMPTY, |set, name| {
        let all = name.eq_ignore_ascii_case("all");
        Ok(set | if all { CapabilitySet::all() } else { name.parse::<Capability>()?.into() })
    })
}

/// The flags before the next `+` or `-`, and the text from there.
fn flags(text: &str) -> Result<(u8, &str), ParseCapabilitiesError> {
    let end = text.find(['+', '-']).unwrap_or(text.len());
    let (letters, rest) = text.split_at_checked(end).unwrap_or_default();
    let flags = letters.bytes().try_fold(0, |flags, letter| match letter {
        b'e' => Ok(flags | E),
        b'i' => Ok(flags | I),
        b'p' => Ok(flags | P),
        _ => Err(ParseCapabilitiesError::InvalidFlag),
    })?;
    Ok((flags, rest))
}

impl fmt::Display for CapabilitySets {
    /// A text that [`str::parse`] takes back: what most capabilities have first, then a clause for
    /// each other combination of flags.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = CapabilitySet::all();
        let with = |flags: u8| {
            (0..64).filter_map(Capability::new).filter(move |&one| self.flags(one) == flags)
        };
        let among_all = |&flags: &u8| with(flags).filter(|&one| all.contains(one)).count();
        // The most frequent; of equals the one with the fewest flags.
        let base = (0..8).rev().max_by_key(among_all).unwrap_or(0);
        let letters = |f: &mut fmt::Formatter<'_>, flags: u8| {
            for (flag, letter) in [(E, "e"), (I, "i"), (P, "p")] {
                if flags & flag != 0 {
                    f.write_str(letter)?;
                }
            }
            Ok(())
        };
        f.write_str("=")?;
        letters(f, base)?;
        for flags in 0..8 {
            // What the kernel does not know has nothing from the first clause.
            let clause = |&one: &Capability| flags != if all.contains(one) { base } else { 0 };
            for (index, capability) in with(flags).filter(clause).enumerate() {
                write!(f, "{}{capability}", if index == 0 { " " } else { "," })?;
            }
            if with(flags).any(|one| clause(&one)) {
                f.write_str("=")?;
                letters(f, flags)?;
            }
        }
        Ok(())
    }
}
