//! What is found after the process or the machine died, and what is not believed.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

mod support;

use std::fs;

use hotpair_core::tables::record::encode;
use hotpair_core::tables::snapshot::Piece;
use hotpair_journal::{Durability, Journal, OpenError};
use support::{
    HEADER, append_each, assert_same, bytes, damage, directory, files, mastership, open_small, put,
    put_value, refusal, snapshot, start, store, try_open, write_pieces,
};

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let directory = directory();
    let records = [mastership(1, 1, 50), mastership(4, 51, 90)].concat();
    for durability in [Durability::File, Durability::Disk] {
        let (mut journal, recovered) = Journal::open(directory.path(), durability).unwrap();
        let from = usize::try_from(recovered.history.head()).unwrap();
        assert_same(&recovered.store, &store(&records[..from]));
        append_each(&mut journal, &records[from..from + 45]);
    }
    let (journal, recovered) = Journal::open(directory.path(), Durability::File).unwrap();
    assert_same(&recovered.store, &store(&records));
    assert_eq!(recovered.history, *journal.history());
    let starts: Vec<(u64, u64)> =
        recovered.history.starts().iter().map(|start| (start.epoch.0, start.first)).collect();
    assert_eq!(starts, [(1, 1), (4, 51)]);
    assert!(recovered.complete && recovered.notes.is_empty(), "{:?}", recovered.notes);
    assert_eq!((journal.oldest(), journal.head()), (1, 90));
}

#[test]
fn a_record_torn_at_any_byte_is_cut_off_and_said() {
    let records = mastership(1, 1, 5);
    let whole = bytes(&records);
    let before = whole.len() - bytes(&records[4..]).len();
    for length in before + 1..whole.len() {
        let directory = directory();
        let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
        journal.append(5, &whole).unwrap();
        let path = files(directory.path(), "redo-").remove(0);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(HEADER + length as u64).unwrap();

        let (mut journal, recovered) = Journal::open(directory.path(), Durability::File).unwrap();
        assert_same(&recovered.store, &store(&records[..4]));
        let note = recovered.notes.join("\n");
        let offset = HEADER + before as u64;
        assert!(note.contains(&format!("redo-00000000000000000001.log, byte {offset}")), "{note}");
        assert!(note.contains(&format!("{} bytes", length - before)), "{note}");

        append_each(&mut journal, &records[4..]);
        let recovered = journal.reopen().unwrap();
        assert_same(&recovered.store, &store(&records));
        assert!(recovered.notes.is_empty());
    }
}

#[test]
fn a_tail_of_garbage_or_zeros_is_cut_off() {
    let records = mastership(1, 1, 5);
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..40 {
        let directory = directory();
        let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
        append_each(&mut journal, &records);
        let path = files(directory.path(), "redo-").remove(0);
        let mut file = fs::read(&path).unwrap();
        let garbage = random.usize(1..2_000_000);
        file.extend((0..garbage).map(|_| if round % 2 == 0 { 0 } else { random.u8(..) }));
        fs::write(&path, &file).unwrap();
        let recovered = journal.reopen().unwrap();
        assert_same(&recovered.store, &store(&records));
        assert_eq!(recovered.notes.len(), 1);
    }
}

#[test]
fn any_flipped_bit_before_the_last_record_refuses_with_file_and_offset() {
    let records = mastership(1, 1, 5);
    let sizes: Vec<usize> =
        records.iter().map(|record| bytes(std::slice::from_ref(record)).len()).collect();
    let whole = bytes(&records);
    let mut offset = usize::try_from(HEADER).unwrap();
    for (record, size) in records.iter().zip(&sizes).take(4) {
        for byte in offset..offset + size {
            let directory = directory();
            let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
            journal.append(5, &whole).unwrap();
            let path = files(directory.path(), "redo-").remove(0);
            damage(&path, byte);
            let text = refusal(directory.path()).to_string();
            let place = format!("{}, byte {offset}: record {}", path.display(), record.number);
            assert!(text.contains(&place), "byte {byte}: {text}");
            assert!(text.contains("move the directory's redo and snapshot files away"), "{text}");
        }
        offset += size;
    }
}

#[test]
fn a_damaged_length_far_from_the_next_whole_record_is_found_as_damage() {
    let directory = directory();
    let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
    append_each(&mut journal, &[start(1, 1), put_value(1, 2, vec![1; 1 << 20]), put(1, 3)]);
    let path = files(directory.path(), "redo-").remove(0);
    let second = usize::try_from(HEADER).unwrap() + bytes(&[start(1, 1)]).len();
    damage(&path, second + 1);
    let error = refusal(directory.path());
    let OpenError::Corrupt { offset, number, .. } = &error else { panic!("{error}") };
    assert_eq!((*offset, *number), (second as u64, 2));
    assert!(error.to_string().contains("record 3 at byte"), "{error}");
}

#[test]
fn a_missing_record_refuses() {
    let directory = directory();
    let (_, _) = Journal::open(directory.path(), Durability::File).unwrap();
    let path = files(directory.path(), "redo-").remove(0);
    let mut file = fs::read(&path).unwrap();
    for record in [start(1, 1), put(1, 2), put(1, 4)] {
        encode(&record, &mut file);
    }
    fs::write(&path, &file).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::Gap { expected: 3, found: 4, .. }), "{error}");
}

#[test]
fn an_earlier_file_that_is_torn_damaged_or_gone_refuses() {
    let records = mastership(1, 1, 60);
    let prepared = || {
        let directory = directory();
        let (mut journal, _) = open_small(directory.path(), 1_000);
        append_each(&mut journal, &records);
        let files = files(directory.path(), "redo-");
        assert!(files.len() > 4, "{} files", files.len());
        (directory, files)
    };
    let (directory, paths) = prepared();
    let length = fs::metadata(&paths[1]).unwrap().len();
    fs::OpenOptions::new().write(true).open(&paths[1]).unwrap().set_len(length - 3).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(&error, OpenError::Corrupt { file, .. } if *file == paths[1]), "{error}");

    let (directory, paths) = prepared();
    damage(&paths[2], 300);
    let error = refusal(directory.path());
    assert!(matches!(&error, OpenError::Corrupt { file, .. } if *file == paths[2]), "{error}");

    let (directory, paths) = prepared();
    fs::remove_file(&paths[2]).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(&error, OpenError::Gap { .. }), "{error}");

    let (directory, paths) = prepared();
    fs::remove_file(&paths[0]).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(&error, OpenError::NoBeginning { .. }), "{error}");

    let (directory, paths) = prepared();
    damage(&paths[1], 20);
    let error = refusal(directory.path());
    assert!(matches!(&error, OpenError::Header { .. }), "{error}");
}

#[test]
fn a_file_that_was_only_begun_does_not_hide_the_torn_one_before_it() {
    let directory = directory();
    let records = mastership(1, 1, 30);
    let (mut journal, _) = open_small(directory.path(), 1 << 20);
    append_each(&mut journal, &records);
    journal.roll().unwrap();
    let paths = files(directory.path(), "redo-");
    assert_eq!(paths.len(), 2);
    let length = fs::metadata(&paths[0]).unwrap().len();
    fs::OpenOptions::new().write(true).open(&paths[0]).unwrap().set_len(length - 3).unwrap();
    let recovered = journal.reopen().unwrap();
    assert_same(&recovered.store, &store(&records[..29]));
    assert_eq!(files(directory.path(), "redo-"), paths[..1]);
    append_each(&mut journal, &records[29..]);

    // Begun, and not even its header got to the disk.
    for content in [&b""[..], &b"hotpair re"[..], &[0; 5_000]] {
        fs::write(&paths[1], content).unwrap();
        let recovered = journal.reopen().unwrap();
        assert_same(&recovered.store, &store(&records));
        assert_eq!(recovered.notes.len(), 1, "{:?}", recovered.notes);
        assert_eq!(files(directory.path(), "redo-"), paths[..1]);
    }
}

#[test]
fn another_version_is_refused_by_its_number() {
    let directory = directory();
    let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
    append_each(&mut journal, &mastership(1, 1, 5));
    let path = files(directory.path(), "redo-").remove(0);
    let mut file = fs::read(&path).unwrap();
    file[14] = 9;
    let checksum = xxhash_rust::xxh3::xxh3_64(&file[..24]);
    file[24..32].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &file).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::Version { .. }), "{error}");
    assert!(error.to_string().contains("its record format is version 9"), "{error}");
}

// --- snapshots

#[test]
fn a_snapshot_and_the_redo_after_it_lead_to_the_same_store() {
    let directory = directory();
    let records = mastership(1, 1, 80);
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records[..50]);
    // It is cut while the log goes on: its rows are newer than its beginning.
    let mut writer = journal.start_snapshot().unwrap();
    writer.piece(&Piece::Begin { history: journal.history().clone() }).unwrap();
    append_each(&mut journal, &records[50..60]);
    let mut cursor = hotpair_core::tables::snapshot::Cursor::default();
    while let Some(piece) = store(&records[..60]).cut(&mut cursor) {
        writer.piece(&piece).unwrap();
    }
    writer.piece(&Piece::End { until: 60 }).unwrap();
    let finished = writer.finish().unwrap();
    assert_eq!((finished.number, finished.until), (50, 60));
    append_each(&mut journal, &records[60..]);

    let removed = journal.retain(u64::MAX).unwrap();
    assert!(removed.segments > 3 && removed.snapshots == 0, "{removed:?}");
    assert!(journal.oldest() > 1 && journal.oldest() <= 51);
    let recovered = journal.reopen().unwrap();
    assert_eq!((recovered.snapshot, recovered.replayed), (Some(50), 30));
    assert_same(&recovered.store, &store(&records));
    assert_eq!(recovered.history.starts().len(), 1, "known from the snapshot");
}

#[test]
fn an_unfinished_snapshot_leaves_nothing_behind() {
    let directory = directory();
    let records = mastership(1, 1, 30);
    let (mut journal, _) = open_small(directory.path(), 1 << 20);
    append_each(&mut journal, &records);
    let mut writer = journal.start_snapshot().unwrap();
    write_pieces(&mut writer, &journal, &store(&records));
    assert_eq!(files(directory.path(), "snapshot-").len(), 1);
    writer.finish().expect_err("it has no end");
    assert_eq!(files(directory.path(), "snapshot-").len(), 0);

    // The process dies between the last piece and the renaming.
    let mut writer = journal.start_snapshot().unwrap();
    write_pieces(&mut writer, &journal, &store(&records));
    writer.piece(&Piece::End { until: 30 }).unwrap();
    std::mem::forget(writer);
    let recovered = journal.reopen().unwrap();
    assert_eq!((recovered.snapshot, recovered.replayed), (None, 30));
    assert!(recovered.notes[0].contains("unfinished snapshot"), "{:?}", recovered.notes);
    assert_eq!(files(directory.path(), "snapshot-").len(), 0);
}

#[test]
fn a_damaged_snapshot_gives_way_to_an_older_one_and_refuses_where_there_is_none() {
    let records = mastership(1, 1, 60);
    let directory = directory();
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records[..30]);
    snapshot(&mut journal, &store(&records[..30]));
    let _ = journal.retain(u64::MAX).unwrap();
    assert!(journal.oldest() > 1);
    append_each(&mut journal, &records[30..50]);
    let newest = snapshot(&mut journal, &store(&records[..50]));
    append_each(&mut journal, &records[50..]);

    let whole = fs::read(&newest.path).unwrap();
    for byte in (0..whole.len()).step_by(7) {
        damage(&newest.path, byte);
        let recovered = journal.reopen().unwrap();
        assert_eq!(recovered.snapshot, Some(30), "byte {byte}");
        assert_same(&recovered.store, &store(&records));
        let note = recovered.notes.join("\n");
        assert!(note.contains("snapshot-00000000000000000050.bin: not used"), "{note}");
        fs::write(&newest.path, &whole).unwrap();
    }
    for length in (0..whole.len()).step_by(11) {
        fs::write(&newest.path, &whole[..length]).unwrap();
        assert_eq!(journal.reopen().unwrap().snapshot, Some(30), "{length} bytes");
    }
    fs::remove_file(files(directory.path(), "snapshot-").remove(0)).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::NoBeginning { .. }), "{error}");
    assert!(error.to_string().contains("snapshot-00000000000000000050.bin"), "{error}");
}

#[test]
fn a_snapshot_whose_redo_is_missing_refuses() {
    let records = mastership(1, 1, 60);
    let directory = directory();
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records);
    let mut writer = journal.start_snapshot().unwrap();
    write_pieces(&mut writer, &journal, &store(&records));
    writer.piece(&Piece::End { until: 60 }).unwrap();
    writer.finish().unwrap();
    let paths = files(directory.path(), "redo-");
    fs::remove_file(paths.last().unwrap()).unwrap();
    let error = try_open(directory.path(), 1_000).unwrap_err();
    assert!(matches!(error, OpenError::Unreached { until: 60, .. }), "{error}");
}

#[test]
fn whatever_happens_to_the_files_no_state_is_made_up() {
    let records = [mastership(1, 1, 40), mastership(2, 41, 70)].concat();
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let directory = directory();
        let (mut journal, _) = open_small(directory.path(), random.u64(200..3_000));
        let mut at = 0;
        while at < records.len() {
            let count = random.usize(1..8).min(records.len() - at);
            let batch = &records[at..at + count];
            journal.append(batch[count - 1].number, &bytes(batch)).unwrap();
            at += count;
            if random.u8(..8) == 0 {
                snapshot(&mut journal, &store(&records[..at]));
            }
            if random.u8(..8) == 0 {
                let _ = journal.retain(u64::MAX).unwrap();
            }
        }
        drop(journal);
        let mut paths = files(directory.path(), "redo-");
        paths.extend(files(directory.path(), "snapshot-"));
        let path = random.choice(&paths).unwrap();
        let mut file = fs::read(path).unwrap();
        match random.u8(..4) {
            0 => file.truncate(random.usize(..file.len())),
            1 => file.extend((0..random.usize(1..100)).map(|_| random.u8(..))),
            _ => {
                let at = random.usize(..file.len());
                file[at] ^= 1 << random.u8(..8);
            }
        }
        fs::write(path, &file).unwrap();
        if let Ok((mut journal, recovered)) = try_open(directory.path(), 1_000) {
            let head = usize::try_from(journal.head()).unwrap();
            assert_same(&recovered.store, &store(&records[..head]));
            // Whatever was left out is known to be at the end, and the log goes on from there.
            append_each(&mut journal, &records[head..]);
            let recovered = journal.reopen().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_same(&recovered.store, &store(&records));
        }
    }
}
