/* libc.c: setresuid(2) of the C library, which acts on the process: glibc's setxid, musl's __synccall. */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

int perform(long nr, const long args[3]) {
    if (nr != SYS_setresuid) return ENOSYS;
    return setresuid(args[0], args[1], args[2]) == 0 ? 0 : errno;
}
