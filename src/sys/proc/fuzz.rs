//! The readers of /proc, for the fuzz targets (`fuzz/`). A program cannot use this: it exists under `--cfg psx_fuzz` only.
#![forbid(unsafe_code)]
#![allow(missing_docs)] // no program sees it

use core::cell::Cell;
use core::ffi::CStr;

use linux_raw_sys::general::O_DIRECTORY;

use super::{Task, TaskStatus, Tasks};
use crate::error::UnreachableReason;
use crate::report::SkipReason;
use crate::sys::Fd;

pub fn next_record(records: &[u8]) -> Option<(Option<i32>, &[u8])> {
    super::next_record(records)
}

/// A directory that stands for /proc/self/task: it has one directory for each thread.
pub struct Directory(Tasks);

/// What was read of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    NotFound,
    Unknown,
    Exempt(SkipReason, usize),
    Live { state: u8, name: [u8; 16], blocked: u64, pending: u64, reason: UnreachableReason },
}

impl Directory {
    pub fn open(path: &CStr) -> Option<Self> {
        let directory = Some(Fd::open(path, O_DIRECTORY).ok()?);
        let (readable, own, foreign, spare) = (true, false, false, Cell::new(None));
        Some(Self(Tasks { pid: 1, tid: 1, directory, readable, spare, own, foreign }))
    }

    pub fn status(&self, name: i32) -> Found {
        let task = Task { tid: name, name };
        match self.0.status(task) {
            TaskStatus::NotFound => Found::NotFound,
            TaskStatus::Unknown => Found::Unknown,
            TaskStatus::Exempt { reason, start } => Found::Exempt(reason, start),
            TaskStatus::Live(live) => Found::Live {
                state: live.state,
                name: live.name,
                blocked: live.blocked,
                pending: live.pending,
                reason: self.0.unreachable_reason(task, &live),
            },
        }
    }

    /// The thread's id in the innermost namespace, and whether it has another one.
    pub fn ids(&self, name: i32) -> Option<(Option<i32>, bool)> {
        self.0.ids(name).ok()
    }
}
