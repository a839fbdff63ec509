//! Reads what /proc shows of the threads of this process, here or in a child process.
//!
//! A descriptor of /proc leads out of a new root directory, and a child that another thread forks inherits it. A
//! Landlock domain or a seccomp filter may forbid reading /proc. If the plan has one of these, a child
//! process reads /proc ([`Observer`]). It has a copy of the descriptor table, in which the descriptor of /proc stays
//! open; this process closes its own before any thread is changed.

// # Safety
//
// `Observer` owns one shared mapping, `Page`. `turn` says which of the two processes may touch the other fields.
// The child of a process with several threads makes async-signal-safe calls only: it neither allocates nor locks.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CString, c_int, c_long};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::filter::needed_outside;
use crate::status::{Place, field};

/// `PROC_SUPER_MAGIC` (include/uapi/linux/magic.h).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// The time in which the child process must answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of bytes that are read at a time.
const DATA: usize = 32 << 10;

/// The directory of this process's tasks in /proc.
pub(crate) struct Tasks {
    reader: Reader,
    /// The names in the directory are the thread ids of an outer PID namespace, and not those of gettid(2).
    foreign: bool,
    /// The name of the thread that has opened the directory.
    own: i32,
}

enum Reader {
    Here(Hand),
    Outside(Observer),
}

/// The directory, and the open file in it.
struct Hand {
    tasks: OwnedFd,
    file: Option<OwnedFd>,
}

/// One step of reading. Each takes a name or fills the data.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Step {
    /// Goes back to the first entry of the directory.
    Rewind,
    /// Reads directory entries into the data.
    List,
    /// Opens the named file.
    Open,
    /// Reads from the open file into the data.
    Read,
    /// Writes device and inode number of the named file, or of the target of the named link, into the data.
    Identify,
}

impl Tasks {
    /// Opens the directory, and checks that it belongs to procfs and to this process. Returns `None` if there is none.
    pub(crate) fn open() -> Option<Self> {
        let tasks = OwnedFd::from(File::open("/proc/self/task").ok()?);
        // SAFETY: it is a structure of integers.
        let mut system: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes the structure.
        let done = unsafe { libc::fstatfs(tasks.as_raw_fd(), &mut system) } == 0;
        if !done || system.f_type as u64 != PROC_SUPER_MAGIC {
            return None;
        }
        let reader = Reader::Here(Hand { tasks, file: None });
        let mut found = Self { reader, foreign: false, own: 0 };
        // SAFETY: it touches no memory.
        let tid = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
        let pid = std::process::id() as i32;
        for name in std::iter::once(tid).chain(found.list().ok()?) {
            let Ok(status) = found.status(name) else { continue };
            if own_number(&status, b"NSpid") == Some(tid)
                && own_number(&status, b"NStgid") == Some(pid)
            {
                found.foreign = name != tid;
                found.own = name;
                return Some(found);
            }
        }
        None
    }

    /// Opens a directory that a test has made.
    #[cfg(test)]
    pub(crate) fn of_directory(path: &std::path::Path, own: i32) -> Self {
        let tasks = File::open(path).unwrap().into();
        Self { reader: Reader::Here(Hand { tasks, file: None }), foreign: false, own }
    }

    /// Lets a child process read from now on. Returns `None` if no child process could be made.
    pub(crate) fn outside(self) -> Option<Self> {
        let Reader::Here(hand) = self.reader else { return Some(self) };
        let observer = Observer::start(&hand.tasks)?;
        Some(Self { reader: Reader::Outside(observer), ..self })
    }

    /// Returns the names of the threads, which are their ids in the PID namespace of the mount. If a thread ends
    /// meanwhile, another living thread may be missing.
    pub(crate) fn list(&mut self) -> io::Result<Vec<i32>> {
        self.step(Step::Rewind, "", &mut |_| ())?;
        let mut names = Vec::new();
        while self.step(Step::List, "", &mut |records| collect_names(records, &mut names))? > 0 {}
        Ok(names)
    }

    /// Returns the file `status` of a thread.
    pub(crate) fn status(&mut self, name: i32) -> io::Result<Vec<u8>> {
        self.step(Step::Open, &format!("{name}/status"), &mut |_| ())?;
        let mut text = Vec::new();
        while self.step(Step::Read, "", &mut |read| text.extend_from_slice(read))? > 0 {}
        Ok(text)
    }

    /// Returns the file `status` of the calling thread.
    pub(crate) fn own_status(&mut self) -> io::Result<Vec<u8>> {
        self.status(self.own)
    }

    /// Returns the target of a thread's link `root` or `cwd`.
    pub(crate) fn place(&mut self, name: i32, link: &str) -> io::Result<Place> {
        let mut place = (0, 0);
        self.step(Step::Identify, &format!("{name}/{link}"), &mut |read| {
            let number = |at| {
                let bytes = read.get(at..).and_then(<[u8]>::first_chunk);
                bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
            };
            place = (number(0), number(8));
        })?;
        Ok(place)
    }

    /// Returns the name of the calling thread.
    pub(crate) fn own(&self) -> i32 {
        self.own
    }

    /// Returns whether the names are other numbers than those of gettid(2).
    pub(crate) fn foreign(&self) -> bool {
        self.foreign
    }

    /// Makes one step and passes the data on. Returns the number of bytes.
    fn step(&mut self, step: Step, name: &str, use_it: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        let name = CString::new(name)?;
        if let (Step::Open, Reader::Here(hand)) = (step, &mut self.reader) {
            // The descriptor table may be full.
            hand.file = None;
        }
        let mut buffer;
        let (result, data) = match &mut self.reader {
            Reader::Here(hand) => {
                buffer = [0; DATA];
                let file = hand.file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
                // SAFETY: the name is a string, and the buffer is as long as said.
                let result = unsafe {
                    perform(step, hand.tasks.as_raw_fd(), file, name.as_ptr(), buffer.as_mut_ptr())
                };
                if step == Step::Open && result >= 0 {
                    // SAFETY: it was just opened.
                    hand.file = Some(unsafe { OwnedFd::from_raw_fd(result as RawFd) });
                }
                (result, buffer.as_slice())
            }
            Reader::Outside(observer) => observer.ask(step, name.as_bytes_with_nul())?,
        };
        let length =
            usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result as i32))?;
        use_it(data.get(..length.min(DATA)).unwrap_or_default());
        Ok(length)
    }
}

/// Returns the thread's id in its own PID namespace: the last column (proc_pid_status(5)).
pub(crate) fn own_number(status: &[u8], column: &[u8]) -> Option<i32> {
    let numbers = field(status, column)?;
    let last = numbers.split(u8::is_ascii_whitespace).next_back()?;
    std::str::from_utf8(last).ok()?.parse().ok()
}

/// Returns the names that are numbers from the records of getdents64(2).
fn collect_names(mut records: &[u8], names: &mut Vec<i32>) {
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    while let Some(&[low, high]) = records.get(LENGTH..).and_then(<[u8]>::first_chunk) {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some((record, rest)) = records.split_at_checked(length.max(1)) else { return };
        let name = record.get(NAME..).and_then(|name| name.split(|&byte| byte == 0).next());
        let number = name.and_then(|name| std::str::from_utf8(name).ok()?.parse::<i32>().ok());
        names.extend(number);
        records = rest;
    }
}

/// Converts an argument to a full word.
const NONE: c_long = 0;

/// Performs one step with async-signal-safe calls. Returns the result of the system call: the number of bytes read, a
/// descriptor, or an error as a negative number. `Identify` returns the number of bytes that it has written.
///
/// # Safety
/// `name` is a string, and `data` has room for [`DATA`] bytes.
unsafe fn perform(
    step: Step,
    tasks: c_int,
    file: c_int,
    name: *const libc::c_char,
    data: *mut u8,
) -> c_long {
    let value = match step {
        // SAFETY: it takes numbers.
        Step::Rewind => unsafe { libc::syscall(libc::SYS_lseek, tasks, NONE, libc::SEEK_SET) },
        // SAFETY: the data has room for so much.
        Step::List => unsafe { libc::syscall(libc::SYS_getdents64, tasks, data, DATA) },
        Step::Open => {
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            // SAFETY: the name is a string.
            unsafe { libc::syscall(libc::SYS_openat, tasks, name, flags, 0) }
        }
        // SAFETY: the data has room for so much.
        Step::Read => unsafe { libc::syscall(libc::SYS_read, file, data, DATA) },
        Step::Identify => {
            // SAFETY: it is a structure of integers.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            // SAFETY: the name is a string, and the kernel writes the structure.
            let done = c_long::from(unsafe { libc::fstatat(tasks, name, &mut stat, 0) });
            let [first, second] = [stat.st_dev, stat.st_ino].map(u64::to_ne_bytes);
            // SAFETY: the data has room for two numbers.
            unsafe { data.cast::<[u8; 8]>().write(first) };
            // SAFETY: it is within the data.
            let after = unsafe { data.cast::<[u8; 8]>().add(1) };
            // SAFETY: the data has room for the second number too.
            unsafe { after.write(second) };
            if done == 0 { 16 } else { done }
        }
    };
    if value < 0 {
        // This only reads errno.
        let number = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return -c_long::from(number.max(1));
    }
    value
}

/// Which of the two processes may use the page.
const REST: u32 = 0;
const ASKED: u32 = 1;
const END: u32 = 2;

/// The memory that the two processes share.
#[repr(C)]
struct Page {
    turn: AtomicU32,
    content: UnsafeCell<Content>,
}

#[repr(C)]
struct Content {
    step: u32,
    result: c_long,
    name: [u8; 64],
    data: [u8; DATA],
}

/// A child process that reads /proc for this one.
///
/// clone(2) makes it without an exit signal: the program gets no SIGCHLD, and its own wait(2) does not see this child.
/// The child keeps the credentials of before, outside of the new root directory. It ends when the parent
/// asks for it, when the calling thread ends, or when the process is killed (PR_SET_PDEATHSIG(2const)).
struct Observer {
    page: NonNull<Page>,
    pid: i32,
    /// The child no longer answers.
    lost: bool,
}

impl Observer {
    fn start(tasks: &OwnedFd) -> Option<Self> {
        let size = size_of::<Page>();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: it makes a mapping of its own.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
        let page = NonNull::new(at.cast::<Page>()).filter(|_| at != libc::MAP_FAILED)?;
        // In the child no handler of the program may run.
        // SAFETY: it is a structure of integers.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: it is a structure of integers.
        let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: it fills the set.
        unsafe { libc::sigfillset(&mut all) };
        // SAFETY: both are sets.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut before) };
        let parent = std::process::id() as i32;
        // Like fork(2), without an exit signal.
        // SAFETY: the child continues on a copy of this stack, and never returns from `serve`.
        let pid = unsafe { libc::syscall(libc::SYS_clone, NONE, NONE, NONE, NONE, NONE) } as i32;
        if pid == 0 {
            // SAFETY: this is the child.
            unsafe { serve(page, tasks.as_raw_fd(), parent) }
        }
        // SAFETY: it is the set of before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
        let observer = Self { page, pid, lost: false };
        // Children that are forked from here on do not share it.
        // SAFETY: it is the mapping from above.
        unsafe { libc::madvise(at, size, libc::MADV_DONTFORK) };
        (pid > 0).then_some(observer)
    }

    /// Lets the child make a step. Returns the result of the call, and the data.
    fn ask(&mut self, step: Step, name: &[u8]) -> io::Result<(c_long, &[u8])> {
        let lost = || io::Error::other("the process that reads /proc does not answer");
        if self.lost {
            return Err(lost());
        }
        // SAFETY: the mapping is there as long as `self`.
        let page = unsafe { self.page.as_ref() };
        // SAFETY: it is this process's turn.
        let content = unsafe { &mut *page.content.get() };
        content.step = step as u32;
        for (place, byte) in content.name.iter_mut().zip(name) {
            *place = *byte;
        }
        // Release: the child sees the content. Its partner is the load in `serve`.
        page.turn.store(ASKED, Ordering::Release);
        wake(&page.turn);
        let until = Instant::now() + PATIENCE;
        // Acquire: this process sees the content that the child wrote. Its partner is the store in `serve`.
        while page.turn.load(Ordering::Acquire) == ASKED {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.lost = true;
                return Err(lost());
            }
            sleep(&page.turn, ASKED, Some(left));
        }
        Ok((content.result, &content.data))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // SAFETY: the mapping is there as long as `self`.
        let page = unsafe { self.page.as_ref() };
        page.turn.store(END, Ordering::Release);
        wake(&page.turn);
        if self.pid > 0 && !self.lost {
            let mut status = 0;
            // This fails if another thread has waited for all kinds of children.
            // SAFETY: the kernel writes the status.
            unsafe { libc::syscall(libc::SYS_wait4, self.pid, &mut status, libc::__WALL, NONE) };
        }
        // SAFETY: no reference to the mapping is left.
        unsafe { libc::munmap(self.page.as_ptr().cast(), size_of::<Page>()) };
    }
}

/// Serves requests in the child process until the parent asks it to end.
///
/// # Safety
/// This is the child, and `page` the mapping that it shares with its parent.
unsafe fn serve(page: NonNull<Page>, tasks: c_int, parent: i32) -> ! {
    // SAFETY: it takes numbers.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_long) };
    // The parent may be dead already. (In another PID namespace it has the number 0.)
    // SAFETY: it touches no memory.
    let now = unsafe { libc::syscall(libc::SYS_getppid) } as i32;
    if now != parent && now != 0 {
        end();
    }
    // This process needs no other descriptor of the program.
    if tasks > 0 {
        // SAFETY: it takes numbers.
        unsafe { libc::syscall(libc::SYS_close_range, 0, tasks.wrapping_sub(1), 0) };
    }
    // SAFETY: it takes numbers.
    unsafe { libc::syscall(libc::SYS_close_range, tasks.wrapping_add(1), c_int::MAX, 0) };
    // SAFETY: the mapping stays.
    let page = unsafe { page.as_ref() };
    let mut file: c_int = -1;
    loop {
        // Acquire: the child sees the content that the parent wrote. Its partner is the store in `ask`.
        match page.turn.load(Ordering::Acquire) {
            ASKED => {}
            REST => {
                sleep(&page.turn, REST, None);
                continue;
            }
            _ => end(),
        }
        let content = page.content.get();
        // SAFETY: it is this process's turn.
        let number = unsafe { (*content).step };
        let all = [Step::Rewind, Step::List, Step::Open, Step::Read, Step::Identify];
        let Some(&step) = all.iter().find(|&&step| step as u32 == number) else { end() };
        if step == Step::Open && file >= 0 {
            // SAFETY: it was opened here.
            unsafe { libc::syscall(libc::SYS_close, file) };
            file = -1;
        }
        // SAFETY: it is this process's turn.
        let name = unsafe { &raw const (*content).name };
        // SAFETY: it is this process's turn.
        let data = unsafe { &raw mut (*content).data };
        // SAFETY: the parent has written a string, and the data has this room.
        let result = unsafe { perform(step, tasks, file, name.cast(), data.cast()) };
        if step == Step::Open && result >= 0 {
            file = result as c_int;
        }
        // SAFETY: it is this process's turn.
        unsafe { (*content).result = result };
        // This fails if the parent does not wait any more. Release: its partner is the load in `ask`.
        let _ = page.turn.compare_exchange(ASKED, REST, Ordering::Release, Ordering::Relaxed);
        wake(&page.turn);
    }
}

fn end() -> ! {
    loop {
        // SAFETY: it takes a number.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    }
}

/// Sleeps while the word has this value. May return at any time.
fn sleep(word: &AtomicU32, value: u32, patience: Option<Duration>) {
    let time = patience.map(|time| libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word and the time are there until it returns.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, time, 0, 0) };
}

fn wake(word: &AtomicU32) {
    // SAFETY: the word is there until it returns.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1, 0, 0, 0) };
}

/// Returns whether a filter allows the calls by which this process asks the child and waits for its end.
pub(crate) fn may_ask_under(program: &[libpsx::process::Instruction]) -> bool {
    needed_outside(program)
}
