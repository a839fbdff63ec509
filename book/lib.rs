//! The Rust programs of the book, of README.md and of docs/daemons.md: a documentation test compiles each of them, and
//! runs it unless it says `no_run`. This library contains no code.
#![cfg(doctest)]

#[doc = include_str!("../README.md")]
mod readme {}

#[doc = include_str!("../privileges/README.md")]
mod readme_of_privileges {}

#[doc = include_str!("../docs/daemons.md")]
mod daemons {}

#[doc = include_str!("src/problem.md")]
mod problem {}

#[doc = include_str!("src/which.md")]
mod which {}

#[doc = include_str!("src/daemon.md")]
mod daemon {}

#[doc = include_str!("src/sandbox.md")]
mod sandbox {}

#[doc = include_str!("src/coming-from-c.md")]
mod coming_from_c {}

#[doc = include_str!("src/coming-from-nix-rustix.md")]
mod coming_from_nix_rustix {}

#[doc = include_str!("src/coming-from-crates.md")]
mod coming_from_crates {}

#[doc = include_str!("src/errors.md")]
mod errors {}
