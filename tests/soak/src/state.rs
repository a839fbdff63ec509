//! What a thread is: the fields that the initiators change, as the thread itself asks the kernel for them, and as
//! /proc shows them to the observer.

use std::sync::atomic::Ordering::SeqCst;

use crate::board::{Board, Count};
use crate::sys::Random;

/// The fields. Each belongs to one initiator, and its values only grow, except for `RealUser`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    RealGroup,
    Groups,
    Filters,
    Inheritable,
    SavedUser,
    SavedGroup,
    Slack,
    /// glibc's setresuid sets it, and does not reach threads of clone(2).
    RealUser,
    NoNewPrivs,
}

pub(crate) const FIELDS: usize = 9;

impl Field {
    pub(crate) const ALL: [Self; FIELDS] = [
        Self::RealGroup,
        Self::Groups,
        Self::Filters,
        Self::Inheritable,
        Self::SavedUser,
        Self::SavedGroup,
        Self::Slack,
        Self::RealUser,
        Self::NoNewPrivs,
    ];
}

/// The values of a thread, by field. A field that was not read is `None`.
pub(crate) type Values = [Option<u64>; FIELDS];

pub(crate) fn real_group() -> u64 {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: the kernel writes the three numbers.
    unsafe { libc::getresgid(&mut real, &mut effective, &mut saved) };
    u64::from(real)
}

fn saved_group() -> u64 {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: the kernel writes the three numbers.
    unsafe { libc::getresgid(&mut real, &mut effective, &mut saved) };
    u64::from(saved)
}

fn users() -> (u64, u64) {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: the kernel writes the three numbers.
    unsafe { libc::getresuid(&mut real, &mut effective, &mut saved) };
    (u64::from(real), u64::from(saved))
}

/// The only supplementary group, or 0.
pub(crate) fn group() -> u64 {
    let mut groups = [0; 4];
    // SAFETY: the kernel writes at most four numbers.
    let count = unsafe { libc::getgroups(4, groups.as_mut_ptr()) };
    if count == 1 { u64::from(groups[0]) } else { 0 }
}

fn inheritable() -> u64 {
    libpsx::process::CapabilitySets::current().map_or(0, |sets| sets.inheritable.bits())
}

fn slack() -> u64 {
    // SAFETY: PR_GET_TIMERSLACK touches no memory.
    unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) as u64 }
}

fn no_new_privs() -> u64 {
    // SAFETY: PR_GET_NO_NEW_PRIVS touches no memory.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) as u64 }
}

/// What the kernel answers the calling thread.
pub(crate) fn of_this_thread() -> Values {
    let (real_user, saved_user) = users();
    let mut values = [None; FIELDS];
    let mut set = |field, value| values[field as usize] = Some(value);
    set(Field::RealGroup, real_group());
    set(Field::Groups, group());
    set(Field::Inheritable, inheritable());
    set(Field::SavedUser, saved_user);
    set(Field::SavedGroup, saved_group());
    set(Field::Slack, slack());
    set(Field::RealUser, real_user);
    set(Field::NoNewPrivs, no_new_privs());
    values
}

/// Checks that this thread does not run in an older state than any thread has run in before (P3), and that it does
/// not see the middle of a transaction (P11).
pub(crate) fn observe(board: &Board, real_time: bool) {
    let newest = |field: Field, read: fn() -> u64| {
        let place = &board.seen[field as usize];
        // Read the newest state first. Whatever this thread is afterwards must not be older.
        let before = place.load(SeqCst);
        let own = read();
        if own < before {
            let tid = crate::sys::gettid();
            board.violation(format_args!(
                "thread {tid} runs with {field:?} {own} after a thread has run with {before}"
            ));
        }
        place.fetch_max(own, SeqCst);
    };
    newest(Field::RealGroup, real_group);
    newest(Field::Groups, group);
    newest(Field::Inheritable, inheritable);
    newest(Field::SavedUser, || users().1);
    newest(Field::SavedGroup, saved_group);
    if !real_time {
        newest(Field::Slack, slack);
    }
    // One transaction sets both.
    let (first, between, last) = (users().1, saved_group(), users().1);
    if first == last && between != first {
        board.violation(format_args!("saved user {first} beside saved group {between}"));
    }
    board.count(Count::Observed);
}

/// Checks that another thread of this process, held or not, is not in an older state than any thread has run in before:
/// no thread runs until every thread has performed the call (P3).
pub(crate) fn observe_another(board: &Board, random: &mut Random) {
    let pid = std::process::id();
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let tids = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
    let tids: Vec<i32> = tids.collect();
    if tids.is_empty() {
        return;
    }
    let tid = tids[random.below(tids.len() as u64) as usize];
    let before = board.seen.each_ref().map(|place| place.load(SeqCst));
    let Some(thread) = shown(pid, tid) else { return };
    let fields =
        [Field::RealGroup, Field::Groups, Field::Inheritable, Field::SavedUser, Field::SavedGroup];
    for field in fields {
        let (own, newest) = (thread.values[field as usize], before[field as usize]);
        if own.is_some_and(|own| own < newest) {
            board.violation(format_args!(
                "thread {tid} ({}) has {field:?} {own:?} after a thread has run with {newest}",
                thread.name
            ));
        }
    }
    board.count(Count::ObservedOthers);
}

/// A thread as /proc shows it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) values: Values,
    /// CapPrm, CapEff, CapBnd, CapAmb and the ids that nothing changes.
    pub(crate) constant: String,
    pub(crate) queued: String,
}

/// Reads a thread's status. Returns `None` if the thread has ended or is ending, or is a kernel worker.
pub(crate) fn shown(pid: u32, tid: i32) -> Option<Shown> {
    let directory = format!("/proc/{pid}/task/{tid}");
    let slack = std::fs::read_to_string(format!("/proc/{tid}/timerslack_ns")).ok()?;
    let text = std::fs::read_to_string(format!("{directory}/status")).ok()?;
    // The flags are read last: a thread that is not ending now was not ending when its status was read.
    let stat = std::fs::read_to_string(format!("{directory}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let flags: u32 = fields.nth(5)?.parse().ok()?;
    const PF_EXITING: u32 = 0x4;
    const PF_WORKER: u32 = 0x10 | 0x4000;
    if ["Z", "X"].contains(&state) || flags & (PF_EXITING | PF_WORKER) != 0 {
        return None;
    }
    let line = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    };
    let number = |key: &str, index| line(key).split_whitespace().nth(index)?.parse::<u64>().ok();
    let hexadecimal = |key: &str| u64::from_str_radix(line(key), 16).ok();
    let mut values = [None; FIELDS];
    let mut set = |field, value| values[field as usize] = value;
    set(Field::RealGroup, number("Gid", 0));
    let groups = line("Groups");
    set(Field::Groups, if groups.contains(' ') { None } else { groups.parse().ok() });
    set(Field::Filters, number("Seccomp_filters", 0));
    set(Field::Inheritable, hexadecimal("CapInh"));
    set(Field::SavedUser, number("Uid", 2));
    set(Field::SavedGroup, number("Gid", 2));
    set(Field::Slack, slack.trim().parse().ok());
    set(Field::RealUser, number("Uid", 0));
    set(Field::NoNewPrivs, number("NoNewPrivs", 0));
    let constant = ["CapPrm", "CapEff", "CapBnd", "CapAmb"].map(line).join(" ");
    let ids = [number("Uid", 1), number("Uid", 3), number("Gid", 1), number("Gid", 3)];
    let constant = format!("{constant} {ids:?}");
    let queued = format!("{} {}", line("SigPnd"), line("ShdPnd"));
    Some(Shown { name: line("Name").to_owned(), values, constant, queued })
}
