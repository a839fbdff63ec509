//! `psx run`: executes a program with the privileges that the options say, and no others.
//!
//! The plan is made and checked before anything changes. Then the calls are made in this process, which has one thread,
//! and the program takes its place. With `--check` the program is a child process: it is stopped before its first
//! instruction, and compared with the plan from outside.
//!
//! The exit status is that of the program; 125 if this command failed, 126 if the program cannot be executed, 127 if
//! there is no such program. env(1) uses the same numbers.

mod check;
mod program;
mod sandbox;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use libpsx::process::CapabilitySet;
use nix::sys::signal::Signal;
use privileges::unit::{Unit, WorkingDirectory};
use privileges::{Groups, Iab, Id, LaunchError, Mode, Namespace, Privileges};

use crate::{caps, output, raw};
use program::Place;

/// The exit status if this command failed.
pub(crate) const FAILED: u8 = 125;
/// The exit status if the program exists and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The exit status if there is no such program.
const NOT_FOUND: u8 = 127;

#[derive(Args)]
#[command(after_long_help = AFTER, override_usage = USAGE)]
pub(crate) struct Arguments {
    /// User, by name or number: all four ids, and its groups
    #[arg(long, short, value_name = "USER", help_heading = IDS)]
    pub(crate) user: Option<String>,
    /// Group, by name or number: all four ids
    #[arg(long, short, value_name = "GROUP", help_heading = IDS)]
    pub(crate) group: Option<String>,
    /// Supplementary groups: names or numbers, or "none"; without it those of the user
    #[arg(long, value_name = "GROUP,...", value_parser = group_list, help_heading = IDS)]
    pub(crate) groups: Option<String>,
    /// The supplementary groups stay
    #[arg(long, conflicts_with = "groups", help_heading = IDS)]
    keep_groups: bool,
    /// The user id stays 0; without it and without a user that is an error
    #[arg(long, conflicts_with = "user", help_heading = IDS)]
    stay_root: bool,

    /// Capabilities that the program gets under any user id
    #[arg(long, value_name = "CAP,...", value_parser = capabilities, help_heading = CAPS)]
    pub(crate) ambient: Option<CapabilitySet>,
    /// Capabilities that the program gets if its file says so
    #[arg(long, value_name = "CAP,...", value_parser = capabilities, help_heading = CAPS)]
    pub(crate) inheritable: Option<CapabilitySet>,
    /// Capabilities that no program gets back: all others leave the bounding set; ~CAP,... is all but these
    #[arg(long, value_name = "CAP,...", value_parser = capabilities, help_heading = CAPS)]
    pub(crate) bounding: Option<CapabilitySet>,
    /// The inheritable, ambient and bounding set in one text, as cap_iab(3) and capsh(1)
    #[arg(long, value_name = "IAB", value_parser = iab, conflicts_with_all = ["ambient", "inheritable", "bounding"], help_heading = CAPS)]
    iab: Option<Iab>,
    /// One of libcap's modes, as capsh(1)
    #[arg(long, value_name = "MODE", value_parser = mode, conflicts_with = "securebits", help_heading = CAPS)]
    mode: Option<Mode>,
    /// Securebits: noroot, noroot-locked, no-setuid-fixup, no-setuid-fixup-locked, keep-caps, keep-caps-locked
    #[arg(long, value_name = "BIT,...", help_heading = CAPS)]
    securebits: Option<String>,

    /// execve(2) gives no privilege any more
    #[arg(long, short = 'n', help_heading = SANDBOX)]
    no_new_privs: bool,
    /// System calls and groups of them that are allowed, or after ~ forbidden, as SystemCallFilter=
    #[arg(long, value_name = "FILTER", help_heading = SANDBOX)]
    pub(crate) seccomp: Vec<String>,
    /// What a forbidden call returns: EPERM, a number; without it the kernel kills the process
    #[arg(long, value_name = "ERRNO", help_heading = SANDBOX)]
    seccomp_error: Option<String>,
    /// Files below a path may be read and executed, and all other files not (Landlock)
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath, help_heading = SANDBOX)]
    landlock_ro: Vec<PathBuf>,
    /// Files below a path may be changed too
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath, help_heading = SANDBOX)]
    landlock_rw: Vec<PathBuf>,
    /// A new session keyring
    #[arg(long, help_heading = SANDBOX)]
    new_session_keyring: bool,
    /// New namespaces: net, uts, ipc, cgroup
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_parser = namespace, help_heading = SANDBOX)]
    new_namespace: Vec<Namespace>,
    /// A namespace that is there: net=/run/netns/blue
    #[arg(long, value_name = "KIND=PATH", value_parser = namespace_path, help_heading = SANDBOX)]
    join_namespace: Vec<(Namespace, PathBuf)>,

    /// Root directory, chroot(2)
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, help_heading = PLACE)]
    chroot: Option<PathBuf>,
    /// Working directory, in the new root directory
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, help_heading = PLACE)]
    chdir: Option<PathBuf>,
    /// File mode creation mask, in octal
    #[arg(long, value_name = "MASK", help_heading = PLACE)]
    umask: Option<String>,
    /// A resource limit, as LimitNOFILE= and the like: NOFILE=1024:4096, AS=1G, CPU=1min
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = PLACE)]
    pub(crate) limit: Vec<String>,
    /// Nice value, -20 to 19
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = PLACE)]
    nice: Option<String>,
    /// Scheduling policy: other, batch, idle, fifo:PRIORITY, rr:PRIORITY
    #[arg(long, value_name = "POLICY", help_heading = PLACE)]
    scheduling: Option<String>,
    /// I/O priority: none, realtime:LEVEL, best-effort:LEVEL, idle
    #[arg(long, value_name = "CLASS", help_heading = PLACE)]
    io_priority: Option<String>,
    /// CPUs: 0-3,5
    #[arg(long, value_name = "CPU,...", help_heading = PLACE)]
    cpus: Option<String>,
    /// How late timers may expire: 50us
    #[arg(long, value_name = "TIME", help_heading = PLACE)]
    timer_slack: Option<String>,
    /// Signal that the program gets when its parent ends
    #[arg(long, value_name = "SIGNAL", value_parser = signal, help_heading = PLACE)]
    pdeathsig: Option<Signal>,

    /// The directives of a unit of systemd: the name of a unit of this system, or the path of a file, with a /
    #[arg(long, value_name = "UNIT", help_heading = UNIT)]
    pub(crate) from_unit: Option<OsString>,
    /// Directives of the unit that this program cannot express, and that are to be passed over; or "all"
    #[arg(long, value_name = "DIRECTIVE,...", value_delimiter = ',', requires = "from_unit", help_heading = UNIT)]
    pub(crate) without: Vec<String>,
    /// A directive of systemd.exec(5), as systemd-run(1): NoNewPrivileges=yes; an empty value resets a list
    #[arg(long, short, value_name = "NAME=VALUE", help_heading = UNIT)]
    pub(crate) property: Vec<String>,

    /// Print the plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Start the program as a child, and compare it with the plan before its first instruction
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,

    /// The program with its arguments
    #[arg(value_name = "COMMAND", required_unless_present = "dry_run", trailing_var_arg = true,
          value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

const IDS: &str = "Ids";
const CAPS: &str = "Capabilities";
const SANDBOX: &str = "Restrictions";
const PLACE: &str = "Surroundings";
const UNIT: &str = "Units";

const USAGE: &str = "psx run [OPTIONS] [--] COMMAND [ARGUMENT]...";

const AFTER: &str = "\
Capabilities that no option names are dropped. Root's ids and supplementary groups have to be dropped or kept by an \
option. All other state stays as it is. The plan is checked before anything changes, and all its problems are reported \
at once. An option with an empty value is an error: it would remove what a unit says. Without --no-new-privs, a program \
gets the privileges of its set-user-ID bit and its file capabilities.

A unit without a / in its name is always one of this system, in systemd's directories and with its drop-ins. A file in the \
working directory is ./NAME.

Under Landlock the program and its libraries have to be below one of the paths: --landlock-ro /usr --landlock-ro /lib \
--landlock-ro /lib64. Landlock and filters set no_new_privs.

With --check this process stays as the parent and ends with the status of the program (128 plus the number of the signal \
if a signal killed it). It passes on SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH, and no other \
signal. If the program differs from the plan, the differences are \
printed, and the program is killed. The kernel does not show securebits, keyrings or Landlock domains of another \
process. A program that would gain privileges by a set-user-ID bit, a set-group-ID bit or file capabilities is killed \
too, unless --no-new-privs is given: with CAP_SYS_PTRACE because it differs from the plan, and without because the \
kernel then ignores these privileges in a traced program.

Exit status: that of the program; 125 if this command failed and the program was not started; 126 if the program cannot \
be executed; 127 if there is no such program.

Examples:
  psx run --user nobody -- id
  psx run -u www-data --ambient net_bind_service -n -- server
  psx run --from-unit nginx.service --without PrivateTmp --dry-run
  psx run -u nobody --seccomp @system-service -- worker
  psx run -u nobody --seccomp '~@resources:EPERM' -- worker
  psx run --stay-root --bounding ~sys_module,sys_rawio --check -- sh";

/// Why an empty value is refused.
const BLANK: &str = "the value names nothing; leave the option out if it is to set nothing";

/// Returns whether a value names nothing: it has only white space, commas and marks.
fn blank(value: &str) -> bool {
    value.chars().all(|c| c.is_whitespace() || ",~!^%".contains(c))
}

/// Parses a set of capabilities. An empty set is written `none`.
fn capabilities(text: &str) -> Result<CapabilitySet, String> {
    if blank(text) { Err(format!("{BLANK}, or write none")) } else { caps::set(text) }
}

fn iab(text: &str) -> Result<Iab, String> {
    if blank(text) {
        return Err(BLANK.to_owned());
    }
    text.parse().map_err(|bad: privileges::ParseIabError| bad.to_string())
}

fn group_list(text: &str) -> Result<String, String> {
    if blank(text) { Err(format!("{BLANK}, or write none")) } else { Ok(text.to_owned()) }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text.to_ascii_lowercase().as_str() {
        "nopriv" => Ok(Mode::NoPriv),
        "pure1e" => Ok(Mode::Pure1e),
        "pure1e_init" | "pure1e-init" => Ok(Mode::Pure1eInit),
        "hybrid" => Ok(Mode::Hybrid),
        _ => Err("it must be NOPRIV, PURE1E, PURE1E_INIT or HYBRID".to_owned()),
    }
}

fn namespace(text: &str) -> Result<Namespace, String> {
    match text {
        "net" | "network" => Ok(Namespace::Network),
        "uts" => Ok(Namespace::Uts),
        "ipc" => Ok(Namespace::Ipc),
        "cgroup" => Ok(Namespace::Cgroup),
        _ => Err("it must be net, uts, ipc or cgroup".to_owned()),
    }
}

fn namespace_path(text: &str) -> Result<(Namespace, PathBuf), String> {
    let (kind, path) = text.split_once('=').ok_or("it must be KIND=PATH")?;
    Ok((namespace(kind)?, PathBuf::from(path)))
}

fn signal(text: &str) -> Result<Signal, String> {
    let named = |name: &str| name.parse::<Signal>().ok();
    let numbered = || text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    named(text)
        .or_else(|| named(&format!("SIG{}", text.to_ascii_uppercase())))
        .or_else(numbered)
        .ok_or_else(|| "no signal is called that".to_owned())
}

impl Arguments {
    /// Executes the program, and returns the exit status. Does not return if the program replaces this process.
    pub(crate) fn run(self) -> u8 {
        match self.go() {
            Ok(status) => status,
            Err(error) => {
                output::say(format_args!("{error:#}"));
                FAILED
            }
        }
    }

    fn go(self) -> Result<u8> {
        let (settings, place) = self.settings()?;
        let launch = settings.plan_launch().map_err(in_options)?;
        if self.dry_run {
            output::print(&format!("{launch}\n"))?;
            return Ok(0);
        }
        let Some((program, arguments)) = self.command.split_first() else {
            bail!("no program was named")
        };
        let file = match program::find(program, &place) {
            Ok(file) => file,
            Err((why, status)) => {
                output::say(format_args!("{}: {why}", program.to_string_lossy()));
                return Ok(status);
            }
        };
        let mut command = Command::new(program);
        command.args(arguments);
        raw::keep_sigpipe(&mut command);
        let execute = || {
            let Err(error) = launch.exec(command);
            failed(program, error)
        };
        if self.check { check::run(&launch, execute, file) } else { Ok(execute()) }
    }

    /// Returns the settings, and where the program starts.
    fn settings(&self) -> Result<(Privileges, Place)> {
        let mut unit = match &self.from_unit {
            None => Unit::default(),
            Some(name) => {
                let unit = crate::unit::named(Path::new(name))?;
                let all = self.without.iter().any(|name| name == "all");
                let every: Vec<_> =
                    unit.unsupported().iter().map(|one| one.directive.clone()).collect();
                let names = if all { &every } else { &self.without };
                unit.without(names.iter().map(String::as_str))
            }
        };
        for property in &self.property {
            let (name, value) =
                property.split_once('=').context("--property: it must be NAME=VALUE")?;
            unit.set(name.trim(), value.trim())
                .map_err(|bad| anyhow::anyhow!("--property: {bad}"))?;
        }
        self.set_directives(&mut unit)?;
        let mut directives = unit.directives().clone();
        // A policy without a priority replaces the unit's priority too, which an empty value does not reset.
        if self.scheduling.as_deref().is_some_and(|text| priority_of(text).is_none()) {
            directives.cpu_scheduling_priority = None;
        }
        let groups = self.groups.as_deref().map(groups);
        // These options replace the unit's groups.
        let user = if groups.is_some() || self.keep_groups {
            if directives.working_directory == Some(WorkingDirectory::Home) {
                let home = directives.working_directory().map_err(anyhow::Error::msg)?;
                directives.working_directory = home.map(WorkingDirectory::Path);
            }
            directives.supplementary_groups = None;
            directives.user.take()
        } else {
            None
        };
        let taken = user.is_some();
        let mut settings = Privileges::new();
        if let Some(user) = user {
            settings = settings.user(user);
        }
        let of_unit = self.from_unit.is_some();
        if self.stay_root || of_unit && !taken && directives.user.is_none() {
            settings = settings.stay_root();
        }
        settings = match groups {
            Some(groups) => settings.groups(groups),
            None if self.keep_groups => settings.keep_groups(),
            None if of_unit
                && directives.user.is_none()
                && directives.supplementary_groups.is_none() =>
            {
                settings.groups(Groups::NONE)
            }
            None => settings,
        };
        unit.refuse_unsupported()?;
        settings = directives.add_to(settings)?;
        let place = Place {
            directory: directives.working_directory().map_err(anyhow::Error::msg)?,
            root: directives.root_directory,
        };
        Ok((self.add_options(settings)?, place))
    }

    /// Applies the options that are equal to a directive. A later assignment replaces the value or adds to it.
    pub(crate) fn set_directives(&self, unit: &mut Unit) -> Result<()> {
        let mut set = |option: &str, name: &str, value: Option<&str>| {
            // In a unit an empty value resets a directive. An option that is empty, for example because a shell variable
            // is, must not remove a restriction.
            let value = match value {
                Some(value) if blank(value) => bail!("--{option} {value:?}: {BLANK}"),
                value => value.unwrap_or_default(),
            };
            // A `%` in an option is literal: specifiers exist in unit files only.
            let value = value.replace('%', "%%");
            unit.set(name, &value).map_err(|bad| {
                let why: Vec<_> = bad.problems().iter().map(|one| one.why.clone()).collect();
                anyhow::anyhow!("--{option} {value}: {}", why.join("; "))
            })
        };
        let absolute = |option: &str, path: &Path| {
            let path = std::path::absolute(path)
                .with_context(|| format!("--{option} {:?}", path.display().to_string()))?;
            path.into_os_string()
                .into_string()
                .map_err(|path| anyhow::anyhow!("{path:?} is not UTF-8"))
        };
        for (option, name, value) in [
            ("user", "User", &self.user),
            ("group", "Group", &self.group),
            ("umask", "UMask", &self.umask),
            ("nice", "Nice", &self.nice),
            ("cpus", "CPUAffinity", &self.cpus),
            ("timer-slack", "TimerSlackNSec", &self.timer_slack),
            ("seccomp-error", "SystemCallErrorNumber", &self.seccomp_error),
        ] {
            if let Some(value) = value {
                if name == "CPUAffinity" {
                    set(option, name, None)?;
                }
                set(option, name, Some(value))?;
            }
        }
        if let Some(bits) = &self.securebits {
            set("securebits", "SecureBits", None)?;
            let words = bits.replace(',', " ").replace('_', "-");
            set("securebits", "SecureBits", Some(&words))?;
        }
        for (option, value, names) in [
            ("scheduling", &self.scheduling, ["CPUSchedulingPolicy", "CPUSchedulingPriority"]),
            ("io-priority", &self.io_priority, ["IOSchedulingClass", "IOSchedulingPriority"]),
        ] {
            if let Some(value) = value {
                let [class, level] = names;
                let first = value.split(':').next().unwrap_or_default();
                set(option, class, Some(first))?;
                match priority_of(value) {
                    Some(second) => set(option, level, Some(second))?,
                    None if level == "IOSchedulingPriority" => set(option, level, None)?,
                    None => {}
                }
            }
        }
        for limit in &self.limit {
            let (name, value) =
                limit.split_once('=').context("--limit: it must be NAME=SOFT[:HARD]")?;
            let name = name.to_ascii_uppercase();
            let name = name.strip_prefix("RLIMIT_").unwrap_or(&name);
            set("limit", &format!("Limit{name}"), Some(value))?;
        }
        for filter in &self.seccomp {
            set("seccomp", "SystemCallFilter", Some(filter))?;
        }
        if let Some(path) = &self.chroot {
            set("chroot", "RootDirectory", Some(&absolute("chroot", path)?))?;
        }
        if let Some(path) = &self.chdir {
            set("chdir", "WorkingDirectory", Some(&absolute("chdir", path)?))?;
        }
        Ok(())
    }

    /// Applies the options that no directive expresses.
    fn add_options(&self, mut settings: Privileges) -> Result<Privileges> {
        if let Some(set) = self.ambient {
            settings = settings.ambient(set);
        }
        if let Some(set) = self.inheritable {
            settings = settings.inheritable(set);
        }
        if let Some(set) = self.bounding {
            settings = settings.bounding(set);
        }
        if let Some(iab) = self.iab {
            settings = settings.iab(iab);
        }
        if let Some(mode) = self.mode {
            settings = settings.mode(mode);
        }
        if self.no_new_privs {
            settings = settings.no_new_privs();
        }
        if self.new_session_keyring {
            settings = settings.new_session_keyring();
        }
        for &kind in &self.new_namespace {
            settings = settings.new_namespace(kind);
        }
        for (kind, path) in &self.join_namespace {
            let file = std::fs::File::open(path)
                .with_context(|| format!("--join-namespace {:?}", path.display().to_string()))?;
            settings = settings.join_namespace(*kind, file);
        }
        if let Some(signal) = self.pdeathsig {
            settings = settings.parent_death_signal(signal as i32);
        }
        if !self.landlock_ro.is_empty() || !self.landlock_rw.is_empty() {
            settings = settings.landlock(sandbox::ruleset(&self.landlock_ro, &self.landlock_rw)?);
        }
        Ok(settings)
    }
}

/// Replaces the library's method names in the problems of a plan by the names of the options.
fn in_options(error: privileges::Error) -> anyhow::Error {
    const OPTIONS: [(&str, &str); 7] = [
        (".user(...)", "--user"),
        (".stay_root()", "--stay-root"),
        (".groups(Groups::NONE)", "--groups none"),
        (".groups(...)", "--groups"),
        (".keep_groups()", "--keep-groups"),
        (".group(...)", "--group"),
        ("; nothing changed in any thread", "; the program was not started"),
    ];
    let text = error.to_string();
    anyhow::Error::msg(OPTIONS.iter().fold(text, |text, (from, to)| text.replace(from, to)))
}

/// Parses names or numbers with commas between them, or `none`.
fn groups(text: &str) -> Groups {
    let names = text.split(',').filter(|name| !name.is_empty() && text != "none");
    Groups::Explicit(names.map(Id::from).collect())
}

/// Reports why the program was not started, and returns the exit status.
fn failed(program: &OsStr, error: LaunchError) -> u8 {
    let LaunchError::Execute(why) = error else {
        output::say(error);
        return FAILED;
    };
    output::say(format_args!("{}: {why}", program.to_string_lossy()));
    if why.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

/// Returns the priority in `policy:priority`.
fn priority_of(text: &str) -> Option<&str> {
    text.split_once(':').map(|(_, priority)| priority)
}
