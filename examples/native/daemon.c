/*
 * A daemon in C that drops privileges by libcap, with libpsx.so.2 of this project.
 *
 * It shows that libcap needs no change. If it is linked with libpsx, its calls change every thread, running or not. Threads
 * echo datagrams; the daemon binds its port as root, becomes the user 65534, and keeps one capability. Build and run:
 *
 *     capi/install --prefix=/usr/local
 *     cc -o daemon native/daemon.c -lcap $(pkg-config --libs libpsx) -lpthread && sudo ./daemon 7
 *
 * It needs libcap's header (Debian: libcap-dev), and ends with its input.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <sys/psx_syscall.h>

enum { THREADS = 4, NOBODY = 65534 };

static void *echo(void *argument) {
    int to = *(int *)argument;
    char data[512];
    for (;;) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t size = recvfrom(to, data, sizeof data, 0, (struct sockaddr *)&from, &length);
        if (size >= 0) sendto(to, data, size, 0, (struct sockaddr *)&from, length);
    }
    return NULL;
}

static void check(long result, const char *what) {
    if (result == 0) return;
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    static int to;
    const gid_t none[1] = {0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    pthread_t thread;
    cap_t kept;
    int i;

    address.sin_port = htons(argc > 1 ? atoi(argv[1]) : 7);
    to = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    check(bind(to, (struct sockaddr *)&address, sizeof address), "bind");
    for (i = 0; i < THREADS; i++) check(pthread_create(&thread, NULL, echo, &to), "pthread_create");

    /* Each of these calls changes all threads, or fails and changes none. */
    check(cap_setgroups(NOBODY, 0, none), "cap_setgroups");
    check(cap_setuid(NOBODY), "cap_setuid");
    kept = cap_from_text("cap_net_raw=ep");
    check(kept == NULL || cap_set_proc(kept), "cap_set_proc");
    cap_free(kept);
    /* What libcap has no function for. */
    check(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");

    puts("dropped");
    fflush(stdout);
    while (getchar() != EOF) continue;
    return 0;
}
