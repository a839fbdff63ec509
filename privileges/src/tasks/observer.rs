//! The child process that reads /proc for this one, and the protocol between the two.
//!
//! After the stop the child has more privilege than this process: other ids, the old root directory, no Landlock domain.
//! Any thread of this process can write to the memory that the two share, and so ask the child, or change its answers. So
//! a request consists of numbers: a step, a thread, and one of [`ITEMS`](super::ITEMS). The child copies them, and makes the
//! path in memory of its own. It can be made to read these items of threads of this process, and nothing else.

// # Safety
//
// `Observer` owns one shared mapping, `Page`. `turn` says which of the two processes may touch the data. The child does
// not rely on it: it reads the request once, by atomic loads, and only writes the data.
// The child of a process with several threads makes async-signal-safe calls only: it neither allocates nor locks.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicIsize, AtomicU32, Ordering};
use std::time::Duration;

use libpsx::process::{CapabilitySet, CapabilitySets};

use super::{DATA, NONE, Request, Step, perform};
use crate::filter::needed_outside;

/// The time in which the child process must answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the child looks whether its parent is alive.
const LOOK: Duration = Duration::from_millis(500);
/// How long this process waits between two looks whether the child has ended.
const GLANCE: Duration = Duration::from_micros(100);
/// How long this process waits for an answer before it looks whether the child has ended.
const ANSWER: Duration = Duration::from_millis(10);

/// Which of the two processes may use the page.
const REST: u32 = 0;
const ASKED: u32 = 1;
const END: u32 = 2;

/// The memory that the two processes share. Every thread of the parent can write to it at any time.
#[repr(C)]
struct Page {
    turn: AtomicU32,
    /// The request: the parent writes it, and the child reads it.
    step: AtomicU32,
    thread: AtomicU32,
    item: AtomicU32,
    /// The answer: the child writes it, and the parent reads it.
    result: AtomicIsize,
    data: UnsafeCell<[u8; DATA]>,
}

/// A child process that reads /proc for this one.
///
/// clone(2) makes it without an exit signal: the program gets no SIGCHLD, and its own wait(2) does not see this child.
/// The child keeps the ids of before, outside of the new root directory. Of the capabilities it keeps those that the
/// process will keep, and CAP_SYS_PTRACE. No process without CAP_SYS_PTRACE can trace it (PR_SET_DUMPABLE(2const)).
///
/// SIGSYS stays as the calling thread has it. So a handler by which the program answers trapped calls answers those of the
/// child too, and runs there beside no other thread, with the capabilities of the child. If it waits for another thread, the
/// child does not answer, and is given up.
///
/// It ends when the parent asks for it, or within [`LOOK`] after the end of the parent. The kernel does not send the
/// parent-death signal to a process that the parent may no longer signal, so the child looks by getppid(2) too. A thread
/// of the parent can keep it busy; then it ends when its time is over.
pub(super) struct Observer {
    page: NonNull<Page>,
    /// The child, or 0 if it has ended.
    pid: i32,
    /// The child no longer answers.
    pub(super) lost: bool,
}

impl Observer {
    pub(super) fn start(tasks: &OwnedFd, keep: CapabilitySet, life: Duration) -> Option<Self> {
        let until = now()?.saturating_add(life);
        let size = size_of::<Page>();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: it makes a mapping of its own.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
        let page = NonNull::new(at.cast::<Page>()).filter(|_| at != libc::MAP_FAILED)?;
        // In the child no handler of the program may run, except that of SIGSYS: a trap kills if SIGSYS is blocked.
        // SAFETY: it is a structure of integers.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: it is a structure of integers.
        let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: it fills the set.
        unsafe { libc::sigfillset(&mut all) };
        // SAFETY: it changes the set.
        unsafe { libc::sigdelset(&mut all, libc::SIGSYS) };
        // SAFETY: both are sets.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut before) };
        let parent = std::process::id() as i32;
        let service = Service { tasks: tasks.as_raw_fd(), parent, keep, until };
        // Like fork(2), without an exit signal.
        // SAFETY: the child continues on a copy of this stack, and never returns from `serve`.
        let pid = unsafe { libc::syscall(libc::SYS_clone, NONE, NONE, NONE, NONE, NONE) } as i32;
        if pid == 0 {
            // SAFETY: this is the child.
            unsafe { serve(page, service) }
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
    pub(super) fn ask(&mut self, request: Request) -> io::Result<(isize, &[u8])> {
        let lost = || io::Error::other("the process that reads /proc does not answer");
        if self.lost {
            return Err(lost());
        }
        // SAFETY: the mapping is there as long as `self`.
        let page = unsafe { self.page.as_ref() };
        // Relaxed: the store to `turn` publishes them.
        page.step.store(request.step as u32, Ordering::Relaxed);
        page.thread.store(request.thread, Ordering::Relaxed);
        page.item.store(request.item, Ordering::Relaxed);
        // Release: the child sees the request. Its partner is the load in `serve`.
        page.turn.store(ASKED, Ordering::Release);
        wake(&page.turn);
        // The filter of the plan may refuse to tell the time, so the waits are counted.
        let mut left = PATIENCE.as_micros();
        // Acquire: this process sees the answer that the child wrote. Its partner is the store in `serve`.
        while page.turn.load(Ordering::Acquire) == ASKED {
            if left == 0 || self.has_ended().unwrap_or(false) {
                self.lost = true;
                return Err(lost());
            }
            // A wait that a signal ends early counts as one of a microsecond.
            let spent = if sleep(&page.turn, ASKED, ANSWER) { ANSWER.as_micros() } else { 1 };
            left = left.saturating_sub(spent);
        }
        // SAFETY: it is this process's turn, so the child does not write.
        let data = unsafe { &*page.data.get() };
        Ok((page.result.load(Ordering::Relaxed), data))
    }
}

impl Observer {
    /// Returns whether the child has ended. The kernel forgets it then. An earlier filter may refuse the answer.
    fn has_ended(&mut self) -> io::Result<bool> {
        if self.pid <= 0 {
            return Ok(true);
        }
        let (mut status, options) = (0, libc::__WALL | libc::WNOHANG);
        // SAFETY: the kernel writes the status.
        let found = unsafe { libc::syscall(libc::SYS_wait4, self.pid, &mut status, options, NONE) };
        let ended = match found {
            0 => false,
            1.. => true,
            // Another thread has waited for all kinds of children.
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ECHILD) => true,
                error => return Err(error),
            },
        };
        if ended {
            self.pid = 0;
        }
        Ok(ended)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // SAFETY: the mapping is there as long as `self`.
        let page = unsafe { self.page.as_ref() };
        let mut left = PATIENCE.as_micros();
        loop {
            // Another thread may have overwritten it, so it is stored again each time.
            page.turn.store(END, Ordering::Release);
            wake(&page.turn);
            if self.has_ended().unwrap_or(true) || self.lost || left == 0 {
                break;
            }
            let spent =
                if sleep(&AtomicU32::new(ASKED), ASKED, GLANCE) { GLANCE.as_micros() } else { 1 };
            left = left.saturating_sub(spent);
        }
        // SAFETY: no reference to the mapping is left.
        unsafe { libc::munmap(self.page.as_ptr().cast(), size_of::<Page>()) };
    }
}

/// What the child knows, in its own copy of the memory.
#[derive(Clone, Copy)]
struct Service {
    /// The directory of the parent's tasks.
    tasks: c_int,
    parent: i32,
    /// The capabilities that the child keeps, if it has them.
    keep: CapabilitySet,
    /// When the child ends, by the clock of [`now`].
    until: Duration,
}

impl Service {
    /// Returns whether the parent is dead. (In another PID namespace the parent has the number 0.)
    fn is_orphaned(&self) -> bool {
        // SAFETY: it touches no memory.
        let now = unsafe { libc::syscall(libc::SYS_getppid) } as i32;
        now != self.parent && now != 0
    }

    fn is_over(&self) -> bool {
        self.is_orphaned() || now().is_none_or(|now| now >= self.until)
    }
}

/// Serves requests in the child process until the parent asks it to end.
///
/// # Safety
/// This is the child, and `page` the mapping that it shares with its parent.
unsafe fn serve(page: NonNull<Page>, service: Service) -> ! {
    // SAFETY: it takes numbers.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_long) };
    // SAFETY: it takes numbers.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, NONE, NONE, NONE, NONE) };
    // The parent may be dead already.
    if service.is_orphaned() || !keep_only(service.keep) {
        end();
    }
    let tasks = service.tasks;
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
        if service.is_over() {
            end();
        }
        // Acquire: the child sees the request that the parent wrote. Its partner is the store in `ask`.
        match page.turn.load(Ordering::Acquire) {
            ASKED => {}
            REST => {
                sleep(&page.turn, REST, LOOK);
                continue;
            }
            _ => end(),
        }
        // Each number is read once, so what is checked is what is performed.
        let [step, thread, item] =
            [&page.step, &page.thread, &page.item].map(|number| number.load(Ordering::Relaxed));
        let Some(request) = Request::of_numbers(step, thread, item) else { end() };
        if request.step == Step::Open && file >= 0 {
            // SAFETY: it was opened here.
            unsafe { libc::syscall(libc::SYS_close, file) };
            file = -1;
        }
        // SAFETY: the data has this room.
        let result = unsafe { perform(request, tasks, file, page.data.get().cast()) };
        if request.step == Step::Open && result >= 0 {
            file = result as c_int;
        }
        page.result.store(result, Ordering::Relaxed);
        // This fails if the parent does not wait any more. Release: its partner is the load in `ask`.
        let _ = page.turn.compare_exchange(ASKED, REST, Ordering::Release, Ordering::Relaxed);
        wake(&page.turn);
    }
}

/// Drops the capabilities of this process but these. Returns whether that has succeeded.
fn keep_only(keep: CapabilitySet) -> bool {
    const VERSION_3: i32 = 0x2008_0522;
    let Ok(now) = CapabilitySets::current() else { return false };
    let bits = (now.permitted & keep).bits();
    let (low, high) = (bits as u32, (bits >> 32) as u32);
    let (header, data) = ([VERSION_3, 0], [low, low, 0, high, high, 0]);
    // SAFETY: the kernel reads the header and six words.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) == 0 }
}

fn end() -> ! {
    loop {
        // SAFETY: it takes a number.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    }
}

/// Seconds and nanoseconds, as futex(2) and clock_gettime(2) have them by these numbers. The C library's `timespec` may have a
/// 64-bit time, which is another call in a 32-bit program.
type Time = [c_long; 2];

/// Returns the monotonic time, or `None` if a filter refuses to tell it. std's clock would panic then.
fn now() -> Option<Duration> {
    let mut time: Time = [0; 2];
    let clock = libc::CLOCK_MONOTONIC;
    // SAFETY: the kernel writes the two words.
    let told = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &mut time) } == 0;
    told.then(|| Duration::new(time[0] as u64, time[1] as u32))
}

/// Sleeps while the word has this value. May return at any time. Returns whether the time is over.
fn sleep(word: &AtomicU32, value: u32, time: Duration) -> bool {
    // Both fit: the second number is below 1,000,000,000, and no wait here is a long one.
    let time: Time = [time.as_secs() as c_long, time.subsec_nanos() as c_long];
    let (word, wait) = (word.as_ptr(), libc::FUTEX_WAIT);
    // SAFETY: the word and the time are there until it returns.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word, wait, value, &time, 0, 0) } == 0;
    !woken && io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT)
}

fn wake(word: &AtomicU32) {
    // SAFETY: the word is there until it returns.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1, 0, 0, 0) };
}

/// Returns whether a filter allows the calls by which this process asks the child and waits for its end.
pub(crate) fn may_ask_under(program: &[libpsx::process::Instruction]) -> bool {
    needed_outside(program)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use libpsx::process::Capability;

    use super::super::{ITEMS, Reader, Tasks};
    use super::*;
    use crate::status::field;

    const LONG: Duration = Duration::from_secs(60);

    /// Starts a child that reads for this process, and makes it serve one request.
    fn outside(keep: CapabilitySet) -> Tasks {
        let mut tasks = Tasks::open().unwrap().outside(keep, LONG).unwrap();
        assert!(tasks.own_status().unwrap().starts_with(b"Name:"));
        tasks
    }

    fn observer(tasks: &Tasks) -> &Observer {
        match &tasks.reader {
            Reader::Outside(observer) => observer,
            Reader::Here(_) => panic!("no child process reads"),
        }
    }

    fn status_of(pid: i32) -> String {
        std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
    }

    #[test]
    fn here_and_outside_show_the_same() {
        let mut here = Tasks::open().unwrap();
        let mut outside = outside(CapabilitySet::all());
        let own = here.own();
        for link in &ITEMS[1..] {
            assert_eq!(here.place(own, link).unwrap(), outside.place(own, link).unwrap(), "{link}");
        }
        assert!(outside.list().unwrap().contains(&own));
        assert!(outside.place(own, "exe").is_err());
    }

    #[test]
    fn the_child_has_few_capabilities_and_cannot_be_traced() {
        let now = CapabilitySets::current().unwrap().permitted;
        let tasks = outside(Capability::CHOWN.into());
        let pid = observer(&tasks).pid;
        let wanted = now & (Capability::CHOWN | Capability::SYS_PTRACE);
        let status = status_of(pid);
        for name in ["CapPrm", "CapEff"] {
            let hex = field(status.as_bytes(), name.as_bytes()).unwrap();
            let bits = u64::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
            assert_eq!(CapabilitySet::from_bits(bits), wanted, "{name}");
        }
        // A file of a process that cannot be dumped belongs to root.
        let owner = std::fs::metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
    }

    #[test]
    fn a_dead_child_is_noticed_and_leaves_no_zombie() {
        let mut tasks = outside(CapabilitySet::EMPTY);
        let pid = observer(&tasks).pid;
        // SAFETY: it is this process's own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
        let begun = Instant::now();
        // The child may answer before it dies.
        while tasks.own_status().is_ok() {}
        assert!(begun.elapsed() < PATIENCE);
        assert!(!tasks.answers());
        drop(tasks);
        assert_eq!(status_of(pid), "");
    }

    /// Threads of this process keep the child busy. They do not stop this process from going on. By chance the child
    /// sees the end all the same, so this is done several times.
    #[test]
    fn the_end_does_not_wait_for_a_busy_child() {
        (0..10).for_each(|_| end_a_busy_child());
    }

    fn end_a_busy_child() {
        let tasks = outside(CapabilitySet::EMPTY);
        let page = observer(&tasks).page.as_ptr() as usize;
        let pid = observer(&tasks).pid;
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        // A second mapping of the page, because this process gives its own up.
        let flags = libc::MREMAP_MAYMOVE;
        let at = page as *mut libc::c_void;
        // SAFETY: a length of 0 leaves the old mapping of shared memory, and makes another one.
        let again = unsafe { libc::mremap(at, 0, size_of::<Page>(), flags) };
        assert_ne!(again, libc::MAP_FAILED);
        let busy: Vec<_> = (0..4)
            .map(|_| {
                let (address, watched) = (again as usize, over.clone());
                std::thread::spawn(move || {
                    // SAFETY: nothing unmaps it, and a word is all that is used.
                    let turn = unsafe { &*(address as *const AtomicU32) };
                    while !watched.load(Ordering::Relaxed) {
                        turn.store(ASKED, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20));
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let hangs = ended.recv_timeout(PATIENCE * 6).is_err();
            if hangs {
                // SAFETY: it is this process's own child, which has not been waited for.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            hangs
        });
        drop(tasks);
        done.send(()).unwrap();
        over.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!watchdog.join().unwrap());
    }

    /// The kernel sends no parent-death signal from a process of another user.
    #[test]
    fn the_child_ends_with_a_parent_that_has_become_another_user() {
        // SAFETY: it touches no memory.
        if unsafe { libc::geteuid() } != 0 {
            println!(
                "SKIPPED: the_child_ends_with_a_parent_that_has_become_another_user needs root"
            );
            return;
        }
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: it makes a mapping of its own.
        let shared = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        assert_ne!(shared, libc::MAP_FAILED);
        // SAFETY: the mapping stays.
        let pid = unsafe { &*shared.cast::<AtomicU32>() };
        // SAFETY: glibc allows everything that is done in this child.
        let parent = unsafe { libc::fork() };
        if parent == 0 {
            // The test runner would catch a panic of this process, which would end with 0.
            let done = std::panic::catch_unwind(|| {
                let tasks = outside(CapabilitySet::EMPTY);
                pid.store(observer(&tasks).pid as u32, Ordering::Relaxed);
                // SAFETY: it takes numbers.
                let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
                assert_eq!(changed, 0, "{}", io::Error::last_os_error());
                // The end of the observer would end the child.
                std::mem::forget(tasks);
            });
            // SAFETY: it takes a number.
            unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) };
        }
        let mut status = 0;
        // SAFETY: the kernel writes the status.
        assert_eq!(unsafe { libc::waitpid(parent, &mut status, 0) }, parent);
        assert_eq!(status, 0);
        let pid = pid.load(Ordering::Relaxed) as i32;
        assert_ne!(pid, 0, "there is no child");
        let lives = || {
            status_of(pid).lines().any(|line| line.starts_with("State:\t") && !line.contains('Z'))
        };
        let until = Instant::now() + PATIENCE * 6;
        while lives() {
            assert!(Instant::now() < until, "the child lives on: {}", status_of(pid));
            std::thread::sleep(LOOK);
        }
    }
}
