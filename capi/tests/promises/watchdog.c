/*
 * watchdog SECONDS PROGRAM ARGUMENT...
 * Runs one case in its own process group and prints one line: the result that the case printed, `killed by signal N`
 * or `hangs`. Then kills the rest of the group. PSX_WATCHDOG_FACTOR multiplies the seconds.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Returns the time limit in milliseconds. */
static int limit(const char *seconds) {
    const char *text = getenv("PSX_WATCHDOG_FACTOR");
    double factor = text ? atof(text) : 1, limit = atof(seconds) * 1000 * factor;
    if (!(factor > 0)) {
        fprintf(stderr, "PSX_WATCHDOG_FACTOR=%s: not a positive number\n", text);
        exit(2);
    }
    return limit < 1e9 ? (int)limit : 1000000000;
}

int main(int argc, char **argv) {
    int said[2], status;
    char text[1024];
    if (argc < 3 || pipe(said) != 0) return 2;
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        dup2(said[1], 1);
        close(said[0]);
        close(said[1]);
        execv(argv[2], argv + 2);
        _exit(127);
    }
    setpgid(child, child);
    close(said[1]);
    struct pollfd ended = {(int)syscall(SYS_pidfd_open, child, 0), POLLIN, 0};
    if (ended.fd < 0) return 2;
    int hangs = poll(&ended, 1, limit(argv[1])) == 0;
    kill(-child, SIGKILL);
    if (waitpid(child, &status, 0) != child) return 2;
    /* A process that still has the other end is killed or cannot be reached. Do not wait for it. */
    struct pollfd readable = {said[0], POLLIN, 0};
    ssize_t n = poll(&readable, 1, 0) == 1 ? read(said[0], text, sizeof text - 1) : 0;
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    if (hangs) puts("hangs");
    else if (WIFSIGNALED(status)) printf("killed by signal %d\n", WTERMSIG(status));
    else if (text[0] == 0) printf("wrong: exit code %d, and no output\n", WEXITSTATUS(status));
    else puts(text);
    return 0;
}
