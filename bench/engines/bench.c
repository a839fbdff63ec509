/* bench.c: the program around an engine in C.

       ENGINE SCENARIO CALL THREADS MILLISECONDS CALLS

   The program starts threads and makes one call that is counted separately: in it, the engine installs handlers and
   maps memory. It makes a second call to warm up, and then calls until the time is over or the number of calls is
   reached. If the first call takes many times the time, it is the only one, and is counted. The program prints lines
   for the driver. Each line is a word and its values:

       SKIPPED why
       first NANOSECONDS
       memory MAPPED MALLOC            bytes that the first call took
       ns NANOSECONDS ...
       failed COUNT
       usage NANOSECONDS VOLUNTARY INVOLUNTARY     of the process, in the calls of the line ns
       peak BYTES
       born COUNT                      threads that were created and ended
       changed COUNT OF                threads that /proc shows with the new state, after a drop
       control NANOSECONDS ...         as ns, in windows of the same length without a call
       threads NANOSECONDS ...         the largest value of each thread in the windows with a call
       control_threads NANOSECONDS ... the same in the windows without a call
       unseen COUNT                    calls that are left out because a thread did not see its sleep interrupted

   SCENARIO is one of these:

       asleep       all threads sleep
       busy         all threads compute
       half         every second thread computes
       churn        two more threads start other threads and wait for them
       fifo         one more thread computes with SCHED_FIFO
       fifos        one more SCHED_FIFO thread per CPU sleeps
       fifo-pair    two SCHED_FIFO threads of one priority compute, and all threads may use only one CPU
       fail         the kernel refuses the call
       drop         the process drops its privileges

   CALL is setresuid, prctl or the engine's own call. For drop, it is the way in which the engine drops privileges.

   In four more scenarios, the line ns contains what the other threads see of a call, not its length. A window with a
   call is followed by a window without one, in which the caller sleeps as long as the call took. This is the control.

       freeze       each thread wakes at fixed times. A sample is the longest delay of any thread behind its time.
       freeze-busy  each thread reads the clock all the time. A sample is the longest gap between two reads of any
                    thread.
       last         each thread sleeps in clock_nanosleep(2), which any handler interrupts. A sample is the time from
                    the return of the call until the last thread has read the clock after its sleep.
       last-busy    each thread reads the clock all the time, and the stack below its own part, which only a handler
                    writes to. A sample is the time from the return of the call until the last thread has read the
                    clock after its handler. These two have no control: without a call, no handler runs. */
#define _GNU_SOURCE
#include "engine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/landlock.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* If the first call takes more than this many times the time limit, it is the only call. */
enum { ENDLESS = 20 };

/* The threads of "freeze" wake so seldom that all of them together leave a CPU partly idle. */
enum { PERIOD_PER_THREAD = 20000, SHORTEST_PERIOD = 200000 };
/* The caller waits at most this long until all threads have read the clock, in nanoseconds. */
static const int64_t LOOKS_WITHIN = 5000000000;

enum { STACK = 64 << 10, MOST_SAMPLES = 100000, NOBODY = 65534, REFUSED = 4242 };

int thread_count;
pid_t *tids;

static _Atomic unsigned missing, begun, born;
static const char *scenario, *call_name;
static int64_t samples[MOST_SAMPLES], controls[MOST_SAMPLES];

/* What a thread publishes about its reads of the clock. Each thread writes to its own cache line. */
struct seen {
    _Alignas(64) _Atomic int64_t worst; /* the largest value since the caller has set it to 0 */
    _Atomic int64_t left;               /* the first read after a handler, or 0 */
    _Atomic unsigned looks;
    /* Only the caller uses these: the number of reads at the end of a window, and the largest values of all windows
       without a call and with one. */
    unsigned looks_before;
    int64_t largest[2];
};

static struct seen *seen;

void futex_wait(_Atomic unsigned *word, unsigned seen) {
    syscall(SYS_futex, word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, seen, NULL, NULL, 0);
}

void futex_wake(_Atomic unsigned *word) {
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 0x7fffffff, NULL, NULL, 0);
}

void handle(int signal, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

__attribute__((weak)) const char *prepare(const char *call) {
    (void)call;
    return NULL;
}

__attribute__((weak)) int drop_privileges(const char *way, int ruleset) {
    (void)way;
    (void)ruleset;
    return ENOSYS;
}

__attribute__((weak)) long most_calls = MOST_SAMPLES;

__attribute__((weak)) void rest(void) {
    static _Atomic unsigned never;
    for (;;) futex_wait(&never, 0);
}

static void end(const char *what) {
    perror(what);
    exit(1);
}

static void skip(const char *why) {
    printf("SKIPPED %s\n", why);
    exit(0);
}

static int is(const char *name) { return strcmp(scenario, name) == 0; }

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static struct timespec timespec_of(int64_t ns) {
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

static void sleep_for(int64_t ns) {
    int64_t end = now() + ns;
    struct timespec until = timespec_of(end);
    while (now() < end) syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static pthread_t start(void *(*body)(void *), void *argument) {
    static pthread_attr_t attr;
    static int made;
    pthread_t thread;
    if (!made) {
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, STACK);
        pthread_attr_setguardsize(&attr, 0);
        made = 1;
    }
    errno = pthread_create(&thread, &attr, body, argument);
    if (errno != 0) end("pthread_create");
    return thread;
}

__attribute__((noreturn)) static void compute(void) {
    for (volatile uint64_t n = 0;;) n++;
}

static int64_t period(void) {
    int64_t all = (int64_t)PERIOD_PER_THREAD * thread_count;
    return all > SHORTEST_PERIOD ? all : SHORTEST_PERIOD;
}

static void look(struct seen *me, int64_t value) {
    if (value > atomic_load_explicit(&me->worst, memory_order_relaxed)) atomic_store(&me->worst, value);
    atomic_fetch_add(&me->looks, 1);
}

/* The wake-up times of the threads are spread evenly over the period. */
__attribute__((noreturn)) static void wake_often(struct seen *me) {
    int64_t due = now() + period() / thread_count * (me - seen);
    for (;;) {
        int64_t t = now();
        sleep_for(due - t);
        t = now();
        look(me, t - due);
        while (due <= t) due += period();
    }
}

__attribute__((noreturn)) static void look_always(struct seen *me) {
    for (int64_t before = now();;) {
        int64_t t = now();
        look(me, t - before);
        before = t;
    }
}

/* A part of the stack below the calling function. Its own calls do not reach it, but the frame of a signal does. */
enum { UNTOUCHED = 1 << 10, WATCHED = 8 << 10, STEP = 64 / sizeof(uint64_t) };
static const uint64_t PATTERN = 0x5eed0fca11ab1e5eULL;

__attribute__((noinline)) static uintptr_t end_of_stack(void) { return (uintptr_t)__builtin_frame_address(0); }

__attribute__((noreturn)) static void look_for_handlers(struct seen *me) {
    volatile uint64_t *watched = (uint64_t *)((end_of_stack() - UNTOUCHED - WATCHED) & ~(uintptr_t)63);
    for (int handled = 1;;) {
        int64_t t;
        if (handled)
            for (int i = 0; i < WATCHED / (int)sizeof *watched; i++) watched[i] = PATTERN;
        handled = 0;
        for (int i = 0; i < WATCHED / (int)sizeof *watched; i += STEP) handled |= watched[i] != PATTERN;
        t = now();
        if (handled) atomic_store(&me->left, t);
    }
}

__attribute__((noreturn)) static void sleep_and_look(struct seen *me) {
    const struct timespec long_time = {.tv_sec = 1000};
    for (;;) {
        syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &long_time, NULL);
        atomic_store(&me->left, now());
    }
}

/* A thread begins only when all threads exist. Threads that compute would delay the creation of others. */
static void *one_thread(void *place) {
    pid_t *tid = place;
    long number = tid - tids;
    *tid = (pid_t)syscall(SYS_gettid);
    if (atomic_fetch_sub(&missing, 1) == 1) futex_wake(&missing);
    while (!atomic_load(&begun)) futex_wait(&begun, 0);
    if (is("busy") || (is("half") && number % 2)) compute();
    if (is("freeze")) wake_often(&seen[number]);
    if (is("freeze-busy")) look_always(&seen[number]);
    if (is("last-busy")) look_for_handlers(&seen[number]);
    if (is("last")) sleep_and_look(&seen[number]);
    rest();
    return NULL;
}

static void start_threads(void) {
    unsigned left;
    seen = aligned_alloc(sizeof *seen, sizeof *seen * (thread_count + 1));
    if (seen == NULL) end("aligned_alloc");
    memset(seen, 0, sizeof *seen * (thread_count + 1));
    if (is("freeze")) prctl(PR_SET_TIMERSLACK, 1); /* the threads inherit it */
    tids = calloc(thread_count + 1, sizeof *tids);
    atomic_store(&missing, thread_count);
    for (int i = 0; i < thread_count; i++) start(one_thread, &tids[i]);
    while ((left = atomic_load(&missing)) != 0) futex_wait(&missing, left);
    atomic_store(&begun, 1);
    futex_wake(&begun);
}

static void *nothing(void *unused) {
    atomic_fetch_add(&born, 1);
    return unused;
}

static void *come_and_go(void *unused) {
    for (;;) pthread_join(start(nothing, NULL), NULL);
    return unused;
}

static void *real_time(void *unused) {
    static _Atomic unsigned never;
    struct sched_param priority = {.sched_priority = 1};
    /* The raw call, because musl's sched_setscheduler(3) does nothing. */
    if (syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &priority) != 0) skip("SCHED_FIFO needs CAP_SYS_NICE");
    if (atomic_fetch_sub(&missing, 1) == 1) futex_wake(&missing);
    if (is("fifo")) compute();
    for (;;) futex_wait(&never, 0);
    return unused;
}

static void start_real_time(unsigned count) {
    unsigned left;
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) skip("there is only one CPU, and the SCHED_FIFO thread would occupy it");
    atomic_store(&missing, count);
    for (unsigned i = 0; i < count; i++) start(real_time, NULL);
    while ((left = atomic_load(&missing)) != 0) futex_wait(&missing, left);
}

static _Atomic pid_t pair[2];
static _Atomic unsigned pair_begun;

static void *one_of_the_pair(void *tid) {
    atomic_store((_Atomic pid_t *)tid, (pid_t)syscall(SYS_gettid));
    if (atomic_fetch_sub(&missing, 1) == 1) futex_wake(&missing);
    while (!atomic_load(&pair_begun)) futex_wait(&pair_begun, 0);
    compute();
    return NULL;
}

/* Restricts all threads that this program creates from now on to the caller's CPU. */
static void stay_on_one_cpu(void) {
    cpu_set_t one;
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) skip("there is only one CPU, and the SCHED_FIFO threads would occupy it");
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) end("sched_setaffinity");
}

/* The caller sets their policy while they sleep: the first one would keep the CPU from the second one. */
static void start_pair(void) {
    struct sched_param priority = {.sched_priority = 1};
    unsigned left;
    atomic_store(&missing, 2);
    for (int i = 0; i < 2; i++) start(one_of_the_pair, (void *)&pair[i]);
    while ((left = atomic_load(&missing)) != 0) futex_wait(&missing, left);
    for (int i = 0; i < 2; i++)
        if (syscall(SYS_sched_setscheduler, atomic_load(&pair[i]), SCHED_FIFO, &priority) != 0)
            skip("SCHED_FIFO needs CAP_SYS_NICE");
    atomic_store(&pair_begun, 1);
    futex_wake(&pair_begun);
}

static void start_company(void) {
    if (is("fifo-pair")) start_pair();
    if (is("churn")) {
        start(come_and_go, NULL);
        start(come_and_go, NULL);
    }
    if (is("fifo")) start_real_time(1);
    if (is("fifos")) start_real_time((unsigned)sysconf(_SC_NPROCESSORS_ONLN));
}

/* Stays root, but gives up CAP_SETUID. Called before there are threads. */
static void give_up_setuid(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    if (syscall(SYS_capget, &header, sets) != 0) end("capget");
    sets[0].effective &= ~(1U << CAP_SETUID);
    if (syscall(SYS_capset, &header, sets) != 0) end("capset");
}

static void chosen_call(long *nr, long args[3]) {
    int fails = is("fail");
    *nr = 0;
    args[0] = args[1] = args[2] = 0;
    if (strcmp(call_name, "setresuid") == 0) {
        *nr = SYS_setresuid;
        args[0] = args[1] = args[2] = fails ? REFUSED : -1;
    } else if (strcmp(call_name, "prctl") == 0) {
        *nr = SYS_prctl;
        args[0] = PR_SET_KEEPCAPS;
        args[1] = fails ? 2 : 0; /* 0 and 1 are valid, 2 is not */
    }
}

/* Returns the bytes that are mapped and that malloc has given out. It uses no stdio buffer, which would count. */
static void memory(long *mapped, long *allocated) {
    char text[200] = "";
    int statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (read(statm, text, sizeof text - 1) < 0) end("statm");
    close(statm);
    *mapped = atol(text) * sysconf(_SC_PAGESIZE);
#ifdef __GLIBC__
    *allocated = (long)mallinfo2().uordblks;
#else
    *allocated = 0;
#endif
}

/* Returns the peak memory of this program. ru_maxrss would include the peak of the program that started it. */
static long peak(void) {
    char line[200];
    long kilobytes = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) sscanf(line, "VmHWM: %ld", &kilobytes);
    return kilobytes * 1024;
}

static int64_t cpu(const struct rusage *usage) {
    return (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000000LL +
           (usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) * 1000LL;
}

static long failed;

static int64_t timed(long nr, const long args[3]) {
    int64_t start = now();
    int error = perform(nr, args);
    int64_t took = now() - start;
    if (error == ENOSYS) skip("the engine does not have this call");
    if ((error != 0) != is("fail")) failed++;
    return took;
}

static void measure(int64_t budget, long most) {
    struct rusage before, after;
    long mapped[2], allocated[2], count = 0, nr, args[3];
    int64_t first, over;
    chosen_call(&nr, args);
    getrusage(RUSAGE_SELF, &before);
    if (most > most_calls - 2) most = most_calls - 2;
    if (most > MOST_SAMPLES) most = MOST_SAMPLES;
    memory(&mapped[0], &allocated[0]);
    first = timed(nr, args);
    memory(&mapped[1], &allocated[1]);
    printf("first %lld\n", (long long)first);
    printf("memory %ld %ld\n", mapped[1] - mapped[0], allocated[1] - allocated[0]);
    if (first < budget) timed(nr, args);
    memset(samples, 0, sizeof samples[0] * most); /* touches the pages before the measurement */
    if (first > ENDLESS * budget) {
        samples[count++] = first;
    } else {
        getrusage(RUSAGE_SELF, &before);
        over = now() + budget;
        do samples[count++] = timed(nr, args);
        while (count < most && now() < over);
    }
    getrusage(RUSAGE_SELF, &after);
    fputs("ns", stdout);
    for (long i = 0; i < count; i++) printf(" %lld", (long long)samples[i]);
    printf("\nfailed %ld\n", failed);
    printf("usage %lld %ld %ld\n", (long long)(cpu(&after) - cpu(&before)), after.ru_nvcsw - before.ru_nvcsw,
           after.ru_nivcsw - before.ru_nivcsw);
    printf("born %u\n", atomic_load(&born));
}

/* Waits until every thread has read the clock twice from now on: the first of these reads may have begun before.
   Returns
   0 if a thread has not done so in time. */
static int await_looks(void) {
    int64_t over = now() + LOOKS_WITHIN;
    for (int i = 0; i < thread_count; i++) seen[i].looks_before = atomic_load(&seen[i].looks);
    for (int i = 0; i < thread_count; i++)
        while (atomic_load(&seen[i].looks) - seen[i].looks_before < 2) {
            if (now() > over) return 0;
            sleep_for(SHORTEST_PERIOD);
        }
    return 1;
}

/* Waits in the same way until every thread has left the handler, in "last" and "last-busy". */
static int await_left(void) {
    int64_t over = now() + LOOKS_WITHIN;
    for (int i = 0; i < thread_count; i++)
        while (atomic_load(&seen[i].left) == 0) {
            if (now() > over) return 0;
            sleep_for(SHORTEST_PERIOD);
        }
    return 1;
}

/* Runs one window, with a call or as long as the last call took. Returns the sample, or -1 if there is none. */
static int64_t window(int calls, int64_t *took, long nr, const long args[3]) {
    int freezes = is("freeze") || is("freeze-busy");
    int64_t largest = 0, returned;
    for (int i = 0; i < thread_count; i++) {
        atomic_store(&seen[i].worst, 0);
        atomic_store(&seen[i].left, 0);
    }
    if (calls) *took = timed(nr, args);
    else sleep_for(*took);
    returned = now();
    if (!(freezes ? await_looks() : await_left())) largest = -1;
    for (int i = 0; i < thread_count && largest >= 0; i++) {
        /* A thread that has left before the call returned counts as 0. */
        int64_t value = freezes ? atomic_load(&seen[i].worst) : atomic_load(&seen[i].left) - returned;
        if (value > seen[i].largest[calls]) seen[i].largest[calls] = value;
        if (value > largest) largest = value;
    }
    /* In "last", wait until all threads sleep again. */
    if (is("last")) sleep_for(1000000 + 20000LL * thread_count);
    return largest;
}

static void print_all(const char *word, const int64_t *values, long count) {
    fputs(word, stdout);
    for (long i = 0; i < count; i++) printf(" %lld", (long long)values[i]);
    putchar('\n');
}

/* Measures what the other threads see of the calls. */
static void watch_threads(int64_t budget, long most) {
    long nr, args[3], count = 0, controlled = 0, unseen = 0;
    int64_t took, over;
    int has_control = is("freeze") || is("freeze-busy");
    chosen_call(&nr, args);
    printf("first %lld\n", (long long)timed(nr, args));
    sleep_for(SHORTEST_PERIOD);
    window(1, &took, nr, args);
    for (int i = 0; i < thread_count; i++) seen[i].largest[0] = seen[i].largest[1] = 0;
    over = now() + budget;
    do {
        int64_t value = window(1, &took, nr, args);
        if (value >= 0) samples[count++] = value;
        else unseen++;
        if (has_control && (value = window(0, &took, nr, args)) >= 0) controls[controlled++] = value;
    } while (count < most && count < MOST_SAMPLES && now() < over);
    if (count == 0) skip("the threads did not see the calls");
    print_all("ns", samples, count);
    if (controlled > 0) print_all("control", controls, controlled);
    for (int calls = 1; calls >= 0; calls--) {
        if (!calls && !has_control) break;
        for (int i = 0; i < thread_count; i++) samples[i] = seen[i].largest[calls];
        print_all(calls ? "threads" : "control_threads", samples, thread_count);
    }
    printf("failed %ld\nunseen %ld\n", failed, unseen);
}

static int is_watched(void) {
    return is("freeze") || is("freeze-busy") || is("last") || is("last-busy");
}

/* Creates a ruleset that forbids only the creation of block devices. It has no effect on this program. */
static int ruleset(void) {
    struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
    int made = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (made < 0) skip("this kernel has no Landlock");
    return made;
}

static void count_changed(void) {
    int changed = 0, all = 0;
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    while (tasks != NULL && (task = readdir(tasks)) != NULL) {
        char path[300], line[200];
        int matches = 0;
        FILE *status;
        unsigned id;
        unsigned long long permitted;
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        status = fopen(path, "re");
        if (status == NULL) continue;
        all++;
        while (fgets(line, sizeof line, status) != NULL) {
            if (sscanf(line, "Uid: %u", &id) == 1 || sscanf(line, "Gid: %u", &id) == 1) matches += id == NOBODY;
            if (sscanf(line, "CapPrm: %llx", &permitted) == 1) matches += permitted == 0;
            if (sscanf(line, "NoNewPrivs: %u", &id) == 1) matches += id == 1;
        }
        fclose(status);
        changed += matches == 4;
    }
    printf("changed %d %d\n", changed, all);
}

static void drop(void) {
    int landlock = ruleset();
    struct rusage before, after;
    int64_t start, took;
    int error;
    getrusage(RUSAGE_SELF, &before);
    start = now();
    error = drop_privileges(call_name, landlock);
    took = now() - start;
    getrusage(RUSAGE_SELF, &after);
    if (error == ENOSYS) skip("the engine cannot drop privileges in this way");
    printf("ns %lld\nfailed %d\n", (long long)took, error != 0);
    printf("usage %lld %ld %ld\n", (long long)(cpu(&after) - cpu(&before)), after.ru_nvcsw - before.ru_nvcsw,
           after.ru_nivcsw - before.ru_nivcsw);
    count_changed();
}

int main(int argc, char **argv) {
    const char *why;
    if (argc != 6) {
        fprintf(stderr, "usage: %s SCENARIO CALL THREADS MILLISECONDS CALLS\n", argv[0]);
        return 2;
    }
    scenario = argv[1];
    call_name = argv[2];
    thread_count = atoi(argv[3]);
    /* If the driver dies, this program must not continue to compute. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (is("drop") && geteuid() != 0) skip("only root has privileges to drop");
    if (is("fail") && strcmp(call_name, "setresuid") == 0) give_up_setuid();
    if (is("fifo-pair")) stay_on_one_cpu();
    start_threads();
    why = prepare(call_name);
    if (why != NULL) skip(why);
    start_company();
    if (is("drop")) drop();
    else if (is_watched()) watch_threads(atol(argv[4]) * 1000000LL, atol(argv[5]));
    else measure(atol(argv[4]) * 1000000LL, atol(argv[5]));
    printf("peak %ld\n", peak());
    fflush(stdout);
    _exit(0);
}
