/*
 * P3, stop first: no thread runs in the old state once any thread has the new state. The id only rises. A worker
 * asks the kernel for the id that the caller has at that moment, and then for its own id, which must not be lower.
 * The id of a child that it forks then must not be lower either. A library could hold the threads that it has
 * changed until all are changed. That would hide the interval from those threads, but not from unchanged ones.
 */
#include "promises.h"

#define FIRST 1000
static atomic_long looks, behind, forks, old_children;
static char caller[16];

/* An emulated CPU needs minutes for 1000 calls. The calls end after one minute, and the result says how many there were. */
#define SECONDS 60
static int time_is_over(void) {
    static time_t end;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (end == 0) end = now.tv_sec + SECONDS;
    return now.tv_sec >= end;
}

/* Returns the caller's present id. It reads the same open file of /proc again. */
static long id_of_caller(int status) {
    char text[1024];
    long n = RAW(SYS_pread64, status, text, sizeof text - 1, 0);
    if (n <= 0) return 0;
    text[n] = 0;
    char *at = strstr(text, "\nUid:\t");
    CHECK(at != NULL);
    return atol(at + 6);
}
static int status_of_caller(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", caller);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}
static void begin(void) {
    need_root();
    snprintf(caller, sizeof caller, "%ld", RAW(SYS_gettid));
    CHECK(RAW(ID_CALL(setresuid), FIRST, -1, -1) == 0);
}

static void *worker(void *unused) {
    int status = status_of_caller();
    threads_begun++;
    while (!over) {
        long seen = id_of_caller(status);
        if (uid_here() < seen) behind++;
        looks++;
    }
    return unused;
}
static void readers(void) {
    begin();
    sleepers(20);
    for (int i = 0; i < 4; i++) thread(worker, NULL);
    await(24);
    for (long id = FIRST + 1; id <= FIRST + 1000; id++) {
        CHECK(set_uid(id) == 0);
        if (behind > 0) wrong("%s", "a thread ran in the old state after another had the new one");
        if (!time_is_over()) continue;
        CHECK(looks > 100);
        ok(": %ld calls in %d s", id - FIRST, SECONDS);
    }
    CHECK(looks > 100);
}

static void *forker(void *unused) {
    int status = status_of_caller();
    threads_begun++;
    while (!over) {
        long seen = id_of_caller(status);
        pid_t pid = RAW(CALL_CLONE);
        if (pid == 0) RAW(SYS_exit_group, uid_here() < seen);
        if (pid < 0) continue;
        int end = 0;
        while (RAW(SYS_wait4, pid, &end) == -EINTR) {}
        forks++;
        if (end != 0) old_children++;
    }
    return unused;
}
static void forkers(void) {
    begin();
    sleepers(100);
    for (int i = 0; i < 2; i++) thread(forker, NULL);
    await(102);
    long id = FIRST;
    while (id < FIRST + 1000 || forks < 100) {
        CHECK(set_uid(++id) == 0);
        if (old_children > 0) wrong("%s", "a child was forked after the change and has the old id for good");
        if (time_is_over() && forks > 0) ok(": %ld calls beside %ld forks in %d s", id - FIRST, forks, SECONDS);
    }
    over = 1;
}

/* Without the library: the observers notice if only the caller has changed. */
static void observers(void) {
    begin();
    for (int i = 0; i < 2; i++) thread(i ? worker : forker, NULL);
    await(2);
    CHECK(RAW(ID_CALL(setresuid), FIRST + 1, -1, -1) == 0);
    while (behind == 0 || old_children == 0) sched_yield();
}

CASES({"readers", "1000 calls beside 4 threads that look at the caller's id and their own", readers},
      {"forkers", "1000 calls beside 2 threads that fork", forkers},
      {"observers", "the observers themselves: one thread changed by a plain call is noticed", observers})
