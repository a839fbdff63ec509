//! The atomics the protocol is written on. Under `--cfg loom` they are loom's, which runs every
//! interleaving of a small case, so that the model checks the very code that ships.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
