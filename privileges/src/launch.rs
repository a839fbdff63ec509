//! A plan for a program that is executed, in a child process or in the place of this one, and the program's state after
//! that.

// # Safety
//
// The calls here take numbers, and structures of their function that the kernel writes.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CString, c_long};
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use libpsx::process::{CapabilitySet, CapabilitySets, IoPriority, SchedPolicy, Securebits, Uid};

use crate::context::Joined;
use crate::expected::Expected;
use crate::filter::Purpose;
use crate::names;
use crate::names::words_to_numbers;
use crate::plan::{Now, Plan, limits_of, own_filters};
use crate::resource::Resource;
use crate::status::{self, Place, field, identify};
use crate::step::Step;
use crate::tasks::Tasks;
use crate::verify::Mismatch;
use crate::{Error, Privileges};

/// A plan for a program that is executed, made by [`Privileges::plan_launch`](crate::Privileges::plan_launch).
///
/// It shows the calls, and what the program has after execve(2), which gives and takes capabilities (capabilities(7)).
///
/// ```no_run
/// use std::process::Command;
/// use privileges::{Launch, LaunchError, Privileges};
///
/// let launch: Launch = Privileges::new().user("nobody").no_new_privs().plan_launch()?;
/// match launch.spawn(Command::new("worker")) {
///     Ok(child) => println!("as planned: {}", launch.check(child.id())?.is_empty()),
///     Err(LaunchError::Call { call, error }) => eprintln!("{call}: {error}"),
///     Err(error) => eprintln!("{error}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a plan does nothing until a program is started"]
pub struct Launch {
    plan: Plan,
    after: After,
}

/// The state of a program after execve(2), if it has neither a set-user-ID bit nor file capabilities.
#[derive(Debug, Clone)]
struct After {
    users: [u32; 3],
    groups: [u32; 3],
    supplementary: Vec<u32>,
    sets: CapabilitySets,
    ambient: CapabilitySet,
    bounding: CapabilitySet,
    no_new_privs: bool,
    filtered: bool,
    /// The number of seccomp filters that the program has at least, if it is known.
    filters: Option<usize>,
    known: CapabilitySet,
}

impl After {
    /// Computes the state by the rules of capabilities(7), "Transformation of capabilities during execve()". `filters` is
    /// the number of seccomp filters after the calls.
    fn of(expected: &Expected, now: &Now, filters: Option<usize>) -> Self {
        let one = |id: u32| [id; 3];
        // The saved ids become the effective ones.
        let executed = |[real, effective, _]: [u32; 3]| [real, effective, effective];
        let users = executed(expected.uid.map_or(now.users, |uid| one(uid.as_raw())));
        let groups = executed(expected.gid.map_or(now.groups, |gid| one(gid.as_raw())));
        let supplementary = match &expected.groups {
            Some(groups) => groups.iter().map(|gid| gid.as_raw()).collect(),
            None => now.supplementary.clone(),
        };
        let Expected { sets, ambient, bounding, no_new_privs, .. } = *expected;
        let [real, effective, _] = users;
        let root = Uid::ROOT.as_raw();
        let is_root = !expected.securebits.contains(Securebits::NOROOT)
            && (real == root || effective == root);
        let mut permitted = ambient;
        if is_root {
            let full = sets.inheritable | bounding | ambient;
            permitted = if no_new_privs { full & sets.permitted } else { full };
        }
        let all_effective = is_root && effective == root;
        let sets = CapabilitySets {
            permitted,
            effective: if all_effective { permitted } else { ambient },
            inheritable: sets.inheritable,
        };
        let (filtered, known) = (expected.filtered, expected.known);
        Self {
            users,
            groups,
            supplementary,
            sets,
            ambient,
            bounding,
            no_new_privs,
            filtered,
            filters,
            known,
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [user, ..] = self.users;
        let [group, ..] = self.groups;
        write!(f, "uid {}, gid {group}, ", names::user(user))?;
        write!(f, "groups {}, ", names::numbers(self.supplementary.iter().copied()))?;
        let set = |set| names::set(set, self.known);
        write!(f, "{}, ", names::sets(self.sets, self.known))?;
        write!(f, "ambient {}, bounding {}, ", set(self.ambient), set(self.bounding))?;
        write!(f, "no_new_privs {}, ", u8::from(self.no_new_privs))?;
        f.write_str(if self.filtered { "a seccomp filter" } else { "no new seccomp filter" })
    }
}

/// The reason why a program was not started.
#[derive(Debug)]
#[non_exhaustive]
pub enum LaunchError {
    /// A call of the plan failed. The calls before it were performed: in this process by [`Launch::exec`].
    Call {
        /// The call, as the plan shows it.
        call: String,
        /// The kernel's error.
        error: io::Error,
    },
    /// execve(2) failed, or no process could be made. By [`Launch::exec`] the calls were performed in this process.
    Execute(io::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { call, error } => {
                write!(f, "call {call} failed: {error}; the program was not started")
            }
            Self::Execute(error) => {
                write!(f, "the program could not be executed: {error}")
            }
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Call { error, .. } | Self::Execute(error) => Some(error),
        }
    }
}

/// The index that means that no call has failed.
const NONE: usize = usize::MAX;

impl Launch {
    /// Makes a plan for a program. If the process stays root and the settings name no kept capabilities, the permitted
    /// set keeps those that execve(2) gives root. Without them root could not execute every file, and would get none
    /// under no_new_privs.
    pub(crate) fn of(mut settings: Privileges) -> Result<Self, Error> {
        let now = Now::get()?;
        let stays_root = settings.user.is_none() && now.users.contains(&0);
        if stays_root && settings.keep.is_none() && settings.mode.is_none() {
            let permitted = CapabilitySets::current().map(|sets| sets.permitted);
            let bounding = settings.bounding.unwrap_or_else(libpsx::process::bounding_set);
            settings.keep = Some(permitted.unwrap_or_default() & bounding);
        }
        // Ambient capabilities are kept, because only a permitted capability can be ambient.
        if let Some(ambient) = settings.ambient {
            settings.keep = Some(settings.keep.unwrap_or_default() | ambient);
        }
        let plan = Plan::of(settings, Purpose::Program)?;
        // The program inherits the filters of this process, so the mode alone does not prove that it has the plan's.
        let added = plan.steps().iter().filter(|step| matches!(step, Step::Seccomp(_))).count();
        let before = plan.expected().filtered.then(Tasks::open).flatten();
        let before = before.and_then(|mut tasks| own_filters(&mut tasks));
        let after =
            After::of(plan.expected(), &now, before.map(|before| before.saturating_add(added)));
        Ok(Self { plan, after })
    }

    /// Starts the program in a child process. The privileges of this process stay. See [`Plan::spawn`].
    ///
    /// # Errors
    /// [`LaunchError`]: there is no new process.
    pub fn spawn(&self, mut command: Command) -> Result<Child, LaunchError> {
        // The child writes which call failed. execve(2) closes the child's end.
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (reader, writer) =
            rustix::pipe::pipe_with(flags).map_err(|errno| LaunchError::Execute(errno.into()))?;
        self.plan.before_exec(&mut command, move |at| {
            let _ = rustix::io::write(&writer, &at.to_ne_bytes());
        });
        command.spawn().map_err(|error| {
            let mut at = [0; size_of::<usize>()];
            match rustix::io::read(&reader, &mut at) {
                Ok(length) if length == at.len() => {
                    LaunchError::Call { call: self.plan.call(usize::from_ne_bytes(at)), error }
                }
                _ => LaunchError::Execute(error),
            }
        })
    }

    /// Executes the program in the place of this process, which keeps its number. It returns only if that fails.
    ///
    /// The process must have one thread.
    ///
    /// # Errors
    /// [`LaunchError`]: calls of the plan may have been performed, so the process must not go on.
    pub fn exec(&self, mut command: Command) -> Result<Infallible, LaunchError> {
        let failed = Arc::new(AtomicUsize::new(NONE));
        let index = failed.clone();
        self.plan.before_exec(&mut command, move |at| index.store(at, Ordering::Relaxed));
        let error = command.exec();
        Err(match failed.load(Ordering::Relaxed) {
            NONE => LaunchError::Execute(error),
            at => LaunchError::Call { call: self.plan.call(at), error },
        })
    }

    /// Compares the plan with the state of a process that the kernel shows in /proc, from outside. Call it for a
    /// program that has not run yet, or that has not changed its own state.
    ///
    /// The kernel shows neither securebits, nor keyrings, nor Landlock domains, nor the parent-death signal of another
    /// process. What a filter does is not shown either. Since Linux 5.9 the kernel shows how many filters there are: the
    /// program must have one more than this process had when the plan was made. Before, it shows only that there is one.
    ///
    /// # Errors
    /// /proc does not show the process, or it shows the process numbers of another PID namespace than that of this process.
    pub fn check(&self, pid: u32) -> io::Result<Vec<Mismatch>> {
        status::has_own_numbers()?;
        let status = std::fs::read(format!("/proc/{pid}/status"))?;
        let mut wrong = Vec::new();
        let mut compare = |what: &str, expected: String, found: Option<String>| {
            let found = found.unwrap_or_else(|| "unknown".to_owned());
            if found != expected {
                let tid = i32::try_from(pid).unwrap_or_default();
                wrong.push(Mismatch { tid, what: what.to_owned(), expected, found });
            }
        };
        let text = |name: &str| {
            field(&status, name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let words = |name: &str| {
            text(name).map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let After { users, groups, sets, .. } = self.after;
        let four =
            |[real, effective, saved]: [u32; 3]| format!("{real} {effective} {saved} {effective}");
        compare("Uid", four(users), words("Uid"));
        compare("Gid", four(groups), words("Gid"));
        let list = text("Groups").and_then(|value| {
            let all: Result<Vec<u32>, _> = value.split_whitespace().map(str::parse).collect();
            all.ok().map(names::numbers)
        });
        compare("Groups", names::numbers(self.after.supplementary.iter().copied()), list);
        let show = |set| names::set(set, self.after.known);
        for (name, expected) in [
            ("CapInh", sets.inheritable),
            ("CapPrm", sets.permitted),
            ("CapEff", sets.effective),
            ("CapBnd", self.after.bounding),
            ("CapAmb", self.after.ambient),
        ] {
            let found = text(name).and_then(|hex| u64::from_str_radix(&hex, 16).ok());
            compare(name, show(expected), found.map(|bits| show(CapabilitySet::from_bits(bits))));
        }
        if self.after.no_new_privs {
            compare("NoNewPrivs", "1".to_owned(), text("NoNewPrivs"));
        }
        if self.after.filtered {
            compare("Seccomp", "2".to_owned(), text("Seccomp"));
        }
        // A kernel before Linux 5.9 does not show the number.
        if let Some((least, found)) = self.after.filters.zip(status::filters(&status)) {
            if found < least {
                compare("Seccomp_filters", format!("at least {least}"), Some(found.to_string()));
            }
        }
        let expected = self.plan.expected();
        let link = |name: &str| place_in_proc(&format!("/proc/{pid}/{name}"));
        let shown = |found: &Result<Place, String>| match found {
            Ok(place) => Some(status::shown(*place)),
            Err(why) => Some(why.clone()),
        };
        for (name, place) in [("root", expected.root), ("cwd", expected.directory)] {
            if let Some(place) = place {
                compare(name, status::shown(place), shown(&link(name)));
            }
        }
        for &(name, joined) in &expected.namespaces {
            let found = link(name);
            match joined {
                Joined::This(Some(place)) => compare(name, status::shown(place), shown(&found)),
                Joined::New(before)
                    if found.as_ref().ok().is_none_or(|&found| Some(found) == before) =>
                {
                    compare(name, "a new one".to_owned(), shown(&found));
                }
                Joined::This(None) | Joined::New(_) => {}
            }
        }
        for step in self.plan.steps().iter() {
            check_step(step, pid, &status, &mut compare);
        }
        Ok(wrong)
    }
}

/// Returns where a link of a process in /proc leads, or why that is not known.
fn place_in_proc(path: &str) -> Result<Place, String> {
    let path = CString::new(path).map_err(|bad| format!("unknown: {bad}"))?;
    identify(CWD, &path, AtFlags::empty()).map_err(|error| match error {
        Errno::ACCESS | Errno::PERM => "cannot be seen without CAP_SYS_PTRACE".to_owned(),
        error => format!("unknown: {error}"),
    })
}

/// Returns the limits of another process, or why they are not known.
///
/// For a process with other ids prlimit(2) needs CAP_SYS_RESOURCE. Every process may read the file.
fn limits_of_other(pid: libc::pid_t, resource: Resource) -> Result<[u64; 2], String> {
    if let Some(limits) = limits_of(pid, resource) {
        return Ok(limits);
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    limits_in(&text, resource)
        .ok_or_else(|| "cannot be seen without CAP_SYS_RESOURCE or /proc/PID/limits".to_owned())
}

/// Finds the soft and the hard limit in the text of /proc/PID/limits.
fn limits_in(text: &str, resource: Resource) -> Option<[u64; 2]> {
    let name = resource.name_in_proc();
    let values = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    let mut values = values.split_ascii_whitespace().map(|value| match value {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some([values.next()??, values.next()??])
}

/// Compares the state that one call has set, apart from credentials, with the kernel's answer for another process.
fn check_step(
    step: &Step,
    pid: u32,
    status: &[u8],
    compare: &mut impl FnMut(&str, String, Option<String>),
) {
    let raw = pid as libc::pid_t;
    match step {
        Step::Umask(mask) => {
            let found = field(status, b"Umask").and_then(|text| std::str::from_utf8(text).ok());
            let found = found.and_then(|text| u32::from_str_radix(text, 8).ok());
            compare("Umask", format!("{mask:03o}"), found.map(|mask| format!("{mask:03o}")));
        }
        Step::Limit(resource, limits) => {
            let show = |[soft, hard]: [u64; 2]| format!("soft {soft}, hard {hard}");
            let found = limits_of_other(raw, *resource).map_or_else(|why| why, show);
            compare(&resource.to_string(), show(*limits), Some(found));
        }
        Step::Cpus(words) => {
            let mut found = [0u64; 128];
            // SAFETY: the kernel writes at most so many bytes.
            let length = unsafe {
                libc::syscall(
                    libc::SYS_sched_getaffinity,
                    raw,
                    size_of_val(&found),
                    found.as_mut_ptr(),
                )
            };
            let found = (length > 0).then(|| words_to_numbers(&found));
            // The kernel leaves out the CPUs that the machine does not have.
            let asked = words_to_numbers(words);
            let inside =
                found.as_ref().is_some_and(|found| found.iter().all(|cpu| asked.contains(cpu)));
            let show = |numbers: Vec<u32>| names::numbers(numbers);
            if !inside {
                compare("CPUs", show(asked), found.map(show));
            }
        }
        Step::Nice(value) => {
            compare("nice value", value.to_string(), nice_of(raw).map(|nice| nice.to_string()))
        }
        Step::Scheduling(attributes) => {
            let Some(asked) = attributes.policy() else { return };
            let (policy, priority) = match asked {
                SchedPolicy::Batch(_) => (libc::SCHED_BATCH, 0),
                SchedPolicy::Idle => (libc::SCHED_IDLE, 0),
                SchedPolicy::Fifo(priority) => (libc::SCHED_FIFO, priority),
                SchedPolicy::RoundRobin(priority) => (libc::SCHED_RR, priority),
                _ => (libc::SCHED_OTHER, 0),
            };
            // Not by the library's functions: musl's always fail.
            // SAFETY: it takes a number.
            let found = unsafe { libc::syscall(libc::SYS_sched_getscheduler, raw) };
            let reset_on_fork = c_long::from(libc::SCHED_RESET_ON_FORK);
            let found = (found >= 0).then(|| (found & !reset_on_fork).to_string());
            compare("scheduling policy", policy.to_string(), found);
            // The only field of `struct sched_param` (include/uapi/linux/sched/types.h).
            let mut found: libc::c_int = 0;
            // SAFETY: the kernel writes the field.
            let done = unsafe { libc::syscall(libc::SYS_sched_getparam, raw, &mut found) } == 0;
            compare("priority", priority.to_string(), done.then(|| found.to_string()));
            if let SchedPolicy::Other(nice) | SchedPolicy::Batch(nice) = asked {
                compare("nice value", nice.to_string(), nice_of(raw).map(|nice| nice.to_string()));
            }
        }
        Step::IoPriority(priority) => {
            let (class, level) = match *priority {
                IoPriority::None => (0, 0),
                IoPriority::RealTime(level) => (1, level),
                IoPriority::BestEffort(level) => (2, level),
                IoPriority::Idle => (3, 0),
            };
            const WHO_PROCESS: libc::c_int = 1;
            // SAFETY: it takes numbers.
            let found = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, raw) };
            let show = |class: c_long, level: c_long| format!("class {class}, level {level}");
            let found = (found >= 0).then(|| show(found >> 13, found & 7));
            // If no class was set, the kernel returns the class that follows from the nice value.
            if class != 0 {
                compare("I/O priority", show(class, level.into()), found);
            }
        }
        Step::TimerSlack(slack) => {
            // The call needs CAP_SYS_NICE, or the same user.
            let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/timerslack_ns")) else {
                return;
            };
            if !slack.is_zero() {
                compare("timer slack", slack.as_nanos().to_string(), Some(text.trim().to_owned()));
            }
        }
        _ => {}
    }
}

/// Returns the nice value of another process.
fn nice_of(pid: libc::pid_t) -> Option<c_long> {
    // The system call itself returns 20 minus the nice value, so that no value looks like an error.
    // SAFETY: it takes numbers.
    let found = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, pid) };
    (found > 0).then(|| (20 as c_long).saturating_sub(found))
}

impl fmt::Display for Launch {
    /// Writes a line for each call, in order, then what stays and goes, and the program's state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.show_calls(f)?;
        write!(f, "then execve: the program has {}", self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every resource is found in the file, with the answer of prlimit(2).
    #[test]
    fn the_file_has_the_limits_of_the_system_call() {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        for resource in Resource::ALL {
            let limits = limits_of(0, resource);
            assert!(limits.is_some(), "{resource}");
            assert_eq!(limits_in(&text, resource), limits, "{resource}: {text}");
        }
    }
}
