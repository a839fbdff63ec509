//! Scheduling, and other settings of a thread. A call here replaces settings that a thread may have made for itself.
//!
//! ```
//! use std::time::Duration;
//!
//! use libpsx::Transaction;
//! use libpsx::process::{IoPriority, SchedPolicy, ioprio_set, sched_setscheduler, set_timer_slack};
//!
//! // A background program: one stop for all threads.
//! Transaction::new()
//!     .with(sched_setscheduler(SchedPolicy::Batch(10)))
//!     .with(ioprio_set(IoPriority::Idle))
//!     .with(set_timer_slack(Duration::from_millis(1)))
//!     .execute()?;
//! # Ok::<(), libpsx::TransactionError>(())
//! ```

use core::time::Duration;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::Operation;
use crate::engine::call::ResultCheck;
use crate::process::operation::pair;

/// Sets how late the timers of a thread may expire. The kernel's unit is the nanosecond. Zero stands for the default,
/// which is the value that the thread began with. On a 32-bit CPU a longer time than 4.29 s becomes 4.29 s, the most that a
/// register holds. A thread with a real-time policy has no timer slack. The kernel reports no errors.
/// (PR_SET_TIMERSLACK(2const))
pub const fn set_timer_slack(slack: Duration) -> Operation<'static> {
    let nanos = slack.as_nanos();
    let nanos = if nanos > usize::MAX as u128 { usize::MAX } else { nanos as usize };
    Operation::new(k::__NR_prctl, [p::PR_SET_TIMERSLACK as usize, nanos, 0, 0, 0, 0])
}

/// Sets the nice value, from -20 (the most CPU time) to 19. The kernel replaces a value outside of this range by the
/// nearest one. (setpriority(2), PRIO_PROCESS, of the thread itself)
///
/// # Errors
/// EACCES if the value is lower than before, and the thread has neither CAP_SYS_NICE nor room in RLIMIT_NICE.
///
/// # Example
/// ```
/// libpsx::process::setpriority(10).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn setpriority(value: i32) -> Operation<'static> {
    const PRIO_PROCESS: usize = 0;
    Operation::new(k::__NR_setpriority, [PRIO_PROCESS, 0, value as usize, 0, 0, 0])
}

/// A scheduling policy (sched(7)). SCHED_DEADLINE is missing on purpose: the kernel admits each thread on its own, as
/// long as all deadlines can be met, so not all threads of a process would get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchedPolicy {
    /// SCHED_OTHER, with a nice value from -20 to 19.
    Other(i32),
    /// SCHED_BATCH, with a nice value.
    Batch(i32),
    /// SCHED_IDLE.
    Idle,
    /// SCHED_FIFO, with a priority from 1 to 99.
    Fifo(u32),
    /// SCHED_RR, with a priority from 1 to 99.
    RoundRobin(u32),
}

/// Sets the scheduling policy and its parameter. Children inherit them. [`sched_setattr`] can set more. (The kernel call
/// is sched_setattr(2), of the thread itself.)
///
/// # Errors
/// | errno | cause |
/// |---|---|
/// | EINVAL | the priority is out of range |
/// | EPERM | the thread has neither CAP_SYS_NICE nor room in RLIMIT_RTPRIO or RLIMIT_NICE |
///
/// # Example
/// ```
/// use libpsx::process::{SchedPolicy, sched_setscheduler};
///
/// sched_setscheduler(SchedPolicy::Batch(5)).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn sched_setscheduler(policy: SchedPolicy) -> Operation<'static> {
    sched_setattr(SchedAttr::new(policy))
}

/// The attributes that [`sched_setattr`] sets.
///
/// ```no_run
/// use libpsx::process::{SchedAttr, SchedPolicy, sched_setattr};
///
/// // Real-time threads on CPUs at half of their speed or more. Their children are not real-time threads.
/// let attr = SchedAttr::new(SchedPolicy::Fifo(10)).reset_on_fork().util_min(512);
/// sched_setattr(attr).execute()?;
/// // Only the upper clamp changes.
/// sched_setattr(SchedAttr::keep_all().util_max(768)).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SchedAttr {
    policy: u32,
    flags: u32,
    nice: i32,
    priority: u32,
    utilization: [u32; 2],
}

impl SchedAttr {
    /// Sets a policy and its parameter, and nothing else.
    pub const fn new(policy: SchedPolicy) -> Self {
        let (policy, nice, priority) = match policy {
            SchedPolicy::Other(nice) => (k::SCHED_NORMAL, nice, 0),
            SchedPolicy::Batch(nice) => (k::SCHED_BATCH, nice, 0),
            SchedPolicy::Idle => (k::SCHED_IDLE, 0, 0),
            SchedPolicy::Fifo(priority) => (k::SCHED_FIFO, 0, priority),
            SchedPolicy::RoundRobin(priority) => (k::SCHED_RR, 0, priority),
        };
        Self { policy, flags: 0, nice, priority, utilization: [0; 2] }
    }

    /// Keeps the policy and the parameter of each thread (`SCHED_FLAG_KEEP_ALL`, Linux 5.3). Use it to set the utilization
    /// clamp alone. [`reset_on_fork`](Self::reset_on_fork) has no effect then.
    pub const fn keep_all() -> Self {
        let Self { policy, nice, priority, utilization, .. } = Self::new(SchedPolicy::Other(0));
        Self { policy, flags: k::SCHED_FLAG_KEEP_ALL, nice, priority, utilization }
    }

    /// Lets children and new threads begin with SCHED_OTHER and a nice value that is not negative
    /// (`SCHED_FLAG_RESET_ON_FORK`). Only a thread with CAP_SYS_NICE can undo it.
    pub const fn reset_on_fork(mut self) -> Self {
        self.flags |= k::SCHED_FLAG_RESET_ON_FORK;
        self
    }

    /// Sets the lower clamp of the thread's utilization, from 0 to 1024, where 1024 is all of the largest CPU
    /// (`SCHED_FLAG_UTIL_CLAMP_MIN`, Linux 5.3). [`UTIL_RESET`](Self::UTIL_RESET) restores the default, since Linux 5.11.
    pub const fn util_min(mut self, value: u32) -> Self {
        self.flags |= k::SCHED_FLAG_UTIL_CLAMP_MIN;
        let [_, max] = self.utilization;
        self.utilization = [value, max];
        self
    }

    /// Sets the upper clamp of the thread's utilization; see [`util_min`](Self::util_min).
    pub const fn util_max(mut self, value: u32) -> Self {
        self.flags |= k::SCHED_FLAG_UTIL_CLAMP_MAX;
        let [min, _] = self.utilization;
        self.utilization = [min, value];
        self
    }

    /// Returns the policy with its parameter; `None` for [`keep_all`](Self::keep_all).
    ///
    /// ```
    /// use libpsx::process::{SchedAttr, SchedPolicy};
    ///
    /// assert_eq!(SchedAttr::new(SchedPolicy::Fifo(10)).policy(), Some(SchedPolicy::Fifo(10)));
    /// assert_eq!(SchedAttr::keep_all().policy(), None);
    /// assert_eq!(SchedAttr::keep_all().util_min(512).utilization(), [Some(512), None]);
    /// ```
    pub const fn policy(&self) -> Option<SchedPolicy> {
        if self.flags & k::SCHED_FLAG_KEEP_ALL == k::SCHED_FLAG_KEEP_ALL {
            return None;
        }
        Some(match self.policy {
            k::SCHED_BATCH => SchedPolicy::Batch(self.nice),
            k::SCHED_IDLE => SchedPolicy::Idle,
            k::SCHED_FIFO => SchedPolicy::Fifo(self.priority),
            k::SCHED_RR => SchedPolicy::RoundRobin(self.priority),
            _ => SchedPolicy::Other(self.nice),
        })
    }

    /// Returns the least and the most that a CPU counts as used by the thread, as far as they are set.
    pub const fn utilization(&self) -> [Option<u32>; 2] {
        let [min, max] = self.utilization;
        [
            if self.flags & k::SCHED_FLAG_UTIL_CLAMP_MIN != 0 { Some(min) } else { None },
            if self.flags & k::SCHED_FLAG_UTIL_CLAMP_MAX != 0 { Some(max) } else { None },
        ]
    }

    /// Stands for the system's default.
    pub const UTIL_RESET: u32 = u32::MAX;
}

/// Sets the scheduling policy with its attributes. sched_setattr(2) of the thread itself; kernel/sched/syscalls.c.
/// Children inherit it, unless [`SchedAttr::reset_on_fork`] is set.
///
/// # Errors
/// EINVAL for a priority, nice value or utilization out of range. EPERM without CAP_SYS_NICE or room in
/// RLIMIT_RTPRIO and RLIMIT_NICE. EOPNOTSUPP for utilization if the kernel is built without CONFIG_UCLAMP_TASK; E2BIG
/// before Linux 5.3.
pub const fn sched_setattr(attr: SchedAttr) -> Operation<'static> {
    let SchedAttr { policy, flags, nice, priority, utilization: [min, max] } = attr;
    // `struct sched_attr` (include/uapi/linux/sched/types.h): size, policy, flags, nice value, priority, nothing for a
    // deadline; and in the second version the utilization.
    const FIRST_VERSION: u32 = 48;
    const SECOND_VERSION: u32 = 56;
    let clamps = flags & k::SCHED_FLAG_UTIL_CLAMP != 0;
    let size = if clamps { SECOND_VERSION } else { FIRST_VERSION };
    let nice = pair(nice as u32, priority);
    let words = [pair(size, policy), flags as u64, nice, 0, 0, 0, pair(min, max)];
    Operation::new(k::__NR_sched_setattr, [0; 6]).with(words, [0, 1, 0, 0, 0, 0])
}

/// The memory nodes that a thread's pages come from, set_mempolicy(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryPolicy {
    /// The system's default.
    Default,
    /// These nodes first, then others.
    Preferred,
    /// These nodes only.
    Bind,
    /// These nodes in turn.
    Interleave,
    /// The node of the CPU that asks.
    Local,
}

/// Sets the memory policy. Bit `n` of the words together is node `n`; `Default` and `Local` take no nodes. Children
/// inherit it. Pages that are there already stay where they are. set_mempolicy(2): EINVAL; ENOSYS if the kernel has no
/// memory policies.
///
/// ```no_run
/// use libpsx::process::{MemoryPolicy, set_mempolicy};
///
/// set_mempolicy(MemoryPolicy::Bind, &[0b1]).execute()?; // Node 0 only.
/// # Ok::<(), libpsx::Error>(())
/// ```
pub fn set_mempolicy(policy: MemoryPolicy, nodes: &[u64]) -> Operation<'_> {
    let mode = match policy {
        MemoryPolicy::Default => 0,
        MemoryPolicy::Preferred => 1,
        MemoryPolicy::Bind => 2,
        MemoryPolicy::Interleave => 3,
        MemoryPolicy::Local => 4,
    };
    let (mask, bits) = match nodes {
        [] => (0, 0),
        // "maxnode" counts one more than there are, set_mempolicy(2), BUGS.
        _ => (nodes.as_ptr() as usize, size_of_val(nodes).saturating_mul(8).saturating_add(1)),
    };
    Operation::new(k::__NR_set_mempolicy, [mode, mask, bits, 0, 0, 0])
}

/// The priority of a thread's input and output, ioprio_set(2). There are 8 levels, and 0 is the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IoPriority {
    /// As the nice value says.
    None,
    /// Before all other classes. It needs CAP_SYS_ADMIN or CAP_SYS_NICE.
    RealTime(u8),
    /// As other threads.
    BestEffort(u8),
    /// Only if no other thread uses the disk.
    Idle,
}

/// Sets the priority of input and output. ioprio_set(2): EINVAL for a level above 7, EPERM.
pub const fn ioprio_set(priority: IoPriority) -> Operation<'static> {
    const IOPRIO_WHO_PROCESS: usize = 1;
    const CLASS_SHIFT: usize = 13;
    let (class, level) = match priority {
        IoPriority::None => (0, 0),
        IoPriority::RealTime(level) => (1, level),
        IoPriority::BestEffort(level) => (2, level),
        IoPriority::Idle => (3, 0),
    };
    // The kernel would take the high bits of a level for hints: there is no class 7.
    let class = if level > 7 { 7 } else { class };
    let value = class << CLASS_SHIFT | (level & 7) as usize;
    Operation::new(k::__NR_ioprio_set, [IOPRIO_WHO_PROCESS, 0, value, 0, 0, 0])
}

/// Sets the CPUs that the threads may run on. Bit `n` of the words together is CPU `n`. sched_setaffinity(2):
/// EINVAL if the thread may use none of them.
///
/// ```no_run
/// libpsx::process::sched_setaffinity(&[0b11]).execute()?; // CPUs 0 and 1.
/// # Ok::<(), libpsx::Error>(())
/// ```
pub fn sched_setaffinity(cpus: &[u64]) -> Operation<'_> {
    let args = [0, size_of_val(cpus), cpus.as_ptr() as usize, 0, 0, 0];
    Operation::new(k::__NR_sched_setaffinity, args)
}

/// Sets the execution domain: `ADDR_NO_RANDOMIZE` and the like. The value of the call is the domain of before. Most
/// flags count from the next execve(2) on, and children inherit them. personality(2): no errors.
///
/// ```no_run
/// const ADDR_NO_RANDOMIZE: u32 = 0x0040000;
/// let before = libpsx::process::personality(ADDR_NO_RANDOMIZE).execute()?;
/// # let _ = before;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn personality(persona: u32) -> Operation<'static> {
    Operation::new(k::__NR_personality, [persona as usize, 0, 0, 0, 0, 0])
        .result_check(ResultCheck::AnySuccess)
}

/// A speculative misfeature of CPUs, PR_SET_SPECULATION_CTRL(2const).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpeculationFeature {
    /// Speculative store bypass.
    StoreBypass,
    /// Indirect branch speculation.
    IndirectBranch,
    /// Flushing of the L1 data cache when the thread is switched from.
    L1dFlush,
}

/// The setting of a speculative misfeature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpeculationControl {
    /// The misfeature is on, the mitigation off.
    Enable,
    /// The misfeature is off, the mitigation on.
    Disable,
    /// As [`Disable`](Self::Disable), for good.
    ForceDisable,
    /// As [`Disable`](Self::Disable), until execve(2).
    DisableUntilExec,
}

/// Sets a speculative misfeature. Children inherit it. PR_SET_SPECULATION_CTRL(2const): ENODEV if the CPU or the kernel
/// has no such control, ENXIO if it cannot be set per thread, EPERM if it was disabled for good, ERANGE. Linux has these
/// controls on x86, arm64 and powerpc only; on other CPUs the error is EINVAL (kernel/sys.c).
///
/// ```no_run
/// use libpsx::process::{SpeculationFeature, SpeculationControl, set_speculation_ctrl};
///
/// set_speculation_ctrl(SpeculationFeature::StoreBypass, SpeculationControl::ForceDisable).execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
pub const fn set_speculation_ctrl(
    which: SpeculationFeature,
    control: SpeculationControl,
) -> Operation<'static> {
    let which = match which {
        SpeculationFeature::StoreBypass => p::PR_SPEC_STORE_BYPASS,
        SpeculationFeature::IndirectBranch => p::PR_SPEC_INDIRECT_BRANCH,
        SpeculationFeature::L1dFlush => p::PR_SPEC_L1D_FLUSH,
    };
    let control = match control {
        SpeculationControl::Enable => p::PR_SPEC_ENABLE,
        SpeculationControl::Disable => p::PR_SPEC_DISABLE,
        SpeculationControl::ForceDisable => p::PR_SPEC_FORCE_DISABLE,
        SpeculationControl::DisableUntilExec => p::PR_SPEC_DISABLE_NOEXEC,
    };
    let option = p::PR_SET_SPECULATION_CTRL as usize;
    Operation::new(k::__NR_prctl, [option, which as usize, control as usize, 0, 0, 0])
}
