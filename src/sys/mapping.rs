//! Memory that the kernel maps: no allocator knows it.

// # Safety
//
// A `Mapping` owns its memory and gives it back when it is dropped. Code that uses the address keeps the `Mapping` for as
// long, or leaks it. `MappedList` hands out the initialised part of its mapping as a slice.
#![allow(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use linux_raw_sys::general as k;

use super::{arch, call};
use crate::errno::Errno;

/// Zeroed memory with every page present.
#[derive(Debug)]
pub(crate) struct Mapping {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it is an address and a length. Its users decide which thread may use the memory.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing here reads or writes the memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(bytes: usize) -> Result<Self, Errno> {
        let protection = (k::PROT_READ | k::PROT_WRITE) as usize;
        let flags = (k::MAP_PRIVATE | k::MAP_ANONYMOUS | k::MAP_POPULATE) as usize;
        let args = [0, bytes, protection, flags, usize::MAX, 0];
        let at = if arch::MMAP_READS_MEMORY {
            call(arch::MMAP, [args.as_ptr() as usize, 0, 0, 0, 0, 0])?
        } else {
            call(arch::MMAP, args)?
        };
        NonNull::new(at as *mut u8).map(|at| Self { at, bytes }).ok_or(Errno::INVAL)
    }

    pub(crate) const fn address(&self) -> NonNull<u8> {
        self.at
    }

    /// In a child of fork this memory reads zero.
    pub(crate) fn wipe_on_fork(&self) -> Result<(), Errno> {
        wipe_on_fork(self.at, self.bytes)
    }

    /// Keeps the memory for the life of the process.
    pub(crate) const fn leak(self) -> NonNull<u8> {
        let at = self.at;
        core::mem::forget(self);
        at
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = call(k::__NR_munmap, [self.at.as_ptr() as usize, self.bytes, 0, 0, 0, 0]);
    }
}

/// A list of a fixed capacity in a mapping.
pub(crate) struct MappedList<T: Copy> {
    memory: Option<Mapping>,
    len: usize,
    owns: PhantomData<T>,
}

impl<T: Copy> MappedList<T> {
    pub(crate) const EMPTY: Self = Self { memory: None, len: 0, owns: PhantomData };

    /// Maps memory for `capacity` items.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self, Errno> {
        if capacity == 0 {
            return Ok(Self::EMPTY);
        }
        let bytes = capacity.checked_mul(size_of::<T>()).ok_or(Errno::NOMEM)?;
        Ok(Self { memory: Some(Mapping::new(bytes)?), ..Self::EMPTY })
    }

    pub(crate) const fn is_mapped(&self) -> bool {
        self.memory.is_some()
    }

    /// Returns how many items there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.bytes / size_of::<T>())
    }

    /// Appends an item. Returns false if there is no room.
    pub(crate) fn push(&mut self, item: T) -> bool {
        let Some(memory) = &self.memory else { return false };
        let used = self.len.saturating_add(1).saturating_mul(size_of::<T>());
        if used > memory.bytes {
            return false;
        }
        // SAFETY: item `len` ends within the mapping, as `used` says; mappings are page-aligned.
        let end = unsafe { memory.at.cast::<T>().add(self.len) };
        // SAFETY: `end` lies in memory that belongs to this list alone.
        unsafe { end.write(item) };
        self.len = self.len.wrapping_add(1);
        true
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        match &self.memory {
            // SAFETY: `push` has written the first `len` items, and the mapping lives as long as `self`.
            Some(memory) => unsafe {
                core::slice::from_raw_parts(memory.at.cast().as_ptr(), self.len)
            },
            None => &[],
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        match &self.memory {
            // SAFETY: as in `as_slice`, and `self` is borrowed exclusively for as long as the slice.
            Some(memory) => unsafe {
                core::slice::from_raw_parts_mut(memory.at.cast().as_ptr(), self.len)
            },
            None => &mut [],
        }
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for MappedList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// In a child of fork this memory reads zero (MADV_WIPEONFORK, since Linux 4.14). The kernel rounds `bytes` up to whole
/// pages, and refuses an address at which no page begins.
pub(crate) fn wipe_on_fork(at: NonNull<u8>, bytes: usize) -> Result<(), Errno> {
    wipe_address_on_fork(at.as_ptr() as usize, bytes)
}

fn wipe_address_on_fork(at: usize, bytes: usize) -> Result<(), Errno> {
    let advice = k::MADV_WIPEONFORK as usize;
    call(k::__NR_madvise, [at, bytes, advice, 0, 0, 0]).map(|_| ())
}

/// A static with pages of its own, if pages are not larger than [`LARGEST_PAGE`]. Linux has larger ones than 4096 bytes on
/// these CPUs only.
#[cfg_attr(
    any(target_arch = "aarch64", target_arch = "powerpc64", target_arch = "loongarch64"),
    repr(C, align(65536))
)]
#[cfg_attr(
    not(any(target_arch = "aarch64", target_arch = "powerpc64", target_arch = "loongarch64")),
    repr(C, align(4096))
)]
pub(crate) struct OwnPages<T>(pub(crate) T);

const LARGEST_PAGE: usize = align_of::<OwnPages<()>>();

/// The smallest page of any CPU.
pub(crate) const SMALL_PAGE: usize = 4096;

impl<T> OwnPages<T> {
    /// In a child of fork this memory reads zero. Refused, with nothing changed, where pages are larger: the kernel would
    /// wipe what follows, too.
    pub(crate) fn wipe_on_fork(&'static self) -> Result<(), Errno> {
        let at = NonNull::from(self).cast::<u8>();
        // An odd multiple of the largest page begins no larger one. For no bytes, the kernel only checks the address
        // (madvise_should_skip, mm/madvise.c). A dynamic linker may heed no larger alignment than that of a page, as glibc's did
        // before 2.35: the memory then begins a page all the same.
        wipe_address_on_fork(at.as_ptr() as usize | LARGEST_PAGE, 0)?;
        wipe_on_fork(at, size_of::<Self>())
    }
}

#[cfg(all(test, not(loom), not(miri), not(psx_twin)))]
mod tests {
    use super::*;

    /// What [`OwnPages::wipe_on_fork`] relies on: an address at which no page begins is refused, even for no bytes.
    #[test]
    fn the_kernel_checks_the_address_of_nothing() {
        let memory = Mapping::new(2 * SMALL_PAGE).unwrap();
        let at = memory.address().as_ptr() as usize;
        assert_eq!(wipe_address_on_fork(at, 0), Ok(()));
        assert_eq!(wipe_address_on_fork(at + SMALL_PAGE / 2, 0), Err(Errno::INVAL));
    }
}
