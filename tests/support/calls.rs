//! Calls that every test makes, and threads for these calls.

use std::fs::File;
use std::io::{Read, Seek};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use libpsx::{Broadcast, Error, Report, Sensitivity};

use super::{every_form, proc, skipped, watchdog};

/// The deadline of a call that has to succeed, before `PSX_WATCHDOG_FACTOR`.
pub const LONG: Duration = Duration::from_secs(30);

/// Returns the timer slack of this thread, the harmless per-thread value that most tests set.
pub fn slack_here() -> usize {
    // SAFETY: PR_GET_TIMERSLACK touches no memory.
    unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) as usize }
}

/// Returns the call that sets the timer slack.
pub fn slack(value: usize) -> Broadcast {
    let set = libc::PR_SET_TIMERSLACK as usize;
    Broadcast::new(libc::SYS_prctl, [set, value, 0, 0, 0, 0])
}

/// Sets the timer slack in every thread.
pub fn set_slack(value: usize) -> Result<Report, Error> {
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    unsafe { slack(value).deadline(watchdog(LONG)).execute_with_report() }
}

/// Starts threads that sleep until the process ends.
pub fn sleepers(count: usize) {
    // A new thread makes calls of its own before it runs this code, and the call under test may forbid them.
    let started = Arc::new(Barrier::new(count + 1));
    for _ in 0..count {
        let started = started.clone();
        std::thread::spawn(move || {
            started.wait();
            loop {
                std::thread::park();
            }
        });
    }
    started.wait();
}

/// Starts threads that compute until the process ends.
pub fn computing(count: usize) {
    for _ in 0..count {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
}

/// Threads that sleep in pause(2) and count how often a signal has woken them.
#[derive(Clone, Copy)]
pub struct Counting {
    counters: &'static [AtomicUsize],
    /// The `stat` of each thread, as the thread itself has opened it. Its number in /proc may be another than its tid.
    stats: &'static Mutex<Vec<File>>,
}

impl std::ops::Deref for Counting {
    type Target = [AtomicUsize];

    fn deref(&self) -> &[AtomicUsize] {
        self.counters
    }
}

impl Counting {
    /// Waits until every thread sleeps. A thread that has counted may not have called pause(2) yet, and does not count a
    /// signal that it takes before that.
    pub fn are_asleep(&self) {
        let asleep = |mut file: &File| {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            proc::of_stat(&text).is_some_and(|(state, _)| state == 'S')
        };
        until(|| self.stats.lock().unwrap().iter().all(asleep));
    }

    pub fn counts(&self) -> Vec<usize> {
        self.counters.iter().map(|counter| counter.load(Ordering::SeqCst)).collect()
    }

    /// Makes a call while every thread sleeps, and waits until all have left.
    pub fn leave(&self, call: impl FnOnce()) {
        self.are_asleep();
        let before = self.counts();
        call();
        self.have_counted_since(&before);
    }

    /// Waits until every thread has counted more than it had before.
    pub fn have_counted_since(&self, before: &[usize]) {
        until(|| self.counts().iter().zip(before).all(|(now, then)| now > then));
    }
}

/// Starts threads that sleep in pause(2), and count how often a signal has woken them. pause(2) is not restarted, so
/// each thread that a call held while it slept counts one more when it has left. Each thread prepares itself with its
/// index. All sleep when this function returns, and before another call [`Counting::are_asleep`] waits for that.
pub fn counting(count: usize, prepare: impl Fn(usize) + Send + Clone + 'static) -> Counting {
    let counters: &[AtomicUsize] =
        (0..count).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>().leak();
    let ready: &AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    let stats: &Mutex<Vec<File>> = Box::leak(Box::default());
    for (index, counter) in counters.iter().enumerate() {
        let prepare = prepare.clone();
        std::thread::spawn(move || {
            stats.lock().unwrap().push(File::open("/proc/thread-self/stat").unwrap());
            prepare(index);
            ready.fetch_add(1, Ordering::SeqCst);
            loop {
                // SAFETY: pause touches no memory.
                unsafe { libc::pause() };
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    while ready.load(Ordering::SeqCst) < count {
        std::thread::yield_now();
    }
    let threads = Counting { counters, stats };
    threads.are_asleep();
    threads
}

/// Waits until the condition holds; the watchdog ends a wait that does not end.
pub fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the CPUs on which this thread may run.
pub fn own_cpus() -> Vec<usize> {
    // SAFETY: all fields of the structure are integers.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the set.
    let done = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: CPU_ISSET checks the number against the bounds of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Restricts the calling thread to this CPU.
pub fn on_cpu(cpu: usize) {
    // SAFETY: all fields of the structure are integers.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET checks the number against the bounds of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads the set.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
}

/// The type of ptrace(2)'s first argument in the C library.
#[cfg(target_env = "gnu")]
pub type PtraceRequest = libc::c_uint;
#[cfg(not(target_env = "gnu"))]
pub type PtraceRequest = libc::c_int;

/// Sets the policy of the calling thread.
pub fn scheduler(policy: i32, priority: i32) -> bool {
    // The kernel's `struct sched_param` is one number. musl's function of this name is always ENOSYS.
    // SAFETY: the kernel reads the number.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) == 0 }
}

/// Returns zeroed memory that children of fork share.
pub fn shared_word() -> &'static AtomicUsize {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: the call creates a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: the memory is zeroed, and never unmapped.
    unsafe { &*at.cast() }
}

/// Where the lower half of a number of 64 bits is in what a seccomp program reads.
pub const LOWER: u32 = if cfg!(target_endian = "big") { 4 } else { 0 };

/// Returns one instruction of a seccomp program.
pub fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Returns a program that applies `listed` to these calls and `others` to the rest.
pub fn program(calls: &[libc::c_long], listed: u32, others: u32) -> Vec<libc::sock_filter> {
    let calls = every_form(calls);
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    for (index, &nr) in calls.iter().enumerate() {
        program.push(step(equal, (calls.len() - index) as u8, 0, nr as u32));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, others));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, listed));
    program
}

/// Returns steps that load the number of a call, and go over the `skipped` steps after them if it is none of these calls.
pub fn unless_one_of(calls: &[libc::c_long], skipped: u8) -> Vec<libc::sock_filter> {
    let calls = every_form(calls);
    let mut steps = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (index, &call) in calls.iter().enumerate() {
        let left = (calls.len() - 1 - index) as u8;
        let otherwise = if left == 0 { skipped } else { 0 };
        steps.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, left, otherwise, call as u32));
    }
    steps
}

/// Returns seccomp(2)'s description of a program. The program must outlive it.
pub fn header(program: &[libc::sock_filter]) -> libc::sock_fprog {
    libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() }
}

/// Installs a filter in the calling thread.
pub fn install(program: &[libc::sock_filter]) {
    let program = header(program);
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let set = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads the program.
    assert_eq!(unsafe { libc::syscall(libc::SYS_seccomp, set, 0, &program) }, 0);
}

/// Installs a filter in every thread of the process.
pub fn install_everywhere(program: &[libc::sock_filter]) {
    let program = header(program);
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let (set, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the kernel reads the program.
    assert_eq!(unsafe { libc::syscall(libc::SYS_seccomp, set, flags, &program) }, 0);
}

/// Installs a filter in this thread that applies `action` to the call `nr`, and allows the rest.
pub fn filter(nr: libc::c_long, action: u32) {
    install(&program(&[nr], action, libc::SECCOMP_RET_ALLOW));
}

/// Returns the futex(2) operation on memory of this process only.
pub fn private(operation: libc::c_int) -> u32 {
    (operation | libc::FUTEX_PRIVATE_FLAG) as u32
}

/// Installs a filter in this thread that applies `action` to this operation of futex(2) if the address is that of a
/// word, and allows the rest.
pub fn filter_futex(operation: u32, action: u32) {
    filter_futex_at(operation, action, true);
}

/// Like [`filter_futex`]; `aligned` says whether only calls with an aligned address are meant. libpsx makes one with another
/// address first, so that a filter of the usual kind, which looks at no address, kills the thread there.
pub fn filter_futex_at(operation: u32, action: u32, aligned: bool) {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let any_bit = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    // seccomp(2), struct seccomp_data.
    let (number_at, address_at, operation_at) = (0, 16 + LOWER, 24 + LOWER);
    install(&[
        step(load, 0, 0, number_at),
        step(equal, 0, 5, libc::SYS_futex as u32),
        step(load, 0, 0, operation_at),
        step(equal, 0, 3, operation),
        step(load, 0, 0, address_at),
        step(any_bit, u8::from(aligned), 0, 3),
        step(answer, 0, 0, action),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// One thread cannot be reached. The filter of another thread kills it at the moment when it falls asleep. The dead
/// thread must not hide the unreachable one, and the call fails.
pub fn killed_asleep_beside_a_thread_that_blocks_the_signal() {
    prepared(block_all);
    prepared(|| filter_futex(private(libc::FUTEX_WAIT), libc::SECCOMP_RET_KILL_THREAD));
    let call = slack(4321).sensitivity(Sensitivity::Ignore).deadline(Duration::from_secs(1));
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    let error = unsafe { call.execute_with_report() }.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(threads) if threads.total() == 1), "{error}");
}

/// Starts a thread that prepares itself and then sleeps until the process ends. It has prepared itself when this
/// function returns. It sleeps in pause(2), which a filter may allow although it allows little else.
pub fn prepared(prepare: impl FnOnce() + Send + 'static) {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = ready.clone();
    std::thread::spawn(move || {
        prepare();
        // Not a system call, because the thread may have a filter by now.
        ready.store(true, Ordering::SeqCst);
        loop {
            // SAFETY: pause touches no memory.
            unsafe { libc::pause() };
        }
    });
    while !is_ready.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

pub fn no_new_privs() -> Result<Report, Error> {
    let args = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
    unsafe { Broadcast::new(libc::SYS_prctl, args).deadline(watchdog(LONG)).execute_with_report() }
}

/// Puts every thread under a Landlock domain that denies every file, also /proc. Returns false, and records a skipped
/// test, if this kernel has no Landlock.
pub fn landlock_denies_all_files() -> bool {
    let every_access_to_files: u64 = 0x1fff;
    let create = libc::SYS_landlock_create_ruleset;
    // SAFETY: the kernel reads eight bytes.
    let ruleset = unsafe { libc::syscall(create, &raw const every_access_to_files, 8, 0) };
    if ruleset < 0 {
        skipped(format!("landlock: {}", std::io::Error::last_os_error()));
        return false;
    }
    no_new_privs().unwrap();
    let restrict = libc::SYS_landlock_restrict_self;
    // SAFETY: landlock_restrict_self touches no memory.
    unsafe { libpsx::syscall3(restrict, ruleset as usize, 0, 0) }.unwrap();
    assert!(std::fs::read_dir("/proc/self/task").is_err());
    true
}

/// Adds a filter that allows everything. It is not idempotent: each thread counts its filters. It requires
/// no_new_privs. The deadline is multiplied by `PSX_WATCHDOG_FACTOR`.
pub fn add_filter(deadline: Duration) -> Result<Report, Error> {
    let allow = [step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW)];
    let program = header(&allow);
    let set = libc::SECCOMP_SET_MODE_FILTER as usize;
    let args = [set, 0, (&raw const program) as usize, 0, 0, 0];
    // SAFETY: the program outlives the call.
    unsafe {
        Broadcast::new(libc::SYS_seccomp, args).deadline(watchdog(deadline)).execute_with_report()
    }
}

/// Checks that every thread shows this value in its status.
pub fn all_have(field: &str, wanted: &str) {
    let seen = proc::field_in_every_thread(field);
    assert!(seen.values().all(|value| value == wanted), "{field}: not {wanted}: {seen:?}");
}

pub fn all_have_filters(count: usize) {
    all_have("Seccomp_filters", &count.to_string());
}

/// Blocks every signal in this thread by the raw call. The C library would leave signal 33 out.
pub fn block_all() {
    set_mask(!0);
}

/// Sets this thread's mask by the raw call.
pub fn set_mask(mask: u64) {
    let set = libc::SIG_SETMASK;
    let at = &raw const mask;
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, set, at, 0usize, 8usize) };
}

/// A sleeping thread that returns its slack on request, for cases in which /proc cannot be read.
pub struct Witness {
    ask: Sender<()>,
    answer: Receiver<usize>,
}

impl Witness {
    fn new() -> Self {
        let (ask, asked) = channel();
        let (answers, answer) = channel();
        std::thread::spawn(move || {
            while asked.recv().is_ok() {
                answers.send(slack_here()).unwrap();
            }
        });
        Self { ask, answer }
    }

    pub fn slack(&self) -> usize {
        self.ask.send(()).unwrap();
        self.answer.recv().unwrap()
    }
}

pub fn witnesses(count: usize) -> Vec<Witness> {
    (0..count).map(|_| Witness::new()).collect()
}

/// Sets the slack of every thread, and checks it in each witness.
pub fn covers(witnesses: &[Witness], value: usize) -> Report {
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    let report =
        unsafe { slack(value).deadline(watchdog(Duration::from_secs(60))).execute_with_report() }
            .unwrap();
    let seen: Vec<usize> = witnesses.iter().map(Witness::slack).collect();
    assert!(seen.iter().all(|&slack| slack == value), "not {value}: {seen:?}; {report:?}");
    assert!(report.threads() > witnesses.len(), "{report:?}");
    report
}

/// Returns what syscall(2) returned, as an answer: it has 32 bits on some CPUs.
#[allow(clippy::useless_conversion, reason = "it is not useless on CPUs of 32 bits")]
pub fn wide(value: libc::c_long) -> i64 {
    i64::from(value)
}

/// A question that a thread answers about itself.
pub type Question = fn() -> i64;

/// Threads that answer questions about themselves.
pub struct Asked(pub Vec<(Sender<Question>, Receiver<i64>)>);

impl Asked {
    pub fn new(count: usize) -> Self {
        Self(
            (0..count)
                .map(|_| {
                    let ((ask, asked), (answer, answered)) = (channel::<Question>(), channel());
                    std::thread::spawn(move || {
                        asked.iter().for_each(|question| answer.send(question()).unwrap());
                    });
                    (ask, answered)
                })
                .collect(),
        )
    }

    /// Checks that this thread and all others give this answer.
    pub fn all_answer(&self, question: Question, wanted: i64) {
        assert_eq!(question(), wanted);
        for (ask, answered) in &self.0 {
            ask.send(question).unwrap();
            assert_eq!(answered.recv().unwrap(), wanted);
        }
    }
}
