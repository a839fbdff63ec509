//! siginfo_t, as the kernel lays it out for a queued signal.

use core::mem::offset_of;

use linux_raw_sys::general as k;

/// siginfo_t as it is laid out for a queued signal (include/uapi/asm-generic/siginfo.h): what depends on the kind of signal
/// begins at a multiple of a register's size.
#[repr(C)]
pub(crate) struct SigInfo {
    pub(crate) signo: i32,
    pub(crate) errno: i32,
    pub(crate) code: i32,
    pad: [i32; Self::PAD],
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) value: usize,
    rest: [usize; Self::REST],
}

impl SigInfo {
    const WORD: usize = size_of::<usize>();
    const PAD: usize = Self::WORD / 4 - 1;
    const SIZE: usize = 128;
    /// After three numbers, the padding, two ids and the value.
    const REST: usize = (Self::SIZE - (3 + Self::PAD + 2) * 4) / Self::WORD - 1;

    /// Words that no kind of signal uses, in pairs. The kernel's own siginfo ends before them, at byte
    /// 48 or earlier, and what it delivers is zero from there on (copy_siginfo_to_user, kernel/signal.c).
    const FREE: core::ops::Range<usize> = Self::REST - 64 / Self::WORD..Self::REST;

    /// What the second word of a pair has in its upper bits while the pair is in use. (An emulator may leave in these
    /// words what was on the stack, where the kernel writes zeroes.)
    const IN_USE: usize = 0xb5 << (usize::BITS - 8);

    /// A stamp must be less than this.
    pub(crate) const STAMPS: usize = 1 << (usize::BITS - 8);

    /// A signal that rt_tgsigqueueinfo(2) sends.
    pub(super) const fn queued(signal: i32, pid: i32, value: usize) -> Self {
        let (pad, rest) = ([0; Self::PAD], [0; Self::REST]);
        Self { signo: signal, errno: 0, code: k::SI_QUEUE, pad, pid, uid: 0, value, rest }
    }

    /// The pair that belongs to `owner`, or a free one: its place and its stamp, which is 0 in a free pair. None if all
    /// pairs belong to others.
    pub(crate) fn progress(&self, owner: usize) -> Option<(usize, usize)> {
        let pair = |at: usize| Some((*self.rest.get(at)?, *self.rest.get(at.wrapping_add(1))?));
        let pairs = || Self::FREE.step_by(2).filter_map(|at| Some((at, pair(at)?)));
        let is_used = |second: usize| second & !(Self::STAMPS - 1) == Self::IN_USE;
        let mut own = pairs().filter(|&(_, (first, second))| first == owner && is_used(second));
        let free = || pairs().find(|&(_, (_, second))| !is_used(second)).map(|(at, _)| (at, 0));
        own.next().map(|(at, (_, second))| (at, second & (Self::STAMPS - 1))).or_else(free)
    }

    /// What a pair of an owner contains.
    pub(crate) const fn pair(owner: usize, stamp: usize) -> (usize, usize) {
        (owner, Self::IN_USE | stamp)
    }

    /// Writes a pair, and returns what was there.
    pub(crate) fn mark_progress(&mut self, at: usize, pair: (usize, usize)) -> (usize, usize) {
        let mut replace = |at: usize, word| {
            self.rest.get_mut(at).map_or(0, |place| core::mem::replace(place, word))
        };
        (replace(at, pair.0), replace(at.wrapping_add(1), pair.1))
    }
}

const _: () = {
    type Fields = k::siginfo__bindgen_ty_1__bindgen_ty_1;
    type Queued = k::__sifields__bindgen_ty_3;
    let fields = offset_of!(Fields, _sifields);
    assert!(size_of::<SigInfo>() == SigInfo::SIZE && size_of::<k::siginfo>() == SigInfo::SIZE);
    assert!(offset_of!(SigInfo, code) == offset_of!(Fields, si_code));
    assert!(offset_of!(SigInfo, pid) == fields + offset_of!(Queued, _pid));
    assert!(offset_of!(SigInfo, uid) == fields + offset_of!(Queued, _uid));
    assert!(offset_of!(SigInfo, value) == fields + offset_of!(Queued, _sigval));
    assert!(offset_of!(SigInfo, value) == if cfg!(target_pointer_width = "64") { 24 } else { 20 });
};
