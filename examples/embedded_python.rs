//! A Rust program with an embedded Python interpreter (PyO3), which drops privileges while Python's threads run.
//!
//! It shows that Python's threads are changed with all others: one that computes, one that sleeps, one that collects
//! garbage. It needs Python's shared library and its headers (Debian: python3-dev). Run it as root:
//!
//! ```sh
//! cargo build -p examples --features python && sudo target/debug/embedded_python
//! ```
//!
//! A line of input makes it drop privileges.

use std::ffi::CString;

use privileges::Privileges;
use pyo3::prelude::*;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let program = CString::new(include_str!("foreign/churn.py"))?;
    let module: Py<PyModule> = Python::attach(|py| {
        PyModule::from_code(py, &program, c"churn.py", c"churn").map(Bound::unbind)
    })?;
    let call = |name: &str| -> PyResult<usize> {
        // This thread is attached to the interpreter only for the call: otherwise Python's threads would wait for it.
        Python::attach(|py| module.bind(py).getattr(name)?.call0()?.extract())
    };
    println!("{} threads of Python", call("start")?);
    let mut lines = std::io::stdin().lines();
    if lines.next().transpose()?.is_some() {
        let before = call("collections")?;
        for _ in 0..100 {
            // This change leaves the state as it is. It makes a hundred stops beside the interpreter.
            libpsx::process::identities(0)?;
        }
        let plan = Privileges::new().user("nobody").no_new_privs().plan()?;
        let applied = plan.apply()?;
        println!("{} threads are nobody", applied.threads);
        println!("{} collections meanwhile", call("collections")?.saturating_sub(before));
        println!("{} threads of Python could become root", call("attempts")?);
    }
    lines.for_each(drop);
    Ok(())
}
