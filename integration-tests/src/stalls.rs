//! How long this machine stood still: what a test measures in milliseconds is longer by that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(5);

/// A thread that wants to run every few milliseconds, and notes how late it was at worst.
#[derive(Debug)]
pub struct Stalls {
    worst_us: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Stalls {
    /// Begins to look.
    #[must_use]
    pub fn watch() -> Self {
        let stalls = Self { worst_us: Arc::default(), over: Arc::default() };
        let (worst_us, over) = (Arc::clone(&stalls.worst_us), Arc::clone(&stalls.over));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let slept = Instant::now();
                thread::sleep(TICK);
                let late = slept.elapsed().saturating_sub(TICK);
                worst_us
                    .fetch_max(late.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        stalls
    }

    /// The longest since it began.
    #[must_use]
    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.worst_us.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
