//! `psx run`: the state of the program that it starts, as /proc shows it to this process, compared with setpriv(1) and
//! capsh(1).
#![allow(missing_docs, unsafe_code)]

#[path = "run/checked.rs"]
mod checked;
#[path = "run/peers.rs"]
mod peers;
#[path = "run/program.rs"]
mod program;
#[path = "run/restrictions.rs"]
mod restrictions;
mod support;
#[path = "run/surroundings.rs"]
mod surroundings;
#[path = "run/traced.rs"]
mod traced;
#[path = "run/values.rs"]
mod values;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Finished, Killed, finish, is_root, limit, psx, readable_copy, skipped};

fn run(arguments: &[&str]) -> Finished {
    let mut all = vec!["run"];
    all.extend(arguments);
    finish(psx(&all))
}

/// Returns the fields of /proc/PID/status.
fn fields(text: &str) -> BTreeMap<String, String> {
    let words = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), words(value)))
        .collect()
}

/// Starts a program that runs for a while, and inspects it as its parent.
fn started(
    mut command: Command,
    until: impl Fn(u32) -> bool,
) -> (Killed, BTreeMap<String, String>) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = Killed(command.spawn().unwrap());
    let pid = child.0.id();
    let deadline = Instant::now() + limit();
    while !until(pid) {
        assert!(Instant::now() < deadline, "the program did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    (child, fields(&status))
}

fn is_sleep(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
}

fn installed(program: &str) -> bool {
    let there = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !there {
        skipped(format!("{program} is not installed"));
    }
    there
}

#[test]
fn the_process_keeps_its_pid_and_has_the_requested_state() {
    if !is_root("psx run") {
        return;
    }
    let (child, fields) = started(
        psx(&[
            "run",
            "--user",
            "65534",
            "--group",
            "65534",
            "--groups",
            "4,27",
            "--ambient",
            "net_bind_service",
            "--bounding",
            "net_bind_service,cap_chown",
            "--no-new-privs",
            "--umask",
            "077",
            "--limit",
            "NOFILE=100:200",
            "--nice",
            "7",
            "--cpus",
            "0",
            "--chdir",
            "/tmp",
            "--securebits",
            "noroot,noroot_locked",
            "--seccomp",
            "@system-service",
            "--",
            "sleep",
            "600",
        ]),
        is_sleep,
    );
    let pid = child.0.id();
    assert_eq!(fields["Pid"], pid.to_string(), "no process between");
    for (name, value) in [
        ("Uid", "65534 65534 65534 65534"),
        ("Gid", "65534 65534 65534 65534"),
        ("Groups", "4 27"),
        ("CapInh", "0000000000000400"),
        ("CapPrm", "0000000000000400"),
        ("CapEff", "0000000000000400"),
        ("CapBnd", "0000000000000401"),
        ("CapAmb", "0000000000000400"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Umask", "0077"),
        ("Cpus_allowed_list", "0"),
        ("SigBlk", "0000000000000000"),
    ] {
        assert_eq!(fields[name], value, "{name}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().collect::<Vec<_>>()[3..5], ["100", "200"]);
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/tmp"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16),
        Some("7"),
        "nice value"
    );
    // The program has no open descriptors except those that this process passes on.
    let open = |pid: &str| {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        all.filter_map(|one| one.file_name().to_str()?.parse::<i32>().ok()).collect::<Vec<_>>()
    };
    let inherited = |fd: &i32| {
        // SAFETY: it takes numbers.
        *fd < 3 || unsafe { libc::fcntl(*fd, libc::F_GETFD) } == 0
    };
    let left: Vec<_> = open(&pid.to_string()).into_iter().filter(|fd| !inherited(fd)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn exit_statuses_are_those_of_env() {
    if !is_root("psx run") {
        return;
    }
    let place = std::env::temp_dir().join(format!("psx-run-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let file = place.join("data");
    std::fs::write(&file, "no program").unwrap();
    let broken = place.join("broken");
    std::fs::write(&broken, "#!/tmp\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (file, broken) = (file.to_str().unwrap(), broken.to_str().unwrap());
    let keep = ["--stay-root", "--keep-groups"];
    for (arguments, code, said) in [
        (vec!["--", "true"], 0, ""),
        (vec!["--", "sh", "-c", "exit 7"], 7, ""),
        (vec!["--", "/nonexistent/program"], 127, "there is no such program"),
        (vec!["--", "psx-no-such-program"], 127, "there is no such program"),
        (vec!["--", file], 126, "it cannot be executed"),
        (vec!["--", broken], 126, "Permission denied"),
        (vec!["--check", "--", broken], 126, "Permission denied"),
        (vec!["--check", "--", "sh", "-c", "exit 9"], 9, ""),
        (vec!["--check", "--", "sh", "-c", "kill -TERM $$"], 128 + 15, ""),
        // A real-time signal.
        (vec!["--check", "--", "sh", "-c", "kill -40 $$"], 128 + 40, ""),
        (vec!["--nice", "30", "--", "true"], 125, "--nice 30: it must be a number from -20 to 19"),
        (vec!["--no-such-option", "--", "true"], 125, "unexpected argument"),
        (vec![], 125, "COMMAND"),
        (vec!["--user", "psx-no-such-user", "--", "true"], 125, "cannot be used with"),
        (vec!["--seccomp", "~execve", "--", "true"], 125, "execve in the new process"),
        (vec!["--cpus", "4000", "--", "true"], 125, "none of the CPUs 4000 is online"),
    ] {
        let found = run(&[keep.as_slice(), &arguments].concat());
        assert_eq!(
            found.status.code(),
            Some(code),
            "{arguments:?}: {}{}",
            found.stdout,
            found.stderr
        );
        assert!(found.stderr.contains(said), "{arguments:?}: {}", found.stderr);
        assert!(said.is_empty() == found.stderr.is_empty(), "{arguments:?}: {}", found.stderr);
    }
    std::fs::remove_dir_all(place).unwrap();
    // psx reports all problems at once, each with its remedy.
    let found = run(&["--ambient", "60", "--", "true"]);
    assert_eq!(found.status.code(), Some(125));
    assert!(found.stderr.contains("the user id stays 0 (root)"), "{}", found.stderr);
    assert!(found.stderr.contains("no capability 60"), "{}", found.stderr);
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    if !is_root("psx run") {
        return;
    }
    let found = run(&[
        "--user",
        "65534",
        "--group",
        "65534",
        "--groups",
        "none",
        "--dry-run",
        "--",
        "/nonexistent",
    ]);
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    assert!(
        found.stdout.contains("setresuid 65534")
            && found.stdout.contains("then execve: the program has uid 65534"),
        "{}",
        found.stdout
    );
    assert!(found.stdout.contains("permitted none, effective none"), "{}", found.stdout);
}

/// Runs a copy of a program with a set-user-ID bit. The plan does not hold after execve(2), and the check finds it.
#[test]
fn a_program_with_privileges_of_its_own_is_found() {
    if !is_root("psx run") {
        return;
    }
    let place = std::env::temp_dir().join(format!("psx-setuid-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = place.join("cat");
    assert!(Command::new("cp").arg("/bin/cat").arg(&copy).status().unwrap().success());
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let program = copy.to_str().unwrap();
    let nobody = ["--user", "65534", "--group", "65534", "--groups", "none"];
    let plain = run(&[nobody.as_slice(), &["--", program, "/proc/self/status"]].concat());
    let uids = fields(&plain.stdout).remove("Uid").unwrap_or_default();
    if uids != "65534 0 0 0" {
        skipped(format!(
            "set-user-ID has no effect in {}: {uids}{}",
            place.display(),
            plain.stderr
        ));
    } else {
        let found =
            run(&[nobody.as_slice(), &["--check", "--", program, "/proc/self/status"]].concat());
        assert_eq!(found.status.code(), Some(125), "{}{}", found.stdout, found.stderr);
        assert!(found.stdout.is_empty(), "it ran: {}", found.stdout);
        assert!(
            found.stderr.contains("Uid: 65534 0 0 0; expected 65534 65534 65534 65534"),
            "{}",
            found.stderr
        );
        let bound =
            run(&[nobody.as_slice(), &["-n", "--check", "--", program, "/proc/self/status"]]
                .concat());
        assert_eq!(bound.status.code(), Some(0), "{}", bound.stderr);
        // The check finds capabilities of the file too.
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
        let set = finish(psx(&["caps", "file", "set", "cap_chown=ep", program]));
        if set.status.success() {
            let found = run(
                &[nobody.as_slice(), &["--check", "--", program, "/proc/self/status"]].concat()
            );
            assert_eq!(found.status.code(), Some(125), "{}", found.stderr);
            assert!(found.stderr.contains("CapPrm: cap_chown; expected none"), "{}", found.stderr);
        } else {
            skipped(format!("files cannot have capabilities here: {}", set.stderr));
        }
    }
    std::fs::remove_dir_all(place).unwrap();
}

/// Applies the restrictions that need no privilege, as an ordinary user.
#[test]
fn an_ordinary_user_may_restrict_itself() {
    if !is_root("becoming another user") {
        return;
    }
    let program = readable_copy();
    let mut command = psx(&["run", "-u", "65534", "-g", "65534", "--groups", "none", "--"]);
    command.arg(&program).args([
        "run",
        "--no-new-privs",
        "--seccomp",
        "~@mount",
        "--check",
        "--",
        "cat",
        "/proc/self/status",
    ]);
    let found = finish(command);
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    let seen = fields(&found.stdout);
    assert_eq!((seen["NoNewPrivs"].as_str(), seen["Seccomp"].as_str()), ("1", "2"));
    let mut command = psx(&["run", "-u", "65534", "-g", "65534", "--groups", "none", "--"]);
    command.arg(&program).args([
        "run",
        "--user",
        "0",
        "--ambient",
        "chown",
        "--nice",
        "-20",
        "--",
        "id",
    ]);
    let found = finish(command);
    assert_eq!(found.status.code(), Some(125), "{}", found.stdout);
    for said in ["cap_setuid", "cap_chown", "cap_sys_nice"] {
        assert!(found.stderr.contains(said), "{said}: {}", found.stderr);
    }
    std::fs::remove_file(program).unwrap();
}

/// Sends a signal to psx: it passes the signal on, and ends as the program does.
#[test]
fn with_check_signals_reach_the_program() {
    if !is_root("psx run") {
        return;
    }
    let mut command = psx(&["run", "--stay-root", "--keep-groups", "--check", "--", "sh", "-c"]);
    command
        .arg("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done")
        .stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut line = [0; 6];
    std::io::Read::read_exact(child.0.stdout.as_mut().unwrap(), &mut line).unwrap();
    // SAFETY: it is a child that has not been waited for.
    unsafe { libc::kill(child.0.id() as i32, libc::SIGTERM) };
    let deadline = Instant::now() + limit();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it did not end");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(42));
}

/// Returns the children of a process with one thread.
fn children(pid: u32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    text.unwrap_or_default().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A traced process stops for a signal, also for one that it ignores. Signals to the process group come all the time here,
/// SIGSTOP and SIGCONT to the child too.
#[test]
fn with_check_signals_do_not_keep_the_program_from_starting() {
    use std::os::unix::process::CommandExt as _;
    if !is_root("psx run") {
        return;
    }
    let send = |pid: i32, signal: i32| {
        // SAFETY: it takes numbers.
        unsafe { libc::kill(pid, signal) };
    };
    for round in 0..20 {
        let mut command = psx(&["run", "--stay-root", "--keep-groups", "--check", "--", "true"]);
        let mut child = Killed(command.process_group(0).spawn().unwrap());
        let group = -(child.0.id() as i32);
        let deadline = Instant::now() + limit();
        let status = loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                break status;
            }
            send(group, libc::SIGWINCH);
            if round % 2 == 1 {
                for pid in children(child.0.id()) {
                    send(pid, libc::SIGSTOP);
                    send(pid, libc::SIGCONT);
                }
            }
            assert!(Instant::now() < deadline, "round {round}: it did not end");
        };
        assert_eq!(status.code(), Some(0), "round {round}");
    }
}

/// The standard library gives SIGPIPE its default action in a program that it starts.
#[test]
fn an_ignored_sigpipe_stays_ignored() {
    if !is_root("psx run") {
        return;
    }
    for (trap, ignored) in [("trap '' PIPE", true), (":", false)] {
        for check in [&[][..], &["--check"]] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{trap}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_psx")]);
            command.args(["run", "--stay-root", "--keep-groups"]).args(check);
            command.args(["--", "cat", "/proc/self/status"]);
            let found = finish(command);
            let mask = u64::from_str_radix(&fields(&found.stdout)["SigIgn"], 16).unwrap();
            assert_eq!(mask & 1 << (libc::SIGPIPE - 1) != 0, ignored, "{trap} {check:?}");
        }
    }
}
