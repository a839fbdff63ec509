//! Compares the text form of capabilities, in both directions, with libcap's cap_from_text(3) and cap_to_text(3). The
//! loader chooses the version of libcap; `.ci/run` provides a recent one.
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
            // SAFETY: sys/capability.h declares the function with this type.
            from_text: unsafe { library.function(c"cap_from_text") },
            // SAFETY: sys/capability.h declares the function with this type.
            to_text: unsafe { library.function(c"cap_to_text") },
            // SAFETY: sys/capability.h declares the function with this type.
            get_flag: unsafe { library.function(c"cap_get_flag") },
            // SAFETY: sys/capability.h declares the function with this type.
            set_flag: unsafe { library.function(c"cap_set_flag") },
            // SAFETY: sys/capability.h declares the function with this type.
            init: unsafe { library.function(c"cap_init") },
            // SAFETY: sys/capability.h declares the function with this type.
            free: unsafe { library.function(c"cap_free") },
            // SAFETY: sys/capability.h declares the function with this type.
            copy_ext: unsafe { library.function(c"cap_copy_ext") },
            // SAFETY: sys/capability.h declares the function with this type.
            copy_int: unsafe { library.function(c"cap_copy_int") },
            // SAFETY: sys/capability.h declares the function with this type.
            compare: unsafe { library.function(c"cap_compare") },
        })
    }

    /// Parses a text with libcap. Returns `None` if libcap refuses the text.
    fn parse(&self, text: &str) -> Option<CapabilitySets> {
        let text = CString::new(text).unwrap();
        // SAFETY: the argument is a string.
        let sets = unsafe { (self.from_text)(text.as_ptr()) };
        self.take(sets)
    }

    /// Reads libcap's sets, and frees them.
    fn take(&self, sets: *mut c_void) -> Option<CapabilitySets> {
        if sets.is_null() {
            return None;
        }
        // `CAP_EFFECTIVE`, `CAP_PERMITTED`, `CAP_INHERITABLE`.
        let [effective, permitted, inheritable] = [0, 1, 2].map(|flag| {
            let has = |number: &u8| {
                let mut value = 0;
                let number = c_int::from(*number);
                // SAFETY: libcap has created the sets.
                let known = unsafe { (self.get_flag)(sets, number, flag, &mut value) } == 0;
                known && value != 0
            };
            (0..64).filter(has).filter_map(Capability::new).collect()
        });
        // SAFETY: libcap has created the sets, and nothing uses them afterwards.
        unsafe { (self.free)(sets) };
        Some(CapabilitySets { effective, permitted, inheritable })
    }

    /// Creates libcap's own form of these sets, which `cap_free` frees.
    fn make(&self, sets: &CapabilitySets) -> *mut c_void {
        // SAFETY: the function creates empty sets.
        let made = unsafe { (self.init)() };
        for (flag, set) in [(0, sets.effective), (1, sets.permitted), (2, sets.inheritable)] {
            for capability in set.iter() {
                let number = c_int::from(capability.number());
                // SAFETY: the function reads one number.
                let set = unsafe { (self.set_flag)(made, flag, 1, &number, 1) };
                assert_eq!(set, 0, "{capability}");
            }
        }
        made
    }

    /// Returns the external form that libcap writes, and what libcap reads in ours.
    fn external(&self, sets: &CapabilitySets) -> (Vec<u8>, Option<CapabilitySets>) {
        let made = self.make(sets);
        let mut form = vec![0u8; 256];
        // SAFETY: the buffer has room for 256 bytes.
        let size = unsafe { (self.copy_ext)(form.as_mut_ptr().cast(), made, 256) };
        form.truncate(usize::try_from(size).unwrap());
        // SAFETY: nothing uses it afterwards.
        unsafe { (self.free)(made) };
        // SAFETY: the form is as long as its fifth byte says.
        let read = unsafe { (self.copy_int)(sets.to_external().as_ptr().cast()) };
        (form, self.take(read))
    }

    /// Returns which of the sets differ.
    fn differs(&self, one: &CapabilitySets, other: &CapabilitySets) -> c_int {
        let (one, other) = (self.make(one), self.make(other));
        // SAFETY: libcap has just created both.
        let differs = unsafe { (self.compare)(one, other) };
        for made in [one, other] {
            // SAFETY: nothing uses it afterwards.
            unsafe { (self.free)(made) };
        }
        differs
    }

    fn format(&self, sets: &CapabilitySets) -> String {
        let made = self.make(sets);
        // SAFETY: libcap has just created the sets.
        let text = unsafe { (self.to_text)(made, std::ptr::null_mut()) };
        // SAFETY: cap_to_text(3) returns a string.
        let owned = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
        // SAFETY: nothing uses it afterwards.
        unsafe { (self.free)(text.cast()) };
        // SAFETY: see the comment above.
        unsafe { (self.free)(made) };
        owned
    }
}

fn pick<'a>(state: &mut u64, from: &[&'a str]) -> &'a str {
    from[random(state) as usize % from.len()]
}

/// Makes a text that resembles one of capabilities. It is more often valid than not.
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
fn parses_the_same_texts() {
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

/// A capability that the kernel does not know, alone. (If it comes before `all`, libcap forgets it.)
#[test]
fn a_capability_without_a_name() {
    let Some(libcap) = Libcap::load() else { return };
    for text in ["63=p", "63,0=ep", "all,63=i", "=p 63+e"] {
        assert_eq!(libcap.parse(text), text.parse().ok(), "{text}");
    }
}

#[test]
fn each_reads_what_the_other_writes() {
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
