//! What libpsx, glibc's setresuid(2) and C's libpsx do in the situations that are hard.
//!
//! Each cell of the table is a process of its own. It changes its real user id by one of the
//! engines, and its threads are looked at from outside. C's libpsx is whatever `libpsx.so.2` the
//! loader finds; Go's part is the program that the argument names, built from bench/go.
//! `scripts/limits` fetches both and runs this.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_long};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const UID: u32 = 1234;
/// Longer than any engine needs that gets there at all.
const HANGS: Duration = Duration::from_secs(8);

/// Changes the real user id of every thread, and says what came of it.
type Engine = fn(u32) -> Result<(), String>;

fn ours(uid: u32) -> Result<(), String> {
    let call = libpsx::Broadcast::new(libc::SYS_setresuid, [uid as usize, 0, 0, 0, 0, 0]);
    let call = call.deadline(Duration::from_secs(2)).sensitivity(libpsx::Sensitivity::Warning);
    // SAFETY: setresuid touches no memory.
    unsafe { call.run() }.map(|_| ()).map_err(|error| error.to_string())
}

fn outcome(returned: c_long) -> Result<(), String> {
    if returned == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().to_string()) }
}

fn glibc(uid: u32) -> Result<(), String> {
    // SAFETY: setresuid touches no memory.
    outcome(c_long::from(unsafe { libc::setresuid(uid, 0, 0) }))
}

fn c_libpsx(uid: u32) -> Result<(), String> {
    static CALL: OnceLock<Option<PsxSyscall3>> = OnceLock::new();
    let call = CALL.get_or_init(|| {
        // SAFETY: libcap's libpsx may be loaded at any time.
        let library = unsafe { libc::dlopen(c"libpsx.so.2".as_ptr(), libc::RTLD_NOW) };
        let library = std::ptr::NonNull::new(library)?;
        // SAFETY: the name is a string.
        let symbol = unsafe { libc::dlsym(library.as_ptr(), c"psx_syscall3".as_ptr()) };
        // SAFETY: sys/psx_syscall.h declares it like this.
        Some(unsafe { std::mem::transmute::<*mut libc::c_void, PsxSyscall3>(symbol) })
    });
    let call = call.ok_or("not installed")?;
    // SAFETY: setresuid touches no memory.
    outcome(unsafe { call(libc::SYS_setresuid, c_long::from(uid), 0, 0) })
}

type PsxSyscall3 = unsafe extern "C" fn(c_long, c_long, c_long, c_long) -> c_long;

const ENGINES: [(&str, Engine); 3] =
    [("libpsx for Rust", ours), ("glibc setresuid", glibc), ("C libpsx", c_libpsx)];

/// What a process does before it calls.
type Situation = fn(Engine);

/// Whether what is set up outlasts exec(2), and so can be tried on a Go program.
const SITUATIONS: [(&str, bool, Situation); 7] = [
    ("a thread blocks every signal", false, |_| {
        std::thread::spawn(|| {
            block_all();
            forever();
        });
        settle();
    }),
    ("the signal queue is full (`RLIMIT_SIGPENDING`)", true, |_| {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads the limit.
        unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) };
    }),
    ("no /proc (empty chroot)", true, |_| {
        let path = std::env::temp_dir().join("psx-empty");
        std::fs::create_dir_all(&path).expect("a directory");
        std::os::unix::fs::chroot(&path).expect("root");
    }),
    ("the /proc of an outer PID namespace", true, |_| {}),
    ("a thread made by raw clone(2)", false, |_| raw_thread()),
    ("a thread calls `setresuid(-1, -1, -1)` in a loop", false, |_| {
        std::thread::spawn(|| {
            loop {
                // SAFETY: -1 leaves every id as it is.
                unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) };
            }
        });
        settle();
    }),
    ("a caller was killed in its call (seccomp filter)", false, |engine| {
        std::thread::spawn(move || {
            die_of(UID + 1);
            let _ = engine(UID + 1);
        });
        settle();
    }),
];

fn main() {
    let program = std::env::args_os().nth(1).map(|path| File::open(path).expect("a Go program"));
    let names = ENGINES.map(|(name, _)| name).join(" | ");
    println!("| | {names} | Go AllThreadsSyscall |");
    println!("|{}", "---|".repeat(ENGINES.len() + 2));
    for (name, outlasts, situation) in SITUATIONS {
        let outer = name.contains("outer PID namespace");
        let cells = ENGINES.map(|(_, engine)| {
            watched(outer, |out| {
                let call = || {
                    sleepers(8);
                    engine(0).expect("the first call is easy");
                    situation(engine);
                    engine(UID)
                };
                say(out, || {
                    call().map_or_else(|error| format!("error: {error}"), |()| "Ok".into())
                });
            })
        });
        let program = program.as_ref().filter(|_| outlasts);
        let go = program.map_or("-".to_owned(), |program| {
            watched(outer, |out| {
                situation(|_| Ok(()));
                become_program(program, c"call", &out);
            })
        });
        println!("| {name} | {} | {go} |", cells.join(" | "));
    }
    let cells =
        ENGINES.map(|(_, engine)| watched(false, |out| say(out, || observed(engine)))).join(" | ");
    let go = program.map_or("-".to_owned(), |program| {
        watched(false, |out| become_program(&program, c"look", &out))
    });
    let name = "times a thread was seen running in the old state after another had the new one";
    println!("| {name} | {cells} | {go} |");
}

/// Tells who we are, and then what came of it; and stays, to be looked at.
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

/// Runs it in a child process, or for `inner` in the first process of a PID namespace, and tells
/// what it said, and how many of its threads have the new id by then.
fn watched(inner: bool, body: impl FnOnce(UnixStream)) -> String {
    let (here, there) = UnixStream::pair().expect("a pair");
    let child = fork(move || {
        if inner {
            // SAFETY: it concerns the children of this process alone.
            unsafe { libc::unshare(libc::CLONE_NEWPID) };
            reap(fork(move || body(there)));
        } else {
            body(there);
        }
    });
    here.set_read_timeout(Some(HANGS)).expect("a time");
    let mut lines = BufReader::new(&here).lines();
    let pid = lines.next().and_then(|line| line.ok()?.parse().ok()).unwrap_or(child);
    let said = lines.next();
    let (new, all) = census(pid);
    if said.is_some() {
        // SAFETY: kill(2) of a child of ours that was not waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    let status = reap(child);
    match said {
        None if libc::WIFSIGNALED(status) => format!("dies of signal {}", libc::WTERMSIG(status)),
        None => format!("ends with {status:#x}"),
        Some(Ok(said)) if said.starts_with(|c: char| c.is_ascii_digit()) => said,
        Some(Ok(said)) => format!("{said}; changed: {new} of {all}"),
        Some(Err(_)) => format!("hangs; changed: {new} of {all}"),
    }
}

fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: nobody is left to look at this process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
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

/// How many threads of a process have the new real user id, and how many there are. Zombies have
/// no say.
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

/// Four threads look at the caller's id, as the kernel shows it, and at the highest that any of them
/// has seen, and then at their own; beside a hundred calls, and two hundred sleepers.
fn observed(engine: Engine) -> String {
    static HIGHEST: AtomicU32 = AtomicU32::new(0);
    static BEHIND: AtomicU32 = AtomicU32::new(0);
    // SAFETY: gettid touches no memory.
    let caller = unsafe { libc::gettid() };
    let look = move || {
        let status = std::fs::read_to_string(format!("/proc/self/task/{caller}/status"));
        let ids = status.unwrap_or_default();
        let id = ids.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next());
        let callers: u32 = id.and_then(|id| id.parse().ok()).unwrap_or(0);
        let highest = HIGHEST.load(Ordering::SeqCst).max(callers);
        // SAFETY: getuid touches no memory.
        let own = unsafe { libc::getuid() };
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
        if let Err(error) = engine(uid) {
            return format!("error: {error}");
        }
    }
    format!("{} in 100 calls", BEHIND.load(Ordering::SeqCst))
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

fn block_all() {
    let all = !0u64;
    let set = libc::SIG_SETMASK;
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, set, &raw const all, 0usize, 8usize) };
}

/// Time for a thread to come where it is wanted; nothing but the table depends on it.
fn settle() {
    std::thread::sleep(Duration::from_millis(200));
}

/// A filter that kills this thread when it calls setresuid(uid, ...).
fn die_of(uid: u32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let first = std::mem::offset_of!(libc::seccomp_data, args) as u32;
    let program = [
        step(load, 0, 0, number),
        step(equal, 0, 3, libc::SYS_setresuid as u32),
        step(load, 0, 0, first),
        step(equal, 0, 1, uid),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_KILL_THREAD),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let len = program.len() as u16;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the program.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
}

/// A thread that no library knows of.
fn raw_thread() {
    extern "C" fn sleep(_: *mut libc::c_void) -> i32 {
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
