//! Namespaces for a test. If they are refused, as in a container or in a plain chroot, the test is skipped.

use std::ffi::CString;
use std::os::fd::AsRawFd;

use super::{forked_status, skipped};

/// Moves this process to new namespaces. If the kernel or a sandbox refuses that, records a skipped test and returns false.
pub fn unshared(flags: i32) -> bool {
    // SAFETY: the call takes only flags.
    if unsafe { libc::syscall(libc::SYS_unshare, flags) } == 0 {
        return true;
    }
    let error = std::io::Error::last_os_error();
    skipped(format!("no new namespace, unshare({flags:#x}): {error}"));
    false
}

/// Moves this process to a mount namespace whose mounts no other process sees. If that is refused, records a skipped test
/// and returns false. If the root directory is not a mount point, the propagation of its mounts cannot be set.
pub fn private_mounts() -> bool {
    if !unshared(libc::CLONE_NEWNS) {
        return false;
    }
    let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: the path is a string, and the kernel reads nothing else.
    if unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) } == 0 {
        return true;
    }
    skipped(format!("no private mounts at /: {}", std::io::Error::last_os_error()));
    false
}

/// Returns whether a child can create a user namespace. Records a skipped test otherwise.
pub fn user_namespaces() -> bool {
    forked_status(|| {
        if !unshared(libc::CLONE_NEWUSER) {
            super::end(1);
        }
    }) == 0
}

/// Lays one file over another, for the calling thread and what it starts. Notes it and returns false if that is refused.
pub fn laid_over(target: &str, source: &str) -> bool {
    if !private_mounts() {
        return false;
    }
    let strings = [source, target].map(|path| CString::new(path).unwrap());
    let [from, to] = [strings[0].as_ptr(), strings[1].as_ptr()];
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the paths are strings, and there is nothing else to read.
    if unsafe { libc::mount(from, to, none, libc::MS_BIND, none.cast()) } == 0 {
        return true;
    }
    skipped(format!("no mount over {target}: {}", std::io::Error::last_os_error()));
    false
}

/// Makes an empty folder the root directory of this process, without /proc.
pub fn enter_empty_root() {
    let place = std::env::temp_dir();
    let name = format!("psx-empty-{}", std::process::id());
    std::fs::create_dir_all(place.join(&name)).unwrap();
    assert_eq!(std::fs::read_dir(place.join(&name)).unwrap().count(), 0);
    let outside = std::fs::File::open(&place).unwrap();
    std::os::unix::fs::chroot(place.join(&name)).unwrap();
    std::env::set_current_dir("/").unwrap();
    // The folder stays the root directory, and no test leaves it behind.
    let name = CString::new(name).unwrap();
    // SAFETY: the kernel reads the name.
    unsafe { libc::unlinkat(outside.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) };
}
