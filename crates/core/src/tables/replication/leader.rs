//! The master's side: when a record is acknowledged, and what a follower needs.

use super::{Follow, ReplicationSettings, TablesEffect};
use crate::pair::Moment;
use crate::pair::fact::TablesFact;
use crate::pair::identity::{Epoch, Incarnation};
use crate::tables::change::{Request, Verdict};
use crate::tables::planted::TablesBug;
use crate::tables::position::{EpochStart, History};
use crate::tables::record::Record;
use crate::tables::store::Store;
use crate::tables::writer::{Batch, Writer};

/// A follower that lacks no more than this is close enough to be waited for.
const CLOSE_RECORDS: u64 = 4_096;
/// Digests are sent so often; a follower answers each, so that silence is noticed.
const DIGEST_EVERY_MS: u64 = 1_000;
/// A follower that is silent for so long is given up, whatever it is needed for.
const FOLLOWER_SILENT_MS: u64 = 10_000;
/// From so long without a peer in sync on, the operator is told.
const BEHIND_AFTER_MS: u64 = 2_000;

/// The master's side.
#[derive(Debug)]
pub(super) struct Leader {
    settings: ReplicationSettings,
    writer: Writer,
    start: Option<EpochStart>,
    ready: bool,
    written: u64,
    acknowledged: u64,
    peering: Peering,
    /// How often the peer was lost in this mastership.
    losses: u64,
    follower: Option<Follower>,
    /// What the peer held when it was last heard, for the operator.
    peer_held: u64,
    /// The newest barrier that the peer does not hold yet: of which hold, and its record.
    barrier: Option<(u64, u64)>,
    digests_at: Moment,
    alone_since: Moment,
    behind_told: bool,
}

/// Whose acknowledgement is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peering {
    /// Ours.
    Alone,
    /// Ours and the follower's. `told`: the pair knows that it holds everything acknowledged.
    Required { told: bool },
    /// The follower's, which is gone: nothing is acknowledged until the sync record is written.
    Lost,
}

#[derive(Debug)]
struct Follower {
    connection: u64,
    who: Incarnation,
    held: u64,
    /// A snapshot is on its way: it holds nothing yet.
    loading: bool,
    heard_at: Moment,
    /// Since when it lacks something that is written.
    lacking_since: Option<Moment>,
}

impl Leader {
    pub(super) fn new(
        now: Moment,
        settings: ReplicationSettings,
        epoch: Epoch,
        life: u64,
        history: &History,
        store: &Store,
    ) -> Self {
        let head = history.head();
        let writer = Writer::new(epoch, life, head, store).with_planted(settings.planted);
        Self {
            settings,
            writer,
            start: Some(EpochStart { epoch, life, first: head + 1 }),
            ready: false,
            written: head,
            acknowledged: head,
            peering: Peering::Alone,
            losses: 0,
            follower: None,
            peer_held: 0,
            barrier: None,
            digests_at: now + DIGEST_EVERY_MS,
            alone_since: now,
            behind_told: false,
        }
    }

    /// What is left in the place of one that was taken.
    pub(super) fn spent() -> Self {
        let (settings, none) = (ReplicationSettings::default(), History::default());
        Self::new(Moment(0), settings, Epoch(0), 0, &none, &Store::default())
    }

    // --- looks

    pub(super) fn epoch(&self) -> Epoch {
        self.writer.epoch()
    }

    pub(super) fn lag(&self) -> Option<u64> {
        self.follower.as_ref().map(|f| self.written.saturating_sub(f.held))
    }

    pub(super) fn deadline(&self) -> Moment {
        let mut at = self.digests_at;
        if self.peering == Peering::Alone && !self.behind_told {
            at = at.min(self.alone_since + BEHIND_AFTER_MS);
        }
        if let Some(since) = self.follower.as_ref().and_then(|f| f.lacking_since)
            && self.waits_for_peer()
        {
            at = at.min(since + self.settings.silence_ms_max);
        }
        at
    }

    fn waits_for_peer(&self) -> bool {
        matches!(self.peering, Peering::Required { .. })
    }

    // --- business and disk

    pub(super) fn submit(&mut self, store: &Store, request: Request) -> Option<Verdict> {
        self.writer.submit(store, request)
    }

    pub(super) fn write_barrier(&mut self, hold: u64) {
        self.barrier = Some((hold, self.writer.write_barrier()));
    }

    pub(super) fn batch_is_full(&self) -> bool {
        self.writer.batch_is_full()
    }

    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        self.writer.take_batch()
    }

    /// The first record of this mastership is in the log now.
    pub(super) fn begin_history(&mut self, history: &mut History) {
        if let Some(start) = self.start.take() {
            history.begin(start);
        }
    }

    pub(super) fn appended(
        &mut self,
        now: Moment,
        last: u64,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) {
        self.written = last;
        if let Some(follower) = &mut self.follower
            && follower.held < last
        {
            follower.lacking_since.get_or_insert(now);
        }
        if !self.ready {
            self.ready = true;
            fx.push(TablesEffect::Tell(TablesFact::Ready { epoch: self.epoch() }));
        }
        self.release(store, fx);
    }

    /// Acknowledges whatever may be.
    fn release(&mut self, store: &mut Store, fx: &mut Vec<TablesEffect>) {
        let planted = self.settings.planted;
        if planted.has(TablesBug::UnacknowledgedShown) {
            self.writer.show_pending(store);
        }
        let up_to = match self.peering {
            Peering::Alone => self.written,
            _ if self.settings.ack_local || planted.has(TablesBug::AckBeforeShip) => self.written,
            Peering::Lost if planted.has(TablesBug::SyncLate) => self.written,
            Peering::Required { .. } => {
                let held = self.follower.as_ref().map_or(0, |follower| follower.held);
                held.min(self.written)
            }
            Peering::Lost => return,
        };
        if up_to <= self.acknowledged {
            return;
        }
        self.acknowledged = up_to;
        let mut verdicts = Vec::new();
        self.writer.release(up_to, store, &mut verdicts);
        let answer = |(ticket, verdict)| TablesEffect::Answer { ticket, verdict };
        fx.extend(verdicts.into_iter().map(answer));
    }

    // --- the follower

    pub(super) fn follower_came(
        &mut self,
        now: Moment,
        connection: u64,
        follow: &Follow,
        history: &History,
        oldest: u64,
        fx: &mut Vec<TablesEffect>,
    ) {
        if let Some(old) = self.follower.take() {
            let why = "another connection of the peer took its place";
            fx.push(TablesEffect::CloseFollower { connection: old.connection, why });
            self.lose(fx);
        }
        let common = follow.history.last_common(history);
        let loading = !follow.complete || common < follow.applied || common + 1 < oldest;
        let held = if loading {
            fx.push(TablesEffect::SendSnapshot { connection, common });
            0
        } else {
            fx.push(TablesEffect::SendTail { connection, after: common });
            common
        };
        self.peer_held = held;
        self.follower = Some(Follower {
            connection,
            who: follow.who.clone(),
            held,
            loading,
            heard_at: now,
            lacking_since: None,
        });
    }

    pub(super) fn follower_holds(
        &mut self,
        now: Moment,
        connection: u64,
        number: u64,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) {
        let Some(follower) = self.follower.as_mut().filter(|f| f.connection == connection) else {
            return; // a late word of one that was given up
        };
        follower.heard_at = now;
        if follower.loading && number == 0 {
            return; // a sign of life, no more
        }
        follower.loading = false;
        // It cannot hold what was never sent.
        let progress = number.min(self.written) > follower.held;
        follower.held = follower.held.max(number.min(self.written));
        self.peer_held = follower.held;
        if follower.held >= self.written {
            follower.lacking_since = None;
        } else if progress || follower.lacking_since.is_none() {
            follower.lacking_since = Some(now);
        }
        if matches!(self.peering, Peering::Alone | Peering::Lost)
            && follower.held + CLOSE_RECORDS >= self.written
        {
            self.peering = Peering::Required { told: false };
        }
        if self.peering == (Peering::Required { told: false }) && follower.held >= self.acknowledged
        {
            self.peering = Peering::Required { told: true };
            let peer = follower.who.clone();
            fx.push(TablesEffect::Tell(TablesFact::PeerCaughtUp {
                epoch: self.writer.epoch(),
                peer,
            }));
            fx.push(TablesEffect::Tell(TablesFact::Behind { records: None }));
            self.behind_told = false;
        }
        self.release(store, fx);
        self.settle_barrier(fx);
    }

    /// Only the peer's own word counts, and only while it is needed for whatever is acknowledged.
    fn settle_barrier(&mut self, fx: &mut Vec<TablesEffect>) {
        let held = self.follower.as_ref().map_or(0, |follower| follower.held);
        if self.peering == (Peering::Required { told: true })
            && let Some((hold, number)) = self.barrier.take_if(|(_, number)| *number <= held)
        {
            let epoch = self.epoch();
            fx.push(TablesEffect::Tell(TablesFact::BarrierHeld { epoch, hold, number }));
        }
    }

    pub(super) fn follower_gone(&mut self, connection: u64, fx: &mut Vec<TablesEffect>) {
        if self.follower.as_ref().is_some_and(|f| f.connection == connection) {
            self.follower = None;
            self.lose(fx);
        }
    }

    fn lose(&mut self, fx: &mut Vec<TablesEffect>) {
        if self.waits_for_peer() {
            self.peering = Peering::Lost;
            self.losses += 1;
            let (epoch, loss) = (self.epoch(), self.losses);
            fx.push(TablesEffect::Tell(TablesFact::PeerLost { epoch, loss }));
        }
    }

    pub(super) fn acknowledge_alone(
        &mut self,
        now: Moment,
        loss: u64,
        store: &mut Store,
        fx: &mut Vec<TablesEffect>,
    ) {
        // A peer that has come back meanwhile is waited for: that is never wrong. After another loss
        // it may have been written into the record again since.
        if self.peering == Peering::Lost && loss == self.losses {
            self.peering = Peering::Alone;
            self.alone_since = now;
            self.release(store, fx);
        }
    }

    // --- time and end

    pub(super) fn handle_timeout(&mut self, now: Moment, fx: &mut Vec<TablesEffect>) {
        let waits = self.waits_for_peer();
        let silent = self.follower.as_ref().is_some_and(|f| {
            let lacking = f.lacking_since.map_or(0, |since| now.ms_since(since));
            waits && lacking >= self.settings.silence_ms_max
                || now.ms_since(f.heard_at) >= FOLLOWER_SILENT_MS
        });
        if silent && let Some(follower) = self.follower.take() {
            let connection = follower.connection;
            let why = "the peer does not say that it holds what was sent";
            fx.push(TablesEffect::CloseFollower { connection, why });
            self.lose(fx);
        }
        if self.peering == Peering::Alone
            && now.ms_since(self.alone_since) >= BEHIND_AFTER_MS
            && (!self.behind_told || now >= self.digests_at)
        {
            self.behind_told = true;
            let records = Some(self.written.saturating_sub(self.peer_held));
            fx.push(TablesEffect::Tell(TablesFact::Behind { records }));
        }
        if now >= self.digests_at {
            self.digests_at = now + DIGEST_EVERY_MS;
            // Only what is written can be compared; all that was committed is, between turns.
            if self.follower.is_some() && self.writer.head() == self.written {
                let digests =
                    self.writer.digests().map(|(name, digest)| (name.to_string(), digest.0));
                fx.push(TablesEffect::SendDigests {
                    number: self.written,
                    digests: digests.filter(|(_, digest)| *digest != 0).collect(),
                });
            }
        }
    }

    /// The end: the records that were never acknowledged, and what those who wait are told.
    pub(super) fn end(self, fx: &mut Vec<TablesEffect>) -> (Vec<Record>, Vec<(u64, Verdict)>) {
        if let Some(follower) = &self.follower {
            let (connection, why) = (follower.connection, "this node is not master any more");
            fx.push(TablesEffect::CloseFollower { connection, why });
        }
        self.writer.abandon()
    }
}
