//! The situations that are hard, and what a process of nine threads does before it calls.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::UID;
use super::engines::Engine;
use super::traps::{BLOCK, SELECTOR, dispatch, emulate, handle_traps, refuse, trap};

/// How a Go program gets into the situation.
pub(super) enum Go {
    /// The situation is not possible for a Go program.
    Never,
    /// The set-up survives exec(2), so it is made before the Go program is started.
    Inherits,
    /// The Go program makes the set-up itself. This is its argument.
    Argument(&'static CStr),
}

pub(super) struct Situation {
    pub(super) name: &'static str,
    /// What a process of nine threads does before it calls.
    pub(super) set_up: fn(&Engine),
    pub(super) go: Go,
    /// The number of calls. If there are several, the row shows how long the longest took.
    pub(super) calls: u32,
}

pub(super) const EASY: Situation = Situation { name: "", set_up: |_| {}, go: Go::Never, calls: 1 };

pub(super) const SITUATIONS: [Situation; 12] = [
    Situation {
        name: "a thread blocks every signal",
        go: Go::Argument(c"blocks"),
        set_up: |_| {
            std::thread::spawn(|| {
                block_all();
                forever();
            });
            settle();
        },
        ..EASY
    },
    Situation {
        name: "the signal queue is full (`RLIMIT_SIGPENDING`)",
        go: Go::Inherits,
        set_up: |_| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the kernel reads the limit.
            unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) };
        },
        ..EASY
    },
    Situation {
        name: "no /proc (empty chroot)",
        go: Go::Inherits,
        set_up: |_| {
            let path = std::env::temp_dir().join("psx-empty");
            std::fs::create_dir_all(&path).expect("a directory");
            std::os::unix::fs::chroot(&path).expect("root");
        },
        ..EASY
    },
    Situation { name: "the /proc of an outer PID namespace", go: Go::Inherits, ..EASY },
    Situation { name: "a thread made by raw clone(2)", set_up: |_| raw_thread(), ..EASY },
    Situation {
        name: "another thread calls glibc's `setresuid` in a loop",
        calls: 100,
        set_up: |_| {
            std::thread::spawn(|| {
                loop {
                    // SAFETY: -1 leaves every id unchanged.
                    unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) };
                }
            });
            settle();
        },
        ..EASY
    },
    Situation {
        name: "another caller was killed in its call (seccomp filter)",
        go: Go::Argument(c"killed"),
        set_up: |engine| {
            let call = engine.call;
            std::thread::spawn(move || {
                refuse(UID + 1, libc::SECCOMP_RET_KILL_THREAD);
                let _ = call(UID + 1);
            });
            settle();
        },
        ..EASY
    },
    Situation {
        name: "two `SCHED_FIFO` threads compute on the caller's CPU",
        go: Go::Argument(c"fifo"),
        set_up: |_| {
            pin();
            let (sender, tids) = std::sync::mpsc::channel();
            for _ in 0..2 {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    // SAFETY: gettid touches no memory.
                    sender.send(unsafe { libc::gettid() }).expect("a receiver");
                    compute();
                });
            }
            tids.iter().take(2).for_each(make_real_time);
        },
        ..EASY
    },
    Situation {
        name: "a thread under Syscall User Dispatch, with a handler that emulates its calls",
        set_up: |_| {
            handle_traps(emulate::<false>);
            std::thread::spawn(|| {
                dispatch();
                loop {
                    SELECTOR.store(BLOCK, Ordering::Relaxed);
                }
            });
            settle();
        },
        ..EASY
    },
    Situation {
        name: "a filter traps `gettid` and `futex` of a thread, with a handler that emulates them",
        set_up: |_| {
            handle_traps(emulate::<true>);
            std::thread::spawn(|| {
                trap();
                compute();
            });
            settle();
        },
        ..EASY
    },
    Situation {
        name: "a thread waits for pages that another one serves by userfaultfd, 30 ms a page",
        go: Go::Argument(c"pages"),
        calls: 10,
        set_up: |_| serve_pages(),
    },
    Situation {
        name: "a thread's result differs while standard error is a full pipe, strictest setting",
        go: Go::Argument(c"pipe"),
        set_up: |engine| {
            (engine.be_strict)();
            std::thread::spawn(|| {
                refuse(UID, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
                forever();
            });
            settle();
            fill_standard_error();
        },
        ..EASY
    },
];

pub(super) fn sleepers(count: usize) {
    for _ in 0..count {
        std::thread::spawn(forever);
    }
}

pub(super) fn forever() {
    loop {
        std::thread::park();
    }
}

pub(super) fn compute() {
    loop {
        std::hint::spin_loop();
    }
}

pub(super) fn block_all() {
    let all = !0u64;
    let set = libc::SIG_SETMASK;
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, set, &raw const all, 0usize, 8usize) };
}

/// Waits until a new thread has certainly reached its loop. Only the table depends on it.
pub(super) fn settle() {
    std::thread::sleep(Duration::from_millis(200));
}

/// Pins the calling thread, and the threads that it creates from now on, to its present CPU.
pub(super) fn pin() {
    // SAFETY: sched_getcpu takes no argument.
    let cpu = unsafe { libc::sched_getcpu() };
    // SAFETY: zero is an empty set of CPUs.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel's CPU number is within the set.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    // SAFETY: the kernel reads the set.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    assert_eq!(done, 0, "sched_setaffinity");
}

pub(super) fn make_real_time(tid: i32) {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: the kernel reads the priority.
    let done = unsafe { libc::sched_setscheduler(tid, libc::SCHED_FIFO, &priority) };
    assert_eq!(done, 0, "sched_setscheduler");
}

pub(super) const PAGE: usize = 4096;
/// More pages than are read while a process of the table lives.
pub(super) const PAGES: usize = 4000;
pub(super) const A_PAGE: Duration = Duration::from_millis(30);

/// Starts a thread that waits in read(2) for one page after the other, and a thread that serves
/// them.
pub(super) fn serve_pages() {
    #[repr(C)]
    struct Api(u64, u64, u64);
    #[repr(C)]
    struct Register(u64, u64, u64, u64);
    #[repr(C)]
    struct Copy(u64, u64, u64, u64, i64);
    const UFFD_API: u64 = 0xaa;
    const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
    const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
    const UFFDIO_COPY: libc::Ioctl = 0xc028_aa03;
    const MODE_MISSING: u64 = 1;
    static SERVED: AtomicBool = AtomicBool::new(false);

    // SAFETY: the call takes no pointer.
    let faults = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } as c_int;
    assert!(faults >= 0, "userfaultfd");
    // SAFETY: the kernel reads and writes the structure.
    unsafe { libc::ioctl(faults, UFFDIO_API, &mut Api(UFFD_API, 0, 0)) };
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses the address.
    let area = unsafe { libc::mmap(std::ptr::null_mut(), PAGES * PAGE, access, flags, -1, 0) };
    assert_ne!(area, libc::MAP_FAILED);
    let area = area as u64;
    let mut range = Register(area, (PAGES * PAGE) as u64, MODE_MISSING, 0);
    // SAFETY: the kernel reads and writes the structure.
    let done = unsafe { libc::ioctl(faults, UFFDIO_REGISTER, &mut range) };
    assert_eq!(done, 0, "UFFDIO_REGISTER");
    std::thread::spawn(move || {
        let zeros = [0u8; PAGE];
        loop {
            // A message of 32 bytes; the address of a fault is its third word.
            let mut message = [0u64; 4];
            // SAFETY: the kernel writes the message.
            if unsafe { libc::read(faults, message.as_mut_ptr().cast(), 32) } != 32 {
                continue;
            }
            SERVED.store(true, Ordering::Relaxed);
            std::thread::sleep(A_PAGE);
            let (to, length) = (message[2] & !(PAGE as u64 - 1), PAGE as u64);
            let mut copy = Copy(to, zeros.as_ptr() as u64, length, 0, 0);
            // SAFETY: the page belongs to the area, and the kernel reads a page of zeros.
            unsafe { libc::ioctl(faults, UFFDIO_COPY, &mut copy) };
        }
    });
    std::thread::spawn(move || {
        let zeros = File::open("/dev/zero").expect("/dev/zero");
        for page in 0..PAGES {
            let to = (area as usize + page * PAGE) as *mut c_void;
            // SAFETY: the kernel writes into the page, which is mapped.
            unsafe { libc::read(zeros.as_raw_fd(), to, 8) };
        }
        forever();
    });
    while !SERVED.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Makes standard error a pipe that has no room. Its reading end stays open in this process.
pub(super) fn fill_standard_error() {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    let done = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
    assert_eq!(done, 0, "pipe2");
    // SAFETY: the descriptor is open, and only this File owns it.
    let mut full = unsafe { File::from_raw_fd(ends[1]) };
    while full.write(&[0; PAGE]).is_ok() {}
    // SAFETY: the descriptor is open; a write waits again from now on.
    unsafe { libc::fcntl(full.as_raw_fd(), libc::F_SETFL, 0) };
    // SAFETY: both descriptors are open.
    unsafe { libc::dup2(full.as_raw_fd(), 2) };
}

/// Creates a thread that no library knows.
pub(super) fn raw_thread() {
    extern "C" fn sleep(_: *mut c_void) -> i32 {
        loop {
            // SAFETY: pause touches no memory but errno.
            unsafe { libc::syscall(libc::SYS_pause) };
        }
    }
    let stack = Vec::leak(vec![0u128; 4096]);
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    // SAFETY: the stack lives for ever, and the thread stays in its loop.
    let tid = unsafe { libc::clone(sleep, top.cast(), flags, std::ptr::null_mut()) };
    assert!(tid > 0);
}
