//! What is wrong with a unit, and what in it this crate cannot express.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

/// A part of a unit that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitProblem {
    /// The file; `None` for text that was given.
    pub file: Option<PathBuf>,
    /// The line, counted from 1; 0 if it is not about a line.
    pub line: usize,
    /// The name of the directive; empty if it is not about one.
    pub directive: String,
    /// The value.
    pub value: String,
    /// The reason why it cannot be used.
    pub why: String,
}

impl fmt::Display for UnitProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        match (self.file.is_some(), self.line) {
            (true, 0) => write!(f, " ")?,
            (false, 0) => {}
            (true, line) => write!(f, "{line}: ")?,
            (false, line) => write!(f, "line {line}: ")?,
        }
        if !self.directive.is_empty() {
            write!(f, "{}={}: ", self.directive, shortened(&self.value))?;
        }
        f.write_str(&self.why)
    }
}

/// Returns the value on one line, with a bounded length.
fn shortened(value: &str) -> String {
    const MOST: usize = 60;
    let printable: String = value.chars().take(MOST).flat_map(char::escape_debug).collect();
    if value.chars().nth(MOST).is_some() { printable + "..." } else { printable }
}

/// The reasons why a unit cannot be used: all of its problems. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError(pub(super) Vec<UnitProblem>);

impl UnitError {
    #[cfg(feature = "toml")]
    pub(crate) fn of_table(error: toml::de::Error) -> Self {
        let (directive, value) = Default::default();
        UnitProblem {
            file: None,
            line: 0,
            directive,
            value,
            why: error.to_string().trim_end().to_owned(),
        }
        .into()
    }

    /// Returns the problems, in the order of the lines.
    pub fn problems(&self) -> &[UnitProblem] {
        &self.0
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the unit cannot be used: {one}"),
            all => {
                write!(f, "the unit cannot be used: {} problems", all.len())?;
                all.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
        }
    }
}

impl std::error::Error for UnitError {}

impl From<UnitProblem> for UnitError {
    fn from(problem: UnitProblem) -> Self {
        Self(vec![problem])
    }
}

/// A directive that was read, and that this crate cannot express.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsupported {
    /// The file; `None` for text that was given.
    pub file: Option<PathBuf>,
    /// The line, counted from 1.
    pub line: usize,
    /// The name of the directive.
    pub directive: String,
    /// The value of the directive.
    pub value: String,
}
