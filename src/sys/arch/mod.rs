//! What differs from CPU to CPU, one file each, with the same names in all of them.

// # Safety
//
// The CPU files hold the instructions that Rust has no words for.
#![allow(unsafe_code)]

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[path = "x86_64.rs"]
mod cpu;

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
compile_error!("libpsx: no port for this CPU yet (see src/sys/arch)");

pub(crate) use cpu::*;
