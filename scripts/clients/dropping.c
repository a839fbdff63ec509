/* dropping STEP: a program with threads drops a privilege through libcap. It prints the states that /proc then shows
   for its threads, and the number of threads in each state. */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/wait.h>
#include <unistd.h>

static void *sleep_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

/* Reads the lines of a status file that contain the privileges of the thread. */
static void state_of(const char *tid, char *state, size_t size) {
    static const char *const fields[] = {"Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:"};
    char path[300], line[1000];
    FILE *status;
    size_t i;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", tid);
    status = fopen(path, "r");
    if (status == NULL) exit(3);
    *state = 0;
    while (fgets(line, sizeof line, status) != NULL) {
        for (i = 0; i < sizeof fields / sizeof *fields; i++) {
            if (strncmp(line, fields[i], strlen(fields[i])) != 0) continue;
            line[strcspn(line, "\n")] = ';';
            strncat(state, line, size - strlen(state) - 1);
        }
    }
    fclose(status);
}

static void show(void) {
    static char states[16][2000];
    int counts[16] = {0}, known = 0, i;
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    if (tasks == NULL) exit(3);
    while ((task = readdir(tasks)) != NULL) {
        char state[2000];
        if (task->d_name[0] == '.') continue;
        state_of(task->d_name, state, sizeof state);
        for (i = 0; i < known && strcmp(states[i], state) != 0; i++) continue;
        if (i == known && known < 16) strcpy(states[known++], state);
        counts[i]++;
    }
    for (i = 0; i < known; i++) {
        char *c;
        for (c = states[i]; *c != 0; c++) {
            if (*c == '\t') *c = ' ';
        }
        printf("%d: %s\n", counts[i], states[i]);
    }
}

static void check(int result, const char *what) {
    if (result == 0) return;
    perror(what);
    exit(2);
}

int main(int argc, char **argv) {
    const char *step = argc > 1 ? argv[1] : "";
    const gid_t groups[] = {7, 8};
    pthread_t thread;
    int i;
    for (i = 0; i < 4; i++) check(pthread_create(&thread, NULL, sleep_for_ever, NULL), "pthread_create");
    if (strcmp(step, "nothing") == 0) {
    } else if (strcmp(step, "cap_set_proc") == 0) {
        check(cap_set_proc(cap_from_text("cap_chown,cap_kill=ep cap_kill-e")), step);
    } else if (strcmp(step, "cap_setuid") == 0) {
        check(cap_setuid(1234), step);
    } else if (strcmp(step, "cap_setgroups") == 0) {
        check(cap_setgroups(99, 2, groups), step);
    } else if (strcmp(step, "cap_set_mode") == 0) {
        check(cap_set_mode(CAP_MODE_NOPRIV), step);
    } else if (strcmp(step, "cap_iab_set_proc") == 0) {
        check(cap_iab_set_proc(cap_iab_from_text("^cap_chown,!%cap_kill,!cap_net_raw")), step);
    } else if (strcmp(step, "cap_launch") == 0) {
        const char *const args[] = {"sh", "-c", "while read -r key ids; do test $key != Uid: || case $ids in 1234*) exit 0;; esac; done </proc/self/status; exit 7", NULL};
        cap_launch_t launcher = cap_new_launcher("/usr/bin/sh", args, NULL);
        int status = -1;
        pid_t child;
        cap_launcher_setuid(launcher, 1234);
        child = cap_launch(launcher, NULL);
        check(child <= 0 || waitpid(child, &status, 0) != child, step);
        printf("child: %d\n", status);
    } else {
        return 2;
    }
    show();
    fflush(stdout);
    _exit(0);
}
