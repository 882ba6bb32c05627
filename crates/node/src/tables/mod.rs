//! The tables' thread: the one place where this node's tables change.
//!
//! ```text
//!   business threads ──submissions──┐                       ┌─▶ redo files, snapshots
//!   control thread ────orders───────┼──▶ core's Replication ┼─▶ store (readers look at it)
//!   redo streams ──────events───────┘        effects        ├─▶ redo streams: ship, follow, held
//!   timer ───────────────────────────┘                      └─▶ verdicts, facts for the control thread
//! ```
//!
//! * [`thread`]: the loop: what came is taken in batches, so that one write and one frame serve all.
//! * [`hands`]: carries out what core's machine wants.
//! * [`disk`]: the journal with what may go wrong with a disk.
//! * [`remembered`]: the highest epoch and the cluster, kept beside the log.
//!
//! It may wait for its disk; nobody waits for it but who wants a change acknowledged.

mod disk;
mod figures;
mod hands;
mod remembered;
mod thread;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result};
use hotpair_core::pair::fact::Fact;
use hotpair_core::pair::identity::{ClusterId, Epoch, Identity};
use hotpair_core::tables::change::Operation;
use hotpair_core::tables::replication::ReplicationSettings;
use hotpair_core::tables::store::Store;
use hotpair_gateway::tables::Submission;
use hotpair_journal::Durability;
use hotpair_link::redo::{MasterAddress, RedoEvent};
use tokio::sync::mpsc;

use crate::store::StoreEnd;
use crate::writer::Writer;
pub(crate) use figures::Figures;

/// Orders that may wait for the tables' thread: a few for each change of role.
const ORDERS_MAX: usize = 1_024;
/// Words of redo streams that may wait: each frame of records may be a megabyte.
const EVENTS_MAX: usize = 64;
/// Requests that may wait to be committed.
pub(crate) const SUBMISSIONS_MAX: usize = 16_384;

/// What the control thread wants of the tables; see the effects of the same names.
#[derive(Debug)]
pub(crate) enum Order {
    Prepare { epoch: Epoch },
    StandDown,
    AcknowledgeAlone { epoch: Epoch, loss: u64 },
    WriteBarrier { epoch: Epoch, hold: u64 },
    Follow { master: Option<Epoch> },
    Remember { epoch: Epoch, cluster: Option<ClusterId> },
}

/// What the tables' thread is told at its start.
pub(crate) struct TablesSettings {
    pub(crate) directory: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) replication: ReplicationSettings,
    /// Empty the tables first.
    pub(crate) clean: bool,
    /// The peer's link.
    pub(crate) peer: Option<MasterAddress>,
    /// Where the peer's redo files are seen, if they are not to be streamed.
    pub(crate) peer_directory: Option<PathBuf>,
    /// How long a session may be silent; only shown here.
    pub(crate) idle_timeout_ms: u64,
    /// Who writes behind into SQL, if anybody does.
    pub(crate) store: Option<StoreEnd>,
    /// What is done first in each mastership, for the store as it is then.
    pub(crate) at_promotion: AtPromotion,
}

/// What a mastership begins with, for the store as it is then.
pub(crate) type AtPromotion = Box<dyn Fn(&Store) -> Vec<Operation> + Send>;

/// The near end of the tables' thread.
pub(crate) struct TablesThread {
    /// For the control thread.
    pub(crate) orders: mpsc::Sender<Order>,
    /// For redo streams that come in at the door.
    pub(crate) streams: mpsc::Sender<RedoEvent>,
    /// What is looked at.
    pub(crate) tables: hotpair_gateway::Tables,
    /// The tables themselves, for whoever writes behind.
    pub(crate) store: Arc<RwLock<Store>>,
    /// What is shown of them.
    pub(crate) figures: Arc<Figures>,
    /// Its end.
    pub(crate) writer: Writer,
}

impl TablesThread {
    /// Reads what is on disk, and starts.
    pub(crate) fn start(
        settings: TablesSettings,
        me: &Identity,
        facts: mpsc::Sender<Fact>,
    ) -> Result<Self> {
        let store = Arc::new(RwLock::new(Store::default()));
        let (tables, submissions) = hotpair_gateway::Tables::new(store.clone(), SUBMISSIONS_MAX);
        let (orders, order_queue) = mpsc::channel(ORDERS_MAX);
        let (streams, events) = mpsc::channel(EVENTS_MAX);
        let figures = Arc::new(Figures::new(settings.idle_timeout_ms));
        let shown = figures.clone();
        let kept = store.clone();
        let hands = hands::Hands::open(settings, me, kept, streams.clone(), tables.clone(), shown)
            .context("the tables cannot be read")?;
        let queues = thread::Queues { orders: order_queue, events, submissions, facts };
        let writer = Writer::start("tables", move || thread::run(hands, queues))?;
        Ok(Self { orders, streams, tables, store, figures, writer })
    }
}

/// A submission with its epoch, as the thread takes it.
pub(crate) type Submitted = Submission;
