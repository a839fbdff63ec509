//! s390x: the system call, and where a signal frame keeps what we look at.

use core::mem::offset_of;

use linux_raw_sys::general as k;

use super::{KernelSigaction, Ucontext};

/// `e_machine` of programs for this CPU (include/uapi/linux/elf-em.h).
pub(crate) const ELF_MACHINE: u16 = 22;

/// Any system call, and what the kernel returned (syscall(2), "Architecture calling conventions").
///
/// # Safety
/// The call must be sound here and now.
pub(crate) unsafe fn syscall6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel keeps every register but r2; the call is the caller's duty.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("r1") nr,
            inlateout("r2") a => result,
            in("r3") b,
            in("r4") c,
            in("r5") d,
            in("r6") e,
            in("r7") f,
            options(nostack),
        );
    }
    result
}

/// Returns the number as the kernel reads it: 16 bits of the register (`__do_syscall`, arch/s390/kernel/syscall.c).
pub(crate) const fn call_number(nr: usize) -> u32 {
    nr as u32 & 0xffff
}

/// Returns whether the number is that of another system call convention: there is none.
pub(crate) const fn is_other_abi(_nr: usize) -> bool {
    false
}

/// include/linux/signal_types.h. (The structure in arch/s390/include/uapi/asm/signal.h is that of sigaction(2).)
const _: () = assert!(size_of::<KernelSigaction>() == 32);

pub(super) type Restorer = usize;
pub(super) const NO_RESTORER: Restorer = 0;

/// Without SA_RESTORER the kernel has handlers return to its own code: in the vDSO, or on the stack before Linux 5.18
/// (`setup_rt_frame`, arch/s390/kernel/signal.c).
pub(super) const fn restorer() -> (usize, Restorer) {
    (0, NO_RESTORER)
}

/// `_sigregs` (arch/s390/include/uapi/asm/sigcontext.h), which come before the mask.
#[repr(C)]
struct Registers {
    psw: [u64; 2],
    general: [u64; 16],
    access: [u32; 16],
    floating_point_control: [u32; 2],
    floating_point: [u64; 16],
}

pub(crate) const UCONTEXT_MASK: usize = offset_of!(Ucontext<Registers>, mask);

const _: () = assert!(UCONTEXT_MASK == 384);

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: two bytes of zero are no instruction; what they raise is what is wanted.
        unsafe { core::arch::asm!(".short 0", options(nomem, nostack)) };
    }
}

/// mmap(2) of this CPU is the old one, which takes the address of its six arguments.
pub(crate) const MMAP_READS_MEMORY: bool = true;

pub(crate) const FORKS: &[u32] = &[k::__NR_fork, k::__NR_vfork];
pub(crate) const LEAVES_HANDLER: &[u32] = &[k::__NR_sigreturn];
pub(crate) const CHANGES_SIGNALS: &[u32] = &[k::__NR_sigprocmask];
pub(crate) const OLD_SIGACTIONS: &[u32] = &[k::__NR_sigaction, k::__NR_signal];
pub(crate) const PAUSES: &[u32] = &[k::__NR_pause, k::__NR_sigsuspend];
pub(crate) const POLL: Option<u32> = Some(k::__NR_poll);
pub(crate) const SELECT: Option<u32> = Some(k::__NR_select);

/// Returns whether the call replaces what the thread's run-time stands on: the control block of guarded storage or of
/// run-time instrumentation.
pub(crate) const fn replaces_thread_state(number: u32, _args: [usize; 6]) -> bool {
    matches!(number, k::__NR_s390_guarded_storage | k::__NR_s390_runtime_instr)
}
