/*
 * cpu.h: what the programs have to know of each CPU.
 *
 *   raw6            a system call
 *   raw_thread      a thread by clone(2)
 *   raw_action      what rt_sigaction(2) takes
 *   ID_CALL         the number of a call that takes or returns ids of 32 bits
 *   CALL_FORK ...   the number and the first arguments of a call that does the same on every CPU
 */
#ifndef CPU_H
#define CPU_H

#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#ifdef __i386__
#include <asm/ldt.h>
#endif

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
    /* Words of a register's size in the kernel: arm would align 64 bits to 8 bytes. */
    uint64_t mask __attribute__((packed, aligned(sizeof(long))));
};
_Static_assert(offsetof(struct raw_action, mask) + 8 == sizeof(struct raw_action), "the mask is last");
#ifndef __riscv
_Static_assert(sizeof(struct raw_action) == 3 * sizeof(long) + 8, "there is no space between the fields");
#endif

/* The first calls with ids have 16 bits on 32-bit CPUs. */
#ifdef SYS_setresuid32
#define ID_CALL(name) SYS_##name##32
#else
#define ID_CALL(name) SYS_##name
#endif

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

#define CALL_SET_THREAD_POINTER SYS_arch_prctl, 0x1002

/* The function that a handler returns to. */
UNUSED __attribute__((naked)) static void restorer(void) { __asm__("mov $15, %eax\n\tsyscall"); }
#define ACTION(handler_, flags_, mask_) \
    {.handler = handler_, .flags = flags_ | 0x04000000, .restorer = restorer, .mask = mask_}

#elif defined __i386__

/* The number and the last argument are read from memory: every other register but ebp has an argument. */
__attribute__((noinline)) UNUSED static long raw6(long nr, long a, long b, long c, long d, long e, long f) {
    long result;
    const long number_and_last[] = {nr, f};
    __asm__ volatile("push %%ebp\n\tmov 4(%%eax), %%ebp\n\tmov (%%eax), %%eax\n\tint $0x80\n\tpop %%ebp"
                     : "=a"(result)
                     : "a"(number_and_last), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory");
    return result;
}

/* The thread pointer is the base of the segment that gs selects, and clone(2) takes a description of that segment. */
__attribute__((noinline)) static long raw_thread(long flags, char *top, void *tls, int *alive, void (*body)(void)) {
    long result, selector;
    void **stack = (void **)((uintptr_t)top & ~15ul) - 1;
    stack[0] = (void *)body;
    __asm__("mov %%gs, %0" : "=r"(selector));
    struct user_desc segment = {
        .entry_number = (selector & 0xffff) >> 3,
        .base_addr = (uintptr_t)tls,
        .limit = 0xfffff,
        .limit_in_pages = 1,
        .seg_32bit = 1,
        .useable = 1,
    };
    __asm__ volatile("int $0x80\n\ttest %%eax, %%eax\n\tjnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\tpop %%eax\n\tcall *%%eax\n\tud2\n1:"
                     : "=a"(result)
                     : "a"(SYS_clone), "b"(flags), "c"(stack), "d"(0), "S"(&segment), "D"(alive)
                     : "memory");
    return result;
}

#define CALL_SET_THREAD_POINTER SYS_set_thread_area, 0

#else

/*
 * CALL makes a call, whose result is a negative number if it failed. NUMBER and ARGUMENT(0) to ARGUMENT(5) are the
 * registers of a call. CALL may change these and CLOBBERED. Then RUN_IN_THE_THREAD calls the function in BODY if the
 * result is 0. That function finds FRAME bytes of its caller on the stack.
 */
#if defined __aarch64__
#define CALL "svc #0"
#define NUMBER "x8"
#define ARGUMENT(n) "x" #n
#define CLOBBERED "memory"
#define BODY "x5"
#define RUN_IN_THE_THREAD "cbnz x0, 1f\n\tmov x29, xzr\n\tmov x30, xzr\n\tblr x5\n\tbrk #0\n1:"
#elif defined __riscv
#define CALL "ecall"
#define NUMBER "a7"
#define ARGUMENT(n) "a" #n
#define CLOBBERED "memory"
#define BODY "a5"
#define RUN_IN_THE_THREAD "bnez a0, 1f\n\tli s0, 0\n\tli ra, 0\n\tjalr a5\n\tebreak\n1:"
#elif defined __s390x__
#define CALL "svc 0"
#define NUMBER "r1"
#define ARGUMENT(n) ARGUMENT_##n
#define ARGUMENT_0 "r2"
#define ARGUMENT_1 "r3"
#define ARGUMENT_2 "r4"
#define ARGUMENT_3 "r5"
#define ARGUMENT_4 "r6"
#define ARGUMENT_5 "r7"
#define CLOBBERED "memory", "cc"
#define BODY "r7"
#define RUN_IN_THE_THREAD "ltgr %%r2, %%r2\n\tjnz 1f\n\tlghi %%r11, 0\n\tbasr %%r14, %%r7\n\t.short 0\n1:"
#define FRAME 160
#elif defined __ARM_EABI__
/* r7 is the frame pointer of Thumb code, and can then be no operand. */
#define CALL "mov ip, r7\n\tmov r7, r6\n\tsvc #0\n\tmov r7, ip"
#define NUMBER "r6"
#define ARGUMENT(n) "r" #n
#define CLOBBERED "memory", "cc", "ip"
#define BODY "r8"
#define RUN_IN_THE_THREAD "cmp r0, #0\n\tbne 1f\n\tmov lr, #0\n\tblx r8\n\tudf #0\n1:"
#define CALL_SET_THREAD_POINTER 0x0f0005, 0
#elif defined __powerpc64__ && _CALL_ELF == 2
/* A bit of cr0 says that the call failed, and the result is then positive. */
#define CALL "sc\n\tbns+ 2f\n\tneg 3, 3\n2:"
#define NUMBER "r0"
#define ARGUMENT(n) ARGUMENT_##n
#define ARGUMENT_0 "r3"
#define ARGUMENT_1 "r4"
#define ARGUMENT_2 "r5"
#define ARGUMENT_3 "r6"
#define ARGUMENT_4 "r7"
#define ARGUMENT_5 "r8"
#define CLOBBERED "memory", "cr0", "r9", "r10", "r11", "r12", "ctr", "xer"
/* The kernel may clear the registers that a function need not keep. */
#define BODY "r14"
#define RUN_IN_THE_THREAD "cmpdi 3, 0\n\tbne 1f\n\tmr 12, 14\n\tmtctr 12\n\tbctrl\n\ttrap\n1:"
#define FRAME 32
#else
#error "these programs know no system call of this CPU"
#endif
#ifndef FRAME
#define FRAME 0
#endif

/* Not inlined, because gcc warns of these registers in a function that calls vfork. */
__attribute__((noinline)) UNUSED static long raw6(long nr, long a, long b, long c, long d, long e, long f) {
    register long number __asm__(NUMBER) = nr;
    register long a0 __asm__(ARGUMENT(0)) = a;
    register long a1 __asm__(ARGUMENT(1)) = b;
    register long a2 __asm__(ARGUMENT(2)) = c;
    register long a3 __asm__(ARGUMENT(3)) = d;
    register long a4 __asm__(ARGUMENT(4)) = e;
    register long a5 __asm__(ARGUMENT(5)) = f;
    __asm__ volatile(CALL
                     : "+r"(a0), "+r"(a1), "+r"(a2), "+r"(a3), "+r"(a4), "+r"(a5), "+r"(number)
                     :
                     : CLOBBERED);
    return a0;
}

/*
 * The thread has the registers of its creator. The order of the arguments is that of CONFIG_CLONE_BACKWARDS
 * (kernel/fork.c), and on s390x of CONFIG_CLONE_BACKWARDS2.
 */
__attribute__((noinline)) static long raw_thread(long flags, char *top, void *tls, int *alive, void (*body)(void)) {
    uintptr_t stack = ((uintptr_t)top & ~15ul) - FRAME;
    /* Here a chain of frames ends, on CPUs that have one. */
    if (FRAME) *(uintptr_t *)stack = 0;
    register long number __asm__(NUMBER) = SYS_clone;
#ifdef __s390x__
    register long a0 __asm__(ARGUMENT(0)) = stack;
    register long a1 __asm__(ARGUMENT(1)) = flags;
    register long a3 __asm__(ARGUMENT(3)) = (long)alive;
    register long a4 __asm__(ARGUMENT(4)) = (long)tls;
#else
    register long a0 __asm__(ARGUMENT(0)) = flags;
    register long a1 __asm__(ARGUMENT(1)) = stack;
    register long a3 __asm__(ARGUMENT(3)) = (long)tls;
    register long a4 __asm__(ARGUMENT(4)) = (long)alive;
#endif
    register long a2 __asm__(ARGUMENT(2)) = 0;
    register void (*in_the_thread)(void) __asm__(BODY) = body;
    __asm__ volatile(CALL "\n\t" RUN_IN_THE_THREAD
                     : "+r"(a0), "+r"(a1), "+r"(a2), "+r"(a3), "+r"(a4), "+r"(number)
                     : "r"(in_the_thread)
                     : CLOBBERED);
    return a0;
}

#endif

/* What a call to clone(2) by fork(2)'s rules takes. On s390x the stack comes before the flags. */
#ifdef __s390x__
#define CALL_CLONE SYS_clone, 0, SIGCHLD
#else
#define CALL_CLONE SYS_clone, SIGCHLD, 0
#endif

/* Later CPUs have clone(2) and ppoll(2) in place of the older calls. */
#ifdef SYS_fork
#define CALL_FORK SYS_fork, 0
#define CALL_VFORK SYS_vfork, 0
#define CALL_PAUSE SYS_pause, 0
#else
#define CALL_FORK SYS_clone, SIGCHLD
#define CALL_VFORK SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD
#define CALL_PAUSE SYS_ppoll, 0
#endif

/* A handler returns to a function of the kernel's, where the program need not have one. */
#ifndef ACTION
#define ACTION(handler_, flags_, mask_) {.handler = handler_, .flags = flags_, .mask = mask_}
#endif
#endif
