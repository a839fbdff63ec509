//! A new session keyring is new: no other process, and no earlier plan, has it.
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::ffi::CString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use privileges::{CapabilitySets, Groups, Privileges};
use support::{isolated_as_root, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);
const SESSION: libc::c_long = -3;
const GET_KEYRING_ID: libc::c_long = 0;
const JOIN_SESSION_KEYRING: libc::c_long = 1;
const SET_PERMISSIONS: libc::c_long = 5;
/// All rights, for every process.
const ALL: libc::c_long = 0x3f3f_3f3f;

/// keyctl(2) with numbers. Panics if it fails.
fn keyctl(operation: libc::c_long, first: libc::c_long, second: libc::c_long) -> libc::c_long {
    // SAFETY: these operations take numbers, or no name.
    let value = unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second) };
    assert!(value >= 0, "keyctl {operation}: {}", std::io::Error::last_os_error());
    value
}

/// Returns the serial number of the session keyring of the calling thread.
fn session() -> libc::c_long {
    keyctl(GET_KEYRING_ID, SESSION, 0)
}

fn add(kind: &str, name: &str) -> libc::c_long {
    let (kind, name) = (CString::new(kind).unwrap(), CString::new(name).unwrap());
    let length = if kind.as_bytes() == b"user" { 1 } else { 0 };
    // SAFETY: strings, and the length of the value.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            c"v".as_ptr(),
            length,
            SESSION,
        )
    };
    assert!(key > 0, "add_key: {}", std::io::Error::last_os_error());
    key
}

/// Gives this process a session keyring of its own. Returns false, and records a skipped test, if the kernel has none.
fn own_session() -> bool {
    // SAFETY: no name.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) } > 0;
    if !joined {
        support::skipped(format!("no keyrings here: {}", std::io::Error::last_os_error()));
    }
    joined
}

fn as_root() -> Privileges {
    let held = CapabilitySets::current().unwrap().permitted;
    Privileges::new().stay_root().keep_groups().keep(held).new_session_keyring()
}

/// The names of keyrings belong to all processes. Any process may have made one with the name that another asks for.
#[test]
fn a_keyring_that_was_there_before_is_not_joined() {
    isolated_as_root("a_keyring_that_was_there_before_is_not_joined", WATCHDOG, || {
        if !own_session() {
            return;
        }
        sleepers(2);
        let other = add("keyring", &format!("privileges-{}", std::process::id()));
        keyctl(SET_PERMISSIONS, other, ALL);
        as_root().plan().unwrap().apply().unwrap();
        assert_ne!(session(), other);
    });
}

#[test]
fn each_plan_makes_a_keyring_of_its_own() {
    isolated_as_root("each_plan_makes_a_keyring_of_its_own", WATCHDOG, || {
        if !own_session() {
            return;
        }
        sleepers(2);
        as_root().plan().unwrap().apply().unwrap();
        let first = session();
        add("user", "token");
        as_root().plan().unwrap().apply().unwrap();
        assert_ne!(session(), first);
        let (kind, name) = (c"user".as_ptr(), c"token".as_ptr());
        const SEARCH: i64 = 10;
        // SAFETY: strings.
        let found = unsafe { libc::syscall(libc::SYS_keyctl, SEARCH, SESSION, kind, name, 0) };
        assert_eq!(found, -1);
    });
}

/// A process of the same user that has another session keyring does not see the name, and can neither link nor read.
#[test]
fn another_process_of_the_user_cannot_take_the_keys() {
    isolated_as_root("another_process_of_the_user_cannot_take_the_keys", WATCHDOG, || {
        if !own_session() {
            return;
        }
        sleepers(2);
        as_root().plan().unwrap().apply().unwrap();
        let (keyring, key) = (session(), add("user", "token"));
        let own = std::fs::read_to_string("/proc/keys").unwrap();
        assert!(own.contains(" keyring   libpsx-"), "{own}");
        let mut other = Command::new("cat");
        other.arg("/proc/keys");
        let leave = move || {
            const LINK: libc::c_long = 8;
            const READ: libc::c_long = 11;
            keyctl(JOIN_SESSION_KEYRING, 0, 0);
            for (operation, key) in [(LINK, keyring), (READ, keyring), (READ, key)] {
                // SAFETY: numbers; nothing is written, because the length is 0.
                let done =
                    unsafe { libc::syscall(libc::SYS_keyctl, operation, key, SESSION, 0, 0) };
                let error = std::io::Error::last_os_error();
                if done >= 0 || error.raw_os_error() != Some(libc::EACCES) {
                    return Err(error);
                }
            }
            Ok(())
        };
        // SAFETY: it makes system calls only.
        unsafe { other.pre_exec(leave) };
        let shown = other.output().expect("EACCES for each call");
        assert!(shown.status.success());
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(!shown.contains("libpsx-"), "{shown}");
    });
}

/// The programs run at the same time, so each keyring is in use.
#[test]
fn started_programs_share_no_keyring() {
    isolated_as_root("started_programs_share_no_keyring", WATCHDOG, || {
        if !own_session() {
            return;
        }
        let start = |user: u32, launch: bool| {
            // Only a process that has joined the keyring is shown its name.
            let mut command = Command::new("sh");
            command.args(["-c", "cat /proc/keys; cat"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let settings = Privileges::new().user(user).group(user).groups(Groups::NONE);
            let settings = settings.new_session_keyring();
            match launch {
                true => settings.plan_launch().unwrap().spawn(command).unwrap(),
                false => settings.plan().unwrap().spawn(command).unwrap(),
            }
        };
        let running = [(1000, false), (1001, false), (1000, true), (1001, true)]
            .map(|(user, launch)| start(user, launch));
        let mut names = Vec::new();
        for mut child in running {
            drop(child.stdin.take());
            let mut keys = String::new();
            child.stdout.take().unwrap().read_to_string(&mut keys).unwrap();
            assert!(child.wait().unwrap().success());
            let named: Vec<_> = keys
                .lines()
                .filter(|line| line.contains(" keyring "))
                .filter_map(|line| line.split_whitespace().nth(8).map(str::to_owned))
                .filter(|name| name.starts_with("libpsx-"))
                .collect();
            assert_eq!(named.len(), 1, "{keys}");
            names.extend(named);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 4, "{names:?}");
    });
}
