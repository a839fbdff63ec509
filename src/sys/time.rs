//! CLOCK_MONOTONIC, and arithmetic that cannot panic.

use core::time::Duration;

use linux_raw_sys::general as k;

use super::{arch, call};
use crate::errno::Errno;

/// Returns the time since boot, CLOCK_MONOTONIC.
pub(crate) fn clock() -> Result<Duration, Errno> {
    let duration = |seconds: i64, nanos: i64| {
        sum(Duration::from_secs(seconds as u64), Duration::from_nanos(nanos as u64))
    };
    let ask = |number, at| call(number, [k::CLOCK_MONOTONIC as usize, at, 0, 0, 0, 0]);
    if cfg!(target_pointer_width = "32") {
        let mut time = [0i32; 2];
        match ask(arch::CLOCK_GETTIME.plain, time.as_mut_ptr() as usize) {
            Ok(_) => return Ok(duration(time[0].into(), time[1].into())),
            Err(Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut time = [0i64; 2];
    ask(arch::CLOCK_GETTIME.wide, time.as_mut_ptr() as usize)?;
    Ok(duration(time[0], time[1]))
}

/// Returns `a + b`. (Duration's own arithmetic has code that panics, which a linker cannot remove.)
pub(crate) fn sum(a: Duration, b: Duration) -> Duration {
    from_nanos(a.as_nanos().saturating_add(b.as_nanos()))
}

/// Returns `a - b`, or zero if `b` is greater.
pub(crate) fn difference(a: Duration, b: Duration) -> Duration {
    from_nanos(a.as_nanos().saturating_sub(b.as_nanos()))
}

fn from_nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Returns the time since boot. To be used where [`clock`] has worked before: if it fails, this is zero.
pub(crate) fn now() -> Duration {
    clock().unwrap_or_default()
}
