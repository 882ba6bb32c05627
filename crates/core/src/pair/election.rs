//! The election, whichever kind of coordinator it asks.

use std::sync::Arc;

use super::detector::Detector;
use super::effect::{Effect, ZooKeeperRequest};
use super::fact::ZooKeeperFact;
use super::guard::Guard;
use super::holdings::Holdings;
use super::identity::{ClusterId, Contact, Epoch, Identity};
use super::moment::Moment;
use super::reason::Reason;
use super::settings::{CoordinatorKind, Settings};
use super::standalone::StandaloneElection;
use super::standing::Standing;
use super::sync::Fence;
use super::zookeeper::ZooKeeperElection;

/// One of them.
#[derive(Debug)]
pub(crate) enum Election {
    ZooKeeper(Box<ZooKeeperElection>),
    Standalone(StandaloneElection),
}

use Election::{Standalone, ZooKeeper};

impl Election {
    pub(crate) fn new(now: Moment, settings: Arc<Settings>, me: Arc<Identity>) -> Self {
        match settings.coordinator {
            CoordinatorKind::ZooKeeper => {
                ZooKeeper(Box::new(ZooKeeperElection::new(now, settings, me)))
            }
            CoordinatorKind::Standalone => Standalone(StandaloneElection::new(settings)),
        }
    }

    // --- looks

    pub(crate) fn zookeeper(&self) -> Option<&ZooKeeperElection> {
        match self {
            ZooKeeper(election) => Some(election),
            Standalone(_) => None,
        }
    }

    pub(crate) fn zookeeper_mut(&mut self) -> Option<&mut ZooKeeperElection> {
        match self {
            ZooKeeper(election) => Some(election),
            Standalone(_) => None,
        }
    }

    pub(crate) fn standing(&self, now: Moment) -> Standing {
        match self {
            ZooKeeper(election) => election.standing(now),
            Standalone(election) => election.standing(),
        }
    }

    pub(crate) fn contact(&self) -> Contact {
        match self {
            ZooKeeper(election) => election.contact(),
            Standalone(_) => Contact::Connected,
        }
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.zookeeper().and_then(ZooKeeperElection::cluster)
    }

    pub(crate) fn seen(&self) -> Epoch {
        match self {
            ZooKeeper(election) => election.seen(),
            Standalone(election) => election.seen(),
        }
    }

    pub(crate) fn left(&self) -> Epoch {
        match self {
            ZooKeeper(election) => election.left(),
            Standalone(election) => election.left(),
        }
    }

    pub(crate) fn guard(&self) -> Option<&Guard> {
        match self {
            ZooKeeper(election) => election.guard(),
            Standalone(election) => election.guard(),
        }
    }

    pub(crate) fn session_timeout_ms(&self) -> Option<u64> {
        self.zookeeper().and_then(ZooKeeperElection::session_timeout_ms)
    }

    pub(crate) fn lease_ms_possible(&self, now: Moment) -> u64 {
        match self {
            ZooKeeper(election) => election.lease_ms_possible(now),
            Standalone(election) => election.lease_ms_possible(now),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        match self {
            ZooKeeper(election) => election.deadline(),
            Standalone(election) => election.deadline(),
        }
    }

    pub(crate) fn at_rest(&self) -> bool {
        match self {
            ZooKeeper(election) => election.at_rest(),
            Standalone(election) => !election.elected(),
        }
    }

    pub(crate) fn fence(&self) -> Option<Fence> {
        self.zookeeper().and_then(ZooKeeperElection::fence)
    }

    // --- commands

    pub(crate) fn take_answer_wish(&mut self) -> bool {
        self.zookeeper_mut().is_some_and(ZooKeeperElection::take_answer_wish)
    }

    pub(crate) fn take_lost(&mut self) -> Option<Reason> {
        self.zookeeper_mut().and_then(ZooKeeperElection::take_lost)
    }

    pub(crate) fn take_divergence(&mut self) -> Option<String> {
        self.zookeeper_mut().and_then(ZooKeeperElection::take_divergence)
    }

    pub(crate) fn note_seen(&mut self, epoch: Epoch) {
        match self {
            ZooKeeper(election) => election.note_seen(epoch),
            Standalone(election) => election.note_seen(epoch),
        }
    }

    /// This node stood still: what may go on after it is to be granted anew.
    pub(crate) fn note_stall(&mut self, now: Moment) {
        match self {
            ZooKeeper(_) => {} // its next heartbeat does
            Standalone(election) => election.extend(now),
        }
    }

    pub(crate) fn expire(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if let Some(election) = self.zookeeper_mut() {
            election.expire(now, fx);
        }
    }

    pub(crate) fn resign(&mut self, fx: &mut Vec<Effect>) {
        match self {
            ZooKeeper(election) => election.resign(fx),
            Standalone(election) => election.resign(),
        }
    }

    pub(crate) fn depose(&mut self, reason: Reason, fx: &mut Vec<Effect>) {
        if let Some(election) = self.zookeeper_mut() {
            election.depose(reason, fx);
        }
    }

    pub(crate) fn hold_off(&mut self, until: Moment) {
        match self {
            ZooKeeper(election) => election.hold_off(until),
            Standalone(election) => election.hold_off(until),
        }
    }

    pub(crate) fn close(&mut self) {
        match self {
            ZooKeeper(election) => election.close(),
            Standalone(election) => election.close(),
        }
    }

    pub(crate) fn order(&self, what: ZooKeeperRequest, fx: &mut Vec<Effect>) {
        if let Some(election) = self.zookeeper() {
            election.order(what, fx);
        }
    }

    pub(crate) fn handle(&mut self, now: Moment, fact: ZooKeeperFact, fx: &mut Vec<Effect>) {
        if let Some(election) = self.zookeeper_mut() {
            election.handle(now, fact, fx);
        }
    }

    pub(crate) fn advance(
        &mut self,
        now: Moment,
        peer: &Detector,
        held: &Holdings,
        fx: &mut Vec<Effect>,
    ) {
        match self {
            ZooKeeper(election) => election.advance(now, peer, held, fx),
            Standalone(election) => election.advance(now, held),
        }
    }
}
