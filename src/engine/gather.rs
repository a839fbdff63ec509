//! The gather: threads are signalled until a proof says that all are held, or the round is given up.
//! [`Gather::run`] is the loop; the rest are its parts, in the order in which they are used.
//!
//! Between the first signal and the end of the round nothing is mapped, and every list has a time limit.

// # Safety
//
// The scratch belongs to the owner of the lock, which is the only thread that gathers.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;
use core::time::Duration;

use super::entry::{Entry, ThreadState};
use super::sender::{Sender, Signalled};
use super::shared::Shared;
use crate::errno::Errno;
use crate::sys::proc::{FIRST_AGAIN, TID_LIMIT, TaskStatus, Tasks};
use crate::sys::{self, futex, sync};

/// How long no thread may arrive before the round is looked into, and before it is given up.
const WAIT_SLICE: Duration = Duration::from_micros(200);
const NO_PROGRESS_LIMIT: Duration = Duration::from_millis(4);
/// How long threads that only wait for a CPU may keep the others waiting.
const CPU_WAIT_LIMIT: Duration = Duration::from_millis(60);
/// How often the caller checks whether all threads sleep before it sleeps itself: one question takes 0.2 us.
const ASLEEP_CHECKS: u32 = 50;

/// One round: signalling threads until all are held.
pub(super) struct Gather<'a> {
    sender: Sender,
    tasks: &'a mut Tasks,
    until: Duration,
}

/// How a gather ended.
pub(super) enum Gathered {
    /// All of so many other threads are held, and the gate is closed.
    All(u32),
    GivenUp,
    /// There are more threads than the memory was made for.
    CapacityExceeded,
    /// No thread can be signalled, and waiting does not change that.
    Refused(Errno),
}

/// What a look at every thread found.
#[derive(Default)]
struct Pass {
    /// Every thread is held or exempt, and the count agrees.
    proof: bool,
    /// A thread does not arrive for another reason than that it waits for a CPU.
    obstructed: bool,
    /// Threads were found that were not known.
    found: bool,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        shared: &'static Shared,
        tasks: &'a mut Tasks,
        pid: i32,
        tid: i32,
        until: Duration,
    ) -> Self {
        Self { sender: Sender::new(shared, pid, tid), tasks, until }
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.sender.epoch
    }

    pub(super) const fn queue_is_full(&self) -> bool {
        self.sender.queue_full
    }

    /// How many threads the process has, as far as the kernel tells.
    pub(super) fn count(&self) -> Option<usize> {
        self.tasks.count()
    }

    /// Where the list of threads cannot be read, finds them while they still run: asking for every possible tid takes
    /// more than a second. If the last call knew the threads and a count will prove it, nothing is asked. Returns how
    /// many threads are known.
    pub(super) fn find_threads_before_round(&mut self) -> Result<usize, Errno> {
        let (shared, me) = (self.sender.shared, self.sender.tid);
        let known = || shared.threads.iter().filter(|entry| entry.tid() != 0).count();
        if self.tasks.is_readable() {
            return Ok(0);
        }
        if known() == 0 || self.tasks.count().is_none() {
            // The scratch is not used: there are no records to read.
            self.tasks.sweep(&mut [], Some(self.until), &mut |task| {
                if task.tid != me && shared.threads.find(task.tid as u32).is_none() {
                    let len = shared.threads.len();
                    shared.threads.reserve(len.saturating_add(1))?;
                    shared.threads.insert(task.tid as u32).ok_or(Errno::AGAIN)?;
                }
                Ok(())
            })?;
        }
        Ok(known())
    }

    /// Opens the gate and signals every thread. If there are `guess` threads, their ids may be guessed first.
    /// Ends: each turn either holds another thread or uses up NO_PROGRESS_LIMIT (or CPU_WAIT_LIMIT, while a thread only waits for a
    /// CPU); a list has a time limit of its own, and a clock that fails ends it.
    pub(super) fn run(&mut self, guess: usize) -> Result<Gathered, Errno> {
        let rendezvous = &self.sender.shared.rendezvous;
        // Where signals cannot be blocked, a handler's call on this thread may have taken the lock for one that was left.
        if !rendezvous.is_locked_by(self.sender.tid as u32) {
            return Ok(Gathered::Refused(Errno::PERM));
        }
        self.sender.epoch = rendezvous.open(self.sender.tid as u32);
        let mut progress = sys::clock()?;
        let mut held = 0;
        let mut guessed = self.guess(guess);
        loop {
            let due = match guessed.take() {
                Some(all) => all,
                None if self.tasks.is_readable() => self.sweep()?,
                None => self.signal_known(),
            };
            if let Some(errno) = self.sender.refused {
                return Ok(Gathered::Refused(errno));
            }
            if self.sender.capacity_exceeded {
                return Ok(Gathered::CapacityExceeded);
            }
            rendezvous.wake_leavers();
            let now_held = rendezvous.await_arrivals(due, WAIT_SLICE);
            let pass = if self.prove() {
                Pass { proof: true, ..Pass::default() }
            } else if now_held > held {
                held = now_held;
                progress = sys::clock()?;
                continue;
            } else if self.tasks.is_readable() {
                self.full_pass()?
            } else {
                self.full_pass_by_tid()?
            };
            if pass.proof {
                let count = rendezvous.held();
                if rendezvous.close_gate(self.sender.epoch, count) {
                    let live = self.all_held_are_alive(count)?;
                    return Ok(if live { Gathered::All(count) } else { Gathered::GivenUp });
                }
                // A thread that arrives changes the state, and so does a call that has taken the lock, as above.
                if !rendezvous.is_locked_by(self.sender.tid as u32) {
                    return Ok(Gathered::Refused(Errno::PERM));
                }
                continue;
            }
            if pass.found {
                progress = sys::clock()?;
                continue;
            }
            // P5: without progress the round ends, and the threads run.
            let timeout = if pass.obstructed { NO_PROGRESS_LIMIT } else { CPU_WAIT_LIMIT };
            if sys::difference(sys::clock()?, progress) > timeout {
                return Ok(Gathered::GivenUp);
            }
        }
    }

    /// The O(1) proof: one look at the number of threads finds as many as are held, and the caller.
    fn prove(&self) -> bool {
        // P1: if there is no other thread, none is missed.
        let held = self.sender.shared.rendezvous.held() as usize;
        self.tasks.count() == held.checked_add(1)
    }

    /// Whether the held threads were alive, and in the handler, when the threads were counted. A thread that was
    /// killed since it arrived (by a filter) would offset a thread that never arrived; and a thread whose handler of
    /// SIGSYS runs is not stopped. As a rule all are asleep, which is one question. A thread that is on its way to
    /// sleep gets some time.
    fn all_held_are_alive(&self, count: u32) -> Result<bool, Errno> {
        let rendezvous = &self.sender.shared.rendezvous;
        let any_dead = || {
            let mut held =
                self.sender.shared.threads.iter().filter(|entry| entry.is_held(self.sender.epoch));
            held.any(|entry| sys::is_gone(self.sender.pid, entry.tid(), self.sender.tid))
        };
        if rendezvous.all_asleep(count) == Some(true) {
            return Ok(true);
        }
        // A thread that is alone with the caller stays awake.
        if count > 1 {
            let mut checks = 0u32;
            let mut since = None;
            let never = sync::AtomicU32::new(0);
            // Ends: NO_PROGRESS_LIMIT passes.
            while rendezvous.all_asleep(count).is_some_and(|asleep| !asleep) {
                checks = checks.saturating_add(1);
                if checks < ASLEEP_CHECKS {
                    continue;
                }
                let now = sys::clock()?;
                if sys::difference(now, *since.get_or_insert(now)) > NO_PROGRESS_LIMIT {
                    return Ok(!any_dead() && !sys::sigsys_is_handled());
                }
                futex::wait(&never, 0, Some(WAIT_SLICE));
            }
            if rendezvous.all_asleep(count) == Some(true) {
                return Ok(true);
            }
        }
        Ok(!any_dead())
    }

    /// Signals the ids that follow the leader's, and those with which the kernel begins anew: they are the threads'
    /// if no other process made tasks meanwhile, and the first list of a process in /proc costs ten times as much.
    /// Returns how many, if these are all of `count` threads but the caller, and the directory that was counted
    /// contains the caller. The sweep finds what this misses.
    fn guess(&mut self, count: usize) -> Option<u32> {
        let (shared, others) = (self.sender.shared, count.saturating_sub(1));
        if others == 0
            || !shared.threads.is_empty()
            || shared.guess_failed.load(Ordering::Relaxed) != 0
        {
            return None;
        }
        let mut due = 0u32;
        let me = self.sender.tid;
        for ids in [self.sender.pid..TID_LIMIT, FIRST_AGAIN..self.sender.pid] {
            let mut misses = 0usize;
            for tid in ids.filter(|&tid| tid != me) {
                if due as usize == others || misses > count {
                    break;
                }
                match self.sender.insert_and_signal(None, tid) {
                    Signalled::Expected => due = due.saturating_add(1),
                    Signalled::NoSuchThread => {
                        shared.threads.remove_last();
                        misses = misses.saturating_add(1);
                    }
                    Signalled::Skipped => return None,
                }
            }
        }
        let guessed = due as usize;
        if guessed < others / 2 {
            shared.guess_failed.store(1, Ordering::Relaxed);
        }
        (guessed == others && self.tasks.lists_self()).then_some(due)
    }

    /// Signals every thread in the list that has no signal on its way and is not held. Returns how many are expected
    /// to be held, with those that are.
    fn sweep(&mut self) -> Result<u32, Errno> {
        for _ in 0..3 {
            let mut due = 0u32;
            let mut seen_self = false;
            let (shared, me) = (self.sender.shared, self.sender.tid);
            // SAFETY: this thread owns the lock, and this is the only slice of the scratch.
            let scratch = unsafe { shared.scratch() };
            let fresh = shared.threads.is_empty();
            self.sender.queue_full = false;
            let tasks = &*self.tasks;
            let sender = &mut self.sender;
            tasks.sweep(scratch, None, &mut |task| {
                if task.tid == me {
                    seen_self = true;
                    return Ok(());
                }
                let known = if fresh { None } else { shared.threads.find(task.tid as u32) };
                if let Signalled::Expected = sender.insert_and_signal(known, task.tid) {
                    due = due.saturating_add(1);
                }
                Ok(())
            })?;
            if seen_self {
                return Ok(due);
            }
            self.tasks.reject_directory();
        }
        Ok(0)
    }

    /// Signals every thread that is in the table already; see [`sweep`](Self::sweep).
    fn signal_known(&mut self) -> u32 {
        let mut due = 0u32;
        self.sender.queue_full = false;
        for entry in self.sender.shared.threads.iter().filter(|entry| entry.tid() != 0) {
            match self.sender.insert_and_signal(Some(entry), entry.tid() as i32) {
                Signalled::Expected => due = due.saturating_add(1),
                Signalled::NoSuchThread => self.sender.shared.threads.forget(entry),
                Signalled::Skipped => {}
            }
        }
        due
    }

    /// The proof that names every thread: list; count; then every listed thread is held, or was exempt before the
    /// count and is the same exempt task after it.
    fn full_pass(&mut self) -> Result<Pass, Errno> {
        let (shared, me, epoch) = (self.sender.shared, self.sender.tid, self.sender.epoch);
        let tasks = &*self.tasks;
        let mut pass = Pass::default();
        let (mut complete, mut seen_self, mut exempt) = (true, false, 0usize);
        // SAFETY: this thread owns the lock, and this is the only slice of the scratch.
        let scratch = unsafe { shared.scratch() };
        let mut capacity_exceeded = false;
        tasks.sweep(scratch, None, &mut |task| {
            if task.tid == me {
                seen_self = true;
                return Ok(());
            }
            let id = task.tid as u32;
            let known = shared.threads.find(id);
            if known.is_some_and(|entry| entry.is_held(epoch)) {
                return Ok(());
            }
            let Some(entry) = known.or_else(|| shared.threads.insert(id)) else {
                (complete, capacity_exceeded) = (false, true);
                return Ok(());
            };
            match tasks.status(task) {
                TaskStatus::Exempt { reason, start } => {
                    entry.assign(id, ThreadState::exempt(epoch));
                    entry.set_value(reason.with_start(start));
                    shared.threads.keep();
                    exempt = exempt.saturating_add(1);
                    return Ok(());
                }
                TaskStatus::NotFound => {}
                TaskStatus::Unknown => pass.obstructed = true,
                TaskStatus::Live(live) => {
                    // A thread in our handler blocks it, and comes as soon as it has a CPU. With a second signal it would
                    // come a second time, and be late again.
                    let comes = live.blocks_signal_33() && live.wants_cpu();
                    if !live.has_signal_33_pending() && !comes {
                        // It was used up, or meant for an earlier thread with this tid: it is sent again.
                        entry.exchange(id, ThreadState::Sent, ThreadState::Idle);
                    }
                    if let was @ ThreadState::Exempt(_) = entry.state() {
                        entry.exchange(id, was, ThreadState::Idle);
                    }
                    pass.obstructed |= !live.wants_cpu();
                }
            }
            complete = false;
            Ok(())
        })?;
        self.sender.capacity_exceeded |= capacity_exceeded;
        let tasks = &*self.tasks;
        // Read the held count before the link count: a thread that arrives in between must not offset a thread that
        // it created.
        let held = shared.rendezvous.held() as usize;
        let Some(count) = tasks.count() else { return Ok(pass) };
        let mut same = 0usize;
        // SAFETY: as above; the slice from before is no longer used.
        let scratch = unsafe { shared.scratch() };
        tasks.sweep(scratch, None, &mut |task| {
            let id = task.tid as u32;
            let entry = shared.threads.find(id).filter(|e| e.state() == ThreadState::exempt(epoch));
            if let (Some(entry), TaskStatus::Exempt { reason, start }) = (entry, tasks.status(task))
            {
                let now = reason.with_start(start);
                let is_same = crate::report::SkipReason::is_same_task(entry.value(), now);
                same = same.saturating_add(usize::from(is_same));
            }
            Ok(())
        })?;
        let all = held.saturating_add(exempt).saturating_add(1);
        // P1: every listed task is held or exempt, and the count knows no other.
        pass.proof = complete && seen_self && count == all && same == exempt;
        Ok(pass)
    }

    /// The same where no list can be read. First every thread that is known must be held, or dead (a zombie leader).
    /// Then the count decides, if there is one. Otherwise all tids are asked for, twice in a row without a new
    /// thread: a single pass can miss one that creates its successor and exits.
    fn full_pass_by_tid(&mut self) -> Result<Pass, Errno> {
        let (shared, epoch) = (self.sender.shared, self.sender.epoch);
        let mut pass = Pass::default();
        let mut exempt = 0usize;
        for entry in shared.threads.iter().filter(|entry| entry.tid() != 0) {
            let id = entry.tid();
            if entry.is_held(epoch) {
                continue;
            }
            match self.tasks.status_by_tid(id as i32) {
                TaskStatus::Exempt { reason, start } => {
                    entry.assign(id, ThreadState::exempt(epoch));
                    entry.set_value(reason.with_start(start));
                    exempt = exempt.saturating_add(1);
                }
                TaskStatus::NotFound => shared.threads.forget(entry),
                _ => {
                    // The tid was that of a dead thread when it was looked at before.
                    if let was @ ThreadState::Exempt(_) = entry.state() {
                        entry.exchange(id, was, ThreadState::Idle);
                    }
                    pass.obstructed = true;
                }
            }
        }
        if pass.obstructed {
            return Ok(pass);
        }
        let held = shared.rendezvous.held();
        if let Some(count) = self.tasks.count() {
            let all = (held as usize).saturating_add(exempt).saturating_add(1);
            // A dead thread that is still listed after the count was counted. One that has vanished may have offset a
            // thread that it created.
            let mut exempt =
                shared.threads.iter().filter(|e| e.state() == ThreadState::exempt(epoch));
            let dead = |entry: &Entry| {
                matches!(self.tasks.status_by_tid(entry.tid() as i32), TaskStatus::Exempt { .. })
            };
            if count == all && self.tasks.lists_self() && exempt.all(dead) {
                pass.proof = true;
                return Ok(pass);
            }
            pass.found = self.sweep_by_tid()?.0;
            return Ok(pass);
        }
        let (found, listed) = self.sweep_by_tid()?;
        pass.found = found;
        if !found && listed == held.saturating_add(exempt as u32) {
            // P10: without a list or a count, two passes in a row must find no new thread.
            let (again, listed) = self.sweep_by_tid()?;
            pass.found = again;
            // A thread may be marked as held, and be stopped just before it is counted: both must agree.
            let held = shared.rendezvous.held();
            pass.proof = !again && listed == held.saturating_add(exempt as u32);
        }
        Ok(pass)
    }

    /// Asks for every possible tid, and signals the threads that were not known. Returns whether there were any, and
    /// how many tasks but the caller belong to the process.
    fn sweep_by_tid(&mut self) -> Result<(bool, u32), Errno> {
        let (shared, me) = (self.sender.shared, self.sender.tid);
        let (mut found, mut listed) = (false, 0u32);
        let tasks = &*self.tasks;
        let until = self.until;
        let sender = &mut self.sender;
        tasks.sweep(&mut [], Some(until), &mut |task| {
            if task.tid != me {
                listed = listed.saturating_add(1);
                if shared.threads.find(task.tid as u32).is_none() {
                    found = true;
                    sender.insert_and_signal(None, task.tid);
                }
            }
            Ok(())
        })?;
        Ok((found, listed))
    }
}
