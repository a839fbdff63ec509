//! The lines of a unit file, systemd.syntax(7).
#![forbid(unsafe_code)]

/// Sections whose directives say how a program is executed.
const EXECUTION: [&str; 4] = ["Service", "Socket", "Mount", "Swap"];
/// The other sections that a unit may have.
const OTHERS: [&str; 8] =
    ["Unit", "Install", "Automount", "Path", "Timer", "Slice", "Scope", "Device"];

/// `name=value` in a section for execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The line that it begins in, counted from 1.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) value: String,
}

/// A line that a unit file cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) line: usize,
    pub(super) why: String,
}

/// Returns whether a line ends with a backslash that is not itself escaped.
fn goes_on(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Returns the lines that are neither empty nor comments, each with its number. Joins a line that ends with a backslash
/// with the next line that is not a comment; the backslash becomes a space.
fn lines(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let more = goes_on(line);
        let mut line = line.to_owned();
        if more {
            line.pop();
            line.push(' ');
        }
        match all.last_mut().filter(|_| open) {
            Some((_, before)) => before.push_str(&line),
            None => all.push((number, line)),
        }
        open = more;
    }
    all.retain(|(_, line)| !line.trim().is_empty());
    all
}

/// Returns the assignments of the sections for execution, and the invalid lines, in their order.
pub(super) fn assignments(text: &str) -> Vec<Result<Assignment, BadLine>> {
    /// The section that a line is in.
    enum Section {
        None,
        Execution,
        Other,
    }
    let mut section = Section::None;
    let mut all = Vec::new();
    for (line, text) in lines(text) {
        let text = text.trim();
        let bad = |why: &str| Err(BadLine { line, why: why.to_owned() });
        if text.contains('\0') {
            all.push(bad("the line has a byte of value 0"));
            continue;
        }
        if let Some(rest) = text.strip_prefix('[') {
            section = match rest.strip_suffix(']') {
                Some(name) if EXECUTION.contains(&name) => Section::Execution,
                Some(name) if OTHERS.contains(&name) || name.starts_with("X-") => Section::Other,
                Some(name) => {
                    all.push(bad(&format!("units have no section [{}]", name.escape_debug())));
                    Section::Other
                }
                None => {
                    all.push(bad("the name of a section ends with ]"));
                    Section::Other
                }
            };
            continue;
        }
        match (&section, text.split_once('=')) {
            (Section::Other, _) => {}
            (Section::None, _) => {
                all.push(bad("the line is in no section; [Service] must come before it"))
            }
            (Section::Execution, Some((name, value))) if !name.trim().is_empty() => {
                let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
                all.push(Ok(Assignment { line, name, value }));
            }
            (Section::Execution, _) => {
                all.push(bad("the line is neither NAME=VALUE, nor a section, nor a comment"))
            }
        }
    }
    all
}
