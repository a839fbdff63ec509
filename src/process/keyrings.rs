//! A session keyring for every thread, session-keyring(7).

use core::ffi::CStr;
use core::marker::PhantomData;

use linux_raw_sys::general as k;

use super::Operation;
use crate::error::Error;
use crate::sys;

/// A new keyring, made by [`new_session_keyring`], that threads can join. It is in the thread keyring of the thread that has
/// made it, so the kernel keeps it as long as this value exists, or a thread that has joined it.
///
/// A child of fork(2) has no thread keyring. It may join the keyring only while the thread that has made it keeps the value.
///
/// The value stays in its thread, since another thread could not remove the keyring from there:
/// ```compile_fail,E0277
/// let keyring = libpsx::process::new_session_keyring().unwrap();
/// std::thread::spawn(move || keyring.join().execute());
/// ```
#[derive(Debug)]
pub struct SessionKeyring {
    name: Name,
    serial: i32,
    _of_this_thread: PhantomData<*const ()>,
}

impl SessionKeyring {
    /// Returns its serial number.
    pub const fn serial(&self) -> i32 {
        self.serial
    }

    /// Makes it the session keyring of every thread. Children inherit it. The value is the serial number, or 0 if the calling
    /// thread had it already. (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING)
    ///
    /// Threads join a keyring by its name. The kernel gives a thread the oldest keyring of that name that the thread's
    /// user may search, and makes a new one if there is none. If the calling thread gets another keyring than this one,
    /// the process is killed by signal 33 before any other thread has joined a keyring, whatever the
    /// [`Sensitivity`](crate::Sensitivity): the thread has lost its old session keyring. That happens if the user ID for
    /// files changes first. In a transaction, join the keyring before you change IDs.
    ///
    /// # Errors
    /// EDQUOT (the user's quota is used up), EKEYREVOKED, ENOMEM.
    pub fn join(&self) -> Operation<'_> {
        const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
        let args = [KEYCTL_JOIN_SESSION_KEYRING, self.name.0.as_ptr() as usize, 0, 0, 0, 0];
        Operation::new(k::__NR_keyctl, args).returning(self.serial as isize)
    }
}

impl Drop for SessionKeyring {
    fn drop(&mut self) {
        sys::keyring::unlink_from_thread_keyring(self.serial);
    }
}

/// Makes an empty keyring that all threads of this user can join by its name (add_key(2), keyctl(2), getrandom(2)). If
/// each thread asked for a session keyring by a new name, or without a name, each would get a keyring of its own.
///
/// The name is `libpsx-` and 32 random digits. Names of keyrings are shared by all processes of a user namespace: another
/// process of this user that knows the name can join the keyring, and a keyring that it has made before with that name
/// would be joined in place of this one. /proc/keys shows the name to threads that have joined, and to no other process.
/// (The kernel lets the user see a new key. That right is taken away by the next system call, so that a process of the same
/// user that reads /proc/keys in this moment can see the name.)
///
/// ```no_run
/// use libpsx::process::{SessionKeyring, new_session_keyring};
///
/// let keyring: SessionKeyring = new_session_keyring()?;
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
/// | ENOSYS | the kernel has no keyrings |
pub fn new_session_keyring() -> Result<SessionKeyring, Error> {
    let name = Name::new(sys::keyring::random().map_err(Error::Call)?);
    let serial = sys::keyring::add_to_thread_keyring(name.text()).map_err(Error::Call)?;
    let keyring = SessionKeyring { name, serial, _of_this_thread: PhantomData };
    sys::keyring::permit_user_to_join(serial).map_err(Error::Call)?;
    Ok(keyring)
}

/// The name of a keyring: a string, with its NUL.
#[derive(Debug)]
struct Name([u8; 40]);

impl Name {
    const PREFIX: &[u8] = b"libpsx-";

    /// Writes the prefix and two hexadecimal digits for each byte.
    fn new(random: [u8; 16]) -> Self {
        let digit = |value: u8| *b"0123456789abcdef".get(usize::from(value)).unwrap_or(&b'-');
        let digits = random.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        let mut name = [0; 40];
        for (place, byte) in name.iter_mut().zip(Self::PREFIX.iter().copied().chain(digits)) {
            *place = byte;
        }
        Self(name)
    }

    fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_all_digits() {
        let name = Name::new(core::array::from_fn(|index| index as u8 * 17));
        assert_eq!(name.text(), c"libpsx-00112233445566778899aabbccddeeff");
    }
}
