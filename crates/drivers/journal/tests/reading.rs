//! The log read while it is written, set aside and cut.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hotpair_core::tables::record::{Record, decode};
use hotpair_journal::{
    BATCH_BYTES, Durability, FileError, Journal, ReadError, RedoBatch, RedoReader,
};
use support::{
    append_each, assert_same, bytes, directory, files, mastership, open_faulty, open_small, put,
    put_value, snapshot, start, store,
};

fn records_of(batch: &RedoBatch) -> Vec<Record> {
    let mut records = Vec::new();
    let mut rest = &batch.bytes[..];
    while !rest.is_empty() {
        let (record, size) = decode(rest).unwrap();
        records.push(record);
        rest = &rest[size..];
    }
    assert_eq!(records.first().unwrap().number, batch.first);
    assert_eq!(records.last().unwrap().number, batch.last);
    records
}

fn all(reader: &mut RedoReader, up_to: u64) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(batch) = reader.next(up_to).unwrap() {
        records.extend(records_of(&batch));
    }
    records
}

#[test]
fn a_reader_may_begin_at_any_record_and_goes_no_further_than_told() {
    let directory = directory();
    let records = mastership(1, 1, 60);
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records);
    for from in 1..=60_usize {
        let mut reader = journal.read_from(from as u64).unwrap();
        for up_to in [0, from - 1, from, (from + 7).min(60), 60] {
            let before = usize::try_from(reader.wanted()).unwrap() - 1;
            let read = all(&mut reader, up_to as u64);
            assert_eq!(read, records[before..up_to.max(before)]);
        }
        assert_eq!(reader.next(60).unwrap(), None);
    }
    let mut reader = journal.read_from(61).unwrap();
    assert_eq!(reader.next(60).unwrap(), None);
    append_each(&mut journal, &[put(1, 61)]);
    assert_eq!(all(&mut reader, 61), [put(1, 61)]);
    let error = journal.read_from(63).unwrap_err();
    assert!(matches!(error, ReadError::Beyond { number: 63, head: 61 }), "{error}");
}

#[test]
fn records_of_all_lengths_come_through() {
    let directory = directory();
    let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
    let mut records = vec![start(1, 1)];
    let edges = [0, 1, BATCH_BYTES - 200, BATCH_BYTES - 100, BATCH_BYTES, 1 << 20];
    for number in 2..=40 {
        let length = edges[usize::try_from(number).unwrap() % edges.len()];
        records.push(put_value(1, number, vec![7; length]));
    }
    append_each(&mut journal, &records);
    for from in [1, 2, 7, 33] {
        let mut reader = journal.read_from(from).unwrap();
        assert_eq!(all(&mut reader, 40), records[usize::try_from(from).unwrap() - 1..]);
    }
    assert_same(&journal.reopen().unwrap().store, &store(&records));
}

#[test]
fn a_reader_on_another_thread_follows_the_writer() {
    let directory = directory();
    let (mut journal, _) = open_small(directory.path(), 100_000);
    append_each(&mut journal, &[start(1, 1)]);
    let written = AtomicU64::new(1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut reader = journal.read_from(1).unwrap();
        let (written, done) = (&written, &done);
        let follower = scope.spawn(move || {
            let begun = Instant::now();
            let mut read = Vec::new();
            loop {
                let over = done.load(Ordering::Acquire);
                read.extend(all(&mut reader, written.load(Ordering::Acquire)));
                if over && read.len() as u64 == written.load(Ordering::Acquire) {
                    return read;
                }
                assert!(begun.elapsed() < Duration::from_secs(60), "the reader is stuck");
            }
        });
        let mut random = fastrand::Rng::with_seed(3);
        while journal.head() < 20_000 {
            let first = journal.head() + 1;
            let last = first + random.u64(..50);
            let batch: Vec<Record> = (first..=last).map(|number| put(1, number)).collect();
            journal.append(last, &bytes(&batch)).unwrap();
            written.store(last, Ordering::Release);
        }
        done.store(true, Ordering::Release);
        let read = follower.join().unwrap();
        assert_eq!(read.len() as u64, journal.head());
        assert!(read[1..].iter().zip(2..).all(|(record, number)| *record == put(1, number)));
    });
    assert!(files(directory.path(), "redo-").len() > 10);
}

#[test]
fn nothing_is_kept_of_bytes_that_were_taken_back() {
    let directory = directory();
    let (mut journal, faults) = open_faulty(directory.path(), Durability::File);
    append_each(&mut journal, &mastership(1, 1, 5));
    let mut reader = journal.read_from(1).unwrap();
    // All of its bytes but one are in the file for a moment.
    let other = put_value(1, 6, vec![1; 50]);
    let short = bytes(std::slice::from_ref(&other)).len() as u64 - 1;
    faults.set_room(short);
    faults.set_truncations_fail(true);
    journal.append(6, &bytes(&[other])).unwrap_err();
    assert_eq!(all(&mut reader, 5).len(), 5);
    faults.set_room(u64::MAX);
    faults.set_truncations_fail(false);
    journal.reopen().unwrap();
    append_each(&mut journal, &[put(1, 6)]);
    assert_eq!(all(&mut reader, 6), [put(1, 6)]);
}

#[test]
fn what_retention_took_is_gone_for_a_reader_that_had_not_got_there() {
    let directory = directory();
    let records = mastership(1, 1, 60);
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records);
    let mut late = journal.read_from(1).unwrap();
    snapshot(&mut journal, &store(&records));
    let _ = journal.retain(u64::MAX).unwrap();
    let error = journal.read_from(1).unwrap_err();
    assert!(matches!(error, ReadError::Gone { number: 1, .. }), "{error}");
    // Its own file is still open; the next one is not there any more.
    let first = late.next(60).unwrap().unwrap();
    let error = late.next(60).unwrap_err();
    assert!(matches!(error, ReadError::Gone { number, .. } if number == first.last + 1), "{error}");
}

#[test]
fn a_damaged_record_is_not_handed_out_under_another_number() {
    let directory = directory();
    let records = mastership(1, 1, 10);
    let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
    append_each(&mut journal, &records);
    let path = files(directory.path(), "redo-").remove(0);
    let before = bytes(&records[..4]).len();
    support::damage(&path, usize::try_from(support::HEADER).unwrap() + before + 21);
    let mut reader = journal.read_from(1).unwrap();
    assert_eq!(reader.next(10).unwrap().unwrap().last, 4);
    let error = reader.next(10).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { number: 5, .. }), "{error}");
}

// --- what the peer does not have

#[test]
fn a_tail_is_set_aside_and_cut_off() {
    let records = [mastership(1, 1, 40), mastership(3, 41, 70)].concat();
    for after in [0_usize, 1, 12, 39, 40, 41, 55, 69, 70] {
        let directory = directory();
        let (mut journal, _) = open_small(directory.path(), 1_000);
        append_each(&mut journal, &records);
        let aside = journal.set_aside(3, after as u64).unwrap();
        journal.cut_after(after as u64).unwrap();
        assert_eq!(journal.head(), after as u64);
        let recovered = journal.reopen().unwrap();
        assert_same(&recovered.store, &store(&records[..after]));
        assert_eq!(recovered.history, *journal.history());
        assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
        append_each(&mut journal, &mastership(9, after as u64 + 1, after as u64 + 20));
        let recovered = journal.reopen().unwrap();
        let other = mastership(9, after as u64 + 1, after as u64 + 20);
        assert_same(&recovered.store, &store(&[&records[..after], &other[..]].concat()));

        let Some(aside) = aside else {
            assert_eq!(after, 70);
            continue;
        };
        let name = format!("aside-3-{}-70.log", after + 1);
        assert!(aside.ends_with(&name), "{}", aside.display());
        // It is a redo file: read as one, it has what was cut off.
        let copy = support::directory();
        let redo = format!("redo-{:020}.log", after + 1);
        std::fs::copy(&aside, copy.path().join(redo)).unwrap();
        let content = std::fs::read(&aside).unwrap();
        assert_eq!(&content[32..], bytes(&records[after..]));
    }
}

#[test]
fn what_was_set_aside_is_never_overwritten() {
    let directory = directory();
    let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
    append_each(&mut journal, &mastership(1, 1, 9));
    let one = journal.set_aside(1, 5).unwrap().unwrap();
    let other = journal.set_aside(1, 5).unwrap().unwrap();
    assert!(one != other && one.exists() && other.exists());
}

#[test]
fn a_cut_behind_the_only_snapshot_is_refused_and_changes_nothing() {
    let directory = directory();
    let records = mastership(1, 1, 60);
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records[..50]);
    snapshot(&mut journal, &store(&records[..50]));
    append_each(&mut journal, &records[50..]);
    let _ = journal.retain(u64::MAX).unwrap();
    let error = journal.cut_after(45).unwrap_err();
    assert!(matches!(error, FileError::NotCut { after: 45, .. }), "{error}");
    assert_same(&journal.reopen().unwrap().store, &store(&records));
    journal.cut_after(50).unwrap();
    assert_same(&journal.reopen().unwrap().store, &store(&records[..50]));
}

#[test]
fn a_snapshot_that_holds_what_is_cut_off_goes_too() {
    let directory = directory();
    let records = mastership(1, 1, 60);
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records[..50]);
    snapshot(&mut journal, &store(&records[..50]));
    append_each(&mut journal, &records[50..]);
    journal.cut_after(45).unwrap();
    assert!(files(directory.path(), "snapshot-").is_empty());
    let recovered = journal.reopen().unwrap();
    assert_eq!(recovered.snapshot, None);
    assert_same(&recovered.store, &store(&records[..45]));
}
