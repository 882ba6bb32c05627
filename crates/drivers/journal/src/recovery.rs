//! From the files of a directory back to the store.
//!
//! ```text
//! list ─▶ (half-loaded? start empty) ─▶ cut the torn tail ─▶ newest snapshot that the redo reaches
//!      ─▶ load it ─▶ apply the redo after it ─▶ store, history
//! ```
//!
//! A doubt about anything but the very end of the log is an error: a node that starts with less than
//! it acknowledged is worse than one that does not start and has a peer to load from.

use std::io;
use std::path::{Path, PathBuf};

use hotpair_core::tables::position::{EpochStart, History};
use hotpair_core::tables::record::{Body, Record, RecordError};
use hotpair_core::tables::store::Store;

use crate::error::{FileError, OpenError};
use crate::files::{Files, read_at};
use crate::layout::{
    HEADER_BYTES, HeaderFault, Listing, Magic, check_header, redo_path, snapshot_path,
};
use crate::loading::{self, Loading};
use crate::records::{Behind, Next, Records, search};
use crate::snapshot::{SnapshotFault, load, read_ends};

/// What a directory held.
#[derive(Debug)]
pub struct Recovered {
    /// The tables up to the last record.
    pub store: Store,
    /// The masterships of the log, and where it ends.
    pub history: History,
    /// False: a state was being loaded from the peer and is not whole. What is here is the state
    /// from before, or nothing; it may be older than what this node once acknowledged.
    pub complete: bool,
    /// The snapshot that was loaded, by the record after which the redo was applied.
    pub snapshot: Option<u64>,
    /// Records that were applied.
    pub replayed: u64,
    /// What an operator should know, each a sentence: bytes cut off, files passed over.
    pub notes: Vec<String>,
}

/// What the journal goes on with.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) recovered: Recovered,
    /// First record of each redo file.
    pub(crate) segments: Vec<u64>,
    /// Bytes of the last one.
    pub(crate) length: u64,
    pub(crate) loading: Option<Loading>,
}

/// Reads a directory; cuts off a torn tail and removes what never got its name.
pub(crate) fn recover(files: &Files, directory: &Path) -> Result<Found, OpenError> {
    let mut recovery = Recovery { files, directory, notes: Vec::new() };
    let loading = loading::read(directory).map_err(plain)?;
    let listing = recovery.list()?;
    for path in &listing.temporary {
        recovery.remove(path)?;
        recovery.notes.push(format!("{}: an unfinished snapshot was removed", path.display()));
    }
    if loading == Some(Loading::Installing) {
        return recovery.start_empty(Loading::Begun, "was being put in place of the old one");
    }
    let tail = recovery.find_tail(listing.redo)?;
    let built = recovery.build(&listing.snapshots, &tail);
    match (loading, built) {
        (Some(Loading::Installed { until }), built) => match built {
            Ok(found) if found.recovered.history.head() >= until => {
                loading::remove(files, directory).map_err(plain)?;
                Ok(found)
            }
            Ok(_) | Err(OpenError::Unreached { .. }) => {
                recovery.start_empty(Loading::Begun, "needs redo that never arrived")
            }
            Err(error) => Err(error),
        },
        (Some(Loading::Begun), Ok(mut found)) => {
            found.recovered.complete = false;
            found.loading = loading;
            found.recovered.notes.push(
                "a state was being loaded from the peer and is not here: this is the one from \
                 before"
                    .to_owned(),
            );
            Ok(found)
        }
        (Some(Loading::Begun | Loading::Installing) | None, built) => built,
    }
}

struct Recovery<'a> {
    files: &'a Files,
    directory: &'a Path,
    notes: Vec<String>,
}

/// The redo files, after what was torn is cut off.
struct Tail {
    segments: Vec<u64>,
    /// The last record there is; 0 if there is no file.
    head: u64,
    /// Bytes of the last file.
    length: u64,
}

/// How a redo file ends.
struct End {
    /// Its whole records reach up to here.
    length: u64,
    /// The number of the record that would come next.
    next: u64,
    /// Why the bytes after that are no record; none if there are none.
    torn: Option<RecordError>,
}

impl Recovery<'_> {
    fn list(&self) -> Result<Listing, OpenError> {
        Listing::read(self.directory).map_err(io_error(self.directory, "listing"))
    }

    fn remove(&self, path: &Path) -> Result<(), OpenError> {
        Files::remove(path).map_err(io_error(path, "removing"))
    }

    /// Nothing of what is there may be used: the peer has to be asked again.
    fn start_empty(&mut self, left: Loading, why: &str) -> Result<Found, OpenError> {
        remove_state(self.files, self.directory).map_err(plain)?;
        loading::write(self.files, self.directory, left).map_err(plain)?;
        self.notes.push(format!(
            "{}: the state loaded from the peer {why}: it was removed, to be loaded again",
            self.directory.display()
        ));
        Ok(Found {
            recovered: Recovered {
                store: Store::default(),
                history: History::default(),
                complete: false,
                snapshot: None,
                replayed: 0,
                notes: std::mem::take(&mut self.notes),
            },
            segments: Vec::new(),
            length: 0,
            loading: Some(left),
        })
    }

    // --- the end of the log

    /// Where the log ends; what was torn is cut off.
    fn find_tail(&mut self, mut segments: Vec<u64>) -> Result<Tail, OpenError> {
        while let Some(&first) = segments.last() {
            let path = redo_path(self.directory, first);
            let Some(end) = self.end_of_last(&path, first)? else {
                segments.pop();
                continue;
            };
            if let Some(error) = end.torn {
                self.cut(&path, end.length, end.next, &error)?;
            }
            // A new file without a record says nothing yet: then the one before is the last.
            if end.next == first
                && let Some(&before) = segments.iter().rev().nth(1)
            {
                let path_before = redo_path(self.directory, before);
                let end_before = self.end_of_last(&path_before, before)?;
                if end_before.is_some_and(|end| end.torn.is_some()) {
                    self.remove(&path)?;
                    segments.pop();
                    continue;
                }
            }
            return Ok(Tail { head: end.next - 1, length: end.length, segments });
        }
        Ok(Tail { segments, head: 0, length: 0 })
    }

    /// How the last file ends; `None` if there was not even a header, and the file is gone.
    fn end_of_last(&mut self, path: &Path, first: u64) -> Result<Option<End>, OpenError> {
        let file = Files::open(path).map_err(io_error(path, "opening"))?;
        let mut header = [0; HEADER_BYTES];
        let filled = read_at(&file, &mut header, 0).map_err(io_error(path, "reading"))?;
        match check_header(Magic::Redo, first, &header[..filled]) {
            Ok(()) => {}
            Err(fault) => {
                let behind = search(&file, filled as u64, 0).map_err(io_error(path, "reading"))?;
                let never_written = header[..filled].iter().all(|byte| *byte == 0);
                if behind.is_some() || !(fault == HeaderFault::Short || never_written) {
                    return Err(header_error(path, fault));
                }
                self.remove(path)?;
                let note = format!("{}: it was begun and never written: removed", path.display());
                self.notes.push(note);
                return Ok(None);
            }
        }
        let mut records = Records::new(file, HEADER_BYTES as u64);
        let mut next = first;
        loop {
            let offset = records.offset();
            let torn = match records.next().map_err(io_error(path, "reading"))? {
                Next::Record(record) if record.number == next => {
                    next += 1;
                    continue;
                }
                Next::Record(record) => return Err(gap(path, offset, next, record.number)),
                Next::End => None,
                Next::Bad(error) => {
                    refuse_if_corrupt(path, &records, offset, next, &error)?;
                    Some(error)
                }
            };
            return Ok(Some(End { length: offset, next, torn }));
        }
    }

    fn cut(
        &mut self,
        path: &Path,
        length: u64,
        number: u64,
        error: &RecordError,
    ) -> Result<(), OpenError> {
        let file = Files::open_for_writing(path).map_err(io_error(path, "opening"))?;
        let whole = file.metadata().map_err(io_error(path, "reading"))?.len();
        self.files.truncate(&file, length).map_err(io_error(path, "cutting off a torn tail"))?;
        self.files.sync(&file).map_err(io_error(path, "syncing"))?;
        self.notes.push(format!(
            "{}, byte {length}: the write of record {number} was cut short ({error}): its {} bytes \
             were cut off",
            path.display(),
            whole - length
        ));
        Ok(())
    }

    // --- the state

    /// The newest snapshot that is of use, and the redo after it.
    fn build(&mut self, snapshots: &[u64], tail: &Tail) -> Result<Found, OpenError> {
        let mut unreached = None;
        let mut passed_over = String::new();
        for &number in snapshots.iter().rev() {
            let path = snapshot_path(self.directory, number);
            let why = match self.load_snapshot(&path, number, tail) {
                Ok((history, store)) => return self.replay(tail, history, store, Some(number)),
                Err(Unusable::Unreached { until }) => {
                    let (file, head) = (path.clone(), tail.head);
                    unreached.get_or_insert(OpenError::Unreached { file, until, head });
                    format!("it needs the redo from record {} to {until}", number + 1)
                }
                Err(Unusable::Fault(SnapshotFault::Header(
                    fault @ HeaderFault::Version { .. },
                ))) => return Err(header_error(&path, fault)),
                Err(Unusable::Fault(fault)) => fault.to_string(),
            };
            let note = format!("{}: not used: {why}", path.display());
            passed_over = format!("{passed_over}; {note}");
            self.notes.push(note);
        }
        let first = tail.segments.first().copied();
        let everything = first == Some(1) || (first.is_none() && snapshots.is_empty());
        match unreached {
            Some(error) => Err(error),
            None if everything => self.replay(tail, History::default(), Store::default(), None),
            None => Err(OpenError::NoBeginning {
                directory: self.directory.to_owned(),
                oldest: first.unwrap_or(1),
                found: passed_over,
            }),
        }
    }

    fn load_snapshot(
        &self,
        path: &Path,
        number: u64,
        tail: &Tail,
    ) -> Result<(History, Store), Unusable> {
        let ends = read_ends(path, number)?;
        let head = if tail.segments.is_empty() { number } else { tail.head };
        let first = tail.segments.first().copied().unwrap_or(number + 1);
        if ends.until > head || first > number + 1 {
            return Err(Unusable::Unreached { until: ends.until });
        }
        Ok((ends.begin, load(path, number)?))
    }

    /// Applies the redo after what the history holds.
    fn replay(
        &mut self,
        tail: &Tail,
        history: History,
        store: Store,
        snapshot: Option<u64>,
    ) -> Result<Found, OpenError> {
        let mut replay = Replay { after: history.head(), history, store, replayed: 0 };
        let from = tail.segments.partition_point(|first| *first <= replay.after + 1);
        let from = from.saturating_sub(1);
        for (index, &first) in tail.segments.iter().enumerate().skip(from) {
            replay.segment(
                &redo_path(self.directory, first),
                first,
                tail.segments.get(index + 1),
            )?;
        }
        Ok(Found {
            recovered: Recovered {
                store: replay.store,
                history: replay.history,
                complete: true,
                snapshot,
                replayed: replay.replayed,
                notes: std::mem::take(&mut self.notes),
            },
            segments: tail.segments.clone(),
            length: tail.length,
            loading: None,
        })
    }
}

/// Why a snapshot is not used.
enum Unusable {
    /// The redo does not lead from it up to this record.
    Unreached { until: u64 },
    /// It is none.
    Fault(SnapshotFault),
}

impl From<SnapshotFault> for Unusable {
    fn from(fault: SnapshotFault) -> Self {
        Self::Fault(fault)
    }
}

/// A state growing from redo.
struct Replay {
    /// Records up to this one are in it from the beginning.
    after: u64,
    history: History,
    store: Store,
    replayed: u64,
}

impl Replay {
    /// Applies a file; `next`: the first record of the file after it.
    fn segment(&mut self, path: &Path, first: u64, next: Option<&u64>) -> Result<(), OpenError> {
        let file = Files::open(path).map_err(io_error(path, "opening"))?;
        let mut header = [0; HEADER_BYTES];
        let filled = read_at(&file, &mut header, 0).map_err(io_error(path, "reading"))?;
        check_header(Magic::Redo, first, &header[..filled]).map_err(|f| header_error(path, f))?;
        let mut records = Records::new(file, HEADER_BYTES as u64);
        let mut expected = first;
        loop {
            let offset = records.offset();
            match records.next().map_err(io_error(path, "reading"))? {
                Next::Record(record) if record.number == expected => {
                    self.apply(&record);
                    expected += 1;
                }
                Next::Record(record) => return Err(gap(path, offset, expected, record.number)),
                Next::End => match next {
                    Some(next) if *next != expected => {
                        return Err(gap(path, offset, expected, *next));
                    }
                    Some(_) | None => return Ok(()),
                },
                Next::Bad(error) => {
                    refuse_if_corrupt(path, &records, offset, expected, &error)?;
                    let behind = format!("the log goes on with record {}", next.unwrap_or(&0));
                    return Err(corrupt(path, offset, expected, error, behind));
                }
            }
        }
    }

    fn apply(&mut self, record: &Record) {
        let number = record.number;
        if number <= self.after {
            return;
        }
        if let Body::EpochStart { life } = record.body {
            self.history.begin(EpochStart { epoch: record.epoch, life, first: number });
        }
        self.history.extend(number);
        self.store.apply(record);
        self.replayed += 1;
    }
}

/// Removes the redo and the snapshots. Newest redo first: should it end in the middle, what is left
/// has no gap.
pub(crate) fn remove_state(files: &Files, directory: &Path) -> Result<(), FileError> {
    let listing =
        Listing::read(directory).map_err(|error| FileError::new(directory, "listing", error))?;
    let snapshots = listing.snapshots.iter().map(|number| snapshot_path(directory, *number));
    let redo = listing.redo.iter().rev().map(|first| redo_path(directory, *first));
    for path in snapshots.chain(redo).chain(listing.temporary.iter().cloned()) {
        Files::remove(&path).map_err(|error| FileError::new(&path, "removing", error))?;
    }
    files
        .sync_directory(directory)
        .map_err(|error| FileError::new(directory, "syncing the directory", error))
}

/// Whether a bad record is the end of the log, or damage within it.
fn refuse_if_corrupt(
    path: &Path,
    records: &Records,
    offset: u64,
    number: u64,
    error: &RecordError,
) -> Result<(), OpenError> {
    let behind = match error {
        // The checksum is right: this was written as it is.
        RecordError::Content(_) => "its checksum is right".to_owned(),
        RecordError::Torn | RecordError::Length(_) | RecordError::Checksum => {
            let found = search(records.file(), offset + 1, number - 1);
            match found.map_err(io_error(path, "reading"))? {
                None => return Ok(()),
                Some(Behind::Record { number, offset }) => {
                    format!("record {number} at byte {offset} behind it is whole")
                }
                Some(Behind::TooMuch) => "much behind it looks like records".to_owned(),
            }
        }
    };
    Err(corrupt(path, offset, number, error.clone(), behind))
}

fn corrupt(path: &Path, offset: u64, number: u64, error: RecordError, behind: String) -> OpenError {
    OpenError::Corrupt { file: path.to_owned(), offset, number, error, behind }
}

fn gap(path: &Path, offset: u64, expected: u64, found: u64) -> OpenError {
    OpenError::Gap { file: path.to_owned(), offset, expected, found }
}

fn header_error(path: &Path, fault: HeaderFault) -> OpenError {
    let (file, what) = (path.to_owned(), fault.to_string());
    match fault {
        HeaderFault::Version { .. } => OpenError::Version { file, what },
        HeaderFault::Short | HeaderFault::Damaged => OpenError::Header { file, what },
    }
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |error| OpenError::Io { path, doing, error }
}

/// What happens to files beside the log, on the way to opening it.
fn plain(error: FileError) -> OpenError {
    match error {
        FileError::Full { path, doing, error } | FileError::Io { path, doing, error } => {
            OpenError::Io { path, doing, error }
        }
        FileError::Pieces { .. }
        | FileError::NotCut { .. }
        | FileError::Read(_)
        | FileError::Poisoned(_) => unreachable!("opening neither cuts nor ships: {error}"),
    }
}
