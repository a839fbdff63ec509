/* P12: in a process of one thread, a call costs five plain system calls, itself included, and leaves no handler. */
#include "promises.h"
#include <sys/ptrace.h>

static void handler_left_alone(void) {
    CHECK(no_new_privs() == 0);
    struct raw_action now;
    memset(&now, 0, sizeof now);
    CHECK(RAW(SYS_rt_sigaction, SIGNAL, 0, &now, 8) == 0);
    if (now.handler != SIG_DFL) wrong("%s", "a handler for signal 33 is installed");
    CHECK(own("NoNewPrivs") == 1);
}

/* A tracer counts the system calls between two calls of getppid. */
static void traced_child(int calls_before) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    for (int i = 0; i < calls_before; i++) no_new_privs();
    RAW(SYS_getppid);
    no_new_privs();
    RAW(SYS_getppid);
    RAW(SYS_exit_group, 0);
}
static void count(int calls_before) {
    int status, marks = 0, calls = 0, entering = 1;
    pid_t pid = fork();
    if (pid == 0) traced_child(calls_before);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFSTOPPED(status)) skipped("%s", "the child cannot be traced here");
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    while (marks < 2) {
        struct __ptrace_syscall_info call;
        CHECK(ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0);
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFSTOPPED(status)) wrong("the child: %s", ending(status));
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
        if (entering) {
            CHECK(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, &call) > 0);
            CHECK(call.op == PTRACE_SYSCALL_INFO_ENTRY);
            if (call.entry.nr == SYS_getppid) marks++;
            else if (marks == 1) calls++;
        }
        entering = !entering;
    }
    kill(pid, SIGKILL);
    if (calls > 5) wrong("%d system calls for one", calls);
    ok(": %d system calls", calls);
}
static void first_call(void) { count(0); }
static void later_call(void) { count(1); }

CASES({"handler", "signal 33 after a call", handler_left_alone},
      {"first_call", "system calls that the first call makes", first_call},
      {"later_call", "system calls that a later call makes", later_call})
