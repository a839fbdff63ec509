//! One Linux system call on every thread of the process at once: on all of them, or on none.
//!
//! On Linux, user and group ids, capabilities, no_new_privs, seccomp filters and Landlock domains belong to a *thread*
//! (credentials(7), capabilities(7)). A multi-threaded program that drops privilege with a plain system call keeps it in
//! every other thread. This crate stops all threads, lets each of them perform the call, and releases them together.
//!
//! ```
//! use libpsx::process::set_no_new_privs;
//!
//! let worker = std::thread::spawn(std::thread::park);
//! // This holds for the worker too, and for every thread that is created later.
//! set_no_new_privs().execute()?;
//! worker.thread().unpark();
//! # Ok::<(), libpsx::Error>(())
//! ```
//!
//! # What is here
//!
//! | item | use it for |
//! |---|---|
//! | [`process`] | typed, safe calls: ids, groups, capabilities, securebits, no_new_privs, seccomp, Landlock, namespaces, scheduling |
//! | [`Transaction`] | several of these calls in one stop of all threads |
//! | [`syscall3`], [`syscall6`] | any call, without a type for it (`unsafe`) |
//! | [`Broadcast`] | the same with a deadline and a [`Sensitivity`] of its own, and a [`Report`] of what each thread returned |
//! | [`docs`] | promises, limitations, how it works, patterns |
//!
//! The crate [`privileges`](https://docs.rs/privileges) is built on this one. It plans the drop of a daemon's
//! privileges, performs it, and verifies every thread. Most programs want that crate.
//!
//! # When not to use it
//!
//! - The process has one thread when it makes the call: a plain system call does the same.
//! - Threads are to have different privileges on purpose: make the call in each thread.
//! - The call only reads: every thread can ask for itself.
//! - The call acts on the whole process already: [`process::prctls`] lists such calls.
//! - The call concerns what [`docs::limitations`] names: io_uring's SQPOLL threads, mount and PID namespaces.
//!
//! # Platform
//!
//! Linux, with glibc, musl or no C library; the crate is `no_std` and does not allocate. Rust 1.85 or later. The
//! feature `std` (on by default) adds conversions from and to `BorrowedFd`, `OwnedFd` and `io::Error`. The repository's
//! `docs/platforms.md` lists the CPUs and kernels on which the tests were run.
//!
//! The signal with number 33 stops the threads. The C library uses it too: glibc for its own setuid(3), musl for
//! pthread_cancel(3). Both uses keep working. See [`docs::limitations`] for what a program must not do beside a call,
//! and for what a seccomp filter must allow.
#![no_std]
#![cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(unused))]

#[cfg(not(any(target_os = "linux", target_os = "android")))]
compile_error!("libpsx is for Linux: other kernels keep credentials per process");

#[cfg(feature = "std")]
extern crate std;

mod broadcast;
pub mod docs;
mod engine;
mod errno;
mod error;
mod list;
pub mod process;
mod report;
mod sys;
mod transaction;

pub use broadcast::{Broadcast, sensitivity, set_sensitivity, syscall3, syscall6};
pub use engine::call::ResultCheck;
pub use engine::divergence::Sensitivity;
pub use errno::Errno;
pub use error::{
    Error, PartialFailure, RefusalReason, Requirement, SharedResource, TransactionError,
    UnreachableReason, UnreachableThread, UnreachableThreads,
};
pub use report::{CallOutcome, Report, SkipReason, SkippedTask, ThreadResult};
pub use transaction::{PartialFailureAction, Transaction};

#[cfg(psx_fuzz)]
#[doc(hidden)]
pub use sys::proc::fuzz;

/// Expands to its items if this crate is built without the standard library, and to nothing otherwise. A library
/// that has to define its own panic handler cannot ask which features its dependencies were given: in a workspace
/// another member may have turned `std` on.
#[doc(hidden)]
#[macro_export]
#[cfg(not(feature = "std"))]
macro_rules! __without_std {
    ($($item:item)*) => { $($item)* };
}

/// As above, with the standard library.
#[doc(hidden)]
#[macro_export]
#[cfg(feature = "std")]
macro_rules! __without_std {
    ($($item:item)*) => {};
}
