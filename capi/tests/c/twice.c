/* twice LIBRARY COPY: uses two copies of the library in one process, in turn and at the same time. */
#include "threads.h"

#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

typedef long (*call)(long, long, long, long);

static volatile int stop;

static call load(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    CHECK(library != NULL);
    return (call)dlsym(library, "psx_syscall3");
}

static void *all_the_time(void *copy) {
    long calls = 0;
    while (!stop) {
        CHECK(((call)copy)(SYS_prctl, PR_SET_KEEPCAPS, 1, 0) == 0);
        calls++;
    }
    return (void *)calls;
}

/* Returns whether /proc shows this timer slack for every thread. */
static int all_slack(long value) {
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    char path[300];
    long slack;
    int others = 0;
    CHECK(tasks != NULL);
    while ((task = readdir(tasks)) != NULL) {
        FILE *file;
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%s/timerslack_ns", task->d_name);
        file = fopen(path, "r");
        CHECK(file != NULL && fscanf(file, "%ld", &slack) == 1);
        fclose(file);
        others += slack != value;
    }
    closedir(tasks);
    return others == 0;
}

int main(int argc, char **argv) {
    call one, two;
    pthread_t thread;
    void *calls;
    int i;
    CHECK(argc > 2);
    one = load(argv[1]);
    two = load(argv[2]);
    CHECK(one != NULL && two != NULL && one != two);
    sleepers(4);
    for (i = 1; i <= 50; i++) {
        CHECK(one(SYS_prctl, PR_SET_TIMERSLACK, 1000 + i, 0) == 0);
        CHECK(all_slack(1000 + i));
        CHECK(two(SYS_prctl, PR_SET_TIMERSLACK, 2000 + i, 0) == 0);
        CHECK(all_slack(2000 + i));
    }
    CHECK(pthread_create(&thread, NULL, all_the_time, (void *)two) == 0);
    for (i = 1; i <= 200; i++) {
        CHECK(one(SYS_prctl, PR_SET_TIMERSLACK, 3000 + i, 0) == 0);
        CHECK(all_slack(3000 + i));
    }
    stop = 1;
    CHECK(pthread_join(thread, &calls) == 0);
    printf("200 calls of one beside %ld of the other\n", (long)calls);
    return 0;
}
