//! Capabilities of files (capabilities(7)), which execve(2) of the file gives to a program.
//!
//! They are in the extended attribute `security.capability`. Reading it needs no privilege, setting it needs
//! CAP_SETFCAP. They belong to the file, so no broadcast is needed.
//!
//! ```no_run
//! use privileges::file::{self, FileCapabilities};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ping: FileCapabilities = "cap_net_raw=ep".parse()?;
//! file::set("/usr/local/bin/ping", ping)?;
//! assert_eq!(file::get("/usr/local/bin/ping")?, Some(ping));
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;

use libpsx::process::{CapabilitySet, CapabilitySets, ParseCapabilitiesError, Uid};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

const NAME: &str = "security.capability";

/// The capabilities that execve(2) of a file gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileCapabilities {
    /// Capabilities that the program gets, as far as the bounding set allows.
    pub permitted: CapabilitySet,
    /// Capabilities that the program gets if they are inheritable in the thread.
    pub inheritable: CapabilitySet,
    /// Whether what the program gets is effective from the start.
    pub effective: bool,
    /// The user that is root of the user namespace in which alone the file gives capabilities (version 3 of the
    /// attribute). [`Uid::ROOT`] is the present namespace's: version 2.
    pub root: Uid,
}

impl FileCapabilities {
    /// No capabilities, in the present user namespace. (This differs from a missing attribute: execve(2) of such a file
    /// clears the ambient set, and a set-user-ID-root program gets no capability.)
    pub const NONE: Self = Self {
        permitted: CapabilitySet::EMPTY,
        inheritable: CapabilitySet::EMPTY,
        effective: false,
        root: Uid::ROOT,
    };

    /// Returns the value of the attribute: `struct vfs_cap_data` or `struct vfs_ns_cap_data`
    /// (include/uapi/linux/capability.h).
    pub fn to_bytes(self) -> Vec<u8> {
        let version = if self.root == Uid::ROOT { VERSION_2 } else { VERSION_3 };
        let [permitted, inheritable] = [self.permitted, self.inheritable].map(CapabilitySet::bits);
        let words = [
            version | u32::from(self.effective),
            permitted as u32,
            inheritable as u32,
            (permitted >> 32) as u32,
            (inheritable >> 32) as u32,
        ];
        let owner = (version == VERSION_3).then_some(self.root.as_raw());
        words.into_iter().chain(owner).flat_map(u32::to_le_bytes).collect()
    }

    /// Reads a value of the attribute, of version 1, 2 or 3.
    ///
    /// # Errors
    /// [`ParseFileCapabilitiesError`] if the kernel would refuse the value.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseFileCapabilitiesError> {
        let word = |number: usize| {
            let bytes = bytes.get(4 * number..).and_then(<[u8]>::first_chunk);
            bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(ParseFileCapabilitiesError::Length)
        };
        let head = word(0)?;
        let (words, owned) = match head & VERSION {
            VERSION_1 => (3, false),
            VERSION_2 => (5, false),
            VERSION_3 => (6, true),
            _ => return Err(ParseFileCapabilitiesError::Version(head >> 24)),
        };
        if bytes.len() != 4 * words {
            return Err(ParseFileCapabilitiesError::Length);
        }
        let set = |first| -> Result<CapabilitySet, ParseFileCapabilitiesError> {
            let high = if words > 3 { word(first + 2)? } else { 0 };
            Ok(CapabilitySet::from_bits(u64::from(high) << 32 | u64::from(word(first)?)))
        };
        let root = if owned { word(5)? } else { 0 };
        Ok(Self {
            permitted: set(1)?,
            inheritable: set(2)?,
            effective: head & EFFECTIVE != 0,
            root: Uid::new(root).map_err(|_| ParseFileCapabilitiesError::Root)?,
        })
    }
}

const VERSION: u32 = 0xff00_0000;
const VERSION_1: u32 = 0x0100_0000;
const VERSION_2: u32 = 0x0200_0000;
const VERSION_3: u32 = 0x0300_0000;
const EFFECTIVE: u32 = 1;

/// The value or the text does not describe the capabilities of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseFileCapabilitiesError {
    /// The attribute has another length than its version.
    #[error("the attribute has another length than its version")]
    Length,
    /// The attribute has a version that this crate does not know.
    #[error("version {0} of the attribute is not known: there are 1, 2 and 3")]
    Version(u32),
    /// The attribute names the user 4294967295.
    #[error("the attribute names user 4294967295, which is reserved for \"unchanged\"")]
    Root,
    /// A file has one effective flag for all capabilities.
    #[error("only some are effective: a file has all of its capabilities effective, or none")]
    PartlyEffective,
    /// The text is not that of capabilities.
    #[error(transparent)]
    Text(#[from] ParseCapabilitiesError),
}

impl From<ParseFileCapabilitiesError> for io::Error {
    fn from(bad: ParseFileCapabilitiesError) -> Self {
        Self::new(io::ErrorKind::InvalidData, bad)
    }
}

impl From<FileCapabilities> for CapabilitySets {
    /// Converts to three sets. The effective set contains all permitted and inheritable capabilities, or none.
    fn from(file: FileCapabilities) -> Self {
        let FileCapabilities { permitted, inheritable, .. } = file;
        let all = permitted | inheritable;
        let effective = if file.effective { all } else { CapabilitySet::EMPTY };
        Self { effective, permitted, inheritable }
    }
}

impl TryFrom<CapabilitySets> for FileCapabilities {
    type Error = ParseFileCapabilitiesError;

    /// Converts three sets to file capabilities of the present user namespace.
    fn try_from(sets: CapabilitySets) -> Result<Self, ParseFileCapabilitiesError> {
        let CapabilitySets { effective, permitted, inheritable } = sets;
        if !effective.is_empty() && effective != permitted | inheritable {
            return Err(ParseFileCapabilitiesError::PartlyEffective);
        }
        Ok(Self { permitted, inheritable, effective: !effective.is_empty(), root: Uid::ROOT })
    }
}

impl FromStr for FileCapabilities {
    type Err = ParseFileCapabilitiesError;

    /// Parses the text of setcap(8): `cap_net_raw,cap_net_admin=ep`.
    fn from_str(text: &str) -> Result<Self, ParseFileCapabilitiesError> {
        text.parse::<CapabilitySets>()?.try_into()
    }
}

impl fmt::Display for FileCapabilities {
    /// Formats the sets as `CapabilitySets` does. If the root user is not that of the present namespace, it follows in
    /// the form of getcap(8) with `-n`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&CapabilitySets::from(*self), f)?;
        if self.root == Uid::ROOT { Ok(()) } else { write!(f, " [rootid={}]", self.root.as_raw()) }
    }
}

/// The length of version 3, which is the longest version.
const LONGEST: usize = 24;

fn value(length: Result<usize, Errno>, bytes: &[u8]) -> io::Result<Option<FileCapabilities>> {
    match length {
        Ok(length) => {
            let bytes = bytes.get(..length).unwrap_or_default();
            Ok(Some(FileCapabilities::from_bytes(bytes)?))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns the capabilities of a file, or `None` if it has none. A symbolic link is followed.
///
/// # Errors
/// The error of getxattr(2): EOVERFLOW if the capabilities are those of a user namespace that is not one of this one's
/// descendants. [`ParseFileCapabilitiesError`].
pub fn get(path: impl AsRef<Path>) -> io::Result<Option<FileCapabilities>> {
    let mut bytes = [0; LONGEST];
    value(rustix::fs::getxattr(path.as_ref(), NAME, &mut bytes), &bytes)
}

/// Returns the capabilities of an open file.
///
/// # Errors
/// Those of [`get`].
pub fn get_fd(file: impl AsFd) -> io::Result<Option<FileCapabilities>> {
    let mut bytes = [0; LONGEST];
    value(rustix::fs::fgetxattr(file, NAME, &mut bytes), &bytes)
}

fn regular(is_file: bool) -> io::Result<()> {
    let message = "only a regular file can have capabilities, and this is none; nothing changed";
    is_file.then_some(()).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Replaces the capabilities of a regular file. A symbolic link is not followed, and is an error.
///
/// # Errors
/// The error of setxattr(2): EPERM without CAP_SETFCAP, or for a user that this user namespace does not have.
/// `InvalidInput` if it is not a regular file. Nothing has changed.
pub fn set(path: impl AsRef<Path>, capabilities: FileCapabilities) -> io::Result<()> {
    let path = path.as_ref();
    regular(path.symlink_metadata()?.is_file())?;
    let bytes = capabilities.to_bytes();
    Ok(rustix::fs::lsetxattr(path, NAME, &bytes, XattrFlags::empty())?)
}

/// Replaces the capabilities of an open file.
///
/// # Errors
/// Those of [`set`].
pub fn set_fd(file: impl AsFd, capabilities: FileCapabilities) -> io::Result<()> {
    let status = rustix::fs::fstat(file.as_fd())?;
    regular(rustix::fs::FileType::from_raw_mode(status.st_mode).is_file())?;
    let bytes = capabilities.to_bytes();
    Ok(rustix::fs::fsetxattr(file, NAME, &bytes, XattrFlags::empty())?)
}

fn ignore_missing_attribute(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes the capabilities of a file. A file without capabilities is not an error. A symbolic link is not followed.
///
/// # Errors
/// The error of removexattr(2): EPERM without CAP_SETFCAP.
pub fn remove(path: impl AsRef<Path>) -> io::Result<()> {
    ignore_missing_attribute(rustix::fs::lremovexattr(path.as_ref(), NAME))
}

/// Removes the capabilities of an open file, as [`remove`] does.
///
/// # Errors
/// As [`remove`].
pub fn remove_fd(file: impl AsFd) -> io::Result<()> {
    ignore_missing_attribute(rustix::fs::fremovexattr(file, NAME))
}
