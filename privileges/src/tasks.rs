//! Reads what /proc shows of the threads of this process, here or in a child process.
//!
//! A descriptor of /proc leads out of a new root directory, and a child that another thread forks inherits it. A
//! Landlock domain or a seccomp filter may forbid reading /proc. If the plan has one of these, a child
//! process reads /proc ([`Observer`]). It has a copy of the descriptor table, in which the descriptor of /proc stays
//! open; this process closes its own before any thread is changed.

// # Safety
//
// Each block makes one call, with numbers, strings, or memory that is as long as said. The child of a process with several
// threads makes the calls of `perform` too, so it neither allocates nor locks.
#![allow(unsafe_code)]

mod observer;

use std::ffi::{CStr, c_int, c_long};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libpsx::process::{Capability, CapabilitySet};
use rustix::fs::{AtFlags, PROC_SUPER_MAGIC};

use self::observer::Observer;
pub(crate) use self::observer::may_ask_under;
use crate::status::{Place, field, identify};

/// The time after the deadline of the stop in which everything is read. The child ends then at the latest.
const READING: Duration = Duration::from_secs(300);
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

/// The files and links of a thread in /proc that are read. A request names one by its place in this list.
const ITEMS: [&str; 7] = ["status", "root", "cwd", "ns/net", "ns/uts", "ns/ipc", "ns/cgroup"];
const STATUS: u32 = 0;

/// One step of reading. Each opens an item or fills the data.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Step {
    /// Goes back to the first entry of the directory.
    Rewind,
    /// Reads directory entries into the data.
    List,
    /// Opens the item of the thread.
    Open,
    /// Reads from the open file into the data.
    Read,
    /// Writes device and inode number of the item, or of the target of the link, into the data.
    Identify,
}

impl Tasks {
    /// Opens the directory, and checks that it belongs to procfs and to this process. Returns `None` if there is none.
    pub(crate) fn open() -> Option<Self> {
        let tasks = OwnedFd::from(File::open("/proc/self/task").ok()?);
        if rustix::fs::fstatfs(&tasks).ok()?.f_type != PROC_SUPER_MAGIC {
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

    /// Lets a child process read from now on. Returns `None` if no child process could be made, or if it does not answer:
    /// a filter that the program has already may kill it for one of its calls.
    ///
    /// `keep` are the capabilities that this process will keep. The child has no others but CAP_SYS_PTRACE, which links
    /// need. `deadline` is the deadline of the stop.
    pub(crate) fn outside(self, keep: CapabilitySet, deadline: Duration) -> Option<Self> {
        let Reader::Here(hand) = self.reader else { return Some(self) };
        let life = deadline.saturating_add(READING);
        let observer = Observer::start(&hand.tasks, keep | Capability::SYS_PTRACE, life)?;
        let mut found = Self { reader: Reader::Outside(observer), ..self };
        // Each call that reads is tried once. Its result does not matter yet.
        let own = found.own;
        let _ = (found.own_status(), found.list(), found.place(own, "cwd"));
        found.answers().then_some(found)
    }

    /// Returns whether the child process has answered each request.
    fn answers(&self) -> bool {
        match &self.reader {
            Reader::Here(_) => true,
            Reader::Outside(observer) => !observer.lost,
        }
    }

    /// Returns the names of the threads, which are their ids in the PID namespace of the mount. If a thread ends
    /// meanwhile, another living thread may be missing.
    pub(crate) fn list(&mut self) -> io::Result<Vec<i32>> {
        self.step(Step::Rewind, 0, STATUS, &mut |_| ())?;
        let mut names = Vec::new();
        while self.step(Step::List, 0, STATUS, &mut |records| collect_names(records, &mut names))?
            > 0
        {}
        Ok(names)
    }

    /// Returns the file `status` of a thread.
    pub(crate) fn status(&mut self, name: i32) -> io::Result<Vec<u8>> {
        self.step(Step::Open, name, STATUS, &mut |_| ())?;
        let mut text = Vec::new();
        while self.step(Step::Read, name, STATUS, &mut |read| text.extend_from_slice(read))? > 0 {}
        Ok(text)
    }

    /// Returns the file `status` of the calling thread.
    pub(crate) fn own_status(&mut self) -> io::Result<Vec<u8>> {
        self.status(self.own)
    }

    /// Returns the target of a thread's link, which is one of [`ITEMS`].
    pub(crate) fn place(&mut self, name: i32, link: &str) -> io::Result<Place> {
        let mut items = (0..).zip(ITEMS);
        let item = items.find_map(|(number, item)| (item == link).then_some(number));
        let item = item.ok_or(io::ErrorKind::InvalidInput)?;
        let mut place = (0, 0);
        self.step(Step::Identify, name, item, &mut |read| {
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
    fn step(
        &mut self,
        step: Step,
        name: i32,
        item: u32,
        use_it: &mut dyn FnMut(&[u8]),
    ) -> io::Result<usize> {
        let request = Request { step, thread: name.unsigned_abs(), item };
        if let (Step::Open, Reader::Here(hand)) = (step, &mut self.reader) {
            // The descriptor table may be full.
            hand.file = None;
        }
        let mut buffer;
        let (result, data) = match &mut self.reader {
            Reader::Here(hand) => {
                buffer = [0; DATA];
                let file = hand.file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
                // SAFETY: the buffer is as long as said.
                let result =
                    unsafe { perform(request, hand.tasks.as_raw_fd(), file, buffer.as_mut_ptr()) };
                if step == Step::Open && result >= 0 {
                    // SAFETY: it was just opened.
                    hand.file = Some(unsafe { OwnedFd::from_raw_fd(result as RawFd) });
                }
                (result, buffer.as_slice())
            }
            Reader::Outside(observer) => observer.ask(request)?,
        };
        let length =
            usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(number_of(result)))?;
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

/// A request, in memory of the process that serves it.
#[derive(Clone, Copy)]
struct Request {
    step: Step,
    /// The name of the thread.
    thread: u32,
    /// The place in [`ITEMS`].
    item: u32,
}

impl Request {
    /// Checks the number of the step. [`path`](Self::path) checks the item.
    fn of_numbers(step: u32, thread: u32, item: u32) -> Option<Self> {
        let all = [Step::Rewind, Step::List, Step::Open, Step::Read, Step::Identify];
        let step = all.into_iter().find(|&known| known as u32 == step)?;
        Some(Self { step, thread, item })
    }

    /// Returns the path of the item, relative to the directory of tasks, as a string with its NUL: `4242/status`.
    fn path(self) -> Option<[u8; 32]> {
        let item = ITEMS.get(self.item as usize)?;
        let digits = (0..10u32).rev().map(|place| (place, self.thread / 10u32.pow(place) % 10));
        let digits = digits.skip_while(|&(place, digit)| digit == 0 && place > 0);
        let digits = digits.map(|(_, digit)| b'0'.wrapping_add(digit as u8));
        let mut path = [0; 32];
        for (place, byte) in path.iter_mut().zip(digits.chain([b'/']).chain(item.bytes())) {
            *place = byte;
        }
        Some(path)
    }
}

/// Converts an argument to a full word.
const NONE: c_long = 0;

/// Performs one request with async-signal-safe calls. Returns the result of the system call: the number of bytes read, a
/// descriptor, or an error as a negative number. `Identify` returns the number of bytes that it has written.
///
/// # Safety
/// `data` has room for [`DATA`] bytes.
unsafe fn perform(request: Request, tasks: c_int, file: c_int, data: *mut u8) -> isize {
    let Some(path) = request.path() else { return failure(libc::EINVAL) };
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return failure(libc::EINVAL) };
    let name = path.as_ptr();
    let value = match request.step {
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
            // SAFETY: the directory stays open in this function.
            let directory = unsafe { BorrowedFd::borrow_raw(tasks) };
            let (device, inode) = match identify(directory, path, AtFlags::empty()) {
                Ok(place) => place,
                Err(errno) => return failure(errno.raw_os_error()),
            };
            let [first, second] = [device, inode].map(u64::to_ne_bytes);
            // SAFETY: the data has room for two numbers.
            unsafe { data.cast::<[u8; 8]>().write(first) };
            // SAFETY: it is within the data.
            let after = unsafe { data.cast::<[u8; 8]>().add(1) };
            // SAFETY: the data has room for the second number too.
            unsafe { after.write(second) };
            16
        }
    };
    if value < 0 {
        // This only reads errno.
        let number = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return failure(number.max(1));
    }
    value as isize
}

/// Returns the result of a call that failed with this error number. (`isize` has the size of a register, 32 bits at least.)
fn failure(number: i32) -> isize {
    (number as isize).wrapping_neg()
}

/// Returns the error number of a result. The result may be any number, because a thread of the parent can write to the
/// shared page.
fn number_of(result: isize) -> i32 {
    i32::try_from(result.wrapping_neg()).unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_the_directory_of_tasks() {
        let path = |thread, item| {
            let request = Request { step: Step::Open, thread, item };
            let bytes = request.path()?;
            let text = std::ffi::CStr::from_bytes_until_nul(&bytes).unwrap();
            Some(text.to_str().unwrap().to_owned())
        };
        assert_eq!(path(4242, 0).unwrap(), "4242/status");
        // An empty name would make the path absolute.
        assert_eq!(path(0, 1).unwrap(), "0/root");
        assert_eq!(path(u32::MAX, 6).unwrap(), "4294967295/ns/cgroup");
        assert_eq!(path(1_000_000_000, 2).unwrap(), "1000000000/cwd");
        assert_eq!(path(1, ITEMS.len() as u32), None);
        assert!(Request::of_numbers(Step::Identify as u32, 0, 0).is_some());
        for step in [Step::Identify as u32 + 1, u32::MAX] {
            assert!(Request::of_numbers(step, 0, 0).is_none(), "{step}");
        }
    }
}
