//! Permanent drops: the state of every thread in /proc, compared with setpriv(1) and capsh(1) for the same settings.
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr};
use libpsx::process::identities;
use privileges::{
    Capability, CapabilitySet, Error, Groups, Iab, Id, Mode, Privileges, Problem, Securebits,
};
use support::{
    all_have, filter, isolated, isolated_as_root, isolated_status, prepared, proc, sleepers,
};

const WATCHDOG: Duration = Duration::from_secs(60);
const FIELDS: [&str; 9] =
    ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];

fn threads() {
    sleepers(3);
    #[cfg(target_arch = "x86_64")]
    support::raw::raw_threads(1);
}

fn fields(status: &str) -> BTreeMap<String, String> {
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let wanted = lines.filter(|(key, _)| FIELDS.contains(key));
    wanted.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// Checks that every thread has this state.
fn all_are(wanted: &BTreeMap<String, String>) {
    for (field, value) in wanted {
        all_have(field, value);
    }
    assert_eq!(wanted.len(), FIELDS.len());
}

fn printed_by(command: &[&str]) -> BTreeMap<String, String> {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    fields(&String::from_utf8(output.stdout).unwrap())
}

/// Returns settings that stay root, with its groups.
fn rooted() -> Privileges {
    Privileges::new().stay_root().keep_groups()
}

fn user(id: impl Into<Id>) -> Privileges {
    Privileges::new().user(id)
}

const STATUS: &str = "/proc/self/status";

#[test]
fn a_user_matches_setpriv() {
    isolated_as_root("a_user_matches_setpriv", WATCHDOG, || {
        threads();
        let wanted = printed_by(&[
            "setpriv",
            "--reuid=daemon",
            "--regid=daemon",
            "--init-groups",
            "--inh-caps=-all",
            "--no-new-privs",
            "cat",
            STATUS,
        ]);
        let applied =
            Privileges::new().user("daemon").no_new_privs().plan().unwrap().apply().unwrap();
        assert_eq!((applied.threads, applied.sqpoll), (proc::tids().len(), 0));
        all_are(&wanted);
        assert!(std::fs::File::open("/etc/shadow").is_err());
    });
}

/// Starts a program from a process whose threads allocate. The state of this process stays.
#[test]
fn a_started_program_matches_setpriv() {
    isolated_as_root("a_started_program_matches_setpriv", WATCHDOG, || {
        for _ in 0..3 {
            std::thread::spawn(|| {
                loop {
                    drop(std::hint::black_box(vec![0u8; 100_000]));
                }
            });
        }
        let before = FIELDS.map(proc::field_in_every_thread);
        let options = ["--reuid=daemon", "--regid=daemon", "--init-groups", "--no-new-privs"];
        let sets = ["--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"];
        let wanted = printed_by(&[&["setpriv"][..], &options, &sets, &["cat", STATUS]].concat());
        for _ in 0..20 {
            let raw = Capability::NET_RAW;
            let settings = Privileges::new().user("daemon").no_new_privs().keep(raw).ambient(raw);
            let mut command = Command::new("cat");
            command.arg(STATUS).stdout(std::process::Stdio::piped());
            let child = settings.new_session_keyring().plan().unwrap().spawn(command).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(fields(&String::from_utf8(output.stdout).unwrap()), wanted);
        }
        assert_eq!(FIELDS.map(proc::field_in_every_thread), before);
        // If a call fails, no program is started.
        let plan = user("daemon").plan().unwrap();
        filter(libc::SYS_setresgid, libc::SECCOMP_RET_ERRNO | libc::ENOTUNIQ as u32);
        let error = plan.spawn(Command::new("cat")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTUNIQ));
    });
}

#[test]
fn groups_by_name_and_number() {
    isolated_as_root("groups_by_name_and_number", WATCHDOG, || {
        threads();
        let wanted = printed_by(&[
            "setpriv",
            "--reuid=65534",
            "--regid=7",
            "--groups=1,2,100",
            "--inh-caps=-all",
            "cat",
            STATUS,
        ]);
        let groups = vec![Id::from(2), Id::from("users"), Id::from("daemon")];
        let settings = Privileges::new().user(65534).group(7).groups(Groups::Explicit(groups));
        settings.plan().unwrap().apply().unwrap();
        all_are(&wanted);
    });
}

#[test]
fn ambient_capabilities_match_setpriv() {
    isolated_as_root("ambient_capabilities_match_setpriv", WATCHDOG, || {
        threads();
        let mut wanted = printed_by(&[
            "setpriv",
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            "--inh-caps=-all,+net_raw",
            "--ambient-caps=-all,+net_raw",
            "--bounding-set=-all,+net_raw,+chown",
            "cat",
            STATUS,
        ]);
        // The program that setpriv executes has only its inherited capability, net_raw.
        assert_eq!(wanted["CapPrm"], "0000000000002000");
        let two = CapabilitySet::from_slice(&[Capability::NET_RAW, Capability::CHOWN]);
        let settings =
            Privileges::new().user("nobody").group("nogroup").groups(Groups::Explicit(vec![]));
        let settings = settings.keep(two).ambient(Capability::NET_RAW).bounding(two);
        let plan = settings.plan().unwrap();
        let shown = plan.to_string();
        plan.apply().unwrap();
        for field in ["CapPrm", "CapEff"] {
            wanted.insert(field.to_owned(), "0000000000002001".to_owned());
        }
        all_are(&wanted);
        // A program that this process executes has the same state as setpriv's program.
        let cat = Command::new("cat").arg(STATUS).output().unwrap();
        assert_eq!(fields(&String::from_utf8(cat.stdout).unwrap())["CapEff"], "0000000000002000");
        let order = [
            "PR_CAPBSET_DROP cap_sys_admin",
            "setgroups none",
            "setresgid 65534",
            "PR_SET_KEEPCAPS 1",
            "setresuid 65534",
            "PR_CAP_AMBIENT_RAISE cap_net_raw",
        ];
        let found: Vec<_> = order.iter().map(|line| shown.find(line)).collect();
        assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{shown}");
    });
}

#[test]
fn modes_match_capsh() {
    if Command::new("capsh").arg("--version").output().is_err() {
        support::skipped("there is no capsh here");
        return;
    }
    isolated_as_root("modes_match_capsh", WATCHDOG, || {
        for (mode, name) in [
            (Mode::NoPriv, "NOPRIV"),
            (Mode::Pure1e, "PURE1E"),
            (Mode::Pure1eInit, "PURE1E_INIT"),
            (Mode::Hybrid, "HYBRID"),
        ] {
            support::forked(|| {
                threads();
                // capsh prints its own state. A program that it executes might get other capabilities.
                let printed =
                    Command::new("capsh").args([&format!("--mode={name}"), "--print"]).output();
                let printed = String::from_utf8(printed.unwrap().stdout).unwrap();
                let bits = printed.split_once("Securebits: ").unwrap().1;
                let bits = bits.split(['/', ' ']).nth(1).unwrap().trim_start_matches("0x");
                rooted().mode(mode).plan().unwrap().apply().unwrap();
                let set = Securebits::current().unwrap();
                assert_eq!(set.bits(), u32::from_str_radix(bits, 16).unwrap(), "{name}: {printed}");
                let report = identities(0).unwrap();
                assert!(report.identities().all(|one| one.securebits() == Some(set)));
                let text = printed.lines().find_map(|line| line.strip_prefix("Current: ")).unwrap();
                let sets = text.parse::<privileges::CapabilitySets>().unwrap();
                let hex = |set: CapabilitySet| format!("{:016x}", set.bits());
                all_have("CapPrm", &hex(sets.permitted));
                all_have("CapEff", &hex(sets.effective));
                all_have("CapInh", &hex(sets.inheritable));
                let no_priv = mode == Mode::NoPriv;
                all_have("NoNewPrivs", if no_priv { "1" } else { "0" });
                if no_priv {
                    all_have("CapBnd", "0000000000000000");
                }
            });
        }
    });
}

#[test]
fn iab_matches_capsh() {
    if Command::new("capsh").arg("--version").output().is_err() {
        support::skipped("there is no capsh here");
        return;
    }
    isolated_as_root("iab_matches_capsh", WATCHDOG, || {
        threads();
        let text = "^cap_chown,!%cap_kill,!cap_net_raw,cap_setuid";
        let iab: Iab = text.parse().unwrap();
        assert_eq!(iab.to_string().parse(), Ok(iab));
        let wanted = printed_by(&[
            "capsh",
            &format!("--iab={text}"),
            "--",
            "-c",
            "exec cat /proc/self/status",
        ]);
        let keep = libpsx::process::CapabilitySets::current().unwrap().permitted;
        rooted().keep(keep).iab(iab).plan().unwrap().apply().unwrap();
        for field in ["CapInh", "CapAmb", "CapBnd"] {
            all_have(field, &wanted[field]);
        }
    });
}

#[test]
fn chroot_and_chdir_reach_every_thread() {
    isolated_as_root("chroot_and_chdir_reach_every_thread", WATCHDOG, || {
        threads();
        let asked = support::Asked::new(2);
        let root = std::env::temp_dir().join(format!("privileges-test-{}", std::process::id()));
        // An earlier process with this number may have left a directory, which it could not see to remove.
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("inside")).unwrap();
        std::os::unix::fs::symlink("/inside", root.join("link")).unwrap();
        let settings = Privileges::new().user("nobody").chroot(&root).chdir("link/../../inside");
        settings.plan().unwrap().apply().unwrap();
        assert!(std::fs::metadata("/etc").is_err());
        assert_eq!(std::env::current_dir().unwrap(), std::path::Path::new("/inside"));
        // There is no /proc here, so each thread answers.
        // SAFETY: it touches no memory.
        asked.all_answer(|| unsafe { libc::geteuid() }.into(), 65534);
    });
}

#[test]
fn landlock_and_seccomp_are_applied_last() {
    isolated_as_root("landlock_and_seccomp_are_applied_last", WATCHDOG, || {
        threads();
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V1)).unwrap();
        let ruleset = ruleset.create().unwrap();
        let program = support::program(
            &[libc::SYS_getppid],
            libc::SECCOMP_RET_ERRNO | libc::ENOTUNIQ as u32,
            libc::SECCOMP_RET_ALLOW,
        );
        let program: Vec<_> = program
            .iter()
            .map(|step| seccompiler::sock_filter {
                code: step.code,
                jt: step.jt,
                jf: step.jf,
                k: step.k,
            })
            .collect();
        let tasks = proc::tids().len();
        let before = std::fs::File::open("/proc/self/status").unwrap();
        let settings = Privileges::new().user("nobody").landlock(ruleset).seccomp(&program);
        let applied = settings.plan().unwrap().apply().unwrap();
        assert_eq!(applied.threads, tasks);
        assert!(std::fs::read_dir("/").is_err());
        let status = std::io::read_to_string(before).unwrap();
        assert!(status.contains("\nSeccomp_filters:\t1\n"), "{status}");
        // SAFETY: getppid touches no memory.
        assert_eq!(unsafe { libc::syscall(libc::SYS_getppid) }, -1);
    });
}

/// Checks that the settings are refused, and that every thread has its old state.
fn refused(settings: Privileges, check: impl FnOnce(&Problem) -> bool) {
    let before = FIELDS.map(proc::field_in_every_thread);
    let error = settings.plan().expect_err("it is refused");
    let Error::Plan(problems) = &error else { panic!("{error:?}") };
    assert!(problems.len() == 1 && check(&problems[0]), "{problems:?}");
    assert_eq!(FIELDS.map(proc::field_in_every_thread), before);
    println!("{error}");
}

#[test]
fn impossible_plans_change_nothing() {
    isolated_as_root("impossible_plans_change_nothing", WATCHDOG, || {
        threads();
        let new = rooted;
        refused(user("no such user"), |e| matches!(e, Problem::UserNotFound(_)));
        refused(new().group("no such group"), |e| matches!(e, Problem::GroupNotFound(_)));
        refused(user(u32::MAX), |e| matches!(e, Problem::InvalidId(_)));
        refused(user(123_456), |e| matches!(e, Problem::NoPasswdEntry(123_456)));
        refused(new().chroot("/no/such/place"), |e| matches!(e, Problem::OpenDirectory { .. }));
        let unknown = Capability::new(63).unwrap();
        refused(new().keep(unknown), |e| matches!(e, Problem::UnknownCapabilities(_)));
        refused(new().ambient(Capability::CHOWN), |e| matches!(e, Problem::AmbientNotKept(_)));
        let conflicting = new().mode(Mode::NoPriv).keep(Capability::CHOWN);
        refused(conflicting, |e| matches!(e, Problem::ModeConflict(Mode::NoPriv, _)));

        let chown = CapabilitySet::from(Capability::CHOWN);
        new().keep(chown).plan().unwrap().apply().unwrap();
        let kill = Capability::KILL;
        refused(
            new().keep(kill),
            |e| matches!(e, Problem::NotPermitted(set) if set.contains(kill)),
        );
        let Err(Error::Plan(problems)) = user("nobody").plan() else { panic!("Ok") };
        let needs = |problem: &Problem| match problem {
            Problem::MissingCapability { capability, .. } => *capability,
            other => panic!("{other:?}"),
        };
        let needed: Vec<_> = problems.iter().map(needs).collect();
        assert_eq!(needed, [Capability::SETGID, Capability::SETGID, Capability::SETUID]);
        refused(new().bounding(chown), |e| matches!(e, Problem::MissingCapability { .. }));
        refused(new().mode(Mode::Pure1e), |e| matches!(e, Problem::MissingCapability { .. }));
        refused(new().inheritable(kill), |e| matches!(e, Problem::NotInheritable(_)));
    });
}

/// Gives up privileges as an unprivileged user: that needs no privilege.
#[test]
fn an_unprivileged_user_can_drop() {
    isolated("an_unprivileged_user_can_drop", WATCHDOG, || {
        threads();
        // SAFETY: it touches no memory.
        let uid = unsafe { libc::getuid() };
        // SAFETY: as above.
        let gid = unsafe { libc::getgid() };
        if uid == 0 {
            Privileges::new().user("nobody").plan().unwrap().apply().unwrap();
        }
        let uid = if uid == 0 { 65534 } else { uid };
        let gid = if gid == 0 { 65534 } else { gid };
        let has = nix_groups();
        let settings =
            Privileges::new().user(uid).group(gid).groups(Groups::Explicit(has)).no_new_privs();
        let applied = settings.plan().unwrap().apply().unwrap();
        assert_eq!(applied.threads, proc::tids().len());
        all_have("NoNewPrivs", "1");
        all_have("CapPrm", "0000000000000000");
    });
}

fn nix_groups() -> Vec<Id> {
    let groups = proc::status(std::process::id() as i32).remove("Groups").unwrap_or_default();
    groups.split_whitespace().map(|raw| Id::Number(raw.parse().unwrap())).collect()
}

/// Starts a thread whose filter pretends that the thread has changed. The kernel shows that it has not.
fn gives_false_answers(report: bool) -> Result<(), Error> {
    threads();
    prepared(|| filter(libc::SYS_setresuid, libc::SECCOMP_RET_ERRNO));
    let settings = Privileges::new().user("nobody");
    let settings = if report { settings.report_failure() } else { settings };
    settings.plan().unwrap().apply().map(|_| ())
}

#[test]
fn false_answers_of_a_thread_are_detected() {
    isolated_as_root("false_answers_of_a_thread_are_detected", WATCHDOG, || {
        let Err(Error::NotDropped(wrong)) = gives_false_answers(true) else {
            panic!("it was believed")
        };
        let uids: Vec<_> = wrong.iter().filter(|one| one.what == "Uid").collect();
        assert!(!uids.is_empty() && uids.iter().all(|one| one.found == "0 0 0 0"), "{wrong:?}");
    });
}

#[test]
fn false_answers_of_a_thread_kill_the_process() {
    if support::skipped_without_root("false_answers_of_a_thread_kill_the_process") {
        return;
    }
    let (status, output) =
        isolated_status("false_answers_of_a_thread_kill_the_process", WATCHDOG, || {
            let done = gives_false_answers(false);
            println!("went on: {done:?}");
        });
    assert!(!status.success(), "{output}");
    assert!(output.contains("privileges: not dropped: thread "), "{output}");
    assert!(!output.contains("went on"), "{output}");
}

#[test]
fn a_drop_works_in_a_user_namespace() {
    isolated_as_root("a_drop_works_in_a_user_namespace", WATCHDOG, || {
        support::forked(|| {
            if !support::unshared(libc::CLONE_NEWUSER) {
                return;
            }
            std::fs::write("/proc/self/uid_map", "0 0 1\n").unwrap();
            std::fs::write("/proc/self/setgroups", "deny").unwrap();
            std::fs::write("/proc/self/gid_map", "0 0 1\n").unwrap();
            threads();
            // This user namespace has no other user.
            let settings = Privileges::new().user(1234).group(0).groups(Groups::Explicit(vec![]));
            let Err(Error::Plan(found)) = settings.plan() else { panic!("a plan") };
            let not_mapped = |one: &Problem| matches!(one, Problem::NotMapped { id: 1234, .. });
            assert!(found.iter().any(not_mapped), "{found:?}");
            rooted().keep(Capability::CHOWN).plan().unwrap().apply().unwrap();
            all_have("CapEff", "0000000000000001");
        });
    });
}
