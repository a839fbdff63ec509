//! Privileges as a unit file of systemd states them, in the directives of systemd.exec(5).
//!
//! ```
//! use privileges::unit::Unit;
//!
//! let unit = Unit::parse(
//!     "[Service]\n\
//!      ExecStart=/usr/sbin/server\n\
//!      User=nobody\n\
//!      CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_CHOWN\n\
//!      CapabilityBoundingSet=~CAP_CHOWN\n\
//!      NoNewPrivileges=yes\n",
//! )?;
//! assert_eq!(unit.directives().no_new_privileges, Some(true));
//! let privileges = unit.privileges()?;
//! # let _ = privileges;
//! # Ok::<(), privileges::unit::UnitError>(())
//! ```
//!
//! A program can inspect a unit, and the directives that this crate cannot express:
//!
//! ```no_run
//! use std::path::Path;
//! use privileges::Privileges;
//! use privileges::unit::{
//!     Directives, KeyringMode, Unit, UnitError, UnitProblem, Unsupported, WorkingDirectory, restrictions, supported,
//! };
//!
//! fn settings(unit: &Unit) -> Result<Privileges, UnitError> {
//!     for Unsupported { directive, value, .. } in unit.unsupported() {
//!         println!("not supported: {directive}={value}");
//!     }
//!     println!("{:?} of {:?}", unit.exec_start(), unit.files());
//!     let directives: &Directives = unit.directives();
//!     println!("a keyring of its own: {}", directives.keyring_mode == Some(KeyringMode::Private));
//!     println!("at home: {}", directives.working_directory == Some(WorkingDirectory::Home));
//!     println!("{:?}, {:?}", directives.working_directory(), directives.filter());
//!     unit.refuse_unsupported()?;
//!     // Without what `unit.privileges()` says of a unit without a user.
//!     directives.add_to(Privileges::new().stay_root().keep_groups())
//! }
//!
//! let mut unit = Unit::find("nginx")?;
//! unit.set("NoNewPrivileges", "yes")?;
//! unit.add("[Service]\nUMask=0077")?;
//! if let Err(error) = settings(&unit.without(["PrivateTmp"])) {
//!     for UnitProblem { directive, why, .. } in error.problems() {
//!         eprintln!("{directive}: {why}");
//!     }
//! }
//! // Files that systemd does not know of.
//! let own = Unit::read("/opt/server/server.service")?;
//! let other = Unit::find_in("server", &[Path::new("/opt/server")])?;
//! println!("{} directives, without {}", supported().count(), restrictions().count());
//! # let _ = (own, other);
//! # Ok::<(), UnitError>(())
//! ```
//!
//! The same directives can come from a table of any format that serde reads ([`Directives`], feature `serde`), and from
//! TOML (`Privileges::from_toml`, feature `toml`).
//!
//! # What this module reads
//!
//! - Files have the syntax of systemd.syntax(7). Of the sections `[Service]`, `[Socket]`, `[Mount]` and `[Swap]`, the one
//!   of the unit's kind counts, and a unit without it executes no program and is an error. The kind is the end of the
//!   file's name. If that says nothing, it is the first of these sections, and a second one is an error.
//! - A directive that is assigned again adds to a list or replaces a value, as its manual page says. An empty value
//!   resets it if systemd resets it too (`CapabilityBoundingSet=`, `User=`), and is an error if systemd ignores it
//!   (`NoNewPrivileges=`, `UMask=`).
//! - [`Unit::add`] reads a drop-in; [`Unit::read`] and [`Unit::find`] read the drop-ins of a file too.
//! - Specifiers (`%i`) are refused, except for `%%`, because only the service manager knows their values.
//!
//! # What this module does not read
//!
//! - A name that systemd does not have is an error, which names the nearest one.
//! - A directive that restricts a process, and that this crate cannot express (`ProtectSystem=`, `PrivateTmp=`), is
//!   listed by [`Unit::unsupported`]. [`Unit::privileges`] is an error then, unless
//!   [`Unit::without`] names the directive: a process must not silently run with less than its unit says.
//! - A directive that is not about privileges (`Environment=`, `Restart=`) is ignored.
//!
//! # What differs from systemd
//!
//! - A directive that the unit does not have leaves things as they are. systemd gives a service its own defaults for
//!   some (`UMask=0022`, `KeyringMode=private`, limits).
//! - `RootDirectory=` is chroot(2) without a mount namespace.
//! - `PrivateNetwork=` leaves the loopback device of the new namespace down.
//! - `SystemCallFilter=` and `SystemCallArchitectures=` always set no_new_privs. `SystemCallFilter=` kills for a call in
//!   another convention than the CPU's own, also without `SystemCallArchitectures=`.
//! - `TimerSlackNSec=` and scheduling are set before the ids change, like everything else that needs privilege.
#![forbid(unsafe_code)]

pub(crate) mod values;

mod directives;
mod error;
mod file;
mod names;
mod search;
mod settings;
#[cfg(feature = "serde")]
mod table;

use std::path::{Path, PathBuf};

pub use directives::{Directives, KeyringMode, WorkingDirectory};
pub use error::{UnitError, UnitProblem, Unsupported};
pub use names::{restrictions, supported};

use crate::Privileges;

/// The contents of a unit file and its drop-ins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    directives: Directives,
    unsupported: Vec<Unsupported>,
    exec_start: Option<String>,
    files: Vec<PathBuf>,
    kind: file::Kind,
    /// Whether there was a section for execution.
    executes: bool,
}

impl Unit {
    /// Reads the text of a unit file.
    ///
    /// # Errors
    /// [`UnitError`]: a line is not one of systemd.syntax(7), a name is not known, the value is invalid for its directive,
    /// or the text has none or several of the sections for execution.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let mut unit = Self::default();
        unit.add(text)?;
        unit.refuse_idle(None)?;
        Ok(unit)
    }

    /// Reads the text of a drop-in, whose assignments come after those that were read before.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), except that the text may have no section for execution. The unit has not changed.
    pub fn add(&mut self, text: &str) -> Result<(), UnitError> {
        self.add_from(None, text)
    }

    /// Reads a unit file, and the drop-ins `PATH.d/*.conf` in the order of their names.
    ///
    /// # Errors
    /// The errors of [`parse`](Self::parse); a file or the directory of the drop-ins cannot be read, or a file is not UTF-8;
    /// the unit is masked: the file is empty or leads to a device (`/dev/null`).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, UnitError> {
        let path = path.as_ref();
        let mut directory = path.as_os_str().to_owned();
        directory.push(".d");
        let drop_ins = search::drop_ins(&[directory.into()]).map_err(not_found)?;
        Self::of_files(path, drop_ins)
    }

    /// Finds a unit of the system by one of its names (`nginx.service`; `.service` may be missing), and reads it with its
    /// drop-ins, as systemd.unit(5) says:
    ///
    /// - The directories are those that `systemd-analyze unit-paths` lists, also those of `systemctl set-property` and of
    ///   generators. $SYSTEMD_UNIT_PATH does not count.
    /// - A symbolic link to another name in these directories makes an alias. The drop-ins of all names of the unit apply.
    /// - For `a-b@c.service`, the drop-ins of `a-b@c.service.d`, `a-b@.service.d`, `a-.service.d`, `a-@c.service.d`,
    ///   `a-@.service.d` and `service.d` apply.
    /// - Of drop-ins with the same name one counts. The unit's own name comes before its aliases, and these before
    ///   `service.d`. For the same name of the unit, the directory of the higher precedence comes first.
    ///
    /// The files are those of the disk now. What the service manager has loaded may be older.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read); there is no such unit, or it is masked; a directory cannot be read.
    pub fn find(name: &str) -> Result<Self, UnitError> {
        Self::find_in(name, &search::PLACES.map(Path::new))
    }

    /// Finds a unit in other directories, the one of the highest precedence first, and reads it as
    /// [`find`](Self::find) does.
    ///
    /// # Errors
    /// The errors of [`find`](Self::find).
    pub fn find_in(name: &str, places: &[&Path]) -> Result<Self, UnitError> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            let why = format!("{name:?} is not the name of a unit");
            return Err(not_found(search::NotFound { file: None, why }));
        }
        let name = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
        let files = search::files(&name, places).map_err(not_found)?;
        Self::of_files(&files.unit, files.drop_ins)
    }

    /// Reads files in their order.
    fn of_files(path: &Path, drop_ins: Vec<PathBuf>) -> Result<Self, UnitError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        search::refuse_masked(&name, path).map_err(not_found)?;
        let mut unit = Self { kind: file::Kind::of(&name), ..Self::default() };
        for file in std::iter::once(path.to_owned()).chain(drop_ins) {
            let text = std::fs::read(&file).map_err(|error| error.to_string()).and_then(|bytes| {
                String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
            });
            match text {
                Ok(text) => unit.add_from(Some(&file), &text)?,
                Err(why) => return Err(not_found(search::NotFound { file: Some(file), why })),
            }
            unit.files.push(file);
        }
        unit.refuse_idle(Some(path))?;
        Ok(unit)
    }

    /// Returns an error if the unit executes no program: nothing in it says which privileges a program may have.
    fn refuse_idle(&self, file: Option<&Path>) -> Result<(), UnitError> {
        if self.executes {
            return Ok(());
        }
        let wanted = match self.kind {
            file::Kind::Section(name) => format!("no section [{name}]"),
            _ => "none of the sections [Service], [Socket], [Mount] and [Swap]".to_owned(),
        };
        let why = format!("the unit has {wanted}: it executes no program, and restricts none");
        Err(not_found(search::NotFound { file: file.map(Path::to_owned), why }))
    }

    /// Makes one more assignment, as a line `NAME=VALUE` of a drop-in.
    ///
    /// # Errors
    /// As [`parse`](Self::parse). The unit has not changed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), UnitError> {
        let mut problems = Vec::new();
        let assignment =
            file::Assignment { line: 0, name: name.to_owned(), value: value.to_owned() };
        self.assign(None, assignment, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(UnitError(problems)) }
    }

    /// Returns the directives that this crate supports.
    pub fn directives(&self) -> &Directives {
        &self.directives
    }

    /// Returns the directives that restrict a process and that this crate cannot express. A directive that was reset, or
    /// whose value switches it off (`PrivateTmp=no`, `ProtectProc=default`), restricts nothing and is left out.
    pub fn unsupported(&self) -> &[Unsupported] {
        &self.unsupported
    }

    /// Returns the last `ExecStart=`, with its prefix. After `+` a program runs with full privileges. After `!` it runs
    /// with the ids and capabilities of the service manager (systemd.service(5)).
    pub fn exec_start(&self) -> Option<&str> {
        self.exec_start.as_deref()
    }

    /// Returns the files that were read, in their order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Leaves these directives out of [`unsupported`](Self::unsupported).
    #[must_use]
    pub fn without<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        self.unsupported.retain(|one| !names.contains(&one.directive.as_str()));
        self
    }

    /// Returns the settings that the unit states. Other settings are those of [`Privileges::new`], with one exception:
    /// a unit without `User=` stays root, and has only the supplementary groups that it lists.
    ///
    /// # Errors
    /// A directive is not supported, or two contradict each other, or a file that one names cannot be opened.
    pub fn privileges(&self) -> Result<Privileges, UnitError> {
        self.refuse_unsupported()?;
        self.directives.privileges()
    }

    /// Returns an error if [`unsupported`](Self::unsupported) lists anything.
    ///
    /// # Errors
    /// Directives are not supported.
    pub fn refuse_unsupported(&self) -> Result<(), UnitError> {
        let why = "it is not supported here, so the process would have more than the unit says";
        let problem = |one: &Unsupported| UnitProblem {
            file: one.file.clone(),
            line: one.line,
            directive: one.directive.clone(),
            value: one.value.clone(),
            why: why.to_owned(),
        };
        let problems: Vec<_> = self.unsupported.iter().map(problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(UnitError(problems)) }
    }

    fn add_from(&mut self, file: Option<&Path>, text: &str) -> Result<(), UnitError> {
        let mut next = self.clone();
        let mut problems = Vec::new();
        let lines = file::assignments(text, &mut next.kind, &mut next.executes);
        for line in lines {
            match line {
                Ok(assignment) => next.assign(file, assignment, &mut problems),
                Err(file::BadLine { line, why }) => {
                    let (directive, value) = Default::default();
                    let file = file.map(Path::to_owned);
                    problems.push(UnitProblem { file, line, directive, value, why });
                }
            }
        }
        if !problems.is_empty() {
            return Err(UnitError(problems));
        }
        *self = next;
        Ok(())
    }

    /// Makes one assignment. If it cannot be made, this records the reason, and nothing has changed.
    fn assign(
        &mut self,
        file: Option<&Path>,
        assignment: file::Assignment,
        problems: &mut Vec<UnitProblem>,
    ) {
        let file::Assignment { line, name, value } = assignment;
        let file = file.map(Path::to_owned);
        match self.directives.assign(&name, &value) {
            Ok(()) => {}
            Err(names::NotAssigned::Bad(why)) => {
                problems.push(UnitProblem { file, line, directive: name, value, why });
            }
            Err(names::NotAssigned::PassedOver) => {
                if name == "ExecStart" {
                    self.exec_start = Some(value).filter(|value| !value.is_empty());
                }
            }
            Err(names::NotAssigned::Unsupported { restricts: true }) => {
                self.unsupported.push(Unsupported { file, line, directive: name, value });
            }
            Err(names::NotAssigned::Unsupported { restricts: false }) => {
                self.unsupported.retain(|one| one.directive != name);
            }
        }
    }
}

/// Makes an error about a file or a directory.
fn not_found(search::NotFound { file, why }: search::NotFound) -> UnitError {
    let (directive, value) = Default::default();
    UnitProblem { file, line: 0, directive, value, why }.into()
}
