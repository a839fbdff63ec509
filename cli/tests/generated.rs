//! Completions, manual pages and help come from one definition, and their readers take them.

#![allow(missing_docs)]

mod support;

use std::process::{Command, Stdio};

use support::{finish, psx};

const COMMANDS: [&str; 5] = ["audit", "doctor", "demo", "completions", "man"];

/// Whether a program can be run; says so if not.
fn installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.arg("--version").status().is_ok();
    if !there {
        support::skipped(format!("{program} is not installed"));
    }
    there
}

#[test]
fn what_is_printed_is_as_recorded() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}

#[test]
fn shells_load_their_completions() {
    for (shell, ask) in [
        ("bash", "COMP_WORDS=(psx a) COMP_CWORD=1; _psx psx a psx; echo \"${COMPREPLY[@]}\""),
        ("fish", "complete -C 'psx a'"),
        ("zsh", "functions _psx"),
    ] {
        let text = finish(psx(&["completions", shell])).stdout;
        for command in COMMANDS {
            assert!(text.contains(command), "{shell}: {command}");
        }
        assert!(!text.contains("demo-plain"), "{shell}: a hidden command is completed");
        if !installed(shell) {
            continue;
        }
        let start = match shell {
            // A completion needs its own functions of zsh.
            "zsh" => "autoload -U compinit; compinit -u -D; eval \"$0\"; ",
            "fish" => "source (printf '%s' $argv[1] | psub); ",
            _ => "eval \"$0\"; ",
        };
        let mut command = Command::new(shell);
        command.args(["-c", &format!("{start}{ask}")]).arg(&text).env("HOME", "/nonexistent");
        let finished = finish(command);
        assert!(finished.status.success(), "{shell}: {}", finished.stderr);
        assert!(
            finished.stdout.contains("audit"),
            "{shell}: {}{}",
            finished.stdout,
            finished.stderr
        );
    }
}

/// Values of this machine: the completions ask the program for them.
#[test]
fn values_are_completed() {
    let values = |kind: &str| finish(psx(&["complete-values", kind])).stdout;
    let has = |kind: &str, value: &str| values(kind).lines().any(|line| line == value);
    assert!(has("users", "root") && has("capabilities", "cap_chown") && has("keys", "nnp="));
    // No name of a kernel thread.
    assert!(!has("names", "kthreadd"), "{}", values("names"));
    assert_eq!(finish(psx(&["complete-values", "hats"])).status.code(), Some(2));
    if !installed("bash") {
        return;
    }
    let text = finish(psx(&["completions", "bash"])).stdout;
    let program = env!("CARGO_BIN_EXE_psx");
    for (before, typed, wanted) in [
        ("--user", "roo", "root"),
        ("--expect", "nn", "nnp="),
        ("--sort", "ver", "verdict"),
        ("--ignore", "time", "timer-slack"),
    ] {
        let ask = format!(
            "eval \"$0\"; COMP_WORDS=({program} audit {before} {typed}) COMP_CWORD=3
             _psx_with_values {program} {typed} {before}; echo \"${{COMPREPLY[@]}}\""
        );
        let mut command = Command::new("bash");
        command.args(["-c", &ask]).arg(&text);
        let finished = finish(command);
        let found = finished.stdout.split_whitespace().any(|word| word == wanted);
        assert!(found, "{before} {typed}: {}{}", finished.stdout, finished.stderr);
    }
    let zsh = finish(psx(&["completions", "zsh"])).stdout;
    assert!(zsh.contains("{compadd -- $(psx complete-values users"), "{zsh}");
}

#[test]
fn manual_pages_are_written_and_render() {
    // The directory and the one above it do not exist.
    let above = std::env::temp_dir().join(format!("psx-man-{}", std::process::id()));
    let place = above.join("man1");
    let finished = finish(psx(&["man", place.to_str().unwrap()]));
    assert!(finished.status.success(), "{}", finished.stderr);
    let mut pages: Vec<_> =
        COMMANDS.iter().map(|command| place.join(format!("psx-{command}.1"))).collect();
    pages.push(place.join("psx.1"));
    let mut written = std::fs::read_dir(&place).unwrap().count();
    let (mandoc, man) = (installed("mandoc"), installed("man"));
    for page in &pages {
        let source = std::fs::read_to_string(page).unwrap();
        for section in
            ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "\"SEE ALSO\""]
        {
            let heading = format!("\n.SH {section}\n");
            assert!(source.contains(&heading), "{section}: {}", page.display());
        }
        written -= 1;
        if mandoc {
            let mut lint = Command::new("mandoc");
            // Neither style nor the date, which would make each build another one.
            lint.args(["-T", "lint", "-W", "error"]).arg(page);
            let finished = finish(lint);
            assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
        }
        if man {
            let mut man = Command::new("man");
            man.args(["--warnings", "-l"]).arg(page).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8");
            let finished = finish(man);
            assert!(finished.status.success() && finished.stderr.is_empty(), "{}", finished.stderr);
            assert!(finished.stdout.contains("psx"), "{}", finished.stdout);
        }
    }
    assert_eq!(written, 0, "pages of what is hidden");
    let audit = std::fs::read_to_string(place.join("psx-audit.1")).unwrap();
    for part in ["EXAMPLES", "FILES", "\\fB\\-\\-name\\fR \\fIREGEX\\fR"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    std::fs::remove_dir_all(&above).unwrap();
    let alone = finish(psx(&["man"])).stdout;
    assert!(alone.contains(".TH PSX 1"), "{alone}");
    let refused = finish(psx(&["man", "/dev/null/directory"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("creating /dev/null/directory"), "{}", refused.stderr);
}
