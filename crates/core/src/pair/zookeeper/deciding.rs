//! What one picture leads to: every step that is due, and what stands in the way.
//!
//! Nothing here waits for an event. It looks at the picture, at what the peer said and at the time,
//! and either orders one thing or names the guard.

use super::{
    Claim, LEASE_MARGIN_MS, Mastership, Session, TURN_MS, Timing, Vacancy, ZooKeeperElection,
};
use crate::pair::detector::Detector;
use crate::pair::effect::{Effect, HandoverBound, Replace, SyncBound, ZooKeeperRequest};
use crate::pair::fact::{MasterZnode, Picture};
use crate::pair::guard::Guard;
use crate::pair::holdings::Holdings;
use crate::pair::identity::{Contact, Epoch, NodeId, Role};
use crate::pair::moment::Moment;
use crate::pair::planted::Bug;
use crate::pair::reason::Reason;

/// A peer that says more is not believed: epochs are counted, and must have room to grow.
const EPOCH_BELIEVED_MAX: Epoch = Epoch(1 << 62);

/// A claim about to be made.
struct Race {
    /// Since when there was reason to.
    since: Moment,
    reason: Reason,
    /// What it may lose.
    risk: Option<String>,
    /// The new epoch is larger than this one.
    beyond: Epoch,
}

impl ZooKeeperElection {
    /// Takes every step that is due. Called after each fact and each time-out.
    pub(crate) fn advance(
        &mut self,
        now: Moment,
        peer: &Detector,
        held: &Holdings,
        fx: &mut Vec<Effect>,
    ) {
        self.heeded = Some(now);
        if let Session::Closed { retry_at, failures } = self.session
            && now >= retry_at
        {
            self.open_session(failures, fx);
        }
        if self.hold_off_until.is_some_and(|until| now >= until) {
            self.hold_off_until = None;
        }
        if !self.connected() {
            self.guard = Some(Guard::NoCoordinator);
            return;
        }
        self.advance_look(now, fx);
        self.advance_heartbeat(now, fx);
        if self.mastership.is_some() || self.claim.is_some() || self.giving_back {
            self.guard = None;
            return;
        }
        let Some(picture) = self.picture.clone() else {
            self.guard = self.unreadable.clone();
            return;
        };
        self.guard = self.decide(now, &picture, peer, held, fx).err();
    }

    pub(super) fn advance_look(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if self.look.retry_at.is_some_and(|at| now >= at) {
            self.look.retry_at = None;
            self.look.wanted = true;
        }
        if self.look.wanted && !self.look.under_way {
            self.look.wanted = false;
            self.look.under_way = true;
            self.order(ZooKeeperRequest::Look, fx);
        }
    }

    fn advance_heartbeat(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let interval = self.heartbeat_ms();
        let Some(m) = &mut self.mastership else { return };
        if now < m.next_heartbeat {
            return;
        }
        m.next_heartbeat = now + interval;
        m.last_sent = Some(now);
        let what = ZooKeeperRequest::Heartbeat { epoch: m.epoch, epoch_version: m.epoch_version };
        self.order(what, fx);
    }

    /// One picture, one decision. `Err` says what stands in the way.
    fn decide(
        &mut self,
        now: Moment,
        picture: &Picture,
        peer: &Detector,
        held: &Holdings,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Guard> {
        if let Some(master) = &picture.master
            && self.is_mine(master)
        {
            self.decide_own(now, picture, master, held, fx);
            return Ok(());
        }
        self.check_guards(now, picture, peer, held)?;
        let (since, reason) = match &picture.master {
            Some(m) if m.instance == self.me.incarnation.instance => (now, Reason::OwnPreviousLife),
            Some(m) => match self.takeover_reason(now, m, peer) {
                Some(reason) => (peer.trouble_since().unwrap_or(now), reason),
                None => return Ok(()),
            },
            None => {
                let reason = self.confirm_vacancy(now, picture, peer)?;
                (self.vacancy.map_or(now, |v| v.since), reason)
            }
        };
        let risk = self.forecast_loss(picture, peer, held);
        // What the peer remembers may be beyond the coordinator's data, if that was lost.
        let said = peer.heard().map_or(Epoch(0), |heard| heard.statement.epoch);
        let said = if said < EPOCH_BELIEVED_MAX { said } else { Epoch(0) };
        self.race(now, picture, Race { since, reason, risk, beyond: said }, fx);
        Ok(())
    }

    /// The znode lives with our session: either a claim that succeeded unheard, or what we left.
    fn decide_own(
        &mut self,
        now: Moment,
        picture: &Picture,
        master: &MasterZnode,
        held: &Holdings,
        fx: &mut Vec<Effect>,
    ) {
        let may_enter = master.epoch > self.left || self.settings.planted.has(Bug::EpochReentered);
        // Made together with the znode; else somebody deleted it by hand.
        let sync = picture.sync.as_ref().filter(|sync| sync.epoch == master.epoch);
        if may_enter && !self.closing && self.settings.act && !held.failed() {
            self.note_risk(master.epoch);
            self.mastership = Some(Mastership {
                epoch: master.epoch,
                epoch_version: picture.epoch.version,
                sync_version: sync.map_or(0, |sync| sync.version),
                reason: Reason::ClaimFoundDone,
                lease_until: None, // this was a read: only a heartbeat starts the lease
                last_sent: None,
                next_heartbeat: now,
                timing: Timing::default(),
            });
            self.advance_heartbeat(now, fx);
        } else if !self.settings.planted.has(Bug::AmbiguousTakenForFailure) {
            self.leave(master.epoch);
            self.give_back(master.epoch, picture.epoch.version, Some(master.version), fx);
        }
    }

    fn check_guards(
        &self,
        now: Moment,
        picture: &Picture,
        peer: &Detector,
        held: &Holdings,
    ) -> Result<(), Guard> {
        if self.closing {
            return Err(Guard::Closing);
        }
        if !self.settings.act {
            return Err(Guard::Shadow);
        }
        if let Some(instance) = picture.twin {
            return Err(Guard::Twin { instance });
        }
        if let Some(m) = &picture.master
            && m.node == self.me.incarnation.node
            && m.instance != self.me.incarnation.instance
        {
            return Err(Guard::Twin { instance: m.instance });
        }
        // A dead process is no obstacle, whatever it had configured.
        if peer.gone().is_none()
            && let Some(heard) = peer.heard()
            && let Some(mismatch) =
                Guard::mismatch(&self.me, Some(picture.cluster), &heard.statement)
        {
            return Err(mismatch);
        }
        self.check_data(picture, peer, held)?;
        if let Some(at) = self.claim_not_before.filter(|at| now < *at) {
            return Err(Guard::ClaimsRefused { until: at });
        }
        let held_by_peer =
            picture.master.as_ref().is_some_and(|m| m.instance != self.me.incarnation.instance);
        match self.hold_off_until {
            Some(until) if !held_by_peer && self.peer_may_take(now, picture, peer) => {
                Err(Guard::HoldOff { until })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The peer is up, in contact, and has not had its turn yet.
    fn peer_may_take(&self, now: Moment, picture: &Picture, peer: &Detector) -> bool {
        let turn_over = self.vacancy.is_some_and(|v| now >= v.since + TURN_MS);
        peer.reachable()
            && !turn_over
            && peer.heard().is_some_and(|heard| {
                heard.statement.contact == Contact::Connected
                    && heard.statement.cluster == Some(picture.cluster)
            })
    }

    /// May the znode of a living session be replaced?
    fn takeover_reason(
        &self,
        now: Moment,
        holder: &MasterZnode,
        peer: &Detector,
    ) -> Option<Reason> {
        if !self.settings.fast_takeover {
            return None;
        }
        let name = || holder.node.clone();
        if peer.gone().is_some_and(|dead| dead.life == holder.life) {
            return Some(Reason::PeerDead { peer: name() });
        }
        let said = peer.heard().map(|h| &h.statement).filter(|s| s.identity.life == holder.life);
        if said.is_some_and(|s| s.left >= holder.epoch) {
            return Some(Reason::PeerLeft { peer: name() });
        }
        // Safe without waiting for expiry: the holder's lease is 2T/3 from an earlier moment.
        let lease_over =
            self.holder_seen.is_some_and(|seen| now >= seen.at + self.holder_silence_ms());
        (peer.silent() && lease_over).then(|| Reason::PeerSilent { peer: name() })
    }

    /// Nobody holds the znode: may we?
    fn confirm_vacancy(
        &mut self,
        now: Moment,
        picture: &Picture,
        peer: &Detector,
    ) -> Result<Reason, Guard> {
        let crumb = &picture.epoch;
        let mine = crumb.node.as_ref() == Some(&self.me.incarnation.node);
        if crumb.clean || crumb.epoch == Epoch(0) || mine {
            return Ok(Reason::FirstClaim);
        }
        let holder = crumb.node.clone().unwrap_or_else(|| NodeId::new("?"));
        // The dead life must be the one that claimed: the next one may be master by now.
        if peer.gone().is_some_and(|dead| self.claimant == Some((crumb.epoch, dead.life))) {
            return Ok(Reason::PeerDead { peer: holder });
        }
        if self.settings.planted.has(Bug::PingAsVeto)
            && peer.heard().is_some_and(|h| h.statement.role == Role::Master)
        {
            return Err(Guard::Confirming { holder, until: now + self.silence_ms() });
        }
        let silence = self.silence_ms();
        let new = Vacancy { epoch: crumb.epoch, since: now, quiet_since: now, lease_over_at: None };
        let vacancy = self.vacancy.get_or_insert(new);
        // Nothing is acknowledged to a holder without a znode: by then its lease is over for sure,
        // so that no answer, and no missing one, can hold this up for longer.
        let mut until = vacancy.since + silence;
        if let Some(heard) = peer.answer_since(vacancy.since) {
            if heard.statement.lease_ms == 0 || heard.statement.left >= crumb.epoch {
                return Ok(Reason::HolderGone);
            }
            let lease_ms = heard.statement.lease_ms;
            let over = heard.at + lease_ms + lease_ms / 40 + LEASE_MARGIN_MS;
            until = until.min(*vacancy.lease_over_at.get_or_insert(over));
        } else if peer.silent() {
            until = until.min(vacancy.quiet_since + silence);
        }
        if now >= until {
            return Ok(Reason::HolderGone);
        }
        Err(Guard::Confirming { holder, until })
    }

    fn race(&mut self, now: Moment, picture: &Picture, race: Race, fx: &mut Vec<Effect>) {
        let Race { since, reason, risk, beyond } = race;
        let epoch = self.seen.max(picture.epoch.epoch).max(self.left).max(beyond).next();
        let planted = self.settings.planted;
        let replace = picture.master.as_ref().map(|m| Replace {
            version: (!planted.has(Bug::DeleteWithoutVersion)).then_some(m.version),
        });
        let epoch_version = (!planted.has(Bug::LateQueuedClaim)).then_some(picture.epoch.version);
        let sync = match &picture.sync {
            _ if planted.has(Bug::SyncNotChecked) || planted.has(Bug::LateQueuedClaim) => {
                SyncBound::Unchecked
            }
            Some(sync) => SyncBound::Version(sync.version),
            None => SyncBound::Missing,
        };
        // Each write makes it one larger.
        let sync_version = picture.sync.as_ref().map_or(0, |sync| sync.version.wrapping_add(1));
        // Handed over to the peer: from now on it is not, and a claim of the peer's that was meant
        // for it is refused.
        let handover = &picture.handover;
        let for_peer = handover.to.as_ref().is_some_and(|to| *to != self.me.incarnation.node);
        let revoke = for_peer && handover.epoch == picture.epoch.epoch;
        let handover = HandoverBound { version: handover.version, revoke };
        let confirming_ms = now.ms_since(since);
        self.claim = Some(Claim { reason, sync_version, sent_at: now, confirming_ms });
        // One of before may still be found done; two at a time are not told apart.
        if let Some(text) = risk {
            self.risk = Some((epoch, text));
        }
        self.order(ZooKeeperRequest::Claim { epoch, epoch_version, replace, sync, handover }, fx);
    }
}
