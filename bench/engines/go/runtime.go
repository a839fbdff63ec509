package main

import "syscall"

func perform(nr, a, b, c uintptr) syscall.Errno {
	_, _, e := syscall.AllThreadsSyscall(nr, a, b, c)
	return e
}
