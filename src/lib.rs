//! One system call, performed by every thread of a Linux process at once: all threads or none.
#![no_std]
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(not(target_os = "linux"))]
compile_error!("libpsx is for Linux: other kernels keep credentials per process");

mod answers;
mod arch;
mod broadcast;
mod calls;
mod entry;
mod errno;
mod error;
mod futex;
mod judge;
mod names;
mod operation;
pub mod process;
mod records;
mod rendezvous;
mod report;
mod roster;
mod signal;
mod stop;
mod sync;
mod sys;
mod tasks;
mod transaction;

pub use broadcast::{Broadcast, sensitivity, set_sensitivity, syscall3, syscall6};
pub use calls::Agreement;
pub use errno::Errno;
pub use error::{
    Error, Need, Obstacle, Partial, Refusal, Straggler, TransactionError, Unreachable,
};
pub use judge::Sensitivity;
pub use report::{Exempt, ExemptReason, Outcome, Report, ThreadResult};
pub use transaction::{OnPartial, Transaction};
