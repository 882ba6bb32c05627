//! The journal of one node: its log, appended by one thread, and what stands beside it.
//!
//! ```text
//! append ─▶ redo-…001.log ─(64 MiB)─▶ redo-…900.log ─▶ …        read_from ─▶ RedoReader
//!                                                               start_snapshot ─▶ SnapshotWriter
//! from the peer: begin_loading ─▶ SnapshotWriter ─▶ install     retain: what is not needed goes
//! ```
//!
//! The log ends at `head`, always: an append that fails leaves it there. After a failed fsync nobody
//! knows which bytes are on the disk, and asking again would be answered with a lie (the kernel has
//! forgotten), so the journal takes nothing any more.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotpair_core::tables::position::{EpochStart, History};
use hotpair_core::tables::record::{Body, decode};

use crate::error::{AppendError, FileError, OpenError, ReadError};
use crate::files::{Faults, Files, is_full};
use crate::layout::{
    HEADER_BYTES, Listing, Magic, header, redo_path, snapshot_path, temporary_path,
};
use crate::loading::{self, Loading};
use crate::reader::RedoReader;
use crate::recovery::{Found, Recovered, recover, remove_state};
use crate::small;
use crate::snapshot::{SnapshotWriter, read_ends};
use crate::walk::peek;

/// A redo file is not continued once it is this long.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// When an append counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once the system has the bytes: they survive the process.
    #[default]
    File,
    /// Once the disk has them (`fdatasync`): they survive the machine.
    Disk,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// When an append counts.
    pub durability: Durability,
    /// A redo file is not continued once it is this long.
    pub segment_bytes: u64,
    /// Failures that a test orders.
    pub faults: Option<Arc<Faults>>,
}

impl Options {
    /// As the product runs.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self { durability, segment_bytes: SEGMENT_BYTES, faults: None }
    }
}

/// The journal. See the file's header.
#[derive(Debug)]
pub struct Journal {
    files: Files,
    directory: PathBuf,
    options: Options,
    history: History,
    /// First record of each redo file; the last one is being written.
    segments: Vec<u64>,
    active: File,
    /// Bytes of the active file.
    length: u64,
    /// Snapshots begun, for their names.
    begun: u64,
    loading: Option<Loading>,
    /// What failed, if nothing is taken any more.
    poisoned: Option<String>,
    /// Files that were left behind for newer ones, and may not be on the disk yet.
    left: Vec<LeftSegment>,
}

/// A redo file that was left for a newer one. Under [`Durability::File`] its bytes may not be on the
/// disk yet; until they are, a power failure may leave a hole in the middle of the log.
#[derive(Debug)]
pub struct LeftSegment {
    path: PathBuf,
    file: File,
    files: Files,
}

impl LeftSegment {
    /// Brings it to the disk; meant for another thread than the journal's, since it takes as long as
    /// the disk does. If it fails, the log cannot be made durable: the node leaves mastership.
    pub fn sync(self) -> Result<(), FileError> {
        self.files.sync(&self.file).map_err(|error| FileError::new(self.path, "syncing", error))
    }
}

/// What `retain` removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Redo files.
    pub segments: usize,
    /// Snapshots.
    pub snapshots: usize,
}

impl Journal {
    /// Opens the directory, which must exist and be this process's own, and recovers what it holds.
    pub fn open(directory: &Path, durability: Durability) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(directory, Options::new(durability))
    }

    /// Opens the directory otherwise than the product does.
    pub fn open_with(directory: &Path, options: Options) -> Result<(Self, Recovered), OpenError> {
        let files = Files::new(options.faults.clone());
        let Found { recovered, mut segments, mut length, loading } = recover(&files, directory)?;
        let head = recovered.history.head();
        let failed = |path: &Path, doing| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, doing, error }
        };
        let active = match segments.last() {
            Some(&first) => {
                let path = redo_path(directory, first);
                Files::open_for_writing(&path).map_err(failed(&path, "opening"))?
            }
            None => {
                segments.push(head + 1);
                length = HEADER_BYTES as u64;
                let path = redo_path(directory, head + 1);
                create_segment(&files, directory, head + 1, true)
                    .map_err(failed(&path, "creating"))?
            }
        };
        let journal = Self {
            files,
            directory: directory.to_owned(),
            options,
            history: recovered.history.clone(),
            segments,
            active,
            length,
            begun: 0,
            loading,
            poisoned: None,
            left: Vec::new(),
        };
        Ok((journal, recovered))
    }

    /// Reads the directory again, as after a cut or a failure: what this journal was is forgotten.
    pub fn reopen(&mut self) -> Result<Recovered, OpenError> {
        let (journal, recovered) = Self::open_with(&self.directory, self.options.clone())?;
        *self = journal;
        Ok(recovered)
    }

    // --- looks

    /// The masterships of the log, and where it ends.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The number of the last record.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.history.head()
    }

    /// The first record that is still in a redo file; one beyond the last if none is.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.segments[0]
    }

    /// Whether what is here is a whole state, and not one that is being loaded from the peer.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.loading.is_none()
    }

    /// What failed, if nothing is taken any more.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    // --- the log

    /// Appends records that continue the log, `last` being the number of the last of them. All of
    /// them or none; afterwards they are as durable as configured.
    pub fn append(&mut self, last: u64, bytes: &[u8]) -> Result<(), AppendError> {
        if let Some(what) = &self.poisoned {
            return Err(AppendError::Failed { file: self.active_path(), what: what.clone() });
        }
        let starts = self.check(last, bytes)?;
        if self.length >= self.options.segment_bytes {
            self.begin_segment()?;
        }
        if let Err(error) = self.files.write_at(&self.active, bytes, self.length) {
            return Err(self.take_back("writing", error));
        }
        if self.options.durability == Durability::Disk
            && let Err(error) = self.files.sync(&self.active)
        {
            return Err(self.poison("fsync", &error));
        }
        self.length += bytes.len() as u64;
        for start in starts {
            self.history.begin(start);
        }
        self.history.extend(last);
        self.end_loading_if_reached();
        Ok(())
    }

    /// Goes on in a new file.
    pub fn roll(&mut self) -> Result<(), AppendError> {
        if let Some(what) = &self.poisoned {
            return Err(AppendError::Failed { file: self.active_path(), what: what.clone() });
        }
        if self.length > HEADER_BYTES as u64 { self.begin_segment() } else { Ok(()) }
    }

    /// Redo files that were left for newer ones since the last call, to be synced elsewhere. With
    /// [`Durability::Disk`] there are none.
    #[must_use]
    pub fn take_left(&mut self) -> Vec<LeftSegment> {
        std::mem::take(&mut self.left)
    }

    /// A reader from this record on, which may be the one that comes next.
    pub fn read_from(&self, number: u64) -> Result<RedoReader, ReadError> {
        let (oldest, head) = (self.oldest(), self.head());
        if number > head + 1 {
            return Err(ReadError::Beyond { number, head });
        }
        let index = self.segments.partition_point(|first| *first <= number);
        match index.checked_sub(1) {
            Some(index) => RedoReader::open(&self.directory, self.segments[index], number, oldest),
            None => Err(ReadError::Gone { number, oldest }),
        }
    }

    /// Ends the log after this record. The tables are to be read again ([`Journal::reopen`]).
    /// Readers are to be dropped before.
    pub fn cut_after(&mut self, number: u64) -> Result<(), FileError> {
        if let Some(what) = &self.poisoned {
            return Err(FileError::Poisoned(what.clone()));
        }
        if number >= self.head() {
            return Ok(());
        }
        self.remove_snapshots_beyond(number)?;
        let mut reader = self.read_from(number + 1)?;
        reader.place()?;
        let kept = self.segments.partition_point(|first| *first <= number + 1);
        // The newest first: should it end in the middle, what is left has no gap.
        for first in self.segments.drain(kept..).rev() {
            let path = redo_path(&self.directory, first);
            Files::remove(&path).map_err(|error| FileError::new(path, "removing", error))?;
        }
        let path = self.active_path();
        let failed = |doing| {
            let path = path.clone();
            move |error| FileError::new(path, doing, error)
        };
        self.active = Files::open_for_writing(&path).map_err(failed("opening"))?;
        self.length = reader.offset();
        self.files.truncate(&self.active, self.length).map_err(failed("cutting"))?;
        self.files.sync(&self.active).map_err(failed("syncing"))?;
        self.files.sync_directory(&self.directory).map_err(failed("syncing the directory of"))?;
        let starts = self.history.starts().iter().filter(|start| start.first <= number);
        self.history = History::new(starts.copied().collect(), number);
        Ok(())
    }

    /// Copies the records after this one into a file of their own, which nobody here ever deletes;
    /// `None` if there are none. `epoch`: for its name.
    pub fn set_aside(&self, epoch: u64, after: u64) -> Result<Option<PathBuf>, FileError> {
        let (first, last) = ((after + 1).max(self.oldest()), self.head());
        if first > last {
            return Ok(None);
        }
        let path = self.unused_aside_path(epoch, first, last);
        let temporary = path.with_extension("log.tmp");
        let failed = |doing| {
            let temporary = temporary.clone();
            move |error| FileError::new(temporary, doing, error)
        };
        let mut reader = self.read_from(first)?;
        let file = self.files.create(&temporary).map_err(failed("creating"))?;
        let mut copy = || {
            let start = header(Magic::Redo, first);
            self.files.write_at(&file, &start, 0).map_err(failed("writing"))?;
            let mut length = HEADER_BYTES as u64;
            while let Some(batch) = reader.next(last)? {
                let written = self.files.write_at(&file, &batch.bytes, length);
                written.map_err(failed("writing"))?;
                length += batch.bytes.len() as u64;
            }
            self.files.sync(&file).map_err(failed("syncing"))?;
            std::fs::rename(&temporary, &path).map_err(failed("renaming"))?;
            self.files.sync_directory(&self.directory).map_err(failed("syncing the directory of"))
        };
        match copy() {
            Ok(()) => Ok(Some(path)),
            Err(error) => {
                // The error is what counts; the next attempt begins by emptying it.
                let _ = Files::remove(&temporary);
                Err(error)
            }
        }
    }

    // --- snapshots

    /// Begins a snapshot of this node's own tables.
    pub fn start_snapshot(&mut self) -> Result<SnapshotWriter, FileError> {
        self.begun += 1;
        let path = temporary_path(&self.directory, self.begun);
        SnapshotWriter::create(&self.files, &self.directory, path)
    }

    /// From now on until it is installed and its redo has arrived, this node's state counts as
    /// incomplete, after a restart too. What was there before stays until then.
    pub fn begin_loading(&mut self) -> Result<SnapshotWriter, FileError> {
        if self.loading.is_none() {
            loading::write(&self.files, &self.directory, Loading::Begun)?;
            self.loading = Some(Loading::Begun);
        }
        self.start_snapshot()
    }

    /// The state from before the loading counts again: the redo from its end on will do, no snapshot
    /// is needed. (After a start that found half a state that is an empty one.) Does nothing once a
    /// snapshot was installed.
    pub fn abandon_loading(&mut self) -> Result<(), FileError> {
        if self.loading == Some(Loading::Begun) {
            loading::remove(&self.files, &self.directory)?;
            self.loading = None;
        }
        Ok(())
    }

    /// A whole snapshot from the peer becomes the state: older snapshots and all redo go (set aside
    /// first what must be kept), and the log goes on after the snapshot's beginning. Until the redo
    /// has got to its end the state counts as incomplete. Readers are to be dropped before.
    pub fn install(&mut self, mut snapshot: SnapshotWriter) -> Result<(), FileError> {
        let (number, until) = snapshot.complete()?;
        let history = snapshot.begin().expect("a complete one has it").clone();
        loading::write(&self.files, &self.directory, Loading::Installing)?;
        self.loading = Some(Loading::Installing);
        // From here to the end the old state is not whole, and the new one not yet in place.
        self.poisoned = Some("a snapshot was not installed to its end".to_owned());
        let listing = Listing::read(&self.directory)
            .map_err(|error| FileError::new(&self.directory, "listing", error))?;
        let old = listing.snapshots.iter().map(|number| snapshot_path(&self.directory, *number));
        let redo = listing.redo.iter().rev().map(|first| redo_path(&self.directory, *first));
        for path in old.chain(redo) {
            Files::remove(&path).map_err(|error| FileError::new(path, "removing", error))?;
        }
        snapshot.name()?;
        let path = redo_path(&self.directory, number + 1);
        self.active = create_segment(&self.files, &self.directory, number + 1, true)
            .map_err(|error| FileError::new(path, "creating", error))?;
        (self.segments, self.length) = (vec![number + 1], HEADER_BYTES as u64);
        self.history = history;
        self.left.clear();
        if until > number {
            loading::write(&self.files, &self.directory, Loading::Installed { until })?;
            self.loading = Some(Loading::Installed { until });
        } else {
            loading::remove(&self.files, &self.directory)?;
            self.loading = None;
        }
        self.poisoned = None;
        Ok(())
    }

    /// The first record of the newest so many redo files.
    #[must_use]
    pub fn first_of_newest(&self, files: usize) -> u64 {
        self.segments[self.segments.len().saturating_sub(files.max(1))]
    }

    /// Removes what the newest snapshot makes unnecessary: older snapshots, and redo files all of
    /// whose records it holds; but no record from `needed_from` on (for a peer that still reads
    /// them; `u64::MAX`: nobody does).
    pub fn retain(&mut self, needed_from: u64) -> Result<Removed, FileError> {
        let listing = Listing::read(&self.directory)
            .map_err(|error| FileError::new(&self.directory, "listing", error))?;
        let mut removed = Removed::default();
        let Some(newest) = listing.snapshots.iter().rposition(|number| {
            let ends = read_ends(&snapshot_path(&self.directory, *number), *number);
            ends.is_ok_and(|ends| ends.until <= self.head())
        }) else {
            return Ok(removed);
        };
        for number in &listing.snapshots[..newest] {
            let path = snapshot_path(&self.directory, *number);
            Files::remove(&path).map_err(|error| FileError::new(path, "removing", error))?;
            removed.snapshots += 1;
        }
        let keep = needed_from.min(listing.snapshots[newest] + 1);
        // The oldest first: should it end in the middle, what is left has no gap.
        while self.segments.get(1).is_some_and(|next| *next <= keep) {
            let path = redo_path(&self.directory, self.segments[0]);
            Files::remove(&path).map_err(|error| FileError::new(path, "removing", error))?;
            self.segments.remove(0);
            removed.segments += 1;
        }
        Ok(removed)
    }

    /// Empties the tables: removes the redo and the snapshots. What was set aside stays.
    pub fn clear(&mut self) -> Result<(), FileError> {
        self.poisoned = Some("the directory was not cleared to its end".to_owned());
        remove_state(&self.files, &self.directory)?;
        loading::remove(&self.files, &self.directory)?;
        let path = redo_path(&self.directory, 1);
        self.active = create_segment(&self.files, &self.directory, 1, true)
            .map_err(|error| FileError::new(path, "creating", error))?;
        (self.segments, self.length) = (vec![1], HEADER_BYTES as u64);
        (self.history, self.loading, self.poisoned) = (History::default(), None, None);
        self.left.clear();
        Ok(())
    }

    // --- small files

    /// A small file of the directory; none if it was never written.
    ///
    /// # Panics
    /// If the name is not one of letters, digits, `.`, `_` and `-`, or one of the journal's own.
    pub fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>, FileError> {
        small::read(&self.directory, name)
    }

    /// Replaces a small file. Afterwards it is on the disk, whatever the configured durability;
    /// after a crash in between there is the old one.
    ///
    /// # Panics
    /// If the name is not one of letters, digits, `.`, `_` and `-`, or one of the journal's own.
    pub fn write_small(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        small::write(&self.files, &self.directory, name, bytes)
    }

    // --- appending

    fn active_path(&self) -> PathBuf {
        redo_path(&self.directory, *self.segments.last().expect("there is always a file"))
    }

    /// Whether these bytes continue the log; the masterships that begin in them.
    fn check(&self, last: u64, bytes: &[u8]) -> Result<Vec<EpochStart>, AppendError> {
        let head = self.head();
        let misplaced = |what: String| Err(AppendError::Misplaced { head, what });
        let mut starts = Vec::new();
        let (mut next, mut rest) = (head + 1, bytes);
        while !rest.is_empty() {
            let Some(record) = peek(rest).filter(|record| record.size <= rest.len()) else {
                return misplaced(format!("bytes that are no record stand for record {next}"));
            };
            if record.number != next {
                return misplaced(format!("record {} stands for record {next}", record.number));
            }
            if record.starts_epoch {
                match decode(rest) {
                    Ok((record, _)) => {
                        if let Body::EpochStart { life } = record.body {
                            starts.push(EpochStart { epoch: record.epoch, life, first: next });
                        }
                    }
                    Err(error) => return misplaced(format!("record {next}: {error}")),
                }
            }
            rest = &rest[record.size..];
            next += 1;
        }
        if next != last + 1 {
            return misplaced(format!("they end with record {}, not {last}", next - 1));
        }
        Ok(starts)
    }

    fn begin_segment(&mut self) -> Result<(), AppendError> {
        let first = self.head() + 1;
        let durable = self.options.durability == Durability::Disk;
        let path = redo_path(&self.directory, first);
        match create_segment(&self.files, &self.directory, first, durable) {
            Ok(file) => {
                let file = std::mem::replace(&mut self.active, file);
                if !durable {
                    let (path, files) = (self.active_path(), self.files.clone());
                    // Nobody takes them? Then the oldest are on the disk by now in all likelihood.
                    if self.left.len() == LEFT_MAX {
                        self.left.remove(0);
                    }
                    self.left.push(LeftSegment { path, file, files });
                }
                self.segments.push(first);
                self.length = HEADER_BYTES as u64;
                Ok(())
            }
            Err(error) if is_full(&error) => Err(AppendError::Full { file: path, error }),
            Err(error) => {
                let what = format!("beginning a redo file failed: {error}");
                if durable {
                    // Perhaps it was an fsync.
                    self.poisoned = Some(what.clone());
                }
                Err(AppendError::Failed { file: path, what })
            }
        }
    }

    /// A write failed after who knows how many bytes: the file ends where it ended before.
    fn take_back(&mut self, doing: &str, error: std::io::Error) -> AppendError {
        let file = self.active_path();
        let what = format!("{doing} failed: {error}");
        if let Err(error) = self.files.truncate(&self.active, self.length) {
            self.poisoned = Some(format!("{what}, and cutting the file back as well: {error}"));
            return AppendError::Broken { file, what, error };
        }
        if is_full(&error) {
            AppendError::Full { file, error }
        } else {
            AppendError::Failed { file, what }
        }
    }

    /// An fsync failed. The bytes are taken back as far as that goes; nobody was told of them.
    fn poison(&mut self, doing: &str, error: &std::io::Error) -> AppendError {
        let file = self.active_path();
        let what = format!("{doing} failed: {error}; it is not tried again");
        self.poisoned = Some(what.clone());
        match self.files.truncate(&self.active, self.length) {
            Ok(()) => AppendError::Failed { file, what },
            Err(error) => AppendError::Broken { file, what, error },
        }
    }

    /// A snapshot from the peer has got the redo that it needed: its state is whole. The records
    /// that completed it are in the log, whatever happens here.
    fn end_loading_if_reached(&mut self) {
        let Some(Loading::Installed { until }) = self.loading else { return };
        if self.head() < until {
            return;
        }
        // It must not look whole after a power failure that took the redo with it.
        if let Err(error) = self.sync_segments() {
            let what = format!("fsync failed: {error}; it is not tried again");
            tracing::error!(error = what, "the journal takes nothing any more");
            self.poisoned = Some(what);
            return;
        }
        self.loading = None;
        if let Err(error) = loading::remove(&self.files, &self.directory) {
            // The next start finds the redo there and comes to the same end.
            tracing::warn!(%error, "the mark of a finished loading stays until the next start");
        }
    }

    fn sync_segments(&self) -> std::io::Result<()> {
        for first in &self.segments {
            self.files.sync(&Files::open(&redo_path(&self.directory, *first))?)?;
        }
        self.files.sync_directory(&self.directory)
    }

    // --- cutting

    /// Snapshots that hold records after this one are worth nothing once those are cut off. First
    /// it is made sure that a state remains.
    fn remove_snapshots_beyond(&self, number: u64) -> Result<(), FileError> {
        let listing = Listing::read(&self.directory)
            .map_err(|error| FileError::new(&self.directory, "listing", error))?;
        let oldest = self.oldest();
        let until = |snapshot: u64| {
            let ends = read_ends(&snapshot_path(&self.directory, snapshot), snapshot);
            ends.map_or(u64::MAX, |ends| ends.until)
        };
        let (kept, beyond): (Vec<u64>, Vec<u64>) =
            listing.snapshots.iter().partition(|snapshot| until(**snapshot) <= number);
        let remains = oldest == 1 || kept.iter().any(|snapshot| *snapshot + 1 >= oldest);
        if !remains || number + 1 < oldest {
            let why = if beyond.is_empty() {
                format!("the redo begins at record {oldest}")
            } else {
                "the snapshot that the tables are rebuilt from holds records after it".to_owned()
            };
            return Err(FileError::NotCut { after: number, why });
        }
        for snapshot in &beyond {
            let path = snapshot_path(&self.directory, *snapshot);
            Files::remove(&path).map_err(|error| FileError::new(path, "removing", error))?;
        }
        if beyond.is_empty() {
            return Ok(());
        }
        let synced = self.files.sync_directory(&self.directory);
        synced.map_err(|error| FileError::new(&self.directory, "syncing the directory", error))
    }

    /// A name that nothing has been set aside under.
    fn unused_aside_path(&self, epoch: u64, first: u64, last: u64) -> PathBuf {
        let plain = format!("aside-{epoch}-{first}-{last}.log");
        let again = (2..).map(|count| format!("aside-{epoch}-{first}-{last}-{count}.log"));
        std::iter::once(plain)
            .chain(again)
            .map(|name| self.directory.join(name))
            .find(|path| !path.exists())
            .expect("counting does not end")
    }
}

/// Files left behind that are remembered until somebody takes them.
const LEFT_MAX: usize = 16;

/// A new redo file with its header; if that fails, there is none.
fn create_segment(
    files: &Files,
    directory: &Path,
    first: u64,
    durable: bool,
) -> std::io::Result<File> {
    let path = redo_path(directory, first);
    let made = files.create(&path).and_then(|file| {
        files.write_at(&file, &header(Magic::Redo, first), 0)?;
        if durable {
            files.sync(&file)?;
            files.sync_directory(directory)?;
        }
        Ok(file)
    });
    if made.is_err() {
        // If it stays nonetheless, the next attempt empties it, and the next start removes it.
        let _ = Files::remove(&path);
    }
    made
}
