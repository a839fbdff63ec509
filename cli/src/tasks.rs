//! The tasks of a process as /proc shows them, this one's or another's.
//!
//! A process is opened once, as a directory, and so is each task in it; everything is read through
//! those descriptors. A number that is used again meanwhile therefore deceives nobody: what is read is
//! of the one task, or an error that [`gone`] knows.
//!
//! Only the lines that are needed are parsed, as bytes: a name may be anything but a 0.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use libpsx::process::{CapabilitySet, CapabilitySets, Ids};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd;

/// include/linux/sched.h
const PF_EXITING: u32 = 0x4;
const PF_KTHREAD: u32 = 0x20_0000;

/// How often the tasks are listed while others come and go.
const SWEEPS: usize = 8;

/// A process, by an open directory.
pub(crate) struct Process {
    pub(crate) pid: i32,
    tasks: OwnedFd,
}

/// One task of it, by an open directory.
pub(crate) struct Task {
    directory: OwnedFd,
}

/// From the file `stat` of a task.
#[derive(Debug, Clone)]
pub(crate) struct Stat {
    /// As the task has it, byte for byte.
    pub(crate) name: Vec<u8>,
    pub(crate) state: u8,
    pub(crate) flags: u32,
    pub(crate) scheduling: Scheduling,
}

/// sched(7)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Scheduling {
    pub(crate) policy: u32,
    pub(crate) priority: u32,
}

/// From the file `status` of a task.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) process: i32,
    /// The number of the task in each PID namespace, from that of /proc inwards.
    pub(crate) numbers: Vec<i32>,
    pub(crate) blocked: u64,
    /// How many signals the user has queued, and how many may be (`SigQ`).
    pub(crate) queue: Option<(u64, u64)>,
    pub(crate) credentials: Credentials,
}

/// What a task may do, as far as `status` tells it. None: this kernel does not.
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

/// Whether the task or process is not there any more.
pub(crate) fn gone(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::ESRCH)
}

/// The numbers of all processes that /proc lists.
pub(crate) fn processes() -> nix::Result<Vec<i32>> {
    numbers(&mut Dir::open("/proc", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn numbers(directory: &mut Dir) -> nix::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in directory.iter() {
        let entry = entry?;
        let number: Option<i32> = entry.file_name().to_str().ok().and_then(one);
        found.extend(number);
    }
    Ok(found)
}

impl Process {
    /// The process with this number, or the one that the thread with this number is of.
    pub(crate) fn open(pid: i32) -> nix::Result<Self> {
        Self::at(pid, &format!("/proc/{pid}/task"))
    }

    pub(crate) fn myself() -> nix::Result<Self> {
        Self::at(unistd::getpid().as_raw(), "/proc/self/task")
    }

    fn at(pid: i32, path: &str) -> nix::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { pid, tasks: openat(AT_FDCWD, path, flags, Mode::empty())? })
    }

    /// The numbers of its tasks, in order. One pass of the list can miss a living task while another
    /// one exits (`next_tid`, fs/proc/base.c), but the link count does not: so there are more passes
    /// until one of them is as long as that says.
    pub(crate) fn tids(&self) -> nix::Result<Vec<i32>> {
        let mut tids = Vec::new();
        for _ in 0..SWEEPS {
            let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let listed = numbers(&mut Dir::openat(&self.tasks, ".", flags, Mode::empty())?)?;
            let complete = libc::nlink_t::try_from(listed.len()) == Ok(self.count()?);
            tids.extend(listed);
            if complete {
                break;
            }
        }
        tids.sort_unstable();
        tids.dedup();
        Ok(tids)
    }

    /// Its type differs per CPU.
    fn count(&self) -> nix::Result<libc::nlink_t> {
        Ok(fstat(&self.tasks)?.st_nlink.saturating_sub(2))
    }

    pub(crate) fn task(&self, tid: i32) -> nix::Result<Task> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut name = String::new();
        // Writing to a String cannot fail.
        let _ = write!(name, "{tid}");
        Ok(Task { directory: openat(&self.tasks, name.as_str(), flags, Mode::empty())? })
    }
}

impl Task {
    pub(crate) fn stat(&self) -> nix::Result<Stat> {
        Stat::parse(&self.read("stat")?).ok_or(Errno::EBADMSG)
    }

    pub(crate) fn status(&self) -> nix::Result<Status> {
        Status::parse(&self.read("status")?).ok_or(Errno::EBADMSG)
    }

    /// What a file of the task contains.
    pub(crate) fn read(&self, file: &str) -> nix::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = openat(&self.directory, file, flags, Mode::empty())?;
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let length = unistd::read(&fd, &mut piece)?;
            match piece.get(..length) {
                None | Some([]) => return Ok(text),
                Some(read) => text.extend_from_slice(read),
            }
        }
    }

    pub(crate) fn link(&self, file: &str) -> nix::Result<OsString> {
        readlinkat(&self.directory, file)
    }
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Self> {
        // The name may contain parentheses; nothing behind it does.
        let first = text.iter().position(|&byte| byte == b'(')?;
        let last = text.iter().rposition(|&byte| byte == b')')?;
        let name = text.get(first.checked_add(1)?..last)?.to_vec();
        let rest = std::str::from_utf8(text.get(last.checked_add(1)?..)?).ok()?;
        // proc_pid_stat(5) counts from 1; the state is the third.
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let flags = fields.nth(9 - 4)?.parse().ok()?;
        let priority = fields.nth(40 - 10)?.parse().ok()?;
        let policy = fields.next()?.parse().ok()?;
        Some(Self { name, state, flags, scheduling: Scheduling { policy, priority } })
    }

    /// It runs no code any more. It still shows the ids that it had when it died.
    pub(crate) const fn dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') || self.flags & PF_EXITING != 0
    }

    /// A thread of the kernel, without a process.
    pub(crate) const fn kernel(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }
}

impl Status {
    fn parse(text: &[u8]) -> Option<Self> {
        let (mut process, mut numbers, mut blocked, mut queue) = (None, Vec::new(), None, None);
        let (mut user, mut group, mut groups) = (None, None, None);
        let (mut effective, mut permitted, mut inheritable) = (None, None, None);
        let (mut bounding, mut ambient) = (None, None);
        let (mut no_new_privs, mut seccomp, mut filters) = (None, None, None);
        for line in text.split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let Some((key, value)) = line.split_at_checked(colon) else { continue };
            let value = || std::str::from_utf8(value.get(1..)?).ok();
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
        })
    }
}

fn one<T: std::str::FromStr>(text: &str) -> Option<T> {
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
