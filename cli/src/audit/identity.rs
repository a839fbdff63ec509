//! The identity of a process: its parent, its command line, its unit and its container.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::Serialize;

use super::mapping;
use crate::tasks::{self, Stat, Status, is_no_such_process};

/// The length of a container's ID in the names of control groups.
const ID: usize = 64;

/// The properties by which an operator recognizes a process.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    pub(crate) parent: i32,
    /// When the process started, in clock ticks since the system started.
    pub(crate) start: u64,
    /// The arguments, the program first. Empty: a zombie, or the process has overwritten them.
    pub(crate) command: Vec<Vec<u8>>,
    /// The innermost unit of systemd.
    pub(crate) unit: Option<String>,
    /// The path of the control group. A unit can have others below it, for example the scope of a payload.
    path: String,
    pub(crate) container: Option<Container>,
    /// Whether its control group cannot be read, so that unit and container are not known.
    pub(crate) place_unseen: bool,
    /// Whether the process can be dumped, and traced by its user. None if the effective user is root, because
    /// root owns the files in /proc in both cases, or if it cannot be seen.
    pub(crate) dumpable: Option<bool>,
    /// Whether the effective user is root, so that the kernel shows no user whether the process can be dumped.
    pub(crate) of_root: bool,
}

/// A container, as the path of a control group names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Container {
    /// The program that made the container, if the path names it.
    pub(crate) engine: Option<&'static str>,
    pub(crate) id: String,
}

impl Identity {
    /// Reads the identity of a process: from `stat`, which is that of its leader, and from one of its threads, which is
    /// not dead if any thread lives.
    pub(crate) fn read(
        directory: &tasks::Process,
        stat: &Stat,
        (tid, status): (i32, &Status),
    ) -> Self {
        let task = directory.task(tid);
        let task = task.or_else(|_| directory.task(status.process)).ok();
        let read = |file| task.as_ref().map_or(Err(Errno::ESRCH), |task| task.read(file));
        let cgroup = read("cgroup");
        // A kernel without control groups has no such file.
        let place_unseen = cgroup.as_ref().is_err_and(|&error| !is_no_such_process(error));
        let path = control_group(&cgroup.unwrap_or_default());
        let owner = task.as_ref().and_then(|task| task.owner("status").ok());
        let effective = status.credentials.user.effective;
        let dumpable = match (effective, owner) {
            (0, _) | (_, None) => None,
            (user, _) if mapping::user_unseen(user) => None,
            (user, Some(owner)) => Some(user == owner),
        };
        Self {
            parent: stat.parent,
            start: stat.start,
            command: arguments(&read("cmdline").unwrap_or_default()),
            unit: unit(&path),
            container: container(&path),
            path,
            place_unseen,
            dumpable,
            of_root: effective == 0,
        }
    }

    /// Returns whether the process belongs to this unit or to a unit below it. The name is that of the unit's file.
    ///
    /// A name that a user may have given to a control group does not count, see [`Self::is_of_any`].
    pub(crate) fn is_of(&self, unit: &str) -> bool {
        self.is_in(|part| part == unit)
    }

    /// Returns whether a unit of the process matches, as [`Self::units`] shows it. A control group counts only if the service
    /// manager of the system has made it, as far as psx can see: no service and no scope is above it, because these
    /// can be delegated, and all control groups above it are root's.
    pub(crate) fn is_of_any(&self, matches: impl Fn(&str) -> bool) -> bool {
        self.is_in(|part| is_unit(part) && (matches(part) || matches(&unescaped(part))))
    }

    fn is_in(&self, matches: impl Fn(&str) -> bool) -> bool {
        let mut above = PathBuf::new();
        for part in self.path.split('/').filter(|part| !part.is_empty()) {
            if matches(part) {
                return above.ancestors().all(only_root_writes);
            }
            if is_unit(part) {
                return false;
            }
            above.push(part);
        }
        false
    }

    /// Returns the names of all units of the process, the innermost first: as the file of the unit is called, and
    /// without escapes.
    pub(crate) fn units(&self) -> impl Iterator<Item = String> {
        units(&self.path).flat_map(|unit| [unit.to_owned(), unescaped(unit)])
    }
}

/// Splits the file `cmdline`. A process that has overwritten it (setproctitle) leaves one argument, often with zeros
/// at the end.
pub(crate) fn arguments(text: &[u8]) -> Vec<Vec<u8>> {
    let end = text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last.saturating_add(1));
    match text.get(..end) {
        None | Some([]) => Vec::new(),
        Some(text) => text.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect(),
    }
}

/// Returns the path in the unified hierarchy, or in that of systemd.
pub(crate) fn control_group(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let systemd = text.lines().find_map(|line| line.split_once(":name=systemd:"));
    let systemd = systemd.map(|(_, path)| path.to_owned());
    let unified = text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned);
    let named = unified.filter(|path| path != "/").or(systemd);
    // Without systemd, the first hierarchy with a path names the container.
    let any = || {
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        paths.into_iter().find(|path| *path != "/").map(str::to_owned)
    };
    named.or_else(any).unwrap_or_default()
}

/// Returns the innermost part of the path that is a service or a scope. A container's own scope counts too.
pub(crate) fn unit(path: &str) -> Option<String> {
    units(path).next().map(unescaped)
}

/// Returns the parts of the path that are units, the innermost first.
fn units(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').rev().filter(|part| is_unit(part))
}

/// Returns whether only root may make control groups in this one. A control group that psx cannot find counts as root's.
fn only_root_writes(path: &Path) -> bool {
    const MOUNTS: [&str; 3] =
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    MOUNTS.iter().all(|mount| match std::fs::metadata(Path::new(mount).join(path)) {
        Ok(found) => {
            let others = if found.gid() == 0 { 0o002 } else { 0o022 };
            found.uid() == 0 && found.mode() & others == 0
        }
        Err(_) => true,
    })
}

/// Returns whether a part of a path is a unit with processes.
fn is_unit(part: &str) -> bool {
    [".service", ".scope", ".mount", ".swap", ".socket"].iter().any(|end| part.ends_with(end))
}

/// Resolves `\x2d` as systemd writes it in the names of units.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The name that each engine puts before the ID, or the directory above it.
const ENGINES: [(&str, &str); 8] = [
    ("docker", "docker"),
    ("libpod", "podman"),
    ("crio", "cri-o"),
    ("cri-containerd", "containerd"),
    ("kubepods", "kubernetes"),
    ("buildkit", "buildkit"),
    ("garden", "garden"),
    ("ecs", "ecs"),
];

pub(crate) fn container(path: &str) -> Option<Container> {
    for part in path.split('/').rev() {
        let stem = part.strip_suffix(".scope").unwrap_or(part);
        let stem = stem.strip_suffix(".service").unwrap_or(stem);
        let (before, id) = match stem.len().checked_sub(ID) {
            Some(start) if stem.is_char_boundary(start) => stem.split_at(start),
            _ => ("", stem),
        };
        if id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let engine = ENGINES.iter().find(|(word, _)| before.starts_with(word));
            let engine = engine.or_else(|| ENGINES.iter().find(|(word, _)| path.contains(word)));
            return Some(Container { engine: engine.map(|(_, name)| *name), id: id.to_owned() });
        }
        let named = [
            ("lxc.payload.", "lxc"),
            ("lxc.monitor.", "lxc"),
            ("machine-", "machined"),
            ("systemd-nspawn@", "nspawn"),
        ];
        for (prefix, engine) in named {
            let machine = stem.strip_prefix(prefix).filter(|_| part != stem || engine == "lxc");
            if let Some(name) = machine.filter(|name| !name.is_empty()) {
                return Some(Container { engine: Some(engine), id: unescaped(name) });
            }
        }
    }
    let lxc = path.strip_prefix("/lxc/").and_then(|rest| rest.split('/').next());
    lxc.map(|name| Container { engine: Some("lxc"), id: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn of(text: &str) -> (Option<String>, Option<(Option<&'static str>, String)>) {
        let path = control_group(text.as_bytes());
        (unit(&path), container(&path).map(|found| (found.engine, found.id)))
    }

    #[test]
    fn units_and_containers_are_found_in_control_groups() {
        let id = || HEX.to_owned();
        for (text, name, engine) in [
            ("0::/system.slice/nginx.service\n".to_owned(), Some("nginx.service"), None),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n".to_owned(),
                Some("x.service"),
                None,
            ),
            (
                "0::/system.slice/system-getty.slice/a\\x2db@c.service/sub\n".to_owned(),
                Some("a-b@c.service"),
                None,
            ),
            (
                "1:name=systemd:/system.slice/cron.service\n0::/\n".to_owned(),
                Some("cron.service"),
                None,
            ),
            ("0::/\n".to_owned(), None, None),
            (String::new(), None, None),
            (
                format!("0::/system.slice/docker-{HEX}.scope\n"),
                Some(&*format!("docker-{HEX}.scope")),
                Some((Some("docker"), id())),
            ),
            (format!("4:cpu:/docker/{HEX}\n0::/\n"), None, Some((Some("docker"), id()))),
            (
                format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{HEX}.scope\n"),
                Some(&*format!("cri-containerd-{HEX}.scope")),
                Some((Some("containerd"), id())),
            ),
            (
                format!("0::/x/libpod-{HEX}.scope/container\n"),
                Some(&*format!("libpod-{HEX}.scope")),
                Some((Some("podman"), id())),
            ),
            ("0::/lxc.payload.web/init\n".to_owned(), None, Some((Some("lxc"), "web".to_owned()))),
            (
                "0::/machine.slice/machine-my\\x2dbox.scope/payload\n".to_owned(),
                Some("machine-my-box.scope"),
                Some((Some("machined"), "my-box".to_owned())),
            ),
        ] {
            assert_eq!(of(&text), (name.map(str::to_owned), engine), "{text}");
        }
    }

    #[test]
    fn a_process_belongs_to_every_unit_of_its_path() {
        let path = "/system.slice/a\\x2db.service/payload.scope".to_owned();
        let identity = Identity { path, ..Identity::default() };
        for unit in ["a\\x2db.service", "system.slice"] {
            assert!(identity.is_of(unit), "{unit}");
        }
        // A service can have made the control groups below it.
        for unit in ["a-b.service", "b.service", "payload", "payload.scope"] {
            assert!(!identity.is_of(unit), "{unit}");
        }
        for (unit, is) in [("a-b.service", true), ("payload.scope", false), ("system.slice", false)]
        {
            assert_eq!(identity.is_of_any(|name| name == unit), is, "{unit}");
        }
        let units: Vec<_> = identity.units().collect();
        assert_eq!(units, ["payload.scope", "payload.scope", "a\\x2db.service", "a-b.service"]);
    }

    #[test]
    fn a_user_cannot_make_a_process_belong_to_a_unit() {
        for (path, is) in [
            ("/system.slice/nginx.service", true),
            ("/nginx.service/worker", true),
            ("/user.slice/user-1.slice/user@1.service/app.slice/nginx.service", false),
            ("/user.slice/user-1.slice/session-2.scope/nginx.service", false),
            ("/system.slice/ci.service/nginx.service", false),
            ("/machine.slice/docker.scope/system.slice/nginx.service", false),
        ] {
            let identity = Identity { path: path.to_owned(), ..Identity::default() };
            assert_eq!(identity.is_of("nginx.service"), is, "{path}");
            assert_eq!(identity.is_of_any(|unit| unit == "nginx.service"), is, "{path}");
        }
        let manager = "/user.slice/user-1.slice/user@1.service/init.scope".to_owned();
        let identity = Identity { path: manager, ..Identity::default() };
        assert!(identity.is_of("user@1.service"));
    }

    #[test]
    fn command_lines_are_split_and_zeros_at_the_end_dropped() {
        assert_eq!(arguments(b"a\0b c\0"), [b"a".to_vec(), b"b c".to_vec()]);
        assert_eq!(arguments(b"title\0\0\0\0"), [b"title".to_vec()]);
        assert_eq!(arguments(b"\0\0"), Vec::<Vec<u8>>::new());
        assert_eq!(arguments(b""), Vec::<Vec<u8>>::new());
        assert_eq!(arguments(b"a\0\0b"), [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
    }
}
