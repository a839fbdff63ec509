//! The present state: capabilities of any process, and the mode of this thread.

// # Safety
//
// One system call, with memory of this function.
#![allow(unsafe_code)]

use std::io;

use libpsx::process::{self, CapabilitySet, CapabilitySets, Securebits};

use crate::status::{self, field};
use crate::target::{AMBIENT_BITS, MODE_BITS};
use crate::{Iab, Mode};

/// Returns the capability sets of a thread of any process; 0 is the calling thread. capget(2).
///
/// # Errors
/// ESRCH if there is no such thread.
///
/// ```
/// let own = privileges::capabilities_of(std::process::id() as i32)?;
/// assert!(own.permitted.is_superset(own.effective));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn capabilities_of(tid: i32) -> io::Result<CapabilitySets> {
    const VERSION_3: i32 = 0x2008_0522;
    let header = [VERSION_3, tid];
    let mut data = [0u32; 6];
    let (at, to) = (header.as_ptr(), data.as_mut_ptr());
    // SAFETY: the kernel reads the header, and writes six words.
    if unsafe { libc::syscall(libc::SYS_capget, at, to) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let [e0, p0, i0, e1, p1, i1] = data.map(u64::from);
    let set = |low, high| CapabilitySet::from_bits(low | high << 32);
    Ok(CapabilitySets { effective: set(e0, e1), permitted: set(p0, p1), inheritable: set(i0, i1) })
}

impl Iab {
    /// Returns the inheritable, ambient and bounding set of a process, as cap_iab_get_pid(3) does. It reads /proc.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, or the error of reading /proc. It is also an error if /proc shows the
    /// process numbers of another PID namespace than that of this process.
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        status::has_own_numbers()?;
        let status = std::fs::read(format!("/proc/{pid}/status"))?;
        let set = |name: &[u8]| {
            let bits = field(&status, name).and_then(|hex| std::str::from_utf8(hex).ok());
            let bits = bits.and_then(|hex| u64::from_str_radix(hex, 16).ok());
            bits.map(CapabilitySet::from_bits).ok_or(io::ErrorKind::InvalidData)
        };
        let bounding = set(b"CapBnd")?;
        Ok(Self {
            inheritable: set(b"CapInh")?,
            ambient: set(b"CapAmb")?,
            blocked: CapabilitySet::all() - bounding,
        })
    }
}

impl Mode {
    /// Returns the mode of the calling thread, as cap_get_mode(3) does, or `None` if it is in none of the modes. The
    /// securebits for interpreters ([`Securebits::EXEC_RESTRICT_FILE`] and the three after it) belong to no mode.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn current() -> io::Result<Option<Self>> {
        let error = |errno: libpsx::Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let bits = Securebits::current().map_err(error)?.bits() & MODE_BITS;
        let bits = Securebits::from_bits(bits);
        let sets = CapabilitySets::current().map_err(error)?;
        if bits == Securebits::EMPTY {
            return Ok(Some(Self::Hybrid));
        }
        if !bits.contains(Securebits::from_bits(AMBIENT_BITS)) || !process::ambient_set().is_empty()
        {
            return Ok(None);
        }
        let none = sets.permitted.is_empty() && sets.effective.is_empty();
        Ok(Some(match () {
            () if !sets.inheritable.is_empty() => Self::Pure1e,
            () if !none || !process::bounding_set().is_empty() => Self::Pure1eInit,
            () => Self::NoPriv,
        }))
    }
}
