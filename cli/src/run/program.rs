//! The file of the program, found as execve(2) will find it: in the new root directory, from the new working directory.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use libpsx::process::{Capability, CapabilitySet, CapabilitySets, Uid};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use rustix::fs::{StatVfsMountFlags, fstatvfs};

use super::{NOT_EXECUTABLE, NOT_FOUND};
use crate::tasks::{Process, numbers_are_ours};

/// Where the program starts. `None`: the directory stays as it is.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) root: Option<PathBuf>,
    /// The working directory, as a path in the root directory.
    pub(super) directory: Option<PathBuf>,
}

/// Finds the program before anything changes: a filter may forbid the report of an error afterwards. Returns `None` if
/// only execve(2) can decide, for example because this kernel has no openat2(2).
///
/// # Errors
/// Why execve(2) would fail, and the exit status for that.
pub(super) fn find(
    program: &OsStr,
    place: &Place,
) -> std::result::Result<Option<File>, (&'static str, u8)> {
    let root = match place.root.as_deref().map(|root| open(root, PATH, Mode::empty())) {
        Some(Ok(root)) => Some(root),
        Some(Err(_)) => return Ok(None),
        None => None,
    };
    let opened = |path: &Path| match &root {
        Some(root) => {
            // Neither `..` nor a link leads out of the root directory.
            let how = OpenHow::new().flags(PATH).resolve(ResolveFlag::RESOLVE_IN_ROOT);
            openat2(root, path, how)
        }
        None => open(path, PATH, Mode::empty()),
    };
    let mut result = Err(("there is no such program", NOT_FOUND));
    for candidate in candidates(program, place) {
        let file = match opened(&candidate) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(_) => {
                result = Ok(None);
                continue;
            }
        };
        match file.metadata() {
            Ok(metadata) if executable(&metadata) => return Ok(Some(file)),
            Ok(_) if result.is_err() => result = Err(("it cannot be executed", NOT_EXECUTABLE)),
            Ok(_) => {}
            Err(_) => result = Ok(None),
        }
    }
    result
}

/// Opening for this neither reads the file nor needs a right to read it.
const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// Returns the paths that execvp(3) tries, in its order. A relative path begins at the new working directory.
fn candidates(program: &OsStr, place: &Place) -> Vec<PathBuf> {
    let start = match (&place.directory, &place.root) {
        (Some(directory), _) => directory.clone(),
        (None, Some(_)) => PathBuf::from("/"),
        (None, None) => PathBuf::new(),
    };
    if program.is_empty() {
        return Vec::new();
    }
    if program.as_bytes().contains(&b'/') {
        return vec![start.join(program)];
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path).map(|directory| start.join(directory).join(program)).collect()
}

fn executable(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// Returns the file that a process executes. For a script, that is the interpreter, whose mode and capabilities count
/// (execve(2)). `found` is the file that was found before. It is used if this process may not see the executed file
/// (proc_pid_exe(5)).
fn executed(found: Option<File>, pid: i32) -> Result<File> {
    match (open(format!("/proc/{pid}/exe").as_str(), PATH, Mode::empty()), found) {
        (Ok(file), _) => Ok(File::from(file)),
        (Err(_), Some(file)) => Ok(file),
        (Err(error), None) => Err(error).context("opening the executed file"),
    }
}

/// Returns what the executed file gives at execve(2), if the kernel has withheld it from the program because the program is
/// traced. The kernel does that if the tracer has no CAP_SYS_PTRACE (ptrace(2)). `found` is the file that was found before.
pub(super) fn withheld(found: Option<File>, pid: i32) -> Result<Option<String>> {
    const SET_GROUP: u32 = libc::S_ISGID | libc::S_IXGRP;
    let tracer = CapabilitySets::current().context("reading the capabilities of this process")?;
    if !numbers_are_ours() {
        bail!("/proc does not show the process numbers of the PID namespace of psx");
    }
    let status = Process::open(pid).and_then(|process| process.task(pid)?.status());
    let program = status.context("reading /proc")?.credentials;
    if tracer.effective.contains(Capability::SYS_PTRACE) || program.no_new_privs == Some(true) {
        return Ok(None);
    }
    let file = executed(found, pid)?;
    let file_system = fstatvfs(&file).context("asking for the mount of the program")?;
    if file_system.f_flag.contains(StatVfsMountFlags::NOSUID) {
        return Ok(None);
    }
    let metadata = file.metadata().context("reading the mode of the program")?;
    let mode = metadata.mode();
    let mut what = Vec::new();
    if mode & libc::S_ISUID != 0 && metadata.uid() != program.user.effective {
        what.push("a set-user-ID bit".to_owned());
    }
    if mode & SET_GROUP == SET_GROUP && metadata.gid() != program.group.effective {
        what.push("a set-group-ID bit".to_owned());
    }
    // A file system without extended attributes gives no capabilities, and neither does a value that cannot be read.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let given = privileges::file::get(path).ok().flatten().filter(|file| file.root == Uid::ROOT);
    let given = given.map_or(CapabilitySet::EMPTY, |file| {
        file.permitted & program.bounding | file.inheritable & program.sets.inheritable
    });
    let missing = given - program.sets.permitted;
    if !missing.is_empty() {
        what.push(format!("the capabilities {missing}"));
    }
    Ok((!what.is_empty()).then(|| what.join(" and ")))
}
