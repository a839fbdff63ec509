//! The memory of a report, made before a thread is held, and read when the stop is over.

use super::answers::{AnswerLayout, Answers};
use super::entry::ThreadState;
use super::shared::Shared;
use crate::errno::Errno;
use crate::report::{CallOutcome, SkipReason, SkippedTask, ThreadResult};
use crate::sys::mapping::MappedList;

pub(super) struct ReportBuffers {
    /// How many threads there is room for.
    pub(super) capacity: usize,
    pub(super) results: MappedList<ThreadResult>,
    pub(super) exempt: MappedList<SkippedTask>,
    pub(super) answers: Answers,
}

impl ReportBuffers {
    pub(super) fn new(capacity: usize, layout: AnswerLayout) -> Result<Self, Errno> {
        let answers = match layout.calls {
            0 => Answers::empty(),
            _ => Answers::new(layout, capacity.saturating_add(1))?,
        };
        let (results, exempt) =
            (MappedList::with_capacity(capacity)?, MappedList::with_capacity(capacity)?);
        Ok(Self { capacity, results, exempt, answers })
    }

    /// Writes what each thread returned, and which tasks were exempt. All threads have reported.
    pub(super) fn fill(&mut self, shared: &Shared) {
        for entry in shared.threads.iter().filter(|entry| entry.tid() != 0) {
            let (tid, state) = (entry.tid() as i32, entry.state());
            if let ThreadState::Exempt(_) = state {
                self.exempt.push(SkippedTask { tid, reason: SkipReason::of(entry.value()) });
                continue;
            }
            let Some((call, _)) = state.last_call() else { continue };
            let outcome = match state {
                ThreadState::Died(_) => CallOutcome::Died,
                ThreadState::Siglongjmp(_) => CallOutcome::Siglongjmp,
                _ => match Errno::check(entry.value() as isize) {
                    Ok(value) => CallOutcome::Returned(value),
                    Err(errno) => CallOutcome::Failed(errno),
                },
            };
            self.results.push(ThreadResult { tid, call, outcome });
        }
    }
}
