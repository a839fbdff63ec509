//! The formats of /proc, proc(5), and of getdents64(2).

use core::ffi::CStr;

use crate::errno::Errno;

/// The parts of /proc/PID/stat that matter (proc_pid_stat(5)).
pub(super) struct Stat<'b> {
    pub(super) name: &'b [u8],
    pub(super) state: u8,
    pub(super) flags: u32,
    pub(super) start: usize,
}

impl<'b> Stat<'b> {
    pub(super) fn parse(bytes: &'b [u8]) -> Option<Self> {
        // The name may hold anything, parentheses and newlines too.
        let open = bytes.iter().position(|&b| b == b'(')?;
        let close = bytes.iter().rposition(|&b| b == b')')?;
        let name = bytes.get(open.checked_add(1)?..close)?;
        let mut fields = bytes.get(close.checked_add(2)?..)?.split(|&b| b == b' ');
        let state = *fields.next()?.first()?;
        // `state` is field 3, `flags` is field 9, `starttime` field 22.
        let flags = parse(fields.nth(5)?)?;
        // A word is enough to tell two tasks apart.
        let start = parse::<u64>(fields.nth(12)?)? as usize;
        Some(Self { name, state, flags, start })
    }

    pub(super) fn exiting(&self) -> bool {
        const PF_EXITING: u32 = 0x4;
        matches!(self.state, b'Z' | b'X') || self.flags & PF_EXITING != 0
    }
}

/// Takes one record off what getdents64(2) filled in: a name that is a number, or none.
pub(super) fn next_record(records: &[u8]) -> Option<(Option<i32>, &[u8])> {
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let length = u16::from_ne_bytes([*records.get(LENGTH)?, *records.get(LENGTH + 1)?]);
    let (record, rest) = records.split_at_checked(usize::from(length))?;
    let name = record.get(NAME..)?.split(|&b| b == 0).next()?;
    Some((parse(name), rest))
}

/// The value of a line of /proc/PID/status that has this key, without white space around it.
pub(super) fn value<'b>(line: &'b [u8], key: &[u8]) -> Option<&'b [u8]> {
    Some(line.strip_prefix(key)?.trim_ascii())
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

pub(super) fn parse<T: core::str::FromStr>(digits: &[u8]) -> Option<T> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) fn parse_hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// `NUMBER/FILE`, the file in parts.
pub(super) fn path_to<'b>(
    number: i32,
    file: &[&[u8]],
    path: &'b mut [u8; 48],
) -> Result<&'b CStr, Errno> {
    let mut digits = [0u8; 10];
    let parts =
        decimal(number, &mut digits).iter().chain(b"/").chain(file.iter().copied().flatten());
    for (to, from) in path.iter_mut().zip(parts) {
        *to = *from;
    }
    CStr::from_bytes_until_nul(path).map_err(|_| Errno::INVAL)
}

pub(super) fn decimal(number: i32, digits: &mut [u8; 10]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut start = digits.len();
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        start = index;
        if rest == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}
