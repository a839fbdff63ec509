//! The same settings through libcap, cap_set_mode(3) and cap_iab_set_proc(3), and through this crate. From random
//! states, the tests compare /proc of the one process with /proc of every thread of the other.
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Read;
use std::os::fd::FromRawFd;
use std::time::Duration;

use libpsx::process::{cap_ambient_raise, capbset_drop, capset, identities, set_securebits};
use privileges::{CapabilitySet, CapabilitySets, Iab, Mode, Privileges, Securebits};
use support::{Library, forked_status, isolated_as_root, proc, random, repeated, seed, sleepers};

const WATCHDOG: Duration = Duration::from_secs(180);

struct Libcap {
    set_mode: unsafe extern "C" fn(c_int) -> c_int,
    get_mode: unsafe extern "C" fn() -> c_int,
    iab_from_text: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    iab_set_proc: unsafe extern "C" fn(*mut c_void) -> c_int,
}

impl Libcap {
    fn load() -> Option<Self> {
        let library = Library::load(c"libcap.so.2")?;
        Some(Self {
            // SAFETY: sys/capability.h declares it like this.
            set_mode: unsafe { library.function(c"cap_set_mode") },
            // SAFETY: as above.
            get_mode: unsafe { library.function(c"cap_get_mode") },
            // SAFETY: as above.
            iab_from_text: unsafe { library.function(c"cap_iab_from_text") },
            // SAFETY: as above.
            iab_set_proc: unsafe { library.function(c"cap_iab_set_proc") },
        })
    }
}

/// Runs `body` in a process of its own. Returns each line of the state of all its threads once, or `None` if it was
/// refused.
fn state_after(body: impl FnOnce() -> bool) -> Option<BTreeMap<String, Vec<String>>> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let status = forked_status(|| {
        if !body() {
            support::end(7);
        }
        let mut text = String::new();
        for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"] {
            for value in proc::field_in_every_thread(field).into_values() {
                text += &format!("{field} {value}\n");
            }
        }
        for one in identities(0).unwrap().identities() {
            text += &format!("securebits {:#x}\n", one.securebits().unwrap().bits());
        }
        // SAFETY: the text is as long as said.
        unsafe { libc::write(ends[1], text.as_ptr().cast(), text.len()) };
        support::end(0);
    });
    // SAFETY: the descriptor belongs to this function.
    unsafe { libc::close(ends[1]) };
    // SAFETY: as above.
    let mut reader = unsafe { std::fs::File::from_raw_fd(ends[0]) };
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(status == 0 || status == 7 << 8, "{status:#x}");
    (status == 0).then(|| {
        let mut lines = BTreeMap::<String, Vec<String>>::new();
        for (field, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let values = lines.entry(field.to_owned()).or_default();
            if !values.iter().any(|seen| seen == value) {
                values.push(value.to_owned());
            }
        }
        assert_eq!(lines.len(), 7, "{text}");
        lines
    })
}

/// Sets a random state of a process that has been root.
fn prepare(state: &mut u64) {
    let all = CapabilitySets::current().unwrap().permitted;
    let mut some = || CapabilitySet::from_bits(random(state) & random(state)) & all;
    let (bounding, inheritable, permitted, ambient) = (some(), some(), some(), some());
    for capability in bounding.iter().filter(|_| random(state) % 2 == 0) {
        capbset_drop(capability).execute().unwrap();
    }
    let permitted = match random(state) % 3 {
        0 => all,
        1 => permitted | privileges::Capability::SETPCAP,
        _ => permitted,
    };
    let bounding = libpsx::process::bounding_set();
    let inheritable =
        if random(state) % 3 == 0 { CapabilitySet::EMPTY } else { inheritable & bounding };
    if random(state) % 4 == 0 {
        // SECBIT_KEEP_CAPS is left out, because a plan does not leave it set.
        let bits = Securebits::from_bits(random(state) as u32 & 0b0100_0101);
        set_securebits(bits).execute().unwrap();
    }
    let before = CapabilitySets { effective: all, permitted: all, inheritable };
    capset(before).execute().unwrap();
    capset(CapabilitySets { effective: permitted, permitted, inheritable }).execute().unwrap();
    let ambient = ambient & permitted & inheritable;
    for capability in ambient.iter().filter(|_| random(state) % 2 == 0) {
        let _ = cap_ambient_raise(capability).execute();
    }
}

#[test]
fn modes() {
    isolated_as_root("modes", WATCHDOG, || {
        let Some(libcap) = Libcap::load() else { return };
        let mut state = seed();
        let mut agreed = 0;
        for round in repeated(1000, WATCHDOG) {
            // In the order of libcap's numbers, from 1.
            let modes = [Mode::NoPriv, Mode::Pure1eInit, Mode::Pure1e, Mode::Hybrid];
            let number = random(&mut state) as usize % 4;
            let mut begun = state;
            let theirs = state_after(|| {
                prepare(&mut begun);
                // SAFETY: it takes a number.
                unsafe { (libcap.set_mode)(number as c_int + 1) == 0 }
            });
            let mut begun = state;
            let ours = state_after(|| {
                prepare(&mut begun);
                sleepers(2);
                let settings = Privileges::new().stay_root().keep_groups().mode(modes[number]);
                settings.plan().is_ok_and(|plan| plan.apply().is_ok())
            });
            random(&mut state);
            // libcap requires CAP_SETPCAP even if nothing has to change.
            if theirs.is_some() {
                assert_eq!(ours, theirs, "round {round}: {:?}", modes[number]);
                agreed += 1;
            }
        }
        assert!(agreed > 20, "{agreed}");
    });
}

/// Reads the mode, and the sets of another process: libcap and this crate agree.
#[test]
fn the_present_state_is_read_as_by_libcap() {
    isolated_as_root("the_present_state_is_read_as_by_libcap", WATCHDOG, || {
        let Some(libcap) = Libcap::load() else { return };
        let mut state = seed();
        for round in repeated(1000, WATCHDOG) {
            let number = random(&mut state) as usize % 6;
            let mut begun = state;
            let parent = std::process::id() as i32;
            let status = forked_status(|| {
                prepare(&mut begun);
                if number > 0 {
                    // SAFETY: it takes a number.
                    unsafe { (libcap.set_mode)(number as c_int) };
                }
                // SAFETY: it touches no memory.
                let theirs = unsafe { (libcap.get_mode)() };
                let modes = [Mode::NoPriv, Mode::Pure1eInit, Mode::Pure1e, Mode::Hybrid];
                let theirs = (theirs as usize).checked_sub(1).map(|number| modes[number]);
                assert_eq!(Mode::current().unwrap(), theirs, "round {round}");
                let own = privileges::capabilities_of(std::process::id() as i32).unwrap();
                assert_eq!(own, CapabilitySets::current().unwrap());
                assert_ne!(privileges::capabilities_of(parent).unwrap(), CapabilitySets::EMPTY);
                let iab = Iab::of_pid(std::process::id() as i32).unwrap();
                let bounding = libpsx::process::bounding_set();
                assert_eq!(
                    (iab.inheritable, iab.blocked),
                    (own.inheritable, CapabilitySet::all() - bounding)
                );
                assert_eq!(iab.ambient, libpsx::process::ambient_set());
            });
            random(&mut state);
            assert_eq!(status, 0, "round {round}");
        }
        assert!(privileges::capabilities_of(1 << 30).is_err() && Iab::of_pid(-1).is_err());
    });
}

#[test]
fn iab() {
    isolated_as_root("iab", WATCHDOG, || {
        let Some(libcap) = Libcap::load() else { return };
        let mut state = seed();
        let mut agreed = 0;
        for round in repeated(1000, WATCHDOG) {
            let all = CapabilitySet::all();
            let mut some =
                || CapabilitySet::from_bits(random(&mut state) & random(&mut state)) & all;
            let (inheritable, ambient, blocked) = (some(), some() & some(), some());
            let ambient = if round % 2 == 0 { CapabilitySet::EMPTY } else { ambient };
            let iab = Iab { inheritable: inheritable | ambient, ambient, blocked };
            let text = CString::new(iab.to_string()).unwrap();
            let mut begun = state;
            let theirs = state_after(|| {
                prepare(&mut begun);
                // SAFETY: a string.
                let iab = unsafe { (libcap.iab_from_text)(text.as_ptr()) };
                // SAFETY: it was just made.
                unsafe { (libcap.iab_set_proc)(iab) == 0 }
            });
            let mut begun = state;
            let ours = state_after(|| {
                prepare(&mut begun);
                sleepers(2);
                let keep = CapabilitySets::current().unwrap().permitted;
                let settings = Privileges::new().stay_root().keep_groups().keep(keep).iab(iab);
                settings.plan().is_ok_and(|plan| plan.apply().is_ok())
            });
            random(&mut state);
            if theirs.is_some() {
                assert_eq!(ours, theirs, "round {round}: {iab}");
                agreed += 1;
            }
        }
        assert!(agreed > 5, "{agreed}");
    });
}
