//! What the CPUs with the generic table of calls (include/uapi/asm-generic/unistd.h) have in common: the calls that
//! older tables have besides are absent.
#![forbid(unsafe_code)]

/// Returns whether the number is that of another system call convention: there is none.
pub(crate) const fn is_other_abi(_nr: usize) -> bool {
    false
}

pub(crate) const MMAP_READS_MEMORY: bool = false;
pub(crate) const FORKS: &[u32] = &[];
pub(crate) const LEAVES_HANDLER: &[u32] = &[];
pub(crate) const CHANGES_SIGNALS: &[u32] = &[];
pub(crate) const OLD_SIGACTIONS: &[u32] = &[];
pub(crate) const PAUSES: &[u32] = &[];
pub(crate) const POLL: Option<u32> = None;
pub(crate) const SELECT: Option<u32> = None;
