//! Converts pictures that are not trusted, in threads that can do nothing else.
//!
//! It shows rayon's pool under Landlock and a seccomp filter, both installed in one stop after the pool has started.
//! An input that takes over a thread of the converter can open no other file, make no socket and start no program: in
//! the thread that it has taken over, in every older thread, and in a thread that it starts. Run it with two
//! directories; each line of input names a picture (PPM) in the first, which becomes a BMP in the second:
//!
//! ```sh
//! cargo build -p examples && mkdir -p /tmp/in /tmp/out
//! printf 'P6 1 1 255\n\1\2\3' >/tmp/in/good
//! printf 'TAKE OVER 127.0.0.1:80' >/tmp/in/evil
//! printf 'good\nevil\n' | target/debug/converter /tmp/in /tmp/out
//! printf 'good\nevil\n' | target/debug/converter --unconfined /tmp/in /tmp/out
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use privileges::Privileges;
use privileges::landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    path_beneath_rules,
};
use privileges::seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use privileges::seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let unconfined = arguments.first().is_some_and(|first| first.as_os_str() == "--unconfined");
    if unconfined {
        arguments.remove(0);
    }
    let [from, to] = arguments.as_slice() else {
        return Err("usage: converter [--unconfined] FROM TO".into());
    };
    rayon::ThreadPoolBuilder::new().num_threads(4).build_global()?;
    // The threads of the pool have started, and have worked.
    rayon::broadcast(|_| ());
    if !unconfined {
        let plan = Privileges::new()
            // A converter that root starts stays root: it is confined all the same.
            .stay_root()
            .keep_groups()
            .landlock(ruleset(from, to)?)
            .seccomp(&filter()?)
            .plan()?;
        let applied = plan.apply()?;
        println!("{} threads are confined", applied.threads);
    }
    // in_place_scope leaves every thread of the pool free for work.
    rayon::in_place_scope(|scope| {
        for name in std::io::stdin().lines() {
            let name = name?;
            scope.spawn(move |_| {
                let file = Path::new(&name).file_name().unwrap_or_default();
                let converted = convert(&from.join(file), &to.join(file).with_extension("bmp"));
                match converted {
                    Ok(()) => println!("{name}: converted"),
                    Err(error) => println!("{name}: {error}"),
                }
            });
        }
        Ok(())
    })
}

/// Makes a ruleset that allows reading in one directory and writing in the other, and no network port.
fn ruleset(from: &Path, to: &Path) -> Result<RulesetCreated, Box<dyn Error>> {
    let abi = ABI::V4;
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .create()?;
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate;
    let ruleset = ruleset.add_rules(path_beneath_rules([from], reading))?;
    Ok(ruleset.add_rules(path_beneath_rules([to], writing))?)
}

/// Allows what the threads need. Every other call fails with ENOSYS. For clone3(2), whose flags a filter cannot see,
/// the C library takes that as a reason to call clone(2).
fn filter() -> Result<BpfProgram, Box<dyn Error>> {
    let allowed = [
        // These calls convert.
        libc::SYS_openat,
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_statx,
        libc::SYS_lseek,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_brk,
        // By these calls threads wait for each other, begin and end.
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_gettid,
        libc::SYS_getrandom,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_sched_getaffinity,
        libc::SYS_exit,
        libc::SYS_exit_group,
        // By these calls threads leave the stop, and the caller verifies.
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_restart_syscall,
        libc::SYS_wait4,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        allowed.into_iter().map(|number| (number, Vec::new())).collect();
    // This allows a new thread, and no new process.
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let operator = SeccompCmpOp::MaskedEq(thread);
    let is_thread = SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, thread)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread])?]);
    let others = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(
        rules,
        others,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

fn convert(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let mut input = Vec::new();
    File::open(from)?.read_to_end(&mut input)?;
    if let Some(address) = input.strip_prefix(b"TAKE OVER ") {
        taken_over(std::str::from_utf8(address)?);
        return Ok(());
    }
    let (width, height, pixels) = parse(&input).ok_or("not a PPM")?;
    let mut output = File::create(to)?;
    output.write_all(&bitmap(width, height, pixels).ok_or("too large")?)?;
    Ok(())
}

/// Returns width, height and pixels of a PPM whose samples have one byte.
fn parse(input: &[u8]) -> Option<(usize, usize, &[u8])> {
    let mut rest = input.strip_prefix(b"P6")?.trim_ascii_start();
    let mut number = || {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, after) = rest.split_at_checked(digits)?;
        // One space ends the header. It does not belong to a pixel.
        rest = after.get(1..)?;
        std::str::from_utf8(number).ok()?.parse::<usize>().ok()
    };
    let (width, height, most) = (number()?, number()?, number()?);
    let pixels = rest.get(..width.checked_mul(height)?.checked_mul(3)?)?;
    (most == 255 && width > 0).then_some((width, height, pixels))
}

/// Makes a BMP with 24 bits a pixel. The lines go from the last to the first, each padded to a multiple of four bytes.
fn bitmap(width: usize, height: usize, pixels: &[u8]) -> Option<Vec<u8>> {
    let line = width.checked_mul(3)?.checked_next_multiple_of(4)?;
    let size = line.checked_mul(height)?;
    let word = |value: usize| Some(i32::try_from(value).ok()?.to_le_bytes());
    let mut output = b"BM".to_vec();
    for value in
        [size.checked_add(54)?, 0, 54, 40, width, height, 1 | 24 << 16, 0, size, 0, 0, 0, 0]
    {
        output.extend(word(value)?);
    }
    for row in pixels.chunks_exact(width.checked_mul(3)?).rev() {
        let end = output.len().checked_add(line)?;
        output.extend(row.chunks_exact(3).flat_map(|pixel| pixel.iter().rev()));
        output.resize(end, 0);
    }
    Some(output)
}

/// Simulates a bug of the parser: the input's own code runs in this thread. That code reaches every other thread
/// too, because threads share their memory.
fn taken_over(address: &str) {
    attack("the thread that was taken over", address);
    rayon::broadcast(|_| attack("a thread of the pool", address));
    std::thread::scope(|scope| {
        let started =
            std::thread::Builder::new().spawn_scoped(scope, || attack("a new thread", address));
        if let Err(error) = started {
            println!("a new thread: {error}");
        }
    });
}

/// Tries actions that the converter does not need, and prints the result of each attempt.
fn attack(thread: &str, address: &str) {
    let tell = |what: &str, done: std::io::Result<()>| match done {
        Ok(()) => println!("{thread}: {what}: succeeded"),
        Err(error) => println!("{thread}: {what}: {error}"),
    };
    tell("open /etc/shadow", File::open("/etc/shadow").map(drop));
    tell("connect", TcpStream::connect(address).map(drop));
    tell("start a program", Command::new("/bin/true").status().map(drop));
    // If the call were allowed, the error would be that the file does not exist.
    tell("execve", Err(Command::new("/no/such/program").exec()));
}
