//! `psx caps`: capabilities in words, of files and of processes, compared with capsh(1), getcap(8) and setcap(8).
#![allow(missing_docs, unsafe_code)]

mod support;

use std::process::{Command, Stdio};

use proptest::prelude::*;
use support::{finish, is_root, psx, skipped};

const CAPSH: &str = "/usr/sbin/capsh";

fn installed(program: &str) -> bool {
    let there = Command::new(program)
        .arg("-h")
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
fn sets_are_decoded_as_by_capsh() {
    let sets = ["0", "1", "00000000a80425fb", "0x1ffffffffff", "ffffffffffffffff", "20000000000"];
    for set in sets {
        let ours = finish(psx(&["caps", "decode", set]));
        assert!(ours.status.success(), "{}", ours.stderr);
        if !installed(CAPSH) {
            continue;
        }
        let mut command = Command::new(CAPSH);
        command.arg(format!("--decode={}", set.trim_start_matches("0x")));
        let theirs = finish(command);
        assert_eq!(ours.stdout, theirs.stdout, "{set}");
    }
    for bad in ["", "xyz", "10000000000000000", "-1"] {
        assert_eq!(finish(psx(&["caps", "decode", "--", bad])).status.code(), Some(2), "{bad}");
    }
    let explained = finish(psx(&["caps", "decode", "--explain", "400"]));
    assert!(explained.stdout.contains("ports below 1024"), "{}", explained.stdout);
}

#[test]
fn every_capability_is_explained_in_80_columns() {
    let all = finish(psx(&["caps", "explain"]));
    assert!(all.status.success());
    assert!(all.stdout.lines().all(|line| line.len() <= 80), "{}", all.stdout);
    let last: usize =
        std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    let known = last.min(40) + 1;
    assert_eq!(all.stdout.matches("capabilities(7), \"Capabilities list\"").count(), known);
    for number in 0..known {
        let one = finish(psx(&["caps", "explain", &number.to_string()])).stdout;
        assert!(all.stdout.contains(&one) && one.contains(&format!("(number {number}, ")), "{one}");
        // Each explanation has several lines.
        assert!(one.lines().count() >= 4, "{one}");
    }
    let by_name = finish(psx(&["caps", "explain", "net_admin", "CAP_BPF"])).stdout;
    assert!(
        by_name.contains("cap_net_admin (number 12, mask 0x1000)")
            && by_name.contains("cap_bpf (number 39"),
        "{by_name}"
    );
    let bad = finish(psx(&["caps", "explain", "admin"]));
    assert_eq!(bad.status.code(), Some(2));
    assert!(
        bad.stderr.contains("cap_net_admin") && bad.stderr.contains("cap_sys_admin"),
        "{}",
        bad.stderr
    );
}

#[test]
fn file_capabilities_match_getcap_and_setcap() {
    if !is_root("setting the capabilities of files") || !installed("/usr/sbin/getcap") {
        return;
    }
    let path = std::env::temp_dir().join(format!("psx-caps-{}", std::process::id()));
    std::fs::write(&path, "").unwrap();
    let name = path.to_str().unwrap().to_owned();
    let ours = |arguments: &[&str]| finish(psx(&[&["caps", "file"], arguments].concat()));
    let theirs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(format!("/usr/sbin/{program}"));
        command.args(arguments);
        finish(command)
    };
    let none = ours(&["get", &name]);
    assert_eq!((none.status.code(), none.stdout.as_str()), (Some(1), ""));
    assert!(none.stderr.contains("it has no capabilities"), "{}", none.stderr);
    let set = ours(&["set", "cap_net_raw,cap_net_admin=ep", &name]);
    if !set.status.success() {
        std::fs::remove_file(&path).unwrap();
        return skipped(format!("files cannot have capabilities here: {}", set.stderr));
    }
    for text in
        ["cap_net_raw,cap_net_admin=ep", "cap_chown=p", "cap_chown=ei", "cap_kill,cap_bpf=eip", "="]
    {
        assert!(theirs("setcap", &[text, &name]).status.success(), "{text}");
        let expected = theirs("getcap", &[&name]).stdout;
        assert_eq!(ours(&["get", &name]).stdout, expected, "{text}, set by setcap");
        assert!(ours(&["remove", &name]).status.success());
        assert_eq!(theirs("getcap", &[&name]).stdout, "", "removed");
        assert!(ours(&["set", text, &name]).status.success(), "{text}");
        assert_eq!(theirs("getcap", &[&name]).stdout, expected, "{text}, set by psx");
    }
    assert!(ours(&["set", "--root", "1000", "cap_chown=p", &name]).status.success());
    assert!(ours(&["get", &name]).stdout.contains("[rootid=1000]"));
    assert!(theirs("getcap", &["-n", &name]).stdout.contains("[rootid=1000]"));
    // An error names its file, and psx goes on with the other files.
    let two = ours(&["get", "/nonexistent/file", &name]);
    assert_eq!(two.status.code(), Some(1));
    assert!(
        two.stderr.contains("/nonexistent/file: No such file") && two.stdout.contains(&name),
        "{}",
        two.stderr
    );
    assert_eq!(ours(&["set", "cap_chown=q", &name]).status.code(), Some(2));
    assert!(ours(&["set", "cap_chown=p", "/tmp"]).stderr.contains("only a regular file"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_process_shows_its_sets() {
    if !is_root("psx run") {
        return;
    }
    let script = format!("{} caps $$", env!("CARGO_BIN_EXE_psx"));
    let found = finish(psx(&[
        "run",
        "--stay-root",
        "--keep-groups",
        "--bounding",
        "chown,kill",
        "--",
        "sh",
        "-c",
        &(script + "; true"),
    ]));
    assert!(found.status.success(), "{}", found.stderr);
    assert!(found.stdout.contains("(sh): 1 thread\n"), "{}", found.stdout);
    assert!(found.stdout.contains("  bounding     cap_chown,cap_kill\n"), "{}", found.stdout);
    assert!(
        found.stdout.contains("  permitted    cap_chown,cap_kill\n")
            && found.stdout.contains("  ambient      none\n"),
        "{}",
        found.stdout
    );
    let gone = finish(psx(&["caps", "999999999"]));
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.stderr.contains("999999999: there is no such process"), "{}", gone.stderr);
}

/// Shows a thread with other sets as a group of its own.
#[test]
fn threads_that_differ_are_shown_as_separate_groups() {
    if !is_root("dropping capabilities") {
        return;
    }
    let other = std::thread::spawn(|| {
        let header = [0x2008_0522_u32, 0];
        let none = [0u32; 6];
        // SAFETY: the kernel reads both.
        assert_eq!(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) }, 0);
        // SAFETY: the call touches no memory.
        let tid = unsafe { libc::syscall(libc::SYS_gettid) };
        (finish(psx(&["caps", &std::process::id().to_string()])), tid)
    });
    let (found, tid) = other.join().unwrap();
    assert!(found.status.success(), "{}", found.stderr);
    // The threads that `finish` has started in this test have the same sets.
    let lines: Vec<_> = found.stdout.lines().collect();
    let own = |line: &str| {
        line.starts_with(" threads") && line.split(' ').any(|word| word == tid.to_string())
    };
    let at = lines.iter().position(|line| own(line)).unwrap_or_else(|| panic!("{}", found.stdout));
    assert_eq!(lines[at + 1], "  text         =", "{}", found.stdout);
    assert!(
        lines.iter().filter(|line| line.starts_with(" threads")).count() > 1,
        "{}",
        found.stdout
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Decodes a set and encodes its names again: the result is the same set, in the bounding set of a program.
    #[test]
    fn decoding_and_encoding_are_inverse(bits in 0u64..1 << 41) {
        let decoded = finish(psx(&["caps", "decode", &format!("{bits:x}")])).stdout;
        let names = decoded.trim().split_once('=').unwrap().1;
        prop_assert_eq!(names.split(',').filter(|name| !name.is_empty()).count(), bits.count_ones() as usize);
        let text = if names.is_empty() { "none" } else { names };
        let plan = finish(psx(&["run", "--stay-root", "--keep-groups", "--bounding", text, "--dry-run"]));
        if plan.status.success() {
            let line = plan.stdout.lines().last().unwrap().to_owned();
            prop_assert!(line.contains("bounding"), "{}", line);
        }
    }
}
