//! The stop, in the order of its events: open, gather in rounds, act, commit, judge, close. This is
//! the caller's side, and what a held thread performs; how they meet is [`crate::engine::rendezvous`].
//!
//! # The promises, and how each is kept
//!
//! - **P1, coverage.** Threads are signalled until a *proof* says that all are held
//!   ([`Gather::prove`]): the link count of the task directory is one atomic look at the number of
//!   threads, and `held + 1` of them are accounted for. Threads that are held make no new ones, and
//!   that each of them lives is asked after the count: a dead one would make up for one that never
//!   came. If some can run no user code, the sweep must name everybody, and those are looked at again
//!   after the count was taken. Each thread performs the calls once, because it is counted once per
//!   epoch and leaves the handler right after.
//! - **P2, nothing on failure.** Before `publish`, every way out releases the threads untouched.
//! - **P3, stop first.** `act` begins only when the gate is closed over a proof.
//! - **P4.** Between the first signal and the release: raw calls, and memory mapped before.
//! - **P5, it ends.** A gather without progress is given up after [`gather::QUIET`], the threads run for at
//!   least as long as they were held, and it is tried again until the deadline. Threads that wait
//!   for something a held thread owns get it in between.
//! - **P6** is [`crate::sys::signal`]'s. **P7**: initiators take turns by the lock, asleep with their
//!   signals open; a handler that interrupts its owner, or a held thread in its own call, is told.
//! - **P8.** The memory shared by the threads reads zero in a child of fork; who we are is asked again
//!   after every sleep, because a handler may have forked. A child that shares the memory (vfork) is
//!   single-threaded and never comes as far as to look at it, unless it cannot ask whether it is; what
//!   it has claimed then is free again when it is over.
//! - **P9.** The handler has no effect but the calls'; descriptors are O_CLOEXEC.
//! - **P10.** See [`crate::sys::proc`].
//! - **P11.** A slice of calls is performed in one stop. If the last one is performed in all threads by
//!   the kernel itself, the caller makes it when the others have reported, and they stay until then.
//! - **P12.** A thread that is alone asks that, and performs its calls: several with signals blocked.
//!
//! # Interleavings
//!
//! ```text
//! clone   sweep lists A   A: clone -> B   A arrives   held = 1, count = 3 (A, B, caller): no proof
//!         sweep lists B   B arrives       held = 2, count = 3: proof. B cannot have cloned since.
//! exit    signal to A     A exits         nobody comes for a slice; count = 1 + held: proof
//! fork    A forks, then arrives: the child has the old state, but nobody had the new one yet.
//!         A held thread cannot fork; it leaves with the new state.
//! exec    A: execve kills all others, the caller among them; nothing is left to be inconsistent.
//! late    a signal of a call that gave up arrives: with no gather open the thread goes on; with one
//!         open, it is held for that one.
//! ```

// # Safety
//
// The shared memory is one mapping, zeroed, never given back, made of atomics alone. `plan` in it
// points to the caller's calls from before the gate opens until the caller returns; held threads
// read it only between `publish` and their report, while the caller waits for exactly that.
#![allow(unsafe_code)]

pub(crate) mod answers;
pub(crate) mod call;
pub(crate) mod divergence;
pub(crate) mod entry;
mod gather;
pub(crate) mod records;
mod rendezvous;
mod thread_table;

use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;

use gather::Gather;

use crate::engine::answers::{Answers, Form, Place};
use crate::engine::call::Call;
use crate::engine::divergence::Sensitivity;
use crate::engine::entry::{Entry, Mark};
use crate::engine::records::Records;
use crate::engine::rendezvous::{Rendezvous, Verdict};
use crate::engine::thread_table::{FIRST, Roster};
use crate::errno::Errno;
use crate::error::{
    CallFailure, Error, Need, Obstacle, Partial, Refusal, Straggler, TransactionError, Unreachable,
};
use crate::report::{Exempt, ExemptReason, Outcome, Report, ThreadResult};
use crate::sys::futex;
use crate::sys::proc::{Living, Look, Tasks};
use crate::sys::signal;
use crate::sys::{self, Mask, SIGNAL, SIGSYS, SigInfo, bit};

/// The pause between rounds, at the longest.
const PAUSE: Duration = Duration::from_millis(64);
/// How many rounds more after the deadline, if those who did not come in time are gone.
const GRACE: u32 = 3;
/// How often the caller looks for dead threads among those that owe a report.
const PATIENCE: Duration = Duration::from_millis(50);
/// getdents64(2) fills this much at a time.
const SCRATCH: usize = 4096;

/// What the caller has set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) sensitivity: Sensitivity,
    /// Kill the process if a call fails after others were performed.
    pub(crate) whole_or_dead: bool,
    /// What the calls ask of each thread, for a report.
    pub(crate) form: Form,
}

/// What the threads of one process share.
#[repr(C)]
struct Shared {
    rendezvous: Rendezvous,
    /// The process it belongs to. A task that reads another number than its own shares this memory
    /// without being a thread of it.
    owner: AtomicU32,
    /// Another library's handler stands above ours: ours must see to the mask itself.
    chained: AtomicU32,
    /// A signal to ourselves came through.
    reached: AtomicU32,
    /// The calls to perform, `*const Call`, and how many of them.
    plan: AtomicUsize,
    planned: AtomicUsize,
    /// Something else comes before they may leave.
    stay: AtomicU32,
    /// Where each thread answers, `*const Answers`, if something is asked.
    answers: AtomicUsize,
    roster: Roster,
    /// Most of the threads' ids could not be guessed.
    scattered: AtomicU32,
    /// The roster's, so that a process with few threads has one mapping to make.
    first: [Entry; FIRST],
    /// Belongs to the owner of the lock.
    scratch: UnsafeCell<[u8; SCRATCH]>,
}

static SHARED: AtomicUsize = AtomicUsize::new(0);

/// The shared memory, if anybody has called yet.
fn shared() -> Option<&'static Shared> {
    let at = NonNull::new(SHARED.load(Ordering::Acquire) as *mut Shared)?;
    // SAFETY: published once, initialised (zero), never given back.
    Some(unsafe { at.as_ref() })
}

fn shared_or_new() -> Result<&'static Shared, Errno> {
    if let Some(shared) = shared() {
        return Ok(shared);
    }
    let bytes = size_of::<Shared>();
    let memory = sys::map_anonymous(bytes)?;
    // SAFETY: as long as a `Shared`, all zero, and not given back unless nobody has seen it.
    let new = unsafe { memory.cast::<Shared>().as_ref() };
    new.roster.adopt(&new.first);
    let wiped = sys::wipe_on_fork(memory, bytes);
    let published = wiped.and_then(|()| {
        SHARED
            .compare_exchange(0, memory.as_ptr() as usize, Ordering::AcqRel, Ordering::Acquire)
            .map_err(|_| Errno::AGAIN)
    });
    if published.is_err() {
        // SAFETY: nobody has seen it.
        unsafe { sys::unmap(memory, bytes) };
    }
    wiped?;
    shared().ok_or(Errno::AGAIN)
}

/// Performs `calls` on every thread of the process, in one stop. Returns what the last one returned
/// in the calling thread.
///
/// # Safety
/// Each call is sound when every thread makes it; see [`crate::syscall6`].
pub(crate) unsafe fn perform(
    calls: &mut [Call],
    settings: &Settings,
    mut report: Option<&mut Report>,
) -> Result<usize, TransactionError> {
    let together = together(calls);
    for (index, call) in calls.iter().enumerate() {
        let not_last = index < together && call.synchronises();
        if let Some(why) = call.refusal().or(not_last.then_some(Refusal::NotLast)) {
            return Err(Error::Refused(why).into());
        }
    }
    let alone = || sys::alone().unwrap_or_else(|| Tasks::open(sys::getpid()).count() == Some(1));
    if together == 0 || calls.len() == 1 && alone() {
        return here(calls, settings, report);
    }
    if alone() {
        // A handler that runs between two calls could leave a child, or a thread, in the state between them.
        let blocked = |errno| Error::Environment { need: Need::Mask, errno };
        let mask = sys::set_mask(sys::ALL).map_err(blocked)?;
        let _ = sys::set_mask(around_calls(mask));
        // One that ran just before may have made a thread.
        let done = alone().then(|| here(calls, settings, report.as_deref_mut()));
        let _ = sys::set_mask(mask);
        if let Some(done) = done {
            return done;
        }
    }
    if let Some(why) = calls.iter().find_map(Call::refusal_in_company) {
        return Err(Error::Refused(why).into());
    }
    let need = |need| move |errno| Error::Environment { need, errno };
    let shared = shared_or_new().map_err(need(Need::Memory))?;
    let now = sys::clock().map_err(need(Need::Clock))?;
    let mut stop = Stop {
        shared,
        pid: 0,
        tid: 0,
        settings,
        until: sys::sum(now, settings.deadline),
        rounds: 0,
        grace: GRACE,
        longest: Duration::ZERO,
    };
    stop.run(calls, report)
}

/// What is blocked while the caller's calls are made: SIGSYS is as the interrupted code had it, for
/// filters that emulate calls (seccomp(2), SECCOMP_RET_TRAP).
fn around_calls(mask: Mask) -> Mask {
    sys::ALL & (mask | !bit(SIGSYS))
}

/// Performs the calls in this thread, and nowhere else.
fn here(
    calls: &mut [Call],
    settings: &Settings,
    report: Option<&mut Report>,
) -> Result<usize, TransactionError> {
    let (mut answers, mut place) = (Answers::none(), Place::NONE);
    if report.is_some() && settings.form.calls > 0 {
        let memory = |errno| Error::Environment { need: Need::Memory, errno };
        answers = Answers::new(settings.form, 1).map_err(memory)?;
        place = answers.take(sys::gettid());
    }
    let value = act(calls, 0..calls.len(), place, settings)?;
    if let Some(report) = report {
        report.value = value;
        report.answers = answers;
    }
    Ok(value)
}

/// How many of the calls each thread makes: all, unless the kernel makes the last one for all.
fn together(calls: &[Call]) -> usize {
    let last = usize::from(calls.last().is_some_and(Call::synchronises));
    calls.len().saturating_sub(last)
}

/// Performs these of the calls in this thread, until one fails. Returns the last value.
fn act(
    calls: &mut [Call],
    these: Range<usize>,
    place: Place,
    settings: &Settings,
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
    }
    Ok(value)
}

/// Call number `index` has failed; those before it are, or will be, performed by everybody.
fn failed(call: &Call, index: usize, why: CallFailure, settings: &Settings) -> TransactionError {
    if index == 0 {
        return TransactionError::Unchanged(why.into());
    }
    if settings.whole_or_dead {
        divergence::lost_at(call, index);
    }
    TransactionError::Partial(Partial { index, name: call.name(), why })
}

/// A stop in the making.
struct Stop<'a> {
    shared: &'static Shared,
    /// Who we are, as [`Stop::identify`] last found.
    pid: i32,
    tid: i32,
    settings: &'a Settings,
    until: Duration,
    rounds: u32,
    /// Rounds left after the deadline, as long as there is nobody to blame.
    grace: u32,
    longest: Duration,
}

/// What a round came to, if not to an error.
enum Round {
    Done(usize),
    /// Not all could be held; the threads ran free again after so long.
    GivenUp {
        held_for: Duration,
    },
}

impl Stop<'_> {
    fn run(
        &mut self,
        calls: &mut [Call],
        mut report: Option<&mut Report>,
    ) -> Result<usize, TransactionError> {
        loop {
            let mask = self.lock()?;
            let result = self.round(calls, report.as_deref_mut(), mask);
            self.shared.rendezvous.unlock();
            let _ = sys::set_mask(mask);
            match result? {
                Round::Done(value) => return Ok(value),
                Round::GivenUp { held_for } => {
                    // Open for other initiators, as in `lock`.
                    let _ = sys::set_mask(mask & !bit(SIGNAL));
                    self.pause(held_for);
                    let _ = sys::set_mask(mask);
                }
            }
        }
    }

    /// Who we are. Asked after every sleep with open signals: a handler may have forked meanwhile.
    fn identify(&mut self) -> Result<(), Error> {
        (self.pid, self.tid) = (sys::getpid(), sys::gettid());
        let (pid, owner) = (self.pid as u32, &self.shared.owner);
        let claim = |from| owner.compare_exchange(from, pid, Ordering::AcqRel, Ordering::Acquire);
        match claim(0) {
            Err(other) if other != pid => {
                // A child of vfork, say, which is over.
                let over = sys::tgkill(other as i32, other as i32, 0) == Err(Errno::SRCH);
                let claimed = over && claim(other).is_ok();
                let errno = Errno::PERM;
                claimed.then_some(()).ok_or(Error::Environment { need: Need::OwnMemory, errno })
            }
            _ => Ok(()),
        }
    }

    /// Whether this thread is held and in the middle of its own calls, which a handler (of SIGSYS)
    /// has interrupted: the owner of the lock waits for it.
    fn performs(&self, me: u32) -> bool {
        let held = |epoch| {
            let mut roster = self.shared.roster.iter();
            roster.any(|entry| entry.tid() == me && entry.is_held(epoch))
        };
        self.shared.rendezvous.committing().is_some_and(held)
    }

    /// Takes the lock, with all signals blocked from then on. Returns the mask of before.
    fn lock(&mut self) -> Result<Mask, Error> {
        let environment = |errno| Error::Environment { need: Need::Mask, errno };
        let mask = sys::set_mask(sys::ALL).map_err(environment)?;
        let locked = self.take_turn(mask);
        if locked.is_err() {
            let _ = sys::set_mask(mask);
        }
        locked.map(|()| mask)
    }

    /// Waits for the lock, and takes it. While it sleeps, signals are open, ours in any case: another
    /// initiator must be able to stop us. Ends: the owner ends by its own deadline, or is found dead,
    /// or our deadline passes.
    fn take_turn(&mut self, mask: Mask) -> Result<(), Error> {
        let rendezvous = &self.shared.rendezvous;
        let mut slept = false;
        loop {
            self.identify()?;
            let me = self.tid as u32;
            let Err(owner) = rendezvous.try_lock(me, slept) else { return Ok(()) };
            if owner == me || self.performs(me) {
                return Err(Error::Reentered);
            }
            // Asked each time: other initiators may stop us so often that no sleep is a long one.
            if slept && sys::now() >= self.until {
                return Err(Error::Busy { tid: owner as i32 });
            }
            let _ = sys::set_mask(mask & !bit(SIGNAL));
            slept = true;
            let woken = rendezvous.sleep_on_lock(Some(PATIENCE));
            let _ = sys::set_mask(sys::ALL);
            if !woken && self.gone(owner) {
                match rendezvous.inherit_lock(owner, me) {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(()) => divergence::lost("a thread died in the middle of a broadcast"),
                }
            }
        }
    }

    /// One attempt, from opening to release, under the lock.
    fn round(
        &mut self,
        calls: &mut [Call],
        report: Option<&mut Report>,
        mask: Mask,
    ) -> Result<Round, TransactionError> {
        let shared = self.shared;
        self.make_reachable()?;
        let mut tasks = Tasks::open(self.pid);
        if self.rounds > 0 {
            tasks.check_numbers(self.tid);
        }
        shared.roster.begin(|tid| sys::tgkill(self.pid, tid as i32, 0) != Err(Errno::SRCH));
        let memory = |errno| Error::Environment { need: Need::Memory, errno };
        let expected = tasks.count().unwrap_or(0);
        shared.roster.reserve(expected.saturating_add(expected / 4)).map_err(memory)?;
        shared.plan.store(calls.as_ptr() as usize, Ordering::Release);
        shared.planned.store(0, Ordering::Release);

        let guess = if self.rounds == 0 { expected } else { 0 };
        self.rounds = self.rounds.saturating_add(1);
        let opened = sys::now();
        let epoch = shared.rendezvous.open(self.tid as u32);
        let mut gather = Gather {
            shared,
            tasks: &mut tasks,
            pid: self.pid,
            tid: self.tid,
            epoch,
            queue_full: false,
        };
        let gathered = gather.run(guess);
        let queue_full = gather.queue_full;
        match gathered {
            Err(errno) => {
                shared.rendezvous.release();
                shared.roster.keep();
                Err(Error::Environment { need: Need::Threads, errno }.into())
            }
            Ok(None) => {
                shared.rendezvous.release();
                shared.roster.keep();
                let now = sys::now();
                let held_for = sys::difference(now, opened);
                self.longest = self.longest.max(held_for);
                if now < self.until {
                    Ok(Round::GivenUp { held_for })
                } else if queue_full {
                    Err(Error::SignalQueueFull.into())
                } else {
                    let unreachable = self.name_stragglers(&tasks, epoch);
                    self.grace = self.grace.saturating_sub(1);
                    if unreachable.total == 0 && self.grace > 0 {
                        return Ok(Round::GivenUp { held_for });
                    }
                    Err(Error::Unreachable(unreachable).into())
                }
            }
            Ok(Some(held)) => {
                // A filter that the call brings may forbid close(2).
                drop(tasks);
                self.commit(calls, report, mask, epoch, held, opened)
            }
        }
    }

    /// All are held. The caller's own calls, then everybody's; the judgement; the release.
    fn commit(
        &mut self,
        calls: &mut [Call],
        report: Option<&mut Report>,
        mask: Mask,
        epoch: u32,
        held: u32,
        opened: Duration,
    ) -> Result<Round, TransactionError> {
        let shared = self.shared;
        let rendezvous = &shared.rendezvous;
        let form = self.settings.form;
        let rooms = report.as_ref().map(|_| Rooms::new(held as usize, form, shared));
        let mut rooms = match rooms.transpose() {
            Ok(rooms) => rooms,
            Err(errno) => {
                rendezvous.release();
                return Err(Error::Environment { need: Need::Memory, errno }.into());
            }
        };
        // A filter may forbid clock_gettime(2) as well, and restart_syscall(2), which a futex with a
        // deadline turns into when the process is stopped and continued.
        let filter = calls.iter().any(Call::installs_filter);
        // It is not there yet where it comes last, by the kernel.
        let filtered = calls.iter().take(together(calls)).any(Call::installs_filter);
        self.longest = self.longest.max(sys::difference(sys::now(), opened));
        let place = rooms.as_ref().map_or(Place::NONE, |rooms| rooms.answers.take(self.tid));
        let together = together(calls);
        let mut result = self.act(calls, 0..together, place, mask);
        let made = match &result {
            Ok(_) => together,
            Err(TransactionError::Partial(partial)) => partial.index,
            Err(TransactionError::Unchanged(_)) => {
                rendezvous.release();
                return result.map(Round::Done);
            }
        };
        let stay = result.is_ok() && together < calls.len();
        shared.planned.store(made, Ordering::Release);
        shared.stay.store(u32::from(stay), Ordering::Release);
        let answers = rooms.as_ref().map_or(0, |rooms| ptr::from_ref(&rooms.answers) as usize);
        shared.answers.store(answers, Ordering::Release);
        if !rendezvous.publish(epoch, held) {
            divergence::lost("a broadcast was ended behind its caller's back");
        }
        while !rendezvous.await_reports((!filtered).then_some(PATIENCE)) {
            for entry in shared.roster.iter().filter(|entry| entry.is_held(epoch)) {
                if self.gone(entry.tid()) {
                    rendezvous.bury(entry, epoch);
                }
            }
        }
        let differs = |e: &&Entry| matches!(e.mark(), Mark::Differs(_) | Mark::Died);
        let divergent = shared.roster.iter().filter(differs).count();
        if divergent > 0 {
            divergence::judge(self.settings.sensitivity, calls, shared.roster.iter());
        }
        if stay {
            result = self.act(calls, together..calls.len(), place, mask);
        }
        if let Some(rooms) = &mut rooms {
            rooms.fill(shared);
        }
        rendezvous.release();
        if !filter {
            self.longest = self.longest.max(sys::difference(sys::now(), opened));
        }
        let value = result?;
        if let (Some(report), Some(rooms)) = (report, rooms) {
            report.value = value;
            report.results = rooms.results;
            report.exempt = rooms.exempt;
            report.divergent = divergent;
            report.rounds = self.rounds;
            report.longest_freeze = self.longest;
            report.answers = rooms.answers;
        }
        Ok(Round::Done(value))
    }

    /// As [`act`], with everybody held.
    fn act(
        &self,
        calls: &mut [Call],
        these: Range<usize>,
        place: Place,
        mask: Mask,
    ) -> Result<usize, TransactionError> {
        let _ = sys::set_mask(around_calls(mask));
        let result = act(calls, these, place, self.settings);
        let _ = sys::set_mask(sys::ALL);
        result
    }

    fn make_reachable(&self) -> Result<(), Error> {
        let shared = self.shared;
        let reached = || {
            shared.reached.store(0, Ordering::Release);
            let sent = sys::queue_signal(self.pid, self.tid, ptr::from_ref(shared) as usize);
            if sent.is_ok() {
                // It is delivered before this call returns.
                let _ = sys::set_mask(sys::ALL & !bit(SIGNAL));
                let _ = sys::set_mask(sys::ALL);
            }
            shared.reached.load(Ordering::Acquire) != 0
        };
        let chained = signal::ensure(visit, reached)
            .map_err(|errno| Error::Environment { need: Need::Handler, errno })?;
        shared.chained.store(u32::from(chained), Ordering::Release);
        Ok(())
    }

    /// Lets the process run for at least as long as it was held, longer each time, with some jitter
    /// so that it does not fall into step with a thread's own rhythm. Signals are open.
    fn pause(&self, held_for: Duration) {
        let backoff = Duration::from_millis(1 << self.rounds.min(6)).min(PAUSE);
        let now = sys::now();
        let jitter = Duration::from_micros(u64::from(now.subsec_nanos() % 997));
        let until = sys::sum(sys::sum(now, backoff.max(held_for)), jitter);
        let never = crate::sys::sync::AtomicU32::new(0);
        loop {
            let rest = sys::difference(until, sys::now());
            if rest.is_zero() || !futex::wait(&never, 0, Some(rest)) {
                return;
            }
        }
    }

    /// Dead, for certain: the task is no more, or is a zombie.
    fn gone(&self, tid: u32) -> bool {
        gone(self.pid, tid)
    }

    /// The threads that were not held when the last round ended, and still would not be; none if
    /// all of them are gone. Those that wait for a CPU, or have answered since, are not to blame, unless
    /// there is nobody else.
    fn name_stragglers(&self, tasks: &Tasks, epoch: u32) -> Unreachable {
        let hindered =
            self.name_those(tasks, epoch, |living| !living.wants_cpu() && living.hears_nothing());
        if hindered.total > 0 { hindered } else { self.name_those(tasks, epoch, |_| true) }
    }

    fn name_those(
        &self,
        tasks: &Tasks,
        epoch: u32,
        are_meant: impl Fn(&Living) -> bool,
    ) -> Unreachable {
        let roster = &self.shared.roster;
        let room = roster.iter().filter(|entry| !entry.is_held(epoch)).count();
        let mut threads = Records::with_capacity(room).unwrap_or(Records::EMPTY);
        let mut total = 0usize;
        // SAFETY: the scratch belongs to the owner of the lock, and this is its only use.
        let scratch = unsafe { &mut *self.shared.scratch.get() };
        let _ = tasks.sweep(scratch, &mut |task| {
            let entry = roster.find(task.tid as u32);
            if task.tid == self.tid || entry.is_some_and(|entry| entry.is_held(epoch)) {
                return Ok(());
            }
            let (state, name, obstacle) = match tasks.look(task) {
                Look::Gone | Look::Exempt { .. } => return Ok(()),
                Look::Unknown => (b'?', [0; 16], Obstacle::Unknown),
                Look::Living(living) => {
                    let forbidden = entry.is_some_and(|entry| entry.value() == FORBIDDEN);
                    if !forbidden && !are_meant(&living) {
                        return Ok(());
                    }
                    let obstacle =
                        if forbidden { Obstacle::Forbidden } else { tasks.obstacle(task, &living) };
                    (living.state, living.name, obstacle)
                }
            };
            total = total.saturating_add(1);
            threads.push(Straggler { tid: task.tid, name, state, obstacle });
            Ok(())
        });
        Unreachable { deadline: self.settings.deadline, total, threads }
    }
}

/// Beside an entry whose thread could not be signalled, because EPERM said so.
const FORBIDDEN: usize = 1;

fn gone(pid: i32, tid: u32) -> bool {
    sys::tgkill(pid, tid as i32, 0) == Err(Errno::SRCH) || sys::is_dead(tid as i32)
}

/// Memory for a report, made before anything has changed.
struct Rooms {
    results: Records<ThreadResult>,
    exempt: Records<Exempt>,
    answers: Answers,
}

impl Rooms {
    fn new(held: usize, form: Form, shared: &Shared) -> Result<Self, Errno> {
        let exempt = shared.roster.iter().filter(|e| matches!(e.mark(), Mark::Exempt(_))).count();
        let answers = match form.calls {
            0 => Answers::none(),
            _ => Answers::new(form, held.saturating_add(1))?,
        };
        let results = Records::with_capacity(held)?;
        Ok(Self { results, exempt: Records::with_capacity(exempt)?, answers })
    }

    fn fill(&mut self, shared: &Shared) {
        for entry in shared.roster.iter().filter(|entry| entry.tid() != 0) {
            let tid = entry.tid() as i32;
            let (call, outcome) = match entry.mark() {
                Mark::Agreed(call) | Mark::Differs(call) => {
                    let outcome = match Errno::check(entry.value() as isize) {
                        Ok(value) => Outcome::Returned(value),
                        Err(errno) => Outcome::Failed(errno),
                    };
                    (call as usize, outcome)
                }
                Mark::Died => (0, Outcome::Died),
                Mark::Exempt(_) => {
                    let reason = ExemptReason::of(entry.value());
                    self.exempt.push(Exempt { tid, reason });
                    continue;
                }
                _ => continue,
            };
            self.results.push(ThreadResult { tid, call, outcome });
        }
    }
}

/// The handler's half: what a signal means to this thread.
fn visit(info: &SigInfo, interrupted: Mask) -> bool {
    if info.code != sys::SI_QUEUE {
        return false;
    }
    let Some(shared) = shared() else { return false };
    if info.value == ptr::from_ref(shared) as usize {
        shared.reached.store(1, Ordering::Release);
        return true;
    }
    let Some(entry) = shared.roster.owns(info.value) else { return false };
    if shared.chained.load(Ordering::Acquire) != 0 {
        let _ = sys::set_mask(sys::ALL);
    }
    let pid = shared.owner.load(Ordering::Relaxed) as i32;
    shared.rendezvous.visit(
        entry,
        sys::gettid() as u32,
        |tid| gone(pid, tid),
        || carry_out(shared, entry.tid() as i32, interrupted),
    );
    true
}

/// What every held thread performs.
fn carry_out(shared: &Shared, tid: i32, interrupted: Mask) -> Verdict {
    let plan = shared.plan.load(Ordering::Acquire) as *const Call;
    let planned = shared.planned.load(Ordering::Acquire);
    // SAFETY: between `publish` and this thread's report the caller keeps them as they are.
    let calls = unsafe { core::slice::from_raw_parts(plan, planned) };
    if interrupted & bit(SIGSYS) == 0 {
        let _ = sys::set_mask(sys::ALL & !bit(SIGSYS));
    }
    let answers = shared.answers.load(Ordering::Acquire) as *const Answers;
    // SAFETY: as the calls; null if nothing is asked.
    let place = unsafe { answers.as_ref() }.map_or(Place::NONE, |answers| answers.take(tid));
    let stays = shared.stay.load(Ordering::Acquire) != 0;
    let mut verdict = Verdict { index: 0, result: 0, agreed: true, stays };
    for (index, call) in calls.iter().enumerate() {
        // SAFETY: `perform`'s caller has promised that the call is sound in every thread.
        let result = unsafe { sys::any(call.nr, &call.args_at(place.bytes())) };
        place.keep(index, result);
        verdict = Verdict { index: index as u32, result, agreed: call.agrees(result), stays };
        if !verdict.agreed {
            break;
        }
    }
    if stays || !verdict.agreed {
        let _ = sys::set_mask(sys::ALL);
    }
    verdict
}
