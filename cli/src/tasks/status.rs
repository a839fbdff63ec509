//! The files `stat` and `status` of a task, parsed.
//!
//! Only the lines that are needed are parsed, as bytes: a name may contain any byte but 0.

use libpsx::process::{CapabilitySet, CapabilitySets, Ids};

/// include/linux/sched.h
const PF_EXITING: u32 = 0x4;
const PF_KTHREAD: u32 = 0x20_0000;

/// The contents of the file `stat` of a task.
#[derive(Debug, Clone)]
pub(crate) struct Stat {
    /// The name of the task, byte for byte.
    pub(crate) name: Vec<u8>,
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) flags: u32,
    pub(crate) nice: i32,
    /// When the task started, in clock ticks since the system started.
    pub(crate) start: u64,
    pub(crate) scheduling: Scheduling,
}

/// sched(7)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Scheduling {
    pub(crate) policy: u32,
    pub(crate) priority: u32,
    /// Whether a child gets the default policy (SCHED_FLAG_RESET_ON_FORK).
    pub(crate) reset_on_fork: bool,
    /// The parameters of the policy SCHED_DEADLINE; other policies have none.
    pub(crate) deadline: Option<Deadline>,
}

/// The parameters of SCHED_DEADLINE, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Deadline {
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// The contents of the file `status` of a task.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) process: i32,
    /// The number of the task in each PID namespace, from the namespace of /proc inwards.
    pub(crate) numbers: Vec<i32>,
    pub(crate) blocked: u64,
    /// How many signals the user has queued, and how many the user may queue (`SigQ`).
    pub(crate) queue: Option<(u64, u64)>,
    pub(crate) credentials: Credentials,
    pub(crate) umask: Option<u32>,
    /// The CPUs and memory nodes that the task may use, as lists.
    pub(crate) cpus: Vec<u8>,
    pub(crate) mems: Vec<u8>,
    pub(crate) speculation: Speculation,
}

/// The speculation controls of a task, in the kernel's words. None: this kernel does not show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Speculation {
    pub(crate) store_bypass: Option<Vec<u8>>,
    pub(crate) indirect_branch: Option<Vec<u8>>,
}

/// What a task may do, as far as `status` shows it. None: this kernel does not show it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    pub(crate) user: Ids,
    pub(crate) group: Ids,
    pub(crate) groups: Vec<u32>,
    pub(crate) sets: CapabilitySets,
    pub(crate) ambient: CapabilitySet,
    pub(crate) bounding: CapabilitySet,
    pub(crate) no_new_privs: Option<bool>,
    pub(crate) seccomp: Option<u32>,
    pub(crate) filters: Option<u32>,
}

impl Stat {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        // The name may contain parentheses; the text after it contains none.
        let first = text.iter().position(|&byte| byte == b'(')?;
        let last = text.iter().rposition(|&byte| byte == b')')?;
        let name = text.get(first.checked_add(1)?..last)?.to_vec();
        let rest = std::str::from_utf8(text.get(last.checked_add(1)?..)?).ok()?;
        // proc_pid_stat(5) counts from 1; the state is the third.
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let flags = fields.nth(9 - 5)?.parse().ok()?;
        let nice = fields.nth(19 - 10)?.parse().ok()?;
        let start = fields.nth(22 - 20)?.parse().ok()?;
        let priority = fields.nth(40 - 23)?.parse().ok()?;
        let policy = fields.next()?.parse().ok()?;
        let scheduling = Scheduling { policy, priority, reset_on_fork: false, deadline: None };
        Some(Self { name, state, parent, flags, nice, start, scheduling })
    }

    /// Returns whether the task runs no code any more. It still shows the IDs that it had when it died.
    pub(crate) const fn dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') || self.flags & PF_EXITING != 0
    }

    /// Returns whether this is a thread of the kernel, without a process.
    pub(crate) const fn kernel(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }
}

impl Status {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (mut process, mut numbers, mut blocked, mut queue) = (None, Vec::new(), None, None);
        let (mut user, mut group, mut groups) = (None, None, None);
        let (mut effective, mut permitted, mut inheritable) = (None, None, None);
        let (mut bounding, mut ambient) = (None, None);
        let (mut no_new_privs, mut seccomp, mut filters) = (None, None, None);
        let (mut umask, mut cpus, mut mems) = (None, Vec::new(), Vec::new());
        let mut speculation = Speculation::default();
        for line in text.split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let Some((key, value)) = line.split_at_checked(colon) else { continue };
            let bytes = value.get(1..).unwrap_or_default().trim_ascii();
            let value = || std::str::from_utf8(bytes).ok();
            match key {
                b"Tgid" => process = one(value()?),
                b"NSpid" => numbers = all(value()?)?,
                b"Uid" => user = ids(value()?),
                b"Gid" => group = ids(value()?),
                b"Groups" => groups = all(value()?),
                b"SigQ" => {
                    queue = value()?.trim().split_once('/').and_then(|(a, b)| one(a).zip(one(b)))
                }
                b"SigBlk" => blocked = bits(value()?),
                b"CapInh" => inheritable = bits(value()?),
                b"CapPrm" => permitted = bits(value()?),
                b"CapEff" => effective = bits(value()?),
                b"CapBnd" => bounding = bits(value()?),
                b"CapAmb" => ambient = bits(value()?),
                b"NoNewPrivs" => no_new_privs = one(value()?),
                b"Seccomp" => seccomp = one(value()?),
                b"Seccomp_filters" => filters = one(value()?),
                b"Umask" => umask = u32::from_str_radix(value()?, 8).ok(),
                b"Cpus_allowed_list" => cpus = bytes.to_vec(),
                b"Mems_allowed_list" => mems = bytes.to_vec(),
                b"Speculation_Store_Bypass" => speculation.store_bypass = Some(bytes.to_vec()),
                b"SpeculationIndirectBranch" => speculation.indirect_branch = Some(bytes.to_vec()),
                _ => {}
            }
        }
        let set = CapabilitySet::from_bits;
        Some(Self {
            process: process?,
            numbers,
            blocked: blocked?,
            queue,
            credentials: Credentials {
                user: user?,
                group: group?,
                groups: groups?,
                sets: CapabilitySets {
                    effective: set(effective?),
                    permitted: set(permitted?),
                    inheritable: set(inheritable?),
                },
                ambient: set(ambient?),
                bounding: set(bounding?),
                no_new_privs: no_new_privs.map(|value: u32| value != 0),
                seccomp,
                filters,
            },
            umask,
            cpus,
            mems,
            speculation,
        })
    }
}

pub(super) fn one<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

fn all<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

fn bits(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim(), 16).ok()
}

fn ids(text: &str) -> Option<Ids> {
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    Some(Ids { real: next()?, effective: next()?, saved: next()?, filesystem: next()? })
}
