//! The security state of one task, and in which fields two states differ.

use std::fmt;

use clap::ValueEnum;
use libpsx::process::{CapabilitySet, Ids};
use nix::errno::Errno;
use serde::Serialize;

use super::mapping;
use crate::ask;
use crate::tasks::{self, Credentials, Deadline, Scheduling, Speculation, Stat, Status, Task};

/// A part of the state, under the name that the command line and the JSON use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Field {
    /// Real, effective, saved and file system user ID
    Uid,
    /// Real, effective, saved and file system group ID
    Gid,
    /// Supplementary groups
    Groups,
    /// Effective, permitted and inheritable capabilities
    Caps,
    /// Ambient capabilities
    Ambient,
    /// Bounding set of capabilities
    Bounding,
    /// no_new_privs
    Nnp,
    /// Seccomp mode and number of filters
    Seccomp,
    /// Namespaces
    Namespaces,
    /// Label of the Linux security module
    Label,
    /// Root directory
    Root,
    /// Working directory
    Cwd,
    /// Umask
    Umask,
    /// Personality (execution domain), personality(2)
    Personality,
    /// Speculation controls, PR_SET_SPECULATION_CTRL(2const)
    Speculation,
    /// Scheduling policy, priority and deadline parameters
    Sched,
    /// CPUs that the thread may use
    Affinity,
    /// Memory nodes that the thread may use
    Mems,
    /// Nice value
    Nice,
    /// I/O priority
    Ioprio,
    /// Timer slack
    TimerSlack,
}

impl Field {
    /// Returns the name of the field.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::Gid => "gid",
            Self::Groups => "groups",
            Self::Caps => "caps",
            Self::Ambient => "ambient",
            Self::Bounding => "bounding",
            Self::Nnp => "nnp",
            Self::Seccomp => "seccomp",
            Self::Namespaces => "namespaces",
            Self::Label => "label",
            Self::Root => "root",
            Self::Cwd => "cwd",
            Self::Umask => "umask",
            Self::Personality => "personality",
            Self::Speculation => "speculation",
            Self::Sched => "sched",
            Self::Affinity => "affinity",
            Self::Mems => "mems",
            Self::Nice => "nice",
            Self::Ioprio => "ioprio",
            Self::TimerSlack => "timer-slack",
        }
    }

    /// Returns whether a difference in this field counts unless the user says otherwise. The other fields distribute
    /// resources, and daemons set them per thread on purpose.
    pub(crate) const fn compared(self) -> bool {
        !matches!(self, Self::Affinity | Self::Mems | Self::Nice | Self::Ioprio | Self::TimerSlack)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fields(u32);

impl Fields {
    /// Returns the fields that are compared by default.
    pub(crate) fn usual() -> Self {
        let fields = Field::value_variants().iter().filter(|field| field.compared());
        fields.fold(Self(0), |all, &field| all.with(field))
    }

    pub(crate) const fn with(self, field: Field) -> Self {
        Self(self.0 | 1 << field as u32)
    }

    pub(crate) const fn without(self, field: Field) -> Self {
        Self(self.0 & !(1 << field as u32))
    }

    pub(crate) const fn contains(self, field: Field) -> bool {
        self.0 & 1 << field as u32 != 0
    }
}

/// The links in /proc/PID/ns, namespaces(7). A kernel may lack some of them.
pub(crate) const NAMESPACES: [&str; 10] = [
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
];

/// The end of the name of a namespace that only new children get.
pub(crate) const FOR_CHILDREN: &str = "_for_children";

/// The inode number of each namespace. None if the kernel has no such link.
pub(crate) type Namespaces = [Option<u64>; NAMESPACES.len()];

/// The namespaces that the kernel starts with, `enum init_ns_ino` of include/uapi/linux/nsfs.h. Those of the kinds `mnt` and
/// `net` have these numbers since Linux 6.18. Before, they had other ones, and no namespace had these: the numbers of all
/// others begin at 0xf000_0000.
pub(crate) const INITIAL: Namespaces = [
    Some(0xefff_fffb),
    Some(0xefff_ffff),
    Some(0xefff_fff8),
    Some(0xefff_fff9),
    Some(0xefff_fffc),
    Some(0xefff_fffc),
    Some(0xefff_fffa),
    Some(0xefff_fffa),
    Some(0xefff_fffd),
    Some(0xefff_fffe),
];

/// The namespaces with which those of a process are compared.
///
/// The namespaces of psx alone do not tell what a process has for itself. A service manager or a container runtime may have
/// put psx into another namespace, and then the processes that share the host's differ from psx. Therefore those of process
/// 1 count too, and those that the kernel starts with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reference {
    /// Those of psx.
    pub(crate) own: Option<Namespaces>,
    /// Those of process 1. None if psx may not see them.
    pub(crate) first: Option<Namespaces>,
}

/// The kinds of namespaces that a task has for itself.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    /// Neither psx nor process 1 is in the task's namespaces of these kinds.
    pub(crate) certain: Vec<&'static str>,
    /// psx is not in the task's namespaces of these kinds, and psx cannot see whether process 1 is.
    pub(crate) possible: Vec<&'static str>,
}

impl Reference {
    /// Reads the namespaces of psx and of process 1.
    pub(crate) fn read() -> Self {
        // Not by number: /proc may be that of an outer PID namespace, which numbers this process otherwise.
        let own = Task::myself().ok();
        let first = tasks::Process::open(1).and_then(|first| first.task(1)).ok();
        let of = |task: Option<Task>| task.and_then(|task| namespaces(&task));
        Self { own: of(own), first: of(first) }
    }

    /// Returns the kinds of namespaces that a task has for itself. Returns None if psx cannot see its own namespaces, or
    /// those of the task.
    pub(crate) fn apart(&self, state: &State) -> Option<Apart> {
        let (theirs, own) = (state.namespaces.as_ref()?, self.own.as_ref()?);
        let mut apart = Apart::default();
        let places = NAMESPACES.iter().zip(theirs).zip(own).zip(&INITIAL).enumerate();
        for (place, (((name, theirs), own), initial)) in places {
            let first = self.first.as_ref().and_then(|first| first.get(place));
            if [Some(own), Some(initial), first].contains(&Some(theirs)) {
                continue;
            }
            // If psx is in the initial namespace, it is in none of its own.
            let known = first.is_some() || own == initial;
            if known { &mut apart.certain } else { &mut apart.possible }.push(*name);
        }
        Some(apart)
    }
}

/// The directories that a task resolves paths from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Directories {
    pub(crate) root: Vec<u8>,
    /// The directory that the path of the root directory leads to. In another mount namespace, the same path can be another
    /// directory, and the same directory can be one of the host's.
    pub(crate) root_file: Option<ask::FileIdentity>,
    pub(crate) cwd: Vec<u8>,
}

/// The state of a task, as far as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) credentials: Credentials,
    /// None if this process may not see them (ptrace(2), "access mode checking").
    pub(crate) namespaces: Option<Namespaces>,
    /// None if no security module sets one, or if this process may not see it.
    pub(crate) label: Option<Vec<u8>>,
    /// Whether this process may see whether there is a label.
    pub(crate) label_seen: bool,
    /// None if this process may not see them.
    pub(crate) directories: Option<Directories>,
    pub(crate) umask: Option<u32>,
    /// None if this process may not see it.
    pub(crate) personality: Option<u32>,
    pub(crate) speculation: Speculation,
    pub(crate) scheduling: Scheduling,
    pub(crate) affinity: Vec<u8>,
    pub(crate) mems: Vec<u8>,
    pub(crate) nice: i32,
    /// The value of ioprio_get(2). None if this process may not see it.
    pub(crate) io_priority: Option<u16>,
    /// The timer slack in nanoseconds. None if this process may not see it (that needs CAP_SYS_NICE).
    pub(crate) timer_slack: Option<u64>,
}

/// A task of the same process whose directories are known already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) tid: i32,
    pub(crate) directories: &'a Directories,
}

impl State {
    /// Reads the state of a task, and at last the file `stat`. If the task is alive at that time, its number was not
    /// used again meanwhile.
    pub(crate) fn read(task: &Task, known: Option<Known<'_>>) -> nix::Result<(Status, Stat, Self)> {
        let namespaces = namespaces(task);
        let directories = directories(task, known);
        let ((label, label_seen), personality) = (label(task), personality(task));
        let ours = tasks::numbers_are_ours();
        let timer_slack = task.timer_slack();
        let io_priority = if ours { ask::io_priority(task.tid) } else { None };
        let attributes = if ours { ask::scheduling(task.tid) } else { None };
        let mut status = task.status()?;
        let stat = task.stat()?;
        let state = Self {
            credentials: status.credentials.clone(),
            namespaces,
            label,
            label_seen,
            directories,
            umask: status.umask,
            personality,
            speculation: std::mem::take(&mut status.speculation),
            scheduling: attributes.map_or(stat.scheduling, scheduling),
            affinity: std::mem::take(&mut status.cpus),
            mems: std::mem::take(&mut status.mems),
            nice: stat.nice,
            io_priority,
            timer_slack,
        };
        Ok((status, stat, state))
    }

    /// Returns the fields in which the states differ. A field that could not be seen in one of them does not count.
    pub(crate) fn differs(&self, other: &Self) -> Vec<Field> {
        fn seen<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| one != other)
        }
        let (a, b) = (&self.credentials, &other.credentials);
        let root = |state: &'_ Self| {
            state.directories.as_ref().map(|both| (both.root.clone(), both.root_file))
        };
        let cwd = |state: &'_ Self| state.directories.as_ref().map(|both| both.cwd.clone());
        let directories = self.directories != other.directories;
        let table = [
            (Field::Uid, a.user != b.user),
            (Field::Gid, a.group != b.group),
            (Field::Groups, a.groups != b.groups),
            (Field::Caps, a.sets != b.sets),
            (Field::Ambient, a.ambient != b.ambient),
            (Field::Bounding, a.bounding != b.bounding),
            (Field::Nnp, a.no_new_privs != b.no_new_privs),
            (Field::Seccomp, (a.seccomp, a.filters) != (b.seccomp, b.filters)),
            (Field::Namespaces, seen(self.namespaces.as_ref(), other.namespaces.as_ref())),
            (Field::Label, seen(self.label.as_ref(), other.label.as_ref())),
            (Field::Root, directories && seen(root(self).as_ref(), root(other).as_ref())),
            (Field::Cwd, directories && seen(cwd(self).as_ref(), cwd(other).as_ref())),
            (Field::Umask, seen(self.umask.as_ref(), other.umask.as_ref())),
            (Field::Personality, seen(self.personality.as_ref(), other.personality.as_ref())),
            (Field::Speculation, self.speculation != other.speculation),
            (Field::Sched, self.scheduling != other.scheduling),
            (Field::Affinity, self.affinity != other.affinity),
            (Field::Mems, self.mems != other.mems),
            (Field::Nice, self.nice != other.nice),
            (Field::Ioprio, seen(self.io_priority.as_ref(), other.io_priority.as_ref())),
            (Field::TimerSlack, seen(self.timer_slack.as_ref(), other.timer_slack.as_ref())),
        ];
        table.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
    }

    /// Returns the fields that this process may not see. A kernel without a security module has no label to see.
    pub(crate) fn unseen(&self) -> Vec<Field> {
        let own = &self.credentials;
        let four = |ids: Ids| [ids.real, ids.effective, ids.saved, ids.filesystem];
        let table = [
            (Field::Uid, four(own.user).into_iter().any(mapping::user_unseen)),
            (Field::Gid, four(own.group).into_iter().any(mapping::group_unseen)),
            (Field::Groups, own.groups.iter().copied().any(mapping::group_unseen)),
            (Field::Namespaces, self.namespaces.is_none()),
            (Field::Label, !self.label_seen),
            (Field::Root, self.directories.is_none()),
            (Field::Cwd, self.directories.is_none()),
            (Field::Personality, self.personality.is_none()),
            (Field::Ioprio, self.io_priority.is_none()),
            (Field::TimerSlack, self.timer_slack.is_none()),
        ];
        table.into_iter().filter_map(|(field, unseen)| unseen.then_some(field)).collect()
    }

    /// Returns the state with one fixed value in each field that is not compared: two threads belong to one group if
    /// these states are equal.
    pub(crate) fn key(&self, compared: Fields) -> Self {
        let mut key = self.clone();
        let skip = |field| !compared.contains(field);
        let own = &mut key.credentials;
        let zero = Ids { real: 0, effective: 0, saved: 0, filesystem: 0 };
        if skip(Field::Uid) {
            own.user = zero;
        }
        if skip(Field::Gid) {
            own.group = zero;
        }
        if skip(Field::Groups) {
            own.groups.clear();
        }
        if skip(Field::Caps) {
            own.sets = libpsx::process::CapabilitySets::default();
        }
        if skip(Field::Ambient) {
            own.ambient = CapabilitySet::EMPTY;
        }
        if skip(Field::Bounding) {
            own.bounding = CapabilitySet::EMPTY;
        }
        if skip(Field::Nnp) {
            own.no_new_privs = None;
        }
        if skip(Field::Seccomp) {
            (own.seccomp, own.filters) = (None, None);
        }
        if skip(Field::Namespaces) {
            key.namespaces = None;
        }
        if skip(Field::Label) {
            (key.label, key.label_seen) = (None, true);
        }
        if let Some(directories) = &mut key.directories {
            if skip(Field::Root) {
                directories.root.clear();
                directories.root_file = None;
            }
            if skip(Field::Cwd) {
                directories.cwd.clear();
            }
        }
        if skip(Field::Umask) {
            key.umask = None;
        }
        if skip(Field::Personality) {
            key.personality = None;
        }
        if skip(Field::Speculation) {
            key.speculation = Speculation::default();
        }
        if skip(Field::Sched) {
            key.scheduling =
                Scheduling { policy: 0, priority: 0, reset_on_fork: false, deadline: None };
        }
        if skip(Field::Affinity) {
            key.affinity.clear();
        }
        if skip(Field::Mems) {
            key.mems.clear();
        }
        if skip(Field::Nice) {
            key.nice = 0;
        }
        if skip(Field::Ioprio) {
            key.io_priority = None;
        }
        if skip(Field::TimerSlack) {
            key.timer_slack = None;
        }
        key
    }

    /// Returns whether this is the kind of a namespace for children, and the task itself is in the same one.
    pub(crate) fn is_for_children(&self, kind: &str) -> bool {
        let of = |kind: &str| {
            let place = NAMESPACES.iter().position(|&name| name == kind)?;
            self.namespaces.as_ref()?.get(place).copied()?
        };
        kind.strip_suffix(FOR_CHILDREN).is_some_and(|own| of(own) == of(kind))
    }

    /// Returns the kinds of namespaces that are not those of `other`.
    pub(crate) fn other_namespaces(&self, other: &Self) -> Vec<&'static str> {
        other.namespaces.as_ref().map(|theirs| self.namespaces_beside(theirs)).unwrap_or_default()
    }

    /// Returns the kinds of namespaces that are not these.
    pub(crate) fn namespaces_beside(&self, theirs: &Namespaces) -> Vec<&'static str> {
        let Some(ours) = &self.namespaces else { return Vec::new() };
        let pairs = NAMESPACES.iter().zip(ours.iter().zip(theirs));
        pairs.filter_map(|(&name, (ours, theirs))| (ours != theirs).then_some(name)).collect()
    }

    /// The fields that [`State::exceeds`] looks at.
    pub(crate) const EXCEEDED: [Field; 7] = [
        Field::Uid,
        Field::Gid,
        Field::Groups,
        Field::Caps,
        Field::Namespaces,
        Field::Label,
        Field::Root,
    ];

    /// Returns the fields in which a task in this state may do what no task in `others` may do: IDs, groups,
    /// capabilities, namespaces, label, root directory. A namespace for children does not count, because this is asked
    /// of kernel workers, which have no children. A value that cannot be seen in one of `others` does not count.
    pub(crate) fn exceeds<'a>(&self, others: impl Iterator<Item = &'a Self> + Clone) -> Vec<Field> {
        let own = &self.credentials;
        let four = |ids: Ids| [ids.real, ids.effective, ids.saved, ids.filesystem];
        let theirs = || others.clone().map(|other| &other.credentials);
        let beyond = |ids: Ids, of: fn(&Credentials) -> Ids| {
            four(ids).iter().any(|id| !theirs().any(|other| four(of(other)).contains(id)))
        };
        let all = |of: fn(&Credentials) -> CapabilitySet| {
            theirs().map(of).fold(CapabilitySet::EMPTY, |all, set| all | set)
        };
        let group = |gid: &u32| {
            theirs().any(|other| four(other.group).contains(gid) || other.groups.contains(gid))
        };
        let label = |label: &Vec<u8>| {
            others.clone().all(|other| other.label.as_ref().is_some_and(|theirs| theirs != label))
        };
        let root = |own: &Directories| {
            let theirs = |other: &Self| other.directories.as_ref().map(|both| both.root.clone());
            others.clone().all(|other| theirs(other).is_some_and(|theirs| theirs != own.root))
        };
        let namespace = |own: &Namespaces| {
            let kinds = NAMESPACES.iter().zip(own).enumerate();
            let mut kinds = kinds.filter(|(_, (name, _))| !name.ends_with(FOR_CHILDREN));
            kinds.any(|(place, (_, own))| {
                let theirs = |other: &Self| other.namespaces?.get(place).copied();
                others.clone().all(|other| theirs(other).is_some_and(|theirs| theirs != *own))
            })
        };
        let table = [
            (Field::Uid, beyond(own.user, |other| other.user)),
            (Field::Gid, beyond(own.group, |other| other.group)),
            (Field::Groups, !own.groups.iter().all(group)),
            (
                Field::Caps,
                !all(|other| other.sets.permitted).is_superset(own.sets.permitted)
                    || !all(|other| other.sets.effective).is_superset(own.sets.effective),
            ),
            (Field::Namespaces, self.namespaces.as_ref().is_some_and(namespace)),
            (Field::Label, self.label.as_ref().is_some_and(label)),
            (Field::Root, self.directories.as_ref().is_some_and(root)),
        ];
        table.into_iter().filter_map(|(field, more)| more.then_some(field)).collect()
    }
}

/// Returns the namespaces of a task. An error does not say whether the task has ended: the kernel returns EACCES for
/// that too (`proc_ns_readlink`, fs/proc/namespaces.c). A later read shows it.
pub(crate) fn namespaces(task: &Task) -> Option<Namespaces> {
    let mut found = Namespaces::default();
    let mut path = String::new();
    for (name, place) in NAMESPACES.iter().zip(&mut found) {
        path.clear();
        path.push_str("ns/");
        path.push_str(name);
        match task.link(&path) {
            Ok(link) => *place = number(link.as_encoded_bytes()),
            Err(Errno::ENOENT) => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// Returns the number in `net:[4026531840]`.
fn number(link: &[u8]) -> Option<u64> {
    std::str::from_utf8(link).ok()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

fn directories(task: &Task, known: Option<Known<'_>>) -> Option<Directories> {
    if let Some(known) = known {
        if tasks::numbers_are_ours() && ask::share_directories(task.tid, known.tid) {
            return Some(known.directories.clone());
        }
    }
    let read = |file| task.link(file).ok().map(|path| path.into_encoded_bytes());
    Some(Directories { root: read("root")?, root_file: task.root(), cwd: read("cwd")? })
}

/// Returns the label of the security module that shows one, and whether this process may see it. `attr/current` asks the first module that has labels in
/// principle. If the kernel is started with `lsm=bpf,apparmor`, that is BPF, which answers EINVAL (seen on Linux 6.1), so
/// the modules with files of their own are asked next (Documentation/admin-guide/LSM/index.rst).
fn label(task: &Task) -> (Option<Vec<u8>>, bool) {
    let mut seen = true;
    for file in ["attr/current", "attr/apparmor/current", "attr/smack/current"] {
        match task.read(file) {
            Ok(mut label) => {
                while let Some(b'\n' | 0) = label.last() {
                    label.pop();
                }
                return ((!label.is_empty()).then_some(label), true);
            }
            // No module answers, the kernel has no such file, or the task has ended.
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ESRCH) => {}
            Err(_) => seen = false,
        }
    }
    (None, seen)
}

fn personality(task: &Task) -> Option<u32> {
    let text = task.read("personality").ok()?;
    u32::from_str_radix(std::str::from_utf8(&text).ok()?.trim(), 16).ok()
}

/// Converts the kernel's answer. SCHED_DEADLINE and SCHED_FLAG_RESET_ON_FORK are in include/uapi/linux/sched.h.
fn scheduling(attributes: ask::SchedulingAttributes) -> Scheduling {
    const DEADLINE: u32 = 6;
    let ask::SchedulingAttributes { policy, priority, flags, runtime, deadline, period, .. } =
        attributes;
    let parameters = Deadline { runtime, deadline, period };
    Scheduling {
        policy,
        priority,
        reset_on_fork: flags & 1 != 0,
        deadline: (policy == DEADLINE).then_some(parameters),
    }
}
