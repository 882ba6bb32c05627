//! What core's replication machine wants, carried out: the log, the streams, the answers.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use anyhow::{Context, Result};
use hotpair_core::pair::Moment;
use hotpair_core::pair::fact::{Fact, TablesFact};
use hotpair_core::pair::identity::{Epoch, Identity};
use hotpair_core::tables::SESSIONS;
use hotpair_core::tables::change::{Refusal, ReplyPlan, Request, Verdict};
use hotpair_core::tables::replication::{Follow, FromMaster, Replication, TablesEffect};
use hotpair_core::tables::store::Store;
use hotpair_core::tables::writer::Batch;
use hotpair_gateway::Tables;
use hotpair_link::redo::{
    self, Feed, MasterAddress, MasterLine, RedoEvent, Shipment, Standby, Start,
};
use tokio::sync::{mpsc, oneshot};

use super::disk::{self, AppendOutcome, Disk};
use super::figures::Figures;
use super::remembered::Remembered;
use super::{AtPromotion, Order, Submitted, TablesSettings};
use crate::store::StoreEnd;
use crate::{boot_clock, fault_points};

/// Verdicts of the node's own requests go nowhere.
const NOBODY: u64 = 0;
/// The timer goes off at least this often.
const LOOK_MS: u64 = 200;
/// A peer bears a silence of a few of these.
const REASSURE_EVERY_MS: u64 = 1_000;
/// What is remembered is written this long after it changed, so that no takeover waits for it.
const REMEMBER_AFTER_MS: u64 = 100;

/// Everything the tables' thread has.
pub(crate) struct Hands {
    replication: Replication,
    store: Arc<RwLock<Store>>,
    tables: Tables,
    figures: Arc<Figures>,
    disk: Disk,
    feed: Feed,
    events: mpsc::Sender<RedoEvent>,
    pair: String,
    peer: Option<MasterAddress>,
    peer_directory: Option<PathBuf>,
    at_promotion: AtPromotion,
    waiting: HashMap<u64, oneshot::Sender<Verdict>>,
    last_ticket: u64,
    /// Followers that came, by number, until the machine says what is to become of them.
    arrived: Option<(u64, redo::Wire, bool)>,
    connections: u64,
    shipment: Option<(u64, Shipment)>,
    dials: u64,
    line: Option<MasterLine>,
    /// The last record of the log.
    head: Arc<AtomicU64>,
    /// Batches that the disk had no room for, in order: one, or at the beginning of a mastership two.
    stuck: VecDeque<Batch>,
    /// When the peer is to hear of a master whose disk is full.
    reassure_at: Moment,
    failed: bool,
    store_end: Option<StoreEnd>,
    remembered: Remembered,
    remember_at: Option<Moment>,
    look_at: Moment,
    facts: Vec<Fact>,
}

impl Hands {
    /// Reads what is on disk.
    pub(super) fn open(
        settings: TablesSettings,
        me: &Identity,
        store: Arc<RwLock<Store>>,
        events: mpsc::Sender<RedoEvent>,
        tables: Tables,
        figures: Arc<Figures>,
    ) -> Result<Self> {
        let (disk, recovered, remembered) =
            Disk::open(&settings.directory, settings.durability, settings.clean)?;
        for note in &recovered.notes {
            tracing::warn!("{note}");
        }
        let (history, complete) = (recovered.history, recovered.complete);
        tracing::info!(
            records = history.head(),
            replayed = recovered.replayed,
            complete,
            "tables read from disk"
        );
        let head = Arc::new(AtomicU64::new(history.head()));
        if let Some(store) = &settings.store {
            store.reaches(history.head());
        }
        *store.write().unwrap_or_else(PoisonError::into_inner) = recovered.store;
        let feed = Feed::default();
        feed.reset(history.head());
        let replication = Replication::new(
            settings.replication,
            me.incarnation.clone(),
            me.life,
            history,
            complete,
        );
        Ok(Self {
            replication,
            store,
            tables,
            figures,
            disk,
            feed,
            events,
            pair: me.pair.to_string(),
            peer: settings.peer,
            peer_directory: settings.peer_directory,
            at_promotion: settings.at_promotion,
            waiting: HashMap::new(),
            last_ticket: NOBODY,
            arrived: None,
            connections: 0,
            shipment: None,
            dials: 0,
            line: None,
            head,
            stuck: VecDeque::new(),
            reassure_at: Moment(0),
            failed: false,
            store_end: settings.store,
            remembered,
            remember_at: None,
            look_at: Moment(0),
            facts: Vec::new(),
        })
    }

    // --- looks

    /// The disk takes nothing.
    fn stuck(&self) -> bool {
        !self.stuck.is_empty() || self.failed
    }

    /// Whether words of redo streams can be taken. A standby's may be records for the disk. A
    /// master's only tell what its peer holds: unheard for long, the peer would be given up.
    pub(super) fn listens(&self) -> bool {
        !self.stuck() || !self.failed && self.replication.epoch().is_some()
    }

    /// When `take_time` is to be called at the latest.
    pub(super) fn deadline(&self) -> Moment {
        let soon = boot_clock::now() + LOOK_MS;
        let next = self.replication.deadline().map_or(soon, |at| at.min(soon));
        self.remember_at.map_or(next, |at| at.min(next))
    }

    /// What the control thread is to hear.
    pub(super) fn take_facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    fn store(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    // --- what comes

    pub(super) fn tell_opened(&mut self) {
        let history = self.replication.history();
        let seen = self.remembered.epoch.max(history.position().epoch);
        self.tell(TablesFact::Opened {
            position: history.position(),
            complete: self.replication.complete(),
            cluster: self.remembered.cluster,
            seen,
        });
    }

    pub(super) fn take_order(&mut self, order: &Order) {
        let now = boot_clock::now();
        let mut fx = Vec::new();
        match *order {
            Order::Prepare { epoch } if self.stuck() => {
                let what = "the disk with the tables' log takes nothing".to_owned();
                self.facts.push(Fact::PromotionFailed { epoch, what });
            }
            Order::Prepare { epoch } => self.prepare(now, epoch, &mut fx),
            Order::StandDown => {
                let was_master = self.replication.epoch().is_some();
                let store = self.store.clone();
                let mut store = store.write().unwrap_or_else(PoisonError::into_inner);
                self.replication.stand_down(now, &mut store, &mut fx);
                drop(store);
                self.shipment = None;
                // It was never in the log, and nobody was told that it was done. What a standby has
                // no room for is in the master's log, and counted here already.
                if was_master && !self.stuck.is_empty() {
                    self.stuck.clear();
                    self.set_disk_full(false);
                }
            }
            Order::AcknowledgeAlone { epoch, loss } => {
                let store = self.store.clone();
                let mut store = store.write().unwrap_or_else(PoisonError::into_inner);
                self.replication.acknowledge_alone(now, epoch, loss, &mut store, &mut fx);
            }
            // Refused like any other change: the switch that wants it is undone.
            Order::WriteBarrier { .. } if self.stuck() => {}
            Order::WriteBarrier { epoch, hold } => {
                self.replication.write_barrier(epoch, hold, &mut fx);
            }
            Order::Follow { master } => self.replication.follow(now, master, &mut fx),
            Order::Remember { epoch, cluster } => {
                self.remembered.epoch = self.remembered.epoch.max(epoch);
                self.remembered.cluster = cluster.or(self.remembered.cluster);
                self.remember_at = Some(now + REMEMBER_AFTER_MS);
            }
        }
        self.carry_out(fx);
    }

    fn prepare(&mut self, now: Moment, epoch: Epoch, fx: &mut Vec<TablesEffect>) {
        self.feed.reset(self.replication.history().head());
        let shared = self.store.clone();
        let mut store = shared.write().unwrap_or_else(PoisonError::into_inner);
        self.replication.prepare(now, epoch, &mut store, fx);
        let operations = (self.at_promotion)(&store);
        if !operations.is_empty() {
            for part in operations.chunks(hotpair_core::tables::change::OPERATIONS_MAX) {
                let request = own_request(part.to_vec());
                self.replication.submit(&store, request, fx);
            }
            self.replication.flush(fx);
        }
    }

    pub(super) fn take_submissions(&mut self, submissions: impl Iterator<Item = Submitted>) {
        let mut fx = Vec::new();
        let epoch = self.replication.epoch();
        let stuck = self.stuck();
        let shared = self.store.clone();
        {
            let store = shared.read().unwrap_or_else(PoisonError::into_inner);
            for Submitted { epoch: entered, mut request, answer } in submissions {
                if Some(entered) != epoch {
                    let _ = answer.send(Verdict::Superseded);
                    continue;
                }
                if stuck {
                    let why = "the disk takes nothing now; nothing was executed".to_owned();
                    let _ = answer.send(Verdict::Refused(Refusal::Busy(why)));
                    continue;
                }
                self.last_ticket += 1;
                request.ticket = self.last_ticket;
                self.waiting.insert(request.ticket, answer);
                self.replication.submit(&store, request, &mut fx);
            }
        }
        self.replication.flush(&mut fx);
        self.carry_out(fx);
    }

    pub(super) fn take_event(&mut self, event: RedoEvent) {
        let now = boot_clock::now();
        let mut fx = Vec::new();
        match event {
            RedoEvent::FollowerCame { follow, directory, stream } => {
                self.connections += 1;
                let connection = self.connections;
                tracing::info!(
                    connection, peer = %follow.who, position = %follow.history.position(),
                    complete = follow.complete, "the peer wants to follow"
                );
                self.arrived = Some((connection, stream, directory));
                let oldest = self.disk.oldest();
                self.replication.follower_came(now, connection, &follow, oldest, &mut fx);
            }
            RedoEvent::FollowerHolds { connection, number } => {
                let store = self.store.clone();
                let mut store = store.write().unwrap_or_else(PoisonError::into_inner);
                self.replication.follower_holds(now, connection, number, &mut store, &mut fx);
            }
            RedoEvent::FollowerGone { connection, why } => {
                tracing::info!(connection, %why, "the peer follows no more");
                self.shipment.take_if(|(number, _)| *number == connection);
                self.replication.follower_gone(connection, &mut fx);
            }
            RedoEvent::MasterSaid { dial, frame } => self.take_frame(now, dial, frame, &mut fx),
            RedoEvent::MasterGone { dial, why } => {
                if self.line.take_if(|line| line.dial() == dial).is_some() {
                    tracing::debug!(dial, %why, "the redo stream from the master ended");
                    self.replication.master_gone(now, &mut fx);
                }
            }
        }
        self.carry_out(fx);
    }

    fn take_frame(
        &mut self,
        now: Moment,
        dial: u64,
        frame: FromMaster,
        fx: &mut Vec<TablesEffect>,
    ) {
        if self.line.as_ref().is_none_or(|line| line.dial() != dial) {
            return; // a late word of a line that was hung up
        }
        let heard = {
            let store = self.store.clone();
            let mut store = store.write().unwrap_or_else(PoisonError::into_inner);
            self.replication.master_said(now, frame, &mut store, fx)
        };
        if let Err(why) = heard {
            tracing::warn!(dial, %why, "the master's redo cannot be followed like this");
        }
    }

    pub(super) fn take_time(&mut self) {
        let now = boot_clock::now();
        let mut stuck = std::mem::take(&mut self.stuck);
        while self.stuck.is_empty()
            && let Some(batch) = stuck.pop_front()
        {
            self.append(batch);
        }
        self.stuck.append(&mut stuck);
        self.reassure(now);
        if self.remember_at.is_some_and(|at| now >= at) {
            self.remember_at = None;
            self.disk.remember(self.remembered);
        }
        if self.replication.deadline().is_some_and(|at| now >= at) {
            let mut fx = Vec::new();
            self.replication.handle_timeout(now, &mut fx);
            self.carry_out(fx);
        }
        if now >= self.look_at {
            self.look_at = now + LOOK_MS;
            self.look();
        }
        self.tell_store();
    }

    /// Whoever writes behind hears of what changed.
    fn tell_store(&mut self) {
        if let Some(store) = &mut self.store_end {
            let whole = self.replication.sound() && !self.failed;
            let oldest = self.disk.oldest();
            store.tell(&self.replication, self.remembered.cluster, whole, oldest);
            store.reaches(self.head.load(Ordering::Acquire));
        }
    }

    /// What need not be done in each turn.
    fn look(&mut self) {
        let sessions =
            self.tables.look(|store| store.table(SESSIONS).map_or(0, |t| t.len() as u64));
        self.figures.show(sessions, self.replication.lag());
        let whole = self.replication.sound() && !self.failed;
        let needed = self.shipment.as_ref().map_or(u64::MAX, |(_, shipment)| shipment.needs());
        let behind = self.store_end.as_ref().map_or(u64::MAX, StoreEnd::needs);
        let needed = needed.min(self.disk.bounded_need(behind));
        self.disk.tend(whole, needed, &self.store, self.replication.history(), &self.head);
    }

    /// While the disk has no room the master's machine has nothing to compare: what it committed last
    /// is not written. Its peer is told so often what is, or it would take the silence for a death.
    fn reassure(&mut self, now: Moment) {
        if self.stuck.is_empty() || self.replication.epoch().is_none() || now < self.reassure_at {
            return;
        }
        self.reassure_at = now + REASSURE_EVERY_MS;
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let head = self.head.load(Ordering::Acquire);
        if store.applied() == head {
            let digests = store.digests().filter(|(_, digest)| digest.0 != 0);
            let digests = digests.map(|(name, digest)| (name.to_string(), digest.0)).collect();
            self.feed.digests(head, digests);
        }
    }

    /// The process ends: what must be kept is.
    pub(super) fn end(mut self) {
        if self.remember_at.take().is_some() {
            self.disk.remember(self.remembered);
        }
        self.disk.end();
    }

    // --- what is to be done

    fn carry_out(&mut self, fx: Vec<TablesEffect>) {
        for effect in fx {
            self.carry_out_one(effect);
        }
    }

    fn carry_out_one(&mut self, effect: TablesEffect) {
        match effect {
            TablesEffect::Append(batch) => self.append(batch),
            TablesEffect::Answer { ticket, verdict } => {
                if let Some(answer) = self.waiting.remove(&ticket) {
                    let _ = answer.send(verdict);
                }
            }
            TablesEffect::Tell(fact) => self.tell(fact),
            TablesEffect::SendTail { connection, after } => {
                self.ship(connection, Start::Tail { after });
            }
            TablesEffect::SendSnapshot { connection, common } => {
                let mut history = self.replication.history().clone();
                history.cut_after(self.store().applied());
                let store = self.store.clone();
                self.ship(connection, Start::Snapshot { common, history, store });
            }
            TablesEffect::SendDigests { number, digests } => self.feed.digests(number, digests),
            TablesEffect::CloseFollower { connection, why } => {
                tracing::info!(connection, why, "the peer's redo stream is closed");
                self.arrived.take_if(|(number, ..)| *number == connection);
                self.shipment.take_if(|(number, _)| *number == connection);
            }
            TablesEffect::Dial(follow) => self.dial(&follow),
            TablesEffect::HangUp => self.line = None,
            TablesEffect::Held { number } => {
                if let Some(line) = &self.line {
                    line.held(number);
                }
            }
            TablesEffect::SetAside { .. }
            | TablesEffect::CutAfter { .. }
            | TablesEffect::BeginLoading
            | TablesEffect::KeepPiece(_)
            | TablesEffect::InstallSnapshot
            | TablesEffect::FinishLoading => self.change_files(effect),
        }
    }

    fn append(&mut self, batch: Batch) {
        if !self.stuck.is_empty() {
            self.stuck.push_back(batch);
            return;
        }
        match self.disk.append(&batch) {
            AppendOutcome::Done => {
                if self.tables_full() {
                    self.set_disk_full(false);
                }
                let last = batch.last;
                self.head.store(last, Ordering::Release);
                if self.replication.epoch().is_some() {
                    fault_points::written(&batch.bytes);
                    self.feed.append(last, batch.bytes);
                }
                let mut fx = Vec::new();
                let now = boot_clock::now();
                {
                    let store = self.store.clone();
                    let mut store = store.write().unwrap_or_else(PoisonError::into_inner);
                    self.replication.appended(now, last, &mut store, &mut fx);
                }
                // Not only when the turn ends: with a lot to take in it lasts.
                self.tell_store();
                self.carry_out(fx);
            }
            AppendOutcome::Full(what) => {
                if !self.tables_full() {
                    tracing::error!("{what}; nothing is acknowledged until there is room");
                    self.set_disk_full(true);
                }
                self.stuck.push_back(batch);
            }
            AppendOutcome::Failed(what) => self.fail(what),
        }
    }

    /// What is done to the files of the log as a whole. When it fails, following starts anew.
    fn change_files(&mut self, effect: TablesEffect) {
        if self.failed {
            return;
        }
        // The end of a loading is no change of files: those behind have begun a copy of it already.
        if let Some(store) = &mut self.store_end
            && effect != TablesEffect::FinishLoading
        {
            store.files_change();
        }
        let done = match effect {
            TablesEffect::SetAside { after } => {
                let epoch = self.replication.history().position().epoch;
                self.disk.set_aside(epoch, after)
            }
            TablesEffect::CutAfter { number } => {
                self.head.store(number, Ordering::Release);
                self.disk.cut_after(number)
            }
            TablesEffect::BeginLoading => self.disk.begin_loading(),
            TablesEffect::KeepPiece(piece) => self.disk.keep_piece(&piece),
            TablesEffect::InstallSnapshot => {
                let head = self.replication.history().head();
                self.head.store(head, Ordering::Release);
                self.disk.install()
            }
            // The journal has seen for itself that the log got there.
            TablesEffect::FinishLoading => Ok(()),
            other => unreachable!("{other:?} is no change of files"),
        };
        if let Err(error) = done {
            self.fail(format!("{error:#}"));
        }
    }

    /// The log cannot be kept: this node must not be master, and does not try again.
    fn fail(&mut self, what: String) {
        tracing::error!("{what}");
        self.failed = true;
        self.line = None;
        self.shipment = None;
        self.tables.set_disk_full(true);
        // Nobody is told that it was done: whoever waits asks the next master.
        self.waiting.clear();
        self.tell(TablesFact::Failed { what });
    }

    fn tables_full(&self) -> bool {
        self.disk.full()
    }

    fn set_disk_full(&mut self, full: bool) {
        self.disk.set_full(full);
        self.tables.set_disk_full(full);
        self.tell(TablesFact::DiskFull { full });
    }

    fn ship(&mut self, connection: u64, start: Start) {
        let arrived = self.arrived.take_if(|(number, ..)| *number == connection);
        let Some((_, stream, directory)) = arrived else { return };
        let after = match &start {
            Start::Tail { after } => *after,
            Start::Snapshot { history, .. } => history.head(),
        };
        let epoch = self.replication.epoch().unwrap_or_default();
        let shipped = self.disk.reader(after + 1).and_then(|files| {
            let events = self.events.clone();
            let standby = Standby { connection, epoch, stream, directory };
            redo::ship(standby, start, &self.feed, files, events)
                .context("a redo stream cannot be started")
        });
        match shipped {
            Ok(shipment) => self.shipment = Some((connection, shipment)),
            Err(error) => {
                tracing::warn!(connection, "{error:#}");
                let mut fx = Vec::new();
                self.replication.follower_gone(connection, &mut fx);
                self.carry_out(fx);
            }
        }
    }

    fn dial(&mut self, follow: &Follow) {
        self.dials += 1;
        let Some(peer) = &self.peer else { return };
        let log = self.peer_directory.clone().map(disk::open_log);
        match redo::dial(self.dials, peer, &self.pair, follow, log, self.events.clone()) {
            Ok(line) => self.line = Some(line),
            Err(error) => {
                tracing::warn!(%error, "the master's redo stream cannot be dialled");
                let mut fx = Vec::new();
                self.replication.master_gone(boot_clock::now(), &mut fx);
                self.carry_out(fx);
            }
        }
    }

    fn tell(&mut self, fact: TablesFact) {
        self.facts.push(Fact::Tables(fact));
    }
}

fn own_request(operations: Vec<hotpair_core::tables::change::Operation>) -> Request {
    Request {
        ticket: NOBODY,
        numbered: None,
        reads: Vec::new(),
        operations,
        reply: ReplyPlan::Results,
    }
}
