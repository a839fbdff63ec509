//! CLOCK_MONOTONIC, and arithmetic that cannot panic.

use core::time::Duration;

use linux_raw_sys::general as k;

use super::{arch, call};
use crate::errno::Errno;

/// No time has a negative number of nanoseconds. If one is left, a filter has answered in the kernel's place, and the clock
/// would stand still.
const UNWRITTEN: [i64; 2] = [-1; 2];

/// Returns the time since boot, CLOCK_MONOTONIC.
pub(crate) fn clock() -> Result<Duration, Errno> {
    let duration = |seconds: i64, nanos: i64| {
        sum(Duration::from_secs(seconds as u64), Duration::from_nanos(nanos as u64))
    };
    let ask = |number, at| call(number, [k::CLOCK_MONOTONIC as usize, at, 0, 0, 0, 0]);
    if cfg!(target_pointer_width = "32") {
        let mut time = UNWRITTEN.map(|one| one as i32);
        match ask(arch::CLOCK_GETTIME.plain, time.as_mut_ptr() as usize) {
            Ok(_) if time[1] < 0 => return Err(Errno::NOSYS),
            Ok(_) => return Ok(duration(time[0].into(), time[1].into())),
            Err(Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut time = UNWRITTEN;
    ask(arch::CLOCK_GETTIME.wide, time.as_mut_ptr() as usize)?;
    if time[1] < 0 {
        return Err(Errno::NOSYS);
    }
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
