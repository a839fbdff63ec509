//! What is said of a divergence, and what is done about it.
//!
//! The differing threads are still held, and may own any lock: the line is put together in a
//! buffer on the stack and leaves by one write(2).

use crate::engine::call::Call;
use crate::engine::entry::{Entry, Mark};
use crate::engine::handler::call_of;
use crate::errno::Errno;
use crate::sys;

/// What happens when a thread's result differs from the caller's.
///
/// The process is inconsistent then, and nothing can take the calls back: the caller and the
/// threads that agreed have performed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Sensitivity {
    /// Nothing; the report tells.
    Ignore = 0,
    /// A line on standard error names the call, its arguments, what was expected and what each
    /// differing thread got instead.
    Warning = 1,
    /// That line, and then the process is killed by signal 33 before any differing thread leaves
    /// the stop.
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
        let mark = entry.mark();
        let Some((index, has_result)) = call_of(mark).filter(|_| mark.is_divergent()) else {
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
            line.text(if matches!(mark, Mark::Died(_)) { "died" } else { "left by a jump" });
        } else {
            line.result(entry.value() as isize);
        }
        line.text(",");
    }
    line.end(match sensitivity {
        Sensitivity::Error => " process killed\n",
        _ => " process inconsistent\n",
    });
    sys::complain(line.bytes());
    if sensitivity == Sensitivity::Error {
        sys::die();
    }
}

/// Ends the process because it can neither be taken back nor completed.
pub(crate) fn lost(why: &str) -> ! {
    let mut line = Line::new();
    line.text("libpsx: ").text(why).end(", process killed\n");
    sys::complain(line.bytes());
    sys::die()
}

/// Ends the process because this call of a transaction failed after others had been performed.
pub(crate) fn lost_at(call: &Call, index: usize) -> ! {
    let mut line = Line::new();
    line.text("libpsx: call ").signed(index as isize).text(" of a transaction, ").call(call);
    line.end(" when others had been performed, process killed\n");
    sys::complain(line.bytes());
    sys::die()
}

/// A line that is cut, not continued, where it grows too long.
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

    /// Appends the end even to a full line.
    fn end(&mut self, text: &str) {
        self.len = self.len.min(self.buffer.len().saturating_sub(text.len()));
        self.text(text);
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
