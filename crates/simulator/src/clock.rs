//! A machine's clocks: one that counts suspend, with an offset and a rate of its own, and the wall.
//!
//! World time is in microseconds and is nobody's clock. A machine's clock runs up to one percent
//! fast or slow, and stands still while a hypervisor holds the machine without telling it.

use hotpair_core::pair::Moment;

/// World time in microseconds.
pub(crate) type Micros = u64;

/// One millisecond of world time.
pub(crate) const MS: Micros = 1_000;

/// A machine's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    offset: Micros,
    /// Parts per million that it runs fast (or slow, if negative).
    rate_ppm: i64,
    /// World time that this clock has not counted.
    uncounted: Micros,
    uncounted_since: Option<Micros>,
    /// What the wall clock shows beyond world time, in milliseconds.
    pub(crate) wall_ms: i64,
}

impl Clock {
    pub(crate) fn new(offset: Micros, rate_ppm: i64) -> Self {
        Self { offset, rate_ppm, uncounted: 0, uncounted_since: None, wall_ms: 0 }
    }

    /// What this clock shows at a world time.
    pub(crate) fn moment(&self, at: Micros) -> Moment {
        let at = self.uncounted_since.map_or(at, |since| at.min(since));
        let counted = at.saturating_sub(self.uncounted);
        let counted = i64::try_from(counted).expect("simulated hours fit");
        let shown = counted + counted * self.rate_ppm / 1_000_000;
        Moment(self.offset.saturating_add_signed(shown) / MS)
    }

    /// A world time at which this clock shows `moment` or a little more.
    pub(crate) fn world(&self, moment: Moment) -> Micros {
        let counted = (moment.0 * MS).saturating_sub(self.offset);
        let rate = u64::try_from(1_000_000 + self.rate_ppm).expect("a clock runs forward");
        counted * 1_000_000 / rate + self.uncounted + 1
    }

    /// The hypervisor stops the machine, and its clock with it.
    pub(crate) fn stand_still(&mut self, at: Micros) {
        self.uncounted_since.get_or_insert(at);
    }

    /// The clock runs on from where it stood.
    pub(crate) fn run_on(&mut self, at: Micros) {
        if let Some(since) = self.uncounted_since.take() {
            self.uncounted += at - since;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stood_still_runs_on_from_where_it_stood() {
        let mut clock = Clock::new(0, 0);
        clock.stand_still(5_000_000);
        assert_eq!(clock.moment(9_000_000), Moment(5_000));
        clock.run_on(9_000_000);
        assert_eq!(clock.moment(9_500_000), Moment(5_500));
    }

    #[test]
    fn the_world_time_of_a_moment_is_not_before_it() {
        for rate in [-10_000, -1, 0, 7, 10_000] {
            let clock = Clock::new(77_123, rate);
            for ms in [78, 1_000, 59_999, 600_001] {
                assert!(clock.moment(clock.world(Moment(ms)) + 1) >= Moment(ms));
            }
        }
    }
}
