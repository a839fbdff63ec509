/* P4: a thread may be stopped while it owns any lock of libc. The call waits for no such lock. */
#include "promises.h"
#include <dlfcn.h>
#include <malloc.h>

static void *allocates(void *unused) {
    threads_begun++;
    for (unsigned n = 0; !over; n++) {
        void *some = malloc(16 + n % 5000), *more = calloc(1, 100 + n % 70000);
        free(some);
        free(more);
    }
    return unused;
}
static void beside(int threads, void *(*body)(void *), int calls) {
    for (int i = 0; i < threads; i++) thread(body, NULL);
    await(threads);
    for (int n = 1; n <= calls; n++) CHECK(set_uid(1000 + n) == 0);
    all_have("Uid", 1000 + calls);
}
/* In a process that has not called yet, the library would still have to allocate everything. */
static void first_calls(void) {
    for (int i = 0; i < 8; i++) thread(allocates, NULL);
    await(8);
    sleepers(300);
    for (long id = 1001; id <= 1003; id++) CHECK(set_uid(id) == 0);
    all_have("Uid", 1003);
}
static void allocator(void) {
    need_root();
    mallopt(M_ARENA_MAX, 1);
    for (int n = 0; n < 20; n++) {
        int status = in_child(first_calls);
        if (status != 0) wrong("a child: %s", ending(status));
    }
}

static void *prints(void *unused) {
    threads_begun++;
    while (!over) fprintf(stderr, "%d %s\n", 1, "text");
    return unused;
}
static void stdio(void) {
    need_root();
    CHECK(freopen("/dev/null", "w", stderr) != NULL);
    beside(100, prints, 20);
}

/* The library has to print a warning while other threads own the lock of the stream. */
static void *prints_without_capabilities(void *unused) {
    drop_own_capabilities();
    return prints(unused);
}
static void stdio_divergence(void) {
    need_root();
    CHECK(freopen("/dev/null", "w", stderr) != NULL);
    CHECK(psx_set_sensitivity(PSX_WARNING) == 0);
    for (int i = 0; i < 20; i++) thread(i % 2 ? prints : prints_without_capabilities, NULL);
    await(20);
    for (int n = 1; n <= 100; n++) CHECK(set_uid(1000 + n) == 0);
    CHECK(own("Uid") == 1100);
}

static void *loads(void *unused) {
    threads_begun++;
    while (!over) {
        void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
        if (library != NULL) dlclose(library);
    }
    return unused;
}
static void loader(void) {
    need_root();
    beside(20, loads, 100);
}

/* The child of such a pthread_create blocks all signals and waits for the thread that creates it. */
static void *nothing(void *unused) { return unused; }
static void *makes_with_affinity(void *unused) {
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof cpus, &cpus);
    threads_begun++;
    while (!over) {
        pthread_attr_t attr;
        pthread_t made;
        pthread_attr_init(&attr);
        pthread_attr_setaffinity_np(&attr, sizeof cpus, &cpus);
        if (pthread_create(&made, &attr, nothing, NULL) == 0) pthread_join(made, NULL);
        pthread_attr_destroy(&attr);
    }
    return unused;
}
static void creation(void) {
    need_root();
    beside(4, makes_with_affinity, 200);
}

CASES({"allocator", "8 of 300 threads allocate from one arena; 20 times the first 3 calls", allocator},
      {"stdio", "100 threads print to standard error, 20 calls", stdio},
      {"stdio_divergence", "the same with PSX_WARNING and results that differ", stdio_divergence},
      {"loader", "20 threads in dlopen and dlclose, 100 calls", loader},
      {"creation", "4 threads in pthread_create with an affinity, 200 calls", creation})
