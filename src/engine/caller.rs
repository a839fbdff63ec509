//! The caller's half of a stop: lock, rounds, its own calls, commit, judgement, release.

// # Safety
//
// `execute_calls` makes the calls that `engine::execute`'s caller has promised to be sound in every thread.
#![allow(unsafe_code)]

use core::ops::Range;
use core::time::Duration;

use super::answers::AnswerSlot;
use super::call::Call;
use super::divergence;
use super::entry::ThreadState;
use super::gather::{Gather, Gathered};
use super::handler;
use super::rendezvous::{NOT_BEGUN, Phase};
use super::report_buffer::ReportBuffers;
use super::shared::{Plan, Shared};
use super::{Settings, unreachable};
use crate::errno::Errno;
use crate::error::{
    CallFailure, Error, PartialFailure, Requirement, SharedResource, TransactionError,
};
use crate::report::Report;
use crate::sys::proc::{Sharing, Tasks};
use crate::sys::sync;
use crate::sys::{self, Mask, SIGNAL, bit, futex, signal};

/// The longest pause between two rounds, unless the threads were held for longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);
/// How many more rounds there are after the deadline, if the threads that did not arrive in time are gone.
const EXTRA_ROUNDS: u32 = 3;
/// How long an initiator sleeps before it looks whether the owner of the lock is alive.
const OWNER_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Performs these of the calls in this thread, until one fails. Returns the last value.
pub(super) fn execute_calls(
    calls: &mut [Call],
    these: Range<usize>,
    slot: AnswerSlot,
    settings: &Settings,
    performed: impl Fn(),
) -> Result<usize, TransactionError> {
    let mut value = 0;
    for (index, call) in calls.iter_mut().enumerate().take(these.end).skip(these.start) {
        // SAFETY: `execute`'s caller has promised that the call is sound in every thread.
        call.expected = unsafe { sys::raw_syscall(call.nr, &call.args_for(slot.buffer_address())) };
        slot.store(index, call.expected);
        match call.caller_result() {
            Ok(returned) => value = returned,
            Err(why) => return Err(failure_of(call, index, why, settings)),
        }
        performed();
    }
    Ok(value)
}

/// Call number `index` has failed. Every thread has performed those before it, or will.
fn failure_of(
    call: &Call,
    index: usize,
    why: CallFailure,
    settings: &Settings,
) -> TransactionError {
    if index == 0 {
        return TransactionError::NothingChanged(why.into());
    }
    if settings.kill_on_partial_failure {
        divergence::abort_at(call, index);
    }
    TransactionError::Partial(PartialFailure { index, name: call.name(), why })
}

/// A stop in the making.
pub(super) struct Stop<'a> {
    shared: &'static Shared,
    /// This process and thread, as [`Stop::read_own_ids`] last found.
    pid: i32,
    tid: i32,
    settings: &'a Settings,
    until: Duration,
    rounds: u32,
    /// The epoch of the latest round.
    epoch: u32,
    /// Rounds left after the deadline, as long as there is no thread to name.
    extra_rounds: u32,
    longest: Duration,
    /// How many threads the last round had no memory for.
    wanted_capacity: usize,
    /// The program has a handler for SIGSYS, so a thread may leave the stop by siglongjmp.
    may_jump: bool,
    /// Memory for the report, made before any thread is held.
    buffers: Option<ReportBuffers>,
}

/// How a round ended, if not with an error.
enum Round {
    Done(usize),
    /// Not all threads could be held; they run again, after so long.
    GivenUp {
        held_for: Duration,
    },
}

impl<'a> Stop<'a> {
    pub(super) fn new(shared: &'static Shared, settings: &'a Settings, until: Duration) -> Self {
        Self {
            shared,
            pid: 0,
            tid: 0,
            settings,
            until,
            rounds: 0,
            epoch: 0,
            extra_rounds: EXTRA_ROUNDS,
            longest: Duration::ZERO,
            wanted_capacity: 0,
            may_jump: false,
            buffers: None,
        }
    }

    pub(super) fn run(
        &mut self,
        calls: &mut [Call],
        mut report: Option<&mut Report>,
    ) -> Result<usize, TransactionError> {
        let rendezvous = &self.shared.rendezvous;
        loop {
            let mask = match self.lock() {
                Ok(mask) => mask,
                Err(error) => {
                    rendezvous.end_pause();
                    return Err(error.into());
                }
            };
            let result = self.round(calls, report.as_deref_mut());
            if !matches!(result, Ok(Round::GivenUp { .. })) {
                rendezvous.end_pause();
            }
            rendezvous.unlock();
            let _ = sys::set_mask(mask);
            rendezvous.note_return(self.epoch);
            match result? {
                Round::Done(value) => return Ok(value),
                Round::GivenUp { held_for } => {
                    // Other initiators must be able to stop this thread, as in `wait_for_lock`.
                    let _ = sys::set_mask(mask & !bit(SIGNAL));
                    self.pause(held_for);
                    let _ = sys::set_mask(mask);
                }
            }
        }
    }

    /// Which thread this is. Asked after every sleep with open signals: a handler may have forked meanwhile.
    fn read_own_ids(&mut self) -> Result<(), Error> {
        let refused = |errno| Error::Environment { requirement: Requirement::ThreadId, errno };
        self.pid = sys::process_id().map_err(refused)?;
        self.tid = sys::thread_id().map_err(refused)?;
        let (requirement, errno) = (Requirement::ExclusiveMemory, Errno::PERM);
        // P8: a process that shares the memory and is no thread of this one does not use it.
        self.shared.claim(self.pid).then_some(()).ok_or(Error::Environment { requirement, errno })
    }

    /// Whether this thread is held, and a handler of SIGSYS has interrupted it: the owner of the lock waits for it.
    fn is_held(&self) -> bool {
        let me = self.tid as u32;
        self.shared.rendezvous.state().phase != Phase::Closed
            && self.shared.threads.iter().any(|e| e.tid() == me && e.state().takes_part())
    }

    /// Takes the lock, with all signals blocked from then on but SIGSYS, which stays as the interrupted code has it,
    /// for programs that emulate system calls. Returns the mask from before.
    fn lock(&mut self) -> Result<Mask, Error> {
        let environment =
            |errno| Error::Environment { requirement: Requirement::SignalMask, errno };
        let mask = sys::block_all_but_sigsys().map_err(environment)?;
        let locked = self.wait_for_lock(mask);
        if locked.is_err() {
            let _ = sys::set_mask(mask);
        }
        locked.map(|()| mask)
    }

    /// Waits for the lock and takes it. While this thread sleeps, signals are as the program has them, and ours is
    /// open in any case: another initiator must be able to stop it. Ends: the owner ends by its own deadline or is
    /// found dead, or this thread's deadline passes.
    fn wait_for_lock(&mut self, mask: Mask) -> Result<(), Error> {
        let rendezvous = &self.shared.rendezvous;
        let mut slept = false;
        let mut looked = Duration::ZERO;
        loop {
            self.read_own_ids()?;
            let me = self.tid as u32;
            // P7: callers take turns.
            let Err(owner) = rendezvous.try_lock(me, slept) else { return Ok(()) };
            if owner == me || self.is_held() {
                return Err(Error::Reentered);
            }
            // Asked each time: signals may interrupt every sleep, so that no sleep is a long one.
            let now = self.clock()?;
            if slept && now >= self.until {
                return Err(Error::Busy { tid: owner as i32 });
            }
            if !slept {
                looked = now;
            } else if sys::difference(now, looked) >= OWNER_CHECK_INTERVAL {
                looked = now;
                // P7: an owner that is dead leaves its lock.
                if sys::is_gone(self.pid, owner) && rendezvous.inherit_lock(owner, me) {
                    self.end_stop_of_dead_owner();
                    return Ok(());
                }
            }
            let _ = sys::set_mask(mask & !bit(SIGNAL));
            slept = true;
            let _ = rendezvous.sleep_on_lock(Some(OWNER_CHECK_INTERVAL));
            let _ = sys::block_all_but_sigsys();
        }
    }

    /// Ends the stop that a dead owner of the lock has left behind. Where threads are held, a watchdog among them does
    /// it; so none is, or the owner died as it released them, or before it had opened the gate.
    fn end_stop_of_dead_owner(&self) {
        let rendezvous = &self.shared.rendezvous;
        let state = rendezvous.state();
        if state.phase == Phase::Committing && state.count != 0 {
            divergence::abort("a thread died in the middle of a broadcast");
        }
        rendezvous.abandon();
    }

    fn clock(&self) -> Result<Duration, Error> {
        sys::clock().map_err(|errno| Error::Environment { requirement: Requirement::Clock, errno })
    }

    /// One attempt, from opening to release, under the lock.
    fn round(
        &mut self,
        calls: &mut [Call],
        report: Option<&mut Report>,
    ) -> Result<Round, TransactionError> {
        let shared = self.shared;
        let memory = |errno| Error::Environment { requirement: Requirement::Memory, errno };
        shared.prepare();
        self.ensure_handler()?;
        let mut tasks = Tasks::open(self.pid, self.tid);
        if self.rounds > 0 {
            tasks.check_numbers();
        }
        let threads = &shared.threads;
        if !tasks.is_readable() {
            // The threads of the last call, which could be listed then, are found without asking for every tid.
            threads.keep();
        }
        threads.begin(|tid| sys::tgkill(self.pid, tid as i32, 0) != Err(Errno::SRCH));

        let mut gather = Gather::new(shared, &mut tasks, self.pid, self.tid, self.until);
        let known =
            gather.find_threads_before_round().map_err(|errno| self.listing_error(errno))?;
        let count = gather.count();
        // All memory is there before a thread is held: a thread that is not held yet may own the lock of the address
        // space, and wait for one that is.
        let expected = count.unwrap_or(0).max(known).max(self.wanted_capacity);
        let capacity = expected.saturating_add(expected / 4).saturating_add(8);
        // P4: no memory is mapped between here and the release.
        threads.reserve(capacity).map_err(memory)?;
        if report.is_some()
            && self.buffers.as_ref().is_none_or(|buffers| buffers.capacity < capacity)
        {
            self.buffers = None;
            self.buffers =
                Some(ReportBuffers::new(capacity, self.settings.layout).map_err(memory)?);
        }
        self.may_jump = sys::sigsys_is_handled();
        shared.begin(self.settings.sensitivity, self.may_jump);
        let guess = if self.rounds == 0 { count.unwrap_or(0) } else { 0 };
        self.rounds = self.rounds.saturating_add(1);
        let opened = self.clock()?;
        let gathered = gather.run(guess);
        let epoch = gather.epoch();
        self.epoch = epoch;
        let queue_full = gather.queue_is_full();
        if !tasks.is_readable() {
            // The next call finds them again without asking for every tid.
            threads.keep();
        }
        let (held_for, error) = match gathered {
            Ok(Gathered::All(held)) if !self.buffers_suffice(held) => {
                self.wanted_capacity = held as usize;
                (self.give_up_round(epoch, opened), None)
            }
            // P3: the caller acts only when all threads are held.
            Ok(Gathered::All(held)) => match self.check_sharing(calls, &tasks, epoch) {
                Err(error) => (self.give_up_round(epoch, opened), Some(error)),
                Ok(directories_are_shared) => {
                    // A filter that the call installs may forbid close(2).
                    drop(tasks);
                    return self.commit(calls, report, epoch, held, opened, directories_are_shared);
                }
            },
            Ok(Gathered::CapacityExceeded) => {
                self.wanted_capacity = capacity.saturating_mul(2);
                (self.give_up_round(epoch, opened), None)
            }
            Ok(Gathered::GivenUp) => (self.give_up_round(epoch, opened), None),
            Ok(Gathered::Refused(errno)) => {
                let requirement =
                    if errno == Errno::AGAIN { None } else { Some(Requirement::SendSignal) };
                let error = requirement.map_or(Error::SignalQueueFull, |requirement| {
                    Error::Environment { requirement, errno }
                });
                (self.give_up_round(epoch, opened), Some(error))
            }
            Err(errno) => (self.give_up_round(epoch, opened), Some(self.listing_error(errno))),
        };
        if let Some(error) = error {
            return Err(error.into());
        }
        let certain = unreachable::is_certain(shared, epoch);
        // P5: another round, until the deadline.
        if !certain && self.clock()? < self.until {
            return Ok(Round::GivenUp { held_for });
        }
        if queue_full {
            return Err(Error::SignalQueueFull.into());
        }
        shared.rendezvous.end_pause();
        // SAFETY: this thread owns the lock, and the gather that used the scratch is over.
        let scratch = unsafe { shared.scratch() };
        let named =
            unreachable::report(shared, &tasks, scratch, self.tid, epoch, self.settings.deadline);
        self.extra_rounds = self.extra_rounds.saturating_sub(1);
        if named.total == 0 && self.extra_rounds > 0 {
            return Ok(Round::GivenUp { held_for });
        }
        Err(Error::Unreachable(named).into())
    }

    /// Whether there is memory for the report of so many threads.
    fn buffers_suffice(&self, held: u32) -> bool {
        let Some(buffers) = &self.buffers else { return true };
        let exempt =
            self.shared.threads.iter().filter(|e| matches!(e.state(), ThreadState::Exempt(_)));
        held as usize <= buffers.capacity && exempt.count() <= buffers.capacity
    }

    // P2: a call that would act on something else in one of the threads is not made.
    /// Checks, while all threads are held, that they share what the calls act on. Returns whether they certainly share root
    /// and working directory from the first call to the last, so that the caller alone can set these.
    fn check_sharing(&self, calls: &[Call], tasks: &Tasks, epoch: u32) -> Result<bool, Error> {
        let any = |property: fn(&Call) -> bool| calls.iter().any(property);
        let (files, fs) = (any(|call| call.shares.files), any(|call| call.shares.fs));
        let mut set_once = any(|call| call.sets_directory) && !any(Call::may_unshare_directories);
        if !files && !fs && !set_once {
            return Ok(false);
        }
        let unknown = |errno| Error::Environment { requirement: Requirement::SharingCheck, errno };
        for entry in self.shared.threads.iter().filter(|entry| entry.is_held(epoch)) {
            let tid = entry.tid() as i32;
            if files && !tasks.shares_files(tid).map_err(unknown)? {
                return Err(Error::NotShared { tid, resource: SharedResource::Descriptors });
            }
            if fs {
                let sharing = tasks.shares_fs(tid).map_err(unknown)?;
                if sharing == Sharing::Different {
                    return Err(Error::NotShared { tid, resource: SharedResource::Directories });
                }
                set_once &= sharing == Sharing::Shared;
            } else if set_once {
                set_once = sys::shares_fs(self.tid, tid) == Ok(true);
            }
        }
        Ok(set_once)
    }

    fn listing_error(&self, errno: Errno) -> Error {
        if let Err(error) = self.clock() {
            return error;
        }
        match errno {
            // The time was over in the middle of a list.
            Errno::TIMEDOUT => Error::Unreachable(unreachable::unknown(self.settings.deadline)),
            errno => Error::Environment { requirement: Requirement::ThreadList, errno },
        }
    }

    /// Ends a round without a commit: the threads run on untouched, and late ones wait for the next round. Returns
    /// how long the threads were held.
    fn give_up_round(&mut self, epoch: u32, opened: Duration) -> Duration {
        self.shared.rendezvous.begin_pause(epoch);
        self.shared.rendezvous.give_up();
        self.shared.threads.keep();
        let held_for = sys::difference(sys::now(), opened);
        self.longest = self.longest.max(held_for);
        held_for
    }

    /// All threads are held. The caller's own calls, then those of every thread; the judgement; the release.
    fn commit(
        &mut self,
        calls: &mut [Call],
        report: Option<&mut Report>,
        epoch: u32,
        held: u32,
        opened: Duration,
        directories_are_shared: bool,
    ) -> Result<Round, TransactionError> {
        let shared = self.shared;
        let rendezvous = &shared.rendezvous;
        let settings = self.settings;
        let buffers = self.buffers.take();
        self.longest = self.longest.max(sys::difference(sys::now(), opened));
        let slot = buffers
            .as_ref()
            .map_or(AnswerSlot::NONE, |buffers| buffers.answers.claim_slot(self.tid));
        let performed = || shared.count_performed();

        let mut epoch = epoch;
        let mut published = false;
        let mut result = Ok(0);
        let mut divergent = 0;
        // P11: one stop for all calls.
        for Segment { calls: these, alone } in segments(calls) {
            result = execute_calls(calls, these.clone(), slot, settings, performed);
            if calls.iter().take(these.end).skip(these.start).any(Call::installs_filter) {
                shared.set_filtered();
            }
            let end = match &result {
                Ok(_) => these.end,
                Err(TransactionError::Partial(partial)) => partial.index,
                Err(TransactionError::NothingChanged(_)) => these.start,
            };
            if !alone && end > these.start {
                let plan = calls.get(..end).unwrap_or_default();
                let answers = buffers.as_ref().map(|buffers| &buffers.answers);
                shared.set_plan(Plan {
                    calls: plan,
                    first: these.start,
                    directories_are_shared,
                    answers,
                });
                if published {
                    epoch = self.publish_again();
                    self.epoch = epoch;
                } else if !rendezvous.publish(epoch, held) {
                    divergence::abort("a broadcast was ended behind its caller's back");
                }
                published = true;
                // The signal may be forbidden by a filter that the calls have installed. Without it a thread that has
                // left would keep all others held, so it is tried when there has been time for every call.
                let resignal = self.may_jump.then_some(if shared.is_filtered() { 20 } else { 1 });
                handler::await_reports(shared, self.pid, epoch, resignal);
                let before = core::mem::replace(&mut divergent, self.divergent());
                if divergent > before {
                    // P3: judged before any thread leaves.
                    divergence::judge(settings.sensitivity, plan, shared.threads.iter());
                }
            }
            if result.is_err() {
                break;
            }
        }
        let mut buffers = buffers;
        if let (Some(buffers), true) = (&mut buffers, published) {
            buffers.fill(shared);
        }
        rendezvous.release();
        // A filter may forbid clock_gettime(2) as well.
        if !shared.is_filtered() {
            self.longest = self.longest.max(sys::difference(sys::now(), opened));
        }
        let value = result?;
        if let (Some(report), Some(buffers)) = (report, buffers) {
            report.value = value;
            report.results = buffers.results;
            report.skipped = buffers.exempt;
            report.divergent = divergent;
            report.attempts = self.rounds;
            report.max_pause = self.longest;
            report.answers = buffers.answers;
        }
        Ok(Round::Done(value))
    }

    /// How many threads have another result than the caller, or none.
    fn divergent(&self) -> usize {
        self.shared.threads.iter().filter(|entry| entry.state().is_divergent()).count()
    }

    /// The threads that agreed perform what comes next.
    fn publish_again(&self) -> u32 {
        let rendezvous = &self.shared.rendezvous;
        let next = rendezvous.next_epoch();
        let mut agreed = 0u32;
        for entry in self.shared.threads.iter() {
            let state = entry.state();
            if matches!(state, ThreadState::Agreed(_)) {
                entry.set_value(NOT_BEGUN);
                let held = entry.exchange(entry.tid(), state, ThreadState::held(next));
                agreed = agreed.saturating_add(u32::from(held));
            }
        }
        rendezvous.publish_again(agreed)
    }

    fn ensure_handler(&self) -> Result<(), Error> {
        let shared = self.shared;
        let send = |value| {
            if sys::queue_signal(self.pid, self.tid, value).is_ok() {
                sys::receive_own_signal();
            }
        };
        let chained =
            signal::ensure_handler::<handler::Engine>(|| shared.own_signal_arrives(send)).map_err(
                |errno| Error::Environment { requirement: Requirement::SignalHandler, errno },
            )?;
        shared.set_chained(chained);
        Ok(())
    }

    /// Lets the process run for at least as long as it was held, longer each time, with some jitter so that it does
    /// not fall into step with a thread's own rhythm. Signals are open.
    fn pause(&self, held_for: Duration) {
        let backoff = Duration::from_millis(1 << self.rounds.min(6)).min(LONGEST_PAUSE);
        let now = sys::now();
        let jitter = Duration::from_micros(u64::from(now.subsec_nanos() % 997));
        let until = sys::sum(sys::sum(now, backoff.max(held_for)), jitter);
        let never = sync::AtomicU32::new(0);
        loop {
            // Ends: the time passes. If the clock fails, the rest is nothing.
            let rest = sys::clock().map_or(Duration::ZERO, |now| sys::difference(until, now));
            if rest.is_zero() || !futex::wait(&never, 0, Some(rest)) {
                return;
            }
        }
    }
}

/// Calls that are performed together: by every thread, or by the caller alone.
struct Segment {
    calls: Range<usize>,
    alone: bool,
}

/// The calls before the one that the kernel performs in all threads by itself; that one, which the caller makes
/// alone; and the questions that follow it.
fn segments(calls: &[Call]) -> impl Iterator<Item = Segment> + use<> {
    let len = calls.len();
    let at = calls.iter().position(Call::is_synchronized_by_kernel);
    let (first, last) = at.map_or((len, len), |at| (at, at.saturating_add(1)));
    [(0..first, false), (first..last, true), (last..len, false)]
        .into_iter()
        .map(|(calls, alone)| Segment { calls, alone })
        .filter(|segment| !segment.calls.is_empty())
}
