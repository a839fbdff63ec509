//! Attacks that try to deceive the verification, to leave the new root directory, or to keep the process alive.
#![allow(unsafe_code)]

#[path = "adversarial/roots.rs"]
mod roots;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use landlock::{ABI, Access, AccessFs, RestrictSelfAttr, Ruleset, RulesetAttr, RulesetCreatedAttr};
use privileges::{Error, Groups, LandlockFlags, Mismatch, Privileges};
use support::{
    LOWER, filter, install, isolated_as_root, isolated_status, prepared, proc, program, sleepers,
    step,
};

const NOTHING: *const u8 = std::ptr::null();
const WATCHDOG: Duration = Duration::from_secs(60);

/// Returns settings that become `nobody`.
fn nobody() -> Privileges {
    Privileges::new().user(65534).group(65534).groups(Groups::NONE).report_failure()
}

fn rooted() -> Privileges {
    Privileges::new().stay_root().keep_groups().report_failure()
}

fn not_dropped(privileges: Privileges) -> Vec<Mismatch> {
    match privileges.plan().unwrap().apply() {
        Err(Error::NotDropped(wrong)) => wrong,
        other => panic!("{other:?}"),
    }
}

/// Makes an empty directory.
fn jail() -> PathBuf {
    let jail = std::env::temp_dir().join(format!("privileges-jail-{}", std::process::id()));
    std::fs::create_dir_all(&jail).unwrap();
    jail
}

/// Installs a filter in this thread, under which these calls succeed without effect.
fn pretend(calls: &[libc::c_long]) {
    install(&program(calls, libc::SECCOMP_RET_ERRNO, libc::SECCOMP_RET_ALLOW));
}

fn allow_all() -> Vec<seccompiler::sock_filter> {
    vec![seccompiler::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }]
}

fn ruleset() -> landlock::RulesetCreated {
    Ruleset::default().handle_access(AccessFs::from_all(ABI::V1)).unwrap().create().unwrap()
}

fn permitted() -> privileges::CapabilitySet {
    privileges::CapabilitySets::current().unwrap().permitted
}

#[test]
fn a_name_that_is_not_utf_8() {
    isolated_as_root("a_name_that_is_not_utf_8", WATCHDOG, || {
        prepared(|| {
            // SAFETY: the kernel reads a string.
            unsafe { libc::prctl(libc::PR_SET_NAME, c"Schlussabf\xc3\xbchr\xc3".as_ptr()) };
            pretend(&[libc::SYS_capset, libc::SYS_capget]);
        });
        let wrong = not_dropped(rooted());
        let shown = |one: &Mismatch| one.what == "CapPrm" && one.found != "none";
        assert!(wrong.iter().any(shown), "{wrong:?}");
    });
}

/// Hides a thread from this process: the process outside still reads it.
#[test]
fn a_new_filter_or_domain_hides_no_thread() {
    isolated_as_root("a_new_filter_or_domain_hides_no_thread", WATCHDOG, || {
        let program = allow_all();
        for settings in [
            rooted().landlock(ruleset()),
            rooted().seccomp(&program),
            rooted().landlock(ruleset()).seccomp(&program),
        ] {
            support::forked(|| {
                sleepers(2);
                let plan = settings.plan().unwrap();
                let filtered = plan.to_string().contains("seccomp");
                let applied = plan.apply().unwrap();
                assert_eq!((applied.threads, applied.verified), (3, 3));
                // SAFETY: it touches no memory.
                assert_eq!(unsafe { libc::prctl(libc::PR_GET_SECCOMP) } == 2, filtered);
            });
        }
        prepared(|| pretend(&[libc::SYS_capset, libc::SYS_capget]));
        let wrong = not_dropped(rooted().landlock(ruleset()));
        assert!(wrong.iter().any(|one| one.what == "CapPrm"), "{wrong:?}");
    });
}

/// Lets threads end while the descriptor tables are compared. A thread that has ended has no table any more.
#[test]
fn threads_that_end_are_not_taken_for_others() {
    isolated_as_root("threads_that_end_are_not_taken_for_others", WATCHDOG, || {
        static STOP: AtomicBool = AtomicBool::new(false);
        let jail = jail();
        let spawning = std::thread::spawn(|| {
            while !STOP.load(Ordering::SeqCst) {
                let some: Vec<_> = (0..8).map(|_| std::thread::spawn(|| ())).collect();
                some.into_iter().for_each(|thread| thread.join().unwrap());
            }
        });
        for _ in 0..20 {
            rooted()
                .keep(privileges::CapabilitySet::all() & permitted())
                .chdir(&jail)
                .plan()
                .unwrap()
                .apply()
                .unwrap();
        }
        STOP.store(true, Ordering::SeqCst);
        spawning.join().unwrap();
    });
}

/// Checks that the program does not see the child process that reads /proc, and that it has ended afterwards.
#[test]
fn no_child_process_is_left() {
    isolated_as_root("no_child_process_is_left", WATCHDOG, || {
        static SIGNALS: AtomicU32 = AtomicU32::new(0);
        extern "C" fn count(_: i32) {
            SIGNALS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the handler adds to a number.
        unsafe { libc::signal(libc::SIGCHLD, count as *const () as usize) };
        sleepers(2);
        let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap();
        for _ in 0..5 {
            rooted().keep(permitted()).seccomp(&allow_all()).plan().unwrap().apply().unwrap();
            assert_eq!(children(), "");
        }
        // SAFETY: it takes numbers.
        let waited =
            unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) };
        assert_eq!(waited, -1);
        assert_eq!(SIGNALS.load(Ordering::SeqCst), 0);
    });
}

/// Installs an earlier filter in this thread alone, which kills the process that reads /proc. Then only the threads are
/// asked, and the process that has died leaves no zombie.
#[test]
fn an_earlier_filter_that_kills_the_child_does_not_stop_the_drop() {
    let case = "an_earlier_filter_that_kills_the_child_does_not_stop_the_drop";
    isolated_as_root(case, WATCHDOG, || {
        for call in [libc::SYS_getppid, libc::SYS_close_range] {
            for action in [libc::SECCOMP_RET_KILL_PROCESS, libc::SECCOMP_RET_TRAP] {
                support::forked(|| {
                    sleepers(2);
                    filter(call, action);
                    let begun = std::time::Instant::now();
                    let applied = nobody().chroot(jail()).plan().unwrap().apply().unwrap();
                    assert_eq!((applied.threads, applied.verified), (3, 0));
                    // A child that does not answer gets 10 seconds.
                    assert!(begun.elapsed() < Duration::from_secs(10));
                    // SAFETY: it takes numbers.
                    let waited = unsafe {
                        libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG)
                    };
                    assert_eq!(waited, -1);
                });
            }
        }
    });
}

/// Traps calls of this process and of the one that reads /proc for it. The program's handler for SIGSYS answers them.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_handler_answers_the_trapped_calls_of_the_child() {
    use support::emulator::{TRAPPED, emulate_trapped_calls, trapping};
    isolated_as_root("a_handler_answers_the_trapped_calls_of_the_child", WATCHDOG, || {
        sleepers(2);
        let threads = proc::tids().len();
        emulate_trapped_calls();
        install(&trapping(&[libc::SYS_clone, libc::SYS_getpid, libc::SYS_getppid]));
        let applied = nobody().chroot(jail()).plan().unwrap().apply().unwrap();
        assert_eq!((applied.threads, applied.verified), (threads, threads));
        assert!(TRAPPED.load(Ordering::SeqCst) > 0);
    });
}

/// Makes every look at a clock kill, also one that makes no system call: the filter of the plan may forbid to read the time.
#[cfg(target_arch = "x86_64")]
#[test]
fn no_clock_of_the_c_library_is_read() {
    isolated_as_root("no_clock_of_the_c_library_is_read", WATCHDOG, || {
        sleepers(2);
        let threads = proc::tids().len();
        let plan = nobody().seccomp(&allow_all()).plan().unwrap();
        // The C library reads the CPU's counter, if that is the kernel's clock.
        // SAFETY: it takes numbers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV) }, 0);
        let applied = plan.apply();
        // SAFETY: it takes numbers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_ENABLE) }, 0);
        let applied = applied.unwrap();
        assert_eq!((applied.threads, applied.verified), (threads, threads));
    });
}

/// Closes standard input, so that the descriptor of /proc gets the number 0.
#[test]
fn a_drop_works_without_standard_input() {
    isolated_as_root("a_drop_works_without_standard_input", WATCHDOG, || {
        sleepers(2);
        let threads = proc::tids().len();
        let plan = nobody().chroot(jail()).plan().unwrap();
        // SAFETY: it takes a number.
        unsafe { libc::close(0) };
        let applied = plan.apply().unwrap();
        assert_eq!((applied.threads, applied.verified), (threads, threads));
    });
}

/// Mounts a /proc that hides this process from the process that reads for it. Then only the threads are asked.
#[test]
fn a_process_hidden_by_hidepid_asks_its_threads() {
    isolated_as_root("a_process_hidden_by_hidepid_asks_its_threads", WATCHDOG, || {
        for options in [c"hidepid=1,gid=4242", c"hidepid=2,gid=4242"] {
            support::forked(|| {
                if !support::private_mounts() {
                    return;
                }
                let proc = c"proc".as_ptr();
                // SAFETY: strings.
                let made = unsafe {
                    libc::mount(proc, c"/proc".as_ptr(), proc, 0, options.as_ptr().cast())
                };
                if made != 0 {
                    support::skipped(format!(
                        "no mount of proc: {}",
                        std::io::Error::last_os_error()
                    ));
                    return;
                }
                sleepers(2);
                let ptrace = privileges::Capability::SYS_PTRACE.into();
                rooted().keep(permitted() - ptrace).plan().unwrap().apply().unwrap();
                let applied = nobody().chroot(jail()).plan().unwrap().apply().unwrap();
                assert_eq!((applied.threads, applied.verified), (3, 0));
            });
        }
    });
}

/// Forbids the process outside to follow the links of a process that has changed its user, as in a container.
#[test]
fn a_drop_works_without_cap_sys_ptrace() {
    isolated_as_root("a_drop_works_without_cap_sys_ptrace", WATCHDOG, || {
        sleepers(2);
        let threads = proc::tids().len();
        let ptrace = privileges::Capability::SYS_PTRACE.into();
        rooted().keep(permitted() - ptrace).plan().unwrap().apply().unwrap();
        let applied = nobody().chroot(jail()).plan().unwrap().apply().unwrap();
        assert_eq!((applied.threads, applied.verified), (threads, threads));
    });
}

/// Mounts another file system, or the tasks of another process, at /proc.
#[test]
fn a_false_proc_is_detected() {
    isolated_as_root("a_false_proc_is_detected", WATCHDOG, || {
        for tasks in [true, false] {
            support::forked(|| {
                if !support::private_mounts() {
                    return;
                }
                let none = std::ptr::null::<libc::c_char>();
                if tasks {
                    let own = format!("/proc/{}/task", std::process::id());
                    let own = std::ffi::CString::new(own).unwrap();
                    let bind = libc::MS_BIND;
                    // SAFETY: strings.
                    let made = unsafe {
                        libc::mount(c"/proc/1/task".as_ptr(), own.as_ptr(), none, bind, none.cast())
                    };
                    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
                } else {
                    // This is a copy of the present state, which does not change with the threads.
                    let status = std::fs::read("/proc/thread-self/status").unwrap();
                    let tmpfs = c"tmpfs".as_ptr();
                    // SAFETY: strings.
                    let made =
                        unsafe { libc::mount(tmpfs, c"/proc".as_ptr(), tmpfs, 0, none.cast()) };
                    assert_eq!(made, 0);
                    let own = format!("/proc/self/task/{}", std::process::id());
                    std::fs::create_dir_all(&own).unwrap();
                    std::fs::write(own + "/status", status).unwrap();
                }
                let applied = nobody().plan().unwrap().apply().unwrap();
                assert_eq!((applied.threads, applied.verified), (1, 0));
            });
        }
    });
}

#[test]
fn landlock_brings_no_new_privs_without_landlock() {
    isolated_as_root("landlock_brings_no_new_privs_without_landlock", WATCHDOG, || {
        sleepers(2);
        // A filter in this thread alone answers like a kernel without Landlock.
        let none = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        let ruleset = std::thread::spawn(move || {
            filter(libc::SYS_landlock_create_ruleset, none);
            ruleset()
        });
        let plan = nobody().landlock(ruleset.join().unwrap()).plan().unwrap();
        assert!(plan.to_string().contains("the kernel does not support the ruleset"), "{plan}");
        plan.apply().unwrap();
        support::all_have("NoNewPrivs", "1");
    });
}

/// Checks that the flags of the ruleset reach the kernel, and that a setting replaces them.
#[test]
fn landlock_flags_are_carried() {
    isolated_as_root("landlock_flags_are_carried", WATCHDOG, || {
        // SAFETY: it asks for the version.
        let version =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, NOTHING, 0usize, 1) };
        if version < 7 {
            support::skipped(format!(
                "this kernel's Landlock, version {version}, has no such flags"
            ));
            return;
        }
        let quiet = || ruleset().log_same_exec(false).unwrap().log_new_exec(true).unwrap();
        let plan = rooted().landlock(quiet().log_subdomains(false).unwrap()).plan().unwrap();
        let shown = plan.to_string();
        let all = "landlock_restrict_self, LandlockFlags(LOG_SAME_EXEC_OFF | LOG_NEW_EXEC_ON | LOG_SUBDOMAINS_OFF)";
        assert!(shown.contains(all), "{shown}");
        let none = rooted().landlock(quiet()).landlock_flags(LandlockFlags::EMPTY).plan().unwrap();
        assert!(!none.to_string().contains("LandlockFlags"), "{none}");
        support::forked(|| rooted().landlock(quiet()).plan().unwrap().apply().map(|_| ()).unwrap());
        // A filter of the calling thread sees the arguments that the kernel would get.
        let (load, equal, answer) = (
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::BPF_RET | libc::BPF_K,
        );
        let second_argument = 16 + 8 + LOWER;
        let mut program = support::unless_one_of(&[libc::SYS_landlock_restrict_self], 3);
        program.extend([
            step(load, 0, 0, second_argument),
            step(equal, 0, 1, 7),
            step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EXDEV as u32),
            step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]);
        install(&program);
        match plan.apply() {
            Err(Error::Partial { error, .. }) => assert_eq!(error.raw_os_error(), libc::EXDEV),
            other => panic!("{other:?}"),
        }
    });
}

/// Makes standard error a full pipe, with a reader or without: the process ends before any thread has run on.
#[test]
fn a_full_standard_error_does_not_stop_the_kill() {
    let case = "a_full_standard_error_does_not_stop_the_kill";
    if support::skipped_without_root(case) {
        return;
    }
    let (status, output) = isolated_status(case, WATCHDOG, || {
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two descriptors.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK) }, 0);
        let bytes = [b'.'; 4096];
        // SAFETY: the bytes are as many as said.
        while unsafe { libc::write(ends[1], bytes.as_ptr().cast(), bytes.len()) } > 0 {}
        // SAFETY: it takes numbers. Writing waits from now on.
        unsafe { libc::fcntl(ends[1], libc::F_SETFL, 0) };
        // SAFETY: both are open.
        unsafe { libc::dup2(ends[1], 2) };
        prepared(|| pretend(&[libc::SYS_setresuid]));
        let _ = Privileges::new().user("nobody").plan().unwrap().apply();
        println!("went on");
    });
    assert_eq!(status.signal(), Some(33), "{output}");
    assert!(!output.contains("went on"), "{output}");
}

/// Makes many differences: the line on the pipe still ends with the consequence for the process.
#[test]
fn a_long_line_ends_with_the_consequence() {
    let case = "a_long_line_ends_with_the_consequence";
    if support::skipped_without_root(case) {
        return;
    }
    let (status, output) = isolated_status(case, WATCHDOG, || {
        for _ in 0..200 {
            prepared(|| pretend(&[libc::SYS_setresuid]));
        }
        let _ = Privileges::new().user("nobody").plan().unwrap().apply();
    });
    assert_eq!(status.signal(), Some(33), "{output}");
    assert!(output.ends_with("; process killed\n") && output.len() > 4000, "{output}");
}

/// Installs a handler for every signal: the handlers do not keep the process alive.
#[test]
fn signal_handlers_do_not_stop_the_kill() {
    let case = "signal_handlers_do_not_stop_the_kill";
    if support::skipped_without_root(case) {
        return;
    }
    let (status, output) = isolated_status(case, WATCHDOG, || {
        extern "C" fn go_on(_: i32) {}
        for signal in 1..65 {
            // SAFETY: the handler does nothing.
            unsafe { libc::signal(signal, go_on as *const () as usize) };
        }
        prepared(|| pretend(&[libc::SYS_setresuid]));
        let _ = Privileges::new().user("nobody").plan().unwrap().apply();
        println!("went on");
    });
    assert_eq!(status.signal(), Some(33), "{output}");
    assert!(
        output.contains("privileges: not dropped: thread ") && !output.contains("went on"),
        "{output}"
    );
}

/// Installs earlier filters that pretend every call by which a process may end. rt_sigaction(2) still answers which action a
/// signal has.
#[test]
fn a_filter_does_not_stop_the_kill() {
    let case = "a_filter_does_not_stop_the_kill";
    if support::skipped_without_root(case) {
        return;
    }
    let (status, output) = isolated_status(case, WATCHDOG, || {
        let calls = [libc::SYS_tgkill, libc::SYS_kill, libc::SYS_exit_group];
        prepared(|| pretend(&[libc::SYS_setresuid]));
        let plan = Privileges::new().user("nobody").plan().unwrap();
        // The handler of signal 33 is installed already.
        libpsx::process::identities(0).unwrap();
        pretend(&calls);
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let answer = libc::BPF_RET | libc::BPF_K;
        // seccomp(2), struct seccomp_data: the number, and the second argument.
        install(&[
            step(load, 0, 0, 0),
            step(equal, 0, 3, libc::SYS_rt_sigaction as u32),
            step(load, 0, 0, 24 + LOWER),
            step(equal, 1, 0, 0),
            step(answer, 0, 0, libc::SECCOMP_RET_ERRNO),
            step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]);
        let _ = plan.apply();
        println!("went on");
        // SAFETY: it takes a number.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    assert!(status.signal().is_some(), "{status} {output}");
    assert!(!output.contains("went on"), "{output}");
}

/// A file outside of the new root directory that only root can read, until it is dropped.
struct Secret(PathBuf);

impl Secret {
    const TEXT: &str = "only root reads this";

    fn new() -> Self {
        let name = format!("privileges-secret-{}", std::process::id());
        let secret = Self(std::env::temp_dir().join(name));
        std::fs::write(&secret.0, Self::TEXT).unwrap();
        let only_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret.0, only_owner).unwrap();
        secret
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The result of an attack.
#[derive(Default)]
struct Attack {
    /// The child has answered a forged request.
    answered: bool,
    /// The text was seen in the shared memory.
    found: bool,
}

/// Asks the process that reads /proc for any file, through the memory that it shares with this process. `at` is that
/// memory.
fn misuse(at: usize, length: usize, path: &[u8], text: &[u8]) -> Attack {
    // SAFETY: the first word of the mapping.
    let turn = unsafe { &*(at as *const AtomicU32) };
    let word = |offset: usize| (at + offset) as *mut u32;
    let ask = |name: usize, numbers: &[(usize, u32)]| {
        for (index, byte) in path.iter().chain(&[0]).enumerate() {
            // SAFETY: it is within the mapping.
            unsafe { ((at + name + index) as *mut u8).write_volatile(*byte) };
        }
        for &(offset, number) in numbers {
            // SAFETY: it is within the mapping.
            unsafe { word(offset).write_volatile(number) };
        }
        turn.store(1, Ordering::SeqCst);
        // SAFETY: the word is in the mapping.
        unsafe { libc::syscall(libc::SYS_futex, turn.as_ptr(), libc::FUTEX_WAKE, 8, 0, 0, 0) };
        for _ in 0..20_000 {
            if turn.load(Ordering::SeqCst) != 1 {
                break;
            }
            std::hint::spin_loop();
        }
    };
    let seen = || {
        // SAFETY: the mapping is so long.
        let seen = unsafe { std::slice::from_raw_parts(at as *const u8, length) };
        seen.windows(text.len()).any(|part| part == text)
    };
    let mut attack = Attack::default();
    // The fields of a request, and the result of the call. The data come after them.
    let (step, thread, item, result, data) = (4, 8, 12, 16, 24);
    // SAFETY: it touches no memory.
    let own = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
    // Rewind, List, Open, Read and Identify. After a step that opens, the child reads.
    for number in [2, 4, 0, 1, 3] {
        for name in [own, 0, 1, std::os::unix::process::parent_id(), u32::MAX] {
            for kind in [7, u32::MAX, 0, 1, 2, 3] {
                ask(data, &[(step, number), (thread, name), (item, kind)]);
                // SAFETY: it is within the mapping.
                let error = unsafe { ((at + result) as *const isize).read_volatile() };
                // This process does not ask for such an item, so the answer is to the forged request.
                attack.answered |= kind >= 7 && error == -(libc::EINVAL as isize);
                ask(data, &[(step, 3), (thread, name), (item, 0)]);
                attack.found |= seen();
            }
        }
    }
    // The places at which a step and a name could be, and the numbers of the steps.
    for step in [8, 4, 12] {
        for name in [24, 16, 32, 40] {
            for number in [2, 0, 1, 3, 4] {
                ask(name, &[(step, number)]);
                ask(name, &[(step, 3)]);
                attack.found |= seen();
            }
        }
    }
    attack
}

/// Attacks the child that reads /proc while this process drops its privileges.
fn attack_while_dropping(jail: &Path, path: &[u8], text: &'static str) -> Attack {
    sleepers(40);
    let path = path.to_owned();
    let attacker = std::thread::spawn(move || {
        use std::io::{Read, Seek};
        let mut maps = std::fs::File::open("/proc/self/maps").unwrap();
        let mut all = Attack::default();
        let mut dropped_for = 0;
        while dropped_for < 200 && !all.found {
            // SAFETY: it touches no memory.
            let dropped = unsafe { libc::syscall(libc::SYS_geteuid) } == 65534;
            if !dropped {
                std::hint::spin_loop();
                continue;
            }
            dropped_for += 1;
            let mut lines = String::new();
            maps.rewind().unwrap();
            let _ = maps.read_to_string(&mut lines);
            let shared = |line: &&str| line.contains("rw-s") && line.contains("/dev/zero");
            for line in lines.lines().filter(shared) {
                let (from, rest) = line.split_once('-').unwrap();
                let to = rest.split(' ').next().unwrap();
                let [from, to] =
                    [from, to].map(|number| usize::from_str_radix(number, 16).unwrap());
                let (old, length) = (from as *mut libc::c_void, to - from);
                // The other thread unmaps the memory, so this thread makes a mapping of its own.
                // SAFETY: a length of 0 leaves the old mapping.
                let own = unsafe { libc::mremap(old, 0, length, libc::MREMAP_MAYMOVE) };
                if own != libc::MAP_FAILED {
                    let one = misuse(own as usize, length, &path, text.as_bytes());
                    all.answered |= one.answered;
                    all.found |= one.found;
                    // SAFETY: it was made above.
                    unsafe { libc::munmap(own, length) };
                }
            }
        }
        all
    });
    std::thread::sleep(Duration::from_millis(50));
    // The attack may disturb the reading, so the result does not matter.
    let result = nobody().chroot(jail).plan().unwrap().apply();
    let all = attacker.join().unwrap();
    println!("answered: {}; found: {}; {result:?}", all.answered, all.found);
    all
}

/// After the stop, all threads run without privilege. The process that reads /proc for them has more. An attack that comes
/// too late for the child shows nothing, so the attack is repeated until the child has answered a forged request.
#[test]
fn no_thread_reads_files_through_the_child() {
    const FOUND: i32 = 1;
    const TOO_LATE: i32 = 2;
    isolated_as_root("no_thread_reads_files_through_the_child", WATCHDOG, || {
        let secret = Secret::new();
        let jail = jail();
        let name = secret.0.as_os_str().as_encoded_bytes();
        let (began, mut attacks) = (Instant::now(), 0);
        while began.elapsed() < support::watchdog(WATCHDOG) / 2 {
            attacks += 1;
            let status =
                support::forked_status(|| match attack_while_dropping(&jail, name, Secret::TEXT) {
                    Attack { found: true, .. } => support::end(FOUND),
                    Attack { answered: false, .. } => support::end(TOO_LATE),
                    Attack { .. } => {}
                });
            assert!(libc::WIFEXITED(status), "{status:#x}");
            match libc::WEXITSTATUS(status) {
                0 => return,
                TOO_LATE => {}
                code => panic!("the child of the test ended with {code}"),
            }
        }
        support::skipped(format!("each of {attacks} attacks came too late for the child"));
    });
}
