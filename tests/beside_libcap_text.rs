//! The text form of capabilities, both ways, beside libcap's own cap_from_text(3) and cap_to_text(3). Which
//! version it is, the loader decides; `.ci/run` has a recent one.
#![allow(unsafe_code)]

mod support;

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use libpsx::process::{Capability, CapabilitySet, CapabilitySets};
use support::{Library, random, seed};

struct Libcap {
    from_text: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    to_text: unsafe extern "C" fn(*mut c_void, *mut isize) -> *mut c_char,
    get_flag: unsafe extern "C" fn(*mut c_void, c_int, c_int, *mut c_int) -> c_int,
    set_flag: unsafe extern "C" fn(*mut c_void, c_int, c_int, *const c_int, c_int) -> c_int,
    init: unsafe extern "C" fn() -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void) -> c_int,
    copy_ext: unsafe extern "C" fn(*mut c_void, *mut c_void, isize) -> isize,
    copy_int: unsafe extern "C" fn(*const c_void) -> *mut c_void,
    compare: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
}

impl Libcap {
    fn load() -> Option<Self> {
        let library = Library::load(c"libcap.so.2")?;
        Some(Self {
            // SAFETY: sys/capability.h declares it like this.
            from_text: unsafe { library.function(c"cap_from_text") },
            // SAFETY: sys/capability.h declares it like this.
            to_text: unsafe { library.function(c"cap_to_text") },
            // SAFETY: sys/capability.h declares it like this.
            get_flag: unsafe { library.function(c"cap_get_flag") },
            // SAFETY: sys/capability.h declares it like this.
            set_flag: unsafe { library.function(c"cap_set_flag") },
            // SAFETY: sys/capability.h declares it like this.
            init: unsafe { library.function(c"cap_init") },
            // SAFETY: sys/capability.h declares it like this.
            free: unsafe { library.function(c"cap_free") },
            // SAFETY: sys/capability.h declares it like this.
            copy_ext: unsafe { library.function(c"cap_copy_ext") },
            // SAFETY: sys/capability.h declares it like this.
            copy_int: unsafe { library.function(c"cap_copy_int") },
            // SAFETY: sys/capability.h declares it like this.
            compare: unsafe { library.function(c"cap_compare") },
        })
    }

    /// What it makes of a text; None if it takes it for none.
    fn parse(&self, text: &str) -> Option<CapabilitySets> {
        let text = CString::new(text).unwrap();
        // SAFETY: a string.
        let sets = unsafe { (self.from_text)(text.as_ptr()) };
        self.take(sets)
    }

    /// What its sets are; they are given back.
    fn take(&self, sets: *mut c_void) -> Option<CapabilitySets> {
        if sets.is_null() {
            return None;
        }
        // `CAP_EFFECTIVE`, `CAP_PERMITTED`, `CAP_INHERITABLE`.
        let [effective, permitted, inheritable] = [0, 1, 2].map(|flag| {
            let has = |number: &u8| {
                let mut value = 0;
                let number = c_int::from(*number);
                // SAFETY: the sets are those that it gave.
                let known = unsafe { (self.get_flag)(sets, number, flag, &mut value) } == 0;
                known && value != 0
            };
            (0..64).filter(has).filter_map(Capability::new).collect()
        });
        // SAFETY: as above; not used any more.
        unsafe { (self.free)(sets) };
        Some(CapabilitySets { effective, permitted, inheritable })
    }

    /// Its own form of these sets, which `cap_free` gives back.
    fn make(&self, sets: &CapabilitySets) -> *mut c_void {
        // SAFETY: makes empty sets.
        let made = unsafe { (self.init)() };
        for (flag, set) in [(0, sets.effective), (1, sets.permitted), (2, sets.inheritable)] {
            for capability in set.iter() {
                let number = c_int::from(capability.number());
                // SAFETY: one number.
                let set = unsafe { (self.set_flag)(made, flag, 1, &number, 1) };
                assert_eq!(set, 0, "{capability}");
            }
        }
        made
    }

    /// The external form, and what it reads in ours.
    fn external(&self, sets: &CapabilitySets) -> (Vec<u8>, Option<CapabilitySets>) {
        let made = self.make(sets);
        let mut form = vec![0u8; 256];
        // SAFETY: there is room for as many bytes as are said.
        let size = unsafe { (self.copy_ext)(form.as_mut_ptr().cast(), made, 256) };
        form.truncate(usize::try_from(size).unwrap());
        // SAFETY: not used any more.
        unsafe { (self.free)(made) };
        // SAFETY: it is as long as its fifth byte says.
        let read = unsafe { (self.copy_int)(sets.to_external().as_ptr().cast()) };
        (form, self.take(read))
    }

    /// Which of the sets differ.
    fn differs(&self, one: &CapabilitySets, other: &CapabilitySets) -> c_int {
        let (one, other) = (self.make(one), self.make(other));
        // SAFETY: both were just made.
        let differs = unsafe { (self.compare)(one, other) };
        for made in [one, other] {
            // SAFETY: not used any more.
            unsafe { (self.free)(made) };
        }
        differs
    }

    fn format(&self, sets: &CapabilitySets) -> String {
        let made = self.make(sets);
        // SAFETY: the sets were just made.
        let text = unsafe { (self.to_text)(made, std::ptr::null_mut()) };
        // SAFETY: a string, as cap_to_text(3) says.
        let owned = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
        // SAFETY: not used any more.
        unsafe { (self.free)(text.cast()) };
        // SAFETY: as above.
        unsafe { (self.free)(made) };
        owned
    }
}

fn pick<'a>(state: &mut u64, from: &[&'a str]) -> &'a str {
    from[random(state) as usize % from.len()]
}

/// Something like a text of capabilities, more often right than wrong.
fn some_text(state: &mut u64) -> String {
    const NAMES: [&str; 11] = [
        "cap_chown",
        "CAP_KILL",
        "cap_Net_Raw",
        "all",
        "ALL",
        "5",
        "0",
        "40",
        "cap_bpf",
        "cap_sys_admin",
        "cap_checkpoint_restore",
    ];
    const ODD: [&str; 13] = [
        "",
        "chown",
        "cap_",
        "cap_nothing",
        "64",
        "-1",
        "+5",
        "0x5",
        "05",
        "all_",
        "cap_chownx",
        "7777777777777",
        "é",
    ];
    const FLAGS: [&str; 8] = ["e", "i", "p", "ep", "eip", "ei", "", "pp"];
    const ODD_FLAGS: [&str; 4] = ["x", "E", "e,", ","];
    let mut text = String::new();
    for clause in 0..random(state) % 4 {
        if clause > 0 || random(state) % 8 == 0 {
            text += pick(state, &[" ", " ", "  ", "\t", "\n", "\u{b}", "\u{c}", "\r"]);
        }
        for name in 0..random(state) % 4 {
            text += if name > 0 { "," } else { "" };
            text += if random(state) % 20 == 0 { pick(state, &ODD) } else { pick(state, &NAMES) };
        }
        for _ in 0..=random(state) % 3 {
            text += pick(state, &["=", "+", "-", "=", "+", "-", "=+", "=-", "", "=="]);
            text +=
                if random(state) % 20 == 0 { pick(state, &ODD_FLAGS) } else { pick(state, &FLAGS) };
        }
    }
    text
}

#[test]
fn what_is_a_text_and_what_it_means() {
    let Some(libcap) = Libcap::load() else { return };
    let mut state = seed();
    let (mut taken, mut different) = (0, Vec::new());
    for _ in 0..20_000 {
        let text = some_text(&mut state);
        let (theirs, ours) = (libcap.parse(&text), text.parse::<CapabilitySets>().ok());
        taken += usize::from(theirs.is_some());
        if theirs != ours {
            different.push((text, theirs, ours));
        }
    }
    different.sort_by_key(|(text, ..)| text.len());
    different.truncate(25);
    assert!(different.is_empty(), "{different:#?}");
    assert!(taken > 1000, "{taken}");
}

/// What the kernel does not know, alone. (Beside `all` libcap forgets it, as far as it comes before.)
#[test]
fn a_capability_without_a_name() {
    let Some(libcap) = Libcap::load() else { return };
    for text in ["63=p", "63,0=ep", "all,63=i", "=p 63+e"] {
        assert_eq!(libcap.parse(text), text.parse().ok(), "{text}");
    }
}

#[test]
fn what_one_writes_the_other_reads() {
    let Some(libcap) = Libcap::load() else { return };
    let mut state = seed();
    let known = CapabilitySet::all().bits();
    for _ in 0..5000 {
        let mut pick = || match random(&mut state) % 4 {
            0 => random(&mut state) & random(&mut state) & random(&mut state),
            1 => random(&mut state) | random(&mut state) | random(&mut state),
            2 => known,
            _ => random(&mut state),
        };
        let mut pick = || CapabilitySet::from_bits(pick() & known);
        let sets = CapabilitySets { effective: pick(), permitted: pick(), inheritable: pick() };
        let (theirs, ours) = (libcap.format(&sets), sets.to_string());
        assert_eq!(libcap.parse(&ours), Some(sets), "{ours}");
        assert_eq!(theirs.parse(), Ok(sets), "{theirs}");
    }
}

#[test]
fn the_external_form_and_comparison() {
    let Some(libcap) = Libcap::load() else { return };
    let mut state = seed();
    let known = CapabilitySet::all().bits();
    let mut before = CapabilitySets::EMPTY;
    for _ in 0..2000 {
        let mut pick = || CapabilitySet::from_bits(random(&mut state) & known);
        let mut sets = CapabilitySets { effective: pick(), permitted: pick(), inheritable: pick() };
        if random(&mut state) % 2 == 0 {
            sets.permitted = before.permitted;
        }
        if random(&mut state) % 4 == 0 {
            sets.effective = before.effective;
        }
        let (theirs, read) = libcap.external(&sets);
        assert_eq!(CapabilitySets::from_external(&theirs), Ok(sets), "{theirs:x?}");
        assert_eq!(theirs, sets.to_external());
        assert_eq!(read, Some(sets));
        let changed = before.compare(sets);
        let ours = [changed.effective, changed.inheritable, changed.permitted]
            .map(|set| c_int::from(!set.is_empty()));
        // `CAP_EFFECTIVE`, `CAP_PERMITTED`, `CAP_INHERITABLE` are 0, 1 and 2.
        let ours = ours[0] | ours[2] << 1 | ours[1] << 2;
        assert_eq!(libcap.differs(&before, &sets), ours, "{before:?} {sets:?}");
        before = sets;
    }
}
