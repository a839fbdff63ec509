//! What the subject does beside its broadcasts. Each function is one turn of a loop. A turn that the machine refuses for
//! the moment, because no descriptor or no place in the signal queue is free, does nothing.

// # Safety
//
// Children of fork and clone make raw calls, or calls of libpsx, and end by _exit. What the kernel or another thread
// uses lives until a turn has waited for it.

mod children;
mod kernel;
mod library;
mod sabotage;
mod threads;

use std::ffi::{CStr, CString, c_void};
use std::io::Error as Errno;
use std::mem::{MaybeUninit, transmute};
use std::ptr;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;

use libpsx::process::{Gid, Unchanged, set_timer_slack, setresgid};
use libpsx::{Broadcast, Sensitivity, syscall3};

use crate::board::{Board, Count};
use crate::initiators::{FIRST_ID, USERS, done, first_user};
use crate::state::{Field, group, observe, real_group};
use crate::subject::judge;
use crate::sys::{self, Random, reap, watchdog};

pub(crate) use self::children::{
    exec, fork, fork_and_call, fork_that_differs, fork_with_threads, spawn, vfork,
};
pub(crate) use self::kernel::{block, compute, fifo, io_uring, limits, userfault};
pub(crate) use self::library::{aio, cancel_asynchronous, cancel_deferred, plugin, timer};
pub(crate) use self::sabotage::{dissenter, own_table, sabotage};
pub(crate) use self::threads::{attributes, churn, raw_threads};

type Body = extern "C" fn(*mut c_void) -> *mut c_void;

/// Creates a thread, if there is room for one.
fn spawned<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Option<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().spawn(body).ok()
}

/// Creates a pthread. With an affinity, glibc's new thread waits for its creator with every signal blocked.
fn pthread(body: Body, argument: *mut c_void, affinity: bool) -> Option<libc::pthread_t> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the function initialises the attributes.
    unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
    if affinity {
        // SAFETY: all fields of the structure are integers.
        let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let size = size_of_val(&cpus);
        // SAFETY: the set has this size.
        unsafe { libc::sched_getaffinity(0, size, &mut cpus) };
        // SAFETY: the attributes are initialised, and the set has this size.
        unsafe { libc::pthread_attr_setaffinity_np(attributes.as_mut_ptr(), size, &cpus) };
    }
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised; the argument is one for `body`.
    let made =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), body, argument) };
    // SAFETY: the attributes are initialised, and not used afterwards.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    // SAFETY: pthread_create has written the thread.
    (made == 0).then(|| unsafe { thread.assume_init() })
}

fn join(thread: libc::pthread_t) {
    // SAFETY: each thread is joined once.
    unsafe { libc::pthread_join(thread, ptr::null_mut()) };
}

extern "C" fn look(board: *mut c_void) -> *mut c_void {
    // SAFETY: the argument is the board.
    observe(unsafe { &*board.cast::<Board>() }, false);
    ptr::null_mut()
}

fn slack_here() -> i32 {
    // SAFETY: PR_GET_TIMERSLACK touches no memory.
    unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }
}

extern "C" fn sleeping(_: *mut c_void) -> *mut c_void {
    loop {
        sleep(Duration::from_secs(1));
    }
}

/// The body of a thread that is cancelled: pause(2) alone, which is a cancellation point. A signal ends it, so a thread that
/// a call has held ends as well.
fn pausing() -> Body {
    // SAFETY: pause(2) takes nothing and returns a number, which the C ABI allows for such a body.
    unsafe { transmute::<unsafe extern "C" fn() -> i32, Body>(libc::pause) }
}

/// Installs a filter in the calling thread that refuses setpriority(2).
fn refuse_setpriority() {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut program = [
        step(load, 0, 0, 0),
        step(equal, 0, 1, libc::SYS_setpriority as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let header = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    add_filter(&header);
}

fn add_filter(header: &libc::sock_fprog) {
    let set = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads the program.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, set, 0, header) };
    assert_eq!(done, 0, "seccomp: {}", Errno::last_os_error());
}

/// glibc's setresuid holds this for writing.
/// - A thread that is cancelled holds it for reading. Without it, glibc 2.36 alone hangs for ever: the cancellation takes a
///   thread out of the handler of signal 33 and leaves the signal blocked, and the next setresuid waits for that thread.
/// - While the signal queue has no room, it is held for writing: setresuid would leave threads out and return 0.
pub(crate) static SETXID: RwLock<()> = RwLock::new(());

/// Two descriptors of a pipe, which are closed when this is dropped.
struct Pipe([i32; 2]);

impl Pipe {
    fn new() -> Option<Self> {
        let mut pipe = [0; 2];
        // SAFETY: the kernel writes two descriptors.
        let made = unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) } == 0;
        made.then(|| Self(pipe))
    }

    fn write(&self, bytes: &[u8]) {
        // SAFETY: the kernel reads the bytes.
        unsafe { libc::write(self.0[1], bytes.as_ptr().cast(), bytes.len()) };
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for fd in self.0 {
            // SAFETY: this owns the descriptor.
            unsafe { libc::close(fd) };
        }
    }
}

fn map(length: usize, fd: i32, offset: i64, flags: i32) -> Option<usize> {
    let (protection, null) = (libc::PROT_READ | libc::PROT_WRITE, ptr::null_mut());
    // SAFETY: the call creates a new mapping.
    let at = unsafe { libc::mmap(null, length, protection, flags, fd, offset) };
    (at != libc::MAP_FAILED).then_some(at as usize)
}

fn unmap(at: usize, length: usize) {
    // SAFETY: the mapping is this function's caller's, which no longer uses it.
    unsafe { libc::munmap(at as *mut c_void, length) };
}

fn wait_for_the_end(board: &Board) {
    while board.end.load(SeqCst) < 2 {
        observe(board, false);
        sleep(Duration::from_millis(2));
    }
}

/// Leaves a signal pending in the calling thread.
pub(crate) fn leave_a_signal_pending() {
    let mask = 1u64 << (libc::SIGUSR1 - 1);
    let (block, size) = (libc::SIG_BLOCK, size_of::<u64>());
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, block, &raw const mask, 0, size) };
    // SAFETY: the signal is blocked.
    unsafe { libc::raise(libc::SIGUSR1) };
}

/// Reads how many signals are queued for each of the users that the real user may be.
pub(crate) fn queued_signals() -> u64 {
    let of = |user: u64| {
        // SAFETY: the call touches no memory.
        unsafe { libc::setresuid(user as u32, !0, !0) };
        let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("SigQ:"))?;
        line.trim().split('/').next()?.parse::<u64>().ok()
    };
    (first_user()..first_user() + USERS).filter_map(of).sum()
}
