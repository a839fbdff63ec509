//! Flags of a process that need attention, and why they matter.

use std::fmt;

use serde::{Serialize, Serializer};

use super::process::Process;
use super::state::Field;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flag {
    /// Threads differ in this field.
    Differs(Field),
    /// The threads come and go faster than they can be read.
    Incomplete,
    /// A kernel worker may do what no thread may do.
    WorkerKeeps,
    /// An expectation does not hold.
    Unexpected,
    /// It cannot be seen whether an expectation holds.
    Unchecked,
    /// The leader has ended, and other threads run.
    ZombieLeader,
    /// No thread of the process runs any more.
    Zombie,
    /// This process may not see the namespaces.
    NamespacesUnseen,
}

impl Flag {
    pub(crate) fn of(process: &Process) -> Vec<Self> {
        let mut flags: Vec<_> = process.differs().into_iter().map(Self::Differs).collect();
        let unseen = process.states().any(|alike| alike.state.namespaces.is_none());
        let others = [
            (Self::Incomplete, !process.complete),
            (Self::WorkerKeeps, process.workers.iter().any(|worker| !worker.keeps.is_empty())),
            (Self::ZombieLeader, process.leader_dead && process.threads() > 0),
            (Self::Zombie, process.zombie()),
            (Self::NamespacesUnseen, unseen),
        ];
        flags.extend(others.into_iter().filter_map(|(flag, is)| is.then_some(flag)));
        flags
    }

    /// Returns why it matters, and which function repairs it.
    pub(crate) const fn explain(self) -> &'static str {
        match self {
            Self::Differs(field) => difference(field),
            Self::Incomplete => {
                "The threads of the process come and go faster than psx can read them. A thread that was \
                 not read may have privileges that the others have not. Stop the process (kill -STOP) \
                 while psx reads it."
            }
            Self::WorkerKeeps => {
                "This worker of the kernel keeps the credentials, the root directory and the namespaces \
                 that its io_uring or device was made with, and no call changes them. Drop privileges, \
                 chroot(2) and unshare(2) before io_uring_setup(2), or close the ring and make it again."
            }
            Self::Unexpected => {
                "The process is not what was expected. Check the order in which it drops privileges, \
                 and the unit or container that starts it."
            }
            Self::Unchecked => {
                "An expectation is about a state that psx cannot see. Run psx as root, in the user namespace \
                 and the PID namespace of the host."
            }
            Self::ZombieLeader => {
                "The main thread has ended. It shows the IDs that it had, and ps(1) shows them too. It \
                 can do nothing any more and is not compared."
            }
            Self::Zombie => {
                "The process has ended. Its parent has not called wait(2) yet. No thread of it runs."
            }
            Self::NamespacesUnseen => {
                "Only a process that may trace another process sees its namespaces. Run psx as the \
                 user of the process or as root to have them compared."
            }
        }
    }
}

const fn difference(field: Field) -> &'static str {
    match field {
        Field::Uid => {
            "The threads share their memory, so code that takes over one thread can do what any thread \
             may do. IDs that one thread keeps are kept by the whole process. Call setresuid on all \
             threads (libpsx::process::setresuid, psx_syscall3(SYS_setresuid, ...))."
        }
        Field::Gid => {
            "A thread that keeps a group can open the files of that group for the other threads. Call \
             setresgid on all threads, before setresuid (libpsx::process::setresgid)."
        }
        Field::Groups => {
            "Supplementary groups open files as the main group does, and setgroups(2) changes one thread \
             only. Call libpsx::process::setgroups, before setresuid."
        }
        Field::Caps => {
            "capset(2) changes the calling thread only. Code that runs in another thread still has the \
             capabilities. Call libpsx::process::capset, or cap_set_proc(3) with libpsx linked."
        }
        Field::Ambient => {
            "A thread that keeps ambient capabilities gives them to every program that it executes. Call \
             libpsx::process::cap_ambient_clear_all."
        }
        Field::Bounding => {
            "A thread with a larger bounding set can gain by execve(2) what the other threads gave up. \
             Call libpsx::process::capbset_drop."
        }
        Field::Nnp => {
            "A thread without no_new_privs can execute set-user-ID programs. Call \
             libpsx::process::set_no_new_privs."
        }
        Field::Seccomp => {
            "A thread with fewer filters can make the system calls that the filters forbid to the other \
             threads. Install the filter with SECCOMP_FILTER_FLAG_TSYNC, or by libpsx::process::seccomp."
        }
        Field::Namespaces => {
            "A thread in another namespace sees other files, networks or processes. Container runtimes \
             do this on purpose. Otherwise call libpsx::process::setns."
        }
        Field::Label => {
            "The security module applies other rules to this thread. Set the label before the first \
             thread starts, or by execve(2)."
        }
        Field::Root => {
            "A thread with another root directory resolves absolute paths elsewhere: a thread outside \
             the chroot opens files for the threads inside. Call chroot(2) before the first thread \
             starts, or on all threads that do not share it (libpsx::process::chroot)."
        }
        Field::Cwd => {
            "A thread with another working directory resolves relative paths elsewhere, and a working \
             directory outside the root directory is a way out of it. Call libpsx::process::chdir."
        }
        Field::Umask => {
            "Files that this thread creates get other permissions. Call umask(2) in it."
        }
        Field::Personality => {
            "The personality can switch off address randomisation and make readable memory executable. \
             Call personality(2) before the first thread starts, or broadcast it."
        }
        Field::Speculation => {
            "A thread without a speculation control can be attacked through side channels that the \
             control closes for the other threads. Call libpsx::process::set_speculation_ctrl."
        }
        Field::Sched => {
            "A thread with a real-time policy can keep a CPU from all other threads. If that is not \
             meant, call libpsx::process::sched_setscheduler. If it is meant, use --ignore sched."
        }
        Field::Affinity => {
            "The thread may use other CPUs. If that is not meant, call libpsx::process::sched_setaffinity."
        }
        Field::Mems => "The thread may use other memory nodes: look at its cpuset, cpuset(7).",
        Field::Nice => "The thread has another nice value. Call libpsx::process::setpriority.",
        Field::Ioprio => "The thread has another I/O priority. Call libpsx::process::ioprio_set.",
        Field::TimerSlack => {
            "The timers of the thread are less or more exact. Call libpsx::process::set_timer_slack."
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs(field) => write!(f, "differs:{field}"),
            Self::Incomplete => f.write_str("incomplete"),
            Self::WorkerKeeps => f.write_str("worker-keeps"),
            Self::Unexpected => f.write_str("unexpected"),
            Self::Unchecked => f.write_str("unchecked"),
            Self::ZombieLeader => f.write_str("zombie-leader"),
            Self::Zombie => f.write_str("zombie"),
            Self::NamespacesUnseen => f.write_str("namespaces-unseen"),
        }
    }
}

impl Serialize for Flag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
