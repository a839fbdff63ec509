//! Tests the content of libpsx.so.2 and libpsx.a, and of the files that are installed with them.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use object::read::archive::ArchiveFile;
use object::read::elf::{Dyn, FileHeader, SectionHeader};
use object::{Endianness, Object, ObjectSymbol, elf};
use support::{built, capi, compile, finish, has, installed, libdir, place};

const PUBLIC: [&str; 7] = [
    "__psx_syscall",
    "__wrap_pthread_create",
    "psx_load_syscalls",
    "psx_set_sensitivity",
    "psx_strerror",
    "psx_syscall3",
    "psx_syscall6",
];

/// The functions that the library uses of the C library. thrd_create and __real_pthread_create belong to
/// pthread_create. abort(3), which a panic would call, is not among them.
const ASKED: [&str; 9] = [
    "__errno_location",
    "__real_pthread_create",
    "bcmp",
    "memcpy",
    "memmove",
    "memset",
    "pthread_create",
    "syscall",
    "thrd_create",
];

/// The symbols that the C compiler's crtbeginS.o adds to every shared library.
const START_FILES: [&str; 4] = [
    "_ITM_deregisterTMCloneTable",
    "_ITM_registerTMCloneTable",
    "__cxa_finalize",
    "__gmon_start__",
];

fn names<'a>(symbols: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    symbols.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn set(lists: &[&[&str]]) -> BTreeSet<String> {
    names(lists.iter().flat_map(|list| list.iter().copied()))
}

#[test]
fn the_shared_library_has_the_public_symbols_and_no_other() {
    let bytes = fs::read(installed().so()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let (undefined, defined): (Vec<_>, Vec<_>) =
        file.dynamic_symbols().partition(ObjectSymbol::is_undefined);
    assert_eq!(names(defined.iter().flat_map(ObjectSymbol::name)), set(&[&PUBLIC]));
    let asked = names(undefined.iter().flat_map(ObjectSymbol::name));
    let known = set(&[&ASKED, &START_FILES]);
    assert!(asked.is_subset(&known), "{:?}", asked.difference(&known));
}

#[test]
fn the_archive_has_the_public_symbols_and_no_other() {
    let bytes = fs::read(installed().archive()).unwrap();
    let archive = ArchiveFile::parse(&*bytes).unwrap();
    let members: Vec<_> = archive.members().map(|member| member.unwrap()).collect();
    assert_eq!(members.len(), 1);
    let file = object::File::parse(members[0].data(&*bytes).unwrap()).unwrap();
    let global = || file.symbols().filter(|symbol| symbol.is_global());
    let defined = names(global().filter(|s| !s.is_undefined()).flat_map(|s| s.name()));
    assert_eq!(defined, set(&[&PUBLIC]));
    let asked = names(global().filter(|s| s.is_undefined()).flat_map(|s| s.name()));
    assert!(asked.is_subset(&set(&[&ASKED])), "{asked:?}");
}

/// The library has every function that the header declares.
#[test]
fn the_header_declares_the_public_symbols() {
    let header = fs::read_to_string(capi().join("include/sys/psx_syscall.h")).unwrap();
    let declared = |name: &&str| header.contains(&format!(" {name}("));
    let missing: Vec<_> = PUBLIC.into_iter().filter(|name| !declared(name)).collect();
    assert_eq!(missing, ["__wrap_pthread_create"]);
}

/// A panic would link the panic machinery. The file that cargo builds still has all symbols, so they can be checked.
#[test]
fn nothing_can_panic() {
    let bytes = fs::read(built().join("libpsx.so")).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let all = names(file.symbols().flat_map(|symbol| symbol.name()));
    assert!(all.iter().any(|name| name.contains("libpsx")), "the file has no symbols");
    let panics: Vec<_> =
        all.iter().filter(|name| name.contains("panic") || name.contains("_fail")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

/// The limit for the stripped file. Measured: 60,152 bytes with Rust 1.95, which links with lld, and 72,280 with Debian's
/// 1.85.1, which links with GNU ld. That pads the segments to whole pages, 8 KiB in all, and the older compiler
/// makes 3 KiB more of the same code.
fn limit_of_size() -> usize {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = finish(Command::new(rustc).arg("--version")).success();
    let version = String::from_utf8_lossy(&version.get_output().stdout).into_owned();
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    let number: [u32; 2] = [numbers.next().unwrap(), numbers.next().unwrap()];
    println!("{}: compiled by {}", installed().so().display(), version.trim());
    // Since Rust 1.90, lld is the linker of x86_64-unknown-linux-gnu.
    if number >= [1, 90] { 80 << 10 } else { 92 << 10 }
}

#[test]
fn the_library_is_small() {
    let path = installed().so();
    let bytes = fs::read(&path).unwrap();
    let header = elf::FileHeader64::<Endianness>::parse(&*bytes).unwrap();
    let endian = header.endian().unwrap();
    let sections = header.sections(endian, &*bytes).unwrap();
    let size = |wanted: &[u8]| {
        let (_, section) = sections.section_by_name(endian, wanted).unwrap();
        section.sh_size(endian)
    };
    println!(
        "libpsx.so.2: {} bytes, .text {}, .rodata {}",
        bytes.len(),
        size(b".text"),
        size(b".rodata")
    );
    assert!(bytes.len() < limit_of_size(), "{} bytes", bytes.len());
    let symbols = sections.iter().any(|section| section.sh_type(endian) == elf::SHT_SYMTAB);
    assert!(!symbols, "libpsx.so.2 is not stripped");
}

#[test]
fn the_dynamic_section_is_correct() {
    let bytes = fs::read(installed().so()).unwrap();
    let header = elf::FileHeader64::<Endianness>::parse(&*bytes).unwrap();
    let endian = header.endian().unwrap();
    let sections = header.sections(endian, &*bytes).unwrap();
    let (dynamic, strings) = sections.dynamic(endian, &*bytes).unwrap().unwrap();
    let strings = sections.strings(endian, &*bytes, strings).unwrap();
    let text = |entry: &elf::Dyn64<Endianness>| {
        String::from_utf8(entry.string(endian, strings).unwrap().to_vec()).unwrap()
    };
    let all = |tag: u32| dynamic.iter().filter(move |entry| entry.tag32(endian) == Some(tag));
    let value = |tag: u32| all(tag).map(|entry| entry.d_val.get(endian)).fold(0, |all, v| all | v);
    assert_eq!(all(elf::DT_SONAME).map(text).collect::<Vec<_>>(), ["libpsx.so.2"]);
    assert_eq!(all(elf::DT_NEEDED).map(text).collect::<Vec<_>>(), ["libc.so.6"]);
    let flags = value(elf::DT_FLAGS_1);
    assert_ne!(flags & u64::from(elf::DF_1_NODELETE), 0, "dlclose would unmap the handler");
    // Otherwise the first call of memcpy would enter the loader, in a held thread.
    assert_ne!(flags & u64::from(elf::DF_1_NOW), 0);
    assert_eq!(all(elf::DT_TEXTREL).count(), 0);
    let stack = header.program_headers(endian, &*bytes).unwrap();
    let stack = stack.iter().find(|header| header.p_type.get(endian) == elf::PT_GNU_STACK).unwrap();
    assert_eq!(
        stack.p_flags.get(endian) & elf::PF_X,
        0,
        "the library requires an executable stack"
    );
    for tag in [elf::DT_RPATH, elf::DT_RUNPATH] {
        assert_eq!(all(tag).count(), 0);
    }
    let segments = || header.program_headers(endian, &*bytes).unwrap().iter();
    // After loading, the pointers through which the library calls functions are read-only.
    assert_eq!(segments().filter(|s| s.p_type.get(endian) == elf::PT_GNU_RELRO).count(), 1);
    assert_eq!(segments().filter(|s| s.p_type.get(endian) == elf::PT_TLS).count(), 0);
    let both = elf::PF_W | elf::PF_X;
    assert_eq!(segments().filter(|s| s.p_flags.get(endian) & both == both).count(), 0);
}

/// The macro evaluates each argument once, and too many arguments are a compile error.
#[test]
fn the_macro() {
    let program = compile("cc", "macro.c", "macro", &[&libdir(), "-lpsx", "-lpthread"]);
    support::run(&program, &[]).success().stdout("once each\n");
    let include = format!("-I{}", capi().join("include").display());
    for (call, compiles) in
        [("1, 2, 3, 4, 5, 6, 7", true), ("1, 2, 3, 4, 5, 6, 7, 8", false), ("", false)]
    {
        let source = place("macro-wrong.c");
        let text = format!(
            "#include <sys/psx_syscall.h>\nlong c(void) {{ return psx_syscall({call}); }}\n"
        );
        fs::write(&source, text).unwrap();
        let mut command = Command::new("cc");
        command.args(["-c", "-o", "/dev/null", &include]).arg(&source);
        let end = finish(&mut command);
        if compiles {
            end.success()
        } else {
            end.failure()
        };
    }
}

/// The original prints a description of itself if it is executed.
#[test]
fn the_library_is_not_executable() {
    let bytes = fs::read(installed().so()).unwrap();
    let header = elf::FileHeader64::<Endianness>::parse(&*bytes).unwrap();
    assert_eq!(header.e_entry.get(header.endian().unwrap()), 0);
    let segments = header.program_headers(header.endian().unwrap(), &*bytes).unwrap();
    let interpreters =
        segments.iter().filter(|s| s.p_type.get(Endianness::Little) == elf::PT_INTERP);
    assert_eq!(interpreters.count(), 0);
}

#[test]
fn the_header_in_every_dialect() {
    const USES: &str = "#include <sys/psx_syscall.h>\n\
        #if LIBPSX_MAJOR != 2 || LIBPSX_MINOR < 72\n#error version\n#endif\n\
        long int __psx_syscall(long int, ...);\n\
        long int psx_syscall3(long int, long int, long int, long int);\n\
        long int psx_syscall6(long, long, long, long, long, long, long);\n\
        int psx_set_sensitivity(psx_sensitivity_t);\n\
        void psx_load_syscalls(long (**)(long, long, long, long),\n\
          long (**)(long, long, long, long, long, long, long));\n\
        long three(long, long, long, long);\n\
        long three(long a, long b, long c, long d) { return psx_syscall3(a, b, c, d); }\n\
        long macro(const char *p, int i, unsigned long u);\n\
        long macro(const char *p, int i, unsigned long u) {\n\
          return psx_syscall(1) + psx_syscall(1, p) + psx_syscall(1, i, p) + psx_syscall(1, u, i, p)\n\
            + psx_syscall(1, 2, 3, 4, p) + psx_syscall(i, 2, 3, 4, 5, p)\n\
            + psx_syscall(u, 2, 3, 4, i, 6, p) + __psx_syscall(1L, 1L, 1L);\n\
        }\n\
        long load(void);\n\
        long load(void) {\n\
          long (*f)(long, long, long, long);\n\
          long (*g)(long, long, long, long, long, long, long);\n\
          psx_load_syscalls(&f, &g);\n\
          return f(1, 2, 3, 4) + g(1, 2, 3, 4, 5, 6, 7) + psx_set_sensitivity(PSX_ERROR);\n\
        }\n";
    // As the program's own header (-I) and not as a system header, for which the compiler suppresses warnings.
    let include = format!("-I{}", capi().join("include").display());
    let source = place("dialects.c");
    fs::write(&source, USES).unwrap();
    let dialects = |compiler: &str, language: &str, dialects: &[&str]| {
        if !has(compiler) {
            return;
        }
        for dialect in dialects {
            let mut command = Command::new(compiler);
            command.args(["-x", language, &format!("-std={dialect}"), "-pedantic-errors", "-Wall"]);
            command.args(["-Wextra", "-Werror", "-c", "-o", "/dev/null", &include]).arg(&source);
            finish(&mut command).success();
        }
    };
    for compiler in ["cc", "clang"] {
        dialects(compiler, "c", &["c89", "gnu89", "c99", "c11", "c17", "c2x"]);
    }
    for compiler in ["c++", "clang++"] {
        dialects(compiler, "c++", &["c++98", "c++11", "c++14", "c++17", "c++20", "c++23"]);
    }
}

#[test]
fn installs_into_the_given_directories() {
    let has = |path: &str| {
        let path = installed().file(path);
        assert!(path.exists(), "{}", path.display());
        path
    };
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&has("usr/lib/multi/libpsx.so.2.78")), 0o755);
    for link in ["libpsx.so", "libpsx.so.2"] {
        let target = fs::read_link(has(&format!("usr/lib/multi/{link}"))).unwrap();
        assert!(target.is_relative(), "{}", target.display());
    }
    for file in ["lib/multi/libpsx.a", "include/sys/psx_syscall.h", "lib/multi/pkgconfig/libpsx.pc"]
    {
        assert_eq!(mode(&has(&format!("usr/{file}"))), 0o644);
    }
    for page in ["libpsx", "psx_syscall3", "psx_strerror"] {
        has(&format!("usr/share/man/man3/{page}.3"));
    }
    for page in ["libpsx", "psx_syscall3"] {
        assert_eq!(mode(&has(&format!("usr/share/man/man3/{page}.3"))), 0o644);
    }
    let refused = finish(Command::new(capi().join("install")).arg("--prefix=relative")).code(2);
    let said = String::from_utf8_lossy(&refused.get_output().stderr);
    assert!(said.contains("not understood: --prefix=relative"), "{said}");
}

/// Installs twice into the same directory. Its name has characters that are special to sed, and the umask is 077.
#[test]
fn installs_twice() {
    const PREFIX: &str = "/opt/a&b|c";
    let root = place("installed-again");
    let _ = fs::remove_dir_all(&root);
    let mut listings = Vec::new();
    for _ in 0..2 {
        let mut install = Command::new("sh");
        install.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(capi().join("install"));
        install.arg(format!("--prefix={PREFIX}")).arg(format!("--destdir={}", root.display()));
        finish(install.env("CARGO_TARGET_DIR", place(".."))).success();
        let mut find = Command::new("find");
        find.args([".", "-mindepth", "1", "-printf", "%M %P %l\n"]).current_dir(&root);
        let listing = finish(&mut find).success();
        listings.push(String::from_utf8(listing.get_output().stdout.clone()).unwrap());
    }
    assert_eq!(listings[0], listings[1]);
    let closed: Vec<_> = listings[0].lines().filter(|l| l.as_bytes()[7] != b'r').collect();
    assert!(closed.is_empty(), "{closed:?}");
    let pc = fs::read_to_string(root.join("opt/a&b|c/lib/pkgconfig/libpsx.pc")).unwrap();
    assert!(pc.starts_with(&format!(
        "prefix={PREFIX}\nlibdir={PREFIX}/lib\nincludedir={PREFIX}/include\n"
    )));
    assert!(!pc.contains('@'), "{pc}");
}

#[test]
fn the_manual_page_is_well_formed() {
    if Command::new("groff").arg("--version").output().is_err() {
        support::skipped("groff is not installed");
        return;
    }
    let page = installed().file("usr/share/man/man3/libpsx.3");
    let mut groff = Command::new("groff");
    let shown = finish(groff.args(["-man", "-ww", "-Tutf8"]).arg(page)).success();
    assert!(shown.get_output().stderr.is_empty(), "{shown}");
}

/// A program that uses only libcap is linked with the options that pkg-config prints. The library must be loaded
/// although nothing refers to it.
#[test]
fn pkg_config() {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", installed().file("usr/lib/multi/pkgconfig"));
    command.env("PKG_CONFIG_SYSROOT_DIR", installed().file(""));
    command.args(["--cflags", "--libs", "libpsx >= 2.72"]);
    if Command::new("pkg-config").arg("--version").output().is_err() {
        support::skipped("pkg-config is not installed");
        return;
    }
    let flags = finish(&mut command).success();
    let flags = String::from_utf8(flags.get_output().stdout.clone()).unwrap();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let program = compile("cc", "smoke.c", "pkg-config-smoke", &flags);
    support::run(&program, &[]).success().stdout("all 4\n");
    let source = place("unused.c");
    fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let unused = compile("cc", source.to_str().unwrap(), "unused", &flags);
    let needed = fs::read(&unused).unwrap();
    let needed = String::from_utf8_lossy(&needed);
    assert!(needed.contains("libpsx.so.2"));
}
