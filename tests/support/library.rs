//! Functions of a C library that may not be installed.

use std::ffi::{CStr, c_void};

/// A library that is loaded until the process ends.
#[derive(Clone, Copy)]
pub struct Library(*mut c_void);

impl Library {
    /// Loads the library. Returns `None`, and records a skipped test, if it is not installed.
    pub fn load(name: &CStr) -> Option<Self> {
        // SAFETY: the libraries that tests load may be loaded at any time.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            super::skipped(format!("{} is not installed", name.to_string_lossy()));
            return None;
        }
        Some(Self(library))
    }

    /// Returns a function of the library.
    ///
    /// # Safety
    /// `F` is the type of a pointer to that function.
    pub unsafe fn function<F: Copy>(self, name: &CStr) -> F {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
        // SAFETY: the name is a string.
        let at = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!at.is_null(), "{name:?}");
        // SAFETY: the caller guarantees that `F` is a pointer to this function, so it has the size of an address.
        unsafe { std::mem::transmute_copy(&at) }
    }
}
