//! A session keyring for every thread, session-keyring(7).

use core::ffi::CStr;

use linux_raw_sys::general as k;

use super::Operation;
use crate::error::Error;
use crate::sys;

/// A keyring that is no thread's session keyring yet, made by [`new_session_keyring`]. The kernel keeps it for as long
/// as this value exists or a thread has joined it.
#[derive(Debug)]
pub struct SessionKeyring<'a> {
    name: &'a CStr,
    serial: i32,
}

impl SessionKeyring<'_> {
    /// Returns its serial number.
    pub const fn serial(&self) -> i32 {
        self.serial
    }

    /// Makes it the session keyring of every thread. Children inherit it. keyctl(2), KEYCTL_JOIN_SESSION_KEYRING, whose
    /// value is the serial number: EDQUOT, EKEYREVOKED, ENOMEM.
    ///
    /// A thread whose file-access user ID may not search the keyring gets a new keyring of the same name, so its result
    /// differs.
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

/// Makes a keyring that all threads of this user can find by its name. (If each thread asked for a session keyring by a
/// new name, or by none, each would get one of its own.) add_key(2): EDQUOT; EPERM for a
/// name that begins with a dot; ENOSYS if the kernel has no keyrings.
///
/// ```no_run
/// use libpsx::process::new_session_keyring;
///
/// let keyring = new_session_keyring(c"daemon")?;
/// keyring.join().execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
///
/// # Errors
/// [`Error::Call`]: nothing changed in any thread.
pub fn new_session_keyring(name: &CStr) -> Result<SessionKeyring<'_>, Error> {
    let serial = sys::add_to_thread_keyring(name).map_err(Error::Call)?;
    let keyring = SessionKeyring { name, serial };
    sys::let_user_search(serial).map_err(Error::Call)?;
    Ok(keyring)
}
