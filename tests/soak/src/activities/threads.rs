//! Threads that come and go: of Rust, of the C library, of raw clone(2).

use super::*;

/// Creates threads that look at themselves and end; some create their successor.
pub(crate) fn churn(board: &'static Board, random: &mut Random) {
    let threads = (0..=random.below(4)).map(|_| {
        let successor = random.once_in(3);
        let rest = random.micros(500);
        spawned(move || {
            observe(board, false);
            if let Some(successor) = successor.then(|| spawned(move || observe(board, false))) {
                successor.into_iter().for_each(|successor| drop(successor.join()));
            }
            sleep(rest);
            observe(board, false);
            board.add(Count::Threads, 1 + u64::from(successor));
        })
    });
    let threads: Vec<_> = threads.flatten().collect();
    threads.into_iter().for_each(|thread| drop(thread.join()));
}

pub(crate) fn attributes(board: &'static Board, _: &mut Random) {
    if let Some(thread) = pthread(look, ptr::from_ref(board).cast_mut().cast(), true) {
        join(thread);
        board.count(Count::Attributes);
    }
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "s390x"
)))]
pub(crate) fn raw_threads(board: &'static Board, _: &mut Random) {
    board.skip(Count::Raw, "clone(2) is not written for this CPU");
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "s390x"
))]
#[path = "raw_threads.rs"]
mod raw_threads;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "s390x"
))]
pub(crate) use raw_threads::raw_threads;
