//! Making sure: what each thread's calls came to, what it says of itself, what /proc says of it, and whether there
//! is a way back.

use std::fmt;
use std::fs::File;
use std::io::Read;

use libpsx::process::{self, Capabilities, CapabilitySet, Gid, Ids, Securebits, Uid};
use libpsx::{Outcome, Report};
use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// What has to hold for every thread.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) uid: Option<Uid>,
    pub(crate) gid: Option<Gid>,
    pub(crate) groups: Option<Vec<Gid>>,
    pub(crate) sets: Capabilities,
    pub(crate) ambient: CapabilitySet,
    pub(crate) bounding: CapabilitySet,
    pub(crate) securebits: Securebits,
    pub(crate) no_new_privs: bool,
    pub(crate) filtered: bool,
}

impl Expected {
    fn groups(&self) -> Option<String> {
        let groups = self.groups.as_ref()?;
        Some(numbers(groups.iter().map(|gid| gid.raw())))
    }
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The thread, or the process.
    pub tid: i32,
    /// What was looked at.
    pub what: &'static str,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tid, what, expected, found } = self;
        write!(f, "{what} of {tid} is {found:?} in place of {expected:?}")
    }
}

pub(crate) fn list(wrong: &[Mismatch]) -> String {
    let all: Vec<String> = wrong.iter().map(Mismatch::to_string).collect();
    all.join(", ")
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(uid) = self.uid {
            write!(f, "uid={} ", uid.raw())?;
        }
        if let Some(gid) = self.gid {
            write!(f, "gid={} ", gid.raw())?;
        }
        if let Some(groups) = self.groups() {
            write!(f, "groups={groups} ")?;
        }
        write!(f, "capabilities {:?}", self.sets.to_string())?;
        write!(f, " ambient={} bounding={}", hex(self.ambient), hex(self.bounding))?;
        write!(f, " securebits={:#x} nnp={}", self.securebits.bits(), u8::from(self.no_new_privs))
    }
}

fn hex(set: CapabilitySet) -> String {
    format!("{:016x}", set.bits())
}

/// As /proc/PID/status has them: in order.
fn numbers(groups: impl Iterator<Item = u32>) -> String {
    let mut sorted: Vec<u32> = groups.collect();
    sorted.sort_unstable();
    sorted.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

fn four(ids: Ids) -> String {
    format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.files)
}

fn four_times(raw: u32) -> String {
    four(Ids { real: raw, effective: raw, saved: raw, files: raw })
}

/// What can be opened only while one may.
pub(crate) struct Witness {
    /// /proc/self/task, by a descriptor, because there may be another root directory.
    tasks: Option<File>,
}

impl Witness {
    pub(crate) fn new(expected: &Expected) -> Self {
        let tasks = File::open("/proc/self/task").ok();
        Self { tasks: tasks.filter(|_| !expected.filtered) }
    }

    /// All that does not hold, and how many threads /proc could be read of. The transaction began with these
    /// calls.
    pub(crate) fn look(
        &self,
        expected: &Expected,
        report: &Report,
        calls: &[&'static str],
    ) -> (Vec<Mismatch>, usize) {
        let mut wrong = Vec::new();
        divergences(report, calls, &mut wrong);
        self.ask(expected, report, &mut wrong);
        let mut seen = 0;
        if !expected.filtered {
            seen = self.read(expected, report, &mut wrong);
            way_back(expected, &mut wrong);
        }
        (wrong, seen)
    }

    /// By what each thread says.
    fn ask(&self, expected: &Expected, report: &Report, wrong: &mut Vec<Mismatch>) {
        let mut asked = 0;
        for one in report.identities() {
            asked += 1;
            let mut check = |what, wanted: Option<String>, found: Option<String>| {
                if let Some(wanted) = wanted {
                    note(
                        wrong,
                        one.tid(),
                        what,
                        wanted,
                        found.unwrap_or_else(|| "not told".to_owned()),
                    );
                }
            };
            check("Uid", expected.uid.map(|uid| four_times(uid.raw())), one.user().map(four));
            check("Gid", expected.gid.map(|gid| four_times(gid.raw())), one.group().map(four));
            check("Groups", expected.groups(), one.groups().map(numbers));
            let sets = |sets: Capabilities| sets.to_string();
            check("capabilities", Some(sets(expected.sets)), one.capabilities().map(sets));
            check("CapAmb", Some(hex(expected.ambient)), one.ambient().map(hex));
            check("CapBnd", Some(hex(expected.bounding)), one.bounding().map(hex));
            let bits = |bits: Securebits| format!("{:#x}", bits.bits());
            check("securebits", Some(bits(expected.securebits)), one.securebits().map(bits));
            let nnp = expected.no_new_privs.then(|| "1".to_owned());
            check("NoNewPrivs", nnp, Some(u8::from(one.no_new_privs()).to_string()));
        }
        note(wrong, 0, "number of threads asked", report.threads().to_string(), asked.to_string());
    }

    /// By what the kernel says of each in /proc, if that can be read. Gives of how many it could.
    fn read(&self, expected: &Expected, report: &Report, wrong: &mut Vec<Mismatch>) -> usize {
        let mut seen = 0;
        let Some(tasks) = &self.tasks else { return seen };
        let listed = tasks.try_clone().map_err(|_| nix::Error::EMFILE);
        let Ok(mut listed) = listed.and_then(|tasks| Dir::from_fd(tasks.into())) else {
            return seen;
        };
        for entry in listed.iter().flatten() {
            let name = entry.file_name().to_string_lossy();
            let Ok(tid) = name.parse() else { continue };
            let path = format!("{name}/status");
            let mut text = String::new();
            // A thread that is gone needs no looking at; what may not be read was asked.
            let status = openat(tasks, &*path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            if status.map(|fd| File::from(fd).read_to_string(&mut text)).is_err() || text.is_empty()
            {
                continue;
            }
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.unwrap_or_default().trim().to_owned()
            };
            // What is dead keeps what it had, and can do nothing; so does what was dying then, and the kernel's
            // own threads in this process. (The report has the number of our own PID namespace, the last.)
            let number = field("NSpid").split_whitespace().last().and_then(|tid| tid.parse().ok());
            let number = number.unwrap_or(tid);
            let exempt = report.exempt().iter().any(|task| task.tid() == number);
            if exempt || field("State").starts_with(['Z', 'X']) {
                continue;
            }
            seen += 1;
            let sets = expected.sets;
            for (name, wanted) in [
                ("Uid", expected.uid.map(|uid| four_times(uid.raw()))),
                ("Gid", expected.gid.map(|gid| four_times(gid.raw()))),
                ("Groups", expected.groups()),
                ("CapInh", Some(hex(sets.inheritable))),
                ("CapPrm", Some(hex(sets.permitted))),
                ("CapEff", Some(hex(sets.effective))),
                ("CapBnd", Some(hex(expected.bounding))),
                ("CapAmb", Some(hex(expected.ambient))),
                ("NoNewPrivs", expected.no_new_privs.then(|| "1".to_owned())),
            ] {
                if let Some(wanted) = wanted {
                    note(wrong, number, name, wanted, field(name));
                }
            }
        }
        seen
    }
}

/// Threads whose calls did not come to what the caller's did: they have performed no further one.
fn divergences(report: &Report, calls: &[&'static str], wrong: &mut Vec<Mismatch>) {
    for result in report.results() {
        // Who agreed has made the last call of all, a question.
        let Some(what) = calls.get(result.call()) else { continue };
        let (what, found) = match result.outcome() {
            Outcome::Died => ("thread", "died".to_owned()),
            other => (*what, other.to_string()),
        };
        wrong.push(Mismatch {
            tid: result.tid(),
            what,
            expected: "as in the others".to_owned(),
            found,
        });
    }
}

/// An attempt of this thread to become root again, where nothing but a mistake would let it succeed. None under
/// a filter, which may kill for it.
fn way_back(expected: &Expected, wrong: &mut Vec<Mismatch>) {
    let may = expected.sets.permitted.contains(process::Capability::SETUID);
    let Some(uid) = expected.uid.filter(|&uid| uid != Uid::ROOT && !may) else { return };
    if filtered() {
        return;
    }
    if set_this_thread(Uid::ROOT) {
        note(wrong, 0, "setresuid(0, 0, 0)", "EPERM".to_owned(), "done".to_owned());
        set_this_thread(uid);
    }
}

#[allow(unsafe_code)]
fn filtered() -> bool {
    // SAFETY: it touches no memory.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) != 0 }
}

/// setresuid(2) past the C library, which would have all threads make it.
#[allow(unsafe_code)]
fn set_this_thread(uid: Uid) -> bool {
    let raw = uid.raw();
    // SAFETY: it takes numbers.
    unsafe { libc::syscall(libc::SYS_setresuid, raw, raw, raw) == 0 }
}

/// Ends the process. Standard error may take nothing, its lock may be somebody's who waits for ever, and who
/// handles SIGABRT may have the process go on: none of these is asked.
#[allow(unsafe_code)]
pub(crate) fn kill(wrong: &[Mismatch]) -> ! {
    let line = format!("privileges: not dropped: {}; process killed\n", list(wrong));
    // SAFETY: the line is as long as said.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    // SAFETY: the default action runs nothing of ours.
    unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
    std::process::abort()
}

fn note(wrong: &mut Vec<Mismatch>, tid: i32, what: &'static str, expected: String, found: String) {
    if expected != found {
        wrong.push(Mismatch { tid, what, expected, found });
    }
}
