//! A thread that waits for another thread in a way that no signal ends (P5): the other thread has to run in
//! between, and the call is performed all the same.
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use support::{header, isolated, program, set_slack, slack, until};

const WATCHDOG: Duration = Duration::from_secs(100);
const PAGE: usize = 4096;
const PAGES: usize = 20_000;

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

/// A thread that waits in read(2) for page after page, and one that gives each page after a while.
fn pages_that_come_after(time: Duration) -> bool {
    // SAFETY: userfaultfd touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } as i32;
    if fd < 0 {
        support::skipped(format!("userfaultfd: {}", std::io::Error::last_os_error()));
        return false;
    }
    let mut api = userfault::Api { api: 0xaa, features: 0, ioctls: 0 };
    // SAFETY: the kernel reads and writes the structure.
    assert_eq!(unsafe { libc::ioctl(fd, userfault::API, &raw mut api) }, 0);
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let none = std::ptr::null_mut();
    // SAFETY: makes a mapping of its own.
    let area = unsafe { libc::mmap(none, PAGES * PAGE, protection, flags, -1, 0) } as usize;
    let mut register =
        userfault::Register { start: area as u64, len: (PAGES * PAGE) as u64, mode: 1, ioctls: 0 };
    // SAFETY: the kernel reads and writes the structure.
    assert_eq!(unsafe { libc::ioctl(fd, userfault::REGISTER, &raw mut register) }, 0);
    std::thread::spawn(move || {
        static CONTENT: [u64; PAGE / 8] = [0; PAGE / 8];
        loop {
            // struct uffd_msg: the address is at byte 16.
            let mut message = [0u64; 4];
            // SAFETY: the kernel writes so many bytes.
            let size = unsafe { libc::read(fd, message.as_mut_ptr().cast(), 32) };
            if size != 32 {
                continue;
            }
            std::thread::sleep(time);
            let mut copy = userfault::Copy {
                dst: message[2] & !(PAGE as u64 - 1),
                src: CONTENT.as_ptr() as u64,
                len: PAGE as u64,
                mode: 0,
                copy: 0,
            };
            // SAFETY: the kernel reads a static, and writes to pages of the area.
            unsafe { libc::ioctl(fd, userfault::COPY, &raw mut copy) };
            SERVED.fetch_add(1, SeqCst);
        }
    });
    std::thread::spawn(move || {
        // SAFETY: the path is a string.
        let zero = unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY) };
        for page in 0..PAGES {
            // SAFETY: the kernel writes to the area, which is nobody's.
            unsafe { libc::read(zero, (area + page * PAGE) as *mut _, 10) };
        }
        loop {
            std::thread::park();
        }
    });
    until(|| SERVED.load(SeqCst) > 0);
    true
}

fn calls_beside_pages(time: Duration) {
    if !pages_that_come_after(time) {
        return;
    }
    for value in 1..=10 {
        let begin = Instant::now();
        // A second is enough; this is twice as much.
        let call = slack(value).deadline(Duration::from_secs(2));
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let report = unsafe { call.execute_with_report() }.unwrap();
        assert!(report.threads() >= 3);
        assert_eq!(report.divergent(), 0);
        let (took, rounds) = (begin.elapsed(), report.attempts());
        println!("{time:?} a page: {took:?}, {rounds} rounds, {:?} still", report.max_pause());
        std::thread::sleep(Duration::from_millis(1));
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

/// A thread whose calls another thread of the process allows, one by one; nothing but a fatal signal ends its
/// wait for the answer.
#[test]
fn a_supervisor_in_the_same_process() {
    isolated("a_supervisor_in_the_same_process", WATCHDOG, || {
        static LISTENER: AtomicI32 = AtomicI32::new(-2);
        static ANSWERS: AtomicUsize = AtomicUsize::new(0);
        const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
        const RECEIVE: libc::c_ulong = 0xc050_2100;
        const SEND: libc::c_ulong = 0xc018_2101;
        const CONTINUE: u64 = 1;
        std::thread::spawn(|| {
            let notify = program(
                &[libc::SYS_getppid],
                libc::SECCOMP_RET_USER_NOTIF,
                libc::SECCOMP_RET_ALLOW,
            );
            let header = header(&notify);
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
            support::skipped("no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV here");
            return;
        }
        std::thread::spawn(move || {
            loop {
                // struct seccomp_notif and struct seccomp_notif_resp: both begin with the id.
                let mut request = [0u64; 10];
                // SAFETY: the kernel writes so many bytes.
                if unsafe { libc::ioctl(listener, RECEIVE, request.as_mut_ptr()) } != 0 {
                    continue;
                }
                std::thread::sleep(Duration::from_millis(3));
                let answer = [request[0], 0, CONTINUE << 32];
                // SAFETY: the kernel reads so many bytes.
                unsafe { libc::ioctl(listener, SEND, answer.as_ptr()) };
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
