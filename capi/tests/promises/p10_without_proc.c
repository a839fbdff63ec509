/* P10: every thread is covered if /proc cannot be used. Each thread reports its own id. */
#include "promises.h"
#include <sys/mount.h>

#define WITNESSES 8
static atomic_int round_, answers;
static atomic_long ids[WITNESSES];
static void *witness(void *number) {
    threads_begun++;
    for (int seen = 0;;) {
        while (round_ == seen) RAW(SYS_futex, &round_, 0, seen, 0);
        seen++;
        ids[(long)number] = uid_here();
        answers++;
    }
    return NULL;
}
static void witnesses(void) {
    for (long i = 0; i < WITNESSES; i++) thread(witness, (void *)i);
    await(WITNESSES);
}
/*
 * If no file of /proc can be read, the library asks the kernel for each possible tid: once before the threads are
 * held, and twice while they are held. An emulated CPU cannot do that before the library's deadline of 10 seconds, and
 * the call then fails with ETIMEDOUT. So it may on 32-bit x86, where `int $0x80` takes four times as long as syscall.
 */
static void skip_if_too_slow(void) {
    enum { TIDS = 1 << 22, ASKED = TIDS / 32, TIMES = 3 };
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (long tid = 1; tid <= ASKED; tid++) RAW(SYS_tgkill, getpid(), TIDS - tid, 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    double seconds = after.tv_sec - before.tv_sec + (after.tv_nsec - before.tv_nsec) / 1e9;
    seconds *= TIDS / ASKED * TIMES;
    /* The machine may have been slower a moment ago. */
    if (seconds > 8) skipped("to ask for each tid %d times takes %.0f s, and the deadline is 10 s", TIMES, seconds);
}
static void check(long result, long wanted) {
    int error = errno, old = uid_here() != wanted;
    answers = 0;
    round_++;
    RAW(SYS_futex, &round_, 1, WITNESSES);
    while (answers < WITNESSES) sched_yield();
    for (int i = 0; i < WITNESSES; i++) old += ids[i] != wanted;
    if (result == -1 && error == ETIMEDOUT && old == WITNESSES + 1) skip_if_too_slow();
    if (result != 0 || old != 0)
        wrong("result %ld, errno %d, and %d of %d threads are unchanged", result, error, old, WITNESSES + 1);
}

static void enter_empty_root(void) {
    char path[] = "/tmp/promises-XXXXXX";
    CHECK(mkdtemp(path) != NULL);
    CHECK(chdir(path) == 0 && rmdir(path) == 0);
    /* The directory has been removed, so that no file can be created in it. */
    CHECK(chroot(".") == 0);
}

static void chroot_first_call(void) {
    need_root();
    witnesses();
    enter_empty_root();
    check(set_uid(1001), 1001);
}
static void chroot_later(void) {
    need_root();
    witnesses();
    check(set_uid(1001), 1001);
    enter_empty_root();
    check(set_uid(1002), 1002);
}
static void chroot_and_drop(void) {
    need_root();
    witnesses();
    enter_empty_root();
    check(psx_syscall3(ID_CALL(setresuid), 1001, 1002, 1003), 1001);
    /* The process has no capabilities now. */
    check(psx_syscall3(ID_CALL(setresuid), 1002, -1, -1), 1002);
}

static void unmounted(void) {
    need_root();
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        skipped("unshare: errno %d", errno);
    if (umount2("/proc", MNT_DETACH) != 0) skipped("umount: errno %d", errno);
    witnesses();
    check(set_uid(1001), 1001);
}

static void in_inner_namespace(void) {
    witnesses();
    check(set_uid(1001), 1001);
    check(set_uid(1002), 1002);
}
static void outer_namespace(void) {
    need_root();
    if (unshare(CLONE_NEWPID) != 0) skipped("unshare: errno %d", errno);
    int status = in_child(in_inner_namespace);
    if (status != 0) wrong("the init process of the namespace: %s", ending(status));
}

static void no_descriptors(void) {
    need_root();
    witnesses();
    check(set_uid(1001), 1001);
    struct rlimit none = {0, 0};
    getrlimit(RLIMIT_NOFILE, &none);
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    check(set_uid(1002), 1002);
}

CASES({"chroot_first_call", "an empty root directory before the first call", chroot_first_call},
      {"chroot_later", "an empty root directory after the first call", chroot_later},
      {"chroot_and_drop", "an empty root directory, and no privilege any more", chroot_and_drop},
      {"unmounted", "/proc is not mounted", unmounted},
      {"outer_namespace", "/proc is that of an outer PID namespace", outer_namespace},
      {"no_descriptors", "no descriptor is free (RLIMIT_NOFILE 0)", no_descriptors})
