//! The settings, each with a method of the builder.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libpsx::process::{
    CapabilitySet, Instruction, IoPriority, LandlockFlags, Namespace, SchedAttr, Securebits,
};

#[cfg(feature = "landlock")]
use landlock::RulesetCreated;

#[cfg(doc)]
use crate::bpf;
use crate::context::ExecutionContext;
use crate::filter::Purpose;
#[cfg(feature = "toml")]
use crate::unit;
use crate::{Error, Groups, Iab, Id, IntoCapabilitySet, Launch, Mode, Plan, Problem, Resource};

/// The settings: the privileges that a process keeps.
///
/// A setting that is made twice with different values is an error of [`plan`](Self::plan); sets of capabilities add
/// up.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing is done until the plan is applied"]
pub struct Privileges {
    pub(crate) user: Option<Id>,
    pub(crate) stay_root: bool,
    pub(crate) group: Option<Id>,
    pub(crate) groups: Option<Groups>,
    pub(crate) keep_groups: bool,
    pub(crate) keep: Option<CapabilitySet>,
    pub(crate) inheritable: Option<CapabilitySet>,
    pub(crate) ambient: Option<CapabilitySet>,
    pub(crate) bounding: Option<CapabilitySet>,
    pub(crate) iab: Option<Iab>,
    /// The capabilities that the bounding set loses.
    pub(crate) blocked: CapabilitySet,
    pub(crate) securebits: Option<Securebits>,
    pub(crate) mode: Option<Mode>,
    pub(crate) no_new_privs: bool,
    pub(crate) landlock: Option<Ruleset>,
    pub(crate) landlock_flags: Option<LandlockFlags>,
    pub(crate) one_landlock_domain: bool,
    pub(crate) seccomp: Option<Vec<Instruction>>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) umask: Option<u32>,
    pub(crate) limits: Vec<(Resource, [u64; 2])>,
    pub(crate) new_session_keyring: bool,
    pub(crate) dumpable: bool,
    pub(crate) parent_death_signal: Option<i32>,
    pub(crate) context: ExecutionContext,
    pub(crate) deadline: Option<Duration>,
    pub(crate) report_failure: bool,
    /// Settings that were made twice with different values.
    pub(crate) twice: Vec<&'static str>,
}

/// A ruleset of Landlock, with the properties that the crate `landlock` shows.
#[derive(Debug, Clone)]
pub(crate) struct Ruleset {
    /// The descriptor, or `None` if the kernel does not support the ruleset.
    pub(crate) ruleset: Option<Arc<OwnedFd>>,
    /// The flags of landlock_restrict_self(2); `None` if they are not known.
    pub(crate) flags: Option<LandlockFlags>,
}

impl Privileges {
    /// Returns the settings without any change: no capability is kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a setting, and records if it was made before with another value.
    fn once<T: PartialEq>(
        mut self,
        name: &'static str,
        value: T,
        place: impl FnOnce(&mut Self) -> &mut Option<T>,
    ) -> Self {
        let place = place(&mut self);
        let other = place.as_ref().is_some_and(|before| *before != value);
        *place = Some(value);
        if other {
            self.twice.push(name);
        }
        self
    }

    /// Sets the user id, all four of them. Without [`group`](Self::group), the group ids are those of the
    /// user's group; without [`groups`](Self::groups) the supplementary groups are the user's.
    pub fn user(self, user: impl Into<Id>) -> Self {
        self.once("user", user.into(), |all| &mut all.user)
    }

    /// States that a process whose user id is 0 keeps it. Without this and without [`user`](Self::user), that is an
    /// error, and every thread must have the user ids of the calling thread. With this, each thread keeps its own.
    pub fn stay_root(mut self) -> Self {
        self.stay_root = true;
        self
    }

    /// Sets the group id, all four of them.
    pub fn group(self, group: impl Into<Id>) -> Self {
        self.once("group", group.into(), |all| &mut all.group)
    }

    /// Sets the supplementary groups: [`Groups::NONE`], `["adm", "audio"]`, [`Groups::FromUser`].
    pub fn groups(self, groups: impl Into<Groups>) -> Self {
        self.once("groups", groups.into(), |all| &mut all.groups)
    }

    /// States that each thread keeps its supplementary groups. Without this, a user, a group or
    /// [`groups`](Self::groups), that is an error.
    ///
    /// Group ids that no setting changes must be the same in every thread. If [`stay_root`](Self::stay_root) is set as
    /// well, each thread keeps its own.
    pub fn keep_groups(mut self) -> Self {
        self.keep_groups = true;
        self
    }

    /// Adds to the capabilities that stay, permitted and effective. Those that are not named are dropped.
    pub fn keep(mut self, capabilities: impl IntoCapabilitySet) -> Self {
        add(&mut self.keep, capabilities);
        self
    }

    /// Adds to the capabilities that executed programs inherit if their files say so.
    pub fn inheritable(mut self, capabilities: impl IntoCapabilitySet) -> Self {
        add(&mut self.inheritable, capabilities);
        self
    }

    /// Adds to the capabilities that executed programs inherit. They have to be kept as well.
    pub fn ambient(mut self, capabilities: impl IntoCapabilitySet) -> Self {
        add(&mut self.ambient, capabilities);
        self
    }

    /// Adds to the capabilities that stay in the bounding set. The others leave it.
    pub fn bounding(mut self, capabilities: impl IntoCapabilitySet) -> Self {
        add(&mut self.bounding, capabilities);
        self
    }

    /// Sets the inheritable, ambient and bounding set as cap_iab_from_text(3) writes them: each as
    /// cap_iab_set_proc(3) would set it. Setting one of the three besides is an error.
    pub fn iab(self, iab: Iab) -> Self {
        self.once("iab", iab, |all| &mut all.iab)
    }

    /// Sets the securebits.
    pub fn securebits(self, bits: Securebits) -> Self {
        self.once("securebits", bits, |all| &mut all.securebits)
    }

    /// Sets one of libcap's modes. It settles the securebits but those for interpreters
    /// ([`Securebits::EXEC_RESTRICT_FILE`] and the three after it), which stay. Without [`keep`](Self::keep) the permitted set
    /// stays as it is, and the effective set becomes empty, as cap_set_mode(3) leaves it.
    pub fn mode(self, mode: Mode) -> Self {
        self.once("mode", mode, |all| &mut all.mode)
    }

    /// Sets no_new_privs, so that execve(2) gives no privilege any more.
    pub fn no_new_privs(mut self) -> Self {
        self.no_new_privs = true;
        self
    }

    /// Puts every thread under Landlock's ruleset, with the flags for logging that were set on it. Each thread keeps the
    /// restrictions that it has, and gets a domain of its own; a ruleset with a scope needs
    /// [`one_landlock_domain`](Self::one_landlock_domain). It sets no_new_privs too, even on a kernel without Landlock. A ruleset that the kernel does not support (which the
    /// `landlock` crate allows unless it was configured otherwise) restricts nothing, and [`Plan`] says so.
    #[cfg(feature = "landlock")]
    pub fn landlock(mut self, ruleset: RulesetCreated) -> Self {
        if self.landlock.is_some() {
            self.twice.push("landlock");
        }
        let flags = flags_of(&ruleset);
        let ruleset: Option<OwnedFd> = ruleset.into();
        self.landlock = Some(Ruleset { ruleset: ruleset.map(Arc::new), flags });
        self
    }

    /// Sets the flags of landlock_restrict_self(2), in place of those of the ruleset. This is necessary if the version
    /// of the crate `landlock` does not show the flags of its rulesets.
    pub fn landlock_flags(self, flags: LandlockFlags) -> Self {
        self.once("landlock_flags", flags, |all| &mut all.landlock_flags)
    }

    /// Lets the kernel put all threads under one Landlock domain, if it can (Landlock's ABI 8, Linux 7.0) and the plan
    /// has no filter. A ruleset with a scope needs this: in domains of their own, the threads of the process cannot
    /// connect to each other's abstract sockets.
    ///
    /// **The kernel replaces the domain of every other thread by the calling thread's.** A thread that had restricted
    /// itself further can then do what its own domain denied, and no error says so. The kernel does not show the domain
    /// of a thread. Use this only if the program knows that no other thread has restricted itself by Landlock.
    ///
    /// ```
    /// use privileges::Privileges;
    ///
    /// let settings = Privileges::new().user("nobody").one_landlock_domain();
    /// ```
    pub fn one_landlock_domain(mut self) -> Self {
        self.one_landlock_domain = true;
        self
    }

    /// Installs a seccomp filter, such as `seccompiler` compiles. It brings no_new_privs. The filter comes last, so it
    /// need not allow the calls of the plan. It has to allow what the threads need to leave the stop, and the calling
    /// thread to verify; [`plan`](Self::plan) runs the filter over these calls ([`bpf`]), and an error lists those
    /// that it denies. `seccompiler` is empty on big-endian CPUs (s390x): there, use
    /// [`seccomp_program`](Self::seccomp_program).
    #[cfg(all(feature = "seccompiler", target_endian = "little"))]
    pub fn seccomp(self, program: &[seccompiler::sock_filter]) -> Self {
        let instruction = |step: &seccompiler::sock_filter| Instruction {
            code: step.code,
            jt: step.jt,
            jf: step.jf,
            k: step.k,
        };
        self.seccomp_program(program.iter().map(instruction).collect())
    }

    /// Installs a seccomp filter of instructions, as [`seccomp`](Self::seccomp) does.
    pub fn seccomp_program(self, program: Vec<Instruction>) -> Self {
        self.once("seccomp", program, |all| &mut all.seccomp)
    }

    /// Sets the root directory, chroot(2). The working directory becomes it too.
    pub fn chroot(self, root: impl Into<PathBuf>) -> Self {
        self.once("chroot", root.into(), |all| &mut all.root)
    }

    /// Sets the working directory, chdir(2): in the new root directory, if there is one.
    pub fn chdir(self, directory: impl Into<PathBuf>) -> Self {
        self.once("chdir", directory.into(), |all| &mut all.directory)
    }

    /// Sets a resource limit of the process, setrlimit(2): the soft and the hard limit. `u64::MAX` is no limit.
    pub fn limit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        if self.limits.iter().any(|(other, limits)| *other == resource && *limits != [soft, hard]) {
            self.twice.push("limit");
        }
        self.limits.retain(|(other, _)| *other != resource);
        self.limits.push((resource, [soft, hard]));
        self
    }

    /// Sets the file mode creation mask, umask(2).
    pub fn umask(self, mask: u32) -> Self {
        self.once("umask", mask & 0o777, |all| &mut all.umask)
    }

    /// Gives all threads a new, empty session keyring (session-keyring(7)). Without it the new user can go on to read
    /// the keys of the present session keyring, root's for example, because it possesses them.
    pub fn new_session_keyring(mut self) -> Self {
        self.new_session_keyring = true;
        self
    }

    /// Makes the process dumpable again (PR_SET_DUMPABLE(2const)), which the kernel undoes if an id changes. A process
    /// of the same user can then trace it, and a core dump is written.
    pub fn dumpable(mut self) -> Self {
        self.dumpable = true;
        self
    }

    /// Sets the signal that the process gets when its parent ends (PR_SET_PDEATHSIG(2const)). The kernel clears it if
    /// an id changes. It sends the signal only if the parent may signal this process (kill(2)) when it ends.
    pub fn parent_death_signal(self, signal: i32) -> Self {
        self.once("parent_death_signal", signal, |all| &mut all.parent_death_signal)
    }

    /// Moves the process into a new namespace of this kind ([`libpsx::process::unshare`]): all threads into the same
    /// one.
    pub fn new_namespace(mut self, kind: Namespace) -> Self {
        let new = &mut self.context.new_namespaces;
        if !new.contains(&kind) {
            new.push(kind);
        }
        self
    }

    /// Moves the process into a namespace, setns(2): a file of /proc/PID/ns, or one that was mounted from there.
    ///
    /// ```no_run
    /// use privileges::{Namespace, Privileges};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let network = std::fs::File::open("/run/netns/blue")?;
    /// Privileges::new().user("nobody").join_namespace(Namespace::Network, network).plan()?.apply()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_namespace(mut self, kind: Namespace, namespace: impl Into<OwnedFd>) -> Self {
        if self.context.joined.iter().any(|(other, _)| *other == kind) {
            self.twice.push("join_namespace");
        }
        self.context.joined.push((kind, Arc::new(namespace.into())));
        self
    }

    /// Sets the scheduling policy with its attributes, sched_setattr(2).
    ///
    /// ```
    /// use privileges::{Privileges, SchedAttr, SchedPolicy};
    ///
    /// let settings = Privileges::new().scheduling(SchedAttr::new(SchedPolicy::Batch(5)).reset_on_fork());
    /// ```
    pub fn scheduling(self, attributes: SchedAttr) -> Self {
        self.once("scheduling", attributes, |all| &mut all.context.scheduling)
    }

    /// Sets the nice value and leaves the policy, setpriority(2): from -20 (the most CPU time) to 19.
    pub fn nice(self, value: i32) -> Self {
        self.once("nice", value, |all| &mut all.context.nice)
    }

    /// Sets the priority of input and output, ioprio_set(2).
    pub fn io_priority(self, priority: IoPriority) -> Self {
        self.once("io_priority", priority, |all| &mut all.context.io_priority)
    }

    /// Sets the CPUs that the threads may run on, by their numbers, sched_setaffinity(2).
    pub fn cpus(self, numbers: impl IntoIterator<Item = u16>) -> Self {
        let mut words = Vec::new();
        for number in numbers {
            let (word, bit) = (usize::from(number / 64), number % 64);
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            if let Some(word) = words.get_mut(word) {
                *word |= 1 << bit;
            }
        }
        self.once("cpus", words, |all| &mut all.context.cpus)
    }

    /// Sets how late the kernel may let a thread's timers expire, PR_SET_TIMERSLACK(2const).
    pub fn timer_slack(self, slack: Duration) -> Self {
        self.once("timer_slack", slack, |all| &mut all.context.timer_slack)
    }

    /// Sets how long to try to bring all threads to a stop; 10 seconds if it is not set.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.once("deadline", deadline, |all| &mut all.deadline)
    }

    /// Makes [`Plan::apply`] return an error if it fails after it has changed the process. Otherwise the process is
    /// killed.
    pub fn report_failure(mut self) -> Self {
        self.report_failure = true;
        self
    }

    /// Reads settings from TOML: directives of systemd.exec(5), each with a value or a list of values, as [`unit`]
    /// reads them from a unit file.
    ///
    /// There is one difference. A unit without `User=` stays root, with its capabilities. A table without it adds its directives
    /// to [`Privileges::new`]: the plan of a process that is root is an error then, unless the program calls
    /// [`stay_root`](Self::stay_root) or [`user`](Self::user), and capabilities that are not named are dropped.
    ///
    /// ```
    /// use privileges::Privileges;
    ///
    /// let settings = Privileges::from_toml(
    ///     r#"
    ///     User = "nobody"
    ///     CapabilityBoundingSet = ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]
    ///     NoNewPrivileges = true
    ///     LimitNOFILE = "1024:4096"
    ///     "#,
    /// )?;
    /// # let _ = settings;
    /// # Ok::<(), privileges::unit::UnitError>(())
    /// ```
    ///
    /// # Errors
    /// The text is not TOML; a name is not one of systemd.exec(5) (the nearest one is named), or is not supported; a
    /// value is not one of its directive; a file that one names cannot be opened.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self, unit::UnitError> {
        let table = toml::from_str::<unit::Directives>(text).map_err(unit::UnitError::of_table)?;
        // A line that is missing must not leave a process root without a word in its program.
        match table.user {
            Some(_) => table.privileges(),
            None => table.add_to(Self::new()),
        }
    }

    /// Looks up all names, checks all settings, and returns the plan.
    ///
    /// # Errors
    /// [`Error::Plan`] lists all problems that were found. Nothing has changed.
    pub fn plan(self) -> Result<Plan, Error> {
        Plan::of(self, Purpose::Process)
    }

    /// Returns the plan for a program that is executed, in the place of this process or in a child.
    ///
    /// It differs from [`plan`](Self::plan) in three points. A filter need not allow the calls of a stop, but has to
    /// allow execve(2). [`ambient`](Self::ambient) includes [`keep`](Self::keep). A process that stays root keeps its
    /// capabilities until execve(2), which gives root the bounding set again.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use privileges::{Capability, Privileges};
    ///
    /// let launch = Privileges::new().user("www-data").ambient(Capability::NET_BIND_SERVICE).plan_launch()?;
    /// println!("{launch}");
    /// // It returns only if it fails.
    /// launch.exec(Command::new("/usr/local/bin/server"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Plan`] lists all problems that were found. Nothing has changed.
    pub fn plan_launch(self) -> Result<Launch, Error> {
        Launch::of(self)
    }

    /// Returns whether a setting takes capabilities out of the bounding set.
    pub(crate) fn limits_bounding(&self) -> bool {
        self.bounding.is_some() || !self.blocked.is_empty() || self.mode == Some(Mode::NoPriv)
    }

    /// Returns a problem for each pair of settings that contradict each other.
    pub(crate) fn find_contradictions(&self) -> Vec<Problem> {
        let mut found: Vec<Problem> =
            self.twice.iter().map(|name| Problem::ConflictingSettings(name, name)).collect();
        let iab = self.iab.is_some();
        let context = &self.context;
        let both_namespaces =
            context.joined.iter().any(|(kind, _)| context.new_namespaces.contains(kind));
        for (both, first, second) in [
            (self.user.is_some() && self.stay_root, "user", "stay_root"),
            (self.groups.is_some() && self.keep_groups, "groups", "keep_groups"),
            (iab && self.inheritable.is_some(), "iab", "inheritable"),
            (iab && self.ambient.is_some(), "iab", "ambient"),
            (iab && self.bounding.is_some(), "iab", "bounding"),
            (context.scheduling.is_some() && context.nice.is_some(), "scheduling", "nice"),
            (both_namespaces, "new_namespace", "join_namespace"),
        ] {
            if both {
                found.push(Problem::ConflictingSettings(first, second));
            }
        }
        found
    }
}

fn add(place: &mut Option<CapabilitySet>, more: impl IntoCapabilitySet) {
    *place = Some(place.unwrap_or_default() | more.into_capability_set());
}

/// Returns the flags of landlock_restrict_self(2) that were set on a ruleset. The crate `landlock` returns the
/// descriptor without them, and shows them in `Debug` alone. TSYNC is not among them, because the plan decides how all
/// threads get the ruleset. Returns `None` if this version of the crate does not show the flags.
#[cfg(feature = "landlock")]
fn flags_of(ruleset: &RulesetCreated) -> Option<LandlockFlags> {
    const TSYNC: u32 = 1 << 3;
    let shown = format!("{ruleset:?}");
    let (_, rest) = shown.split_once(" actual_restrict_self_flags: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let bits = digits.parse::<u32>().ok()? & !TSYNC;
    Some(LandlockFlags::from_bits(bits))
}
