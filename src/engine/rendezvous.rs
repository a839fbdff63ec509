//! The rendezvous: how the threads of a process come to a stop together, perform calls together and leave
//! together. Both halves of the handshake are here, in the order in which they happen, on atomics and four futex
//! words. Which threads there are, how they are signalled and what they perform is the business of the other files.
//!
//! ```text
//!   caller                                    every other thread, in its signal handler
//!   lock
//!   open            CLOSED -> GATHERING
//!                     ... signals ...   --->  arrive: count + 1 (wakes the caller, if the caller sleeps for this count)
//!   await_arrivals                            await_plan: asleep on `gate`
//!   close_gate      GATHERING -> FULL
//!     performs its own calls
//!   publish         FULL -> COMMITTING  --->  performs; records; report: count - 1 (the last one wakes the caller)
//!   await_reports                             hold_after_report: asleep on `exit`
//!     judges
//!   release         any -> CLOSED       --->  leaves, and wakes a few more
//!   unlock
//! ```
//!
//! A held thread has one way out of the handler: the caller closes the state. Before `publish` this means that
//! nothing has changed. After it, every thread has performed the calls and the caller has judged the results.
//!
//! # Fields
//!
//! | field | written by | read by | meaning |
//! |---|---|---|---|
//! | `state` | caller: phase and epoch; threads: count | all | the truth: epoch, phase, count |
//! | `gate` | the caller, when it publishes or gives up; a watchdog that leaves an early end | held threads | futex: "look at `state` again" |
//! | `exit` | the caller, when it releases or publishes again; a watchdog that leaves | held threads | futex: "look at `state` again" |
//! | `caller_futex` | the thread whose count was awaited | caller | futex: "look at `state` again" |
//! | `pause` | caller; a thread whose wait there is over | arriving threads | futex: the epoch of a round that was given up and is followed by another, for which late threads wait, or 0 |
//! | `pauses` | caller | caller | how many pauses there were since a call was performed |
//! | `awaited` | caller | arriving threads | the count that the caller waits for; the top bit: it sleeps |
//! | `last` | the last thread that reports; caller | both | 1 while that thread is awake and will see the release |
//! | `returned` | caller, as the last thing that it does | threads that leave | the epoch of the last stop whose caller needs its CPU no more |
//! | `caller` | caller, before the gate opens | watchdogs | the thread whose death ends the stop |
//! | `lock` | initiators, watchdogs | initiators, watchdogs | the caller's tid, or 0; the top bit: an initiator sleeps |
//! | `Entry::word` | caller until the signal is sent, then its thread | both | tid and state |
//! | `Entry::value` | its thread | caller | before the report: the call that the thread performs; after it: the result |
//!
//! # Why it holds
//!
//! 1. *Arrival and phase are one step.* `state` packs epoch, phase and count in one word. A thread is held if and
//!    only if its compare-exchange raised the count of a gather that was open. A thread that is delayed between the
//!    look and the exchange cannot be counted in a later round, because the epoch differs and the exchange fails. So
//!    `held() == n` means n threads that stay.
//! 2. *No wake-up is lost.* A sleeper reads its futex word first and `state` second. A waker changes `state` first
//!    and the futex word second. In either order the sleeper sees the new state, or the kernel sees the new word and
//!    does not let the thread sleep. All accesses are SeqCst, so that the pair `awaited`/`state` (each side stores
//!    one and loads the other) cannot miss each other either. If the kernel refuses a FUTEX_WAKE, the caller wakes
//!    again each time its wait for the reports expires, and a watchdog wakes the others when its own wait expires.
//! 3. *The threads see what the caller wrote.* `publish` stores `state` after the plan is written, and `await_plan`
//!    loads `state` before the plan is read: the pair orders the plan. `report` and `await_reports` pair the same
//!    way for `Entry::value`.
//! 4. *No thread leaves early.* A thread leaves the handler only when `state` is closed or belongs to a later stop.
//!    The caller closes it before `publish` (nothing has changed) or after the judgement (all have performed).
//! 5. *The release is handed over.* The caller bumps `exit`, wakes one thread and returns. Each thread wakes up to
//!    [`WAKES_PER_LEAVING_THREAD`] more before it leaves. As long as threads sleep there, some thread is on its way out and has not
//!    done its wakes yet; if that thread is delayed or dies, the waits of the watchdogs expire ([`WATCHDOG_INTERVAL`]) and they
//!    go on. A thread that still sleeps on `exit` blocks our signal, so the next stop cannot count it before it has
//!    left; therefore no thread of a later stop can sleep on `exit` and swallow a wake-up that was meant for it.
//!    `wake_leavers` wakes all that still sleep there, when their signals for the next stop are pending.
//! 6. *The caller may die.* The first [`WATCHDOGS`] threads that arrive are watchdogs: they sleep with a time limit and
//!    look whether the caller is alive. If it is dead, one of them takes its lock over and ends the stop in its
//!    place. Before `publish` nothing has changed in the threads that are released. After it, the watchdog waits for
//!    the reports as the caller would, and judges.
//! 7. *A held thread may die in its call.* The caller notices it (`report_death`) and treats it as a divergence.
//! 8. *Only held threads sleep on the gate.* When a round ends early, the threads that sleep there are moved to
//!    `exit` (or woken) before the lock is given back. So the number of sleepers is exact in the next round.
//! 9. *A pause keeps late threads.* A thread whose signal arrives between two rounds would run on and might be out of
//!    reach again in the next round. It sleeps on `pause` until the next round opens, at most [`NEXT_ROUND_WAIT`]. If
//!    that round is given up too, it stays for one more, and so on: otherwise several threads could be late in turn for
//!    ever. Of [`PAUSES_TO_A_FREE_ONE`] pauses in a row, the last keeps no thread. `open` clears the word, and so does a
//!    thread whose wait expires; nothing depends on the initiator's return.
//!
//! Why this is true on weakly ordered CPUs as well, word by word: rendezvous/memory_order.md.

mod lock;
mod pause;
mod state;
mod watchdog;

use core::time::Duration;

use self::state::next;
pub(crate) use self::state::{Phase, State};
use crate::engine::entry::{Entry, NOT_BEGUN, ThreadState};
use crate::engine::trace;
use crate::sys::futex;
use crate::sys::sync::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// What a held thread's calls returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallResult {
    /// The last call that the thread made: the first that differs, or the last of all.
    pub(crate) index: u32,
    /// What that call returned.
    pub(crate) result: isize,
    /// Whether all of them agreed with the caller's.
    pub(crate) agreed: bool,
}

/// What a held thread needs from the other files.
pub(crate) trait Thread {
    /// Performs the calls that the caller has published.
    fn perform_calls(&self) -> CallResult;
    /// Whether a thread of this process is dead, for certain.
    fn is_dead_thread(&self, tid: u32) -> bool;
    /// The wait of a watchdog has expired and the caller is alive: looks whether the caller is still in its stop.
    fn check_on_caller(&self);
    /// This caller is dead: ends the stop in its place, unless another thread does.
    fn take_over(&self, caller: u32);
}

/// The words on which the threads of one process meet. All zero is the closed state.
pub(crate) struct Rendezvous {
    state: AtomicU64,
    gate: AtomicU32,
    exit: AtomicU32,
    caller_futex: AtomicU32,
    pause: AtomicU32,
    pauses: AtomicU32,
    awaited: AtomicU32,
    last: AtomicU32,
    returned: AtomicU32,
    caller: AtomicU32,
    lock: AtomicU32,
}

/// In `awaited`: the caller sleeps, or will.
const ASLEEP: u32 = 1 << 31;

/// How many threads sleep with a time limit: the first that arrive. One could be killed by its own filter, or be
/// stopped by a tracer.
const WATCHDOGS: u32 = if cfg!(loom) { 1 } else { 4 };

/// How long a watchdog sleeps before it looks for the caller. It is also the longest that a released thread sleeps on
/// `exit` after every thread that should have woken it was lost.
const WATCHDOG_INTERVAL: Duration = Duration::from_millis(50);

/// How many threads each leaving thread wakes.
const WAKES_PER_LEAVING_THREAD: i32 = 4;

/// How often the caller, and a thread that is alone with it, look again before they sleep: for some 50 us, which is
/// what an idle CPU of a virtual machine takes to wake, and at most 200 us (one look takes 15 to 60 ns, as the CPU's
/// pause instruction does). Under SCHED_OTHER, a thread that is woken on this CPU runs first.
const SPINS: u32 = if cfg!(loom) { 1 } else { 3000 };

/// How often the last thread that reports looks whether the caller has judged: for some 10 us. A caller that is awake
/// needs less. A caller that waits for this CPU gets it only when the thread sleeps.
const LAST_SPINS: u32 = if cfg!(loom) { 1 } else { 200 };

/// How often a thread that leaves looks whether the caller has returned: for some 15 to 60 us. The caller needs 1 to
/// 2 us, and 5 to 20 us if it had to wake a thread.
const RETURN_SPINS: u32 = if cfg!(loom) { 1 } else { 1000 };

/// What both halves use.
impl Rendezvous {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        let word = || AtomicU32::new(0);
        Self {
            state: AtomicU64::new(0),
            gate: word(),
            exit: word(),
            caller_futex: word(),
            pause: word(),
            pauses: word(),
            awaited: word(),
            last: word(),
            returned: word(),
            caller: word(),
            lock: word(),
        }
    }

    pub(crate) fn state(&self) -> State {
        State::unpack(self.state.load(SeqCst))
    }

    /// The thread that performs the stop that is open.
    pub(crate) fn caller(&self) -> u32 {
        self.caller.load(SeqCst)
    }

    /// Looks again for a while before it sleeps.
    fn spin(&self, looks: u32, done: impl Fn(State) -> bool) {
        for _ in 0..looks {
            if done(self.state()) {
                return;
            }
            core::hint::spin_loop();
        }
    }

    fn wake_caller(&self) {
        self.caller_futex.fetch_add(1, SeqCst);
        futex::wake_one(&self.caller_futex);
    }
}

/// The caller's half. Every function is called under the lock.
impl Rendezvous {
    /// Opens a gather with an epoch of its own: a thread that arrives from now on stays.
    pub(crate) fn open(&self, caller: u32) -> u32 {
        self.caller.store(caller, SeqCst);
        // A handler of SIGSYS may fork out of a held thread. In the child these words are 0, and its sleep begins anew: it
        // must end at once.
        for word in [&self.gate, &self.exit] {
            if word.load(SeqCst) == 0 {
                word.fetch_add(1, SeqCst);
            }
        }
        self.awaited.store(0, SeqCst);
        self.last.store(0, SeqCst);
        let epoch = next(self.state().epoch);
        let opened = State { epoch, phase: Phase::Gathering, count: 0 }.pack();
        trace::change(self.state.swap(opened, SeqCst), opened);
        // After the state: a thread that is woken here finds the gather open.
        self.end_every_pause();
        epoch
    }

    /// Wakes the threads of the last stop that still sleep on their way out. They block our signal until they have left.
    /// To be called after the signals: a thread that has one pending arrives at once. Without one it would run, fall
    /// asleep elsewhere, and be woken again (a third more time for calls in a row, with 64 sleeping threads).
    pub(crate) fn wake_leavers(&self) {
        futex::wake_all(&self.exit);
    }

    /// How many threads are held.
    pub(crate) fn held(&self) -> u32 {
        self.state().count
    }

    /// Whether all `held` threads sleep on the gate, or None if the kernel does not tell. A thread that sleeps there
    /// is alive, because a filter kills a thread as it enters the kernel, not in its sleep; and it runs no handler
    /// of SIGSYS. Only held threads sleep there; see 8 above.
    pub(crate) fn all_asleep(&self, held: u32) -> Option<bool> {
        futex::sleepers(&self.gate, held.saturating_add(1)).map(|sleepers| sleepers == held)
    }

    /// Sleeps until `count` threads are held, or until no thread has arrived for `quiet`. Returns how many are held.
    pub(crate) fn await_arrivals(&self, count: u32, quiet: Duration) -> u32 {
        self.awaited.store(count, SeqCst);
        self.spin(SPINS, |state| state.count >= count);
        self.awaited.store(count | ASLEEP, SeqCst);
        let mut before = self.held();
        loop {
            let caller_futex = self.caller_futex.load(SeqCst);
            let held = self.held();
            if held >= count {
                return held;
            }
            // Ends: each turn holds another thread, or is the last.
            if !futex::wait(&self.caller_futex, caller_futex, Some(quiet)) {
                let held = self.held();
                if held == before {
                    return held;
                }
                before = held;
            }
        }
    }

    /// No other thread can come: all `count` are held. Returns false if a thread has come after all.
    pub(crate) fn close_gate(&self, epoch: u32, count: u32) -> bool {
        let from = State { epoch, phase: Phase::Gathering, count }.pack();
        let to = State { epoch, phase: Phase::Full, count }.pack();
        let done = self.state.compare_exchange(from, to, SeqCst, SeqCst).is_ok();
        if done {
            trace::change(from, to);
        }
        done
    }

    /// The caller's own calls have succeeded: lets every held thread perform them. Returns false if the stop was
    /// ended in the caller's place, which only its death allows.
    pub(crate) fn publish(&self, epoch: u32, count: u32) -> bool {
        let from = State { epoch, phase: Phase::Full, count }.pack();
        let to = State { epoch, phase: Phase::Committing, count }.pack();
        let done = self.state.compare_exchange(from, to, SeqCst, SeqCst).is_ok();
        if done {
            trace::change(from, to);
        }
        self.gate.fetch_add(1, SeqCst);
        futex::wake_all(&self.gate);
        if self.pauses.load(SeqCst) != 0 {
            self.pauses.store(0, SeqCst);
        }
        done
    }

    /// All have reported, and there are calls that come after one that the caller made alone: lets the threads that
    /// agreed perform them, under the next epoch. Their entries are marked as held for it already.
    pub(crate) fn publish_again(&self, agreed: u32) -> u32 {
        let epoch = self.next_epoch();
        let again = State { epoch, phase: Phase::Committing, count: agreed }.pack();
        trace::change(self.state.swap(again, SeqCst), again);
        self.exit.fetch_add(1, SeqCst);
        futex::wake_all(&self.exit);
        epoch
    }

    /// The epoch that [`publish_again`](Self::publish_again) will use.
    pub(crate) fn next_epoch(&self) -> u32 {
        next(self.state().epoch)
    }

    /// Sleeps until every held thread has reported; with `timeout`, at most that long. Returns whether all have.
    /// Only the last report wakes the caller.
    pub(crate) fn await_reports(&self, timeout: Option<Duration>) -> bool {
        self.spin(SPINS, |state| state.count == 0);
        loop {
            let caller_futex = self.caller_futex.load(SeqCst);
            if self.state().count == 0 {
                return true;
            }
            if !futex::wait(&self.caller_futex, caller_futex, timeout) {
                return self.state().count == 0;
            }
        }
    }

    /// Wakes the threads that should be performing the calls, once more: the kernel may have refused to.
    pub(crate) fn wake_again(&self) {
        futex::wake_all(&self.gate);
        futex::wake_all(&self.exit);
    }

    /// Counts the report of a held thread that died. Returns false if it reported before.
    pub(crate) fn report_death(&self, entry: &Entry, epoch: u32) -> bool {
        let died = ThreadState::Died(entry.value() as u32 & ThreadState::NUMBER_MASK);
        let counted = entry.exchange(entry.tid(), ThreadState::held(epoch), died);
        if counted {
            let before = self.state.fetch_sub(1, SeqCst);
            trace::change(before, before.wrapping_sub(1));
        }
        counted
    }

    /// Ends the stop: every held thread goes on. The caller wakes one of them, and each wakes a few more.
    pub(crate) fn release(&self) {
        // P3: from here on threads leave. All have performed the calls, or none has.
        let state = self.close();
        if state.phase == Phase::Committing {
            self.exit.fetch_add(1, SeqCst);
            if !self.last_reporter_is_awake() {
                futex::wake_one(&self.exit);
            }
        } else {
            self.gate.fetch_add(1, SeqCst);
            if !futex::wake_one_and_move(&self.gate, &self.exit) {
                futex::wake_all(&self.gate);
            }
        }
    }

    /// Whether the last thread that reported is awake: it sees what the caller has just written, and needs no wake-up.
    fn last_reporter_is_awake(&self) -> bool {
        self.last.compare_exchange(1, 0, SeqCst, SeqCst).is_ok()
    }

    /// Ends a round that is given up: every held thread goes on at once. The caller is about to sleep or to fail, so it
    /// need not keep its CPU, and the next round cannot hold a thread that has not left this one.
    pub(crate) fn give_up(&self) {
        self.release();
        futex::wake_all(&self.exit);
    }

    /// The caller has done everything but return: the threads that leave may have its CPU.
    pub(crate) fn note_return(&self, epoch: u32) {
        self.returned.store(epoch, SeqCst);
    }

    fn close(&self) -> State {
        let state = self.state();
        let closed = State { phase: Phase::Closed, count: 0, ..state }.pack();
        trace::change(self.state.swap(closed, SeqCst), closed);
        state
    }
}

/// The half of every other thread, in its signal handler, with all signals but SIGSYS blocked.
impl Rendezvous {
    /// All of it: arrives, waits for the plan, performs it, reports, waits for the release, and wakes others.
    pub(crate) fn visit(&self, entry: &Entry, tid: u32, thread: &impl Thread) {
        let state = self.state();
        let was_held = entry.tid() == tid && entry.state() == ThreadState::held(state.epoch);
        if was_held && state.phase != Phase::Closed {
            return self.rejoin_after_siglongjmp(entry, tid, state.epoch, thread);
        }
        // A thread whose seccomp filter kills it for futex(2) dies here, before it is counted. A dead thread in the
        // count would hide a live one that never arrived; and if each of the first threads died as it wakes others on its
        // way out, the rest would sleep on.
        futex::probe(&self.gate);
        // Ends: the thread has slept in a pause in each turn but the last, and not all pauses in a row keep it.
        loop {
            let mut was_late = false;
            let Some((epoch, count)) = self.arrive(entry, tid, &mut was_late) else { return };
            let is_watchdog = count <= WATCHDOGS;
            let awaited = self.awaited.load(SeqCst);
            if awaited == count | ASLEEP {
                self.wake_caller();
            } else if count == 1 && awaited == 1 {
                // A thread that is alone with the caller stays awake for it.
                self.spin(SPINS, |state| !matches!(state.phase, Phase::Gathering | Phase::Full));
            }
            let performed = self.follow_plan(entry, tid, epoch, is_watchdog, thread);
            self.leave(is_watchdog);
            if performed || !was_late || !self.stays_for_next_round(entry, tid, epoch) {
                return;
            }
        }
    }

    /// What a held thread does until it may leave. Returns whether it has performed the calls.
    #[inline(always)]
    fn follow_plan(
        &self,
        entry: &Entry,
        tid: u32,
        epoch: u32,
        is_watchdog: bool,
        thread: &impl Thread,
    ) -> bool {
        let performs = self.await_plan(epoch, is_watchdog, thread);
        if performs {
            self.perform_and_report(entry, tid, epoch, thread);
            self.hold_after_report(entry, tid, epoch, is_watchdog, thread);
        } else if is_watchdog {
            self.leave_gate();
        }
        performs
    }

    /// Is counted in the gather that is open, if one is. Ends: each turn of the loop means that another thread
    /// arrived, that the caller changed the phase, or that the one wait for a next round is over.
    fn arrive(&self, entry: &Entry, tid: u32, was_late: &mut bool) -> Option<(u32, u32)> {
        loop {
            let seen = self.state();
            if seen.phase != Phase::Gathering {
                // The initiator of the last round, between two rounds of its own, takes a signal of another initiator: it does
                // not wait for itself.
                if !*was_late && self.caller() != tid && self.await_next_round(seen) {
                    *was_late = true;
                    continue;
                }
                // A late signal of a call that gave up. The caller of a gather that opens now sees the idle entry
                // and sends again, or this thread sees the gather.
                // A thread that has marked itself as held and was not counted, because the gate was closed meanwhile,
                // takes the mark back: with another signal it would seem to come back into the stop, and its sleep on
                // the gate would stand for that of a thread which was counted and died.
                let state = entry.state();
                if matches!(state, ThreadState::Sent | ThreadState::Held(_)) {
                    entry.exchange(tid, state, ThreadState::Idle);
                }
                if self.state().phase != Phase::Gathering {
                    return None;
                }
                continue;
            }
            // A second signal for this thread may carry an entry that belongs to another one by now.
            if entry.tid() != tid {
                return None;
            }
            entry.set_value(NOT_BEGUN);
            if !entry.set(tid, ThreadState::held(seen.epoch)) {
                return None;
            }
            let count = seen.count.wrapping_add(1);
            let arrived = State { count, ..seen }.pack();
            if self.state.compare_exchange(seen.pack(), arrived, SeqCst, SeqCst).is_ok() {
                trace::change(seen.pack(), arrived);
                return Some((seen.epoch, count));
            }
        }
    }

    /// Sleeps until there is something to perform; returns false if the stop ended without. Ends: the caller
    /// publishes or releases, or it dies, which a watchdog notices.
    fn await_plan(&self, epoch: u32, is_watchdog: bool, thread: &impl Thread) -> bool {
        loop {
            let gate = self.gate.load(SeqCst);
            let state = self.state();
            if state.epoch != epoch {
                return false;
            }
            match state.phase {
                Phase::Closed => return false,
                Phase::Committing => return true,
                Phase::Gathering | Phase::Full => {}
            }
            // P5: a watchdog wakes and looks whether the caller is alive.
            if !futex::wait(&self.gate, gate, is_watchdog.then_some(WATCHDOG_INTERVAL)) {
                let state = self.state();
                match state.phase {
                    Phase::Gathering | Phase::Full if state.epoch == epoch => {
                        self.watchdog_expired(thread, false);
                    }
                    // The kernel refused a wake-up.
                    _ => futex::wake_all(&self.gate),
                }
            }
        }
    }

    /// Performs the calls, and reports, unless the report is taken for given by now: the thread left the handler in a
    /// call, and came back in another frame of it.
    #[inline(never)]
    fn perform_and_report(&self, entry: &Entry, tid: u32, epoch: u32, thread: &impl Thread) {
        let call_result = thread.perform_calls();
        trace::step(trace::PERFORMED);
        let held = ThreadState::held(epoch);
        if entry.state() != held {
            return;
        }
        entry.set_value(call_result.result as usize);
        let index = call_result.index & ThreadState::NUMBER_MASK;
        let reported = if call_result.agreed {
            ThreadState::Agreed(index)
        } else {
            ThreadState::Differs(index)
        };
        if entry.exchange(tid, held, reported) {
            self.report();
        }
    }

    /// Counts this thread's report. The last thread to report stays awake for a while: the caller is about to judge,
    /// and if it need not wake a thread, a thread that computes cannot take its CPU.
    fn report(&self) {
        if self.state().count == 1 {
            self.last.store(1, SeqCst);
        }
        let word = self.state.fetch_sub(1, SeqCst);
        trace::change(word, word.wrapping_sub(1));
        let before = State::unpack(word);
        if before.count != 1 {
            return;
        }
        self.wake_caller();
        let committing = State { count: 0, ..before };
        self.spin(LAST_SPINS, |state| state != committing);
        // If the caller has changed the state, it has counted on this thread, or is about to find that it cannot.
        let _ = self.last.compare_exchange(1, 0, SeqCst, SeqCst);
    }

    /// Sleeps until the caller has judged and closes the state; performs what it publishes meanwhile. Ends: the caller
    /// releases, or the process is killed, or the caller dies, which a watchdog notices.
    fn hold_after_report(
        &self,
        entry: &Entry,
        tid: u32,
        mut epoch: u32,
        is_watchdog: bool,
        thread: &impl Thread,
    ) {
        loop {
            let exit = self.exit.load(SeqCst);
            let state = self.state();
            if state.phase != Phase::Committing {
                return self.let_caller_return(epoch);
            }
            if state.epoch != epoch {
                if state.epoch != next(epoch) {
                    return;
                }
                epoch = state.epoch;
                if entry.state() == ThreadState::held(epoch) {
                    self.perform_and_report(entry, tid, epoch, thread);
                }
                continue;
            }
            if !futex::wait(&self.exit, exit, is_watchdog.then_some(WATCHDOG_INTERVAL))
                && self.state().phase == Phase::Committing
            {
                self.watchdog_expired(thread, true);
            }
        }
    }

    /// Gives the caller the time that it needs to return, before this thread wakes others: one of them could take the
    /// caller's CPU for a time slice. (Measured with 8 threads that compute on 2 CPUs: the median of a call is 0.14 ms,
    /// and 12 ms without.) If the caller waits for the CPU of this very thread, the time is lost, so it is short.
    fn let_caller_return(&self, epoch: u32) {
        self.spin(RETURN_SPINS, |state| {
            state.epoch != epoch || self.returned.load(SeqCst) == epoch
        });
    }

    /// Wakes a few of the threads that still sleep, before this one leaves the handler. A watchdog changes the word first:
    /// the caller may die before it changes it, and a thread that read the word and the open state before is about to
    /// sleep, without a watchdog.
    fn leave(&self, is_watchdog: bool) {
        trace::step(trace::LEFT);
        if is_watchdog {
            self.exit.fetch_add(1, SeqCst);
        }
        futex::wake(&self.exit, WAKES_PER_LEAVING_THREAD);
    }

    /// A held thread has left the handler, by siglongjmp out of a handler of SIGSYS, and takes our signal again. If it
    /// had not begun to perform the calls, it is held as before. Otherwise its result is unknown, which is a
    /// divergence.
    #[cold]
    #[inline(never)]
    fn rejoin_after_siglongjmp(&self, entry: &Entry, tid: u32, epoch: u32, thread: &impl Thread) {
        let begun = entry.value();
        if begun == NOT_BEGUN {
            self.follow_plan(entry, tid, epoch, true, thread);
        } else {
            let left = ThreadState::Siglongjmp(begun as u32 & ThreadState::NUMBER_MASK);
            if entry.exchange(tid, ThreadState::held(epoch), left) {
                self.report();
            }
            self.hold_after_report(entry, tid, epoch, true, thread);
        }
        self.leave(true);
    }
}

#[cfg(all(test, loom))]
mod model;
