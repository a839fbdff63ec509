//! The file of the program, found as execve(2) will find it: in the new root directory, from the new working directory.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::{NOT_EXECUTABLE, NOT_FOUND};

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
pub(super) fn find(program: &OsStr, place: &Place) -> Result<Option<File>, (&'static str, u8)> {
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
