//! Memory that the kernel maps: no allocator knows it.

// # Safety
//
// A mapping is given back only by the code that made it.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use linux_raw_sys::general as k;

use super::{arch, call};
use crate::errno::Errno;

/// Zeroed memory with every page present.
pub(crate) fn map_anonymous(bytes: usize) -> Result<NonNull<u8>, Errno> {
    let protection = (k::PROT_READ | k::PROT_WRITE) as usize;
    let flags = (k::MAP_PRIVATE | k::MAP_ANONYMOUS | k::MAP_POPULATE) as usize;
    let args = [0, bytes, protection, flags, usize::MAX, 0];
    let at = if arch::MMAP_READS_MEMORY {
        call(arch::MMAP, [args.as_ptr() as usize, 0, 0, 0, 0, 0])?
    } else {
        call(arch::MMAP, args)?
    };
    NonNull::new(at as *mut u8).ok_or(Errno::INVAL)
}

/// # Safety
/// `at` is a whole mapping of `bytes` that nothing refers to any more.
pub(crate) unsafe fn unmap(at: NonNull<u8>, bytes: usize) {
    let _ = call(k::__NR_munmap, [at.as_ptr() as usize, bytes, 0, 0, 0, 0]);
}

/// In a child of fork this memory reads zero (MADV_WIPEONFORK, since Linux 4.14).
pub(crate) fn wipe_on_fork(at: NonNull<u8>, bytes: usize) -> Result<(), Errno> {
    let args = [at.as_ptr() as usize, bytes, k::MADV_WIPEONFORK as usize, 0, 0, 0];
    call(k::__NR_madvise, args).map(|_| ())
}

/// A child of fork does not have this memory (MADV_DONTFORK).
pub(crate) fn keep_from_fork(at: NonNull<u8>, bytes: usize) -> Result<(), Errno> {
    let args = [at.as_ptr() as usize, bytes, k::MADV_DONTFORK as usize, 0, 0, 0];
    call(k::__NR_madvise, args).map(|_| ())
}
