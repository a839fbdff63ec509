//! What the kernel writes, and what it reads: directories, files of /proc, seccomp programs.

use std::collections::HashSet;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::LazyLock;

use libpsx::fuzz::{self, Directory, Found};
use libpsx::{SkipReason, UnreachableReason};
use privileges::Instruction;
use privileges::bpf::{Action, NATIVE, Program, SeccompData};

use crate::parts;

/// getdents64(2): an inode, an offset, the length at byte 16, a type, and the name from byte 19 on.
pub(crate) fn getdents(data: &[u8]) {
    let mut wanted = Vec::new();
    let mut at = 0;
    while at + 18 <= data.len() {
        let length = usize::from(u16::from_ne_bytes([data[at + 16], data[at + 17]]));
        if length < 19 || at + length > data.len() {
            break;
        }
        let name: Vec<u8> =
            data[at + 19..at + length].iter().copied().take_while(|&byte| byte != 0).collect();
        wanted.push(String::from_utf8(name).ok().and_then(|name| name.parse::<i32>().ok()));
        at += length;
    }
    let (mut found, mut rest) = (Vec::new(), data);
    while let Some((name, after)) = fuzz::next_record(rest) {
        assert!(after.len() < rest.len(), "no progress");
        assert!(data.ends_with(after));
        found.push(name);
        rest = after;
    }
    assert_eq!(found, wanted);
}

struct Place {
    thread: PathBuf,
    directory: Directory,
}

// SAFETY: libFuzzer runs one input after the other, in one thread.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

/// A directory of one thread, in memory.
static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let root = PathBuf::from(format!("/dev/shm/psx-fuzz-{}", std::process::id()));
    let thread = root.join("7");
    std::fs::create_dir_all(&thread).expect("a directory in /dev/shm");
    let path = CString::new(root.to_str().expect("a text")).expect("no zero");
    Place { thread, directory: Directory::open(&path).expect("the directory is there") }
});

/// `stat`, `status`, `syscall` and `wchan` of a thread, in this order.
pub(crate) fn proc_files(data: &[u8]) {
    let mut files = parts(data);
    let mut next = || files.next().unwrap_or_default();
    let [stat, status, syscall, wchan] = std::array::from_fn(|_| next());
    let names = ["stat", "status", "syscall", "wchan"];
    for (name, content) in names.into_iter().zip([stat, status, syscall, wchan]) {
        std::fs::write(PLACE.thread.join(name), content).expect("a file in /dev/shm");
    }
    assert_eq!(PLACE.directory.status(7), wanted(stat, status, syscall, wchan));
    assert_eq!(PLACE.directory.status(8), Found::NotFound);
    let columns = lines(status).rev().find_map(|line| line.strip_prefix(b"NSpid:"));
    let columns = columns.map(|line| {
        let bytes = line.trim_ascii();
        let last = bytes.rsplit(|&byte| byte == b'\t').next();
        let last = last.and_then(|last| std::str::from_utf8(last).ok()?.parse().ok());
        (last, bytes.contains(&b'\t'))
    });
    assert_eq!(PLACE.directory.ids(7), Some(columns.unwrap_or((None, false))));
}

/// The lines that have an end and are not too long.
fn lines(text: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let end = text.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
    text[..end].split(|&byte| byte == b'\n').filter(|line| line.len() <= 256)
}

fn hexadecimal(line: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(line.trim_ascii()).ok()?, 16).ok()
}

fn contains(text: &[u8], part: &str) -> bool {
    String::from_utf8_lossy(text).contains(part)
}

/// The name, the state, the flags and the start of a thread, proc_pid_stat(5).
fn stat_of(stat: &[u8]) -> Option<(&[u8], u8, u32, u64)> {
    let stat = &stat[..stat.len().min(2048)];
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    if close <= open || close + 2 > stat.len() {
        return None;
    }
    let fields: Vec<&[u8]> = stat[close + 2..].split(|&byte| byte == b' ').collect();
    let number = |place: usize| std::str::from_utf8(fields.get(place - 3)?).ok();
    let (flags, start) = (number(9)?.parse().ok()?, number(22)?.parse().ok()?);
    Some((&stat[open + 1..close], *fields[0].first()?, flags, start))
}

fn wanted(stat: &[u8], status: &[u8], syscall: &[u8], wchan: &[u8]) -> Found {
    let Some((long_name, state, flags, start)) = stat_of(stat) else { return Found::Unknown };
    let start = start as usize;
    if state == b'Z' || state == b'X' || flags & 4 != 0 {
        return Found::Exempt(SkipReason::Exiting, start);
    }
    let mask =
        |key: &str| lines(status).find_map(|line| hexadecimal(line.strip_prefix(key.as_bytes())?));
    let masks = [mask("SigBlk:"), mask("SigPnd:"), mask("ShdPnd:")];
    let [Some(blocked), Some(own), Some(shared)] = masks else { return Found::Unknown };
    let kill_and_stop = 1 << 8 | 1 << 18;
    if blocked | kill_and_stop == u64::MAX && flags & 0x4010 != 0 {
        let words: Vec<&[u8]> =
            syscall[..syscall.len().min(256)].trim_ascii().split(|&byte| byte == b' ').collect();
        let register = |back: usize| {
            let word = words.get(words.len().checked_sub(back)?)?;
            hexadecimal_word(word.strip_prefix(b"0x")?)
        };
        // A worker has neither a program counter nor a stack pointer. A line without both numbers tells nothing.
        let has_registers = match (register(1), register(2)) {
            _ if state == b'R' => None,
            (Some(counter), Some(stack)) => Some(counter != 0 || stack != 0),
            _ => None,
        };
        let since = if flags & 0x10 != 0 { (5, 12) } else { (6, 4) };
        let evidence = flags & 0x0400_0000 != 0 || *VERSION >= since;
        let worker = has_registers.map_or(evidence, |has| !has);
        if worker {
            let at = &wchan[..wchan.len().min(2048)];
            let pool = contains(at, "io_wq_worker") || contains(at, "io_wqe_worker");
            let reason = match (flags & 0x10 != 0, pool) {
                (true, true) => SkipReason::IoWorker,
                (true, false) => SkipReason::SqPoll,
                (false, _) => SkipReason::UserWorker,
            };
            return Found::Exempt(reason, start);
        }
    }
    let mut name = [0; 16];
    let length = long_name.len().min(16);
    name[..length].copy_from_slice(&long_name[..length]);
    let pending = own | shared;
    let reason = reason(state, blocked, pending, syscall, wchan);
    Found::Live { state, name, blocked, pending, reason }
}

fn hexadecimal_word(word: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()
}

/// The kernel's version. Before 5.7 the registers are not read, and this test would be wrong.
static VERSION: LazyLock<(u32, u32)> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0u32);
    (next(), next())
});

fn reason(
    state: u8,
    blocked: u64,
    pending: u64,
    syscall: &[u8],
    wchan: &[u8],
) -> UnreachableReason {
    let at = &wchan[..wchan.len().min(128)];
    let call = syscall[..syscall.len().min(128)].split(|&byte| byte == b' ').next();
    let call: Option<u32> =
        call.and_then(|word| std::str::from_utf8(word).ok()).and_then(|word| word.parse().ok());
    let is = |numbers: &[libc::c_long]| {
        call.is_some_and(|call| numbers.contains(&libc::c_long::from(call)))
    };
    let signal_33 = 1 << 32;
    #[cfg(target_arch = "x86_64")]
    let forks = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_fork, libc::SYS_vfork];
    #[cfg(not(target_arch = "x86_64"))]
    let forks = [libc::SYS_clone, libc::SYS_clone3];
    if state == b'T' {
        UnreachableReason::Stopped
    } else if state == b't' {
        UnreachableReason::Traced
    } else if state == b'S' && contains(at, "get_signal")
        || contains(at, "refrigerator")
        || contains(at, "freezer")
    {
        UnreachableReason::Frozen
    } else if contains(at, "vfork") {
        UnreachableReason::Vfork
    } else if is(&[libc::SYS_execve, libc::SYS_execveat]) {
        UnreachableReason::Exec
    } else if state == b'D' && is(&forks) {
        UnreachableReason::Vfork
    } else if blocked & signal_33 != 0 {
        UnreachableReason::SignalBlocked
    } else if state == b'D' {
        UnreachableReason::Uninterruptible
    } else if state == b'S'
        && pending & signal_33 != 0
        && [&b""[..], b"0"].contains(&at)
        && !syscall.starts_with(b"running")
    {
        UnreachableReason::Frozen
    } else {
        UnreachableReason::Unresponsive
    }
}

/// No system call has this number.
const NUMBER: u32 = 3999;

/// Six arguments, then instructions of eight bytes: the part between a check of the number and an end that returns.
pub(crate) fn bpf(data: &[u8]) {
    let Some((head, body)) = data.split_at_checked(48) else { return };
    let args: [u64; 6] = std::array::from_fn(|at| {
        u64::from_ne_bytes(head[8 * at..8 * at + 8].try_into().expect("eight bytes"))
    });
    let step = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let mut program = vec![
        step(0x20, 0, 0, 0),
        step(0x15, 1, 0, NUMBER),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    program.extend(body.chunks_exact(8).take(60).map(|bytes| {
        let k = u32::from_ne_bytes(bytes[4..8].try_into().expect("four bytes"));
        step(u16::from_ne_bytes([bytes[0], bytes[1]]), bytes[2], bytes[3], k)
    }));
    program.push(step(0x54, 0, 0, 0xfff));
    program.push(step(0x44, 0, 0, libc::SECCOMP_RET_ERRNO));
    program.push(step(0x16, 0, 0, 0));
    let checked = Program::new(&program);
    assert_eq!(checked.is_ok(), accepted(&program), "{checked:?}: {program:?}");
    let call = SeccompData::native(NUMBER, args);
    let action = checked.ok().map(|checked| checked.evaluate(&call));
    if let Some(action) = action {
        assert_eq!(action, Action::from_return_value(run(&program, &call)), "{program:?}");
    }
    // A child for each input would be slow. Which inputs have one depends on the input alone.
    let sum = data.iter().fold(0u32, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let reads_pointer = program.iter().any(|step| step.code == 0x20 && matches!(step.k, 8 | 12));
    if NATIVE.is_some() && !reads_pointer && (sum % 256 == 0 || *KERNEL) {
        beside_the_kernel(&program, args, action);
    }
}

/// Whether every input runs beside the kernel.
static KERNEL: LazyLock<bool> = LazyLock::new(|| std::env::var_os("PSX_FUZZ_KERNEL").is_some());

/// Whether the kernel accepts a program: each path from the beginning is followed.
fn accepted(program: &[Instruction]) -> bool {
    let known = |step: &Instruction| match step.code {
        0x20 => step.k < 64 && step.k % 4 == 0,
        0x02 | 0x03 | 0x60 | 0x61 => step.k < 16,
        0x34 => step.k != 0,
        0x64 | 0x74 => step.k < 32,
        0x80 | 0x00 | 0x81 | 0x01 | 0x84 | 0x06 | 0x16 | 0x07 | 0x87 | 0x05 => true,
        0x04 | 0x14 | 0x24 | 0x44 | 0x54 | 0xa4 => true,
        0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0xac => true,
        0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => true,
        _ => false,
    };
    if !program.iter().all(known) {
        return false;
    }
    let next = |at: usize| -> Vec<usize> {
        let step = &program[at];
        match step.code {
            0x05 => vec![at + 1 + step.k as usize],
            code if code & 7 == 5 => {
                vec![at + 1 + usize::from(step.jt), at + 1 + usize::from(step.jf)]
            }
            // The kernel follows the words of memory as if the program went on (check_load_and_stores).
            0x06 | 0x16 if at + 1 == program.len() => vec![],
            _ => vec![at + 1],
        }
    };
    if program.last().is_none_or(|step| !matches!(step.code, 0x06 | 0x16)) {
        return false;
    }
    if !(0..program.len()).all(|at| next(at).iter().all(|&to| to < program.len())) {
        return false;
    }
    let (mut seen, mut open) = (HashSet::new(), vec![(0, 0u16)]);
    while let Some((at, written)) = open.pop() {
        if !seen.insert((at, written)) {
            continue;
        }
        let (step, mut written) = (&program[at], written);
        match step.code {
            0x02 | 0x03 => written |= 1 << step.k,
            0x60 | 0x61 if written & 1 << step.k == 0 => return false,
            _ => {}
        }
        open.extend(next(at).into_iter().map(|to| (to, written)));
    }
    true
}

/// Runs a program that the kernel accepts.
fn run(program: &[Instruction], call: &SeccompData) -> u32 {
    let mut data = Vec::new();
    data.extend(call.nr.to_ne_bytes());
    data.extend(call.arch.to_ne_bytes());
    data.extend(call.instruction_pointer.to_ne_bytes());
    call.args.iter().for_each(|arg| data.extend(arg.to_ne_bytes()));
    let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; 16], 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let operand = if code & 8 == 0 { k } else { x };
        let place = k as usize;
        match code & 7 {
            0 => {
                a = match code & 0xe0 {
                    0x20 => {
                        u32::from_ne_bytes(data[place..place + 4].try_into().expect("four bytes"))
                    }
                    0x60 => memory[place],
                    0x80 => 64,
                    _ => k,
                }
            }
            1 => {
                x = match code & 0xe0 {
                    0x60 => memory[place],
                    0x80 => 64,
                    _ => k,
                }
            }
            2 => memory[place] = a,
            3 => memory[place] = x,
            4 => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x10 => a.wrapping_sub(operand),
                    0x20 => a.wrapping_mul(operand),
                    0x30 if operand == 0 => return 0,
                    0x30 => a / operand,
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a << (operand % 32),
                    0x70 => a >> (operand % 32),
                    0x80 => 0u32.wrapping_sub(a),
                    _ => a ^ operand,
                }
            }
            5 => {
                let holds = match code & 0xf0 {
                    0x00 => {
                        at += place;
                        continue;
                    }
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    _ => a & operand != 0,
                };
                at += usize::from(if holds { jt } else { jf });
            }
            6 => return if code == 0x16 { a } else { k },
            _ if code == 0x07 => x = a,
            _ => a = x,
        }
    }
}

/// Installs the program in a child, makes the call there, and compares the result.
fn beside_the_kernel(program: &[Instruction], args: [u64; 6], action: Option<Action>) {
    const REFUSED: i32 = 7;
    const OTHER: i32 = 8;
    let header = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the child makes raw calls.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the calls take numbers, and the kernel reads the program.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let set = libc::SECCOMP_SET_MODE_FILTER;
            if libc::syscall(libc::SYS_seccomp, set, 0, &header) != 0 {
                let refused = *libc::__errno_location() == libc::EINVAL;
                libc::_exit(if refused { REFUSED } else { OTHER });
            }
            let [a, b, c, d, e, f] = args;
            let value = libc::syscall(libc::c_long::from(NUMBER), a, b, c, d, e, f);
            let found = if value == -1 { *libc::__errno_location() } else { value as i32 };
            let wanted = match action {
                Some(Action::Errno(number)) => i32::from(number),
                // The kernel makes the call, which does not exist; or there is no tracer and no supervisor.
                _ => libc::ENOSYS,
            };
            libc::_exit(if found == wanted { 0 } else { 1 });
        }
    }
    let mut status = 0;
    // The timer of libFuzzer interrupts waits.
    // SAFETY: the kernel writes the status.
    while unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        assert_eq!(std::io::Error::last_os_error().kind(), std::io::ErrorKind::Interrupted);
    }
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == OTHER {
        return;
    }
    match action {
        None => assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == REFUSED),
        Some(action) if action.kills() => {
            assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS);
        }
        Some(_) => assert_eq!(status, 0, "{action:?}: {program:?}"),
    }
}
