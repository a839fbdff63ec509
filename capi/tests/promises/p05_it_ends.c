/* P5, it ends: if a thread cannot be stopped, the call ends with an error and nothing has changed. */
#include "promises.h"
#include <sys/ptrace.h>

static pid_t tracer;

/* The promise is that the call ends, and that all threads or none have changed. */
static void ends(void) {
    errno = 0;
    long result = set_uid(1001);
    int error = errno, all;
    /* A traced process ends only after its tracer has been told. */
    if (tracer != 0) kill(tracer, SIGKILL);
    int old = lacking("Uid", "1001", &all), new = lacking("Uid", "0", &all);
    if (result == 0 && old == 0) ok("%s", "");
    if (result == -1 && new == 0 && error == ETIMEDOUT) ok("%s", ": ETIMEDOUT");
    wrong("result %ld, errno %d, %d of %d threads unchanged, %d changed", result, error, old, all, new);
}

static pid_t stopped_tid;
static void *victim(void *unused) {
    stopped_tid = RAW(SYS_gettid);
    return sleeper(unused);
}
static void traced(void) {
    need_root();
    sleepers(4);
    thread(victim, NULL);
    await(5);
    atomic_int *traced = shared_memory(sizeof *traced);
    tracer = fork();
    if (tracer == 0) {
        int status;
        if (ptrace(PTRACE_SEIZE, stopped_tid, 0, 0) != 0) *traced = -errno;
        else {
            ptrace(PTRACE_INTERRUPT, stopped_tid, 0, 0);
            waitpid(stopped_tid, &status, __WALL);
            *traced = 1;
        }
        for (;;) pause();
    }
    while (*traced == 0) sched_yield();
    if (*traced < 0) skipped("ptrace: errno %d", -*traced);
    ends();
}

static atomic_int vforked;
static int vfork_seconds;
static void *vforks(void *unused) {
    pid_t pid = vfork();
    if (pid == 0) {
        vforked = 1;
        sleep_ms(vfork_seconds * 1000);
        _exit(0);
    }
    return sleeper(unused);
}
static void vfork_for(int seconds) {
    need_root();
    vfork_seconds = seconds;
    sleepers(4);
    thread(vforks, NULL);
    while (vforked == 0) sched_yield();
    ends();
}
static void vfork_short(void) { vfork_for(1); }
static void vfork_long(void) { vfork_for(3600); }

/* All threads are on one CPU and the caller has a real-time priority. A caller that spins keeps the others from
   answering. */
static void real_time(void) {
    need_root();
    cpu_set_t own, one;
    int cpu = 0;
    CHECK(sched_getaffinity(0, sizeof own, &own) == 0);
    while (!CPU_ISSET(cpu, &own)) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    sleepers(8);
    struct sched_param priority = {1};
    if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0) skipped("SCHED_FIFO: errno %d", errno);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(set_uid(1001) == 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    all_have("Uid", 1001);
    long ms = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    ok(": %s", ms < 500 ? "at once" : "only when the kernel throttled the caller");
}

CASES({"traced", "a thread is stopped by a tracer", traced},
      {"vfork_short", "a thread waits a second for its vfork child", vfork_short},
      {"vfork_long", "a thread waits for ever for its vfork child", vfork_long},
      {"real_time", "a SCHED_FIFO caller on the same CPU as the others", real_time})
