//! Which threads this process has, and what is known of one that does not arrive.
//!
//! /proc/self/task lists them, and the link count of that directory, minus two, is their number
//! (`proc_task_getattr`, fs/proc/base.c). If the directory cannot be read (Landlock), the number is there all the
//! same. If /proc is not to be had, a proc that is mounted for this descriptor alone does as well. If that is not
//! allowed either, every possible tid is asked for with tgkill(2) and signal 0.
#![forbid(unsafe_code)]

#[cfg(psx_fuzz)]
pub mod fuzz;
mod parse;
mod status;
mod worker;

use core::cell::Cell;
use core::ffi::CStr;
use core::time::Duration;

use linux_raw_sys::general::O_DIRECTORY;

use self::parse::{decimal, next_record, parse, path_to, value};
pub(crate) use self::status::{LiveTask, TaskStatus};
use crate::errno::Errno;
use crate::sys::{self, Fd, arch};

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

/// How the root and working directories of two threads are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// The threads share them, for certain.
    Shared,
    /// They are the same now. It is not known whether the threads share them.
    Alike,
    Different,
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
            // the last number, and this thread is there: if the answers are others, they come from a filter.
            let absent = |tid| sys::tgkill(self.pid, tid, 0) == Err(Errno::SRCH);
            if !absent(TID_LIMIT) || absent(self.tid) {
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
