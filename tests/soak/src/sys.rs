//! The kernel calls that several modules make.

use std::time::Duration;

pub(crate) fn gettid() -> u32 {
    // SAFETY: gettid touches no memory.
    unsafe { libc::gettid() as u32 }
}

/// CLOCK_MONOTONIC, the same in all processes.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Names the calling thread.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the kernel reads the string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// The next number of xorshift64*.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator of its own for each `stream` of a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    pub(crate) fn micros(&mut self, end: u64) -> Duration {
        Duration::from_micros(self.below(end))
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A time limit that only ends hangs, multiplied by `PSX_WATCHDOG_FACTOR`.
pub(crate) fn watchdog(limit: Duration) -> Duration {
    let factor = std::env::var("PSX_WATCHDOG_FACTOR").ok().and_then(|text| text.parse().ok());
    limit.mul_f64(factor.unwrap_or(1.0f64).clamp(0.01, 1000.0))
}

/// Waits for a child. Returns its status as waitpid(2) does.
pub(crate) fn reap(pid: i32) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes the status.
        let done = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
        if done == pid || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted
        {
            return status;
        }
    }
}
