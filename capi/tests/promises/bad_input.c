/* Tests arguments that are not valid, and calls that not every thread could make. */
#include "promises.h"
#include <limits.h>

static void null_pointers(void) { psx_load_syscalls(NULL, NULL); }
static void one_null_pointer(void) {
    long (*six)(long, long, long, long, long, long, long) = NULL;
    psx_load_syscalls(NULL, &six);
    CHECK(six == psx_syscall6);
}
static void both_pointers(void) {
    long (*three)(long, long, long, long) = NULL;
    long (*six)(long, long, long, long, long, long, long) = NULL;
    psx_load_syscalls(&three, &six);
    CHECK(three == psx_syscall3 && six == psx_syscall6);
}

static void levels(void) {
    int good[] = {PSX_IGNORE, PSX_WARNING, PSX_ERROR}, bad[] = {-1, 3, INT_MAX, INT_MIN};
    for (int i = 0; i < 3; i++) CHECK(psx_set_sensitivity((psx_sensitivity_t)good[i]) == 0);
    for (int i = 0; i < 4; i++) {
        errno = 0;
        CHECK(psx_set_sensitivity((psx_sensitivity_t)bad[i]) == -1);
        CHECK(errno == EINVAL);
    }
}

static void argument_counts(void) {
    sleepers(2);
    long bad[] = {7, -1, LONG_MAX, LONG_MIN};
    for (int i = 0; i < 4; i++) {
        errno = 0;
        CHECK(__psx_syscall(SYS_prctl, (long)PR_SET_NO_NEW_PRIVS, 1l, 0l, 0l, 0l, 0l, bad[i]) == -1);
        CHECK(errno == EINVAL);
    }
    all_have("NoNewPrivs", 0);
}

/* prctl(2) requires zero in arguments that psx_syscall3() does not have. */
static void unused_arguments(void) {
    sleepers(2);
    errno = 0;
    CHECK(psx_syscall3(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0) == 0);
    all_have("NoNewPrivs", 1);
}
static void macro_with_two(void) {
    sleepers(2);
    errno = 0;
    CHECK(psx_syscall(SYS_prctl, (long)PR_SET_NO_NEW_PRIVS, 1l) == 0);
    all_have("NoNewPrivs", 1);
}

/* A bit above the lower half of a call's number. A 32-bit CPU has none. */
#define ABOVE ((long)(1ull << 32))
static void numbers(void) {
    sleepers(2);
#ifdef __arm__
    /* The kernel answers a number above 0xf0000 with SIGILL. */
    long none[] = {100000};
#else
    long none[] = {-1, 1 << 30, 100000};
#endif
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        errno = 0;
        CHECK(psx_syscall3(none[i], 0, 0, 0) == -1);
        CHECK(errno == ENOSYS);
    }
    /* The kernel uses only the lower half of the number, except on riscv64 and, before Linux 5.13, on x86-64. */
    long getpid_wide = SYS_getpid | ABOVE;
    if (RAW(getpid_wide) == getpid()) CHECK(psx_syscall3(getpid_wide, 0, 0, 0) == getpid());
    else CHECK(psx_syscall3(getpid_wide, 0, 0, 0) == -1 && errno == ENOSYS);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
}

static void pointers(void) {
    need_root();
    sleepers(2);
    errno = 0;
    CHECK(psx_syscall3(ID_CALL(setgroups), 5, 0, 0) == -1);
    CHECK(errno == EFAULT);
    errno = 0;
    CHECK(psx_syscall3(SYS_capset, 8, 8, 0) == -1);
    CHECK(errno == EFAULT);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
}

/* The call is refused and no thread has changed. The test runs in a child, because a call that is made could do
   anything. */
static long nr, first, second;
static void is_refused(void) {
    uint64_t before = 0, after = 0;
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &before, 8);
    pid_t self = getpid();
    sleepers(3);
    errno = 0;
    long result = psx_syscall6(nr, first, second, 0, 8, 0, 0);
    int error = errno;
    if (getpid() != self) RAW(SYS_exit_group, 0);
    if (result != -1 || error != EINVAL) wrong("result %ld, errno %d", result, error);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &after, 8);
    CHECK(before == after);
    CHECK(thread_count() == 4);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
    RAW(SYS_exit_group, 42);
}
static void refused(long number, long a, long b) {
    nr = number, first = a, second = b;
    int status = in_child(is_refused);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) wrong("%s", "the process ended and printed nothing");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 42) wrong("the process: %s", ending(status));
}
static void refused_fork(void) { refused(CALL_FORK, 0); }
static void refused_vfork(void) { refused(CALL_VFORK, 0); }
static void refused_exit(void) { refused(SYS_exit, 0, 0); }
static void refused_exit_group(void) { refused(SYS_exit_group, 0, 0); }
static void refused_execve(void) { refused(SYS_execve, (long)"/nowhere", 0); }
static void refused_sigreturn(void) { refused(SYS_rt_sigreturn, 0, 0); }
static void refused_pause(void) { refused(CALL_PAUSE, 0); }
static void refused_sigprocmask(void) {
    static uint64_t all = ~0ull;
    refused(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all);
}
static void refused_altstack(void) { refused(SYS_sigaltstack, 0, 0); }
static void refused_fs(void) {
#ifdef CALL_SET_THREAD_POINTER
    refused(CALL_SET_THREAD_POINTER, 0);
#else
    skipped("no call sets the thread pointer of this CPU");
#endif
}
static void refused_strict(void) { refused(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT); }
static void refused_unshare(void) { refused(SYS_unshare, CLONE_NEWUTS, 0); }
static void wide(long number, long a) {
    if (ABOVE == 0) skipped("the number of a call has 32 bits on this CPU");
    refused(number | ABOVE, a, 0);
}
static void refused_wide(void) { wide(CALL_FORK); }

/* Some CPUs still have the calls of before real-time signals. */
#ifdef SYS_sigsuspend
static void refused_old_sigreturn(void) { refused(SYS_sigreturn, 0, 0); }
static void refused_old_sigprocmask(void) {
    static unsigned long all = ~0ul;
    refused(SYS_sigprocmask, SIG_SETMASK, (long)&all);
}
static void refused_old_sigaction(void) { refused(SYS_sigaction, SIGNAL, 0); }
static void refused_old_sigsuspend(void) { refused(SYS_sigsuspend, 0, 0); }
#define OLD_CALLS \
    , {"sigreturn", "the older sigreturn: EINVAL", refused_old_sigreturn}, \
    {"sigprocmask", "the older sigprocmask that blocks all signals: EINVAL", refused_old_sigprocmask}, \
    {"sigaction", "the older sigaction of signal 33: EINVAL", refused_old_sigaction}, \
    {"sigsuspend", "the older sigsuspend in every thread: EINVAL", refused_old_sigsuspend}
#else
#define OLD_CALLS
#endif
#ifdef __i386__
static void refused_signal(void) { refused(SYS_signal, SIGNAL, (long)SIG_DFL); }
static void refused_ssetmask(void) { refused(SYS_ssetmask, -1, 0); }
static void refused_old_select(void) {
    static long for_ever[5];
    refused(SYS_select, (long)for_ever, 0);
}
static void refused_vm86(void) { refused(SYS_vm86old, 0, 0); }
#define CALLS_OF_I386 \
    , {"signal", "signal(33, SIG_DFL), a call: EINVAL", refused_signal}, \
    {"ssetmask", "ssetmask that blocks 32 signals: EINVAL", refused_ssetmask}, \
    {"select", "select with its arguments in memory, in every thread: EINVAL", refused_old_select}, \
    {"vm86old", "vm86old: EINVAL", refused_vm86}
#else
#define CALLS_OF_I386
#endif

CASES({"null_pointers", "psx_load_syscalls(NULL, NULL)", null_pointers},
      {"one_null_pointer", "psx_load_syscalls(NULL, &six)", one_null_pointer},
      {"both_pointers", "psx_load_syscalls(&three, &six)", both_pointers},
      {"levels", "psx_set_sensitivity with -1, 3, INT_MAX, INT_MIN: EINVAL", levels},
      {"argument_counts", "__psx_syscall with 7, -1 ... arguments: EINVAL", argument_counts},
      {"unused_arguments", "prctl(PR_SET_NO_NEW_PRIVS, 1) by psx_syscall3: the rest is 0", unused_arguments},
      {"macro_with_two", "the same by psx_syscall() with two arguments", macro_with_two},
      {"numbers", "call numbers that do not exist: ENOSYS", numbers},
      {"pointers", "null and wild pointers for the kernel: EFAULT", pointers},
      {"fork", "fork in every thread: EINVAL", refused_fork},
      {"fork_wide", "fork with a bit above the lower half of its number: EINVAL", refused_wide},
      {"vfork", "vfork in every thread: EINVAL", refused_vfork},
      {"execve", "execve of a file that does not exist: EINVAL", refused_execve},
      {"exit", "exit in every thread: EINVAL", refused_exit},
      {"exit_group", "exit_group: EINVAL", refused_exit_group},
      {"rt_sigreturn", "rt_sigreturn: EINVAL", refused_sigreturn},
      {"rt_sigprocmask", "rt_sigprocmask that blocks all signals: EINVAL", refused_sigprocmask},
      {"pause", "pause in every thread: EINVAL", refused_pause},
      {"sigaltstack", "sigaltstack: EINVAL", refused_altstack},
      {"arch_prctl", "arch_prctl(ARCH_SET_FS, 0), or the call of this CPU for that: EINVAL", refused_fs},
      {"strict", "prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT): EINVAL", refused_strict},
      {"unshare", "unshare(CLONE_NEWUTS) with threads: EINVAL", refused_unshare} OLD_CALLS CALLS_OF_I386)
