//! What the tables' thread shows of itself, for whoever must not wait for it.

use std::sync::atomic::{AtomicU64, Ordering};

use hotpair_admin::TableFigures;

/// No follower.
const NONE: u64 = u64::MAX;

/// The newest figures.
#[derive(Debug)]
pub(crate) struct Figures {
    sessions: AtomicU64,
    lag: AtomicU64,
    idle_timeout_ms: u64,
}

impl Figures {
    pub(super) fn new(idle_timeout_ms: u64) -> Self {
        Self { sessions: AtomicU64::new(0), lag: AtomicU64::new(NONE), idle_timeout_ms }
    }

    pub(super) fn show(&self, sessions: u64, lag: Option<u64>) {
        self.sessions.store(sessions, Ordering::Relaxed);
        self.lag.store(lag.unwrap_or(NONE), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> TableFigures {
        let lag = self.lag.load(Ordering::Relaxed);
        TableFigures {
            sessions: self.sessions.load(Ordering::Relaxed),
            redo_lag_records: (lag != NONE).then_some(lag),
            store_lag_records: None,
            idle_timeout_ms: self.idle_timeout_ms,
        }
    }
}
