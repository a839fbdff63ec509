// landlocked [alone]: go-landlock denies this process the directory /etc. Threads of C and of Go report whether they
// can still read it. With "alone", the program makes the system calls in one thread only, without package psx.
package main

/*
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

static int asked[2], answered[2];

static void *thread(void *unused) {
	char byte;
	while (read(asked[0], &byte, 1) == 1) {
		int file = open("/etc/passwd", O_RDONLY);
		byte = file >= 0;
		close(file);
		if (write(answered[1], &byte, 1) != 1) break;
	}
	return unused;
}

static int start(void) {
	pthread_t made;
	return pipe(asked) || pipe(answered) || pthread_create(&made, NULL, thread, NULL);
}

// Returns whether the thread of C, which was created before, can open the file.
static int can_open(void) {
	char byte = 0;
	if (write(asked[1], &byte, 1) != 1 || read(answered[0], &byte, 1) != 1) return -1;
	return byte;
}
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
)

func fail(why any) {
	fmt.Println(why)
	os.Exit(1)
}

// readers starts goroutines that are locked to a thread and report whether they can open the file.
func readers(count int) (chan<- bool, <-chan bool) {
	ask, answer := make(chan bool), make(chan bool)
	ready := make(chan bool)
	for range count {
		go func() {
			runtime.LockOSThread()
			ready <- true
			for range ask {
				file, err := syscall.Open("/etc/passwd", syscall.O_RDONLY, 0)
				syscall.Close(file)
				answer <- err == nil
			}
		}()
	}
	for range count {
		<-ready
	}
	return ask, answer
}

// alone does what go-landlock does, but only in the calling thread.
func alone() error {
	const handled = uint64(1 << 2) // LANDLOCK_ACCESS_FS_READ_FILE
	attribute := handled
	ruleset, _, errno := syscall.RawSyscall(444, uintptr(unsafe.Pointer(&attribute)), 8, 0)
	if errno != 0 {
		return errno
	}
	if _, _, errno = syscall.RawSyscall6(syscall.SYS_PRCTL, 38, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	if _, _, errno = syscall.RawSyscall(446, ruleset, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func main() {
	runtime.LockOSThread()
	const count = 4
	if C.start() != 0 {
		fail("no thread of C")
	}
	ask, answer := readers(count)
	can := func() int {
		able := int(C.can_open())
		for range count {
			ask <- true
			if <-answer {
				able++
			}
		}
		return able
	}
	if able := can(); able != count+1 {
		fail(fmt.Sprintf("only %d threads could read the file before", able))
	}
	if len(os.Args) > 1 && os.Args[1] == "alone" {
		if err := alone(); err != nil {
			fail(err)
		}
	} else if err := landlock.V1.BestEffort().RestrictPaths(landlock.RODirs("/proc")); err != nil {
		fail(err)
	}
	if _, err := os.ReadFile("/etc/passwd"); err == nil {
		fail("the calling thread is not restricted")
	}
	fmt.Printf("%d of %d other threads can\n", can(), count+1)
}
