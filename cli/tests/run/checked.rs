//! `psx run --check` where less is possible: without capabilities, in a PID namespace, as the parent of orphans.

use super::*;

const KEEP: [&str; 2] = ["--stay-root", "--keep-groups"];

/// Runs `psx run --check` as process 1 of a new PID namespace. Returns None if there can be none.
fn in_pid_namespace(options: &[&str], program: &[&str]) -> Option<Finished> {
    if !is_root("a PID namespace") || !installed("unshare") {
        return None;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork"]).args(options);
        command
    };
    let mut command = unshare();
    command.arg("true");
    let tried = finish(command);
    if !tried.status.success() {
        skipped(format!("no PID namespace: {}", tried.stderr));
        return None;
    }
    let mut command = unshare();
    command.arg(env!("CARGO_BIN_EXE_psx")).arg("run").args(KEEP).args(["--check", "--"]);
    command.args(program);
    Some(finish(command))
}

/// Another process has the program's number in the /proc of the outer namespace.
#[test]
fn the_program_is_not_looked_for_in_the_proc_of_another_namespace() {
    let Some(found) = in_pid_namespace(&[], &["echo", "it ran"]) else { return };
    assert_eq!(found.status.code(), Some(125), "{}{}", found.stdout, found.stderr);
    assert_eq!(found.stdout, "");
    assert!(found.stderr.contains("cannot be compared with the plan: /proc"), "{}", found.stderr);
    assert!(found.stderr.contains("mount a /proc of that namespace"), "{}", found.stderr);
}

/// The shell in the parentheses ends before the process that it has started, which psx then is the parent of.
#[test]
fn the_parent_of_orphans_reaps_them() {
    let script = r#"orphan=$( (sh -c 'echo $$; kill -"$1" $$' sh "$0" &) )
        for round in $(seq 1200); do
            [ -e "/proc/$orphan" ] || exit 7
            sleep 0.05
        done
        grep State "/proc/$orphan/status""#;
    // A real-time signal too.
    for signal in ["TERM", "40"] {
        let program = ["sh", "-c", script, signal];
        let Some(found) = in_pid_namespace(&["--mount-proc"], &program) else { return };
        assert_eq!(found.status.code(), Some(7), "{signal}: {}{}", found.stdout, found.stderr);
    }
}

/// As in a container, which has neither CAP_SYS_PTRACE nor CAP_SYS_RESOURCE.
#[test]
fn a_check_without_capabilities_reads_the_limits_and_says_what_it_cannot_see() {
    if !is_root("psx run") {
        return;
    }
    let own = readable_copy();
    let check = |options: &[&str]| {
        let mut command = psx(&[&["run"], &KEEP[..]].concat());
        command.args(["--bounding", "~sys_ptrace,sys_resource", "--"]).arg(&own);
        command.args(["run", "-u", "65534", "-g", "65534", "--groups", "none", "--check"]);
        command.args(options).args(["--", "grep", "open files", "/proc/self/limits"]);
        finish(command)
    };
    let limited = check(&["--limit", "NOFILE=100:200"]);
    let placed = check(&["--chdir", "/"]);
    std::fs::remove_file(&own).unwrap();
    assert_eq!(limited.status.code(), Some(0), "{}", limited.stderr);
    let words: Vec<_> = limited.stdout.split_whitespace().collect();
    assert_eq!(words, ["Max", "open", "files", "100", "200", "files"]);
    assert_eq!(placed.status.code(), Some(125), "{}", placed.stdout);
    let why = "cwd: cannot be seen without CAP_SYS_PTRACE; expected inode";
    assert!(placed.stderr.contains(why), "{}", placed.stderr);
}
