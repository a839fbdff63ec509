//! Inheritable, ambient and bounding set in one text, cap_iab(3).

use std::fmt;
use std::str::FromStr;

use libpsx::process::{Capability, CapabilitySet, ParseCapabilitiesError};

/// The three sets of a text that cap_iab_from_text(3) reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Iab {
    /// The inheritable set.
    pub inheritable: CapabilitySet,
    /// The ambient set, which is inheritable as well.
    pub ambient: CapabilitySet,
    /// The capabilities that the bounding set loses.
    pub blocked: CapabilitySet,
}

/// The text is not an IAB (cap_iab(3)).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{clause:?}: {why}")]
pub struct ParseIabError {
    clause: String,
    why: ParseCapabilitiesError,
}

impl FromStr for Iab {
    type Err = ParseIabError;

    /// Names or numbers with commas between them, each after its marks: `!` takes it from the bounding set,
    /// `^` makes it ambient and inheritable, `%` or no mark at all inheritable. `!%cap_chown` is both. The name
    /// after the last comma may be missing.
    fn from_str(text: &str) -> Result<Self, ParseIabError> {
        let mut iab = Self::default();
        let mut clauses = text.split(',').peekable();
        while let Some(clause) = clauses.next() {
            let name = clause.trim_start_matches(['!', '^', '%']);
            if name.is_empty() && clauses.peek().is_none() {
                break;
            }
            let marks = clause.strip_suffix(name).unwrap_or_default();
            let bad = |why| ParseIabError { clause: clause.to_owned(), why };
            let one: CapabilitySet = name.parse::<Capability>().map_err(bad)?.into();
            if marks.contains('!') {
                iab.blocked |= one;
            }
            if marks.contains('^') {
                iab.ambient |= one;
            }
            if marks.is_empty() || marks.contains(['^', '%']) {
                iab.inheritable |= one;
            }
        }
        Ok(iab)
    }
}

impl fmt::Display for Iab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.inheritable | self.ambient | self.blocked;
        for (index, capability) in all.iter().enumerate() {
            let blocked = self.blocked.contains(capability);
            let mark =
                match (self.ambient.contains(capability), self.inheritable.contains(capability)) {
                    (true, _) => "^",
                    // Without the mark `%` it would not be inheritable.
                    (false, true) if blocked => "%",
                    (false, _) => "",
                };
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}{mark}{capability}", if blocked { "!" } else { "" })?;
        }
        Ok(())
    }
}
