//! aarch64: the system call, and where a signal frame keeps what we look at.

use core::mem::offset_of;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::{KernelSigaction, Ucontext};

/// `e_machine` of programs for this CPU (include/uapi/linux/elf-em.h).
pub(crate) const ELF_MACHINE: u16 = 183;

/// Any system call, and what the kernel returned (syscall(2), "Architecture calling conventions").
///
/// The kernel may clear what SVE adds to the vector registers, and leaves streaming mode
/// (Documentation/arch/arm64/sve.rst). A call of a function has the same effect, so the compiler keeps nothing there.
///
/// # Safety
/// The call must be sound here and now.
#[cfg_attr(target_feature = "sve", inline(never))]
pub(crate) unsafe fn syscall6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel keeps every register but x0; the call is the caller's duty.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") nr,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            in("x5") f,
            options(nostack),
        );
    }
    result
}

/// Returns the number as the kernel reads it (`el0_svc_common` takes an int).
pub(crate) const fn call_number(nr: usize) -> u32 {
    nr as u32
}

/// arch/arm64/include/uapi/asm/signal.h.
const _: () = assert!(size_of::<KernelSigaction>() == 32);

pub(super) type Restorer = usize;
pub(super) const NO_RESTORER: Restorer = 0;

/// Without SA_RESTORER the kernel has handlers return to its own code in the vDSO (`setup_return`,
/// arch/arm64/kernel/signal.c), which unwinders know. If the page of a handler is guarded (BTI), the kernel enters the
/// handler as an indirect call does; a compiler that marks a program as guarded begins each function with a landing pad.
pub(super) const fn restorer() -> (usize, Restorer) {
    (0, NO_RESTORER)
}

/// The registers come after the mask (arch/arm64/include/uapi/asm/ucontext.h).
pub(crate) const UCONTEXT_MASK: usize = offset_of!(Ucontext<()>, mask);

const _: () = assert!(UCONTEXT_MASK == 40);

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: udf has no operands but a number; what it raises is what is wanted.
        unsafe { core::arch::asm!("udf #0", options(nomem, nostack)) };
    }
}

pub(crate) use super::generic::*;

/// Returns whether the call replaces what the thread's run-time stands on: the keys that sign return addresses, which
/// the handler's own frames are signed with; and the length of vectors, because the kernel does not return from a
/// handler to a frame of another length (`restore_sve_fpsimd_context`, arch/arm64/kernel/signal.c).
pub(crate) fn replaces_thread_state(number: u32, [option, ..]: [usize; 6]) -> bool {
    number == k::__NR_prctl
        && matches!(
            option as u32,
            p::PR_PAC_RESET_KEYS
                | p::PR_PAC_SET_ENABLED_KEYS
                | p::PR_SVE_SET_VL
                | p::PR_SME_SET_VL
                | p::PR_SET_SHADOW_STACK_STATUS
        )
}
