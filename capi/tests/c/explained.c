/* psx_strerror() explains the most recent failure of the thread that calls it. */
#include "threads.h"

#include <errno.h>
#include <stdint.h>
#include <sys/psx_syscall.h>
#include <sys/syscall.h>

#define THREADS 4
#define ROUNDS 200000

static int says(const char *part) {
    char text[200];
    psx_strerror(text, sizeof text, NULL, 0);
    if (strstr(text, part) == NULL) puts(text);
    return strstr(text, part) != NULL;
}

/* Calls that fail, each for a different reason. */
static const struct {
    long nr;
    const char *why;
} failures[THREADS] = {
    {SYS_setuid, "EINVAL"}, {-1, "ENOSYS"}, {SYS_exit, "it ends"}, {SYS_close, "EBADF"}};

static pthread_barrier_t all;
static void *fails_and_asks(void *number) {
    const intptr_t i = (intptr_t)number;
    int round;
    CHECK(psx_syscall3(failures[i].nr, -1, 0, 0) == -1);
    pthread_barrier_wait(&all);
    for (round = 0; round < ROUNDS; round++) {
        errno = round;
        CHECK(says(failures[i].why));
        CHECK(errno == round);
    }
    return NULL;
}

/* Four threads ask at the same time. */
static void each_its_own(void) {
    pthread_t threads[THREADS];
    intptr_t i;
    pthread_barrier_init(&all, NULL, THREADS);
    for (i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, fails_and_asks, (void *)i) == 0);
    for (i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static int *errno_of_the_dead;
static void *fails_and_ends(void *unused) {
    errno_of_the_dead = &errno;
    CHECK(psx_syscall(SYS_setuid, -1) == -1 && says("EINVAL"));
    return unused;
}
static void *asks(void *again) {
    *(int *)again = &errno == errno_of_the_dead;
    CHECK(says("no recent failure"));
    return NULL;
}

/* A new thread gets the stack, and so the address of errno, of a thread that failed and has ended. */
static void not_its_predecessors(void) {
    pthread_t thread;
    int again = 0, tries;
    for (tries = 0; tries < 100 && !again; tries++) {
        CHECK(pthread_create(&thread, NULL, fails_and_ends, NULL) == 0 && pthread_join(thread, NULL) == 0);
        CHECK(pthread_create(&thread, NULL, asks, &again) == 0 && pthread_join(thread, NULL) == 0);
    }
    CHECK(again);
}

/* A call that these functions refuse themselves is a failure too, and replaces the earlier one. */
static void its_latest(void) {
    CHECK(psx_syscall(SYS_close, -1) == -1 && errno == EBADF && says("EBADF"));
    CHECK(__psx_syscall(SYS_getpid, 0L, 0L, 0L, 0L, 0L, 0L, 7L) == -1 && errno == EINVAL);
    CHECK(says("six arguments"));
    CHECK(psx_syscall(SYS_close, -1) == -1 && errno == EBADF && says("EBADF"));
    CHECK(psx_set_sensitivity((psx_sensitivity_t)3) == -1 && errno == EINVAL);
    CHECK(says("sensitivity"));
}

/* A huge buffer size works like a sufficient one. */
static void room_without_end(void) {
    char text[200];
    pid_t tid = -7;
    CHECK(psx_syscall(SYS_close, -1) == -1);
    CHECK(psx_strerror(text, (size_t)-1, &tid, (size_t)-1) == 0);
    CHECK(strstr(text, "EBADF") != NULL && tid == -7);
}

int main(void) {
    sleepers(2);
    its_latest();
    room_without_end();
    not_its_predecessors();
    each_its_own();
    puts("each its own");
    return 0;
}
