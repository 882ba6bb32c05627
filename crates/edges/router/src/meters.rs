//! What the router counts: the answers that its clients got, by error number, and how long they took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotpair_protocol::{ErrorNumber, Histogram, RequestTotals};

/// Counts answers.
#[derive(Debug, Default)]
pub struct Meters {
    by_number: [AtomicU64; ErrorNumber::ALL.len()],
    /// Empty bodies with 503.
    down: AtomicU64,
    buckets: [AtomicU64; LIMITS_MICROSECONDS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Meters {
    /// Counts one answer; without a number it was the empty one.
    pub(crate) fn count(&self, error_no: Option<i64>, took: Duration) {
        let counter = match error_no {
            // A number that a later version gives has no place here.
            Some(number) => {
                ErrorNumber::from_number(number).map(|known| &self.by_number[known.place()])
            }
            None => Some(&self.down),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = LIMITS_MICROSECONDS.iter().position(|limit| us <= *limit) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// All of it up to now; the empty answers under 503.
    #[must_use]
    pub fn totals(&self) -> RequestTotals {
        let numbered = ErrorNumber::ALL
            .into_iter()
            .map(|known| (known.number(), self.by_number[known.place()].load(Ordering::Relaxed)));
        let down = std::iter::once((503, self.down.load(Ordering::Relaxed)));
        let by_error_no = numbered.chain(down).filter(|(_, count)| *count > 0).collect();
        let mut below = 0;
        let buckets = LIMITS_MICROSECONDS
            .iter()
            .zip(&self.buckets)
            .map(|(limit, bucket)| {
                below += bucket.load(Ordering::Relaxed);
                (Duration::from_micros(*limit).as_secs_f64(), below)
            })
            .collect();
        // Counts move on while they are read; a total below its parts would puzzle.
        let count = self.count.load(Ordering::Relaxed).max(below);
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        RequestTotals { by_error_no, seconds: Histogram { buckets, count, sum } }
    }
}

/// Upper limits of the histogram.
const LIMITS_MICROSECONDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_number_and_the_empty_one_apart() {
        let meters = Meters::default();
        meters.count(Some(0), Duration::from_micros(400));
        meters.count(Some(308_000_000), Duration::from_millis(30));
        meters.count(None, Duration::from_secs(60));
        let totals = meters.totals();
        let numbers: Vec<_> = totals.by_error_no.into_iter().collect();
        assert_eq!(numbers, [(0, 1), (503, 1), (308_000_000, 1)]);
        assert_eq!(totals.seconds.buckets[0], (0.000_5, 1));
        assert_eq!(totals.seconds.count, 3);
    }
}
