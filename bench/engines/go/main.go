// The program around an engine in Go. It has the command line, the scenarios and the output of bench.c, which documents
// them. Its threads are goroutines that are locked to a thread. Go has a few more threads, which its calls reach too.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	nobody       = 65534
	refused      = 4242
	mostSamples  = 100000
	setKeepCaps  = 8
	noNewPrivs   = 38
	capabilities = 0x20080522
	setuid       = 1 << 7
	createSet    = 444
	restrictSelf = 446
	makeBlock    = 1 << 11
	fifo         = 1
	endless      = 20
)

var (
	scenario, callName string
	born               atomic.Int64
	failed             int
)

type header struct {
	version uint32
	pid     int32
}

type sets struct{ effective, permitted, inheritable uint32 }

// Memory that a call's pointers point to. It must not be on a stack, because Go may move a stack.
var (
	capHeader = header{version: capabilities}
	capSets   [2]sets
)

func skip(why string) {
	fmt.Println("SKIPPED", why)
	os.Exit(0)
}

func compute() {
	n := 0
	for {
		n++
		if n < 0 {
			return
		}
	}
}

func asleep() { select {} }

// start starts threads. No thread begins before all of them exist.
func start(count int, body func(int)) {
	var ready = make(chan bool)
	begin := make(chan bool)
	for i := 0; i < count; i++ {
		go func() {
			runtime.LockOSThread()
			ready <- true
			<-begin
			body(i)
		}()
		<-ready
	}
	close(begin)
}

func comeAndGo(int) {
	over := make(chan bool)
	for {
		go func() {
			// If a goroutine ends while it is locked to its thread, the thread ends too.
			runtime.LockOSThread()
			born.Add(1)
			over <- true
		}()
		<-over
	}
}

func realTime(int) {
	priority := int32(1)
	_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, fifo, uintptr(unsafe.Pointer(&priority)))
	if e != 0 {
		skip("SCHED_FIFO needs CAP_SYS_NICE")
	}
	if scenario == "fifo" {
		compute()
	}
	asleep()
}

func chosenCall() (nr, a, b, c uintptr) {
	fails := scenario == "fail"
	switch {
	case callName == "setresuid" && fails:
		return syscall.SYS_SETRESUID, refused, refused, refused
	case callName == "setresuid":
		return syscall.SYS_SETRESUID, ^uintptr(0), ^uintptr(0), ^uintptr(0)
	case callName == "prctl" && fails:
		return syscall.SYS_PRCTL, setKeepCaps, 2, 0
	case callName == "prctl":
		return syscall.SYS_PRCTL, setKeepCaps, 0, 0
	}
	skip("the engine does not have this call")
	return
}

func timed(nr, a, b, c uintptr) int64 {
	start := time.Now()
	e := perform(nr, a, b, c)
	took := time.Since(start).Nanoseconds()
	if (e != 0) != (scenario == "fail") {
		failed++
	}
	return took
}

func usage() (u syscall.Rusage) {
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return
}

func printUsage(before, after syscall.Rusage) {
	cpu := func(u syscall.Rusage) int64 { return u.Utime.Nano() + u.Stime.Nano() }
	fmt.Println("usage", cpu(after)-cpu(before), after.Nvcsw-before.Nvcsw, after.Nivcsw-before.Nivcsw)
}

func measure(budget time.Duration, most int) {
	nr, a, b, c := chosenCall()
	before := usage()
	first := timed(nr, a, b, c)
	fmt.Println("first", first)
	if time.Duration(first) < budget {
		timed(nr, a, b, c)
	}
	most = min(most, mostSamples)
	samples := make([]int64, most)
	for i := range samples {
		samples[i] = 0 // touches the pages before the measurement
	}
	count := 0
	if time.Duration(first) > endless*budget {
		samples[0] = first
		count = 1
	} else {
		before = usage()
		for over := time.Now().Add(budget); count == 0 || count < most && time.Now().Before(over); count++ {
			samples[count] = timed(nr, a, b, c)
		}
	}
	after := usage()
	var line strings.Builder
	for _, sample := range samples[:count] {
		fmt.Fprint(&line, " ", sample)
	}
	fmt.Println("ns" + line.String())
	fmt.Println("failed", failed)
	printUsage(before, after)
	fmt.Println("born", born.Load())
}

func status(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

func tasks() (tids []uintptr) {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		tids = append(tids, uintptr(tid))
	}
	return
}

func countChanged() {
	tasks, _ := os.ReadDir("/proc/self/task")
	changed := 0
	for _, task := range tasks {
		text := status("/proc/self/task/" + task.Name() + "/status")
		id := fmt.Sprint("\t", nobody)
		if strings.Contains(text, "\nUid:"+id) && strings.Contains(text, "\nGid:"+id) &&
			strings.Contains(text, "\nCapPrm:\t0000000000000000") && strings.Contains(text, "\nNoNewPrivs:\t1") {
			changed++
		}
	}
	fmt.Println("changed", changed, len(tasks))
}

func drop() {
	if callName != "six" {
		skip("the engine cannot drop privileges in this way")
	}
	handled := [1]uint64{makeBlock}
	ruleset, _, e := syscall.Syscall(createSet, uintptr(unsafe.Pointer(&handled)), 8, 0)
	if e != 0 {
		skip("this kernel has no Landlock")
	}
	capSets = [2]sets{}
	calls := [6][4]uintptr{
		{syscall.SYS_SETGROUPS, 0, 0, 0},
		{syscall.SYS_SETRESGID, nobody, nobody, nobody},
		{syscall.SYS_SETRESUID, nobody, nobody, nobody},
		{syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&capSets)), 0},
		{syscall.SYS_PRCTL, noNewPrivs, 1, 0},
		{restrictSelf, ruleset, 0, 0},
	}
	before := usage()
	start := time.Now()
	for _, call := range calls {
		if e := perform(call[0], call[1], call[2], call[3]); e != 0 {
			failed++
		}
	}
	took := time.Since(start).Nanoseconds()
	after := usage()
	fmt.Println("ns", took)
	fmt.Println("failed", failed)
	printUsage(before, after)
	countChanged()
}

func peak() (kilobytes int64) {
	_, rest, _ := strings.Cut(status("/proc/self/status"), "VmHWM:")
	fmt.Sscan(rest, &kilobytes)
	return
}

func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: SCENARIO CALL THREADS MILLISECONDS CALLS")
		os.Exit(2)
	}
	scenario, callName = os.Args[1], os.Args[2]
	threads, _ := strconv.Atoi(os.Args[3])
	milliseconds, _ := strconv.Atoi(os.Args[4])
	most, _ := strconv.Atoi(os.Args[5])
	// If the driver dies, this program must not continue to compute.
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	debug.SetMaxThreads(threads + 1000)
	debug.SetGCPercent(-1)
	if scenario == "drop" && os.Geteuid() != 0 {
		skip("only root has privileges to drop")
	}
	if scenario == "fail" && callName == "setresuid" {
		syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&capSets)), 0)
		capSets[0].effective &^= setuid
		if e := perform(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&capSets)), 0); e != 0 {
			skip("capset: " + e.Error())
		}
	}
	body := func(number int) {
		if scenario == "busy" || scenario == "half" && number%2 == 1 {
			compute()
		}
		asleep()
	}
	if scenario == "last-busy" {
		skip("a goroutine that computes cannot see that a handler has run")
	}
	if isWatched() {
		threadsSeen = make([]seen, threads)
		body = watched
	}
	// Otherwise Go would run only as many of them as there are CPUs, and the others would sleep.
	if scenario == "busy" || scenario == "half" || strings.HasPrefix(scenario, "fifo") || isWatched() {
		runtime.GOMAXPROCS(threads + 4)
	}
	if scenario == "fifo-pair" {
		stayOnOneCPU()
	}
	start(threads, body)
	switch scenario {
	case "fifo-pair":
		startPair()
	case "churn":
		start(2, comeAndGo)
	case "fifo", "fifos":
		if runtime.NumCPU() < 2 {
			skip("there is only one CPU, and the SCHED_FIFO thread would occupy it")
		}
		start(map[string]int{"fifo": 1, "fifos": runtime.NumCPU()}[scenario], realTime)
	}
	if scenario == "drop" {
		drop()
	} else if isWatched() {
		watchThreads(time.Duration(milliseconds)*time.Millisecond, most)
	} else {
		measure(time.Duration(milliseconds)*time.Millisecond, most)
	}
	fmt.Println("peak", peak()*1024)
}
