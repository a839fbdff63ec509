/* Provides threads that sleep, and reads the kernel's view of every thread of the process. */
#ifndef THREADS_H
#define THREADS_H

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* If the condition is false, prints it and ends the program. */
#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition)) {                                                            \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                     \
            fflush(stdout);                                                            \
            _exit(1);                                                                  \
        }                                                                              \
    } while (0)

static inline void *sleep_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

static inline void sleepers(int count) {
    pthread_t thread;
    while (count-- > 0) CHECK(pthread_create(&thread, NULL, sleep_for_ever, NULL) == 0);
}

/* Counts the threads whose /proc/self/task/TID/status has exactly the line "FIELD:\tVALUE". */
static inline int threads_with(const char *field, const char *value, int *all) {
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    char path[300], line[512], wanted[512];
    int count = 0;
    CHECK(tasks != NULL);
    snprintf(wanted, sizeof wanted, "%s:\t%s\n", field, value);
    *all = 0;
    while ((task = readdir(tasks)) != NULL) {
        FILE *status;
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        status = fopen(path, "r");
        if (status == NULL) continue;
        *all += 1;
        while (fgets(line, sizeof line, status) != NULL) count += strcmp(line, wanted) == 0;
        fclose(status);
    }
    closedir(tasks);
    return count;
}

/* Returns whether there are `expected` threads and all of them have that line. */
static inline int all_have(const char *field, const char *value, int expected) {
    int all;
    int count = threads_with(field, value, &all);
    return all == expected && count == expected;
}

#endif
