//! Threads that the kernel itself starts in a process are exempt, on every kernel that has them. A user thread is never
//! taken for one of them (P1).
#![allow(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use libpsx::{Error, Report, SkipReason, UnreachableReason};
use support::{
    LONG, add_filter, all_have_filters, block_all, filter, isolated, laid_over, no_new_privs,
    prepared, proc, set_slack, skipped, slack, slack_here, sleepers, until, watchdog,
};

const WATCHDOG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// From include/linux/sched.h. The first bit was PF_VCPU before Linux 5.12, the second PF_USED_ASYNC before 6.4.
const PF_IO_WORKER: u32 = 0x10;
const PF_USER_WORKER: u32 = 0x4000;

/// The state and the flags of a thread, from /proc/TID/stat.
fn state_and_flags(tid: i32) -> Option<(u8, u32)> {
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(5)?.parse().ok()?))
}

/// Threads that block every signal but KILL and STOP, and have one of the flags. The test's own threads do not.
fn workers() -> BTreeMap<i32, u32> {
    let blocks_all =
        |tid| proc::status(tid).get("SigBlk").is_some_and(|mask| mask == "fffffffffffbfeff");
    let of = |tid| Some((tid, state_and_flags(tid)?.1));
    let mut found: BTreeMap<i32, u32> = proc::tids().into_iter().filter_map(of).collect();
    found.retain(|&tid, flags| *flags & (PF_IO_WORKER | PF_USER_WORKER) != 0 && blocks_all(tid));
    found
}

fn map(length: usize, fd: i32, offset: libc::off_t) -> usize {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: makes a mapping of its own.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, offset) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    at as usize
}

/// Makes an io_uring, and has it read from an empty pipe by a worker: an io-wq worker waits in that read for ever. With
/// SQPOLL, the ring has a thread besides, which turns without sleeping for so many milliseconds. Returns whether there
/// are io_urings here.
fn io_uring(sqpoll: bool, idle: u32) -> bool {
    const IORING_SETUP_SQPOLL: u32 = 1 << 1;
    const IORING_ENTER_SQ_WAKEUP: u32 = 1 << 1;
    const IORING_OFF_SQES: libc::off_t = 0x1000_0000;
    const IORING_OP_READ: u8 = 22;
    const IOSQE_ASYNC: u8 = 1 << 4;
    let mut pipe = [0; 2];
    // SAFETY: the kernel writes both descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // `struct io_uring_params`: flags, CPU and idle time are the words from 2 on, the offsets begin at 10.
    let mut parameters = [0u32; 30];
    parameters[2] = if sqpoll { IORING_SETUP_SQPOLL } else { 0 };
    parameters[4] = idle;
    // SAFETY: the kernel reads and writes 120 bytes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    if ring < 0 {
        skipped(format!("no io_uring: {}", std::io::Error::last_os_error()));
        return false;
    }
    let (ring, tail, array) = (ring as i32, parameters[11] as usize, parameters[16] as usize);
    let queue = map(array + 4 * parameters[0] as usize, ring, 0);
    let entries = map(64 * parameters[0] as usize, ring, IORING_OFF_SQES) as *mut u8;
    let buffer: &mut [u8] = vec![0u8; 16].leak();
    let mut entry = [0u8; 64];
    (entry[0], entry[1]) = (IORING_OP_READ, IOSQE_ASYNC);
    entry[4..8].copy_from_slice(&pipe[0].to_ne_bytes());
    entry[16..24].copy_from_slice(&(buffer.as_ptr() as u64).to_ne_bytes());
    entry[24..28].copy_from_slice(&1u32.to_ne_bytes());
    // SAFETY: the kernel does not look at the entry before the tail says that it is there.
    unsafe { entries.copy_from_nonoverlapping(entry.as_ptr(), entry.len()) };
    // SAFETY: the place of the tail, which is aligned.
    let tail = unsafe { AtomicU32::from_ptr((queue + tail) as *mut u32) };
    tail.store(1, Ordering::Release);
    let flags = if sqpoll { IORING_ENTER_SQ_WAKEUP } else { 0 };
    // SAFETY: the ring, the pipe and the buffer stay.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, 1, 0, flags, 0, 0) };
    assert!(done >= 0, "{}", std::io::Error::last_os_error());
    true
}

/// Every thread but these has the new state, these are exempt, and each has one of the reasons.
fn all_but(workers: &BTreeMap<i32, u32>, report: &Report, reasons: &[SkipReason]) {
    for tid in workers.keys() {
        let skipped = report.skipped().iter().find(|task| task.tid() == *tid);
        let skipped = skipped.unwrap_or_else(|| panic!("{tid} of {workers:x?}: {report:?}"));
        assert!(reasons.contains(&skipped.reason()), "{report:?}");
    }
    assert_eq!(report.threads() + workers.len(), proc::tids().len(), "{workers:x?} {report:?}");
}

fn io_workers_are_exempt(sqpoll: bool, idle: u32) {
    sleepers(3);
    if !io_uring(sqpoll, idle) {
        return;
    }
    let expected = if sqpoll { 2 } else { 1 };
    // Before Linux 5.12, without a backport, these threads belong to no process.
    let mut tries = 0;
    while workers().len() < expected {
        tries += 1;
        if tries > 2000 {
            skipped("the kernel's io_uring has no threads in the process");
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let workers = workers();
    for (tid, flags) in &workers {
        let call = fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).unwrap_or_default();
        println!("{tid} has flags {flags:#x}: {call}");
    }
    no_new_privs().unwrap();
    for count in 1..=10 {
        let report = add_filter(watchdog(LONG)).unwrap();
        all_but(&workers, &report, &[SkipReason::IoWorker, SkipReason::SqPoll]);
        let mut seen = proc::field_in_every_thread("Seccomp_filters");
        seen.retain(|tid, _| !workers.contains_key(tid));
        assert!(seen.values().all(|value| *value == count.to_string()), "{seen:?}");
    }
}

#[test]
fn io_wq_worker_is_exempt() {
    isolated("io_wq_worker_is_exempt", WATCHDOG, || io_workers_are_exempt(false, 0));
}

#[test]
fn sleeping_sqpoll_thread_is_exempt() {
    isolated("sleeping_sqpoll_thread_is_exempt", WATCHDOG, || io_workers_are_exempt(true, 1));
}

#[test]
fn running_sqpoll_thread_is_exempt() {
    isolated("running_sqpoll_thread_is_exempt", WATCHDOG, || io_workers_are_exempt(true, 1 << 20));
}

/// The registers of a worker tell, whatever number the kernel has.
#[test]
fn sleeping_workers_are_exempt_without_a_version() {
    isolated("sleeping_workers_are_exempt_without_a_version", WATCHDOG, || {
        filter(libc::SYS_uname, REFUSE);
        sleepers(3);
        if !io_uring(true, 1) {
            return;
        }
        let asleep =
            || workers().keys().all(|&tid| state_and_flags(tid).is_some_and(|s| s.0 == b'S'));
        until(|| !workers().is_empty() && asleep());
        if cfg!(any(target_arch = "s390x", target_arch = "powerpc64")) {
            // The registers do not tell there: powerpc64 shows none of a worker, as of a thread that runs. The call fails,
            // and nothing has changed.
            let before = slack_here();
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let error = unsafe { slack(4321).deadline(SHORT).execute() };
            assert_eq!(error.unwrap_err().raw_os_error(), libc::ETIMEDOUT);
            assert_eq!(slack_here(), before);
            return;
        }
        for value in 1..=10 {
            let report = set_slack(value).unwrap();
            all_but(&workers(), &report, &[SkipReason::IoWorker, SkipReason::SqPoll]);
        }
    });
}

/// A vhost device's worker is a thread of the process since Linux 6.4.
#[test]
fn vhost_worker_is_exempt() {
    isolated("vhost_worker_is_exempt", WATCHDOG, || {
        const VHOST_SET_OWNER: u64 = 0xaf01;
        sleepers(3);
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::open(c"/dev/vhost-net".as_ptr(), libc::O_RDWR) };
        // SAFETY: VHOST_SET_OWNER touches no memory.
        if fd < 0 || unsafe { libc::ioctl(fd, VHOST_SET_OWNER as _) } != 0 {
            skipped(format!("no vhost-net: {}", std::io::Error::last_os_error()));
            return;
        }
        let workers = workers();
        println!("{workers:x?}");
        for value in 1..=10 {
            let report = set_slack(value).unwrap();
            all_but(&workers, &report, &[SkipReason::UserWorker]);
        }
    });
}

/// Starts a thread that blocks all signals and does `body`. Returns its tid.
fn blocked(body: fn()) -> i32 {
    static TID: AtomicI32 = AtomicI32::new(0);
    prepared(move || {
        block_all();
        // SAFETY: gettid touches no memory.
        TID.store(unsafe { libc::gettid() }, Ordering::SeqCst);
        body();
    });
    TID.load(Ordering::SeqCst)
}

/// The call fails, names the thread, and changes nothing.
fn is_named(tid: i32) {
    for _ in 0..3 {
        let error = add_filter(SHORT).unwrap_err();
        let Error::Unreachable(threads) = &error else { panic!("{error}") };
        let [thread] = threads.threads() else { panic!("{error}") };
        assert_eq!(
            (thread.tid(), thread.reason()),
            (tid, UnreachableReason::SignalBlocked),
            "{error}"
        );
        all_have_filters(0);
    }
}

/// Lays a file over /proc/self/task/TID/stat that shows these flags, too, for this process. Returns whether it could.
fn pretend(tid: i32, flags: u32) -> bool {
    let path = format!("/proc/self/task/{tid}/stat");
    let stat = fs::read_to_string(&path).unwrap();
    let (name, rest) = stat.rsplit_once(") ").unwrap();
    let mut fields: Vec<String> = rest.split(' ').map(String::from).collect();
    fields[6] = (fields[6].parse::<u32>().unwrap() | flags).to_string();
    let file = std::env::temp_dir().join(format!("psx-stat-{}", std::process::id()));
    fs::write(&file, format!("{name}) {}", fields.join(" "))).unwrap();
    let laid = laid_over(&path, file.to_str().unwrap());
    let _ = fs::remove_file(file);
    assert!(!laid || state_and_flags(tid).unwrap().1 & flags == flags);
    laid
}

/// A user thread with all that a worker shows but the registers, as a virtual CPU on an old kernel has it.
fn user_thread_with(flags: u32) {
    no_new_privs().unwrap();
    sleepers(2);
    let tid = blocked(|| ());
    until(|| state_and_flags(tid).is_some_and(|(state, _)| state == b'S'));
    if pretend(tid, flags) {
        is_named(tid);
    }
}

#[test]
fn user_thread_with_the_flag_of_io_uring_is_no_worker() {
    isolated("user_thread_with_the_flag_of_io_uring_is_no_worker", WATCHDOG, || {
        user_thread_with(PF_IO_WORKER);
    });
}

#[test]
fn user_thread_with_the_flag_of_vhost_is_no_worker() {
    isolated("user_thread_with_the_flag_of_vhost_is_no_worker", WATCHDOG, || {
        user_thread_with(PF_USER_WORKER);
    });
}

/// A thread that runs shows no registers: then the version decides, and without one it is a user thread.
#[test]
fn running_thread_is_no_worker_without_a_version() {
    isolated("running_thread_is_no_worker_without_a_version", WATCHDOG, || {
        filter(libc::SYS_uname, REFUSE);
        sleepers(2);
        static TID: AtomicI32 = AtomicI32::new(0);
        std::thread::spawn(|| {
            block_all();
            // SAFETY: gettid touches no memory.
            TID.store(unsafe { libc::gettid() }, Ordering::SeqCst);
            loop {
                std::hint::spin_loop();
            }
        });
        until(|| TID.load(Ordering::SeqCst) != 0);
        let tid = TID.load(Ordering::SeqCst);
        until(|| state_and_flags(tid).is_some_and(|(state, _)| state == b'R'));
        if pretend(tid, PF_IO_WORKER | PF_USER_WORKER) {
            let error = support::slack(5);
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let error = unsafe { error.deadline(SHORT).execute_with_report() }.unwrap_err();
            let Error::Unreachable(threads) = &error else { panic!("{error}") };
            assert!(threads.threads().iter().any(|thread| thread.tid() == tid), "{error}");
        }
    });
}

/// A virtual machine whose only processor turns in one instruction, which is one of x86. KVM has other calls to set up a
/// processor on each CPU, and what libpsx looks at is the same.
#[cfg(target_arch = "x86_64")]
mod virtual_cpu {
    use super::*;

    const KVM_CREATE_VM: u64 = 0xae01;
    const KVM_CREATE_VCPU: u64 = 0xae41;
    const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
    const KVM_RUN: u64 = 0xae80;

    static VCPU: AtomicI32 = AtomicI32::new(-1);

    /// Returns whether there is KVM here. [`VCPU`] is the processor, then.
    fn machine() -> bool {
        // SAFETY: makes a descriptor.
        let kvm = unsafe { libc::open(c"/dev/kvm".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        // SAFETY: a number and no memory.
        let machine = unsafe { libc::ioctl(kvm, KVM_CREATE_VM as _, 0) };
        if kvm < 0 || machine < 0 {
            skipped(format!("no KVM: {}", std::io::Error::last_os_error()));
            return false;
        }
        // The first instruction is at the end of the first 4 GiB less 16 bytes: a jump to itself.
        let page = support::shared_word() as *const _ as *mut u8;
        for (offset, byte) in [(0xff0, 0xeb), (0xff1, 0xfe)] {
            // SAFETY: within the page, which has no other use.
            let at = unsafe { page.add(offset) };
            // SAFETY: as above.
            unsafe { at.write(byte) };
        }
        let region = [0u64, 0xffff_f000, 4096, page as u64];
        // SAFETY: the kernel reads the region, and the page stays.
        let set = unsafe { libc::ioctl(machine, KVM_SET_USER_MEMORY_REGION as _, region.as_ptr()) };
        // SAFETY: a number and no memory.
        let vcpu = unsafe { libc::ioctl(machine, KVM_CREATE_VCPU as _, 0) };
        if set != 0 || vcpu < 0 {
            skipped(format!("no virtual CPU: {}", std::io::Error::last_os_error()));
            return false;
        }
        VCPU.store(vcpu, Ordering::SeqCst);
        true
    }

    static RUNS: AtomicI32 = AtomicI32::new(0);
    /// How often the guest has run until a signal came.
    static RETURNS: AtomicU32 = AtomicU32::new(0);

    /// Lets a thread run it, again and again. Returns the thread's id.
    fn run(prepare: fn()) -> i32 {
        std::thread::spawn(move || {
            prepare();
            // SAFETY: gettid touches no memory.
            RUNS.store(unsafe { libc::gettid() }, Ordering::SeqCst);
            loop {
                // SAFETY: the guest has memory of its own.
                unsafe { libc::ioctl(VCPU.load(Ordering::SeqCst), KVM_RUN as _, 0) };
                RETURNS.fetch_add(1, Ordering::SeqCst);
            }
        });
        until(|| RUNS.load(Ordering::SeqCst) != 0);
        RUNS.load(Ordering::SeqCst)
    }

    /// PF_VCPU is 0x1 now, and was 0x10: the bit of io_uring's workers.
    #[test]
    fn with_all_signals_blocked_is_named() {
        isolated("virtual_cpu::with_all_signals_blocked_is_named", WATCHDOG, || {
            no_new_privs().unwrap();
            sleepers(2);
            if machine() {
                let tid = run(block_all);
                println!("{:x?}", state_and_flags(tid));
                is_named(tid);
            }
        });
    }

    /// KVM's own helper for large pages is a thread of the process since Linux 6.13.
    #[test]
    fn is_covered_and_the_helper_of_kvm_is_exempt() {
        isolated("virtual_cpu::is_covered_and_the_helper_of_kvm_is_exempt", WATCHDOG, || {
            sleepers(2);
            if machine() {
                run(|| ());
                let mut checked = 0;
                // The kernel makes its helper when the guest runs for the first time.
                while checked < 10 || RETURNS.load(Ordering::SeqCst) == 0 {
                    let before = workers();
                    let report = set_slack(checked + 1).unwrap();
                    // The kernel may have made its helper meanwhile.
                    if workers().keys().eq(before.keys()) {
                        all_but(&before, &report, &[SkipReason::UserWorker]);
                        checked += 1;
                    }
                }
                println!("{:x?}", workers());
            }
        });
    }
}
