/* causes CASE: tests a call for which a resource is missing, and a call that is made inside another call. */
#include "threads.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/psx_syscall.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* The number of threads. */
static int threads = 5;

static int says(const char *part) {
    char text[300];
    psx_strerror(text, sizeof text, NULL, 0);
    if (strstr(text, part) == NULL) puts(text);
    return strstr(text, part) != NULL;
}

/* Without the resource, the call fails and changes nothing. When the resource is back, the call succeeds. */
static void without(__rlimit_resource_t resource, rlim_t left, int error, const char *why) {
    struct rlimit before, none;
    long result;
    int number;
    CHECK(getrlimit(resource, &before) == 0);
    none = before;
    none.rlim_cur = left;
    CHECK(setrlimit(resource, &none) == 0);
    result = psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1);
    number = errno;
    CHECK(setrlimit(resource, &before) == 0);
    if (number != error) printf("errno %d\n", number);
    CHECK(result == -1 && number == error);
    CHECK(says(why));
    CHECK(all_have("NoNewPrivs", "0", threads));
    CHECK(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) == 0);
    CHECK(all_have("NoNewPrivs", "1", threads));
}

/* SIGSYS of a filter interrupts the call itself, and its handler makes another call. */
static volatile sig_atomic_t other_nice, handled, inner, inner_errno, explained;
static void on_sigsys(int signal) {
    (void)signal;
    handled++;
    inner = (int)psx_syscall(SYS_setpriority, PRIO_PROCESS, 0, other_nice);
    inner_errno = errno;
    explained = says("interrupted");
}
static void from_its_handler(void) {
    struct sock_filter traps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setfsuid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, traps};
    struct sigaction action;
    int nice;
    errno = 0;
    nice = getpriority(PRIO_PROCESS, 0);
    CHECK(errno == 0);
    other_nice = nice == 19 ? 18 : 19;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_sigsys;
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    psx_syscall(SYS_setfsuid, 5);
    CHECK(handled == 1);
    CHECK(inner == -1 && inner_errno == EDEADLK);
    CHECK(explained);
    errno = 0;
    CHECK(getpriority(PRIO_PROCESS, 0) == nice && errno == 0);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    /* A few threads require no new memory. */
    if (strcmp(argv[1], "ENOMEM") == 0) threads = 301;
    sleepers(threads - 1);
    if (strcmp(argv[1], "ENOMEM") == 0) without(RLIMIT_AS, 0, ENOMEM, "ENOMEM");
    else if (strcmp(argv[1], "EAGAIN") == 0) without(RLIMIT_SIGPENDING, 0, EAGAIN, "RLIMIT_SIGPENDING");
    else if (strcmp(argv[1], "EDEADLK") == 0) from_its_handler();
    else return 2;
    puts(argv[1]);
    return 0;
}
