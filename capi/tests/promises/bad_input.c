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

static void numbers(void) {
    sleepers(2);
    long none[] = {-1, 1 << 30, 100000, LONG_MIN};
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK(psx_syscall3(none[i], 0, 0, 0) == -1);
        CHECK(errno == ENOSYS);
    }
    /* The kernel uses only the lower half of the number, except on riscv64 and, before Linux 5.13, on x86-64. */
    if (RAW(SYS_getpid | 1l << 32) == getpid()) CHECK(psx_syscall3(SYS_getpid | 1l << 32, 0, 0, 0) == getpid());
    else CHECK(psx_syscall3(SYS_getpid | 1l << 32, 0, 0, 0) == -1 && errno == ENOSYS);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
}

static void pointers(void) {
    need_root();
    sleepers(2);
    errno = 0;
    CHECK(psx_syscall3(SYS_setgroups, 5, 0, 0) == -1);
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
static void wide(long number, long a) { refused(number | 1l << 32, a, 0); }
static void refused_wide(void) { wide(CALL_FORK); }

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
      {"arch_prctl", "arch_prctl(ARCH_SET_FS, 0): EINVAL", refused_fs},
      {"strict", "prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT): EINVAL", refused_strict},
      {"unshare", "unshare(CLONE_NEWUTS) with threads: EINVAL", refused_unshare})
