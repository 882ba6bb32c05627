//! A log line that strangers can cause must not fill the disk: once, then at most once a minute,
//! with the number of those left out.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Says when one of many equal events is worth a log line.
#[derive(Debug, Default)]
pub struct Occasionally {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said_at: Option<Instant>,
    left_out: u64,
}

impl Occasionally {
    /// How many were left out since the last line, if this one is to be said.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().expect("nothing panics while holding it");
        if state.said_at.is_some_and(|said| now.saturating_duration_since(said) < BETWEEN) {
            state.left_out += 1;
            return None;
        }
        state.said_at = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

const BETWEEN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_then_one_a_minute_with_the_number_left_out() {
        let occasionally = Occasionally::default();
        let start = Instant::now();
        assert_eq!(occasionally.due_at(start), Some(0));
        assert_eq!(occasionally.due_at(start + Duration::from_secs(1)), None);
        assert_eq!(occasionally.due_at(start + Duration::from_secs(59)), None);
        assert_eq!(occasionally.due_at(start + Duration::from_secs(60)), Some(2));
        assert_eq!(occasionally.due_at(start + Duration::from_secs(61)), None);
    }
}
