//! Rows that cannot be used: what is wrong with one, and how many there were.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A row that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokenRow {
    /// The line its record begins in, counted from 1; in Parquet the row.
    pub line: u64,
    /// The file.
    pub file: String,
    /// The column, where one is to blame.
    pub column: Option<String>,
    /// What is wrong, for people.
    pub what: String,
}

impl fmt::Display for BrokenRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file, self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column `{column}`")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Counts broken rows and remembers those nearest to the file's beginning.
#[derive(Debug, Default)]
pub(crate) struct BrokenRows {
    count: AtomicU64,
    first: Mutex<Vec<BrokenRow>>,
}

impl BrokenRows {
    pub(crate) fn add(&self, row: BrokenRow) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first.lock().expect("nothing panics while holding this");
        let place = first.partition_point(|other| *other <= row);
        if place < DESCRIBED_MAX {
            first.insert(place, row);
            first.truncate(DESCRIBED_MAX);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn first(&self) -> Vec<BrokenRow> {
        self.first.lock().expect("nothing panics while holding this").clone()
    }
}

/// How many broken rows are described; the others are only counted.
const DESCRIBED_MAX: usize = 8;
