//! Processes to audit, made by fork(2). Each of their threads changes its own state by plain calls.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::watchdog;

/// A process that stays until it is dropped.
pub struct Subject {
    pub pid: i32,
    /// The tids that the child has reported.
    pub tids: Vec<i32>,
    /// A pipe to the child. A line that is written here lets the process go on.
    more: File,
    said: BufReader<File>,
}

/// The child's side of the connection to the test.
pub struct Stage {
    out: File,
    more: BufReader<File>,
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: the kernel writes two new descriptors, which have no other owner.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    fds.map(|fd| {
        // SAFETY: as above.
        unsafe { OwnedFd::from_raw_fd(fd) }
    })
    .into()
}

impl Stage {
    /// Tells the test that the process is ready, and which threads (`tids`) it has.
    pub fn ready(&mut self, tids: &[i32]) {
        let text: Vec<_> = tids.iter().map(i32::to_string).collect();
        self.out.write_all(format!("{}\n", text.join(" ")).as_bytes()).unwrap();
    }

    /// Waits for the test.
    pub fn wait(&mut self) {
        self.more.read_line(&mut String::new()).unwrap();
    }

    /// Waits until the test closes the pipe, and ends the process.
    pub fn stay(&mut self) -> ! {
        let _ = self.more.read_to_end(&mut Vec::new());
        // SAFETY: it ends the process.
        unsafe { libc::_exit(0) }
    }
}

impl Subject {
    /// Starts a process, in whose main thread `body` runs.
    ///
    /// Another thread of the test may hold a lock of the C library that fork(2) does not know, and then the child, which
    /// starts threads, waits for that lock for ever. Such a child is killed, and another one is made.
    pub fn new(body: impl FnOnce(&mut Stage)) -> Self {
        const TRIES: u32 = 4;
        let limit = watchdog(Duration::from_secs(15));
        for attempt in 1..=TRIES {
            let ((said, out), (wait, more)) = (pipe(), pipe());
            // SAFETY: in the child of a process with threads, glibc allows the calls that the tests make.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
            if pid == 0 {
                drop((said, more));
                // SAFETY: no memory is touched.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                name(b"subject");
                let mut stage = Stage { out: out.into(), more: BufReader::new(wait.into()) };
                body(&mut stage);
                stage.stay();
            }
            drop((out, wait));
            let said = BufReader::new(said.into());
            let mut subject = Self { pid, tids: Vec::new(), more: more.into(), said };
            if let Some(tids) = subject.listen(limit) {
                subject.tids = tids;
                return subject;
            }
            let calls = subject.calls();
            eprintln!("subject {attempt} of {TRIES} was not ready after {limit:?}:\n{calls}");
        }
        panic!("no subject was ready: tried {TRIES} times for {limit:?}");
    }

    /// Lets the process go on, and waits until it is ready again.
    pub fn proceed(&mut self) {
        self.more.write_all(b"\n").unwrap();
        let limit = super::limit();
        if self.listen(limit).is_none() {
            panic!("the subject was not ready again after {limit:?}:\n{}", self.calls());
        }
    }

    /// Lets the process end, and waits until it is a zombie.
    pub fn end(&mut self) {
        self.more.write_all(b"\n").unwrap();
        let stat = format!("/proc/{}/stat", self.pid);
        let deadline = Instant::now() + super::limit();
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            assert!(Instant::now() < deadline, "the subject did not end:\n{}", self.calls());
            std::thread::yield_now();
        }
    }

    /// Reads the tids that the child reports. Returns `None` if there is no report within this time.
    fn listen(&mut self, limit: Duration) -> Option<Vec<i32>> {
        let deadline = Instant::now() + limit;
        let fd = self.said.get_ref().as_raw_fd();
        let mut file = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        while self.said.buffer().is_empty() {
            let rest = deadline.checked_duration_since(Instant::now())?;
            // SAFETY: the kernel reads and writes one structure.
            if unsafe { libc::poll(&mut file, 1, rest.as_millis() as i32 + 1) } > 0 {
                break;
            }
        }
        // The child writes a line at once.
        let mut line = String::new();
        assert!(self.said.read_line(&mut line).unwrap() > 0, "the subject died");
        Some(line.split_whitespace().map(|tid| tid.parse().unwrap()).collect())
    }

    /// Returns where the threads of the process are.
    fn calls(&self) -> String {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten();
        tasks
            .flatten()
            .map(|task| {
                let read = |file| std::fs::read_to_string(task.path().join(file));
                let [wchan, call] = ["wchan", "syscall"].map(|file| read(file).unwrap_or_default());
                format!("{:?}: {wchan} {}\n", task.file_name(), call.trim())
            })
            .collect()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // SAFETY: it is our own child, which no thread has waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        // SAFETY: the kernel writes no status.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL) };
    }
}

/// Starts a thread that runs `body` and then sleeps for ever. Returns its tid after `body` has run.
pub fn thread(body: impl FnOnce() + Send + 'static) -> i32 {
    let (done, is_done) = channel();
    std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(move || {
            // SAFETY: gettid touches no memory.
            let tid = unsafe { libc::gettid() };
            body();
            done.send(tid).unwrap();
            loop {
                std::thread::park();
            }
        })
        .unwrap();
    is_done.recv().unwrap()
}

/// Names the calling thread.
pub fn name(name: &[u8]) {
    let mut bytes = name.to_vec();
    bytes.push(0);
    // SAFETY: the kernel reads the name up to its 0.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Makes a system call in the calling thread alone. The call has to succeed.
pub fn plain(nr: i64, args: [usize; 5]) {
    let [a, b, c, d, e] = args;
    // SAFETY: each pointer argument points to the memory that the call expects.
    let result = unsafe { libc::syscall(nr, a, b, c, d, e) };
    assert!(result >= 0, "{nr}: {}", std::io::Error::last_os_error());
}

/// Calls setresuid(2) in the calling thread alone.
pub fn become_user(uid: usize) {
    plain(libc::SYS_setresuid, [uid, uid, uid, 0, 0]);
}

/// Calls prctl(2) in the calling thread alone.
pub fn prctl(option: i32, value: usize) {
    plain(libc::SYS_prctl, [option as usize, value, 0, 0, 0]);
}

/// Keeps only these capabilities, effective and permitted.
pub fn keep_only(bits: u32) {
    let header = [0x2008_0522_u32, 0];
    let sets = [bits, bits, 0, 0, 0, 0];
    plain(libc::SYS_capset, [header.as_ptr() as usize, sets.as_ptr() as usize, 0, 0, 0]);
}

/// Gives up all capabilities.
pub fn no_capabilities() {
    keep_only(0);
}

/// Makes an io_uring whose submission queue a kernel worker reads. Returns false if that is not possible.
pub fn sqpoll() -> bool {
    // struct io_uring_params: the third word is the flags, IORING_SETUP_SQPOLL.
    let mut parameters = [0_u32; 30];
    parameters[2] = 2;
    // SAFETY: the kernel reads and writes the parameters.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    // The worker takes its name when it first runs.
    let named = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks.into_iter().any(|task| {
            let comm = std::fs::read_to_string(task.path().join("comm"));
            comm.is_ok_and(|comm| comm.starts_with("iou-sqp-"))
        })
    };
    while ring >= 0 && !named() {
        std::thread::yield_now();
    }
    ring >= 0
}

/// Installs a seccomp filter that allows every call.
pub fn allow_all() {
    let allow = libc::BPF_RET | libc::BPF_K;
    let step = libc::sock_filter { code: allow as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: (&raw const step).cast_mut() };
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
    let set = libc::SECCOMP_SET_MODE_FILTER as usize;
    plain(libc::SYS_seccomp, [set, 0, (&raw const program) as usize, 0, 0]);
}
