//! The rendezvous: how the threads of a process come to a stop together, perform calls together,
//! and part. Both halves of the handshake are here, in the order in which they happen, on atomics
//! and one futex per side; who the threads are, how they are signalled and what they perform is
//! [`crate::engine`]'s business.
//!
//! ```text
//!   caller                                    every other thread, in its signal handler
//!   lock
//!   open            CLOSED -> GATHERING
//!                     ... signals ...   --->  arrive: count + 1 (the last one rings, if the caller sleeps)
//!   await_arrivals                            await_plan: asleep on the gate
//!   close_gate      GATHERING -> FULL
//!     performs the call itself
//!   publish         FULL -> COMMITTING  --->  perform; record; report: count - 1 (the last rings)
//!   await_reports                             agreed: leave.  differs, or stays: await_judgement
//!     judges
//!   release         any -> CLOSED       --->  leave
//!   unlock
//! ```
//!
//! # Who writes what
//!
//! | field | written by | read by | meaning |
//! |---|---|---|---|
//! | `state` | caller: phase and epoch; threads: count | all | the truth: epoch, phase, count |
//! | `gate` | whoever ends a phase that threads sleep in | held threads | futex: "look at `state` again" |
//! | `bell` | the thread whose count was awaited | caller | futex: "look at `state` again" |
//! | `awaited` | caller | arriving threads | the count that the caller waits for; the top bit: asleep |
//! | `caller` | caller, before the gate opens | the watch | whose death ends the stop |
//! | `lock` | initiators | initiators | tid of the caller, or 0; the top bit: somebody sleeps |
//! | `Entry::word` | caller until the signal is sent, then its thread | both | tid and mark |
//! | `Entry::value` | its thread, before it reports | caller, after | the result of its call |
//!
//! # Why it holds
//!
//! 1. *Arrival is one step with the phase.* `state` packs epoch, phase and count in one word, and a
//!    thread is held if and only if its compare-exchange raised the count of a gather that was
//!    open. A thread that was delayed between looking and arriving cannot be counted in a later
//!    round: the epoch differs and the exchange fails. So `held() == n` means n threads that stay.
//! 2. *No lost wake-up.* A sleeper reads its futex word first and `state` second; a waker changes
//!    `state` first and the futex word second. Whatever the order, the sleeper sees the new state or
//!    the kernel sees the new futex word and does not let it sleep. All accesses are SeqCst, so that
//!    the pair `awaited`/`state` (each side stores one and loads the other) cannot miss each other
//!    either.
//! 3. *What the caller wrote is seen.* `publish` stores the state with release order after the plan
//!    is written; `await_plan` loads it with acquire order before the plan is read. `report` and
//!    `await_reports` pair the same way for `Entry::value`.
//! 4. *A thread in an old state never leaves.* The only ways out of the handler are `release`
//!    before the commit (nothing has changed) and after it (judged), and a report that agreed.
//! 5. *The caller may die* while the others sleep in GATHERING or FULL (a filter that kills the
//!    thread for its own call). The first to arrive is the watch: it sleeps with a deadline, looks
//!    whether the caller lives, and else closes the gather in its place. Nothing was published, so
//!    nothing has changed in the threads that go free. From COMMITTING on there is no deadline: the
//!    caller only counts, judges and releases. But where it makes one more call, while the others stay,
//!    the watch looks again: all have performed the same calls, and may go.
//! 6. *A held thread may die in its call.* The caller takes its report for given (`bury`), as a
//!    divergence.
//! 7. *Only those who are held sleep on the gate.* Whoever closes a stop wakes all, before another one
//!    can be opened: the lock is given back after that, and who inherits it wakes them again.

use core::time::Duration;

use crate::engine::entry::{Entry, Mark};
use crate::sys::futex;
use crate::sys::sync::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// What the process is doing. Two bits of [`Rendezvous::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No stop: a thread that comes here leaves at once.
    Closed,
    /// Threads are arriving, and stay.
    Gathering,
    /// All are held; the caller performs its own call.
    Full,
    /// Every held thread performs the calls.
    Committing,
}

/// [`Rendezvous::state`], taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    epoch: u32,
    phase: Phase,
    /// GATHERING, FULL: threads held. COMMITTING: threads that have not reported.
    count: u32,
}

const COUNT_BITS: u32 = 30;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

impl State {
    const fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Gathering => 1,
            Phase::Full => 2,
            Phase::Committing => 3,
        };
        (self.epoch as u64) << 32 | phase << COUNT_BITS | self.count as u64 & COUNT_MASK
    }

    const fn unpack(word: u64) -> Self {
        let phase = match word >> COUNT_BITS & 3 {
            0 => Phase::Closed,
            1 => Phase::Gathering,
            2 => Phase::Full,
            _ => Phase::Committing,
        };
        Self { epoch: (word >> 32) as u32, phase, count: (word & COUNT_MASK) as u32 }
    }
}

/// What a held thread's calls came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The last call it made: the first that differs, or the last of all.
    pub(crate) index: u32,
    /// What that returned.
    pub(crate) result: isize,
    /// Whether all of them agreed.
    pub(crate) agreed: bool,
    /// Whether it stays all the same, until the caller ends the stop.
    pub(crate) stays: bool,
}

/// The words that the threads of one process meet on. All zero is the closed state.
pub(crate) struct Rendezvous {
    state: AtomicU64,
    gate: AtomicU32,
    bell: AtomicU32,
    awaited: AtomicU32,
    caller: AtomicU32,
    lock: AtomicU32,
}

/// In `awaited`: the caller sleeps, or will.
const ASLEEP: u32 = 1 << 31;

/// Somebody sleeps on `lock`; tids have 22 bits.
const SLEEPERS: u32 = 1 << 31;

/// How long the watch sleeps before it looks for the caller, at first and at most.
const WATCH: Duration = Duration::from_millis(100);
const WATCH_LONGEST: Duration = Duration::from_secs(2);

/// How often the caller, and a thread that is alone with it, look again before they sleep: for some
/// 50 us, which is what an idle CPU of a virtual machine takes to wake, and at most 200 us (one look
/// takes 15 to 60 ns, as the CPU's pause does). Of SCHED_OTHER, those who are woken on this CPU go first.
const SPINS: u32 = if cfg!(loom) { 1 } else { 3000 };

/// The caller's half.
impl Rendezvous {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            gate: AtomicU32::new(0),
            bell: AtomicU32::new(0),
            awaited: AtomicU32::new(0),
            caller: AtomicU32::new(0),
            lock: AtomicU32::new(0),
        }
    }

    fn state(&self) -> State {
        State::unpack(self.state.load(SeqCst))
    }

    /// Takes the lock if it is free; else says whose it is. Who slept for it says so, because
    /// others may sleep still.
    pub(crate) fn try_lock(&self, me: u32, slept: bool) -> Result<(), u32> {
        let mine = if slept { me | SLEEPERS } else { me };
        match self.lock.compare_exchange(0, mine, SeqCst, SeqCst) {
            Ok(_) => Ok(()),
            Err(seen) => Err(seen & !SLEEPERS),
        }
    }

    /// Sleeps until the lock was free for a moment, at the longest for `patience`. False: that long.
    pub(crate) fn sleep_on_lock(&self, patience: Option<Duration>) -> bool {
        let seen = self.lock.load(SeqCst);
        if seen == 0 {
            return true;
        }
        let marked = seen | SLEEPERS;
        if seen != marked && self.lock.compare_exchange(seen, marked, SeqCst, SeqCst).is_err() {
            return true;
        }
        futex::wait(&self.lock, marked, patience)
    }

    /// Takes the lock of a thread that is dead, and ends the stop it left behind. False: somebody
    /// else did. Err: it died between publishing and judging, and some threads are changed.
    pub(crate) fn inherit_lock(&self, dead: u32, me: u32) -> Result<bool, ()> {
        let mine = me | SLEEPERS;
        let free = self.lock.compare_exchange(dead, mine, SeqCst, SeqCst).is_ok()
            || self.lock.compare_exchange(dead | SLEEPERS, mine, SeqCst, SeqCst).is_ok();
        if !free {
            return Ok(false);
        }
        let state = self.state();
        if state.phase == Phase::Committing && state.count != 0 {
            return Err(());
        }
        // Nothing has changed, or all have reported and were judged (it died in the call that comes last),
        // or the stop is over. Whoever ended it may have died before it woke those on the gate.
        self.abandon(state.epoch);
        self.open_gate();
        Ok(true)
    }

    pub(crate) fn unlock(&self) {
        if self.lock.swap(0, SeqCst) & SLEEPERS != 0 {
            futex::wake_one(&self.lock);
        }
    }

    /// Opens a gather of its own epoch: whoever comes from now on stays.
    pub(crate) fn open(&self, caller: u32) -> u32 {
        self.caller.store(caller, SeqCst);
        self.awaited.store(0, SeqCst);
        let epoch = self.state().epoch.wrapping_add(1) & Mark::NUMBER;
        self.state.swap(State { epoch, phase: Phase::Gathering, count: 0 }.pack(), SeqCst);
        epoch
    }

    /// How many threads are held.
    pub(crate) fn held(&self) -> u32 {
        self.state().count
    }

    /// Whether all `held` have fallen asleep, and are alive therefore: what kills a thread alone (a
    /// filter) does so as it enters the kernel, not in its sleep. Nobody else sleeps there; see 7 above.
    pub(crate) fn all_asleep(&self, held: u32) -> bool {
        futex::sleepers(&self.gate, held.saturating_add(1)) == Some(held)
    }

    /// The epoch of the stop whose calls are being performed, if one is.
    pub(crate) fn committing(&self) -> Option<u32> {
        let state = self.state();
        (state.phase == Phase::Committing).then_some(state.epoch)
    }

    /// Sleeps until `count` threads are held, or until nobody has come for `quiet`. Returns how
    /// many are held.
    pub(crate) fn await_arrivals(&self, count: u32, quiet: Duration) -> u32 {
        self.awaited.store(count, SeqCst);
        self.spin(|state| state.count >= count);
        self.awaited.store(count | ASLEEP, SeqCst);
        let mut before = self.held();
        loop {
            let bell = self.bell.load(SeqCst);
            let held = self.held();
            if held >= count {
                return held;
            }
            if !futex::wait(&self.bell, bell, Some(quiet)) {
                let held = self.held();
                if held == before {
                    return held;
                }
                before = held;
            }
        }
    }

    /// Nobody else can come: all `count` are held. False if somebody came after all.
    pub(crate) fn close_gate(&self, epoch: u32, count: u32) -> bool {
        let from = State { epoch, phase: Phase::Gathering, count }.pack();
        let to = State { epoch, phase: Phase::Full, count }.pack();
        self.state.compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }

    /// The caller's call has succeeded: lets every held thread perform it. False if the stop was
    /// ended in the caller's place, which only its death allows.
    pub(crate) fn publish(&self, epoch: u32, count: u32) -> bool {
        let from = State { epoch, phase: Phase::Full, count }.pack();
        let to = State { epoch, phase: Phase::Committing, count }.pack();
        let done = self.state.compare_exchange(from, to, SeqCst, SeqCst).is_ok();
        self.open_gate();
        done
    }

    /// Sleeps until every held thread has reported; with `patience`, at the longest that long.
    /// True: all have. The bell is rung by the last report only.
    pub(crate) fn await_reports(&self, patience: Option<Duration>) -> bool {
        self.spin(|state| state.count == 0);
        loop {
            let bell = self.bell.load(SeqCst);
            if self.state().count == 0 {
                return true;
            }
            if !futex::wait(&self.bell, bell, patience) {
                return self.state().count == 0;
            }
        }
    }

    /// Takes the report of a held thread that died for given. False if it reported before.
    pub(crate) fn bury(&self, entry: &Entry, epoch: u32) -> bool {
        let buried = entry.exchange(entry.tid(), Mark::held(epoch), Mark::Died);
        if buried {
            self.state.fetch_sub(1, SeqCst);
        }
        buried
    }

    /// Ends the stop: whoever is still held goes on.
    pub(crate) fn release(&self) {
        let state = self.state();
        self.state.swap(State { phase: Phase::Closed, count: 0, ..state }.pack(), SeqCst);
        self.open_gate();
    }

    /// Ends a stop whose caller is dead, unless it is over already.
    fn abandon(&self, epoch: u32) {
        let mut seen = self.state.load(SeqCst);
        loop {
            let state = State::unpack(seen);
            let over = state.phase == Phase::Closed;
            if state.epoch != epoch || over || state.phase == Phase::Committing && state.count != 0
            {
                return;
            }
            let closed = State { phase: Phase::Closed, count: 0, ..state }.pack();
            match self.state.compare_exchange(seen, closed, SeqCst, SeqCst) {
                Ok(_) => return self.open_gate(),
                Err(now) => seen = now,
            }
        }
    }

    /// Looks again for a while before it sleeps.
    fn spin(&self, done: impl Fn(State) -> bool) {
        for _ in 0..SPINS {
            if done(self.state()) {
                return;
            }
            core::hint::spin_loop();
        }
    }

    fn open_gate(&self) {
        self.gate.fetch_add(1, SeqCst);
        futex::wake_all(&self.gate);
    }

    fn ring(&self) {
        self.bell.fetch_add(1, SeqCst);
        futex::wake_one(&self.bell);
    }
}

/// The half of every other thread, in its signal handler with all signals blocked.
impl Rendezvous {
    /// All of it: arrives, waits for the plan, performs it, reports, and leaves when it may.
    /// `gone(tid)` says whether a thread of this process is dead, for certain.
    pub(crate) fn visit(
        &self,
        entry: &Entry,
        tid: u32,
        gone: impl Fn(u32) -> bool,
        perform: impl FnOnce() -> Verdict,
    ) {
        // Whoever may not sleep dies of this, and is not held: a dead one would make up for another.
        futex::rehearse(&self.gate);
        let Some((epoch, count)) = self.arrive(entry, tid) else { return };
        let (watch, awaited) = (count == 1, self.awaited.load(SeqCst));
        if awaited == count | ASLEEP {
            self.ring();
        } else if watch && awaited == 1 {
            self.spin(|state| !matches!(state.phase, Phase::Gathering | Phase::Full));
        }
        if !self.await_plan(epoch, watch, &gone) {
            return;
        }
        let verdict = perform();
        entry.set_value(verdict.result as usize);
        let index = verdict.index & Mark::NUMBER;
        entry.set(tid, if verdict.agreed { Mark::Agreed(index) } else { Mark::Differs(index) });
        self.report();
        if verdict.stays || !verdict.agreed {
            self.await_judgement(epoch, watch && verdict.stays, &gone);
        }
    }

    /// Is counted in the gather that is open, if one is; the first to come is the watch. Ends: each
    /// turn of the loop means that another thread arrived or that the caller changed the phase.
    fn arrive(&self, entry: &Entry, tid: u32) -> Option<(u32, u32)> {
        loop {
            let seen = self.state();
            if seen.phase != Phase::Gathering {
                // A late signal of a call that gave up. The caller of a gather that opens now sees
                // the entry idle and sends again, or we see its gather.
                entry.exchange(tid, Mark::Sent, Mark::Idle);
                if self.state().phase != Phase::Gathering {
                    return None;
                }
                continue;
            }
            if !entry.set(tid, Mark::held(seen.epoch)) {
                return None;
            }
            let count = seen.count.wrapping_add(1);
            let arrived = State { count, ..seen }.pack();
            if self.state.compare_exchange(seen.pack(), arrived, SeqCst, SeqCst).is_ok() {
                return Some((seen.epoch, count));
            }
        }
    }

    /// Sleeps until there is something to perform; false: the stop ended without. Ends: the caller
    /// publishes or releases, or dies, which the watch notices.
    fn await_plan(&self, epoch: u32, watch: bool, gone: impl Fn(u32) -> bool) -> bool {
        let mut patience = WATCH;
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
            if !futex::wait(&self.gate, gate, watch.then_some(patience)) {
                if gone(self.caller.load(SeqCst)) {
                    self.abandon(epoch);
                }
                patience = patience.saturating_mul(2).min(WATCH_LONGEST);
            }
        }
    }

    fn report(&self) {
        let before = State::unpack(self.state.fetch_sub(1, SeqCst));
        if before.count == 1 {
            self.ring();
        }
    }

    /// Sleeps until the caller has judged, and made its last call if there is one. Ends: the caller
    /// releases, or the process is killed, or the caller dies in that call, which the watch notices.
    fn await_judgement(&self, epoch: u32, watch: bool, gone: impl Fn(u32) -> bool) {
        loop {
            let gate = self.gate.load(SeqCst);
            let state = self.state();
            if state.epoch != epoch || state.phase != Phase::Committing {
                return;
            }
            let slept = futex::wait(&self.gate, gate, watch.then_some(WATCH_LONGEST));
            if !slept && gone(self.caller.load(SeqCst)) {
                self.abandon(epoch);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod model;
