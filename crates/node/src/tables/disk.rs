//! The journal as the tables' thread uses it: what must wait for the disk does so elsewhere.
//!
//! A snapshot of one's own is cut piece by piece on a thread of its own once enough redo has come
//! together; then the redo that it makes unnecessary goes. Redo files that are full are brought to
//! the disk on another one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use hotpair_core::pair::identity::Epoch;
use hotpair_core::tables::position::History;
use hotpair_core::tables::snapshot::{Cursor, Piece};
use hotpair_core::tables::store::Store;
use hotpair_core::tables::writer::Batch;
use hotpair_journal::{
    AppendError, Durability, FileError, Journal, LeftSegment, Recovered, RedoReader, SnapshotWriter,
};
use hotpair_link::redo::{LogReader, OpenLog};

use super::remembered::{self, Remembered};

/// A snapshot is made once so much redo has come together, or twice the last snapshot's size.
const SNAPSHOT_AFTER_BYTES: u64 = 256 << 20;
/// Redo files that are kept for an SQL database that is behind: 1 GiB. Then it gets a copy.
const FILES_FOR_STORE_MAX: usize = 16;

/// The disk. See the file's header.
pub(super) struct Disk {
    journal: Journal,
    full: bool,
    /// Bytes appended since the last snapshot began.
    appended: u64,
    last_snapshot_bytes: u64,
    making: Option<Making>,
    loading: Option<SnapshotWriter>,
    retain: bool,
}

/// A snapshot of our own under way.
struct Making {
    done: Receiver<Result<u64, FileError>>,
    given_up: Arc<AtomicBool>,
}

/// What became of an append.
pub(super) enum AppendOutcome {
    /// It is as durable as configured.
    Done,
    /// There is no room; nothing of it was kept.
    Full(String),
    /// The log cannot be kept any more.
    Failed(String),
}

impl Disk {
    pub(super) fn open(
        directory: &Path,
        durability: Durability,
        clean: bool,
    ) -> Result<(Self, Recovered, Remembered)> {
        let (mut journal, mut recovered) = Journal::open(directory, durability)?;
        let mut remembered = match journal.read_small(remembered::FILE)? {
            Some(bytes) => Remembered::read(&bytes).map_err(|what| {
                let path = directory.join(remembered::FILE);
                anyhow::anyhow!("{} cannot be read: {what}", path.display())
            })?,
            None => Remembered::default(),
        };
        if clean {
            // The log may know of a newer epoch, and an epoch never comes again.
            remembered.epoch = remembered.epoch.max(recovered.history.position().epoch);
            journal.write_small(remembered::FILE, &remembered.bytes())?;
            journal.clear().context("the tables cannot be emptied")?;
            recovered = journal.reopen()?;
            tracing::info!("clean start: the tables were emptied");
        }
        let disk = Self {
            journal,
            full: false,
            appended: 0,
            last_snapshot_bytes: 0,
            making: None,
            loading: None,
            retain: false,
        };
        Ok((disk, recovered, remembered))
    }

    // --- the log

    pub(super) fn append(&mut self, batch: &Batch) -> AppendOutcome {
        match self.journal.append(batch.last, &batch.bytes) {
            Ok(()) => {
                self.appended += batch.bytes.len() as u64;
                bring_to_disk(self.journal.take_left());
                AppendOutcome::Done
            }
            Err(error @ AppendError::Full { .. }) => AppendOutcome::Full(error.to_string()),
            Err(error) => AppendOutcome::Failed(error.to_string()),
        }
    }

    pub(super) fn full(&self) -> bool {
        self.full
    }

    pub(super) fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// The first record that the log still has.
    pub(super) fn oldest(&self) -> u64 {
        self.journal.oldest()
    }

    /// What must stay for an SQL database that has everything before record `needed`: not all of it,
    /// should it be away for long.
    pub(super) fn bounded_need(&self, needed: u64) -> u64 {
        needed.max(self.journal.first_of_newest(FILES_FOR_STORE_MAX))
    }

    /// Reads the log from this record on, on another thread.
    pub(super) fn reader(&self, from: u64) -> Result<Box<dyn LogReader>> {
        Ok(Box::new(Files { reader: self.journal.read_from(from)? }))
    }

    pub(super) fn remember(&self, remembered: Remembered) {
        if let Err(error) = self.journal.write_small(remembered::FILE, &remembered.bytes()) {
            tracing::warn!(%error, "the highest epoch seen was not written down");
        }
    }

    // --- the log as a whole

    pub(super) fn set_aside(&mut self, epoch: Epoch, after: u64) -> Result<()> {
        if let Some(path) = self.journal.set_aside(epoch.0, after)? {
            tracing::warn!(file = %path.display(), "records that the master does not have were set aside");
        }
        Ok(())
    }

    pub(super) fn cut_after(&mut self, number: u64) -> Result<()> {
        self.give_up_making();
        Ok(self.journal.cut_after(number)?)
    }

    pub(super) fn begin_loading(&mut self) -> Result<()> {
        self.give_up_making();
        self.loading = Some(self.journal.begin_loading()?);
        Ok(())
    }

    pub(super) fn keep_piece(&mut self, piece: &Piece) -> Result<()> {
        let loading = self.loading.as_mut().context("a piece of a snapshot that never began")?;
        Ok(loading.piece(piece)?)
    }

    pub(super) fn install(&mut self) -> Result<()> {
        let snapshot = self.loading.take().context("a snapshot that never began")?;
        self.last_snapshot_bytes = snapshot.bytes();
        self.appended = 0;
        Ok(self.journal.install(snapshot)?)
    }

    // --- snapshots of our own

    /// Begins, or ends, a snapshot when it is time to. `whole`: the store is worth one; `needed`: the
    /// first record that somebody still reads.
    pub(super) fn tend(
        &mut self,
        whole: bool,
        needed: u64,
        store: &Arc<RwLock<Store>>,
        history: &History,
        head: &Arc<AtomicU64>,
    ) {
        self.end_making();
        if self.retain {
            self.retain = false;
            match self.journal.retain(needed) {
                Ok(removed) => tracing::info!(?removed, "redo that a snapshot holds was removed"),
                Err(error) => tracing::warn!(%error, "old redo was not removed"),
            }
        }
        let due = SNAPSHOT_AFTER_BYTES.max(2 * self.last_snapshot_bytes);
        if whole && self.making.is_none() && self.appended >= due {
            self.appended = 0;
            if let Err(error) = self.begin_making(store, history, head) {
                tracing::warn!("no snapshot was made: {error:#}");
            }
        }
    }

    fn begin_making(
        &mut self,
        store: &Arc<RwLock<Store>>,
        history: &History,
        head: &Arc<AtomicU64>,
    ) -> Result<()> {
        let mut snapshot = self.journal.start_snapshot()?;
        let (told, done) = channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let (store, head, over) = (store.clone(), head.clone(), given_up.clone());
        let mut history = history.clone();
        history.cut_after(store.read().unwrap_or_else(PoisonError::into_inner).applied());
        std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let made = make(&mut snapshot, history, &store, &head, &over);
            let made = match made {
                Ok(true) => snapshot.finish().map(|finished| finished.bytes),
                Ok(false) => return,
                Err(error) => Err(error),
            };
            let _ = told.send(made);
        })?;
        self.making = Some(Making { done, given_up });
        Ok(())
    }

    fn end_making(&mut self) {
        let Some(making) = &self.making else { return };
        match making.done.try_recv() {
            Ok(Ok(bytes)) => {
                tracing::info!(bytes, "a snapshot of the tables was made");
                self.last_snapshot_bytes = bytes;
                self.retain = true;
                self.making = None;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "no snapshot was made");
                self.making = None;
            }
            Err(TryRecvError::Disconnected) => self.making = None,
            Err(TryRecvError::Empty) => {}
        }
    }

    /// What is being cut is of a log that is about to change behind it: it must not get its name.
    fn give_up_making(&mut self) {
        if let Some(making) = self.making.take() {
            making.given_up.store(true, Ordering::Release);
            // Its end is near: a piece at most, or a name that is being given.
            let _ = making.done.recv();
        }
    }

    /// The process ends.
    pub(super) fn end(&mut self) {
        self.give_up_making();
    }
}

/// Cuts the store into the snapshot; false if it was given up.
fn make(
    snapshot: &mut SnapshotWriter,
    history: History,
    store: &RwLock<Store>,
    head: &AtomicU64,
    given_up: &AtomicBool,
) -> Result<bool, FileError> {
    snapshot.piece(&Piece::Begin { history })?;
    let mut cursor = Cursor::default();
    loop {
        if given_up.load(Ordering::Acquire) {
            return Ok(false);
        }
        let piece = store.read().unwrap_or_else(PoisonError::into_inner).cut(&mut cursor);
        match piece {
            Some(piece) => snapshot.piece(&piece)?,
            None => {
                snapshot.piece(&Piece::End { until: head.load(Ordering::Acquire) })?;
                return Ok(!given_up.load(Ordering::Acquire));
            }
        }
    }
}

fn bring_to_disk(left: Vec<LeftSegment>) {
    if left.is_empty() {
        return;
    }
    let sync = move || {
        for segment in left {
            if let Err(error) = segment.sync() {
                tracing::error!(%error, "a full redo file could not be brought to the disk");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("redo sync".to_owned()).spawn(sync) {
        tracing::warn!(%error, "a full redo file waits for the system to bring it to the disk");
    }
}

/// The peer's redo files where this node sees them.
pub(super) fn open_log(directory: PathBuf) -> OpenLog {
    Box::new(move |after| {
        let reader = RedoReader::in_directory(&directory, after + 1).map_err(io::Error::other)?;
        Ok(Box::new(Files { reader }))
    })
}

/// The journal's reader for a redo stream.
#[derive(Debug)]
struct Files {
    reader: RedoReader,
}

impl LogReader for Files {
    fn read(&mut self, up_to: u64, bytes: usize, out: &mut Vec<u8>) -> io::Result<u64> {
        let mut last = self.reader.wanted() - 1;
        while out.len() < bytes {
            match self.reader.next(up_to).map_err(io::Error::other)? {
                Some(batch) => {
                    last = batch.last;
                    out.extend_from_slice(&batch.bytes);
                }
                None => break,
            }
        }
        Ok(last)
    }
}
