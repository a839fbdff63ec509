//! The engines: how each changes the real user id of all threads.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_long, c_void};
use std::sync::OnceLock;
use std::time::Duration;

pub(super) struct Engine {
    pub(super) name: &'static str,
    /// Changes the real user id of every thread, and returns the error if that fails.
    pub(super) call: fn(u32) -> Result<(), String>,
    /// Asks for the strictest answer to a thread whose result differs.
    pub(super) be_strict: fn(),
}

pub(super) const ENGINES: [Engine; 3] = [
    Engine {
        name: "libpsx for Rust",
        call: ours,
        be_strict: || libpsx::set_sensitivity(libpsx::Sensitivity::Error),
    },
    // glibc has only one response: it aborts.
    Engine { name: "glibc setresuid", call: glibc, be_strict: || {} },
    Engine { name: "C libpsx", call: c_libpsx, be_strict: c_libpsx_be_strict },
];

pub(super) fn ours(uid: u32) -> Result<(), String> {
    let call = libpsx::Broadcast::new(libc::SYS_setresuid, [uid as usize, 0, 0, 0, 0, 0]);
    let call = call.deadline(Duration::from_secs(2));
    // SAFETY: setresuid touches no memory.
    unsafe { call.execute_with_report() }.map(|_| ()).map_err(|error| error.to_string())
}

pub(super) fn outcome(returned: c_long) -> Result<(), String> {
    if returned == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().to_string()) }
}

pub(super) fn glibc(uid: u32) -> Result<(), String> {
    // SAFETY: setresuid touches no memory.
    outcome(c_long::from(unsafe { libc::setresuid(uid, 0, 0) }))
}

pub(super) type Syscall3 = unsafe extern "C" fn(c_long, c_long, c_long, c_long) -> c_long;
pub(super) type SetSensitivity = unsafe extern "C" fn(c_int) -> c_int;

pub(super) struct CLibpsx {
    pub(super) syscall3: Syscall3,
    pub(super) set_sensitivity: SetSensitivity,
}

pub(super) fn c_library() -> Option<&'static CLibpsx> {
    static LIBRARY: OnceLock<Option<CLibpsx>> = OnceLock::new();
    let load = || {
        // SAFETY: libcap's libpsx may be loaded at any time.
        let library = unsafe { libc::dlopen(c"libpsx.so.2".as_ptr(), libc::RTLD_NOW) };
        let library = std::ptr::NonNull::new(library)?;
        let symbol = |name: &CStr| {
            // SAFETY: the library is loaded, and the name is a string.
            std::ptr::NonNull::new(unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) })
        };
        let (syscall3, set) = (symbol(c"psx_syscall3")?, symbol(c"psx_set_sensitivity")?);
        Some(CLibpsx {
            // SAFETY: sys/psx_syscall.h declares the function with this type.
            syscall3: unsafe { std::mem::transmute::<*mut c_void, Syscall3>(syscall3.as_ptr()) },
            // SAFETY: sys/psx_syscall.h declares the function with this type.
            set_sensitivity: unsafe {
                std::mem::transmute::<*mut c_void, SetSensitivity>(set.as_ptr())
            },
        })
    };
    LIBRARY.get_or_init(load).as_ref()
}

pub(super) fn c_libpsx(uid: u32) -> Result<(), String> {
    let library = c_library().ok_or("not installed")?;
    // SAFETY: setresuid touches no memory.
    outcome(unsafe { (library.syscall3)(libc::SYS_setresuid, c_long::from(uid), 0, 0) })
}

pub(super) fn c_libpsx_be_strict() {
    const PSX_ERROR: c_int = 2;
    if let Some(library) = c_library() {
        // SAFETY: the function sets a variable of the library.
        unsafe { (library.set_sensitivity)(PSX_ERROR) };
    }
}
