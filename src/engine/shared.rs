//! What the threads of one process share: the one global of the engine.
//!
//! It lies in memory that a child of fork finds zero (MADV_WIPEONFORK), so a child begins anew, whatever its parent's
//! threads were doing. A pid could not tell the two apart, because PID namespaces repeat pids. The memory is a
//! static with pages of its own if the kernel accepts that: then a first call maps nothing, and works under mlockall(2) with
//! RLIMIT_MEMLOCK used up. Otherwise it is a mapping.

// # Safety
//
// The memory is zeroed when the first thread sees it, is never given back, and is made of atomics, but for `scratch`,
// which belongs to the owner of the lock. `plan` and `answers` point to the caller's memory from `publish` until the
// caller releases; held threads read them only between `publish` and their report, while the caller waits for
// exactly that and does not write there.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::answers::Answers;
use super::call::Call;
use super::divergence::Sensitivity;
use super::entry::Entry;
use super::rendezvous::Rendezvous;
use super::thread_table::{FIRST, ThreadTable};
use crate::errno::Errno;
use crate::sys::mapping::{Mapping, OwnPages, SMALL_PAGE};
use crate::sys::{self, Mask};

/// getdents64(2) fills this much at a time.
const SCRATCH: usize = 4096;

#[repr(C, align(4096))]
pub(super) struct Shared {
    pub(super) rendezvous: Rendezvous,
    pub(super) threads: ThreadTable,
    /// The process that the memory belongs to. A task that reads another pid than its own shares this memory without
    /// being a thread of it. Written by the initiator that claims it, under no lock.
    owner: AtomicU32,
    /// Another library's handler stands above ours, so our handler must set the mask itself. Caller, under the lock.
    chained: AtomicU32,
    /// What became of a signal that the caller sends to itself: 0, [`RECEIVING`] or [`RECEIVED`]. Written by the caller and
    /// its own handler.
    own_signal: AtomicU32,
    /// Most of the threads' ids could not be guessed. Caller, under the lock.
    pub(super) guess_failed: AtomicU32,
    /// The caller has begun a call that may change something in the stop that is open, and the call has not failed: read
    /// if the caller leaves its stop.
    begun: AtomicU32,
    /// The caller's [`Sensitivity`]: read if another thread must judge in its place.
    sensitivity: AtomicU32,
    /// The program has a handler for SIGSYS, so that a thread may leave the stop by siglongjmp. Written by the caller before
    /// the gate opens, and again when all threads are held.
    may_jump: AtomicU32,
    /// Set by the caller together with `may_jump`; cleared by the watchdog that sends the caller a signal for that reason,
    /// once in a stop.
    signal_caller: AtomicU32,
    /// A seccomp filter that the calls bring is there, or will be: it may forbid all but futex(2), rt_sigreturn(2) and
    /// rt_sigprocmask(2). Set by the caller before it publishes.
    filtered: AtomicU32,
    /// A watchdog has taken this stop over. Written by watchdogs.
    taken_over: AtomicU32,
    /// How often a watchdog has looked after the caller under a filter that the calls bring. Written by watchdogs.
    looks_under_filter: AtomicU32,
    /// The calls that held threads perform: `*const Call`, and which of them.
    plan: AtomicUsize,
    first: AtomicUsize,
    directories_are_shared: AtomicU32,
    end: AtomicUsize,
    /// Where each thread answers: `*const Answers`, or null.
    answers: AtomicUsize,
    /// The first entries of `threads`, so that a process with few threads needs no mapping.
    entries: [Entry; FIRST],
    /// Belongs to the owner of the lock.
    scratch: UnsafeCell<[u8; SCRATCH]>,
}

/// The calls of the stop up to the last that every thread performs now, which of them is the first to perform, and
/// where each thread answers.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) calls: &'a [Call],
    pub(super) first: usize,
    /// All threads share root and working directory with the caller, before and after each of the calls.
    pub(super) directories_are_shared: bool,
    pub(super) answers: Option<&'a Answers>,
}

/// The caller opens its own signal, under the lock.
const RECEIVING: u32 = 1;
/// The signal has come through.
const RECEIVED: u32 = 2;

struct Memory(UnsafeCell<MaybeUninit<Shared>>);

// SAFETY: nothing refers to it but as a `Shared`, which is made of atomics and of `scratch`, whose owner is the one
// that holds the lock.
unsafe impl Sync for Memory {}

/// Zeroed by the loader.
static MEMORY: OwnPages<Memory> = OwnPages(Memory(UnsafeCell::new(MaybeUninit::zeroed())));

/// The address of the `Shared` of this process, 0 before the first call. A child of fork keeps it.
static SHARED: AtomicUsize = AtomicUsize::new(0);

impl Shared {
    /// The shared memory, if a call has been made.
    pub(super) fn get() -> Option<&'static Self> {
        let at = NonNull::new(SHARED.load(Ordering::Acquire) as *mut Self)?;
        // SAFETY: published once, initialised (zero), never given back.
        Some(unsafe { at.as_ref() })
    }

    pub(super) fn get_or_init() -> Result<&'static Self, Errno> {
        if let Some(shared) = Self::get() {
            return Ok(shared);
        }
        let fixed = NonNull::new(MEMORY.0.0.get().cast::<u8>()).ok_or(Errno::INVAL)?;
        let mapped = match MEMORY.wipe_on_fork() {
            Ok(()) => None,
            Err(_) => {
                let mapped = Mapping::new(size_of::<Self>())?;
                mapped.wipe_on_fork()?;
                Some(mapped)
            }
        };
        let address = mapped.as_ref().map_or(fixed, Mapping::address).as_ptr() as usize;
        // If another thread was faster, its memory is used, and the mapping is given back.
        if SHARED.compare_exchange(0, address, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            mapped.map(Mapping::leak);
        }
        Self::get().ok_or(Errno::AGAIN)
    }

    /// Has every page present, and the first entries in the table. Called under the lock, with no thread held: a
    /// child of fork finds the pages absent and the table empty.
    pub(super) fn prepare(&self) {
        self.threads.set_first_entries(&self.entries);
        // The owner of the lock before may have left it while it took its own signal.
        self.own_signal.store(0, Ordering::SeqCst);
        for page in (0..size_of::<Self>() / SMALL_PAGE).map(|page| page.saturating_mul(SMALL_PAGE))
        {
            let word = ptr::from_ref(self).cast::<u8>().wrapping_add(page).cast::<AtomicU32>();
            // SAFETY: the first word of a page of this memory, which is written as an atomic and not changed.
            let word = unsafe { &*word };
            word.fetch_add(0, Ordering::Relaxed);
        }
    }

    /// The process that the memory belongs to.
    pub(super) fn pid(&self) -> i32 {
        self.owner.load(Ordering::Acquire) as i32
    }

    /// Initiator: claims the memory for this process. Returns false if it belongs to another process that lives: one
    /// that shares its memory with this one (CLONE_VM without CLONE_THREAD).
    pub(super) fn claim(&self, pid: i32) -> bool {
        let me = pid as u32;
        let claim =
            |from| self.owner.compare_exchange(from, me, Ordering::AcqRel, Ordering::Acquire);
        // P8: the memory reads zero in a child of fork, so a child claims it anew.
        match claim(0) {
            // One of the two may be the first process of a PID namespace of its own, where the other cannot be seen although it
            // lives.
            Err(other) if other != me && (me == 1 || other == 1) => false,
            // A child of vfork, say, which is over.
            Err(other) if other != me => {
                let missing = |pid| sys::tgkill(pid, pid, 0) == Err(Errno::SRCH);
                // A filter that answers ESRCH for this process too is not believed.
                missing(other as i32) && !missing(pid) && claim(other).is_ok()
            }
            _ => true,
        }
    }

    /// The memory for getdents64(2).
    ///
    /// # Safety
    /// The calling thread owns the lock, and no other slice of the scratch is in use.
    #[expect(clippy::mut_from_ref, reason = "the lock makes it exclusive")]
    pub(super) unsafe fn scratch(&self) -> &mut [u8] {
        // SAFETY: promised by the caller.
        unsafe { &mut *self.scratch.get() }
    }

    /// Caller, before the gate opens: a stop of this sensitivity begins. `may_jump`: the program has a handler for
    /// SIGSYS.
    pub(super) fn begin(&self, sensitivity: Sensitivity, may_jump: bool) {
        self.begun.store(0, Ordering::Relaxed);
        self.filtered.store(0, Ordering::Relaxed);
        self.taken_over.store(0, Ordering::Relaxed);
        self.looks_under_filter.store(0, Ordering::Relaxed);
        self.may_jump.store(u32::from(may_jump), Ordering::Relaxed);
        self.signal_caller.store(u32::from(may_jump), Ordering::Relaxed);
        self.sensitivity.store(u32::from(sensitivity as u8), Ordering::Relaxed);
    }

    /// Whether a thread may leave the stop by siglongjmp.
    pub(super) fn may_jump(&self) -> bool {
        self.may_jump.load(Ordering::SeqCst) != 0
    }

    /// Caller, when all threads are held: the program has a handler for SIGSYS that came after [`begin`](Self::begin).
    pub(super) fn set_may_jump(&self) {
        self.may_jump.store(1, Ordering::SeqCst);
        self.signal_caller.store(1, Ordering::SeqCst);
    }

    /// Caller, before each call of the stop that may change something, and when one has failed.
    pub(super) fn set_begun(&self, begun: bool) {
        self.begun.store(u32::from(begun), Ordering::SeqCst);
    }

    /// Whether the caller may have changed anything in this stop.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst) != 0
    }

    /// Caller: the calls install a filter.
    pub(super) fn set_filtered(&self) {
        self.filtered.store(1, Ordering::SeqCst);
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.filtered.load(Ordering::SeqCst) != 0
    }

    /// Watchdog: whether it is the first to end this stop in its caller's place.
    pub(super) fn is_first_to_take_over(&self) -> bool {
        self.taken_over.swap(1, Ordering::SeqCst) == 0
    }

    /// Watchdog: whether it should not signal the caller yet, because a filter that the calls bring may forbid it. Without
    /// the signal, a caller that has left its stop would keep all others held; so it is sent when there has been time
    /// for every call.
    pub(super) fn waits_under_filter(&self) -> bool {
        self.is_filtered() && self.looks_under_filter.fetch_add(1, Ordering::SeqCst) < 80
    }

    /// Whether a divergence kills the process.
    pub(super) fn kills_on_divergence(&self) -> bool {
        self.sensitivity.load(Ordering::Relaxed) == u32::from(Sensitivity::Error as u8)
    }

    /// Watchdog: sends the caller a signal, unless another one has in this stop. If that fails, the next look tries again: the
    /// queue may have room then, or the filter of another watchdog may allow it.
    pub(super) fn signal_caller_once(&self, send: impl FnOnce(usize) -> Result<(), Errno>) {
        let word = &self.signal_caller;
        if word.load(Ordering::SeqCst) != 0
            && word.swap(0, Ordering::SeqCst) != 0
            && send(self.caller_signal_value()).is_err()
        {
            word.store(1, Ordering::SeqCst);
        }
    }

    /// Caller, under the lock: whether another library's handler stands above ours.
    pub(super) fn set_chained(&self, chained: bool) {
        self.chained.store(u32::from(chained), Ordering::Release);
    }

    /// Handler: blocks what our own action would have blocked.
    pub(super) fn block_if_chained(&self, interrupted: Mask) {
        if self.chained.load(Ordering::Acquire) != 0 {
            let _ = sys::set_mask(sys::all_but_sigsys(interrupted));
        }
    }

    /// Caller: sends itself a signal by `send`, opens it by `receive`, and says whether our handler got it.
    pub(super) fn own_signal_arrives(
        &self,
        send: impl FnOnce(usize) -> bool,
        receive: impl FnOnce(),
    ) -> bool {
        if !send(ptr::from_ref(self) as usize) {
            return false;
        }
        self.own_signal.store(RECEIVING, Ordering::SeqCst);
        receive();
        self.own_signal.swap(0, Ordering::SeqCst) == RECEIVED
    }

    /// Whether the caller has opened its signal although it owns the lock.
    pub(super) fn receives_own_signal(&self) -> bool {
        self.own_signal.load(Ordering::SeqCst) != 0
    }

    /// Handler: whether the signal is the one of [`own_signal_arrives`](Self::own_signal_arrives); takes note of it.
    pub(super) fn take_own_signal(&self, value: usize) -> bool {
        let ours = value == ptr::from_ref(self) as usize;
        if ours {
            // Only while the caller receives it: later, it would look as if the caller still did.
            let (from, to) = (RECEIVING, RECEIVED);
            let _ = self.own_signal.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        }
        ours
    }

    /// The value of the signal that a watchdog, or an initiator that waits for the lock, sends to the caller.
    pub(super) fn caller_signal_value(&self) -> usize {
        ptr::from_ref(&self.signal_caller) as usize
    }

    /// Caller, before it publishes.
    pub(super) fn set_plan(&self, plan: Plan) {
        self.plan.store(plan.calls.as_ptr() as usize, Ordering::Release);
        self.first.store(plan.first, Ordering::Release);
        self.end.store(plan.calls.len(), Ordering::Release);
        self.directories_are_shared
            .store(u32::from(plan.directories_are_shared), Ordering::Release);
        let answers = plan.answers.map_or(ptr::null(), ptr::from_ref);
        self.answers.store(answers as usize, Ordering::Release);
    }

    /// Held thread, between `publish` and its report.
    ///
    /// # Safety
    /// The caller has published and waits for the report of this thread.
    pub(super) unsafe fn plan(&self) -> Plan<'_> {
        let calls = self.plan.load(Ordering::Acquire) as *const Call;
        // In a child that a handler of SIGSYS has just forked out of this thread there is no plan.
        let end = if calls.is_null() { 0 } else { self.end.load(Ordering::Acquire) };
        let calls = if calls.is_null() { ptr::dangling() } else { calls };
        let answers = self.answers.load(Ordering::Acquire) as *const Answers;
        Plan {
            // SAFETY: the caller's slice has `end` calls, and stays as it is until this thread reports.
            calls: unsafe { core::slice::from_raw_parts(calls, end) },
            first: self.first.load(Ordering::Acquire),
            directories_are_shared: self.directories_are_shared.load(Ordering::Acquire) != 0,
            // SAFETY: null, or the caller's, which lives until it has released.
            answers: unsafe { answers.as_ref() },
        }
    }
}
