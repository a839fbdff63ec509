/* late LIBRARY [SYMBOL]: loads the library into a program that already has threads, and unloads it again. SYMBOL is
   a function that sets no_new_privs. The default is psx_syscall3. */
#include "threads.h"

#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void privileges(const char *path, const char *symbol) {
    void *library = dlopen(path, RTLD_NOW);
    void *function;
    CHECK(library != NULL);
    function = dlsym(library, symbol != NULL ? symbol : "psx_syscall3");
    CHECK(function != NULL);
    if (symbol != NULL) {
        CHECK(((int (*)(void))function)() == 0);
    } else {
        long (*call)(long, long, long, long) = (long (*)(long, long, long, long))function;
        CHECK(call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0) == 0);
    }
    CHECK(dlclose(library) == 0);
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    sleepers(4);
    privileges(argv[1], argv[2]);
    CHECK(all_have("NoNewPrivs", "1", 5));
    /* The C library's own call on every thread uses the same signal. After it, this library makes one more call. */
    CHECK(setresuid(-1, -1, -1) == 0);
    privileges(argv[1], argv[2]);
    puts("still here");
    return 0;
}
