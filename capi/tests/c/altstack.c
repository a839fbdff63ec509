/* A thread has an alternate signal stack of AT_MINSIGSTKSZ bytes, the size of one signal frame, and an unmapped page
   below it. The call still works in that thread. */
#include "threads.h"

#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/psx_syscall.h>
#include <sys/syscall.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

static volatile int ready;

static void *small(void *none) {
    size_t size = getauxval(AT_MINSIGSTKSZ), page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (size + page - 1) / page * page;
    char *memory = mmap(NULL, page + room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t stack = {0};
    if (size == 0) size = MINSIGSTKSZ;
    CHECK(memory != MAP_FAILED && mprotect(memory + page, room, PROT_READ | PROT_WRITE) == 0);
    stack.ss_sp = memory + page;
    stack.ss_size = size;
    CHECK(sigaltstack(&stack, NULL) == 0);
    ready = 1;
    for (;;) pause();
    return none;
}

int main(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, small, NULL) == 0);
    while (!ready) usleep(1000);
    CHECK(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) == 0);
    CHECK(all_have("NoNewPrivs", "1", 2));
    puts("done on a small stack");
    return 0;
}
