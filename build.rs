//! The names of this CPU's system calls, and of the kernel's errors, as two texts: line `n` belongs
//! to number `n`. (As tables of pointers, which a shared library must relocate, they are larger
//! than the rest of libpsx.so.)

use std::path::Path;
use std::{env, fs};

use syscalls::{Errno, x86_64};

const CALLS: usize = 512;
const ERRORS: i32 = 134;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let cpu = env::var("CARGO_CFG_TARGET_ARCH").unwrap();
    let calls: Vec<&str> = (0..CALLS)
        .map(|nr| match &*cpu {
            "x86_64" => x86_64::Sysno::new(nr).map_or("", |call| call.name()),
            _ => "",
        })
        .collect();
    let errors: Vec<String> = (0..ERRORS)
        .map(|number| match Errno::new(number).name_and_description() {
            Some((name, text)) => format!("{name} {}", text.trim().trim_end_matches('.')),
            None => String::new(),
        })
        .collect();
    let out = env::var_os("OUT_DIR").unwrap();
    fs::write(Path::new(&out).join("calls"), calls.join("\n").trim_end()).unwrap();
    fs::write(Path::new(&out).join("errors"), errors.join("\n").trim_end()).unwrap();
}
