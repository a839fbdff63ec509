/* P1, coverage: every thread performs the call once, however the thread was created. */
#include "promises.h"
#include <sys/mount.h>

static void pthreads(void) {
    sleepers(20);
    CHECK(no_new_privs() == 0);
    CHECK(thread_count() == 21);
    all_have("NoNewPrivs", 1);
}

static void raw_without_tls(void) {
    sleepers(2);
    raw_threads(4, 0, NULL, raw_sleeper);
    CHECK(no_new_privs() == 0);
    CHECK(thread_count() == 7);
    all_have("NoNewPrivs", 1);
}

static void raw_with_tls(void) {
    sleepers(2);
    for (int i = 0; i < 4; i++) raw_threads(1, CLONE_SETTLS, own_tls(), raw_sleeper);
    CHECK(no_new_privs() == 0);
    CHECK(thread_count() == 7);
    all_have("NoNewPrivs", 1);
}

static void raw_null_tls(void) {
    sleepers(2);
    raw_threads(4, CLONE_SETTLS, NULL, raw_sleeper);
    CHECK(no_new_privs() == 0);
    CHECK(thread_count() == 7);
    all_have("NoNewPrivs", 1);
}

static void raw_null_tls_fails(void) {
    need_root();
    raw_threads(2, CLONE_SETTLS, NULL, raw_without_capabilities);
    CHECK(set_uid(1001) == 0);
    CHECK(thread_count() == 3);
    CHECK(uid_here() == 1001);
}

/* The caller is a thread that libc does not know. Its errno is where its thread pointer leads. */
static atomic_long raw_result = 1, raw_errno;
static void raw_calls(void) {
    raw_result = no_new_privs();
    if (psx_syscall3(SYS_prctl, -1, 0, 0) == -1) raw_errno = errno;
    raw_sleeper();
}
static void raw_caller(void) {
    sleepers(2);
    errno = 4321;
    raw_threads(1, CLONE_SETTLS, own_tls(), raw_calls);
    CHECK(errno == 4321);
    CHECK(raw_result == 0);
    CHECK(raw_errno == EINVAL);
    CHECK(thread_count() == 4);
    all_have("NoNewPrivs", 1);
}

static void many(void) {
    sleepers(2000);
    CHECK(set_uid(1001) == 0);
    CHECK(thread_count() == 2001);
    all_have("Uid", 1001);
}

/* Creates threads that end at once, and sometimes a thread that stays. */
static void *ends_at_once(void *unused) { return unused; }
static void *makes_threads(void *unused) {
    threads_begun++;
    for (int made = 0; !over; made++) {
        if (made < 4000 && made % 40 == 0) thread(sleeper, NULL);
        pthread_join(thread(ends_at_once, NULL), NULL);
    }
    for (;;) RAW(CALL_PAUSE);
    return unused;
}
static void churn(void) {
    sleepers(3);
    for (int i = 0; i < 3; i++) thread(makes_threads, NULL);
    await(6);
    for (long id = 1001; id <= 1200; id++) {
        CHECK(set_uid(id) == 0);
        all_have("Uid", id);
    }
}

/* Each raw thread creates its successor and ends. The thread therefore always has another tid than a moment ago. */
static atomic_int hops;
enum { HOPPER_STACKS = 64 };
static char *hopper_stacks;
static atomic_int hopper_lives[HOPPER_STACKS];
static void hopper(void) {
    threads_begun++;
    int n = ++hops % HOPPER_STACKS;
    char *top = hopper_stacks + (n + 1) * RAW_STACK;
    if (over) raw_sleeper();
    /* An earlier thread that got no CPU since then may still be on this stack. */
    while (hopper_lives[n]) RAW(SYS_sched_yield);
    hopper_lives[n] = 1;
    while (raw_thread(THREAD_FLAGS | CLONE_CHILD_CLEARTID, top, NULL, (int *)&hopper_lives[n], hopper) < 0) {}
    RAW(SYS_exit, 0);
}
static void hopping(void) {
    hopper_stacks = memory(HOPPER_STACKS * RAW_STACK);
    sleepers(3);
    raw_threads(1, 0, NULL, hopper);
    for (long id = 1001; id <= 1200; id++) {
        int before = hops;
        CHECK(set_uid(id) == 0);
        all_have("Uid", id);
        /* The thread has continued, in the new state. */
        while (hops == before) sched_yield();
    }
}

static void once(void) {
    sleepers(3);
    raw_threads(3, 0, NULL, raw_sleeper);
    CHECK(no_new_privs() == 0);
    long before = own("Seccomp_filters");
    for (long n = 1; n <= 30; n++) {
        CHECK(add_filter() == 0);
        all_have("Seccomp_filters", before + n);
    }
}

static void once_beside_churn(void) {
    CHECK(no_new_privs() == 0);
    long before = own("Seccomp_filters");
    sleepers(3);
    for (int i = 0; i < 3; i++) thread(makes_threads, NULL);
    await(6);
    for (int n = 0; n < 100; n++) CHECK(add_filter() == 0);
    over = 1;
    /* A thread that was ending in the last call keeps its old state, and is listed until it has ended. */
    for (int tries = 0; tries < 2000 && lack("Seccomp_filters", before + 100) != 0; tries++) sleep_ms(5);
    all_have("Seccomp_filters", before + 100);
}

/* If a filter is installed with TSYNC, the kernel gives it to all threads. The call must then be made once. */
static void once_by_the_kernel(void) {
    sleepers(3);
    CHECK(no_new_privs() == 0);
    long before = own("Seccomp_filters");
    for (int n = 1; n <= 5; n++) {
        CHECK(add_filter_by(SECCOMP_FILTER_FLAG_TSYNC) == 0);
        all_have("Seccomp_filters", before + n);
    }
}

/* Makes the next task of this PID namespace get this number. */
static int next_tid(int tid) {
    char text[16];
    int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
    int done = fd >= 0 && write(fd, text, snprintf(text, sizeof text, "%d", tid - 1)) > 0;
    close(fd);
    return done;
}
static long resident(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}
static void far_apart(void) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("proc", "/proc", "proc", 0, NULL) != 0)
        skipped("no /proc of the new PID namespace can be mounted");
    int fd = open("/proc/sys/kernel/pid_max", O_RDONLY), last = 0;
    char text[32] = "";
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0) last = atoi(text) - 1;
    close(fd);
    if (last < 1 << 20 || !next_tid(last / 2)) skipped("tids cannot be chosen");
    for (int n = 1; n <= 100; n++) {
        next_tid(last / 100 * n);
        sleepers(1);
    }
    long before = resident();
    for (long id = 1001; id <= 1010; id++) {
        CHECK(set_uid(id) == 0);
        all_have("Uid", id);
    }
    long grown = (resident() - before) >> 10;
    if (grown > 16) wrong("%ld MiB of memory taken for 100 threads", grown);
}
static void sparse_tids(void) {
    need_root();
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) skipped("unshare: errno %d", errno);
    int status = in_child(far_apart);
    if (status != 0) wrong("the init process of the namespace: %s", ending(status));
}

CASES({"pthreads", "20 pthreads", pthreads},
      {"raw_without_tls", "threads by clone(2) that share their creator's thread pointer", raw_without_tls},
      {"raw_with_tls", "threads by clone(2) with a thread pointer of their own", raw_with_tls},
      {"raw_null_tls", "threads by clone(2) whose thread pointer is null", raw_null_tls},
      {"raw_null_tls_fails", "the call fails in a thread whose thread pointer is null", raw_null_tls_fails},
      {"raw_caller", "the caller is a thread by clone(2)", raw_caller},
      {"many", "2000 threads", many},
      {"churn", "threads are created and end during 200 calls", churn},
      {"hopping", "a thread that creates its successor and ends, for ever; 200 calls", hopping},
      {"once", "30 seccomp filters: each thread has 30", once},
      {"once_beside_churn", "100 filters while threads are created: each thread has 100", once_beside_churn},
      {"once_by_the_kernel", "5 filters with SECCOMP_FILTER_FLAG_TSYNC: each thread has 5", once_by_the_kernel},
      {"sparse_tids", "100 threads whose tids lie far apart: memory taken by 10 calls", sparse_tids})
