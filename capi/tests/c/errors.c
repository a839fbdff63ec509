/* Tests what errno and psx_strerror() report. */
#include "threads.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/psx_syscall.h>
#include <sys/syscall.h>

static char text[400];
static volatile pid_t deaf[2];
static pthread_barrier_t both;

static int says(const char *part) {
    size_t unreachable = psx_strerror(text, sizeof text, NULL, 0);
    if (strstr(text, part) == NULL) puts(text);
    return unreachable == 0 && strstr(text, part) != NULL;
}

static void *has_no_failure(void *unused) {
    CHECK(says("no recent failure"));
    return unused;
}

static void *fail_often(void *unused) {
    int i;
    for (i = 0; i < 8; i++) CHECK(psx_syscall(SYS_setuid, -1) == -1 && errno == EINVAL);
    return unused;
}

/* Blocks all signals by the system call. pthread_sigmask(3) does not let a program block signal 33. */
static void *block_everything(void *place) {
    unsigned long everything = ~0UL;
    CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &everything, NULL, 8) == 0);
    *(pid_t *)place = gettid();
    pthread_barrier_wait(&both);
    return sleep_for_ever(NULL);
}

int main(void) {
    pthread_t thread;
    pid_t tids[3] = {-7, -7, -7};
    CHECK(says("no recent failure"));
    sleepers(2);

    CHECK(psx_syscall(SYS_setuid, -1) == -1 && errno == EINVAL);
    CHECK(says("the kernel refused the call: EINVAL"));
    CHECK(psx_syscall(SYS_exit, 0) == -1 && errno == EINVAL);
    CHECK(says("the call is refused: it ends"));
    CHECK(psx_syscall(SYS_setgroups, 1, NULL) == -1 && errno == (geteuid() == 0 ? EFAULT : EPERM));
    CHECK(says(geteuid() == 0 ? "EFAULT (Bad address)" : "EPERM"));
    CHECK(pthread_create(&thread, NULL, has_no_failure, NULL) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(says(geteuid() == 0 ? "EFAULT" : "EPERM"));

    /* No room; room for the zero only; room for a part of the text. */
    strcpy(text, "untouched");
    psx_strerror(text, 0, NULL, 0);
    CHECK(strcmp(text, "untouched") == 0);
    psx_strerror(text, 1, NULL, 0);
    CHECK(strcmp(text, "") == 0 && text[1] == 'n');
    psx_strerror(text, 11, NULL, 0);
    CHECK(strcmp(text, "the kernel") == 0);
    CHECK(psx_strerror(NULL, 0, NULL, 0) == 0);
    CHECK(psx_strerror(NULL, 5, NULL, 5) == 0);

    /* Eight later failures replace this thread's failure. */
    CHECK(pthread_create(&thread, NULL, fail_often, NULL) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(says("no recent failure"));

    CHECK(psx_set_sensitivity((psx_sensitivity_t)3) == -1 && errno == EINVAL);
    CHECK(psx_set_sensitivity((psx_sensitivity_t)-1) == -1 && errno == EINVAL);
    CHECK(psx_set_sensitivity(PSX_WARNING) == 0 && psx_set_sensitivity(PSX_IGNORE) == 0);
    psx_load_syscalls(NULL, NULL);

    /* Threads that cannot be stopped. */
    pthread_barrier_init(&both, NULL, 3);
    CHECK(pthread_create(&thread, NULL, block_everything, (void *)&deaf[0]) == 0);
    CHECK(pthread_create(&thread, NULL, block_everything, (void *)&deaf[1]) == 0);
    pthread_barrier_wait(&both);
    CHECK(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) == -1 && errno == ETIMEDOUT);
    CHECK(all_have("NoNewPrivs", "0", 5));
    CHECK(psx_strerror(text, sizeof text, tids, 3) == 2);
    CHECK((tids[0] == deaf[0] && tids[1] == deaf[1]) || (tids[0] == deaf[1] && tids[1] == deaf[0]));
    CHECK(tids[2] == -7);
    CHECK(strstr(text, "2 threads could not be stopped within 10 s") != NULL);
    CHECK(strstr(text, "blocks signal 33") != NULL);
    CHECK(psx_strerror(NULL, 0, tids, 1) == 2);
    puts(text);
    fflush(stdout);
    _exit(0);
}
