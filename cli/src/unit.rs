//! The unit that an option names.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use privileges::unit::{Unit, UnitError};

/// Reads the unit with this name, or the file with this path. A name without `/` is never a file: the working directory can
/// belong to another user.
pub(crate) fn named(path: &Path) -> Result<Unit, UnitError> {
    if path.as_os_str().as_bytes().contains(&b'/') {
        return Unit::read(path);
    }
    // A name that is not UTF-8 is no unit's: the replacement character is in no name that systemd accepts.
    Unit::find(&path.as_os_str().to_string_lossy())
}
