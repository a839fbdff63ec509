//! A thread waits for another thread in a way that no signal ends, or with our signal blocked (P5). The other thread has to
//! run in between, and the call is still performed.
#![allow(unsafe_code)]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use libpsx::{Error, UnreachableReason};
use support::{block_all, header, isolated, program, set_mask, set_slack, slack, until, watchdog};

const WATCHDOG: Duration = Duration::from_secs(100);
const PAGES: usize = 20_000;
/// None of the CPUs of libpsx has larger pages.
const LARGEST_PAGE: usize = 64 << 10;

/// userfaultfd(2): the structures and the numbers of ioctl_userfaultfd(2).
mod userfault {
    #[repr(C)]
    pub(super) struct Api {
        pub(super) api: u64,
        pub(super) features: u64,
        pub(super) ioctls: u64,
    }
    #[repr(C)]
    pub(super) struct Register {
        pub(super) start: u64,
        pub(super) len: u64,
        pub(super) mode: u64,
        pub(super) ioctls: u64,
    }
    #[repr(C)]
    pub(super) struct Copy {
        pub(super) dst: u64,
        pub(super) src: u64,
        pub(super) len: u64,
        pub(super) mode: u64,
        pub(super) copy: i64,
    }
    pub(super) const API: u64 = 0xc018_aa3f;
    pub(super) const REGISTER: u64 = 0xc020_aa00;
    pub(super) const COPY: u64 = 0xc028_aa03;
}

static SERVED: AtomicUsize = AtomicUsize::new(0);

/// Starts threads that wait in read(2) for one page after the other, and sleep after each page, and a thread that serves
/// one page at a time, after a while.
fn pages_that_come_after(time: Duration, readers: usize, sleep: Duration) -> bool {
    // SAFETY: userfaultfd touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } as i32;
    if fd < 0 {
        support::skipped(format!("userfaultfd: {}", std::io::Error::last_os_error()));
        return false;
    }
    let mut api = userfault::Api { api: 0xaa, features: 0, ioctls: 0 };
    // SAFETY: the kernel reads and writes the structure.
    assert_eq!(unsafe { libc::ioctl(fd, userfault::API as _, &raw mut api) }, 0);
    // SAFETY: sysconf touches no memory.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    assert!(size <= LARGEST_PAGE, "a page has {size} bytes");
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let none = std::ptr::null_mut();
    // SAFETY: the call creates a new mapping.
    let area = unsafe { libc::mmap(none, PAGES * size, protection, flags, -1, 0) } as usize;
    assert_ne!(area, libc::MAP_FAILED as usize);
    let mut register =
        userfault::Register { start: area as u64, len: (PAGES * size) as u64, mode: 1, ioctls: 0 };
    // SAFETY: the kernel reads and writes the structure.
    assert_eq!(unsafe { libc::ioctl(fd, userfault::REGISTER as _, &raw mut register) }, 0);
    std::thread::spawn(move || {
        static CONTENT: [u64; LARGEST_PAGE / 8] = [0; LARGEST_PAGE / 8];
        loop {
            // struct uffd_msg: the address is at byte 16.
            let mut message = [0u64; 4];
            // SAFETY: the kernel writes at most 32 bytes.
            let read = unsafe { libc::read(fd, message.as_mut_ptr().cast(), 32) };
            if read != 32 {
                continue;
            }
            std::thread::sleep(time);
            let mut copy = userfault::Copy {
                dst: message[2] & !(size as u64 - 1),
                src: CONTENT.as_ptr() as u64,
                len: size as u64,
                mode: 0,
                copy: 0,
            };
            // SAFETY: the kernel reads a static, and writes to pages of the area.
            unsafe { libc::ioctl(fd, userfault::COPY as _, &raw mut copy) };
            SERVED.fetch_add(1, SeqCst);
        }
    });
    for reader in 0..readers {
        std::thread::spawn(move || {
            // SAFETY: the path is a string.
            let zero = unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY) };
            for page in (reader..PAGES).step_by(readers) {
                let page = (area + page * size) as *mut libc::c_void;
                // SAFETY: the kernel writes to the area, which no other code uses.
                unsafe { libc::read(zero, page, 10) };
                // SAFETY: nothing reads the page again. It would take memory.
                unsafe { libc::madvise(page, size, libc::MADV_DONTNEED) };
                std::thread::sleep(sleep);
            }
            loop {
                std::thread::park();
            }
        });
    }
    until(|| SERVED.load(SeqCst) > 0);
    true
}

fn calls_beside_pages(time: Duration) {
    // A call takes at most a second; this is twice as much.
    let deadline = watchdog(Duration::from_secs(2));
    calls_beside_readers((1, time, Duration::ZERO), deadline, Duration::from_millis(1));
}

/// Makes calls with this deadline and this time in between, beside so many readers.
fn calls_beside_readers(
    (readers, time, sleep): (usize, Duration, Duration),
    deadline: Duration,
    gap: Duration,
) {
    if !pages_that_come_after(time, readers, sleep) {
        return;
    }
    let calls = 10 * readers;
    for value in 1..=calls {
        let begin = Instant::now();
        let call = slack(value).deadline(deadline);
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let report = unsafe { call.execute_with_report() }.unwrap();
        assert!(report.threads() >= 3);
        assert_eq!(report.divergent(), 0);
        let (took, rounds) = (begin.elapsed(), report.attempts());
        println!("{time:?} a page: {took:?}, {rounds} rounds, {:?} still", report.max_pause());
        std::thread::sleep(gap);
    }
    println!("{} pages", SERVED.load(SeqCst));
}

#[test]
fn a_page_after_1_ms() {
    isolated("a_page_after_1_ms", WATCHDOG, || calls_beside_pages(Duration::from_millis(1)));
}

#[test]
fn a_page_after_5_ms() {
    isolated("a_page_after_5_ms", WATCHDOG, || calls_beside_pages(Duration::from_millis(5)));
}

#[test]
fn a_page_after_30_ms() {
    isolated("a_page_after_30_ms", WATCHDOG, || calls_beside_pages(Duration::from_millis(30)));
}

/// Calls beside readers that come back to the kernel 60 ms after each page, which takes 20 ms.
fn calls_beside_readers_that_sleep(readers: usize) {
    let times = (readers, Duration::from_millis(20), Duration::from_millis(60));
    calls_beside_readers(times, watchdog(Duration::from_secs(10)), Duration::from_millis(47));
}

/// If all pauses between the rounds had about this length, one of the readers would be in the kernel whenever a round
/// begins.
#[test]
fn readers_in_step_with_the_pauses() {
    isolated("readers_in_step_with_the_pauses", WATCHDOG, || calls_beside_readers_that_sleep(3));
}

/// At any moment some reader waits, until those that were late stay for the next rounds.
#[test]
fn more_readers_than_pages_come() {
    isolated("more_readers_than_pages_come", WATCHDOG, || calls_beside_readers_that_sleep(6));
}

/// Threads take a lock with all signals blocked, and unblock them while they own it (as the Go runtime does for a signal
/// that a thread of C takes). So the owner arrives late, and the others wait for it: if late threads stayed in every pause,
/// one thread would get the lock in each, while the others come back to it.
#[test]
fn owners_of_a_lock_that_are_late() {
    isolated("owners_of_a_lock_that_are_late", WATCHDOG, || {
        static LOCK: Mutex<()> = Mutex::new(());
        static TURNS: AtomicUsize = AtomicUsize::new(0);
        for _ in 0..6 {
            std::thread::spawn(|| {
                loop {
                    std::thread::sleep(Duration::from_millis(20));
                    block_all();
                    let owned = LOCK.lock().unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                    set_mask(0);
                    drop(owned);
                    TURNS.fetch_add(1, SeqCst);
                }
            });
        }
        until(|| TURNS.load(SeqCst) > 0);
        let mut most = (Duration::ZERO, 0);
        for value in 1..=300 {
            let begin = Instant::now();
            let call = slack(value).deadline(watchdog(Duration::from_secs(10)));
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let report = unsafe { call.execute_with_report() }.unwrap();
            assert_eq!(report.divergent(), 0);
            most = most.max((begin.elapsed(), report.attempts()));
            std::thread::sleep(Duration::from_millis(3));
        }
        let turns = TURNS.load(SeqCst);
        println!("{turns} turns; the longest call took {:?} and {} rounds", most.0, most.1);
    });
}

/// Starts a thread that makes a call which another program has to allow: only a fatal signal ends the wait for the
/// answer. Returns the thread's tid, and the descriptor on which the calls are reported. Records a skipped test and
/// returns `None` if the kernel has no such filter.
fn supervised() -> Option<(i32, i32)> {
    static LISTENER: AtomicI32 = AtomicI32::new(-2);
    static TID: AtomicI32 = AtomicI32::new(0);
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    std::thread::spawn(|| {
        let notify =
            program(&[libc::SYS_getppid], libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        let header = header(&notify);
        // SAFETY: gettid touches no memory.
        TID.store(unsafe { libc::gettid() }, SeqCst);
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let (set, flags) = (
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV,
        );
        // SAFETY: the kernel reads the program.
        let fd = unsafe { libc::syscall(libc::SYS_seccomp, set, flags, &raw const header) };
        LISTENER.store(fd as i32, SeqCst);
        if fd < 0 {
            return;
        }
        loop {
            // SAFETY: getppid touches no memory.
            unsafe { libc::getppid() };
        }
    });
    until(|| LISTENER.load(SeqCst) != -2);
    let listener = LISTENER.load(SeqCst);
    if listener < 0 {
        support::skipped("this kernel has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
        return None;
    }
    Some((TID.load(SeqCst), listener))
}

/// Receives one call. Returns its id.
fn receive(listener: i32) -> Option<u64> {
    // struct seccomp_notif begins with the id.
    let mut request = [0u64; 10];
    // SAFETY: the kernel writes no more than the structure.
    let done =
        unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, request.as_mut_ptr()) };
    (done == 0).then_some(request[0])
}

/// Allows a call.
fn allow(listener: i32, id: u64) {
    const CONTINUE: u64 = 1;
    // struct seccomp_notif_resp.
    let answer = [id, 0, CONTINUE << 32];
    // SAFETY: the kernel reads no more than the structure.
    unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, answer.as_ptr()) };
}

/// Another thread of the process allows a thread's calls, one by one.
#[test]
fn a_supervisor_in_the_same_process() {
    isolated("a_supervisor_in_the_same_process", WATCHDOG, || {
        static ANSWERS: AtomicUsize = AtomicUsize::new(0);
        let Some((_, listener)) = supervised() else { return };
        std::thread::spawn(move || {
            loop {
                let Some(id) = receive(listener) else { continue };
                std::thread::sleep(Duration::from_millis(3));
                allow(listener, id);
                ANSWERS.fetch_add(1, SeqCst);
            }
        });
        until(|| ANSWERS.load(SeqCst) > 0);
        for value in 1..=20 {
            let report = set_slack(value).unwrap();
            assert_eq!(report.divergent(), 0);
            println!("{} rounds, {:?} still", report.attempts(), report.max_pause());
        }
        println!("{} answers", ANSWERS.load(SeqCst));
    });
}

/// The call is not answered. The first signal makes the wait uninterruptible, and the error says that it is.
#[test]
fn a_supervisor_that_does_not_answer() {
    isolated("a_supervisor_that_does_not_answer", WATCHDOG, || {
        let Some((tid, listener)) = supervised() else { return };
        let id = receive(listener).unwrap();
        // A thread that gets no CPU takes the signal late.
        let call = slack(1001).deadline(watchdog(Duration::from_millis(300)));
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let error = unsafe { call.execute_with_report() }.unwrap_err();
        let Error::Unreachable(threads) = &error else { panic!("{error}") };
        let [thread] = threads.threads() else { panic!("{error}") };
        assert_eq!((thread.tid(), thread.state()), (tid, 'D'), "{error}");
        assert_eq!(thread.reason(), UnreachableReason::Uninterruptible, "{error}");
        std::thread::spawn(move || {
            allow(listener, id);
            loop {
                receive(listener).into_iter().for_each(|id| allow(listener, id));
            }
        });
        set_slack(1002).unwrap();
    });
}
