//! A machine, and the process on it: the tables' thread with its queue, and what it has under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hotpair_core::pair::Moment;
use hotpair_core::pair::identity::{BootId, Epoch, Incarnation, Instance, NodeId};
use hotpair_core::tables::change::{Bytes, Request, SessionKey};
use hotpair_core::tables::replication::{Follow, FromMaster, Replication, TablesEffect};
use hotpair_core::tables::store::Store;
use hotpair_core::tables::table::Row;

use crate::clock::{MS, Micros};

use super::agent::Agent;
use super::disk::{Disk, Entry};
use super::storm::Phase;
use super::stream::Shipper;

/// The names of the two.
pub(super) const NAMES: [&str; 2] = ["a", "b"];

/// What comes to the tables' thread.
#[derive(Debug)]
pub(super) enum Input {
    Submit(Request),
    Order(Order),
    FollowerCame { connection: u64, follow: Follow },
    FollowerHolds { connection: u64, number: u64 },
    FollowerGone { connection: u64 },
    MasterSaid { connection: u64, frame: FromMaster },
    MasterGone { connection: u64 },
    Time,
}

/// What the agent wants of the tables.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Prepare(Epoch),
    StandDown,
    AcknowledgeAlone { epoch: Epoch, loss: u64 },
    WriteBarrier { epoch: Epoch, hold: u64 },
    Follow(Option<Epoch>),
}

/// A machine.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) boot: u128,
    /// It has power.
    pub(super) up: bool,
    pub(super) paused: bool,
    pub(super) full: bool,
    pub(super) slow: bool,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
}

impl Host {
    pub(super) fn new(boot: u128) -> Self {
        let disk = Disk::new();
        Self { boot, up: false, paused: false, full: false, slow: false, disk, process: None }
    }

    /// Its process runs.
    pub(super) fn runs(&self) -> bool {
        self.process.is_some() && !self.paused
    }

    pub(super) fn incarnation(&self, host: usize) -> Incarnation {
        Incarnation {
            node: NodeId::new(NAMES[host]),
            instance: Instance(host as u128 + 1),
            boot_id: BootId(self.boot),
        }
    }
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) life: u64,
    /// What its clock shows beyond world time, in milliseconds.
    pub(super) offset_ms: u64,
    pub(super) machine: Replication,
    pub(super) store: Store,
    pub(super) inbox: VecDeque<Input>,
    pub(super) effects: VecDeque<TablesEffect>,
    pub(super) busy: Option<Busy>,
    /// A batch that the disk has no room for, when the rest goes on.
    pub(super) stuck: Option<Writing>,
    pub(super) unflushed: u32,
    pub(super) timer: Option<Micros>,
    pub(super) gate: Option<Epoch>,
    /// The calls of programs that it is at, and since which epoch.
    pub(super) errands: BTreeMap<(SessionKey, u64), Epoch>,
    /// The connection that it dialled.
    pub(super) dialled: Option<u64>,
    pub(super) phase: Option<Phase>,
    /// As the last `Load` said.
    pub(super) common: u64,
    pub(super) shipper: Option<Shipper>,
    pub(super) agent: Agent,
    pub(super) flip: Option<Flip>,
    /// Facts and orders arrive in order: not before these.
    pub(super) facts_at: Micros,
    pub(super) orders_at: Micros,
}

/// Records on their way to the disk.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) last: u64,
}

/// What the thread waits for.
#[derive(Debug)]
pub(super) enum Busy {
    Append(Writing),
    Files(TablesEffect),
}

/// A row that is not what it was: the memory's fault.
#[derive(Debug)]
pub(super) struct Flip {
    pub(super) table: Arc<str>,
    pub(super) key: Bytes,
    pub(super) row: Row,
    pub(super) told: bool,
    pub(super) number: u64,
    /// The connection that is to tell it.
    pub(super) connection: u64,
}

impl Process {
    pub(super) fn moment(&self, now: Micros) -> Moment {
        Moment(now / MS + self.offset_ms)
    }

    /// A row is not what it was; nobody has put it again since.
    pub(super) fn is_flipped(&self) -> bool {
        self.flip.as_ref().is_some_and(|flip| {
            let row = self.store.get(&flip.table, &flip.key);
            row.is_some_and(|row| row.version == flip.row.version && row.value != flip.row.value)
        })
    }

    /// The epoch that its tables are master in.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.machine.epoch()
    }

    /// Nothing but orders and time is taken.
    pub(super) fn takes_orders_only(&self) -> bool {
        self.stuck.is_some()
    }
}
