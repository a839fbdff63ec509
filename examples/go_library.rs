//! A Rust program with a library in Go, which drops privileges while Go's garbage collector runs.
//!
//! It shows that threads of Go's runtime are changed with all others. It also shows that libpsx can stop all threads
//! beside the collector, which stops all goroutines by signals of its own. Build the library and run it as root:
//!
//! ```sh
//! scripts/examples --fetch && cargo build -p examples && sudo target/debug/go_library target/examples/libchurn.so
//! ```
//!
//! A line of input makes it drop privileges.

// # Safety
//
// The functions of foreign/churn.go have no parameters, and return an int.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};

use privileges::Privileges;

type Failure = Box<dyn std::error::Error>;
type Function = extern "C" fn() -> c_int;

fn main() -> Result<(), Failure> {
    let path = std::env::args().nth(1).ok_or("usage: go LIBRARY")?;
    let path = CString::new(path)?;
    // SAFETY: the library is Go's own code. It stays loaded.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return Err(format!("{path:?} could not be loaded").into());
    }
    let function = |name: &std::ffi::CStr| -> Result<Function, Failure> {
        // SAFETY: the library is loaded.
        let at = unsafe { libc::dlsym(library, name.as_ptr()) };
        if at.is_null() {
            return Err(format!("the library has no {name:?}").into());
        }
        // SAFETY: such functions are exported under these names.
        Ok(unsafe { std::mem::transmute::<*mut libc::c_void, Function>(at) })
    };
    let (start, collections) = (function(c"Start")?, function(c"Collections")?);
    let attempts = function(c"Attempts")?;
    start();
    println!("started");
    let mut lines = std::io::stdin().lines();
    if lines.next().transpose()?.is_some() {
        let before = collections();
        for _ in 0..100 {
            // This change leaves the state as it is. It makes a hundred stops beside the collector.
            libpsx::process::identities(0)?;
        }
        let plan = Privileges::new().user("nobody").no_new_privs().plan()?;
        let applied = plan.apply()?;
        println!("{} threads are nobody", applied.threads);
        println!("{} collections meanwhile", collections() - before);
        println!("{} threads of Go could become root", attempts());
    }
    lines.for_each(drop);
    Ok(())
}
