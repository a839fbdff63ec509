//! All threads are held: the caller performs the calls, every thread performs them, the caller judges and releases.

use core::ops::Range;
use core::time::Duration;

use super::{Round, Stop, execute_calls};
use crate::engine::answers::AnswerSlot;
use crate::engine::call::Call;
use crate::engine::entry::{NOT_BEGUN, ThreadState};
use crate::engine::shared::Plan;
use crate::engine::{divergence, handler};
use crate::error::TransactionError;
use crate::report::Report;
use crate::sys::{self, PromptWakeUps};

impl Stop<'_> {
    /// All threads are held. The caller's own calls, then those of every thread; the judgement; the release.
    pub(super) fn commit(
        &mut self,
        calls: &mut [Call],
        report: Option<&mut Report>,
        epoch: u32,
        held: u32,
        opened: Duration,
        directories_are_shared: bool,
    ) -> Result<Round, TransactionError> {
        let shared = self.shared;
        let rendezvous = &shared.rendezvous;
        let settings = self.settings;
        let buffers = self.buffers.take();
        self.longest = self.longest.max(sys::difference(sys::now(), opened));
        let slot = buffers
            .as_ref()
            .map_or(AnswerSlot::NONE, |buffers| buffers.answers.claim_slot(self.tid));
        // A thread that was not held yet may have installed a handler for SIGSYS. From now on only such a handler and the
        // calls themselves can install one.
        let handler_comes = || calls.iter().any(Call::may_handle_sigsys);
        if !shared.may_jump() && (sys::sigsys_is_handled() || handler_comes()) {
            shared.set_may_jump();
        }
        let begun = |begun| shared.set_begun(begun);
        // The calls find the slack that the program has set, and may set another one.
        let had_long_slack = self.prompt.take().is_some();
        let may_wake_late = had_long_slack || calls.iter().any(Call::sets_timer_slack);

        let mut epoch = epoch;
        let mut published = false;
        let mut result = Ok(0);
        let mut divergent = 0;
        // P11: one stop for all calls.
        for Segment { calls: these, alone } in segments(calls) {
            // Before the call: with SECCOMP_FILTER_FLAG_TSYNC, held threads have the filter before the caller knows.
            if calls.iter().take(these.end).skip(these.start).any(Call::installs_filter) {
                shared.set_filtered();
            }
            result = execute_calls(calls, these.clone(), slot, settings, begun);
            let end = match &result {
                Ok(_) => these.end,
                Err(TransactionError::Partial(partial)) => partial.index,
                Err(TransactionError::NothingChanged(_)) => these.start,
            };
            if !alone && end > these.start {
                let plan = calls.get(..end).unwrap_or_default();
                let answers = buffers.as_ref().map(|buffers| &buffers.answers);
                shared.set_plan(Plan {
                    calls: plan,
                    first: these.start,
                    directories_are_shared,
                    answers,
                });
                if published {
                    epoch = self.publish_again();
                    self.epoch = epoch;
                } else if !rendezvous.publish(epoch, held) {
                    divergence::abort("a broadcast was ended behind its caller's back");
                }
                published = true;
                // A filter may forbid prctl(2) as well, and a supervisor that is asked about it may be held.
                let prompt = (may_wake_late && !shared.is_filtered()).then(PromptWakeUps::begin);
                handler::await_reports(shared, [self.pid, self.tid], epoch);
                drop(prompt);
                let before = core::mem::replace(&mut divergent, self.divergent());
                if divergent > before {
                    // P3: judged before any thread leaves.
                    divergence::judge(settings.sensitivity, plan, shared.threads.iter());
                }
            }
            if result.is_err() {
                break;
            }
        }
        let mut buffers = buffers;
        if let (Some(buffers), true) = (&mut buffers, published) {
            buffers.fill(shared);
        }
        rendezvous.release();
        // A filter may forbid clock_gettime(2) as well.
        if !shared.is_filtered() {
            self.longest = self.longest.max(sys::difference(sys::now(), opened));
        }
        let value = result?;
        if let (Some(report), Some(buffers)) = (report, buffers) {
            report.value = value;
            report.results = buffers.results;
            report.skipped = buffers.exempt;
            report.divergent = divergent;
            report.attempts = self.rounds;
            report.max_pause = self.longest;
            report.answers = buffers.answers;
        }
        Ok(Round::Done(value))
    }

    /// How many threads have another result than the caller, or none.
    fn divergent(&self) -> usize {
        self.shared.threads.iter().filter(|entry| entry.state().is_divergent()).count()
    }

    /// The threads that agreed perform what comes next.
    fn publish_again(&self) -> u32 {
        let rendezvous = &self.shared.rendezvous;
        let next = rendezvous.next_epoch();
        let mut agreed = 0u32;
        for entry in self.shared.threads.iter() {
            let state = entry.state();
            if matches!(state, ThreadState::Agreed(_)) {
                entry.set_value(NOT_BEGUN);
                let held = entry.exchange(entry.tid(), state, ThreadState::held(next));
                agreed = agreed.saturating_add(u32::from(held));
            }
        }
        rendezvous.publish_again(agreed)
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
    let at = calls.iter().position(Call::is_synchronized_by_kernel);
    let (first, last) = at.map_or((len, len), |at| (at, at.saturating_add(1)));
    [(0..first, false), (first..last, true), (last..len, false)]
        .into_iter()
        .map(|(calls, alone)| Segment { calls, alone })
        .filter(|segment| !segment.calls.is_empty())
}
