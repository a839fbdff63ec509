//! Applies one function to many items, on as many threads as there are CPUs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The most threads that are used. More threads gain nothing, because the kernel's own locks are the limit then.
const MOST: usize = 8;

/// The number of items that a thread takes at once.
const CHUNK: usize = 16;

/// Applies `function` to each item and returns the results in the order of the items. Calls `tick` with the number
/// of items done so far; only the calling thread does that. If no thread can be started, the calling thread does all
/// the work.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    function: impl Fn(&T) -> R + Sync,
    mut tick: impl FnMut(usize),
) -> Vec<R> {
    // Relaxed: the counter only hands out numbers. The end of the scope orders the results before their use.
    let next = AtomicUsize::new(0);
    let take = || {
        let start = next.fetch_add(CHUNK, Ordering::Relaxed);
        let end = items.len().min(start.saturating_add(CHUNK));
        items.get(start..end).filter(|chunk| !chunk.is_empty()).map(|chunk| (start, chunk))
    };
    let work = |tick: &mut dyn FnMut(usize)| {
        let mut done = Vec::new();
        while let Some((start, chunk)) = take() {
            tick(start);
            done.push((start, chunk.iter().map(&function).collect::<Vec<_>>()));
        }
        done
    };
    let cpus = thread::available_parallelism().map_or(1, usize::from).min(MOST);
    let helpers = cpus.min(items.len().div_ceil(4 * CHUNK)).saturating_sub(1);
    let mut done = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, || work(&mut |_| {})).ok();
        let started: Vec<_> = (0..helpers).filter_map(start).collect();
        let mut done = work(&mut tick);
        for helper in started {
            match helper.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(start, _)| *start);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_in_order_and_complete() {
        for length in [0, 1, 15, 16, 17, 64, 65, 1000] {
            let items: Vec<usize> = (0..length).collect();
            let mut ticks = 0;
            let doubled = super::map(&items, |item| item * 2, |_| ticks += 1);
            assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
