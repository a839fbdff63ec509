// churn: threads of Go and of C are created and end, compute, and take signals, while every call through package psx
// reaches all of them. The program checks the result in /proc, outside the package.
package main

/*
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_int over;

static void *nothing(void *unused) {
	return unused;
}

// A thread of C that creates other threads, one after the other.
static void *maker(void *unused) {
	pthread_t thread;
	while (!over) {
		if (pthread_create(&thread, NULL, nothing, NULL) == 0) pthread_join(thread, NULL);
	}
	return unused;
}

static void *sleeper(void *unused) {
	for (;;) pause();
	return unused;
}

static int start(int makers, int sleepers) {
	pthread_t thread;
	int failed = 0;
	while (makers-- > 0) failed |= pthread_create(&thread, NULL, maker, NULL);
	while (sleepers-- > 0) failed |= pthread_create(&thread, NULL, sleeper, NULL);
	return failed;
}

static void stop(void) {
	over = 1;
}
*/
import "C"

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"kernel.org/pub/linux/libs/security/libcap/psx"
)

func fail(format string, arguments ...any) {
	fmt.Printf(format+"\n", arguments...)
	os.Exit(1)
}

// count returns the number of threads, and the number of threads that have this line in their status.
func count(line string) (all, having int) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		fail("%v", err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		// The thread has ended or is ending, and executes nothing more.
		if err != nil || strings.Contains(string(status), "State:\tZ") || strings.Contains(string(status), "State:\tX") {
			continue
		}
		all++
		if strings.Contains(string(status), "\n"+line+"\n") {
			having++
		}
	}
	return all, having
}

func main() {
	if C.start(2, 4) != 0 {
		fail("pthread_create")
	}
	var over atomic.Bool
	var died, computed, caught atomic.Int64
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			caught.Add(1)
		}
	}()
	for range 2 {
		go func() {
			for !over.Load() {
				computed.Add(1)
			}
		}()
		go func() {
			for !over.Load() {
				done := make(chan bool)
				// The thread ends with the goroutine that is locked to it.
				go func() {
					runtime.LockOSThread()
					died.Add(1)
					close(done)
				}()
				<-done
				syscall.Kill(os.Getpid(), syscall.SIGUSR1)
			}
		}()
	}
	filter := []syscall.SockFilter{{Code: 6, K: 0x7fff0000}}
	program := syscall.SockFprog{Len: 1, Filter: &filter[0]}
	const setNoNewPrivs, setSeccomp, modeFilter = 38, 22, 2
	if _, _, errno := psx.Syscall6(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
		fail("no_new_privs: %v", errno)
	}
	// Each thread counts its filters. All threads must have the same number.
	most := 0
	for calls := 1; calls <= 100; calls++ {
		if errno := install(setSeccomp, modeFilter, &program); errno != 0 {
			fail("call %d: %v", calls, errno)
		}
		all, having := count(fmt.Sprintf("Seccomp_filters:\t%d", calls))
		if all != having {
			fail("call %d: %d of %d threads", calls, having, all)
		}
		most = max(most, all)
	}
	over.Store(true)
	C.stop()
	if died.Load() == 0 || computed.Load() == 0 || caught.Load() == 0 {
		fail("no thread ran beside the calls")
	}
	fmt.Printf("100 calls, up to %d threads, %d died, %d signals\n", most, died.Load(), caught.Load())
}
