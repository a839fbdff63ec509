//! Sets what the linker and the loader of a C program read in libpsx.so.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libpsx.so.2");
    // At the last dlclose(3), a handler or a futex wait of this library may still be running.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
}
