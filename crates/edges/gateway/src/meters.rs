//! What the gateway counts: answers by error number, and how long they took. Atomics, so that
//! whoever looks never stands in the way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotpair_protocol::{ErrorNumber, Histogram, RequestTotals};

/// Counts answers.
#[derive(Debug, Default)]
pub struct Meters {
    by_number: [AtomicU64; ErrorNumber::ALL.len()],
    buckets: [AtomicU64; LIMITS_SECONDS.len()],
    count: AtomicU64,
    sum_ns: AtomicU64,
}

impl Meters {
    /// Counts one answer.
    pub fn count(&self, error_no: ErrorNumber, took: Duration) {
        self.by_number[error_no.place()].fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        if let Some(bucket) = LIMITS_SECONDS.iter().position(|limit| seconds <= *limit) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// All of it up to now.
    #[must_use]
    pub fn totals(&self) -> RequestTotals {
        let by_error_no = ErrorNumber::ALL
            .into_iter()
            .map(|known| (known.number(), self.by_number[known.place()].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let mut below = 0;
        let buckets = LIMITS_SECONDS
            .iter()
            .zip(&self.buckets)
            .map(|(limit, bucket)| {
                below += bucket.load(Ordering::Relaxed);
                (*limit, below)
            })
            .collect();
        // Counts move on while they are read; a total below its parts would puzzle.
        let count = self.count.load(Ordering::Relaxed).max(below);
        let sum = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
        RequestTotals { by_error_no, seconds: Histogram { buckets, count, sum } }
    }
}

/// Upper limits of the histogram.
const LIMITS_SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_number_and_by_how_long_they_took() {
        let meters = Meters::default();
        meters.count(ErrorNumber::Done, Duration::from_micros(100));
        meters.count(ErrorNumber::Done, Duration::from_millis(30));
        meters.count(ErrorNumber::NotServing, Duration::from_secs(60));
        let totals = meters.totals();
        let numbers: Vec<_> = totals.by_error_no.into_iter().collect();
        assert_eq!(numbers, [(0, 2), (308_000_005, 1)]);
        assert_eq!(totals.seconds.buckets[0], (0.000_5, 1));
        assert_eq!(totals.seconds.buckets[6], (0.05, 2));
        assert_eq!(totals.seconds.buckets[13], (10.0, 2));
        assert_eq!(totals.seconds.count, 3);
        assert!((totals.seconds.sum - 60.0301).abs() < 1e-6);
    }
}
