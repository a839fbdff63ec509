//! Functions of a C library that may not be here.

use std::ffi::{CStr, c_void};

/// A loaded library, for good.
#[derive(Clone, Copy)]
pub struct Library(*mut c_void);

impl Library {
    /// None, and a note, if it is not here.
    pub fn load(name: &CStr) -> Option<Self> {
        // SAFETY: what tests load may be loaded at any time.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            super::skipped(format!("no {} here", name.to_string_lossy()));
            return None;
        }
        Some(Self(library))
    }

    /// A function of it.
    ///
    /// # Safety
    /// `F` is the type of a pointer to that function.
    pub unsafe fn function<F: Copy>(self, name: &CStr) -> F {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
        // SAFETY: the name is a string.
        let at = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!at.is_null(), "{name:?}");
        // SAFETY: as large, and such a pointer.
        unsafe { std::mem::transmute_copy(&at) }
    }
}
