//! Tests programs in other languages, whose runtimes create threads of their own.

mod support;

use std::path::Path;
use std::process::Command;

use support::{compile, has, installed, libdir, run};

#[test]
fn cxx_and_openmp() {
    if !has("c++") {
        return;
    }
    let options = [&*libdir(), "-std=c++11", "-fopenmp", "-lpsx", "-lpthread"];
    let program = compile("c++", "pool.cc", "pool", &options);
    run(&program, &[]).success().stdout("all 8\n");
}

#[test]
fn python() {
    if Command::new("python3").arg("--version").output().is_err() {
        support::skipped("python3 is not installed");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/threads.py");
    let library = installed().so();
    let arguments = [script.to_str().unwrap(), library.to_str().unwrap()];
    run(Path::new("python3"), &arguments).success().stdout("all 5\n");
}

/// Tests a pool of Java threads, and the internal threads of the Java virtual machine.
#[test]
fn java() {
    if !has("javac") || !has("java") {
        return;
    }
    let home = "dirname \"$(dirname \"$(readlink -f \"$(command -v javac)\")\")\"";
    let home = Command::new("sh").args(["-c", home]).output().unwrap();
    let include = Path::new(String::from_utf8(home.stdout).unwrap().trim()).join("include");
    if !include.join("jni.h").exists() {
        support::skipped("the JDK of javac has no jni.h");
        return;
    }
    let include = include.display();
    let options = [
        "-shared",
        "-fPIC",
        &format!("-I{include}"),
        &format!("-I{include}/linux"),
        &*libdir(),
        "-lpsx",
    ];
    let called = compile("cc", "java.c", "libcalled.so", &options);
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/Threads.java");
    let arguments = [program.to_str().unwrap(), called.to_str().unwrap()];
    run(Path::new("java"), &arguments).success().stdout("all of them\n");
}
