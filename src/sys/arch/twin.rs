//! A kernel in the program: the calls that the engine makes, for the threads of one process, on the standard library.
//!
//! A checker that cannot look into the kernel (Miri), or that has none, runs the engine as it is on this: futex, clock,
//! memory, tids, masks, queued signals, and a task directory. `cfg(miri)` selects it, and so does `--cfg psx_twin` for a
//! run without Miri. It is in no other build.
//!
//! A std thread becomes a task by [`Task::enter`]. A task takes its signals as it returns from a call, in an interrupted
//! sleep, and where it calls [`user_code`], which stands for the instructions of the program.

// # Safety
//
// The calls get addresses of the caller's memory as numbers, as the kernel does, and use them as the kernel would.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a kernel for tests")]

extern crate std;

use core::cell::Cell;
use core::ffi::{CStr, c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, VecDeque};
use std::format;
use std::string::String;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use std::vec::Vec;

use linux_raw_sys::errno as e;
use linux_raw_sys::general as k;

use super::{KernelSigaction, Ucontext};
use crate::sys::{ALL, Mask, SIGNAL, SigInfo, bit};

// Numbers and layouts are those of a real CPU; the calls and the trap are not.
#[path = "x86_64.rs"]
mod native;
pub(crate) use native::*;
pub(super) type Restorer = native::Restorer;
pub(super) const NO_RESTORER: Restorer = native::NO_RESTORER;
pub(super) fn restorer() -> (usize, Restorer) {
    native::restorer()
}

pub(crate) fn trap() -> ! {
    std::process::abort()
}

/// The id of the first task, which is also the process's.
const LEADER: i32 = 1000;

#[derive(Default)]
struct TaskState {
    mask: Mask,
    /// Code and value of each queued signal.
    pending: VecDeque<(i32, usize)>,
    /// What setresuid(2) has set, and how often.
    uid: usize,
    set: usize,
}

enum File {
    /// The task directory: how much of it was read.
    Directory(usize),
    /// Another file, and how much of it was read.
    Text(Vec<u8>, usize),
}

struct Kernel {
    tasks: BTreeMap<i32, TaskState>,
    next: i32,
    /// The address and the number of each sleep, in the order in which the threads fell asleep.
    sleepers: Vec<(usize, u64)>,
    sleeps: u64,
    action: KernelSigaction,
    files: BTreeMap<usize, File>,
    memory: BTreeMap<usize, usize>,
}

static KERNEL: Mutex<Kernel> = Mutex::new(Kernel {
    tasks: BTreeMap::new(),
    next: LEADER,
    sleepers: Vec::new(),
    sleeps: 0,
    action: KernelSigaction::DEFAULT,
    files: BTreeMap::new(),
    memory: BTreeMap::new(),
});
static CHANGED: Condvar = Condvar::new();

std::thread_local! {
    static ME: Cell<i32> = const { Cell::new(0) };
}

fn kernel() -> MutexGuard<'static, Kernel> {
    KERNEL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A thread's life as a task of the process.
pub(crate) struct Task(());

impl Task {
    /// The calling thread becomes a task, with the state of the task `parent`, if that is one.
    pub(crate) fn enter(parent: i32) -> Self {
        let mut kernel = kernel();
        let tid = kernel.next;
        kernel.next += 1;
        let (uid, set) = kernel.tasks.get(&parent).map_or((0, 0), |task| (task.uid, task.set));
        kernel.tasks.insert(tid, TaskState { uid, set, ..TaskState::default() });
        ME.set(tid);
        Self(())
    }

    /// The user id of this task, and how often it was set.
    pub(crate) fn uid(&self) -> (usize, usize) {
        kernel().tasks.get(&ME.get()).map_or((0, 0), |task| (task.uid, task.set))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        kernel().tasks.remove(&ME.replace(0));
        CHANGED.notify_all();
    }
}

/// The state of each task: tid, user id, how often it was set.
pub(crate) fn tasks() -> Vec<(i32, usize, usize)> {
    kernel().tasks.iter().map(|(&tid, task)| (tid, task.uid, task.set)).collect()
}

/// Which task this thread is.
pub(crate) fn me() -> i32 {
    ME.get()
}

/// Creates a task as clone(2) does: the task is there, with the state of its parent, when this returns.
pub(crate) fn clone_task(body: impl FnOnce(&Task) + Send + 'static) -> thread::JoinHandle<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let parent = ME.get();
    let new = thread::spawn(move || {
        let task = Task::enter(parent);
        sender.send(()).unwrap();
        body(&task);
    });
    receiver.recv().unwrap();
    new
}

/// An instruction of the program: a signal may arrive here.
pub(crate) fn user_code() {
    deliver();
    thread::yield_now();
}

/// Takes every signal that is pending and not blocked.
fn deliver() {
    loop {
        let mut kernel = kernel();
        let action = kernel.action;
        let Some(task) = kernel.tasks.get_mut(&ME.get()) else { return };
        if task.mask & bit(SIGNAL) != 0 {
            return;
        }
        let Some((code, value)) = task.pending.pop_front() else { return };
        let interrupted = task.mask;
        task.mask |= action.mask() | bit(SIGNAL);
        drop(kernel);
        // SAFETY: integers alone.
        let mut info = unsafe { mem::zeroed::<SigInfo>() };
        (info.signo, info.code, info.pid, info.value) = (SIGNAL, code, LEADER, value);
        let mut context = [0u64; 128];
        context[UCONTEXT_MASK / 8] = interrupted;
        // SAFETY: the engine installed a handler, and has installed one before it queued a signal.
        let handler = unsafe {
            mem::transmute::<*const (), extern "C" fn(c_int, *mut SigInfo, *mut c_void)>(
                action.handler as *const (),
            )
        };
        handler(SIGNAL, &mut info, context.as_mut_ptr().cast());
        if let Some(task) = self::kernel().tasks.get_mut(&ME.get()) {
            task.mask = context[UCONTEXT_MASK / 8];
        }
    }
}

/// One call of the engine, and the signals that are pending when it returns.
///
/// # Safety
/// As for a system call.
pub(crate) unsafe fn syscall6(nr: usize, args: [usize; 6]) -> isize {
    let result = match call(nr as u32, args) {
        Ok(value) => value as isize,
        Err(errno) => -(errno as isize),
    };
    deliver();
    result
}

fn call(nr: u32, [a, b, c, d, to, _]: [usize; 6]) -> Result<usize, u32> {
    match nr {
        k::__NR_gettid => Ok(ME.get() as usize),
        k::__NR_getpid => Ok(LEADER as usize),
        k::__NR_unshare if kernel().tasks.len() <= 1 => Ok(0),
        k::__NR_unshare => Err(e::EINVAL),
        k::__NR_clock_gettime => {
            let now = since_start();
            // SAFETY: the caller's timespec.
            unsafe {
                ptr::write(
                    b as *mut [i64; 2],
                    [now.as_secs() as i64, i64::from(now.subsec_nanos())],
                )
            };
            Ok(0)
        }
        k::__NR_futex => futex(a, b as u32, c, d, to),
        k::__NR_mmap => map(b),
        k::__NR_munmap => {
            let size = kernel().memory.remove(&a).ok_or(e::EINVAL)?;
            // SAFETY: allocated by `map` with this layout.
            unsafe { dealloc(a as *mut u8, Layout::from_size_align(size, 4096).unwrap()) };
            Ok(0)
        }
        k::__NR_madvise | k::__NR_kcmp | k::__NR_prctl => Ok(0),
        k::__NR_setresuid => {
            let mut kernel = kernel();
            let task = kernel.tasks.get_mut(&ME.get()).ok_or(e::ESRCH)?;
            if a == usize::MAX {
                return Err(e::EPERM);
            }
            (task.uid, task.set) = (a, task.set + 1);
            Ok(0)
        }
        k::__NR_getresuid => {
            let uid = kernel().tasks.get(&ME.get()).ok_or(e::ESRCH)?.uid;
            for at in [a, b, c] {
                // SAFETY: the caller's memory.
                unsafe { ptr::write(at as *mut u32, uid as u32) };
            }
            Ok(0)
        }
        k::__NR_getuid => Ok(kernel().tasks.get(&ME.get()).ok_or(e::ESRCH)?.uid),
        k::__NR_rt_sigprocmask => {
            let mut kernel = kernel();
            let task = kernel.tasks.get_mut(&ME.get()).ok_or(e::ESRCH)?;
            // SAFETY: the caller's masks.
            let new = unsafe { *(b as *const Mask) };
            // SAFETY: as above.
            unsafe { ptr::write(c as *mut Mask, task.mask) };
            task.mask = match a as u32 {
                k::SIG_BLOCK => task.mask | new,
                k::SIG_UNBLOCK => task.mask & !new,
                _ => new,
            } & ALL;
            Ok(0)
        }
        k::__NR_rt_sigaction => {
            let mut kernel = kernel();
            let ours = a as i32 == SIGNAL;
            let none = KernelSigaction::DEFAULT;
            let old = if ours { kernel.action } else { none };
            if ours && b != 0 {
                // SAFETY: the caller's action.
                kernel.action = unsafe { *(b as *const KernelSigaction) };
            }
            // SAFETY: the caller's memory.
            unsafe { ptr::write(c as *mut KernelSigaction, old) };
            Ok(0)
        }
        k::__NR_rt_tgsigqueueinfo if c == 0 => exists(b as i32),
        k::__NR_rt_tgsigqueueinfo => {
            // SAFETY: the caller's siginfo.
            let info = unsafe { &*(d as *const SigInfo) };
            queue(b as i32, info.code, info.value)
        }
        k::__NR_tgkill if c == 0 => exists(b as i32),
        k::__NR_tgkill => queue(b as i32, -6, 0),
        k::__NR_openat => open(b),
        k::__NR_close => kernel().files.remove(&a).map(|_| 0).ok_or(e::EBADF),
        k::__NR_fcntl => add(File::Directory(0)),
        k::__NR_fstatfs => {
            // SAFETY: the caller's structure, whose first word is the type.
            unsafe { ptr::write(b as *mut i64, i64::from(k::PROC_SUPER_MAGIC)) };
            Ok(0)
        }
        k::__NR_newfstatat => {
            // SAFETY: the caller's structure.
            let stat = unsafe { &mut *(c as *mut k::stat) };
            stat.st_nlink = kernel().tasks.len() as u64 + 2;
            Ok(0)
        }
        k::__NR_lseek => {
            kernel().files.insert(a, File::Directory(0));
            Ok(0)
        }
        k::__NR_getdents64 => list(a, b, c),
        k::__NR_read => read(a, b, c),
        k::__NR_kill | k::__NR_exit_group => std::process::abort(),
        _ => Err(e::ENOSYS),
    }
}

fn since_start() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed() + Duration::from_secs(1)
}

fn exists(tid: i32) -> Result<usize, u32> {
    if kernel().tasks.contains_key(&tid) { Ok(0) } else { Err(e::ESRCH) }
}

fn queue(tid: i32, code: i32, value: usize) -> Result<usize, u32> {
    kernel().tasks.get_mut(&tid).ok_or(e::ESRCH)?.pending.push_back((code, value));
    CHANGED.notify_all();
    Ok(0)
}

fn map(bytes: usize) -> Result<usize, u32> {
    let size = bytes.next_multiple_of(4096);
    // SAFETY: the size is not 0.
    let at = unsafe { alloc_zeroed(Layout::from_size_align(size, 4096).unwrap()) } as usize;
    kernel().memory.insert(at, size);
    Ok(at)
}

fn futex(
    at: usize,
    operation: u32,
    value: usize,
    time_or_most: usize,
    to: usize,
) -> Result<usize, u32> {
    match operation & !k::FUTEX_PRIVATE_FLAG {
        _ if at % 4 != 0 => Err(e::EINVAL),
        k::FUTEX_WAIT => {
            // SAFETY: null, or the caller's timespec.
            let time = unsafe { (time_or_most as *const [i64; 2]).as_ref() };
            let limit = time.map(|&[s, ns]| Duration::new(s as u64, ns as u32));
            sleep(at, value as u32, limit)
        }
        k::FUTEX_WAKE => Ok(wake(&mut kernel(), at, value)),
        k::FUTEX_REQUEUE => Ok(requeue(at, value, time_or_most, to)),
        k::FUTEX_TRYLOCK_PI => {
            // SAFETY: the caller's word.
            let owner = unsafe { AtomicU32::from_ptr(at as *mut u32) }.load(Ordering::SeqCst);
            exists(owner as i32).and(Err(e::EAGAIN))
        }
        _ => Err(e::ENOSYS),
    }
}

fn wake(kernel: &mut Kernel, at: usize, count: usize) -> usize {
    let mut woken = 0;
    kernel.sleepers.retain(|&(word, _)| {
        let wakes = word == at && woken < count;
        woken += usize::from(wakes);
        !wakes
    });
    CHANGED.notify_all();
    woken
}

/// Wakes up to `count` sleepers, and moves up to `most` others.
fn requeue(from: usize, count: usize, most: usize, to: usize) -> usize {
    let mut kernel = kernel();
    let woken = wake(&mut kernel, from, count);
    let mut moved = 0;
    for (word, _) in &mut kernel.sleepers {
        if *word == from && moved < most {
            *word = to;
            moved += 1;
        }
    }
    woken + moved
}

fn sleep(at: usize, expected: u32, limit: Option<Duration>) -> Result<usize, u32> {
    let mut kernel = kernel();
    // SAFETY: the caller's word.
    if unsafe { AtomicU32::from_ptr(at as *mut u32) }.load(Ordering::SeqCst) != expected {
        return Err(e::EAGAIN);
    }
    kernel.sleeps += 1;
    let me = kernel.sleeps;
    kernel.sleepers.push((at, me));
    let until = limit.map(|limit| since_start() + limit);
    loop {
        let asleep = kernel.sleepers.iter().any(|&(_, sleeper)| sleeper == me);
        let task = kernel.tasks.get(&ME.get());
        let signal = task.is_some_and(|t| t.mask & bit(SIGNAL) == 0 && !t.pending.is_empty());
        let over = until.is_some_and(|until| since_start() >= until);
        let result = match (asleep, signal, over) {
            (false, ..) => Ok(0),
            (_, true, _) => Err(e::EINTR),
            (.., true) => Err(e::ETIMEDOUT),
            _ => {
                let rest =
                    until.map_or(Duration::from_secs(1), |u| u.saturating_sub(since_start()));
                kernel = CHANGED.wait_timeout(kernel, rest).unwrap().0;
                continue;
            }
        };
        kernel.sleepers.retain(|&(_, sleeper)| sleeper != me);
        return result;
    }
}

// The task directory

fn add(file: File) -> Result<usize, u32> {
    let mut kernel = kernel();
    let number = (3..).find(|n| !kernel.files.contains_key(n)).unwrap_or(3);
    kernel.files.insert(number, file);
    Ok(number)
}

fn open(path: usize) -> Result<usize, u32> {
    // SAFETY: the caller's path.
    let path = unsafe { CStr::from_ptr(path as *const _) }.to_str().unwrap_or("");
    if path == "/proc/self/task" {
        return add(File::Directory(0));
    }
    let (tid, name) = path.split_once('/').ok_or(e::ENOENT)?;
    let tid: i32 = tid.parse().map_err(|_| e::ENOENT)?;
    let text = {
        let kernel = kernel();
        let task = kernel.tasks.get(&tid).ok_or(e::ENOENT)?;
        match name {
            "stat" => format!("{tid} (task) S 1 1 1 0 0 0 {}{tid} 0", "0 ".repeat(12)),
            "status" => {
                let pending = if task.pending.is_empty() { 0 } else { bit(SIGNAL) };
                let (blocked, tids) = (task.mask, tid);
                format!("NSpid:\t{tids}\nSigPnd:\t{pending:x}\nShdPnd:\t0\nSigBlk:\t{blocked:x}\n")
            }
            _ => String::new(),
        }
    };
    add(File::Text(text.into_bytes(), 0))
}

/// getdents64(2): a few records at a time.
fn list(fd: usize, at: usize, room: usize) -> Result<usize, u32> {
    const RECORD: usize = 32;
    let mut kernel = kernel();
    let tids: Vec<i32> = kernel.tasks.keys().copied().collect();
    let Some(File::Directory(seen)) = kernel.files.get_mut(&fd) else { return Err(e::EBADF) };
    let mut filled = 0;
    for tid in tids.iter().skip(*seen).take(room / RECORD) {
        let mut record = [0u8; RECORD];
        record[16..18].copy_from_slice(&(RECORD as u16).to_ne_bytes());
        let name = format!("{tid}");
        record[19..19 + name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the caller's buffer has room for it.
        unsafe { ptr::copy_nonoverlapping(record.as_ptr(), (at + filled) as *mut u8, RECORD) };
        filled += RECORD;
        *seen += 1;
    }
    Ok(filled)
}

fn read(fd: usize, at: usize, room: usize) -> Result<usize, u32> {
    let mut kernel = kernel();
    let Some(File::Text(text, seen)) = kernel.files.get_mut(&fd) else { return Err(e::EBADF) };
    let rest = &text[*seen..];
    let count = rest.len().min(room);
    // SAFETY: the caller's buffer has room for it.
    unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), at as *mut u8, count) };
    *seen += count;
    Ok(count)
}
