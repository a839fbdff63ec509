//! `psx audit`: verdicts, the fields that are not compared, lists, formats, policies, and saved states.

#![allow(missing_docs, unsafe_code)]

#[path = "audit_views/files.rs"]
mod files;
mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::{
    NOBODY, Subject, allow_all, audit, become_user, finish, is_root, keep_only, name,
    no_capabilities, plain, prctl, psx, report, skipped, thread,
};

/// A file that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(contents: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = format!("psx-views-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Becomes another user and keeps these capabilities.
fn user_with(bits: u32) {
    prctl(libc::PR_SET_KEEPCAPS, 1);
    become_user(NOBODY as usize);
    keep_only(bits);
}

/// Becomes another user and keeps CAP_NET_BIND_SERVICE, number 10.
fn user_that_binds() {
    user_with(1 << 10);
}

/// The calls of the process, the verdict, and a part of the reasons.
type Case = (&'static str, fn(), &'static str, &'static str);

#[test]
fn verdicts_follow_from_the_state_and_have_reasons() {
    if !is_root("verdicts about root") {
        return;
    }
    let cases: [Case; 16] = [
        ("root", || {}, "privileged", "the user ID is 0"),
        ("root without capabilities", no_capabilities, "privileged", "the user ID is 0"),
        ("a user", || become_user(NOBODY as usize), "unprivileged", "no capability"),
        (
            "a saved ID",
            || plain(libc::SYS_setresuid, [7, 7, 0, 0, 0]),
            "privileged",
            "the saved user ID is 0",
        ),
        ("one capability", user_that_binds, "reduced", "cap_net_bind_service"),
        ("CAP_SYS_ADMIN", || user_with(1 << 21), "privileged", "leads to root: cap_sys_admin"),
        ("CAP_SETUID", || user_with(1 << 7), "privileged", "leads to root: cap_setuid"),
        ("CAP_SYS_BOOT", || user_with(1 << 22), "privileged", "leads to root: cap_sys_boot"),
        ("CAP_DAC_OVERRIDE", || user_with(1 << 1), "privileged", "leads to root: cap_dac_override"),
        (
            "a filter",
            || {
                allow_all();
                become_user(NOBODY as usize);
            },
            "sandboxed",
            "seccomp filters system calls",
        ),
        (
            "one thread",
            || {
                // This thread keeps root, and the leader does not.
                thread(|| {});
                become_user(NOBODY as usize);
            },
            "privileged",
            "the user ID is 0",
        ),
        (
            "a chroot",
            || {
                plain(libc::SYS_chroot, [c"/tmp".as_ptr() as usize, 0, 0, 0, 0]);
                prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
                no_capabilities();
            },
            "reduced",
            "its own root directory",
        ),
        (
            "a chroot, and programs get all capabilities",
            || {
                plain(libc::SYS_chroot, [c"/tmp".as_ptr() as usize, 0, 0, 0, 0]);
                no_capabilities();
            },
            "privileged",
            "its own root directory",
        ),
        (
            "a chroot with CAP_SYS_CHROOT",
            || {
                plain(libc::SYS_chroot, [c"/tmp".as_ptr() as usize, 0, 0, 0, 0]);
                prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
                keep_only(1 << 18);
            },
            "privileged",
            "its own root directory",
        ),
        (
            "a mount namespace with the same files",
            || {
                plain(libc::SYS_unshare, [libc::CLONE_NEWNS as usize, 0, 0, 0, 0]);
                prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
                keep_only(1 << 1 | 1 << 7);
            },
            "privileged",
            "its own mount namespace",
        ),
        (
            "CAP_DAC_OVERRIDE in a chroot",
            || {
                plain(libc::SYS_chroot, [c"/tmp".as_ptr() as usize, 0, 0, 0, 0]);
                prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
                user_with(1 << 1);
            },
            "reduced",
            "its own root directory",
        ),
    ];
    for (what, change, verdict, reason) in cases {
        if verdict == "reduced" && what.contains("a chroot") && !support::sees_process_1(what) {
            continue;
        }
        let subject = Subject::new(|stage| {
            change();
            stage.ready(&[]);
        });
        let report = report(&[], subject.pid);
        let process = &report["processes"][0];
        assert_eq!(process["verdict"], verdict, "{what}: {report}");
        let reasons = process["reasons"].to_string();
        assert!(reasons.contains(reason), "{what}: {reasons}");
        let text = audit(&["--explain"], subject.pid).stdout;
        let line = format!("(subject): {verdict}: ");
        assert!(text.contains(&line), "{what}: {text}");
        assert!(text.contains("The kernel does not show these of another process: securebits"));
        // The verdict can be an expectation too.
        let demanded = ["--quiet", "--ignore", "uid,caps", "--expect"];
        let at_most = format!("verdict<={verdict}");
        let finished = audit(&[&demanded[..], &[&at_most]].concat(), subject.pid);
        assert_eq!(finished.status.code(), Some(0), "{what}: {}", finished.stderr);
        if verdict != "sandboxed" {
            let finished = audit(&[&demanded[..], &["verdict<=sandboxed"]].concat(), subject.pid);
            assert_eq!(finished.status.code(), Some(1), "{what}");
        }
    }
}

/// A field that daemons set per thread on purpose: how a thread sets it, and its name.
type Resource = (&'static str, fn());

/// Restricts the thread to one CPU, if there are two.
fn one_cpu() {
    let mask = [1_u64];
    plain(libc::SYS_sched_setaffinity, [0, 8, mask.as_ptr() as usize, 0, 0]);
}

/// Gives the thread another nice value than the process was started with.
fn another_nice() {
    // SAFETY: it takes numbers.
    let now = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // Only root may lower it.
    let other = if now < 19 { now + 1 } else { now - 1 };
    plain(libc::SYS_setpriority, [0, 0, other as usize, 0, 0]);
}

/// Gives the thread another class of I/O than the process was started with.
fn another_ioprio() {
    const IDLE: libc::c_long = 3 << 13;
    const BEST_EFFORT: libc::c_long = 2 << 13;
    // SAFETY: it takes numbers.
    let now = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
    let other = if now & !0x1fff == IDLE { BEST_EFFORT } else { IDLE };
    plain(libc::SYS_ioprio_set, [1, 0, other as usize, 0, 0]);
}

#[test]
fn resources_are_shown_and_compared_only_if_asked_for() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let root = is_root("timer slack of another process");
    let all: [Resource; 4] = [
        ("nice", another_nice),
        ("ioprio", another_ioprio),
        ("affinity", one_cpu),
        ("timer-slack", || prctl(libc::PR_SET_TIMERSLACK, 77_000)),
    ];
    for (field, change) in all {
        if (field == "affinity" && cpus < 2) || (field == "timer-slack" && !root) {
            continue;
        }
        let subject = Subject::new(|stage| stage.ready(&[thread(change)]));
        let usual = report(&[], subject.pid);
        let process = &usual["processes"][0];
        assert_eq!(process["consistent"], true, "{field}: {usual}");
        assert_eq!(process["varies"], json!([field]), "{usual}");
        assert_eq!(process["groups"].as_array().unwrap().len(), 1, "{field}");
        let compared = report(&["--compare", field], subject.pid);
        assert_eq!(compared["processes"][0]["differs"], json!([field]), "{compared}");
        let finished = audit(&["--quiet", "--compare", field], subject.pid);
        assert_eq!(finished.status.code(), Some(1), "{field}");
        let text = audit(&["--explain"], subject.pid).stdout;
        assert!(text.contains(&format!("its threads also differ in {field}")), "{text}");
    }
}

#[test]
fn expectations_are_about_states_that_are_not_compared_too() {
    let subject = Subject::new(|stage| stage.ready(&[thread(another_nice)]));
    // SAFETY: it takes numbers.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, subject.pid as u32) };
    let expected = format!("nice={nice}");
    let report = report(&["--expect", &expected], subject.pid);
    let process = &report["processes"][0];
    assert_eq!((&report["consistent"], &report["as_expected"]), (&true.into(), &false.into()));
    assert_eq!(process["failures"][0]["first"]["tid"], subject.tids[0], "{report}");
    assert_eq!(process["failures"][0]["threads"], 1, "{report}");
    let group = &process["groups"][0];
    assert_eq!((&group["state"]["nice"], &group["varies"]), (&nice.into(), &json!(["nice"])));
    assert_eq!(group["threads"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(group["others"][0]["threads"][0]["tid"], subject.tids[0], "{report}");
    assert_ne!(group["others"][0]["state"]["nice"], nice, "{report}");
    let finished = audit(&["--quiet", "--expect", &expected], subject.pid);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
}

/// One thread keeps root, in fields that are not compared. It decides the verdict, and it is found by its user.
#[test]
fn a_thread_that_differs_in_ignored_fields_counts() {
    const IGNORE: [&str; 2] = ["--ignore", "uid,gid,groups,caps"];
    if !is_root("a thread that keeps root") {
        return;
    }
    let start = |keep: fn()| {
        Subject::new(move |stage| {
            name(b"ignored");
            let tids = [thread(keep)];
            become_user(NOBODY as usize);
            stage.ready(&tids);
        })
    };
    let clean = start(|| become_user(NOBODY as usize));
    let saved = Scratch::new("");
    let select = ["audit", "--name", "^ignored$"];
    let finished = finish(psx(&[&select[..], &IGNORE, &["-q", "--save", saved.path()]].concat()));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    drop(clean);
    let subject = start(|| {});
    let with = |args: &[&str]| audit(&[&IGNORE[..], args].concat(), subject.pid);
    assert_eq!(with(&["--quiet"]).status.code(), Some(0), "what is ignored is no difference");
    for fails in ["uid=nobody", "caps=none", "verdict<=unprivileged"] {
        let finished = with(&["--expect", fails]);
        assert_eq!(finished.status.code(), Some(1), "{fails}: {}", finished.stdout);
        let line = format!("expected {fails}: thread {} (ignored) has ", subject.tids[0]);
        assert!(finished.stdout.contains(&line), "{}", finished.stdout);
    }
    let text = with(&[]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("and others") && text.contains("1 privileged"), "{text}");
    let ecs = with(&["--format", "ecs"]).stdout;
    let lines: Vec<Value> = ecs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let root = lines.iter().find(|line| line["process"]["thread"]["id"] == subject.tids[0]);
    assert_eq!(root.unwrap()["process"]["user"]["id"], "0", "{ecs}");
    assert!(lines.iter().all(|line| line["psx"]["verdict"] == "privileged"), "{ecs}");
    let found = finish(psx(&[&["audit", "--user", "root", "--json"], &IGNORE[..]].concat()));
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    let processes = found["processes"].as_array().unwrap();
    assert!(processes.iter().any(|process| process["pid"] == subject.pid), "{found}");
    let rule = "[[rule]]\nmatch = { name = '^ignored$', user = 0 }\nexpect.nnp = true\n";
    let policy = Scratch::new(rule);
    let finished = finish(psx(&[&["audit", "--policy", policy.path()], &IGNORE[..]].concat()));
    assert_eq!(finished.status.code(), Some(1), "{}{}", finished.stdout, finished.stderr);
    let finished = finish(psx(&[&select[..], &IGNORE, &["--diff", saved.path()]].concat()));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    assert!(finished.stdout.contains("nobody (65534) -> root (0)"), "{}", finished.stdout);
}

#[test]
fn deadline_parameters_are_shown() {
    if !is_root("SCHED_DEADLINE") {
        return;
    }
    let subject = Subject::new(|stage| {
        let tid = thread(|| {
            // struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
            let mut attributes = [0_u32; 12];
            (attributes[0], attributes[1]) = (48, 6);
            (attributes[6], attributes[8], attributes[10]) = (1_000_000, 20_000_000, 30_000_000);
            let pointer = attributes.as_ptr();
            // SAFETY: the kernel reads the structure.
            let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, pointer, 0) };
            if result != 0 {
                name(b"refused");
            }
        });
        stage.ready(&[tid]);
    });
    let report = report(&[], subject.pid);
    let groups = report["processes"][0]["groups"].as_array().unwrap();
    let Some(other) = groups.get(1) else {
        skipped("SCHED_DEADLINE is refused here");
        return;
    };
    let scheduling = &other["state"]["scheduling"];
    assert_eq!(scheduling["policy"], "deadline");
    assert_eq!(
        scheduling["deadline"],
        json!({ "runtime_ns": 1_000_000, "deadline_ns": 20_000_000, "period_ns": 30_000_000 })
    );
    let text = audit(&["--long"], subject.pid).stdout.replace('\n', " ");
    assert!(text.contains("deadline"), "{text}");
}

#[test]
fn a_list_has_one_line_for_each_process_and_fits() {
    let subjects: Vec<_> = (0..3)
        .map(|_| {
            Subject::new(|stage| {
                thread(|| {});
                name(b"listed (it)");
                stage.ready(&[]);
            })
        })
        .collect();
    let select = ["audit", "--name", r"^listed \(it\)$"];
    let finished = finish(psx(&select));
    let lines: Vec<_> = finished.stdout.lines().collect();
    // The heading, the processes, and the summary.
    let first = subjects[0].pid.to_string();
    assert!(lines[0].trim_start().starts_with("PID VERDICT"), "{}", finished.stdout);
    assert!(lines[1].trim_start().starts_with(&first), "{}", finished.stdout);
    assert!(lines.iter().take(4).all(|line| line.chars().count() <= 80), "{}", finished.stdout);
    assert!(lines.last().unwrap().starts_with("3 processes, 6 threads: consistent"));
    let sorted = finish(psx(&[&select[..], &["--sort", "start"]].concat())).stdout;
    let place = |text: &str, pid: i32| text.find(&format!("{pid} ")).unwrap();
    let (a, b) = (subjects[0].pid, subjects[2].pid);
    assert!(place(&finished.stdout, a) < place(&finished.stdout, b));
    // The start is in clock ticks, so equal starts stay in the order of the process IDs.
    assert!(sorted.contains(&b.to_string()), "{sorted}");
    let long = finish(psx(&[&select[..], &["--long"]].concat())).stdout;
    assert!(long.contains("capabilities") && long.contains("timer-slack"), "{long}");
    assert!(long.lines().take(20).all(|line| line.chars().count() <= 80), "{long}");
    // All threads are named if an option requests it.
    let threads = finish(psx(&[&select[..], &["--threads"]].concat())).stdout;
    assert!(threads.contains("threads of"), "{threads}");
}

#[test]
fn a_tree_shows_children_below_their_parents() {
    let mut parent = Command::new("sh");
    parent.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
    let mut parent = support::Killed(parent.spawn().unwrap());
    let mut line = String::new();
    let out = parent.0.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let child = support::KilledById(line.trim().parse().unwrap());
    let finished = finish(psx(&["audit", "--all", "--tree"]));
    let at = |pid: &str| {
        let of = |line: &&str| line.trim_start().starts_with(&format!("{pid} "));
        let lines: Vec<_> = finished.stdout.lines().collect();
        let index = lines.iter().position(of);
        let index = index.unwrap_or_else(|| panic!("{pid}: {}", finished.stdout));
        let line = lines[index];
        let command =
            ["sh", "sleep"].iter().filter_map(|word| line.find(&format!(" {word} "))).min();
        (index, command)
    };
    let (above, below) = (at(&parent.0.id().to_string()), at(&child.0.to_string()));
    assert_eq!(above.0 + 1, below.0, "{}", finished.stdout);
    if let (Some(above), Some(below)) = (above.1, below.1) {
        assert_eq!(above + 2, below, "{}", finished.stdout);
    }
}

#[test]
fn only_some_processes_are_shown_and_all_are_judged() {
    let divergent = Subject::new(|stage| {
        let tids = [thread(|| prctl(libc::PR_SET_NO_NEW_PRIVS, 1))];
        name(b"only-one");
        stage.ready(&tids);
    });
    let alike = Subject::new(|stage| {
        name(b"only-one");
        stage.ready(&[]);
    });
    let run = |only: &str| {
        let args = ["audit", "--name", "^only-one$", "--only", only, "--expect", "nnp=0"];
        finish(psx(&args))
    };
    let finished = run("divergent");
    let shown =
        |text: &str, pid: i32| text.lines().any(|l| l.trim_start().starts_with(&format!("{pid} ")));
    assert!(shown(&finished.stdout, divergent.pid), "{}", finished.stdout);
    assert!(!shown(&finished.stdout, alike.pid), "{}", finished.stdout);
    assert!(finished.stdout.contains("1 process not shown"), "{}", finished.stdout);
    let finished = run("violations");
    assert!(shown(&finished.stdout, divergent.pid) && !shown(&finished.stdout, alike.pid));
    assert!(finished.stdout.contains("violation"), "{}", finished.stdout);
    assert_eq!(finished.status.code(), Some(1));
    let privileged = run("privileged");
    let root = is_root("a verdict about root");
    assert_eq!(shown(&privileged.stdout, alike.pid), root, "{}", privileged.stdout);
    assert_eq!(privileged.status.code(), Some(1), "what is not shown counts");
}

#[test]
fn without_a_selection_the_possible_arguments_are_named() {
    let finished = finish(psx(&["audit"]));
    assert_eq!((finished.status.code(), &*finished.stdout), (Some(2), ""));
    for argument in ["PID", "--all", "--name", "--user", "--unit", "--policy", "--diff", "--help"] {
        assert!(finished.stderr.contains(argument), "{argument}: {}", finished.stderr);
    }
}

/// Closes the pipe before psx has written everything, as head(1) does.
#[test]
fn a_closed_pipe_is_not_an_error() {
    let subject = Subject::new(|stage| {
        for _ in 0..2000 {
            thread(|| {});
        }
        stage.ready(&[]);
    });
    let mut command = psx(&["audit", "--json", &subject.pid.to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
