//! A session keyring for every thread, session-keyring(7).

use core::ffi::CStr;

use linux_raw_sys::general as k;

use super::Operation;
use crate::error::Error;
use crate::sys;

/// A new keyring, made by [`new_session_keyring`], that threads can join. The kernel keeps it as long as this value exists
/// or a thread has joined it.
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

    /// Makes it the session keyring of every thread. Children inherit it. The value is the serial number. (keyctl(2),
    /// KEYCTL_JOIN_SESSION_KEYRING)
    ///
    /// A thread whose file-access user ID may not search the keyring gets a new keyring of the same name, so its result
    /// differs.
    ///
    /// # Errors
    /// EDQUOT (the user's quota is used up), EKEYREVOKED, ENOMEM.
    pub fn join(&self) -> Operation<'_> {
        const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
        let args = [KEYCTL_JOIN_SESSION_KEYRING, self.name.as_ptr() as usize, 0, 0, 0, 0];
        Operation::new(k::__NR_keyctl, args)
    }
}

impl Drop for SessionKeyring<'_> {
    fn drop(&mut self) {
        sys::keyring::unlink_from_thread_keyring(self.serial);
    }
}

/// Makes a keyring that all threads of this user can find by its name (add_key(2)). If each thread asked for a session
/// keyring by a new name, or without a name, each would get a keyring of its own.
///
/// ```no_run
/// use libpsx::process::{SessionKeyring, new_session_keyring};
///
/// let keyring: SessionKeyring = new_session_keyring(c"daemon")?;
/// println!("keyring {}", keyring.serial());
/// keyring.join().execute()?;
/// # Ok::<(), libpsx::Error>(())
/// ```
///
/// # Errors
/// [`Error::Call`]; nothing has changed in any thread.
///
/// | errno | cause |
/// |---|---|
/// | EDQUOT | the user's quota of keys is used up |
/// | EPERM | the name begins with a dot |
/// | ENOSYS | the kernel has no keyrings |
pub fn new_session_keyring(name: &CStr) -> Result<SessionKeyring<'_>, Error> {
    let serial = sys::keyring::add_to_thread_keyring(name).map_err(Error::Call)?;
    let keyring = SessionKeyring { name, serial };
    sys::keyring::permit_user_to_search(serial).map_err(Error::Call)?;
    Ok(keyring)
}
