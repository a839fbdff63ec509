//! Formats values by their names.

use libpsx::process::{Capability, CapabilitySet, CapabilitySets, Securebits};

/// Formats a set as `none`, as `all`, by names with commas between them, or by the missing names if most are there.
/// `all`
/// needs a system call (which capabilities the kernel knows), and a filter may forbid it by then.
pub(crate) fn set(set: CapabilitySet, all: CapabilitySet) -> String {
    let missing = all - set;
    match () {
        () if set.is_empty() => "none".to_owned(),
        () if set == all => "all".to_owned(),
        () if all.is_superset(set) && missing.bits().count_ones() < set.bits().count_ones() => {
            format!("all but {}", list(missing))
        }
        () => list(set),
    }
}

/// Formats the three sets.
pub(crate) fn sets(sets: CapabilitySets, all: CapabilitySet) -> String {
    let [effective, permitted, inheritable] =
        [sets.effective, sets.permitted, sets.inheritable].map(|one| set(one, all));
    format!("permitted {permitted}, effective {effective}, inheritable {inheritable}")
}

pub(crate) fn list(set: CapabilitySet) -> String {
    let names: Vec<String> = set.iter().map(|one: Capability| one.to_string()).collect();
    names.join(",")
}

/// Formats securebits by their names in capabilities(7), without `SECBIT_`.
pub(crate) fn securebits(bits: Securebits) -> String {
    const NAMES: [&str; 12] = [
        "noroot",
        "noroot_locked",
        "no_setuid_fixup",
        "no_setuid_fixup_locked",
        "keep_caps",
        "keep_caps_locked",
        "no_cap_ambient_raise",
        "no_cap_ambient_raise_locked",
        "exec_restrict_file",
        "exec_restrict_file_locked",
        "exec_deny_interactive",
        "exec_deny_interactive_locked",
    ];
    let mut names = Vec::new();
    for bit in 0..u32::BITS {
        if bits.bits() >> bit & 1 != 0 {
            let name = NAMES.get(bit as usize).map(|name| (*name).to_owned());
            names.push(name.unwrap_or_else(|| format!("{:#x}", 1u32 << bit)));
        }
    }
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

pub(crate) fn numbers(all: impl IntoIterator<Item = u32>) -> String {
    let mut sorted: Vec<u32> = all.into_iter().collect();
    sorted.sort_unstable();
    let names: Vec<String> = sorted.iter().map(u32::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

pub(crate) fn user(raw: u32) -> String {
    if raw == 0 { "0 (root)".to_owned() } else { raw.to_string() }
}

/// Returns the numbers of the bits that are set.
pub(crate) fn words_to_numbers(words: &[u64]) -> Vec<u32> {
    let bits = words.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1));
    (0u32..).zip(bits).filter(|(_, set)| *set).map(|(number, _)| number).collect()
}
