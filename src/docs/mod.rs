//! The documentation that is longer than an item: what libpsx promises, what it does not, how it works, and how to use
//! it in a daemon, a sandbox or a library. These modules contain no code.
//!
//! | module | answers |
//! |---|---|
//! | [`promises`] | What holds when a call returns? What do the words mean? Which line of the code and which test keep it? |
//! | [`limitations`] | What can a call not change? When does it take long? What must a seccomp filter allow? |
//! | [`internals`] | How are all threads stopped, and how do they perform the call together? |
//! | [`patterns`] | Which call do I use, in which order, and where in my program? |

#[doc = include_str!("promises.md")]
pub mod promises {}

#[doc = include_str!("limitations.md")]
pub mod limitations {}

#[doc = include_str!("internals.md")]
pub mod internals {}

#[doc = include_str!("patterns.md")]
pub mod patterns {}
