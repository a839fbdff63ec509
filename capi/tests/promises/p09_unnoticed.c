/* P9: an interrupted thread notices nothing but the effects of any signal with SA_RESTART. */
#include "promises.h"
#include <inttypes.h>
#include <sys/socket.h>

#define CALLS 300
static atomic_int noticed;

static void many_calls(void) {
    for (long id = 1001; id <= 1000 + CALLS; id++) CHECK(set_uid(id) == 0);
}

static int pipe_ends[2], pair[2];
static atomic_int never;
static void *in_read(void *unused) {
    char byte;
    threads_begun++;
    if (RAW(SYS_read, pipe_ends[0], &byte, 1) < 0) noticed = SYS_read;
    return unused;
}
static void *in_recv(void *unused) {
    char byte;
    threads_begun++;
    if (RAW(SYS_recvfrom, pair[0], &byte, 1) < 0) noticed = SYS_recvfrom;
    return unused;
}
static void *in_futex(void *unused) {
    threads_begun++;
    RAW(SYS_futex, &never, 0, 0, 0);
    if (!over) noticed = SYS_futex;
    return unused;
}
static void *in_wait(void *unused) {
    pid_t pid = fork();
    if (pid == 0) for (;;) pause();
    threads_begun++;
    if (RAW(SYS_wait4, pid, 0, 0, 0) < 0) noticed = SYS_wait4;
    return unused;
}
static void blocked_calls(void) {
    need_root();
    CHECK(pipe(pipe_ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    thread(in_read, NULL);
    thread(in_recv, NULL);
    thread(in_futex, NULL);
    thread(in_wait, NULL);
    await(4);
    many_calls();
    if (noticed != 0) wrong("system call %d did not continue after the signal", noticed);
}

/* The call fails in a thread without capabilities. Tests whether that thread's errno changes. */
static void *keeps_errno(void *unused) {
    errno = 4321;
    threads_begun++;
    while (!over)
        if (errno != 4321) wrong("errno of another thread became %d", errno);
    return unused;
}
static void *keeps_errno_and_fails(void *unused) {
    drop_own_capabilities();
    return keeps_errno(unused);
}
static void errno_of_others(void) {
    need_root();
    for (int i = 0; i < 3; i++) thread(keeps_errno_and_fails, NULL);
    await(3);
    many_calls();
    over = 1;
    sleep_ms(20);
}
static void *has_raw_threads(void *unused) {
    raw_threads(3, 0, NULL, raw_without_capabilities);
    return keeps_errno(unused);
}
static void errno_shared(void) {
    need_root();
    thread(has_raw_threads, NULL);
    await(4);
    many_calls();
    over = 1;
    sleep_ms(20);
}
static void errno_of_caller(void) {
    need_root();
    thread(sleeps_without_capabilities, NULL);
    sleepers(3);
    errno = 4321;
    CHECK(no_new_privs() == 0);
    CHECK(errno == 4321);
    CHECK(set_uid(1001) == 0);
    CHECK(errno == 4321);
}

/* Only the first thread can close the descriptor. The others must not close a descriptor that got the same number. */
static void close_for_all(void) {
    sleepers(5);
    for (int n = 0; n < 300; n++) {
        int fd = dup(1);
        CHECK(psx_syscall3(SYS_close, fd, 0, 0) == 0);
        CHECK(fcntl(fd, F_GETFD) == -1);
    }
    CHECK(thread_count() == 6);
    CHECK(no_new_privs() == 0);
    all_have("NoNewPrivs", 1);
}

/* Counts the descriptors that a program inherits if another thread starts it during the calls. */
static atomic_int inherited;
static void *starts_programs(void *unused) {
    threads_begun++;
    while (!over) {
        pid_t pid = RAW(CALL_CLONE);
        if (pid == 0) {
            int open = 0;
            for (int fd = 3; fd < 64; fd++) {
                long flags = RAW(SYS_fcntl, fd, F_GETFD);
                open += flags >= 0 && !(flags & FD_CLOEXEC);
            }
            RAW(SYS_exit_group, open);
        }
        int status = 0;
        while (RAW(SYS_wait4, pid, &status) == -EINTR) {}
        if (status != 0) inherited++;
        noticed++;
    }
    return unused;
}
static void descriptors(void) {
    need_root();
    for (int fd = 3; fd < 64; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
    sleepers(10);
    thread(starts_programs, NULL);
    await(11);
    for (long id = 1001; noticed < 500; id = id % 60000 + 1) CHECK(set_uid(id) == 0);
    if (inherited > 0) wrong("%d of %d programs would inherit a descriptor of the library", inherited, noticed);
}

/* A thread with a small stack and an alternate signal stack, like the threads of Go. */
static void on_small_stack(void) {
    stack_t alternate = {.ss_sp = memory(64 << 10), .ss_size = 64 << 10};
    CHECK(RAW(SYS_sigaltstack, &alternate, 0) == 0);
    raw_sleeper();
}
static void small_stack(void) {
    need_root();
    sleepers(2);
    long page = sysconf(_SC_PAGESIZE);
    char *guarded = memory(2 * page);
    CHECK(mprotect(guarded, page, PROT_NONE) == 0);
    /* The rest of the page is smaller than the signal frame. */
    CHECK(raw_thread(THREAD_FLAGS, guarded + page + 1024, NULL, NULL, on_small_stack) > 0);
    await(3);
    many_calls();
    CHECK(thread_count() == 4);
    all_have("Uid", 1000 + CALLS);
}

static void *keeps_mask(void *unused) {
    uint64_t wanted = 0x5a5a5a00, before, now = 0;
    RAW(SYS_rt_sigprocmask, SIG_SETMASK, &wanted, 0, 8);
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &before, 8);
    threads_begun++;
    while (!over) {
        RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &now, 8);
        if (now != before) wrong("the signal mask became %" PRIx64, now);
    }
    return unused;
}
static void signal_masks(void) {
    need_root();
    for (int i = 0; i < 3; i++) thread(keeps_mask, NULL);
    await(3);
    uint64_t before = 0, after = 0;
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &before, 8);
    many_calls();
    RAW(SYS_rt_sigprocmask, SIG_BLOCK, 0, &after, 8);
    CHECK(before == after);
}

CASES({"blocked_calls", "threads in read, recv, futex and wait4; 300 calls", blocked_calls},
      {"errno_of_others", "the call fails in other pthreads: the errno of those threads", errno_of_others},
      {"errno_shared", "the call fails in raw threads that share a thread pointer: its errno", errno_shared},
      {"errno_of_caller", "errno of the caller after a success", errno_of_caller},
      {"close_for_all", "close of a descriptor, which only one thread can: no other descriptor is closed",
       close_for_all},
      {"descriptors", "programs started by another thread meanwhile: what they inherit", descriptors},
      {"small_stack", "a thread with 1 KiB of stack and an alternate stack", small_stack},
      {"signal_masks", "the signal masks of threads and caller", signal_masks})
