//! How the threads are run. These belong to a thread each, so other threads' own settings are lost.

use core::time::Duration;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::Operation;

/// How late timers may expire, to the nanosecond. PR_SET_TIMERSLACK(2const): no errors. Zero stands
/// for the default, which is what the thread began with. Threads that are scheduled by a real-time
/// policy have none.
pub const fn timer_slack(slack: Duration) -> Operation<'static> {
    let nanos = slack.as_nanos();
    let nanos = if nanos > usize::MAX as u128 { usize::MAX } else { nanos as usize };
    Operation::new(k::__NR_prctl, [p::PR_SET_TIMERSLACK as usize, nanos, 0, 0, 0, 0])
}
