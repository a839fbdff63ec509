//! The texts and forms of libpsx: capabilities.

use libpsx::process::{Capability, CapabilitySet, CapabilitySets, EXTERNAL_SIZE};

use crate::text;

/// The number of a name or a number, as cap_from_name(3) reads it.
pub(crate) fn capability(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("cap_") {
        return (0..41)
            .find(|&number| Capability::new(number).is_some_and(|known| known.to_string() == lower))
            .map(u64::from);
    }
    // As C has it: 12, 014, 0xc.
    let (digits, base) = match lower.strip_prefix("0x") {
        Some(digits) => (digits.to_owned(), 16),
        None if lower.starts_with('0') => (lower.clone(), 8),
        None => (lower.clone(), 10),
    };
    let valid = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(base));
    let value = valid.then(|| u64::from_str_radix(&digits, base).ok()).flatten();
    value.filter(|&number| number < 64)
}

fn list(names: &str) -> Option<u64> {
    let all = CapabilitySet::all().bits();
    names.split(',').try_fold(0, |bits, name| {
        let one = if name.eq_ignore_ascii_case("all") { all } else { 1 << capability(name)? };
        Some(bits | one)
    })
}

/// Effective, inheritable and permitted set of a text, cap_from_text(3). None: it is not one.
fn sets(text: &str) -> Option<[u64; 3]> {
    let mut sets = [0u64; 3];
    for clause in text.split(['\t', '\n', '\x0b', '\x0c', '\r', ' ']).filter(|one| !one.is_empty())
    {
        let mut letters = clause.chars().peekable();
        let mut names = String::new();
        while letters.peek().is_some_and(|letter| !"=+-".contains(*letter)) {
            names.extend(letters.next());
        }
        letters.peek()?;
        let bits = if names.is_empty() { CapabilitySet::all().bits() } else { list(&names)? };
        let mut first = true;
        while let Some(operator) = letters.next() {
            if operator == '=' && !first || operator != '=' && names.is_empty() {
                return None;
            }
            let mut flags = [false; 3];
            while let Some(&letter) = letters.peek().filter(|letter| !"+-".contains(**letter)) {
                flags["eip".find(letter)?] = true;
                letters.next();
            }
            if operator != '=' && flags == [false; 3] {
                return None;
            }
            for (set, flag) in sets.iter_mut().zip(flags) {
                match operator {
                    '=' if flag => *set |= bits,
                    '=' => *set &= !bits,
                    '+' if flag => *set |= bits,
                    '-' if flag => *set &= !bits,
                    _ => {}
                }
            }
            first = false;
        }
    }
    Some(sets)
}

pub(crate) fn capability_text(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let parsed = text.parse::<CapabilitySets>();
    let found = parsed.map(|sets| [sets.effective, sets.inheritable, sets.permitted]);
    assert_eq!(found.ok().map(|all| all.map(CapabilitySet::bits)), sets(text), "{text:?}");
    if let Ok(parsed) = parsed {
        let written = parsed.to_string();
        assert_eq!(written.parse(), Ok(parsed), "{written}");
    }
    let one = text.parse::<Capability>();
    assert_eq!(one.ok().map(|one| u64::from(one.number())), capability(text), "{text:?}");
    if let Ok(one) = one {
        assert_eq!(one.to_string().parse(), Ok(one));
    }
    let set = text.parse::<CapabilitySet>();
    let wanted = if text.is_empty() { Some(0) } else { list(text) };
    assert_eq!(set.ok().map(CapabilitySet::bits), wanted, "{text:?}");
    if let Ok(set) = set {
        assert_eq!(set.to_string().parse(), Ok(set));
    }
}

/// The external form of cap_copy_ext(3), and the extended attribute of a file.
pub(crate) fn capability_forms(data: &[u8]) {
    if let Ok(sets) = CapabilitySets::from_external(data) {
        let form = sets.to_external();
        assert_eq!(CapabilitySets::from_external(&form), Ok(sets));
        // A form of the usual size is the same again.
        if data.len() == EXTERNAL_SIZE && data[4] == form[4] {
            assert_eq!(form, *data);
        }
    }
    use privileges::file::FileCapabilities;
    if let Ok(file) = FileCapabilities::from_bytes(data) {
        let bytes = file.to_bytes();
        assert_eq!(FileCapabilities::from_bytes(&bytes).as_ref(), Ok(&file));
        let word = |at: usize| {
            data.get(4 * at..4 * at + 4).map_or(0, |bytes| {
                u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
            })
        };
        let high = |at: usize| if data.len() > 12 { word(at) << 32 } else { 0 };
        assert_eq!(file.permitted.bits(), word(1) | high(3));
        assert_eq!(file.inheritable.bits(), word(2) | high(4));
        assert_eq!(file.effective, data[0] & 1 == 1);
        let text = file.to_string();
        let again: Result<FileCapabilities, _> = text.parse();
        // The owner is not part of the text.
        if let Ok(again) = again {
            assert_eq!((again.permitted, again.inheritable), (file.permitted, file.inheritable));
        }
    }
}
