//! What an append that fails leaves behind, and what follows it.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

mod support;

use std::fs;
use std::process::Command;

use hotpair_journal::{AppendError, Durability, Journal};
use support::{
    HEADER, append_each, assert_same, bytes, directory, files, mastership, open_faulty, open_small,
    put, put_value, snapshot, start, store,
};

#[test]
fn a_full_disk_is_told_apart_and_leaves_the_log_as_it_was() {
    let records = mastership(1, 1, 20);
    let batch = bytes(&records[10..]);
    for room in (0..batch.len() as u64).step_by(17) {
        let directory = directory();
        let (mut journal, faults) = open_faulty(directory.path(), Durability::File);
        append_each(&mut journal, &records[..10]);
        let path = files(directory.path(), "redo-").remove(0);
        let before = fs::read(&path).unwrap();

        faults.set_room(room);
        let error = journal.append(20, &batch).unwrap_err();
        assert!(matches!(error, AppendError::Full { .. }), "{error}");
        assert!(error.to_string().contains("redo-00000000000000000001.log"), "{error}");
        assert_eq!(journal.head(), 10);
        assert_eq!(fs::read(&path).unwrap(), before, "{room} bytes had room");

        // There is room again: it goes on by itself.
        faults.set_room(u64::MAX);
        journal.append(20, &batch).unwrap();
        assert_same(&journal.reopen().unwrap().store, &store(&records));
    }
}

#[test]
fn a_full_disk_is_survived_between_two_files_as_well() {
    let directory = directory();
    let records = mastership(1, 1, 20);
    let (mut journal, faults) = open_faulty(directory.path(), Durability::File);
    append_each(&mut journal, &records[..10]);
    faults.set_room(20);
    let error = journal.roll().unwrap_err();
    assert!(matches!(error, AppendError::Full { .. }), "{error}");
    assert_eq!(files(directory.path(), "redo-").len(), 1);
    faults.set_room(u64::MAX);
    journal.roll().unwrap();
    append_each(&mut journal, &records[10..]);
    assert_eq!(files(directory.path(), "redo-").len(), 2);
    assert_same(&journal.reopen().unwrap().store, &store(&records));
}

#[test]
fn a_failed_write_is_no_full_disk() {
    let directory = directory();
    let records = mastership(1, 1, 20);
    let (mut journal, faults) = open_faulty(directory.path(), Durability::File);
    append_each(&mut journal, &records[..10]);
    faults.set_writes_fail(true);
    let error = journal.append(11, &bytes(&records[10..11])).unwrap_err();
    assert!(matches!(error, AppendError::Failed { .. }), "{error}");
    faults.set_writes_fail(false);
    append_each(&mut journal, &records[10..]);
}

#[test]
fn a_failed_fsync_is_never_tried_again() {
    let directory = directory();
    let records = mastership(1, 1, 20);
    let (mut journal, faults) = open_faulty(directory.path(), Durability::Disk);
    append_each(&mut journal, &records[..10]);
    faults.set_syncs_fail(true);
    let error = journal.append(11, &bytes(&records[10..11])).unwrap_err();
    assert!(matches!(error, AppendError::Failed { .. }), "{error}");
    faults.set_syncs_fail(false);
    let syncs = faults.syncs();
    for _ in 0..3 {
        let error = journal.append(11, &bytes(&records[10..11])).unwrap_err();
        assert!(error.to_string().contains("it is not tried again"), "{error}");
        journal.roll().expect_err("nothing is taken any more");
        journal.cut_after(5).expect_err("nothing is taken any more");
    }
    assert_eq!(faults.syncs(), syncs);
    assert!(journal.poisoned().is_some());
    assert_eq!(journal.head(), 10);
    assert_same(&journal.reopen().unwrap().store, &store(&records[..10]));
    append_each(&mut journal, &records[10..]);
}

#[test]
fn a_file_that_cannot_be_cut_back_is_broken_until_it_was_looked_at() {
    let directory = directory();
    let records = mastership(1, 1, 20);
    let (mut journal, faults) = open_faulty(directory.path(), Durability::File);
    append_each(&mut journal, &records[..10]);
    faults.set_room(5);
    faults.set_truncations_fail(true);
    let error = journal.append(11, &bytes(&records[10..11])).unwrap_err();
    assert!(matches!(error, AppendError::Broken { .. }), "{error}");
    faults.set_room(u64::MAX);
    faults.set_truncations_fail(false);
    let error = journal.append(11, &bytes(&records[10..11])).unwrap_err();
    assert!(matches!(error, AppendError::Failed { .. }), "{error}");
    let recovered = journal.reopen().unwrap();
    assert!(recovered.notes[0].contains("5 bytes were cut off"), "{:?}", recovered.notes);
    append_each(&mut journal, &records[10..]);
}

#[test]
fn records_that_do_not_continue_the_log_are_refused() {
    let directory = directory();
    let (mut journal, _) = Journal::open(directory.path(), Durability::File).unwrap();
    append_each(&mut journal, &mastership(1, 1, 5));
    let good = bytes(&[put(1, 6), put(1, 7)]);
    let refused = |journal: &mut Journal, last, bytes: &[u8]| {
        let error = journal.append(last, bytes).unwrap_err();
        assert!(matches!(error, AppendError::Misplaced { head: 5, .. }), "{error}");
    };
    refused(&mut journal, 8, &good);
    refused(&mut journal, 6, &good);
    refused(&mut journal, 7, &good[..good.len() - 1]);
    refused(&mut journal, 7, &bytes(&[put(1, 6), put(1, 8)]));
    refused(&mut journal, 5, &bytes(&[put(1, 5)]));
    refused(&mut journal, 7, &[&good[..], b"and so on"].concat());
    let mut start = bytes(&[start(2, 6)]);
    *start.last_mut().unwrap() ^= 1;
    refused(&mut journal, 6, &start);
    journal.append(7, &good).unwrap();
}

#[test]
fn fsync_is_asked_for_under_disk_only() {
    for (durability, syncs) in [(Durability::File, 0), (Durability::Disk, 10)] {
        let directory = directory();
        let (mut journal, faults) = open_faulty(directory.path(), durability);
        let before = faults.syncs();
        append_each(&mut journal, &mastership(1, 1, 10));
        assert_eq!(faults.syncs() - before, syncs, "{durability:?}");
    }
}

#[test]
fn files_left_for_newer_ones_can_be_brought_to_the_disk_elsewhere() {
    let directory = directory();
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &mastership(1, 1, 60));
    let left = journal.take_left();
    assert_eq!(left.len(), files(directory.path(), "redo-").len() - 1);
    let synced = std::thread::spawn(move || left.into_iter().all(|left| left.sync().is_ok()));
    assert!(synced.join().unwrap());
    assert!(journal.take_left().is_empty());
}

// --- what is not needed any more

#[test]
fn retention_keeps_the_newest_snapshot_and_all_redo_after_it() {
    let directory = directory();
    let records = mastership(1, 1, 90);
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records[..30]);
    assert_eq!(journal.retain(u64::MAX).unwrap(), hotpair_journal::Removed::default());
    snapshot(&mut journal, &store(&records[..30]));
    append_each(&mut journal, &records[30..60]);
    snapshot(&mut journal, &store(&records[..60]));
    append_each(&mut journal, &records[60..]);

    // Somebody still reads from record 20 on.
    let removed = journal.retain(20).unwrap();
    assert_eq!(removed.snapshots, 1);
    assert!(journal.oldest() <= 20 && removed.segments > 0);
    let mut reader = journal.read_from(20).unwrap();
    assert_eq!(reader.next(20).unwrap().unwrap().first, 20);

    let removed = journal.retain(u64::MAX).unwrap();
    assert_eq!(removed.snapshots, 0);
    assert!(journal.oldest() > 20 && journal.oldest() <= 61);
    assert_eq!(files(directory.path(), "snapshot-").len(), 1);
    let first = files(directory.path(), "redo-").remove(0);
    assert!(first.ends_with(format!("redo-{:020}.log", journal.oldest())), "{first:?}");
    assert_same(&journal.reopen().unwrap().store, &store(&records));
}

#[test]
fn clearing_empties_the_tables_and_nothing_else() {
    let directory = directory();
    let records = mastership(1, 1, 60);
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records);
    snapshot(&mut journal, &store(&records));
    journal.write_small("pair.json", b"{}").unwrap();
    let aside = journal.set_aside(1, 50).unwrap().unwrap();
    journal.clear().unwrap();
    assert_eq!((journal.head(), journal.oldest()), (0, 1));
    assert!(aside.exists() && journal.read_small("pair.json").unwrap().is_some());
    append_each(&mut journal, &mastership(2, 1, 5));
    let recovered = journal.reopen().unwrap();
    assert_same(&recovered.store, &store(&mastership(2, 1, 5)));
    assert_eq!(recovered.history.starts().len(), 1);
}

// --- small files

#[test]
fn a_small_file_is_the_old_one_or_the_new_one() {
    let directory = directory();
    let (journal, faults) = open_faulty(directory.path(), Durability::File);
    assert_eq!(journal.read_small("pair.json").unwrap(), None);
    journal.write_small("pair.json", b"old").unwrap();
    faults.set_room(2);
    let error = journal.write_small("pair.json", b"new and longer").unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(journal.read_small("pair.json").unwrap().unwrap(), b"old");
    faults.set_room(u64::MAX);
    journal.write_small("pair.json", b"new").unwrap();
    assert_eq!(journal.read_small("pair.json").unwrap().unwrap(), b"new");
    assert_eq!(files(directory.path(), "pair").len(), 1);
}

#[test]
fn everything_is_for_its_owner_only_and_no_link_is_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = directory();
    let records = mastership(1, 1, 30);
    let (mut journal, _) = open_small(directory.path(), 1_000);
    append_each(&mut journal, &records);
    snapshot(&mut journal, &store(&records));
    journal.write_small("pair.json", b"{}").unwrap();
    journal.set_aside(1, 20).unwrap().unwrap();
    for path in files(directory.path(), "") {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, b"precious").unwrap();
    symlink(&elsewhere, directory.path().join("linked")).unwrap();
    journal.read_small("linked").expect_err("a link is not followed");
    journal.write_small("linked", b"x").unwrap();
    assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
}

// --- a real disk that is full

#[test]
fn a_real_file_system_without_room_is_full_and_later_is_not() {
    let mount = directory();
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"]).arg(mount.path());
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            println!("skipped: a file system cannot be mounted here: {why}");
            return;
        }
        Err(error) => {
            println!("skipped: there is no mount command here: {error}");
            return;
        }
    }
    let unmount = Unmount(mount.path().to_owned());
    let (mut journal, _) = Journal::open(mount.path(), Durability::Disk).unwrap();
    append_each(&mut journal, &[start(1, 1)]);
    let error = loop {
        let number = journal.head() + 1;
        let record = put_value(1, number, vec![1; 60_000]);
        match journal.append(number, &bytes(&[record])) {
            Ok(()) => assert!(number < 100, "the file system has no end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full { .. }), "{error}");
    let head = journal.head();
    let path = files(mount.path(), "redo-").remove(0);
    let whole = |number| bytes(&[put_value(1, number, vec![1; 60_000])]).len() as u64;
    let length = HEADER + bytes(&[start(1, 1)]).len() as u64 + (2..=head).map(whole).sum::<u64>();
    assert_eq!(fs::metadata(&path).unwrap().len(), length);
    assert!(journal.write_small("pair.json", &[1; 100_000]).unwrap_err().is_full());

    let status =
        Command::new("mount").args(["-o", "remount,size=4m"]).arg(mount.path()).status().unwrap();
    assert!(status.success());
    append_each(&mut journal, &[put_value(1, head + 1, vec![1; 60_000])]);
    assert_eq!(journal.reopen().unwrap().history.head(), head + 1);
    drop(journal);
    drop(unmount);
}

/// Unmounts, whatever becomes of the test.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
