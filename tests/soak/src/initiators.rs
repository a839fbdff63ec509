//! The broadcasts: each initiator changes fields of its own, so that it knows what every thread has to be when its call
//! has returned. Their values only grow.

// # Safety
//
// The untyped calls set ids, groups and the timer slack, or read a program that outlives them.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use libpsx::process::{
    CapabilitySet, CapabilitySets, Fd, Gid, Instruction, SeccompFlags, Synchronization, Uid,
    Unchanged, capset, fchdir, seccomp, setgroups, setresgid, setresuid,
};
use libpsx::{
    Broadcast, Error, PartialFailureAction, Report, ResultCheck, Sensitivity, Transaction,
    TransactionError, syscall3,
};

use crate::activities::SETXID;
use crate::board::{Board, Count};
use crate::state::Field;
use crate::sys::Random;

/// The first value of each field that is an id.
pub(crate) const FIRST_ID: u64 = 100_000;
/// How many users glibc's setresuid changes between.
pub(crate) const USERS: u64 = 4;

/// The first of these users. No other process has one of them: queued signals are counted for each user.
pub(crate) fn first_user() -> u64 {
    1_000_000 + USERS * u64::from(std::process::id())
}

/// The initial timer slack, ns.
pub(crate) const FIRST_SLACK: u64 = 60_000;
/// How many filters a thread gets at most: the kernel has a limit for all filters of a thread.
const MOST_FILTERS: u64 = 1500;

const ALLOW: [Instruction; 1] = [Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];

fn error(board: &Board, error: &Error) {
    board.count(match error {
        Error::Call(_) => Count::Kernel,
        Error::TsyncConflict { .. } => Count::TsyncConflict,
        Error::Unreachable(_) => Count::Unreachable,
        Error::SignalQueueFull => Count::QueueFull,
        Error::Busy { .. } => Count::Busy,
        Error::NotShared { .. } => Count::NotShared,
        Error::Reentered => Count::Reentered,
        Error::Refused(_) => Count::Refused,
        _ => Count::Environment,
    });
}

/// Counts a result. Returns whether every thread has performed the call.
pub(crate) fn done<T>(board: &Board, result: Result<T, Error>) -> bool {
    board.count(Count::Calls);
    match result {
        Ok(_) => board.count(Count::Ok),
        Err(why) => {
            error(board, &why);
            return false;
        }
    }
    true
}

fn done_with_report(board: &Board, result: Result<Report, Error>) -> bool {
    if let Ok(report) = &result {
        board.count(Count::Reports);
        if report.divergent() != 0 {
            board.violation(format_args!("divergent results: {report:?}"));
        }
    }
    done(board, result)
}

/// A deadline that is too short now and then.
fn deadline(random: &mut Random) -> Duration {
    match random.below(8) {
        0 => random.micros(2_000),
        1 => random.micros(50_000),
        2 => Duration::from_millis(500),
        _ => Duration::from_secs(10),
    }
}

fn level(random: &mut Random) -> Sensitivity {
    if random.once_in(2) { Sensitivity::Error } else { Sensitivity::Warning }
}

fn gid(value: u64) -> Gid {
    Gid::new(value as u32).expect("an id")
}

/// The value after the field's present one.
fn next(board: &Board, field: Field) -> u64 {
    board.expected[field as usize].load(SeqCst) + 1
}

fn is_now(board: &Board, field: Field, value: u64) {
    board.expected[field as usize].store(value, SeqCst);
}

/// Sets the real group by the typed call.
pub(crate) fn real_group(board: &Board, random: &mut Random) {
    let value = next(board, Field::RealGroup);
    let call = setresgid(gid(value), Unchanged, Unchanged);
    let done = match random.below(3) {
        0 => done(board, call.execute()),
        1 => done_with_report(board, call.execute_with_report()),
        _ => {
            let call = Transaction::new().with(call).deadline(deadline(random));
            match call.sensitivity(level(random)).execute() {
                Ok(value) => done(board, Ok(value)),
                Err(TransactionError::NothingChanged(why)) => done::<()>(board, Err(why)),
                Err(why) => {
                    board.violation(format_args!("one call, and a partial failure: {why}"));
                    false
                }
            }
        }
    };
    if done {
        is_now(board, Field::RealGroup, value);
    }
}

/// Sets the supplementary groups by the untyped call.
pub(crate) fn groups(board: &Board, random: &mut Random) {
    let value = next(board, Field::Groups);
    let list = [value as u32];
    let done = if random.once_in(2) {
        // SAFETY: the list outlives the call.
        done(board, unsafe { syscall3(libc::SYS_setgroups, 1, list.as_ptr() as usize, 0) })
    } else {
        let call = Broadcast::new(libc::SYS_setgroups, [1, list.as_ptr() as usize, 0, 0, 0, 0]);
        let call = call.deadline(deadline(random)).sensitivity(level(random));
        // SAFETY: the list outlives the call.
        done_with_report(board, unsafe { call.execute_with_report() })
    };
    if done {
        is_now(board, Field::Groups, value);
    }
}

/// Adds a filter in each thread. This call takes effect each time it is made, so a thread that performs it twice has
/// one filter too many.
pub(crate) fn filters(board: &Board, random: &mut Random) {
    let value = next(board, Field::Filters);
    if value > MOST_FILTERS {
        std::thread::sleep(Duration::from_millis(20));
        return;
    }
    std::thread::sleep(random.micros(40_000));
    let call = seccomp(&ALLOW, Synchronization::Broadcast, SeccompFlags::EMPTY);
    if done_with_report(board, call.execute_with_report()) {
        is_now(board, Field::Filters, value);
    }
}

/// Sets the inheritable capabilities.
pub(crate) fn capabilities(board: &Board, random: &mut Random) {
    let Ok(own) = CapabilitySets::current() else { return };
    let value = next(board, Field::Inheritable);
    let sets = CapabilitySets { inheritable: CapabilitySet::from_bits(value), ..own };
    let done = if random.once_in(2) {
        done_with_report(board, capset(sets).execute_with_report())
    } else {
        done(board, capset(sets).execute())
    };
    if done {
        is_now(board, Field::Inheritable, value);
    }
}

/// Sets the saved user and the saved group in one transaction, and asks every thread for its identity.
pub(crate) fn transaction(board: &Board, random: &mut Random) {
    let value = next(board, Field::SavedUser);
    let user = Uid::new(value as u32).expect("an id");
    let both = Transaction::new()
        .with(setresgid(Unchanged, Unchanged, gid(value)))
        .with(setresuid(Unchanged, Unchanged, user))
        .deadline(deadline(random))
        .sensitivity(level(random));
    let both = if random.once_in(3) { both.query_identities(4) } else { both };
    board.count(Count::Calls);
    match both.execute_with_report() {
        Ok(report) => {
            board.count(Count::Transactions);
            for thread in report.identities() {
                let seen = thread.uids().zip(thread.gids()).map(|(u, g)| (u.saved, g.saved));
                if seen != Some((value as u32, value as u32)) {
                    board.violation(format_args!("thread {} answers {seen:?}", thread.tid()));
                }
            }
            is_now(board, Field::SavedUser, value);
            is_now(board, Field::SavedGroup, value);
        }
        Err(TransactionError::NothingChanged(why)) => error(board, &why),
        Err(why) => board.violation(format_args!("two calls that cannot fail: {why}")),
    }
}

/// Sets the timer slack: by a plain call, or by a transaction whose second call fails.
pub(crate) fn slack(board: &Board, random: &mut Random) {
    let value = next(board, Field::Slack);
    let arguments = [libc::PR_SET_TIMERSLACK as usize, value as usize, 0, 0, 0, 0];
    let is_done = if random.once_in(3) {
        board.count(Count::Calls);
        let same = ResultCheck::SameResult;
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let call = unsafe { Transaction::new().with_call(libc::SYS_prctl, arguments, same) };
        // SAFETY: the kernel refuses an address of the zero page, or reads nothing.
        let call = unsafe { call.with_call(libc::SYS_setgroups, [1, 8, 0, 0, 0, 0], same) };
        let call = call.deadline(deadline(random));
        match call.on_partial_failure(PartialFailureAction::Report).execute() {
            Err(TransactionError::Partial(partial)) if partial.index() == 1 => {
                board.count(Count::Partial);
                true
            }
            Err(TransactionError::NothingChanged(why)) => {
                error(board, &why);
                false
            }
            other => {
                board.violation(format_args!("setgroups from the zero page: {other:?}"));
                false
            }
        }
    } else {
        let call = Broadcast::new(libc::SYS_prctl, arguments).deadline(deadline(random));
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        done(board, unsafe { call.sensitivity(Sensitivity::Ignore).execute() })
    };
    if is_done {
        is_now(board, Field::Slack, value);
    }
}

/// Calls that fail, and calls whose result differs in one thread. None of them changes anything.
pub(crate) fn failures(board: &Board, random: &mut Random) {
    match random.below(6) {
        // More groups than there may be.
        0 => {
            let list = vec![Gid::ROOT; 65_537];
            if done(board, setgroups(&list).execute()) {
                board.violation("setgroups with 65537 groups");
            }
        }
        1 => {
            // SAFETY: the call is refused.
            if done(board, unsafe { syscall3(libc::SYS_vfork, 0, 0, 0) }) {
                board.violation("vfork by broadcast");
            }
        }
        // The threads have filters of their own, so the kernel cannot give all of them one more.
        2 => {
            let call = seccomp(&ALLOW, Synchronization::Kernel, SeccompFlags::EMPTY);
            if done(board, call.execute()) {
                board.violation("TSYNC beside threads with other filters");
            }
        }
        // One thread has a descriptor table of its own.
        3 => {
            // SAFETY: the descriptor is the number of no descriptor that is closed: it is standard input.
            let descriptor = unsafe { Fd::borrow_raw(0) };
            if done(board, fchdir(descriptor).execute()) {
                board.violation("fchdir to standard input");
            }
        }
        // One thread has a filter that refuses the call.
        which => {
            let ignore = which == 4;
            let level = if ignore { Sensitivity::Ignore } else { Sensitivity::Warning };
            let call = Broadcast::new(libc::SYS_setpriority, [0; 6]).sensitivity(level);
            board.count(Count::Calls);
            // SAFETY: setpriority touches no memory.
            match unsafe { call.deadline(deadline(random)).execute_with_report() } {
                Ok(report) if report.divergent() == 1 => {
                    board.count(if ignore { Count::Ignored } else { Count::Warned });
                }
                Ok(report) => board.violation(format_args!("one thread refuses: {report:?}")),
                Err(why) => error(board, &why),
            }
        }
    }
}

/// glibc's own broadcast. It does not reach threads of clone(2).
pub(crate) fn setxid(board: &Board, random: &mut Random) {
    let _alone = SETXID.write();
    board.setxid.store(1, SeqCst);
    if board.no_room.load(SeqCst) == 0 {
        change_real_user(board, random);
    }
    board.setxid.store(0, SeqCst);
}

fn change_real_user(board: &Board, random: &mut Random) {
    let value = first_user() + random.below(USERS);
    // SAFETY: the call touches no memory.
    let changed = unsafe { libc::setresuid(value as u32, !0, !0) };
    if changed == 0 {
        is_now(board, Field::RealUser, value);
        board.count(Count::Setxid);
    } else {
        board.violation(format_args!("setresuid: {}", std::io::Error::last_os_error()));
    }
}
