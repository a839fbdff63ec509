//! 32-bit x86: the system call, the way back from a handler, and where a signal frame keeps what we look at.

use core::mem::offset_of;

use linux_raw_sys::general as k;

use super::{KernelSigaction, Ucontext};

/// `e_machine` of programs for this CPU (include/uapi/linux/elf-em.h).
pub(crate) const ELF_MACHINE: u16 = 3;

/// Any system call, and what the kernel returned (syscall(2), "Architecture calling conventions").
///
/// # Safety
/// The call must be sound here and now.
pub(crate) unsafe fn syscall6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    // ebp is the frame pointer and esi a base pointer, so neither can be an operand.
    let rest = [nr, d, f];
    let result;
    // SAFETY: the kernel keeps every register but eax; esi and ebp are put back. The call is the caller's duty.
    unsafe {
        core::arch::asm!(
            "push esi",
            "push ebp",
            "mov esi, [eax + 4]",
            "mov ebp, [eax + 8]",
            "mov eax, [eax]",
            "int 0x80",
            "pop ebp",
            "pop esi",
            inlateout("eax") rest.as_ptr() => result,
            in("ebx") a,
            in("ecx") b,
            in("edx") c,
            in("edi") e,
        );
    }
    result
}

/// Returns the number as the kernel reads it.
pub(crate) const fn call_number(nr: usize) -> u32 {
    nr as u32
}

/// Returns whether the number is that of another system call convention: there is none that `int 0x80` could make.
pub(crate) const fn is_other_abi(_nr: usize) -> bool {
    false
}

/// include/linux/signal_types.h. (The structure in arch/x86/include/uapi/asm/signal.h is that of sigaction(2).)
const _: () = assert!(size_of::<KernelSigaction>() == 20);

pub(super) type Restorer = usize;
pub(super) const NO_RESTORER: Restorer = 0;

/// `SA_RESTORER`, and the function it announces: the kernel returns from handlers through it. (A kernel that was started
/// with vdso32=0 has no other.)
///
/// `mov $173, %eax; int $0x80`, rt_sigreturn(2), in exactly the bytes by which unwinders and debuggers know a signal frame
/// (gcc's libgcc/config/i386/linux-unwind.h, gdb's i386-linux-tdep.c). It stands in no unwind table and has no name, so
/// that they look at the bytes (and so that several copies of this crate can be linked together). The nop is for
/// unwinders that look one byte before the return address.
#[inline(never)]
pub(super) fn restorer() -> (usize, Restorer) {
    let address;
    // SAFETY: takes an address, by way of the instruction pointer; what stands there is in a section of its own.
    unsafe {
        core::arch::asm!(
            ".pushsection .text.restore_rt,\"ax\",@progbits",
            ".balign 16",
            "nop",
            "2:",
            ".byte 0xb8, 0xad, 0x00, 0x00, 0x00, 0xcd, 0x80",
            ".popsection",
            "call 3f",
            "3:",
            "pop {0}",
            "lea {0}, [{0} + (2b - 3b)]",
            out(reg) address,
            options(pure, nomem, preserves_flags),
        );
    }
    (k::SA_RESTORER as usize, address)
}

/// After a `struct sigcontext_32` (arch/x86/include/uapi/asm/sigcontext.h): 19 registers and words of the processor, the
/// address of the floating-point state, the old mask, and the address of a fault.
pub(crate) const UCONTEXT_MASK: usize = offset_of!(Ucontext<[u32; 19 + 1 + 1 + 1]>, mask);

const _: () = assert!(UCONTEXT_MASK == 108);

/// A jump to an instruction that traps, for a process that nothing else ends.
pub(crate) fn trap() -> ! {
    loop {
        // SAFETY: ud2 has no operands; what it raises is what is wanted.
        unsafe { core::arch::asm!("ud2", options(nomem, nostack)) };
    }
}

pub(crate) const MMAP_READS_MEMORY: bool = false;

pub(crate) const FORKS: &[u32] = &[k::__NR_fork, k::__NR_vfork];

/// Virtual 8086 mode is left by a signal.
pub(crate) const LEAVES_HANDLER: &[u32] = &[k::__NR_sigreturn, k::__NR_vm86, k::__NR_vm86old];

pub(crate) const CHANGES_SIGNALS: &[u32] = &[k::__NR_sigprocmask, k::__NR_ssetmask];
pub(crate) const OLD_SIGACTIONS: &[u32] = &[k::__NR_sigaction, k::__NR_signal];

/// The first select(2) reads its arguments from memory, which cannot be looked at safely. It may wait for a signal, and no
/// program needs it in every thread.
pub(crate) const PAUSES: &[u32] = &[k::__NR_pause, k::__NR_sigsuspend, k::__NR_select];

pub(crate) const POLL: Option<u32> = Some(k::__NR_poll);
pub(crate) const SELECT: Option<u32> = Some(k::__NR__newselect);

/// Returns whether the call replaces what the thread's run-time stands on: the segment of its thread pointer.
pub(crate) const fn replaces_thread_state(number: u32, _args: [usize; 6]) -> bool {
    number == k::__NR_set_thread_area
}
