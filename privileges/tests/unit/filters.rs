//! `SystemCallFilter=`: what the filters allow and deny, beside systemd's own lists.

use super::*;

fn verdict(filter: &SystemCallFilter, number: libc::c_long) -> Action {
    let program = filter.program().unwrap();
    Program::new(&program).unwrap().evaluate(&SeccompData::native(number as u32, [0; 6]))
}

#[test]
fn filters_allow_and_deny_what_they_list() {
    let filter = |lines: &str| directives(lines).filter().unwrap();
    let only = filter("SystemCallFilter=openat read");
    assert_eq!(verdict(&only, libc::SYS_read), Action::Allow);
    assert_eq!(verdict(&only, libc::SYS_execve), Action::Allow, "@default is always allowed");
    assert_eq!(verdict(&only, libc::SYS_write), Action::KillProcess);
    let error = filter("SystemCallFilter=openat\nSystemCallErrorNumber=EACCES");
    assert_eq!(verdict(&error, libc::SYS_write), Action::Errno(libc::EACCES as u16));
    let without = filter("SystemCallFilter=~@mount chroot:EPERM\nSystemCallFilter=pivot_root");
    assert_eq!(verdict(&without, libc::SYS_mount), Action::KillProcess);
    assert_eq!(verdict(&without, libc::SYS_chroot), Action::Errno(libc::EPERM as u16));
    assert_eq!(verdict(&without, libc::SYS_pivot_root), Action::Allow, "taken away again");
    assert_eq!(verdict(&without, libc::SYS_write), Action::Allow);
    let narrowed =
        filter("SystemCallFilter=@system-service\nSystemCallFilter=~@resources:13 kill:kill");
    assert_eq!(verdict(&narrowed, libc::SYS_setrlimit), Action::Errno(13));
    assert_eq!(verdict(&narrowed, libc::SYS_kill), Action::KillProcess);
    assert_eq!(verdict(&narrowed, libc::SYS_write), Action::Allow);
    assert_eq!(verdict(&narrowed, libc::SYS_mount), Action::KillProcess);
    assert_eq!(directives("SystemCallFilter=read\nSystemCallFilter=").filter(), None);
    assert_eq!("0".parse(), Ok(Denial::Errno(0)));
    assert!("4096".parse::<Denial>().is_err() && "EPER".parse::<Denial>().is_err());

    // The calls are one in another convention than the CPU's, and one that a tracer has cancelled.
    let program = only.program().unwrap();
    let program = Program::new(&program).unwrap();
    let native = SeccompData::native(libc::SYS_read as u32, [0; 6]);
    let foreign = SeccompData { arch: native.arch ^ 1, ..native };
    assert_eq!(program.evaluate(&foreign), Action::KillProcess);
    let denies = without.program().unwrap();
    let denies = Program::new(&denies).unwrap();
    if cfg!(target_arch = "x86_64") {
        let x32 = SeccompData::native(libc::SYS_mount as u32 | 0x4000_0000, [0; 6]);
        assert_eq!(denies.evaluate(&x32), Action::KillProcess);
        assert_eq!(denies.evaluate(&SeccompData::native(u32::MAX, [0; 6])), Action::Allow);
    }
    // For each call, the program's action is the filter's.
    for number in 0..600 {
        let expected = match narrowed.denial_of(number) {
            None => Action::Allow,
            Some(Denial::Errno(errno)) => Action::Errno(errno),
            Some(_) => Action::KillProcess,
        };
        assert_eq!(verdict(&narrowed, number as libc::c_long), expected, "{number}");
    }
}

#[test]
fn every_group_and_every_call_of_systemd_is_known() {
    assert!(system_calls::version().starts_with("systemd 2"), "{}", system_calls::version());
    let names: Vec<_> = system_calls::group_names().collect();
    assert!(names.len() > 20 && names.contains(&"@system-service"), "{names:?}");
    for name in names {
        let mut filter = SystemCallFilter::new();
        filter.add(name).unwrap_or_else(|bad| panic!("{name}: {bad}"));
    }
}

/// `SystemCallArchitectures=` alone is a filter: calls of 32 bits and of x32 kill, and all others are allowed.
#[test]
fn native_calls_alone_are_a_filter() {
    let unit = service("SystemCallArchitectures=native").unwrap();
    let filter = unit.directives().filter().unwrap();
    assert!((0..1000).all(|number| filter.denial_of(number).is_none()));
    let program = filter.program().unwrap();
    let program = Program::new(&program).unwrap();
    let native = SeccompData::native(libc::SYS_mount as u32, [0; 6]);
    assert_eq!(program.evaluate(&native), Action::Allow);
    let foreign = SeccompData { arch: native.arch ^ 1, ..native };
    assert_eq!(program.evaluate(&foreign), Action::KillProcess);
    if cfg!(target_arch = "x86_64") {
        let x32 = SeccompData { nr: native.nr | 0x4000_0000, ..native };
        assert_eq!(program.evaluate(&x32), Action::KillProcess);
    }
    assert_eq!(
        directives("SystemCallArchitectures=native\nSystemCallArchitectures=").filter(),
        None
    );
    isolated_as_root("filters::native_calls_alone_are_a_filter", WATCHDOG, || {
        sleepers(2);
        let unit = service("User=65534\nGroup=65534\nSystemCallArchitectures=native").unwrap();
        unit.privileges().unwrap().plan().unwrap().apply().unwrap();
        support::all_have("Seccomp", "2");
        support::all_have("NoNewPrivs", "1");
    });
}

/// Compares the numbers with libc's. The list has calls of each age: those that came after Linux 6.8 were once left out, so
/// that a list of denied calls did not deny them.
#[test]
fn a_list_denies_every_call_that_the_cpu_has() {
    let denied = |name: &str, number: libc::c_long| {
        let filter = directives(&format!("SystemCallFilter=~{name}:EPERM")).filter().unwrap();
        let found = filter.denial_of(number as u32);
        assert_eq!(found, Some(Denial::Errno(libc::EPERM as u16)), "{name} is {number}");
        let program = filter.program().unwrap();
        let call = SeccompData::native(number as u32, [0; 6]);
        let action = Program::new(&program).unwrap().evaluate(&call);
        assert_eq!(action, Action::Errno(libc::EPERM as u16), "{name}");
    };
    for (name, number) in [
        ("read", libc::SYS_read),
        ("openat", libc::SYS_openat),
        ("clone3", libc::SYS_clone3),
        ("mseal", 462),
        ("setxattrat", 463),
        ("getxattrat", 464),
        ("listxattrat", 465),
        ("removexattrat", 466),
        ("open_tree_attr", 467),
        ("file_getattr", 468),
        ("file_setattr", 469),
    ] {
        denied(name, number);
    }
    if cfg!(target_arch = "x86_64") {
        denied("uretprobe", 335);
        denied("newfstatat", 262);
    } else if cfg!(any(target_arch = "aarch64", target_arch = "riscv64")) {
        denied("newfstatat", 79);
    }
    // socketcall(2) and ipc(2), where the CPU has them, do the same as other calls.
    let multiplexed = directives("SystemCallFilter=~connect shmat").filter().unwrap();
    let has_them = cfg!(any(target_arch = "x86", target_arch = "s390x", target_arch = "powerpc64"));
    for number in [102, 117] {
        assert!(multiplexed.denial_of(number) == Some(Denial::Kill) || !has_them, "{number}");
    }
    let count = (0..1000).filter(|number| multiplexed.denial_of(*number).is_some()).count();
    assert_eq!(count, if has_them { 4 } else { 2 });
    let group = directives("SystemCallFilter=~@file-system").filter().unwrap();
    assert_eq!(group.denial_of(463), Some(Denial::Kill));
    // A call that another CPU has changes nothing.
    let foreign = if cfg!(target_arch = "s390x") { "subpage_prot" } else { "s390_runtime_instr" };
    let other = directives(&format!("SystemCallFilter=~{foreign}")).filter().unwrap();
    assert!((0..1000).all(|number| other.denial_of(number).is_none()));
    // A call that no CPU has, or that the table does not have, is an error: the list would deny less than it says. A
    // group may have the former.
    assert!(system_calls::group("@file-system").unwrap().contains(" fstatat "));
    for name in ["fstatat", "gethostname", "llseek", "osf_wait4", "newer_than_the_table"] {
        for list in [format!("~{name}"), format!("~chroot {name}:EPERM"), format!("read {name}")] {
            let text = refused(&format!("SystemCallFilter={list}"));
            assert!(text.contains("no such system call") && text.contains(name), "{list}: {text}");
        }
    }
}

/// Compares the groups with those that the installed systemd prints. They are equal if the version is the tables'.
#[test]
fn groups_match_systemd_analyze() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command
            .args(arguments)
            .env("SYSTEMD_COLORS", "0")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let (Some(version), Some(text)) = (run(&["--version"]), run(&["--no-pager", "syscall-filter"]))
    else {
        return support::skipped("systemd-analyze cannot be run here");
    };
    let release = |text: &str| {
        text.split_whitespace().nth(1).unwrap_or_default().split('.').next().unwrap().to_owned()
    };
    let same = release(&version) == release(system_calls::version());
    let (mut name, mut compared, mut missing) = ("", 0, Vec::new());
    for line in text.lines() {
        match line.trim() {
            word if line.starts_with('@') => name = word,
            _ if !line.starts_with(' ') => name = "",
            word if !name.is_empty() && !word.is_empty() && !word.starts_with('#') => {
                compared += 1;
                let there = system_calls::group(name)
                    .is_some_and(|all| all.split(' ').any(|one| one == word));
                if !there {
                    missing.push(format!("{name}: {word}"));
                }
            }
            _ => {}
        }
    }
    assert!(compared > 500, "{compared}: {text}");
    if same {
        assert!(missing.is_empty(), "{missing:?}");
    } else {
        // A call may have moved to another group between two versions.
        println!(
            "{compared} members compared with {}; {} are elsewhere now: {missing:?}",
            version.lines().next().unwrap(),
            missing.len()
        );
        assert!(missing.len() * 20 < compared, "{missing:?}");
    }
}

/// Installs the program of a filter: the kernel's answers match the table.
#[test]
fn the_kernel_obeys_the_filter() {
    isolated_as_root("filters::the_kernel_obeys_the_filter", WATCHDOG, || {
        sleepers(2);
        let unit = service(
            "User=65534\nGroup=65534\nSystemCallFilter=@system-service\nSystemCallFilter=~@chown:EXDEV\n\
             SystemCallErrorNumber=EMLINK\nSystemCallArchitectures=native",
        );
        unit.unwrap().privileges().unwrap().plan().unwrap().apply().unwrap();
        support::all_have("Seccomp", "2");
        let errno = |result: libc::c_long| {
            if result < 0 { std::io::Error::last_os_error().raw_os_error() } else { None }
        };
        // SAFETY: the path is a string.
        let chown = unsafe { libc::syscall(libc::SYS_chown, c"/nonexistent".as_ptr(), 0, 0) };
        assert_eq!(errno(chown), Some(libc::EXDEV));
        // SAFETY: it takes numbers.
        let swap = unsafe { libc::syscall(libc::SYS_vhangup) };
        assert_eq!(errno(swap), Some(libc::EMLINK));
        assert!(std::fs::read("/proc/self/comm").is_ok());
    });
}
