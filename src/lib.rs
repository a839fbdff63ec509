//! One system call, performed by every thread of a Linux process at once: all threads or none.
#![no_std]
#![cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(unused))]

#[cfg(not(any(target_os = "linux", target_os = "android")))]
compile_error!("libpsx is for Linux: other kernels keep credentials per process");

#[cfg(feature = "std")]
extern crate std;

mod broadcast;
mod engine;
mod errno;
mod error;
mod list;
pub mod process;
mod report;
mod sys;
mod transaction;

pub use broadcast::{Broadcast, sensitivity, set_sensitivity, syscall3, syscall6};
pub use engine::call::Agreement;
pub use engine::divergence::Sensitivity;
pub use errno::Errno;
pub use error::{
    Error, Need, Obstacle, Partial, Refusal, Resource, Straggler, TransactionError, Unreachable,
};
pub use report::{Exempt, ExemptReason, Outcome, Report, ThreadResult};
pub use transaction::{OnPartial, Transaction};

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
