//! What differs from CPU to CPU, one file each, with the same names in all of them.

// # Safety
//
// The CPU files hold the instructions that Rust has no words for.
#![allow(unsafe_code)]

// A kernel for checkers, in the program. See there.
#[cfg(any(miri, psx_twin))]
#[path = "twin.rs"]
pub(crate) mod cpu;

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(any(miri, psx_twin))))]
#[path = "x86_64.rs"]
mod cpu;

#[cfg(not(any(all(target_arch = "x86_64", target_pointer_width = "64"), miri, psx_twin)))]
compile_error!("libpsx: no port for this CPU yet (see src/sys/arch)");

pub(crate) use cpu::*;
