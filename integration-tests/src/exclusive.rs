//! One heavy test at a time on this machine, however the tests are run.
//!
//! Tests with limits on time, or with several JVMs, must not run beside one another on two cores.
//! A number of threads given to the test runner would slow down all tests, and would not count
//! across test binaries; a lock that only the heavy ones take does both.

use std::env;
use std::fs::File;

use anyhow::{Context, Result};

/// The machine to oneself, as far as other heavy tests go; given back when dropped.
#[derive(Debug)]
pub struct Exclusive {
    /// Never read: the lock on it is what counts, and it goes with the process at the latest.
    _lock: File,
}

impl Exclusive {
    /// Waits for its turn.
    pub fn acquire() -> Result<Self> {
        let path = env::temp_dir().join("hotpair-heavy-test.lock");
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { _lock: file })
    }
}
