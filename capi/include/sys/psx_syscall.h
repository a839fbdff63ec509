/*
 * sys/psx_syscall.h: one system call, performed by every thread of the process.
 *
 * Link with -lpsx. For libcap to find the library, it has to be there though nothing refers to it:
 * see pkg-config --libs libpsx, and libpsx(3).
 */
#ifndef SYS_PSX_SYSCALL_H
#define SYS_PSX_SYSCALL_H

#if defined(__GNUC__)
/* psx_syscall() is variadic, which C89 knows as an extension only. */
#pragma GCC system_header
#endif

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the interface, as programs of C's libpsx ask for it. */
#define LIBPSX_MAJOR 2
#define LIBPSX_MINOR 78

/* This implementation, which has psx_strerror(). */
#define LIBPSX_RUST 1

/*
 * Performs the call in the calling thread, when all others are held. If it fails there: -1 and errno, and no
 * other thread attempts it. If it succeeds, every other thread performs it before it goes on, and the value is
 * the calling thread's; errno is left alone.
 *
 * Other than by the call itself, with nothing changed in any thread:
 *   ETIMEDOUT  some thread could not be stopped within 10 seconds (psx_strerror() tells which)
 *   EAGAIN     no signal could be queued: RLIMIT_SIGPENDING
 *   EDEADLK    called by a signal handler that interrupted such a call in the same thread
 *   EINVAL     a call that no thread could go on after: fork, exit, rt_sigreturn ...
 *   ESRCH      a seccomp filter by SECCOMP_FILTER_FLAG_TSYNC, and a thread has one of its own
 *   ENOMEM, EMFILE ...  what the kernel said when it was asked for memory, or for the list of threads
 */
long int psx_syscall3(long int syscall_nr, long int arg1, long int arg2, long int arg3);
long int psx_syscall6(long int syscall_nr, long int arg1, long int arg2, long int arg3, long int arg4,
                      long int arg5, long int arg6);

/*
 * psx_syscall(nr), psx_syscall(nr, arg1) ... psx_syscall(nr, arg1, ..., arg6): numbers and pointers, each
 * converted to long; those left out are 0.
 */
#define psx_syscall(...)                                                                               \
    PSX_PICK_(__VA_ARGS__, PSX_6_, PSX_5_, PSX_4_, PSX_3_, PSX_2_, PSX_1_, PSX_0_, 0)(__VA_ARGS__)
#define PSX_PICK_(nr, a, b, c, d, e, f, pick, ...) pick
#define PSX_L_(x) ((long int)(x))
#define PSX_0_(n) psx_syscall3(PSX_L_(n), 0L, 0L, 0L)
#define PSX_1_(n, a) psx_syscall3(PSX_L_(n), PSX_L_(a), 0L, 0L)
#define PSX_2_(n, a, b) psx_syscall3(PSX_L_(n), PSX_L_(a), PSX_L_(b), 0L)
#define PSX_3_(n, a, b, c) psx_syscall3(PSX_L_(n), PSX_L_(a), PSX_L_(b), PSX_L_(c))
#define PSX_4_(n, a, b, c, d)                                                                          \
    psx_syscall6(PSX_L_(n), PSX_L_(a), PSX_L_(b), PSX_L_(c), PSX_L_(d), 0L, 0L)
#define PSX_5_(n, a, b, c, d, e)                                                                       \
    psx_syscall6(PSX_L_(n), PSX_L_(a), PSX_L_(b), PSX_L_(c), PSX_L_(d), PSX_L_(e), 0L)
#define PSX_6_(n, a, b, c, d, e, f)                                                                    \
    psx_syscall6(PSX_L_(n), PSX_L_(a), PSX_L_(b), PSX_L_(c), PSX_L_(d), PSX_L_(e), PSX_L_(f))

/*
 * For programs that were compiled with the original's psx_syscall(): up to six arguments, each a long or a
 * pointer, and then 6, 5, 4, 3, 2, 1, 0, so that the eighth value in all is the number of arguments.
 */
long int __psx_syscall(long int syscall_nr, ...);

/*
 * Stores psx_syscall3 and psx_syscall6 where it is told to; NULL is left out. A library that defines a weak
 * function of this name gets ours if this library is there, and its own if not.
 */
void psx_load_syscalls(long int (**syscall_fn)(long int, long int, long int, long int),
                       long int (**syscall6_fn)(long int, long int, long int, long int, long int,
                                                long int, long int));

/* What happens when a thread's result differs from the calling thread's. */
typedef enum {
    PSX_IGNORE = 0,  /* nothing (the default) */
    PSX_WARNING = 1, /* a line on standard error names the call, and what each differing thread got */
    PSX_ERROR = 2    /* that line, and the process is killed by signal 33 before they go on */
} psx_sensitivity_t;

/* Sets that for the process. Returns 0, or -1 and EINVAL if there is no such level. */
int psx_set_sensitivity(psx_sensitivity_t level);

/*
 * Explains errno: why the calling thread's latest psx call failed. Writes the reason to text, with a zero at
 * its end, cut to size bytes; and the ids of up to count threads that could not be stopped to tids. Either may
 * be NULL. Returns how many threads could not be stopped: 0 unless errno was ETIMEDOUT.
 */
size_t psx_strerror(char *text, size_t size, pid_t *tids, size_t count);

#ifdef __cplusplus
}
#endif

#endif
