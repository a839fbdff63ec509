//! The files of a unit: systemd.unit(5), "Unit File Load Path" and "Description".
//!
//! A name leads to a file in the directory of the highest precedence, or, by a symbolic link to another name, to the file
//! of that name. All names that lead to the same file are names of one unit, and the drop-ins of each apply.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::values::Why;

/// The directories of units, in the order of precedence, as `systemd-analyze unit-paths` lists them. Where /lib is not
/// /usr/lib, systemd has both.
pub(super) const PLACES: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// The files of a unit: its own, and its drop-ins in the order in which they apply.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) unit: PathBuf,
    pub(super) drop_ins: Vec<PathBuf>,
}

/// Why the files of a unit are not known: the file or directory, and the reason.
#[derive(Debug)]
pub(super) struct NotFound {
    pub(super) file: Option<PathBuf>,
    pub(super) why: Why,
}

impl NotFound {
    fn new(why: String) -> Self {
        Self { file: None, why }
    }

    fn at(path: &Path, error: &io::Error) -> Self {
        Self { file: Some(path.to_owned()), why: error.to_string() }
    }
}

/// Finds the files of a unit by one of its names.
pub(super) fn files(name: &str, places: &[&Path]) -> Result<Files, NotFound> {
    let Some(wanted) = Name::of(name) else {
        return Err(NotFound::new(format!("{name:?} is not the name of a unit")));
    };
    let names = Names::read(places, wanted.kind)?;
    let template = wanted.template();
    let found = names.file_of(name).or_else(|| names.file_of(template.as_deref()?));
    let Some((file, own)) = found else {
        let searched: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        return Err(NotFound::new(format!("unit {name} not found in {}", searched.join(", "))));
    };
    refuse_masked(name, file)?;
    let mut directories = Vec::new();
    for name in names.all(&wanted, own) {
        let mut hierarchy = Vec::new();
        add_drop_in_names(&name, &mut hierarchy);
        for place in places {
            directories.extend(hierarchy.iter().map(|name| place.join(format!("{name}.d"))));
        }
    }
    // The most general ones are last, so that all others override them.
    directories.extend(places.iter().map(|place| place.join(format!("{}.d", wanted.kind))));
    Ok(Files { unit: file.to_owned(), drop_ins: drop_ins(&directories)? })
}

/// Returns an error if the file masks its unit: it is empty, or it leads to a device such as /dev/null.
pub(super) fn refuse_masked(name: &str, file: &Path) -> Result<(), NotFound> {
    let metadata = fs::metadata(file).map_err(|error| NotFound::at(file, &error))?;
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_block_device() || kind.is_file() && metadata.len() == 0 {
        return Err(NotFound::new(format!("unit {name} is masked by {}", file.display())));
    }
    Ok(())
}

/// Returns the drop-ins of directories, in the order of their names. Of files with the same name, the one in the directory
/// that comes first counts.
pub(super) fn drop_ins(directories: &[PathBuf]) -> Result<Vec<PathBuf>, NotFound> {
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in directories {
        for (name, path, kind) in entries(directory)? {
            let bytes = name.as_encoded_bytes();
            let is_drop_in = bytes.ends_with(b".conf") && !bytes.starts_with(b".");
            if is_drop_in && !kind.is_dir() {
                found.entry(name).or_insert(path);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Returns the entries of a directory: name, path and kind. A directory that does not exist has none.
fn entries(directory: &Path) -> Result<Vec<(OsString, PathBuf, fs::FileType)>, NotFound> {
    let bad = |error: io::Error| NotFound::at(directory, &error);
    let list = match fs::read_dir(directory) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(bad(error)),
    };
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.map_err(bad)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| NotFound::at(&path, &error))?;
        Ok((entry.file_name(), path, kind))
    };
    list.map(entry).collect()
}

/// The name of a unit: `prefix.kind`, `prefix@.kind` (a template) or `prefix@instance.kind`.
#[derive(Debug, Clone, Copy)]
struct Name<'a> {
    prefix: &'a str,
    /// What follows `@`; it is empty in a template.
    instance: Option<&'a str>,
    kind: &'a str,
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (stem, kind) = name.rsplit_once('.')?;
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance)),
            None => (stem, None),
        };
        (!prefix.is_empty() && !kind.is_empty()).then_some(Self { prefix, instance, kind })
    }

    /// Returns the instance, unless this is the name of a template.
    fn of_instance(&self) -> Option<&'a str> {
        self.instance.filter(|instance| !instance.is_empty())
    }

    fn is_template(&self) -> bool {
        self.instance == Some("")
    }

    /// Returns the name of the template of an instance.
    fn template(&self) -> Option<String> {
        self.of_instance().map(|_| with_instance(self.prefix, Some(""), self.kind))
    }

    /// Returns whether a link of this name to a file of another name makes the two names of one unit.
    fn may_be_alias_of(&self, target: &Self) -> bool {
        let same = match (self.instance, target.instance) {
            (None, None) => true,
            (Some(own), Some(other)) => own == other || !own.is_empty() && other.is_empty(),
            _ => false,
        };
        same && self.kind == target.kind
    }
}

fn with_instance(prefix: &str, instance: Option<&str>, kind: &str) -> String {
    match instance {
        Some(instance) => format!("{prefix}@{instance}.{kind}"),
        None => format!("{prefix}.{kind}"),
    }
}

/// Where a name in the directories leads to.
enum Target {
    File(PathBuf),
    /// Another name, by a symbolic link.
    Alias(String),
}

/// The names of units of one kind.
struct Names(BTreeMap<String, Target>);

impl Names {
    fn read(places: &[&Path], kind: &str) -> Result<Self, NotFound> {
        let real = |place: &&Path| fs::canonicalize(place).unwrap_or_else(|_| place.to_path_buf());
        let real_places: Vec<PathBuf> = places.iter().map(real).collect();
        let mut names = BTreeMap::new();
        for place in places {
            for (name, path, file) in entries(place)? {
                let Some(name) = name.to_str() else { continue };
                let Some(parts) = Name::of(name).filter(|parts| parts.kind == kind) else {
                    continue;
                };
                if file.is_dir() || names.contains_key(name) {
                    continue;
                }
                let mut target = Target::File(path.clone());
                if file.is_symlink() {
                    let link = fs::read_link(&path).map_err(|error| NotFound::at(&path, &error))?;
                    let link = place.join(link);
                    if let Some(other) = name_in(&real_places, &link) {
                        let alias = Name::of(&other).filter(|other| parts.may_be_alias_of(other));
                        // A link that cannot be an alias counts for nothing, and neither does one to its own name.
                        if alias.is_none() || other == name {
                            continue;
                        }
                        target = Target::Alias(other);
                    }
                }
                names.insert(name.to_owned(), target);
            }
        }
        Ok(Self(names))
    }

    /// Returns the file that a name leads to, and the name of that file.
    fn file_of(&self, name: &str) -> Option<(&Path, &str)> {
        /// As many links as systemd follows.
        const MOST: usize = 8;
        let mut target = self.0.get(name)?;
        for _ in 0..MOST {
            match target {
                Target::File(path) => {
                    return path.file_name().and_then(|own| Some((path.as_path(), own.to_str()?)));
                }
                Target::Alias(next) => {
                    let template = || self.0.get(&Name::of(next)?.template()?);
                    target = self.0.get(next).or_else(template)?;
                }
            }
        }
        None
    }

    /// Returns all names of the unit that has the name `wanted`, and the file `own`: the file's first, with the instance.
    fn all(&self, wanted: &Name<'_>, own: &str) -> Vec<String> {
        let instance = wanted.of_instance();
        // The name for this instance of a unit, if it has an instance.
        let in_instance = |name: &str| match (Name::of(name), instance) {
            (Some(parts), Some(_)) if parts.is_template() => {
                with_instance(parts.prefix, instance, parts.kind)
            }
            _ => name.to_owned(),
        };
        let mut all = vec![in_instance(own)];
        let mut others = BTreeSet::new();
        others.insert(with_instance(wanted.prefix, wanted.instance, wanted.kind));
        for name in self.0.keys() {
            if self.file_of(name).is_none_or(|(_, file)| file != own) {
                continue;
            }
            let here = in_instance(name);
            let is_other_instance =
                Name::of(&here).is_some_and(|parts| parts.of_instance() != instance);
            let leads_elsewhere = self.file_of(&here).is_some_and(|(_, file)| file != own);
            if !is_other_instance && !leads_elsewhere {
                others.insert(here);
            }
        }
        all.extend(others.into_iter().filter(|name| *name != in_instance(own)));
        all
    }
}

/// Returns the name of the file that a path leads to, without following a link of that name, if it lies in one of the
/// directories.
fn name_in(real_places: &[PathBuf], path: &Path) -> Option<String> {
    let (directory, name) = (path.parent()?, path.file_name()?.to_str()?);
    let directory = fs::canonicalize(directory).ok()?;
    real_places.iter().any(|place| directory.starts_with(place)).then(|| name.to_owned())
}

/// Adds the names whose directories have drop-ins for a unit: the unit's own, that of its template, and the prefixes of both
/// up to each dash, as `a-b-.service` and `a-.service` for `a-b-c.service`.
fn add_drop_in_names(name: &str, all: &mut Vec<String>) {
    all.push(name.to_owned());
    let Some(parts) = Name::of(name) else { return };
    if let Some(template) = parts.template() {
        add_drop_in_names(&template, all);
    }
    // The last dash counts that is not the prefix's last character.
    let body = parts.prefix.strip_suffix('-').unwrap_or(parts.prefix);
    let Some((prefix, _)) = body.rsplit_once('-').filter(|(before, _)| !before.is_empty()) else {
        return;
    };
    // Ends: each name is shorter than the one before.
    add_drop_in_names(&with_instance(&format!("{prefix}-"), parts.of_instance(), parts.kind), all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_drop_ins_are_cut_at_each_dash() {
        for (name, wanted) in [
            ("a.service", vec!["a.service"]),
            ("a-b-c.service", vec!["a-b-c.service", "a-b-.service", "a-.service"]),
            ("-a.service", vec!["-a.service"]),
            ("a--b.service", vec!["a--b.service", "a--.service", "a-.service"]),
            ("a-b-.service", vec!["a-b-.service", "a-.service"]),
            (
                "a-b@c-d.service",
                vec![
                    "a-b@c-d.service",
                    "a-b@.service",
                    "a-.service",
                    "a-@c-d.service",
                    "a-@.service",
                ],
            ),
        ] {
            let mut all = Vec::new();
            add_drop_in_names(name, &mut all);
            assert_eq!(all, wanted, "{name}");
        }
    }

    /// Compares the directories with those of the installed systemd.
    #[test]
    fn the_places_are_those_of_systemd_analyze() {
        let output = std::process::Command::new("systemd-analyze").arg("unit-paths").output();
        let text = match output {
            Ok(output) if output.status.success() => output.stdout,
            _ => return println!("SKIPPED: systemd-analyze cannot be run here"),
        };
        let theirs = String::from_utf8(text).unwrap();
        let theirs: Vec<&str> = theirs.lines().collect();
        // A system whose /lib is /usr/lib does not list it.
        let ours: Vec<&str> = PLACES.into_iter().filter(|place| theirs.contains(place)).collect();
        assert_eq!(ours, theirs);
    }
}
