//! The rolling digest of a table: the sum over its rows, so that a change costs one row, and two
//! tables with the same rows have the same digest whatever way they came to them.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::table::Row;

/// The sum of all rows' hashes, modulo 2^128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u128);

impl Digest {
    /// A row came.
    pub fn add(&mut self, key: &[u8], row: &Row) {
        self.0 = self.0.wrapping_add(hash(key, row));
    }

    /// A row went.
    pub fn remove(&mut self, key: &[u8], row: &Row) {
        self.0 = self.0.wrapping_sub(hash(key, row));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

fn hash(key: &[u8], row: &Row) -> u128 {
    // One seeds the other, so that it matters where the key ends and the value begins.
    xxh3_128_with_seed(&row.value, xxh3_64_with_seed(key, row.version))
}
