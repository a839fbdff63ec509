/*
 * cpu.h: what the programs have to know of each CPU.
 *
 *   raw6            a system call
 *   raw_thread      a thread by clone(2)
 *   raw_action      what rt_sigaction(2) takes
 *   CALL_FORK ...   the number and the first argument of a call that does the same on every CPU
 */
#ifndef CPU_H
#define CPU_H

#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#define UNUSED __attribute__((unused))

/*
 * raw_thread creates a thread by clone(2) on a stack that ends at `top`. With CLONE_SETTLS among the flags, its thread
 * pointer is `tls`; otherwise it is that of the calling thread. With CLONE_CHILD_CLEARTID, the kernel sets `*alive` to 0
 * when the thread has ended. `body` must not return. A function call finds the stack aligned to 16 bytes, as in each ABI.
 */
UNUSED static long raw_thread(long flags, char *top, void *tls, int *alive, void (*body)(void));

/* rt_sigaction(2) as the kernel defines it: libc hides signal 33 from a program. */
struct raw_action {
    void *handler;
    unsigned long flags;
#ifndef __riscv
    void (*restorer)(void);
#endif
    uint64_t mask;
};

#if defined __x86_64__

UNUSED static long raw6(long nr, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static long raw_thread(long flags, char *top, void *tls, int *alive, void (*body)(void)) {
    long result;
    void **stack = (void **)((uintptr_t)top & ~15ul) - 1;
    stack[0] = (void *)body;
    register void *r8 __asm__("r8") = tls;
    register int *r10 __asm__("r10") = alive;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tpop %%rax\n\tcall *%%rax\n\tud2\n1:"
                     : "=a"(result)
                     : "a"(SYS_clone), "D"(flags), "S"(stack), "d"(0), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

#define CALL_FORK SYS_fork, 0
#define CALL_VFORK SYS_vfork, 0
#define CALL_PAUSE SYS_pause, 0
#define CALL_SET_THREAD_POINTER SYS_arch_prctl, 0x1002

/* The function that a handler returns to. */
UNUSED __attribute__((naked)) static void restorer(void) { __asm__("mov $15, %eax\n\tsyscall"); }
#define ACTION(handler_, flags_, mask_) \
    {.handler = handler_, .flags = flags_ | 0x04000000, .restorer = restorer, .mask = mask_}

#else

#if defined __aarch64__
#define CALL "svc #0"
#define NUMBER "x8"
#define ARGUMENT "x"
#define RUN_IN_THE_THREAD "cbnz x0, 1f\n\tmov x29, xzr\n\tmov x30, xzr\n\tblr x5\n\tbrk #0\n1:"
#elif defined __riscv
#define CALL "ecall"
#define NUMBER "a7"
#define ARGUMENT "a"
#define RUN_IN_THE_THREAD "bnez a0, 1f\n\tli s0, 0\n\tli ra, 0\n\tjalr a5\n\tebreak\n1:"
#else
#error "these programs know no system call of this CPU"
#endif

/* Not inlined, because gcc warns of these registers in a function that calls vfork. */
__attribute__((noinline)) UNUSED static long raw6(long nr, long a, long b, long c, long d, long e, long f) {
    register long number __asm__(NUMBER) = nr;
    register long a0 __asm__(ARGUMENT "0") = a;
    register long a1 __asm__(ARGUMENT "1") = b;
    register long a2 __asm__(ARGUMENT "2") = c;
    register long a3 __asm__(ARGUMENT "3") = d;
    register long a4 __asm__(ARGUMENT "4") = e;
    register long a5 __asm__(ARGUMENT "5") = f;
    __asm__ volatile(CALL : "+r"(a0) : "r"(number), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
    return a0;
}

/* The order of the last two arguments is not that of x86-64. The thread has the registers of its creator. */
static long raw_thread(long flags, char *top, void *tls, int *alive, void (*body)(void)) {
    register long number __asm__(NUMBER) = SYS_clone;
    register long a0 __asm__(ARGUMENT "0") = flags;
    register uintptr_t a1 __asm__(ARGUMENT "1") = (uintptr_t)top & ~15ul;
    register long a2 __asm__(ARGUMENT "2") = 0;
    register void *a3 __asm__(ARGUMENT "3") = tls;
    register int *a4 __asm__(ARGUMENT "4") = alive;
    register void (*a5)(void) __asm__(ARGUMENT "5") = body;
    __asm__ volatile(CALL "\n\t" RUN_IN_THE_THREAD
                     : "+r"(a0)
                     : "r"(number), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5)
                     : "memory");
    return a0;
}

/* These CPUs have clone(2) and ppoll(2) in place of the older calls. A program sets its thread pointer without a call. */
#define CALL_FORK SYS_clone, SIGCHLD
#define CALL_VFORK SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD
#define CALL_PAUSE SYS_ppoll, 0

/* A handler returns to a function of the kernel's. */
#define ACTION(handler_, flags_, mask_) {.handler = handler_, .flags = flags_, .mask = mask_}

#endif
#endif
