// The part of src/bin/limits for Go's AllThreadsSyscall: see its main.rs. Without the name of a situation, or with "call", the
// program makes one call and prints how it ended. With "look" and "children", it counts over many calls.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const uid = 1234

func setresuid(id uintptr) error {
	if _, _, e := syscall.AllThreadsSyscall(syscall.SYS_SETRESUID, id, 0, 0); e != 0 {
		return e
	}
	return nil
}

// must ends the program if a call of a set-up fails.
func must(what string, e syscall.Errno) {
	if e != 0 {
		fmt.Println("error:", what, e)
		os.Exit(1)
	}
}

// threads starts goroutines, each of which has a thread of its own.
func threads(count int, body func()) {
	ready := make(chan bool)
	for i := 0; i < count; i++ {
		go func() {
			runtime.LockOSThread()
			ready <- true
			body()
		}()
		<-ready
	}
}

func asleep() { time.Sleep(time.Hour) }

// settle waits until a new thread has certainly reached its loop. Only the table depends on it.
func settle() { time.Sleep(200 * time.Millisecond) }

var highest, behind atomic.Int64

func ownUID() int64 {
	id, _, _ := syscall.RawSyscall(syscall.SYS_GETUID, 0, 0, 0)
	return int64(id)
}

// callersUID returns the caller's real user id, as /proc shows it.
func callersUID() (id int64) {
	status, _ := os.ReadFile("/proc/self/status")
	_, ids, _ := strings.Cut(string(status), "Uid:\t")
	fmt.Sscan(ids, &id)
	return
}

func look() {
	for {
		seen := max(highest.Load(), callersUID())
		own := ownUID()
		if own < seen {
			behind.Add(1)
		}
		for now := highest.Load(); max(own, seen) > now && !highest.CompareAndSwap(now, max(own, seen)); {
			now = highest.Load()
		}
	}
}

const calls = 1000

var (
	left  *[calls]byte // shared with the children
	forks atomic.Bool
)

// publish publishes the thread's id each time that it leaves a handler.
func publish() {
	second := syscall.Timespec{Sec: 1}
	for {
		syscall.Syscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&second)), 0, 0)
		highest.Store(max(highest.Load(), ownUID()))
	}
}

// forkAlways forks in a loop. The child notes the call if it has the old id, although another thread had the new id
// before.
func forkAlways() {
	for {
		seen := max(callersUID(), highest.Load())
		child, _, e := syscall.RawSyscall(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0)
		if e == 0 && child == 0 {
			if call := seen - uid; call >= 0 && call < calls && ownUID() < seen {
				left[call] = 1
			}
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		must("clone", e)
		syscall.Wait4(int(child), nil, 0, nil)
		forks.Store(true)
	}
}

func count() string {
	memory, e := syscall.Mmap(-1, 0, calls, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANON)
	if e != nil {
		return fmt.Sprint("error: ", e)
	}
	left = (*[calls]byte)(memory)
	threads(4, publish)
	threads(1, forkAlways)
	threads(3, publish)
	for !forks.Load() {
		time.Sleep(time.Millisecond)
	}
	for id := uintptr(uid); id < uid+calls; id++ {
		if e := setresuid(id); e != nil {
			return fmt.Sprint("error: ", e)
		}
	}
	found := 0
	for _, old := range left {
		found += int(old)
	}
	return fmt.Sprint(found, " of ", calls, " calls")
}

func observed() string {
	threads(2, look)
	threads(200, asleep)
	threads(2, look)
	for id := uintptr(uid); id < uid+100; id++ {
		if e := setresuid(id); e != nil {
			return fmt.Sprint("error: ", e)
		}
	}
	return fmt.Sprint(behind.Load(), " in 100 calls")
}

func blockAll() {
	all := ^uint64(0)
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
	must("rt_sigprocmask", e)
	for {
		syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0)
	}
}

const (
	returnErrno = 0x50000
	killThread  = 0
)

// refuse installs a filter that answers setresuid(id, ...) of this thread with an action.
func refuse(id, action uint32) {
	type step struct {
		code   uint16
		jt, jf uint8
		k      uint32
	}
	const load, equal, ret, number, first = 0x20, 0x15, 0x06, 0, 16
	steps := [...]step{
		{load, 0, 0, number}, {equal, 0, 3, syscall.SYS_SETRESUID},
		{load, 0, 0, first}, {equal, 0, 1, id},
		{ret, 0, 0, action}, {ret, 0, 0, 0x7fff0000},
	}
	program := struct {
		length uint16
		steps  *step
	}{uint16(len(steps)), &steps[0]}
	const seccomp, setModeFilter = 317, 1
	_, _, e := syscall.RawSyscall(seccomp, setModeFilter, 0, uintptr(unsafe.Pointer(&program)))
	must("seccomp", e)
}

// The CPU of the caller and of the SCHED_FIFO threads.
const cpu = 1

func pin(cpu uintptr) {
	var set [16]uint64
	set[cpu/64] = 1 << (cpu % 64)
	_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
	must("sched_setaffinity", e)
}

// realTime starts two threads that compute, and makes them SCHED_FIFO.
func realTime() {
	tids := make(chan uintptr, 2)
	threads(2, func() {
		pin(cpu)
		tid, _, _ := syscall.RawSyscall(syscall.SYS_GETTID, 0, 0, 0)
		tids <- tid
		for i := 0; ; i++ {
		}
	})
	both := [...]uintptr{<-tids, <-tids}
	pin(cpu)
	for _, tid := range both {
		priority := int32(10)
		_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, tid, 1, uintptr(unsafe.Pointer(&priority)))
		must("sched_setscheduler", e)
	}
}

const (
	page  = 4096
	pages = 4000
)

// servePages starts a thread that waits in read(2) for one page after the other, and a thread that serves them.
func servePages() {
	const userfaultfd, api, register, copyPage = 323, 0xc018aa3f, 0xc020aa00, 0xc028aa03
	faults, _, e := syscall.RawSyscall(userfaultfd, syscall.O_CLOEXEC, 0, 0)
	must("userfaultfd", e)
	ioctl := func(request uintptr, argument unsafe.Pointer) {
		_, _, e := syscall.Syscall(syscall.SYS_IOCTL, faults, request, uintptr(argument))
		must("ioctl", e)
	}
	ioctl(api, unsafe.Pointer(&[3]uint64{0xaa}))
	area, err := syscall.Mmap(-1, 0, pages*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		must("mmap", err.(syscall.Errno))
	}
	ioctl(register, unsafe.Pointer(&[4]uint64{uint64(uintptr(unsafe.Pointer(&area[0]))), pages * page, 1, 0}))
	zeros := make([]byte, page)
	var served atomic.Bool
	threads(1, func() {
		for {
			var message [4]uint64
			syscall.Syscall(syscall.SYS_READ, faults, uintptr(unsafe.Pointer(&message)), 32)
			served.Store(true)
			time.Sleep(30 * time.Millisecond)
			ioctl(copyPage, unsafe.Pointer(&[5]uint64{message[2] &^ (page - 1), uint64(uintptr(unsafe.Pointer(&zeros[0]))), page}))
		}
	})
	threads(1, func() {
		zero, _ := syscall.Open("/dev/zero", syscall.O_RDONLY, 0)
		for i := 0; i < pages; i++ {
			syscall.Read(zero, area[i*page:i*page+8])
		}
		asleep()
	})
	for !served.Load() {
		time.Sleep(time.Millisecond)
	}
}

// fillStandardError makes standard error a pipe that has no room.
func fillStandardError() {
	var ends [2]int
	syscall.Pipe2(ends[:], syscall.O_NONBLOCK)
	for {
		if _, e := syscall.Write(ends[1], make([]byte, page)); e != nil {
			break
		}
	}
	syscall.SetNonblock(ends[1], false)
	syscall.Dup2(ends[1], 2)
}

// setUp brings the process into a situation, and returns how many calls are to be made in it.
func setUp(situation string) uintptr {
	switch situation {
	case "blocks":
		threads(1, blockAll)
	case "killed":
		threads(1, func() {
			refuse(uid+1, killThread)
			setresuid(uid + 1)
		})
	case "fifo":
		runtime.GOMAXPROCS(4)
		realTime()
		return 1
	case "pages":
		servePages()
		return 10
	case "pipe":
		threads(1, func() {
			refuse(uid, returnErrno|uint32(syscall.EPERM))
			asleep()
		})
		fillStandardError()
	default:
		return 1
	}
	settle()
	return 1
}

func outcome(situation string) string {
	threads(8, asleep)
	count := setUp(situation)
	var longest time.Duration
	for id := uid + 1 - count; id <= uid; id++ {
		start := time.Now()
		if e := setresuid(id); e != nil {
			return fmt.Sprint("error: ", e)
		}
		longest = max(longest, time.Since(start))
	}
	if count == 1 {
		return "Ok"
	}
	return fmt.Sprint("Ok, the longest of ", count, " calls took ", longest.Milliseconds(), " ms")
}

func init() { runtime.LockOSThread() }

func main() {
	pid, _ := os.Readlink("/proc/self")
	fmt.Println(pid)
	situation := "call"
	if len(os.Args) > 1 {
		situation = os.Args[1]
	}
	switch situation {
	case "look":
		fmt.Println(observed())
	case "children":
		fmt.Println(count())
	default:
		fmt.Println(outcome(situation))
	}
	asleep()
}
