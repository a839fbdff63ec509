//! A list that grows without an allocator: a few items lie in the value itself, more in a mapping of their own.
//!
//! It is filled before a stop begins. Nothing here runs while threads are held.

use crate::errno::Errno;
use crate::sys::mapping::MappedList;

/// How many items need no mapping.
const INLINE: usize = 16;

pub(crate) struct List<T: Copy> {
    inline: [T; INLINE],
    len: usize,
    mapped: MappedList<T>,
}

impl<T: Copy> List<T> {
    /// Makes an empty list. `unused` lies in the places that no item has taken yet.
    pub(crate) const fn new(unused: T) -> Self {
        Self { inline: [unused; INLINE], len: 0, mapped: MappedList::EMPTY }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `capacity` items in all.
    pub(crate) fn reserve(&mut self, capacity: usize) -> Result<(), Errno> {
        if capacity <= self.mapped.capacity().max(INLINE) {
            return Ok(());
        }
        let mut mapped = MappedList::with_capacity(capacity)?;
        for &item in self.as_slice() {
            mapped.push(item);
        }
        self.mapped = mapped;
        Ok(())
    }

    /// Appends an item. If the kernel has no memory for it, the list stays as it is.
    pub(crate) fn push(&mut self, item: T) -> Result<(), Errno> {
        if self.len == self.mapped.capacity().max(INLINE) {
            self.reserve(self.len.saturating_mul(2))?;
        }
        if self.mapped.is_mapped() {
            self.mapped.push(item);
        } else if let Some(place) = self.inline.get_mut(self.len) {
            *place = item;
        }
        self.len = self.len.wrapping_add(1);
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        if self.mapped.is_mapped() {
            self.mapped.as_slice()
        } else {
            self.inline.get(..self.len).unwrap_or_default()
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        if self.mapped.is_mapped() {
            self.mapped.as_mut_slice()
        } else {
            self.inline.get_mut(..self.len).unwrap_or_default()
        }
    }

    /// Copies the list.
    pub(crate) fn copy(&self) -> Result<Self, Errno> {
        let mut copy = Self { inline: self.inline, len: self.len, mapped: MappedList::EMPTY };
        if self.mapped.is_mapped() {
            copy.mapped = MappedList::with_capacity(self.len)?;
            for &item in self.as_slice() {
                copy.mapped.push(item);
            }
        }
        Ok(copy)
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
        // Nearly all addresses there are, because an item has eight bytes.
        assert_eq!(list.reserve(usize::MAX / 8 - 4096), Err(Errno::NOMEM));
        assert_eq!(list.as_slice(), [7]);
    }
}
