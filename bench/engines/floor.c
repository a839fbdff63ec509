/* floor.c: the minimal cost of a stop that holds all threads before the first one executes the call. It sends a signal
   to each thread of a fixed list, lets all sleep on one futex, wakes all at once, and makes the calls. It checks nothing,
   so it cannot be used in practice. It shows how much of the cost is the kernel's. Two experiments change one thing:

       YIELDS   held threads stay awake for a while by sched_yield(2), and so does the caller
       SPREAD   each held thread sends a signal to another thread before it sleeps

   A drop is "one" stop or "first". "first" is one stop and the work that any implementation has to do in the first stop
   of a process: it installs a handler, maps memory that a child of fork does not share, opens the task directory, and
   counts the threads before and after they are held. */
#define _GNU_SOURCE
#include "engine.h"
#include "drop.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* SPINS is as in this project's library. The yields take as long as the spins. */
enum { SIGNAL = 40, SPINS = 3000, YIELDED = 60 };

#ifdef __x86_64__
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif
#define SPIN_UNTIL(done) for (int i = 0; i < SPINS && !(done); i++) PAUSE()
#define YIELD_UNTIL(done) for (int i = 0; i < YIELDED && !(done); i++) sched_yield()

/* The held threads sleep on this word. Each stop increments it. */
static _Atomic unsigned gate;
/* The number of threads that have not arrived, and later of those that have not reported. */
static _Atomic unsigned missing;
/* Whether the caller sleeps and must be woken. */
static _Atomic int asleep;
/* The number of threads that were sent a signal. */
static _Atomic int sent;
static struct call calls[DROP];
static int call_count;
static pid_t pid;
/* The task directory, open during a first stop. */
static int tasks = -1;

static int make_calls(void) {
    for (int i = 0; i < call_count; i++) {
        const long *args = calls[i].args;
        if (syscall(calls[i].nr, args[0], args[1], args[2], args[3], args[4], 0) < 0) return errno;
    }
    return 0;
}

static int stop_one(void) {
    int next = atomic_fetch_add(&sent, 1);
    if (next < thread_count) syscall(SYS_tgkill, pid, tids[next], SIGNAL);
    return next < thread_count;
}

static void one_less(void) {
    if (atomic_fetch_sub(&missing, 1) == 1 && atomic_load(&asleep)) futex_wake(&missing);
}

static void await_all(void) {
    unsigned left;
#ifdef YIELDS
    YIELD_UNTIL(atomic_load(&missing) == 0);
#endif
    SPIN_UNTIL(atomic_load(&missing) == 0);
    atomic_store(&asleep, 1);
    while ((left = atomic_load(&missing)) != 0) futex_wait(&missing, left);
    atomic_store(&asleep, 0);
}

static void on_signal(int signal) {
    unsigned seen = atomic_load(&gate);
    int saved = errno;
    (void)signal;
#ifdef SPREAD
    stop_one();
#endif
    one_less();
#ifdef YIELDS
    YIELD_UNTIL(atomic_load(&gate) != seen);
#endif
    if (thread_count == 1) SPIN_UNTIL(atomic_load(&gate) != seen);
    while (atomic_load(&gate) == seen) futex_wait(&gate, seen);
    make_calls();
    one_less();
    errno = saved;
}

const char *prepare(const char *call) {
    pid = getpid();
    if (strcmp(call, "first") != 0) handle(SIGNAL, on_signal);
    return NULL;
}

static int count_tasks(void) {
    struct stat status;
    return fstat(tasks, &status) == 0 ? (int)status.st_nlink - 2 : -1;
}

/* Returns the number of threads. */
static int begin(void) {
    enum { MEMORY = 3 << 12 };
    void *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    madvise(memory, MEMORY, MADV_WIPEONFORK);
    handle(SIGNAL, on_signal);
    tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return count_tasks();
}

static int stop(void) {
    int error;
    atomic_store(&missing, thread_count);
    atomic_store(&sent, 0);
    while (stop_one()) {}
    await_all();
    if (tasks >= 0) {
        if (count_tasks() != thread_count + 1) perror("threads are missing");
        close(tasks);
    }
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
    int first = strcmp(way, "first") == 0;
    if (!first && strcmp(way, "one") != 0) return ENOSYS;
    the_drop(calls, ruleset);
    call_count = DROP;
    if (first && begin() < 0) return errno;
    return stop();
}
