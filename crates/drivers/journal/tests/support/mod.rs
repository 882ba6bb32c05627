//! Records and directories to try the journal with.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::change::{Numbered, OperationResult, Reply, SessionKey};
use hotpair_core::tables::record::{Body, Change, Record, encode};
use hotpair_core::tables::snapshot::{Cursor, Piece};
use hotpair_core::tables::store::Store;
use hotpair_journal::{
    Durability, Faults, Finished, Journal, OpenError, Options, Recovered, SnapshotWriter,
};
use tempfile::TempDir;

/// Bytes before the first record of a redo file.
pub(crate) const HEADER: u64 = 32;

/// A directory that goes with the test.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The record with which a mastership begins.
pub(crate) fn start(epoch: u64, number: u64) -> Record {
    Record { epoch: Epoch(epoch), number, body: Body::EpochStart { life: epoch * 100 } }
}

/// A record that puts a row; which one, the number tells.
pub(crate) fn put(epoch: u64, number: u64) -> Record {
    put_value(epoch, number, format!("value {number} of epoch {epoch}").into_bytes())
}

/// A record that puts this value.
pub(crate) fn put_value(epoch: u64, number: u64, value: Vec<u8>) -> Record {
    let key = format!("key {}", number % 17).into_bytes();
    let change = Change::Put { table: "accounts".into(), key: key.into(), value: value.into() };
    let session = SessionKey([u8::try_from(number % 3).unwrap(); 16]);
    Record {
        epoch: Epoch(epoch),
        number,
        body: Body::Changes {
            numbered: Some(Numbered { session, number, done_up_to: 0 }),
            changes: vec![change],
            reply: Some(Reply::Results(vec![OperationResult::Put { version: number }])),
        },
    }
}

/// Their bytes.
pub(crate) fn bytes(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        encode(record, &mut bytes);
    }
    bytes
}

/// Records of one mastership: its start, then changes.
pub(crate) fn mastership(epoch: u64, first: u64, last: u64) -> Vec<Record> {
    let mut records = vec![start(epoch, first)];
    records.extend((first + 1..=last).map(|number| put(epoch, number)));
    records
}

/// The store that these records lead to.
pub(crate) fn store(records: &[Record]) -> Store {
    let mut store = Store::default();
    for record in records {
        store.apply(record);
    }
    store
}

/// Appends each by itself.
pub(crate) fn append_each(journal: &mut Journal, records: &[Record]) {
    for record in records {
        journal.append(record.number, &bytes(std::slice::from_ref(record))).unwrap();
    }
}

/// Opens with redo files of this length.
pub(crate) fn open_small(directory: &Path, segment_bytes: u64) -> (Journal, Recovered) {
    try_open(directory, segment_bytes).unwrap()
}

pub(crate) fn try_open(
    directory: &Path,
    segment_bytes: u64,
) -> Result<(Journal, Recovered), OpenError> {
    let options = Options { segment_bytes, ..Options::new(Durability::File) };
    Journal::open_with(directory, options)
}

/// Opens with failures to order.
pub(crate) fn open_faulty(directory: &Path, durability: Durability) -> (Journal, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let options = Options { faults: Some(faults.clone()), ..Options::new(durability) };
    (Journal::open_with(directory, options).unwrap().0, faults)
}

/// Writes a snapshot of this store: all but its end.
pub(crate) fn write_pieces(writer: &mut SnapshotWriter, journal: &Journal, store: &Store) {
    writer.piece(&Piece::Begin { history: journal.history().clone() }).unwrap();
    let mut cursor = Cursor::default();
    while let Some(piece) = store.cut(&mut cursor) {
        writer.piece(&piece).unwrap();
    }
}

/// A snapshot of this store, as it is at the log's end.
pub(crate) fn snapshot(journal: &mut Journal, store: &Store) -> Finished {
    let mut writer = journal.start_snapshot().unwrap();
    write_pieces(&mut writer, journal, store);
    writer.piece(&Piece::End { until: journal.head() }).unwrap();
    writer.finish().unwrap()
}

/// Whether both hold the same, windows included.
pub(crate) fn assert_same(one: &Store, other: &Store) {
    assert_eq!(one.applied(), other.applied());
    assert_eq!(one.digests().collect::<Vec<_>>(), other.digests().collect::<Vec<_>>());
    let from = SessionKey([0; 16]);
    assert_eq!(one.windows(from).collect::<Vec<_>>(), other.windows(from).collect::<Vec<_>>());
}

/// The files whose names begin like this, in order.
pub(crate) fn files(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    files.sort();
    files
}

/// What is wrong with this directory.
pub(crate) fn refusal(directory: &Path) -> OpenError {
    Journal::open(directory, Durability::File).expect_err("the directory is not to be trusted")
}

/// Changes one byte of a file.
pub(crate) fn damage(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).unwrap();
}
