//! The election on ZooKeeper: who holds the one ephemeral znode, in which epoch, for how long.
//!
//! ```text
//!   (no session) ──SessionOpened──▶ look ──▶ picture ──┬─ ours, newer than what we left ─▶ heartbeat, then elected
//!        ▲                           ▲                 ├─ ours, but we left it ──────────▶ give it back
//!        │ lease end, expiry         │ any event       ├─ our previous life's ───────────▶ claim in its place
//!        │                           │                 ├─ the peer's ─ dead, left, silent ▶ claim in its place
//!   elected ◀──── claim done ────────┴── claim ◀───────┴─ nobody's ─── confirmed ────────▶ claim
//! ```
//!
//! The machine is level-triggered: each event asks for a new look, and each look is decided from
//! the picture alone. No answer is trusted beyond what it proves:
//!
//! * the lease counts from when the last acknowledged *quorum write* was sent; a read proves nothing;
//! * a request without a definite answer may still be executed, so every write is bound to the
//!   version of the epoch znode, and afterwards one looks again;
//! * a znode with our name may be our dying session's: only the owner session makes it ours;
//! * the client library is never asked whether we are still master.
//!
//! Here are its state, its facts and its commands; what a picture leads to is in `deciding`, whether
//! this node's data may serve in `data`.

mod data;
mod deciding;

use std::sync::Arc;

use super::effect::{Effect, ZooKeeperOrder, ZooKeeperRequest};
use super::fact::{
    Answer, LookTrouble, MasterZnode, Picture, Refusal, SessionId, ZooKeeperEvent, ZooKeeperFact,
};
use super::guard::Guard;
use super::identity::{ClusterId, Contact, Epoch, Identity};
use super::moment::{Moment, earlier};
use super::planted::Bug;
use super::reason::Reason;
use super::settings::Settings;
use super::standing::{Holder, Standing};
use super::sync::Fence;

/// Waits between attempts to open a session: doubled from the first to the last.
const CONNECT_RETRY_MS: (u64, u64) = (100, 1_000);
/// A peer that is ready gets this long to claim while this node holds off.
const TURN_MS: u64 = 1_000;
/// Added to a lease heard from the peer before it counts as over, besides what two clocks that are
/// each one percent wrong may differ by.
const LEASE_MARGIN_MS: u64 = 20;
/// From so many refused claims in a row on, the next one waits a little.
const REFUSALS_AT_ONCE: u32 = 3;
/// The wait for each refused claim above that.
const REFUSED_WAIT_MS: u64 = 50;

/// The machine. See the file's header.
#[derive(Debug)]
pub struct ZooKeeperElection {
    settings: Arc<Settings>,
    me: Arc<Identity>,
    generation: u64,
    session: Session,
    look: Look,
    picture: Option<Picture>,
    /// Why there is no picture, if the znodes themselves are the reason.
    unreadable: Option<Guard>,
    cluster: Option<ClusterId>,
    /// When the holder's heartbeat was last seen to move its znode.
    holder_seen: Option<HolderSeen>,
    /// Which process life claimed the newest epoch whose znode was seen.
    claimant: Option<(Epoch, u64)>,
    vacancy: Option<Vacancy>,
    claim: Option<Claim>,
    claims_refused: u32,
    claim_not_before: Option<Moment>,
    mastership: Option<Mastership>,
    giving_back: bool,
    seen: Epoch,
    left: Epoch,
    hold_off_until: Option<Moment>,
    closing: bool,
    guard: Option<Guard>,
    lost: Option<Reason>,
    wants_answer: bool,
    /// Since when nobody was seen to become master, or to heartbeat.
    still_since: Moment,
    /// The newest epoch by the coordinator's data, as read last.
    current: Epoch,
    /// The record read last names us.
    named: Option<bool>,
    /// The operator accepts that acknowledged changes may be lost.
    waived: bool,
    /// What a claim made without all changes may lose.
    risk: Option<(Epoch, String)>,
    divergence: Option<String>,
    /// When all steps due were taken last: a deadline up to then has been heeded.
    heeded: Option<Moment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Session {
    Closed { retry_at: Moment, failures: u32 },
    Opening { failures: u32 },
    Open { id: SessionId, timeout_ms: u64, connected: bool },
}

#[derive(Clone, Debug, Default)]
struct Look {
    wanted: bool,
    under_way: bool,
    retry_at: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct HolderSeen {
    epoch: Epoch,
    created: i64,
    version: i32,
    at: Moment,
    /// The znode changed after that: there may have been more heartbeats than were seen.
    changed: bool,
}

/// Nobody holds the znode.
#[derive(Clone, Copy, Debug)]
struct Vacancy {
    /// The newest epoch: with another one it is another vacancy, even if no holder was seen.
    epoch: Epoch,
    since: Moment,
    /// No heartbeat of the last holder was acknowledged after this moment.
    quiet_since: Moment,
    /// The peer said how long it may still act: wait that long.
    lease_over_at: Option<Moment>,
}

#[derive(Clone, Debug)]
struct Claim {
    reason: Reason,
    /// The sync znode's version, if it is done.
    sync_version: i32,
    sent_at: Moment,
    confirming_ms: u64,
}

#[derive(Clone, Debug)]
struct Mastership {
    epoch: Epoch,
    epoch_version: i32,
    /// The sync znode's version at the beginning.
    sync_version: i32,
    reason: Reason,
    /// `None` until a quorum write in this epoch is acknowledged.
    lease_until: Option<Moment>,
    last_sent: Option<Moment>,
    next_heartbeat: Moment,
    timing: Timing,
}

/// How long the two steps before the election took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From the holder's absence to the claim.
    pub confirming_ms: u64,
    /// From the claim to its answer.
    pub fencing_ms: u64,
}

impl ZooKeeperElection {
    /// An election that opens its first session at once.
    #[must_use]
    pub fn new(now: Moment, settings: Arc<Settings>, me: Arc<Identity>) -> Self {
        Self {
            settings,
            me,
            generation: 0,
            session: Session::Closed { retry_at: now, failures: 0 },
            look: Look::default(),
            picture: None,
            unreadable: None,
            cluster: None,
            holder_seen: None,
            claimant: None,
            vacancy: None,
            claim: None,
            claims_refused: 0,
            claim_not_before: None,
            mastership: None,
            giving_back: false,
            seen: Epoch(0),
            left: Epoch(0),
            hold_off_until: None,
            closing: false,
            guard: None,
            lost: None,
            wants_answer: false,
            still_since: now,
            current: Epoch(0),
            named: None,
            waived: false,
            risk: None,
            divergence: None,
            heeded: None,
        }
    }

    // --- looks

    /// How this node stands.
    #[must_use]
    pub fn standing(&self, now: Moment) -> Standing {
        if let Some(m) = &self.mastership {
            return match m.lease_until {
                Some(until) if until > now || self.settings.planted.has(Bug::WaitForExpired) => {
                    let until = if self.settings.planted.has(Bug::WaitForExpired) {
                        until.max(now + 1_000_000)
                    } else {
                        until
                    };
                    Standing::Elected {
                        epoch: m.epoch,
                        until,
                        reason: m.reason.clone(),
                        timing: m.timing,
                    }
                }
                Some(_) | None => Standing::Silent,
            };
        }
        match self.picture.as_ref().and_then(|p| p.master.as_ref()) {
            Some(m) if !self.is_mine(m) => {
                Standing::Passed { holder: Some(Holder { node: m.node.clone(), epoch: m.epoch }) }
            }
            Some(_) => Standing::Silent,
            None if self.picture.is_some() => Standing::Passed { holder: None },
            None => Standing::Silent,
        }
    }

    /// How this node stands with ZooKeeper.
    #[must_use]
    pub fn contact(&self) -> Contact {
        match self.session {
            Session::Open { connected: true, .. } => Contact::Connected,
            Session::Open { .. } => Contact::Lost,
            Session::Closed { .. } | Session::Opening { .. } if self.generation <= 1 => {
                Contact::Never
            }
            Session::Closed { .. } | Session::Opening { .. } => Contact::Lost,
        }
    }

    /// The cluster whose data was read last.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The largest epoch known.
    #[must_use]
    pub fn seen(&self) -> Epoch {
        self.seen
    }

    /// This node never acts again in this epoch or a smaller one.
    #[must_use]
    pub fn left(&self) -> Epoch {
        self.left
    }

    /// What keeps this node from racing now.
    #[must_use]
    pub fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// The session time-out, negotiated, else `None`.
    #[must_use]
    pub fn session_timeout_ms(&self) -> Option<u64> {
        match self.session {
            Session::Open { timeout_ms, .. } => Some(timeout_ms),
            Session::Closed { .. } | Session::Opening { .. } => None,
        }
    }

    /// Everything that is said to the peer about acting: the longest that this node may act from
    /// now, counting heartbeats and claims whose answers are still to come.
    #[must_use]
    pub fn lease_ms_possible(&self, now: Moment) -> u64 {
        let lease = self.lease_ms();
        let held = self.mastership.as_ref().map_or(0, |m| {
            let sent = m.last_sent.map(|sent| sent + lease);
            m.lease_until.max(sent).map_or(0, |until| until.ms_since(now))
        });
        let claimed = self.claim.as_ref().map_or(0, |c| (c.sent_at + lease).ms_since(now));
        held.max(claimed)
    }

    /// When this wants to be woken.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        // A moment that has passed and changed nothing would have us woken again and again.
        let ahead =
            |at: Option<Moment>| at.filter(|at| self.heeded.is_none_or(|heeded| *at > heeded));
        let mut next = match self.session {
            Session::Closed { retry_at, .. } => Some(retry_at),
            Session::Opening { .. } | Session::Open { .. } => None,
        };
        if let Some(m) = &self.mastership {
            let lease = m.lease_until.or(m.last_sent.map(|at| at + self.lease_ms()));
            next = earlier(next, ahead(lease));
            if self.connected() {
                next = earlier(next, Some(m.next_heartbeat));
            }
        }
        if !self.connected() || self.mastership.is_some() {
            return next;
        }
        next = earlier(next, self.look.retry_at);
        if self.claim.is_some() {
            return next;
        }
        next = earlier(next, ahead(self.claim_not_before));
        if let Some(v) = &self.vacancy {
            next = earlier(next, ahead(Some(v.since + self.silence_ms())));
            next = earlier(next, ahead(Some(v.quiet_since + self.silence_ms())));
            next = earlier(next, ahead(v.lease_over_at));
            next = earlier(next, ahead(self.hold_off_until.map(|_| v.since + TURN_MS)));
        }
        if let Some(seen) = &self.holder_seen
            && self.settings.fast_takeover
        {
            next = earlier(next, ahead(Some(seen.at + self.holder_silence_ms())));
        }
        earlier(next, ahead(self.hold_off_until))
    }

    /// A fresh answer of the peer would help; asked once per wish.
    pub(crate) fn take_answer_wish(&mut self) -> bool {
        std::mem::take(&mut self.wants_answer)
    }

    /// Why mastership was lost, once.
    pub(crate) fn take_lost(&mut self) -> Option<Reason> {
        self.lost.take()
    }

    // --- commands

    /// Ends a lease that ran out. Called first at every entry, before anything else is considered.
    pub(crate) fn expire(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if self.settings.planted.has(Bug::WaitForExpired) {
            return;
        }
        let Some(m) = &self.mastership else { return };
        let over = match m.lease_until {
            Some(until) => now >= until,
            // Never acknowledged: as long as a heartbeat may still be, wait for it.
            None => m.last_sent.is_some_and(|sent| now >= sent + self.lease_ms()),
        };
        if over {
            self.lose(Reason::LeaseEnded);
            // The library may go on for ever with a session that is long over: drop it.
            self.open_session(0, fx);
        }
    }

    /// Gives the mastership back, in order. The gate must be closed already.
    pub(crate) fn resign(&mut self, fx: &mut Vec<Effect>) {
        let Some(m) = self.mastership.take() else { return };
        self.leave(m.epoch);
        if self.connected() {
            self.give_back(m.epoch, m.epoch_version, None, fx);
        }
        self.picture = None;
        self.look.wanted = true;
    }

    /// Mastership is over at once, because the peer is seen to have more right to it.
    pub(crate) fn depose(&mut self, reason: Reason, fx: &mut Vec<Effect>) {
        let Some(m) = self.mastership.clone() else { return };
        self.lose(reason);
        if self.connected() {
            self.give_back(m.epoch, m.epoch_version, None, fx);
        }
    }

    /// Stays out for a while, so that the peer gets its turn.
    pub(crate) fn hold_off(&mut self, until: Moment) {
        self.hold_off_until = self.hold_off_until.max(Some(until));
    }

    /// No race any more: the process is ending.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// An epoch that was given back is not on its way any more.
    pub(crate) fn at_rest(&self) -> bool {
        self.mastership.is_none() && self.claim.is_none() && !self.giving_back
    }

    /// What fences writes of the mastership at hand; none once it is lost.
    pub(crate) fn fence(&self) -> Option<Fence> {
        self.mastership.as_ref().map(|m| Fence {
            epoch: m.epoch,
            epoch_version: m.epoch_version,
            sync_version: m.sync_version,
        })
    }

    /// The newest epoch by the coordinator's data, as read last.
    pub(crate) fn current(&self) -> Epoch {
        self.current
    }

    /// A claim is under way.
    pub(crate) fn claiming(&self) -> bool {
        self.claim.is_some()
    }

    /// The `sync` record read last names us; none: there was none, or it was not read yet.
    pub(crate) fn named(&self) -> Option<bool> {
        self.named
    }

    /// Is this word of the session at hand?
    pub(crate) fn hears(&self, generation: u64) -> bool {
        generation == self.generation
    }

    /// A new picture is needed, as soon as it can be had.
    pub(crate) fn look_now(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if self.connected() && !self.look.under_way && self.look.retry_at.is_none() {
            self.look.wanted = true;
            self.advance_look(now, fx);
        }
    }

    /// An epoch that is known from elsewhere: claims are beyond it.
    pub(crate) fn note_seen(&mut self, epoch: Epoch) {
        self.seen = self.seen.max(epoch);
    }

    /// The operator wants this node to be master: no turn of the peer is waited for, and if data loss
    /// is accepted, nobody is asked who has all changes, until `end_order`.
    pub(crate) fn begin_order(&mut self, accept_data_loss: bool) {
        self.hold_off_until = None;
        self.waived = accept_data_loss;
    }

    /// See `begin_order`.
    pub(crate) fn end_order(&mut self) {
        self.waived = false;
    }

    /// What the mastership just begun may have lost, once.
    pub(crate) fn take_divergence(&mut self) -> Option<String> {
        self.divergence.take()
    }

    /// Sends a request on the current session, for the role's own fenced writes.
    pub(crate) fn order(&self, what: ZooKeeperRequest, fx: &mut Vec<Effect>) {
        fx.push(Effect::ZooKeeper(ZooKeeperOrder { generation: self.generation, what }));
    }

    // --- facts

    pub(crate) fn handle(&mut self, now: Moment, fact: ZooKeeperFact, fx: &mut Vec<Effect>) {
        if fact.generation != self.generation {
            return; // a word from a session that was given up
        }
        match fact.what {
            ZooKeeperEvent::SessionOpened { session, timeout_ms } => {
                self.session = Session::Open { id: session, timeout_ms, connected: true };
                self.look = Look { wanted: true, ..Look::default() };
            }
            ZooKeeperEvent::ConnectFailed { .. } => self.handle_connect_failed(now),
            ZooKeeperEvent::Disconnected => self.handle_disconnected(),
            ZooKeeperEvent::Reconnected => {
                if let Session::Open { connected, .. } = &mut self.session {
                    *connected = true;
                }
                // Watches of before are gone, and what they would have told as well.
                self.look.wanted =
                    !self.settings.planted.has(Bug::WatchLostAtReconnect) || self.picture.is_none();
            }
            ZooKeeperEvent::SessionEnded { .. } => {
                if self.mastership.is_some() {
                    self.lose(Reason::SessionEnded);
                }
                self.open_session(0, fx);
            }
            ZooKeeperEvent::MasterChanged { gone } => {
                self.look.wanted = true;
                // Whatever moved it may have been a heartbeat, even if the next look finds nothing.
                if let Some(seen) = self.holder_seen.as_mut().filter(|_| !gone) {
                    seen.at = now;
                    seen.changed = true;
                }
            }
            ZooKeeperEvent::SyncChanged => self.look.wanted = true,
            ZooKeeperEvent::Looked { picture } => self.handle_picture(now, picture),
            ZooKeeperEvent::LookFailed { reason: what, trouble } => {
                self.look.under_way = false;
                self.look.retry_at = Some(now + self.heartbeat_ms());
                let unreadable = match trouble {
                    LookTrouble::NoAnswer => None,
                    LookTrouble::Foreign => Some(Guard::ForeignZnode { what }),
                    LookTrouble::Barred => Some(Guard::Barred { what }),
                };
                if unreadable.is_some() {
                    self.unreadable = unreadable;
                    self.picture = None;
                }
            }
            ZooKeeperEvent::Exposed { .. } => {} // for operators
            ZooKeeperEvent::Claimed { sent_at, epoch, answer } => {
                self.handle_claimed(now, sent_at, epoch, answer);
                if self.closing {
                    // Its claim was on its way when the process was told to end.
                    self.resign(fx);
                }
            }
            ZooKeeperEvent::HeartbeatAnswered { sent_at, epoch, answer } => {
                self.handle_heartbeat_answered(now, sent_at, epoch, answer);
            }
            ZooKeeperEvent::Resigned { .. } => {
                self.giving_back = false;
                self.picture = None;
                self.look.wanted = true;
            }
            ZooKeeperEvent::RegisterAnswered { epoch, answer, .. }
            | ZooKeeperEvent::SyncWritten { epoch, answer }
            | ZooKeeperEvent::HandedOver { epoch, answer } => {
                let refused = answer == Answer::Refused(Refusal::Epoch);
                if refused && self.mastership.as_ref().is_some_and(|m| m.epoch == epoch) {
                    self.lose(Reason::Deposed);
                }
            }
        }
    }

    fn handle_connect_failed(&mut self, now: Moment) {
        let failures = match self.session {
            Session::Opening { failures } | Session::Closed { failures, .. } => failures,
            Session::Open { .. } => 0,
        };
        let wait = (CONNECT_RETRY_MS.0 << failures.min(8)).min(CONNECT_RETRY_MS.1);
        let failures = failures.saturating_add(1);
        self.session = Session::Closed { retry_at: now + wait, failures };
    }

    fn handle_disconnected(&mut self) {
        if let Session::Open { connected, .. } = &mut self.session {
            *connected = false;
        }
        self.look = Look::default();
        self.giving_back = false;
        self.holder_seen = None;
        self.vacancy = None;
        if !self.settings.planted.has(Bug::WatchLostAtReconnect) {
            self.picture = None;
        }
    }

    fn handle_picture(&mut self, now: Moment, picture: Picture) {
        self.look.under_way = false;
        self.look.retry_at = None;
        self.unreadable = None;
        self.cluster = Some(picture.cluster);
        self.seen = self.seen.max(picture.epoch.epoch);
        self.current = picture.epoch.epoch;
        self.settle_risk(&picture);
        self.named = picture.sync.as_ref().map(|_| self.is_named(&picture));
        let by_peer = picture.epoch.node.as_ref() != Some(&self.me.incarnation.node);
        if by_peer && picture.epoch.epoch > self.left {
            self.hold_off_until = None; // the peer had its turn
        }
        if let Some(m) = &self.mastership {
            let lease = self.lease_ms();
            if picture.epoch.version > m.epoch_version {
                self.lose(Reason::Deposed);
            } else if picture.epoch.version == m.epoch_version
                && !picture.master.as_ref().is_some_and(|z| self.is_mine(z))
            {
                // Our claim's transaction is in this picture, and the znode it made is not.
                self.lose(Reason::ZnodeGone);
            } else if self.settings.planted.has(Bug::LeaseOnReads)
                && let Some(m) = &mut self.mastership
            {
                m.lease_until = m.lease_until.map(|until| until.max(now + lease));
            }
            // An older picture comes from a server that lags behind: it says nothing.
        }
        self.note_holder(now, &picture);
        self.picture = Some(picture);
    }

    fn note_holder(&mut self, now: Moment, picture: &Picture) {
        let Some(m) = &picture.master else {
            let epoch = picture.epoch.epoch;
            // Seen without a break until it went: then its last sign of life is known.
            let unbroken = |seen: &HolderSeen| seen.epoch == epoch && !seen.changed;
            let seen_at = self.holder_seen.take().filter(unbroken).map(|seen| seen.at);
            if self.vacancy.is_none_or(|v| v.epoch != epoch) {
                self.still_since = now;
                self.wants_answer = true;
                let quiet_since = seen_at.unwrap_or(now);
                self.vacancy =
                    Some(Vacancy { epoch, since: now, quiet_since, lease_over_at: None });
            }
            return;
        };
        self.vacancy = None;
        self.claimant = Some((m.epoch, m.life));
        match &mut self.holder_seen {
            Some(seen) if seen.created == m.created && seen.version == m.version => {
                seen.changed = false;
            }
            Some(_) | None => {
                self.still_since = now;
                let (epoch, created, version) = (m.epoch, m.created, m.version);
                self.holder_seen =
                    Some(HolderSeen { epoch, created, version, at: now, changed: false });
            }
        }
    }

    fn handle_claimed(&mut self, now: Moment, sent_at: Moment, epoch: Epoch, answer: Answer) {
        let Some(claim) = self.claim.take() else { return };
        self.picture = None;
        self.look.wanted = true;
        match answer {
            Answer::Done { epoch_version } => {
                self.claims_refused = 0;
                self.seen = self.seen.max(epoch);
                self.vacancy = None;
                let lease_until = Some(sent_at + self.lease_ms()).filter(|until| *until > now);
                let next_heartbeat =
                    if lease_until.is_some() { sent_at + self.heartbeat_ms() } else { now };
                self.note_risk(epoch);
                self.mastership = Some(Mastership {
                    epoch,
                    epoch_version,
                    sync_version: claim.sync_version,
                    reason: claim.reason,
                    lease_until,
                    last_sent: lease_until.map(|_| sent_at),
                    next_heartbeat,
                    timing: Timing {
                        confirming_ms: claim.confirming_ms,
                        fencing_ms: now.ms_since(claim.sent_at),
                    },
                });
            }
            Answer::Refused(_) => {
                self.claims_refused = self.claims_refused.saturating_add(1);
                let more = self.claims_refused.saturating_sub(REFUSALS_AT_ONCE).min(20);
                self.claim_not_before = Some(now + u64::from(more) * REFUSED_WAIT_MS);
            }
            // Done, not done or still to be done: the next look tells.
            Answer::Ambiguous => {
                if self.settings.planted.has(Bug::AmbiguousTakenForFailure) {
                    self.leave(epoch);
                }
            }
        }
    }

    fn handle_heartbeat_answered(
        &mut self,
        now: Moment,
        sent_at: Moment,
        epoch: Epoch,
        answer: Answer,
    ) {
        let lease = self.lease_ms();
        let Some(m) = self.mastership.as_mut().filter(|m| m.epoch == epoch) else { return };
        match answer {
            Answer::Done { .. } => {
                let from =
                    if self.settings.planted.has(Bug::LeaseFromAnswer) { now } else { sent_at };
                m.lease_until = m.lease_until.max(Some(from + lease));
            }
            Answer::Refused(Refusal::Epoch) => self.lose(Reason::Deposed),
            Answer::Refused(Refusal::Master) => self.lose(Reason::ZnodeGone),
            // A heartbeat is not bound to these.
            Answer::Refused(Refusal::Sync | Refusal::Handover) | Answer::Ambiguous => {}
        }
    }

    // --- small steps

    /// A claim without all changes, whose answer never came, may be found done long after.
    fn settle_risk(&mut self, picture: &Picture) {
        let Some((claimed, _)) = &self.risk else { return };
        let (claimed, newest) = (*claimed, picture.epoch.epoch);
        let by_us = picture.epoch.node.as_ref() == Some(&self.me.incarnation.node);
        if newest > claimed || (newest == claimed && by_us) {
            self.note_risk(claimed);
        } else if newest == claimed {
            self.risk = None; // somebody else's
        }
    }

    /// A mastership begins: was it claimed without all changes?
    fn note_risk(&mut self, epoch: Epoch) {
        if let Some((_, text)) = self.risk.take_if(|(of, _)| *of == epoch) {
            self.divergence = Some(text);
        }
    }

    fn lose(&mut self, reason: Reason) {
        if let Some(m) = self.mastership.take() {
            self.leave(m.epoch);
            self.lost = Some(reason);
            self.picture = None;
            self.look.wanted = true;
        }
    }

    fn leave(&mut self, epoch: Epoch) {
        self.left = self.left.max(epoch);
    }

    fn give_back(
        &mut self,
        epoch: Epoch,
        epoch_version: i32,
        master_version: Option<i32>,
        fx: &mut Vec<Effect>,
    ) {
        self.giving_back = true;
        self.order(ZooKeeperRequest::Resign { epoch, epoch_version, master_version }, fx);
        self.order(ZooKeeperRequest::Unregister { epoch }, fx);
    }

    fn open_session(&mut self, failures: u32, fx: &mut Vec<Effect>) {
        self.generation += 1;
        self.session = Session::Opening { failures };
        self.look = Look::default();
        self.picture = None;
        self.holder_seen = None;
        self.vacancy = None;
        // What was under way on the old session is lost from sight; looking tells.
        self.claim = None;
        self.giving_back = false;
        self.order(ZooKeeperRequest::OpenSession, fx);
    }

    fn connected(&self) -> bool {
        matches!(self.session, Session::Open { connected: true, .. })
    }

    fn is_mine(&self, master: &MasterZnode) -> bool {
        if self.settings.planted.has(Bug::OwnerNotCompared) {
            return master.node == self.me.incarnation.node;
        }
        match self.session {
            Session::Open { id, .. } => master.owner == id,
            Session::Closed { .. } | Session::Opening { .. } => false,
        }
    }

    fn timeout_ms(&self) -> u64 {
        self.session_timeout_ms().unwrap_or(4_000)
    }

    fn heartbeat_ms(&self) -> u64 {
        (self.timeout_ms() / 6).max(1)
    }

    fn lease_ms(&self) -> u64 {
        self.timeout_ms() * 2 / 3
    }

    /// How long after the last sign of a holder its lease is over: 0.7 T.
    fn silence_ms(&self) -> u64 {
        self.timeout_ms() * 7 / 10
    }

    fn holder_silence_ms(&self) -> u64 {
        let theirs = self
            .picture
            .as_ref()
            .and_then(|p| p.master.as_ref())
            .map_or(0, |m| m.session_timeout_ms);
        self.timeout_ms().max(theirs) * 7 / 10
    }
}
