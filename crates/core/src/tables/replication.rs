//! Keeping two stores the same: what the tables of one node do as master, and as standby.
//!
//! ```text
//!             prepare(epoch)                        stand_down
//!   Idle ───────────────────────▶ Master ──────────────────────────▶ Idle
//!     │ follow(master)              │ a follower comes: probe its history
//!     ▼                             ├─ it is a prefix of ours ─▶ tail
//!   Following ── Follow{history} ─▶ └─ else ───────────────────▶ snapshot, then tail
//!     │ ◀── Tail / Load, Records, Digests ──
//!     └─── Held{number} ───────────▶ acknowledges
//! ```
//!
//! Who acknowledges, on the master:
//!
//! ```text
//!   Alone ──close enough──▶ Required ──holds all that is acknowledged──▶ Required, told ─▶ sync record
//!     ▲                        │ gone, or silent for too long
//!     └── AcknowledgeAlone ── Lost: nothing is acknowledged until the sync record names only us
//! ```
//!
//! No IO here: the caller appends to the log, carries frames, cuts and pastes snapshots. Everything
//! is bounded: the writer's pending records, one follower, one snapshot under way.

mod follower;
mod leader;

use super::change::{Request, Verdict};
use super::planted::PlantedInTables;
use super::position::{History, Position};
use super::record::Record;
use super::snapshot::Piece;
use super::store::Store;
use super::writer::Batch;
use crate::pair::Moment;
use crate::pair::fact::TablesFact;
use crate::pair::identity::{Epoch, Incarnation};

use follower::Following;
use leader::Leader;

/// How a node's tables are to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// Acknowledge as soon as this node holds a change (`ack = "local"`).
    pub ack_local: bool,
    /// A peer that holds less than is written, and nothing more for so long, is lost.
    pub silence_ms_max: u64,
    /// Planted bugs.
    pub planted: PlantedInTables,
}

impl Default for ReplicationSettings {
    fn default() -> Self {
        Self { ack_local: false, silence_ms_max: 1_000, planted: PlantedInTables::NONE }
    }
}

/// What a standby says when it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Who it is.
    pub who: Incarnation,
    /// Its process life.
    pub life: u64,
    /// What its log holds.
    pub history: History,
    /// It cannot go back behind this record without a snapshot.
    pub applied: u64,
    /// Its store is whole and right.
    pub complete: bool,
}

/// What the master says to a standby that follows it, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromMaster {
    /// The log follows, after this record.
    Tail { epoch: Epoch, after: u64 },
    /// A snapshot follows, then the log after its beginning. Both logs are the same up to `common`.
    Load { epoch: Epoch, common: u64 },
    /// Records, one after the other.
    Records(Vec<Record>, Vec<u8>),
    /// A piece of the snapshot.
    Piece(Piece),
    /// The digests of all tables after this record.
    Digests { number: u64, digests: Vec<(String, u128)> },
}

/// Something to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablesEffect {
    /// Append to the log; answer with `appended`.
    Append(Batch),
    /// Tell whoever asked.
    Answer { ticket: u64, verdict: Verdict },
    /// Tell the pair.
    Tell(TablesFact),

    // --- as master
    /// Send the log after this record, and what is appended later, to this follower.
    SendTail { connection: u64, after: u64 },
    /// Send a snapshot, cut from now on, then the log after its beginning, to this follower.
    SendSnapshot { connection: u64, common: u64 },
    /// Send the digests after record `number`, in the log's order, to the follower.
    SendDigests { number: u64, digests: Vec<(String, u128)> },
    /// Close this follower's connection.
    CloseFollower { connection: u64, why: &'static str },

    // --- as standby
    /// Connect to the peer, say this.
    Dial(Follow),
    /// Close the connection to the master.
    HangUp,
    /// Tell the master that all records up to this one are held; 0: a sign of life, while a snapshot
    /// comes.
    Held { number: u64 },
    /// Copy all records after this one to a file of their own, before they are lost.
    SetAside { after: u64 },
    /// Cut the log after this record.
    CutAfter { number: u64 },
    /// From now on this node's data is of no use until `FinishLoading`; what is on disk says so too.
    BeginLoading,
    /// A piece of the snapshot, for the disk.
    KeepPiece(Piece),
    /// The snapshot is whole: it replaces log and snapshots on disk; records after it follow.
    InstallSnapshot,
    /// The log has reached the snapshot's end: the data can be used again.
    FinishLoading,
}

/// The machine. See the file's header.
#[derive(Debug)]
pub struct Replication {
    settings: ReplicationSettings,
    me: Incarnation,
    life: u64,
    history: History,
    complete: bool,
    mode: Mode,
    /// Records of our own last mastership that were never acknowledged: the next master decides.
    unapplied: Vec<Record>,
    /// The master to follow, if there is one.
    master: Option<Epoch>,
    mismatched: bool,
    aside: Option<(u64, Position)>,
    moved_told: Option<(Moment, Position)>,
}

#[derive(Debug)]
enum Mode {
    Idle { dial_at: Option<Moment> },
    Following(Box<Following>),
    Master(Box<Leader>),
}

/// A dial that failed is tried again after so long.
const DIAL_AGAIN_MS: u64 = 100;
/// The pair hears of a standby's progress at most every so often.
const MOVED_EVERY_MS: u64 = 100;

impl Replication {
    /// Tables just read from disk.
    #[must_use]
    pub fn new(
        settings: ReplicationSettings,
        me: Incarnation,
        life: u64,
        history: History,
        complete: bool,
    ) -> Self {
        Self {
            settings,
            me,
            life,
            history,
            complete,
            mode: Mode::Idle { dial_at: None },
            unapplied: Vec::new(),
            master: None,
            mismatched: false,
            aside: None,
            moved_told: None,
        }
    }

    // --- looks

    /// What the log holds.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The data is whole.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// The data is whole, and not known to differ from the master's.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.complete && !self.mismatched
    }

    /// The epoch that this node is master in.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        match &self.mode {
            Mode::Master(leader) => Some(leader.epoch()),
            Mode::Idle { .. } | Mode::Following(_) => None,
        }
    }

    /// As master: records that are written here and that the peer does not hold, if it follows.
    #[must_use]
    pub fn lag(&self) -> Option<u64> {
        match &self.mode {
            Mode::Master(leader) => leader.lag(),
            Mode::Idle { .. } | Mode::Following(_) => None,
        }
    }

    /// When `handle_timeout` is to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        match &self.mode {
            Mode::Idle { dial_at } => *dial_at,
            Mode::Following(following) => {
                let silent = following.deadline();
                Some(self.moved_due().map_or(silent, |due| due.min(silent)))
            }
            Mode::Master(leader) => Some(leader.deadline()),
        }
    }

    /// When the pair must hear of progress that was not worth a word when it was made.
    fn moved_due(&self) -> Option<Moment> {
        let Mode::Following(following) = &self.mode else { return None };
        let (at, told) = self.moved_told?;
        let position = self.history.position();
        // What is not in the log yet is told when it is.
        (told != position && following.has_appended(position.number)).then(|| at + MOVED_EVERY_MS)
    }

    // --- the pair's orders

    /// This node is elected: everything received counts, and the epoch's first record is written.
    /// Not with tables that are not whole, or not right: then the pair hears just that.
    pub fn prepare(
        &mut self,
        now: Moment,
        epoch: Epoch,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) {
        self.master = None;
        self.leave_mastership(store, fx);
        self.leave_master(now, fx);
        if !self.complete || self.mismatched {
            // They became so while the claim was under way.
            self.tell_moved(now, true, fx);
            return;
        }
        for record in std::mem::take(&mut self.unapplied) {
            store.apply(&record);
        }
        let leader = Leader::new(now, self.settings, epoch, self.life, &self.history, store);
        self.mode = Mode::Master(Box::new(leader));
        self.flush(fx);
    }

    /// Mastership is over. Whoever waits is told that the next master knows.
    pub fn stand_down(&mut self, now: Moment, store: &mut Store, fx: &mut Vec<TablesEffect>) {
        self.leave_mastership(store, fx);
        if let Mode::Idle { dial_at } = &mut self.mode {
            *dial_at = self.master.map(|_| now);
        }
        // Also if it never began: the pair knows nothing of the tables since it ordered it.
        self.tell_moved(now, true, fx);
    }

    fn leave_mastership(&mut self, store: &Store, fx: &mut Vec<TablesEffect>) {
        let Mode::Master(leader) = &mut self.mode else { return };
        let leader = std::mem::replace(&mut **leader, Leader::spent());
        self.mode = Mode::Idle { dial_at: None };
        // What a full disk did not take is not in the log, and so never was.
        let head = self.history.head();
        let (records, verdicts) = leader.end(fx);
        self.unapplied = records
            .into_iter()
            .filter(|record| record.number > store.applied() && record.number <= head)
            .collect();
        let answer = |(ticket, verdict)| TablesEffect::Answer { ticket, verdict };
        fx.extend(verdicts.into_iter().map(answer));
        fx.push(TablesEffect::Tell(TablesFact::Behind { records: None }));
    }

    /// The sync record names only us in this epoch, since this loss of the peer.
    pub fn acknowledge_alone(
        &mut self,
        now: Moment,
        epoch: Epoch,
        loss: u64,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) {
        if let Mode::Master(leader) = &mut self.mode
            && leader.epoch() == epoch
        {
            leader.acknowledge_alone(now, loss, store, fx);
        }
    }

    /// The peer is master in this epoch, or nobody is seen to be.
    pub fn follow(&mut self, now: Moment, master: Option<Epoch>, fx: &mut Vec<TablesEffect>) {
        if self.master == master {
            return;
        }
        self.master = master;
        match &mut self.mode {
            Mode::Master(_) => {}
            Mode::Idle { dial_at } => {
                *dial_at = master.map(|_| now);
                self.handle_dial(now, fx);
            }
            // Also a new epoch of the same master: it will not send redo of the new one here.
            Mode::Following(_) => {
                self.leave_master(now, fx);
                self.handle_dial(now, fx);
            }
        }
    }

    // --- business

    /// A request. As long as this node is not master, it is answered at once.
    pub fn submit(&mut self, store: &Store, request: Request, fx: &mut Vec<TablesEffect>) {
        let ticket = request.ticket;
        let verdict = match &mut self.mode {
            Mode::Master(leader) => leader.submit(store, request),
            Mode::Idle { .. } | Mode::Following(_) => Some(Verdict::Superseded),
        };
        if let Some(verdict) = verdict {
            fx.push(TablesEffect::Answer { ticket, verdict });
        }
        if let Mode::Master(leader) = &self.mode
            && leader.batch_is_full()
        {
            self.flush(fx);
        }
    }

    /// Hands on what was submitted since the last call. To be called when no more is at hand.
    pub fn flush(&mut self, fx: &mut Vec<TablesEffect>) {
        if let Mode::Master(leader) = &mut self.mode
            && let Some(batch) = leader.take_batch()
        {
            fx.push(TablesEffect::Append(batch));
        }
    }

    /// Has a record written that changes nothing; the pair hears when the peer holds it.
    pub fn write_barrier(&mut self, epoch: Epoch, hold: u64, fx: &mut Vec<TablesEffect>) {
        if let Mode::Master(leader) = &mut self.mode
            && leader.epoch() == epoch
        {
            leader.write_barrier(hold);
            self.flush(fx);
        }
    }

    // --- the disk

    /// The log holds everything up to this record, as durably as configured.
    pub fn appended(
        &mut self,
        now: Moment,
        last: u64,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) {
        match &mut self.mode {
            Mode::Master(leader) => {
                leader.begin_history(&mut self.history);
                self.history.extend(last);
                leader.appended(now, last, store, fx);
            }
            Mode::Following(following) => {
                if following.appended(last, fx) {
                    self.tell_moved(now, false, fx);
                }
            }
            Mode::Idle { .. } => {}
        }
    }

    // --- as master: followers

    /// A standby came. `oldest`: the first record that the log still has.
    pub fn follower_came(
        &mut self,
        now: Moment,
        connection: u64,
        follow: &Follow,
        oldest: u64,
        fx: &mut Vec<TablesEffect>,
    ) {
        match &mut self.mode {
            Mode::Master(leader) if follow.who.node != self.me.node => {
                leader.follower_came(now, connection, follow, &self.history, oldest, fx);
            }
            Mode::Master(_) | Mode::Idle { .. } | Mode::Following(_) => {
                let why = "this node is not master";
                fx.push(TablesEffect::CloseFollower { connection, why });
            }
        }
    }

    /// A follower holds all records up to this one.
    pub fn follower_holds(
        &mut self,
        now: Moment,
        connection: u64,
        number: u64,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) {
        if let Mode::Master(leader) = &mut self.mode {
            leader.follower_holds(now, connection, number, store, fx);
        }
    }

    /// A follower's connection ended.
    pub fn follower_gone(&mut self, connection: u64, fx: &mut Vec<TablesEffect>) {
        if let Mode::Master(leader) = &mut self.mode {
            leader.follower_gone(connection, fx);
        }
    }

    // --- as standby: the master

    /// The master said something. `Err`: it cannot be followed like this; hang up and dial again.
    pub fn master_said(
        &mut self,
        now: Moment,
        frame: FromMaster,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) -> Result<(), Unfollowable> {
        let Mode::Following(following) = &mut self.mode else { return Ok(()) };
        let mut own = follower::Own {
            history: &mut self.history,
            complete: &mut self.complete,
            unapplied: &mut self.unapplied,
            mismatched: &mut self.mismatched,
            aside: &mut self.aside,
            wanted: self.master.unwrap_or_default(),
        };
        let heard = following.handle(now, frame, &mut own, store, fx);
        if heard.is_err() {
            self.leave_master(now, fx);
        }
        heard
    }

    /// The connection to the master ended, or could not be made.
    pub fn master_gone(&mut self, now: Moment, fx: &mut Vec<TablesEffect>) {
        if matches!(self.mode, Mode::Following(_)) {
            self.mode = Mode::Idle { dial_at: self.master.map(|_| now + DIAL_AGAIN_MS) };
            self.tell_moved(now, true, fx);
        }
    }

    // --- time

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment, fx: &mut Vec<TablesEffect>) {
        match &mut self.mode {
            Mode::Idle { .. } => self.handle_dial(now, fx),
            Mode::Following(following) => {
                if now >= following.deadline() {
                    self.leave_master(now, fx);
                } else if self.moved_due().is_some_and(|at| now >= at) {
                    self.tell_moved(now, true, fx);
                }
            }
            Mode::Master(leader) => {
                leader.handle_timeout(now, fx);
                // The peer hears it in statements: with `ack = "local"` it is what it may lack.
                self.tell_moved(now, false, fx);
            }
        }
    }

    fn handle_dial(&mut self, now: Moment, fx: &mut Vec<TablesEffect>) {
        let Mode::Idle { dial_at: Some(at) } = self.mode else { return };
        if now < at {
            return;
        }
        fx.push(TablesEffect::Dial(Follow {
            who: self.me.clone(),
            life: self.life,
            history: self.history.clone(),
            applied: self.unapplied.first().map_or(self.history.head(), |r| r.number - 1),
            complete: self.complete && !self.mismatched,
        }));
        self.mode = Mode::Following(Box::new(Following::new(now)));
    }

    fn leave_master(&mut self, now: Moment, fx: &mut Vec<TablesEffect>) {
        if matches!(self.mode, Mode::Following(_)) {
            fx.push(TablesEffect::HangUp);
            self.master_gone(now, fx);
        }
    }

    fn tell_moved(&mut self, now: Moment, at_once: bool, fx: &mut Vec<TablesEffect>) {
        let position = self.history.position();
        let due = self.moved_told.is_none_or(|(at, told)| {
            told != position && (at_once || now.ms_since(at) >= MOVED_EVERY_MS)
        });
        if due || at_once {
            self.moved_told = Some((now, position));
            let complete = self.complete && !self.mismatched;
            fx.push(TablesEffect::Tell(TablesFact::Moved { position, complete }));
        }
    }
}

/// Why a master cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfollowable {
    /// It is not the one that is to be followed, or it was left.
    #[error("the stream is of epoch {got}, not {wanted}")]
    Epoch { got: Epoch, wanted: Epoch },
    /// Its log does not go on where ours ends.
    #[error("record {got} came where {wanted} was due")]
    Gap { got: u64, wanted: u64 },
    /// It does not speak in the order of the protocol.
    #[error("{0} out of place")]
    OutOfPlace(&'static str),
    /// Its tables are not ours: ours are made anew.
    #[error("{0}")]
    Different(String),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pair::identity::{BootId, Instance, NodeId};
    use crate::tables::change::{Operation, ReplyPlan};
    use crate::tables::writer::BATCH_BYTES_FULL;

    #[test]
    fn what_is_written_and_shipped_at_once_is_bounded_in_bytes() {
        let me = Incarnation { node: NodeId::new("a"), instance: Instance(1), boot_id: BootId(1) };
        let (mut store, mut fx) = (Store::default(), Vec::new());
        let settings = ReplicationSettings::default();
        let mut machine = Replication::new(settings, me, 1, History::default(), true);
        machine.prepare(Moment(1), Epoch(1), &mut store, &mut fx);
        machine.flush(&mut fx);
        fx.clear();
        let value: Arc<[u8]> = vec![0; 700_000].into();
        for ticket in 0..40 {
            let key: Arc<[u8]> = format!("{ticket}").as_bytes().into();
            let put = Operation::Put { table: "t".into(), key, value: value.clone() };
            let request = Request {
                ticket,
                numbered: None,
                reads: Vec::new(),
                operations: vec![put],
                reply: ReplyPlan::Results,
            };
            machine.submit(&store, request, &mut fx);
        }
        machine.flush(&mut fx);
        let batches: Vec<&Batch> = fx
            .iter()
            .filter_map(|effect| match effect {
                TablesEffect::Append(batch) => Some(batch),
                _ => None,
            })
            .collect();
        assert_eq!(batches.iter().map(|batch| batch.last).max(), Some(41));
        let largest = batches.iter().map(|batch| batch.bytes.len()).max().unwrap();
        assert!(largest < BATCH_BYTES_FULL + 701_000, "{largest}");
    }
}
