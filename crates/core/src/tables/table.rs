//! One table: rows by key, in the order of their keys.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use super::change::Bytes;
use super::digest::Digest;
use super::key::{Key, Ordered, Sought};

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
    rows: BTreeMap<Key, Row>,
    digest: Digest,
}

impl Table {
    /// The row with this key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Row> {
        self.rows.get(&Sought::new(key) as &dyn Ordered)
    }

    /// Rows from this key on, in order.
    pub fn scan(&self, from: &[u8]) -> impl Iterator<Item = (&Bytes, &Row)> {
        let from = Sought::new(from);
        let from: (Bound<&dyn Ordered>, Bound<&dyn Ordered>) =
            (Bound::Included(&from), Bound::Unbounded);
        self.rows.range::<dyn Ordered, _>(from).map(|(key, row)| (&key.bytes, row))
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
        match self.rows.entry(Key::new(key.clone())) {
            Entry::Occupied(old) if old.get().version > row.version => {}
            Entry::Occupied(mut old) => {
                self.digest.remove(key, old.get());
                self.digest.add(key, &row);
                old.insert(row);
            }
            Entry::Vacant(place) => {
                self.digest.add(key, &row);
                place.insert(row);
            }
        }
    }

    /// The row goes, unless it is newer than this version.
    pub(super) fn delete(&mut self, key: &[u8], version: u64) {
        if self.get(key).is_some_and(|row| row.version <= version)
            && let Some(row) = self.rows.remove(&Sought::new(key) as &dyn Ordered)
        {
            self.digest.remove(key, &row);
        }
    }
}
