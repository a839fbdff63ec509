/* Tests a call at an unusual moment of a process or a thread. */
#include "promises.h"

static void covered(long id) {
    errno = 0;
    CHECK(set_uid(id) == 0);
    CHECK(uid_here() == id);
    all_have("Uid", id);
}

/* ---- before main ---- */

static int in_constructor;
__attribute__((constructor)) static void constructor(int argc, char **argv, char **environment) {
    (void)environment;
    if (argc < 2 || strcmp(argv[1], "constructor") != 0 || geteuid() != 0) return;
    sleepers(3);
    covered(1001);
    in_constructor = 1;
}
static void before_main(void) {
    need_root();
    CHECK(in_constructor);
    all_have("Uid", 1001);
    covered(1002);
}

/* ---- after main ---- */

static void calls_and_ends(void) {
    covered(1002);
    ok("%s", "");
}
static void atexit_before_first(void) {
    need_root();
    sleepers(3);
    atexit(calls_and_ends);
    covered(1001);
    exit(0);
}
static void atexit_after_first(void) {
    need_root();
    sleepers(3);
    covered(1001);
    atexit(calls_and_ends);
    exit(0);
}
static void destructor_case(void) {
    need_root();
    sleepers(3);
    covered(1001);
    exit(0);
}
__attribute__((destructor)) static void destructor(void) {
    if (strcmp(chosen, "destructor") == 0) calls_and_ends();
}

/* Another thread continues to call while the process exits. The last exit handler waits until it has called again. */
static atomic_long calls;
static void *calls_for_ever(void *unused) {
    threads_begun++;
    for (long id = 1001;; id = id % 50000 + 1) {
        CHECK(set_uid(id) == 0);
        calls++;
    }
    return unused;
}
static void waits_for_calls(void) {
    long before = calls;
    while (calls < before + 10) sched_yield();
    ok("%s", "");
}
static void thread_after_main(void) {
    need_root();
    atexit(waits_for_calls);
    thread(calls_for_ever, NULL);
    while (calls == 0) sched_yield();
    exit(0);
}

/* ---- cancellation ---- */

static int asynchronous;
static void *is_cancelled(void *unused) {
    if (asynchronous) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    threads_begun++;
    for (;;) {
        if (set_uid(1001) != 0) wrong("a call in the thread: errno %d", errno);
        pthread_testcancel();
    }
    return unused;
}
static void cancel(int type, int other_callers) {
    need_root();
    asynchronous = type;
    sleepers(3);
    for (int i = 0; i < other_callers; i++) thread(calls_for_ever, NULL);
    for (int n = 0; n < 100; n++) {
        int begun = threads_begun;
        pthread_t victim = thread(is_cancelled, NULL);
        while (threads_begun == begun) sched_yield();
        if (n % 2) sleep_ms(1);
        CHECK(pthread_cancel(victim) == 0);
        CHECK(pthread_join(victim, NULL) == 0);
        CHECK(set_uid(1002) == 0);
    }
    if (other_callers == 0) covered(1003);
}
static void cancel_deferred(void) { cancel(0, 0); }
static void cancel_asynchronous(void) { cancel(1, 0); }
static void cancel_waiting_deferred(void) { cancel(0, 3); }
static void cancel_waiting_asynchronous(void) { cancel(1, 3); }

/* ---- the end of a thread ---- */

static long destructor_result = 1;
static void key_destructor(void *value) {
    (void)value;
    destructor_result = set_uid(1001);
}
static pthread_key_t key;
static void *has_a_key(void *unused) {
    pthread_setspecific(key, &key);
    return unused;
}
static void tls_destructor(void) {
    need_root();
    sleepers(3);
    CHECK(pthread_key_create(&key, key_destructor) == 0);
    pthread_join(thread(has_a_key, NULL), NULL);
    CHECK(destructor_result == 0);
    all_have("Uid", 1001);
}

static void *goes_on(void *unused) {
    char state[16] = "";
    char leader[16];
    snprintf(leader, sizeof leader, "%d", getpid());
    while (state[0] != 'Z') CHECK(status_of(leader, "State", state, sizeof state));
    covered(1001);
    covered(1002);
    ok("%s", "");
    return unused;
}
static void zombie_leader(void) {
    need_root();
    sleepers(3);
    thread(goes_on, NULL);
    pthread_exit(NULL);
}

/* ---- a signal handler ---- */

static void on_signal(int signal) {
    (void)signal;
    covered(1001);
}
static void handler(void) {
    need_root();
    sleepers(3);
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    all_have("Uid", 1001);
    covered(1002);
}

CASES({"constructor", "before main, from a constructor", before_main},
      {"atexit_before_first", "from an exit handler that was registered before the first call", atexit_before_first},
      {"atexit_after_first", "from an exit handler that was registered after the first call", atexit_after_first},
      {"destructor", "after main, from a destructor", destructor_case},
      {"thread_after_main", "another thread continues to call while the process exits", thread_after_main},
      {"cancel_deferred", "the calling thread is cancelled (deferred), 100 times", cancel_deferred},
      {"cancel_asynchronous", "the calling thread is cancelled (asynchronously), 100 times", cancel_asynchronous},
      {"cancel_waiting_deferred", "the same (deferred) while it waits for other callers", cancel_waiting_deferred},
      {"cancel_waiting_asynchronous", "the same (asynchronously) while it waits for other callers",
       cancel_waiting_asynchronous},
      {"tls_destructor", "from the destructor of a pthread_key at a thread's end", tls_destructor},
      {"zombie_leader", "the main thread has ended by pthread_exit", zombie_leader},
      {"handler", "from a signal handler", handler})
