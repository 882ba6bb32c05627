//! How fast frames may come on one connection: a node sends a handful of pings a second, and who
//! sends far more would have the control thread to itself.

use std::time::Duration;

use tokio::time::Instant;

/// Frames that one connection may bring within a second.
pub(crate) const FRAMES_PER_SECOND_MAX: u32 = 200;

/// Counts the frames of the current second.
#[derive(Debug)]
pub(crate) struct Pace {
    second: Instant,
    frames: u32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { second: Instant::now(), frames: 0 }
    }

    /// Counts one more frame; false when there were too many.
    pub(crate) fn bearable(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.frames = 0;
        }
        self.frames += 1;
        self.frames <= FRAMES_PER_SECOND_MAX
    }
}
