//! x86-64: the system call, the way back from a handler, and where a signal frame keeps what we look at.

use core::ffi::c_void;

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

/// What rt_sigaction(2) takes on this CPU (arch/x86/include/uapi/asm/signal.h). libc's `sigaction`
/// is another structure.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KernelSigaction {
    pub(crate) handler: usize,
    pub(crate) flags: usize,
    pub(crate) restorer: usize,
    pub(crate) mask: u64,
}

/// `SA_RESTORER`, and the function it announces: the kernel returns from handlers through it.
///
/// `mov $15, %rax; syscall`, rt_sigreturn(2), in exactly the bytes by which unwinders and debuggers
/// know a signal frame (gcc's libgcc/config/i386/linux-unwind.h, gdb's amd64-linux-tdep.c). It
/// stands in no unwind table and has no name, so that they look at the bytes (and so that several
/// copies of this crate can be linked together). The nop is for unwinders that look one byte before
/// the return address.
#[inline(never)]
pub(crate) fn restorer() -> (usize, usize) {
    const SA_RESTORER: usize = linux_raw_sys::general::SA_RESTORER as usize;
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
    (SA_RESTORER, address)
}

/// Where the mask of the interrupted code lies in the `ucontext` a handler is given: after
/// uc_flags, uc_link, uc_stack and a struct sigcontext of 256 bytes
/// (include/uapi/asm-generic/ucontext.h, arch/x86/include/uapi/asm/sigcontext.h).
pub(crate) const UCONTEXT_MASK: usize = 8 + 8 + 24 + 256;

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: ud2 has no operands; what it raises is what is wanted.
        unsafe { core::arch::asm!("ud2", options(nomem, nostack)) };
    }
}

/// The x32 ABI's mark in a call number (arch/x86/include/uapi/asm/unistd.h).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

const _: () = assert!(
    size_of::<KernelSigaction>() == size_of::<linux_raw_sys::general::kernel_sigaction>(),
    "the kernel's own header disagrees"
);
const _: () = assert!(size_of::<*mut c_void>() == 8);
