//! The plan, the answers and the caller's stack as memory that is not atomic: loom reports an access that is not
//! ordered after the one that it needs.

use loom::cell::UnsafeCell;

use super::*;

/// What the threads read and write without atomics.
struct Data {
    /// The caller's calls: written before `publish`, and written again when all have reported.
    plan: UnsafeCell<u32>,
    /// A place for each thread: written by that thread before its report, read by the caller after all reports.
    answers: [UnsafeCell<u32>; 2],
}

// SAFETY: the protocol orders the accesses; the model checks just that.
unsafe impl Sync for Data {}

struct Reader<'a> {
    data: &'a Data,
    index: usize,
}

impl Thread for Reader<'_> {
    fn perform_calls(&self) -> CallResult {
        // SAFETY: loom checks it.
        let plan = self.data.plan.with(|plan| unsafe { *plan });
        // SAFETY: loom checks it.
        self.data.answers[self.index].with_mut(|answer| unsafe { *answer = plan });
        CallResult { index: 0, result: plan as isize, agreed: true }
    }

    fn is_dead_thread(&self, _tid: u32) -> bool {
        false
    }

    fn check_on_caller(&self) {
        thread::yield_now();
    }

    fn take_over(&self, _caller: u32) {}
}

/// Two parts in one stop, each with a plan of its own in the same memory. When the caller has released, the memory is
/// its own again.
#[test]
fn plan_and_answers_need_no_atomics() {
    model(1, || {
        let world = world(2);
        let cell = || UnsafeCell::new(0);
        let data = Arc::new(Data { plan: cell(), answers: [cell(), cell()] });
        let epoch = world.rendezvous.open(CALLER);
        let threads: Vec<_> = (0..2)
            .map(|index| {
                let (world, data) = (world.clone(), data.clone());
                thread::spawn(move || {
                    let reader = Reader { data: &data, index };
                    let entry = &world.entries[index];
                    world.rendezvous.visit(entry, 10 + index as u32, &reader);
                })
            })
            .collect();
        hold(&world, epoch, 2);
        let write = |value| {
            // SAFETY: loom checks it.
            data.plan.with_mut(|plan| unsafe { *plan = value });
        };
        let answers = || {
            // SAFETY: loom checks it.
            data.answers.iter().map(|a| a.with(|answer| unsafe { *answer })).sum::<u32>()
        };
        write(1);
        assert!(world.rendezvous.publish(epoch, 2));
        assert!(world.rendezvous.await_reports(None));
        assert_eq!(answers(), 2);
        write(2);
        let next = world.rendezvous.next_epoch();
        for (entry, tid) in world.entries.iter().zip(10..) {
            assert!(entry.exchange(tid, ThreadState::Agreed(0), ThreadState::held(next)));
        }
        world.rendezvous.publish_again(2);
        assert!(world.rendezvous.await_reports(None));
        assert_eq!(answers(), 4);
        world.rendezvous.release();
        // The caller's stack is used for something else.
        write(3);
        join(threads);
    });
}
