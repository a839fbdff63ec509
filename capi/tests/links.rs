//! Tests every way in which a program is linked with the library.

mod support;

use std::process::Command;

use support::{built, compile, installed, libdir, run};

/// Makes linker warnings errors (an executable stack, relocations in the text).
const STRICT: [&str; 2] = ["-Wl,--fatal-warnings", "-Wl,-z,text"];

fn all_four(compiler: &str, name: &str, options: &[&str]) {
    let program = compile(compiler, "smoke.c", name, &[&STRICT, options].concat());
    run(&program, &[]).success().stdout("all 4\n");
}

#[test]
fn shared() {
    all_four("cc", "shared", &[&libdir(), "-lpsx", "-lpthread"]);
    all_four("cc", "shared-wrap", &[&libdir(), "-Wl,--wrap=pthread_create", "-lpsx", "-lpthread"]);
}

/// Links the installed archive and the one that cargo builds: plainly, as a whole archive, and with --wrap as old
/// programs do.
#[test]
fn archive() {
    for (kind, archive) in
        [("installed", installed().archive()), ("built", built().join("libpsx.a"))]
    {
        let archive = archive.to_str().unwrap();
        for (linked, option) in [
            ("dynamic", "-no-pie"),
            ("pie", "-pie"),
            ("static", "-static"),
            ("static-pie", "-static-pie"),
        ] {
            let name = |how: &str| format!("{kind}-{linked}-{how}");
            all_four("cc", &name("plain"), &[option, archive, "-lpthread"]);
            let whole = ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"];
            all_four("cc", &name("whole"), &[&[option, "-lpthread"], &whole[..]].concat());
            let wrap = "-Wl,--wrap=pthread_create";
            all_four("cc", &name("wrap"), &[option, wrap, archive, "-lpthread"]);
        }
    }
}

#[test]
fn musl() {
    let musl = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/musl-gcc");
    let version = Command::new(musl).arg("--version").output().unwrap();
    if !version.status.success() {
        support::skipped(String::from_utf8_lossy(&version.stderr).trim());
        return;
    }
    for (kind, archive) in
        [("installed", installed().archive()), ("built", built().join("libpsx.a"))]
    {
        let archive = archive.to_str().unwrap();
        let whole = ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"];
        for (linked, option) in [("static", &[] as &[&str]), ("dynamic", &["-dynamic"])] {
            let all_four = |how: &str, options: &[&str]| {
                let name = format!("musl-{linked}-{kind}-{how}");
                all_four(musl, &name, &[option, options].concat());
            };
            all_four("plain", &[archive]);
            all_four("whole", &whole);
            all_four("wrap", &["-Wl,--wrap=pthread_create", archive]);
        }
    }
}
