// The part of limits.rs that Go's AllThreadsSyscall can take: see there. With the argument "look",
// threads look for the old state; else one call, and what came of it.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const uid = 1234

func setresuid(id uintptr) error {
	if _, _, e := syscall.AllThreadsSyscall(syscall.SYS_SETRESUID, id, 0, 0); e != 0 {
		return e
	}
	return nil
}

// threads starts goroutines that have a thread each.
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

var highest, behind atomic.Int64

func look() {
	for {
		status, _ := os.ReadFile("/proc/self/status")
		_, ids, _ := strings.Cut(string(status), "Uid:\t")
		var id, own int64
		fmt.Sscan(ids, &id)
		seen := max(highest.Load(), id)
		r, _, _ := syscall.RawSyscall(syscall.SYS_GETUID, 0, 0, 0)
		own = int64(r)
		if own < seen {
			behind.Add(1)
		}
		for now := highest.Load(); max(own, seen) > now && !highest.CompareAndSwap(now, max(own, seen)); {
			now = highest.Load()
		}
	}
}

func init() { runtime.LockOSThread() }

func main() {
	pid, _ := os.Readlink("/proc/self")
	fmt.Println(pid)
	if len(os.Args) > 1 && os.Args[1] == "look" {
		threads(2, look)
		threads(200, asleep)
		threads(2, look)
		for id := uintptr(uid); id < uid+100; id++ {
			if e := setresuid(id); e != nil {
				fmt.Println("error:", e)
			}
		}
		fmt.Println(behind.Load(), "in 100 calls")
	} else {
		threads(8, asleep)
		if e := setresuid(uid); e != nil {
			fmt.Println("error:", e)
		} else {
			fmt.Println("Ok")
		}
	}
	asleep()
}
