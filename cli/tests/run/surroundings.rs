//! Scheduling, namespaces, keyring and parent-death signal of the started program.

use std::io::{BufRead, BufReader, Write};

use super::*;

const KEEP: [&str; 2] = ["--stay-root", "--keep-groups"];

fn sleeper(options: &[&str]) -> Killed {
    started(psx(&[&["run"], &KEEP[..], options, &["--", "sleep", "600"]].concat()), is_sleep).0
}

#[test]
fn the_kernel_has_the_requested_scheduling() {
    if !is_root("psx run") {
        return;
    }
    let batch = sleeper(&[
        "--scheduling",
        "batch",
        "--io-priority",
        "best-effort:5",
        "--timer-slack",
        "70us",
    ]);
    let real_time = sleeper(&["--scheduling", "rr:7", "--io-priority", "idle"]);
    // A policy without a priority replaces the priority of a unit too.
    let path = std::env::temp_dir().join(format!("psx-scheduling-{}.service", std::process::id()));
    std::fs::write(&path, "[Service]\nCPUSchedulingPolicy=rr\nCPUSchedulingPriority=9\n").unwrap();
    let of_unit = sleeper(&["--from-unit", path.to_str().unwrap(), "--scheduling", "batch"]);
    std::fs::remove_file(path).unwrap();
    // SAFETY: it takes a number.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, of_unit.0.id()) };
    assert_eq!(policy, libc::c_long::from(libc::SCHED_BATCH));
    const IOPRIO_WHO_PROCESS: i32 = 1;
    const BEST_EFFORT: i64 = 2 << 13;
    const IDLE: i64 = 3 << 13;
    for (child, policy, priority, io_priority) in
        [(&batch, libc::SCHED_BATCH, 0, BEST_EFFORT | 5), (&real_time, libc::SCHED_RR, 7, IDLE)]
    {
        let pid = child.0.id() as i32;
        // SAFETY: it takes a number.
        let found = unsafe { libc::syscall(libc::SYS_sched_getscheduler, pid) };
        let mut found_priority = -1i32;
        // SAFETY: the kernel writes `struct sched_param`, which has one field.
        let done = unsafe { libc::syscall(libc::SYS_sched_getparam, pid, &raw mut found_priority) };
        assert_eq!(done, 0);
        // SAFETY: it takes numbers.
        let io = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid) };
        assert_eq!((found, found_priority), (policy.into(), priority));
        // The lower 13 bits of `idle` have no meaning.
        assert_eq!(if io_priority == IDLE { io & !0x1fff } else { io }, io_priority);
    }
    let slack = std::fs::read_to_string(format!("/proc/{}/timerslack_ns", batch.0.id())).unwrap();
    assert_eq!(slack.trim(), "70000");
}

#[test]
fn the_program_joins_a_namespace() {
    if !is_root("psx run") || !installed("unshare") {
        return;
    }
    let namespace =
        |pid: u32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let mut other = Command::new("unshare");
    other.args(["--uts", "--net", "sleep", "600"]);
    let (other, _) = started(other, is_sleep);
    let uts = format!("uts=/proc/{}/ns/uts", other.0.id());
    let joined = sleeper(&["--join-namespace", &uts, "--new-namespace", "ipc"]);
    let (there, own, joined) = (other.0.id(), std::process::id(), joined.0.id());
    assert_eq!(namespace(joined, "uts"), namespace(there, "uts"));
    assert_ne!(namespace(joined, "uts"), namespace(own, "uts"));
    assert_eq!(namespace(joined, "net"), namespace(own, "net"));
    assert_ne!(namespace(joined, "ipc"), namespace(own, "ipc"));
    let missing =
        run(&[&KEEP[..], &["--join-namespace", "uts=/proc/self/ns/none", "--", "true"]].concat());
    assert_eq!(missing.status.code(), Some(125));
    assert!(missing.stderr.contains("/proc/self/ns/none"), "{}", missing.stderr);
}

/// The program prints the keys that it possesses, which is what proc_keys(5) shows to it.
#[test]
fn the_program_has_a_session_keyring_of_its_own() {
    if !is_root("psx run") {
        return;
    }
    if !Path::new("/proc/keys").exists() {
        return skipped("the kernel has no keyrings");
    }
    let keyrings = |options: &[&str]| {
        let found = run(&[&KEEP[..], options, &["--", "cat", "/proc/keys"]].concat());
        assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
        let serials = found.stdout.lines().filter(|line| line.contains(" keyring "));
        serials.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect::<Vec<_>>()
    };
    let before = keyrings(&[]);
    let with_own = keyrings(&["--new-session-keyring"]);
    assert!(with_own.iter().any(|serial| !before.contains(serial)), "{before:?} {with_own:?}");
}

/// A process that is no child of the test. It is killed at the end, also if the test fails.
struct Orphan(i32);

impl Drop for Orphan {
    fn drop(&mut self) {
        // SAFETY: it takes numbers.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

#[test]
fn the_program_gets_a_signal_when_its_parent_ends() {
    if !is_root("psx run") {
        return;
    }
    let script = r#"psx=$1; shift; "$psx" run "$@" -- sleep 600 & echo $!; read -r end"#;
    // Without the option the program lives on, so the first case shows that the second can fail.
    for (option, ends) in [(&[][..], false), (&["--pdeathsig", "TERM"][..], true)] {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_psx")]).args(KEEP).args(option);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = Killed(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(shell.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid: u32 = line.trim().parse().unwrap();
        let _program = Orphan(pid as i32);
        let wait_for = |done: &dyn Fn() -> bool| {
            let deadline = Instant::now() + limit();
            while !done() {
                assert!(Instant::now() < deadline, "{option:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait_for(&|| is_sleep(pid));
        let mut input = shell.0.stdin.take().unwrap();
        input.write_all(b"end\n").unwrap();
        shell.0.wait().unwrap();
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").map_or('X', |(_, rest)| rest.chars().next().unwrap_or('X'))
        };
        if ends {
            wait_for(&|| matches!(state(), 'X' | 'Z'));
        } else {
            assert!(is_sleep(pid) && state() != 'Z');
        }
    }
}
