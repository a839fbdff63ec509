//! The values of directives in the syntax of systemd.exec(5), systemd.time(7) and systemd.syntax(7).
//!
//! Each function takes the text after `=`, without white space around it. A text that it cannot read exactly is an
//! error. No value is read in part.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use libpsx::process::{Capability, CapabilitySet, IoPriority, Securebits};

use crate::resource::Resource;

/// The reason why a value is refused.
pub(crate) type Why = String;

/// Why a directive cannot have an empty value. systemd only warns of it, and the assignments before it stay.
pub(crate) const NO_RESET: &str =
    "it has no value, and an empty value does not reset this directive";

/// A number of nanoseconds; `None` is infinity.
pub(crate) type Span = Option<u128>;

/// Replaces `%%` by `%`. Refuses every other specifier, because only the service manager knows its value.
pub(crate) fn without_specifiers(value: &str) -> Result<String, Why> {
    let mut text = String::new();
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('%', Some('%')) => {
                rest.next();
                text.push('%');
            }
            ('%', Some(specifier)) => {
                return Err(format!(
                    "the specifier %{} is not expanded here; write out what it stands for",
                    specifier.escape_default()
                ));
            }
            ('%', None) => {
                return Err(
                    "nothing follows the percent sign; write %% for a percent sign".to_owned()
                );
            }
            (other, _) => text.push(other),
        }
    }
    Ok(text)
}

/// Returns the words of a list. A word may be in quotes, so that it can contain white space.
pub(crate) fn words(value: &str) -> Result<Vec<String>, Why> {
    let mut words = Vec::new();
    let mut rest = value.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' | '\'' => {
                let body = rest.get(1..).unwrap_or_default();
                let (word, after) = body
                    .split_once(first)
                    .ok_or_else(|| format!("a quote {first} is not closed"))?;
                if after.starts_with(|c: char| !c.is_whitespace()) {
                    return Err(format!("white space is missing after the quoted word {word:?}"));
                }
                (word, after)
            }
            _ => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        if word.contains('\\') {
            return Err(format!("{word:?} has a backslash, and escapes are not read here"));
        }
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

pub(crate) fn boolean(value: &str) -> Result<bool, Why> {
    let is = |all: &[&str]| all.iter().any(|word| word.eq_ignore_ascii_case(value));
    match () {
        () if is(&["1", "yes", "y", "true", "t", "on"]) => Ok(true),
        () if is(&["0", "no", "n", "false", "f", "off"]) => Ok(false),
        () => Err("it must be yes or no".to_owned()),
    }
}

/// Parses a decimal number without a sign.
pub(crate) fn natural(value: &str) -> Result<u64, Why> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { value.parse().ok() } else { None };
    number.ok_or_else(|| format!("{value:?} is not a number"))
}

/// Parses a decimal number in a range, with or without a sign.
pub(crate) fn in_range(value: &str, from: i32, to: i32) -> Result<i32, Why> {
    let number = value.parse().ok().filter(|number| (from..=to).contains(number));
    number.ok_or_else(|| format!("it must be a number from {from} to {to}"))
}

/// Parses an absolute path in which no component is `..`.
pub(crate) fn path(value: &str) -> Result<PathBuf, Why> {
    let path = PathBuf::from(value);
    if !path.is_absolute() {
        return Err("it must be an absolute path".to_owned());
    }
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err("it must not contain ..".to_owned());
    }
    Ok(path)
}

/// Parses a mode in octal digits.
pub(crate) fn mask(value: &str) -> Result<u32, Why> {
    let digits = !value.is_empty() && value.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let number = if digits { u32::from_str_radix(value, 8).ok() } else { None };
    number.filter(|mask| *mask <= 0o777).ok_or_else(|| "it must be octal, 0 to 0777".to_owned())
}

/// Parses names of capabilities. Returns whether `~` is before them.
pub(crate) fn capabilities(value: &str) -> Result<(bool, CapabilitySet), Why> {
    let (inverted, names) = match value.strip_prefix('~') {
        Some(names) => (true, names),
        None => (false, value),
    };
    let mut set = CapabilitySet::EMPTY;
    for name in words(names)? {
        set |= capability(&name)?.into();
    }
    Ok((inverted, set))
}

fn capability(name: &str) -> Result<Capability, Why> {
    name.parse().map_err(|_| {
        let known = CapabilitySet::from_bits(u64::MAX).iter().map(|one| one.to_string());
        let nearest = nearest(&name.to_ascii_lowercase(), known);
        let hint = nearest
            .map_or_else(String::new, |near| format!("; did you mean {}?", near.to_uppercase()));
        format!("no capability is called {name:?}{hint}")
    })
}

/// Returns the value of `CapabilityBoundingSet=` or `AmbientCapabilities=` after one more assignment. It adds
/// capabilities, or removes them after `~`. `initial` is the value without any assignment; the next one replaces it.
pub(crate) fn merged(
    before: Option<CapabilitySet>,
    initial: CapabilitySet,
    value: &str,
) -> Result<CapabilitySet, Why> {
    let (inverted, named) = capabilities(value)?;
    let all = CapabilitySet::all();
    let before = before.filter(|before| !named.is_empty() && *before != initial);
    Ok(match (before, inverted) {
        (Some(before), false) => before | named,
        (Some(before), true) => before - named,
        (None, false) => named,
        (None, true) => all - named,
    })
}

pub(crate) fn securebits(value: &str) -> Result<Securebits, Why> {
    const NAMES: [(&str, Securebits); 6] = [
        ("keep-caps", Securebits::KEEP_CAPS),
        ("keep-caps-locked", Securebits::KEEP_CAPS_LOCKED),
        ("no-setuid-fixup", Securebits::NO_SETUID_FIXUP),
        ("no-setuid-fixup-locked", Securebits::NO_SETUID_FIXUP_LOCKED),
        ("noroot", Securebits::NOROOT),
        ("noroot-locked", Securebits::NOROOT_LOCKED),
    ];
    let mut bits = Securebits::EMPTY;
    for word in words(value)? {
        let found = NAMES.iter().find(|(name, _)| *name == word);
        let (_, bit) = found.ok_or_else(|| {
            let all = NAMES.map(|(name, _)| name).join(", ");
            format!("no securebit is called {word:?}: there are {all}")
        })?;
        bits = bits | *bit;
    }
    Ok(bits)
}

/// Parses a size with a unit to the base of 1024: `512`, `4K`, `1.5G`. `None` is infinity.
fn size(value: &str) -> Result<Option<u64>, Why> {
    const UNITS: [(&str, u32); 8] =
        [("", 0), ("B", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50), ("E", 60)];
    if value == "infinity" {
        return Ok(None);
    }
    let bad =
        || format!("{value:?} is not a size: write bytes, or a number with K, M, G, T, P or E");
    let (number, unit) =
        value.split_at(value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len()));
    let unit = unit.trim();
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    let bytes = scaled(number.trim(), 1u128 << shift).ok_or_else(bad)?;
    u64::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes < u64::MAX)
        .map(Some)
        .ok_or_else(|| format!("{value:?} is too large"))
}

/// Returns a decimal number with a fraction, multiplied by a factor and rounded down.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > 18
        || number.ends_with('.')
    {
        return None;
    }
    let base = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let whole = whole.parse::<u128>().ok()?.checked_mul(factor)?;
    whole.checked_add(part.checked_mul(factor)?.checked_div(base)?)
}

pub(crate) const NANOSECOND: u128 = 1;
pub(crate) const MICROSECOND: u128 = 1000;
pub(crate) const SECOND: u128 = 1_000_000_000;

/// Parses a time span of systemd.time(7): `1h 30min`, `500ms`. A number without a unit counts `unit` nanoseconds.
pub(crate) fn span(value: &str, unit: u128) -> Result<Span, Why> {
    const MINUTE: u128 = 60 * SECOND;
    const DAY: u128 = 24 * 60 * MINUTE;
    // A month is 30.44 days, and a year 365.25 days.
    const UNITS: [(&[&str], u128); 10] = [
        (&["ns", "nsec"], NANOSECOND),
        (&["us", "usec", "µs", "μs"], MICROSECOND),
        (&["ms", "msec"], 1000 * MICROSECOND),
        (&["s", "sec", "second", "seconds"], SECOND),
        (&["m", "min", "minute", "minutes"], MINUTE),
        (&["h", "hr", "hour", "hours"], 60 * MINUTE),
        (&["d", "day", "days"], DAY),
        (&["w", "week", "weeks"], 7 * DAY),
        (&["M", "month", "months"], 2_629_800 * SECOND),
        (&["y", "year", "years"], 31_557_600 * SECOND),
    ];
    if value == "infinity" {
        return Ok(None);
    }
    let bad = || {
        format!(
            "{value:?} is not a time span: write a number with ms, s, min, h or another unit of time"
        )
    };
    let mut rest = value.trim();
    let mut sum = 0u128;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (name, next) = after.split_at(letters);
        let factor = match name {
            "" => unit,
            name => UNITS
                .iter()
                .find(|(names, _)| names.contains(&name))
                .map(|(_, factor)| *factor)
                .ok_or_else(bad)?,
        };
        let part = scaled(number, factor).ok_or_else(bad)?;
        sum = sum.checked_add(part).ok_or_else(bad)?;
        rest = next.trim_start();
    }
    Ok(Some(sum))
}

/// The unit of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Count,
    Seconds,
    Microseconds,
    /// 20 minus a nice value, or a nice value with its sign.
    Nice,
}

/// Returns the unit of a resource's directive.
pub(crate) fn unit_of(resource: Resource) -> Unit {
    match resource {
        Resource::Cpu => Unit::Seconds,
        Resource::Rttime => Unit::Microseconds,
        Resource::Nice => Unit::Nice,
        Resource::Nproc
        | Resource::Nofile
        | Resource::Locks
        | Resource::Sigpending
        | Resource::Rtprio => Unit::Count,
        Resource::Fsize
        | Resource::Data
        | Resource::Stack
        | Resource::Core
        | Resource::Rss
        | Resource::Memlock
        | Resource::As
        | Resource::Msgqueue => Unit::Bytes,
    }
}

/// Parses a limit: one value for both limits, or `soft:hard`.
pub(crate) fn limit(value: &str, unit: Unit) -> Result<[u64; 2], Why> {
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let limits = [one_limit(soft, unit)?, one_limit(hard, unit)?];
    let [soft, hard] = limits;
    if soft > hard {
        return Err(format!("the soft limit {soft} is above the hard limit {hard}"));
    }
    Ok(limits)
}

fn one_limit(value: &str, unit: Unit) -> Result<u64, Why> {
    // prlimit64(2) has 64-bit limits on every CPU; the constant of setrlimit(2), RLIM_INFINITY, may have 32 bits.
    const INFINITY: u64 = u64::MAX;
    let rounded_up = |span: Span, unit: u128| match span {
        None => Ok(INFINITY),
        Some(nanoseconds) => {
            u64::try_from(nanoseconds.div_ceil(unit)).map_err(|_| format!("{value:?} is too long"))
        }
    };
    match unit {
        _ if value == "infinity" && unit != Unit::Nice => Ok(INFINITY),
        Unit::Bytes => Ok(size(value)?.unwrap_or(INFINITY)),
        Unit::Count => natural(value),
        Unit::Seconds => rounded_up(span(value, SECOND)?, SECOND),
        Unit::Microseconds => rounded_up(span(value, MICROSECOND)?, MICROSECOND),
        Unit::Nice if value.starts_with(['+', '-']) => {
            let nice = in_range(value, -20, 19)?;
            Ok(20i32.saturating_sub(nice).unsigned_abs().into())
        }
        Unit::Nice => natural(value).ok().filter(|raw| *raw <= 40).ok_or_else(|| {
            "it must be a raw limit from 0 to 40, or a nice value with its sign, -20 to +19"
                .to_owned()
        }),
    }
}

/// Numbers of CPUs and ranges of them, with white space or commas between them.
pub(crate) fn cpus(value: &str) -> Result<Vec<u16>, Why> {
    const MOST: u64 = 8192;
    let mut all = Vec::new();
    for word in value.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
    {
        if word == "numa" {
            return Err(
                "\"numa\" is not supported: NUMAMask= is not; write the numbers of the CPUs"
                    .to_owned(),
            );
        }
        let (from, to) = word.split_once('-').unwrap_or((word, word));
        let (from, to) = (natural(from)?, natural(to)?);
        if from > to || to >= MOST {
            return Err(format!("{word:?} is not a CPU, and not a range of CPUs below {MOST}"));
        }
        all.extend((from..=to).filter_map(|cpu| u16::try_from(cpu).ok()));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Parses a class of `IOSchedulingClass=`, and adds a level.
pub(crate) fn io_class(value: &str, level: u8) -> Result<IoPriority, Why> {
    match value {
        "0" | "none" => Ok(IoPriority::None),
        "1" | "realtime" => Ok(IoPriority::RealTime(level)),
        "2" | "best-effort" => Ok(IoPriority::BestEffort(level)),
        "3" | "idle" => Ok(IoPriority::Idle),
        _ => Err("it must be none, realtime, best-effort or idle".to_owned()),
    }
}

/// Returns the most similar name, if it is similar enough to be the intended one.
pub(crate) fn nearest(
    name: &str,
    known: impl IntoIterator<Item = impl AsRef<str>>,
) -> Option<String> {
    let similar =
        |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let all = known.into_iter().map(|other| (similar(other.as_ref()), other.as_ref().to_owned()));
    let (distance, other) = all.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1.max(name.chars().count() / 3)).then_some(other)
}
