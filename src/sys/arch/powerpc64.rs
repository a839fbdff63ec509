//! powerpc64 (little-endian is what was run): the system call, and where a signal frame keeps what we look at.
//!
//! `asm!` is stable on this CPU since Rust 1.95.

use core::mem::offset_of;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::{KernelSigaction, Ucontext};

/// `e_machine` of programs for this CPU (include/uapi/linux/elf-em.h).
pub(crate) const ELF_MACHINE: u16 = 21;

/// Any system call, and what the kernel returned (Documentation/arch/powerpc/syscall64-abi.rst). An error is a positive
/// number with the summary overflow bit set in cr0; it is given as a negative number here, as on other CPUs.
///
/// # Safety
/// The call must be sound here and now.
pub(crate) unsafe fn syscall6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel keeps what a function keeps, and lr, cr1 and cr5 to cr7, and all floating-point and vector
    // registers; the call is the caller's duty.
    unsafe {
        core::arch::asm!(
            "sc",
            "bns+ 2f",
            "neg 3, 3",
            "2:",
            inlateout("r0") nr => _,
            inlateout("r3") a => result,
            inlateout("r4") b => _,
            inlateout("r5") c => _,
            inlateout("r6") d => _,
            inlateout("r7") e => _,
            inlateout("r8") f => _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
            lateout("r12") _,
            lateout("cr0") _,
            lateout("ctr") _,
            lateout("xer") _,
            options(nostack),
        );
    }
    result
}

/// Returns the number, cut to 32 bits: the kernel knows no larger one (`system_call_exception`,
/// arch/powerpc/kernel/syscall.c).
pub(crate) const fn call_number(nr: usize) -> u32 {
    nr as u32
}

/// Returns whether the number is that of another system call convention: there is none.
pub(crate) const fn is_other_abi(_nr: usize) -> bool {
    false
}

/// arch/powerpc/include/uapi/asm/signal.h.
const _: () = assert!(size_of::<KernelSigaction>() == 32);

pub(super) type Restorer = usize;
pub(super) const NO_RESTORER: Restorer = 0;

/// The kernel has handlers return to its own code in the vDSO (`handle_rt_signal64`, arch/powerpc/kernel/signal_64.c).
pub(super) const fn restorer() -> (usize, Restorer) {
    (0, NO_RESTORER)
}

/// The registers come after the mask (arch/powerpc/include/uapi/asm/ucontext.h).
pub(crate) const UCONTEXT_MASK: usize = offset_of!(Ucontext<()>, mask);

const _: () = assert!(UCONTEXT_MASK == 40);

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: trap has no operands; what it raises is what is wanted.
        unsafe { core::arch::asm!("trap", options(nomem, nostack)) };
    }
}

pub(crate) const MMAP_READS_MEMORY: bool = false;

pub(crate) const FORKS: &[u32] = &[k::__NR_fork, k::__NR_vfork];

/// swapcontext(2) of this CPU changes the registers and the mask as rt_sigreturn(2) does.
pub(crate) const LEAVES_HANDLER: &[u32] = &[k::__NR_sigreturn, k::__NR_swapcontext];

pub(crate) const CHANGES_SIGNALS: &[u32] = &[k::__NR_sigprocmask, k::__NR_ssetmask];
pub(crate) const OLD_SIGACTIONS: &[u32] = &[k::__NR_sigaction, k::__NR_signal];
pub(crate) const PAUSES: &[u32] = &[k::__NR_pause, k::__NR_sigsuspend];
pub(crate) const POLL: Option<u32> = Some(k::__NR_poll);
pub(crate) const SELECT: Option<u32> = Some(k::__NR__newselect);

/// Returns whether the call replaces what the thread's run-time stands on: the byte order.
pub(crate) fn replaces_thread_state(number: u32, [option, ..]: [usize; 6]) -> bool {
    number == k::__NR_switch_endian || number == k::__NR_prctl && option as u32 == p::PR_SET_ENDIAN
}
