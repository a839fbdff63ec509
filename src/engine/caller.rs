//! The caller's half of a stop: lock, rounds, its own calls, commit, judgement, release.

// # Safety
//
// `execute_calls` makes the calls that `engine::execute`'s caller has promised to be sound in every thread.
#![allow(unsafe_code)]

mod commit;
mod lock;

use core::ops::Range;
use core::time::Duration;

use super::answers::AnswerSlot;
use super::call::Call;
use super::divergence;
use super::entry::ThreadState;
use super::gather::{Gather, Gathered};
use super::handler;
use super::report_buffers::ReportBuffers;
use super::shared::Shared;
use super::{Settings, unreachable};
use crate::errno::Errno;
use crate::error::{
    CallFailure, Error, PartialFailure, Requirement, SharedResource, TransactionError,
};
use crate::report::Report;
use crate::sys::proc::{Sharing, Tasks};
use crate::sys::signal::disposition;
use crate::sys::{self, Mask, PromptWakeUps, SIGNAL, bit, futex};

/// The usual length of a pause between two rounds, from the sixth on. By chance, a pause has half of this length to half
/// as much again, and if the threads were held for longer than that half, it begins with the time for which they were.
const USUAL_PAUSE: Duration = Duration::from_millis(64);
/// How many more rounds there are after the deadline, if the threads that did not arrive in time are gone.
const EXTRA_ROUNDS: u32 = 3;

/// Performs these of the calls in this thread, until one fails. Returns the last value. `begun` is told whether this thread
/// has begun a call that may change something, and that has not failed. It is told before each such call: a handler of
/// SIGSYS that runs at its end may leave by siglongjmp.
pub(super) fn execute_calls(
    calls: &mut [Call],
    these: Range<usize>,
    slot: AnswerSlot,
    settings: &Settings,
    begun: impl Fn(bool),
) -> Result<usize, TransactionError> {
    let mut value = 0;
    let mut changed = calls.iter().take(these.start).any(|call| !call.is_query);
    for (index, call) in calls.iter_mut().enumerate().take(these.end).skip(these.start) {
        begun(changed || !call.is_query);
        // SAFETY: `execute`'s caller has promised that the call is sound in every thread.
        call.expected = unsafe { sys::raw_syscall(call.nr, &call.args_for(slot.buffer_address())) };
        slot.store(index, call.expected);
        match call.caller_result() {
            // P2, P3: the caller alone has performed the call, and cannot take it back. No other thread performs it.
            Ok(_) if call.went_wrong() => divergence::abort_after(call),
            Ok(returned) => {
                value = returned;
                changed |= !call.is_query;
            }
            Err(why) => {
                begun(changed);
                return Err(failure_of(call, index, why, settings));
            }
        }
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
    /// This thread wakes up in time, but for its own calls, which may read or set its timer slack.
    prompt: Option<PromptWakeUps>,
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
            prompt: None,
            buffers: None,
        }
    }

    /// Runs rounds until one ends with a result, and sets the signal mask, `mask`, again. All signals but SIGSYS are blocked;
    /// SIGSYS stays as the interrupted code has it, for programs that emulate system calls.
    pub(super) fn run(
        &mut self,
        mask: Mask,
        calls: &mut [Call],
        mut report: Option<&mut Report>,
    ) -> Result<usize, TransactionError> {
        let rendezvous = &self.shared.rendezvous;
        // P5: the caller must look in time after the threads that it holds, and after its deadline.
        self.prompt = PromptWakeUps::begin();
        loop {
            if let Err(error) = self.lock(mask) {
                rendezvous.end_pause(self.epoch);
                self.prompt = None;
                let _ = sys::set_mask(mask);
                return Err(error.into());
            }
            let result = self.round(calls, report.as_deref_mut());
            if !matches!(result, Ok(Round::GivenUp { .. })) {
                rendezvous.end_pause(self.epoch);
                self.prompt = None;
            }
            rendezvous.unlock(self.tid as u32);
            let _ = sys::set_mask(mask);
            rendezvous.note_return(self.epoch);
            match result? {
                Round::Done(value) => return Ok(value),
                Round::GivenUp { held_for } => {
                    // Other initiators must be able to stop this thread, as in `lock`.
                    let _ = sys::set_mask(mask & !bit(SIGNAL));
                    self.pause(held_for);
                    let _ = sys::block_all_but_sigsys();
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
        threads.begin(|tid| sys::exists(self.pid, tid, self.tid));

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
        shared.begin(self.settings.sensitivity, sys::sigsys_is_handled());
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
        let error = match gathered {
            Ok(Gathered::All(held)) if !self.buffers_suffice(held) => {
                self.wanted_capacity = held as usize;
                None
            }
            // P3: the caller acts only when all threads are held.
            Ok(Gathered::All(held)) => match self.check_sharing(calls, &tasks, epoch) {
                Err(error) => Some(error),
                Ok(directories_are_shared) => {
                    // A filter that the call installs may forbid close(2).
                    drop(tasks);
                    return self.commit(calls, report, epoch, held, opened, directories_are_shared);
                }
            },
            Ok(Gathered::CapacityExceeded) => {
                self.wanted_capacity = capacity.saturating_mul(2);
                None
            }
            Ok(Gathered::GivenUp) => None,
            Ok(Gathered::Refused(errno)) => {
                let requirement =
                    if errno == Errno::AGAIN { None } else { Some(Requirement::SendSignal) };
                Some(requirement.map_or(Error::SignalQueueFull, |requirement| Error::Environment {
                    requirement,
                    errno,
                }))
            }
            Err(errno) => Some(self.listing_error(errno)),
        };
        // P5: another round, until the deadline.
        let now = self.clock();
        let in_time = matches!(now, Ok(now) if now < self.until);
        let again = error.is_none() && in_time && !unreachable::is_certain(shared, epoch);
        let held_for = self.give_up_round(epoch, opened, again);
        if let Some(error) = error {
            return Err(error.into());
        }
        now?;
        if again {
            return Ok(Round::GivenUp { held_for });
        }
        if queue_full {
            return Err(Error::SignalQueueFull.into());
        }
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

    /// Ends a round without a commit: the threads run on untouched. If there is to be another, a pause begins.
    /// Returns how long the threads were held.
    fn give_up_round(&mut self, epoch: u32, opened: Duration, again: bool) -> Duration {
        if again {
            self.shared.rendezvous.begin_pause(epoch);
        }
        self.shared.rendezvous.give_up();
        self.shared.threads.keep();
        let held_for = sys::difference(sys::now(), opened);
        self.longest = self.longest.max(held_for);
        held_for
    }

    fn ensure_handler(&self) -> Result<(), Error> {
        let shared = self.shared;
        let send = |value| sys::queue_signal(self.pid, self.tid, value).is_ok();
        let arrives = || shared.own_signal_arrives(send, sys::receive_own_signal);
        let refused = |errno| Error::Environment { requirement: Requirement::SignalHandler, errno };
        let chained = disposition::ensure_handler::<handler::Engine>(arrives).map_err(refused)?;
        shared.set_chained(chained);
        Ok(())
    }

    /// Lets the process run for at least as long as it was held, and usually for twice as long as in the pause before. The
    /// length is left to chance: a thread that comes back to its wait in a fixed time would otherwise be there whenever a
    /// round begins. Signals are open.
    fn pause(&self, held_for: Duration) {
        let usual = USUAL_PAUSE.min(Duration::from_millis(1 << self.rounds.min(6)));
        let now = sys::now();
        // The clock's nanoseconds are the chance; the multiplication spreads them.
        let chance = now.subsec_nanos().wrapping_add(self.rounds).wrapping_mul(0x9e37_79b9) >> 16;
        let extra = (usual.as_micros() as u64 * u64::from(chance)) >> 16;
        let least = held_for.max(usual / 2);
        let until = sys::sum(sys::sum(now, least), Duration::from_micros(extra));
        loop {
            // Ends: the time passes. If the clock fails, the rest is nothing. A signal must not shorten the pause: with one
            // each millisecond the process would be held nearly all the time.
            let rest = sys::clock().map_or(Duration::ZERO, |now| sys::difference(until, now));
            if rest.is_zero() || !futex::is_interrupted_in_sleep(rest) {
                return;
            }
        }
    }
}
