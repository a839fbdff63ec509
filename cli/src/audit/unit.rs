//! `--unit`: whether the threads of a unit's processes have the state that its directives promise.
//!
//! The crate `privileges` reads the unit. This module turns each directive into an expectation that can be checked from
//! outside. A directive whose effect the kernel does not show is reported as not checked.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use libpsx::process::CapabilitySet;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use privileges::Id;
use privileges::unit::{Directives, Unit};

use super::expect::{Checker, Comparison, Expectation, Failure, Level, Sets, Wanted};
use super::process::Process;

/// The promises of a unit.
pub(crate) struct Promises {
    name: String,
    /// The name of the unit's file, after which systemd names its control group. It differs from `name` for an alias.
    own: String,
    expectations: Vec<(Expectation, Level)>,
}

/// Directives for which systemd gives a service its own mount namespace, systemd.exec(5).
const MOUNT: [&str; 24] = [
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImages",
    "InaccessiblePaths",
    "MountImages",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "RootHash",
    "RootImage",
    "TemporaryFileSystem",
];

/// Directives that systemd implements with a seccomp filter.
const FILTER: [&str; 13] = [
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "PrivateDevices",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallLog",
];

/// Directives that give a service another namespace of its own.
const NAMESPACES: [(&str, &str); 5] = [
    ("PrivateIPC", "ipc"),
    ("PrivateNetwork", "net"),
    ("PrivatePIDs", "pid"),
    ("PrivateUsers", "user"),
    ("ProtectHostname", "uts"),
];

impl Promises {
    /// Reads a unit of this system with its drop-ins, or the file with this path.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{shown} is not the name of a unit"))?;
        let unit = crate::unit::named(path);
        let unit = unit.with_context(|| format!("--unit {shown}: no process was read"))?;
        let full = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
        Self::of(full, &unit)
    }

    fn of(name: String, unit: &Unit) -> Result<Self> {
        let prefix = unit.exec_start().unwrap_or_default();
        let prefixes: Vec<char> = prefix
            .chars()
            .take_while(|one| matches!(one, '@' | '-' | ':' | '+' | '!' | '|'))
            .collect();
        if prefixes.contains(&'+') {
            bail!("{name} starts its program with full privileges (ExecStart=+): nothing to check");
        }
        let own = own_name(&name, unit.files().first().map(PathBuf::as_path));
        let mut found = Self { name, own, expectations: Vec::new() };
        // After `!` the program changes its IDs and capabilities itself.
        if !prefixes.contains(&'!') {
            found.identity(unit.directives())?;
        }
        found.confinement(unit);
        found.resources(unit.directives());
        found.unchecked(unit);
        if found.expectations.is_empty() {
            bail!("{} has no directive that restricts its processes: nothing to check", found.name);
        }
        Ok(found)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the process belongs to the unit, or to a unit below it.
    pub(crate) fn is_of(&self, process: &Process) -> bool {
        [&self.name, &self.own].into_iter().any(|name| process.identity.is_of(name))
    }

    pub(crate) fn check(&self, process: &Process, checker: &mut Checker<'_>) -> Vec<Failure> {
        if process.groups.is_empty() {
            return Vec::new();
        }
        let check = |(expectation, level): &(Expectation, Level)| {
            expectation.check(process, Some(&self.name), *level, checker)
        };
        self.expectations.iter().filter_map(check).collect()
    }

    /// Adds an expectation in the form of `--expect`.
    fn add(&mut self, level: Level, directive: &str, text: &str) -> Result<()> {
        let wanted: Expectation = text.parse().map_err(|why| {
            anyhow::anyhow!("{}: {directive}=: {why}; no process was read", self.name)
        })?;
        self.expectations.push((wanted.titled(format!("{directive}= ({text})")), level));
        Ok(())
    }

    fn sets(&mut self, level: Level, directive: &str, which: Sets, most: CapabilitySet) {
        let name = match which {
            Sets::Bounding => "bounding",
            Sets::Ambient => "ambient",
            _ => "caps",
        };
        let shown = super::names::set(most);
        let wanted = Wanted::Sets(which, Comparison::AtMost, most);
        let text = format!("{directive}= ({name}<={shown})");
        self.expectations.push((Expectation::new(text, wanted), level));
    }

    fn identity(&mut self, directives: &Directives) -> Result<()> {
        if let Some(user) = &directives.user {
            let user = text(user);
            self.add(Level::Error, "User", &format!("uid={user}"))?;
            if let (None, Ok(Some(entry))) = (&directives.group, entry(&user)) {
                self.add(Level::Error, "User", &format!("gid={}", entry.gid))?;
            }
        }
        if let Some(group) = &directives.group {
            self.add(Level::Error, "Group", &format!("gid={}", text(group)))?;
        }
        let groups = directives.supplementary_groups.iter().flatten();
        let groups: Vec<_> = groups.map(text).collect();
        if !groups.is_empty() {
            let text = format!("groups>={}", groups.join("+"));
            self.add(Level::Error, "SupplementaryGroups", &text)?;
        }
        if let Some(user) = &directives.user {
            let most = groups_of(&text(user), directives.group.as_ref().map(text).as_deref());
            let most =
                most.with_context(|| format!("{}: User=: the groups of the user", self.name))?;
            let most: Vec<_> =
                most.into_iter().map(|group| group.to_string()).chain(groups).collect();
            let most = if most.is_empty() { "none".to_owned() } else { most.join("+") };
            let groups = super::expect::groups(&most).map_err(anyhow::Error::msg)?;
            let wanted = Wanted::Groups(Comparison::AtMost, groups);
            let text = format!("User= (groups<={most})");
            self.expectations.push((Expectation::new(text, wanted), Level::Error));
        }
        if let Some(bounding) = directives.capability_bounding_set {
            self.sets(Level::Error, "CapabilityBoundingSet", Sets::Bounding, bounding);
            self.sets(Level::Error, "CapabilityBoundingSet", Sets::Any, bounding);
        }
        if let Some(ambient) = directives.ambient_capabilities {
            self.sets(Level::Error, "AmbientCapabilities", Sets::Ambient, ambient);
        }
        let user = directives.user.as_ref().map(text);
        if user.is_some_and(|user| user != "root" && user != "0") {
            // A program with file capabilities can have more, unless no_new_privs is set.
            let nnp = directives.no_new_privileges == Some(true);
            let level = if nnp { Level::Error } else { Level::Warning };
            let ambient = directives.ambient_capabilities.unwrap_or_default();
            self.sets(level, "User", Sets::Any, ambient);
            // No file gives ambient capabilities.
            self.sets(Level::Error, "User", Sets::Ambient, ambient);
        }
        Ok(())
    }

    fn confinement(&mut self, unit: &Unit) {
        let directives = unit.directives();
        let has = |name: &str| unit.unsupported().iter().any(|one| one.directive == name);
        let mut add = |directive: &str, text: &str, wanted: Wanted| {
            let text = format!("{directive}= ({text})");
            self.expectations.push((Expectation::new(text, wanted), Level::Error));
        };
        if directives.no_new_privileges == Some(true) {
            add("NoNewPrivileges", "nnp=1", Wanted::NoNewPrivs(true));
        } else if has("DynamicUser") {
            add("DynamicUser", "nnp=1", Wanted::NoNewPrivs(true));
        }
        let by_name = FILTER.iter().find(|name| has(name)).copied();
        let by_value = directives.system_call_filter.is_some().then_some("SystemCallFilter");
        let native = directives.system_call_architectures_native == Some(true);
        let native = native.then_some("SystemCallArchitectures");
        if let Some(name) = by_value.or(native).or(by_name) {
            add(name, "seccomp=filter", Wanted::Seccomp(2));
        }
        if let Some(name) = MOUNT.iter().find(|name| has(name)) {
            let wanted = Wanted::Namespaces(Comparison::AtLeast, vec!["mnt"]);
            add(name, "namespaces>=mnt", wanted);
        }
        for (name, kind) in NAMESPACES {
            let supported = match name {
                "PrivateIPC" => directives.private_ipc == Some(true),
                "PrivateNetwork" => directives.private_network == Some(true),
                _ => false,
            };
            if supported || has(name) {
                let wanted = Wanted::Namespaces(Comparison::AtLeast, vec![kind]);
                add(name, &format!("namespaces>={kind}"), wanted);
            }
        }
        if directives.root_directory.is_some() {
            add("RootDirectory", "other files than psx", Wanted::OtherFiles);
        }
        if directives.secure_bits.is_some() {
            add("SecureBits", "securebits", Wanted::Hidden("securebits"));
        }
        if directives.keyring_mode.is_some() {
            add("KeyringMode", "keyrings", Wanted::Hidden("keyrings"));
        }
    }

    /// Adds the expectations about resources. A process can change these itself, so a difference is a warning.
    fn resources(&mut self, directives: &Directives) {
        let mut add = |directive: &str, text: String, wanted: Wanted| {
            let text = format!("{directive}= ({text})");
            self.expectations.push((Expectation::new(text, wanted), Level::Warning));
        };
        if let Some(umask) = directives.umask {
            add("UMask", format!("umask={umask:04o}"), Wanted::Umask(umask));
        }
        if let Some(nice) = directives.nice {
            add("Nice", format!("nice={nice}"), Wanted::Nice(nice));
        }
        if let Some(priority) = directives.cpu_scheduling_priority {
            let text = format!("priority={priority}");
            add("CPUSchedulingPriority", text, Wanted::Priority(priority));
        }
        let slack = directives.timer_slack.and_then(|slack| u64::try_from(slack.as_nanos()).ok());
        if let Some(slack) = slack {
            add("TimerSlackNSec", format!("timer-slack={slack}"), Wanted::TimerSlack(slack));
        }
        if let Some(policy) = &directives.cpu_scheduling_policy {
            if let Ok(expectation) = format!("sched={policy}").parse::<Expectation>() {
                let text = format!("CPUSchedulingPolicy= (sched={policy})");
                self.expectations.push((expectation.titled(text), Level::Warning));
            }
        }
    }

    /// Notes the directives whose effect nothing above checks.
    fn unchecked(&mut self, unit: &Unit) {
        let known = |name: &str| {
            MOUNT.contains(&name)
                || FILTER.contains(&name)
                || NAMESPACES.iter().any(|(known, _)| *known == name)
        };
        let mut names: Vec<_> =
            unit.unsupported().iter().map(|one| one.directive.clone()).collect();
        names.retain(|name| !known(name));
        names.sort();
        names.dedup();
        for name in names {
            let text = format!("{name}=");
            let wanted = Wanted::Hidden("effect of this directive");
            self.expectations.push((Expectation::new(text, wanted), Level::Info));
        }
    }
}

/// Returns the name of the unit's file. That of a template gets the instance of the name that was given.
fn own_name(given: &str, file: Option<&Path>) -> String {
    let Some(own) = file.and_then(Path::file_name).and_then(|own| own.to_str()) else {
        return given.to_owned();
    };
    let instance = |name: &str| -> Option<String> {
        let (_, rest) = name.split_once('@')?;
        Some(rest.rsplit_once('.')?.0.to_owned())
    };
    match (own.split_once("@."), instance(given)) {
        (Some((prefix, kind)), Some(instance)) => format!("{prefix}@{instance}.{kind}"),
        _ => own.to_owned(),
    }
}

/// Returns the entry of a user in the user database.
fn entry(user: &str) -> nix::Result<Option<User>> {
    match user.parse() {
        Ok(id) => User::from_uid(Uid::from_raw(id)),
        Err(_) => User::from_name(user),
    }
}

/// Returns the groups that systemd gives a process of this user beside those of `SupplementaryGroups=`: those of the user
/// database, and the main group.
fn groups_of(user: &str, group: Option<&str>) -> Result<Vec<Gid>> {
    let entry = entry(user)?;
    let main = match group {
        Some(group) => match group.parse() {
            Ok(id) => Some(Gid::from_raw(id)),
            Err(_) => Group::from_name(group)?.map(|entry| entry.gid),
        },
        None => entry.as_ref().map(|entry| entry.gid),
    };
    let Some(entry) = entry else { return Ok(main.into_iter().collect()) };
    let name = CString::new(entry.name)?;
    Ok(getgrouplist(&name, main.unwrap_or(entry.gid))?)
}

/// Returns a user or group in the form of `--expect`.
fn text(id: &Id) -> String {
    match id {
        Id::Name(name) => name.clone(),
        Id::Number(number) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn promises(text: &str) -> Result<Vec<(String, Level)>> {
        let unit = Unit::parse(text)?;
        let found = Promises::of("a.service".to_owned(), &unit)?;
        Ok(found.expectations.into_iter().map(|(one, level)| (one.text, level)).collect())
    }

    #[test]
    fn directives_become_expectations() {
        let found = promises(
            "[Service]\nExecStart=/bin/true\nUser=root\nGroup=0\nCapabilityBoundingSet=CAP_KILL\n\
             NoNewPrivileges=yes\nSystemCallFilter=@system-service\nProtectSystem=strict\nUMask=0077\n\
             PrivateNetwork=yes\nNice=5\n",
        );
        let found = found.unwrap();
        for wanted in [
            ("User= (uid=root)", Level::Error),
            ("User= (groups<=0)", Level::Error),
            ("Group= (gid=0)", Level::Error),
            ("CapabilityBoundingSet= (bounding<=cap_kill)", Level::Error),
            ("CapabilityBoundingSet= (caps<=cap_kill)", Level::Error),
            ("NoNewPrivileges= (nnp=1)", Level::Error),
            ("SystemCallFilter= (seccomp=filter)", Level::Error),
            ("ProtectSystem= (namespaces>=mnt)", Level::Error),
            ("PrivateNetwork= (namespaces>=net)", Level::Error),
            ("UMask= (umask=0077)", Level::Warning),
            ("Nice= (nice=5)", Level::Warning),
        ] {
            let is = |one: &(String, Level)| (one.0.as_str(), one.1) == wanted;
            assert!(found.iter().any(is), "{wanted:?}: {found:?}");
        }
    }

    #[test]
    fn a_user_has_no_other_groups_and_ambient_capabilities() {
        for (lines, groups, ambient) in [
            ("User=65534\nGroup=7", "groups<=7", "ambient<=none"),
            (
                "User=65533\nGroup=7\nSupplementaryGroups=8\nAmbientCapabilities=CAP_KILL",
                "groups<=7+8",
                "ambient<=cap_kill",
            ),
        ] {
            let found = promises(&format!("[Service]\nExecStart=/bin/true\n{lines}\n")).unwrap();
            for wanted in [groups, ambient] {
                let wanted = (format!("User= ({wanted})"), Level::Error);
                assert!(found.contains(&wanted), "{wanted:?}: {found:?}");
            }
        }
    }

    #[test]
    fn a_unit_without_a_promise_is_an_error() {
        for text in [
            "[Service]\nExecStart=/bin/true\n",
            "[Service]\nExecStart=+/bin/true\nNoNewPrivileges=yes\n",
            "[Service]\nUser=no-such-user\n",
        ] {
            assert!(promises(text).is_err(), "{text}");
        }
        // After an exclamation mark in `ExecStart=` the program changes its IDs itself.
        let found = promises("[Service]\nExecStart=!/bin/true\nUser=root\nNoNewPrivileges=yes\n");
        assert_eq!(found.unwrap(), [("NoNewPrivileges= (nnp=1)".to_owned(), Level::Error)]);
    }

    /// systemd names the control group after the file of the unit, also if the unit was started by an alias.
    #[test]
    fn an_alias_leads_to_the_name_of_the_unit() {
        let place = std::env::temp_dir().join(format!("psx-alias-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let text = "[Service]\nExecStart=/bin/true\nNoNewPrivileges=yes\n";
        for file in ["real.service", "real@.service", "real@own.service"] {
            std::fs::write(place.join(file), text).unwrap();
        }
        for (alias, file) in [
            ("alias.service", "real.service"),
            ("alias@.service", "real@.service"),
            ("alias@own.service", "real@own.service"),
            ("alias@one.service", "real@.service"),
        ] {
            std::os::unix::fs::symlink(file, place.join(alias)).unwrap();
        }
        for (given, own) in [
            ("real.service", "real.service"),
            ("alias.service", "real.service"),
            ("real@a.b.service", "real@a.b.service"),
            ("alias@a.b.service", "real@a.b.service"),
            ("alias@own.service", "real@own.service"),
            ("alias@one.service", "real@one.service"),
        ] {
            let unit = Unit::find_in(given, &[place.as_path()]).unwrap();
            let found = Promises::of(given.to_owned(), &unit).unwrap();
            assert_eq!((found.name(), &*found.own), (given, own));
        }
        assert_eq!(promises(text).unwrap().len(), 1, "a unit without a file");
        std::fs::remove_dir_all(place).unwrap();
    }

    proptest! {
        #[test]
        fn no_unit_makes_psx_panic(
            parts in prop::collection::vec(prop::sample::select(vec![
                "[Service]\n", "[Unit]\n", "User", "Group", "SupplementaryGroups", "UMask", "Nice",
                "CapabilityBoundingSet", "AmbientCapabilities", "SystemCallFilter", "ProtectSystem",
                "CPUSchedulingPolicy", "CPUSchedulingPriority", "TimerSlackNSec", "DynamicUser",
                "RootDirectory", "ExecStart", "=", "~", "yes", "no", "root", "0", "-1", "+", "!", "/",
                "CAP_KILL", "@system-service", "fifo", "\\", " ", "\n", "\n", "%i", "\"", "#", "\u{e9}",
            ]), 0..24),
        ) {
            let _ = promises(&parts.concat());
        }
    }
}
