//! The directives of systemd.exec(5) that are supported, and the meaning of their values.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use libpsx::process::{CapabilitySet, IoPriority, SchedAttr, SchedPolicy, Securebits};
use nix::unistd::User;

use super::names::{NotAssigned, SUPPORTED, not_supported};
use super::values::{self, Why, unit_of};
use crate::Id;
use crate::resource::Resource;
use crate::system_calls::{Denial, SystemCallFilter};

/// `KeyringMode=`; `shared` is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyringMode {
    /// The session keyring stays.
    Inherit,
    /// A new session keyring.
    Private,
}

/// `WorkingDirectory=`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkingDirectory {
    /// A directory.
    Path(PathBuf),
    /// A directory that may be missing: then it is the root directory.
    IfThere(PathBuf),
    /// `~`: the home directory of the user.
    Home,
}

/// The supported directives, each with its value after all assignments. `None` means no assignment, or a reset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Directives {
    /// `User=`.
    pub user: Option<Id>,
    /// `Group=`.
    pub group: Option<Id>,
    /// `SupplementaryGroups=`: the groups in addition to the user's.
    pub supplementary_groups: Option<Vec<Id>>,
    /// `CapabilityBoundingSet=`.
    pub capability_bounding_set: Option<CapabilitySet>,
    /// `AmbientCapabilities=`.
    pub ambient_capabilities: Option<CapabilitySet>,
    /// `NoNewPrivileges=`.
    pub no_new_privileges: Option<bool>,
    /// `SecureBits=`.
    pub secure_bits: Option<Securebits>,
    /// `SystemCallFilter=`, without `SystemCallErrorNumber=`.
    pub system_call_filter: Option<SystemCallFilter>,
    /// `SystemCallErrorNumber=`.
    pub system_call_error_number: Option<Denial>,
    /// Whether `SystemCallArchitectures=native` is set.
    pub system_call_architectures_native: Option<bool>,
    /// `RootDirectory=`.
    pub root_directory: Option<PathBuf>,
    /// `WorkingDirectory=`.
    pub working_directory: Option<WorkingDirectory>,
    /// `UMask=`.
    pub umask: Option<u32>,
    /// `LimitNOFILE=` and the other limits: the soft and the hard limit.
    pub limits: BTreeMap<Resource, [u64; 2]>,
    /// `KeyringMode=`.
    pub keyring_mode: Option<KeyringMode>,
    /// `Nice=`.
    pub nice: Option<i32>,
    /// `CPUSchedulingPolicy=`: the name.
    pub cpu_scheduling_policy: Option<String>,
    /// `CPUSchedulingPriority=`.
    pub cpu_scheduling_priority: Option<u32>,
    /// `CPUSchedulingResetOnFork=`.
    pub cpu_scheduling_reset_on_fork: Option<bool>,
    /// `CPUAffinity=`.
    pub cpu_affinity: Option<Vec<u16>>,
    /// `IOSchedulingClass=`, with level 4.
    pub io_scheduling_class: Option<IoPriority>,
    /// `IOSchedulingPriority=`.
    pub io_scheduling_priority: Option<u8>,
    /// `TimerSlackNSec=`.
    pub timer_slack: Option<Duration>,
    /// `PrivateNetwork=`.
    pub private_network: Option<bool>,
    /// `PrivateIPC=`.
    pub private_ipc: Option<bool>,
    /// `NetworkNamespacePath=`.
    pub network_namespace_path: Option<PathBuf>,
    /// `IPCNamespacePath=`.
    pub ipc_namespace_path: Option<PathBuf>,
}

/// Parses a value. An empty value resets the directive.
fn unless_empty<T>(
    value: &str,
    read: impl FnOnce(&str) -> Result<T, Why>,
) -> Result<Option<T>, Why> {
    if value.is_empty() { Ok(None) } else { read(value).map(Some) }
}

/// Parses a value that cannot be empty.
fn never_empty<T>(value: &str, read: impl FnOnce(&str) -> Result<T, Why>) -> Result<T, Why> {
    if value.is_empty() { Err(values::NO_RESET.to_owned()) } else { read(value) }
}

fn id(value: &str) -> Result<Id, Why> {
    if value.contains(char::is_whitespace) {
        return Err("a name has no white space".to_owned());
    }
    if value.starts_with('-') || value.contains([':', '/']) {
        return Err(format!("{value:?} is neither a name nor a number"));
    }
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    if digits && value.len() > 1 && value.starts_with('0') {
        return Err(format!("{value:?} is not a number: it begins with 0"));
    }
    Ok(Id::from(value))
}

impl Directives {
    /// Makes one more assignment. If it fails, nothing has changed.
    pub(crate) fn assign(&mut self, name: &str, value: &str) -> Result<(), NotAssigned> {
        let limit = name.strip_prefix("Limit").and_then(|name| {
            Resource::ALL.into_iter().find(|resource| resource.short_name() == name)
        });
        if limit.is_none() && name != "WorkingDirectory" && !SUPPORTED.contains(&name) {
            return Err(not_supported(name, value));
        }
        let text = values::without_specifiers(value)?;
        let value = text.as_str();
        // systemd takes such a character for a part of a word. A path may have one.
        let unknown = |c: char| c.is_whitespace() && !" \t\n\r".contains(c);
        let is_path = name.ends_with("Directory") || name.ends_with("Path");
        if !is_path && value.contains(unknown) {
            return Err(format!("{value:?} has white space that systemd does not know").into());
        }
        if let Some(resource) = limit {
            let limits = never_empty(value, |value| values::limit(value, unit_of(resource)))?;
            self.limits.insert(resource, limits);
            return Ok(());
        }
        match name {
            "User" => self.user = unless_empty(value, id)?,
            "Group" => self.group = unless_empty(value, id)?,
            "SupplementaryGroups" => {
                let words = values::words(value)?;
                let more = words.iter().map(|word| id(word)).collect::<Result<Vec<Id>, Why>>()?;
                let before = self.supplementary_groups.take().filter(|_| !value.is_empty());
                let all: Vec<Id> = before.into_iter().flatten().chain(more).collect();
                self.supplementary_groups = (!value.is_empty()).then_some(all);
            }
            "CapabilityBoundingSet" => {
                let (before, all) = (self.capability_bounding_set, CapabilitySet::all());
                self.capability_bounding_set = Some(values::merged(before, all, value)?);
            }
            "AmbientCapabilities" => {
                let (before, none) = (self.ambient_capabilities, CapabilitySet::EMPTY);
                self.ambient_capabilities = Some(values::merged(before, none, value)?);
            }
            "NoNewPrivileges" => {
                self.no_new_privileges = Some(never_empty(value, values::boolean)?);
            }
            "SecureBits" => {
                let before = self.secure_bits.unwrap_or_default();
                self.secure_bits =
                    unless_empty(value, values::securebits)?.map(|bits| before | bits);
            }
            "SystemCallFilter" => {
                let mut filter = self.system_call_filter.clone().unwrap_or_default();
                filter.add(value).map_err(|bad| bad.to_string())?;
                self.system_call_filter = Some(filter).filter(|filter| !filter.is_empty());
            }
            "SystemCallErrorNumber" => {
                let read = |value: &str| match value.parse::<Denial>() {
                    Ok(Denial::Errno(0)) => Err("0 is not the number of an error".to_owned()),
                    other => other.map_err(|bad| bad.to_string()),
                };
                self.system_call_error_number = unless_empty(value, read)?;
            }
            "SystemCallArchitectures" => {
                let native = unless_empty(value, |value| match value {
                    "native" => Ok(true),
                    "x86-64" if cfg!(target_arch = "x86_64") => Ok(true),
                    "arm64" if cfg!(target_arch = "aarch64") => Ok(true),
                    _ => Err("only \"native\" is supported: the filter allows one architecture"
                        .to_owned()),
                })?;
                self.system_call_architectures_native = native;
            }
            "RootDirectory" => self.root_directory = unless_empty(value, values::path)?,
            "WorkingDirectory" => self.working_directory = unless_empty(value, working_directory)?,
            "UMask" => self.umask = Some(never_empty(value, values::mask)?),
            "KeyringMode" => {
                self.keyring_mode = Some(never_empty(value, |value| match value {
                    "inherit" => Ok(KeyringMode::Inherit),
                    "private" => Ok(KeyringMode::Private),
                    "shared" => {
                        Err("\"shared\" is not supported: the user keyring is not linked here"
                            .to_owned())
                    }
                    _ => Err("it must be inherit or private".to_owned()),
                })?);
            }
            "Nice" => self.nice = unless_empty(value, |value| values::in_range(value, -20, 19))?,
            "CPUSchedulingPolicy" => {
                self.cpu_scheduling_policy = unless_empty(value, |value| match value {
                    "other" | "batch" | "idle" | "fifo" | "rr" => Ok(value.to_owned()),
                    _ => Err("it must be other, batch, idle, fifo or rr".to_owned()),
                })?;
            }
            "CPUSchedulingPriority" => {
                let priority = never_empty(value, |value| values::in_range(value, 1, 99))?;
                self.cpu_scheduling_priority = Some(priority.unsigned_abs());
            }
            "CPUSchedulingResetOnFork" => {
                self.cpu_scheduling_reset_on_fork = Some(never_empty(value, values::boolean)?);
            }
            "CPUAffinity" => {
                self.cpu_affinity = unless_empty(value, values::cpus)?.map(|more| {
                    let mut all = self.cpu_affinity.take().unwrap_or_default();
                    all.extend(more);
                    all.sort_unstable();
                    all.dedup();
                    all
                });
            }
            "IOSchedulingClass" => {
                self.io_scheduling_class = unless_empty(value, |value| values::io_class(value, 4))?;
            }
            "IOSchedulingPriority" => {
                let level = unless_empty(value, |value| values::in_range(value, 0, 7))?;
                self.io_scheduling_priority = level.and_then(|level| u8::try_from(level).ok());
            }
            "TimerSlackNSec" => {
                self.timer_slack = Some(never_empty(value, |value| {
                    match values::span(value, values::NANOSECOND)? {
                        Some(nanoseconds) => u64::try_from(nanoseconds)
                            .map(Duration::from_nanos)
                            .map_err(|_| format!("{value:?} is too long")),
                        None => Err("a timer slack cannot be infinity".to_owned()),
                    }
                })?);
            }
            "PrivateNetwork" => {
                self.private_network = Some(never_empty(value, values::boolean)?);
            }
            "PrivateIPC" => self.private_ipc = Some(never_empty(value, values::boolean)?),
            "NetworkNamespacePath" => {
                self.network_namespace_path = unless_empty(value, values::path)?
            }
            "IPCNamespacePath" => self.ipc_namespace_path = unless_empty(value, values::path)?,
            _ => return Err(not_supported(name, value)),
        }
        Ok(())
    }

    /// Returns the filter of system calls with its error number, or `None` if there is no filter. With
    /// `SystemCallArchitectures=` alone it allows every call in the CPU's own convention.
    pub fn filter(&self) -> Option<SystemCallFilter> {
        let native = self.system_call_architectures_native == Some(true);
        let alone = || native.then(SystemCallFilter::of_native_calls);
        let mut filter = self.system_call_filter.clone().or_else(alone)?;
        filter.set_denial(self.system_call_error_number.unwrap_or_default());
        Some(filter)
    }

    /// Returns the path of the working directory, in the new root directory if there is one.
    ///
    /// # Errors
    /// It is the home directory of a user, and there is no user, or the user database does not have it.
    pub fn working_directory(&self) -> Result<Option<PathBuf>, String> {
        match &self.working_directory {
            None => Ok(None),
            Some(WorkingDirectory::Path(path)) => Ok(Some(path.clone())),
            Some(WorkingDirectory::IfThere(path)) => {
                let whole = match &self.root_directory {
                    Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
                    None => path.clone(),
                };
                Ok(Some(if whole.is_dir() { path.clone() } else { PathBuf::from("/") }))
            }
            Some(WorkingDirectory::Home) => {
                let found = match &self.user {
                    None => return Err("~ needs User=".to_owned()),
                    Some(Id::Number(number)) => User::from_uid((*number).into()),
                    Some(Id::Name(name)) => match (User::from_name(name), name.parse::<u32>()) {
                        (Ok(None), Ok(number)) => User::from_uid(number.into()),
                        (found, _) => found,
                    },
                };
                match found {
                    Ok(Some(user)) => Ok(Some(user.dir)),
                    Ok(None) => Err("~: the user database does not have the user".to_owned()),
                    Err(errno) => Err(format!("~: the user database could not be read: {errno}")),
                }
            }
        }
    }

    /// Returns the scheduling policy with its nice value, or the nice value alone.
    pub(crate) fn scheduling(&self) -> Result<(Option<SchedAttr>, Option<i32>), Why> {
        let reset = self.cpu_scheduling_reset_on_fork == Some(true);
        let name = match (self.cpu_scheduling_policy.as_deref(), self.cpu_scheduling_priority) {
            (None, Some(_)) => {
                return Err(
                    "CPUSchedulingPriority= needs CPUSchedulingPolicy=fifo or rr".to_owned()
                );
            }
            (None, None) if reset => {
                return Err("CPUSchedulingResetOnFork= needs CPUSchedulingPolicy=".to_owned());
            }
            (None, None) => return Ok((None, self.nice)),
            (Some(name @ ("other" | "batch" | "idle")), Some(_)) => {
                return Err(format!("CPUSchedulingPriority= has no meaning for the policy {name}"));
            }
            (Some(name), _) => name,
        };
        // systemd.exec(5): the lowest real-time priority is the default.
        let priority = self.cpu_scheduling_priority.unwrap_or(1);
        let policy = match (name, self.nice) {
            ("other", nice) => SchedPolicy::Other(nice.unwrap_or(0)),
            ("batch", nice) => SchedPolicy::Batch(nice.unwrap_or(0)),
            (name, Some(_)) => return Err(format!("Nice= has no meaning for the policy {name}")),
            ("idle", None) => SchedPolicy::Idle,
            ("fifo", None) => SchedPolicy::Fifo(priority),
            (_, None) => SchedPolicy::RoundRobin(priority),
        };
        let attributes = SchedAttr::new(policy);
        Ok((Some(if reset { attributes.reset_on_fork() } else { attributes }), None))
    }

    /// Returns the priority of input and output. A level without a class belongs to the best-effort class.
    pub(crate) fn io_priority(&self) -> Option<IoPriority> {
        let level = self.io_scheduling_priority;
        Some(match (self.io_scheduling_class, level) {
            (None, None) => return None,
            (None, Some(level)) => IoPriority::BestEffort(level),
            (Some(IoPriority::RealTime(_)), Some(level)) => IoPriority::RealTime(level),
            (Some(IoPriority::BestEffort(_)), Some(level)) => IoPriority::BestEffort(level),
            (Some(class), _) => class,
        })
    }
}

fn working_directory(value: &str) -> Result<WorkingDirectory, Why> {
    let (value, may_be_missing) = match value.strip_prefix('-') {
        Some(value) => (value, true),
        None => (value, false),
    };
    if value == "~" {
        return Ok(WorkingDirectory::Home);
    }
    let path = values::path(value)?;
    Ok(if may_be_missing { WorkingDirectory::IfThere(path) } else { WorkingDirectory::Path(path) })
}
