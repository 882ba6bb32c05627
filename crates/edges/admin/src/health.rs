//! Health: whether this node's deciding thread turns. One atomic that it touches at each turn, so
//! that `/lookup` costs nothing and never waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hotpair_core::pair::Moment;

use crate::clock;

/// Shared by the deciding thread, which notes its turns, and by `/lookup`, which looks.
#[derive(Debug)]
pub struct Health {
    turned_ms: AtomicU64,
    closing: AtomicBool,
}

impl Health {
    /// Turning as of now.
    #[must_use]
    pub fn new() -> Self {
        Self { turned_ms: AtomicU64::new(clock::now().0), closing: AtomicBool::new(false) }
    }

    /// The deciding thread turned. At least every second, or the node counts as ill.
    pub fn turned(&self) {
        self.turned_ms.store(clock::now().0, Ordering::Relaxed);
    }

    /// The process is ending: not healthy any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Healthy, in either role.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.trouble().is_none()
    }

    /// What is wrong, as a sentence.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if self.closing.load(Ordering::Relaxed) {
            return Some("the process is ending".to_owned());
        }
        let still_ms = clock::now().ms_since(Moment(self.turned_ms.load(Ordering::Relaxed)));
        (still_ms > STILL_MS_MAX)
            .then(|| format!("the deciding thread has not turned for {still_ms} ms"))
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// How long the deciding thread may stand still.
const STILL_MS_MAX: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deciding_thread_that_stands_still_is_ill_and_recovers() {
        let health = Health::new();
        assert!(health.is_healthy());
        let earlier = clock::now() - (STILL_MS_MAX + 100);
        health.turned_ms.store(earlier.0, Ordering::Relaxed);
        assert!(health.trouble().unwrap().contains("has not turned"));
        health.turned();
        assert!(health.is_healthy());
        health.close();
        assert!(!health.is_healthy());
    }
}
