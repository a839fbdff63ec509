package main

import (
	"syscall"
	"unsafe"

	"kernel.org/pub/linux/libs/security/libcap/psx"
)

func install(option, mode uintptr, program *syscall.SockFprog) syscall.Errno {
	_, _, errno := psx.Syscall3(syscall.SYS_PRCTL, option, mode, uintptr(unsafe.Pointer(program)))
	return errno
}
