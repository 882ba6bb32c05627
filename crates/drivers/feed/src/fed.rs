//! A dataset that changes: what was loaded, never touched, and the rows that a feed has changed over it.
//!
//! ```text
//! lookup ─▶ shard of the key ─ row or gone? ─ no ─▶ what was loaded
//! scan   ─▶ what was loaded, in pieces, merged with what all shards hold of each piece
//! ```
//!
//! Changed rows are in shards by key, each in key order behind a lock that is held for one row's
//! change or look. A reader meets a writer in one shard of 64, for well below a microsecond.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use hotpair_core::services::dataset::{
    Applied, AsOf, Column, Dataset, KeyError, Row, Update, UpdateError, Value, check_key, prepare,
    row_digest, version_of,
};

/// Why an update changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It does not fit the dataset.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The feed brought more than is kept.
    #[error("no room: the feed has changed {rows} rows, about {} MiB, since the last load", bytes >> 20)]
    Full {
        /// Rows that it has changed.
        rows: u64,
        /// About what they take.
        bytes: u64,
    },
}

type Key = Vec<Value>;

/// A row that the feed has changed.
#[derive(Clone, Debug)]
struct Entry {
    version: u64,
    /// None: it is gone.
    row: Option<Arc<[Value]>>,
    /// Another one was loaded in its place.
    loaded: bool,
}

/// See the file's header.
#[derive(Debug)]
pub struct FedDataset {
    base: Arc<dyn Dataset>,
    key_places: Vec<usize>,
    shards: Box<[RwLock<BTreeMap<Key, Entry>>]>,
    /// One after the other: who changes rows.
    changing: Mutex<()>,
    /// Rows there are, beyond those that were loaded.
    more_rows: AtomicI64,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// The largest version, and one more; 0 where there was none.
    version: AtomicU64,
    wall_ms: AtomicU64,
    entries_max: u64,
    bytes_max: u64,
}

impl FedDataset {
    /// Nothing is changed yet. What was loaded is as of `wall_ms`.
    #[must_use]
    pub fn new(base: Arc<dyn Dataset>, wall_ms: u64) -> Self {
        Self::with_room(base, wall_ms, ENTRIES_MAX, BYTES_MAX)
    }

    pub(crate) fn with_room(
        base: Arc<dyn Dataset>,
        wall_ms: u64,
        entries_max: u64,
        bytes_max: u64,
    ) -> Self {
        let place = |key: &Column| {
            let place = base.columns().iter().position(|column| column.name == key.name);
            place.expect("the key's columns are among all columns")
        };
        let key_places = base.key_columns().iter().map(place).collect();
        Self {
            key_places,
            base,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            changing: Mutex::default(),
            more_rows: AtomicI64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            version: AtomicU64::new(0),
            wall_ms: AtomicU64::new(wall_ms),
            entries_max,
            bytes_max,
        }
    }

    /// How new it is.
    #[must_use]
    pub fn as_of(&self) -> AsOf {
        AsOf {
            version: self.version.load(Ordering::Relaxed).checked_sub(1),
            wall_ms: self.wall_ms.load(Ordering::Relaxed),
        }
    }

    /// Brings one update in, which came at `wall_ms`.
    pub fn apply(&self, update: &Update, wall_ms: u64) -> Result<Applied, ApplyError> {
        let mut prepared = prepare(self.base.columns(), &self.key_places, update)?;
        let shard = &self.shards[shard_of(&prepared.key)];
        let _alone = self.changing.lock().expect("nobody panics with it");
        let known = shard.read().expect(POISONED).get(prepared.key.as_slice()).cloned();
        let is_new = known.is_none();
        let of_row = |row: Option<&[Value]>| bytes_of(&prepared.key) + row.map_or(0, bytes_of);
        let less = known.as_ref().map_or(0, |known| of_row(known.row.as_deref()));
        let known = match known {
            Some(entry) => Some(entry),
            None => self.loaded(&prepared.key),
        };
        if known.as_ref().is_some_and(|known| known.version >= prepared.version) {
            return Ok(Applied::Older);
        }
        let before = known.as_ref().and_then(|known| known.row.clone());
        let row = prepared.cells.take().map(|cells| {
            let mut row = match &before {
                Some(before) => before.to_vec(),
                None => vec![Value::Null; self.base.columns().len()],
            };
            for (place, value) in cells {
                row[place] = value;
            }
            Arc::from(row)
        });
        let applied = match (&before, &row) {
            (None, Some(_)) => Applied::Inserted,
            (Some(_), Some(_)) => Applied::Changed,
            (_, None) => Applied::Deleted,
        };
        let loaded = known.is_some_and(|known| known.loaded);
        let more = of_row(row.as_deref());
        let rows = self.entries.load(Ordering::Relaxed);
        let held = self.bytes.load(Ordering::Relaxed);
        let bytes = (held + more).saturating_sub(less);
        // What makes it no larger is always brought in.
        if (is_new && rows >= self.entries_max) || (more > less && bytes > self.bytes_max) {
            return Err(ApplyError::Full { rows, bytes: held });
        }
        let entry = Entry { version: prepared.version, row, loaded };
        shard.write().expect(POISONED).insert(prepared.key, entry);
        let more = i64::from(applied == Applied::Inserted)
            - i64::from(applied == Applied::Deleted && before.is_some());
        self.more_rows.fetch_add(more, Ordering::Relaxed);
        self.entries.fetch_add(u64::from(is_new), Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.version.fetch_max(prepared.version.saturating_add(1), Ordering::Relaxed);
        self.wall_ms.fetch_max(wall_ms, Ordering::Relaxed);
        Ok(applied)
    }

    /// The row as it was loaded, with the version 0 where it says none: every update is newer.
    fn loaded(&self, key: &[Value]) -> Option<Entry> {
        let row = self.base.lookup(key).ok()??;
        match version_of(self.base.columns(), &row) {
            Some(version) => Some(Entry { version, row: Some(row.into()), loaded: true }),
            None => Some(Entry { version: 0, row: Some(row.into()), loaded: true }),
        }
    }

    fn key_of(&self, row: &[Value]) -> Key {
        self.key_places.iter().map(|place| row[*place].clone()).collect()
    }

    /// What the shards hold from `start` to `end`, at most `limit` rows of each; and where that ends,
    /// if a shard has more.
    fn changed(
        &self,
        start: &Bound<Key>,
        end: Option<&Key>,
        limit: usize,
    ) -> (Vec<(Key, Entry)>, Option<Key>) {
        let (mut found, mut stop) = (Vec::new(), None::<Key>);
        for shard in &self.shards {
            let shard = shard.read().expect(POISONED);
            let upper = end.map_or(Bound::Unbounded, |end| Bound::Included(end.clone()));
            let mut rows = shard.range((start.clone(), upper));
            let mut last = None;
            for (key, entry) in rows.by_ref().take(limit) {
                found.push((key.clone(), entry.clone()));
                last = Some(key);
            }
            if rows.next().is_some()
                && let Some(last) = last
                && stop.as_ref().is_none_or(|stop| last < stop)
            {
                stop = Some(last.clone());
            }
        }
        (found, stop)
    }
}

impl Dataset for FedDataset {
    fn columns(&self) -> &[Column] {
        self.base.columns()
    }

    fn key_columns(&self) -> &[Column] {
        self.base.key_columns()
    }

    fn rows(&self) -> u64 {
        self.base.rows().saturating_add_signed(self.more_rows.load(Ordering::Relaxed))
    }

    fn lookup(&self, key: &[Value]) -> Result<Option<Row>, KeyError> {
        check_key(self.base.key_columns(), key, false)?;
        let shard = &self.shards[shard_of(key)];
        let known = shard.read().expect(POISONED).get(key).map(|entry| entry.row.clone());
        match known {
            Some(row) => Ok(row.map(|row| row.to_vec())),
            None => self.base.lookup(key),
        }
    }

    fn scan(&self, from: &[Value], limit: usize) -> Result<Vec<Row>, KeyError> {
        check_key(self.base.key_columns(), from, true)?;
        let mut rows = Vec::new();
        let mut start = Bound::Included(from.to_vec());
        while rows.len() < limit {
            let wanted = (limit - rows.len()).min(PIECE);
            let (Bound::Included(first) | Bound::Excluded(first)) = &start else { break };
            // One more, for the row that was the last one before.
            let loaded = self.base.scan(first, wanted + 1)?;
            let whole = loaded.len() <= wanted;
            let mut loaded: BTreeMap<Key, Row> =
                loaded.into_iter().map(|row| (self.key_of(&row), row)).collect();
            if matches!(start, Bound::Excluded(_)) {
                loaded.remove(first);
            }
            let mut end = if whole { None } else { loaded.keys().next_back().cloned() };
            let (changed, stop) = self.changed(&start, end.as_ref(), wanted + 1);
            if let Some(stop) = stop {
                end = Some(stop);
            }
            for (key, entry) in changed {
                match entry.row {
                    Some(row) => loaded.insert(key, row.to_vec()),
                    None => loaded.remove(&key),
                };
            }
            let within = |key: &Key| end.as_ref().is_none_or(|end| key <= end);
            let left = limit - rows.len();
            let here = loaded.into_iter().take_while(|(key, _)| within(key));
            rows.extend(here.map(|(_, row)| row).take(left));
            match end {
                Some(end) => start = Bound::Excluded(end),
                None => break,
            }
        }
        Ok(rows)
    }

    fn checksum(&self) -> u64 {
        let of = |row: &[Value]| row_digest(row.iter().map(Value::digest));
        let mut sum = self.base.checksum();
        for shard in &self.shards {
            for (key, entry) in &*shard.read().expect(POISONED) {
                if let (true, Ok(Some(row))) = (entry.loaded, self.base.lookup(key)) {
                    sum = sum.wrapping_sub(of(&row));
                }
                sum = sum.wrapping_add(entry.row.as_deref().map_or(0, of));
            }
        }
        sum
    }

    fn memory_bytes(&self) -> u64 {
        self.base.memory_bytes() + self.bytes.load(Ordering::Relaxed)
    }
}

fn shard_of(key: &[Value]) -> usize {
    let digest = row_digest(key.iter().map(Value::digest));
    usize::try_from(digest % SHARDS as u64).expect("less than the shards")
}

/// About what a row or a key takes, with its place in the tree.
fn bytes_of(values: &[Value]) -> u64 {
    let text = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Null
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Date(_)
        | Value::Timestamp(_) => 0,
    };
    let texts: usize = values.iter().map(text).sum();
    (size_of_val(values) + texts + 48) as u64
}

const SHARDS: usize = 64;
/// Rows of what was loaded that a scan merges at a time.
const PIECE: usize = 256;
/// Rows that a feed may change or bring: some gigabytes.
const ENTRIES_MAX: u64 = 10_000_000;
/// What they may take, all together.
const BYTES_MAX: u64 = 4 << 30;
const POISONED: &str = "whoever panics while it changes a row ends the process";

#[cfg(test)]
mod tests {
    use super::*;
    use hotpair_core::services::dataset::{ColumnKind, Given};

    /// Rows in memory, as a driver would have loaded them.
    #[derive(Debug)]
    struct Base {
        columns: Vec<Column>,
        rows: BTreeMap<Key, Row>,
    }

    impl Dataset for Base {
        fn columns(&self) -> &[Column] {
            &self.columns
        }

        fn key_columns(&self) -> &[Column] {
            &self.columns[..2]
        }

        fn rows(&self) -> u64 {
            self.rows.len() as u64
        }

        fn lookup(&self, key: &[Value]) -> Result<Option<Row>, KeyError> {
            Ok(self.rows.get(key).cloned())
        }

        fn scan(&self, from: &[Value], limit: usize) -> Result<Vec<Row>, KeyError> {
            let from = from.to_vec();
            Ok(self.rows.range(from..).map(|(_, row)| row.clone()).take(limit).collect())
        }

        fn checksum(&self) -> u64 {
            let digest = |row: &Row| row_digest(row.iter().map(Value::digest));
            self.rows.values().fold(0, |sum, row| sum.wrapping_add(digest(row)))
        }

        fn memory_bytes(&self) -> u64 {
            0
        }
    }

    fn base(rows: impl IntoIterator<Item = (i64, i64, f64)>, versioned: bool) -> Base {
        let kinds = [
            ("account", ColumnKind::Integer),
            ("instrument", ColumnKind::Text),
            ("price", ColumnKind::Float),
            ("version", ColumnKind::Integer),
        ];
        let columns = kinds.map(|(name, kind)| Column { name: name.to_owned(), kind });
        let width = if versioned { 4 } else { 3 };
        let row = |(account, instrument, price): (i64, i64, f64)| {
            let key = vec![Value::Integer(account), Value::Text(format!("i{instrument:04}"))];
            let mut row = key.clone();
            row.extend([Value::Float(price), Value::Integer(100)]);
            row.truncate(width);
            (key, row)
        };
        let rows = rows.into_iter().map(row).collect();
        Base { columns: columns[..width].to_vec(), rows }
    }

    fn update(version: u64, account: i64, instrument: i64, price: Option<f64>) -> Update {
        let mut fields = vec![
            ("account".to_owned(), Given::Integer(account)),
            ("instrument".to_owned(), Given::Text(format!("i{instrument:04}"))),
        ];
        fields.extend(price.map(|price| ("price".to_owned(), Given::Float(price))));
        Update { version, deleted: price.is_none(), fields }
    }

    fn key(account: i64, instrument: i64) -> Key {
        vec![Value::Integer(account), Value::Text(format!("i{instrument:04}"))]
    }

    #[test]
    fn a_row_is_what_was_said_last_of_it_and_what_was_loaded_stays_below() {
        let fed = FedDataset::new(Arc::new(base([(1, 1, 1.0), (1, 2, 2.0)], false)), 5);
        assert_eq!(fed.as_of(), AsOf { version: None, wall_ms: 5 });
        assert_eq!(fed.apply(&update(7, 1, 1, Some(1.5)), 9), Ok(Applied::Changed));
        assert_eq!(fed.lookup(&key(1, 1)).unwrap().unwrap()[2], Value::Float(1.5));
        assert_eq!(fed.lookup(&key(1, 2)).unwrap().unwrap()[2], Value::Float(2.0));
        assert_eq!(fed.apply(&update(7, 1, 1, Some(9.0)), 9), Ok(Applied::Older));
        assert_eq!(fed.apply(&update(3, 1, 1, Some(9.0)), 9), Ok(Applied::Older));
        assert_eq!(fed.apply(&update(8, 2, 7, Some(3.0)), 11), Ok(Applied::Inserted));
        assert_eq!((fed.rows(), fed.as_of().version, fed.as_of().wall_ms), (3, Some(8), 11));
        assert_eq!(fed.apply(&update(9, 1, 2, None), 12), Ok(Applied::Deleted));
        assert_eq!((fed.rows(), fed.lookup(&key(1, 2)).unwrap()), (2, None));
        // What comes late does not bring it back; what is newer does, without its old values.
        assert_eq!(fed.apply(&update(8, 1, 2, Some(4.0)), 13), Ok(Applied::Older));
        assert_eq!(fed.apply(&update(10, 1, 2, Some(5.0)), 13), Ok(Applied::Inserted));
        assert_eq!(fed.rows(), 3);
        let unknown =
            Update { fields: vec![("colour".to_owned(), Given::Null)], ..update(11, 1, 1, None) };
        assert!(matches!(fed.apply(&unknown, 14), Err(ApplyError::Update(_))));
    }

    #[test]
    fn a_loaded_version_is_compared_with() {
        let fed = FedDataset::new(Arc::new(base([(1, 1, 1.0)], true)), 0);
        assert_eq!(fed.apply(&update(100, 1, 1, Some(9.0)), 1), Ok(Applied::Older));
        assert_eq!(fed.apply(&update(101, 1, 1, Some(9.0)), 1), Ok(Applied::Changed));
        assert_eq!(fed.lookup(&key(1, 1)).unwrap().unwrap()[3], Value::Integer(101));
    }

    #[test]
    fn there_is_an_end_to_what_a_feed_may_bring() {
        let fed = FedDataset::with_room(Arc::new(base([(1, 1, 1.0)], false)), 0, 2, u64::MAX);
        assert_eq!(fed.apply(&update(1, 2, 1, Some(1.0)), 1), Ok(Applied::Inserted));
        assert_eq!(fed.apply(&update(2, 2, 2, Some(1.0)), 1), Ok(Applied::Inserted));
        let full = fed.apply(&update(3, 2, 3, Some(1.0)), 1);
        assert!(matches!(full, Err(ApplyError::Full { rows: 2, .. })), "{full:?}");
        assert_eq!(fed.apply(&update(4, 2, 2, Some(2.0)), 1), Ok(Applied::Changed));
    }

    #[test]
    fn what_a_row_grows_by_is_counted_and_has_an_end_too() {
        let columns =
            [("k", ColumnKind::Integer), ("l", ColumnKind::Integer), ("t", ColumnKind::Text)];
        let columns = columns.map(|(n, kind)| Column { name: n.to_owned(), kind }).to_vec();
        let base = Base { columns, rows: BTreeMap::new() };
        let fed = FedDataset::with_room(Arc::new(base), 0, 10, 2_000);
        let update = |version, length| {
            let key = ["k", "l"].map(|name| (name.to_owned(), Given::Integer(1)));
            let text = ("t".to_owned(), Given::Text("x".repeat(length)));
            let fields = [key.as_slice(), &[text]].concat();
            Update { version, deleted: false, fields }
        };
        assert_eq!(fed.apply(&update(1, 10), 1), Ok(Applied::Inserted));
        let small = fed.memory_bytes();
        assert_eq!(fed.apply(&update(2, 1_000), 1), Ok(Applied::Changed));
        assert_eq!(fed.memory_bytes(), small + 990);
        let full = fed.apply(&update(3, 3_000), 1);
        assert!(matches!(full, Err(ApplyError::Full { rows: 1, .. })), "{full:?}");
        assert_eq!(fed.apply(&update(4, 10), 1), Ok(Applied::Changed));
        assert_eq!(fed.memory_bytes(), small);
        let gone = Update { deleted: true, ..update(5, 10) };
        assert_eq!(fed.apply(&gone, 1), Ok(Applied::Deleted));
        assert!(fed.memory_bytes() < small);
    }

    /// A scan and a checksum as a plain map would have them.
    #[test]
    fn scans_and_checksums_are_those_of_the_merged_rows() {
        let loaded = (0..1_500).map(|n| (n % 7, n * 2, n as f64));
        let base = base(loaded, false);
        let mut model = base.rows.clone();
        let fed = FedDataset::new(Arc::new(base), 0);
        let mut seed = 7_u64;
        let mut dice = |sides: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % sides
        };
        for version in 1..4_000 {
            let account = i64::try_from(dice(8)).unwrap();
            let instrument = i64::try_from(dice(3_000)).unwrap();
            let price = (dice(3) > 0).then_some(version as f64);
            fed.apply(&update(version, account, instrument, price), version).unwrap();
            let key = key(account, instrument);
            match price {
                Some(price) => {
                    let mut row = key.clone();
                    row.push(Value::Float(price));
                    model.insert(key, row);
                }
                None => drop(model.remove(&key)),
            }
        }
        let all: Vec<Row> = model.values().cloned().collect();
        assert_eq!(fed.rows(), all.len() as u64);
        assert_eq!(fed.scan(&[], usize::MAX).unwrap(), all);
        for limit in [0, 1, 255, 256, 257, 1_000] {
            assert_eq!(fed.scan(&[], limit).unwrap(), all[..limit.min(all.len())]);
            let from = [Value::Integer(3)];
            let wanted: Vec<Row> =
                model.range(from.to_vec()..).map(|(_, row)| row.clone()).take(limit).collect();
            assert_eq!(fed.scan(&from, limit).unwrap(), wanted);
        }
        let digest = |row: &Row| row_digest(row.iter().map(Value::digest));
        let sum = all.iter().fold(0_u64, |sum, row| sum.wrapping_add(digest(row)));
        assert_eq!(fed.checksum(), sum);
    }

    #[test]
    fn a_key_that_cannot_be_there_is_an_error() {
        let fed = FedDataset::new(Arc::new(base([(1, 1, 1.0)], false)), 0);
        assert!(fed.lookup(&[Value::Integer(1)]).is_err());
        assert!(fed.scan(&[Value::Null], 1).is_err());
    }
}
