/* floor.c: what a stop costs at the least that holds everybody before the first execution: a signal to each thread
   known by heart, one futex to sleep on, one wake for all, the calls. It checks nothing, so it is nothing to use; it
   says how much of the cost is the kernel's. */
#define _GNU_SOURCE
#include "engine.h"
#include "drop.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

enum { SIGNAL = 40 };

/* Rises by one with each stop: what the held threads sleep on. */
static _Atomic unsigned gate;
/* Threads that have not arrived, and then threads that have not reported. */
static _Atomic unsigned missing;
static struct call calls[DROP];
static int call_count;

static int make_calls(void) {
    for (int i = 0; i < call_count; i++) {
        const long *args = calls[i].args;
        if (syscall(calls[i].nr, args[0], args[1], args[2], args[3], args[4], 0) < 0) return errno;
    }
    return 0;
}

static void one_less(void) {
    if (atomic_fetch_sub(&missing, 1) == 1) futex_wake(&missing);
}

static void await_all(void) {
    unsigned left;
    while ((left = atomic_load(&missing)) != 0) futex_wait(&missing, left);
}

static void on_signal(int signal) {
    unsigned seen = atomic_load(&gate);
    int saved = errno;
    (void)signal;
    one_less();
    while (atomic_load(&gate) == seen) futex_wait(&gate, seen);
    make_calls();
    one_less();
    errno = saved;
}

const char *prepare(const char *call) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    (void)call;
    sigfillset(&action.sa_mask);
    sigaction(SIGNAL, &action, NULL);
    return NULL;
}

static int stop(void) {
    int error;
    pid_t pid = getpid();
    atomic_store(&missing, thread_count);
    for (int i = 0; i < thread_count; i++) syscall(SYS_tgkill, pid, tids[i], SIGNAL);
    await_all();
    error = make_calls();
    if (error != 0) call_count = 0;
    atomic_store(&missing, thread_count);
    atomic_fetch_add(&gate, 1);
    futex_wake(&gate);
    await_all();
    return error;
}

int perform(long nr, const long args[3]) {
    if (nr == 0) return ENOSYS;
    calls[0] = (struct call){nr, {args[0], args[1], args[2]}};
    call_count = 1;
    return stop();
}

int drop_privileges(const char *way, int ruleset) {
    if (strcmp(way, "one") != 0) return ENOSYS;
    the_drop(calls, ruleset);
    call_count = DROP;
    return stop();
}
