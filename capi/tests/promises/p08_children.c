/* P8: a child process can call at any time, and its calls do not affect its parent. */
#include "promises.h"

/* In a child, which has one thread: calls with one thread, then with two. */
static void child_calls(void) {
    if (set_uid(60001) != 0) RAW(SYS_exit_group, 1);
    if (uid_here() != 60001) RAW(SYS_exit_group, 2);
}
static void child_calls_with_threads(void) {
    child_calls();
    int before = threads_begun, all;
    raw_threads(2, 0, NULL, raw_sleeper);
    if (threads_begun != before + 2) RAW(SYS_exit_group, 3);
    if (set_uid(60002) != 0) RAW(SYS_exit_group, 4);
    if (lacking("Uid", "60002", &all) != 0 || all != 3) RAW(SYS_exit_group, 5);
}

static void *calls_for_ever(void *unused) {
    threads_begun++;
    for (long id = 1001; !over; id = id % 50000 + 1) CHECK(set_uid(id) == 0);
    return unused;
}

static long plain_fork(void) { return fork(); }
static long underscore_fork(void) { return _Fork(); }
static long raw_fork(void) { return RAW(CALL_CLONE); }

static void reap(long pid) {
    int status;
    CHECK(pid > 0);
    while (waitpid(pid, &status, 0) != pid) CHECK(errno == EINTR);
    if (status != 0) wrong("a child's calls: %s", ending(status));
}

static void forks_beside_calls(long (*make)(void)) {
    need_root();
    sleepers(3);
    for (int i = 0; i < 2; i++) thread(calls_for_ever, NULL);
    await(5);
    for (int n = 0; n < 100; n++) {
        long pid = make();
        if (pid == 0) {
            child_calls_with_threads();
            RAW(SYS_exit_group, 0);
        }
        reap(pid);
    }
}
static void fork_beside_calls(void) { forks_beside_calls(plain_fork); }
static void _Fork_beside_calls(void) { forks_beside_calls(underscore_fork); }
static void clone_beside_calls(void) { forks_beside_calls(raw_fork); }

/* The parent has called before and does nothing meanwhile. Checks that the child's call does not reach its threads. */
static void leaves_parent_alone(long (*make)(void)) {
    need_root();
    sleepers(4);
    CHECK(set_uid(1001) == 0);
    long pid = make();
    if (pid == 0) {
        child_calls_with_threads();
        RAW(SYS_exit_group, 0);
    }
    reap(pid);
    all_have("Uid", 1001);
    CHECK(set_uid(1002) == 0);
    all_have("Uid", 1002);
}
static void fork_idle(void) { leaves_parent_alone(plain_fork); }
static void _Fork_idle(void) { leaves_parent_alone(underscore_fork); }
static void clone_idle(void) { leaves_parent_alone(raw_fork); }

static void vfork_idle(void) {
    need_root();
    sleepers(4);
    CHECK(set_uid(1001) == 0);
    volatile long result = 1, id = 1;
    pid_t pid = vfork();
    if (pid == 0) {
        result = set_uid(60001);
        id = uid_here();
        _exit(0);
    }
    reap(pid);
    CHECK(result == 0);
    CHECK(id == 60001);
    all_have("Uid", 1001);
    CHECK(set_uid(1002) == 0);
    all_have("Uid", 1002);
}

/* A child of a child, and a child that a handler forks while the handler interrupts a call. */
static void in_a_handler(int signal) {
    (void)signal;
    int before = errno;
    pid_t pid = _Fork();
    if (pid == 0) {
        child_calls();
        RAW(SYS_exit_group, 0);
    }
    reap(pid);
    threads_begun++;
    errno = before;
}
static pthread_t main_thread;
static void *interrupts(void *unused) {
    for (int n = 0; n < 100; n++) {
        int before = threads_begun;
        pthread_kill(main_thread, SIGUSR1);
        while (threads_begun == before) sched_yield();
    }
    over = 1;
    return unused;
}
static void fork_in_handler(void) {
    need_root();
    sleepers(4);
    struct sigaction action = {.sa_handler = in_a_handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    main_thread = pthread_self();
    thread(interrupts, NULL);
    for (long id = 1001; !over; id = id % 50000 + 1) CHECK(set_uid(id) == 0);
}

CASES({"fork", "a child of fork calls; its parent has called before", fork_idle},
      {"_Fork", "the same with _Fork", _Fork_idle},
      {"clone", "the same with clone(2) itself", clone_idle},
      {"vfork", "the same with vfork", vfork_idle},
      {"fork_beside_calls", "100 children of fork call, made while other threads call", fork_beside_calls},
      {"_Fork_beside_calls", "the same with _Fork", _Fork_beside_calls},
      {"clone_beside_calls", "the same with clone(2) itself", clone_beside_calls},
      {"fork_in_handler", "100 children made by a handler that interrupts the caller", fork_in_handler})
