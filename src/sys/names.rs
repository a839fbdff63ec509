//! The names of system calls and errors, for messages. build.rs writes them.
#![forbid(unsafe_code)]

const CALLS: &str = include_str!(concat!(env!("OUT_DIR"), "/calls"));
const ERRORS: &str = include_str!(concat!(env!("OUT_DIR"), "/errors"));

pub(crate) fn call(number: u32) -> Option<&'static str> {
    line(CALLS, number as usize)
}

/// The symbol, and what it means.
pub(crate) fn error(number: i32) -> Option<(&'static str, &'static str)> {
    let line = line(ERRORS, usize::try_from(number).ok()?)?;
    let space = line.bytes().position(|byte| byte == b' ')?;
    let (symbol, meaning) = line.split_at_checked(space)?;
    Some((symbol, meaning.get(1..)?))
}

/// Line `number`, unless it is empty. (By bytes: a search for a char can panic, as far as a linker
/// can tell.)
fn line(text: &'static str, number: usize) -> Option<&'static str> {
    let line = text.as_bytes().split(|&byte| byte == b'\n').nth(number)?;
    core::str::from_utf8(line).ok().filter(|line| !line.is_empty())
}
