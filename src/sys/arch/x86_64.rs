//! x86-64: the system call, the way back from a handler, and where a signal frame keeps what we look at.

use core::mem::offset_of;

use linux_raw_sys::general as k;

use super::{KernelSigaction, Ucontext};

/// `e_machine` of programs for this CPU (include/uapi/linux/elf-em.h).
pub(crate) const ELF_MACHINE: u16 = 62;

/// Any system call, and what the kernel returned (syscall(2), "Architecture calling conventions").
///
/// # Safety
/// The call must be sound here and now.
pub(crate) unsafe fn syscall6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel keeps every register but rax, rcx and r11; the call is the caller's duty.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") nr => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Returns the number as the kernel reads it, without the x32 bit. `do_syscall_64` takes an int since Linux 5.13. Before,
/// the kernel knows no number of more than 32 bits.
pub(crate) const fn call_number(nr: usize) -> u32 {
    nr as u32 & !X32_BIT
}

/// The x32 ABI's mark in a call number (arch/x86/include/uapi/asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

/// Returns whether the number is one of x32's own variants: among them execve, rt_sigaction, rt_sigreturn, sigaltstack.
pub(crate) fn is_other_abi(nr: usize) -> bool {
    nr as u32 & X32_BIT != 0 && (512..=547).contains(&call_number(nr))
}

/// arch/x86/include/uapi/asm/signal.h.
const _: () = assert!(size_of::<KernelSigaction>() == 32);

pub(super) type Restorer = usize;
pub(super) const NO_RESTORER: Restorer = 0;

/// `SA_RESTORER`, and the function it announces: the kernel returns from handlers through it.
///
/// `mov $15, %rax; syscall`, rt_sigreturn(2), in exactly the bytes by which unwinders and debuggers
/// know a signal frame (gcc's libgcc/config/i386/linux-unwind.h, gdb's amd64-linux-tdep.c). It
/// stands in no unwind table and has no name, so that they look at the bytes (and so that several
/// copies of this crate can be linked together). The nop is for unwinders that look one byte before
/// the return address.
#[inline(never)]
pub(super) fn restorer() -> (usize, Restorer) {
    let address;
    // SAFETY: takes an address; what stands there is in a section of its own.
    unsafe {
        core::arch::asm!(
            ".pushsection .text.restore_rt,\"ax\",@progbits",
            ".balign 16",
            "nop",
            "2:",
            ".byte 0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05",
            ".popsection",
            "lea {}, [rip + 2b]",
            out(reg) address,
            options(nostack, nomem, pure, preserves_flags),
        );
    }
    (k::SA_RESTORER as usize, address)
}

/// After a `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h): 23 registers and words of the processor, the
/// address of the floating-point state, and 8 words that are reserved.
pub(crate) const UCONTEXT_MASK: usize = offset_of!(Ucontext<[u64; 23 + 1 + 8]>, mask);

const _: () = assert!(UCONTEXT_MASK == 296);

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: ud2 has no operands; what it raises is what is wanted.
        unsafe { core::arch::asm!("ud2", options(nomem, nostack)) };
    }
}

pub(crate) const MMAP_READS_MEMORY: bool = false;

pub(crate) const FORKS: &[u32] = &[k::__NR_fork, k::__NR_vfork];

/// The kernel's own code for a probe makes these calls. Elsewhere uretprobe raises SIGILL, and uprobe (since Linux 6.18,
/// arch/x86/entry/syscalls/syscall_64.tbl) fails.
pub(crate) const LEAVES_HANDLER: &[u32] = &[k::__NR_uretprobe, 336];

pub(crate) const CHANGES_SIGNALS: &[u32] = &[];
pub(crate) const OLD_SIGACTIONS: &[u32] = &[];
pub(crate) const PAUSES: &[u32] = &[k::__NR_pause];
pub(crate) const POLL: Option<u32> = Some(k::__NR_poll);
pub(crate) const SELECT: Option<u32> = Some(k::__NR_select);

/// Returns whether the call replaces what the thread's run-time stands on.
pub(crate) fn replaces_thread_state(number: u32, [code, ..]: [usize; 6]) -> bool {
    // ARCH_SET_GS, ARCH_SET_FS, and the ARCH_SHSTK_* family except ARCH_SHSTK_STATUS
    // (arch/x86/include/uapi/asm/prctl.h).
    number == k::__NR_arch_prctl && matches!(code as u32, 0x1001 | 0x1002 | 0x5001..=0x5004)
}
