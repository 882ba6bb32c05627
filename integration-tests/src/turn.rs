//! Heavy tests wait for their turn on this machine, however the tests are run.
//!
//! Tests with limits on time, or with several JVMs, must not run beside one another on two cores; others
//! that mostly wait may, as many as the test runner has threads. A number of threads given to the runner
//! would slow down all tests, and would not count across test binaries; a lock that only the heavy ones
//! take does both.

use std::env;
use std::fs::File;

use anyhow::{Context, Result};

/// The machine, as far as other heavy tests go; given back when dropped.
#[derive(Debug)]
pub struct Turn {
    /// Never read: the lock on it is what counts, and it goes with the process at the latest.
    _lock: File,
}

impl Turn {
    /// Waits for a turn with no other heavy test beside it.
    pub fn alone() -> Result<Self> {
        Self::take(File::lock)
    }

    /// Waits for a turn beside others that bear it, too: limits are generous, and time is spent waiting.
    pub fn beside_others() -> Result<Self> {
        Self::take(File::lock_shared)
    }

    fn take(lock: fn(&File) -> std::io::Result<()>) -> Result<Self> {
        let path = env::temp_dir().join("hotpair-heavy-test.lock");
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        lock(&file).with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { _lock: file })
    }
}
