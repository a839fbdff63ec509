/* P2, nothing on failure: after an error, the state of every thread is unchanged. */
#include "promises.h"

static void *calls_without_capabilities(void *unused) {
    drop_own_capabilities();
    errno = 0;
    CHECK(psx_syscall3(ID_CALL(setresuid), 1001, 1001, 1001) == -1);
    CHECK(errno == EPERM);
    return unused;
}
static void caller_fails(void) {
    need_root();
    sleepers(5);
    pthread_join(thread(calls_without_capabilities, NULL), NULL);
    all_have("Uid", 0);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
}

static void queue_full(void) {
    need_root();
    sleepers(8);
    struct rlimit limit, none;
    CHECK(getrlimit(RLIMIT_SIGPENDING, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
    errno = 0;
    long result = set_uid(1001);
    int error = errno, all, changed = lacking("Uid", "0", &all);
    if (changed != 0) wrong("result %ld, errno %d, and %d of %d threads are changed", result, error, changed, all);
    CHECK(result == -1);
    CHECK(error == EAGAIN);
    CHECK(setrlimit(RLIMIT_SIGPENDING, &limit) == 0);
    CHECK(set_uid(1001) == 0);
    all_have("Uid", 1001);
}

static atomic_int blocked;
static void *blocks_all(void *unused) {
    block_all_signals();
    blocked = 1;
    while (blocked == 1) RAW(SYS_futex, &blocked, 0, 1, 0);
    unblock_all_signals();
    return sleeper(unused);
}
static void blocked_thread(void) {
    need_root();
    sleepers(8);
    thread(blocks_all, NULL);
    while (blocked == 0) sched_yield();
    errno = 0;
    long result = set_uid(1001);
    int error = errno, all, changed = lacking("Uid", "0", &all);
    if (changed != 0) wrong("result %ld, errno %d, and %d of %d threads are changed", result, error, changed, all);
    CHECK(result == -1);
    CHECK(error == ETIMEDOUT);
    blocked = 2;
    RAW(SYS_futex, &blocked, 1, 1);
    await(9);
    CHECK(set_uid(1002) == 0);
    all_have("Uid", 1002);
}

/* Checks that no other thread has performed the call while the call still waits for a thread. */
static void *watches(void *unused) {
    threads_begun++;
    while (uid_here() == 0) sleep_ms(1);
    wrong("a thread is changed while another thread cannot be");
    return unused;
}
static void unchanged_while_waiting(void) {
    need_root();
    sleepers(4);
    thread(watches, NULL);
    thread(blocks_all, NULL);
    await(5);
    while (blocked == 0) sched_yield();
    CHECK(set_uid(1001) == -1);
    all_have("Uid", 0);
}

static void no_such_call(void) {
    sleepers(5);
    errno = 0;
    CHECK(psx_syscall6(SYS_prctl, -1, -1, -1, -1, -1, -1) == -1);
    CHECK(errno == EINVAL);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
}

/* The kernel itself cannot give a filter to a thread that has its own filter. It returns that thread's tid. */
static void *has_a_filter(void *unused) {
    CHECK(RAW(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &allows_all) == 0);
    return sleeper(unused);
}
static void out_of_sync(void) {
    sleepers(3);
    CHECK(no_new_privs() == 0);
    long before = own("Seccomp_filters");
    thread(has_a_filter, NULL);
    await(4);
    errno = 0;
    long result = add_filter_by(SECCOMP_FILTER_FLAG_TSYNC);
    int error = errno, all;
    CHECK(own("Seccomp_filters") == before);
    char wanted[16];
    snprintf(wanted, sizeof wanted, "%ld", before);
    CHECK(lacking("Seccomp_filters", wanted, &all) == 1 && all == 5);
    if (result != -1 || error != ESRCH) wrong("result %ld, errno %d", result, error);
}

CASES({"caller_fails", "the call fails in the caller and would succeed in the others", caller_fails},
      {"queue_full", "no signal can be queued (RLIMIT_SIGPENDING 0)", queue_full},
      {"blocked_thread", "a thread blocks all signals; later it does not", blocked_thread},
      {"unchanged_while_waiting", "a thread blocks all signals: what the others see meanwhile",
       unchanged_while_waiting},
      {"no_such_call", "a call that fails everywhere", no_such_call},
      {"out_of_sync", "a filter with SECCOMP_FILTER_FLAG_TSYNC, and a thread has its own filter: ESRCH", out_of_sync})
