//! The keyring of a thread, keyrings(7).

use core::ffi::CStr;

use linux_raw_sys::general as k;

use super::call;
use crate::errno::Errno;

const KEY_SPEC_THREAD_KEYRING: usize = usize::MAX;

/// Returns random bytes, getrandom(2).
pub(crate) fn random() -> Result<[u8; 16], Errno> {
    let mut bytes = [0u8; 16];
    // The kernel gives up to 256 bytes at once.
    call(k::__NR_getrandom, [bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0, 0])?;
    Ok(bytes)
}

/// Adds a new keyring to the keyring of this thread, add_key(2). Returns its serial number.
pub(crate) fn add_to_thread_keyring(name: &CStr) -> Result<i32, Errno> {
    let (kind, name) = (c"keyring".as_ptr() as usize, name.as_ptr() as usize);
    let args = [kind, name, 0, 0, KEY_SPEC_THREAD_KEYRING, 0];
    call(k::__NR_add_key, args).map(|serial| serial as i32)
}

/// Gives all rights to a thread that possesses the keyring, and to other processes of its user only what joining it by name
/// takes: keyctl(2), KEYCTL_SETPERM. Without the right to view it, /proc/keys does not show them the name.
pub(crate) fn permit_user_to_join(serial: i32) -> Result<(), Errno> {
    const KEYCTL_SETPERM: usize = 5;
    // KEY_POS_ALL | KEY_USR_SEARCH (include/linux/key.h).
    const PERMISSIONS: usize = 0x3f08_0000;
    call(k::__NR_keyctl, [KEYCTL_SETPERM, serial as usize, PERMISSIONS, 0, 0, 0]).map(|_| ())
}

pub(crate) fn unlink_from_thread_keyring(serial: i32) {
    const KEYCTL_UNLINK: usize = 9;
    let args = [KEYCTL_UNLINK, serial as usize, KEY_SPEC_THREAD_KEYRING, 0, 0, 0];
    let _ = call(k::__NR_keyctl, args);
}
