//! One round, or one stop, beside the next.

use super::*;
use crate::sys::futex;

/// A round is given up over a held thread. In the next one `all_asleep` counts the threads that sleep on the gate for
/// that round, and no thread of the earlier one.
#[test]
fn all_asleep_counts_this_round() {
    model(2, || {
        let world = world(2);
        let first = world.rendezvous.open(CALLER);
        let threads: Vec<_> = (0..2)
            .map(|i| {
                let world = world.clone();
                thread::spawn(move || {
                    if i == 1 {
                        while world.rendezvous.state().epoch == first {
                            thread::yield_now();
                        }
                    }
                    visit(&world, i, true, false);
                    world.left.fetch_add(1, SeqCst);
                })
            })
            .collect();
        while world.rendezvous.await_arrivals(1, Duration::ZERO) < 1 {
            thread::yield_now();
        }
        world.rendezvous.give_up();
        let epoch = world.rendezvous.open(CALLER);
        hold(&world, epoch, 1);
        // The thread of the first round may be on its way out, and is not on the gate.
        if world.rendezvous.all_asleep(1) == Some(true) {
            assert!(world.entries[1].is_held(epoch));
            assert!(world.left.load(SeqCst) < 2);
        }
        assert_ne!(world.rendezvous.all_asleep(2), Some(true));
        commit(&world, epoch, 1);
        join(threads);
    });
}

/// No thread hands the release over (the one that was woken died): the next stop wakes the stale sleeper as it opens.
#[test]
fn the_next_stop_wakes_a_stale_sleeper() {
    model(2, || {
        let world = world(1);
        let epoch = world.rendezvous.open(CALLER);
        let threads = spawn(&world, 1, false);
        hold(&world, epoch, 1);
        perform(&world, epoch, 1);
        world.judged.store(1, SeqCst);
        // `release` without its wake-up: it went to a thread that is dead.
        world.rendezvous.close();
        world.rendezvous.exit.fetch_add(1, SeqCst);
        world.rendezvous.open(CALLER);
        world.rendezvous.wake_leavers();
        join(threads);
        world.rendezvous.release();
    });
}

/// The same without a next stop: the wait of a watch expires.
#[test]
fn a_watch_replaces_a_lost_hand_over() {
    model(2, || {
        let world = world(2);
        let epoch = world.rendezvous.open(CALLER);
        let threads = spawn(&world, 2, false);
        hold(&world, epoch, 2);
        perform(&world, epoch, 2);
        world.judged.store(1, SeqCst);
        world.rendezvous.close();
        world.rendezvous.exit.fetch_add(1, SeqCst);
        futex::expire();
        join(threads);
    });
}

/// Two stops in a row by two initiators, with one held thread and no pause between them.
#[test]
fn two_initiators_stop_one_thread() {
    model(1, || {
        let world = world(1);
        let held = {
            let world = world.clone();
            thread::spawn(move || {
                // Its signals come when a stop is open.
                for stop in 1..=2 {
                    while world.rendezvous.state().epoch < stop {
                        thread::yield_now();
                    }
                    visit(&world, 0, true, false);
                }
            })
        };
        let initiate = |world: Arc<World>, me: u32| {
            let mut slept = false;
            while world.rendezvous.try_lock(me, slept).is_err() {
                slept = true;
                world.rendezvous.sleep_on_lock(None);
            }
            world.performed.store(0, SeqCst);
            let epoch = world.rendezvous.open(me);
            hold(&world, epoch, 1);
            commit(&world, epoch, 1);
            world.rendezvous.unlock(me);
        };
        let other = {
            let world = world.clone();
            thread::spawn(move || initiate(world, 2))
        };
        initiate(world.clone(), CALLER);
        other.join().unwrap();
        held.join().unwrap();
    });
}
