//! The text of an IAB, both ways, beside libcap's own cap_iab_from_text(3) and cap_iab_to_text(3).
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use privileges::{Capability, CapabilitySet, Iab};
use support::{Library, random, seed};

struct Libcap {
    from_text: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    to_text: unsafe extern "C" fn(*mut c_void) -> *mut c_char,
    get_vector: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    free: unsafe extern "C" fn(*mut c_void) -> c_int,
}

impl Libcap {
    fn load() -> Option<Self> {
        let library = Library::load(c"libcap.so.2")?;
        Some(Self {
            // SAFETY: sys/capability.h declares it like this.
            from_text: unsafe { library.function(c"cap_iab_from_text") },
            // SAFETY: sys/capability.h declares it like this.
            to_text: unsafe { library.function(c"cap_iab_to_text") },
            // SAFETY: sys/capability.h declares it like this.
            get_vector: unsafe { library.function(c"cap_iab_get_vector") },
            // SAFETY: sys/capability.h declares it like this.
            free: unsafe { library.function(c"cap_free") },
        })
    }

    /// Parses a text by libcap, and returns the sets with libcap's text for them. Returns None if libcap refuses the
    /// text.
    fn parse(&self, text: &str) -> Option<(Iab, String)> {
        let text = CString::new(text).unwrap();
        // SAFETY: a string.
        let iab = unsafe { (self.from_text)(text.as_ptr()) };
        if iab.is_null() {
            return None;
        }
        // `CAP_IAB_INH`, `CAP_IAB_AMB`, `CAP_IAB_BOUND`.
        let [inheritable, ambient, blocked] = [2, 3, 4].map(|vector| {
            // SAFETY: it is the pointer that libcap returned.
            let has = |n: &u8| unsafe { (self.get_vector)(iab, vector, c_int::from(*n)) } == 1;
            (0..64).filter(has).filter_map(Capability::new).collect::<CapabilitySet>()
        });
        // SAFETY: as above.
        let text = unsafe { (self.to_text)(iab) };
        // SAFETY: a string, as cap_iab(3) says.
        let written = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
        // SAFETY: not used any more.
        unsafe { (self.free)(text.cast()) };
        // SAFETY: as above.
        unsafe { (self.free)(iab) };
        Some((Iab { inheritable, ambient, blocked }, written))
    }
}

fn some_text(state: &mut u64) -> String {
    const MARKS: [&str; 9] = ["", "", "!", "^", "%", "!^", "!%", "^%!", "!!"];
    const NAMES: [&str; 8] =
        ["cap_chown", "CAP_KILL", "cap_Net_Raw", "5", "0x5", "010", "cap_bpf", "40"];
    const ODD: [&str; 10] =
        ["", "chown", "all", "64", " cap_chown", "cap_chown ", "cap_nothing", "-1", "08", "=p"];
    let mut pick = |from: &[&'static str]| from[random(state) as usize % from.len()];
    let mut text = String::new();
    for clause in 0..pick(&["0", "1", "2", "3", "4"]).parse().unwrap() {
        text += if clause > 0 { "," } else { "" };
        text += pick(&MARKS);
        text += if pick(&NAMES) == "40" { pick(&ODD) } else { pick(&NAMES) };
    }
    text
}

#[test]
fn texts_match_libcap() {
    let Some(libcap) = Libcap::load() else { return };
    let mut state = seed();
    let (mut taken, mut different) = (0, Vec::new());
    for _ in 0..20_000 {
        let text = some_text(&mut state);
        let (theirs, ours) = (libcap.parse(&text), text.parse::<Iab>().ok());
        if let (Some((_, written)), Some(ours)) = (&theirs, &ours) {
            taken += 1;
            assert_eq!(*written, ours.to_string());
        }
        if theirs.as_ref().map(|(iab, _)| iab) != ours.as_ref() {
            different.push((text, theirs, ours));
        }
    }
    different.sort_by_key(|(text, ..)| text.len());
    different.truncate(25);
    assert!(different.is_empty(), "{different:#?}");
    assert!(taken > 1000, "{taken}");
}
