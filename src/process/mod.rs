//! Typed calls that change the privilege or the state of every thread. There is one safe function for each call of the
//! manual pages. A call is performed alone, or as part of a [`Transaction`](crate::Transaction).
//!
//! A function here makes an [`Operation`]. [`Operation::execute`] performs it on every thread, as
//! [`syscall6`](crate::syscall6) does. [`Transaction::with`](crate::Transaction::with) appends it to a transaction.
//!
//! ```
//! use libpsx::process::set_no_new_privs;
//!
//! set_no_new_privs().execute()?;
//! # Ok::<(), libpsx::Error>(())
//! ```
//!
//! All operations have this in common:
//!
//! - **Each thread** sees the change from the instruction on at which it was interrupted. No thread runs in the old state
//!   after another thread has the new one.
//! - **Errors** are [`Error`](crate::Error), and mean that nothing has changed. [`Error::Call`](crate::Error::Call) has the error number of the calling
//!   thread's own call: one of those that the function's page lists.
//! - **Memory** that an argument points to is part of the operation, or is borrowed by it.
//!
//! # What belongs to a thread on Linux
//!
//! *By each thread*: whether every thread can usefully make the call. *Twice*: whether it is harmless if a thread makes
//! the call twice. *Inherited*: by new threads and by children (fork(2)); execve(2) has rules of its own. *By the
//! kernel*: what does the same in all threads without this crate.
//!
//! | state | here | by each thread | twice | inherited | by the kernel |
//! |---|---|---|---|---|---|
//! | user, group, supplementary IDs | [`set_all_uids`], [`set_all_gids`], [`setgroups`], [`setresuid`] ... | yes | yes | yes | no (libc's set*id broadcast as we do) |
//! | ids for files | [`setfsuid`], [`setfsgid`] | yes | yes | yes | no |
//! | capability sets | [`capset`] | yes | yes | yes | no |
//! | bounding set | [`capbset_drop`] | yes | yes | yes | no |
//! | ambient set | [`cap_ambient_raise`], [`cap_ambient_lower`], [`cap_ambient_clear_all`] | yes | yes | yes | no |
//! | securebits, keepcaps | [`set_securebits`], [`set_keepcaps`] | yes | yes | yes | no |
//! | no_new_privs | [`set_no_new_privs`] | yes | yes | yes | with the two below, when they synchronise |
//! | seccomp filters | [`seccomp`] | yes; better not | no: they add up | yes | SECCOMP_FILTER_FLAG_TSYNC |
//! | Landlock domain | [`landlock_restrict_self`] | yes | no: they add up, to 16 | yes | LANDLOCK_RESTRICT_SELF_TSYNC (7.0) puts the caller's domain in place of the others |
//! | network, UTS, IPC, cgroup namespace | [`unshare`], [`setns`] | setns; unshare makes one for each | setns: yes | yes | no |
//! | mount, PID, user, time namespace | not offered: see [`Namespace`] | no | | yes | no |
//! | root and working directory | [`chroot`], [`chdir`], [`fchdir`] | yes, if they are shared | yes | yes | shared (CLONE_FS) |
//! | session keyring | [`new_session_keyring`] | by name; without one each has its own | yes | yes | no |
//! | label of a security module | [`lsm_set_self_attr`] | yes | AppArmor, Smack: yes | yes | no |
//! | policy, priority, nice value, utilization clamp | [`sched_setscheduler`], [`sched_setattr`], [`setpriority`] | yes | yes | yes, unless reset on fork | no |
//! | priority of input and output | [`ioprio_set`] | yes | yes | yes | IOPRIO_WHO_PGRP, a process group |
//! | CPUs | [`sched_setaffinity`] | yes | yes | yes | cpuset cgroups |
//! | memory policy | [`set_mempolicy`] | yes | yes | yes | cpuset cgroups |
//! | timer slack | [`set_timer_slack`] | yes | yes | yes | no |
//! | personality | [`personality`] | yes | yes | yes | no |
//! | speculation control | [`set_speculation_ctrl`] | yes | yes | yes | no |
//! | parent-death signal | [`set_parent_process_death_signal`] | yes | yes | no | no |
//! | time stamp counter, input and output for others, broken memory, tagged addresses | [`set_tsc`], [`set_io_flusher`], [`set_mce_kill`], [`set_tagged_addr_ctrl`] | yes | yes | yes | no |
//! | syscall user dispatch | [`disable_syscall_user_dispatch`]; on is refused | off: yes | yes | no | no |
//! | strict seccomp | refused | no: held threads could not go on | | | |
//! | signal mask, alternate stack | refused | no: a held thread's are the handler's | | | |
//! | rseq, robust list, clear_child_tid, thread pointer | refused | no: they belong to the run-time | | | |
//! | name, thread and process keyring, memory of perf events | not offered | no: each has its own, for good reason | | | |
//!
//! What belongs to the whole process on Linux needs no broadcast: [`prctls`] has the table for prctl(2).
//!
//! # Types of other crates
//!
//! | type | to the type of this crate | from the type of this crate |
//! |---|---|---|
//! | `nix::unistd::Uid`, `rustix::process::Uid` (and `Gid`) | `Uid::new(uid.as_raw())?` | `Uid::from_raw(uid.as_raw())` |
//! | `rustix::thread::CapabilitySet` | `CapabilitySet::from_bits(set.bits())` | `from_bits_retain(set.bits())` |
//! | `capctl::CapSet` | `set.iter().filter_map(\|cap\| Capability::new(cap as u8)).collect()` | by each name: `capctl::Cap::from_str(&capability.to_string())` |
//! | `caps::CapsHashSet` | `set.iter().filter_map(\|cap\| Capability::new(cap.index())).collect()` | by each name, as for capctl |
//! | `libc::sock_filter`, `seccompiler::sock_filter` | `Instruction { code: f.code, jt: f.jt, jf: f.jf, k: f.k }` | the same |
//! | `nix::errno::Errno` | | `Errno::from_raw(errno.raw_os_error())` |

mod capabilities;
mod capability_set;
mod capability_text;
mod credentials;
mod directories;
mod fd;
mod identity;
mod keyrings;
mod listener;
mod lsm;
mod namespaces;
mod operation;
pub mod prctls;
mod sandbox;
mod scheduling;
mod securebits;

pub use crate::process::operation::Operation;
pub use capabilities::*;
pub use capability_set::{Capability, CapabilitySet};
pub use capability_text::ParseCapabilitiesError;
pub use credentials::*;
pub use directories::*;
pub use fd::Fd;
pub use identity::{Identity, Ids, identities};
pub(crate) use identity::{QUESTIONS, question};
pub use keyrings::*;
pub use listener::{FilterWithListener, Listener, seccomp_with_listener};
pub use lsm::{Lsm, LsmAttribute, LsmContext, lsm_set_self_attr};
pub use namespaces::*;
pub use prctls::*;
pub use sandbox::*;
pub use scheduling::*;
pub use securebits::{Securebits, set_securebits};
