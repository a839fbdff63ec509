//! The library comes late, is sent away, and comes twice.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use support::{compile, finish, installed, place, run};

#[test]
fn loaded_late_and_closed() {
    let program = compile("cc", "late.c", "late", &["-lpthread", "-ldl"]);
    let library = installed().so();
    run(&program, &[library.to_str().unwrap()]).success().stdout("still here\n");
}

#[test]
fn two_copies() {
    let program = compile("cc", "twice.c", "twice", &["-lpthread", "-ldl"]);
    let (library, copy) = (installed().so(), place("copy-of-libpsx.so"));
    std::fs::copy(&library, &copy).unwrap();
    let arguments = [library.to_str().unwrap(), copy.to_str().unwrap()];
    let told = run(&program, &arguments).success();
    print!("{}", String::from_utf8_lossy(&told.get_output().stdout));
}

/// A Rust cdylib that contains the crate, linked with and without what `libpsx::docs::limitations` asks for.
#[test]
fn a_rust_library() {
    fn plugin(name: &str, option: &str) -> PathBuf {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["rustc", "-p", "plugin", "--crate-type", "cdylib"]);
        cargo.arg("--target-dir").arg(place(name)).args(["--", "-C", option]);
        finish(&mut cargo).success();
        place(name).join("debug/libplugin.so")
    }
    let program = compile("cc", "late.c", "late-plugin", &["-lpthread", "-ldl"]);
    let stays = plugin("plugin-stays", "link-arg=-Wl,-z,nodelete");
    let arguments = [stays.to_str().unwrap(), "no_new_privs"];
    run(&program, &arguments).success().stdout("still here\n");
    // The next use of signal 33 finds no handler where the kernel was told that there is one.
    let goes = plugin("plugin-goes", "link-arg=-Wl,-z,lazy");
    let ended = run(&program, &[goes.to_str().unwrap(), "no_new_privs"]).failure();
    assert_eq!(ended.get_output().status.signal(), Some(11));
}
