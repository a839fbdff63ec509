//! Installs the library, compiles C programs, and runs them with a time limit.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use assert_cmd::assert::Assert;

#[path = "../../tests/support/harness.rs"]
mod harness;
pub use harness::{skipped, watchdog};

const WATCHDOG: Duration = Duration::from_secs(60);

pub fn capi() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A directory for the files that a test creates.
pub fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

pub struct Installed {
    pub library: PathBuf,
    pub include: PathBuf,
    root: PathBuf,
}

impl Installed {
    pub fn so(&self) -> PathBuf {
        self.library.join("libpsx.so.2")
    }

    pub fn archive(&self) -> PathBuf {
        self.library.join("libpsx.a")
    }

    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

/// Runs `capi/install`, once per test program.
pub fn installed() -> &'static Installed {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let root = place("installed").join(env!("CARGO_CRATE_NAME"));
        let _ = std::fs::remove_dir_all(&root);
        let mut install = Command::new(capi().join("install"));
        install.args(["--prefix=/usr", "--libdir=/usr/lib/multi"]);
        install.env("CARGO_TARGET_DIR", place(".."));
        finish(install.arg(format!("--destdir={}", root.display()))).success();
        Installed { library: root.join("usr/lib/multi"), include: root.join("usr/include"), root }
    })
}

/// The directory where `cargo build --release` puts libpsx.so and libpsx.a.
pub fn built() -> PathBuf {
    installed();
    place("..").join("release")
}

/// Runs the command until it ends. The time limit is that of a release build, on a slow machine too.
pub fn finish(command: &mut Command) -> Assert {
    let mut command =
        assert_cmd::Command::from_std(std::mem::replace(command, Command::new("true")));
    command.timeout(watchdog(Duration::from_secs(900))).assert()
}

/// Runs a program that finds this library's libpsx.so.2.
pub fn run(program: &Path, arguments: &[&str]) -> Assert {
    let library = &installed().library;
    let mut command = assert_cmd::Command::new(program);
    command.args(arguments).env("LD_LIBRARY_PATH", library).timeout(watchdog(WATCHDOG)).assert()
}

/// Returns whether this compiler is installed. Reports a skipped test otherwise.
pub fn has(compiler: &str) -> bool {
    let works = Command::new(compiler).arg("--version").output();
    let works = works.is_ok_and(|output| output.status.success());
    if !works {
        skipped(format!("{compiler} is not installed"));
    }
    works
}

/// Compiles `c/SOURCE` to a program of this name.
pub fn compile(compiler: &str, source: &str, name: &str, options: &[&str]) -> PathBuf {
    let program = place(name);
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-g", "-o"]).arg(&program);
    command.arg("-I").arg(&installed().include);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(source));
    finish(command.args(options)).success();
    program
}

pub fn libdir() -> String {
    format!("-L{}", installed().library.display())
}
