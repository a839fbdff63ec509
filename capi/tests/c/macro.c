/* psx_syscall() evaluates each argument exactly once. */
#include "threads.h"

#include <sys/psx_syscall.h>
#include <sys/syscall.h>

static int evaluated[7];
static long once(int which, long value) {
    evaluated[which]++;
    return value;
}

static void all_once(int count) {
    int i;
    for (i = 0; i < 7; i++) {
        CHECK(evaluated[i] == (i < count));
        evaluated[i] = 0;
    }
}

#define NR once(0, SYS_getpid)

int main(void) {
    sleepers(1);
    CHECK(psx_syscall(NR) == getpid());
    all_once(1);
    CHECK(psx_syscall(NR, once(1, 1)) == getpid());
    all_once(2);
    CHECK(psx_syscall(NR, once(1, 1), once(2, 2)) == getpid());
    all_once(3);
    CHECK(psx_syscall(NR, once(1, 1), once(2, 2), once(3, 3)) == getpid());
    all_once(4);
    CHECK(psx_syscall(NR, once(1, 1), once(2, 2), once(3, 3), once(4, 4)) == getpid());
    all_once(5);
    CHECK(psx_syscall(NR, once(1, 1), once(2, 2), once(3, 3), once(4, 4), once(5, 5)) == getpid());
    all_once(6);
    CHECK(psx_syscall(NR, once(1, 1), once(2, 2), once(3, 3), once(4, 4), once(5, 5), once(6, 6)) == getpid());
    all_once(7);
    puts("once each");
    return 0;
}
