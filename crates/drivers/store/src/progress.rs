//! How far a load is, to be watched from other threads, and a flag to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::broken::{BrokenRow, BrokenRows};

/// The counters of one load; make a new one for each.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
    bytes_read: AtomicU64,
    bytes_total: AtomicU64,
    pub(crate) broken: BrokenRows,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// Rows read so far, after unpivoting.
    pub rows: u64,
    /// Bytes of the file that were read; compressed ones where the file is compressed.
    pub bytes_read: u64,
    /// The file's size; 0 until it is known.
    pub bytes_total: u64,
    /// Rows left out so far.
    pub broken_rows: u64,
}

impl ProgressSnapshot {
    /// How much of the file is read, 0 to 100. The index is built after the last byte, so that 100
    /// does not mean done.
    pub fn percent(&self) -> u8 {
        let percent = (u128::from(self.bytes_read) * 100)
            .checked_div(u128::from(self.bytes_total))
            .unwrap_or(0);
        u8::try_from(percent).unwrap_or(100).min(100)
    }
}

impl Progress {
    /// Counters at zero.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// The counters now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        ProgressSnapshot {
            rows: self.rows.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            broken_rows: self.broken.count(),
        }
    }

    /// The first few broken rows of the file, as far as it is read.
    pub fn first_broken_rows(&self) -> Vec<BrokenRow> {
        self.broken.first()
    }

    pub(crate) fn expect_bytes(&self, total: u64) {
        self.bytes_total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

/// Raised once to stop a load; the load ends with `LoadError::Cancelled` within a chunk.
#[derive(Debug, Default)]
pub struct CancelFlag(AtomicBool);

impl CancelFlag {
    /// A flag that is not raised.
    pub fn new() -> CancelFlag {
        CancelFlag::default()
    }

    /// Stops the load that looks at this flag.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is raised.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_between_0_and_100_even_without_a_total() {
        let progress = Progress::new();
        assert_eq!(progress.snapshot().percent(), 0);
        progress.expect_bytes(200);
        progress.add_bytes(51);
        assert_eq!(progress.snapshot().percent(), 25);
        progress.add_bytes(400);
        assert_eq!(progress.snapshot().percent(), 100);
    }
}
