//! Which threads this process has, and what is known of one that does not arrive.
//!
//! /proc/self/task lists them, and the link count of that directory is their number (`proc_task_getattr`,
//! fs/proc/base.c). If the directory cannot be read (Landlock), the number is there all the same. If /proc is not to
//! be had, a proc that is mounted for this descriptor alone does as well. If that is not allowed either, every
//! possible tid is asked for with tgkill(2) and signal 0.
#![forbid(unsafe_code)]

#[cfg(psx_fuzz)]
pub mod fuzz;

use core::cell::Cell;
use core::ffi::CStr;
use core::time::Duration;

use linux_raw_sys::general::O_DIRECTORY;

use crate::errno::Errno;
use crate::error::UnreachableReason;
use crate::report::SkipReason;
use crate::sys::{self, Fd, Mask, SIGNAL, arch, bit};

/// Tids are below this (include/linux/threads.h, PID_MAX_LIMIT).
pub(crate) const TID_LIMIT: i32 = 1 << 22;
/// After the last one the kernel goes on with this one (kernel/pid.c, RESERVED_PIDS).
pub(crate) const FIRST_AGAIN: i32 = 300;

const TASKS: &CStr = c"/proc/self/task";

/// Where the list of threads comes from.
pub(crate) struct Tasks {
    pid: i32,
    tid: i32,
    directory: Option<Fd>,
    /// The directory can be read. Otherwise it tells how many threads there are, and no more.
    readable: bool,
    /// Keeps a descriptor free for [`Tasks::status`], where the table is nearly full.
    spare: Cell<Option<Fd>>,
    /// The directory is in a proc that we have mounted.
    own: bool,
    /// The directory counts in the numbers of another PID namespace than ours.
    foreign: bool,
}

/// A thread as the list names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    /// In our PID namespace: what gettid(2) returns.
    pub(crate) tid: i32,
    /// In the PID namespace of the proc mount.
    name: i32,
}

/// What could be learnt of a thread that is not held.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TaskStatus {
    /// It is not there (any more).
    NotFound,
    /// It can run no user code; `start` tells it from a later task with the same id.
    Exempt { reason: SkipReason, start: usize },
    /// It can.
    Live(LiveTask),
    /// Nothing could be learnt.
    Unknown,
}

/// What /proc says of a thread that can run user code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiveTask {
    pub(crate) state: u8,
    pub(crate) name: [u8; 16],
    blocked: Mask,
    pending: Mask,
}

/// How the root and working directories of two threads are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// The threads share them, for certain.
    Shared,
    /// They are the same now. It is not known whether the threads share them.
    Alike,
    Different,
}

impl LiveTask {
    /// Runnable: it arrives when it gets the CPU, or when it no longer blocks signal 33 (as in pthread_create). A
    /// thread that waits for something that a held thread owns sleeps.
    pub(crate) fn wants_cpu(&self) -> bool {
        self.state == b'R'
    }

    pub(crate) fn blocks_signal_33(&self) -> bool {
        self.blocked & bit(SIGNAL) != 0
    }

    pub(crate) fn has_signal_33_pending(&self) -> bool {
        self.pending & bit(SIGNAL) != 0
    }
}

impl Tasks {
    /// Finds a source for this process, whose calling thread is `tid`. It never fails: the last source needs nothing.
    pub(crate) fn open(pid: i32, tid: i32) -> Self {
        let none = || Self {
            pid,
            tid,
            directory: None,
            readable: false,
            spare: Cell::new(None),
            own: true,
            foreign: false,
        };
        let found = match Fd::open(TASKS, O_DIRECTORY) {
            Ok(fd) => Self { directory: Some(fd), readable: true, own: false, ..none() },
            // O_PATH would need a descriptor too.
            Err(Errno::MFILE | Errno::NFILE) => return none(),
            Err(_) => Self { directory: Fd::open_path(TASKS).ok(), own: false, ..none() },
        };
        let mut tasks = if found.is_of_proc() { found } else { none().with_own_proc() };
        if tasks.readable {
            tasks.spare = Cell::new(tasks.directory.as_ref().and_then(|fd| fd.duplicate().ok()));
        }
        tasks
    }

    /// How many threads the process has, without any of the other questions.
    pub(crate) fn count_threads() -> Option<usize> {
        Self::open(sys::getpid(), sys::gettid()).count()
    }

    /// Whether the directory is what it should be: it lies in a proc file system or, if the kernel or a filter does
    /// not tell that, contains what only a task directory contains.
    fn is_of_proc(&self) -> bool {
        let Some(directory) = &self.directory else { return false };
        directory.is_proc().unwrap_or_else(|_| {
            let mut buffer = [0; 512];
            let stat = self.read(self.tid, c"stat", &mut buffer).ok();
            let number = stat.and_then(|bytes| bytes.split(|&b| b == b' ').next().and_then(parse));
            number == Some(self.tid)
        })
    }

    /// fsmount(2) needs CAP_SYS_ADMIN. A filter may answer a call that it does not know by killing the process, so a
    /// thread that has a filter does not try.
    fn with_own_proc(self) -> Self {
        let open = || Fd::mount_proc().ok()?.open_in(c"self/task", O_DIRECTORY).ok();
        let directory = if sys::has_seccomp_filter() { None } else { open() };
        Self { readable: directory.is_some(), directory, own: true, foreign: false, ..self }
    }

    /// Whether the threads can be listed without asking for every tid.
    pub(crate) const fn is_readable(&self) -> bool {
        self.readable
    }

    /// How many threads the process has, as one atomic look; None if no directory tells.
    pub(crate) fn count(&self) -> Option<usize> {
        self.directory.as_ref()?.links().ok()?.checked_sub(2)
    }

    /// Whether the calling thread is in the list, as far as can be told without reading it.
    pub(crate) fn lists_self(&self) -> bool {
        let listed = self.open_file(self.tid, c"").is_ok();
        self.save_spare();
        listed
    }

    /// The list does not have the calling thread in it, so it is not what it seemed: first take it
    /// for one in the numbers of an outer PID namespace; then for none of ours, and take another.
    pub(crate) fn reject_directory(&mut self) {
        if !self.foreign {
            self.foreign = true;
            return;
        }
        self.spare.set(None);
        (self.directory, self.readable, self.foreign) = (None, false, false);
        if !self.own {
            let none = Self { spare: Cell::new(None), directory: None, ..*self };
            *self = none.with_own_proc();
        }
        self.own = true;
    }

    /// Names every thread once, as far as the kernel's list allows (a thread may be missed while another one exits: a
    /// sweep alone proves nothing). Err: the list cannot be read, or the time is `until`.
    pub(crate) fn sweep(
        &self,
        scratch: &mut [u8],
        until: Option<Duration>,
        each: &mut dyn FnMut(Task) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let Some(directory) = self.directory.as_ref().filter(|_| self.readable) else {
            // ESRCH alone says that there is no such thread; a security module may forbid to signal one. No task has
            // the last number: if there is another answer for it, it comes from a filter.
            let absent = |tid| sys::tgkill(self.pid, tid, 0) == Err(Errno::SRCH);
            if !absent(TID_LIMIT) {
                return Err(Errno::PERM);
            }
            for tid in 1..TID_LIMIT {
                const CLOCK: i32 = 4096;
                if tid % CLOCK == 0
                    && until.is_some_and(|until| sys::clock().is_ok_and(|now| now >= until))
                {
                    return Err(Errno::TIMEDOUT);
                }
                if !absent(tid) {
                    each(Task { tid, name: tid })?;
                }
            }
            return Ok(());
        };
        directory.rewind()?;
        loop {
            let filled = directory.getdents(scratch)?;
            if filled == 0 {
                return Ok(());
            }
            let mut records = scratch.get(..filled).unwrap_or_default();
            while let Some((name, rest)) = next_record(records) {
                records = rest;
                let Some(name) = name else { continue };
                if !self.foreign {
                    each(Task { tid: name, name })?;
                } else if let Some(tid) = self.translate(name) {
                    each(Task { tid, name })?;
                }
            }
        }
    }

    /// As [`sweep`](Self::sweep), but names these threads where no list can be read.
    pub(crate) fn sweep_or(
        &self,
        scratch: &mut [u8],
        known: impl Iterator<Item = u32>,
        each: &mut dyn FnMut(Task) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if self.readable {
            return self.sweep(scratch, None, each);
        }
        for tid in known.filter(|&tid| tid != 0).map(|tid| tid as i32) {
            each(Task { tid, name: tid })?;
        }
        Ok(())
    }

    /// The thread's id in our own PID namespace: the last column of NSpid (proc_pid_status(5)).
    fn translate(&self, name: i32) -> Option<i32> {
        self.ids(name).ok()?.0
    }

    /// The thread's id in our own PID namespace, and whether the list has another one for it.
    fn ids(&self, name: i32) -> Result<(Option<i32>, bool), Errno> {
        let mut ids = (None, false);
        self.lines(name, c"status", &mut |line| {
            if let Some(columns) = value(line, b"NSpid:") {
                let mut columns = columns.rsplit(|&b| b == b'\t');
                ids = (columns.next().and_then(parse), columns.next().is_some());
            }
        })?;
        Ok(ids)
    }

    /// Looks whether the list is in the numbers of an outer PID namespace, in which the calling
    /// thread's own number may be another thread's. Only the columns of NSpid tell.
    pub(crate) fn check_numbers(&mut self) {
        // P10: the /proc of another PID namespace is not believed.
        self.foreign |= self.ids(self.tid).is_ok_and(|(_, foreign)| foreign);
    }

    /// What is known of a thread without /proc.
    pub(crate) fn status_by_tid(&self, tid: i32) -> TaskStatus {
        match sys::tgkill(self.pid, tid, 0) {
            Err(Errno::SRCH) => TaskStatus::NotFound,
            // A dead leader keeps its tid for as long as the process lives.
            _ if sys::is_dead(tid) => TaskStatus::Exempt { reason: SkipReason::Exiting, start: 0 },
            _ => TaskStatus::Unknown,
        }
    }

    /// What /proc knows of a thread.
    pub(crate) fn status(&self, task: Task) -> TaskStatus {
        if !self.readable {
            return self.status_by_tid(task.tid);
        }
        let mut buffer = [0; 2048];
        let stat = match self.read(task.name, c"stat", &mut buffer) {
            Ok(bytes) => Stat::parse(bytes),
            Err(errno) => return TaskStatus::of_errno(errno),
        };
        let Some(stat) = stat else { return TaskStatus::Unknown };
        if stat.exiting() {
            return TaskStatus::Exempt { reason: SkipReason::Exiting, start: stat.start };
        }
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(stat.name) {
            *to = *from;
        }
        let (state, start, flags) = (stat.state, stat.start, stat.flags);
        let (mut blocked, mut private, mut shared) = (None, None, None);
        let read = self.lines(task.name, c"status", &mut |line| {
            let keys: [(&[u8], _); 3] =
                [(b"SigBlk:", &mut blocked), (b"SigPnd:", &mut private), (b"ShdPnd:", &mut shared)];
            for (key, place) in keys {
                *place = place.or_else(|| value(line, key).and_then(parse_hex));
            }
        });
        if let Err(errno) = read {
            return TaskStatus::of_errno(errno);
        }
        let (Some(blocked), Some(private), Some(shared)) = (blocked, private, shared) else {
            return TaskStatus::Unknown;
        };
        let registers = || self.has_user_registers(task, state);
        if let Some(mut reason) = kernel_worker(flags, blocked, registers, sys::kernel_version) {
            if reason == SkipReason::SqPoll && self.is_io_wq(task) {
                reason = SkipReason::IoWorker;
            }
            return TaskStatus::Exempt { reason, start };
        }
        TaskStatus::Live(LiveTask { state, name, blocked, pending: private | shared })
    }

    /// Returns whether the kernel has saved user registers for a thread, to which the thread will return
    /// (proc_pid_syscall(5)). Returns None if the kernel does not tell: the thread runs, or the file cannot be read
    /// (it belongs to root if the process is not dumpable).
    ///
    /// A worker has a program counter and a stack pointer of 0: `copy_thread` sets both for every thread that starts
    /// in a kernel function. A user thread cannot have both while it sleeps. A call instruction cannot end at address
    /// 0, so a thread in a system call has another program counter. A thread that jumped to address 0 without a stack
    /// dies of SIGSEGV, even if it blocks that signal.
    ///
    /// Before Linux 5.7, this read waits for a thread that is in execve(2), which may wait for a held thread. No such
    /// kernel has workers in a process, so the file is not read there.
    fn has_user_registers(&self, task: Task, state: u8) -> Option<bool> {
        if state == b'R' || sys::kernel_version().is_some_and(|version| version < (5, 7)) {
            return None;
        }
        let mut buffer = [0; 256];
        user_registers(self.read(task.name, c"syscall", &mut buffer).ok()?)
    }

    /// Whether an io_uring's worker is certainly one of io-wq: it waits in `io_wq_worker` (io_uring/io-wq.c), which
    /// was called `io_wqe_worker` before Linux 6.4. Its name proves nothing, because every thread of the process can
    /// change it.
    fn is_io_wq(&self, task: Task) -> bool {
        let mut buffer = [0; 2048];
        [c"wchan", c"stack"].into_iter().any(|file| {
            let text = self.read(task.name, file, &mut buffer).unwrap_or_default();
            contains(text, b"io_wq_worker") || contains(text, b"io_wqe_worker")
        })
    }

    /// Whether an emulator of this CPU runs the program: the kernel executes a file for another CPU in this process.
    /// (/proc/self/exe is what an emulator shows to its program. It does not know this name of the same file.)
    pub(crate) fn is_emulated(&self) -> bool {
        /// From the class to the machine, which is the last (elf(5)).
        const HEADER: usize = 20;
        let mut header = [0; HEADER];
        if self.foreign || !self.readable {
            return false;
        }
        let Ok(&[0x7f, b'E', b'L', b'F', class, order, .., a, b]) =
            self.read(self.tid, c"exe", &mut header)
        else {
            return false;
        };
        const BIG_ENDIAN: u8 = 2;
        let bytes = [a, b];
        let machine =
            if order == BIG_ENDIAN { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
        let ours = (
            size_of::<usize>() as u8 / 4,
            1 + u8::from(cfg!(target_endian = "big")),
            arch::ELF_MACHINE,
        );
        (class, order, machine) != ours
    }

    /// Why a live thread did not arrive.
    pub(crate) fn unreachable_reason(&self, task: Task, live: &LiveTask) -> UnreachableReason {
        match live.state {
            b'T' => return UnreachableReason::Stopped,
            b't' => return UnreachableReason::Traced,
            _ => {}
        }
        let mut buffer = [0; 128];
        // proc_pid_wchan(5), proc_pid_syscall(5): both may be empty or forbidden, and then the rest
        // decides.
        let wchan = self.read(task.name, c"wchan", &mut buffer).unwrap_or_default();
        // A stopped thread sleeps in get_signal too, but was seen above; the trap of cgroup v2
        // (do_freezer_trap, kernel/signal.c) is inlined there.
        let trapped = live.state == b'S' && contains(wchan, b"get_signal");
        if trapped || contains(wchan, b"refrigerator") || contains(wchan, b"freezer") {
            return UnreachableReason::Frozen;
        }
        if contains(wchan, b"vfork") {
            return UnreachableReason::Vfork;
        }
        let calls = self.read(task.name, c"syscall", &mut buffer).unwrap_or_default();
        let nr = calls.split(|&b| b == b' ').next().and_then(parse::<u32>);
        use linux_raw_sys::general as k;
        match nr {
            Some(k::__NR_execve | k::__NR_execveat) => UnreachableReason::Exec,
            Some(k::__NR_clone | k::__NR_clone3) if live.state == b'D' => UnreachableReason::Vfork,
            Some(nr) if live.state == b'D' && arch::FORKS.contains(&nr) => UnreachableReason::Vfork,
            _ if live.blocked & bit(SIGNAL) != 0 => UnreachableReason::SignalBlocked,
            _ if live.state == b'D' => UnreachableReason::Uninterruptible,
            // A thread that sleeps interruptibly wakes for a signal that it does not block. Only that trap lets it
            // sleep on. Before Linux 5.16, wchan is 0 on x86-64, so that this is all there is to see.
            _ if live.state == b'S' && live.has_signal_33_pending() => UnreachableReason::Frozen,
            _ => UnreachableReason::Unresponsive,
        }
    }

    /// Reads one of a thread's files, or what of it finds room.
    fn read<'b>(&self, name: i32, file: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let filled = self.open_file(name, file)?.read(buffer);
        self.save_spare();
        Ok(buffer.get(..filled?).unwrap_or_default())
    }

    /// Gives each line of one of a thread's files. A line that is longer than all that we look for
    /// is passed over: a user's groups may fill pages.
    fn lines(&self, name: i32, file: &CStr, each: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
        let fd = self.open_file(name, file)?;
        let mut buffer = [0; 2048];
        let (mut line, mut length, mut long) = ([0; 256], 0usize, false);
        let result = loop {
            let filled = match fd.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(filled) => filled,
                Err(errno) => break Err(errno),
            };
            for &byte in buffer.iter().take(filled) {
                if byte == b'\n' {
                    each(line.get(..length).filter(|_| !long).unwrap_or_default());
                    (length, long) = (0, false);
                } else if let Some(place) = line.get_mut(length) {
                    *place = byte;
                    length = length.wrapping_add(1);
                } else {
                    long = true;
                }
            }
        };
        drop(fd);
        self.save_spare();
        result
    }

    /// Whether a thread has the caller's descriptor table: if kcmp(2) is refused, whether the number of our directory
    /// leads to the same directory there. (It was opened for this round, so a table of the thread's own has it only
    /// if the thread has opened the same directory under the same number.)
    pub(crate) fn shares_files(&self, tid: i32) -> Result<bool, Errno> {
        sys::shares_files(self.tid, tid).or_else(|errno| {
            let directory = self.directory.as_ref().ok_or(errno)?;
            let mut digits = [0u8; 10];
            let number = decimal(directory.raw(), &mut digits);
            let there = self.identity(tid, &[b"fd/", number])?;
            Ok(there == Some(directory.identity_of(c"")?))
        })
    }

    /// Returns how a thread's root and working directories are related to the caller's. If kcmp(2) is refused, the links
    /// in /proc are compared.
    pub(crate) fn shares_fs(&self, tid: i32) -> Result<Sharing, Errno> {
        let shared = sys::shares_fs(self.tid, tid);
        shared.map(|shared| if shared { Sharing::Shared } else { Sharing::Different }).or_else(
            |errno| {
                for name in [b"root".as_slice(), b"cwd"] {
                    let (there, here) =
                        (self.identity(tid, &[name])?, self.identity(self.tid, &[name])?);
                    if here.is_none() {
                        return Err(errno);
                    }
                    if there != here {
                        return Ok(Sharing::Different);
                    }
                }
                Ok(Sharing::Alike)
            },
        )
    }

    /// Device and inode of what one of a thread's links leads to; None if it leads nowhere.
    fn identity(&self, tid: i32, file: &[&[u8]]) -> Result<Option<(u32, u32, u64)>, Errno> {
        let directory = self.directory.as_ref().filter(|_| !self.foreign).ok_or(Errno::NOENT)?;
        let mut path = [0u8; 48];
        match directory.identity_of(path_to(tid, file, &mut path)?) {
            Ok(identity) => Ok(Some(identity)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens one of a thread's files, at the expense of the spare descriptor if it must.
    fn open_file(&self, name: i32, file: &CStr) -> Result<Fd, Errno> {
        let Some(directory) = &self.directory else { return Err(Errno::NOENT) };
        let mut path = [0u8; 48];
        let path = path_to(name, &[file.to_bytes()], &mut path)?;
        let open = || match self.readable {
            true => directory.open_in(path, 0),
            // Only whether it is there can be asked.
            false => directory.open_path_in(path),
        };
        match open() {
            Err(Errno::MFILE | Errno::NFILE) if self.spare.take().is_some() => open(),
            other => other,
        }
    }

    /// Takes a spare descriptor again, if it had to be given up.
    fn save_spare(&self) {
        let duplicate = || self.directory.as_ref()?.duplicate().ok();
        self.spare.set(self.spare.take().or_else(duplicate));
    }
}

impl TaskStatus {
    fn of_errno(errno: Errno) -> Self {
        // ENOENT: it was gone when the file was opened. ESRCH: when it was read.
        match errno {
            Errno::NOENT | Errno::SRCH => Self::NotFound,
            _ => Self::Unknown,
        }
    }
}

/// Returns what kind of kernel worker a thread is: a task of the process that never returns to user mode. None: it is a
/// user thread, or may be one. A worker of io_uring counts as SQPOLL until it is known to be another.
///
/// Every worker blocks all signals but KILL and STOP, and cannot unblock them. It has a flag, but each flag had another
/// meaning in older kernels, which a user thread can have: PF_VCPU (KVM runs the thread's guest) and PF_USED_ASYNC (the
/// thread has loaded a module). Stable kernels and distributions have the workers of newer kernels under old version
/// numbers. So more evidence is needed:
///
/// 1. The registers decide, if the kernel shows them; see [`Tasks::has_user_registers`].
/// 2. PF_NO_SETAFFINITY: no user thread has it, since `fork` and `execve` clear it. Some kernels give it to workers.
/// 3. The version, for a worker that runs (a busy SQPOLL thread): from this one on, the flag has no other meaning.
///    Newer code is carried to kernels with older numbers, and never the reverse. A lower version proves nothing.
fn kernel_worker(
    flags: u32,
    blocked: Mask,
    has_user_registers: impl FnOnce() -> Option<bool>,
    version: impl FnOnce() -> Option<(u32, u32)>,
) -> Option<SkipReason> {
    const PF_IO_WORKER: u32 = 0x10;
    const PF_USER_WORKER: u32 = 0x4000;
    const PF_NO_SETAFFINITY: u32 = 0x0400_0000;
    const KILL_AND_STOP: Mask = bit(9) | bit(sys::SIGSTOP);
    if blocked | KILL_AND_STOP != sys::ALL {
        return None;
    }
    let (reason, since) = if flags & PF_IO_WORKER != 0 {
        (SkipReason::SqPoll, (5, 12))
    } else if flags & PF_USER_WORKER != 0 {
        (SkipReason::UserWorker, (6, 4))
    } else {
        return None;
    };
    // P1: a user thread is never taken for a worker.
    let is_worker = match has_user_registers() {
        Some(has) => !has,
        None if flags & PF_NO_SETAFFINITY != 0 => true,
        None => version().is_some_and(|version| version >= since),
    };
    is_worker.then_some(reason)
}

/// Reads /proc/TID/syscall: whether the stack pointer and the program counter, which end the line, are both 0. The line
/// of a thread that runs has no numbers.
fn user_registers(line: &[u8]) -> Option<bool> {
    let mut words = line.trim_ascii().rsplit(|&byte| byte == b' ');
    let (counter, stack) = (words.next()?, words.next()?);
    let number = |word: &[u8]| parse_hex(word.strip_prefix(b"0x")?);
    Some(number(counter)? != 0 || number(stack)? != 0)
}

/// The parts of /proc/PID/stat that matter (proc_pid_stat(5)).
struct Stat<'b> {
    name: &'b [u8],
    state: u8,
    flags: u32,
    start: usize,
}

impl<'b> Stat<'b> {
    fn parse(bytes: &'b [u8]) -> Option<Self> {
        // The name may hold anything, parentheses and newlines too.
        let open = bytes.iter().position(|&b| b == b'(')?;
        let close = bytes.iter().rposition(|&b| b == b')')?;
        let name = bytes.get(open.checked_add(1)?..close)?;
        let mut fields = bytes.get(close.checked_add(2)?..)?.split(|&b| b == b' ');
        let state = *fields.next()?.first()?;
        // `state` is field 3, `flags` is field 9, `starttime` field 22.
        let flags = parse(fields.nth(5)?)?;
        // A word is enough to tell two tasks apart.
        let start = parse::<u64>(fields.nth(12)?)? as usize;
        Some(Self { name, state, flags, start })
    }

    fn exiting(&self) -> bool {
        const PF_EXITING: u32 = 0x4;
        matches!(self.state, b'Z' | b'X') || self.flags & PF_EXITING != 0
    }
}

/// Takes one record off what getdents64(2) filled in: a name that is a number, or none.
fn next_record(records: &[u8]) -> Option<(Option<i32>, &[u8])> {
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let length = u16::from_ne_bytes([*records.get(LENGTH)?, *records.get(LENGTH + 1)?]);
    let (record, rest) = records.split_at_checked(usize::from(length))?;
    let name = record.get(NAME..)?.split(|&b| b == 0).next()?;
    Some((parse(name), rest))
}

/// The value of a line of /proc/PID/status that has this key, without white space around it.
fn value<'b>(line: &'b [u8], key: &[u8]) -> Option<&'b [u8]> {
    Some(line.strip_prefix(key)?.trim_ascii())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn parse<T: core::str::FromStr>(digits: &[u8]) -> Option<T> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

fn parse_hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// `NUMBER/FILE`, the file in parts.
fn path_to<'b>(number: i32, file: &[&[u8]], path: &'b mut [u8; 48]) -> Result<&'b CStr, Errno> {
    let mut digits = [0u8; 10];
    let parts =
        decimal(number, &mut digits).iter().chain(b"/").chain(file.iter().copied().flatten());
    for (to, from) in path.iter_mut().zip(parts) {
        *to = *from;
    }
    CStr::from_bytes_until_nul(path).map_err(|_| Errno::INVAL)
}

fn decimal(number: i32, digits: &mut [u8; 10]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut start = digits.len();
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        start = index;
        if rest == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}
