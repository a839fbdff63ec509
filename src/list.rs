//! A list that grows without an allocator: a few items lie in the value itself, more in a mapping of their own.
//!
//! It is filled before a stop begins. Nothing here runs while threads are held.

// # Safety
//
// `List` owns an anonymous mapping, if it has one. The first `len` items are initialised, wherever they lie. The mapping
// is made, and given back, in this file alone.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use crate::errno::Errno;
use crate::sys;

/// How many items need no mapping.
const INLINE: usize = 16;

pub(crate) struct List<T: Copy> {
    inline: [T; INLINE],
    mapped: Option<NonNull<T>>,
    capacity: usize,
    len: usize,
}

// SAFETY: it owns its mapping as a Vec<T> would; nothing in it belongs to a thread.
unsafe impl<T: Copy + Send> Send for List<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Copy + Sync> Sync for List<T> {}

impl<T: Copy> List<T> {
    /// Makes an empty list. `unused` lies in the places that no item has taken yet.
    pub(crate) const fn new(unused: T) -> Self {
        Self { inline: [unused; INLINE], mapped: None, capacity: INLINE, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `capacity` items in all.
    pub(crate) fn reserve(&mut self, capacity: usize) -> Result<(), Errno> {
        if capacity <= self.capacity {
            return Ok(());
        }
        let bytes = capacity.checked_mul(size_of::<T>()).ok_or(Errno::NOMEM)?;
        let memory = sys::map_anonymous(bytes)?.cast::<T>();
        for (index, &item) in self.as_slice().iter().enumerate() {
            // SAFETY: the list has fewer items than the mapping has places, and mappings are page-aligned.
            let place = unsafe { memory.add(index) };
            // SAFETY: the place lies in memory that is ours alone.
            unsafe { place.write(item) };
        }
        self.give_back();
        (self.mapped, self.capacity) = (Some(memory), capacity);
        Ok(())
    }

    /// Appends an item. If the kernel has no memory for it, the list stays as it is.
    pub(crate) fn push(&mut self, item: T) -> Result<(), Errno> {
        if self.len == self.capacity {
            self.reserve(self.capacity.saturating_mul(2))?;
        }
        match self.mapped {
            Some(memory) => {
                // SAFETY: `len` is below the capacity of the mapping.
                let place = unsafe { memory.add(self.len) };
                // SAFETY: the place lies in memory that is ours alone.
                unsafe { place.write(item) };
            }
            None => {
                if let Some(place) = self.inline.get_mut(self.len) {
                    *place = item;
                }
            }
        }
        self.len = self.len.wrapping_add(1);
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        match self.mapped {
            // SAFETY: the first `len` items were written, and the mapping belongs to this list.
            Some(memory) => unsafe { core::slice::from_raw_parts(memory.as_ptr(), self.len) },
            None => self.inline.get(..self.len).unwrap_or_default(),
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        match self.mapped {
            // SAFETY: the first `len` items were written, the mapping belongs to this list, and `self` is borrowed for as
            // long as the slice.
            Some(memory) => unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), self.len) },
            None => self.inline.get_mut(..self.len).unwrap_or_default(),
        }
    }

    /// Copies the list.
    pub(crate) fn copy(&self) -> Result<Self, Errno> {
        let mut copy =
            Self { inline: self.inline, mapped: None, capacity: INLINE, len: self.len.min(INLINE) };
        if self.mapped.is_some() {
            copy.len = 0;
            copy.reserve(self.len)?;
            self.as_slice().iter().try_for_each(|&item| copy.push(item))?;
        }
        Ok(copy)
    }

    fn give_back(&mut self) {
        if let Some(memory) = self.mapped.take() {
            let bytes = self.capacity.wrapping_mul(size_of::<T>());
            // SAFETY: the mapping is ours, and nothing borrows from it.
            unsafe { sys::unmap(memory.cast(), bytes) };
            self.capacity = INLINE;
        }
    }
}

impl<T: Copy> Drop for List<T> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn items_stay_where_they_grow_out_of_the_value() {
        for count in [0u64, 1, 15, 16, 17, 32, 33, 1000] {
            let mut list = List::new(u64::MAX);
            for item in 0..count {
                assert_eq!(list.push(item), Ok(()));
            }
            let copy = list.copy();
            list.as_mut_slice().iter_mut().for_each(|item| *item += 1);
            assert_eq!(list.len() as u64, count);
            assert!(list.as_slice().iter().copied().eq(1..=count));
            assert!(copy.is_ok_and(|copy| copy.as_slice().iter().copied().eq(0..count)));
        }
    }

    #[test]
    fn too_much_is_an_error_and_the_list_stays() {
        let mut list = List::new(0u64);
        assert_eq!(list.push(7), Ok(()));
        assert_eq!(list.reserve(usize::MAX), Err(Errno::NOMEM));
        assert_eq!(list.reserve(usize::MAX / 64), Err(Errno::NOMEM));
        assert_eq!(list.as_slice(), [7]);
    }
}
