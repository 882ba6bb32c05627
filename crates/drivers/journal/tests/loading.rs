//! A state that comes from the peer: used once it is whole, and not a moment before.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

mod support;

use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::position::{EpochStart, History};
use hotpair_core::tables::record::Record;
use hotpair_core::tables::snapshot::{Cursor, Piece};
use hotpair_core::tables::store::Store;
use hotpair_journal::{Journal, SnapshotWriter};
use support::{append_each, assert_same, directory, files, mastership, open_small, store};

/// The peer's log: record 30 on is of another mastership than ours.
fn peers() -> Vec<Record> {
    [mastership(1, 1, 29), mastership(2, 30, 80)].concat()
}

/// The peer's state, cut between records 60 and 70.
fn send(writer: &mut SnapshotWriter) {
    let starts = [(1, 1), (2, 30)].map(|(epoch, first)| EpochStart {
        epoch: Epoch(epoch),
        life: epoch * 100,
        first,
    });
    writer.piece(&Piece::Begin { history: History::new(starts.to_vec(), 60) }).unwrap();
    let mut cursor = Cursor::default();
    while let Some(piece) = store(&peers()[..70]).cut(&mut cursor) {
        writer.piece(&piece).unwrap();
    }
}

fn with_own_state(directory: &std::path::Path) -> (Journal, Vec<Record>) {
    let own = mastership(1, 1, 50);
    let (mut journal, _) = open_small(directory, 1_000);
    append_each(&mut journal, &own);
    (journal, own)
}

#[test]
fn a_state_from_the_peer_counts_once_its_redo_has_arrived() {
    let directory = directory();
    let (mut journal, _) = with_own_state(directory.path());
    let mut writer = journal.begin_loading().unwrap();
    send(&mut writer);
    writer.piece(&Piece::End { until: 70 }).unwrap();
    journal.install(writer).unwrap();
    assert_eq!((journal.head(), journal.oldest()), (60, 61));
    assert_eq!(journal.history().starts().len(), 2);
    append_each(&mut journal, &peers()[60..69]);
    assert!(!journal.is_complete());
    append_each(&mut journal, &peers()[69..70]);
    assert!(journal.is_complete());
    append_each(&mut journal, &peers()[70..]);
    let recovered = journal.reopen().unwrap();
    assert!(recovered.complete && recovered.notes.is_empty(), "{:?}", recovered.notes);
    assert_eq!(recovered.snapshot, Some(60));
    assert_same(&recovered.store, &store(&peers()));
    assert_eq!(recovered.history.starts().len(), 2);
    assert!(files(directory.path(), "loading").is_empty());
}

#[test]
fn a_restart_before_the_snapshot_is_whole_leaves_the_old_state_and_says_so() {
    let directory = directory();
    let (mut journal, own) = with_own_state(directory.path());
    let mut writer = journal.begin_loading().unwrap();
    send(&mut writer);
    std::mem::forget(writer);
    let recovered = journal.reopen().unwrap();
    assert!(!recovered.complete && !journal.is_complete());
    assert_same(&recovered.store, &store(&own));
    assert_eq!(recovered.notes.len(), 2, "{:?}", recovered.notes);
    // It is still so after another restart, and until the caller says otherwise.
    assert!(!journal.reopen().unwrap().complete);
    journal.abandon_loading().unwrap();
    assert!(journal.reopen().unwrap().complete);
}

#[test]
fn a_restart_before_the_redo_has_arrived_leaves_nothing_half_loaded() {
    let directory = directory();
    let (mut journal, _) = with_own_state(directory.path());
    let mut writer = journal.begin_loading().unwrap();
    send(&mut writer);
    writer.piece(&Piece::End { until: 70 }).unwrap();
    journal.install(writer).unwrap();
    append_each(&mut journal, &peers()[60..69]);
    let recovered = journal.reopen().unwrap();
    assert!(!recovered.complete && !journal.is_complete());
    assert_same(&recovered.store, &Store::default());
    assert_eq!((journal.head(), journal.oldest()), (0, 1));
    assert!(recovered.notes.join("; ").contains("to be loaded again"), "{:?}", recovered.notes);
    assert!(!journal.reopen().unwrap().complete);

    // The second attempt.
    let mut writer = journal.begin_loading().unwrap();
    send(&mut writer);
    writer.piece(&Piece::End { until: 70 }).unwrap();
    journal.install(writer).unwrap();
    append_each(&mut journal, &peers()[60..]);
    let recovered = journal.reopen().unwrap();
    assert!(recovered.complete);
    assert_same(&recovered.store, &store(&peers()));
}

#[test]
fn a_restart_in_the_middle_of_the_exchange_leaves_nothing_half_loaded() {
    let directory = directory();
    let (mut journal, _) = with_own_state(directory.path());
    // As it is between the removal of the old and the naming of the new.
    journal.write_small("loading", b"installing\n").unwrap();
    std::fs::remove_file(files(directory.path(), "redo-").pop().unwrap()).unwrap();
    let recovered = journal.reopen().unwrap();
    assert!(!recovered.complete);
    assert_same(&recovered.store, &Store::default());
    assert_eq!(journal.head(), 0);
    assert_eq!(files(directory.path(), "redo-").len(), 1);
}

#[test]
fn a_snapshot_that_needs_no_redo_counts_at_once() {
    let directory = directory();
    let (mut journal, _) = with_own_state(directory.path());
    let mut writer = journal.begin_loading().unwrap();
    send(&mut writer);
    writer.piece(&Piece::End { until: 60 }).unwrap();
    journal.install(writer).unwrap();
    assert!(journal.is_complete());
    assert!(journal.reopen().unwrap().complete);
}
