/* Tests the library in a program that is not linked with it. */
#include "promises.h"
#include <dlfcn.h>

typedef long (*call3)(long, long, long, long);

static void *library;
static call3 load(void) {
    library = dlopen("libpsx.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) wrong("%s", dlerror());
    call3 call = (call3)dlsym(library, "psx_syscall3");
    CHECK(call != NULL);
    return call;
}

static void loaded(void) {
    need_root();
    sleepers(4);
    CHECK(load()(ID_CALL(setresuid), 1001, -1, -1) == 0);
    all_have("Uid", 1001);
}

/* glibc's setresuid sends signal 33. The handler for it was in the unloaded library. */
static void after_dlclose(void) {
    need_root();
    sleepers(4);
    CHECK(load()(ID_CALL(setresuid), 1001, -1, -1) == 0);
    CHECK(dlclose(library) == 0);
    CHECK(setresuid(1002, -1, -1) == 0);
    all_have("Uid", 1002);
}
static void loaded_again(void) {
    need_root();
    sleepers(4);
    for (long id = 1001; id < 1011; id++) {
        CHECK(load()(ID_CALL(setresuid), id, -1, -1) == 0);
        all_have("Uid", id);
        CHECK(dlclose(library) == 0);
    }
}
static void fork_after_dlclose(void) {
    need_root();
    sleepers(4);
    CHECK(load()(ID_CALL(setresuid), 1001, -1, -1) == 0);
    CHECK(dlclose(library) == 0);
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status != 0) wrong("a child of fork: %s", ending(status));
}

CASES({"loaded", "by dlopen", loaded},
      {"after_dlclose", "glibc's setresuid after dlclose", after_dlclose},
      {"loaded_again", "dlopen and dlclose ten times", loaded_again},
      {"fork_after_dlclose", "a child of fork after dlclose", fork_after_dlclose})
