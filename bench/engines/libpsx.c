/* libpsx.c: C's libpsx. A drop is six of its calls ("six"), or glibc's calls and libpsx for the rest ("mixed").
   Programs
   that only need libpsx for the rest use the second way. */
#define _GNU_SOURCE
#include "engine.h"
#include "drop.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/psx_syscall.h>
#include <unistd.h>

int perform(long nr, const long args[3]) {
    if (nr == 0) return ENOSYS;
    return psx_syscall3(nr, args[0], args[1], args[2]) >= 0 ? 0 : errno;
}

int drop_privileges(const char *way, int ruleset) {
    struct call calls[DROP];
    int i = 0;
    the_drop(calls, ruleset);
    if (strcmp(way, "mixed") == 0) {
        if (setgroups(0, NULL) != 0) return errno;
        if (setresgid(NOBODY, NOBODY, NOBODY) != 0) return errno;
        if (setresuid(NOBODY, NOBODY, NOBODY) != 0) return errno;
        i = 3;
    } else if (strcmp(way, "six") != 0) {
        return ENOSYS;
    }
    for (; i < DROP; i++) {
        const long *args = calls[i].args;
        if (psx_syscall6(calls[i].nr, args[0], args[1], args[2], args[3], args[4], 0) < 0) return errno;
    }
    return 0;
}
