//! The tasks of a process as /proc shows them, of this process or another one.
//!
//! A process is opened once, as a directory, and so is each task in it. Everything is read through these
//! descriptors. If the number of a task is used again meanwhile, a read returns an error that [`is_no_such_process`] knows,
//! never the state of the new task.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::hash::Hash;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::LazyLock;

use libpsx::process::CapabilitySets;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::unistd;
use rustix::fs::{AtFlags, fstat, statat};

use crate::ask;

mod status;
use status::one;
pub(crate) use status::{Credentials, Deadline, Scheduling, Speculation, Stat, Status};

/// How often the tasks are listed while other tasks come and go. A look at a process with few tasks takes less than a
/// millisecond for each of these rounds.
const ROUNDS: usize = 32;

/// A process, as an open directory.
pub(crate) struct Process {
    pub(crate) pid: i32,
    tasks: OwnedFd,
}

/// What one look at all tasks of a process found.
pub(crate) struct Look<T> {
    /// The tasks that were read, with their numbers, in the order in which they were read.
    pub(crate) tasks: Vec<(i32, T)>,
    /// The numbers of the tasks that were there at the end, in order.
    pub(crate) present: Vec<i32>,
    /// Whether the look proves that every task of the process had been read at one moment.
    pub(crate) complete: bool,
}

impl<T> Look<T> {
    /// Leaves out the tasks that have ended meanwhile, except the last one of each state that no other task has: it is
    /// all that was seen of threads that replace each other. `state` returns whether a task is a worker of the kernel,
    /// and its state. Returns the tasks in the order of their numbers.
    pub(crate) fn without_ended<K: Eq + Hash>(
        self,
        state: impl Fn(&T) -> (bool, &K),
    ) -> Vec<(i32, T)> {
        let (mut seen, mut states) = (HashSet::new(), HashSet::new());
        // A number that two tasks had belongs to the one that was read last.
        let mut there = |tid: i32| self.present.binary_search(&tid).is_ok() && seen.insert(tid);
        let mut kept: Vec<bool> = self.tasks.iter().rev().map(|(tid, _)| there(*tid)).collect();
        kept.reverse();
        let all = || self.tasks.iter().map(|(_, task)| state(task));
        states.extend(all().zip(&kept).filter_map(|(state, kept)| kept.then_some(state)));
        for (state, kept) in all().zip(&mut kept).rev() {
            *kept = *kept || states.insert(state);
        }
        drop(states);
        let mut kept = kept.into_iter();
        let mut tasks = self.tasks;
        tasks.retain(|_| kept.next() == Some(true));
        tasks.sort_by_key(|(tid, _)| *tid);
        tasks
    }
}

/// One task of a process, as an open directory.
pub(crate) struct Task {
    pub(crate) tid: i32,
    directory: OwnedFd,
}

/// Returns whether /proc and the system calls of this process number tasks alike. Only then does a number from /proc
/// name the same task in a system call. If /proc is that of an outer PID namespace, this process has several numbers.
pub(crate) fn numbers_are_ours() -> bool {
    static OURS: LazyLock<bool> = LazyLock::new(|| {
        let status = Process::myself().and_then(|own| own.task(own.pid)?.status());
        status.is_ok_and(|status| status.numbers == [unistd::getpid().as_raw()])
    });
    *OURS
}

/// Returns whether the error means that the task or process has ended.
pub(crate) fn is_no_such_process(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::ESRCH)
}

/// Returns the numbers of all processes that /proc lists.
pub(crate) fn processes() -> nix::Result<Vec<i32>> {
    numbers(&mut Dir::open("/proc", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Returns whether /proc may hide processes of other users (hidepid, proc(5)). `listed` are those that it lists.
///
/// Each PID namespace has a process 1, so a list without it lacks others too. If /proc has the option, and lists that
/// process, the kernel still hides those that this process may not trace.
pub(crate) fn hides_processes(listed: &[i32]) -> bool {
    if !listed.contains(&1) {
        return true;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let traces_all = CapabilitySets::current()
        .is_ok_and(|own| own.effective.contains(libpsx::process::Capability::SYS_PTRACE));
    has_hidepid(&mounts) && !traces_all
}

/// Returns whether the last file system at /proc has the option hidepid, in the lines of proc_pid_mountinfo(5).
fn has_hidepid(mounts: &str) -> bool {
    let at_proc = |line: &&str| line.split(' ').nth(4) == Some("/proc");
    let options = mounts.lines().rfind(at_proc).and_then(|line| line.rsplit(' ').next());
    let value = |option: &str| option.strip_prefix("hidepid=").map(str::to_owned);
    let value = options.and_then(|options| options.split(',').find_map(value));
    value.is_some_and(|value| value != "0" && value != "off")
}

fn numbers(directory: &mut Dir) -> nix::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in directory.iter() {
        let entry = entry?;
        let number: Option<i32> = entry.file_name().to_str().ok().and_then(one);
        found.extend(number);
    }
    Ok(found)
}

impl Process {
    /// Opens the process with this number, or the process of the thread with this number.
    pub(crate) fn open(pid: i32) -> nix::Result<Self> {
        Self::at(pid, &format!("/proc/{pid}/task"))
    }

    pub(crate) fn myself() -> nix::Result<Self> {
        Self::at(unistd::getpid().as_raw(), "/proc/self/task")
    }

    fn at(pid: i32, path: &str) -> nix::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { pid, tasks: openat(AT_FDCWD, path, flags, Mode::empty())? })
    }

    /// Returns the numbers of the tasks, in order. Returns EAGAIN if no list was complete.
    pub(crate) fn tids(&self) -> nix::Result<Vec<i32>> {
        let look = self.look(|tids| tids.iter().map(|_| Ok(())).collect())?;
        if look.complete { Ok(look.present) } else { Err(Errno::EAGAIN) }
    }

    /// Reads every task. `read` returns a result for each number that it is given, in the same order.
    ///
    /// The look is complete if it proves that at one moment every task of the process had been read:
    ///
    /// 1. The tasks are listed, and each one that has not been read is read.
    /// 2. The kernel is asked how many tasks there are (the link count of the directory).
    /// 3. The tasks are listed again.
    /// 4. Each task is asked for the time of its start, which was read before the task was.
    ///
    /// A number that is in both lists, with the same time of start, was that of one task, which existed at step 2. With
    /// another time it belongs to a task that has not been read. (Two tasks with the same number start in the same clock tick
    /// only if a program chooses the numbers, for which it needs CAP_CHECKPOINT_RESTORE.) If the number of tasks is the
    /// kernel's, no other task existed at step 2.
    ///
    /// A task that executes a program ends the others, and takes the number and the time of start of the first one
    /// (execve(2)). So if a task has ended before it was read, the first one is read again in step 1.
    ///
    /// One list alone proves nothing: a pass can miss a living task while another task exits (`next_tid`, fs/proc/base.c).
    /// Nor does one list together with the link count: the missed task and the ended one make up for each other.
    ///
    /// If the directory has no link count, both lists must be equal. If there is no proof, the second list is the
    /// first one of the next round. Each round reads the new tasks only. After [`ROUNDS`] rounds the look ends without
    /// a proof: the threads come and go faster than they can be read.
    ///
    /// A task that ended before it could be read does not count as read. A number that a list lacks is read anew if it
    /// comes back, because another task can have it then.
    pub(crate) fn look<T>(
        &self,
        mut read: impl FnMut(&[i32]) -> Vec<nix::Result<T>>,
    ) -> nix::Result<Look<T>> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.tasks, ".", flags, Mode::empty())?;
        let mut list = || {
            let mut tids = numbers(&mut directory)?;
            tids.sort_unstable();
            tids.dedup();
            Ok::<_, Errno>(tids)
        };
        // The tasks that were read: the number, and the time of the start.
        let (mut tasks, mut known) = (Vec::new(), HashMap::new());
        let mut before = list()?;
        for _ in 0..ROUNDS {
            let mut wanted: Vec<i32> =
                before.iter().copied().filter(|tid| !known.contains_key(tid)).collect();
            // Ends: the second pass is the last one.
            let mut is_first_pass = true;
            while !wanted.is_empty() {
                let (mut new, mut starts, mut ended) = (Vec::new(), Vec::new(), false);
                for tid in wanted.drain(..) {
                    match self.start(tid)? {
                        Some(start) => {
                            new.push(tid);
                            starts.push(start);
                        }
                        None => ended = true,
                    }
                }
                for ((&tid, start), result) in new.iter().zip(starts).zip(read(&new)) {
                    match result {
                        Ok(task) => {
                            known.insert(tid, start);
                            tasks.push((tid, task));
                        }
                        Err(error) if is_no_such_process(error) => ended = true,
                        Err(error) => return Err(error),
                    }
                }
                if ended && is_first_pass && known.contains_key(&self.pid) {
                    wanted.push(self.pid);
                }
                is_first_pass = false;
            }
            let count = self.count()?;
            let after = list()?;
            let both: Vec<i32> =
                before.iter().copied().filter(|tid| after.binary_search(tid).is_ok()).collect();
            let all = match count {
                Some(count) => count == both.len(),
                None => before == after,
            };
            if all && both.iter().all(|tid| known.contains_key(tid)) {
                let mut again = HashSet::new();
                for (&tid, &start) in &known {
                    if self.start(tid)? != Some(start) {
                        again.insert(tid);
                    }
                }
                known.retain(|tid, _| !again.contains(tid));
                if both.iter().all(|tid| known.contains_key(tid)) {
                    return Ok(Look { tasks, present: both, complete: true });
                }
            }
            known.retain(|tid, _| after.binary_search(tid).is_ok());
            before = after;
        }
        Ok(Look { tasks, present: before, complete: false })
    }

    /// Returns how many tasks the kernel counts: the link count of the directory without `.` and `..`. Returns None if
    /// the directory has no such count.
    fn count(&self) -> nix::Result<Option<usize>> {
        let count = fstat(&self.tasks).map_err(same)?.st_nlink.saturating_sub(2);
        Ok(usize::try_from(count).ok().filter(|&count| count > 0))
    }

    /// Returns when a task started, in clock ticks, or None if it has ended.
    fn start(&self, tid: i32) -> nix::Result<Option<u64>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut name = String::new();
        // Writing to a String cannot fail.
        let _ = write!(name, "{tid}/stat");
        let text = openat(&self.tasks, name.as_str(), flags, Mode::empty());
        match text.and_then(|file| contents(&file)) {
            Ok(text) => Stat::parse(&text).map(|stat| Some(stat.start)).ok_or(Errno::EBADMSG),
            Err(error) if is_no_such_process(error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn task(&self, tid: i32) -> nix::Result<Task> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut name = String::new();
        // Writing to a String cannot fail.
        let _ = write!(name, "{tid}");
        Ok(Task { tid, directory: openat(&self.tasks, name.as_str(), flags, Mode::empty())? })
    }
}

impl Task {
    /// Opens the calling thread.
    pub(crate) fn myself() -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(AT_FDCWD, "/proc/thread-self", flags, Mode::empty())?;
        Ok(Self { tid: unistd::gettid().as_raw(), directory })
    }

    pub(crate) fn stat(&self) -> nix::Result<Stat> {
        Stat::parse(&self.read("stat")?).ok_or(Errno::EBADMSG)
    }

    pub(crate) fn status(&self) -> nix::Result<Status> {
        Status::parse(&self.read("status")?).ok_or(Errno::EBADMSG)
    }

    /// Returns the contents of a file of the task.
    pub(crate) fn read(&self, file: &str) -> nix::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        contents(&openat(&self.directory, file, flags, Mode::empty())?)
    }

    /// Returns the owner of a file of the task. If the process is not dumpable, the kernel gives its files to root, except
    /// directories of mode 0555 (`task_dump_owner`, fs/proc/base.c).
    pub(crate) fn owner(&self, file: &str) -> nix::Result<u32> {
        Ok(statat(&self.directory, file, AtFlags::SYMLINK_NOFOLLOW).map_err(same)?.st_uid)
    }

    /// Returns the timer slack in nanoseconds. The file exists in /proc/TID only, so the number may be used again
    /// meanwhile: the caller reads `stat` afterwards.
    pub(crate) fn timer_slack(&self) -> Option<u64> {
        let path = format!("/proc/{}/timerslack_ns", self.tid);
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let text = contents(&openat(AT_FDCWD, path.as_str(), flags, Mode::empty()).ok()?).ok()?;
        one(std::str::from_utf8(&text).ok()?)
    }

    /// Returns which directory is the root directory of the task, if this process may see it.
    pub(crate) fn root(&self) -> Option<ask::FileIdentity> {
        ask::file(Some(self.directory.as_fd()), c"root")
    }

    pub(crate) fn link(&self, file: &str) -> nix::Result<OsString> {
        readlinkat(&self.directory, file)
    }
}

/// Returns the same error. rustix has 64-bit times and inode numbers on every CPU; nix has the C library's `stat`.
fn same(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Reads a file of /proc to its end. Each of these files is one record: a read that does not fill the buffer has
/// reached the end.
fn contents(fd: &OwnedFd) -> nix::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = unistd::read(fd, &mut piece)?;
        text.extend_from_slice(piece.get(..length).unwrap_or_default());
        if length < piece.len() {
            return Ok(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_complete_look_has_read_the_tasks_that_come_meanwhile() {
        let own = Process::myself().unwrap();
        let (ready, made) = channel();
        let late = Cell::new(None);
        let look = own.look(|tids| {
            // After the first list, a thread comes that the list does not have.
            if late.get().is_none() {
                let ready = ready.clone();
                std::thread::spawn(move || {
                    ready.send(nix::unistd::gettid().as_raw()).unwrap();
                    std::thread::park();
                });
                late.set(Some(made.recv().unwrap()));
            }
            tids.iter().map(|&tid| own.task(tid)?.stat()).collect()
        });
        let look = look.unwrap();
        let late = late.get().unwrap();
        assert!(look.complete && look.present.contains(&late), "{late}: {:?}", look.present);
        assert!(look.tasks.iter().any(|(tid, _)| *tid == late));
        assert!(own.tids().unwrap().contains(&late));
    }

    /// Starts a thread that ends when the sender is dropped.
    fn waiting() -> (i32, impl FnOnce()) {
        let ((ready, made), (end, ended)) = (channel(), channel::<()>());
        let thread = std::thread::spawn(move || {
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            ended.recv().unwrap_err();
        });
        let tid = made.recv().unwrap();
        let finish = move || {
            drop(end);
            thread.join().unwrap();
            while std::fs::exists(format!("/proc/self/task/{tid}")).unwrap() {
                std::thread::yield_now();
            }
        };
        (tid, finish)
    }

    /// Starts a thread that has this number again. Returns None if that is not possible.
    fn again(tid: i32) -> Option<impl FnOnce()> {
        for _ in 0..1000 {
            std::fs::write("/proc/sys/kernel/ns_last_pid", (tid - 1).to_string()).ok()?;
            let (found, finish) = waiting();
            if found == tid {
                return Some(finish);
            }
            finish();
        }
        None
    }

    // The note that a test was skipped is for standard output.
    #[allow(clippy::print_stdout)]
    #[test]
    fn a_number_that_is_used_again_is_read_again() {
        let own = Process::myself().unwrap();
        let (tid, finish) = waiting();
        let start = own.start(tid).unwrap().unwrap();
        // The next task does not start in the same clock tick.
        while {
            let (other, finish) = waiting();
            let later = own.start(other).unwrap().unwrap() > start;
            finish();
            !later
        } {}
        let (finish, second) = (Cell::new(Some(finish)), Cell::new(None));
        let look = own.look(|tids| {
            let read = tids.iter().map(|&tid| own.task(tid)?.stat()).collect();
            if let Some(finish) = finish.take() {
                finish();
                second.set(again(tid));
            }
            read
        });
        let look = look.unwrap();
        let Some(second) = second.take() else {
            println!("SKIPPED: a_number_that_is_used_again_is_read_again: no choice of a number");
            return;
        };
        let starts = look.tasks.iter().filter(|(one, _)| *one == tid);
        let starts: Vec<_> = starts.map(|(_, stat)| stat.start).collect();
        let now = own.start(tid).unwrap().unwrap();
        second();
        assert!(look.complete);
        assert_eq!((starts.first(), starts.last()), (Some(&start), Some(&now)), "{starts:?}");
        assert_ne!(start, now);
    }

    /// The ended thread may have executed a program, and then has the number of the first one.
    #[test]
    fn the_first_task_is_read_again_if_a_task_has_ended_unread() {
        let own = Process::myself().unwrap();
        let (tid, finish) = waiting();
        let finish = Cell::new(Some(finish));
        let look = own.look(|tids| {
            if let Some(finish) = finish.take() {
                finish();
            }
            tids.iter().map(|&tid| own.task(tid)?.stat()).collect()
        });
        let look = look.unwrap();
        assert!(look.complete);
        let reads = |wanted: i32| look.tasks.iter().filter(|(tid, _)| *tid == wanted).count();
        assert_eq!((reads(tid), reads(own.pid)), (0, 2));
    }

    #[test]
    fn the_option_that_hides_processes_is_that_of_the_last_proc() {
        let line =
            |at: &str, options: &str| format!("22 1 0:21 / {at} rw - proc proc rw{options}\n");
        for (text, hides) in [
            (line("/proc", ""), false),
            (line("/proc", ",hidepid=invisible"), true),
            (line("/proc", ",gid=5,hidepid=2"), true),
            (line("/proc", ",hidepid=off"), false),
            (line("/mnt/proc", ",hidepid=2") + &line("/proc", ""), false),
            (line("/proc", ",hidepid=2") + &line("/proc", ""), false),
            (line("/proc", "") + &line("/proc", ",hidepid=ptraceable"), true),
            (String::new(), false),
        ] {
            assert_eq!(has_hidepid(&text), hides, "{text}");
        }
        assert!(hides_processes(&[2, 3]));
    }

    #[test]
    fn a_look_without_the_proof_is_not_complete() {
        let own = Process::myself().unwrap();
        // One task always ends before it can be read.
        let read = |&tid: &i32| if tid == own.pid { Err(Errno::ESRCH) } else { Ok(()) };
        let look = own.look(|tids| tids.iter().map(read).collect()).unwrap();
        assert!(!look.complete && look.tasks.iter().all(|(tid, ())| *tid != own.pid));
        let denied = own.look(|tids| tids.iter().map(|_| Err::<(), _>(Errno::EACCES)).collect());
        assert_eq!(denied.err(), Some(Errno::EACCES));
    }

    #[test]
    fn the_only_trace_of_ended_tasks_is_kept() {
        let tasks = [(5, "root"), (1, "user"), (7, "root"), (9, "user"), (8, "root"), (3, "other")];
        let look = |present: &[i32]| Look {
            tasks: tasks.into(),
            present: present.to_vec(),
            complete: true,
        };
        let kept = |present: &[i32]| -> Vec<i32> {
            let kept = look(present).without_ended(|state| (false, state));
            kept.into_iter().map(|(tid, _)| tid).collect()
        };
        assert_eq!(kept(&[1, 3, 5, 7, 8, 9]), [1, 3, 5, 7, 8, 9]);
        // The last task of each state that no task has any more.
        assert_eq!(kept(&[1]), [1, 3, 8]);
        assert_eq!(kept(&[1, 5]), [1, 3, 5]);
        // A number that was used twice.
        let twice = vec![(1, "root"), (1, "user")];
        let look = Look { tasks: twice, present: vec![1], complete: true };
        assert_eq!(look.without_ended(|state| (false, state)), [(1, "root"), (1, "user")]);
    }
}
