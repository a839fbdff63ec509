//! Verification: the results of each thread's calls, each thread's answers, the state of each thread in /proc, and an
//! attempt to become root again.

use std::fmt;
use std::io;

use libpsx::process::{self, CapabilitySet, Ids, Uid};
use libpsx::{CallOutcome, Report};

use crate::context::Joined;
use crate::expected::{Expected, Staying};
use crate::names;
use crate::status::{Place, field, here, shown};
use crate::tasks::{Tasks, own_number};

/// The ids of a thread: real, effective, saved and file-system id; and its groups. A value that is not known is `None`.
struct FoundIds {
    users: Option<[u32; 4]>,
    groups: Option<[u32; 4]>,
    supplementary: Option<Vec<u32>>,
}

/// A difference between the plan and the state that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The thread; 0 for the process.
    pub tid: i32,
    /// The compared item: a field of proc_pid_status(5), or a call of the plan.
    pub what: String,
    /// The expected value.
    pub expected: String,
    /// The value that was found.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tid, what, expected, found } = self;
        match tid {
            0 => write!(f, "{what}: {found}; expected {expected}"),
            tid => write!(f, "thread {tid}: {what}: {found}; expected {expected}"),
        }
    }
}

/// Returns the differences as one line of text, for standard error.
pub(crate) fn in_one_line(wrong: &[Mismatch]) -> String {
    let all: Vec<String> = wrong.iter().map(Mismatch::to_string).collect();
    format!("privileges: not dropped: {}", all.join(", "))
}

fn four(ids: Ids) -> String {
    format!("{} {} {} {}", ids.real, ids.effective, ids.saved, ids.filesystem)
}

fn in_order(ids: Ids) -> [u32; 4] {
    [ids.real, ids.effective, ids.saved, ids.filesystem]
}

fn four_times(raw: u32) -> String {
    four(Ids { real: raw, effective: raw, saved: raw, filesystem: raw })
}

/// A verification in progress, with the differences so far.
pub(crate) struct Verification<'a> {
    expected: &'a Expected,
    report: &'a Report,
    /// The number of seccomp filters that every thread has at least.
    filters: Option<usize>,
    /// The targets of the calling thread's links to its namespaces. Those of every thread must be the same.
    namespaces: Vec<(&'static str, Place)>,
    wrong: Vec<Mismatch>,
}

impl<'a> Verification<'a> {
    pub(crate) fn new(expected: &'a Expected, report: &'a Report, filters: Option<usize>) -> Self {
        Self { expected, report, filters, namespaces: Vec::new(), wrong: Vec::new() }
    }

    /// Verifies everything. `calls` are the names of the transaction's first calls. Returns the differences, and the
    /// number of threads that were read in /proc.
    pub(crate) fn run(
        mut self,
        tasks: Option<Tasks>,
        call: impl Fn(usize) -> Option<String>,
    ) -> (Vec<Mismatch>, usize) {
        self.compare_results(call);
        self.compare_answers();
        let seen = tasks.map_or(0, |mut tasks| self.read(&mut tasks));
        self.try_to_return();
        (self.wrong, seen)
    }

    fn add(&mut self, tid: i32, what: &str, expected: impl Into<String>, found: impl Into<String>) {
        let (what, expected, found) = (what.to_owned(), expected.into(), found.into());
        self.wrong.push(Mismatch { tid, what, expected, found });
    }

    fn note<T: PartialEq>(
        &mut self,
        tid: i32,
        what: &str,
        expected: Option<T>,
        found: Option<T>,
        show: impl Fn(T) -> String,
    ) {
        let Some(expected) = expected else { return };
        if found.as_ref() != Some(&expected) {
            let found = found.map_or_else(|| "unknown".to_owned(), &show);
            self.add(tid, what, show(expected), found);
        }
    }

    /// Finds the threads whose calls had other results than the caller's. These threads have performed no further call.
    fn compare_results(&mut self, call: impl Fn(usize) -> Option<String>) {
        if self.report.divergent() == 0 {
            return;
        }
        for result in self.report.results() {
            // The last call is a question. Each thread that had the same results has made it.
            let Some(what) = call(result.call()) else { continue };
            let (what, found) = match result.outcome() {
                CallOutcome::Died => ("thread".to_owned(), "died".to_owned()),
                other => (format!("call {what}"), other.to_string()),
            };
            self.add(result.tid(), &what, "as in the calling thread", found);
        }
    }

    /// Verifies the answers of each thread.
    fn compare_answers(&mut self) {
        let (expected, report) = (self.expected, self.report);
        let mut asked = 0;
        for one in report.identities() {
            asked += 1;
            let tid = one.tid();
            let (known, uid, gid) = (expected.known, expected.uid, expected.gid);
            let same = |text: String| text;
            let set = |set| names::set(set, known);
            let sets = |sets| names::sets(sets, known);
            let user = uid.map(|uid| four_times(uid.as_raw()));
            let group = gid.map(|gid| four_times(gid.as_raw()));
            self.note(tid, "Uid", user, one.uids().map(four), same);
            self.note(tid, "Gid", group, one.gids().map(four), same);
            self.note(tid, "Groups", expected.groups(), one.groups().map(names::numbers), same);
            self.note(tid, "capabilities", Some(expected.sets), one.capabilities(), sets);
            self.note(tid, "CapAmb", Some(expected.ambient), one.ambient(), set);
            self.note(tid, "CapBnd", Some(expected.bounding), one.bounding(), set);
            let bits = Some(expected.securebits);
            self.note(tid, "securebits", bits, one.securebits(), names::securebits);
            let nnp = expected.no_new_privs.then_some(true);
            let show = |nnp: bool| u8::from(nnp).to_string();
            self.note(tid, "NoNewPrivs", nnp, Some(one.no_new_privs()), show);
            self.compare_staying(
                tid,
                FoundIds {
                    users: one.uids().map(in_order),
                    groups: one.gids().map(in_order),
                    supplementary: one.groups().map(Iterator::collect),
                },
            );
        }
        let threads = Some(report.threads());
        self.note(0, "number of threads asked", threads, Some(asked), |count| count.to_string());
    }

    /// Verifies the ids that no call sets.
    fn compare_staying(&mut self, tid: i32, found: FoundIds) {
        let (expected, staying) = (self.expected, &self.expected.staying);
        let show = |ids: Option<[u32; 4]>| {
            ids.map_or_else(|| "unknown".to_owned(), |ids| ids.map(|id| id.to_string()).join(" "))
        };
        let ids = |ids: [u32; 3]| {
            let [real, effective, saved] = ids;
            format!("{real} {effective} {saved}, as the calling thread had")
        };
        let root = found.users.is_none_or(|ids| ids.into_iter().any(|id| expected.may_be_root(id)));
        if expected.no_root && root {
            self.add(tid, "Uid", "no id of root", show(found.users));
        } else if let Some(users) = staying.users.filter(|&ids| !Staying::same(ids, found.users)) {
            self.add(tid, "Uid", ids(users), show(found.users));
        }
        if let Some(groups) = staying.groups.filter(|&ids| !Staying::same(ids, found.groups)) {
            self.add(tid, "Gid", ids(groups), show(found.groups));
        }
        let own = found.groups.map(|[_, effective, ..]| effective);
        let more =
            found.supplementary.as_ref().is_none_or(|groups| staying.gives_more(own, groups));
        if staying.no_more_groups && more {
            let groups = found.supplementary.map_or_else(|| "unknown".to_owned(), names::numbers);
            self.add(tid, "Groups", "none but its group id", groups);
        }
    }

    /// Verifies the state of each thread in /proc. A state that cannot be read is a mismatch, unless the thread has
    /// ended. Returns the number of threads that were read.
    fn read(&mut self, tasks: &mut Tasks) -> usize {
        // A mount option (hidepid, proc(5)) may hide this process from the one that reads for it.
        let hidden = |error: &io::Error| {
            matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EPERM | libc::EACCES))
        };
        if tasks.own_status().is_err_and(|error| hidden(&error)) {
            return 0;
        }
        let mut names = match tasks.list() {
            Ok(names) => names,
            Err(error) => {
                self.add(0, "/proc/self/task", "a list of the threads", error.to_string());
                return 0;
            }
        };
        self.compare_namespaces(tasks);
        // A list may lack a thread that existed all the time.
        if !tasks.foreign() {
            names.extend(self.report.identities().map(|one| one.tid()));
            names.sort_unstable();
            names.dedup();
        }
        names.into_iter().filter(|&name| self.read_one(tasks, name)).count()
    }

    /// Returns the namespaces of the calling thread, as far as the reading process may follow the links.
    fn compare_namespaces(&mut self, tasks: &mut Tasks) {
        for &(link, joined) in &self.expected.namespaces {
            let Ok(found) = tasks.place(tasks.own(), link) else { continue };
            self.namespaces.push((link, found));
            let (wrong, expected) = match joined {
                Joined::This(Some(place)) => (found != place, shown(place)),
                Joined::New(Some(before)) => (found == before, "a new one".to_owned()),
                Joined::This(None) | Joined::New(None) => continue,
            };
            if wrong {
                self.add(0, link, expected, shown(found));
            }
        }
    }

    fn read_one(&mut self, tasks: &mut Tasks, name: i32) -> bool {
        let status = match tasks.status(name) {
            Ok(status) => status,
            Err(error) => {
                if !is_gone(&error) {
                    self.add(name, "/proc/self/task/TID/status", "readable", error.to_string());
                }
                return false;
            }
        };
        // The report has the numbers of our own PID namespace.
        let tid = own_number(&status, b"NSpid").unwrap_or(name);
        // A dead task keeps the privileges that it had, and runs no code. The same holds for a task that was dying in
        // the stop, and for the kernel's own threads in this process.
        let exempt = self.report.skipped().iter().any(|task| task.tid() == tid);
        let dead = field(&status, b"State")
            .is_some_and(|state| state.starts_with(b"Z") || state.starts_with(b"X"));
        if exempt || dead {
            return false;
        }
        let expected = self.expected;
        let text = |name: &[u8]| {
            field(&status, name).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let ids = |name| {
            let value = text(name)?;
            Some(value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
        };
        let numbers = |name| {
            let value = text(name)?;
            let numbers = value.split_ascii_whitespace().map(str::parse);
            numbers.collect::<Result<Vec<u32>, _>>().ok()
        };
        let set = |name| {
            let bits = u64::from_str_radix(&text(name)?, 16).ok()?;
            Some(CapabilitySet::from_bits(bits))
        };
        let (same, show) = (|text: String| text, |set| names::set(set, expected.known));
        let sets = expected.sets;
        let user = expected.uid.map(|uid| four_times(uid.as_raw()));
        let group = expected.gid.map(|gid| four_times(gid.as_raw()));
        self.note(tid, "Uid", user, ids(b"Uid"), same);
        self.note(tid, "Gid", group, ids(b"Gid"), same);
        self.note(tid, "Groups", expected.groups(), numbers(b"Groups").map(names::numbers), same);
        self.note(tid, "CapInh", Some(sets.inheritable), set(b"CapInh"), show);
        self.note(tid, "CapPrm", Some(sets.permitted), set(b"CapPrm"), show);
        self.note(tid, "CapEff", Some(sets.effective), set(b"CapEff"), show);
        self.note(tid, "CapBnd", Some(expected.bounding), set(b"CapBnd"), show);
        self.note(tid, "CapAmb", Some(expected.ambient), set(b"CapAmb"), show);
        let one = expected.no_new_privs.then(|| "1".to_owned());
        self.note(tid, "NoNewPrivs", one, text(b"NoNewPrivs"), same);
        let found = FoundIds {
            users: numbers(b"Uid").and_then(|ids| ids.try_into().ok()),
            groups: numbers(b"Gid").and_then(|ids| ids.try_into().ok()),
            supplementary: numbers(b"Groups"),
        };
        self.compare_staying(tid, found);
        if expected.filtered {
            self.note(tid, "Seccomp", Some("2".to_owned()), text(b"Seccomp"), same);
        }
        if let Some(least) = self.filters {
            let found = text(b"Seccomp_filters").unwrap_or_default();
            if found.parse::<usize>().is_ok_and(|count| count < least) {
                self.add(tid, "Seccomp_filters", format!("at least {least}"), found);
            }
        }
        self.check_place(tasks, name, tid, "root", expected.root);
        self.check_place(tasks, name, tid, "cwd", expected.directory);
        for (link, place) in self.namespaces.clone() {
            self.check_place(tasks, name, tid, link, Some(place));
        }
        true
    }

    /// Returns the root directory, the working directory or the namespace of a thread.
    fn check_place(
        &mut self,
        tasks: &mut Tasks,
        name: i32,
        tid: i32,
        link: &str,
        expected: Option<Place>,
    ) {
        let Some(expected) = expected else { return };
        let found = match tasks.place(name, link) {
            Ok(found) => found,
            Err(error) if is_gone(&error) => return,
            // The process that reads for this one needs CAP_SYS_PTRACE to follow the links.
            Err(error)
                if error.raw_os_error() == Some(libc::EACCES)
                    && (self.expected.compared || link.starts_with("ns/")) =>
            {
                return;
            }
            Err(error) => return self.add(tid, link, "readable", error.to_string()),
        };
        // The working directory belongs to the process, which may have changed it meanwhile.
        let moved = || link == "cwd" && here() == Some(found);
        if found != expected && !moved() {
            self.add(tid, link, shown(expected), shown(found));
        }
    }

    /// Tries to make this thread root again, if only a mistake could let that succeed. It does not try under a filter,
    /// which may kill for it.
    fn try_to_return(&mut self) {
        let may = self.expected.sets.permitted.contains(process::Capability::SETUID);
        let Some(uid) = self.expected.uid.filter(|&uid| uid != Uid::ROOT && !may) else { return };
        if self.expected.filtered || filtered() {
            return;
        }
        if set_this_thread(Uid::ROOT) {
            self.add(0, "setresuid 0", "EPERM", "performed");
            set_this_thread(uid);
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[allow(unsafe_code)]
fn filtered() -> bool {
    // SAFETY: it touches no memory.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) != 0 }
}

/// setresuid(2) with 32-bit ids. On old 32-bit CPUs, the call without the suffix cuts each id to 16 bits.
const SETRESUID: libc::c_long = {
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    let number = libc::SYS_setresuid32;
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    let number = libc::SYS_setresuid;
    number
};

/// Makes setresuid(2) without the C library, which would make it in all threads.
#[allow(unsafe_code)]
fn set_this_thread(uid: Uid) -> bool {
    let raw = uid.as_raw();
    // SAFETY: it takes numbers.
    unsafe { libc::syscall(SETRESUID, raw, raw, raw) == 0 }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use libpsx::process::{CapabilitySets, Securebits};

    use super::*;

    /// Makes a directory in the form of the directory of tasks, with one thread whose status cannot be read.
    fn damaged() -> (PathBuf, Tasks) {
        let directory =
            std::env::temp_dir().join(format!("privileges-tasks-{}", std::process::id()));
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        let own = link.file_name().unwrap().to_str().unwrap().to_owned();
        std::fs::create_dir_all(directory.join(&own)).unwrap();
        let status = std::fs::read("/proc/thread-self/status").unwrap();
        std::fs::write(directory.join(&own).join("status"), status).unwrap();
        std::fs::create_dir_all(directory.join("1/status")).unwrap();
        let tasks = Tasks::of_directory(&directory, own.parse().unwrap());
        (directory, tasks)
    }

    /// The first form of setresuid(2) on a 32-bit CPU cuts ids to 16 bits: 65536 would be root.
    #[test]
    fn an_id_of_32_bits_is_not_cut() {
        #[allow(unsafe_code)] // a question to the kernel
        // SAFETY: it touches no memory.
        if unsafe { libc::geteuid() } != 0 {
            println!("SKIPPED: an_id_of_32_bits_is_not_cut needs root");
            return;
        }
        // A thread of its own: only that thread changes, and it ends.
        let one = std::thread::spawn(|| {
            let done = Uid::new(65536 + 7).map(set_this_thread);
            let status = std::fs::read("/proc/thread-self/status").unwrap();
            let ids = String::from_utf8_lossy(field(&status, b"Uid").unwrap()).into_owned();
            (done.unwrap(), ids.split_whitespace().collect::<Vec<_>>().join(" "))
        });
        assert_eq!(one.join().unwrap(), (true, four_times(65536 + 7)));
    }

    #[test]
    fn what_cannot_be_read_is_a_mismatch() {
        let (directory, mut tasks) = damaged();
        let report = process::identities(64).unwrap();
        let expected = Expected {
            uid: None,
            no_root: false,
            unknown_user: None,
            gid: None,
            groups: None,
            staying: Staying::default(),
            sets: CapabilitySets::current().unwrap(),
            ambient: process::ambient_set(),
            bounding: process::bounding_set(),
            securebits: Securebits::current().unwrap(),
            no_new_privs: false,
            filtered: false,
            root: None,
            directory: None,
            known: CapabilitySet::all(),
            compared: false,
            namespaces: Vec::new(),
        };
        let mut verification = Verification::new(&expected, &report, None);
        assert_eq!(verification.read(&mut tasks), 1);
        std::fs::remove_dir_all(directory).unwrap();
        let wrong: Vec<_> =
            verification.wrong.iter().map(|one| (one.tid, one.what.as_str())).collect();
        assert_eq!(wrong, [(1, "/proc/self/task/TID/status")], "{:?}", verification.wrong);
    }
}
