/* P6: other code that uses signal 33 gets the signals that were sent to it, in the way that it requested. */
#include "promises.h"
#include <inttypes.h>

static atomic_long value, code, calls;
static _Atomic uint64_t mask;
#define BIT(signal) (1ull << (signal - 1))

static void handler(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    uint64_t now = 0;
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &now, sizeof now);
    mask = now;
    code = info->si_code;
    value = (long)info->si_value.sival_ptr;
    calls++;
}

static void send_value(long number) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = SIGNAL;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_value.sival_ptr = (void *)number;
    CHECK(RAW(SYS_rt_tgsigqueueinfo, getpid(), RAW(SYS_gettid), SIGNAL, &info) == 0);
}

static void arrives(void) {
    uint64_t wanted = BIT(SIGUSR1) | BIT(SIGNAL), before = 0, after = 0;
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &before, sizeof before);
    for (long number = 1000; number < 1010; number++) {
        calls = 0;
        send_value(number);
        CHECK(calls == 1);
        CHECK(value == number);
        CHECK(code == SI_QUEUE);
        if (mask != wanted) wrong("the handler ran with the mask %" PRIx64 ", not %" PRIx64, mask, wanted);
    }
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &after, sizeof after);
    CHECK(before == after);
}

static void before(void) {
    sleepers(3);
    set_action(handler, SA_SIGINFO | SA_RESTART, BIT(SIGUSR1));
    CHECK(no_new_privs() == 0);
    CHECK(calls == 0);
    all_have("NoNewPrivs", 1);
    arrives();
}

static void after(void) {
    sleepers(3);
    CHECK(no_new_privs() == 0);
    set_action(handler, SA_SIGINFO | SA_RESTART, BIT(SIGUSR1));
    arrives();
    need_root();
    CHECK(set_uid(1001) == 0);
    all_have("Uid", 1001);
    arrives();
}

static void signal_self(void) { RAW(SYS_tgkill, getpid(), RAW(SYS_gettid), SIGNAL); }

static void ignored(void) {
    sleepers(3);
    set_action(SIG_IGN, 0, 0);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
    signal_self();
}

/* No pthreads here: glibc takes the signal when the first one is created. */
static void dies_of_it(void) {
    raw_threads(3, 0, NULL, raw_sleeper);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
    signal_self();
}
static void by_default(void) {
    int status = in_child(dies_of_it);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGNAL)
        wrong("a signal 33 that is the program's own: %s, not killed by signal 33", ending(status));
}

static void reset_once(void) {
    raw_threads(3, 0, NULL, raw_sleeper);
    set_action(handler, SA_SIGINFO | SA_RESETHAND, 0);
    CHECK(no_new_privs() == 0);
    send_value(5);
    CHECK(value == 5 && calls == 1);
    signal_self();
}
static void reset_hand(void) {
    int status = in_child(reset_once);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGNAL)
        wrong("the second signal to an SA_RESETHAND handler: %s, not killed by signal 33", ending(status));
}

/* Values are sent to a thread while calls are made. Each value arrives once. */
#define SENT 2000
static atomic_int received[SENT];
static void counts(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    long number = (long)info->si_value.sival_ptr;
    if (info->si_code == SI_QUEUE && number >= 0 && number < SENT) received[number]++;
}
static atomic_bool done;
static void *sends_to_itself(void *unused) {
    threads_begun++;
    for (long number = 0; number < SENT; number++) send_value(number);
    done = 1;
    return unused;
}
static void beside_calls(void) {
    need_root();
    sleepers(3);
    set_action(counts, SA_SIGINFO | SA_RESTART, 0);
    thread(sends_to_itself, NULL);
    for (long id = 1001; !done; id = id % 60000 + 1) CHECK(set_uid(id) == 0);
    int lost = 0, twice = 0;
    for (int i = 0; i < SENT; i++) lost += received[i] == 0, twice += received[i] > 1;
    if (lost + twice > 0) wrong("of %d values, %d did not arrive, %d arrived twice", SENT, lost, twice);
}

#define GLIBC_CALLS 300
static void *changes_by_libc(void *unused) {
    threads_begun++;
    for (long id = 1; id <= GLIBC_CALLS; id++) CHECK(setresuid(-1, -1, id) == 0);
    done = 1;
    return unused;
}
static void libc_setresuid(void) {
    need_root();
    sleepers(6);
    thread(changes_by_libc, NULL);
    await(7);
    long id = 1000;
    while (!done) CHECK(set_uid(++id) == 0);
    CHECK(set_uid(++id) == 0);
    all_have("Uid", id);
    /* libc changes the saved id. It is read in this thread and in the status files. */
    unsigned ids[3];
    RAW(ID_CALL(getresuid), &ids[0], &ids[1], &ids[2]);
    CHECK(ids[2] == GLIBC_CALLS);
}

CASES({"before", "the program installs a handler before the first call", before},
      {"after", "the program installs a handler after the first call", after},
      {"ignored", "the program ignores the signal", ignored},
      {"by_default", "the program has left the signal at SIG_DFL", by_default},
      {"reset_hand", "a handler with SA_RESETHAND", reset_hand},
      {"beside_calls", "2000 values sent while calls are made", beside_calls},
      {"libc_setresuid", "glibc's setresuid in one thread, calls in another", libc_setresuid})
