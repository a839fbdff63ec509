//! The findings of the verification, and their consequences: threads with other results, ids that are easily forgotten,
//! the kernel's own threads, and a standard error that accepts no text.
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libpsx::Sensitivity;
use libpsx::process::{CapabilitySets, capset, set_keepcaps, set_securebits, setfsuid, setresuid};
use privileges::{Capability, CapabilitySet, Error, Mode, Privileges, Problem, Securebits, Uid};
use support::{
    Asked, all_have, filter, isolated, isolated_as_root, isolated_status, prepared, proc, sleepers,
};

const WATCHDOG: Duration = Duration::from_secs(60);

/// Returns settings that stay root, with its groups.
fn rooted() -> Privileges {
    Privileges::new().stay_root().keep_groups()
}

fn allow_all() -> Vec<seccompiler::sock_filter> {
    vec![seccompiler::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }]
}

/// Starts a thread that has given up all but one of its capabilities by a plain call.
fn with_less() {
    prepared(|| set_here(1 << 12, 1 << 12));
}

/// Sets the capabilities 0 to 31 of the calling thread alone, and clears the others.
fn set_here(effective: u32, permitted: u32) {
    let header = [0x2008_0522u32, 0];
    let data = [effective, permitted, 0, 0, 0, 0];
    // SAFETY: the kernel reads both.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, &header, &data) }, 0);
}

fn prctl_here(option: i32, value: usize) {
    // SAFETY: it takes numbers.
    assert_eq!(unsafe { libc::syscall(libc::SYS_prctl, option, value, 0, 0, 0) }, 0);
}

/// Drops the privileges of two threads, each of which has its own state. A call that the state of the calling thread makes
/// superfluous is made all the same, because the other thread needs it.
#[test]
fn a_call_that_only_another_thread_needs_is_made() {
    isolated_as_root("a_call_that_only_another_thread_needs_is_made", WATCHDOG, || {
        let bind = Capability::NET_BIND_SERVICE;
        let user = || Privileges::new().user(65534).group(65534).groups(privileges::Groups::NONE);
        // The capabilities 0 to 13, and those of a thread that needs no other: CAP_SETGID, CAP_SETUID and `bind`.
        const SOME: u32 = 0x3fff;
        const FEW: u32 = 1 << 6 | 1 << 7 | 1 << 10;
        type Case = (fn(), fn(), Privileges);
        let cases: [Case; 10] = [
            (|| (), || set_here(0, SOME), user().keep(bind)),
            (|| (), || set_here(FEW, FEW), user().keep(bind)),
            (|| (), || set_here(0, 1 << 10), rooted().keep(bind).no_new_privs()),
            (|| set_here(0, SOME), || (), user().keep(bind)),
            (|| prctl_here(libc::PR_SET_KEEPCAPS, 1), || (), user().keep(bind)),
            (|| (), || prctl_here(libc::PR_SET_KEEPCAPS, 1), rooted().no_new_privs()),
            (|| (), || prctl_here(libc::PR_SET_KEEPCAPS, 1), user()),
            (
                || {
                    let bits = Securebits::NO_SETUID_FIXUP.bits() as usize;
                    prctl_here(libc::PR_SET_SECUREBITS, bits);
                },
                || (),
                user().keep(bind).securebits(Securebits::NO_SETUID_FIXUP),
            ),
            (
                || prctl_here(libc::PR_CAPBSET_DROP, 0),
                || (),
                rooted().bounding(CapabilitySet::all() - Capability::CHOWN.into()),
            ),
            (
                || (),
                || {
                    let bits = Securebits::NOROOT.bits() as usize;
                    prctl_here(libc::PR_SET_SECUREBITS, bits);
                },
                rooted().securebits(Securebits::EMPTY),
            ),
        ];
        for (number, (caller, other, settings)) in cases.into_iter().enumerate() {
            support::forked(|| {
                prepared(other);
                caller();
                let plan = settings.report_failure().plan().unwrap();
                let shown = plan.to_string();
                let done = plan.apply();
                let applied =
                    done.unwrap_or_else(|error| panic!("case {number}: {error}\n{shown}"));
                assert_eq!((applied.threads, applied.verified), (2, 2), "case {number}");
            });
        }
    });
}

#[test]
fn a_ring_that_the_kernel_polls() {
    isolated_as_root("a_ring_that_the_kernel_polls", WATCHDOG, || {
        sleepers(2);
        // `struct io_uring_params`: flags are its third word, and the idle time its fifth.
        const IORING_SETUP_SQPOLL: u32 = 1 << 1;
        let mut params = [0u32; 30];
        params[2] = IORING_SETUP_SQPOLL;
        params[4] = 60_000;
        // SAFETY: the kernel writes to them.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) };
        if ring < 0 {
            support::skipped(format!("no io_uring here: {}", std::io::Error::last_os_error()));
            return;
        }
        let listed = proc::tids().len();
        let applied = Privileges::new().user("nobody").plan().unwrap().apply().unwrap();
        assert_eq!((applied.threads, applied.sqpoll), (listed - 1, 1));
        let old: Vec<_> = proc::field_in_every_thread("Uid").into_values().collect();
        assert_eq!(old.iter().filter(|ids| ids.starts_with("0\t")).count(), 1, "{old:?}");
    });
}

#[test]
fn a_thread_that_disagrees_kills_the_process() {
    if support::skipped_without_root("a_thread_that_disagrees_kills_the_process") {
        return;
    }
    let case = "a_thread_that_disagrees_kills_the_process";
    let (status, output) = isolated_status(case, WATCHDOG, || {
        with_less();
        // The program's settings for its own calls do not apply here.
        libpsx::set_sensitivity(Sensitivity::Ignore);
        let settings = rooted().bounding(CapabilitySet::EMPTY).seccomp(&allow_all());
        let done = settings.plan().unwrap().apply();
        println!("went on: {done:?}");
    });
    assert_eq!(status.signal(), Some(33), "{output}");
    assert!(output.contains("libpsx: capset("), "{output}");
    assert!(!output.contains("went on"), "{output}");
}

#[test]
fn a_thread_that_disagrees_is_reported_on_request() {
    isolated_as_root("a_thread_that_disagrees_is_reported_on_request", WATCHDOG, || {
        with_less();
        let has_less: Vec<i32> = proc::field_in_every_thread("CapPrm")
            .into_iter()
            .filter_map(|(tid, sets)| (sets == "0000000000001000").then_some(tid))
            .collect();
        let settings = rooted().bounding(CapabilitySet::EMPTY).seccomp(&allow_all());
        let settings = settings.report_failure();
        let Err(Error::NotDropped(wrong)) = settings.plan().unwrap().apply() else { panic!("Ok") };
        println!("{wrong:?}");
        assert!(wrong.iter().all(|one| has_less.contains(&one.tid)), "{wrong:?}");
        assert!(
            wrong.iter().any(|one| one.what.contains("(capset = cap_setpcap=ep)")),
            "{wrong:?}"
        );
    });
}

/// Starts a thread whose own filter kills it in one of the calls, before the filter of all threads is installed.
#[test]
fn a_thread_that_dies_in_a_call_is_reported() {
    isolated_as_root("a_thread_that_dies_in_a_call_is_reported", WATCHDOG, || {
        sleepers(1);
        prepared(|| filter(libc::SYS_setresuid, libc::SECCOMP_RET_KILL_THREAD));
        let settings = Privileges::new().user("nobody").seccomp(&allow_all()).report_failure();
        let Err(Error::NotDropped(wrong)) = settings.plan().unwrap().apply() else { panic!("Ok") };
        assert!(wrong.iter().any(|one| one.found == "died"), "{wrong:?}");
        all_have("Seccomp_filters", "1");
        all_have("CapPrm", "0000000000000000");
    });
}

#[test]
fn an_unwritable_standard_error_does_not_stop_the_kill() {
    let case = "an_unwritable_standard_error_does_not_stop_the_kill";
    if support::skipped_without_root(case) {
        return;
    }
    let (status, output) = isolated_status(case, WATCHDOG, || {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        // SAFETY: both are open.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&full), 2) };
        let dropping = std::thread::spawn(|| {
            prepared(|| filter(libc::SYS_setresuid, libc::SECCOMP_RET_ERRNO));
            let _ = Privileges::new().user("nobody").plan().unwrap().apply();
        });
        let _ = dropping.join();
        println!("went on");
    });
    assert!(status.signal().is_some() && !output.contains("went on"), "{status} {output}");
}

#[test]
fn the_file_system_user_id_changes_too() {
    isolated_as_root("the_file_system_user_id_changes_too", WATCHDOG, || {
        sleepers(2);
        let user = Uid::new(1234).unwrap();
        set_keepcaps(true).execute().unwrap();
        setresuid(user, user, user).execute().unwrap();
        let few = CapabilitySet::from_slice(&[Capability::SETUID, Capability::SETGID]);
        let sets = CapabilitySets { effective: few, permitted: few, ..CapabilitySets::EMPTY };
        capset(sets).execute().unwrap();
        setfsuid(Uid::ROOT).execute().unwrap();
        capset(CapabilitySets::EMPTY).execute().unwrap();
        all_have("Uid", "1234\t1234\t1234\t0");
        let gid = 0;
        let groups = support::own_groups();
        let groups =
            privileges::Groups::Explicit(groups.into_iter().map(privileges::Id::from).collect());
        let settings = Privileges::new().user(1234).group(gid).groups(groups);
        settings.plan().unwrap().apply().unwrap();
        all_have("Uid", "1234\t1234\t1234\t1234");
    });
}

/// Returns to the real user, as a set-user-ID program does whose owner is not root.
#[test]
fn one_of_several_users_without_a_capability() {
    isolated_as_root("one_of_several_users_without_a_capability", WATCHDOG, || {
        sleepers(2);
        let (owner, starter) = (Uid::new(1001).unwrap(), Uid::new(1000).unwrap());
        setresuid(starter, owner, owner).execute().unwrap();
        let groups = support::own_groups();
        let groups =
            privileges::Groups::Explicit(groups.into_iter().map(privileges::Id::from).collect());
        let settings = Privileges::new().user(1000).group(0).groups(groups);
        settings.plan().unwrap().apply().unwrap();
        all_have("Uid", "1000\t1000\t1000\t1000");
    });
}

/// Installs an earlier filter that kills for an attempt to become root. The verification must not make this attempt.
#[test]
fn an_earlier_filter_prevents_the_attempt_to_become_root() {
    isolated_as_root("an_earlier_filter_prevents_the_attempt_to_become_root", WATCHDOG, || {
        sleepers(1);
        let settings = || {
            let groups = privileges::Groups::Explicit(vec![]);
            Privileges::new().user(1234).group(1234).groups(groups)
        };
        settings().plan().unwrap().apply().unwrap();
        // setresuid(2) with 0 for the real user.
        let step = support::step;
        let mut program = support::unless_one_of(&[libc::SYS_setresuid], 3);
        program.extend([
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 16),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]);
        support::install(&program);
        settings().plan().unwrap().apply().unwrap();
    });
}

#[test]
fn locked_keepcaps_stay() {
    isolated_as_root("locked_keepcaps_stay", WATCHDOG, || {
        sleepers(1);
        let bits = Securebits::KEEP_CAPS | Securebits::KEEP_CAPS_LOCKED;
        set_securebits(bits).execute().unwrap();
        let kept = Capability::CHOWN;
        Privileges::new().user("nobody").keep(kept).plan().unwrap().apply().unwrap();
        all_have("CapEff", "0000000000000001");
        assert_eq!(Securebits::current().unwrap(), bits);
    });
}

/// Sets securebits for interpreters, from bit 8 on. Returns false, and records a skipped test, if the kernel has none.
fn interpreters_restricted(bits: Securebits) -> bool {
    let set = set_securebits(bits).execute();
    if set.is_err() {
        support::skipped("Linux has no SECBIT_EXEC_RESTRICT_FILE before 6.14");
    }
    set.is_ok()
}

#[test]
fn modes_leave_the_securebits_for_interpreters() {
    isolated_as_root("modes_leave_the_securebits_for_interpreters", WATCHDOG, || {
        let file = Securebits::EXEC_RESTRICT_FILE;
        let locked = file | Securebits::EXEC_RESTRICT_FILE_LOCKED;
        for bits in [file | Securebits::EXEC_DENY_INTERACTIVE, locked] {
            for mode in [Mode::Hybrid, Mode::Pure1e, Mode::Pure1eInit, Mode::NoPriv] {
                support::forked(|| {
                    if !interpreters_restricted(bits) {
                        return;
                    }
                    sleepers(1);
                    rooted().mode(mode).plan().unwrap().apply().unwrap();
                    let now = Securebits::current().unwrap();
                    assert_eq!(now.bits() & !0xff, bits.bits(), "{mode:?}");
                    assert!(Mode::current().unwrap().is_some(), "{mode:?}");
                });
            }
        }
    });
}

#[test]
fn securebits_for_interpreters_need_no_capability() {
    isolated_as_root("securebits_for_interpreters_need_no_capability", WATCHDOG, || {
        let bits = Securebits::EXEC_RESTRICT_FILE | Securebits::EXEC_DENY_INTERACTIVE_LOCKED;
        let there = support::forked_status(|| {
            support::end(if interpreters_restricted(bits) { 0 } else { 1 })
        });
        if there != 0 {
            return;
        }
        sleepers(2);
        let user = || Privileges::new().user(65534).group(65534).groups(privileges::Groups::NONE);
        user().plan().unwrap().apply().unwrap();
        Privileges::new().securebits(bits).plan().unwrap().apply().unwrap();
        assert_eq!(Securebits::current().unwrap(), bits);
        let bits = bits | Securebits::NOROOT;
        let Err(Error::Plan(found)) = Privileges::new().securebits(bits).plan() else { panic!() };
        assert!(matches!(found[..], [Problem::MissingCapability { .. }]), "{found:?}");
    });
}

#[test]
fn locked_securebits_for_interpreters_are_a_problem() {
    isolated_as_root("locked_securebits_for_interpreters_are_a_problem", WATCHDOG, || {
        let locks =
            [Securebits::EXEC_RESTRICT_FILE_LOCKED, Securebits::EXEC_DENY_INTERACTIVE_LOCKED];
        for lock in locks {
            let bits = Securebits::from_bits(lock.bits() >> 1) | lock;
            support::forked(|| {
                if !interpreters_restricted(bits) {
                    return;
                }
                for wanted in [Securebits::EMPTY, Securebits::from_bits(lock.bits() >> 1), lock] {
                    let Err(Error::Plan(found)) = rooted().securebits(wanted).plan() else {
                        panic!("{wanted:?}")
                    };
                    assert!(matches!(found[..], [Problem::SecurebitsLocked { .. }]), "{found:?}");
                }
                let _ = rooted().securebits(bits | Securebits::NOROOT).plan().unwrap();
            });
        }
    });
}

/// Requests a capability that no process may make inheritable: it is refused before anything has changed.
#[test]
fn inheritable_capabilities_outside_the_bounding_set_are_refused() {
    isolated_as_root(
        "inheritable_capabilities_outside_the_bounding_set_are_refused",
        WATCHDOG,
        || {
            libpsx::process::capbset_drop(Capability::KILL).execute().unwrap();
            let settings = rooted().keep(Capability::KILL).inheritable(Capability::KILL);
            let Err(Error::Plan(problems)) = settings.plan() else { panic!("Ok") };
            let kill = CapabilitySet::from(Capability::KILL);
            assert!(matches!(problems[..], [Problem::NotInheritable(set)] if set == kill));
        },
    );
}

#[test]
fn invalid_filters_are_refused() {
    isolated("invalid_filters_are_refused", WATCHDOG, || {
        for length in [0, 4097] {
            let program = vec![allow_all()[0].clone(); length];
            let settings = rooted().seccomp(&program);
            let Err(Error::Plan(problems)) = settings.plan() else { panic!("Ok") };
            let wanted = privileges::bpf::InvalidProgram::Length(length);
            assert!(matches!(problems[..], [Problem::InvalidFilter(found)] if found == wanted));
        }
    });
}

#[test]
fn hybrid_leaves_the_ambient_set() {
    isolated_as_root("hybrid_leaves_the_ambient_set", WATCHDOG, || {
        sleepers(1);
        let chown = CapabilitySet::from(Capability::CHOWN);
        let all = CapabilitySets::current().unwrap();
        rooted().keep(all.permitted).ambient(chown).plan().unwrap().apply().unwrap();
        rooted().mode(Mode::Hybrid).plan().unwrap().apply().unwrap();
        all_have("CapAmb", "0000000000000001");
        rooted().mode(Mode::Pure1e).plan().unwrap().apply().unwrap();
        all_have("CapAmb", "0000000000000000");
    });
}

/// Asks threads for their state. The report has no answer of a thread that was not asked.
#[test]
fn only_asked_threads_have_answers() {
    isolated_as_root("only_asked_threads_have_answers", WATCHDOG, || {
        let _asked = Asked::new(1);
        with_less();
        let all = CapabilitySets::current().unwrap();
        let first = capset(CapabilitySets { effective: all.permitted, ..all });
        let transaction = libpsx::Transaction::new().with(first).query_identities(0);
        let report = transaction.sensitivity(Sensitivity::Ignore).execute_with_report().unwrap();
        let differs = report.results().iter().find(|one| one.call() == 0).unwrap().tid();
        let one = report.identities().find(|one| one.tid() == differs).unwrap();
        assert!(one.uids().is_none() && one.gids().is_none() && one.groups().is_none());
        assert!(one.capabilities().is_none() && one.securebits().is_none());
        assert!(one.bounding().is_none() && one.ambient().is_none());
    });
}

/// A pids cgroup of a test program, which its child is put into. It is removed when the child has ended: after the plan,
/// the child itself may lack the right.
struct PidsGroup(PathBuf);

impl PidsGroup {
    fn of(program: u32) -> Self {
        let root = Path::new("/sys/fs/cgroup/pids");
        let root = if root.exists() { root } else { Path::new("/sys/fs/cgroup") };
        Self(root.join(format!("privileges-{program}")))
    }

    /// Puts this process into the group, and leaves no room for another task there. Returns false, and records a skipped
    /// test, if there is no such group to write to.
    fn enter(&self) -> bool {
        let present = || std::fs::read_to_string(self.0.join("pids.current"));
        let made = std::fs::create_dir(&self.0)
            .and_then(|()| std::fs::write(self.0.join("cgroup.procs"), "0"))
            .and_then(|()| present())
            .and_then(|present| std::fs::write(self.0.join("pids.max"), present.trim()));
        if let Err(error) = &made {
            support::skipped(format!("no pids cgroup can be made: {error}"));
        }
        made.is_ok()
    }
}

impl Drop for PidsGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Without a child process, the plan is applied to every thread and verified by what the threads themselves report.
#[test]
fn no_room_for_the_child_that_verifies() {
    let _removed_at_the_end = PidsGroup::of(std::process::id());
    isolated_as_root("no_room_for_the_child_that_verifies", WATCHDOG, || {
        sleepers(3);
        let group = PidsGroup::of(std::os::unix::process::parent_id());
        if !group.enter() {
            return;
        }
        let thread = std::thread::Builder::new().spawn(|| ());
        let applied = rooted().no_new_privs().seccomp(&allow_all()).plan().unwrap().apply();
        assert!(thread.is_err(), "there was room for a thread");
        let applied = applied.unwrap();
        assert_eq!((applied.threads, applied.verified), (proc::tids().len(), 0), "{applied:?}");
        all_have("NoNewPrivs", "1");
        all_have("Seccomp_filters", "1");
    });
}
