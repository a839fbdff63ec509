// A library for programs in C and Rust: goroutines that allocate, and a garbage collector that runs all the time.
package main

import "C"

import (
	"runtime"
	"sync"
	"syscall"
)

const workers = 4

var (
	ask  = make(chan bool)
	able = make(chan bool)
	keep [workers][]byte
)

// Start starts the goroutines. Each has a thread of its own.
//
//export Start
func Start() C.int {
	var ready sync.WaitGroup
	ready.Add(workers)
	for worker := range workers {
		go func() {
			runtime.LockOSThread()
			ready.Done()
			for {
				select {
				case <-ask:
					able <- attempt()
				default:
					keep[worker] = make([]byte, 1<<16)
				}
			}
		}()
	}
	go func() {
		for {
			runtime.GC()
		}
	}()
	ready.Wait()
	return workers
}

// Collections returns how often the collector has run.
//
//export Collections
func Collections() C.int {
	var statistics runtime.MemStats
	runtime.ReadMemStats(&statistics)
	return C.int(statistics.NumGC)
}

// Attempts returns how many of the threads could become root again.
//
//export Attempts
func Attempts() C.int {
	count := C.int(0)
	for range workers {
		ask <- true
		if <-able {
			count++
		}
	}
	return count
}

// attempt asks the kernel, in this thread alone.
func attempt() bool {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETUID, 0, 0, 0)
	return errno == 0
}

func main() {}
