//! Completions, manual pages and help come from one definition, and shells and man(1) accept them.

#![allow(missing_docs)]

mod support;

use std::process::{Command, Stdio};

use support::{finish, psx};

const COMMANDS: [&str; 7] = ["audit", "doctor", "run", "caps", "demo", "completions", "man"];
/// The commands and their subcommands.
const INNER: [&str; 6] = [
    "caps-decode",
    "caps-explain",
    "caps-file",
    "caps-file-get",
    "caps-file-set",
    "caps-file-remove",
];

/// Returns whether a program can be run, and prints a note if not.
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
fn output_matches_the_record() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}

/// Returns the program's answer to a shell that asks to complete the last of these words.
fn completed(words: &[&str]) -> Vec<String> {
    let mut command = psx(&["--"]);
    command.args(words).env("_PSX_COMPLETE", "bash").env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    let finished = finish(command);
    assert!(finished.status.success(), "{}", finished.stderr);
    finished.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn words_are_completed_from_the_present_names() {
    let own = std::process::id().to_string();
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let has = |words: &[&str], wanted: &str| {
        let found = completed(words);
        assert!(found.iter().any(|one| one.trim() == wanted), "{words:?}: {found:?}");
        assert!(!found.iter().any(|one| one.contains("demo-plain")), "{words:?}: what is hidden");
    };
    has(&["psx", "au"], "audit");
    has(&["psx", "audit", &own], &own);
    has(&["psx", "audit", "--name", &comm.trim()[..3]], comm.trim());
    has(&["psx", "audit", "--user", "ro"], "root");
    has(&["psx", "audit", "--ignore", "sch"], "sched");
    has(&["psx", "audit", "--expect", "uid=0,nn"], "uid=0,nnp=");
    has(&["psx", "caps", "explain", "cap_net_a"], "cap_net_admin");
    has(&["psx", "run", "--ambient", "cap_chown,cap_ki"], "cap_chown,cap_kill");
    has(&["psx", "run", "--bounding", "~cap_sys_adm"], "~cap_sys_admin");
    has(&["psx", "run", "--seccomp", "~@syst"], "~@system-service");
    has(&["psx", "run", "-p", "NoNew"], "NoNewPrivileges=");
    has(&["psx", "run", "--without", "ProtectSys"], "ProtectSystem");
    let units = std::fs::read_dir("/usr/lib/systemd/system").into_iter().flatten().flatten();
    let unit = units
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| name.ends_with(".service"));
    match unit {
        Some(unit) => has(&["psx", "run", "--from-unit", &unit[..3]], &unit),
        None => support::skipped("this machine has no units"),
    }
}

#[test]
fn shells_load_their_completions() {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_psx"));
    let path =
        format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    for (shell, ask) in [
        (
            "bash",
            "COMP_WORDS=(psx a) COMP_CWORD=1 COMP_TYPE=9; _clap_complete_psx psx a psx 2>/dev/null; echo \"${COMPREPLY[@]}\"",
        ),
        ("fish", "complete -C 'psx a'"),
        ("zsh", "functions _clap_dynamic_completer_psx; echo audit"),
    ] {
        let text = finish(psx(&["completions", shell])).stdout;
        assert!(text.contains("_PSX_COMPLETE"), "{shell}: {text}");
        if !installed(shell) {
            continue;
        }
        let start = match shell {
            // zsh completion functions work only in its completion system.
            "zsh" => "autoload -U compinit; compinit -u -D; eval \"$0\"; ",
            "fish" => "source (printf '%s' $argv[1] | psub); ",
            _ => "eval \"$0\"; ",
        };
        let mut command = Command::new(shell);
        command.args(["-c", &format!("{start}{ask}")]).arg(&text);
        command.env("HOME", "/nonexistent").env("PATH", &path);
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
    // psx creates the directory.
    let finished = finish(psx(&["man", place.to_str().unwrap()]));
    assert!(finished.status.success(), "{}", finished.stderr);
    let mut pages: Vec<_> = COMMANDS
        .iter()
        .chain(&INNER)
        .map(|command| place.join(format!("psx-{command}.1")))
        .collect();
    pages.push(place.join("psx.1"));
    let mut written = std::fs::read_dir(&place).unwrap().count();
    let (mandoc, man) = (installed("mandoc"), installed("man"));
    for page in &pages {
        let source = std::fs::read_to_string(page).unwrap();
        let sections: Vec<_> =
            source.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        assert_eq!(sections[..3], ["NAME", "SYNOPSIS", "DESCRIPTION"], "{}", page.display());
        let last = ["\"EXIT STATUS\"", "EXAMPLES", "\"SEE ALSO\""];
        assert!(last.iter().all(|one| sections.contains(one)), "{}: {sections:?}", page.display());
        written -= 1;
        if mandoc {
            let mut lint = Command::new("mandoc");
            // The pages contain neither style nor a date. A date would make each build differ.
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
    let run = std::fs::read_to_string(place.join("psx-run.1")).unwrap();
    for shown in
        ["\\fB\\-\\-user\\fR \\fIUSER\\fR", "\\fB125\\fR", ".SH FILES", "\\fBsetpriv\\fR(1)"]
    {
        assert!(run.contains(shown), "{shown}: {run}");
    }
    std::fs::remove_dir_all(&place).unwrap();
    let alone = finish(psx(&["man"])).stdout;
    assert!(alone.contains(".TH psx 1"), "{alone}");
    assert_eq!(finish(psx(&["man", "/proc/nonexistent/directory"])).status.code(), Some(1));
}
