/*
 * promises.h: code that all programs of this directory share. Each program is a list of cases:
 *
 *   PROGRAM         prints the cases, one per line: name, tab, description
 *   PROGRAM CASE    runs one case, which prints `ok`, `wrong: why` or `SKIPPED: why` on standard output
 *
 * The state of the threads is read from the kernel or asked in each thread. The library's own word is never used.
 * The programs make raw system calls: libc's wrappers act on the whole process, and a raw thread has no errno.
 */
#ifndef PROMISES_H
#define PROMISES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/psx_syscall.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"

#define SIGNAL 33

struct test_case {
    const char *name, *what;
    void (*body)(void); /* ends in ok(), wrong() or skipped(); a return means ok() */
};

/* Always passes six arguments, so that the kernel reads only values that were given. */
#define RAW6(nr, a, b, c, d, e, f, ...) \
    raw6((nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define RAW(...) RAW6(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

static void verdict(int code, const char *word, const char *format, va_list list) {
    char text[400];
    int n = snprintf(text, sizeof text, "%s", word);
    n += vsnprintf(text + n, sizeof text - n - 1, format, list);
    if (n > (int)sizeof text - 2) n = sizeof text - 2;
    text[n++] = '\n';
    RAW(SYS_write, 1, text, n);
    RAW(SYS_exit_group, code);
    __builtin_unreachable();
}

#define VERDICT(name, code, word)                                                        \
    UNUSED __attribute__((format(printf, 1, 2), noreturn)) static void name(const char *format, ...) { \
        va_list list;                                                                    \
        va_start(list, format);                                                          \
        verdict(code, word, format, list);                                               \
        __builtin_unreachable();                                                         \
    }
VERDICT(ok, 0, "ok")
VERDICT(wrong, 1, "wrong: ")
VERDICT(skipped, 77, "SKIPPED: ")

/* This library's explanation of the most recent failure. The original has no such function. */
extern size_t psx_strerror(char *text, size_t size, pid_t *tids, size_t count) __attribute__((weak));
UNUSED static const char *detail(void) {
    static __thread char text[300];
    if (psx_strerror != NULL) psx_strerror(text, sizeof text, NULL, 0);
    return text;
}

/* Checks both what the case itself requires and what is promised. */
#define CHECK(condition)                                                                              \
    ((condition) ? (void)0                                                                            \
                 : wrong("%s (errno %d, %s:%d) %s", #condition, errno, __FILE__, __LINE__, detail()))

static const char *chosen = "";

static int run_case(int argc, char **argv, const struct test_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (argc < 2) printf("%s\t%s\n", cases[i].name, cases[i].what);
        else if (strcmp(argv[1], cases[i].name) == 0) {
            chosen = cases[i].name;
            cases[i].body();
            ok("%s", "");
        }
    }
    return argc < 2 ? 0 : 2;
}
#define CASES(...)                                                                    \
    static const struct test_case CASES[] = {__VA_ARGS__};                            \
    int main(int argc, char **argv) {                                                 \
        return run_case(argc, argv, CASES, sizeof CASES / sizeof *CASES);             \
    }

UNUSED static void need_root(void) {
    if (geteuid() != 0) skipped("needs root");
}

/* ---- threads ---- */

UNUSED static atomic_int threads_begun;
UNUSED static atomic_bool over;

/* Sleeps until a fixed time. The remaining time that nanosleep(2) returns includes the timer slack at each
   interruption. */
UNUSED static void sleep_ms(long ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    while (RAW(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until) == -EINTR) {}
}

UNUSED static pthread_t thread(void *(*body)(void *), void *arg) {
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 << 10);
    int error = pthread_create(&thread, &attr, body, arg);
    if (error != 0) skipped("pthread_create: error %d", error);
    pthread_attr_destroy(&attr);
    return thread;
}

/* Waits until this many threads have counted themselves. */
UNUSED static void await(int count) {
    while (atomic_load(&threads_begun) < count) sched_yield();
}

UNUSED static void *sleeper(void *unused) {
    threads_begun++;
    for (;;) RAW(CALL_PAUSE);
    return unused;
}

UNUSED static void sleepers(int count) {
    int before = threads_begun;
    for (int i = 0; i < count; i++) thread(sleeper, NULL);
    await(before + count);
}

#define RAW_STACK (64 << 10)
#define THREAD_FLAGS \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

UNUSED static char *memory(size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

UNUSED static void raw_sleeper(void) {
    threads_begun++;
    for (;;) RAW(CALL_PAUSE);
}

/* A block that a thread pointer may point into. It has free space before it (on powerpc, libc uses 28 KiB there) and
   begins with its own address. */
UNUSED static void *own_tls(void) {
    void **tls = (void **)(memory(128 << 10) + (64 << 10));
    tls[0] = tls[2] = tls;
#ifdef __i386__
    /* libc makes its system calls through the address in this word. */
    __asm__("mov %%gs:16, %0" : "=r"(tls[4]));
#endif
    return tls;
}

UNUSED static void raw_threads(int count, long flags, void *tls, void (*body)(void)) {
    int before = threads_begun;
    for (int i = 0; i < count; i++) {
        long tid = raw_thread(THREAD_FLAGS | flags, memory(RAW_STACK) + RAW_STACK, tls, NULL, body);
        if (tid < 0) wrong("clone: error %ld", -tid);
    }
    await(before + count);
}

/* ---- what the kernel says of the threads ---- */

/* Reads the value of a field of /proc/self/task/TID/status, up to a tab or its end. Returns 0 if there is no such task.
   */
UNUSED static int status_of(const char *tid, const char *field, char *value, size_t size) {
    char path[64], text[4096], key[64];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text + 1, sizeof text - 2);
    close(fd);
    if (n <= 0) return 0;
    text[0] = '\n';
    text[n + 1] = 0;
    snprintf(key, sizeof key, "\n%s:\t", field);
    char *at = strstr(text, key);
    if (at == NULL) return 0;
    at += strlen(key);
    snprintf(value, size, "%.*s", (int)strcspn(at, "\t\n"), at);
    return 1;
}

/* Returns how many living threads lack the value (a dead leader keeps its old value). Sets *all to the number of living
   threads. */
UNUSED static int lacking(const char *field, const char *wanted, int *all) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    int count = 0;
    *all = 0;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char value[64], state[16];
        if (task->d_name[0] == '.') continue;
        if (!status_of(task->d_name, "State", state, sizeof state) || strchr("ZX", state[0])) continue;
        if (!status_of(task->d_name, field, value, sizeof value)) continue;
        *all += 1;
        count += strcmp(value, wanted) != 0;
    }
    closedir(tasks);
    return count;
}

/* Returns how many threads do not have this number. */
UNUSED static int lack(const char *field, long number) {
    char wanted[32];
    int all;
    snprintf(wanted, sizeof wanted, "%ld", number);
    return lacking(field, wanted, &all);
}

UNUSED static void all_have(const char *field, long number) {
    char wanted[32];
    int all;
    snprintf(wanted, sizeof wanted, "%ld", number);
    int count = lacking(field, wanted, &all);
    if (count != 0) wrong("%d of %d threads do not have %s %s", count, all, field, wanted);
}

UNUSED static int thread_count(void) {
    int all;
    lacking("State", "", &all);
    return all;
}

UNUSED static long own(const char *field) {
    char tid[16], value[64];
    snprintf(tid, sizeof tid, "%ld", RAW(SYS_gettid));
    CHECK(status_of(tid, field, value, sizeof value));
    return atol(value);
}

/* ---- the calls ---- */

UNUSED static long no_new_privs(void) { return psx_syscall6(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); }

/* Sets only the real user id, so that the call can be repeated. "Uid" in the status file begins with it. */
UNUSED static long set_uid(long id) { return psx_syscall3(ID_CALL(setresuid), id, -1, -1); }

UNUSED static long uid_here(void) {
    unsigned ids[3];
    RAW(ID_CALL(getresuid), &ids[0], &ids[1], &ids[2]);
    return ids[0];
}

/* A filter that allows everything. "Seccomp_filters" in a thread's status file is its number of filters. */
static struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
static struct sock_fprog allows_all = {1, allow};
UNUSED static long add_filter_by(long flags) {
    return psx_syscall3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, (long)&allows_all);
}
UNUSED static long add_filter(void) { return add_filter_by(0); }

/* Drops the capabilities of the calling thread. It can then no longer change ids. */
UNUSED static void drop_own_capabilities(void) {
    struct { uint32_t version; int pid; } header = {0x20080522, 0};
    uint32_t none[6] = {0};
    RAW(SYS_capset, &header, none);
}

/* In the next two threads the call fails. */
UNUSED static void *sleeps_without_capabilities(void *unused) {
    drop_own_capabilities();
    return sleeper(unused);
}
UNUSED static void raw_without_capabilities(void) {
    drop_own_capabilities();
    raw_sleeper();
}

UNUSED static void block_all_signals(void) {
    uint64_t all = ~0ull;
    RAW(SYS_rt_sigprocmask, SIG_SETMASK, &all, 0, sizeof all);
}

UNUSED static void unblock_all_signals(void) {
    uint64_t none = 0;
    RAW(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof none);
}

UNUSED static void set_action(void *handler, unsigned long flags, uint64_t mask) {
    struct raw_action action = ACTION(handler, flags, mask);
    CHECK(RAW(SYS_rt_sigaction, SIGNAL, &action, 0, 8) == 0);
}

/* ---- processes ---- */

/* Runs `body` in a child and returns its wait status. The child is killed if this process is killed. */
UNUSED static int in_child(void (*body)(void)) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        body();
        RAW(SYS_exit_group, 0);
    }
    int status;
    while (waitpid(pid, &status, 0) != pid) CHECK(errno == EINTR);
    return status;
}

/* Memory that children of fork share. */
UNUSED static void *shared_memory(size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

UNUSED static const char *ending(int status) {
    static char text[64];
    if (WIFSIGNALED(status)) snprintf(text, sizeof text, "killed by signal %d", WTERMSIG(status));
    else snprintf(text, sizeof text, "exit code %d", WEXITSTATUS(status));
    return text;
}

#endif
