//! Which file is executed, and what it gives the program.

use std::os::unix::fs::{chown, symlink};

use super::*;

const KEEP: [&str; 2] = ["--stay-root", "--keep-groups"];

/// A program that works under any name, which coreutils and busybox may not.
const OWN: &str = env!("CARGO_BIN_EXE_psx");

/// A directory of a test, which is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("psx-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Another process copies. If this process did, a child that another thread forks meanwhile would have the file open for
/// writing, and execve(2) of the file would fail.
fn copy(from: &str, to: &str, mode: u32) {
    let status = Command::new("cp").args(["-L", from, to]).status().unwrap();
    assert!(status.success(), "no copy of {from}");
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn program(name: &str) -> String {
    let places = ["/bin", "/usr/bin"].into_iter().map(|place| format!("{place}/{name}"));
    places.into_iter().find(|path| Path::new(path).exists()).unwrap()
}

/// Runs a program with the argument `--version`, and with this PATH.
fn expect(path: &str, words: &[&str], code: i32, said: &str) {
    let mut command = psx(&[&["run"], &KEEP[..], words, &["--version"]].concat());
    command.env("PATH", path);
    let found = finish(command);
    assert_eq!(found.status.code(), Some(code), "{words:?}: {}", found.stderr);
    assert!(found.stderr.contains(said), "{words:?}: {}", found.stderr);
}

#[test]
fn the_program_is_looked_for_from_the_new_working_directory() {
    if !is_root("psx run") {
        return;
    }
    let place = Scratch::new("chdir");
    std::fs::create_dir(place.file("bin")).unwrap();
    copy(OWN, &place.file("bin/tool"), 0o755);
    let (there, path) = (place.file(""), "/usr/bin:/bin");
    let directory = format!("WorkingDirectory={}", there.trim_end_matches('/'));
    expect(path, &["--chdir", &there, "--", "bin/tool"], 0, "");
    expect(path, &["--check", "--chdir", &there, "--", "./bin/tool"], 0, "");
    expect(path, &["-p", &directory, "--", "bin/tool"], 0, "");
    expect("bin", &["-p", &directory, "--", "tool"], 0, "");
    let none = "there is no such program";
    expect(path, &["--", "bin/tool"], 127, none);
    expect(path, &["--chdir", "/", "--", "bin/tool"], 127, none);
    expect(path, &["--", ""], 127, none);
    expect(path, &["--chdir", &there, "--", "bin/tool/x"], 127, none);
    expect(path, &["--chdir", &there, "--", "./bin"], 126, "it cannot be executed");
}

/// Copies a program with the libraries that it needs into a directory. Returns false if ldd(1) is missing.
fn install(root: &Scratch, from: &str, to: &str) -> bool {
    let Ok(listed) = Command::new("ldd").arg(from).output() else {
        skipped("ldd is not installed");
        return false;
    };
    let text = String::from_utf8(listed.stdout).unwrap();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = root.file(library.trim_start_matches('/'));
        std::fs::create_dir_all(Path::new(&inside).parent().unwrap()).unwrap();
        copy(library, &inside, 0o755);
    }
    copy(from, &root.file(to), 0o755);
    true
}

#[test]
fn the_program_is_looked_for_in_the_new_root_directory() {
    if !is_root("psx run") {
        return;
    }
    let root = Scratch::new("root");
    std::fs::create_dir(root.file("tools")).unwrap();
    if !install(&root, OWN, "tools/tool") {
        return;
    }
    symlink("/tools/tool", root.file("link")).unwrap();
    symlink("../../../../tools/tool", root.file("above")).unwrap();
    // The host has this file, and the new root directory does not.
    symlink(program("sh"), root.file("outside")).unwrap();
    std::fs::write(root.file("tools/data"), "no program").unwrap();
    let there = root.file("");
    let there = there.trim_end_matches('/');
    let (directive, path) = (format!("RootDirectory={there}"), "/usr/bin:/bin:/tools");
    for chroot in [["--chroot", there], ["-p", &directive]] {
        let expect = |words: &[&str], code, said| {
            expect(path, &[&chroot[..], words].concat(), code, said);
        };
        expect(&["--", "/tools/tool"], 0, "");
        expect(&["--", "tools/tool"], 0, "");
        expect(&["--", "tool"], 0, "");
        expect(&["--", "/link"], 0, "");
        expect(&["--check", "--", "/link"], 0, "");
        expect(&["--", "/above"], 0, "");
        expect(&["--chdir", "/tools", "--", "./tool"], 0, "");
        expect(&["-p", "WorkingDirectory=/tools", "--", "../link"], 0, "");
        expect(&["--", "/outside"], 127, "there is no such program");
        expect(&["--", &program("sh")], 127, "there is no such program");
        expect(&["--", "/tools/data"], 126, "it cannot be executed");
    }
}

/// Runs psx as an ordinary user, which runs this program.
fn as_nobody(psx_copy: &Path, options: &[&str], program: &str) -> Finished {
    let mut command = psx(&["run", "-u", "65534", "-g", "65534", "--groups", "none", "--"]);
    command.arg(psx_copy).arg("run").args(options).args(["--", program, "/proc/self/status"]);
    finish(command)
}

/// The kernel ignores what a file gives if the program is traced without CAP_SYS_PTRACE. A check must not change what a
/// program may do, so psx refuses.
#[test]
fn a_check_by_an_ordinary_user_does_not_take_the_privileges_of_a_file_away() {
    if !is_root("becoming another user") {
        return;
    }
    let (place, own) = (Scratch::new("withheld"), readable_copy());
    let file = place.file("cat");
    let mode =
        |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    copy(&program("cat"), &file, 0o4755);
    let plain = as_nobody(&own, &[], &file);
    let uid = fields(&plain.stdout).remove("Uid").unwrap_or_default();
    if uid != "65534 0 0 0" {
        std::fs::remove_file(own).unwrap();
        return skipped(format!("set-user-ID has no effect in {}: {uid}", place.0.display()));
    }
    let refused = |what: &str| {
        let found = as_nobody(&own, &["--check"], &file);
        assert_eq!(found.status.code(), Some(125), "{what}: {}{}", found.stdout, found.stderr);
        assert!(found.stdout.is_empty(), "{what}: it ran: {}", found.stdout);
        assert!(found.stderr.contains(&format!("has {what}, and")), "{what}: {}", found.stderr);
        let bound = as_nobody(&own, &["--check", "--no-new-privs"], &file);
        assert_eq!(bound.status.code(), Some(0), "{what}: {}", bound.stderr);
    };
    let passes = |what: &str| {
        let found = as_nobody(&own, &["--check"], &file);
        assert_eq!(found.status.code(), Some(0), "{what}: {}", found.stderr);
    };
    refused("a set-user-ID bit");
    mode(0o2755);
    refused("a set-group-ID bit");
    mode(0o6755);
    refused("a set-user-ID bit and a set-group-ID bit");
    // The kernel uses the bit only if the group may execute the file.
    mode(0o2745);
    passes("no execute permission of the group");
    chown(&file, Some(65534), Some(65534)).unwrap();
    mode(0o6755);
    passes("the user's own file");
    mode(0o755);
    passes("no bit");
    let set = finish(psx(&["caps", "file", "set", "cap_chown=ep", &file]));
    if set.status.success() {
        refused("the capabilities cap_chown");
        assert!(finish(psx(&["caps", "file", "set", "cap_chown=i", &file])).status.success());
        passes("capabilities that are not inheritable");
    } else {
        skipped(format!("files cannot have capabilities here: {}", set.stderr));
    }
    std::fs::remove_file(own).unwrap();
}

/// The kernel ignores the mode of a script and uses that of its interpreter.
#[test]
fn a_check_of_a_script_is_about_its_interpreter() {
    if !is_root("becoming another user") {
        return;
    }
    let (place, own) = (Scratch::new("interpreter"), readable_copy());
    let (interpreter, script) = (place.file("cat"), place.file("script"));
    copy(&program("cat"), &interpreter, 0o4755);
    // Another process writes, for the reason of `copy`.
    let write = |interpreter: &str, mode: u32| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "printf '#!%s\\n' \"$1\" > \"$2\"", "sh", interpreter, &script]);
        assert!(shell.status().unwrap().success());
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write(&program("sh"), 0o6755);
    let found = as_nobody(&own, &["--check"], &script);
    assert_eq!(found.status.code(), Some(0), "{}", found.stderr);
    write(&interpreter, 0o755);
    let plain = as_nobody(&own, &[], &script);
    let uid = fields(&plain.stdout).remove("Uid").unwrap_or_default();
    if uid == "65534 0 0 0" {
        let found = as_nobody(&own, &["--check"], &script);
        assert_eq!(found.status.code(), Some(125), "{}{}", found.stdout, found.stderr);
        assert!(found.stdout.is_empty(), "it ran: {}", found.stdout);
        assert!(found.stderr.contains("has a set-user-ID bit, and"), "{}", found.stderr);
        let bound = as_nobody(&own, &["--check", "--no-new-privs"], &script);
        assert_eq!(bound.status.code(), Some(0), "{}", bound.stderr);
    } else {
        skipped(format!("set-user-ID has no effect in {}: {uid}", place.0.display()));
    }
    std::fs::remove_file(own).unwrap();
}
