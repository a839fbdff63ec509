//! The few kernel calls we make, typed.
#![allow(unsafe_code)]
use crate::error::Errno;
use core::ptr::NonNull;
pub(crate) fn map_anonymous(_bytes: usize) -> Result<NonNull<u8>, Errno> {
    Err(Errno::NOSYS)
}
pub(crate) unsafe fn unmap(_m: NonNull<u8>, _bytes: usize) {}
