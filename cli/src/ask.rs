//! Questions to the kernel: how a task is scheduled, what it shares, and which file a path leads to.
//!
//! /proc does not answer these. Those about a task name it by its number. The caller checks that the number still belongs to the task: it reads the
//! task's `stat` through an open directory afterwards ([`crate::tasks`]).

// # Safety
//
// Each call only reads state. `sched_getattr` writes into a structure that is passed with its size, and `statx` into one of
// a fixed size; no other call here writes memory.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libc::{SYS_ioprio_get, SYS_kcmp, SYS_sched_getattr, SYS_statx};

/// include/uapi/linux/sched/types.h, as far as every kernel since 3.14 fills it.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SchedulingAttributes {
    size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// The size of [`SchedulingAttributes`], `SCHED_ATTR_SIZE_VER0`.
const SIZE: u32 = 48;
const _: () = assert!(size_of::<SchedulingAttributes>() == SIZE as usize);

/// Returns what sched_getattr(2) says of a task.
pub(crate) fn scheduling(tid: i32) -> Option<SchedulingAttributes> {
    let mut attributes = SchedulingAttributes::default();
    let (pointer, flags) = (&raw mut attributes, 0);
    // SAFETY: the kernel writes at most SIZE bytes to the structure, which is that large and outlives the call.
    let result = unsafe { libc::syscall(SYS_sched_getattr, tid, pointer, SIZE, flags) };
    (result == 0).then_some(attributes)
}

/// Returns the I/O priority of a task as ioprio_get(2) packs it: the class in the bits from 13 on.
pub(crate) fn io_priority(tid: i32) -> Option<u16> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: the call takes two numbers and touches no memory of this process.
    let result = unsafe { libc::syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid) };
    u16::try_from(result).ok()
}

/// Returns whether the kernel says that two tasks share root directory, working directory and umask (CLONE_FS).
/// Returns false if the kernel does not answer: kcmp(2) needs the right to trace both tasks, and may be missing.
pub(crate) fn share_directories(one: i32, other: i32) -> bool {
    const KCMP_FS: i32 = 3;
    // SAFETY: the call takes numbers and touches no memory of this process.
    let result = unsafe { libc::syscall(SYS_kcmp, one, other, KCMP_FS, 0_usize, 0_usize) };
    result == 0
}

/// A file, by its device and its inode number.
pub(crate) type FileIdentity = (u64, u64);

/// Returns which file a path leads to, from a directory. The kernel answers from memory: a file system whose server does not
/// answer must not keep this process waiting.
pub(crate) fn file(directory: Option<BorrowedFd<'_>>, path: &CStr) -> Option<FileIdentity> {
    const FLAGS: i32 = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    const STATX_INO: u32 = 0x100;
    // include/uapi/linux/stat.h: stx_ino is at byte 32; stx_dev_major and stx_dev_minor are at bytes 136 and 140.
    let mut found = [0_u64; 32];
    let directory = directory.map_or(libc::AT_FDCWD, |directory| directory.as_raw_fd());
    let (path, result) = (path.as_ptr(), found.as_mut_ptr());
    // SAFETY: the kernel reads the path up to its 0, and writes 256 bytes (struct statx), which the array has.
    let done = unsafe { libc::syscall(SYS_statx, directory, path, FLAGS, STATX_INO, result) };
    let [_, _, _, _, inode, ..] = found;
    let device = found.get(136 / 8).copied()?;
    (done == 0).then_some((device, inode))
}
