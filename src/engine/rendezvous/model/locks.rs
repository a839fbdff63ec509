//! The lock with several initiators, and with a dead owner.

use super::*;

/// Takes the lock, sleeping if it must. The owner `dead` is known to be dead.
pub(super) fn lock(world: &World, me: u32, dead: u32) {
    let mut slept = false;
    while let Err(owner) = world.rendezvous.try_lock(me, slept) {
        if owner == dead && world.rendezvous.inherit_lock(owner, me) {
            world.rendezvous.abandon();
            return;
        }
        slept = true;
        world.rendezvous.sleep_on_lock(None);
    }
}

fn take_turns(initiators: u32, dead: u32, preemptions: usize) {
    model(preemptions, move || {
        let world = world(0);
        if dead != 0 {
            world.rendezvous.try_lock(dead, false).unwrap();
        }
        let inside = Arc::new(AtomicUsize::new(0));
        let initiate = move |world: Arc<World>, inside: Arc<AtomicUsize>, me: u32| {
            lock(&world, me, dead);
            assert_eq!(inside.fetch_add(1, SeqCst), 0, "two inside");
            assert!(world.rendezvous.is_locked_by(me));
            inside.fetch_sub(1, SeqCst);
            world.rendezvous.unlock(me);
        };
        let others: Vec<_> = (1..initiators)
            .map(|n| {
                let (world, inside) = (world.clone(), inside.clone());
                thread::spawn(move || initiate(world, inside, 10 + n))
            })
            .collect();
        initiate(world.clone(), inside.clone(), 10);
        join(others);
        assert_eq!(world.rendezvous.try_lock(5, false), Ok(()));
    });
}

/// Three initiators: one at a time, and each that sleeps is woken.
#[test]
fn three_initiators() {
    take_turns(3, 0, 2);
}

/// The owner is dead, and two initiators sleep: one inherits the lock and wakes the other.
#[test]
fn a_dead_owner_with_sleepers() {
    take_turns(2, 7, 3);
}

/// The owner dies when another initiator sleeps already: its sleep has a time limit, and then it inherits.
#[test]
fn the_owner_dies_before_the_sleeper_looks() {
    model(3, || {
        let world = world(0);
        world.rendezvous.try_lock(7, false).unwrap();
        let dead = Arc::new(AtomicUsize::new(0));
        let sleeper = {
            let (world, dead) = (world.clone(), dead.clone());
            thread::spawn(move || {
                let mut slept = false;
                while let Err(owner) = world.rendezvous.try_lock(2, slept) {
                    if dead.load(SeqCst) == 1 && world.rendezvous.inherit_lock(owner, 2) {
                        break;
                    }
                    slept = true;
                    world.rendezvous.sleep_on_lock(Some(Duration::ZERO));
                    thread::yield_now();
                }
                world.rendezvous.unlock(2);
            })
        };
        dead.store(1, SeqCst);
        crate::sys::futex::expire();
        sleeper.join().unwrap();
        assert_eq!(world.rendezvous.try_lock(5, false), Ok(()));
    });
}
