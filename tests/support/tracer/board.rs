//! The page that the program and the tracer share: its steps, its markers, and its text.

use std::fmt::Write;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use crate::support::cpu;

/// Memory that the program and its tracer share.
#[repr(C)]
pub struct Board {
    /// Set when the program may begin.
    pub go: AtomicU32,
    /// Whether a marker is a breakpoint. Otherwise the program waits there for the observer.
    pub traced: AtomicU32,
    /// The latest marker, 4 * step + kind; the kinds are `enter` 0, `leave` 1 and `tell` 2.
    pub marker: AtomicU32,
    /// The latest marker at which the observer has looked at the process.
    pub looked: AtomicU32,
    /// How the step ended: a number that the program defines, and a text.
    pub code: AtomicU32,
    pub length: AtomicUsize,
    pub text: [std::sync::atomic::AtomicU8; 512],
    /// The number of threads that are ready. Only the program uses it.
    pub ready: AtomicU32,
}

impl Board {
    pub fn new() -> &'static Self {
        let at = shared_memory(size_of::<Self>());
        // SAFETY: the memory is zeroed, as large as a board, and stays mapped; all fields are atomics.
        unsafe { &*(at as *const Self) }
    }

    /// Begins a step: from here on, the calling thread's kernel calls are libpsx's.
    pub fn enter(&self) {
        self.mark(0);
    }

    /// Ends libpsx's call, which has returned `code`. Until `tell`, the caller drops the result.
    pub fn leave(&self, code: u32) {
        self.code.store(code, SeqCst);
        self.mark(1);
    }

    /// Ends a step, and lets the observer read the state of the process. `text` says what was returned.
    pub fn tell(&self, text: std::fmt::Arguments) {
        self.length.store(0, SeqCst);
        let _ = (&mut &*self).write_fmt(text);
        self.mark(2);
    }

    pub fn mark(&self, kind: u32) {
        let before = self.marker.load(SeqCst);
        let marker = before - before % 4 + kind + if kind == 0 { 4 } else { 0 };
        self.marker.store(marker, SeqCst);
        if self.traced.load(SeqCst) != 0 {
            cpu::breakpoint();
        }
        while kind == 2 && self.looked.load(SeqCst) != marker {
            std::hint::spin_loop();
        }
    }

    /// Returns the number of the step, counted from 1.
    pub fn step(&self) -> u32 {
        self.marker.load(SeqCst) / 4
    }

    pub fn text(&self) -> String {
        let length = self.length.load(SeqCst);
        let bytes = self.text.iter().take(length).map(|byte| byte.load(SeqCst)).collect();
        String::from_utf8(bytes).unwrap_or_default()
    }
}

/// Writes without an allocator, because a filter may forbid its calls.
impl Write for &Board {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            let length = self.length.load(SeqCst);
            let Some(place) = self.text.get(length) else { break };
            place.store(byte, SeqCst);
            self.length.store(length + 1, SeqCst);
        }
        Ok(())
    }
}

/// Returns zeroed memory that a child of fork(2) shares.
pub fn shared_memory(bytes: usize) -> usize {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: the call creates a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at as usize
}
