/* A minimal program: however it was linked, the call reaches its threads. */
#include "threads.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/psx_syscall.h>
#include <sys/syscall.h>

int main(void) {
    sleepers(3);
    CHECK(all_have("NoNewPrivs", "0", 4));
    errno = 77;
    CHECK(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) == 0);
    CHECK(errno == 77);
    CHECK(all_have("NoNewPrivs", "1", 4));
    puts("all 4");
    return 0;
}
