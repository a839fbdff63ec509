/* drop.h: the six calls of a drop of privileges. */
#ifndef DROP_H
#define DROP_H

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { DROP = 6, NOBODY = 65534 };

struct call {
    long nr, args[5];
};

static inline void the_drop(struct call calls[DROP], int ruleset) {
    static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    static struct __user_cap_data_struct none[2];
    calls[0] = (struct call){SYS_setgroups, {0}};
    calls[1] = (struct call){SYS_setresgid, {NOBODY, NOBODY, NOBODY}};
    calls[2] = (struct call){SYS_setresuid, {NOBODY, NOBODY, NOBODY}};
    calls[3] = (struct call){SYS_capset, {(long)&header, (long)none}};
    calls[4] = (struct call){SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1}};
    calls[5] = (struct call){SYS_landlock_restrict_self, {ruleset, 0}};
}

#endif
