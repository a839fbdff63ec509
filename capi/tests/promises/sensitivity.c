/* Tests what happens if a result differs: a thread without capabilities cannot change its ids. */
#include "promises.h"

static atomic_long *new_id_seen, *ran_on;
static void *lags(void *unused) {
    drop_own_capabilities();
    threads_begun++;
    for (;;)
        if (*new_id_seen) *ran_on += 1;
    return unused;
}
static void *sees(void *unused) {
    threads_begun++;
    while (uid_here() == 0) {}
    *new_id_seen = 1;
    return sleeper(unused);
}
static void divergent_threads(void) {
    new_id_seen = shared_memory(4096);
    ran_on = new_id_seen + 1;
    thread(lags, NULL);
    thread(sees, NULL);
    raw_threads(2, 0, NULL, raw_sleeper);
    await(4);
}

/* Collects what `body` writes to standard error, and returns how the child ended. */
static char written[4096];
static int observed(void (*body)(void)) {
    need_root();
    int ends[2];
    CHECK(pipe(ends) == 0);
    fflush(stderr);
    int before = dup(2);
    dup2(ends[1], 2);
    int status = in_child(body);
    dup2(before, 2);
    close(ends[1]);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    ssize_t n = read(ends[0], written, sizeof written - 1);
    written[n > 0 ? n : 0] = 0;
    return status;
}
static int lines(void) {
    int count = 0;
    for (char *at = written; (at = strchr(at, '\n')) != NULL; at++) count++;
    return count;
}

static void call_and_check(void) {
    int all;
    divergent_threads();
    CHECK(set_uid(1001) == 0);
    CHECK(lacking("Uid", "1001", &all) == 1);
    CHECK(all == 5);
}
static void by_default(void) {
    int status = observed(call_and_check);
    CHECK(status == 0);
    CHECK(written[0] == 0);
}
static void warned(void) {
    CHECK(psx_set_sensitivity(PSX_WARNING) == 0);
    call_and_check();
}
static void warning(void) {
    int status = observed(warned);
    CHECK(status == 0);
    CHECK(written[0] != 0);
    char number[16];
    snprintf(number, sizeof number, "%ld", (long)ID_CALL(setresuid));
    CHECK(strstr(written, number) != NULL || strstr(written, "setresuid") != NULL);
    CHECK(strstr(written, "1001") != NULL || strstr(written, "3e9") != NULL);
    ok(": %d line%s", lines(), lines() == 1 ? "" : "s");
}
static void error_level(void) {
    CHECK(psx_set_sensitivity(PSX_ERROR) == 0);
    divergent_threads();
    set_uid(1001);
    RAW(SYS_exit_group, 3);
}
static void error(void) {
    int status = observed(error_level);
    CHECK(WIFSIGNALED(status));
    CHECK(written[0] != 0);
    ok(": killed by signal %d", WTERMSIG(status));
}
/* The same test. The process that is killed shares two numbers with this process. */
static atomic_long *numbers;
static void error_level_shared(void) {
    CHECK(psx_set_sensitivity(PSX_ERROR) == 0);
    new_id_seen = numbers;
    ran_on = numbers + 1;
    thread(lags, NULL);
    for (int i = 0; i < 3; i++) thread(sees, NULL);
    await(4);
    set_uid(1001);
    RAW(SYS_exit_group, 3);
}
static void error_before_they_go_on(void) {
    numbers = shared_memory(4096);
    for (int n = 0; n < 50; n++) {
        numbers[0] = numbers[1] = 0;
        int status = observed(error_level_shared);
        CHECK(WIFSIGNALED(status));
        if (numbers[1] > 0) wrong("%s", "a thread continued in the old state after another had the new state");
    }
}
static void agreement(void) {
    need_root();
    sleepers(4);
    CHECK(psx_set_sensitivity(PSX_ERROR) == 0);
    CHECK(set_uid(1001) == 0);
    all_have("Uid", 1001);
}

CASES({"ignore", "the default: success, and no output", by_default},
      {"warning", "PSX_WARNING: success, and the call is named on standard error", warning},
      {"error", "PSX_ERROR: the process is killed", error},
      {"error_before_they_go_on", "PSX_ERROR: the process is killed before a differing thread continues",
       error_before_they_go_on},
      {"agreement", "PSX_ERROR, and all results agree", agreement})
