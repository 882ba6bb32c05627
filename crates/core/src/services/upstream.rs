//! When each session's heartbeat to the external investment system is due.
//!
//! Each session has its place within the interval, by its key: keys are digests, so places are spread
//! evenly over it, and the sessions due between two moments are those between two keys of the table.
//! Nothing is kept for a session, and nothing has to be carried over a switch: a node that begins to serve
//! goes on with the same schedule, because both reckon it from the wall clock as it is when they begin.
//!
//! ```text
//! schedule  ──┬───────────── interval ─────────────┬──▶   places 0 .. interval, again and again
//!             00…          7f…                   ff…       keys
//! ```

use crate::pair::Moment;
use crate::tables::change::SessionKey;

/// Sessions between two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in it.
    pub from: SessionKey,
    /// The first key that is not; none: to the last.
    pub to: Option<SessionKey>,
}

/// Goes along the schedule.
#[derive(Clone, Debug)]
pub struct Pace {
    interval_ms: u64,
    /// The schedule's clock minus this node's.
    shift: u64,
    /// Everybody due before that was handed out, by the schedule's clock.
    until: u64,
    skipped_ms: u64,
}

impl Pace {
    /// Begins now. Two nodes whose wall clocks agree have the same schedule.
    #[must_use]
    pub fn new(interval_ms: u64, now: Moment, wall_ms: u64) -> Self {
        let shift = wall_ms.wrapping_sub(now.0);
        Self { interval_ms: interval_ms.max(1), shift, until: wall_ms, skipped_ms: 0 }
    }

    /// Who became due since this was last asked, each once. Whoever asks late gets all that are due, but
    /// for a whole interval at most: then each session once, and nobody twice.
    pub fn due(&mut self, now: Moment) -> Vec<KeyRange> {
        let end = now.0.wrapping_add(self.shift);
        let Some(length) = end.checked_sub(self.until).filter(|length| *length > 0) else {
            return Vec::new();
        };
        if length > self.interval_ms {
            self.skipped_ms += length - self.interval_ms;
            self.until = end - self.interval_ms;
        }
        let (first, last) = (self.until % self.interval_ms, end % self.interval_ms);
        self.until = end;
        if first < last {
            vec![self.range(first, last)]
        } else if last == 0 {
            vec![self.range(first, self.interval_ms)]
        } else {
            vec![self.range(first, self.interval_ms), self.range(0, last)]
        }
    }

    /// How much of the schedule was left out because this was asked too late.
    #[must_use]
    pub fn skipped_ms(&self) -> u64 {
        self.skipped_ms
    }

    fn range(&self, from: u64, to: u64) -> KeyRange {
        KeyRange {
            from: self.first_key(from).unwrap_or(SessionKey([u8::MAX; 16])),
            to: self.first_key(to),
        }
    }

    /// The smallest key at this place or later.
    fn first_key(&self, place: u64) -> Option<SessionKey> {
        let head = (u128::from(place) << 64).div_ceil(u128::from(self.interval_ms));
        let head = u64::try_from(head).ok()?;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&head.to_be_bytes());
        Some(SessionKey(key))
    }
}

impl KeyRange {
    /// Whether a key is in it.
    #[must_use]
    pub fn contains(&self, key: SessionKey) -> bool {
        key >= self.from && self.to.is_none_or(|to| key < to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 30_000;

    /// Keys as digests are: spread over all there are.
    fn keys() -> Vec<SessionKey> {
        let mut seed: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let next = |_| {
            seed = seed.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            SessionKey((seed ^ (seed >> 64)).to_be_bytes())
        };
        let mut keys: Vec<SessionKey> = (0..10_000).map(next).collect();
        keys.extend([SessionKey([0; 16]), SessionKey([u8::MAX; 16])]);
        keys
    }

    fn counted(ranges: &[KeyRange], keys: &[SessionKey], counts: &mut [u32]) -> u32 {
        let mut all = 0;
        for (key, count) in keys.iter().zip(counts) {
            let due = ranges.iter().filter(|range| range.contains(*key)).count();
            let due = u32::try_from(due).unwrap();
            *count += due;
            all += due;
        }
        all
    }

    #[test]
    fn every_session_is_due_once_an_interval_and_never_many_at_once() {
        let keys = keys();
        let mut counts = vec![0; keys.len()];
        let mut pace = Pace::new(INTERVAL, Moment(500), 1_700_000_012_345);
        assert_eq!(pace.due(Moment(500)), vec![]);
        let mut worst = 0;
        for tick in 1..=INTERVAL / 50 {
            let ranges = pace.due(Moment(500 + tick * 50));
            worst = worst.max(counted(&ranges, &keys, &mut counts));
        }
        assert!(counts.iter().all(|count| *count == 1));
        // 10,000 over 600 ticks are 17 each; by chance a few more.
        assert!(worst < 60, "{worst}");
        assert_eq!(pace.skipped_ms(), 0);
    }

    #[test]
    fn who_asks_late_gets_everybody_once_and_not_twice() {
        let keys = keys();
        let mut pace = Pace::new(INTERVAL, Moment(0), 7);
        let mut counts = vec![0; keys.len()];
        counted(&pace.due(Moment(3 * INTERVAL + 11)), &keys, &mut counts);
        assert!(counts.iter().all(|count| *count == 1));
        assert_eq!(pace.skipped_ms(), 2 * INTERVAL + 11);
        let mut counts = vec![0; keys.len()];
        counted(&pace.due(Moment(4 * INTERVAL + 11)), &keys, &mut counts);
        assert!(counts.iter().all(|count| *count == 1));
    }

    #[test]
    fn after_a_switch_nobody_waits_longer_than_an_interval_and_the_schedule_is_the_same() {
        let keys = keys();
        // Two nodes with other clocks since boot and the same wall clock.
        let mut old = Pace::new(INTERVAL, Moment(1_000), 1_700_000_000_000);
        let mut new = Pace::new(INTERVAL, Moment(77_000), 1_700_000_040_000);
        let mut before = vec![0; keys.len()];
        let _earlier = old.due(Moment(41_000));
        counted(&old.due(Moment(51_000)), &keys, &mut before);
        let mut after = vec![0; keys.len()];
        counted(&new.due(Moment(87_000)), &keys, &mut after);
        assert_eq!(before, after);
        let mut rest = after;
        counted(&new.due(Moment(77_000 + INTERVAL)), &keys, &mut rest);
        assert!(rest.iter().all(|count| *count == 1));
    }
}
