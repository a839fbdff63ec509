//! Standard output and standard error that take no text, and what a process inherits: the exit status stays right.

#![allow(missing_docs, unsafe_code)]

mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use support::{Finished, Killed, finish, psx, skipped};

/// No process has this number.
const NO_PROCESS: &str = "2147483647";

const DRY_RUN: [&str; 3] = ["run", "--dry-run", "--keep-groups"];

fn sleeper() -> (Killed, String) {
    let child = Killed(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap());
    let pid = child.0.id().to_string();
    (child, pid)
}

/// Returns one end of a connection whose other end is closed. A write to it fails as a write to a closed pipe does.
fn closed() -> Stdio {
    let (end, _) = UnixStream::pair().unwrap();
    OwnedFd::from(end).into()
}

fn full() -> Option<Stdio> {
    let opened = File::options().write(true).open("/dev/full").ok();
    if opened.is_none() {
        skipped("this system has no /dev/full");
    }
    opened.map(Stdio::from)
}

/// Runs psx with this standard output. Returns the exit status and standard error.
fn to(output: Stdio, words: &[&str]) -> (Option<i32>, String) {
    let mut command = psx(words);
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_that_ends_early_does_not_change_the_exit_status() {
    let (_child, pid) = sleeper();
    for words in [
        &["audit", &pid][..],
        &["audit", "--json", &pid],
        &["audit", "--watch", "0.01", &pid],
        &["audit", "--watch", "0.01", "--json", &pid],
        &["caps", &pid],
        &["caps", "explain"],
        &["caps", "decode", "ff"],
        &["completions", "bash"],
        &["demo", "--threads", "2"],
        &["doctor"],
        &["doctor", "--json"],
        &["man"],
        &["--help"],
        &["run", "--help"],
    ] {
        assert_eq!(to(closed(), words), (Some(0), String::new()), "{words:?}");
    }
    // Root has to say what becomes of its user.
    let stay = finish(psx(&[&DRY_RUN[..], &["--stay-root"]].concat()));
    assert_eq!(stay.status.code(), Some(0), "{}", stay.stderr);
    let (code, said) = to(closed(), &[&DRY_RUN[..], &["--stay-root"]].concat());
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn a_full_device_is_an_error() {
    let (_child, pid) = sleeper();
    for (words, code) in [
        (&["audit", &pid][..], 2),
        (&["audit", "--watch", "0.01", &pid], 2),
        (&["caps", &pid], 1),
        (&["caps", "explain"], 1),
        (&["completions", "bash"], 1),
        (&["demo", "--threads", "2"], 1),
        (&["doctor"], 1),
        (&["man"], 1),
        (&["run", "--dry-run", "--keep-groups", "--stay-root"], 125),
        (&["--help"], 1),
        (&["run", "--help"], 125),
    ] {
        let Some(full) = full() else { return };
        let (found, said) = to(full, words);
        assert_eq!(found, Some(code), "{words:?}: {said}");
        assert!(said.contains("writing to standard output"), "{words:?}: {said}");
    }
}

#[test]
fn messages_that_cannot_be_written_do_not_change_the_exit_status() {
    let wrong = ["run", "--keep-groups", "--stay-root"];
    for (words, code) in [
        (vec!["audit", NO_PROCESS], 2),
        (vec!["audit", "--no-such-option"], 2),
        (vec!["caps", NO_PROCESS], 1),
        (vec!["caps", "file", "get", "/proc/nonexistent"], 1),
        (vec!["caps", "file", "get", "/"], 1),
        ([&wrong[..], &["--", "/proc/nonexistent"]].concat(), 127),
        ([&wrong[..], &["--nice", "30", "--", "true"]].concat(), 125),
        ([&wrong[..], &["--no-such-option", "--", "true"]].concat(), 125),
    ] {
        for place in [Some(closed()), full()].into_iter().flatten() {
            let mut command = psx(&words);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(place);
            assert_eq!(command.status().unwrap().code(), Some(code), "{words:?}");
        }
    }
}

/// A variable in the environment of a service must not turn its audit into a success that audits nothing.
#[test]
fn the_variable_of_the_completions_does_not_replace_a_command() {
    let (_child, pid) = sleeper();
    let mut command = psx(&["audit", "-q", &pid, "--expect", "uid=61234"]);
    command.env("_PSX_COMPLETE", "bash");
    let found = finish(command);
    assert_eq!((found.status.code(), found.stdout.as_str()), (Some(1), ""), "{}", found.stderr);
}

/// Runs psx with SIGCHLD ignored, as a program inherits it from a parent that does not wait for its children.
fn without_sigchld(words: &[&str]) -> Finished {
    let mut command = psx(words);
    let ignore = || {
        // SAFETY: SIG_IGN runs no code.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: the child makes one system call.
    unsafe { command.pre_exec(ignore) };
    finish(command)
}

#[test]
fn an_ignored_sigchld_does_not_disturb_commands_with_children() {
    for words in [&["doctor"][..], &["demo", "--threads", "2"]] {
        let found = without_sigchld(words);
        assert_eq!(found.status.code(), Some(0), "{words:?}: {}{}", found.stdout, found.stderr);
    }
    // execve(2) of a script fails if it has a directory as its interpreter.
    let script = std::env::temp_dir().join(format!("psx-output-{}", std::process::id()));
    std::fs::write(&script, "#!/tmp\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let broken = script.to_str().unwrap();
    let kept = ["run", "--keep-groups", "--stay-root"];
    for (words, code) in [
        (&["--check", "--", "sh", "-c", "exit 7"][..], 7),
        (&["--check", "--", "/proc/nonexistent"], 127),
        (&["--check", "--", broken], 126),
    ] {
        let found = without_sigchld(&[&kept, words].concat());
        assert_eq!(found.status.code(), Some(code), "{words:?}: {}", found.stderr);
    }
    std::fs::remove_file(&script).unwrap();
    // The program inherits the action as it was.
    let ignored = |found: Finished| {
        let line = found.stdout.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let line = line.unwrap_or_else(|| panic!("{}{}", found.stdout, found.stderr));
        let bits = u64::from_str_radix(line.trim(), 16).unwrap();
        bits >> (libc::SIGCHLD - 1) & 1 == 1
    };
    for check in [&[][..], &["--check"]] {
        let words = [&kept[..], check, &["--", "cat", "/proc/self/status"]].concat();
        assert!(ignored(without_sigchld(&words)), "{check:?}");
        assert!(!ignored(finish(psx(&words))), "{check:?}");
    }
}
