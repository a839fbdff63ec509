// A daemon in Go that drops privileges by libpsx.so.2, through cgo.
//
// It shows that threads of Go's runtime and threads of C are changed together, which Go's own
// syscall.AllThreadsSyscall refuses in a program with cgo. Goroutines echo datagrams. Build and run:
//
//	capi/install --prefix=/usr/local
//	CGO_LDFLAGS=-lpsx go build -o daemon native/daemon.go && sudo ./daemon 7
//
// It ends with its input.
package main

/*
#include <pthread.h>
#include <sys/psx_syscall.h>
#include <unistd.h>

static void *sleep_for_ever(void *unused) {
	for (;;) pause();
	return unused;
}

static int start_a_thread_of_c(void) {
	pthread_t made;
	return pthread_create(&made, NULL, sleep_for_ever, NULL);
}
*/
import "C"

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

const nobody = 65534

// all performs a system call in every thread. The arguments are numbers.
func all(what string, number uintptr, arguments [3]uintptr) {
	result, err := C.psx_syscall3(
		C.long(number), C.long(arguments[0]), C.long(arguments[1]), C.long(arguments[2]))
	if result < 0 {
		fail(what, err)
	}
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	os.Exit(1)
}

func main() {
	port := "7"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	socket, err := net.ListenPacket("udp4", ":"+port)
	if err != nil {
		fail("listen", err)
	}
	if C.start_a_thread_of_c() != 0 {
		fail("pthread_create", syscall.EAGAIN)
	}
	for range 4 {
		go func() {
			data := make([]byte, 512)
			for {
				if length, from, err := socket.ReadFrom(data); err == nil {
					socket.WriteTo(data[:length], from)
				}
			}
		}()
	}

	const setNoNewPrivs = 38 // PR_SET_NO_NEW_PRIVS
	all("setgroups", syscall.SYS_SETGROUPS, [3]uintptr{0, 0, 0})
	all("setresgid", syscall.SYS_SETRESGID, [3]uintptr{nobody, nobody, nobody})
	all("setresuid", syscall.SYS_SETRESUID, [3]uintptr{nobody, nobody, nobody})
	all("no_new_privs", syscall.SYS_PRCTL, [3]uintptr{setNoNewPrivs, 1, 0})

	fmt.Println("dropped")
	io.Copy(io.Discard, os.Stdin)
}
