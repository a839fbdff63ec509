//! arm (EABI; ARM and Thumb code): the system call, and where a signal frame keeps what we look at.

use core::mem::offset_of;

use linux_raw_sys::general as k;

use super::{KernelSigaction, Ucontext};

/// `e_machine` of programs for this CPU (include/uapi/linux/elf-em.h).
pub(crate) const ELF_MACHINE: u16 = 40;

/// Any system call, and what the kernel returned (syscall(2), "Architecture calling conventions").
///
/// # Safety
/// The call must be sound here and now.
pub(crate) unsafe fn syscall6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel keeps every register but r0; r7, which is the frame pointer of Thumb code and can be no
    // operand, is put back. The call is the caller's duty.
    unsafe {
        core::arch::asm!(
            "mov {kept}, r7",
            "mov r7, {nr}",
            "svc 0",
            "mov r7, {kept}",
            kept = out(reg) _,
            nr = in(reg) nr,
            inlateout("r0") a => result,
            in("r1") b,
            in("r2") c,
            in("r3") d,
            in("r4") e,
            in("r5") f,
            options(nostack),
        );
    }
    result
}

/// Returns the number as the kernel reads it.
pub(crate) const fn call_number(nr: usize) -> u32 {
    nr as u32
}

/// Returns whether the number is that of another system call convention: there is none that `svc 0` could make.
pub(crate) const fn is_other_abi(_nr: usize) -> bool {
    false
}

/// arch/arm/include/uapi/asm/signal.h.
const _: () = assert!(size_of::<KernelSigaction>() == 20);

pub(super) type Restorer = usize;
pub(super) const NO_RESTORER: Restorer = 0;

/// Without SA_RESTORER the kernel has handlers return to its own code, which lies in a page of its own in every process
/// (`setup_return`, arch/arm/kernel/signal.c).
pub(super) const fn restorer() -> (usize, Restorer) {
    (0, NO_RESTORER)
}

/// After a `struct sigcontext` (arch/arm/include/uapi/asm/sigcontext.h): trap number, error code, old mask, r0 to r15,
/// cpsr, and the address of a fault.
pub(crate) const UCONTEXT_MASK: usize = offset_of!(Ucontext<[u32; 3 + 16 + 1 + 1]>, mask);

const _: () = assert!(UCONTEXT_MASK == 104);

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: udf has no operands but a number; what it raises is what is wanted.
        unsafe { core::arch::asm!("udf #0", options(nomem, nostack)) };
    }
}

pub(crate) const MMAP_READS_MEMORY: bool = false;

pub(crate) const FORKS: &[u32] = &[k::__NR_fork, k::__NR_vfork];
pub(crate) const LEAVES_HANDLER: &[u32] = &[k::__NR_sigreturn];
pub(crate) const CHANGES_SIGNALS: &[u32] = &[k::__NR_sigprocmask];
pub(crate) const OLD_SIGACTIONS: &[u32] = &[k::__NR_sigaction];
pub(crate) const PAUSES: &[u32] = &[k::__NR_pause, k::__NR_sigsuspend];
pub(crate) const POLL: Option<u32> = Some(k::__NR_poll);
pub(crate) const SELECT: Option<u32> = Some(k::__NR__newselect);

/// Returns whether the call replaces what the thread's run-time stands on: the thread pointer (`__ARM_NR_set_tls`,
/// arch/arm/include/uapi/asm/unistd.h).
pub(crate) const fn replaces_thread_state(number: u32, _args: [usize; 6]) -> bool {
    const SET_TLS: u32 = 0x0f_0005;
    number == SET_TLS
}
