// For LD_PRELOAD into qemu-user: keeps the emulator from starting a thread of its own ("call_rcu"), which lists itself in
// /proc/self/task, never takes the program's signals, and so makes every broadcast fail. The first thread that a qemu
// starts is that one, from a constructor; all later ones belong to the program. Memory that the emulator would give back
// in that thread is not given back.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

typedef void *body(void *);

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, body *start, void *argument) {
    static body *own;
    int (*create)(pthread_t *, const pthread_attr_t *, body *, void *) = dlsym(RTLD_NEXT, "pthread_create");
    if (own == NULL)
        own = start;
    if (start != own)
        return create(thread, attributes, start, argument);
    *thread = pthread_self();
    return 0;
}
