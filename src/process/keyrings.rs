//! A session keyring for every thread, session-keyring(7).

use core::ffi::CStr;

use linux_raw_sys::general as k;

use super::Operation;
use crate::error::Error;
use crate::sys;

/// A keyring that no thread has for its session yet, made by [`new_session_keyring`]. It goes away
/// with the last session that it belongs to, or with this.
#[derive(Debug)]
pub struct SessionKeyring<'a> {
    name: &'a CStr,
    serial: i32,
}

impl SessionKeyring<'_> {
    /// Its serial number.
    pub const fn serial(&self) -> i32 {
        self.serial
    }

    /// Makes it the session keyring of every thread: keyctl(2), KEYCTL_JOIN_SESSION_KEYRING, whose
    /// value is its serial number. EDQUOT, EKEYREVOKED, ENOMEM. Children inherit it.
    ///
    /// A thread whose user (credentials(7), the file system's id) may not search it gets a new keyring
    /// of the same name: its result differs.
    pub fn join(&self) -> Operation<'_> {
        const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
        let args = [KEYCTL_JOIN_SESSION_KEYRING, self.name.as_ptr() as usize, 0, 0, 0, 0];
        Operation::new(k::__NR_keyctl, args)
    }
}

impl Drop for SessionKeyring<'_> {
    fn drop(&mut self) {
        sys::unlink_from_thread_keyring(self.serial);
    }
}

/// Makes a keyring that the threads of this user can all find: if each just asked for a session
/// keyring by its name (or by none), each would get one of its own. add_key(2): EDQUOT, EPERM for a
/// name that begins with a dot.
///
/// # Errors
/// [`Error::Call`]: nothing changed in any thread.
pub fn new_session_keyring(name: &CStr) -> Result<SessionKeyring<'_>, Error> {
    let serial = sys::add_to_thread_keyring(name).map_err(Error::Call)?;
    let keyring = SessionKeyring { name, serial };
    sys::let_user_search(serial).map_err(Error::Call)?;
    Ok(keyring)
}
