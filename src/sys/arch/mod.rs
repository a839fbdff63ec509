//! What differs from CPU to CPU. Each CPU is one file that holds the same names:
//!
//! | name | meaning |
//! |---|---|
//! | `ELF_MACHINE` | what a program for this CPU is marked by |
//! | `syscall6` | the instruction of a system call, and the registers that the kernel does not keep |
//! | `call_number` | the part of the number that the kernel reads |
//! | `Restorer`, `restorer` | whether `sigaction` has a field for it, and what is written there |
//! | `UCONTEXT_MASK` | where a signal frame keeps the mask of the interrupted code |
//! | `trap` | an instruction that ends the process |
//! | `FORKS`, `LEAVES_HANDLER`, `CHANGES_SIGNALS`, `OLD_SIGACTIONS`, `PAUSES`, `POLL`, `SELECT`, `replaces_thread_state`, `is_other_abi` | calls that only some CPUs have, and that are refused |
//! | `MMAP_READS_MEMORY` | whether mmap(2) takes its arguments in memory |
//!
//! `calls64.rs` and `calls32.rs` hold the numbers that depend on the size of a register.
//!
//! Each layout is stated in the file of the CPU as a number, is written here as a structure, and is compared at compile
//! time with linux-raw-sys, which is generated from the kernel's headers. In a test build the C library's own
//! structure is compared too.

// # Safety
//
// The CPU files hold the instructions that Rust has no words for.
#![allow(unsafe_code)]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("libpsx needs 64-bit atomics; this CPU has none (on arm: before ARMv6K)");

#[cfg(not(any(
    all(any(target_arch = "x86_64", target_arch = "aarch64"), target_pointer_width = "64"),
    target_arch = "riscv64",
    target_arch = "s390x",
    target_arch = "powerpc64",
    target_arch = "loongarch64",
    target_arch = "arm",
    target_arch = "x86",
)))]
compile_error!("libpsx: there is no code for this CPU yet (see src/sys/arch)");

// A kernel for checkers, in the program. See there.
#[cfg(any(miri, psx_twin))]
#[path = "twin.rs"]
pub(crate) mod cpu;

#[cfg(not(any(miri, psx_twin)))]
#[cfg_attr(all(target_arch = "x86_64", target_pointer_width = "64"), path = "x86_64.rs")]
#[cfg_attr(all(target_arch = "aarch64", target_pointer_width = "64"), path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
#[cfg_attr(target_arch = "s390x", path = "s390x.rs")]
#[cfg_attr(target_arch = "powerpc64", path = "powerpc64.rs")]
#[cfg_attr(target_arch = "loongarch64", path = "loongarch64.rs")]
#[cfg_attr(target_arch = "arm", path = "arm.rs")]
#[cfg_attr(target_arch = "x86", path = "x86.rs")]
mod cpu;

/// Not for CPUs with a table of calls of their own.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64"))]
mod generic;

#[cfg_attr(target_pointer_width = "64", path = "calls64.rs")]
#[cfg_attr(target_pointer_width = "32", path = "calls32.rs")]
mod calls;

use core::mem::offset_of;

use linux_raw_sys::general as k;

pub(crate) use self::calls::*;
pub(crate) use self::cpu::*;
use crate::sys::Mask;

/// A set of signals in memory, as the kernel reads and writes it: words as large as a register, signals 1 to 32 (or 64)
/// in the first, the lowest bit first (include/uapi/asm-generic/signal.h).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelMask([usize; MASK_WORDS]);

const MASK_WORDS: usize = (Mask::BITS / usize::BITS) as usize;

impl KernelMask {
    #[cfg(target_pointer_width = "64")]
    pub(crate) const fn new(mask: Mask) -> Self {
        Self([mask as usize])
    }

    #[cfg(target_pointer_width = "64")]
    pub(crate) const fn get(self) -> Mask {
        let Self([mask]) = self;
        mask as Mask
    }

    #[cfg(target_pointer_width = "32")]
    pub(crate) const fn new(mask: Mask) -> Self {
        Self([mask as usize, (mask >> usize::BITS) as usize])
    }

    #[cfg(target_pointer_width = "32")]
    pub(crate) const fn get(self) -> Mask {
        let Self([low, high]) = self;
        low as Mask | (high as Mask) << usize::BITS
    }
}

/// What rt_sigaction(2) takes (include/linux/signal_types.h, `struct sigaction`). libc's `sigaction` is another
/// structure.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KernelSigaction {
    pub(crate) handler: usize,
    pub(crate) flags: usize,
    /// Of no size on CPUs whose kernel has no such field.
    restorer: Restorer,
    mask: KernelMask,
}

impl KernelSigaction {
    /// An action whose handler returns to the kernel.
    pub(crate) fn new(handler: usize, flags: usize, mask: Mask) -> Self {
        let (flag, restorer) = restorer();
        Self { handler, flags: flags | flag, restorer, mask: KernelMask::new(mask) }
    }

    /// SIG_DFL.
    pub(crate) const DEFAULT: Self =
        Self { handler: 0, flags: 0, restorer: NO_RESTORER, mask: KernelMask::new(0) };

    pub(crate) const fn mask(&self) -> Mask {
        self.mask.get()
    }
}

const _: () = {
    assert!(k::SIGSYS as i32 == crate::sys::SIGSYS && k::SIGSTOP as i32 == crate::sys::SIGSTOP);
    assert!(size_of::<KernelMask>() == 8);
    assert!(size_of::<KernelMask>() == size_of::<k::kernel_sigset_t>());
    assert!(align_of::<KernelMask>() == align_of::<k::kernel_sigset_t>());
    assert!(size_of::<KernelSigaction>() == size_of::<k::kernel_sigaction>());
    assert!(
        offset_of!(KernelSigaction, handler) == offset_of!(k::kernel_sigaction, sa_handler_kernel)
    );
    assert!(offset_of!(KernelSigaction, flags) == offset_of!(k::kernel_sigaction, sa_flags));
    assert!(offset_of!(KernelSigaction, mask) == offset_of!(k::kernel_sigaction, sa_mask));
};

/// The beginning of a `ucontext` (include/uapi/asm-generic/ucontext.h), with what the CPU puts before the mask.
#[repr(C)]
struct Ucontext<T> {
    flags: usize,
    link: usize,
    stack: k::stack_t,
    registers: T,
    mask: KernelMask,
}

#[cfg(test)]
const _: () = assert!(UCONTEXT_MASK == offset_of!(libc::ucontext_t, uc_sigmask));

/// Numbers of a call that takes or gives a time: the first one reads or writes it in registers' size, the second one in
/// 64 bits. On 64-bit CPUs both are the same call.
#[derive(Clone, Copy)]
pub(crate) struct Timed {
    pub(crate) plain: u32,
    pub(crate) wide: u32,
}
