/* P7: several callers take turns, and a handler that interrupts a call never hangs. */
#include "promises.h"

static void *initiator(void *number) {
    threads_begun++;
    await(8);
    for (int n = 0; n < 100; n++) CHECK(set_uid((long)number + n) == 0);
    return NULL;
}
static void eight(void) {
    need_root();
    pthread_t threads[8];
    sleepers(4);
    threads_begun = 0;
    for (long i = 0; i < 8; i++) threads[i] = thread(initiator, (void *)(1000 * (i + 1)));
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    CHECK(set_uid(999) == 0);
    all_have("Uid", 999);
}

/* Calls that a handler makes succeed or fail with EDEADLK. */
static atomic_int made, refused;
static void calls_in_handler(int signal) {
    (void)signal;
    int before = errno;
    if (no_new_privs() == 0) made++;
    else if (errno == EDEADLK) refused++;
    else wrong("a call in a handler: errno %d", errno);
    errno = before;
}
static pthread_t target;
static void *interrupts(void *unused) {
    threads_begun++;
    while (!over) {
        pthread_kill(target, SIGUSR1);
        sleep_ms(1);
    }
    return unused;
}
static void handler_of(pthread_t thread_) {
    need_root();
    struct sigaction action = {.sa_handler = calls_in_handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    target = thread_;
    thread(interrupts, NULL);
    for (long id = 1001; made + refused < 200; id = id % 60000 + 1) CHECK(set_uid(id) == 0);
}
static void handler_in_caller(void) {
    sleepers(4);
    handler_of(pthread_self());
}
static void handler_in_held(void) {
    sleepers(4);
    handler_of(thread(sleeper, NULL));
}

/* SIGSYS of a filter interrupts the call itself, and its handler makes another call. */
static atomic_long inner = 1;
static atomic_int inner_errno;
static void on_sigsys(int signal) {
    (void)signal;
    inner = set_uid(1001);
    inner_errno = errno;
}
static void in_its_own_call(void) {
    need_root();
    sleepers(4);
    struct sigaction action = {.sa_handler = on_sigsys};
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    struct sock_filter traps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ID_CALL(setfsuid), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, traps};
    CHECK(RAW(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
    psx_syscall3(ID_CALL(setfsuid), 5, 0, 0);
    CHECK(inner == 0 || inner == -1);
    if (inner == -1) CHECK(inner_errno == EDEADLK);
    all_have("Uid", inner == 0 ? 1001 : 0);
}

/* The thread's own filter kills it during its call. */
static void *is_killed(void *unused) {
    struct sock_filter kills[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ID_CALL(setfsuid), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, kills};
    CHECK(RAW(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
    psx_syscall3(ID_CALL(setfsuid), 5, 0, 0);
    wrong("the thread was not killed");
    return unused;
}
static void killed_caller(void) {
    need_root();
    sleepers(4);
    thread(is_killed, NULL);
    while (thread_count() > 5) sched_yield();
    CHECK(set_uid(1001) == 0);
    all_have("Uid", 1001);
}

CASES({"eight", "8 threads make 100 calls each", eight},
      {"handler_in_caller", "a signal handler that calls interrupts the caller, 200 times", handler_in_caller},
      {"handler_in_held", "a signal handler that calls interrupts another thread, 200 times", handler_in_held},
      {"in_its_own_call", "a SIGSYS handler that calls interrupts the call itself", in_its_own_call},
      {"killed_caller", "another caller was killed in its call by a seccomp filter", killed_caller})
