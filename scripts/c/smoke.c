// The smoke test of a CPU: a program of eight threads gives up root by libpsx, and each thread says from inside what the
// kernel answers it. (/proc would show the threads of an emulator as well.) Prints "ok", or what is wrong, and ends.
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/psx_syscall.h>
#include <sys/syscall.h>
#include <unistd.h>

// On 32-bit CPUs the calls without the suffix take 16-bit ids.
#ifdef SYS_setresuid32
#define SETGROUPS SYS_setgroups32
#define SETRESGID SYS_setresgid32
#define SETRESUID SYS_setresuid32
#define GETRESUID SYS_getresuid32
#define GETRESGID SYS_getresgid32
#else
#define SETGROUPS SYS_setgroups
#define SETRESGID SYS_setresgid
#define SETRESUID SYS_setresuid
#define GETRESUID SYS_getresuid
#define GETRESGID SYS_getresgid
#endif

enum { THREADS = 8, NOBODY = 70000 };
#define CHECK(condition) ((condition) ? (void)0 : wrong(#condition, __LINE__))

static void wrong(const char *condition, int line) {
    int why = errno;
    char text[1000] = "";
    psx_strerror(text, sizeof text, NULL, 0);
    dprintf(1, "wrong: %s (line %d, errno %d); libpsx: %s\n", condition, line, why, text);
    _exit(1);
}

struct identity {
    unsigned uid[3], gid[3];
    int groups, no_new_privs;
    struct __user_cap_data_struct sets[2];
    long regain;
};

static atomic_int turn, answered, over;
static struct identity identities[THREADS + 1];

static void identify(struct identity *identity) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    memset(identity, 0, sizeof *identity);
    CHECK(syscall(GETRESUID, &identity->uid[0], &identity->uid[1], &identity->uid[2]) == 0);
    CHECK(syscall(GETRESGID, &identity->gid[0], &identity->gid[1], &identity->gid[2]) == 0);
    identity->groups = getgroups(0, NULL);
    identity->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    CHECK(syscall(SYS_capget, &header, identity->sets) == 0);
    if (identity->uid[0] != 0) identity->regain = syscall(SETRESUID, 0, 0, 0);
}

// Computes, so that the signal finds every register in use, until it is its turn to answer.
static void *thread(void *argument) {
    int seen = 0;
    struct identity *identity = argument;
    while (!atomic_load(&over)) {
        double sum = 0;
        unsigned long hash = 5381;
        errno = 4711;
        for (int i = 1; i <= 20000; i++) sum += 1.0 / i, hash = hash * 33 ^ (unsigned long)i;
        static _Atomic unsigned long first_hash;
        static _Atomic double first_sum;
        if (atomic_load(&first_hash) == 0) atomic_store(&first_sum, sum), atomic_store(&first_hash, hash);
        CHECK(hash == atomic_load(&first_hash) && sum == atomic_load(&first_sum));
        CHECK(errno == 4711);
        if (atomic_load(&turn) != seen) {
            seen = atomic_load(&turn);
            identify(identity);
            atomic_fetch_add(&answered, 1);
        }
        usleep(200);
    }
    return NULL;
}

static void ask(void) {
    atomic_store(&answered, 0);
    atomic_fetch_add(&turn, 1);
    identify(&identities[0]);
    while (atomic_load(&answered) != THREADS) usleep(500);
}

static _Atomic int foreign, foreign_value;

static void handler(int signal, siginfo_t *info, void *context) {
    (void)context;
    foreign_value = signal == SIGUSR1 ? info->si_value.sival_int : -1;
    foreign++;
}

int main(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, thread, &identities[i + 1]) == 0);

    // Each number of arguments, and the last of six: FUTEX_CMP_REQUEUE compares it with the word.
    static unsigned word = 5, other;
    CHECK(psx_syscall(SYS_getpid) == getpid());
    CHECK(psx_syscall(SYS_prctl, PR_SET_TIMERSLACK, 4242) == 0);
    CHECK(prctl(PR_GET_TIMERSLACK) == 4242);
    CHECK(psx_syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, &other, 5) == 0);
    CHECK(psx_syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, &other, 6) == -1 && errno == EAGAIN);
    CHECK(psx_syscall3(SYS_close, -1, 0, 0) == -1 && errno == EBADF);
    CHECK(psx_syscall3(SYS_exit, 0, 0, 0) == -1 && errno == EINVAL);

    // The masks of handlers, before and after: a handler of another signal runs as before.
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigset_t mask;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 99}) == 0);
    for (int i = 0; i < 1000 && foreign == 0; i++) usleep(1000);
    CHECK(foreign == 1 && foreign_value == 99);
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 && !sigismember(&mask, SIGUSR1));

    // The C library has a handler for the same signal, and uses it in every thread.
    CHECK(geteuid() == 0);
    CHECK(setresgid(7, 7, 0) == 0 && setresuid(0, 0, 0) == 0);
    ask();
    for (int i = 0; i <= THREADS; i++) CHECK(identities[i].gid[0] == 7 && identities[i].gid[1] == 7);

    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{1 << CAP_CHOWN | 1 << CAP_SETUID | 1 << CAP_SETGID, 1 << CAP_CHOWN | 1 << CAP_SETUID | 1 << CAP_SETGID, 0}};
    struct __user_cap_data_struct none[2] = {{0}};
    CHECK(psx_syscall(SYS_capset, &header, sets) == 0);
    ask();
    for (int i = 0; i <= THREADS; i++) CHECK(memcmp(identities[i].sets, sets, sizeof sets) == 0);
    CHECK(psx_syscall(SETGROUPS, 0, NULL) == 0);
    CHECK(psx_syscall(SETRESGID, NOBODY, NOBODY, NOBODY) == 0);
    CHECK(psx_syscall(SETRESUID, NOBODY, NOBODY, NOBODY) == 0);
    CHECK(psx_syscall(SYS_capset, &header, none) == 0);
    CHECK(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    ask();
    for (int i = 0; i <= THREADS; i++) {
        struct identity *one = &identities[i];
        for (int j = 0; j < 3; j++) CHECK(one->uid[j] == NOBODY && one->gid[j] == NOBODY);
        CHECK(one->groups == 0 && one->no_new_privs == 1 && one->regain == -1);
        CHECK(memcmp(one->sets, none, sizeof none) == 0);
    }
    for (int i = 0; i < 100; i++) CHECK(psx_syscall(SYS_prctl, PR_SET_TIMERSLACK, 5000 + i) == 0);
    atomic_store(&over, 1);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("ok: 8 threads and the caller gave up root, and none can take it back");
    return 0;
}
