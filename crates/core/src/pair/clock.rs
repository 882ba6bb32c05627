//! How far apart the two wall clocks are, from exchanges of times over the link.
//!
//! As in NTP: of the exchanges in a window, the one with the smallest round trip says it best,
//! because its error is at most half of that. Only for people: nothing is decided by wall clocks.

use std::collections::VecDeque;

/// Exchanges looked back on.
const WINDOW: usize = 32;

/// The estimate.
#[derive(Clone, Debug, Default)]
pub struct ClockOffset {
    samples: VecDeque<(u64, i64)>,
}

impl ClockOffset {
    pub(crate) fn measured(&mut self, offset_ms: i64, round_trip_ms: u64) {
        if self.samples.len() == WINDOW {
            self.samples.pop_front();
        }
        self.samples.push_back((round_trip_ms, offset_ms));
    }

    pub(crate) fn forget(&mut self) {
        self.samples.clear();
    }

    /// The peer's wall clock minus ours, in milliseconds.
    #[must_use]
    pub fn offset_ms(&self) -> Option<i64> {
        self.samples.iter().min_by_key(|(round_trip, _)| *round_trip).map(|(_, offset)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_round_trip_is_believed() {
        let mut clock = ClockOffset::default();
        assert_eq!(clock.offset_ms(), None);
        clock.measured(150, 300);
        clock.measured(20_001, 2);
        clock.measured(19_900, 220);
        assert_eq!(clock.offset_ms(), Some(20_001));
    }

    #[test]
    fn old_exchanges_leave_the_window() {
        let mut clock = ClockOffset::default();
        clock.measured(500, 0);
        for _ in 0..WINDOW {
            clock.measured(-3, 9);
        }
        assert_eq!(clock.offset_ms(), Some(-3));
    }
}
