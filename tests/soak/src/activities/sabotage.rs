//! Threads that differ on purpose, and what breaks a promise on purpose.

use super::*;

/// A thread whose own filter refuses setpriority(2), so that its result differs.
pub(crate) fn dissenter(board: &Board) {
    sys::set_name(c"dissenter");
    refuse_setpriority();
    board.ready.fetch_add(1, SeqCst);
    wait_for_the_end(board);
}

/// A thread with a descriptor table of its own.
pub(crate) fn own_table(board: &Board) {
    sys::set_name(c"own-table");
    // SAFETY: the call touches no memory.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0, "{}", Errno::last_os_error());
    board.ready.fetch_add(1, SeqCst);
    wait_for_the_end(board);
}

/// What breaks a promise on purpose.
pub(crate) fn sabotage(what: &str) -> Option<fn(&'static Board)> {
    Some(match what {
        "undo" => undo,
        "twice" => twice,
        "early" => early,
        "hang" => hang,
        _ => return None,
    })
}

/// A thread takes a change back for itself, by the raw call: as if a broadcast had missed it.
fn undo(board: &'static Board) {
    // SAFETY: the call touches no memory.
    unsafe { libc::syscall(libc::SYS_setresuid, !0, !0, FIRST_ID) };
    while board.end.load(SeqCst) == 0 {
        sleep(Duration::from_millis(1));
        // SAFETY: the call touches no memory.
        unsafe { libc::syscall(libc::SYS_setresuid, !0, !0, FIRST_ID) };
    }
}

/// A thread adds a filter for itself: as if it had performed a call twice.
fn twice(board: &'static Board) {
    let mut allow = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    add_filter(&libc::sock_fprog { len: 1, filter: allow.as_mut_ptr() });
    wait_for_the_end(board);
}

/// A state is seen that no thread has yet: as if one thread had run before the others had performed the call.
fn early(board: &'static Board) {
    sleep(Duration::from_millis(200));
    board.seen[Field::RealGroup as usize].fetch_add(1000, SeqCst);
}

/// A call that seems not to have returned for an hour.
fn hang(board: &'static Board) {
    let own = board.claim_loop("sabotage");
    own.began.store(sys::now().saturating_sub(3_600_000_000_000).max(1), SeqCst);
    wait_for_the_end(board);
}
