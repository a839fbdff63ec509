//! `psx audit` on processes that the test makes: the state that it reads, its output and its exit status.

#![allow(missing_docs, unsafe_code)]

#[path = "audit/elsewhere.rs"]
mod elsewhere;
#[path = "audit/labels.rs"]
mod labels;
mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;
use support::{
    NOBODY, Subject, allow_all, audit, become_user, finish, is_root, keep_only, name,
    no_capabilities, plain, prctl, psx, readable_copy, report, thread,
};

/// Returns the tids of the groups that differ, with the fields.
fn differing(process: &Value) -> Vec<(i64, Vec<&str>)> {
    let mut found = Vec::new();
    for group in process["groups"].as_array().unwrap() {
        let fields: Vec<_> =
            group["differs"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
        for thread in group["threads"].as_array().unwrap() {
            if !fields.is_empty() {
                found.push((thread["tid"].as_i64().unwrap(), fields.clone()));
            }
        }
    }
    found
}

#[test]
fn equal_threads_are_consistent() {
    let subject = Subject::new(|stage| {
        let tids: Vec<_> = (0..3).map(|_| thread(|| {})).collect();
        stage.ready(&tids);
    });
    let report = report(&[], subject.pid);
    assert_eq!(report["consistent"], true, "{report}");
    let process = &report["processes"][0];
    assert_eq!(process["threads"], 4);
    assert_eq!(process["groups"].as_array().unwrap().len(), 1);
    let finished = audit(&["--quiet"], subject.pid);
    assert_eq!((finished.status.code(), &*finished.stdout, &*finished.stderr), (Some(0), "", ""));
}

fn two_filters() {
    allow_all();
    allow_all();
}

/// A change that one thread makes alone, and the fields that then differ.
type Divergence = (&'static str, fn(), &'static [&'static str]);

/// Sets the policy SCHED_BATCH.
fn batch() {
    plain(libc::SYS_sched_setscheduler, [0, 3, [0_i32].as_ptr() as usize, 0, 0]);
}

fn ambient() {
    let header = [0x2008_0522_u32, 0];
    let all = [0x1_u32, 0x1, 0x1, 0, 0, 0];
    plain(libc::SYS_capset, [header.as_ptr() as usize, all.as_ptr() as usize, 0, 0, 0]);
    plain(libc::SYS_prctl, [47, 2, 0, 0, 0]);
}

/// Stops sharing directories and umask with the other threads (CLONE_FS), and runs the function.
fn alone(then: fn()) {
    plain(libc::SYS_unshare, [libc::CLONE_FS as usize, 0, 0, 0, 0]);
    then();
}

fn chroot() {
    alone(|| plain(libc::SYS_chroot, [c"/tmp".as_ptr() as usize, 0, 0, 0, 0]));
}

const AS_ROOT: [Divergence; 10] = [
    ("chroot", chroot, &["root"]),
    ("setresuid", || become_user(NOBODY as usize), &["uid", "caps"]),
    ("setfsuid", || plain(libc::SYS_setfsuid, [7, 0, 0, 0, 0]), &["uid", "caps"]),
    ("setresgid", || plain(libc::SYS_setresgid, [7, 7, 7, 0, 0]), &["gid"]),
    (
        "setgroups",
        || plain(libc::SYS_setgroups, [2, [5_u32, 6].as_ptr() as usize, 0, 0, 0]),
        &["groups"],
    ),
    ("capset", no_capabilities, &["caps"]),
    ("ambient", ambient, &["caps", "ambient"]),
    ("bounding", || prctl(libc::PR_CAPBSET_DROP, 0), &["bounding"]),
    (
        "unshare",
        || plain(libc::SYS_unshare, [libc::CLONE_NEWUTS as usize, 0, 0, 0, 0]),
        &["namespaces"],
    ),
    ("sched_setscheduler", batch, &["sched"]),
];

fn chdir() {
    alone(|| plain(libc::SYS_chdir, [c"/usr".as_ptr() as usize, 0, 0, 0, 0]));
}

fn umask() {
    alone(|| plain(libc::SYS_umask, [0o077, 0, 0, 0, 0]));
}

/// Sets ADDR_NO_RANDOMIZE.
fn personality() {
    plain(libc::SYS_personality, [0x004_0000, 0, 0, 0, 0]);
}

const AS_ANYBODY: [Divergence; 5] = [
    ("chdir", chdir, &["cwd"]),
    ("umask", umask, &["umask"]),
    ("personality", personality, &["personality"]),
    ("no_new_privs", || prctl(libc::PR_SET_NO_NEW_PRIVS, 1), &["nnp"]),
    ("seccomp", allow_all, &["nnp", "seccomp"]),
];

#[test]
fn each_field_in_which_one_thread_differs_is_named() {
    let root = is_root("fields that only root can change");
    let privileged = AS_ROOT.iter().filter(|_| root);
    for &(what, change, fields) in privileged.chain(&AS_ANYBODY) {
        let subject = Subject::new(|stage| {
            thread(|| {});
            let tids = [thread(move || {
                name(b"other");
                change();
            })];
            stage.ready(&tids);
        });
        let report = report(&[], subject.pid);
        let process = &report["processes"][0];
        let wanted = vec![(i64::from(subject.tids[0]), fields.to_vec())];
        assert_eq!(differing(process), wanted, "{what}: {report}");
        assert_eq!(report["consistent"], false, "{what}");
        assert_eq!(process["differs"].as_array().unwrap().len(), fields.len());
        let finished = audit(&["--quiet"], subject.pid);
        assert_eq!((finished.status.code(), finished.stdout.len()), (Some(1), 0), "{what}");
        let ignored = audit(&["--quiet", "--ignore", &fields.join(",")], subject.pid);
        assert_eq!(ignored.status.code(), Some(0), "{what}: {}", ignored.stderr);
        // The table names the thread and the fields, and explains each field in a sentence.
        let text = audit(&["--explain"], subject.pid).stdout;
        let line = format!("in {}: {} (other)\n", fields.join(", "), subject.tids[0]);
        assert!(text.contains(&line), "{what}: {text}");
        for field in fields {
            assert!(text.contains(&format!("\ndiffers:{field}: ")), "{what}: {text}");
        }
    }
}

#[test]
fn the_number_of_filters_and_the_sets_are_shown() {
    let subject = Subject::new(|stage| stage.ready(&[thread(two_filters)]));
    let report = report(&[], subject.pid);
    let state = &report["processes"][0]["groups"][1]["state"];
    assert_eq!(state["seccomp"]["mode"], "filter", "{report}");
    assert_eq!(state["seccomp"]["filters"], 2, "{report}");
    assert_eq!(state["no_new_privs"], true);
}

/// Names that have another meaning on a terminal or in a file of /proc.
const NAMES: [(&[u8], &str); 8] = [
    (b"sp ace", "sp ace"),
    (b"a) R 1 (b", "a) R 1 (b"),
    (b"x\nUid:\t7\t7\t7\t7", r"x\nUid:\t7\t7\t7\t7"),
    (b"\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    (b"\x1b]0;title\x07", r"\x1b]0;title\x07"),
    (b"\xe2\x80\xaeright", r"\xe2\x80\xaeright"),
    (b"\x9b31m\xff\x7f", r"\x9b31m\xff\x7f"),
    (b"back\\n", r"back\\n"),
];

#[test]
fn no_name_controls_a_terminal() {
    let subject = Subject::new(|stage| {
        // Each thread differs, so psx names each thread.
        let tids: Vec<_> = NAMES
            .iter()
            .map(|(bytes, _)| {
                thread(|| {
                    name(bytes);
                    prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
                })
            })
            .collect();
        name(NAMES[3].0);
        stage.ready(&tids);
    });
    for args in
        [&["--color", "never"][..], &["--json"], &["--explain"], &["--watch", "1", "--times", "1"]]
    {
        let finished = audit(args, subject.pid);
        let safe = |c: char| c == '\n' || (!c.is_control() && (c.is_ascii() || "─═".contains(c)));
        assert!(finished.stdout.chars().all(safe), "{args:?}: {:?}", finished.stdout);
        assert_eq!(finished.status.code(), Some(1), "{args:?}: {}", finished.stderr);
    }
    let report = report(&[], subject.pid);
    let process = &report["processes"][0];
    assert_eq!(process["name"], NAMES[3].1);
    assert_eq!(process["differs"], serde_json::json!(["nnp"]), "{report}");
    for ((_, shown), tid) in NAMES.iter().zip(&subject.tids) {
        let threads = process["groups"][1]["threads"].as_array().unwrap();
        let thread = threads.iter().find(|thread| thread["tid"] == *tid).unwrap();
        assert_eq!(thread["name"], *shown);
    }
    let text = audit(&[], subject.pid).stdout;
    for (_, shown) in NAMES {
        assert!(text.contains(&format!("({shown})")), "{shown}: {text}");
    }
}

#[test]
fn a_dead_leader_is_noted_and_not_compared() {
    let subject = Subject::new(|stage| {
        let changes = [thread(|| prctl(libc::PR_SET_NO_NEW_PRIVS, 1))];
        stage.ready(&changes);
        // The leader ends with its old privileges.
        plain(libc::SYS_exit, [0; 5]);
    });
    wait_for_state(subject.pid, 'Z');
    let finished = audit(&[], subject.pid);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stdout);
    assert!(finished.stdout.contains("the leader is a zombie"), "{}", finished.stdout);
    let report = report(&["--expect", "nnp=1"], subject.pid);
    let process = &report["processes"][0];
    assert_eq!(process["flags"], serde_json::json!(["zombie-leader"]), "{report}");
    assert_eq!((&process["threads"], &report["as_expected"]), (&1.into(), &true.into()));
}

/// The files of a dead leader belong to root, and its command line is empty.
#[test]
fn the_identity_of_a_process_is_that_of_a_living_thread() {
    if !is_root("another user") {
        return;
    }
    let subject = Subject::new(|stage| {
        become_user(NOBODY as usize);
        let tids = [thread(|| prctl(libc::PR_SET_DUMPABLE, 1))];
        stage.ready(&tids);
        plain(libc::SYS_exit, [0; 5]);
    });
    wait_for_state(subject.pid, 'Z');
    for (expected, status) in [("dumpable=1", 0), ("dumpable=0", 1)] {
        let finished = audit(&["--expect", expected], subject.pid);
        assert_eq!(finished.status.code(), Some(status), "{expected}: {}", finished.stdout);
    }
    let report = report(&[], subject.pid);
    let command = report["processes"][0]["command"].as_array().unwrap();
    assert!(!command.is_empty(), "{report}");
}

#[test]
fn a_zombie_is_reported_and_fails_no_expectation() {
    let subject = Subject::new(|stage| {
        stage.ready(&[]);
        // SAFETY: it ends the process; its parent does not wait for it.
        unsafe { libc::_exit(0) }
    });
    wait_for_state(subject.pid, 'Z');
    let finished = audit(&[], subject.pid);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("zombie, no thread of it runs"), "{}", finished.stdout);
    assert_eq!(audit(&["--expect", "nnp=0"], subject.pid).status.code(), Some(1));
}

fn wait_for_state(pid: i32, state: char) {
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        if stat.rsplit(") ").next().unwrap().starts_with(state) {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn expectations_name_the_first_thread_that_fails() {
    let subject = Subject::new(|stage| {
        // Two states fail, and the first thread has the state of the smaller group.
        let tids: Vec<_> = (0..5)
            .map(|n| {
                thread(move || {
                    name(format!("worker-{n}").as_bytes());
                    if n < 2 {
                        prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
                    } else if n == 2 {
                        batch();
                    }
                })
            })
            .collect();
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
        stage.ready(&tids);
    });
    let finished = audit(&["--expect", "seccomp=disabled,nnp=1"], subject.pid);
    assert_eq!(finished.status.code(), Some(1));
    let line = format!(
        "{} (subject): expected nnp=1: thread {} (worker-2) has no, and 2 other threads do not have",
        subject.pid, subject.tids[2]
    );
    assert!(finished.stdout.contains(&line), "{}", finished.stdout);
    let report = report(&["--expect", "nnp=1"], subject.pid);
    assert_eq!(report["as_expected"], false);
    let failure = &report["processes"][0]["failures"][0];
    assert_eq!(
        (&failure["first"]["tid"], &failure["threads"]),
        (&subject.tids[2].into(), &3.into())
    );
}

#[test]
fn every_key_of_an_expectation_holds_and_fails() {
    if !is_root("keys that need a known user") {
        return;
    }
    let subject = Subject::new(|stage| {
        two_filters();
        prctl(libc::PR_CAPBSET_DROP, 0);
        plain(libc::SYS_setgroups, [2, [6_u32, 5].as_ptr() as usize, 0, 0, 0]);
        plain(libc::SYS_setresgid, [1, 2, 3, 0, 0]);
        plain(libc::SYS_setresuid, [11, 12, 13, 0, 0]);
        stage.ready(&[]);
    });
    let holds = "ruid=11,euid=12,suid=13,fsuid=12,rgid=1,egid=2,sgid=3,fsgid=2,groups=5+6,caps=none,\
                 effective=none,permitted=none,inheritable=none,ambient=none,nnp=1,seccomp=filter,filters=2,\
                 sched=other";
    let finished = audit(&["--expect", holds], subject.pid);
    assert_eq!(finished.status.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    for fails in [
        "uid=11",
        "gid=1",
        "ruid=1",
        "euid=1",
        "suid=1",
        "fsuid=1",
        "rgid=7",
        "egid=7",
        "sgid=7",
        "fsgid=7",
        "groups=none",
        "groups=5",
        "caps=cap_chown",
        "effective=all",
        "permitted=all",
        "inheritable=cap_kill",
        "ambient=cap_kill",
        "bounding=all",
        "nnp=0",
        "seccomp=strict",
        "filters=1",
        "sched=fifo",
        "label=no-such-label",
    ] {
        let finished = audit(&["--quiet", "--expect", fails], subject.pid);
        assert_eq!(finished.status.code(), Some(1), "{fails}: {}", finished.stderr);
    }
    let label = report(&[], subject.pid)["processes"][0]["groups"][0]["state"]["label"].clone();
    let finished = audit(&["--quiet", "--expect", "label=none"], subject.pid);
    assert_eq!(finished.status.code(), Some(i32::from(!label.is_null())), "{label}");
}

/// The kernel shows these states to no user. The caller asked for the check, so the result must not be that all is well.
#[test]
fn an_expectation_that_no_user_can_check_does_not_hold() {
    let subject = Subject::new(|stage| stage.ready(&[]));
    for expected in ["landlock=1", "securebits=noroot", "keyrings=private", "dumpable=0"] {
        if expected == "dumpable=0" && !is_root("dumpable of a process of root") {
            continue;
        }
        let finished = audit(&["-q", "--expect", expected], subject.pid);
        assert_eq!(finished.status.code(), Some(2), "{expected}: {}", finished.stderr);
        assert!(finished.stderr.contains("1 expectation could not be checked"), "{expected}");
        let report = report(&["--expect", expected], subject.pid);
        assert_eq!(report["as_expected"], false, "{report}");
        assert_eq!(report["processes"][0]["failures"][0]["checked"], false, "{report}");
        assert_eq!(report["processes"][0]["flags"], serde_json::json!(["unchecked"]), "{report}");
    }
    // What is seen decides first.
    let finished = audit(&["-q", "--expect", "landlock=1,nnp=1"], subject.pid);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
}

#[test]
fn a_ring_that_keeps_root_is_flagged() {
    if !is_root("a ring with the credentials of root") {
        return;
    }
    let subject = Subject::new(|stage| {
        let made = [i32::from(support::sqpoll())];
        become_user(NOBODY as usize);
        stage.ready(&made);
    });
    if subject.tids == [0] {
        support::skipped("io_uring is not available");
        return;
    }
    let report = report(&[], subject.pid);
    let worker = &report["processes"][0]["workers"][0];
    assert_eq!(worker["kind"], "sqpoll", "{report}");
    assert_eq!(worker["keeps"], serde_json::json!(["uid", "caps"]), "{report}");
    assert_eq!(report["processes"][0]["threads"], 1);
    let finished = audit(&["--explain"], subject.pid);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stdout.contains("keeps what no thread has: uid, caps"), "{}", finished.stdout);
    assert!(finished.stdout.contains("worker-keeps: "), "{}", finished.stdout);
    let whose = format!("privileged: kernel worker {} has more than each thread;", worker["tid"]);
    assert!(finished.stdout.contains(&whose), "{}", finished.stdout);
}

/// What a process does after it made a ring, the field that the ring's worker keeps, and an expectation that holds for the
/// thread and not for the worker.
type Kept = (fn(), &'static str, &'static str, &'static str);

const KEPT: [Kept; 3] = [
    (chroot, "root", "root=/tmp", "/"),
    (
        || plain(libc::SYS_unshare, [libc::CLONE_NEWUTS as usize, 0, 0, 0, 0]),
        "namespaces",
        "namespaces>=uts",
        "the namespaces of psx",
    ),
    // Without CAP_SYS_ADMIN, CAP_SYS_CHROOT and the like, the root directory makes the difference: CAP_CHOWN.
    (
        || {
            chroot();
            prctl(libc::PR_SET_KEEPCAPS, 1);
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
            become_user(NOBODY as usize);
            keep_only(1);
        },
        "root",
        "verdict<=reduced",
        "privileged",
    ),
];

#[test]
fn a_worker_in_other_directories_or_namespaces_is_flagged() {
    if !is_root("chroot and namespaces") {
        return;
    }
    for (change, field, holds_without, found) in KEPT {
        if holds_without == "verdict<=reduced" && !support::sees_process_1(holds_without) {
            continue;
        }
        let start = |with_ring: bool| {
            Subject::new(move |stage| {
                let made = !with_ring || support::sqpoll();
                change();
                stage.ready(&[i32::from(made)]);
            })
        };
        let subject = start(true);
        if subject.tids == [0] {
            support::skipped("io_uring is not available");
            return;
        }
        let report = report(&[], subject.pid);
        let worker = &report["processes"][0]["workers"][0];
        let keeps = worker["keeps"].as_array().unwrap();
        assert!(keeps.contains(&field.into()), "{field}: {report}");
        assert_eq!(report["consistent"], false, "{field}: {report}");
        assert_eq!(audit(&["--quiet"], subject.pid).status.code(), Some(1), "{field}");
        // The expectation is checked by itself.
        let ignored = "uid,gid,groups,caps,root,namespaces";
        let args = ["--ignore", ignored, "--expect", holds_without];
        assert_eq!(audit(&["-q", "--ignore", ignored], subject.pid).status.code(), Some(0));
        let finished = audit(&args, subject.pid);
        assert_eq!(finished.status.code(), Some(1), "{holds_without}: {}", finished.stdout);
        let line = format!("expected {holds_without}: kernel worker {} (iou-sqp-", worker["tid"]);
        assert!(finished.stdout.contains(&line), "{line}: {}", finished.stdout);
        assert!(finished.stdout.contains(&format!(" has {found}")), "{}", finished.stdout);
        let without = audit(&args, start(false).pid);
        assert_eq!(without.status.code(), Some(0), "{holds_without}: {}", without.stdout);
    }
}

/// A worker that was made after the drop has no more than the thread.
#[test]
fn a_worker_that_keeps_nothing_is_no_finding() {
    if !is_root("dropping root") {
        return;
    }
    let subject = Subject::new(|stage| {
        become_user(NOBODY as usize);
        let made = support::sqpoll();
        // It executes no program, so these do not matter for it.
        allow_all();
        stage.ready(&[i32::from(made)]);
    });
    if subject.tids == [0] {
        support::skipped("io_uring is not available");
        return;
    }
    let args = [
        "--explain",
        "--expect",
        "uid=nobody,caps=none,nnp=1,seccomp=filter,root=/,verdict=sandboxed",
    ];
    let finished = audit(&args, subject.pid);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stdout);
    // The reasons are those of the thread.
    let reasons = "sandboxed: no capability, no user ID 0; no_new_privs is set; seccomp filters";
    assert!(finished.stdout.contains(reasons), "{}", finished.stdout);
    assert_eq!(report(&[], subject.pid)["processes"][0]["verdict"], "sandboxed");
}

#[test]
fn a_requested_process_that_cannot_be_read_is_exit_status_2() {
    let gone = Subject::new(|stage| stage.ready(&[])).pid;
    let finished = audit(&[], gone);
    assert_eq!((finished.status.code(), &*finished.stdout), (Some(2), ""));
    assert_eq!(finished.stderr, format!("psx: process {gone}: there is no such process\n"));
    assert_eq!(finish(psx(&["audit", "--name", "^no such name$"])).status.code(), Some(2));
    let bad: [&[&str]; 17] = [
        &["audit"],
        &["audit", "0"],
        &["audit", "-1"],
        &["audit", "1", "--all"],
        &["audit", "--name", "("],
        &["audit", "--user", "no such user"],
        &["audit", "1", "--expect", "uid"],
        &["audit", "1", "--expect", "colour=red"],
        &["audit", "1", "--expect", "namespaces>="],
        &["audit", "1", "--expect", "uid=0,groups>="],
        &["audit", "1", "--expect", "caps>="],
        &["audit", "1", "--expect", "bounding<="],
        &["audit", "1", "--expect", "groups="],
        &["audit", "1", "--expect", "caps=cap_nothing"],
        &["audit", "1", "--ignore", "hair"],
        &["audit", "1", "--watch", "0"],
        &["audit", "1", "--times", "3"],
    ];
    for args in bad {
        let finished = finish(psx(args));
        assert_eq!((finished.status.code(), &*finished.stdout), (Some(2), ""), "{args:?}");
        assert!(!finished.stderr.is_empty(), "{args:?}");
    }
}

/// Finds processes by name, by user, and by the number of one of their threads.
#[test]
fn processes_are_found_by_name_user_and_tid() {
    let subject = Subject::new(|stage| {
        let tids = [thread(|| {})];
        name(b"sought (it)");
        stage.ready(&tids);
    });
    let pids = |args: &[&str]| -> Vec<i64> {
        let finished = finish(psx(&[&["audit", "--json"], args].concat()));
        let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
        let processes = report["processes"].as_array().unwrap();
        processes.iter().map(|process| process["pid"].as_i64().unwrap()).collect()
    };
    let pid = i64::from(subject.pid);
    assert_eq!(pids(&["--name", r"^sought \(it\)$"]), [pid]);
    assert_eq!(pids(&[&subject.tids[0].to_string()]), [pid]);
    assert_eq!(pids(&[&subject.tids[0].to_string(), &subject.pid.to_string()]), [pid]);
    assert!(pids(&["--all"]).contains(&pid));
    if is_root("the choice by user") {
        let other = Subject::new(|stage| {
            become_user(64_321);
            stage.ready(&[]);
        });
        assert_eq!(pids(&["--user", "64321"]), [i64::from(other.pid)]);
        assert!(!pids(&["--user", "root"]).contains(&i64::from(other.pid)));
        assert!(pids(&["--user", "root"]).contains(&pid));
    }
}

/// What an ordinary user cannot see is not compared, and the result says so. `--expect consistent` does not hold then.
#[test]
fn an_audit_that_has_not_seen_all_does_not_say_that_all_is_alike() {
    if !is_root("auditing root as another user") {
        return;
    }
    let subject = Subject::new(|stage| stage.ready(&[thread(|| {})]));
    let own = readable_copy();
    let pid = subject.pid.to_string();
    let user = |args: &[&str]| {
        let mut command = Command::new(&own);
        command.arg("audit").args(args).arg(&pid).uid(NOBODY).gid(NOBODY);
        finish(command)
    };
    let [plain, asked] = [user(&[]), user(&["--expect", "consistent=1"])];
    std::fs::remove_file(&own).unwrap();
    let whole = audit(&[], subject.pid).stdout;
    assert!(whole.contains("2 threads: consistent;"), "{whole}");
    assert_eq!(plain.status.code(), Some(0), "{}", plain.stderr);
    let text = plain.stdout;
    assert!(text.contains("2 threads: consistent in what could be seen;"), "{text}");
    assert_eq!(asked.status.code(), Some(2), "{}", asked.stdout);
}

/// Audits a process of root as another user: the output says that namespaces and directories cannot be seen.
#[test]
fn an_unprivileged_audit_of_root_reports_unseen_fields() {
    if !is_root("auditing root as another user") {
        return;
    }
    let subject =
        Subject::new(|stage| stage.ready(&[thread(|| prctl(libc::PR_SET_NO_NEW_PRIVS, 1))]));
    let mut command = Command::new(readable_copy());
    command.args(["audit", "--json", &subject.pid.to_string()]).uid(NOBODY).gid(NOBODY);
    let finished = finish(command);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let process = &report["processes"][0];
    assert_eq!(process["flags"], serde_json::json!(["differs:nnp", "namespaces-unseen"]));
    let unseen = ["namespaces", "root", "cwd", "personality", "timer-slack"];
    assert_eq!(process["unseen"], serde_json::json!(unseen), "{report}");
    assert_eq!(process["groups"][0]["state"]["root"], Value::Null);
    let mut command = Command::new(readable_copy());
    command.args(["audit", &subject.pid.to_string()]).uid(NOBODY).gid(NOBODY);
    let text = finish(command).stdout;
    let line = format!("not seen: {} of 1 process: run psx as root", unseen.join(", "));
    assert!(text.contains(&line), "{text}");
}
