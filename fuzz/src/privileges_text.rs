//! The texts of privileges: cap_iab(3), units, tables.

use privileges::unit::{Directives, Unit, UnitError, supported};
use privileges::{Iab, Privileges};

use crate::{library, text};

pub(crate) fn iab_text(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let wanted = || {
        let (mut inheritable, mut ambient, mut blocked) = (0u64, 0u64, 0u64);
        let clauses: Vec<&str> = text.split(',').collect();
        for (index, clause) in clauses.iter().enumerate() {
            let end = clause.find(|c: char| !"!^%".contains(c)).unwrap_or(clause.len());
            let (marks, name) = clause.split_at(end);
            if name.is_empty() && index + 1 == clauses.len() {
                break;
            }
            let bit = 1 << library::capability(name)?;
            blocked |= if marks.contains('!') { bit } else { 0 };
            ambient |= if marks.contains('^') { bit } else { 0 };
            inheritable |=
                if marks.bytes().all(|mark| mark == b'!') && !marks.is_empty() { 0 } else { bit };
        }
        Some((inheritable, ambient, blocked))
    };
    let parsed = text.parse::<Iab>();
    let found = parsed.as_ref().ok();
    let found = found.map(|iab| (iab.inheritable.bits(), iab.ambient.bits(), iab.blocked.bits()));
    assert_eq!(found, wanted(), "{text:?}: {parsed:?}");
    if let Ok(iab) = parsed {
        assert_eq!(iab.to_string().parse(), Ok(iab), "{iab}");
    }
}

/// Every problem has a line of the text, and can be written.
fn check_problems(error: &UnitError, lines: usize) {
    assert!(!error.problems().is_empty());
    for problem in error.problems() {
        assert!(problem.line <= lines, "{problem:?}");
        assert!(!problem.why.is_empty() && problem.to_string().lines().count() >= 1);
    }
}

/// What a unit says, without the numbers of lines.
fn meaning(unit: &Unit) -> String {
    let others: Vec<_> =
        unit.unsupported().iter().map(|one| (&one.directive, &one.value)).collect();
    format!("{:?} {others:?} {:?}", unit.directives(), unit.exec_start())
}

/// Whether nothing in the text names a file that would be opened.
fn opens_nothing(text: &str) -> bool {
    !text.contains("NamespacePath")
}

pub(crate) fn unit(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let whole = Unit::parse(text);
    match &whole {
        Err(error) => check_problems(error, text.lines().count()),
        Ok(unit) => {
            let before = meaning(unit);
            let mut again = unit.clone();
            assert!(again.add("").is_ok() && meaning(&again) == before);
            // A unit that was refused a drop-in has not changed.
            assert!(again.add("[Service]\nUser=nobody\nno assignment").is_err());
            assert_eq!(meaning(&again), before);
            // Looking for users and compiling filters takes most of the time.
            if opens_nothing(text) && text.len() % 8 == 0 {
                let _ = unit.privileges();
                let without = unit.unsupported().iter().map(|one| one.directive.clone());
                let without: Vec<String> = without.collect();
                let _ = unit.clone().without(without.iter().map(String::as_str)).privileges();
            }
        }
    }
    // The same text in two parts means the same, if the second one begins with a section.
    let Some(at) = text.find("\n[").filter(|&at| at > 0) else { return };
    let (first, second) = (&text[..at + 1], &text[at + 1..]);
    if first.trim_end_matches(['\n', '\r']).ends_with('\\')
        || first.contains("\\\n")
        || first.contains("\\\r\n")
    {
        return;
    }
    // As drop-ins, because a part alone may have no section for execution.
    let added = |texts: &[&str]| {
        let mut unit = Unit::default();
        texts.iter().try_for_each(|text| unit.add(text)).map(|()| unit)
    };
    let (whole, parts) = (added(&[text]), added(&[first, second]));
    assert_eq!(whole.is_ok(), parts.is_ok(), "{whole:?}\n{parts:?}");
    if let (Ok(whole), Ok(parts)) = (&whole, &parts) {
        assert_eq!(meaning(whole), meaning(parts));
    }
}

/// The same directive in a unit and in a table of TOML: one byte chooses the directive, the rest is the value. And the
/// whole input as a table.
pub(crate) fn table(data: &[u8]) {
    let Some((&number, value)) = data.split_first() else { return };
    if let Some(text) = text(data).filter(|text| opens_nothing(text)) {
        if let Err(error) = Privileges::from_toml(text) {
            check_problems(&error, text.lines().count() + 1);
        }
    }
    let Some(value) = text(value) else { return };
    let Some(name) = supported().nth(usize::from(number)) else { return };
    let plain = |c: char| !c.is_control() && c != '%';
    if !value.chars().all(plain) || value.trim() != value || value.ends_with('\\') {
        return;
    }
    let unit = Unit::parse(&format!("[Service]\n{name}={value}\n"));
    let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
    let table = toml::from_str::<Directives>(&format!("{name} = \"{quoted}\"\n"));
    match (&unit, &table) {
        (Ok(unit), Ok(table)) => {
            assert_eq!(format!("{:?}", unit.directives()), format!("{table:?}"), "{name}={value}");
        }
        (Err(error), Ok(_)) => panic!("{name}={value}: a table takes it, but a unit: {error}"),
        _ => {}
    }
}
