//! The names of this CPU's system calls, and of the kernel's errors, as two texts: line `n` belongs
//! to number `n`. (As tables of pointers, which a shared library must relocate, they are larger
//! than the rest of libpsx.so.)

use std::path::Path;
use std::{env, fs};

use syscalls::{Errno, aarch64, arm, powerpc64, riscv64, s390x, x86, x86_64};

const CALLS: usize = 512;
const ERRORS: i32 = 134;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let cpu = env::var("CARGO_CFG_TARGET_ARCH").unwrap();
    let calls: Vec<&str> = (0..CALLS).map(|number| name(&cpu, number)).collect();
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

/// The name of a call on a CPU, or nothing.
fn name(cpu: &str, number: usize) -> &'static str {
    let name = match cpu {
        "x86_64" => x86_64::Sysno::new(number).map(|call| call.name()),
        "aarch64" => aarch64::Sysno::new(number).map(|call| call.name()),
        "arm" => arm::Sysno::new(number).map(|call| call.name()),
        "powerpc64" => powerpc64::Sysno::new(number).map(|call| call.name()),
        "s390x" => s390x::Sysno::new(number).map(|call| call.name()),
        "x86" => x86::Sysno::new(number).map(|call| call.name()),
        "riscv64" => riscv64::Sysno::new(number).map(|call| call.name()),
        // It has the calls of riscv64 but for those of the CPU itself, which are the numbers from 244 to 259.
        "loongarch64" if !(244..260).contains(&number) => {
            riscv64::Sysno::new(number).map(|call| call.name())
        }
        _ => None,
    };
    name.unwrap_or("")
}
