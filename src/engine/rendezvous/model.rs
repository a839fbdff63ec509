//! The rendezvous as it is written, in every interleaving that loom finds for a small case. A lost wake-up shows as a
//! deadlock. Run with `RUSTFLAGS="--cfg loom" cargo test --release -p libpsx --lib`.

extern crate std;

mod data;
mod deaths;
mod entries;
mod locks;
mod rounds;

use std::vec::Vec;

use core::cell::Cell;
use core::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::{CallResult, Phase, Rendezvous, Thread, pause};
use crate::engine::entry::{Entry, ThreadState};
use crate::sys::sync::Ordering::SeqCst;

const CALLER: u32 = 1;

struct World {
    rendezvous: Rendezvous,
    entries: Vec<Entry>,
    /// How many performed the call.
    performed: AtomicUsize,
    /// Raised when the caller has the new state.
    new_state: AtomicUsize,
    /// Raised when the caller has judged.
    judged: AtomicUsize,
    /// Raised when a thread has died.
    dead: AtomicUsize,
    /// Whether a signal was sent again: 0 not known yet, 1 no, 2 yes.
    resent: AtomicUsize,
    /// How many have left the handler.
    left: AtomicUsize,
}

fn world(threads: u32) -> Arc<World> {
    let entries = (0..threads).map(|i| Entry::new(10 + i, ThreadState::Sent)).collect();
    Arc::new(World {
        rendezvous: Rendezvous::new(),
        entries,
        performed: AtomicUsize::new(0),
        new_state: AtomicUsize::new(0),
        judged: AtomicUsize::new(0),
        dead: AtomicUsize::new(0),
        resent: AtomicUsize::new(0),
        left: AtomicUsize::new(0),
    })
}

fn model(preemptions: usize, case: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(case);
}

/// One thread of the model in its handler.
struct Held<'a> {
    world: &'a World,
    tid: u32,
    agrees: bool,
    caller_is_dead: bool,
    performs: Cell<bool>,
}

impl Thread for Held<'_> {
    fn perform_calls(&self) -> CallResult {
        assert_eq!(self.world.new_state.load(SeqCst), 1, "performed before the caller");
        self.world.performed.fetch_add(1, SeqCst);
        self.performs.set(true);
        CallResult { index: 0, result: 7, agreed: self.agrees }
    }

    fn is_dead_thread(&self, tid: u32) -> bool {
        tid == CALLER && self.caller_is_dead
    }

    fn check_on_caller(&self) {
        thread::yield_now();
    }

    /// As the handler does it, but that no held thread dies here.
    fn take_over(&self, caller: u32) {
        let rendezvous = &self.world.rendezvous;
        if rendezvous.inherit_lock(caller, self.tid) {
            if rendezvous.state().phase == Phase::Committing {
                while !rendezvous.await_reports(None) {}
                self.world.judged.store(1, SeqCst);
            }
            rendezvous.abandon();
            rendezvous.unlock(self.tid);
        } else {
            // Another watchdog does it. Its time has come, in a model in which all time is over.
            thread::yield_now();
        }
    }
}

/// P3: a thread that has performed the call leaves only when every thread has, and after the judgement.
fn visit(world: &World, index: usize, agrees: bool, caller_is_dead: bool) {
    let tid = 10 + index as u32;
    visit_with(world, index, tid, agrees, caller_is_dead);
}

/// The thread `tid` takes a signal that carries the entry `index`.
fn visit_as(world: &World, index: usize, tid: u32) {
    visit_with(world, index, tid, true, false);
}

/// Threads that take their signals, in any order. Their results agree.
fn spawn(world: &Arc<World>, count: usize, caller_is_dead: bool) -> Vec<thread::JoinHandle<()>> {
    (0..count).map(|index| spawn_one(world, index, true, caller_is_dead)).collect()
}

fn spawn_one(
    world: &Arc<World>,
    index: usize,
    agrees: bool,
    caller_is_dead: bool,
) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || visit(&world, index, agrees, caller_is_dead))
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn visit_with(world: &World, index: usize, tid: u32, agrees: bool, caller_is_dead: bool) {
    let entry = &world.entries[index];
    let held = Held { world, tid, agrees, caller_is_dead, performs: Cell::new(false) };
    world.rendezvous.visit(entry, tid, &held);
    if held.performs.get() {
        assert_eq!(world.judged.load(SeqCst), 1, "left before the judgement");
    }
}

/// Gathers until all are held, as the engine does with a proof in place of `count`.
fn gather(world: &World, count: u32) -> u32 {
    let epoch = world.rendezvous.open(CALLER);
    hold(world, epoch, count);
    epoch
}

/// Waits until so many have come, and closes the gate over them.
fn hold(world: &World, epoch: u32, count: u32) {
    world.rendezvous.wake_leavers();
    while world.rendezvous.await_arrivals(count, Duration::ZERO) < count {
        thread::yield_now();
    }
    assert!(world.rendezvous.close_gate(epoch, count));
}

/// The caller has made its calls; all `count` held threads make theirs and report.
fn perform(world: &World, epoch: u32, count: u32) {
    world.new_state.store(1, SeqCst);
    assert!(world.rendezvous.publish(epoch, count));
    assert!(world.rendezvous.await_reports(None));
}

fn commit(world: &World, epoch: u32, count: u32) {
    perform(world, epoch, count);
    assert_eq!(world.performed.load(SeqCst), count as usize);
    world.judged.store(1, SeqCst);
    world.rendezvous.release();
}

/// Opens a round and gives it up; another is to follow.
fn give_up_a_round(world: &World) {
    let epoch = world.rendezvous.open(CALLER);
    world.rendezvous.begin_pause(epoch);
    world.rendezvous.give_up();
}

/// The last round: one thread is held by now, and performs the calls, or the call ends without.
fn commit_if_one_is_held(world: &World) {
    let epoch = world.rendezvous.open(CALLER);
    if world.rendezvous.close_gate(epoch, 1) {
        commit(world, epoch, 1);
    } else {
        world.rendezvous.release();
    }
    world.rendezvous.end_every_pause();
}

/// A caller and two threads whose signals arrive whenever they like: held for the stop or, before
/// it opens, sent again.
#[test]
fn caller_and_two_threads() {
    model(2, || {
        let world = world(2);
        let epoch = world.rendezvous.open(CALLER);
        let threads = (0..2).map(|i| spawn_one(&world, i, i == 0, false)).collect();
        hold(&world, epoch, 2);
        commit(&world, epoch, 2);
        assert!(matches!(world.entries[0].state(), ThreadState::Agreed(0)));
        assert!(matches!(world.entries[1].state(), ThreadState::Differs(0)));
        join(threads);
    });
}

/// Two threads perform a second part, after a call that the caller made alone.
#[test]
fn a_second_part() {
    model(1, || {
        let world = world(2);
        let epoch = world.rendezvous.open(CALLER);
        let threads = (0..2).map(|i| spawn_one(&world, i, i == 0, false)).collect();
        hold(&world, epoch, 2);
        perform(&world, epoch, 2);
        let next = world.rendezvous.next_epoch();
        // Thread 1 differs, and performs no further call.
        assert!(world.entries[0].exchange(10, ThreadState::Agreed(0), ThreadState::held(next)));
        assert_eq!(world.rendezvous.publish_again(1), next);
        assert!(world.rendezvous.await_reports(None));
        assert_eq!(world.performed.load(SeqCst), 3);
        world.judged.store(1, SeqCst);
        world.rendezvous.release();
        join(threads);
    });
}

/// Three threads leave: the caller wakes one, and the others are woken by those that leave. Then a second stop
/// opens while some may still sleep.
#[test]
fn the_release_is_handed_over() {
    model(1, || {
        let world = world(2);
        let epoch = world.rendezvous.open(CALLER);
        let threads: Vec<_> = (0..2)
            .map(|i| {
                let world = world.clone();
                thread::spawn(move || {
                    visit(&world, i, true, false);
                    // The signal of the second stop comes when that is open, and is taken here at once.
                    while world.rendezvous.state().epoch == epoch {
                        thread::yield_now();
                    }
                    visit(&world, i, true, false);
                })
            })
            .collect();
        hold(&world, epoch, 2);
        commit(&world, epoch, 2);
        world.performed.store(0, SeqCst);
        let epoch = gather(&world, 2);
        commit(&world, epoch, 2);
        join(threads);
    });
}

/// A round is given up while a thread arrives: it goes free, or was never counted. It is signalled again and is held in
/// the next one; no thread is counted in a round that it is not held for.
#[test]
fn repeated_round() {
    model(3, || {
        let world = world(1);
        world.rendezvous.open(CALLER);
        let late = spawn_one(&world, 0, true, false);
        world.rendezvous.release();
        // A thread that is counted now is held for this round and performs.
        let epoch = world.rendezvous.open(CALLER);
        if world.rendezvous.close_gate(epoch, 1) {
            commit(&world, epoch, 1);
        } else {
            world.rendezvous.release();
        }
        late.join().unwrap();
        let done = world.performed.load(SeqCst);
        assert_eq!(done, world.new_state.load(SeqCst));
    });
}

/// A late signal of an abandoned call: either it uses up the entry's mark, and the next gather sends again, or it
/// arrives in that gather.
#[test]
fn late_signal() {
    model(3, || {
        let world = world(1);
        let late = spawn_one(&world, 0, true, false);
        let epoch = world.rendezvous.open(CALLER);
        // The caller's sweeps look at the entry until the signal has had an effect.
        while world.entries[0].state() == ThreadState::Sent {
            thread::yield_now();
        }
        // A thread takes a second signal when it has left the handler, not before.
        let last = if world.entries[0].state() == ThreadState::Idle {
            let world = world.clone();
            thread::spawn(move || {
                late.join().unwrap();
                visit(&world, 0, true, false);
            })
        } else {
            late
        };
        while world.rendezvous.await_arrivals(1, Duration::ZERO) < 1 {
            thread::yield_now();
        }
        assert!(world.rendezvous.close_gate(epoch, 1));
        commit(&world, epoch, 1);
        last.join().unwrap();
    });
}

/// A thread that arrives in the pause waits for the next round and is held in it, or its wait is over first and it goes
/// on; in neither case does it sleep for ever.
#[test]
fn a_pause_keeps_a_late_thread() {
    model(3, || {
        let world = world(1);
        let epoch = world.rendezvous.open(CALLER);
        world.rendezvous.begin_pause(epoch);
        world.rendezvous.release();
        let late = spawn_one(&world, 0, true, false);
        commit_if_one_is_held(&world);
        late.join().unwrap();
        assert_eq!(world.performed.load(SeqCst), world.new_state.load(SeqCst));
    });
}

/// A thread that arrived in a pause stays for the next one if that round is given up too. In the round after that, its mark
/// says that its signal is on its way, or that it is held.
#[test]
fn a_late_thread_stays_for_a_second_pause() {
    model(3, || {
        let world = world(1);
        give_up_a_round(&world);
        let late = spawn_one(&world, 0, true, false);
        give_up_a_round(&world);
        commit_if_one_is_held(&world);
        late.join().unwrap();
        assert_eq!(world.performed.load(SeqCst), world.new_state.load(SeqCst));
        assert_ne!(world.entries[0].state(), ThreadState::Sent);
    });
}

/// The pause after the second round is free: the thread leaves, though no other round opens.
#[test]
fn a_free_pause_keeps_no_thread() {
    model(3, || {
        let world = world(1);
        world.rendezvous.pauses.store(pause::PAUSES_TO_A_FREE_ONE - 2, SeqCst);
        give_up_a_round(&world);
        let late = spawn_one(&world, 0, true, false);
        give_up_a_round(&world);
        late.join().unwrap();
        assert_ne!(world.entries[0].state(), ThreadState::Sent);
        assert_eq!(world.performed.load(SeqCst), 0);
    });
}

/// The caller dies before it publishes: a watchdog ends the stop and frees the lock, and no thread performs anything.
#[test]
fn the_caller_dies_before_it_publishes() {
    model(2, || {
        let world = world(2);
        world.rendezvous.try_lock(CALLER, false).unwrap();
        world.rendezvous.open(CALLER);
        let threads = spawn(&world, 2, true);
        crate::sys::futex::expire();
        join(threads);
        assert_eq!(world.performed.load(SeqCst), 0);
        assert_eq!(world.rendezvous.try_lock(2, false), Ok(()));
    });
}

/// The caller dies after it has published: a watchdog waits for the reports, ends the stop and frees the lock.
#[test]
fn the_caller_dies_after_it_has_published() {
    model(2, || {
        let world = world(2);
        world.rendezvous.try_lock(CALLER, false).unwrap();
        let epoch = world.rendezvous.open(CALLER);
        // Dead for certain when the waits expire, which is below.
        let threads = spawn(&world, 2, true);
        hold(&world, epoch, 2);
        world.new_state.store(1, SeqCst);
        assert!(world.rendezvous.publish(epoch, 2));
        crate::sys::futex::expire();
        join(threads);
        assert_eq!(world.performed.load(SeqCst), 2);
        assert_eq!(world.rendezvous.try_lock(2, false), Ok(()));
    });
}

/// Two initiators: one at a time, and the one that sleeps is woken.
#[test]
fn two_initiators() {
    model(3, || {
        let world = world(0);
        let inside = Arc::new(AtomicUsize::new(0));
        let initiate = |world: Arc<World>, inside: Arc<AtomicUsize>, me: u32| {
            // No owner dies.
            locks::lock(&world, me, 0);
            assert_eq!(inside.fetch_add(1, SeqCst), 0);
            let epoch = gather(&world, 0);
            assert!(world.rendezvous.publish(epoch, 0));
            world.rendezvous.release();
            inside.fetch_sub(1, SeqCst);
            world.rendezvous.unlock(me);
        };
        let other = {
            let (world, inside) = (world.clone(), inside.clone());
            thread::spawn(move || initiate(world, inside, 2))
        };
        initiate(world, inside, CALLER);
        other.join().unwrap();
    });
}
