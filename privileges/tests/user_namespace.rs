//! Drops in a user namespace and without any /proc, inspected from outside.
#![allow(unsafe_code)]

#[path = "support/calling_thread.rs"]
mod calling_thread;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use calling_thread::{become_in_this_thread, here};
use libpsx::process::{CapabilitySets, capset};
use privileges::{Capability, Error, Groups, Privileges, Problem};
use support::{isolated_as_root, proc, reap, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);
const FIELDS: [&str; 9] =
    ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];

fn fields(status: &str) -> BTreeMap<String, String> {
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let wanted = lines.filter(|(key, _)| FIELDS.contains(key));
    wanted.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// Makes a word that parent and child share. It holds the step that they have reached.
fn shared_word() -> &'static AtomicU32 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: it makes a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: zeroed, and never given back.
    unsafe { &*at.cast::<AtomicU32>() }
}

fn await_step(word: &AtomicU32, step: u32) {
    while word.load(Ordering::SeqCst) < step {
        std::thread::yield_now();
    }
}

fn dropping(step: &AtomicU32) {
    // SAFETY: it takes flags; the process has one thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUSER) }, 0);
    step.store(1, Ordering::SeqCst);
    await_step(step, 2);
    // The process becomes root in this namespace.
    // SAFETY: it takes a number.
    assert_eq!(unsafe { libc::setgid(0) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setuid(0) }, 0);
    sleepers(3);
    let wanted = Command::new("setpriv")
        .args(["--reuid=daemon", "--regid=daemon", "--init-groups", "--inh-caps=-all"])
        .args(["--no-new-privs", "cat", "/proc/self/status"])
        .output()
        .unwrap();
    assert!(wanted.status.success(), "{wanted:?}");
    let wanted = fields(&String::from_utf8(wanted.stdout).unwrap());
    assert_eq!(wanted.len(), FIELDS.len());
    let applied = Privileges::new().user("daemon").no_new_privs().plan().unwrap().apply().unwrap();
    assert_eq!((applied.threads, applied.verified), (4, 4));
    for (field, value) in &wanted {
        support::all_have(field, value);
    }
    step.store(3, Ordering::SeqCst);
    await_step(step, 4);
}

/// Lets a child drop in a user namespace with many ids. Its parent, outside, inspects all threads.
#[test]
fn a_drop_works_in_a_user_namespace_with_many_ids() {
    isolated_as_root("a_drop_works_in_a_user_namespace_with_many_ids", WATCHDOG, || {
        if !support::user_namespaces() {
            return;
        }
        let step = shared_word();
        // glibc allows all calls of this child.
        let pid = support::fork();
        if pid == 0 {
            let done = std::panic::catch_unwind(|| dropping(step));
            support::end(if done.is_ok() { 0 } else { 101 });
        }
        await_step(step, 1);
        std::fs::write(format!("/proc/{pid}/uid_map"), "0 100000 65536\n").unwrap();
        std::fs::write(format!("/proc/{pid}/gid_map"), "0 100000 65536\n").unwrap();
        step.store(2, Ordering::SeqCst);
        let mut died = 0;
        while step.load(Ordering::SeqCst) < 3 {
            // SAFETY: the kernel writes the status.
            let ended = unsafe { libc::waitpid(pid, &mut died, libc::WNOHANG) };
            assert_eq!(ended, 0, "the child ended with {died:#x}");
            std::thread::yield_now();
        }
        let mut seen = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap();
            let status = fields(&status);
            assert_eq!(status["Uid"], "100001\t100001\t100001\t100001");
            assert_eq!(status["Gid"], "100001\t100001\t100001\t100001");
            assert_eq!(status["CapPrm"], "0000000000000000");
            assert_eq!(status["NoNewPrivs"], "1");
            seen += 1;
        }
        assert_eq!(seen, 4);
        step.store(4, Ordering::SeqCst);
        assert_eq!(reap(pid), 0);
    });
}

/// Removes /proc. The test reads it through a descriptor that it opened before.
#[test]
fn a_drop_works_without_proc() {
    isolated_as_root("a_drop_works_without_proc", WATCHDOG, || {
        sleepers(3);
        let listed = proc::tids();
        // All threads that share root and working directory enter the mount namespace.
        if !support::private_mounts() {
            return;
        }
        let tasks = std::fs::File::open("/proc/self/task").unwrap();
        // SAFETY: a string.
        assert_eq!(unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH) }, 0);
        assert!(std::fs::File::open("/proc/self/status").is_err());
        let settings = Privileges::new().user("nobody").keep(Capability::CHOWN);
        let applied = settings.plan().unwrap().apply().unwrap();
        assert_eq!((applied.threads, applied.verified), (listed.len(), 0));
        for tid in listed {
            let name = std::ffi::CString::new(format!("{tid}/status")).unwrap();
            // SAFETY: a string.
            let fd = unsafe { libc::openat(tasks.as_raw_fd(), name.as_ptr(), libc::O_RDONLY) };
            assert!(fd >= 0);
            // SAFETY: it was just opened.
            let file: std::fs::File = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
            let status = fields(&std::io::read_to_string(file).unwrap());
            assert_eq!(status["Uid"], "65534\t65534\t65534\t65534");
            assert_eq!(status["CapPrm"], "0000000000000001");
        }
    });
}

/// Runs `prepare` in a child, which then is in a new user namespace. The parent maps ids as `map` says, and `body` runs.
fn in_a_user_namespace(map: &str, prepare: fn(), body: fn()) {
    let step = shared_word();
    // glibc allows all calls of this child.
    let pid = support::fork();
    if pid == 0 {
        let done = std::panic::catch_unwind(|| {
            prepare();
            // SAFETY: it takes flags; the process has one thread.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUSER) }, 0);
            // SAFETY: it takes numbers. Otherwise the parent could not write the files.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
            step.store(1, Ordering::SeqCst);
            await_step(step, 2);
            body();
        });
        step.store(3, Ordering::SeqCst);
        support::end(if done.is_ok() { 0 } else { 101 });
    }
    await_step(step, 1);
    if !map.is_empty() {
        for name in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{name}"), map).unwrap();
        }
    }
    step.store(2, Ordering::SeqCst);
    assert_eq!(reap(pid), 0);
}

fn problems(privileges: Privileges) -> Vec<Problem> {
    match privileges.plan() {
        Err(Error::Plan(found)) => found,
        other => panic!("{other:?}"),
    }
}

/// Sets the supplementary groups of the calling thread to one that has no mapping later.
fn join_group() {
    let group = 4242u32;
    here(libc::SYS_setgroups, [1, &raw const group as usize, 0]);
}

/// Root of the outer namespace is shown as user 65534.
#[test]
fn a_user_without_a_mapping_may_be_root() {
    isolated_as_root("a_user_without_a_mapping_may_be_root", WATCHDOG, || {
        if !support::user_namespaces() {
            return;
        }
        in_a_user_namespace("", join_group, || {
            let settings = || Privileges::new().keep_groups().no_new_privs();
            let found = problems(settings());
            assert!(matches!(*found, [Problem::UnknownUser(65534)]), "{found:?}");
            // Until a group is mapped, the kernel refuses setgroups(2).
            let found = problems(Privileges::new().stay_root().groups(Groups::NONE));
            assert!(matches!(*found, [Problem::SetgroupsDenied]), "{found:?}");
            settings().stay_root().plan().unwrap().apply().unwrap();
        });
    });
}

/// Lays an empty file system over /proc. Returns false, and records a skipped test, if that is not possible.
fn proc_is_hidden() -> bool {
    if !support::private_mounts() {
        return false;
    }
    let tmpfs = c"tmpfs".as_ptr();
    // SAFETY: strings.
    let made = unsafe { libc::mount(tmpfs, c"/proc".as_ptr(), tmpfs, 0, std::ptr::null()) };
    if made != 0 {
        support::skipped(format!("no mount over /proc: {}", std::io::Error::last_os_error()));
    }
    made == 0
}

/// Without /proc, user 65534 of the initial namespace is no other user. In another namespace it may be root.
#[test]
fn nobody_without_proc_is_known_in_the_initial_namespace() {
    isolated_as_root("nobody_without_proc_is_known_in_the_initial_namespace", WATCHDOG, || {
        let settings = || Privileges::new().no_new_privs();
        let initial = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        let initial = initial.split_whitespace().eq(["0", "0", "4294967295"]);
        // SAFETY: it takes numbers.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) } as i32;
        // SAFETY: it takes a number. PIDFD_GET_USER_NAMESPACE.
        let told = unsafe { libc::ioctl(pidfd, 0xff09, 0) } >= 0;
        support::forked(|| {
            if !initial || !told {
                support::skipped("not the initial user namespace, or a Linux before 6.11");
                return;
            }
            if !proc_is_hidden() {
                return;
            }
            become_in_this_thread(&[], 65534, 65534);
            let applied = settings().plan().unwrap().apply().unwrap();
            assert_eq!((applied.threads, applied.verified), (1, 0));
        });
        if !support::user_namespaces() {
            return;
        }
        let prepare = || here(libc::SYS_setgroups, [0; 3]);
        in_a_user_namespace("0 1 1", prepare, || {
            if proc_is_hidden() {
                let found = problems(Privileges::new().no_new_privs());
                assert!(matches!(*found, [Problem::UnknownUser(65534)]), "{found:?}");
            }
        });
    });
}

/// Group 4242 has no mapping, and is shown as 65534, the only group that `nobody` has.
#[test]
fn a_group_without_a_mapping_is_not_that_of_nobody() {
    isolated_as_root("a_group_without_a_mapping_is_not_that_of_nobody", WATCHDOG, || {
        if !support::user_namespaces() {
            return;
        }
        let prepare = || become_in_this_thread(&[4242], 65534, 65534);
        in_a_user_namespace("65534 65534 1", prepare, || {
            capset(CapabilitySets::EMPTY).execute().unwrap();
            let found = problems(Privileges::new().user("nobody").no_new_privs());
            let unknown = |one: &Problem| matches!(one, Problem::UnknownGroups(65534));
            assert!(found.iter().any(unknown), "{found:?}");
            // It has the number of the group id.
            let found = problems(Privileges::new().stay_root());
            assert!(matches!(&*found, [Problem::GroupsNotDropped(_)]), "{found:?}");
        });
    });
}

/// A container whose user is `nobody`: user 65534 has a mapping, and is also the id that is shown for ids without one.
#[test]
fn nobody_of_a_container_learns_how_the_groups_stay() {
    isolated_as_root("nobody_of_a_container_learns_how_the_groups_stay", WATCHDOG, || {
        if !support::user_namespaces() {
            return;
        }
        let prepare = || become_in_this_thread(&[165_534], 165_534, 165_534);
        in_a_user_namespace("0 100000 65536", prepare, || {
            capset(CapabilitySets::EMPTY).execute().unwrap();
            let nobody = || Privileges::new().user("nobody").no_new_privs();
            let found = problems(nobody());
            assert!(matches!(*found, [Problem::UnknownGroups(65534)]), "{found:?}");
            let text = found[0].to_string();
            assert!(text.contains("65534") && text.contains(".keep_groups()"), "{text}");
            // A group that the process does not have is another problem.
            let found = problems(nobody().groups([65534, 4242]));
            let lacks = |one: &Problem| {
                matches!(one, Problem::MissingCapability { capability: Capability::SETGID, .. })
            };
            assert!(matches!(&*found, [one] if lacks(one)), "{found:?}");
            let found = problems(Privileges::new().keep_groups().no_new_privs());
            assert!(matches!(*found, [Problem::UnknownUser(65534)]), "{found:?}");
            let text = found[0].to_string();
            assert!(text.contains("65534 is also shown for every id without a mapping"), "{text}");
            nobody().keep_groups().plan().unwrap().apply().unwrap();
        });
    });
}

#[test]
fn a_thread_without_a_mapping_may_be_root() {
    isolated_as_root("a_thread_without_a_mapping_may_be_root", WATCHDOG, || {
        if !support::user_namespaces() {
            return;
        }
        in_a_user_namespace(
            "1000 1000 1",
            || (),
            || {
                sleepers(1);
                here(libc::SYS_setresuid, [1000; 3]);
                let settings = Privileges::new().keep_groups().no_new_privs().report_failure();
                let Err(Error::NotDropped(wrong)) = settings.plan().unwrap().apply() else {
                    panic!("Ok")
                };
                assert!(wrong.iter().all(|one| one.expected == "no id of root"), "{wrong:?}");
            },
        );
    });
}
