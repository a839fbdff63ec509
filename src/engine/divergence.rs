//! What a divergence does: the line on standard error, and the death of the process.
//!
//! The other threads are still held, and may own any lock. So the line is put together in a buffer on
//! the stack, and written by raw calls that do not wait ([`sys::write_line`]).

use crate::engine::call::Call;
use crate::engine::entry::{Entry, ThreadState};
use crate::errno::Errno;
use crate::sys;

/// What happens when a thread's result differs from the caller's.
///
/// The process is inconsistent then, and nothing can take the calls back: the caller and the
/// threads that agreed have performed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Sensitivity {
    /// Does nothing. The report says which threads differ.
    Ignore = 0,
    /// Writes a line to standard error. It names the call, its arguments, the expected result, and
    /// the result of each thread that differs. If standard error has no room for the line (a full
    /// pipe, a stopped terminal), the line is lost: the call does not wait for a reader.
    Warning = 1,
    /// Writes that line, and then kills the process by signal 33, before any thread leaves the stop.
    #[default]
    Error = 2,
}

/// Applies the sensitivity. Returns only if the process may go on.
pub(crate) fn judge<'a>(
    sensitivity: Sensitivity,
    calls: &[Call],
    entries: impl Iterator<Item = &'a Entry>,
) {
    if sensitivity == Sensitivity::Ignore {
        return;
    }
    let mut line = Line::new();
    let mut named = None;
    for entry in entries {
        let state = entry.state();
        let Some((index, has_result)) = state.last_call().filter(|_| state.is_divergent()) else {
            continue;
        };
        let Some(call) = calls.get(index) else { continue };
        if named != Some(index) {
            line.text(if named.is_none() { "libpsx: " } else { "; " });
            line.call(call);
            line.text(", but in");
            named = Some(index);
        }
        line.text(" thread ").signed(entry.tid() as isize).text(": ");
        if !has_result {
            line.text(if matches!(state, ThreadState::Died(_)) {
                "died"
            } else {
                "left by a jump"
            });
        } else {
            line.result(entry.value() as isize);
        }
        line.text(",");
    }
    match sensitivity {
        Sensitivity::Ignore => {}
        Sensitivity::Warning => {
            line.end(" process inconsistent\n");
            sys::write_line(line.bytes());
        }
        Sensitivity::Error => line.end_process(" process killed\n"),
    }
}

/// Ends the process because its calls can neither be taken back nor be completed.
pub(crate) fn abort(why: &str) -> ! {
    let mut line = Line::new();
    line.text("libpsx: ").text(why).end_process(", process killed\n")
}

/// Ends the process because this call did something else in the calling thread than what it is for.
pub(crate) fn abort_after(call: &Call) -> ! {
    let mut line = Line::new();
    line.text("libpsx: ").call(call);
    line.text(" in the calling thread, expected ").result(call.required.unwrap_or_default());
    line.end_process(", process killed\n")
}

/// Ends the process because this call of a transaction failed after others had been performed.
pub(crate) fn abort_at(call: &Call, index: usize) -> ! {
    let mut line = Line::new();
    line.text("libpsx: call ").signed(index as isize).text(" of a transaction, ").call(call);
    line.end_process(" when others had been performed, process killed\n")
}

/// A line that is cut if it grows too long. Shorter than PIPE_BUF, so that a pipe takes it in one piece.
struct Line {
    buffer: [u8; 1024],
    len: usize,
}

impl Line {
    const fn new() -> Self {
        Self { buffer: [0; 1024], len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    fn text(&mut self, text: &str) -> &mut Self {
        for &byte in text.as_bytes() {
            if let Some(place) = self.buffer.get_mut(self.len) {
                *place = byte;
                self.len = self.len.wrapping_add(1);
            }
        }
        self
    }

    /// Appends the end, also to a full line.
    fn end(&mut self, text: &str) {
        self.len = self.len.min(self.buffer.len().saturating_sub(text.len()));
        self.text(text);
    }

    /// Appends the end, writes the line and ends the process.
    fn end_process(&mut self, text: &str) -> ! {
        self.end(text);
        sys::write_line_and_kill(self.bytes())
    }

    fn digits(&mut self, mut value: usize, base: usize) {
        let mut digits = [0u8; 20];
        let mut count = 0usize;
        for place in &mut digits {
            *place = *b"0123456789abcdef".get(value % base).unwrap_or(&b'?');
            count = count.wrapping_add(1);
            value /= base;
            if value == 0 {
                break;
            }
        }
        for &digit in digits.iter().take(count).rev() {
            self.text(core::str::from_utf8(&[digit]).unwrap_or_default());
        }
    }

    fn signed(&mut self, value: isize) -> &mut Self {
        if value < 0 {
            self.text("-");
        }
        self.digits(value.unsigned_abs(), 10);
        self
    }

    fn hex(&mut self, value: usize) {
        self.text("0x").digits(value, 16);
    }

    fn result(&mut self, result: isize) {
        self.signed(result);
        if let Err(errno) = Errno::check(result) {
            if let Some(name) = errno.name() {
                self.text(" (").text(name).text(")");
            }
        }
    }

    fn call(&mut self, call: &Call) {
        match call.name() {
            Some(name) => self.text(name),
            None => self.text("syscall ").signed(call.nr as isize),
        };
        for (index, &arg) in call.args.iter().enumerate() {
            self.text(if index == 0 { "(" } else { ", " }).hex(arg);
        }
        self.text(") returned ").result(call.expected);
    }
}
