//! What is remarkable about a process, and why it matters.

use std::fmt;

use serde::{Serialize, Serializer};

use super::process::Process;
use super::state::Field;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flag {
    /// Threads differ in this.
    Differs(Field),
    /// A kernel worker keeps what no thread has.
    WorkerKeeps,
    /// What was expected does not hold.
    Unexpected,
    /// The leader is dead, and others are not.
    ZombieLeader,
    /// Nothing of the process runs any more.
    Zombie,
    /// Whoever looks may not see the namespaces.
    NamespacesUnseen,
}

impl Flag {
    pub(crate) fn of(process: &Process) -> Vec<Self> {
        let mut flags: Vec<_> = process.differs().into_iter().map(Self::Differs).collect();
        let unseen = process.groups.iter().any(|group| group.state.namespaces.is_none());
        let others = [
            (Self::WorkerKeeps, process.workers.iter().any(|worker| !worker.keeps.is_empty())),
            (Self::ZombieLeader, process.leader_dead && process.threads() > 0),
            (Self::Zombie, process.threads() == 0),
            (Self::NamespacesUnseen, unseen),
        ];
        flags.extend(others.into_iter().filter_map(|(flag, is)| is.then_some(flag)));
        flags
    }

    /// Why it matters, and what to call.
    pub(crate) const fn explain(self) -> &'static str {
        match self {
            Self::Differs(Field::Uid) => {
                "whoever takes over one thread has what every thread may do, because they share their \
                 memory, so ids that one thread keeps are kept by all: call setresuid on all of them \
                 (libpsx::process::setresuid, psx_syscall3(SYS_setresuid, ...))"
            }
            Self::Differs(Field::Gid) => {
                "a thread that keeps a group opens the files of that group for the others: call setresgid \
                 on all of them, before setresuid (libpsx::process::setresgid)"
            }
            Self::Differs(Field::Groups) => {
                "supplementary groups open files as the main group does, and setgroups(2) itself changes \
                 one thread: call libpsx::process::setgroups, before setresuid"
            }
            Self::Differs(Field::Caps) => {
                "capset(2) changes the calling thread alone, and code that runs in any other has the \
                 capabilities still: call libpsx::process::capset, or cap_set_proc(3) with libpsx linked"
            }
            Self::Differs(Field::Ambient) => {
                "a thread that keeps ambient capabilities gives them to every program that it executes: \
                 call libpsx::process::cap_ambient_clear_all"
            }
            Self::Differs(Field::Bounding) => {
                "a thread with a larger bounding set may gain by execve(2) what the others gave up: call \
                 libpsx::process::capbset_drop"
            }
            Self::Differs(Field::Nnp) => {
                "a thread without no_new_privs can execute set-user-ID programs: call \
                 libpsx::process::set_no_new_privs"
            }
            Self::Differs(Field::Seccomp) => {
                "a thread with fewer filters makes the calls that the others are forbidden: install the \
                 filter with SECCOMP_FILTER_FLAG_TSYNC, or by libpsx::process::seccomp"
            }
            Self::Differs(Field::Namespaces) => {
                "a thread in another namespace sees other files, networks or processes than its fellows: \
                 unless that is meant (container runtimes do it), call libpsx::process::setns"
            }
            Self::Differs(Field::Label) => {
                "the security module holds one thread to other rules than its fellows: have the label set \
                 before the first thread starts, or by execve(2)"
            }
            Self::Differs(Field::Sched) => {
                "a thread with a real-time policy can keep a CPU from all others: if that is not meant, \
                 call libpsx::process::sched_setscheduler, and if it is, --ignore sched"
            }
            Self::WorkerKeeps => {
                "this worker of the kernel goes on with the credentials that its io_uring or device was \
                 made with, and no call changes them: drop privileges before io_uring_setup(2), or close \
                 the ring and make it again"
            }
            Self::Unexpected => {
                "the process is not what its deployment says: look at the order in which it drops \
                 privileges, and at the unit or container that starts it"
            }
            Self::ZombieLeader => {
                "the main thread has ended and shows the ids that it had, which is why ps(1) shows them \
                 too: it can do nothing any more, and is not compared"
            }
            Self::Zombie => {
                "the process has ended and only its parent's wait(2) is missing: nothing runs"
            }
            Self::NamespacesUnseen => {
                "only who may trace a process sees its namespaces: run psx as its user or as root to have \
                 them compared"
            }
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs(field) => write!(f, "differs:{field}"),
            Self::WorkerKeeps => f.write_str("worker-keeps"),
            Self::Unexpected => f.write_str("unexpected"),
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
