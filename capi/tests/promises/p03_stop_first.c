/*
 * P3, stop first: nobody runs in the old state once any thread has the new one. The id only rises. A worker
 * reads the highest that any thread has seen of itself, and then its own, which must not be lower.
 */
#include "promises.h"

#define FIRST 1000
static atomic_long highest = FIRST;
static atomic_long looks, behind;

static long look(void) {
    long seen = highest, own = uid_here();
    for (long now = highest; now < own && !atomic_compare_exchange_weak(&highest, &now, own);) {}
    looks++;
    if (own < seen) behind++;
    return own;
}

static void *worker(void *unused) {
    threads_begun++;
    while (!over) look();
    return unused;
}

static void readers(void) {
    need_root();
    CHECK(set_uid(FIRST) == 0);
    sleepers(20);
    for (int i = 0; i < 4; i++) thread(worker, NULL);
    await(24);
    for (long id = FIRST + 1; id <= FIRST + 300; id++) {
        CHECK(set_uid(id) == 0);
        CHECK(look() == id);
    }
    CHECK(looks > 1000);
    if (behind > 0) wrong("%ld times a thread ran in the old state after another had the new one", behind);
}

static atomic_long forks, old_children;
static void *forker(void *unused) {
    threads_begun++;
    while (!over) {
        long seen = highest;
        pid_t pid = RAW(SYS_clone, SIGCHLD);
        if (pid == 0) RAW(SYS_exit_group, uid_here() < seen);
        if (pid < 0) continue;
        int status = 0;
        while (RAW(SYS_wait4, pid, &status) == -EINTR) {}
        forks++;
        if (status != 0) old_children++;
        look();
    }
    return unused;
}
static void forkers(void) {
    need_root();
    CHECK(set_uid(FIRST) == 0);
    sleepers(20);
    for (int i = 0; i < 2; i++) thread(forker, NULL);
    await(22);
    for (long id = FIRST + 1; id <= FIRST + 1000; id++) {
        CHECK(set_uid(id) == 0);
        look();
    }
    over = 1;
    CHECK(forks > 10);
    if (old_children > 0) wrong("%ld children were forked after the change with the old id", old_children);
}

/* Without the library: the observers do notice a thread that lags. */
static void observers(void) {
    need_root();
    CHECK(RAW(SYS_setresuid, FIRST, -1, -1) == 0);
    for (int i = 0; i < 2; i++) thread(worker, NULL);
    await(2);
    CHECK(RAW(SYS_setresuid, FIRST + 1, -1, -1) == 0);
    look();
    while (behind == 0) sched_yield();
}

CASES({"readers", "300 calls beside 4 threads that look at their own id", readers},
      {"forkers", "1000 calls beside 2 threads that fork", forkers},
      {"observers", "the observers themselves: one thread changed by a plain call is noticed", observers})
