//! May this node's data serve? What the `sync` record, the tables and the peer say to that.
//!
//! ```text
//!   the record names us ──────────────────────────────────────────────▶ yes
//!   it names the peer as it is now ───────────────────────────────────▶ no: it has everything
//!   nobody as they are now, or no record ──▶ compare positions with the peer: the higher goes
//!   no record, no epoch, nothing here ──────▶ yes, unless the peer has something
//! ```
//!
//! A member is named by its boot, because what was written and not yet on disk does not survive the
//! end of one. Nothing here is timed for the fast way: a node in sync passes by the first line.
//!
//! Positions are compared only while nobody writes: both nodes stand by, and have done so for long
//! enough that what was still on its way has been told. The claim is bound to the versions of `epoch`
//! and `sync`, so that no mastership can come in between.

use super::ZooKeeperElection;
use crate::pair::detector::Detector;
use crate::pair::fact::{Picture, SyncZnode};
use crate::pair::guard::Guard;
use crate::pair::holdings::Holdings;
use crate::pair::identity::{Contact, Epoch, NodeId, Role, Statement};
use crate::pair::planted::Bug;
use crate::tables::position::Position;

/// Positions are said at most so late.
const SETTLE_MS: u64 = 300;

impl ZooKeeperElection {
    /// See the file's header.
    pub(super) fn check_data(
        &self,
        picture: &Picture,
        peer: &Detector,
        held: &Holdings,
    ) -> Result<(), Guard> {
        if !self.settings.tables {
            // What would be given back at once is not claimed.
            return held.sound();
        }
        held.usable()?;
        if self.settings.planted.has(Bug::SyncNotChecked) || self.is_named(picture) {
            return Ok(());
        }
        let Some(ours) = held.position() else { return Err(Guard::TablesOpening) };
        if let Some(known) = held.cluster()
            && known != picture.cluster
            && ours != Position::default()
        {
            return Err(Guard::UnknownCluster { ours: known, theirs: picture.cluster });
        }
        if self.waived {
            return Ok(());
        }
        if self.settings.ack_local {
            return self.leave_to_one_ahead(ours, peer);
        }
        match &picture.sync {
            Some(sync) => self.check_members(sync, ours, peer),
            None if picture.epoch.epoch == Epoch(0) && ours == Position::default() => {
                first_start(peer)
            }
            None => self.compare(ours, peer),
        }
    }

    /// The record read last names this node, on this boot.
    pub(super) fn is_named(&self, picture: &Picture) -> bool {
        picture.sync.as_ref().is_some_and(|sync| sync.members.contains(&self.me.incarnation))
    }

    /// The record does not name this node as it is.
    fn check_members(
        &self,
        sync: &SyncZnode,
        ours: Position,
        peer: &Detector,
    ) -> Result<(), Guard> {
        let me = &self.me.incarnation;
        let others = || sync.members.iter().filter(|member| member.node != me.node);
        let not_in_sync = |who: Vec<NodeId>| Err(Guard::NotInSync { who });
        if others().next().is_some() {
            let heard = peer.heard().map(|heard| &heard.statement.identity.incarnation);
            let rebooted =
                peer.reachable() && heard.is_some_and(|now| !others().any(|member| member == now));
            if !rebooted {
                return not_in_sync(others().map(|member| member.node.clone()).collect());
            }
        }
        // An empty directory that the record knows nothing of: whatever there was, was elsewhere.
        let known_here = sync.members.iter().any(|member| member.instance == me.instance);
        if ours == Position::default() && !known_here {
            return not_in_sync(sync.members.iter().map(|member| member.node.clone()).collect());
        }
        self.compare(ours, peer)
    }

    fn compare(&self, ours: Position, peer: &Detector) -> Result<(), Guard> {
        let not_compared = |missing: &str| Err(Guard::NotCompared { missing: missing.to_owned() });
        if !peer.reachable() {
            return not_compared("the peer does not answer");
        }
        let Some(heard) = peer.answer_since(self.still_since + SETTLE_MS) else {
            return not_compared("the peer has not said yet what it has");
        };
        let said = &heard.statement;
        if said.role != Role::Standby {
            return not_compared("the peer is not standing by");
        }
        match said.position {
            // Whether it is whole is not known either.
            None => not_compared("the peer's tables are not open yet"),
            // Half a snapshot is never promotable.
            Some(theirs) if said.complete && theirs > ours => Err(ahead(said, ours, theirs)),
            Some(_) => Ok(()),
        }
    }

    /// With `ack = "local"` anybody may promote; but a peer that has more and can do so goes first.
    fn leave_to_one_ahead(&self, ours: Position, peer: &Detector) -> Result<(), Guard> {
        let said = peer.heard().map(|heard| &heard.statement).filter(|_| peer.reachable());
        match said {
            Some(Statement {
                role: Role::Standby,
                contact: Contact::Connected,
                complete: true,
                position: Some(theirs),
                ..
            }) if *theirs > ours => Err(ahead(said.expect("matched above"), ours, *theirs)),
            Some(_) | None => Ok(()),
        }
    }

    /// What may be lost by a claim made now; none when that is nothing.
    pub(super) fn forecast_loss(
        &self,
        picture: &Picture,
        peer: &Detector,
        held: &Holdings,
    ) -> Option<String> {
        if !self.settings.tables || self.is_named(picture) {
            return None;
        }
        let ours = held.position()?;
        let theirs = peer.heard().and_then(|heard| heard.statement.position);
        match theirs {
            Some(theirs) if theirs > ours => {
                let lost = theirs.number.saturating_sub(ours.number).max(1);
                Some(format!(
                    "this node became master without all changes: up to {lost} acknowledged changes \
                     may be lost (the peer had up to {theirs}, this node up to {ours})"
                ))
            }
            None if self.waived => Some(format!(
                "this node was ordered to become master with what it has (up to {ours}): what the \
                 peer had beyond that is not known, and may be lost"
            )),
            Some(_) | None => None,
        }
    }
}

/// No epoch yet, no record, and nothing here: the first winner makes the record.
fn first_start(peer: &Detector) -> Result<(), Guard> {
    let not_compared = |missing: &str| Err(Guard::NotCompared { missing: missing.to_owned() });
    if !peer.reachable() {
        // Once asked in vain: the first node of a pair does not wait for the second.
        return if peer.tried() { Ok(()) } else { not_compared("the peer was not asked yet") };
    }
    let Some(said) = peer.heard().map(|heard| &heard.statement) else {
        return not_compared("the peer has not said yet what it has");
    };
    match said.position {
        None => not_compared("the peer's tables are not open yet"),
        Some(theirs) if said.complete && theirs > Position::default() => {
            Err(ahead(said, Position::default(), theirs))
        }
        Some(_) => Ok(()),
    }
}

fn ahead(said: &Statement, ours: Position, theirs: Position) -> Guard {
    Guard::PeerHasMore { peer: said.identity.incarnation.node.clone(), ours, theirs }
}
