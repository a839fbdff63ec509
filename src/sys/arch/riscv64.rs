//! riscv64: the system call, and where a signal frame keeps what we look at.

use core::mem::offset_of;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::{KernelSigaction, Ucontext};

/// `e_machine` of programs for this CPU (include/uapi/linux/elf-em.h).
pub(crate) const ELF_MACHINE: u16 = 243;

/// Any system call, and what the kernel returned (syscall(2), "Architecture calling conventions").
///
/// # Safety
/// The call must be sound here and now.
pub(crate) unsafe fn syscall6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel keeps every register but a0 and the vector registers (Documentation/arch/riscv/vector.rst); the
    // call is the caller's duty.
    unsafe {
        core::arch::asm!(
            "ecall",
            in("a7") nr,
            inlateout("a0") a => result,
            in("a1") b,
            in("a2") c,
            in("a3") d,
            in("a4") e,
            in("a5") f,
            lateout("v0") _, lateout("v1") _, lateout("v2") _, lateout("v3") _,
            lateout("v4") _, lateout("v5") _, lateout("v6") _, lateout("v7") _,
            lateout("v8") _, lateout("v9") _, lateout("v10") _, lateout("v11") _,
            lateout("v12") _, lateout("v13") _, lateout("v14") _, lateout("v15") _,
            lateout("v16") _, lateout("v17") _, lateout("v18") _, lateout("v19") _,
            lateout("v20") _, lateout("v21") _, lateout("v22") _, lateout("v23") _,
            lateout("v24") _, lateout("v25") _, lateout("v26") _, lateout("v27") _,
            lateout("v28") _, lateout("v29") _, lateout("v30") _, lateout("v31") _,
            options(nostack),
        );
    }
    result
}

/// Returns the number, cut to 32 bits: the kernel knows no larger one (`do_trap_ecall_u`, arch/riscv/kernel/traps.c).
pub(crate) const fn call_number(nr: usize) -> u32 {
    nr as u32
}

/// include/uapi/asm-generic/signal.h, without SA_RESTORER.
const _: () = assert!(size_of::<KernelSigaction>() == 24);

pub(super) type Restorer = [usize; 0];
pub(super) const NO_RESTORER: Restorer = [];

/// The kernel has handlers return to its own code in the vDSO (`setup_rt_frame`, arch/riscv/kernel/signal.c).
pub(super) const fn restorer() -> (usize, Restorer) {
    (0, NO_RESTORER)
}

/// The registers come after the mask (arch/riscv/include/uapi/asm/ucontext.h).
pub(crate) const UCONTEXT_MASK: usize = offset_of!(Ucontext<()>, mask);

const _: () = assert!(UCONTEXT_MASK == 40);

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: unimp has no operands; what it raises is what is wanted.
        unsafe { core::arch::asm!("unimp", options(nomem, nostack)) };
    }
}

pub(crate) use super::generic::*;

/// Returns whether the call replaces what the thread's run-time stands on: the shadow stack, which has no entry for the
/// functions that have not returned yet.
pub(crate) fn replaces_thread_state(number: u32, [option, ..]: [usize; 6]) -> bool {
    number == k::__NR_prctl && option as u32 == p::PR_SET_SHADOW_STACK_STATUS
}
