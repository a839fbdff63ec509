// What the other threads see of calls: the scenarios freeze, freeze-busy and last of bench.c, in Go. There is no
// last-busy: Go's handlers run on a separate stack, so a goroutine that computes cannot see that one has run. This file
// also has the two SCHED_FIFO threads of fifo-pair.
package main

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	periodPerThread = 20 * time.Microsecond
	shortestPeriod  = 200 * time.Microsecond
	looksWithin     = 5 * time.Second
	timerSlack      = 29
)

// What a thread publishes about its reads of the clock.
type seen struct {
	worst   atomic.Int64
	left    atomic.Int64
	looks   atomic.Uint32
	before  uint32
	largest [2]int64
	_       [64]byte
}

var (
	threadsSeen []seen
	epoch       = time.Now()
)

func now() int64 { return int64(time.Since(epoch)) }

// sleep returns when the time is over, or when a handler has run.
func sleep(length time.Duration) {
	t := syscall.NsecToTimespec(int64(length))
	syscall.Syscall6(syscall.SYS_CLOCK_NANOSLEEP, 1, 0, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
}

func sleepUntil(due int64) {
	for left := due - now(); left > 0; left = due - now() {
		sleep(time.Duration(left))
	}
}

func (me *seen) look(value int64) {
	if value > me.worst.Load() {
		me.worst.Store(value)
	}
	me.looks.Add(1)
}

func period() int64 { return max(int64(periodPerThread)*int64(len(threadsSeen)), int64(shortestPeriod)) }

func (me *seen) wakeOften(number int) {
	syscall.RawSyscall(syscall.SYS_PRCTL, timerSlack, 1, 0)
	due := now() + period()/int64(len(threadsSeen))*int64(number)
	for {
		sleepUntil(due)
		t := now()
		me.look(t - due)
		for due <= t {
			due += period()
		}
	}
}

func (me *seen) lookAlways() {
	for before := now(); ; {
		t := now()
		me.look(t - before)
		before = t
	}
}

func (me *seen) sleepAndLook() {
	for {
		sleep(1000 * time.Second)
		me.left.Store(now())
	}
}

func isWatched() bool {
	return scenario == "freeze" || scenario == "freeze-busy" || scenario == "last" || scenario == "last-busy"
}

func watched(number int) {
	me := &threadsSeen[number]
	switch scenario {
	case "freeze":
		me.wakeOften(number)
	case "last":
		me.sleepAndLook()
	default:
		me.lookAlways()
	}
}

// await waits until `done` is true for every thread. It returns false if a thread is not done in time.
func await(done func(*seen) bool) bool {
	over := now() + int64(looksWithin)
	for i := range threadsSeen {
		for !done(&threadsSeen[i]) {
			if now() > over {
				return false
			}
			sleepUntil(now() + int64(shortestPeriod))
		}
	}
	return true
}

// window runs one window, with a call or as long as the last call took. It returns the sample, or -1 if there is none.
func window(calls int, took *int64, nr, a, b, c uintptr) (longest int64) {
	freezes := strings.HasPrefix(scenario, "freeze")
	for i := range threadsSeen {
		threadsSeen[i].worst.Store(0)
		threadsSeen[i].left.Store(0)
	}
	if calls == 1 {
		*took = timed(nr, a, b, c)
	} else {
		sleepUntil(now() + *took)
	}
	returned := now()
	for i := range threadsSeen {
		threadsSeen[i].before = threadsSeen[i].looks.Load()
	}
	all := await(func(one *seen) bool {
		if freezes {
			return one.looks.Load()-one.before >= 2
		}
		return one.left.Load() != 0
	})
	if !all {
		return -1
	}
	for i := range threadsSeen {
		one := &threadsSeen[i]
		value := one.left.Load() - returned
		if freezes {
			value = one.worst.Load()
		}
		one.largest[calls] = max(one.largest[calls], value)
		longest = max(longest, value)
	}
	// In "last", wait until all threads sleep again.
	if scenario == "last" {
		sleepUntil(now() + int64(time.Millisecond) + int64(periodPerThread)*int64(len(threadsSeen)))
	}
	return
}

func printAll(word string, values []int64) {
	var line strings.Builder
	for _, value := range values {
		fmt.Fprint(&line, " ", value)
	}
	fmt.Println(word + line.String())
}

func watchThreads(budget time.Duration, most int) {
	nr, a, b, c := chosenCall()
	var took int64
	hasControl := scenario != "last"
	fmt.Println("first", timed(nr, a, b, c))
	sleepUntil(now() + int64(shortestPeriod))
	window(1, &took, nr, a, b, c)
	for i := range threadsSeen {
		threadsSeen[i].largest = [2]int64{}
	}
	samples := make([]int64, 0, mostSamples)
	controls := make([]int64, 0, mostSamples)
	unseen := 0
	for over := now() + int64(budget); ; {
		if value := window(1, &took, nr, a, b, c); value >= 0 {
			samples = append(samples, value)
		} else {
			unseen++
		}
		if hasControl {
			if value := window(0, &took, nr, a, b, c); value >= 0 {
				controls = append(controls, value)
			}
		}
		if len(samples) >= min(most, mostSamples) || now() >= over {
			break
		}
	}
	if len(samples) == 0 {
		skip("the threads did not see the calls")
	}
	printAll("ns", samples)
	if len(controls) > 0 {
		printAll("control", controls)
	}
	for calls, word := range map[int]string{1: "threads", 0: "control_threads"} {
		if calls == 0 && !hasControl {
			continue
		}
		var values []int64
		for i := range threadsSeen {
			values = append(values, threadsSeen[i].largest[calls])
		}
		printAll(word, values)
	}
	fmt.Println("failed", failed)
	fmt.Println("unseen", unseen)
}

// stayOnOneCPU restricts all present threads, and the threads that they create, to the caller's CPU.
func stayOnOneCPU() {
	if runtime.NumCPU() < 2 {
		skip("there is only one CPU, and the SCHED_FIFO threads would occupy it")
	}
	var allowed, mask [128]uint64
	syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(allowed), uintptr(unsafe.Pointer(&allowed)))
	for i, bits := range allowed {
		if bits != 0 {
			mask[i] = bits & -bits
			break
		}
	}
	for _, task := range tasks() {
		_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, task, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
		if e != 0 {
			skip("sched_setaffinity: " + e.Error())
		}
	}
}

// startPair starts two threads that compute. They get their policy before they begin: the first one would keep the CPU
// from the second one.
func startPair() {
	tids, begin := make(chan uintptr), make(chan bool)
	for range 2 {
		go func() {
			runtime.LockOSThread()
			tid, _, _ := syscall.RawSyscall(syscall.SYS_GETTID, 0, 0, 0)
			tids <- tid
			<-begin
			compute()
		}()
	}
	for range 2 {
		priority := int32(1)
		_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, <-tids, fifo, uintptr(unsafe.Pointer(&priority)))
		if e != 0 {
			skip("SCHED_FIFO needs CAP_SYS_NICE")
		}
	}
	close(begin)
}
