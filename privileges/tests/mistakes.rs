//! Errors of the plan, all of them at once: missing settings, contradictions, and filters that would kill the process.
#![allow(unsafe_code)]

#[path = "support/calling_thread.rs"]
mod calling_thread;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use calling_thread::{become_in_this_thread, here};
use landlock::{AccessFs, Ruleset, RulesetAttr};
use libpsx::process::setgroups;
use privileges::{
    Capability, CapabilitySet, Error, Gid, Groups, Iab, LandlockFlags, Mode, Namespace, Plan,
    Privileges, Problem, Resource, Securebits,
};
use support::{all_have, filter, isolated, isolated_as_root, prepared, proc, program, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);

fn rooted() -> Privileges {
    Privileges::new().stay_root().keep_groups()
}

fn nobody() -> Privileges {
    Privileges::new().user(65534).group(65534).groups(Groups::NONE).report_failure()
}

fn problems(result: Result<Plan, Error>) -> Vec<Problem> {
    match result {
        Err(Error::Plan(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn only(result: Result<Plan, Error>, check: impl FnOnce(&Problem) -> bool) {
    let problems = problems(result);
    assert!(problems.len() == 1 && check(&problems[0]), "{problems:?}");
}

#[test]
fn ids_that_stay_have_to_be_stated() {
    isolated_as_root("ids_that_stay_have_to_be_stated", WATCHDOG, || {
        sleepers(1);
        let groups = [27, 42].map(|raw| Gid::new(raw).unwrap());
        setgroups(&groups).execute().unwrap();
        let found = problems(Privileges::new().no_new_privs().plan());
        assert!(
            matches!(&found[..], [Problem::RootNotDropped, Problem::GroupsNotDropped(groups)] if groups == &[27, 42])
        );
        only(Privileges::new().stay_root().plan(), |one| {
            matches!(one, Problem::GroupsNotDropped(_))
        });
        only(Privileges::new().keep_groups().plan(), |one| matches!(one, Problem::RootNotDropped));
        only(Privileges::new().groups(Groups::FromUser).stay_root().plan(), |one| {
            matches!(one, Problem::GroupsNotDropped(_))
        });

        let plan = rooted().plan().unwrap();
        let shown = plan.to_string();
        let stays = shown.lines().find(|line| line.starts_with("stays: ")).unwrap();
        for what in ["uid 0 (root)", "gid 0 (root)", "groups 27 42", "bounding set", "umask"] {
            assert!(stays.contains(what), "{shown}");
        }
        assert!(stays.contains("execve(2) gives user 0 the bounding set again"), "{shown}");
        let goes = shown.lines().find(|line| line.starts_with("goes: ")).unwrap();
        assert!(
            goes.contains("permitted capabilities") && goes.contains("becomes none"),
            "{shown}"
        );
        support::forked(|| {
            plan.apply().unwrap();
            all_have("Groups", "27 42");
        });

        // A supplementary group that is equal to the group id gives no further access.
        setgroups(&[Gid::ROOT]).execute().unwrap();
        let _ = Privileges::new().stay_root().plan().unwrap();
    });
}

/// Lets another thread be root while the calling thread is not.
#[test]
fn no_thread_stays_root() {
    isolated_as_root("no_thread_stays_root", WATCHDOG, || {
        sleepers(1);
        here(libc::SYS_setgroups, [0; 3]);
        here(libc::SYS_setresuid, [1000; 3]);
        let settings = Privileges::new().no_new_privs().report_failure();
        let Err(Error::NotDropped(wrong)) = settings.clone().plan().unwrap().apply() else {
            panic!("Ok")
        };
        assert!(wrong.iter().any(|one| one.expected == "no id of root"), "{wrong:?}");
    });
}

/// Lets another thread have an id that the calling thread does not have. The plan says what stays, so it is a difference,
/// found by the question to the thread and in /proc.
#[test]
fn no_thread_keeps_ids_that_the_caller_does_not_have() {
    isolated_as_root("no_thread_keeps_ids_that_the_caller_does_not_have", WATCHDOG, || {
        let cases: [(&str, fn()); 5] = [
            ("Groups", || become_in_this_thread(&[0, 42], 65534, 65534)),
            ("Gid", || become_in_this_thread(&[], 0, 65534)),
            ("Gid", || {
                become_in_this_thread(&[], 65534, 0);
                here(libc::SYS_setfsgid, [42, 0, 0]);
                here(libc::SYS_setresuid, [65534; 3]);
            }),
            ("Uid", || become_in_this_thread(&[], 65534, 1000)),
            ("Uid", || {
                // The thread is user 1000 for file access alone. It gives its capabilities up at last.
                become_in_this_thread(&[], 65534, 0);
                here(libc::SYS_prctl, [libc::PR_SET_KEEPCAPS as usize, 1, 0]);
                here(libc::SYS_setresuid, [65534; 3]);
                let header = [0x2008_0522u32, 0];
                for setuid in [1 << 7, 0] {
                    let data = [setuid, setuid, 0, 0, 0, 0u32];
                    here(libc::SYS_capset, [header.as_ptr() as usize, data.as_ptr() as usize, 0]);
                    here(libc::SYS_setfsuid, [1000, 0, 0]);
                }
                here(libc::SYS_prctl, [libc::PR_SET_KEEPCAPS as usize, 0, 0]);
            }),
        ];
        for (number, (what, prepare)) in cases.into_iter().enumerate() {
            support::forked(|| {
                prepared(prepare);
                become_in_this_thread(&[], 65534, 65534);
                let settings = Privileges::new().no_new_privs().report_failure();
                let done = settings.plan().unwrap().apply();
                let Err(Error::NotDropped(wrong)) = done else { panic!("case {number}: {done:?}") };
                assert!(wrong.iter().all(|one| one.what == what), "case {number}: {wrong:?}");
                assert_eq!(wrong.len(), 2, "case {number}: {wrong:?}");
            });
        }
        // This is what the two settings allow.
        support::forked(|| {
            prepared(|| become_in_this_thread(&[0, 42], 42, 1000));
            become_in_this_thread(&[], 65534, 65534);
            rooted().no_new_privs().plan().unwrap().apply().unwrap();
        });
        // No thread has more than the calling thread.
        support::forked(|| {
            prepared(|| become_in_this_thread(&[65534], 65534, 65534));
            become_in_this_thread(&[], 65534, 65534);
            let applied = Privileges::new().no_new_privs().plan().unwrap().apply().unwrap();
            assert_eq!((applied.threads, applied.verified), (2, 2));
        });
    });
}

#[test]
fn every_problem_at_once() {
    isolated_as_root("every_problem_at_once", WATCHDOG, || {
        let settings = Privileges::new()
            .user("no such user")
            .group(u32::MAX)
            .groups(["no such group", "nor this"])
            .keep(Capability::new(63).unwrap())
            .ambient(Capability::CHOWN)
            .mode(Mode::NoPriv)
            .securebits(Securebits::EMPTY)
            .chroot("/no/such/root")
            .chdir("inside")
            .seccomp(&[]);
        let error = settings.plan().unwrap_err();
        let shown = error.to_string();
        println!("{shown}");
        assert_eq!(format!("{error:?}"), shown);
        let Error::Plan(found) = error else { panic!("{shown}") };
        assert_eq!(shown.lines().count(), found.len() + 1, "{shown}");
        for part in [
            "problems; nothing changed in any thread",
            "user \"no such user\" not found",
            "invalid id 4294967295",
            "\"no such group\"",
            "\"nor this\"",
            "no capability 63",
            "cap_chown cannot be ambient",
            "mode NoPriv leaves no choice of securebits",
            "directory /no/such/root",
            "1 to 4096",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    });
}

#[test]
fn settings_add_up_or_contradict() {
    isolated_as_root("settings_add_up_or_contradict", WATCHDOG, || {
        let (a, b) = (Capability::CHOWN, Capability::KILL);
        support::forked(|| {
            rooted().keep(a).keep(b).keep([b]).clone().plan().unwrap().apply().unwrap();
            all_have("CapPrm", &format!("{:016x}", CapabilitySet::from_slice(&[a, b]).bits()));
        });

        let iab: Iab = "cap_chown".parse().unwrap();
        let two = |one: &Problem, names: [&str; 2]| matches!(one, Problem::ConflictingSettings(first, second) if [*first, *second] == names);
        only(rooted().iab(iab).bounding(a).plan(), |one| two(one, ["iab", "bounding"]));
        only(rooted().bounding(a).iab(iab).plan(), |one| two(one, ["iab", "bounding"]));
        only(rooted().iab(iab).inheritable(a).plan(), |one| two(one, ["iab", "inheritable"]));
        only(nobody().user(0).plan(), |one| two(one, ["user", "user"]));
        only(nobody().stay_root().plan(), |one| two(one, ["user", "stay_root"]));
        only(nobody().keep_groups().plan(), |one| two(one, ["groups", "keep_groups"]));
        let _ = nobody().user(65534).plan().unwrap();
    });
}

#[test]
fn names_and_numbers_of_users_and_groups_are_accepted() {
    isolated_as_root("names_and_numbers_of_users_and_groups_are_accepted", WATCHDOG, || {
        sleepers(1);
        for groups in [Groups::from(["adm", "4", "65533"]), Groups::from(vec![4, 65533])] {
            support::forked(|| {
                sleepers(1);
                let settings =
                    Privileges::new().user(String::from("65534")).group("65533").groups(groups);
                settings.plan().unwrap().apply().unwrap();
                all_have("Uid", "65534\t65534\t65534\t65534");
                all_have("Gid", "65533\t65533\t65533\t65533");
                let groups = proc::status(std::process::id() as i32)["Groups"].clone();
                assert!(groups == "4 4 65533" || groups == "4 65533", "{groups}");
            });
        }
        only(Privileges::new().user("4294967295").group(1).groups(Groups::NONE).plan(), |one| {
            matches!(one, Problem::InvalidId(u32::MAX))
        });
        only(Privileges::new().user("99999999999").plan(), |one| {
            matches!(one, Problem::UserNotFound(_))
        });
        only(Privileges::new().user("").plan(), |one| matches!(one, Problem::UserNotFound(_)));
    });
}

/// Compares plan and errors: both give a call the same number and the same name.
#[test]
fn calls_have_the_same_number_in_plan_and_error() {
    isolated_as_root("calls_have_the_same_number_in_plan_and_error", WATCHDOG, || {
        sleepers(1);
        prepared(|| filter(libc::SYS_setresuid, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
        let plan = nobody().plan().unwrap();
        let shown = plan.to_string();
        let line = shown.lines().find(|line| line.contains(" setresuid 65534")).unwrap();
        let number = line.trim().split(' ').next().unwrap();
        let Err(Error::NotDropped(wrong)) = plan.apply() else { panic!("Ok") };
        let steps = shown.lines().filter(|line| line.starts_with(' ')).count();
        let what = format!("call {number} of {steps} (setresuid 65534)");
        assert!(wrong.iter().any(|one| one.what == what), "{what}: {wrong:?}");
        let error = Error::NotDropped(wrong.clone()).to_string();
        assert_eq!(error.lines().count(), wrong.len() + 1, "{error}");
    });
}

/// Makes a plan with a call that the kernel refuses in the calling thread.
#[test]
fn a_refused_call_has_its_number() {
    isolated_as_root("a_refused_call_has_its_number", WATCHDOG, || {
        sleepers(1);
        let plan = nobody().plan().unwrap();
        filter(libc::SYS_setresgid, libc::SECCOMP_RET_ERRNO | libc::ENOMEM as u32);
        let shown = plan.to_string();
        let line = shown.lines().find(|line| line.contains(" setresgid 65534")).unwrap();
        let number = line.trim().split(' ').next().unwrap().to_owned();
        let error = plan.apply().unwrap_err().to_string();
        println!("{error}");
        assert!(error.starts_with(&format!("call {number} of ")), "{error}");
        assert!(
            error.contains("(setresgid 65534) failed: ") && error.contains("; every thread"),
            "{error}"
        );
    });
}

#[test]
fn the_deadline_bounds_the_stop() {
    isolated("the_deadline_bounds_the_stop", WATCHDOG, || {
        prepared(support::block_all);
        let begun = Instant::now();
        let settings =
            Privileges::new().stay_root().keep_groups().deadline(Duration::from_millis(100));
        let settings = settings.no_new_privs().report_failure();
        let error = settings.plan().unwrap().apply().unwrap_err();
        assert!(matches!(error, Error::NotApplied(libpsx::Error::Unreachable(_))), "{error:?}");
        // Without the setting, the deadline is 10 seconds.
        assert!(begun.elapsed() < Duration::from_secs(8));
    });
}

fn as_seccompiler(program: &[libc::sock_filter]) -> Vec<seccompiler::sock_filter> {
    let convert = |step: &libc::sock_filter| seccompiler::sock_filter {
        code: step.code,
        jt: step.jt,
        jf: step.jf,
        k: step.k,
    };
    program.iter().map(convert).collect()
}

const ERROR: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// Returns a filter that applies this action to one call, and allows all others.
fn denying(call: libc::c_long, action: u32) -> Vec<seccompiler::sock_filter> {
    as_seccompiler(&program(&[call], action, libc::SECCOMP_RET_ALLOW))
}

#[test]
fn filters_that_deny_needed_calls_are_reported() {
    isolated("filters_that_deny_needed_calls_are_reported", WATCHDOG, || {
        let kill = libc::SECCOMP_RET_KILL_PROCESS;
        for (name, call, action, refused) in [
            ("futex", libc::SYS_futex, kill, true),
            ("futex", libc::SYS_futex, ERROR, true),
            ("futex", libc::SYS_futex, libc::SECCOMP_RET_TRACE, true),
            ("futex", libc::SYS_futex, libc::SECCOMP_RET_LOG, false),
            ("rt_sigprocmask", libc::SYS_rt_sigprocmask, ERROR, true),
            ("rt_sigreturn", libc::SYS_rt_sigreturn, libc::SECCOMP_RET_KILL_THREAD, true),
            ("rt_sigreturn", libc::SYS_rt_sigreturn, ERROR, true),
            ("gettid", libc::SYS_gettid, kill, false),
            ("munmap", libc::SYS_munmap, kill, true),
            ("munmap", libc::SYS_munmap, ERROR, false),
            ("close", libc::SYS_close, kill, true),
            ("close", libc::SYS_close, ERROR, false),
            ("mmap", libc::SYS_mmap, libc::SECCOMP_RET_TRAP, true),
            ("setresuid", libc::SYS_setresuid, kill, false),
        ] {
            let settings =
                Privileges::new().stay_root().keep_groups().seccomp(&denying(call, action));
            if !refused {
                let _ = settings.plan().unwrap();
                continue;
            }
            only(settings.plan(), |problem| match problem {
                Problem::FilterDeniesCalls(calls) => calls.iter().all(|one| one.starts_with(name)),
                _ => false,
            });
        }
        // This handler stands for one that performs trapped calls in the kernel's place.
        extern "C" fn emulate(_: i32) {}
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGSYS, emulate as *const () as usize) };
        let trapped = denying(libc::SYS_munmap, libc::SECCOMP_RET_TRAP);
        let _ = Privileges::new().stay_root().keep_groups().seccomp(&trapped).plan().unwrap();
    });
}

/// Installs a filter that allows only the calls that the plan requires. The process goes on, and other calls are
/// forbidden.
#[test]
fn a_filter_that_allows_what_is_needed() {
    isolated_as_root("a_filter_that_allows_what_is_needed", WATCHDOG, || {
        // `seccomp_data` by number: the listed calls pass, all others kill.
        let needed = [
            libc::SYS_futex,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_munmap,
            libc::SYS_close,
            libc::SYS_brk,
            libc::SYS_mmap,
            #[cfg(debug_assertions)]
            libc::SYS_fcntl,
        ];
        // These calls end the test, and its threads sleep in one of them.
        let ours = [libc::SYS_write, libc::SYS_exit_group, libc::SYS_pause];
        for outside in [false, true] {
            support::forked(|| {
                prepared(|| ());
                prepared(|| ());
                let mut calls = [&needed[..], &ours].concat();
                if outside {
                    calls.push(libc::SYS_wait4);
                }
                let kill = libc::SECCOMP_RET_KILL_PROCESS;
                let program = as_seccompiler(&program(&calls, libc::SECCOMP_RET_ALLOW, kill));
                let plan = nobody().seccomp(&program).plan().unwrap();
                let denied = plan.to_string().contains("/proc is not read");
                let applied = plan.apply().unwrap();
                let seen = if outside { 3 } else { 0 };
                assert_eq!((applied.threads, applied.verified, denied), (3, seen, !outside));
            });
        }
    });
}

/// Returns whether a key in root's session keyring is readable after the ids have changed.
fn key_is_readable(settings: Privileges) -> bool {
    sleepers(1);
    let none: *const u8 = std::ptr::null();
    // SAFETY: no name.
    if unsafe { libc::syscall(libc::SYS_keyctl, 1, none) } < 0 {
        support::skipped(format!("no keyrings here: {}", std::io::Error::last_os_error()));
        support::end(0);
    }
    let (kind, name, secret) = (c"user".as_ptr(), c"secret".as_ptr(), c"hunter2".as_ptr());
    // SAFETY: strings, and their length. The keyring is that of the session.
    let key = unsafe { libc::syscall(libc::SYS_add_key, kind, name, secret, 7, -3i64) };
    assert!(key > 0);
    settings.plan().unwrap().apply().unwrap();
    let mut read = [0u8; 32];
    // SAFETY: the kernel writes as much as there is room.
    unsafe { libc::syscall(libc::SYS_keyctl, 11, key, read.as_mut_ptr(), read.len()) == 7 }
}

#[test]
fn old_keys_are_readable_without_a_new_keyring() {
    isolated_as_root("old_keys_are_readable_without_a_new_keyring", WATCHDOG, || {
        support::forked(|| assert!(key_is_readable(nobody())));
        support::forked(|| assert!(!key_is_readable(nobody().new_session_keyring())));
        let allow = as_seccompiler(&program(&[], 0, libc::SECCOMP_RET_ALLOW));
        support::forked(|| {
            assert!(!key_is_readable(nobody().new_session_keyring().seccomp(&allow)))
        });
    });
}

#[test]
fn state_that_the_kernel_clears_is_set_again() {
    isolated_as_root("state_that_the_kernel_clears_is_set_again", WATCHDOG, || {
        let state = || {
            let mut signal = 0;
            // SAFETY: the kernel writes a number.
            unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &mut signal) };
            // SAFETY: it touches no memory.
            (unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, signal)
        };
        // SAFETY: it takes numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        assert_eq!(state(), (1, libc::SIGTERM));
        support::forked(|| {
            sleepers(1);
            nobody().plan().unwrap().apply().unwrap();
            assert_eq!(state(), (0, 0));
        });
        support::forked(|| {
            sleepers(1);
            let settings = nobody().dumpable().parent_death_signal(libc::SIGUSR1).umask(0o027);
            let files = Resource::Nofile;
            let plan = settings.limit(files, 100, 200).plan().unwrap();
            assert!(!plan.to_string().contains("; umask"), "{plan}");
            plan.apply().unwrap();
            assert_eq!(state(), (1, libc::SIGUSR1));
            all_have("Umask", "0027");
            let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
            let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
            let numbers: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
            assert_eq!(numbers, ["100", "200"]);
        });
    });
}

/// Values that the kernel refuses in every process. Without the check, the call fails after others have been performed.
#[test]
fn impossible_values_are_reported_by_the_plan() {
    isolated_as_root("impossible_values_are_reported_by_the_plan", WATCHDOG, || {
        let files = Resource::Nofile;
        let most: u64 =
            std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
        let groups: Vec<privileges::Id> = (1..=65537u32).map(privileges::Id::from).collect();
        let user = || Privileges::new().user(65534).group(65534);
        let network = || std::fs::File::open("/proc/self/ns/net").unwrap();
        let cases = [
            nobody().parent_death_signal(65),
            nobody().parent_death_signal(-1),
            nobody().limit(files, 1, most + 1),
            nobody().limit(files, 1, u64::MAX),
            nobody().securebits(Securebits::from_bits(1 << 12)),
            user().groups(Groups::Explicit(groups)),
            nobody().join_namespace(Namespace::Uts, network()),
            nobody().join_namespace(Namespace::Uts, std::fs::File::open("/dev/null").unwrap()),
        ];
        for (number, case) in cases.into_iter().enumerate() {
            let Err(Error::Plan(found)) = case.plan() else { panic!("case {number}") };
            let outside = |one: &Problem| {
                matches!(one, Problem::OutOfRange { .. } | Problem::OtherNamespace { .. })
            };
            assert!(found.iter().any(outside), "case {number}: {found:?}");
        }
        if support::daemon::landlock_is_there() {
            // LANDLOCK_RESTRICT_SELF_TSYNC belongs to another setting.
            let flags = LandlockFlags::from_bits(1 << 3);
            let rules = Ruleset::default().handle_access(AccessFs::MakeDir).unwrap();
            let settings = nobody().landlock(rules.create().unwrap());
            let Err(Error::Plan(found)) = settings.landlock_flags(flags).plan() else { panic!() };
            assert!(matches!(found[..], [Problem::OutOfRange { value: 8, .. }]), "{found:?}");
        }
        support::forked(|| {
            let uts = std::fs::File::open("/proc/self/ns/uts").unwrap();
            let settings = nobody().parent_death_signal(64).join_namespace(Namespace::Uts, uts);
            settings
                .limit(files, 100, 200)
                .limit(Resource::Rttime, 1, 1)
                .plan()
                .unwrap()
                .apply()
                .unwrap();
        });
    });
}
