//! Signal 33: having our handler reached, and passing on what is not ours as it came.
//!
//! Others use the signal too (glibc for its set*id calls, musl for the same and for cancellation,
//! C's libpsx). Our handler sits on top and keeps the actions it found there, the latest first. A
//! foreign signal goes to the latest; if that one passes it on to us again (it had found *us*
//! there), it goes to the next, and so on, so that two libraries which chain to each other end.
//! How far a delivery has come is written in the last words of its siginfo_t, which the kernel
//! leaves zero, for as long as the chained handler runs: a handler has no other memory of its own.

// # Safety
//
// `on_signal` runs in any thread at any instruction: it touches the signal frame it is given,
// statics that are atomics, and raw system calls.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use linux_raw_sys::general as k;

use crate::errno::Errno;
use crate::sys::arch::{self, KernelSigaction};
use crate::sys::{self, Mask, SIGNAL, SigInfo, bit};

/// Looks at a signal; true if it was ours and is done. Runs in the handler with the frame's mask.
pub(crate) type Visit = fn(&SigInfo, Mask) -> bool;

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// What P9 needs of whoever stands above us.
const FLAGS: usize = (k::SA_SIGINFO | k::SA_RESTART | k::SA_ONSTACK) as usize;

/// An action of somebody else. Written under the lock before its number is in [`ORDER`].
struct Action {
    handler: AtomicUsize,
    flags: AtomicUsize,
    mask: AtomicU64,
}

const ACTIONS: usize = 15;

static FOUND: [Action; ACTIONS] = [const {
    Action {
        handler: AtomicUsize::new(SIG_DFL),
        flags: AtomicUsize::new(0),
        mask: AtomicU64::new(0),
    }
}; ACTIONS];

/// Which of [`FOUND`] come in which order: hexadecimal digits, the latest lowest, each one more
/// than an index; 0 ends the list. One word, so that a handler sees one order or the other.
static ORDER: Order = Order(AtomicU64::new(0));

/// Aligned so that its address, which marks our copy's progress in a siginfo, has four bits free.
#[repr(align(16))]
struct Order(AtomicU64);

static VISIT: AtomicUsize = AtomicUsize::new(0);

/// Sees to it that our handler gets signal 33. `reached` sends this thread a signal and says
/// whether it came through: another library may stand above us and pass on what is not its own.
/// Ok(true): that is so.
pub(crate) fn ensure(visit: Visit, reached: impl FnOnce() -> bool) -> Result<bool, Errno> {
    let (restorer_flag, restorer) = arch::restorer();
    let handler = on_signal as *const () as usize;
    let ours = KernelSigaction { handler, flags: FLAGS | restorer_flag, restorer, mask: sys::ALL };
    let now = sys::sigaction()?;
    // The kernel takes KILL and STOP out of the mask.
    if now.handler == handler && now.flags == ours.flags {
        return Ok(false);
    }
    VISIT.store(visit as *const () as usize, Ordering::Release);
    if now.handler != handler {
        let known = ORDER.0.load(Ordering::Acquire) != 0;
        if known && now.handler > SIG_IGN && now.flags & FLAGS == FLAGS && reached() {
            return Ok(true);
        }
        remember(&now)?;
    }
    // SAFETY: `on_signal` may run anywhere; the restorer is the CPU's.
    let before = unsafe { sys::set_sigaction(&ours) }?;
    // Somebody else may have come in between.
    if before.handler != handler {
        remember(&before)?;
    }
    Ok(false)
}

/// Puts an action first in the order.
fn remember(found: &KernelSigaction) -> Result<(), Errno> {
    let order = ORDER.0.load(Ordering::Relaxed);
    let known = digits(order).find(|&digit| {
        FOUND.get(digit as usize - 1).is_some_and(|action| {
            action.handler.load(Ordering::Relaxed) == found.handler
                && action.flags.load(Ordering::Relaxed) == found.flags
                && action.mask.load(Ordering::Relaxed) == found.mask
        })
    });
    let digit = match known {
        Some(digit) => digit,
        None => {
            let digit = digits(order).max().unwrap_or(0).wrapping_add(1);
            let action = FOUND.get(digit as usize - 1).ok_or(Errno::AGAIN)?;
            action.handler.store(found.handler, Ordering::Relaxed);
            action.flags.store(found.flags, Ordering::Relaxed);
            action.mask.store(found.mask, Ordering::Relaxed);
            digit
        }
    };
    // The others keep their order behind it.
    let mut shift = 4;
    let mut new = digit;
    for other in digits(order).filter(|&other| other != digit) {
        new |= other << shift;
        shift += 4;
    }
    // Release: pairs with the load in `chain`, which then sees the action.
    ORDER.0.store(new, Ordering::Release);
    Ok(())
}

fn digits(order: u64) -> impl Iterator<Item = u64> {
    (0..ACTIONS).map(move |i| order >> (4 * i) & 0xf).take_while(|&digit| digit != 0)
}

extern "C" fn on_signal(signal: c_int, info: *mut SigInfo, context: *mut c_void) {
    // SAFETY: the kernel, or who chains to us, hands the frame's own siginfo and ucontext, which
    // nobody else refers to.
    let info = unsafe { &mut *info };
    // SAFETY: the mask lies there in every ucontext of this CPU.
    let mask_at = unsafe { context.cast::<u8>().add(arch::UCONTEXT_MASK) };
    // SAFETY: and may be read as a number, wherever the frame is.
    let mask = unsafe { ptr::read_unaligned(mask_at.cast::<Mask>()) };
    let visit = VISIT.load(Ordering::Acquire);
    if visit != 0 {
        // SAFETY: `ensure` is the only one who stores there, and stores a `Visit`.
        let visit = unsafe { core::mem::transmute::<usize, Visit>(visit) };
        if visit(info, mask) {
            return;
        }
    }
    chain(signal, info, context, mask);
}

/// Does what the kernel would have done with the action that we stand above.
fn chain(signal: c_int, info: &mut SigInfo, context: *mut c_void, interrupted: Mask) {
    let (word, depth) = info.progress(ptr::from_ref(&ORDER) as usize);
    let digit = ORDER.0.load(Ordering::Acquire) >> (4 * (depth & 0xf)) & 0xf;
    let Some(action) = (digit as usize).checked_sub(1).and_then(|index| FOUND.get(index)) else {
        return;
    };
    let flags = action.flags.load(Ordering::Relaxed);
    let handler = if flags & k::SA_RESETHAND as usize != 0 {
        action.handler.swap(SIG_DFL, Ordering::Relaxed)
    } else {
        action.handler.load(Ordering::Relaxed)
    };
    match handler {
        SIG_IGN => return,
        // The init process of a PID namespace does not die of it (pid_namespaces(7)).
        SIG_DFL if sys::getpid() == 1 => return,
        SIG_DFL => sys::die(),
        _ => {}
    }
    let own = if flags & k::SA_NODEFER as usize != 0 { 0 } else { bit(SIGNAL) };
    let mask = interrupted | action.mask.load(Ordering::Relaxed) | own;
    let before = info.mark_progress(word, ptr::from_ref(&ORDER) as usize | (depth + 1));
    let inside = sys::set_mask(mask);
    // SAFETY: the owner gave it to the kernel as the handler of this signal. One without
    // SA_SIGINFO ignores what it is given beyond the number.
    let handler = unsafe {
        core::mem::transmute::<usize, extern "C" fn(c_int, *mut SigInfo, *mut c_void)>(handler)
    };
    handler(signal, info, context);
    if let Ok(inside) = inside {
        let _ = sys::set_mask(inside);
    }
    info.mark_progress(word, before);
}
