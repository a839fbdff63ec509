//! The tests of this package read the source tree. It has no code of its own.
