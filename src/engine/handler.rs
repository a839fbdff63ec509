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

use super::answers::AnswerSlot;
use super::divergence;
use super::entry::{Entry, ThreadState};
use super::rendezvous::{CallResult, Phase, Thread};
use super::shared::Shared;
use crate::errno::Errno;
use crate::sys::signal::SigInfo;
use crate::sys::signal::disposition::{self, SignalHandler};
use crate::sys::{self, Mask};

/// The engine, as the handler for signal 33 sees it.
pub(super) enum Engine {}

impl SignalHandler for Engine {
    fn handle(info: &SigInfo, interrupted: Mask) -> bool {
        on_signal(info, interrupted)
    }
}

/// Whether the engine's handler gets signal 33 first.
pub(super) fn is_installed() -> bool {
    disposition::is_installed::<Engine>()
}

/// Handles a signal 33 that is ours; returns false for any other.
#[inline(always)]
fn on_signal(info: &SigInfo, interrupted: Mask) -> bool {
    if info.code != sys::SI_QUEUE {
        return false;
    }
    // P4: from here on only raw system calls and atomics.
    let Some(shared) = Shared::get() else { return false };
    if shared.take_own_signal(info.value) {
        return true;
    }
    if info.value == shared.caller_signal_value() {
        shared.block_if_chained(interrupted);
        caller_left(shared);
        return true;
    }
    let Some(entry) = shared.threads.entry_at(info.value) else { return false };
    shared.block_if_chained(interrupted);
    // The payload alone could be forged by any process that may signal this one.
    let tid = match sys::thread_id() {
        Ok(tid) => tid,
        Err(errno) => {
            // A filter of this thread refuses gettid(2): it cannot be held. The caller reads why.
            if entry.state() == ThreadState::Sent {
                entry.set_value(refused(errno));
                entry.exchange(entry.tid(), ThreadState::Sent, ThreadState::Idle);
            }
            return true;
        }
    };
    let held = Held { shared, entry, pid: shared.pid(), tid, slot: Cell::new(AnswerSlot::NONE) };
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
    slot: Cell<AnswerSlot>,
}

impl Thread for Held<'_> {
    #[inline(always)]
    fn perform_calls(&self) -> CallResult {
        // SAFETY: the caller has published, and this thread has not reported.
        let plan = unsafe { self.shared.plan() };
        if let Some(answers) = plan.answers.filter(|_| self.slot.get() == AnswerSlot::NONE) {
            self.slot.set(answers.claim_slot(self.tid));
        }
        let slot = self.slot.get();
        let mut call_result = CallResult { index: 0, result: 0, agreed: true };
        for (index, call) in plan.calls.iter().enumerate().skip(plan.first) {
            self.entry.set_value(index);
            // The caller has set the directories of this thread too.
            let result = if call.sets_directory && plan.directories_are_shared {
                call.expected
            } else {
                // SAFETY: `execute`'s caller has promised that the call is sound in every thread.
                unsafe { sys::raw_syscall(call.nr, &call.args_for(slot.buffer_address())) }
            };
            // A handler of SIGSYS may have run in the call, unblocked our signal, and so let another frame of this
            // handler report. Then the caller waits no more, and its memory is gone.
            if !matches!(self.entry.state(), ThreadState::Held(_)) {
                break;
            }
            slot.store(index, result);
            call_result = CallResult { index: index as u32, result, agreed: call.agrees(result) };
            if !call_result.agreed {
                break;
            }
        }
        call_result
    }

    fn is_dead_thread(&self, tid: u32) -> bool {
        // A filter that the calls have installed may forbid all but futex(2).
        if self.shared.is_filtered() {
            sys::futex::is_dead(tid as i32, self.tid)
        } else {
            sys::is_gone(self.pid, tid, self.tid)
        }
    }

    /// If the program has a handler for SIGSYS, the caller may have left the stop by siglongjmp. A signal tells:
    /// it is blocked as long as the caller is in its stop, and taken at once otherwise. One is enough for each stop.
    fn check_on_caller(&self) {
        if !self.shared.waits_under_filter() {
            let caller = self.shared.rendezvous.caller() as i32;
            self.shared.signal_caller_once(|value| sys::queue_signal(self.pid, caller, value));
        }
    }

    /// Ends the stop as its caller would have done.
    #[cold]
    #[inline(never)]
    fn take_over(&self, caller: u32) {
        let (shared, rendezvous) = (self.shared, &self.shared.rendezvous);
        // P7: a later thread with the tid of the dead caller finds no lock of its own.
        if !rendezvous.inherit_lock(caller, self.tid as u32) {
            return;
        }
        let state = rendezvous.state();
        if state.phase == Phase::Committing {
            await_reports(shared, [self.pid, self.tid], state.epoch);
            if shared.kills_on_divergence()
                && shared.threads.iter().any(|entry| entry.state().is_divergent())
            {
                // A filter that the calls have installed may have killed the caller on its way to this, and a watchdog.
                if !shared.is_first_to_take_over() {
                    sys::kill_process_without_signal_33();
                }
                divergence::abort("the calling thread died, and another thread's result differs");
            }
        }
        rendezvous.abandon();
        rendezvous.unlock(self.tid as u32);
    }
}

/// How long the caller waits for reports before it looks for dead threads.
pub(super) const REPORT_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until every held thread has reported, and counts the dead as reported. The ids are those of the process and of the
/// calling thread. A thread that has left the handler by siglongjmp gets a signal, which brings it back.
/// Ends when each thread's calls end; a call that blocks keeps all threads held.
pub(super) fn await_reports(shared: &Shared, [pid, me]: [i32; 2], epoch: u32) {
    let rendezvous = &shared.rendezvous;
    let mut waits = 0u32;
    // The signal may be forbidden by a filter that the calls have installed. Without it a thread that has left would keep
    // all others held, so it is tried when there has been time for every call.
    let first_signal = if shared.is_filtered() { 20 } else { 1 };
    // The entries before this one need no signal, or have got theirs. A thread in the handler blocks the signal, and a
    // second one would use up another place in the queue. (Entries do not move during a stop.)
    let mut unsignalled = if shared.may_jump() { 0 } else { usize::MAX };
    // P5: it ends when the calls end. A dead thread is counted as reported, and a lost wake-up is repeated.
    while !rendezvous.await_reports(Some(REPORT_CHECK_INTERVAL)) {
        rendezvous.wake_again();
        waits = waits.saturating_add(1);
        let mut signals_now = waits >= first_signal;
        for (index, entry) in shared.threads.iter().enumerate() {
            if !entry.is_held(epoch) {
                continue;
            }
            let tid = entry.tid();
            // A filter that the calls have installed may forbid all but futex(2).
            let dead = sys::futex::is_dead(tid as i32, me)
                || !shared.is_filtered() && sys::is_gone(pid, tid, me);
            if dead {
                rendezvous.report_death(entry, epoch);
            } else if signals_now && index >= unsignalled {
                // A thread that is in the handler blocks the signal. One that has left takes it.
                let sent = sys::queue_signal(pid, tid as i32, ptr::from_ref(entry) as usize);
                // The queue has no room: the next wait goes on here.
                signals_now = sent != Err(Errno::AGAIN);
                unsignalled = if signals_now { index.saturating_add(1) } else { index };
            }
        }
        if signals_now {
            unsignalled = usize::MAX;
        }
    }
}

/// The owner of the lock takes a signal that it would block if it were still in its call.
#[cold]
#[inline(never)]
fn caller_left(shared: &Shared) {
    let _ = leave_lock(shared, sys::gettid() as u32);
}

/// This thread has left its call while it owned the lock: a handler of SIGSYS has left it by siglongjmp. Returns false if
/// it does not own the lock, or if it only takes its own signal.
///
/// If it had begun no call, the other threads go on. Otherwise the process may be inconsistent, and the settings that could say
/// what to do are gone with the caller's stack.
pub(super) fn leave_lock(shared: &Shared, me: u32) -> bool {
    let rendezvous = &shared.rendezvous;
    if !rendezvous.is_locked_by(me) || shared.receives_own_signal() {
        return false;
    }
    let state = rendezvous.state();
    let half_way = match state.phase {
        Phase::Closed => false,
        Phase::Committing => true,
        // Without another thread there is none with another state.
        Phase::Gathering | Phase::Full => shared.has_begun() && state.count > 0,
    };
    if half_way {
        divergence::abort("a handler of SIGSYS has left a broadcast by a jump, half-way");
    }
    rendezvous.abandon();
    rendezvous.unlock(me);
    true
}
