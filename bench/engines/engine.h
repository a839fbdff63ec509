/* engine.h: the functions that an engine in C provides for bench.c, and what it may use. */
#ifndef ENGINE_H
#define ENGINE_H

#include <stdatomic.h>
#include <sys/types.h>

/* Performs a call on every thread. Returns 0 or an error number. An engine that always makes the same call gets
   nr = 0. */
int perform(long nr, const long args[3]);

/* The rest of the engine's functions are optional. */

/* Called before the first call, when all threads exist. Returns NULL, or the reason why the engine cannot run here.
   `call` is the name from the command line. */
const char *prepare(const char *call);
/* Performs the six calls of a drop of privileges in the named way. Returns 0 or an error number. */
int drop_privileges(const char *way, int ruleset);
/* The maximum number of calls of a process. */
extern long most_calls;
/* What an idle thread does. The function never returns. */
void rest(void);

/* The threads that were started. The calling thread and the threads of "churn" are not included. */
extern int thread_count;
extern pid_t *tids;

/* Installs a handler that runs with all signals blocked. */
void handle(int signal, void (*handler)(int));

void futex_wait(_Atomic unsigned *word, unsigned seen);
void futex_wake(_Atomic unsigned *word);

#endif
