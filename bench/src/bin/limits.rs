//! Prints what libpsx, glibc's setresuid(2) and C's libpsx do in situations that are hard.
//!
//! Each cell of the table is a process of its own, with a watchdog. The process changes its real
//! user id by one of the engines, and the parent looks at the threads from outside. The loader
//! decides which `libpsx.so.2` is C's libpsx. The argument is the path of the program for Go's
//! column, which is built from bench/go. `scripts/limits` fetches both and runs this program.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_long, c_void};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const UID: u32 = 1234;
/// Longer than an engine needs that ends at all.
const HANGS: Duration = Duration::from_secs(8);
/// The same for the two rows that count over many calls.
const COUNTING_HANGS: Duration = Duration::from_secs(60);

struct Engine {
    name: &'static str,
    /// Changes the real user id of every thread, and returns the error if that fails.
    call: fn(u32) -> Result<(), String>,
    /// Asks for the strictest answer to a thread whose result differs.
    be_strict: fn(),
}

const ENGINES: [Engine; 3] = [
    Engine {
        name: "libpsx for Rust",
        call: ours,
        be_strict: || libpsx::set_sensitivity(libpsx::Sensitivity::Error),
    },
    // glibc has one answer: it aborts.
    Engine { name: "glibc setresuid", call: glibc, be_strict: || {} },
    Engine { name: "C libpsx", call: c_libpsx, be_strict: c_libpsx_be_strict },
];

fn ours(uid: u32) -> Result<(), String> {
    let call = libpsx::Broadcast::new(libc::SYS_setresuid, [uid as usize, 0, 0, 0, 0, 0]);
    let call = call.deadline(Duration::from_secs(2));
    // SAFETY: setresuid touches no memory.
    unsafe { call.execute_with_report() }.map(|_| ()).map_err(|error| error.to_string())
}

fn outcome(returned: c_long) -> Result<(), String> {
    if returned == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().to_string()) }
}

fn glibc(uid: u32) -> Result<(), String> {
    // SAFETY: setresuid touches no memory.
    outcome(c_long::from(unsafe { libc::setresuid(uid, 0, 0) }))
}

type Syscall3 = unsafe extern "C" fn(c_long, c_long, c_long, c_long) -> c_long;
type SetSensitivity = unsafe extern "C" fn(c_int) -> c_int;

struct CLibpsx {
    syscall3: Syscall3,
    set_sensitivity: SetSensitivity,
}

fn c_library() -> Option<&'static CLibpsx> {
    static LIBRARY: OnceLock<Option<CLibpsx>> = OnceLock::new();
    let load = || {
        // SAFETY: libcap's libpsx may be loaded at any time.
        let library = unsafe { libc::dlopen(c"libpsx.so.2".as_ptr(), libc::RTLD_NOW) };
        let library = std::ptr::NonNull::new(library)?;
        let symbol = |name: &CStr| {
            // SAFETY: the library is loaded, and the name is a string.
            std::ptr::NonNull::new(unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) })
        };
        let (syscall3, set) = (symbol(c"psx_syscall3")?, symbol(c"psx_set_sensitivity")?);
        Some(CLibpsx {
            // SAFETY: sys/psx_syscall.h declares the function with this type.
            syscall3: unsafe { std::mem::transmute::<*mut c_void, Syscall3>(syscall3.as_ptr()) },
            // SAFETY: sys/psx_syscall.h declares the function with this type.
            set_sensitivity: unsafe {
                std::mem::transmute::<*mut c_void, SetSensitivity>(set.as_ptr())
            },
        })
    };
    LIBRARY.get_or_init(load).as_ref()
}

fn c_libpsx(uid: u32) -> Result<(), String> {
    let library = c_library().ok_or("not installed")?;
    // SAFETY: setresuid touches no memory.
    outcome(unsafe { (library.syscall3)(libc::SYS_setresuid, c_long::from(uid), 0, 0) })
}

fn c_libpsx_be_strict() {
    const PSX_ERROR: c_int = 2;
    if let Some(library) = c_library() {
        // SAFETY: the function sets a variable of the library.
        unsafe { (library.set_sensitivity)(PSX_ERROR) };
    }
}

/// How the situation is set up in a Go program.
enum Go {
    /// It cannot be set up there.
    Never,
    /// The set-up outlasts exec(2): it is made before the Go program is started.
    Inherits,
    /// The Go program sets it up itself. This is its argument.
    Argument(&'static CStr),
}

struct Situation {
    name: &'static str,
    /// What a process of nine threads does before it calls.
    set_up: fn(&Engine),
    go: Go,
    /// How many calls are made. If there are several, the row shows how long the longest took.
    calls: u32,
}

const EASY: Situation = Situation { name: "", set_up: |_| {}, go: Go::Never, calls: 1 };

const SITUATIONS: [Situation; 12] = [
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
                    // SAFETY: -1 leaves every id as it is.
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

/// A row that counts over many calls.
struct Count {
    name: &'static str,
    count: fn(&Engine) -> String,
    go: &'static CStr,
}

const COUNTS: [Count; 2] = [
    Count {
        name: "times a thread was seen running in the old state after another had the new one",
        count: old_after_new,
        go: c"look",
    },
    Count {
        name: "calls that left a child which was forked after the change and keeps the old id",
        count: old_children,
        go: c"children",
    },
];

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().map(|path| File::open(path).expect("a Go program"));
    // A second argument selects the rows whose names contain it.
    let wanted = arguments.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
    libpsx::set_sensitivity(libpsx::Sensitivity::Warning);
    let names = ENGINES.map(|engine| engine.name).join(" | ");
    println!("| | {names} | Go AllThreadsSyscall |");
    println!("|{}", "---|".repeat(ENGINES.len() + 2));
    for situation in SITUATIONS.iter().filter(|situation| situation.name.contains(&wanted)) {
        let outer = situation.name.contains("outer PID namespace");
        let cells = ENGINES.map(|engine| {
            watched(outer, HANGS, |out| {
                say(out, || {
                    sleepers(8);
                    (engine.call)(0).expect("the first call is easy");
                    (situation.set_up)(&engine);
                    calls(engine.call, situation.calls)
                });
            })
        });
        let go = program.as_ref().and_then(|program| match situation.go {
            Go::Never => None,
            Go::Inherits => Some(watched(outer, HANGS, |out| {
                (situation.set_up)(&ENGINES[0]);
                become_program(program, c"call", &out);
            })),
            Go::Argument(name) => {
                Some(watched(outer, HANGS, |out| become_program(program, name, &out)))
            }
        });
        row(situation.name, &cells, go);
    }
    for Count { name, count, go } in COUNTS.iter().filter(|row| row.name.contains(&wanted)) {
        let cells =
            ENGINES.map(|engine| watched(false, COUNTING_HANGS, |out| say(out, || count(&engine))));
        let go = program
            .as_ref()
            .map(|program| watched(false, COUNTING_HANGS, |out| become_program(program, go, &out)));
        row(name, &cells, go);
    }
}

fn row(name: &str, cells: &[String], go: Option<String>) {
    println!("| {name} | {} | {} |", cells.join(" | "), go.as_deref().unwrap_or("-"));
}

/// Makes so many calls, the last of them with [`UID`], and says how they ended.
fn calls(call: fn(u32) -> Result<(), String>, count: u32) -> String {
    let mut longest = Duration::ZERO;
    for uid in UID + 1 - count..=UID {
        let start = Instant::now();
        if let Err(error) = call(uid) {
            return format!("error: {error}");
        }
        longest = longest.max(start.elapsed());
    }
    if count == 1 {
        return "Ok".into();
    }
    format!("Ok, the longest of {count} calls took {} ms", longest.as_millis())
}

/// Writes the process's pid, and then the outcome. The process stays, so that the parent can look
/// at its threads.
fn say(mut out: UnixStream, outcome: impl FnOnce() -> String) {
    let pid = std::fs::read_link("/proc/self").unwrap_or_default();
    let _ = writeln!(out, "{}", pid.display());
    let _ = writeln!(out, "{}", outcome());
    forever();
}

fn become_program(program: &File, argument: &CStr, out: &UnixStream) {
    let arguments = [c"limits".as_ptr(), argument.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: both descriptors are open.
    unsafe { libc::dup2(out.as_raw_fd(), 1) };
    // SAFETY: the arrays end with null.
    unsafe { libc::fexecve(program.as_raw_fd(), arguments.as_ptr(), environment.as_ptr()) };
}

/// Runs `body` in a child process. If `inner` is set, the child is the first process of a PID
/// namespace. Returns what the child said, and how many of its threads had the new id then.
fn watched(inner: bool, patience: Duration, body: impl FnOnce(UnixStream)) -> String {
    let (here, there) = UnixStream::pair().expect("a pair");
    let child = fork(move || {
        if inner {
            // SAFETY: the call affects only the children of this process.
            unsafe { libc::unshare(libc::CLONE_NEWPID) };
            reap(fork(move || body(there)));
        } else {
            body(there);
        }
    });
    here.set_read_timeout(Some(patience)).expect("a time");
    let mut lines = BufReader::new(&here).lines();
    let pid = lines.next().and_then(|line| line.ok()?.parse().ok()).unwrap_or(child);
    let said = lines.next();
    let (new, all) = census(pid);
    if said.is_some() {
        // SAFETY: the child has not been waited for, so that the pid is its own.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    let status = reap(child);
    match said {
        None if libc::WIFSIGNALED(status) => format!("dies of signal {}", libc::WTERMSIG(status)),
        None => format!("ends with status {}", libc::WEXITSTATUS(status)),
        Some(Ok(said)) if said.starts_with(|c: char| c.is_ascii_digit()) => said,
        Some(Ok(said)) => format!("{said}; changed: {new} of {all}"),
        Some(Err(_)) => format!("hangs; changed: {new} of {all}"),
    }
}

fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the call takes no pointer.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads the limit.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        body();
        // SAFETY: _exit touches no memory.
        unsafe { libc::_exit(0) };
    }
    pid
}

fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the kernel writes the status.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// Returns how many threads of a process have the new real user id, and how many there are.
/// Zombies are not counted.
fn census(pid: i32) -> (usize, usize) {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return (0, 0) };
    let statuses = tasks.flatten().filter_map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        (!status.contains("State:\tZ")).then_some(status)
    });
    statuses.fold((0, 0), |(new, all), status| {
        (new + usize::from(status.contains(&format!("Uid:\t{UID}\t"))), all + 1)
    })
}

fn own_uid() -> u32 {
    // SAFETY: getuid touches no memory.
    unsafe { libc::getuid() }
}

/// The caller's status file. Other threads see by it which id the caller has.
fn callers_status() -> File {
    // SAFETY: gettid touches no memory.
    let caller = unsafe { libc::gettid() };
    File::open(format!("/proc/self/task/{caller}/status")).expect("/proc")
}

/// Reads the real user id from a status file. It does not allocate.
fn uid_in(status: &File) -> u32 {
    let mut text = [0; 512];
    let length = status.read_at(&mut text, 0).unwrap_or(0);
    let text = std::str::from_utf8(&text[..length]).unwrap_or("");
    let ids = text.split_once("Uid:\t").map_or("", |(_, rest)| rest);
    ids.split('\t').next().and_then(|id| id.parse().ok()).unwrap_or(0)
}

/// Counts the times that a thread runs with an id lower than one that was seen before. Each of four
/// threads reads the caller's id, then the highest id that any of them has seen, then its own id.
/// The process makes a hundred calls, and has two hundred more threads, which sleep.
fn old_after_new(engine: &Engine) -> String {
    static HIGHEST: AtomicU32 = AtomicU32::new(0);
    static BEHIND: AtomicU32 = AtomicU32::new(0);
    static STATUS: OnceLock<File> = OnceLock::new();
    let status = STATUS.get_or_init(callers_status);
    let look = move || {
        let highest = HIGHEST.load(Ordering::SeqCst).max(uid_in(status));
        let own = own_uid();
        HIGHEST.fetch_max(own.max(highest), Ordering::SeqCst);
        if own < highest {
            BEHIND.fetch_add(1, Ordering::SeqCst);
        }
    };
    let lookers = || {
        for _ in 0..2 {
            std::thread::spawn(move || {
                loop {
                    look();
                }
            });
        }
    };
    lookers();
    sleepers(200);
    lookers();
    for uid in UID..UID + 100 {
        if let Err(error) = (engine.call)(uid) {
            return format!("error: {error}");
        }
    }
    format!("{} in 100 calls", BEHIND.load(Ordering::SeqCst))
}

/// Counts the calls that left a child with the old id, although another thread had the new id
/// before fork(2) was called. One of nine threads looks at the caller's id and at the highest id
/// that the others have published, and forks, in a loop. Each of the others publishes its id when
/// it leaves a handler.
fn old_children(engine: &Engine) -> String {
    const CALLS: usize = 1000;
    static FORKS: AtomicBool = AtomicBool::new(false);
    static PUBLISHED: AtomicU32 = AtomicU32::new(0);
    let length = CALLS * size_of::<AtomicBool>();
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses the address.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    // SAFETY: the memory is zero, which is a valid AtomicBool, and stays mapped.
    let left = unsafe { std::slice::from_raw_parts(memory.cast::<AtomicBool>(), CALLS) };
    let status = callers_status();
    let publishers = |count| {
        for _ in 0..count {
            std::thread::spawn(|| {
                loop {
                    // SAFETY: sleep takes no pointer. A handler ends it.
                    unsafe { libc::sleep(1) };
                    PUBLISHED.fetch_max(own_uid(), Ordering::SeqCst);
                }
            });
        }
    };
    publishers(4);
    std::thread::spawn(move || {
        loop {
            let seen = uid_in(&status).max(PUBLISHED.load(Ordering::SeqCst));
            // SAFETY: the child makes no call but getuid and _exit.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let call = seen.checked_sub(UID).and_then(|call| left.get(call as usize));
                if let Some(call) = call.filter(|_| own_uid() < seen) {
                    call.store(true, Ordering::Relaxed);
                }
                // SAFETY: _exit touches no memory.
                unsafe { libc::_exit(0) };
            }
            reap(pid);
            FORKS.store(true, Ordering::Relaxed);
        }
    });
    publishers(3);
    while !FORKS.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    for uid in (UID..).take(CALLS) {
        if let Err(error) = (engine.call)(uid) {
            return format!("error: {error}");
        }
    }
    let count = left.iter().filter(|call| call.load(Ordering::Relaxed)).count();
    format!("{count} of {CALLS} calls")
}

fn sleepers(count: usize) {
    for _ in 0..count {
        std::thread::spawn(forever);
    }
}

fn forever() {
    loop {
        std::thread::park();
    }
}

fn compute() {
    loop {
        std::hint::spin_loop();
    }
}

fn block_all() {
    let all = !0u64;
    let set = libc::SIG_SETMASK;
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, set, &raw const all, 0usize, 8usize) };
}

/// Waits until a new thread has certainly reached its loop. Only the table depends on it.
fn settle() {
    std::thread::sleep(Duration::from_millis(200));
}

/// Pins the calling thread, and the threads that it creates from now on, to its present CPU.
fn pin() {
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

fn make_real_time(tid: i32) {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: the kernel reads the priority.
    let done = unsafe { libc::sched_setscheduler(tid, libc::SCHED_FIFO, &priority) };
    assert_eq!(done, 0, "sched_setscheduler");
}

/// Installs a filter in the calling thread.
fn install(program: &[libc::sock_filter]) {
    let len = program.len() as u16;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the program.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
    assert_eq!(done, 0, "seccomp");
}

const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const NUMBER: u32 = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
const FIRST: u32 = std::mem::offset_of!(libc::seccomp_data, args) as u32;
const SIXTH: u32 = FIRST + 5 * 8;

/// Installs a filter that answers setresuid(uid, ...) of this thread with `action`.
fn refuse(uid: u32, action: u32) {
    install(&[
        step(LOAD, 0, 0, NUMBER),
        step(EQUAL, 0, 3, libc::SYS_setresuid as u32),
        step(LOAD, 0, 0, FIRST),
        step(EQUAL, 0, 1, uid),
        step(libc::BPF_RET, 0, 0, action),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// The sixth argument by which the filter of [`trap`] recognizes the calls of the SIGSYS handler.
const PASS: c_long = 0x5afe;

/// Installs a filter that traps gettid and futex of this thread to the SIGSYS handler.
fn trap() {
    install(&[
        step(LOAD, 0, 0, NUMBER),
        step(EQUAL, 1, 0, libc::SYS_gettid as u32),
        step(EQUAL, 0, 3, libc::SYS_futex as u32),
        step(LOAD, 0, 0, SIXTH),
        step(EQUAL, 1, 0, PASS as u32),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_TRAP),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

// The selector's values.
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
/// Whether the calls of the thread in [`dispatch`] are trapped.
static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);

/// Puts the calling thread under Syscall User Dispatch.
fn dispatch() {
    const PR_SET_SYSCALL_USER_DISPATCH: c_int = 59;
    const PR_SYS_DISPATCH_ON: usize = 1;
    let (set, on) = (PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON);
    // SAFETY: the selector is a static.
    let done = unsafe { libc::prctl(set, on, 0usize, 0usize, SELECTOR.as_ptr()) };
    assert_eq!(done, 0, "prctl(PR_SET_SYSCALL_USER_DISPATCH)");
}

type SignalHandler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

fn handle_traps(handler: SignalHandler) {
    // SAFETY: zero is a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the type that SA_SIGINFO asks for.
    unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) };
}

/// Makes the trapped call for the interrupted code. The kernel has put the number back into rax.
/// With `PASSES`, the sixth argument tells the filter that the call is the handler's.
extern "C" fn emulate<const PASSES: bool>(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    SELECTOR.store(ALLOW, Ordering::Relaxed);
    // SAFETY: the kernel passes a ucontext_t, and the handler is its only user.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |name: c_int| registers[name as usize];
    let sixth = if PASSES { PASS } else { register(libc::REG_R9) };
    // SAFETY: the function takes no argument.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: errno lives as long as the thread, and only the thread uses it.
    let errno = unsafe { &mut *errno };
    let before = *errno;
    // SAFETY: the interrupted code makes this very call.
    let result = unsafe {
        libc::syscall(
            register(libc::REG_RAX),
            register(libc::REG_RDI),
            register(libc::REG_RSI),
            register(libc::REG_RDX),
            register(libc::REG_R10),
            register(libc::REG_R8),
            sixth,
        )
    };
    registers[libc::REG_RAX as usize] = if result == -1 { -i64::from(*errno) } else { result };
    *errno = before;
}

const PAGE: usize = 4096;
/// More pages than are read while a process of the table lives.
const PAGES: usize = 4000;
const A_PAGE: Duration = Duration::from_millis(30);

/// Starts a thread that waits in read(2) for one page after the other, and a thread that serves
/// them.
fn serve_pages() {
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
fn fill_standard_error() {
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

/// Creates a thread that no library knows of.
fn raw_thread() {
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
