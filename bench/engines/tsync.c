/* tsync.c: calls that the kernel itself performs for all threads. It wakes none of them. Each call adds a filter or a
   domain, so a process can make only a few. */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A thread can be in at most 16 domains. */
long most_calls = 16;

enum { RESTRICT_SELF_TSYNC = 1 << 3, TSYNC_SINCE = 8 };

static int landlock, ruleset;

const char *prepare(const char *call) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    landlock = strcmp(call, "landlock") == 0;
    if (landlock) {
        struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
        if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < TSYNC_SINCE)
            return "this kernel has no Landlock ABI 8, which has LANDLOCK_RESTRICT_SELF_TSYNC (Linux 7.0)";
        ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    }
    return NULL;
}

int perform(long nr, const long args[3]) {
    static struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    static struct sock_fprog program = {.len = 1, .filter = &allow};
    long result;
    (void)args;
    if (nr != 0) return ENOSYS;
    if (landlock) result = syscall(SYS_landlock_restrict_self, ruleset, RESTRICT_SELF_TSYNC);
    else result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    /* TSYNC can also fail with the id of a thread. */
    return result == 0 ? 0 : result < 0 ? errno : EAGAIN;
}
