//! Tests how the functions treat their arguments, and what they report.

mod support;

use support::{compile, libdir, run};

#[test]
fn arguments() {
    for (name, options) in [
        ("original", &["-O0"] as &[&str]),
        ("original-optimised", &["-O2"]),
        ("ours", &["-DOURS", "-O2"]),
    ] {
        let dir = libdir();
        let options = [options, &[&dir, "-lpsx", "-lpthread"]].concat();
        let program = compile("cc", "arguments.c", &format!("arguments-{name}"), &options);
        run(&program, &[]).success().stdout("as given\n");
    }
}

#[test]
fn errors() {
    let program = compile("cc", "errors.c", "errors", &[&libdir(), "-lpsx", "-lpthread"]);
    let told = run(&program, &[]).success();
    print!("{}", String::from_utf8_lossy(&told.get_output().stdout));
}

#[test]
fn explanations() {
    let options = [&*libdir(), "-lpsx", "-lpthread"];
    let program = compile("cc", "explained.c", "explained", &options);
    run(&program, &[]).success().stdout("each its own\n");
}

#[test]
fn causes() {
    let program = compile("cc", "causes.c", "causes", &[&libdir(), "-lpsx", "-lpthread"]);
    for cause in ["ENOMEM", "EAGAIN", "EDEADLK"] {
        run(&program, &[cause]).success().stdout(format!("{cause}\n"));
    }
}

#[test]
fn small_alternate_stack() {
    let program = compile("cc", "altstack.c", "altstack", &[&libdir(), "-lpsx", "-lpthread"]);
    run(&program, &[]).success().stdout("done on a small stack\n");
}
