//! `psx audit` in difficult cases: terminals, namespaces, hidepid, many threads, threads that end meanwhile, daemons.

#![allow(missing_docs, unsafe_code)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use nix::pty::{Winsize, openpty};
use serde_json::Value;
use support::{
    Killed, NOBODY, Subject, audit, become_user, finish, is_root, limit, name, no_capabilities,
    plain, prctl, psx, readable_copy, thread,
};

/// A terminal of a given size, with a program that runs on it.
struct Screen {
    _child: Killed,
    master: File,
    /// The bytes that were read and not returned yet. A read may end in the middle of a character, or of a frame.
    bytes: Vec<u8>,
}

impl Screen {
    fn new(mut command: Command, (columns, lines): (u16, u16)) -> Self {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let terminal = || Stdio::from(pty.slave.try_clone().unwrap());
        command.stdin(Stdio::null()).stdout(terminal()).stderr(terminal()).env("TERM", "xterm");
        let child = Killed(command.spawn().unwrap());
        drop(command);
        let master: OwnedFd = pty.master;
        Self { _child: child, master: master.into(), bytes: Vec::new() }
    }

    /// Reads until `end` returns the length of the wanted text, or the program has ended. Returns the text of that
    /// length, or all of it. The rest stays for the next call.
    fn until(&mut self, end: impl Fn(&str) -> Option<usize>) -> String {
        let started = Instant::now();
        let mut master = self.master.try_clone().unwrap();
        let (pieces, piece) = channel();
        // A read can last for ever, so another thread reads, and the test has a time limit.
        std::thread::scope(|scope| {
            let (want, wanted) = channel::<()>();
            scope.spawn(move || {
                let mut buffer = [0; 4096];
                while wanted.recv().is_ok() {
                    let length = master.read(&mut buffer).unwrap_or(0);
                    if pieces.send(buffer[..length].to_vec()).is_err() || length == 0 {
                        return;
                    }
                }
            });
            loop {
                let text = whole_characters(&self.bytes);
                if let Some(length) = end(text) {
                    let rest = self.bytes.split_off(length);
                    return text_of(std::mem::replace(&mut self.bytes, rest));
                }
                if want.send(()).is_err() {
                    break;
                }
                match piece.recv_timeout(limit().saturating_sub(started.elapsed())) {
                    Ok(bytes) => self.bytes.extend(bytes),
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        let _ = self._child.0.kill();
                        panic!("not seen: {:?}", text_of(std::mem::take(&mut self.bytes)));
                    }
                }
            }
            text_of(std::mem::take(&mut self.bytes))
        })
    }

    /// Returns the next frame of a watch.
    fn frame(&mut self) -> String {
        let frame = self.until(|text| Some(text.find(FRAME_ENDS)? + FRAME_ENDS.len()));
        assert!(frame.ends_with(FRAME_ENDS), "the watch ended: {frame:?}");
        frame
    }

    fn all(mut self) -> String {
        self.until(|_| None)
    }
}

/// The last escape sequence of a frame.
const FRAME_ENDS: &str = "\x1b[J";

/// Returns the text without an incomplete last character.
fn whole_characters(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap(),
    }
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Returns whether there are pseudo-terminals, and prints a note if not.
fn terminals() -> bool {
    let made = openpty(None, None);
    if let Err(error) = &made {
        support::skipped(format!("no pseudo-terminals: {error}"));
    }
    made.is_ok()
}

fn colored(text: &str) -> bool {
    text.contains("\x1b[3") || text.contains("\x1b[38")
}

#[test]
fn output_on_a_terminal_fits_its_width_and_has_colours() {
    if !terminals() {
        return;
    }
    let subject =
        Subject::new(|stage| stage.ready(&[thread(|| prctl(libc::PR_SET_NO_NEW_PRIVS, 1))]));
    let command = || psx(&["audit", &subject.pid.to_string()]);
    for columns in [70, 120] {
        let text = Screen::new(command(), (columns, 50)).all();
        assert!(colored(&text), "{text:?}");
        let rule = text.lines().find(|line| line.starts_with('─')).unwrap().trim_end();
        assert!(rule.chars().count() <= columns.into(), "{rule}");
    }
    let narrow = Screen::new(command(), (70, 50)).all();
    let wide = Screen::new(command(), (120, 50)).all();
    assert!(narrow.lines().count() > wide.lines().count(), "{narrow}\n{wide}");
    let mut without = command();
    without.env("NO_COLOR", "1");
    assert!(!colored(&Screen::new(without, (120, 50)).all()));
    let piped = finish(command());
    assert!(!piped.stdout.contains('\x1b'), "{:?}", piped.stdout);
}

#[test]
fn a_watch_redraws_in_place_and_marks_what_changed() {
    if !terminals() {
        return;
    }
    let mut subject = Subject::new(|stage| {
        thread(|| {});
        stage.ready(&[]);
        stage.wait();
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
        stage.ready(&[]);
    });
    let watch = psx(&["audit", "--watch", "0.02", &subject.pid.to_string()]);
    let mut screen = Screen::new(watch, (120, 40));
    for _ in 0..3 {
        let frame = screen.frame();
        assert!(frame.starts_with("\x1b[H"), "{frame:?}");
        assert!(!frame.contains("* "), "{frame:?}");
        assert_eq!(frame.matches(" threads  user, group").count(), 1, "{frame:?}");
    }
    subject.proceed();
    // Older frames may come first.
    let marked = std::iter::from_fn(|| Some(screen.frame())).find(|frame| frame.contains("* "));
    let frame = marked.unwrap();
    assert!(frame.contains("no_new_privs yes") && frame.contains("diverges"), "{frame:?}");
    // A frame has no more lines than fit, because the terminal would scroll.
    let low = psx(&["audit", "--watch", "0.02", "--times", "2", &subject.pid.to_string()]);
    let text = Screen::new(low, (120, 6)).all();
    for frame in text.split("\x1b[H").skip(1) {
        assert!(frame.lines().count() <= 6, "{frame:?}");
        assert!(frame.contains("more lines"), "{frame:?}");
    }
}

#[test]
fn a_watch_ends_when_its_process_has() {
    if !terminals() {
        return;
    }
    let subject = Subject::new(|stage| stage.ready(&[]));
    let watch = psx(&["audit", "--watch", "0.02", &subject.pid.to_string()]);
    let mut screen = Screen::new(watch, (120, 40));
    screen.frame();
    drop(subject);
    assert!(screen.all().contains("there is no such process"));
}

#[test]
fn processes_in_a_pid_namespace_show_both_numbers() {
    if !is_root("a PID namespace") {
        return;
    }
    let mut outer = Command::new("unshare");
    outer.args(["--pid", "--fork", "--kill-child", "sleep", "1000"]).process_group(0);
    let outer = Killed(outer.spawn().unwrap());
    let children = format!("/proc/{0}/task/{0}/children", outer.0.id());
    let pid = loop {
        let text = std::fs::read_to_string(&children).unwrap();
        let pid = text.split_whitespace().next().map(str::to_owned);
        let name = pid.as_ref().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")));
        if let (Some(pid), Some(Ok("sleep\n"))) = (pid, name.as_ref().map(|n| n.as_deref())) {
            break pid;
        }
        std::thread::yield_now();
    };
    let finished = finish(psx(&["audit", &pid]));
    assert!(finished.stdout.contains("pid inside: 1"), "{}", finished.stdout);
    let report: Value =
        serde_json::from_str(&finish(psx(&["audit", "--json", &pid])).stdout).unwrap();
    let numbers = &report["processes"][0]["pids_in_namespaces"];
    assert_eq!(numbers, &serde_json::json!([pid.parse::<i32>().unwrap(), 1]));
    // The namespace of its children is its own. That of the process outside is not.
    let outside = outer.0.id().to_string();
    for (pid, expected, status) in [
        (&pid, "namespaces=pid", 0),
        (&pid, "namespaces<=pid+mnt", 0),
        (&pid, "namespaces=pid+pid_for_children", 0),
        (&pid, "namespaces=none", 1),
        (&pid, "namespaces=mnt", 1),
        (&outside, "namespaces=none", 1),
        (&outside, "namespaces=pid_for_children", 0),
    ] {
        let finished = finish(psx(&["audit", "--expect", expected, pid]));
        assert_eq!(finished.status.code(), Some(status), "{expected}: {}", finished.stdout);
    }
}

#[test]
fn processes_hidden_by_hidepid_are_reported() {
    if !is_root("a proc of its own") {
        return;
    }
    let mut possible = Command::new("unshare");
    possible.args(["--mount", "mount", "-t", "proc", "proc", "/proc"]);
    let possible = finish(possible);
    if !possible.status.success() {
        support::skipped(format!("a proc of its own: {}", possible.stderr.trim()));
        return;
    }
    let subject = Subject::new(|stage| stage.ready(&[]));
    let program = readable_copy();
    for (hidepid, said) in [("1", "it cannot be read"), ("2", "/proc does not show it (hidepid")] {
        let script = format!(
            "mount -t proc -o hidepid={hidepid} proc /proc && exec setpriv --reuid {NOBODY} --regid \
             {NOBODY} --clear-groups --inh-caps=-all \"$@\""
        );
        let run = |args: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &script, "sh"]).arg(&program).args(args);
            finish(command)
        };
        let finished = run(&["audit", &subject.pid.to_string()]);
        assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains(said), "{hidepid}: {}", finished.stderr);
        // If no process was named, unreadable processes are left out, and counted if /proc lists them. Nothing is known
        // about them, so the exit status is 2.
        let all = run(&["audit", "--all", "--json"]);
        let report: Value =
            serde_json::from_str(&all.stdout).unwrap_or_else(|e| panic!("{e}: {}", all.stderr));
        let unreadable = report["unreadable"].as_u64().unwrap();
        assert_eq!(unreadable > 0, hidepid == "1", "{unreadable}");
        assert_eq!(all.status.code(), Some(2), "{}", all.stdout);
        assert!(all.stderr.contains("/proc may hide processes"), "{}", all.stderr);
        assert_eq!(report["hidden"], true, "{hidepid}");
        let text = run(&["audit", "--all"]).stdout;
        assert!(text.contains("/proc may hide processes"), "{text}");
        if hidepid == "2" {
            continue;
        }
        // Another process of that user is read, and is as expected. It is not known whether the others are.
        let own = Subject::new(|stage| {
            plain(libc::SYS_setgroups, [0; 5]);
            plain(libc::SYS_setresgid, [NOBODY as usize; 5]);
            become_user(NOBODY as usize);
            name(b"seen");
            // Otherwise /proc shows it as root's.
            prctl(libc::PR_SET_DUMPABLE, 1);
            stage.ready(&[]);
        });
        let policy = std::env::temp_dir().join(format!("psx-hidepid-{}.toml", own.pid));
        let rule = "[[rule]]\nrequired = true\nmatch.name = '^seen$'\nexpect.caps = 'none'\n";
        std::fs::write(&policy, rule).unwrap();
        let unit = std::env::temp_dir().join(format!("psx-hidepid-{}.service", own.pid));
        std::fs::write(&unit, "[Service]\nExecStart=/bin/true\nUser=nobody\n").unwrap();
        let (policy, unit) = (policy.to_str().unwrap(), unit.to_str().unwrap());
        for args in [
            &["--all"][..],
            &["--all", "--json"],
            &["--all", "--watch", "0.01", "--times", "1"],
            &["--name", "^seen$", "--expect", "caps=none"],
            &["--user", "nobody"],
            &["--policy", policy],
            &["--all", "--unit", unit],
        ] {
            for quiet in [&["--quiet"][..], &[]] {
                if args.contains(&"--json") || args.contains(&"--watch") && !quiet.is_empty() {
                    continue;
                }
                let finished = run(&[&["audit"], args, quiet].concat());
                let count = finished.stderr.split_whitespace().nth(1).map(str::parse::<u64>);
                assert_eq!(finished.status.code(), Some(2), "{args:?}: {}", finished.stdout);
                assert!(matches!(count, Some(Ok(1..))), "{args:?}: {}", finished.stderr);
                assert!(finished.stderr.contains("could not be read"), "{}", finished.stderr);
            }
        }
        // What was seen goes first.
        let finished = run(&["audit", "--name", "^seen$", "-q", "--expect", "uid=root"]);
        assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
        std::fs::remove_file(policy).unwrap();
        std::fs::remove_file(unit).unwrap();
    }
}

/// What one look has found is not lost if the last look finds nothing.
#[test]
fn a_watch_returns_the_worst_conclusion() {
    if !is_root("becoming another user") {
        return;
    }
    let mut subject = Subject::new(|stage| {
        stage.ready(&[]);
        stage.wait();
        become_user(NOBODY as usize);
        stage.ready(&[]);
    });
    let pid = subject.pid.to_string();
    let mut watch = psx(&["audit", "--json", "--watch", "0.01", "--times", "200"]);
    watch.args(["--expect", "euid=nobody", &pid]).stdout(Stdio::piped());
    let mut child = support::Killed(watch.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("\"as_expected\":false"), "{first}");
    subject.proceed();
    let last = lines.map(Result::unwrap).last().unwrap();
    assert!(last.contains("\"as_expected\":true"), "{last}");
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
}

/// A process in a unit's control group that has kept groups, or ambient capabilities.
#[test]
fn a_unit_finds_kept_groups_and_ambient_capabilities() {
    if !is_root("becoming another user") {
        return;
    }
    let unit = std::env::temp_dir().join(format!("psx-kept-{}.service", std::process::id()));
    let lines = format!("[Service]\nExecStart=/bin/true\nUser={NOBODY}\nGroup={NOBODY}\n");
    std::fs::write(&unit, lines).unwrap();
    type Case = (&'static str, fn(), i32, &'static str);
    let cases: [Case; 3] = [
        ("nothing", || plain(libc::SYS_setgroups, [0; 5]), 0, ""),
        (
            "groups",
            || {
                let groups = [0_u32, 42];
                plain(libc::SYS_setgroups, [2, groups.as_ptr() as usize, 0, 0, 0]);
            },
            1,
            "User= (groups<=65534)",
        ),
        (
            "ambient capabilities",
            || {
                plain(libc::SYS_setgroups, [0; 5]);
                prctl(libc::PR_SET_SECUREBITS, 0x10 | 0x4);
            },
            1,
            "User= (ambient<=none)",
        ),
    ];
    for (what, keep, status, said) in cases {
        let ambient = what.starts_with("ambient");
        let subject = Subject::new(|stage| {
            plain(libc::SYS_setresgid, [NOBODY as usize; 5]);
            keep();
            become_user(NOBODY as usize);
            if ambient {
                let header = [0x2008_0522_u32, 0];
                let sets = [1 << 21, 1 << 21, 1 << 21, 0, 0, 0_u32];
                plain(
                    libc::SYS_capset,
                    [header.as_ptr() as usize, sets.as_ptr() as usize, 0, 0, 0],
                );
                let (option, raise) = (libc::PR_CAP_AMBIENT as usize, 2);
                plain(libc::SYS_prctl, [option, raise, 21, 0, 0]);
            }
            stage.ready(&[]);
        });
        let finished = audit(&["--unit", unit.to_str().unwrap()], subject.pid);
        assert_eq!(finished.status.code(), Some(status), "{what}: {}", finished.stdout);
        assert!(finished.stdout.contains(said), "{what}: {}", finished.stdout);
    }
    std::fs::remove_file(unit).unwrap();
}

/// A user with a control group of its own makes one with the name of a unit.
#[test]
fn a_control_group_of_a_user_is_no_unit() {
    if !is_root("control groups") {
        return;
    }
    let id = std::process::id();
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(std::path::Path::new);
    let Some(mount) = mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists()) else {
        return support::skipped("no unified hierarchy of control groups is mounted");
    };
    let place = mount.join(format!("psxtest{id}.slice"));
    let (name, inner) =
        (format!("psxtest{id}.service"), place.join(format!("psxtest{id}.service")));
    if let Err(error) = std::fs::create_dir(&place).and_then(|()| std::fs::create_dir(&inner)) {
        let _ = std::fs::remove_dir(&place);
        support::skipped(format!("{}: {error}", place.display()));
        return;
    }
    let subject = Subject::new(|stage| stage.ready(&[]));
    let moved = std::fs::write(inner.join("cgroup.procs"), subject.pid.to_string());
    let scratch = |end: &str| std::env::temp_dir().join(format!("psxtest{id}.{end}"));
    let (unit, policy) = (scratch("service"), scratch("toml"));
    std::fs::write(&unit, "[Service]\nExecStart=/bin/true\nUser=root\n").unwrap();
    std::fs::write(&policy, format!("[[rule]]\nrequired = true\nmatch.unit = '{name}'\n")).unwrap();
    let status = |option: &str, file: &std::path::Path| {
        let finished = finish(psx(&["audit", option, file.to_str().unwrap()]));
        (finished.status.code(), finished.stderr + &finished.stdout)
    };
    let look = || (status("--unit", &unit), status("--policy", &policy));
    let of_root = look();
    std::os::unix::fs::chown(&place, Some(NOBODY), None).unwrap();
    let of_user = look();
    drop(subject);
    while std::fs::remove_dir(&inner).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    {
    }
    std::fs::remove_dir(&place).unwrap();
    for file in [unit, policy] {
        std::fs::remove_file(file).unwrap();
    }
    moved.unwrap();
    assert!(of_root.0.0 != Some(2) && of_root.1.0 == Some(0), "{of_root:?}");
    assert_eq!((of_user.0.0, of_user.1.0), (Some(2), Some(1)), "{of_user:?}");
    assert!(of_user.0.1.contains("no process of the unit"), "{of_user:?}");
}

/// The unit and the container of a process are unknown if its control group cannot be read.
#[test]
fn a_control_group_that_cannot_be_read_is_not_the_absence_of_a_unit() {
    if !is_root("a mount over a file of /proc") {
        return;
    }
    let subject = Subject::new(|stage| {
        become_user(NOBODY as usize);
        name(b"placeless");
        stage.ready(&[]);
    });
    let scratch = |end: &str| std::env::temp_dir().join(format!("psx-{}-{end}", subject.pid));
    let (secret, policy, unit) = (scratch("secret"), scratch("policy"), scratch("x.service"));
    std::fs::write(&secret, "").unwrap();
    let rule = "match = { name = '^placeless$', unit = 'x.service' }\nexpect.nnp = true\n";
    std::fs::write(&policy, format!("[[rule]]\n{rule}")).unwrap();
    std::fs::write(&unit, "[Service]\nExecStart=/bin/true\nUser=nobody\n").unwrap();
    let pid = subject.pid;
    let script = format!(
        "chmod 000 {secret} && mount --bind {secret} /proc/{pid}/task/{pid}/cgroup && exec setpriv --reuid 7 \
         --clear-groups --inh-caps=-all --bounding-set=-all \"$@\"",
        secret = secret.display()
    );
    let program = readable_copy();
    let run = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(&program).args(args);
        finish(command)
    };
    let plain = run(&["audit", &pid.to_string()]);
    if plain.status.code() != Some(0) {
        support::skipped(format!("no mounts over files of /proc: {}", plain.stderr));
    } else {
        let finished = run(&["audit", "--policy", policy.to_str().unwrap()]);
        assert_eq!(finished.status.code(), Some(2), "{}", finished.stdout);
        assert!(finished.stderr.contains("1 process could not be read"), "{}", finished.stderr);
        let finished = run(&["audit", "--unit", unit.to_str().unwrap()]);
        assert_eq!(finished.status.code(), Some(2), "{}", finished.stdout);
    }
    for file in [secret, policy, unit] {
        std::fs::remove_file(file).unwrap();
    }
}

/// In a user namespace, 65534 stands for every user that has no number there.
#[test]
fn an_id_that_is_not_mapped_meets_no_expectation() {
    if !is_root("a process of root") {
        return;
    }
    let mut possible = Command::new("unshare");
    possible.args(["--user", "true"]);
    let possible = finish(possible);
    if !possible.status.success() {
        support::skipped(format!("user namespaces: {}", possible.stderr.trim()));
        return;
    }
    let root = Subject::new(|stage| stage.ready(&[]));
    let bare = Subject::new(|stage| {
        no_capabilities();
        name(b"unmapped-bare");
        stage.ready(&[]);
    });
    let dropped = Subject::new(|stage| {
        plain(libc::SYS_setgroups, [0; 5]);
        plain(libc::SYS_setresgid, [65534, 65534, 65534, 0, 0]);
        become_user(NOBODY as usize);
        stage.ready(&[]);
    });
    let program = readable_copy();
    let run = |args: &[&str], pid: i32| {
        let mut command = Command::new("unshare");
        command.arg("--user").arg(&program).arg("audit").args(args).arg(pid.to_string());
        finish(command)
    };
    for (subject, expected, status) in [
        (&root, "uid=nobody", 2),
        (&root, "euid=65534", 2),
        (&root, "gid=nogroup", 2),
        (&root, "uid=0", 2),
        // The capabilities are seen.
        (&root, "caps=none", 1),
        (&root, "verdict<=unprivileged", 1),
        (&bare, "uid=nobody,gid=nogroup,caps=none", 2),
        (&bare, "caps=none", 0),
        (&bare, "verdict<=unprivileged", 2),
        (&bare, "verdict=privileged", 2),
        // It is nobody, but that cannot be known there.
        (&dropped, "uid=nobody", 2),
        (&dropped, "verdict<=unprivileged", 2),
        (&dropped, "groups=none,caps=none", 0),
    ] {
        let finished = run(&["--quiet", "--expect", expected], subject.pid);
        assert_eq!(finished.status.code(), Some(status), "{expected}: {}", finished.stderr);
        let said = finished.stderr.contains("could not be checked: psx cannot see the state");
        assert_eq!(said, status == 2, "{expected}: {}", finished.stderr);
    }
    let args = ["--json", "--expect", "uid=nobody"];
    let report: Value = serde_json::from_str(&run(&args, bare.pid).stdout).unwrap();
    let process = &report["processes"][0];
    let unseen = process["unseen"].as_array().unwrap();
    assert!(unseen.contains(&"uid".into()) && unseen.contains(&"gid".into()), "{report}");
    assert_eq!((&process["verdict"], &process["dumpable"]), (&"privileged".into(), &Value::Null));
    assert_eq!(
        (&report["as_expected"], &process["flags"][0]),
        (&false.into(), &"unchecked".into())
    );
    assert_eq!(process["failures"][0]["checked"], false, "{report}");
    assert_eq!(process["groups"][0]["state"]["uid"]["real"]["name"], Value::Null, "{report}");
    let text = run(&[], bare.pid).stdout;
    assert!(text.contains("unmapped (65534)"), "{text}");
    assert!(text.contains("not seen: uid, gid"), "{text}");
    // The choice by user cannot be made either: 65534 stands for nobody, and for every other user.
    let policy = std::env::temp_dir().join(format!("psx-unmapped-{}.toml", bare.pid));
    let rule = "match = { name = '^unmapped-bare$', user = 'nobody' }\nexpect.caps = 'none'\n";
    std::fs::write(&policy, format!("[[rule]]\n{rule}")).unwrap();
    let policy = policy.to_str().unwrap();
    for (args, unread) in [
        (&["--user", "root"][..], "could not be read"),
        (&["--user", "nobody"], "no readable process matches --user 65534; "),
        (&["--name", "^unmapped-bare$", "--user", "nobody"], "; 1 could not be read"),
        (&["--policy", policy], "1 process could not be read and checked"),
    ] {
        let mut command = Command::new("unshare");
        command.arg("--user").arg(&program).args(["audit", "--quiet"]).args(args);
        let finished = finish(command);
        assert_eq!(finished.status.code(), Some(2), "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(unread), "{args:?}: {}", finished.stderr);
    }
    std::fs::remove_file(policy).unwrap();
    std::fs::remove_file(program).unwrap();
}

/// The namespaces of psx are found under a /proc that numbers psx otherwise. Namespaces that cannot be seen are neither the
/// same nor others.
#[test]
fn namespaces_are_compared_from_any_pid_namespace() {
    if !is_root("namespaces") {
        return;
    }
    let other = Subject::new(|stage| {
        plain(libc::SYS_unshare, [libc::CLONE_NEWUTS as usize, 0, 0, 0, 0]);
        stage.ready(&[]);
    });
    let same = Subject::new(|stage| stage.ready(&[]));
    for (subject, expected, status) in [
        (&other, "namespaces=none", 1),
        (&other, "namespaces=uts", 0),
        // The PID namespace of psx is its own, and that of the process is not.
        (&other, "namespaces>=pid", 1),
        (&same, "namespaces>=uts", 1),
    ] {
        let mut command = Command::new("unshare");
        command.args([
            "--pid",
            "--fork",
            env!("CARGO_BIN_EXE_psx"),
            "audit",
            "--quiet",
            "--expect",
        ]);
        command.args([expected, &subject.pid.to_string()]);
        let finished = finish(command);
        assert_eq!(finished.status.code(), Some(status), "{expected}: {}", finished.stderr);
    }
    let program = readable_copy();
    for expected in ["namespaces=none", "namespaces>=uts", "root=/", "consistent=1"] {
        let subject = Subject::new(|stage| stage.ready(&[thread(|| {})]));
        let mut command = Command::new(&program);
        command.args(["audit", "--quiet", "--expect", expected, &subject.pid.to_string()]);
        let finished = finish({
            command.uid(NOBODY).gid(NOBODY);
            command
        });
        assert_eq!(finished.status.code(), Some(2), "{expected}: {}", finished.stderr);
    }
    std::fs::remove_file(program).unwrap();
}

#[test]
fn ten_thousand_threads() {
    let subject = Subject::new(|stage| {
        for _ in 0..9_998 {
            thread(|| {});
        }
        stage.ready(&[thread(|| {
            name(b"the one");
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
        })]);
    });
    let finished = finish(psx(&["audit", &subject.pid.to_string()]));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let line = format!("other than the leader in nnp: {} (the one)\n", subject.tids[0]);
    assert!(finished.stdout.contains(&line), "{}", finished.stdout);
    assert!(
        finished.stdout.contains("1 process, 10000 threads: 1 diverges"),
        "{}",
        finished.stdout
    );
}

/// Runs audits while threads and processes start and end. Each audit sees all threads and processes that stay.
#[test]
fn ended_threads_and_processes_are_left_out() {
    let subject = Subject::new(|stage| {
        for _ in 0..20 {
            thread(|| {});
        }
        for _ in 0..3 {
            std::thread::spawn(|| {
                loop {
                    let _ = std::thread::spawn(|| {}).join();
                }
            });
        }
        std::thread::spawn(|| {
            loop {
                let _ = Command::new("/bin/true").status();
            }
        });
        stage.ready(&[]);
    });
    let mut complete = 0;
    for _ in 0..30 {
        let finished = finish(psx(&["audit", "--json", &subject.pid.to_string()]));
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        let process = &report["processes"][0];
        assert_eq!(process["differs"], serde_json::json!([]), "{report}");
        assert!(process["threads"].as_u64().unwrap() >= 25, "{report}");
        // On a loaded machine the threads can come and go faster than psx reads them.
        if process["complete"] == true {
            assert_eq!(finished.status.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
            complete += 1;
        } else {
            assert_eq!(finished.status.code(), Some(2), "{}", finished.stdout);
        }
        let all = finish(psx(&["audit", "--name", "^(subject|true)$", "--quiet"]));
        let slow = all.stderr.contains("come and go faster");
        assert!(slow || all.status.code() != Some(2), "{}", all.stderr);
    }
    println!("{complete} of 30 looks were complete");
    assert_ne!(complete, 0);
}

/// Makes another thread that does the same, and ends.
fn relay() {
    std::thread::Builder::new().stack_size(64 << 10).spawn(relay).unwrap();
}

/// The leader drops root, and there is always a thread that keeps it. No such thread lives long.
#[test]
fn root_that_threads_hand_on_is_never_missed() {
    if !is_root("threads that keep root") {
        return;
    }
    let subject = Subject::new(|stage| {
        relay();
        become_user(NOBODY as usize);
        stage.ready(&[]);
    });
    let pid = subject.pid.to_string();
    let mut seen = 0;
    for _ in 0..60 {
        let args = ["audit", "--quiet", "--expect", "uid=nobody,caps=none", &pid];
        let finished = finish(psx(&args));
        match finished.status.code() {
            Some(1) => seen += 1,
            Some(2) => {
                assert!(finished.stderr.contains("come and go faster"), "{}", finished.stderr)
            }
            other => panic!("exit status {other:?}: a thread that keeps root was missed"),
        }
        // The sets of root are shown, or the command says that it has not read everything.
        let caps = finish(psx(&["caps", &pid]));
        assert!(
            caps.stdout.contains("  permitted    all") || caps.status.code() == Some(1),
            "{}",
            caps.stdout
        );
    }
    println!("the thread was seen in {seen} of 60 audits");
}

/// Returns a python3 that has jsonschema.
fn validator() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import jsonschema"]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

#[test]
fn the_json_matches_its_schema() {
    let Some(python) = validator() else {
        support::skipped("python3-jsonschema is not installed");
        return;
    };
    let subject = Subject::new(|stage| {
        let tids = [thread(|| {
            name(b"\xff\x1b(");
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
        })];
        stage.ready(&tids);
    });
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/audit.schema.json");
    let script = "import json, sys, jsonschema\n\
                  schema = json.load(open(sys.argv[1]))\n\
                  jsonschema.Draft202012Validator.check_schema(schema)\n\
                  jsonschema.Draft202012Validator(schema).validate(json.load(sys.stdin))";
    let mut wrong: Value = serde_json::json!({ "schema": 1, "consistent": true });
    for args in [
        &["--expect", "nnp=1,caps=none", "--ignore", "label"][..],
        &["--all", "--ignore", "sched"],
        &["--all", "--watch", "0.01", "--times", "1"],
    ] {
        let mut command = psx(&["audit", "--json"]);
        command.args(args);
        if args[0] == "--expect" {
            command.arg(subject.pid.to_string());
        }
        let text = finish(command).stdout;
        wrong = serde_json::from_str(&text).unwrap();
        assert!(valid(python, script, schema, &text), "{args:?}: {text}");
    }
    wrong["processes"][0]["groups"][0]["state"]["no_new_privs"] = "yes".into();
    assert!(!valid(python, script, schema, &wrong.to_string()), "the check checks nothing");
}

fn valid(python: &str, script: &str, schema: &str, text: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", script, schema]).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait().unwrap().success()
}
