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
            if entry.mark() == Mark::Sent {
                entry.set_value(refused(errno));
                entry.exchange(entry.tid(), Mark::Sent, Mark::Idle);
            }
            return true;
        }
    };
    let held = Held { shared, entry, pid: shared.pid(), tid, place: Cell::new(Place::NONE) };
    shared.rendezvous.visit(entry, tid as u32, &held);
    true
}

/// `Entry::value` of a thread whose filter refuses gettid(2). An errno is below 4096.
pub(super) fn refused(errno: Errno) -> usize {
    REFUSED | errno.raw_os_error() as usize
}

const REFUSED: usize = 1 << 16;

/// Whether the value of an entry is one of [`refused`].
pub(super) const fn is_refused(value: usize) -> bool {
    value & !0xffff == REFUSED
}

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
            // A handler of SIGSYS may have run in the call, unblocked our signal, and so let another frame of this
            // handler report. Then the caller waits no more, and its memory is gone.
            if !matches!(self.entry.mark(), Mark::Held(_)) {
                break;
            }
            place.keep(index, result);
            verdict = Verdict { index: index as u32, result, agreed: call.agrees(result) };
            if !verdict.agreed {
                break;
            }
        }
        verdict
    }

    fn is_gone(&self, tid: u32) -> bool {
        // A filter that the calls have installed may forbid all but futex(2).
        if self.shared.is_filtered() {
            sys::is_dead(tid as i32)
        } else {
            sys::is_gone(self.pid, tid)
        }
    }

    /// If the program has a handler for SIGSYS, the caller may have left the stop by siglongjmp. A signal tells:
    /// it is blocked as long as the caller is in its stop, and taken at once otherwise. One is enough for each stop.
    fn look_after_caller(&self) {
        // The signal may be forbidden by a filter that the calls have installed.
        if !self.shared.is_filtered() && self.shared.should_nudge() {
            let caller = self.shared.rendezvous.caller() as i32;
            let _ = sys::queue_signal(self.pid, caller, self.shared.nudge_value());
        }
    }

    /// Ends the stop as its caller would have done.
    #[cold]
    #[inline(never)]
    fn take_over(&self, caller: u32) {
        let (shared, rendezvous) = (self.shared, &self.shared.rendezvous);
        if !rendezvous.inherit_lock(caller, self.tid as u32) {
            return;
        }
        let state = rendezvous.state();
        if state.phase == Phase::Committing {
            await_reports(shared, self.pid, state.epoch, None);
            if shared.kills() && shared.threads.iter().any(|entry| entry.mark().is_divergent()) {
                // A filter that the calls have installed may have killed the caller on its way to this, and a watch.
                if !shared.takes_over_first() {
                    sys::die_at_once();
                }
                divergence::lost("the calling thread died, and another thread's result differs");
            }
        }
        rendezvous.abandon();
        rendezvous.unlock();
    }
}

/// How long the caller waits for reports before it looks for dead threads.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// Waits until every held thread has reported, and writes off the dead. `nudge`: a thread may have left the handler by
/// siglongjmp; after so many waits each thread that has not reported gets a signal, which brings it back.
/// Ends when each thread's calls end; a call that blocks keeps all threads held.
pub(super) fn await_reports(shared: &Shared, pid: i32, epoch: u32, nudge: Option<u32>) {
    let rendezvous = &shared.rendezvous;
    let mut waits = 0u32;
    while !rendezvous.await_reports(Some(PATIENCE)) {
        rendezvous.wake_again();
        waits = waits.saturating_add(1);
        for entry in shared.threads.iter().filter(|entry| entry.is_held(epoch)) {
            let tid = entry.tid();
            // A filter that the calls have installed may forbid all but futex(2).
            let dead = sys::is_dead(tid as i32) || !shared.is_filtered() && sys::is_gone(pid, tid);
            if dead {
                rendezvous.write_off(entry, epoch);
            } else if nudge == Some(waits) {
                // A thread that is in the handler blocks the signal. One that has left takes it.
                let _ = sys::queue_signal(pid, tid as i32, ptr::from_ref(entry) as usize);
            }
        }
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
