//! What each error says, and its number.

use core::time::Duration;
use std::string::ToString;

use super::{
    CallFailure, Error, PartialFailure, RefusalReason, Requirement, SharedResource,
    TransactionError, UnreachableReason, UnreachableThread, UnreachableThreads,
};
use crate::errno::Errno;
use crate::sys::mapping::MappedList;

fn thread(tid: i32) -> UnreachableThread {
    let (name, state) = (*b"wor\nker\xffrest\0\0\0\0", b'S');
    UnreachableThread { tid, name, state, reason: UnreachableReason::SignalBlocked }
}

fn unreachable(tids: core::ops::Range<i32>, emulated: bool, millis: u64) -> UnreachableThreads {
    let total = tids.len();
    let mut threads = MappedList::with_capacity(total).unwrap();
    tids.for_each(|tid| assert!(threads.push(thread(tid))));
    UnreachableThreads { deadline: Duration::from_millis(millis), total, threads, emulated }
}

#[test]
fn every_error_says_what_was_wrong_and_that_nothing_changed() {
    let resource = SharedResource::Descriptors;
    let errors = [
        (Error::Call(Errno::PERM), libc::EPERM, "the kernel refused the call: EPERM ("),
        (Error::TsyncConflict { tid: 7 }, libc::ESRCH, "thread 7 has a seccomp filter that"),
        (Error::SignalQueueFull, libc::EAGAIN, "no signal could be queued: this user's RLIMIT"),
        (Error::Busy { tid: 7 }, libc::ETIMEDOUT, "the broadcast of thread 7 did not end"),
        (Error::NotShared { tid: 7, resource }, libc::EINVAL, "thread 7 has a descriptor table of"),
        (
            Error::NotShared { tid: 7, resource: SharedResource::Directories },
            libc::EINVAL,
            "thread 7 has a root or working directory of its own",
        ),
        (Error::Reentered, libc::EDEADLK, "called from a handler that interrupted"),
        (
            Error::Refused(RefusalReason::CreatesTask),
            libc::EINVAL,
            "the call is refused: every thread would create a process or thread",
        ),
        (
            Error::Environment { requirement: Requirement::Clock, errno: Errno::NOSYS },
            libc::ENOSYS,
            "the time could not be read: ENOSYS (",
        ),
        (
            Error::Environment {
                requirement: Requirement::TransactionMemory(9),
                errno: Errno::NOMEM,
            },
            libc::ENOMEM,
            "no memory for the 9 calls of the transaction: ENOMEM (",
        ),
        (
            Error::Unreachable(unreachable(3..4, false, 250)),
            libc::ETIMEDOUT,
            "1 thread could not be stopped within 0.250 s: 3 (wor\\nker\\xffrest, state S) blocks signal 33;",
        ),
        (
            Error::Unreachable(unreachable(0..0, false, 10_000)),
            libc::ETIMEDOUT,
            "not all threads could be found and stopped within 10 s",
        ),
    ];
    for (error, number, begin) in errors {
        let text = error.to_string();
        assert!(text.starts_with(begin), "{text}");
        assert!(text.ends_with("; nothing changed in any thread"), "{text}");
        assert_eq!(error.raw_os_error(), number, "{text}");
        let error = TransactionError::from(error);
        assert_eq!((error.to_string(), error.raw_os_error()), (text, number));
    }
}

#[test]
fn many_unreachable_threads_are_not_all_named() {
    let threads = unreachable(1..10, true, 1000);
    assert!(threads.is_emulated());
    let text = threads.to_string();
    assert!(text.starts_with("9 threads could not be stopped within 1 s: 1 ("), "{text}");
    assert!(text.contains(", 8 (") && !text.contains(", 9 ("), "{text}");
    assert!(text.contains(", ...; an emulator of this CPU runs the program"), "{text}");
    let thread = threads.threads()[8];
    assert_eq!((thread.tid(), thread.name(), thread.state()), (9, "wor\nker", 'S'));
    assert_eq!(thread.reason(), UnreachableReason::SignalBlocked);
}

#[test]
fn a_partial_failure_says_what_was_performed() {
    let why = CallFailure::TsyncConflict { tid: 7 };
    let failure = PartialFailure { index: 2, name: Some("seccomp"), why };
    assert_eq!(failure.tsync_conflict(), Some(7));
    let error = TransactionError::Partial(failure);
    assert_eq!(error.raw_os_error(), libc::ESRCH);
    let text = "call 2 (seccomp) failed: thread 7 has a filter of its own; every thread has performed the 2 before it";
    assert_eq!(error.to_string(), text);
    let failure = PartialFailure { index: 1, name: None, why: CallFailure::Errno(Errno::PERM) };
    assert_eq!((failure.tsync_conflict(), failure.raw_os_error()), (None, libc::EPERM));
    assert!(failure.to_string().starts_with("call 1 (system call) failed: EPERM ("), "{failure}");
}

/// No two reasons say the same, and none is empty.
#[test]
fn every_reason_has_its_own_words() {
    let mut texts = std::vec::Vec::new();
    for reason in [
        RefusalReason::CreatesTask,
        RefusalReason::EndsThread,
        RefusalReason::LeavesHandler,
        RefusalReason::ChangesSignalState,
        RefusalReason::ReplacesThreadState,
        RefusalReason::ForbidsCalls,
        RefusalReason::WaitsForSignal,
        RefusalReason::CreatesNamespace,
        RefusalReason::JoinsPidNamespace,
        RefusalReason::NotLast,
    ] {
        texts.push(reason.to_string());
    }
    for requirement in [
        Requirement::Memory,
        Requirement::ThreadList,
        Requirement::SignalHandler,
        Requirement::SendSignal,
        Requirement::ThreadId,
        Requirement::SignalMask,
        Requirement::Clock,
        Requirement::ExclusiveMemory,
        Requirement::Namespace,
        Requirement::SharingCheck,
    ] {
        texts.push(requirement.to_string());
    }
    for reason in [
        UnreachableReason::SignalBlocked,
        UnreachableReason::Stopped,
        UnreachableReason::Traced,
        UnreachableReason::Frozen,
        UnreachableReason::Vfork,
        UnreachableReason::Exec,
        UnreachableReason::Uninterruptible,
        UnreachableReason::Forbidden,
        UnreachableReason::Filtered,
        UnreachableReason::Unresponsive,
        UnreachableReason::Unknown,
    ] {
        texts.push(reason.to_string());
    }
    let count = texts.len();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), count);
    assert!(texts.iter().all(|text| text.len() > 8));
}
