//! Records of the log put together: of each row only what the last of them made of it.
//!
//! What a database is given in one transaction. Records follow one another without a gap, or something
//! else than the log was read. The pair's own tables are left out: what a session, a password or a
//! reply is stays within the pair.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::OWN_PREFIX;
use super::behind::Mark;
use super::change::Bytes;
use super::record::{Body, Change, Record};

/// Rows of one transaction; a record more may be in it.
const ROWS_MAX: usize = 10_000;
/// Bytes of keys and values of one transaction; a record more may be in it.
const BYTES_MAX: usize = 4 << 20;

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// None: it is gone.
    pub value: Option<Bytes>,
    /// The record that did it.
    pub version: u64,
}

/// Rows by table and key.
pub type Rows = BTreeMap<Arc<str>, BTreeMap<Bytes, Latest>>;

/// See the file's header.
#[derive(Debug)]
pub struct Coalesced {
    rows: Rows,
    count: usize,
    bytes: usize,
    end: Mark,
}

/// A record that does not follow the last one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {got} of epoch {epoch} came where the one after {end} was due")]
pub struct OutOfPlace {
    got: u64,
    epoch: u64,
    end: Mark,
}

impl Coalesced {
    /// Nothing yet, after this mark.
    #[must_use]
    pub fn after(mark: Mark) -> Self {
        Self { rows: Rows::new(), count: 0, bytes: 0, end: mark }
    }

    /// The next record.
    pub fn take(&mut self, record: &Record) -> Result<(), OutOfPlace> {
        if record.number != self.end.number + 1 || record.epoch < self.end.epoch {
            let (got, epoch, end) = (record.number, record.epoch.0, self.end);
            return Err(OutOfPlace { got, epoch, end });
        }
        self.end.number = record.number;
        self.end.epoch = record.epoch;
        match &record.body {
            Body::EpochStart { life } => self.end.life = *life,
            Body::Changes { changes, .. } => {
                for change in changes {
                    self.change(change, record.number);
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, change: &Change, version: u64) {
        let (table, key, value) = match change {
            Change::Put { table, key, value } => (table, key, Some(value.clone())),
            Change::Delete { table, key } => (table, key, None),
        };
        if table.starts_with(OWN_PREFIX) {
            return;
        }
        self.bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
        let latest = Latest { value, version };
        let rows = match self.rows.get_mut(table) {
            Some(rows) => rows,
            None => self.rows.entry(table.clone()).or_default(),
        };
        if rows.insert(key.clone(), latest).is_none() {
            self.count += 1;
        }
    }

    /// Enough for one transaction.
    #[must_use]
    pub fn full(&self) -> bool {
        self.count >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> Mark {
        self.end
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::identity::Epoch;

    fn record(epoch: u64, number: u64, changes: Vec<Change>) -> Record {
        let body = Body::Changes { numbered: None, changes, reply: None };
        Record { epoch: Epoch(epoch), number, body }
    }

    fn put(table: &str, key: &str, value: &str) -> Change {
        let bytes = |text: &str| text.as_bytes().into();
        Change::Put { table: table.into(), key: bytes(key), value: bytes(value) }
    }

    fn delete(table: &str, key: &str) -> Change {
        Change::Delete { table: table.into(), key: key.as_bytes().into() }
    }

    #[test]
    fn the_last_change_of_a_row_is_what_is_written() {
        let mut batch = Coalesced::after(Mark { epoch: Epoch(1), life: 7, number: 10 });
        batch.take(&record(1, 11, vec![put("t", "a", "1"), put("t", "b", "1")])).unwrap();
        batch.take(&record(1, 12, vec![put("t", "a", "2"), delete("t", "b")])).unwrap();
        batch.take(&record(1, 13, vec![put("hotpair.sessions", "s", "secret")])).unwrap();
        let rows = &batch.rows()["t"];
        let a = rows.get(b"a".as_slice()).unwrap();
        assert_eq!((a.value.as_deref(), a.version), (Some(b"2".as_slice()), 12));
        assert_eq!(rows.get(b"b".as_slice()).unwrap().value, None);
        assert_eq!(batch.rows().len(), 1, "the pair's own tables stay within the pair");
        assert_eq!(batch.end(), Mark { epoch: Epoch(1), life: 7, number: 13 });
    }

    #[test]
    fn a_mastership_that_begins_is_where_it_ends() {
        let mut batch = Coalesced::after(Mark { epoch: Epoch(1), life: 7, number: 10 });
        let start = Record { epoch: Epoch(3), number: 11, body: Body::EpochStart { life: 9 } };
        batch.take(&start).unwrap();
        assert_eq!(batch.end(), Mark { epoch: Epoch(3), life: 9, number: 11 });
        batch.take(&record(2, 12, Vec::new())).unwrap_err();
        batch.take(&record(3, 13, Vec::new())).unwrap_err();
        batch.take(&record(3, 12, Vec::new())).unwrap();
    }

    #[test]
    fn it_is_full_by_rows_and_by_bytes() {
        let mut batch = Coalesced::after(Mark::default());
        for number in 1..=10_000 {
            assert!(!batch.full());
            batch.take(&record(1, number, vec![put("t", &number.to_string(), "")])).unwrap();
        }
        assert!(batch.full());
        let mut batch = Coalesced::after(Mark::default());
        let long = "x".repeat(1 << 20);
        for number in 1..=4 {
            assert!(!batch.full());
            batch.take(&record(1, number, vec![put("t", "a", &long)])).unwrap();
        }
        assert!(batch.full());
    }
}
