//! Programs in other languages that have threads of their own kind.

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
        println!("SKIPPED: there is no python3 here");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/threads.py");
    let library = installed().so();
    let arguments = [script.to_str().unwrap(), library.to_str().unwrap()];
    run(Path::new("python3"), &arguments).success().stdout("all 5\n");
}
