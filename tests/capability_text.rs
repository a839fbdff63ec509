//! The text form of capabilities, both ways, beside another implementation of cap_from_text(3).

mod support;

use std::str::FromStr;

use libpsx::process::{Capability, CapabilitySet, CapabilitySets, ParseCapabilitiesError};
use support::{random, seed};

fn parse(text: &str) -> Result<CapabilitySets, ParseCapabilitiesError> {
    text.parse()
}

fn set(capabilities: &[Capability]) -> CapabilitySet {
    CapabilitySet::from_slice(capabilities)
}

#[test]
fn clauses() {
    use Capability as C;
    let sets =
        |effective, permitted, inheritable| CapabilitySets { effective, permitted, inheritable };
    let none = CapabilitySet::EMPTY;
    let all = CapabilitySet::all();
    let chown = set(&[C::CHOWN]);
    let two = set(&[C::CHOWN, C::KILL]);
    assert_eq!(parse(""), Ok(CapabilitySets::EMPTY));
    assert_eq!(parse("="), Ok(CapabilitySets::EMPTY));
    assert_eq!(parse("=ep"), Ok(sets(all, all, none)));
    assert_eq!(parse("all=i"), Ok(sets(none, none, all)));
    assert_eq!(parse("cap_chown,CAP_KILL=ep"), Ok(sets(two, two, none)));
    assert_eq!(parse("0,5=ep"), Ok(sets(two, two, none)));
    assert_eq!(parse("cap_chown=p+ei-p"), Ok(sets(chown, none, chown)));
    assert_eq!(parse("cap_chown,cap_kill=ep cap_kill-ep"), Ok(sets(chown, chown, none)));
    assert_eq!(parse("=ep cap_kill="), Ok(sets(all - C::KILL.into(), all - C::KILL.into(), none)));
    let unnamed = C::new(63).unwrap().into();
    assert_eq!(parse("63=p"), Ok(sets(none, unnamed, none)));
}

#[test]
fn what_is_no_text_of_capabilities() {
    assert_eq!(parse("cap_chown"), Err(ParseCapabilitiesError::MissingOperator));
    assert_eq!(parse("+ep"), Err(ParseCapabilitiesError::MissingNames));
    assert_eq!(parse("=p+e"), Err(ParseCapabilitiesError::MissingNames));
    assert_eq!(parse("cap_chown=p=e"), Err(ParseCapabilitiesError::InvalidFlag));
    assert_eq!(parse("cap_chown=p-"), Err(ParseCapabilitiesError::InvalidFlag));
    assert_eq!(parse("08=p"), Err(ParseCapabilitiesError::UnknownCapability));
    assert_eq!(parse("cap_nothing=p"), Err(ParseCapabilitiesError::UnknownCapability));
    assert_eq!(parse("chown=p"), Err(ParseCapabilitiesError::UnknownCapability));
    assert_eq!(parse("64=p"), Err(ParseCapabilitiesError::UnknownCapability));
    assert_eq!(parse("cap_chown,=p"), Err(ParseCapabilitiesError::UnknownCapability));
    assert_eq!(parse("cap_chown=x"), Err(ParseCapabilitiesError::InvalidFlag));
    assert_eq!(parse("cap_chöwn=p"), Err(ParseCapabilitiesError::UnknownCapability));
    assert_eq!(parse("é=p"), Err(ParseCapabilitiesError::UnknownCapability));
}

#[test]
fn both_ways_and_beside_capctl() {
    let mut state = seed();
    let known = CapabilitySet::all().bits();
    let theirs = |set: capctl::CapSet| {
        set.iter().fold(CapabilitySet::EMPTY, |all, cap| all | Capability::new(cap as u8).unwrap())
    };
    for round in 0..5000 {
        // Sparse, dense and even sets, and at times such that the kernel does not know.
        let mut pick = || match random(&mut state) % 4 {
            0 => random(&mut state) & random(&mut state) & random(&mut state),
            1 => random(&mut state) | random(&mut state) | random(&mut state),
            2 => known,
            _ => random(&mut state),
        };
        let known = if round % 2 == 0 { known } else { u64::MAX };
        let mut pick = || CapabilitySet::from_bits(pick() & known);
        let sets = CapabilitySets { effective: pick(), permitted: pick(), inheritable: pick() };
        let text = sets.to_string();
        assert_eq!(parse(&text), Ok(sets), "{text}");
        if known == u64::MAX {
            continue;
        }
        let other = capctl::CapState::from_str(&text).unwrap();
        let read = CapabilitySets {
            effective: theirs(other.effective),
            permitted: theirs(other.permitted),
            inheritable: theirs(other.inheritable),
        };
        assert_eq!(read, sets, "{text}");
        assert_eq!(parse(&other.to_string()), Ok(sets), "{other}");
    }
}

#[test]
fn every_name_is_the_kernel_s() {
    for number in 0..=40 {
        let capability = Capability::new(number).unwrap();
        let name = capability.to_string();
        assert_eq!(capctl::Cap::from_str(&name).unwrap() as u8, number, "{name}");
        assert_eq!(name.parse(), Ok(capability));
    }
    assert_eq!(Capability::new(64), None);
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
    assert_eq!(last.trim(), Capability::last().number().to_string());
}

#[test]
fn sets_as_text_and_by_operators() {
    use Capability as C;
    let two = C::CHOWN | C::KILL;
    assert_eq!(two, set(&[C::KILL, C::CHOWN]));
    assert_eq!(two | C::BPF, C::BPF | two);
    assert_eq!(two, [C::CHOWN, C::KILL].into());
    assert_eq!(two, CapabilitySet::from(&[C::CHOWN, C::KILL][..]));
    assert_eq!(two, two.iter().collect());
    assert_eq!(two ^ C::KILL.into(), C::CHOWN.into());
    let mut grown = CapabilitySet::EMPTY;
    grown.extend(two.iter());
    assert_eq!(grown, two);
    for (text, wanted) in [
        ("cap_chown,CAP_KILL", Ok(two)),
        ("0,5", Ok(two)),
        ("", Ok(CapabilitySet::EMPTY)),
        ("all", Ok(CapabilitySet::all())),
        ("cap_chown,", Err(ParseCapabilitiesError::UnknownCapability)),
        ("cap_chown cap_kill", Err(ParseCapabilitiesError::UnknownCapability)),
        ("none", Err(ParseCapabilitiesError::UnknownCapability)),
    ] {
        assert_eq!(text.parse(), wanted, "{text}");
    }
    let mut state = seed();
    for _ in 0..1000 {
        let random = CapabilitySet::from_bits(random(&mut state));
        assert_eq!(random.to_string().parse(), Ok(random));
    }
}

#[test]
fn debug_shows_names() {
    let two = Capability::CHOWN | Capability::new(63).unwrap();
    assert_eq!(format!("{two:?}"), "{cap_chown, Capability(63)}");
    assert_eq!(format!("{:?}", Capability::NET_ADMIN), "cap_net_admin");
    let sets = parse("cap_chown=ep cap_kill=i").unwrap();
    assert_eq!(format!("{sets:?}"), "CapabilitySets(= cap_kill=i cap_chown=ep)");
    let bits = libpsx::process::Securebits::from_bits(0b101 | 1 << 20);
    assert_eq!(format!("{bits:?}"), "Securebits(NOROOT | NO_SETUID_FIXUP | 0x100000)");
    let none = libpsx::process::Securebits::EMPTY;
    assert_eq!(format!("{none:?}"), "Securebits(EMPTY)");
}

#[test]
fn what_is_no_external_form() {
    let sets = parse("cap_chown=ep 63=i").unwrap();
    let form = sets.to_external();
    assert_eq!(CapabilitySets::from_external(&form), Ok(sets));
    let mut longer = form.to_vec();
    longer.push(7);
    assert_eq!(CapabilitySets::from_external(&longer), Ok(sets), "what follows does not count");
    let mut wider = form.to_vec();
    wider[4] = 9;
    wider.extend([0, 0, 0]);
    assert_eq!(CapabilitySets::from_external(&wider), Ok(sets));
    let mut narrower = form[..5 + 3].to_vec();
    narrower[4] = 1;
    let narrow = CapabilitySets::from_external(&narrower).unwrap();
    assert_eq!(narrow, parse("cap_chown=ep").unwrap());
    let mut other = form;
    other[0] ^= 1;
    wider[5 + 26] = 1;
    for wrong in [&form[..28], &form[..4], &other, &wider, &[]] {
        assert_eq!(
            CapabilitySets::from_external(wrong),
            Err(ParseCapabilitiesError::InvalidExternal)
        );
    }
}
