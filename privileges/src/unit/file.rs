//! The lines of a unit file, systemd.syntax(7).
#![forbid(unsafe_code)]

/// Sections whose directives say how a program is executed.
const EXECUTION: [&str; 4] = ["Service", "Socket", "Mount", "Swap"];
/// The ends of the names of units that execute no program.
const IDLE: [&str; 7] = ["automount", "device", "path", "scope", "slice", "target", "timer"];
/// The other sections that a unit may have.
const OTHERS: [&str; 8] =
    ["Unit", "Install", "Automount", "Path", "Timer", "Slice", "Scope", "Device"];

/// What systemd takes for white space in the lines of a file.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The kind of a unit, which says which section is about the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// The first section for execution decides.
    #[default]
    Unknown,
    /// The unit executes a program as this section says.
    Section(&'static str),
    /// The first section for execution was this one, and a file name did not say the kind.
    Guessed(&'static str),
    /// The unit executes no program.
    Idle,
}

impl Kind {
    /// Returns the kind by the name of the unit's file.
    pub(super) fn of(name: &str) -> Self {
        match name.rsplit_once('.').map_or("", |(_, end)| end) {
            "service" => Self::Section("Service"),
            "socket" => Self::Section("Socket"),
            "mount" => Self::Section("Mount"),
            "swap" => Self::Section("Swap"),
            end if IDLE.contains(&end) => Self::Idle,
            _ => Self::Unknown,
        }
    }

    /// Returns whether a section for execution counts in a unit of this kind, or why it must not be there.
    fn counts(&mut self, section: &'static str) -> Result<bool, String> {
        match *self {
            Self::Unknown => {
                *self = Self::Guessed(section);
                Ok(true)
            }
            Self::Section(own) => Ok(own == section),
            Self::Guessed(own) if own == section => Ok(true),
            Self::Guessed(own) => Err(format!(
                "the unit has [{own}] and [{section}]; systemd reads one of them, by the end of the file's name"
            )),
            Self::Idle => Ok(false),
        }
    }
}

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
        if line.trim_start_matches(SPACE).starts_with(['#', ';']) {
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
    all.retain(|(_, line)| !line.trim_matches(SPACE).is_empty());
    all
}

/// Returns where systemd would end a line and this module would not: at a byte of value 0, and at a carriage return
/// without a line feed. A comment or a value that goes on there would hide a directive.
fn hidden_end(text: &str) -> Option<BadLine> {
    let next = text.bytes().skip(1).map(Some).chain([None]);
    let bad = |(byte, next): (u8, Option<u8>)| byte == 0 || byte == b'\r' && next != Some(b'\n');
    let at = text.bytes().zip(next).position(bad)?;
    let before = text.as_bytes().get(..=at).unwrap_or_default();
    let what = match before.last() {
        Some(0) => "a byte of value 0",
        _ => "a carriage return without a line feed",
    };
    let line = before.iter().filter(|&&byte| byte == b'\n').count().saturating_add(1);
    Some(BadLine { line, why: format!("the line has {what}, where systemd ends a line") })
}

/// Returns the assignments of the section for execution, and the invalid lines, in their order. Notes whether there was
/// such a section, and which one if the kind of the unit is not known.
pub(super) fn assignments(
    text: &str,
    kind: &mut Kind,
    executes: &mut bool,
) -> Vec<Result<Assignment, BadLine>> {
    /// The section that a line is in.
    enum Section {
        None,
        Execution,
        Other,
    }
    if let Some(bad) = hidden_end(text) {
        return vec![Err(bad)];
    }
    let mut section = Section::None;
    let mut all = Vec::new();
    for (line, text) in lines(text) {
        let text = text.trim_matches(SPACE);
        let bad = |why: &str| Err(BadLine { line, why: why.to_owned() });
        if let Some(rest) = text.strip_prefix('[') {
            let name = rest.strip_suffix(']');
            let own = EXECUTION.iter().find(|&&own| name == Some(own));
            section = match (name, own) {
                (_, Some(own)) => match kind.counts(own) {
                    Ok(true) => {
                        *executes = true;
                        Section::Execution
                    }
                    Ok(false) => Section::Other,
                    Err(why) => {
                        all.push(bad(&why));
                        Section::Other
                    }
                },
                (Some(name), _) if OTHERS.contains(&name) || name.starts_with("X-") => {
                    Section::Other
                }
                (Some(name), _) => {
                    all.push(bad(&format!("units have no section [{}]", name.escape_debug())));
                    Section::Other
                }
                (None, _) => {
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
            (Section::Execution, Some((name, value))) if !name.trim_matches(SPACE).is_empty() => {
                let [name, value] = [name, value].map(|text| text.trim_matches(SPACE).to_owned());
                all.push(Ok(Assignment { line, name, value }));
            }
            (Section::Execution, _) => {
                all.push(bad("the line is neither NAME=VALUE, nor a section, nor a comment"))
            }
        }
    }
    all
}
