//! Calls that the calling thread makes for itself alone.

use super::support::last_form;

/// Makes a call in the calling thread alone. Ids have 32 bits.
pub(crate) fn here(number: libc::c_long, args: [usize; 3]) {
    // SAFETY: the callers of this function pass numbers, or memory that is as long as said.
    let done = unsafe { libc::syscall(last_form(number), args[0], args[1], args[2]) };
    assert!(done >= 0, "{number} {args:?}: {}", std::io::Error::last_os_error());
}

/// Sets the supplementary groups, the group ids and the user ids of the calling thread alone.
pub(crate) fn become_in_this_thread(groups: &[u32], group: usize, user: usize) {
    here(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0]);
    here(libc::SYS_setresgid, [group; 3]);
    here(libc::SYS_setresuid, [user; 3]);
}
