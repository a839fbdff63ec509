//! The thread table beside late signals.

use super::*;
use crate::engine::thread_table::ThreadTable;

/// As `Sender::enlist_and_signal`: whether a signal is sent. The mark is read first: one that is read when the thread is
/// held already would be replaced, and the thread's report would not count.
fn send(entry: &Entry, tid: u32, epoch: u32) -> bool {
    let mark = entry.state();
    mark != ThreadState::Sent
        && !entry.is_held(epoch)
        && entry.exchange(tid, mark, ThreadState::Sent)
}

/// The caller believes that a signal was used up (`Gather::full_pass` reads SigPnd while the thread is in its handler
/// already), marks the entry idle, and sends again while the thread arrives. The thread has two signals then. It is
/// held once, and the second signal has no effect after the stop.
#[test]
fn a_full_pass_beside_an_arrival() {
    model(3, || {
        let world = world(1);
        let epoch = world.rendezvous.open(CALLER);
        let sent_again = Arc::new(AtomicUsize::new(0));
        let held = {
            let (world, sent_again) = (world.clone(), sent_again.clone());
            thread::spawn(move || {
                visit(&world, 0, true, false);
                // Blocked until now.
                if sent_again.load(SeqCst) == 1 {
                    visit(&world, 0, true, false);
                }
            })
        };
        let entry = &world.entries[0];
        entry.exchange(10, ThreadState::Sent, ThreadState::Idle);
        sent_again.store(usize::from(send(entry, 10, epoch)), SeqCst);
        hold(&world, epoch, 1);
        commit(&world, epoch, 1);
        held.join().unwrap();
        assert_eq!(world.performed.load(SeqCst), 1);
        assert_eq!(world.rendezvous.state().count, 0);
    });
}

/// Two signals are pending for one thread. The second is taken after the first stop, maybe in the next one: the thread
/// is counted there once.
#[test]
fn two_pending_signals_and_two_stops() {
    model(2, || {
        let world = world(1);
        let epoch = world.rendezvous.open(CALLER);
        let held = {
            let world = world.clone();
            thread::spawn(move || {
                visit(&world, 0, true, false);
                visit(&world, 0, true, false);
                // The caller of the second stop sends again if it finds that no signal is on its way.
                while world.resent.load(SeqCst) == 0 {
                    thread::yield_now();
                }
                if world.resent.load(SeqCst) == 2 {
                    visit(&world, 0, true, false);
                }
            })
        };
        hold(&world, epoch, 1);
        commit(&world, epoch, 1);
        world.performed.store(0, SeqCst);
        let epoch = world.rendezvous.open(CALLER);
        let entry = &world.entries[0];
        world.resent.store(1 + usize::from(send(entry, 10, epoch)), SeqCst);
        hold(&world, epoch, 1);
        commit(&world, epoch, 1);
        held.join().unwrap();
        assert_eq!(world.performed.load(SeqCst), 1);
    });
}

/// The table closes its gaps while a thread takes a late signal with the address of its old entry. The thread is not
/// held under an entry that belongs to another thread, and is found and held afterwards.
#[test]
fn the_table_moves_entries_beside_a_late_signal() {
    model(2, || {
        let world = world(2);
        let table = ThreadTable::of(world.entries.as_slice());
        // Thread 10 is gone; thread 11 has a signal pending, which carries the second entry.
        world.entries[0].assign(10, ThreadState::Idle);
        table.keep();
        let late = {
            let world = world.clone();
            thread::spawn(move || visit_as(&world, 1, 11))
        };
        table.begin(|tid| tid == 11);
        find_and_hold(&world, table, late);
    });
}

/// The same while a thread that was held in a round that is given up stays for the next one.
#[test]
fn the_table_moves_entries_beside_a_thread_that_stays() {
    model(2, || {
        let world = world(2);
        let table = ThreadTable::of(world.entries.as_slice());
        world.entries[0].assign(10, ThreadState::Idle);
        give_up_a_round(&world);
        let late = {
            let world = world.clone();
            thread::spawn(move || visit_as(&world, 1, 11))
        };
        give_up_a_round(&world);
        table.keep();
        table.begin(|tid| tid == 11);
        find_and_hold(&world, table, late);
    });
}

/// Thread 11 is found under its present entry, and held once, unless it has left and has no signal on its way.
fn find_and_hold(world: &Arc<World>, table: ThreadTable, late: thread::JoinHandle<()>) {
    let epoch = world.rendezvous.open(CALLER);
    let entry = table.find(11).unwrap();
    let index = usize::from(!core::ptr::eq(entry, &world.entries[0]));
    let send = send(entry, 11, epoch);
    let again = {
        let world = world.clone();
        thread::spawn(move || {
            late.join().unwrap();
            if send {
                visit_as(&world, index, 11);
            }
        })
    };
    // Ends: the signal brings the thread in, or has been used up before the round.
    loop {
        if world.rendezvous.held() == 1 {
            assert!(world.rendezvous.close_gate(epoch, 1));
            commit(&world, epoch, 1);
            break;
        }
        if !send && entry.state() == ThreadState::Idle {
            world.rendezvous.give_up();
            break;
        }
        thread::yield_now();
    }
    again.join().unwrap();
    assert_eq!(world.performed.load(SeqCst), world.new_state.load(SeqCst));
}

/// An entry is marked exempt, and then its tid is that of a living thread, which has a signal pending: the mark goes, and
/// the thread is held once, by that signal or by another.
#[test]
fn an_exempt_mark_beside_a_signal() {
    model(3, || {
        let world = world(1);
        let epoch = world.rendezvous.open(CALLER);
        let entry = &world.entries[0];
        // `full_pass` saw a dying task; the next one sees a living thread with this tid, which has a signal pending.
        entry.assign(10, ThreadState::exempt(epoch));
        let late = spawn_one(&world, 0, true, false);
        if let was @ ThreadState::Exempt(_) = entry.state() {
            entry.exchange(10, was, ThreadState::Idle);
        }
        let send = send(entry, 10, epoch);
        let again = {
            let world = world.clone();
            thread::spawn(move || {
                late.join().unwrap();
                if send {
                    visit(&world, 0, true, false);
                }
            })
        };
        hold(&world, epoch, 1);
        commit(&world, epoch, 1);
        again.join().unwrap();
        assert_eq!(world.performed.load(SeqCst), 1);
    });
}

/// A thread has marked its entry and is not counted, because the gate closes (over a thread that is counted and dead,
/// which the engine finds only then). It takes its mark back, so that a second signal does not bring it into the stop.
#[test]
fn a_late_arrival_takes_its_mark_back() {
    model(3, || {
        let world = world(2);
        let epoch = world.rendezvous.open(CALLER);
        // The thread that is counted, and dies.
        assert!(world.rendezvous.arrive(&world.entries[0], 10, &mut false).is_some());
        let late = {
            let world = world.clone();
            thread::spawn(move || {
                visit(&world, 1, true, false);
                // Two signals were pending.
                visit(&world, 1, true, false);
            })
        };
        if world.rendezvous.close_gate(epoch, 1) {
            // No thread that is counted sleeps, so the engine looks for the dead one, and gives up.
            assert_eq!(world.rendezvous.all_asleep(1), Some(false));
        }
        world.rendezvous.give_up();
        late.join().unwrap();
        assert_eq!(world.performed.load(SeqCst), 0);
    });
}
