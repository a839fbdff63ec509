/* The interface of the original's header, as programs were compiled with it. */
#ifndef ORIGINAL_H
#define ORIGINAL_H

long int __psx_syscall(long int, ...);
#define psx_syscall(nr, ...) __psx_syscall(nr, __VA_ARGS__, 6L, 5L, 4L, 3L, 2L, 1L, 0L)

#endif
