//! The few shapes of parallel work a load has, on scoped threads.

use std::sync::Mutex;
use std::thread;

/// How many threads a load uses: one per core.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` on every item, taking the next whenever a thread is free; results in item order.
pub(crate) fn for_each<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let run = || {
        loop {
            let next = queue.lock().expect("taking an item does not panic").next();
            let Some((place, item)) = next else { break };
            let result = work(item);
            done.lock().expect("keeping a result does not panic").push((place, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads().min(count) {
            scope.spawn(run);
        }
        run();
    });
    let mut done = done.into_inner().expect("keeping a result does not panic");
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Sorts in place: a selection splits the slice in halves that are sorted apart, on `threads`.
pub(crate) fn sort<T: Ord + Send>(items: &mut [T], threads: usize) {
    if threads < 2 || items.len() < PARALLEL_SORT_MIN {
        items.sort_unstable();
        return;
    }
    let middle = items.len() / 2;
    items.select_nth_unstable(middle);
    let (low, high) = items.split_at_mut(middle);
    thread::scope(|scope| {
        scope.spawn(|| sort(low, threads / 2));
        sort(high, threads - threads / 2);
    });
}

/// Below this a thread costs more than it saves.
const PARALLEL_SORT_MIN: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_item_order() {
        let squares = for_each((0..1000_u64).collect(), |number| number * number);
        assert!(
            squares.iter().enumerate().all(|(place, square)| (place * place) as u64 == *square)
        );
        assert_eq!(for_each(Vec::<u8>::new(), |byte| byte), Vec::<u8>::new());
    }

    #[test]
    fn a_parallel_sort_is_a_sort() {
        for threads in [1, 2, 3, 8] {
            let mut numbers: Vec<u64> = (0..200_000)
                .map(|number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                .collect();
            let mut expected = numbers.clone();
            expected.sort_unstable();
            sort(&mut numbers, threads);
            assert!(numbers == expected);
        }
    }
}
