//! The handler's half: what a signal means to the thread that takes it, and what a held thread performs.
//!
//! It runs in any thread at any instruction: raw system calls and atomics, nothing else. It may run on an alternate
//! stack that is just large enough for a signal frame (AT_MINSIGSTKSZ, getauxval(3)), which leaves it a few hundred
//! bytes: what is rarely needed is a function of its own, so that its variables take no room on the usual way.

// # Safety
//
// A held thread reads the caller's plan between `publish` and its own report; see `shared`.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr;
use core::time::Duration;

use super::answers::Place;
use super::divergence;
use super::entry::{Entry, Mark};
use super::rendezvous::{Phase, Thread, Verdict};
use super::shared::Shared;
use crate::errno::Errno;
use crate::sys::{self, Mask, SigInfo, signal};

/// The engine, as the handler for signal 33 sees it.
pub(super) enum Engine {}

impl signal::Visitor for Engine {
    fn visit(info: &SigInfo, interrupted: Mask) -> bool {
        on_signal(info, interrupted)
    }
}

/// Handles a signal 33 that is ours; returns false for any other.
#[inline(always)]
fn on_signal(info: &SigInfo, interrupted: Mask) -> bool {
    if info.code != sys::SI_QUEUE {
        return false;
    }
    let Some(shared) = Shared::get() else { return false };
    if shared.note_reached(info.value) {
        return true;
    }
    if info.value == shared.nudge_value() {
        caller_left(shared);
        return true;
    }
    let Some(entry) = shared.threads.owns(info.value) else { return false };
    shared.block_if_chained(interrupted);
    // The payload alone could be forged by any process that may signal this one.
    let tid = match sys::thread_id() {
        Ok(tid) => tid,
        Err(errno) => {
            // A filter of this thread refuses gettid(2): it cannot be held. The caller reads why.
            entry.set_value(refused(errno));
            return true;
        }
    };
    let held = Held { shared, entry, pid: shared.pid(), tid, place: Cell::new(Place::NONE) };
    shared.rendezvous.visit(entry, tid as u32, &held);
    true
}

/// `Entry::value` of a thread whose filter refuses gettid(2). An errno is below 4096.
pub(super) fn refused(errno: Errno) -> usize {
    REFUSED | errno.raw() as usize
}

pub(super) const REFUSED: usize = 1 << 16;

/// A thread in the handler.
struct Held<'a> {
    shared: &'static Shared,
    entry: &'a Entry,
    pid: i32,
    tid: i32,
    /// Where it answers, once it has begun.
    place: Cell<Place>,
}

impl Thread for Held<'_> {
    #[inline(always)]
    fn perform(&self) -> Verdict {
        // SAFETY: the caller has published, and this thread has not reported.
        let plan = unsafe { self.shared.plan() };
        if let Some(answers) = plan.answers.filter(|_| self.place.get() == Place::NONE) {
            self.place.set(answers.take(self.tid));
        }
        let place = self.place.get();
        let mut verdict = Verdict { index: 0, result: 0, agreed: true };
        for (index, call) in plan.calls.iter().enumerate().skip(plan.first) {
            self.entry.set_value(index);
            // SAFETY: `perform`'s caller has promised that the call is sound in every thread.
            let result = unsafe { sys::any(call.nr, &call.args_at(place.bytes())) };
            place.keep(index, result);
            verdict = Verdict { index: index as u32, result, agreed: call.agrees(result) };
            if !verdict.agreed {
                break;
            }
        }
        verdict
    }

    fn is_gone(&self, tid: u32, reported: bool) -> bool {
        // A filter that the call has installed may forbid all but futex(2).
        if reported { sys::is_dead(tid as i32) } else { sys::is_gone(self.pid, tid) }
    }

    /// If the program has a handler for SIGSYS, the caller may have left the stop by siglongjmp. A signal tells:
    /// it is blocked as long as the caller is in its stop, and taken at once otherwise. One is enough for each stop.
    fn look_after_caller(&self) {
        if self.shared.should_nudge() {
            let caller = self.shared.rendezvous.caller() as i32;
            let _ = sys::queue_signal(self.pid, caller, self.shared.nudge_value());
        }
    }

    /// Ends the stop as its caller would have done.
    fn take_over(&self) {
        let (shared, rendezvous) = (self.shared, &self.shared.rendezvous);
        if !rendezvous.inherit_lock(rendezvous.caller(), self.tid as u32) {
            return;
        }
        let state = rendezvous.state();
        if state.phase == Phase::Committing {
            let dead = |tid| sys::is_dead(tid as i32);
            await_reports(shared, self.pid, state.epoch, Some(PATIENCE), false, dead);
            if shared.kills() && shared.threads.iter().any(|entry| entry.mark().is_divergent()) {
                divergence::lost("the calling thread died, and another thread's result differs");
            }
        }
        rendezvous.abandon();
        rendezvous.unlock();
    }
}

/// How long the caller waits for reports before it looks for dead threads.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// Waits until every held thread has reported, and writes off those that are `gone`. Without `patience` it waits
/// without a time limit. `may_jump`: a thread may have left the handler.
/// Ends when each thread's calls end; a call that blocks keeps all threads held.
pub(super) fn await_reports(
    shared: &Shared,
    pid: i32,
    epoch: u32,
    patience: Option<Duration>,
    may_jump: bool,
    gone: impl Fn(u32) -> bool,
) {
    let rendezvous = &shared.rendezvous;
    let mut nudge = may_jump;
    while !rendezvous.await_reports(patience) {
        rendezvous.wake_again();
        for entry in shared.threads.iter().filter(|entry| entry.is_held(epoch)) {
            if gone(entry.tid()) {
                rendezvous.write_off(entry, epoch);
            } else if nudge {
                // A thread that is in the handler blocks it. One that has left by siglongjmp comes back.
                let _ = sys::queue_signal(pid, entry.tid() as i32, ptr::from_ref(entry) as usize);
            }
        }
        nudge = false;
    }
}

/// The calling thread takes a signal while its stop is open: a handler of SIGSYS has left the stop by siglongjmp.
/// If nothing has changed, the other threads go on. Otherwise the process is inconsistent, and the settings that
/// could say what to do are gone with the caller's stack.
#[cold]
#[inline(never)]
fn caller_left(shared: &Shared) {
    let rendezvous = &shared.rendezvous;
    let me = sys::gettid() as u32;
    let state = rendezvous.state();
    let open = state.phase != Phase::Closed && rendezvous.caller() == me;
    if !open || !rendezvous.is_locked_by(me) {
        return;
    }
    if state.phase == Phase::Committing || shared.has_performed() {
        divergence::lost("a handler of SIGSYS has left a broadcast by a jump, half-way");
    }
    rendezvous.abandon();
    rendezvous.unlock();
}

/// The number of the call for a report: what [`Entry::value`] or the mark says, or the first.
pub(super) fn call_of(mark: Mark) -> Option<(usize, bool)> {
    let index = |index: u32| {
        if index as usize == super::rendezvous::NOT_BEGUN { 0 } else { index as usize }
    };
    match mark {
        Mark::Agreed(at) | Mark::Differs(at) => Some((index(at), true)),
        Mark::Died(at) | Mark::Left(at) => Some((index(at), false)),
        _ => None,
    }
}
