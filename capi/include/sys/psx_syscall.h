/*
 * sys/psx_syscall.h: one system call, performed by every thread of the process.
 *
 * Link with -lpsx. libcap finds this library only if it is linked although nothing refers to it: see
 * pkg-config --libs libpsx, and libpsx(3).
 */
#ifndef SYS_PSX_SYSCALL_H
#define SYS_PSX_SYSCALL_H

#if defined(__GNUC__)
/* psx_syscall() is variadic. In C89, variadic macros are an extension. */
#pragma GCC system_header
#endif

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the interface. Programs for C's libpsx test these macros. */
#define LIBPSX_MAJOR 2
#define LIBPSX_MINOR 78

/* Identifies this implementation, which has psx_strerror(). */
#define LIBPSX_RUST 1

/*
 * Performs the call in the calling thread while all other threads are held. If the call fails there, the
 * function returns -1 and sets errno, and no other thread attempts the call. If it succeeds, every other thread
 * performs it before it continues. The function then returns the calling thread's value and leaves errno alone.
 *
 * These errors do not come from the call itself. With them, nothing has changed in any thread:
 *   ETIMEDOUT  some thread could not be stopped within 10 seconds (psx_strerror() tells which), or the call of
 *              another thread did not end in that time
 *   EAGAIN     no signal could be queued (RLIMIT_SIGPENDING)
 *   EDEADLK    the caller is a signal handler that interrupted such a call in the same thread
 *   EINVAL     no thread could continue after the call: fork, exit, rt_sigreturn ...; or, among several threads,
 *              unshare of a namespace or setns of a PID namespace
 *   EPERM      another process shares this memory (CLONE_VM) and uses these functions
 *   ESRCH      a seccomp filter with SECCOMP_FILTER_FLAG_TSYNC, and a thread has its own filter
 *   ENOMEM, EMFILE ...  the kernel's error when the library requested memory or the list of threads
 */
long int psx_syscall3(long int syscall_nr, long int arg1, long int arg2, long int arg3);
long int psx_syscall6(long int syscall_nr, long int arg1, long int arg2, long int arg3, long int arg4,
                      long int arg5, long int arg6);

/*
 * psx_syscall(nr), psx_syscall(nr, arg1) ... psx_syscall(nr, arg1, ..., arg6). The arguments are numbers or
 * pointers. Each is converted to long. Missing arguments are 0.
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
 * For programs that were compiled with the original's psx_syscall(). The arguments are up to six values, each a
 * long or a pointer, and then 6, 5, 4, 3, 2, 1, 0. Therefore the eighth value is the number of arguments.
 */
long int __psx_syscall(long int syscall_nr, ...);

/*
 * Stores the addresses of psx_syscall3 and psx_syscall6 through the two pointers, and skips a null pointer. If a
 * library defines a weak function of this name, this definition replaces it whenever this library is loaded.
 */
void psx_load_syscalls(long int (**syscall_fn)(long int, long int, long int, long int),
                       long int (**syscall6_fn)(long int, long int, long int, long int, long int,
                                                long int, long int));

/* What happens if a thread's result differs from the calling thread's. */
typedef enum {
    PSX_IGNORE = 0,  /* nothing (the default) */
    PSX_WARNING = 1, /* a line on standard error names the call and the result of each thread that differs */
    PSX_ERROR = 2    /* the same line, and signal 33 kills the process before those threads continue */
} psx_sensitivity_t;

/* Sets the sensitivity of the process. Returns 0, or -1 and EINVAL if the level is not valid. */
int psx_set_sensitivity(psx_sensitivity_t level);

/*
 * Explains why the most recent failed psx call of the calling thread failed. Writes the reason to text, as a
 * null-terminated string that is truncated to size bytes. Writes the ids of up to count threads that could not
 * be stopped to tids. Either pointer may be NULL. Returns the number of threads that could not be stopped, which
 * is 0 unless errno was ETIMEDOUT.
 */
size_t psx_strerror(char *text, size_t size, pid_t *tids, size_t count);

#ifdef __cplusplus
}
#endif

#endif
