package main

import (
	"syscall"

	"kernel.org/pub/linux/libs/security/libcap/psx"
)

func perform(nr, a, b, c uintptr) syscall.Errno {
	// With three arguments, prctl(2) would read undefined values in the other arguments.
	_, _, e := psx.Syscall6(nr, a, b, c, 0, 0, 0)
	return e
}
