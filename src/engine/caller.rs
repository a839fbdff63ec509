//! The caller's half of a stop: lock, rounds, its own calls, commit, judgement, release.

// # Safety
//
// `act` makes the calls that `engine::perform`'s caller has promised to be sound in every thread.
#![allow(unsafe_code)]

use core::ops::Range;
use core::time::Duration;

use super::answers::{Answers, Form, Place};
use super::call::Call;
use super::divergence;
use super::entry::Mark;
use super::gather::{Gather, Gathered};
use super::handler::{self, call_of};
use super::records::Records;
use super::rendezvous::{NOT_BEGUN, Phase};
use super::shared::{Plan, Shared};
use super::{Settings, unreachable};
use crate::errno::Errno;
use crate::error::{
    CallFailure, Error, PartialFailure, Requirement, SharedResource, TransactionError,
};
use crate::report::{CallOutcome, Report, SkipReason, SkippedTask, ThreadResult};
use crate::sys::proc::Tasks;
use crate::sys::sync;
use crate::sys::{self, Mask, SIGNAL, bit, futex, signal};

/// The longest pause between two rounds, unless the threads were held for longer.
const PAUSE: Duration = Duration::from_millis(64);
/// How many more rounds there are after the deadline, if the threads that did not arrive in time are gone.
const GRACE: u32 = 3;
/// How long an initiator sleeps before it looks whether the owner of the lock is alive.
const PATIENCE: Duration = Duration::from_millis(50);

/// Performs these of the calls in this thread, until one fails. Returns the last value.
pub(super) fn act(
    calls: &mut [Call],
    these: Range<usize>,
    place: Place,
    settings: &Settings,
    performed: impl Fn(),
) -> Result<usize, TransactionError> {
    let mut value = 0;
    for (index, call) in calls.iter_mut().enumerate().take(these.end).skip(these.start) {
        // SAFETY: `perform`'s caller has promised that the call is sound in every thread.
        call.expected = unsafe { sys::any(call.nr, &call.args_at(place.bytes())) };
        place.keep(index, call.expected);
        match call.outcome() {
            Ok(returned) => value = returned,
            Err(why) => return Err(failed(call, index, why, settings)),
        }
        performed();
    }
    Ok(value)
}

/// Call number `index` has failed. Every thread has performed those before it, or will.
fn failed(call: &Call, index: usize, why: CallFailure, settings: &Settings) -> TransactionError {
    if index == 0 {
        return TransactionError::NothingChanged(why.into());
    }
    if settings.whole_or_dead {
        divergence::lost_at(call, index);
    }
    TransactionError::Partial(PartialFailure { index, name: call.name(), why })
}

/// A stop in the making.
pub(super) struct Stop<'a> {
    shared: &'static Shared,
    /// This process and thread, as [`Stop::identify`] last found.
    pid: i32,
    tid: i32,
    settings: &'a Settings,
    until: Duration,
    rounds: u32,
    /// The epoch of the latest round.
    epoch: u32,
    /// Rounds left after the deadline, as long as there is no thread to name.
    grace: u32,
    longest: Duration,
    /// How many threads the last round had no memory for.
    wanted: usize,
    /// The program has a handler for SIGSYS, so a thread may leave the stop by siglongjmp.
    may_jump: bool,
    /// Memory for the report, made before any thread is held.
    rooms: Option<Rooms>,
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
            grace: GRACE,
            longest: Duration::ZERO,
            wanted: 0,
            may_jump: false,
            rooms: None,
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
                    // Other initiators must be able to stop this thread, as in `take_turn`.
                    let _ = sys::set_mask(mask & !bit(SIGNAL));
                    self.pause(held_for);
                    let _ = sys::set_mask(mask);
                }
            }
        }
    }

    /// Which thread this is. Asked after every sleep with open signals: a handler may have forked meanwhile.
    fn identify(&mut self) -> Result<(), Error> {
        let refused = |errno| Error::Environment { requirement: Requirement::ThreadId, errno };
        self.pid = sys::process_id().map_err(refused)?;
        self.tid = sys::thread_id().map_err(refused)?;
        let (requirement, errno) = (Requirement::ExclusiveMemory, Errno::PERM);
        self.shared.claim(self.pid).then_some(()).ok_or(Error::Environment { requirement, errno })
    }

    /// Whether this thread is held, and a handler of SIGSYS has interrupted it: the owner of the lock waits for it.
    fn is_held(&self) -> bool {
        let me = self.tid as u32;
        self.shared.rendezvous.state().phase != Phase::Closed
            && self.shared.threads.iter().any(|e| e.tid() == me && e.mark().takes_part())
    }

    /// Takes the lock, with all signals blocked from then on but SIGSYS, which stays as the interrupted code has it,
    /// for programs that emulate system calls. Returns the mask from before.
    fn lock(&mut self) -> Result<Mask, Error> {
        let environment =
            |errno| Error::Environment { requirement: Requirement::SignalMask, errno };
        let mask = sys::block_all_but_sigsys().map_err(environment)?;
        let locked = self.take_turn(mask);
        if locked.is_err() {
            let _ = sys::set_mask(mask);
        }
        locked.map(|()| mask)
    }

    /// Waits for the lock and takes it. While this thread sleeps, signals are as the program has them, and ours is
    /// open in any case: another initiator must be able to stop it. Ends: the owner ends by its own deadline or is
    /// found dead, or this thread's deadline passes.
    fn take_turn(&mut self, mask: Mask) -> Result<(), Error> {
        let rendezvous = &self.shared.rendezvous;
        let mut slept = false;
        let mut looked = Duration::ZERO;
        loop {
            self.identify()?;
            let me = self.tid as u32;
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
            } else if sys::difference(now, looked) >= PATIENCE {
                looked = now;
                if sys::is_gone(self.pid, owner) && rendezvous.inherit_lock(owner, me) {
                    self.clean_up();
                    return Ok(());
                }
            }
            let _ = sys::set_mask(mask & !bit(SIGNAL));
            slept = true;
            let _ = rendezvous.sleep_on_lock(Some(PATIENCE));
            let _ = sys::block_all_but_sigsys();
        }
    }

    /// Ends the stop that a dead owner of the lock has left behind. Where threads are held, a watch among them does
    /// it; so none is, or the owner died as it released them, or before it had opened the gate.
    fn clean_up(&self) {
        let rendezvous = &self.shared.rendezvous;
        let state = rendezvous.state();
        if state.phase == Phase::Committing && state.count != 0 {
            divergence::lost("a thread died in the middle of a broadcast");
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
        self.make_reachable()?;
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
        let known = gather.look_ahead().map_err(|errno| self.cannot_list(errno))?;
        let count = gather.count();
        // All memory is there before a thread is held: a thread that is not held yet may own the lock of the address
        // space, and wait for one that is.
        let expected = count.unwrap_or(0).max(known).max(self.wanted);
        let capacity = expected.saturating_add(expected / 4).saturating_add(8);
        threads.reserve(capacity).map_err(memory)?;
        if report.is_some() && self.rooms.as_ref().is_none_or(|rooms| rooms.capacity < capacity) {
            self.rooms = None;
            self.rooms = Some(Rooms::new(capacity, self.settings.form).map_err(memory)?);
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
            Ok(Gathered::All(held)) if !self.has_room(held) => {
                self.wanted = held as usize;
                (self.let_go(epoch, opened), None)
            }
            Ok(Gathered::All(held)) => match self.unshared(calls, &tasks, epoch) {
                Some(error) => (self.let_go(epoch, opened), Some(error)),
                None => {
                    // A filter that the call installs may forbid close(2).
                    drop(tasks);
                    return self.commit(calls, report, epoch, held, opened);
                }
            },
            Ok(Gathered::NoRoom) => {
                self.wanted = capacity.saturating_mul(2);
                (self.let_go(epoch, opened), None)
            }
            Ok(Gathered::GivenUp) => (self.let_go(epoch, opened), None),
            Ok(Gathered::Refused(errno)) => {
                let requirement =
                    if errno == Errno::AGAIN { None } else { Some(Requirement::SendSignal) };
                let error = requirement.map_or(Error::SignalQueueFull, |requirement| {
                    Error::Environment { requirement, errno }
                });
                (self.let_go(epoch, opened), Some(error))
            }
            Err(errno) => (self.let_go(epoch, opened), Some(self.cannot_list(errno))),
        };
        if let Some(error) = error {
            return Err(error.into());
        }
        let certain = unreachable::is_certain(shared, epoch);
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
            unreachable::name(shared, &tasks, scratch, self.tid, epoch, self.settings.deadline);
        self.grace = self.grace.saturating_sub(1);
        if named.total == 0 && self.grace > 0 {
            return Ok(Round::GivenUp { held_for });
        }
        Err(Error::Unreachable(named).into())
    }

    /// Whether there is memory for the report of so many threads.
    fn has_room(&self, held: u32) -> bool {
        let Some(rooms) = &self.rooms else { return true };
        let exempt = self.shared.threads.iter().filter(|e| matches!(e.mark(), Mark::Exempt(_)));
        held as usize <= rooms.capacity && exempt.count() <= rooms.capacity
    }

    /// P2: a call that would act on something else in one of the threads is not made. All threads are held.
    fn unshared(&self, calls: &[Call], tasks: &Tasks, epoch: u32) -> Option<Error> {
        let files = calls.iter().any(|call| call.shares.files);
        let fs = calls.iter().any(|call| call.shares.fs);
        if !files && !fs {
            return None;
        }
        let held = self.shared.threads.iter().filter(|entry| entry.is_held(epoch));
        held.map(|entry| entry.tid() as i32).find_map(|tid| {
            let wrong = |shared: Result<bool, Errno>, resource| match shared {
                Ok(true) => None,
                Ok(false) => Some(Error::NotShared { tid, resource }),
                Err(errno) => {
                    Some(Error::Environment { requirement: Requirement::SharingCheck, errno })
                }
            };
            let of_files = || wrong(tasks.shares_files(tid), SharedResource::Descriptors);
            let of_fs = || wrong(tasks.shares_fs(tid), SharedResource::Directories);
            files.then(of_files).flatten().or_else(|| fs.then(of_fs).flatten())
        })
    }

    fn cannot_list(&self, errno: Errno) -> Error {
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
    fn let_go(&mut self, epoch: u32, opened: Duration) -> Duration {
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
    ) -> Result<Round, TransactionError> {
        let shared = self.shared;
        let rendezvous = &shared.rendezvous;
        let settings = self.settings;
        let rooms = self.rooms.take();
        self.longest = self.longest.max(sys::difference(sys::now(), opened));
        let place = rooms.as_ref().map_or(Place::NONE, |rooms| rooms.answers.take(self.tid));
        let performed = || shared.count_performed();

        let mut epoch = epoch;
        let mut published = false;
        let mut result = Ok(0);
        let mut divergent = 0;
        for Segment { calls: these, alone } in segments(calls) {
            result = act(calls, these.clone(), place, settings, performed);
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
                let answers = rooms.as_ref().map(|rooms| &rooms.answers);
                shared.set_plan(Plan { calls: plan, first: these.start, answers });
                if published {
                    epoch = self.publish_again();
                    self.epoch = epoch;
                } else if !rendezvous.publish(epoch, held) {
                    divergence::lost("a broadcast was ended behind its caller's back");
                }
                published = true;
                // The signal may be forbidden by a filter that the calls have installed. Without it a thread that has
                // left would keep all others held, so it is tried when there has been time for every call.
                let nudge = self.may_jump.then_some(if shared.is_filtered() { 20 } else { 1 });
                handler::await_reports(shared, self.pid, epoch, nudge);
                let before = core::mem::replace(&mut divergent, self.divergent());
                if divergent > before {
                    divergence::judge(settings.sensitivity, plan, shared.threads.iter());
                }
            }
            if result.is_err() {
                break;
            }
        }
        let mut rooms = rooms;
        if let (Some(rooms), true) = (&mut rooms, published) {
            rooms.fill(shared);
        }
        rendezvous.release();
        // A filter may forbid clock_gettime(2) as well.
        if !shared.is_filtered() {
            self.longest = self.longest.max(sys::difference(sys::now(), opened));
        }
        let value = result?;
        if let (Some(report), Some(rooms)) = (report, rooms) {
            report.value = value;
            report.results = rooms.results;
            report.skipped = rooms.exempt;
            report.divergent = divergent;
            report.attempts = self.rounds;
            report.max_pause = self.longest;
            report.answers = rooms.answers;
        }
        Ok(Round::Done(value))
    }

    /// How many threads have another result than the caller, or none.
    fn divergent(&self) -> usize {
        self.shared.threads.iter().filter(|entry| entry.mark().is_divergent()).count()
    }

    /// The threads that agreed perform what comes next.
    fn publish_again(&self) -> u32 {
        let rendezvous = &self.shared.rendezvous;
        let next = rendezvous.next_epoch();
        let mut agreed = 0u32;
        for entry in self.shared.threads.iter() {
            let mark = entry.mark();
            if matches!(mark, Mark::Agreed(_)) {
                entry.set_value(NOT_BEGUN);
                let held = entry.exchange(entry.tid(), mark, Mark::held(next));
                agreed = agreed.saturating_add(u32::from(held));
            }
        }
        rendezvous.publish_again(agreed)
    }

    fn make_reachable(&self) -> Result<(), Error> {
        let shared = self.shared;
        let send = |value| {
            if sys::queue_signal(self.pid, self.tid, value).is_ok() {
                sys::take_own_signal();
            }
        };
        let chained =
            signal::ensure::<handler::Engine>(|| shared.is_reached(send)).map_err(|errno| {
                Error::Environment { requirement: Requirement::SignalHandler, errno }
            })?;
        shared.set_chained(chained);
        Ok(())
    }

    /// Lets the process run for at least as long as it was held, longer each time, with some jitter so that it does
    /// not fall into step with a thread's own rhythm. Signals are open.
    fn pause(&self, held_for: Duration) {
        let backoff = Duration::from_millis(1 << self.rounds.min(6)).min(PAUSE);
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
    let at = calls.iter().position(Call::synchronises);
    let (first, last) = at.map_or((len, len), |at| (at, at.saturating_add(1)));
    [(0..first, false), (first..last, true), (last..len, false)]
        .into_iter()
        .map(|(calls, alone)| Segment { calls, alone })
        .filter(|segment| !segment.calls.is_empty())
}

/// Memory for a report.
struct Rooms {
    capacity: usize,
    results: Records<ThreadResult>,
    exempt: Records<SkippedTask>,
    answers: Answers,
}

impl Rooms {
    fn new(capacity: usize, form: Form) -> Result<Self, Errno> {
        let answers = match form.calls {
            0 => Answers::none(),
            _ => Answers::new(form, capacity.saturating_add(1))?,
        };
        let (results, exempt) =
            (Records::with_capacity(capacity)?, Records::with_capacity(capacity)?);
        Ok(Self { capacity, results, exempt, answers })
    }

    fn fill(&mut self, shared: &Shared) {
        for entry in shared.threads.iter().filter(|entry| entry.tid() != 0) {
            let (tid, mark) = (entry.tid() as i32, entry.mark());
            if let Mark::Exempt(_) = mark {
                self.exempt.push(SkippedTask { tid, reason: SkipReason::of(entry.value()) });
                continue;
            }
            let Some((call, _)) = call_of(mark) else { continue };
            let outcome = match mark {
                Mark::Died(_) => CallOutcome::Died,
                Mark::Left(_) => CallOutcome::Siglongjmp,
                _ => match Errno::check(entry.value() as isize) {
                    Ok(value) => CallOutcome::Returned(value),
                    Err(errno) => CallOutcome::Failed(errno),
                },
            };
            self.results.push(ThreadResult { tid, call, outcome });
        }
    }
}
