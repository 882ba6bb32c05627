//! A histogram of times: 64 steps to each doubling, so that a figure is right within 1.6 %.

use serde_json::{Value, json};

/// Times in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    worst: u64,
}

const STEPS: u64 = 64;
/// Up to 2^40 microseconds: twelve days.
const BUCKETS: usize = (STEPS as usize) * 36;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, worst: 0 }
    }
}

impl Histogram {
    /// One more.
    pub(super) fn note(&mut self, us: u64) {
        self.counts[bucket(us)] += 1;
        self.total += 1;
        self.worst = self.worst.max(us);
    }

    /// So many.
    pub(super) fn count(&self) -> u64 {
        self.total
    }

    /// The time that this part of all did not pass, rounded up to the next step.
    pub(super) fn percentile(&self, part: f64) -> u64 {
        let wanted = (self.total as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(index).min(self.worst);
            }
        }
        self.worst
    }

    /// In milliseconds, as reports have it.
    pub(super) fn json(&self) -> Value {
        let at = |part| self.percentile(part) as f64 / 1_000.0;
        json!({
            "count": self.total,
            "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "p99_9_ms": at(0.999),
            "worst_ms": self.worst as f64 / 1_000.0,
        })
    }
}

fn bucket(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let doublings = u64::from(us.ilog2() - STEPS.ilog2());
    let index = doublings * STEPS + (us >> doublings);
    (index as usize).min(BUCKETS - 1)
}

/// The largest time of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let doublings = index / STEPS - 1;
    ((index % STEPS + STEPS + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_no_bucket_is_wide() {
        for us in (0..10_000).chain((14..40).flat_map(|bits| [(1 << bits) - 1, 1 << bits])) {
            let upper = upper(bucket(us));
            assert!(upper >= us && upper - us <= us / 32, "{us}: {upper}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut histogram = Histogram::default();
        for us in 1..=10_000 {
            histogram.note(us);
        }
        for (part, wanted) in [(0.5, 5_000), (0.99, 9_900), (0.999, 9_990), (1.0, 10_000)] {
            let found = histogram.percentile(part);
            assert!(found >= wanted && found <= wanted + wanted / 32, "{part}: {found}");
        }
        assert_eq!((histogram.count(), histogram.percentile(0.0)), (10_000, 1));
    }
}
