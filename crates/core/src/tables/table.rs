//! One table: rows by key, in the order of their keys.

use std::collections::BTreeMap;

use super::change::Bytes;
use super::digest::Digest;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What was put.
    pub value: Bytes,
    /// The number of the record that put it: larger with each change.
    pub version: u64,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: BTreeMap<Bytes, Row>,
    digest: Digest,
}

impl Table {
    /// The row with this key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Row> {
        self.rows.get(key)
    }

    /// Rows from this key on, in order.
    pub fn scan(&self, from: &[u8]) -> impl Iterator<Item = (&Bytes, &Row)> {
        self.rows.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded))
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The digest of all rows.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The row becomes this, unless it is newer already.
    pub(super) fn put(&mut self, key: &Bytes, row: Row) {
        match self.rows.get_mut(key) {
            Some(old) if old.version > row.version => {}
            Some(old) => {
                self.digest.remove(key, old);
                self.digest.add(key, &row);
                *old = row;
            }
            None => {
                self.digest.add(key, &row);
                self.rows.insert(key.clone(), row);
            }
        }
    }

    /// The row goes, unless it is newer than this version.
    pub(super) fn delete(&mut self, key: &[u8], version: u64) {
        if self.rows.get(key).is_some_and(|row| row.version <= version)
            && let Some(row) = self.rows.remove(key)
        {
            self.digest.remove(key, &row);
        }
    }
}
