//! Write-behind, wired: what the tables' thread says of itself, and the thread that writes into SQL.
//!
//! ```text
//! tables' thread ──Told, when something changed──▶ store's thread ──▶ SQLite, PostgreSQL
//!        ▲                                          │   ▲
//!        └── the first record still needed ─────────┘   └── redo files, and the store itself
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result};
use hotpair_core::pair::fact::Fact;
use hotpair_core::pair::identity::{ClusterId, Identity};
use hotpair_core::tables::behind::Told;
use hotpair_core::tables::replication::Replication;
use hotpair_core::tables::store::Store;
use hotpair_journal::{ReadError, RedoReader};
use hotpair_protocol::StoreStatus;
use hotpair_sql::{Figures, Log, LogFault, Mapping, Parts, Shown, Target};
use tokio::sync::{mpsc, watch};

use crate::config::{CoordinatorKind, NodeConfig};
use crate::{boot_clock, fault_points};

/// The end that the tables' thread has.
#[derive(Debug)]
pub(crate) struct StoreEnd {
    told: watch::Sender<Arc<Told>>,
    /// The last record of the log; told of before.
    head: Arc<AtomicU64>,
    shown: Arc<Shown>,
    /// Whose the tables are where there is no coordinator to say so.
    alone: Option<String>,
    cluster: Option<ClusterId>,
    generation: u64,
}

/// The end that writes.
pub(crate) struct StoreStart {
    target: Target,
    mappings: Vec<Mapping>,
    told: watch::Receiver<Arc<Told>>,
    head: Arc<AtomicU64>,
    shown: Arc<Shown>,
}

/// Both ends, if anything is to be written.
pub(crate) fn ends(
    config: &NodeConfig,
    me: &Identity,
) -> Result<(Option<StoreEnd>, Option<StoreStart>)> {
    let read = config.store.read().expect("validated: an address and mappings that can be meant");
    let Some((target, mappings)) = read else { return Ok((None, None)) };
    let target = target.trusting(config.identity.as_deref()).context("store.url")?;
    let alone = config.coordinator.kind == CoordinatorKind::Standalone;
    let (end, start) = ends_of(target, mappings, alone.then_some(me));
    Ok((Some(end), Some(start)))
}

/// The same for this database; `alone`: whose the tables are where no coordinator says so.
pub(crate) fn ends_of(
    target: Target,
    mappings: Vec<Mapping>,
    alone: Option<&Identity>,
) -> (StoreEnd, StoreStart) {
    let (sender, told) = watch::channel(Arc::default());
    let shown = Arc::new(Shown::new(&target));
    let alone = alone.map(|me| format!("standalone-{}", me.incarnation.instance));
    let head = Arc::new(AtomicU64::new(0));
    let end = StoreEnd {
        told: sender,
        head: head.clone(),
        shown: shown.clone(),
        alone,
        cluster: None,
        generation: 0,
    };
    (end, StoreStart { target, mappings, told, head, shown })
}

impl StoreEnd {
    /// The first record that is still to be read from the log.
    pub(crate) fn needs(&self) -> u64 {
        self.shown.needs()
    }

    /// Files of the log are cut or replaced.
    pub(crate) fn files_change(&mut self) {
        self.generation += 1;
    }

    /// The log reaches so far. Whose masterships its records are of must have been told before.
    pub(crate) fn reaches(&self, head: u64) {
        self.head.store(head, Ordering::Release);
    }

    /// Tells what is different, if anything is.
    pub(crate) fn tell(
        &mut self,
        replication: &Replication,
        cluster: Option<ClusterId>,
        whole: bool,
        oldest: u64,
    ) {
        let mastership = replication.epoch();
        let history = replication.history();
        let same = |told: &Told| {
            (told.mastership, told.whole, told.oldest, told.generation)
                == (mastership, whole, oldest, self.generation)
                && told.history.starts().len() == history.starts().len()
                && told.history.starts().last() == history.starts().last()
        };
        if self.cluster == cluster && same(&self.told.borrow()) {
            return;
        }
        self.cluster = cluster;
        let owner = self.alone.clone().or_else(|| cluster.map(|cluster| cluster.to_string()));
        self.told.send_replace(Arc::new(Told {
            owner,
            mastership,
            whole,
            generation: self.generation,
            oldest,
            history: history.clone(),
        }));
    }
}

impl StoreStart {
    /// Starts the thread; what it shows.
    pub(crate) fn start(
        self,
        directory: PathBuf,
        me: &Identity,
        store: Arc<RwLock<Store>>,
        facts: mpsc::Sender<Fact>,
    ) -> Result<Arc<Shown>> {
        let shown = self.shown.clone();
        hotpair_sql::start(Parts {
            target: self.target,
            mappings: self.mappings,
            pair: me.pair.to_string(),
            node: me.incarnation.node.to_string(),
            instance: me.incarnation.instance.to_string(),
            told: self.told,
            store,
            log: Box::new(Redo { directory, reader: None }),
            head: self.head,
            shown: self.shown,
            tell: Box::new(move |what| facts.try_send(Fact::StoreBehind { what }).is_ok()),
            clock: boot_clock::now,
            probe: Arc::new(fault_points::reach),
        })
        .context("the store's thread cannot be started")?;
        Ok(shown)
    }
}

/// This node's own redo files, read while they are written.
struct Redo {
    directory: PathBuf,
    reader: Option<RedoReader>,
}

impl Log for Redo {
    fn read(&mut self, after: u64, up_to: u64) -> Result<Vec<u8>, LogFault> {
        let fault = |error: ReadError| match error {
            ReadError::Gone { .. } => LogFault::Gone,
            other => LogFault::Failed(other.to_string()),
        };
        let reader = match self.reader.take().filter(|reader| reader.wanted() == after + 1) {
            Some(reader) => reader,
            None => RedoReader::in_directory(&self.directory, after + 1).map_err(fault)?,
        };
        let reader = self.reader.insert(reader);
        match reader.next(up_to).map_err(fault) {
            Ok(Some(batch)) => Ok(batch.bytes),
            Ok(None) => Err(LogFault::Failed(format!("nothing follows record {after}"))),
            Err(fault) => {
                self.reader = None;
                Err(fault)
            }
        }
    }

    fn forget(&mut self) {
        self.reader = None;
    }
}

/// As `/status` has it.
pub(crate) fn status(figures: &Figures) -> StoreStatus {
    StoreStatus {
        kind: figures.kind.to_owned(),
        place: figures.place.clone(),
        state: figures.state.to_owned(),
        epoch: figures.mark.map(|(epoch, _)| epoch),
        number: figures.mark.map(|(_, number)| number),
        lag_records: figures.lag_records,
        quarantined: figures.quarantined,
        error: figures.error.clone(),
    }
}

#[cfg(test)]
mod tests;
