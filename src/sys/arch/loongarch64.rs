//! loongarch64: the system call, and where a signal frame keeps what we look at.

use core::mem::offset_of;

use super::{KernelSigaction, Ucontext};

/// `e_machine` of programs for this CPU (include/uapi/linux/elf-em.h).
pub(crate) const ELF_MACHINE: u16 = 258;

/// Any system call, and what the kernel returned (arch/loongarch/kernel/syscall.c).
///
/// # Safety
/// The call must be sound here and now.
pub(crate) unsafe fn syscall6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel keeps every register but a0 and t0 to t8; the call is the caller's duty.
    unsafe {
        core::arch::asm!(
            "syscall 0",
            in("$a7") nr,
            inlateout("$a0") a => result,
            in("$a1") b,
            in("$a2") c,
            in("$a3") d,
            in("$a4") e,
            in("$a5") f,
            lateout("$t0") _,
            lateout("$t1") _,
            lateout("$t2") _,
            lateout("$t3") _,
            lateout("$t4") _,
            lateout("$t5") _,
            lateout("$t6") _,
            lateout("$t7") _,
            lateout("$t8") _,
            options(nostack),
        );
    }
    result
}

/// Returns the number, cut to 32 bits: the kernel knows no larger one (`do_syscall`, arch/loongarch/kernel/syscall.c).
pub(crate) const fn call_number(nr: usize) -> u32 {
    nr as u32
}

/// include/uapi/asm-generic/signal.h, without SA_RESTORER.
const _: () = assert!(size_of::<KernelSigaction>() == 24);

pub(super) type Restorer = [usize; 0];
pub(super) const NO_RESTORER: Restorer = [];

/// The kernel has handlers return to its own code in the vDSO (`setup_rt_frame`, arch/loongarch/kernel/signal.c).
pub(super) const fn restorer() -> (usize, Restorer) {
    (0, NO_RESTORER)
}

/// The registers come after the mask (arch/loongarch/include/uapi/asm/ucontext.h).
pub(crate) const UCONTEXT_MASK: usize = offset_of!(Ucontext<()>, mask);

const _: () = assert!(UCONTEXT_MASK == 40);

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: break has no operands but a number; what it raises is what is wanted.
        unsafe { core::arch::asm!("break 0", options(nomem, nostack)) };
    }
}

pub(crate) use super::generic::*;

/// Returns whether the call replaces what the thread's run-time stands on: no call of this CPU alone does.
pub(crate) const fn replaces_thread_state(_number: u32, _args: [usize; 6]) -> bool {
    false
}
