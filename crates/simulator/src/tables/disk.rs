//! The disk of one node, as far as it can be lost: what is written, and what is synced.
//!
//! A killed process loses nothing that is written; a machine without power keeps what is synced and
//! some whole records more. Everything but appends is synced before it counts, as a careful driver
//! does it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hotpair_core::tables::position::{EpochStart, History};
use hotpair_core::tables::record::{Body, Record};
use hotpair_core::tables::snapshot::Piece;
use hotpair_core::tables::store::Store;

/// A record and its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) bytes: Box<[u8]>,
}

impl Entry {
    pub(super) fn number(&self) -> u64 {
        self.record.number
    }

    /// What names it: mastership and number.
    pub(super) fn name(&self) -> (u64, u64) {
        (self.record.epoch.0, self.record.number)
    }
}

/// A snapshot on disk.
#[derive(Debug)]
struct Kept {
    history: History,
    store: Store,
}

/// Where the loading of a snapshot is, as the disk remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loading {
    No,
    Begun,
    /// The log must still get to this record.
    Installed(u64),
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Disk {
    history: History,
    kept: Option<Kept>,
    /// Records up to this one are not in the log any more.
    base: u64,
    log: VecDeque<Arc<Entry>>,
    synced: u64,
    loading: Loading,
    receiving: Vec<Piece>,
    aside: BTreeSet<(u64, u64)>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            history: History::default(),
            kept: None,
            base: 0,
            log: VecDeque::new(),
            synced: 0,
            loading: Loading::No,
            receiving: Vec::new(),
            aside: BTreeSet::new(),
        }
    }

    // --- looks

    pub(super) fn head(&self) -> u64 {
        self.history.head()
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn oldest(&self) -> u64 {
        self.base + 1
    }

    /// The data could be used.
    pub(super) fn complete(&self) -> bool {
        self.loading == Loading::No
    }

    /// The records from this one on, as many at most; none if they are gone.
    pub(super) fn read(&self, from: u64, count: usize) -> Option<Vec<Arc<Entry>>> {
        let skip = usize::try_from(from.checked_sub(self.base + 1)?).expect("small");
        Some(self.log.iter().skip(skip).take(count).cloned().collect())
    }

    /// What a process finds when it starts.
    pub(super) fn recover(&self) -> (History, Store) {
        let (mut store, from) = match &self.kept {
            Some(kept) => (kept.store.clone(), kept.history.head()),
            None => (Store::default(), 0),
        };
        for entry in self.log.iter().filter(|entry| entry.number() > from) {
            store.apply(&entry.record);
        }
        (self.history.clone(), store)
    }

    // --- the log

    pub(super) fn append(&mut self, entries: &[Arc<Entry>]) {
        for entry in entries {
            let (epoch, first) = (entry.record.epoch, entry.number());
            assert_eq!(first, self.head() + 1, "a log has no gaps");
            if let Body::EpochStart { life } = entry.record.body {
                self.history.begin(EpochStart { epoch, life, first });
            }
            self.history.extend(first);
            self.log.push_back(entry.clone());
        }
        if let Loading::Installed(until) = self.loading
            && self.head() >= until
        {
            self.sync();
            self.loading = Loading::No;
        }
    }

    pub(super) fn sync(&mut self) {
        self.synced = self.head();
    }

    /// Everything after this record goes, if it was set aside before.
    pub(super) fn cut_after(&mut self, number: u64) -> Result<(), String> {
        self.must_be_aside(number)?;
        self.cut(number);
        Ok(())
    }

    fn cut(&mut self, number: u64) {
        self.history.cut_after(number);
        while self.log.back().is_some_and(|entry| entry.number() > number) {
            self.log.pop_back();
        }
        self.synced = self.synced.min(number);
    }

    pub(super) fn set_aside(&mut self, after: u64) {
        let tail = self.log.iter().filter(|entry| entry.number() > after);
        self.aside.extend(tail.map(|entry| entry.name()));
    }

    fn must_be_aside(&self, after: u64) -> Result<(), String> {
        let tail = self.log.iter().filter(|entry| entry.number() > after);
        match tail.map(|entry| entry.name()).find(|name| !self.aside.contains(name)) {
            None => Ok(()),
            Some((epoch, number)) => {
                Err(format!("record {number} of epoch {epoch} goes without having been set aside"))
            }
        }
    }

    /// A snapshot of the node's own; of the log before it only some records stay.
    pub(super) fn checkpoint(&mut self, history: History, store: Store, base: u64) {
        self.sync();
        self.base = base.min(history.head()).max(self.base);
        while self.log.front().is_some_and(|entry| entry.number() <= self.base) {
            self.log.pop_front();
        }
        self.kept = Some(Kept { history, store });
    }

    // --- a snapshot of the peer's

    /// `common`: records after it are not known to be the master's.
    pub(super) fn begin_loading(&mut self, common: u64) -> Result<(), String> {
        self.must_be_aside(common)?;
        self.loading = Loading::Begun;
        self.receiving.clear();
        Ok(())
    }

    pub(super) fn keep_piece(&mut self, piece: Piece) {
        self.receiving.push(piece);
    }

    pub(super) fn install(&mut self) {
        let pieces = std::mem::take(&mut self.receiving);
        let Some(Piece::Begin { history }) = pieces.first().cloned() else {
            panic!("a snapshot begins with its beginning");
        };
        let Some(Piece::End { until }) = pieces.last().cloned() else {
            panic!("a snapshot that is installed is whole");
        };
        let mut store = Store::default();
        for piece in pieces {
            store.paste(piece);
        }
        self.base = history.head();
        self.log.clear();
        self.history = history.clone();
        self.sync();
        self.loading = if self.head() < until { Loading::Installed(until) } else { Loading::No };
        self.kept = Some(Kept { history, store });
    }

    // --- losses

    /// The process is gone; pieces of a snapshot without a whole are thrown away at the next start.
    pub(super) fn process_gone(&mut self) {
        self.receiving.clear();
    }

    /// The machine has no power: of what is not synced a part stays.
    pub(super) fn power_lost(&mut self, rng: &mut fastrand::Rng) {
        let least = self.synced.max(self.kept.as_ref().map_or(0, |kept| kept.history.head()));
        let stays = rng.u64(least..=self.head().max(least));
        self.cut(stays);
        self.process_gone();
    }
}
