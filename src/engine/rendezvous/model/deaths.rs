//! A thread, or the caller, dies.

use super::*;
use crate::sys::futex;

/// A thread that its own filter kills in the published call: it arrives and gets the plan, and makes no report.
fn dies_in_its_call(world: &World, index: usize) {
    let entry = &world.entries[index];
    let tid = entry.tid();
    let held = Held { world, tid, agrees: true, caller_is_dead: false, performs: Cell::new(false) };
    let Some((epoch, count)) = world.rendezvous.arrive(entry, tid, &mut false) else { return };
    let awaited = world.rendezvous.awaited.load(SeqCst);
    if awaited == count | super::super::ASLEEP {
        world.rendezvous.wake_caller();
    }
    assert!(world.rendezvous.await_plan(epoch, false, &held));
    entry.set_value(0);
    world.dead.store(1, SeqCst);
    // The wait of the caller expires some time after this.
    futex::expire();
}

/// A held thread dies in COMMITTING, before or after the other thread reports: the caller writes it off once, judges
/// and releases the other.
#[test]
fn a_held_thread_dies_in_its_call() {
    model(2, || {
        let world = world(2);
        let epoch = world.rendezvous.open(CALLER);
        let dying = {
            let world = world.clone();
            thread::spawn(move || dies_in_its_call(&world, 0))
        };
        let other = spawn_one(&world, 1, true, false);
        hold(&world, epoch, 2);
        world.new_state.store(1, SeqCst);
        assert!(world.rendezvous.publish(epoch, 2));
        let mut written_off = 0;
        while !world.rendezvous.await_reports(Some(Duration::ZERO)) {
            world.rendezvous.wake_again();
            if world.dead.load(SeqCst) == 1
                && world.rendezvous.report_death(&world.entries[0], epoch)
            {
                written_off += 1;
            }
            thread::yield_now();
        }
        assert_eq!(written_off, 1);
        assert!(!world.rendezvous.report_death(&world.entries[0], epoch));
        assert_eq!(world.entries[0].state(), ThreadState::Died(0));
        assert_eq!(world.entries[1].state(), ThreadState::Agreed(0));
        assert_eq!(world.performed.load(SeqCst), 1);
        world.judged.store(1, SeqCst);
        world.rendezvous.release();
        dying.join().unwrap();
        other.join().unwrap();
    });
}

/// The caller writes a thread off that reports at this moment after all (FUTEX_TRYLOCK_PI may have been answered by a
/// filter): the report counts once.
#[test]
fn a_report_beside_a_report_death() {
    model(3, || {
        let world = world(1);
        let epoch = world.rendezvous.open(CALLER);
        let reporter = spawn_one(&world, 0, true, false);
        hold(&world, epoch, 1);
        world.new_state.store(1, SeqCst);
        assert!(world.rendezvous.publish(epoch, 1));
        let written_off = world.rendezvous.report_death(&world.entries[0], epoch);
        assert!(world.rendezvous.await_reports(None));
        assert_eq!(world.rendezvous.state().count, 0);
        let mark = world.entries[0].state();
        assert_eq!(matches!(mark, ThreadState::Died(_)), written_off);
        world.judged.store(1, SeqCst);
        world.rendezvous.release();
        reporter.join().unwrap();
    });
}

/// The caller dies in FULL, in its own call: the threads go free, and none performs anything.
#[test]
fn the_caller_dies_in_full() {
    model(2, || {
        let world = world(2);
        world.rendezvous.try_lock(CALLER, false).unwrap();
        let epoch = world.rendezvous.open(CALLER);
        let threads = spawn(&world, 2, true);
        hold(&world, epoch, 2);
        world.new_state.store(1, SeqCst);
        futex::expire();
        join(threads);
        assert_eq!(world.performed.load(SeqCst), 0);
        assert_eq!(world.rendezvous.state().phase, Phase::Closed);
        assert_eq!(world.rendezvous.try_lock(2, false), Ok(()));
    });
}

/// The caller dies in its judgement, when all have reported: a watch judges and releases.
#[test]
fn the_caller_dies_in_the_judgement() {
    model(2, || {
        let world = world(2);
        world.rendezvous.try_lock(CALLER, false).unwrap();
        let epoch = world.rendezvous.open(CALLER);
        let threads = spawn(&world, 2, true);
        hold(&world, epoch, 2);
        perform(&world, epoch, 2);
        futex::expire();
        join(threads);
        assert_eq!(world.performed.load(SeqCst), 2);
        assert_eq!(world.judged.load(SeqCst), 1);
        assert_eq!(world.rendezvous.try_lock(2, false), Ok(()));
    });
}

/// The caller dies between the two steps of `release`: the state is closed, and no thread was woken.
#[test]
fn the_caller_dies_as_it_releases() {
    model(2, || {
        let world = world(1);
        world.rendezvous.try_lock(CALLER, false).unwrap();
        let epoch = world.rendezvous.open(CALLER);
        let threads = spawn(&world, 1, true);
        hold(&world, epoch, 1);
        perform(&world, epoch, 1);
        world.judged.store(1, SeqCst);
        world.rendezvous.close();
        futex::expire();
        join(threads);
        // No watch needs to take over what is closed: the next initiator inherits the lock.
        assert!(
            world.rendezvous.is_locked_by(CALLER) && world.rendezvous.inherit_lock(CALLER, 2)
                || world.rendezvous.try_lock(2, false).is_ok()
        );
    });
}

/// A thread that waits for the lock inherits it from the dead owner while a watch does: one of the two wins, the other
/// waits, and every thread goes free.
#[test]
fn an_initiator_inherits_beside_a_watch() {
    model(2, || {
        let world = world(1);
        world.rendezvous.try_lock(CALLER, false).unwrap();
        world.rendezvous.open(CALLER);
        let held = spawn(&world, 1, true);
        let initiator = {
            let world = world.clone();
            thread::spawn(move || {
                locks::lock(&world, 2, CALLER);
                assert!(world.rendezvous.is_locked_by(2));
                world.rendezvous.unlock(2);
            })
        };
        futex::expire();
        join(held);
        initiator.join().unwrap();
        assert_eq!(world.performed.load(SeqCst), 0);
        assert_eq!(world.rendezvous.try_lock(3, false), Ok(()));
    });
}

/// A stop that was ended in its caller's place cannot be published.
#[test]
fn publish_fails_after_the_end() {
    model(3, || {
        let world = world(1);
        world.rendezvous.try_lock(CALLER, false).unwrap();
        let epoch = world.rendezvous.open(CALLER);
        let threads = spawn(&world, 1, true);
        hold(&world, epoch, 1);
        futex::expire();
        join(threads);
        assert!(!world.rendezvous.publish(epoch, 1));
        assert_eq!(world.performed.load(SeqCst), 0);
    });
}

/// The caller closes the state, and dies before it has woken a thread. The watch looks at this moment and leaves; the
/// other thread is about to sleep, and has no watch any more.
fn the_caller_dies_in_its_release(published: bool) {
    model(2, move || {
        let world = world(2);
        world.rendezvous.try_lock(CALLER, false).unwrap();
        let epoch = world.rendezvous.open(CALLER);
        let threads = spawn(&world, 2, true);
        hold(&world, epoch, 2);
        if published {
            perform(&world, epoch, 2);
        }
        world.judged.store(1, SeqCst);
        futex::expire();
        world.rendezvous.close();
        let word = if published { &world.rendezvous.exit } else { &world.rendezvous.gate };
        word.fetch_add(1, SeqCst);
        join(threads);
    });
}

#[test]
fn the_caller_dies_as_it_gives_up() {
    the_caller_dies_in_its_release(false);
}

#[test]
fn the_caller_dies_as_it_hands_the_release_over() {
    the_caller_dies_in_its_release(true);
}
