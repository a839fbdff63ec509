//! Namespaces and scheduling of a plan.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use libpsx::process::{Capability, CapabilitySet, IoPriority, Namespace, SchedAttr, SchedPolicy};

use crate::Problem;
use crate::names::words_to_numbers;
use crate::plan::limits_of;
use crate::resource::Resource;
use crate::status::{self, Place};
use crate::step::Step;

/// The settings of namespaces and scheduling.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExecutionContext {
    /// The kinds of namespaces that are created.
    pub(crate) new_namespaces: Vec<Namespace>,
    /// Existing namespaces that the threads join.
    pub(crate) joined: Vec<(Namespace, Arc<OwnedFd>)>,
    pub(crate) scheduling: Option<SchedAttr>,
    pub(crate) nice: Option<i32>,
    pub(crate) io_priority: Option<IoPriority>,
    /// The CPUs: bit `n`, counted over all words, is CPU `n`.
    pub(crate) cpus: Option<Vec<u64>>,
    pub(crate) timer_slack: Option<Duration>,
}

/// The namespace in which the threads are after the plan.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Joined {
    /// This namespace, or `None` if the kernel does not show it.
    This(Option<Place>),
    /// A new namespace, which differs from the old one that is given here.
    New(Option<Place>),
}

impl ExecutionContext {
    /// Returns the kinds of namespaces that change.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Namespace> {
        self.new_namespaces.iter().copied().chain(self.joined.iter().map(|(kind, _)| *kind))
    }

    /// Returns the future targets of the links in /proc to the namespaces.
    pub(crate) fn expected(&self) -> Vec<(&'static str, Joined)> {
        let now = |kind| status::place_of(&format!("/proc/thread-self/{}", link(kind)));
        let new = self.new_namespaces.iter().map(|&kind| (link(kind), Joined::New(now(kind))));
        let these = self
            .joined
            .iter()
            .map(|(kind, fd)| (link(*kind), Joined::This(status::place_of_file(fd))));
        new.chain(these).collect()
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.scheduling.is_some()
            || self.nice.is_some()
            || self.io_priority.is_some()
            || self.cpus.is_some()
            || self.timer_slack.is_some()
    }

    /// Returns the problems of the scheduling that are known before the calls. `held` is the permitted set of the
    /// calling thread.
    pub(crate) fn problems(&self, held: CapabilitySet) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut range = |what, value: i64, from: i64, to: i64| {
            let outside = !(from..=to).contains(&value);
            if outside {
                found.push(Problem::OutOfRange { what, value, from, to });
            }
            !outside
        };
        let nice_range = |nice: i32| (i64::from(nice), -20, 19);
        let mut nice = self.nice;
        let mut priority = None;
        if let Some(nice) = self.nice {
            let (value, from, to) = nice_range(nice);
            range("the nice value", value, from, to);
        }
        let policy = self.scheduling.and_then(|attributes| attributes.policy());
        match policy {
            Some(SchedPolicy::Other(value) | SchedPolicy::Batch(value)) => {
                nice = Some(value);
                let (value, from, to) = nice_range(value);
                range("the nice value", value, from, to);
            }
            Some(SchedPolicy::Fifo(value) | SchedPolicy::RoundRobin(value)) => {
                priority = Some(value);
                range("the real-time priority", value.into(), 1, 99);
            }
            _ => {}
        }
        let utilization = self.scheduling.map_or([None; 2], |attributes| attributes.utilization());
        let [min, max] =
            utilization.map(|value| value.filter(|value| *value != SchedAttr::UTIL_RESET));
        for (what, value) in [("the least utilization", min), ("the most utilization", max)] {
            if let Some(value) = value {
                range(what, value.into(), 0, 1024);
            }
        }
        if let (Some(min), Some(max)) = (min, max) {
            if max <= 1024 {
                range("the least utilization", min.into(), 0, max.into());
            }
        }
        if let Some(IoPriority::RealTime(level) | IoPriority::BestEffort(level)) = self.io_priority
        {
            range("the level of the I/O priority", level.into(), 0, 7);
        }
        let mut needs = |needed: bool, what, capability| {
            if needed && !held.contains(capability) {
                found.push(Problem::MissingCapability { what, capability });
            }
        };
        // setpriority(2), sched_setattr(2): a lower nice value and a real-time policy are possible within a limit.
        let (lower, beyond_limit) = nice.map_or((false, false), |nice| {
            let floor =
                20i64.saturating_sub(own_limit(Resource::Nice).unwrap_or(u64::MAX).min(40) as i64);
            (i64::from(nice) < own_nice(), i64::from(nice) < floor)
        });
        needs(lower && beyond_limit, "a lower nice value", Capability::SYS_NICE);
        let above = priority.is_some_and(|priority| {
            own_limit(Resource::Rtprio).is_some_and(|limit| u64::from(priority) > limit)
        });
        needs(above, "a real-time priority above RLIMIT_RTPRIO", Capability::SYS_NICE);
        let real_time = matches!(self.io_priority, Some(IoPriority::RealTime(_)));
        needs(
            real_time && !held.contains(Capability::SYS_ADMIN),
            "a real-time I/O priority",
            Capability::SYS_NICE,
        );
        let other = |(kind, fd): &&(Namespace, Arc<OwnedFd>)| is_other_kind(*kind, fd);
        let others = self.joined.iter().filter(other);
        found.extend(others.map(|(kind, _)| Problem::OtherNamespace { kind: *kind }));
        if let (Some(words), Some(online)) = (&self.cpus, online_cpus()) {
            let asked = words_to_numbers(words);
            if !asked.iter().any(|cpu| online.contains(cpu)) {
                found.push(Problem::NoCpu { asked, online });
            }
        }
        found
    }

    /// Returns the capabilities that the calls of the scheduling may need in any thread.
    pub(crate) fn useful(&self) -> CapabilitySet {
        let mut useful = CapabilitySet::EMPTY;
        if self.scheduling.is_some() || self.nice.is_some() || self.io_priority.is_some() {
            useful |= Capability::SYS_NICE.into();
        }
        if let Some(IoPriority::RealTime(_)) = self.io_priority {
            useful |= Capability::SYS_ADMIN.into();
        }
        useful
    }

    /// Returns the calls. They need privilege, so they come before the ids change.
    pub(crate) fn steps(self) -> impl Iterator<Item = Step> {
        let made = self.new_namespaces.into_iter().map(Step::NewNamespace);
        let joined = self.joined.into_iter().map(|(kind, fd)| Step::JoinNamespace(kind, fd));
        made.chain(joined)
            .chain(self.scheduling.map(Step::Scheduling))
            .chain(self.nice.map(Step::Nice))
            .chain(self.io_priority.map(Step::IoPriority))
            .chain(self.cpus.map(Step::Cpus))
            .chain(self.timer_slack.map(Step::TimerSlack))
    }
}

/// Returns whether the kernel says that a descriptor is no namespace of this kind (ioctl_ns(2), NS_GET_NSTYPE).
#[allow(unsafe_code)]
fn is_other_kind(kind: Namespace, fd: &OwnedFd) -> bool {
    let wanted = match kind {
        Namespace::Network => libc::CLONE_NEWNET,
        Namespace::Uts => libc::CLONE_NEWUTS,
        Namespace::Ipc => libc::CLONE_NEWIPC,
        _ => libc::CLONE_NEWCGROUP,
    };
    // SAFETY: it takes numbers.
    let found = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    let error = std::io::Error::last_os_error().raw_os_error();
    // Any other error may be a filter's.
    found >= 0 && found != wanted || found < 0 && error == Some(libc::ENOTTY)
}

/// Returns the nice value of the calling thread.
fn own_nice() -> i64 {
    rustix::process::getpriority_process(None).map_or(0, i64::from)
}

/// Returns the soft limit of this process, or `None` if it cannot be read.
fn own_limit(resource: Resource) -> Option<u64> {
    limits_of(0, resource).map(|[soft, _]| soft)
}

/// Returns the CPUs that a thread can run on, or `None` if the kernel does not show them. A chroot often has /proc and no
/// /sys.
fn online_cpus() -> Option<Vec<u32>> {
    let shown = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    shown.and_then(|text| cpus_of_list(&text)).or_else(|| {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let names = text.lines().filter_map(|line| line.strip_prefix("cpu")?.split(' ').next());
        // The first line is the sum, and its name has no number.
        let all: Vec<u32> = names.filter_map(|number| number.parse().ok()).collect();
        (!all.is_empty()).then_some(all)
    })
}

/// Returns the numbers in a text like `0-3,8`.
fn cpus_of_list(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for range in text.trim().split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        all.extend(from.parse::<u32>().ok()?..=to.parse::<u32>().ok()?);
    }
    Some(all)
}

/// Returns the name of the link in /proc to the namespace of a thread.
pub(crate) fn link(kind: Namespace) -> &'static str {
    match kind {
        Namespace::Network => "ns/net",
        Namespace::Uts => "ns/uts",
        Namespace::Ipc => "ns/ipc",
        _ => "ns/cgroup",
    }
}
