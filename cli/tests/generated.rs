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
        assert!(!text.contains("demo-plain"), "{shell}: what is hidden is completed");
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

#[test]
fn manual_pages_are_written_and_render() {
    let place = std::env::temp_dir().join(format!("psx-man-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let finished = finish(psx(&["man", place.to_str().unwrap()]));
    assert!(finished.status.success(), "{}", finished.stderr);
    let mut pages: Vec<_> =
        COMMANDS.iter().map(|command| place.join(format!("psx-{command}.1"))).collect();
    pages.push(place.join("psx.1"));
    let mut written = std::fs::read_dir(&place).unwrap().count();
    let (mandoc, man) = (installed("mandoc"), installed("man"));
    for page in &pages {
        let source = std::fs::read_to_string(page).unwrap();
        assert!(source.contains(".SH NAME"), "{}", page.display());
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
    std::fs::remove_dir_all(&place).unwrap();
    let alone = finish(psx(&["man"])).stdout;
    assert!(alone.contains(".TH psx 1"), "{alone}");
    assert_eq!(finish(psx(&["man", "/nonexistent/directory"])).status.code(), Some(1));
}
