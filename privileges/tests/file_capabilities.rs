//! Capabilities of files, compared with libcap's cap_get_file(3) and cap_set_file(3) on random values, and their effect
//! on execve(2).
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use privileges::file::{self, FileCapabilities, ParseFileCapabilitiesError};
use privileges::{Capability, CapabilitySet, CapabilitySets, Uid};
use support::{Library, isolated_as_root, random, repeated, seed};

const WATCHDOG: Duration = Duration::from_secs(120);

struct Libcap {
    init: unsafe extern "C" fn() -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void) -> c_int,
    get_flag: unsafe extern "C" fn(*mut c_void, c_int, c_int, *mut c_int) -> c_int,
    set_flag: unsafe extern "C" fn(*mut c_void, c_int, c_int, *const c_int, c_int) -> c_int,
    get_file: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    set_file: unsafe extern "C" fn(*const c_char, *mut c_void) -> c_int,
    get_fd: unsafe extern "C" fn(c_int) -> *mut c_void,
    set_fd: unsafe extern "C" fn(c_int, *mut c_void) -> c_int,
    get_owner: unsafe extern "C" fn(*mut c_void) -> u32,
    set_owner: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
}

impl Libcap {
    fn load() -> Option<Self> {
        let library = Library::load(c"libcap.so.2")?;
        Some(Self {
            // SAFETY: sys/capability.h declares it like this.
            init: unsafe { library.function(c"cap_init") },
            // SAFETY: as above.
            free: unsafe { library.function(c"cap_free") },
            // SAFETY: as above.
            get_flag: unsafe { library.function(c"cap_get_flag") },
            // SAFETY: as above.
            set_flag: unsafe { library.function(c"cap_set_flag") },
            // SAFETY: as above.
            get_file: unsafe { library.function(c"cap_get_file") },
            // SAFETY: as above.
            set_file: unsafe { library.function(c"cap_set_file") },
            // SAFETY: as above.
            get_fd: unsafe { library.function(c"cap_get_fd") },
            // SAFETY: as above.
            set_fd: unsafe { library.function(c"cap_set_fd") },
            // SAFETY: as above.
            get_owner: unsafe { library.function(c"cap_get_nsowner") },
            // SAFETY: as above.
            set_owner: unsafe { library.function(c"cap_set_nsowner") },
        })
    }

    /// Makes libcap's form of the sets and the owner.
    fn make(&self, sets: CapabilitySets, owner: u32) -> *mut c_void {
        // SAFETY: it makes empty sets.
        let made = unsafe { (self.init)() };
        // The sets are in the order of cap_flag_t.
        for (flag, set) in (0..).zip([sets.effective, sets.permitted, sets.inheritable]) {
            for capability in set.iter() {
                let number = c_int::from(capability.number());
                // SAFETY: one number.
                assert_eq!(unsafe { (self.set_flag)(made, flag, 1, &number, 1) }, 0);
            }
        }
        // SAFETY: the sets were just made.
        assert_eq!(unsafe { (self.set_owner)(made, owner) }, 0);
        made
    }

    /// Returns the contents of libcap's sets, and frees them. Returns `None` if there are no sets.
    fn take(&self, sets: *mut c_void) -> Option<(CapabilitySets, u32)> {
        if sets.is_null() {
            return None;
        }
        let flag = |flag| {
            let has = |capability: &Capability| {
                let mut value = 0;
                let number = c_int::from(capability.number());
                // SAFETY: sets, and room for an answer.
                unsafe { (self.get_flag)(sets, number, flag, &mut value) == 0 && value == 1 }
            };
            CapabilitySet::all().iter().filter(has).collect()
        };
        let [effective, permitted, inheritable] = [0, 1, 2].map(flag);
        // SAFETY: sets.
        let owner = unsafe { (self.get_owner)(sets) };
        // SAFETY: they are not used any more.
        unsafe { (self.free)(sets) };
        Some((CapabilitySets { effective, permitted, inheritable }, owner))
    }
}

/// Makes an empty directory for this process.
fn directory() -> PathBuf {
    let path = std::env::temp_dir().join(format!("privileges-file-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Returns the raw attribute of a file.
fn attribute(path: &Path) -> Option<Vec<u8>> {
    let (path, mut bytes) = (text(path), [0u8; 64]);
    let name = c"security.capability";
    // SAFETY: the arguments are strings, and a buffer with its length.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len())
    };
    (length >= 0).then(|| bytes[..length as usize].to_vec())
}

#[test]
fn file_capabilities_match_libcap() {
    isolated_as_root("file_capabilities_match_libcap", WATCHDOG, || {
        let Some(libcap) = Libcap::load() else { return };
        let directory = directory();
        let [ours, theirs] = ["ours", "theirs"].map(|name| directory.join(name));
        let [our_file, their_file] = [&ours, &theirs].map(|path| File::create(path).unwrap());
        if let Err(error) = file::set(&ours, FileCapabilities::NONE) {
            support::skipped(format!(
                "no capabilities of files in {}: {error}",
                directory.display()
            ));
            return;
        }
        let mut state = seed();
        let (mut set, mut refused) = (0, 0);
        for round in repeated(1000, WATCHDOG) {
            let all = CapabilitySet::all();
            let mut some =
                || CapabilitySet::from_bits(random(&mut state) & random(&mut state)) & all;
            let (permitted, inheritable, other) = (some(), some(), some());
            let effective = match random(&mut state) % 4 {
                0 => CapabilitySet::EMPTY,
                1 => other,
                _ => permitted | inheritable,
            };
            let sets = CapabilitySets { effective, permitted, inheritable };
            let owner = if round % 2 == 0 { 0 } else { random(&mut state) as u32 % 60000 };
            let by_fd = random(&mut state) % 2 == 0;
            let made = libcap.make(sets, owner);
            let path = text(&theirs);
            let done = match by_fd {
                // SAFETY: an open file, and sets.
                true => unsafe { (libcap.set_fd)(their_file.as_raw_fd(), made) },
                // SAFETY: a string, and sets.
                false => unsafe { (libcap.set_file)(path.as_ptr(), made) },
            } == 0;
            // SAFETY: they are not used any more.
            unsafe { (libcap.free)(made) };
            let wanted = FileCapabilities::try_from(sets);
            let Ok(wanted) = wanted else {
                // libcap drops a capability that is only effective. This crate returns an error for it.
                assert!(!done || effective.is_superset(permitted | inheritable), "round {round}");
                refused += 1;
                continue;
            };
            assert!(done, "round {round}: {sets}");
            let wanted = FileCapabilities { root: Uid::new(owner).unwrap(), ..wanted };
            match by_fd {
                true => file::set_fd(&our_file, wanted).unwrap(),
                false => file::set(&ours, wanted).unwrap(),
            }
            assert_eq!(attribute(&ours), attribute(&theirs), "round {round}: {wanted}");
            assert_eq!(attribute(&ours), Some(wanted.to_bytes()), "round {round}: {wanted}");
            // Each of the two reads the value that the other has set.
            let read = [file::get(&theirs), file::get_fd(&their_file)];
            assert!(read.iter().all(|read| *read.as_ref().unwrap() == Some(wanted)), "{read:?}");
            // SAFETY: a string.
            let by_path = libcap.take(unsafe { (libcap.get_file)(text(&ours).as_ptr()) });
            // SAFETY: an open file.
            let by_file = libcap.take(unsafe { (libcap.get_fd)(our_file.as_raw_fd()) });
            // libcap shows the effective flag for the capabilities that are permitted or inheritable.
            let expected = Some((CapabilitySets::from(wanted), owner));
            assert_eq!((by_path, by_file), (expected, expected), "round {round}: {wanted}");
            set += 1;
        }
        assert!(set > 50 && refused > 10, "{set} {refused}");
        file::remove(&ours).unwrap();
        file::remove_fd(&their_file).unwrap();
        file::remove(&ours).unwrap();
        assert!(attribute(&ours).is_none() && attribute(&theirs).is_none());
        assert_eq!(file::get(&ours).unwrap(), None);
        std::fs::remove_dir_all(directory).unwrap();
    });
}

/// Starts a program that has file capabilities, as a user without capabilities.
#[test]
fn execve_gives_file_capabilities() {
    isolated_as_root("execve_gives_file_capabilities", WATCHDOG, || {
        let directory = directory();
        let program = directory.join("cat");
        std::fs::copy("/bin/cat", &program).unwrap();
        let run = || {
            let mut command = Command::new(&program);
            let output = command.arg("/proc/self/status").uid(65534).gid(65534).output().unwrap();
            let status = String::from_utf8(output.stdout).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
            CapabilitySet::from_bits(u64::from_str_radix(line.unwrap(), 16).unwrap())
        };
        assert_eq!(run(), CapabilitySet::EMPTY);
        if let Err(error) = file::set(&program, "cap_net_raw,cap_chown=ep".parse().unwrap()) {
            support::skipped(format!("no capabilities of files here: {error}"));
            return;
        }
        let both = Capability::NET_RAW | Capability::CHOWN;
        let got = run();
        if got.is_empty() {
            support::skipped(format!("{} is mounted nosuid", directory.display()));
        } else {
            assert_eq!(got, both);
        }
        // Capabilities for another user namespace have no effect here.
        let of_another = FileCapabilities {
            root: Uid::new(1234).unwrap(),
            ..file::get(&program).unwrap().unwrap()
        };
        file::set(&program, of_another).unwrap();
        let shown = of_another.to_string();
        let (text, owner) = shown.split_once(" [").unwrap();
        let here = FileCapabilities { root: Uid::ROOT, ..of_another };
        assert_eq!((text.parse(), owner), (Ok(here), "rootid=1234]"));
        assert_eq!(run(), CapabilitySet::EMPTY);
        std::fs::remove_dir_all(directory).unwrap();
    });
}

#[test]
fn impossible_values_are_refused() {
    isolated_as_root("impossible_values_are_refused", WATCHDOG, || {
        let directory = directory();
        let link = directory.join("link");
        std::os::unix::fs::symlink("/bin/cat", &link).unwrap();
        for path in [&link, &directory] {
            let error = file::set(path, FileCapabilities::NONE).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        }
        let opened = File::open(&directory).unwrap();
        assert!(file::set_fd(&opened, FileCapabilities::NONE).is_err());
        assert!(file::get(directory.join("nothing")).is_err());
        assert_eq!(file::get(&link).unwrap(), file::get("/bin/cat").unwrap());
        std::fs::remove_dir_all(directory).unwrap();
    });
}

#[test]
fn file_capabilities_convert_to_bytes_and_text() {
    let chown = |version: u32, rest: &[u32]| -> Vec<u8> {
        let words = [version << 24 | 1, 1, 0].into_iter().chain(rest.iter().copied());
        words.flat_map(u32::to_le_bytes).collect()
    };
    let one = FileCapabilities {
        permitted: Capability::CHOWN.into(),
        effective: true,
        ..FileCapabilities::NONE
    };
    let three = FileCapabilities { root: Uid::new(7).unwrap(), ..one };
    assert_eq!(FileCapabilities::from_bytes(&chown(1, &[])), Ok(one));
    assert_eq!(FileCapabilities::from_bytes(&chown(2, &[0, 0])), Ok(one));
    assert_eq!(FileCapabilities::from_bytes(&chown(3, &[0, 0, 7])), Ok(three));
    assert_eq!((one.to_bytes(), three.to_bytes()), (chown(2, &[0, 0]), chown(3, &[0, 0, 7])));
    let bad = |bytes: &[u8]| FileCapabilities::from_bytes(bytes).unwrap_err();
    assert_eq!(bad(&[]), ParseFileCapabilitiesError::Length);
    assert_eq!(bad(&chown(2, &[0])), ParseFileCapabilitiesError::Length);
    assert_eq!(bad(&chown(2, &[0, 0, 0])), ParseFileCapabilitiesError::Length);
    assert_eq!(bad(&chown(4, &[0, 0])), ParseFileCapabilitiesError::Version(4));
    assert_eq!(bad(&chown(3, &[0, 0, u32::MAX])), ParseFileCapabilitiesError::Root);
    assert_eq!("cap_chown=ep".parse(), Ok(one));
    assert_eq!(
        "cap_chown=p cap_kill=ep".parse::<FileCapabilities>(),
        Err(ParseFileCapabilitiesError::PartlyEffective)
    );
    assert!(matches!(
        "cap_nothing=p".parse::<FileCapabilities>(),
        Err(ParseFileCapabilitiesError::Text(_))
    ));
}
