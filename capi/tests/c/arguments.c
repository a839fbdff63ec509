/* Tests how psx_syscall() passes its arguments to the kernel: as the variadic call of the original's header, and
   (compiled with -DOURS) as this library's header does. */
#include "threads.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifdef OURS
#include <sys/psx_syscall.h>
#else
#include "original.h"
#endif

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_IS_SET 1
#define PR_CAP_AMBIENT_RAISE 2
#endif

int main(void) {
    char from[8] = "seven", to[8] = "";
    struct iovec here = {to, sizeof to}, there = {from, sizeof from};
    int cap_chown = 0, none = 0;
    sleepers(2);

    /* No argument, and one. */
    CHECK(__psx_syscall(SYS_getpid, 6L, 5L, 4L, 3L, 2L, 1L, 0L) == getpid());
    CHECK(psx_syscall(SYS_getpgid, getpid()) == getpgid(0));
    CHECK(psx_syscall(SYS_getpgid, -1) == -1 && errno == ESRCH);

    /* Two arguments; the kernel requires the other three to be zero. */
    CHECK(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) == 0);
    CHECK(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 1) == -1 && errno == EINVAL);
    /* Three arguments, and then two. */
    CHECK(psx_syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap_chown) >= 0);
    /* Four arguments, then one, then five. */
    CHECK(psx_syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap_chown, 0) >= 0);
    CHECK(psx_syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap_chown, 1) == -1);
    CHECK(psx_syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap_chown, 0, 0) >= 0);
    CHECK(psx_syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap_chown, 0, 1) == -1);

    /* Five of six arguments, and then six. Some are pointers, and the last must be zero. */
    CHECK(psx_syscall(SYS_process_vm_readv, getpid(), &here, 1, &there, 1) == sizeof to);
    CHECK(strcmp(to, from) == 0);
    memset(to, 0, sizeof to);
    CHECK(psx_syscall(SYS_process_vm_readv, getpid(), &here, 1, &there, 1, none) == sizeof to);
    CHECK(strcmp(to, from) == 0);
    CHECK(psx_syscall(SYS_process_vm_readv, getpid(), &here, 1, &there, 1, 1) == -1 && errno == EINVAL);

    /* An invalid number of arguments. */
    CHECK(__psx_syscall(SYS_getpid, 0L, 0L, 0L, 0L, 0L, 0L, 7L) == -1 && errno == EINVAL);
    CHECK(__psx_syscall(SYS_getpid, 0L, 0L, 0L, 0L, 0L, 0L, -1L) == -1 && errno == EINVAL);
    puts("as given");
    return 0;
}
