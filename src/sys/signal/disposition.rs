//! Signal 33: how our handler gets it, and how a foreign signal is passed on as it came.
//!
//! Other code uses the signal too: glibc for its set*id calls, musl for cancellation, and C's libpsx
//! for the same purpose as this library. Our handler replaces the action that it finds, and keeps it in
//! a list, the latest first. A foreign signal goes to the latest action. That handler may pass it on to
//! us, because it found *us* when it was installed. Then the signal goes to the next action of the
//! list, so that two libraries that chain to each other end.
//!
//! # The list
//!
//! An [`Action`] carries a stamp. A larger stamp is a later action; stamp 0 is a free place. Every
//! stamp is used once. A count of 56 bits does not run out; on a 32-bit CPU a count of 24 bits does after eight
//! million changes of the action, and then [`reserve`] refuses.
//!
//! - **An action is added** under the lock of the broadcast: it is written into a free place, and its
//!   stamp last. An older action with the same handler is then freed. So a program that changes its mask
//!   or flags again and again needs two places, and memory grows only with the number of different
//!   handlers.
//! - **A handler reads** without a lock, at any instruction. It reads the stamp, the action, and the
//!   stamp again. If the stamp has changed, the place was freed or used again meanwhile, and it searches
//!   anew. The newer action was there before the older one was freed, so a search never finds neither.
//! - **The next action** after the one with stamp `s` is the one with the largest stamp below `s`. The
//!   stamps of one delivery fall, so a chain ends, whatever the list becomes meanwhile.
//!
//! How far a delivery has come is written in its siginfo_t for as long as the chained handler runs: the
//! address of our list and the stamp, with a mark, in a pair of words that the kernel leaves zero. A handler
//! has no other memory of its own.

// # Safety
//
// `on_signal` runs in any thread at any instruction: it touches the signal frame it is given,
// statics that are atomics, memory that is never given back, and raw system calls.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, Ordering::SeqCst};

use linux_raw_sys::general as k;

use super::SigInfo;
use crate::errno::Errno;
use crate::sys::arch::{self, KernelMask, KernelSigaction};
use crate::sys::mapping::Mapping;
use crate::sys::{self, Mask, SIGNAL, bit};

/// What the engine does with a signal. A type and not a function pointer, so that the handler is one function with one
/// frame: alternate stacks are small.
pub(crate) trait SignalHandler {
    /// Looks at a signal. Returns true if it was ours and is done. Runs in the handler, with the mask of the
    /// interrupted code.
    fn handle(info: &SigInfo, interrupted: Mask) -> bool;
}

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

// P9: an interrupted call is restarted, and an alternate stack is used.
/// The flags that a handler above ours must have.
const FLAGS: usize = (k::SA_SIGINFO | k::SA_RESTART | k::SA_ONSTACK) as usize;

/// What our handler blocks: everything but SIGSYS, so that SIGSYS stays as the interrupted thread has
/// it. If a filter traps one of our calls, the kernel kills a process that blocks SIGSYS.
const BLOCKED: Mask = sys::all_but_sigsys(0);

/// The kernel takes SIGKILL and SIGSTOP out of the mask of an action.
const UNBLOCKABLE: Mask = bit(9) | bit(sys::SIGSTOP);

/// An action that other code installed.
///
/// | field | written by | read by |
/// |---|---|---|
/// | `stamp` | `ensure_handler`, under the lock; a handler that uses up SA_RESETHAND | any handler |
/// | others | `ensure_handler`, while `stamp` is 0 | any handler, which checks `stamp` before and after |
///
/// All accesses are SeqCst. In their one order a read of the same stamp before and after the fields
/// comes before the store of 0, and so before the fields change.
struct Action {
    /// Twice the number of the action, plus [`RESET`]. 0: the place is free.
    stamp: AtomicUsize,
    handler: AtomicUsize,
    flags: AtomicUsize,
    mask: AtomicU64,
}

/// The bit in a stamp that says that SA_RESETHAND has reset the action to SIG_DFL.
const RESET: usize = 1;

impl Action {
    const fn free() -> Self {
        Self {
            stamp: AtomicUsize::new(0),
            handler: AtomicUsize::new(SIG_DFL),
            flags: AtomicUsize::new(0),
            mask: AtomicU64::new(0),
        }
    }

    fn is_free(&self) -> bool {
        self.stamp.load(SeqCst) == 0
    }

    /// Reads the action under this stamp. None if it is no longer there.
    fn read(&self, stamp: usize) -> Option<ActionValue> {
        let mut found = ActionValue {
            handler: self.handler.load(SeqCst),
            flags: self.flags.load(SeqCst),
            mask: self.mask.load(SeqCst),
        };
        if stamp & RESET != 0 {
            found.handler = SIG_DFL;
        }
        (self.stamp.load(SeqCst) == stamp).then_some(found)
    }

    /// Reads the action for a delivery, which uses up an action with SA_RESETHAND. (The stamp is used
    /// once, so this never resets another action that was put there.)
    fn take(&self, stamp: usize) -> Option<ActionValue> {
        let found = self.read(stamp)?;
        let once = found.flags & k::SA_RESETHAND as usize != 0 && stamp & RESET == 0;
        let done =
            !once || self.stamp.compare_exchange(stamp, stamp | RESET, SeqCst, SeqCst).is_ok();
        done.then_some(found)
    }
}

/// What an [`Action`] says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ActionValue {
    handler: usize,
    flags: usize,
    mask: Mask,
}

impl ActionValue {
    fn of(action: &KernelSigaction) -> Self {
        Self { handler: action.handler, flags: action.flags, mask: action.mask() }
    }
}

/// The first places. Most processes need no more.
static FIRST_ACTIONS: [Action; 15] = [const { Action::free() }; 15];

/// More places: mapped when they are needed, never given back. Written by `ensure_handler`, under the lock.
static ACTION_PAGES: AtomicPtr<ActionPage> = AtomicPtr::new(ptr::null_mut());

/// One page of places.
struct ActionPage {
    actions: [Action; 127],
    /// Written before the page is in [`ACTION_PAGES`].
    next: AtomicPtr<ActionPage>,
}

const _: () = assert!(size_of::<ActionPage>() <= 4096);

/// Every place there is.
fn actions() -> impl Iterator<Item = &'static Action> {
    // SAFETY: a page in the list is initialised, and is never given back.
    let page = |at: *mut ActionPage| unsafe { at.as_ref() };
    // Acquire: pairs with the store in `reserve`, which has written the page before.
    let first = page(ACTION_PAGES.load(Ordering::Acquire));
    let pages = core::iter::successors(first, move |more| page(more.next.load(Ordering::Relaxed)));
    FIRST_ACTIONS.iter().chain(pages.flat_map(|more| &more.actions))
}

/// Makes sure that `count` places, at most two, are free, and as many stamps.
fn reserve(count: usize) -> Result<(), Errno> {
    let latest = actions().map(|action| action.stamp.load(SeqCst)).max();
    if latest.unwrap_or(0) >= SigInfo::STAMPS - 3 * 2 {
        return Err(Errno::AGAIN);
    }
    if actions().filter(|action| action.is_free()).count() >= count {
        return Ok(());
    }
    let page = Mapping::new(size_of::<ActionPage>())?.leak().cast::<ActionPage>();
    // SAFETY: as long as an `ActionPage`, aligned to a page, and not given back. Zeroed memory is free places.
    let more = unsafe { page.as_ref() };
    more.next.store(ACTION_PAGES.load(Ordering::Relaxed), Ordering::Relaxed);
    ACTION_PAGES.store(page.as_ptr(), Ordering::Release);
    Ok(())
}

/// The action with the largest stamp below `before`, RESET aside, for a delivery.
fn next_action(before: usize) -> Option<(usize, ActionValue)> {
    // Ends: another turn means that `ensure_handler` has changed the list, or another thread has used up an
    // action with SA_RESETHAND, meanwhile.
    loop {
        let mut best: Option<(usize, &Action)> = None;
        for action in actions() {
            let stamp = action.stamp.load(SeqCst);
            let later = best.is_none_or(|(latest, _)| stamp > latest);
            if stamp != 0 && stamp & !RESET < before && later {
                best = Some((stamp, action));
            }
        }
        let (stamp, action) = best?;
        if let Some(found) = action.take(stamp) {
            return Some((stamp & !RESET, found));
        }
    }
}

/// Puts an action first in the list. A free place is there ([`reserve`]).
fn add_action(found: ActionValue) -> Result<(), Errno> {
    let stamped = |action: &'static Action| (action.stamp.load(SeqCst), action);
    let latest = actions().map(stamped).max_by_key(|&(stamp, _)| stamp);
    let latest = latest.filter(|&(stamp, _)| stamp != 0);
    if latest.is_some_and(|(stamp, action)| stamp & RESET == 0 && action.read(stamp) == Some(found))
    {
        return Ok(());
    }
    let stamp = latest.map_or(0, |(stamp, _)| stamp & !RESET).wrapping_add(2);
    let place = actions().find(|action| action.is_free()).ok_or(Errno::AGAIN)?;
    place.handler.store(found.handler, SeqCst);
    place.flags.store(found.flags, SeqCst);
    place.mask.store(found.mask, SeqCst);
    place.stamp.store(stamp, SeqCst);
    // After the new one is there: a handler in between finds both, and never neither.
    for older in actions().filter(|&action| !ptr::eq(action, place)) {
        if !older.is_free() && older.handler.load(SeqCst) == found.handler {
            older.stamp.store(0, SeqCst);
        }
    }
    Ok(())
}

/// Makes sure that our handler gets signal 33. The caller has the lock of the broadcast.
///
/// Another library may have installed its handler after ours, and pass on to ours the signals that are
/// not its own. `reached` sends this thread a signal and returns whether our handler got it. If it did,
/// that library's handler stays, and the result is Ok(true).
///
/// # Errors
/// The errno of rt_sigaction(2), or of mmap(2) for a place in the list. The action of the signal is
/// unchanged then, unless only the question whether it has been installed fails.
pub(crate) fn ensure_handler<V: SignalHandler>(
    reached: impl FnOnce() -> bool,
) -> Result<bool, Errno> {
    let handler = on_signal::<V> as *const () as usize;
    let ours = KernelSigaction::new(handler, FLAGS, BLOCKED);
    let now = sys::sigaction()?;
    let as_ours = now.flags == ours.flags && now.mask() == BLOCKED & !UNBLOCKABLE;
    if now.handler == handler && as_ours {
        return Ok(false);
    }
    if now.handler != handler {
        let known = actions().any(|action| !action.is_free());
        if known && now.handler > SIG_IGN && now.flags & FLAGS == FLAGS && reached() {
            return Ok(true);
        }
        // Two: one for `now`, one for an action that other code installs in between. The second one is
        // known only after ours is installed, when it is too late for an error.
        reserve(2)?;
        add_action(ActionValue::of(&now))?;
    } else {
        reserve(1)?;
    }
    // SAFETY: `on_signal` may run anywhere.
    let before = unsafe { sys::set_sigaction(&ours) }?;
    // Other code may have installed an action in between.
    if before.handler != handler {
        add_action(ActionValue::of(&before))?;
    }
    // A filter that answers in the kernel's place has installed nothing. The signal would then end the process.
    let now = sys::sigaction()?;
    if now.handler != handler && now.handler == before.handler {
        return Err(Errno::NOSYS);
    }
    Ok(false)
}

/// Whether our handler gets signal 33, before any other.
pub(crate) fn is_installed<V: SignalHandler>() -> bool {
    let handler = on_signal::<V> as *const () as usize;
    sys::sigaction().is_ok_and(|action| action.handler == handler)
}

extern "C" fn on_signal<V: SignalHandler>(signal: c_int, info: *mut SigInfo, context: *mut c_void) {
    // SAFETY: the kernel, or a handler that chains to us, hands the frame's own siginfo, to which
    // no other code refers.
    let info = unsafe { &mut *info };
    // SAFETY: the mask lies there in every ucontext of this CPU.
    let mask_at = unsafe { context.cast::<u8>().add(arch::UCONTEXT_MASK) };
    // SAFETY: it may be read as a number, wherever the frame is.
    let mask = unsafe { ptr::read_unaligned(mask_at.cast::<KernelMask>()) }.get();
    if !V::handle(info, mask) {
        chain(signal, info, context, mask);
    }
}

/// Does what the kernel would have done with the action that ours has replaced.
#[inline(never)]
fn chain(signal: c_int, info: &mut SigInfo, context: *mut c_void, interrupted: Mask) {
    // P6: the signal arrives as it was sent, with the mask and flags of the action that it was meant for.
    let list = ptr::from_ref(&FIRST_ACTIONS) as usize;
    // Without a free pair, more copies of this crate chain to each other than have room.
    let Some((place, stamp)) = info.progress(list) else { return };
    let before = if stamp == 0 { usize::MAX } else { stamp };
    let Some((stamp, action)) = next_action(before) else { return };
    match action.handler {
        SIG_IGN => return,
        // The init process of a PID namespace does not die of it (pid_namespaces(7)).
        SIG_DFL if sys::getpid() == 1 => return,
        SIG_DFL => sys::kill_process(),
        _ => {}
    }
    let own = if action.flags & k::SA_NODEFER as usize != 0 { 0 } else { bit(SIGNAL) };
    // SIGSYS is as the interrupted code has it, unless the owner asked for it to be blocked.
    let mask = interrupted | action.mask | own;
    let others = info.mark_progress(place, SigInfo::pair(list, stamp));
    let inside = sys::set_mask(mask);
    // SAFETY: the owner gave it to the kernel as the handler of this signal. A handler without
    // SA_SIGINFO ignores what it is given beyond the number.
    let handler = unsafe {
        core::mem::transmute::<usize, extern "C" fn(c_int, *mut SigInfo, *mut c_void)>(
            action.handler,
        )
    };
    handler(signal, info, context);
    if let Ok(inside) = inside {
        let _ = sys::set_mask(inside);
    }
    info.mark_progress(place, others);
}
