/* engine.h: what an engine in C tells bench.c, and what it may know. */
#ifndef ENGINE_H
#define ENGINE_H

#include <stdatomic.h>
#include <sys/types.h>

/* Performs a call on every thread. Returns 0, or an error number. The engines whose call is not a matter of
   choice get nr = 0. */
int perform(long nr, const long args[3]);

/* What an engine need not have. */

/* Before the first call, and once all threads are there: returns NULL, or why it cannot be done here. `call` is the
   name from the command line. */
const char *prepare(const char *call);
/* The six calls of a drop of privileges, in the way that is named. Returns 0, or an error number. */
int drop_privileges(const char *way, int ruleset);
/* How many calls a process can make. */
extern long most_calls;
/* What a thread does that has nothing to do; it never returns. */
void rest(void);

/* The threads that were started, without the calling one, and those that come and go. */
extern int thread_count;
extern pid_t *tids;

/* A handler with everything blocked. */
void handle(int signal, void (*handler)(int));

void futex_wait(_Atomic unsigned *word, unsigned seen);
void futex_wake(_Atomic unsigned *word);

#endif
