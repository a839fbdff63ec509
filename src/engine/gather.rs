//! The gather: threads are signalled until a proof says that all are held, or the round is given up.
//! [`Gather::run`] is the loop; the rest are its parts, in the order in which they come.

// # Safety
//
// The scratch belongs to the owner of the lock, who is the only one to gather.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::Ordering;
use core::time::Duration;

use super::{FORBIDDEN, Shared, gone};
use crate::engine::entry::{Entry, Mark};
use crate::errno::Errno;
use crate::sys;
use crate::sys::proc::{FIRST_AGAIN, Look, TID_LIMIT, Tasks};

/// How long nobody may come before the round is looked into, and before it is given up.
const SLICE: Duration = Duration::from_micros(200);
pub(super) const QUIET: Duration = Duration::from_millis(4);
/// How long threads that only want for a CPU may keep the others waiting.
const STARVED: Duration = Duration::from_millis(60);

/// One gather: signalling threads until all are held.
pub(super) struct Gather<'a> {
    pub(super) shared: &'static Shared,
    pub(super) tasks: &'a mut Tasks,
    pub(super) pid: i32,
    pub(super) tid: i32,
    pub(super) epoch: u32,
    /// A signal found no place in the queue.
    pub(super) queue_full: bool,
}

/// What a look at everybody found.
struct Pass {
    /// Everybody is held or exempt, and the count agrees.
    proof: bool,
    /// Somebody does not answer for another reason than that it wants for a CPU.
    obstructed: bool,
}

impl Gather<'_> {
    /// Ok(Some(n)): all n other threads are held, and the gate is closed. Ok(None): given up. If there
    /// are some to `guess`, threads may be looked for by their ids first.
    /// Ends: each turn either holds another thread or uses up QUIET (or STARVED, while somebody
    /// only wants for a CPU).
    pub(super) fn run(&mut self, guess: usize) -> Result<Option<u32>, Errno> {
        let rendezvous = &self.shared.rendezvous;
        let mut progress = sys::now();
        let mut held = 0;
        let mut guessed = self.guess(guess)?;
        loop {
            let due = match guessed.take() {
                Some(all) => all,
                None => self.sweep()?,
            };
            let now_held = rendezvous.await_arrivals(due, SLICE);
            let pass = if self.prove() {
                Pass { proof: true, obstructed: false }
            } else if now_held > held {
                held = now_held;
                progress = sys::now();
                continue;
            } else {
                self.full_pass()?
            };
            if pass.proof {
                let count = rendezvous.held();
                if rendezvous.close_gate(self.epoch, count) {
                    return Ok(self.all_live().then_some(count));
                }
                continue;
            }
            let patience = if pass.obstructed { QUIET } else { STARVED };
            if sys::difference(sys::now(), progress) > patience {
                return Ok(None);
            }
        }
    }

    /// The O(1) proof: one look at the number of threads finds as many as are held, and the caller.
    fn prove(&self) -> bool {
        let held = self.shared.rendezvous.held() as usize;
        self.tasks.count() == held.checked_add(1)
    }

    /// Whether those who are held were alive when the threads were counted. One that was killed
    /// since it came (by a filter) makes up for a thread that never came. As a rule all are asleep,
    /// which is one question; else each is asked for.
    fn all_live(&self) -> bool {
        let rendezvous = &self.shared.rendezvous;
        if rendezvous.all_asleep(rendezvous.held()) {
            return true;
        }
        let mut held = self.shared.roster.iter().filter(|entry| entry.is_held(self.epoch));
        held.all(|entry| !gone(self.pid, entry.tid()))
    }

    /// Signals the ids that follow the leader's, and those with which the kernel begins anew: they are
    /// the threads', where nobody else made tasks meanwhile, and the first list of a process in /proc
    /// costs ten times as much. How many, if these are all of `count` threads but the caller, and the
    /// directory that was counted has the caller in it. What it misses is for the sweep to find.
    fn guess(&mut self, count: usize) -> Result<Option<u32>, Errno> {
        let (shared, others) = (self.shared, count.saturating_sub(1));
        if others == 0 || !shared.roster.is_empty() || shared.scattered.load(Ordering::Relaxed) != 0
        {
            return Ok(None);
        }
        let mut due = 0u32;
        for ids in [self.pid..TID_LIMIT, FIRST_AGAIN..self.pid] {
            let mut strangers = 0usize;
            for tid in ids.filter(|&tid| tid != self.tid) {
                if due as usize == others || strangers > count {
                    break;
                }
                match enlist_and_signal(shared, None, self.pid, self.epoch, tid)? {
                    Signalled::Due => due = due.saturating_add(1),
                    Signalled::Gone => {
                        shared.roster.withdraw();
                        strangers = strangers.saturating_add(1);
                    }
                    Signalled::QueueFull | Signalled::Nobody => return Ok(None),
                }
            }
        }
        let guessed = due as usize;
        if guessed < others / 2 {
            shared.scattered.store(1, Ordering::Relaxed);
        }
        let all = guessed == others && self.tasks.lists(self.tid);
        Ok(all.then_some(due))
    }

    /// Signals every thread that has no signal on its way and is not held. Returns how many are
    /// expected to be held, with those that are.
    fn sweep(&mut self) -> Result<u32, Errno> {
        for _ in 0..3 {
            let mut due = 0u32;
            let mut seen_self = false;
            // SAFETY: the scratch belongs to the owner of the lock, and this is its only use.
            let scratch = unsafe { &mut *self.shared.scratch.get() };
            let (shared, pid, me, epoch) = (self.shared, self.pid, self.tid, self.epoch);
            let fresh = shared.roster.is_empty();
            let queue_full = &mut self.queue_full;
            *queue_full = false;
            self.tasks.sweep(scratch, &mut |task| {
                if task.tid == me {
                    seen_self = true;
                    return Ok(());
                }
                let known = if fresh { None } else { shared.roster.find(task.tid as u32) };
                match enlist_and_signal(shared, known, pid, epoch, task.tid)? {
                    Signalled::Due => due = due.saturating_add(1),
                    Signalled::QueueFull => *queue_full = true,
                    Signalled::Gone | Signalled::Nobody => {}
                }
                Ok(())
            })?;
            if seen_self {
                return Ok(due);
            }
            self.tasks.distrust();
        }
        Ok(0)
    }

    /// The proof that names everybody: list; count; then every listed thread is held, or was
    /// exempt before the count and is the same exempt task after it.
    fn full_pass(&mut self) -> Result<Pass, Errno> {
        let (shared, me, epoch) = (self.shared, self.tid, self.epoch);
        let tasks = &*self.tasks;
        let mut pass = Pass { proof: false, obstructed: false };
        let (mut complete, mut seen_self, mut exempt) = (true, false, 0usize);
        // SAFETY: the scratch belongs to the owner of the lock, and this is its only use.
        let scratch = unsafe { &mut *shared.scratch.get() };
        tasks.sweep(scratch, &mut |task| {
            if task.tid == me {
                seen_self = true;
                return Ok(());
            }
            let id = task.tid as u32;
            let known = shared.roster.find(id);
            if known.is_some_and(|entry| entry.is_held(epoch)) {
                return Ok(());
            }
            let entry = match known {
                Some(entry) => entry,
                None => shared.roster.enlist(id)?,
            };
            match tasks.look(task) {
                Look::Exempt { reason, start } => {
                    entry.assign(id, Mark::exempt(epoch));
                    entry.set_value(reason.with_start(start));
                    shared.roster.keep();
                    exempt = exempt.saturating_add(1);
                    return Ok(());
                }
                Look::Gone => {}
                Look::Unknown => pass.obstructed = true,
                Look::Living(living) => {
                    if !living.signal_pending() {
                        // Used up, or meant for an earlier thread with this tid: to be sent again.
                        entry.exchange(id, Mark::Sent, Mark::Idle);
                    }
                    if let was @ Mark::Exempt(_) = entry.mark() {
                        entry.exchange(id, was, Mark::Idle);
                    }
                    pass.obstructed |= !living.wants_cpu();
                }
            }
            complete = false;
            Ok(())
        })?;
        // First those who have come, then how many there are: whoever comes in between does not count
        // for a thread that it has made.
        let held = shared.rendezvous.held() as usize;
        let Some(count) = tasks.count() else {
            // Guessed tids: a pass that finds nobody new, after one that did not either. Who has the
            // mark may have been stopped just before it was counted: both must agree.
            pass.proof = complete && seen_self && self.listed()? == Some(shared.rendezvous.held());
            return Ok(pass);
        };
        let mut same = 0usize;
        // SAFETY: as above; the slice from before is no longer used.
        let scratch = unsafe { &mut *shared.scratch.get() };
        tasks.sweep(scratch, &mut |task| {
            let id = task.tid as u32;
            let entry = shared.roster.find(id).filter(|e| e.mark() == Mark::exempt(epoch));
            if let (Some(entry), Look::Exempt { reason, start }) = (entry, tasks.look(task)) {
                same = same.saturating_add(usize::from(entry.value() == reason.with_start(start)));
            }
            Ok(())
        })?;
        let all = held.saturating_add(exempt).saturating_add(1);
        pass.proof = complete && seen_self && count == all && same == exempt;
        Ok(pass)
    }

    /// How many others belong to the process, if all of them are marked as held.
    fn listed(&self) -> Result<Option<u32>, Errno> {
        let mut listed = Some(0u32);
        self.tasks.sweep(&mut [], &mut |task| {
            let entry = self.shared.roster.find(task.tid as u32);
            if entry.is_some_and(|entry| entry.is_held(self.epoch)) {
                listed = listed.map(|n| n.saturating_add(1));
            } else if task.tid != self.tid {
                listed = None;
            }
            Ok(())
        })?;
        Ok(listed)
    }
}

enum Signalled {
    /// It is held, or will be.
    Due,
    /// There was no room in its queue.
    QueueFull,
    /// There is no such thread.
    Gone,
    /// It is exempt, or may not be signalled.
    Nobody,
}

fn enlist_and_signal(
    shared: &Shared,
    known: Option<&Entry>,
    pid: i32,
    epoch: u32,
    tid: i32,
) -> Result<Signalled, Errno> {
    let id = tid as u32;
    let entry = match known {
        Some(entry) => entry,
        None => shared.roster.enlist(id)?,
    };
    let mark = entry.mark();
    match mark {
        Mark::Sent => return Ok(Signalled::Due),
        Mark::Exempt(_) => return Ok(Signalled::Nobody),
        _ if entry.is_held(epoch) => return Ok(Signalled::Due),
        _ => {}
    }
    if !entry.exchange(id, mark, Mark::Sent) {
        // An earlier signal has brought it here this moment.
        return Ok(Signalled::Due);
    }
    let result = sys::queue_signal(pid, tid, ptr::from_ref(entry) as usize);
    if result.is_ok() {
        return Ok(Signalled::Due);
    }
    entry.exchange(id, Mark::Sent, Mark::Idle);
    Ok(match result {
        Err(Errno::AGAIN) => Signalled::QueueFull,
        Err(Errno::PERM) => {
            entry.set_value(FORBIDDEN);
            Signalled::Nobody
        }
        Err(Errno::SRCH) => Signalled::Gone,
        _ => Signalled::Nobody,
    })
}
