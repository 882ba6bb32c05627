//! The master's keeping of the `sync` record: who holds every acknowledged change.
//!
//! ```text
//!             PeerCaughtUp                    done
//!   alone ──────────────────▶ write [me, peer] ────▶ together
//!     ▲  done                                           │ PeerLost
//!     └──────── write [me] ◀────────────────────────────┘
//!       then, and only then: AcknowledgeAlone
//! ```
//!
//! The record may name too few, never too many: nothing is acknowledged without a node that it names.
//! The tables stop by themselves when the peer is lost, and go on alone only by
//! [`Effect::AcknowledgeAlone`], which needs proof that the record names nobody else and will go on
//! doing so. A definite answer to a write is such a proof. A read is one only if the record's version
//! is beyond all that writes without a definite answer are bound to: those may still be executed.
//!
//! Like the election this is level-triggered: after anything indefinite one looks again and decides
//! from the picture.

use std::sync::Arc;

use super::detector::Detector;
use super::effect::{Effect, ZooKeeperRequest};
use super::fact::{Answer, Picture};
use super::identity::{Epoch, Identity, Incarnation};
use super::moment::Moment;
use super::planted::Bug;
use super::settings::Settings;

/// The wait after each write in a row that came to nothing, up to the last.
const RETRY_MS: (u64, u64) = (20, 200);

/// What binds this node's writes while it is master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) epoch: Epoch,
    pub(crate) epoch_version: i32,
    /// The sync znode's version right after the claim.
    pub(crate) sync_version: i32,
}

/// The machine. See the file's header.
#[derive(Debug)]
pub(crate) struct SyncKeeper {
    settings: Arc<Settings>,
    me: Arc<Identity>,
    keeping: Option<Keeping>,
}

/// One mastership's record.
#[derive(Debug)]
struct Keeping {
    fence: Fence,
    /// What the record says; none: to be looked at.
    record: Option<Record>,
    /// The largest version that was ever seen: older pictures say nothing.
    newest: i32,
    /// Writes without a definite answer are bound to versions up to this one.
    unsettled: Option<i32>,
    under_way: Option<Record>,
    failures: u32,
    not_before: Option<Moment>,
    /// The peer that holds everything, by the tables' word, and since when.
    caught_up: Option<(Incarnation, Moment)>,
    /// The loss that the tables wait for a permission for.
    loss: Option<u64>,
}

/// The record besides ourselves; under way: the version that the write is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    version: i32,
    peer: Option<Incarnation>,
}

impl SyncKeeper {
    pub(crate) fn new(settings: Arc<Settings>, me: Arc<Identity>) -> Self {
        Self { settings, me, keeping: None }
    }

    // --- looks

    /// The record names the peer and is to go on doing so; none when this node is not master.
    pub(crate) fn in_sync(&self) -> Option<bool> {
        let keeping = self.keeping.as_ref()?;
        let named = keeping.record.as_ref().and_then(|record| record.peer.as_ref());
        let wanted = keeping.caught_up.as_ref().map(|(peer, _)| peer);
        Some(named.is_some() && named == wanted)
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.keeping.as_ref().and_then(|keeping| keeping.not_before)
    }

    /// A picture is needed to go on.
    pub(crate) fn wants_look(&self) -> bool {
        self.keeping.as_ref().is_some_and(|k| k.record.is_none() && k.not_before.is_none())
    }

    // --- facts

    /// The election's word: the mastership at hand. A new one begins with a record of us alone.
    pub(crate) fn follow(&mut self, fence: Option<Fence>) {
        let Some(fence) = fence else {
            self.keeping = None;
            return;
        };
        if self.keeping.as_ref().is_some_and(|k| k.fence.epoch == fence.epoch) {
            return;
        }
        self.keeping = Some(Keeping {
            fence,
            record: Some(Record { version: fence.sync_version, peer: None }),
            newest: fence.sync_version,
            unsettled: None,
            under_way: None,
            failures: 0,
            not_before: None,
            caught_up: None,
            loss: None,
        });
    }

    pub(crate) fn handle_caught_up(&mut self, now: Moment, epoch: Epoch, peer: Incarnation) {
        if let Some(keeping) = self.of(epoch) {
            keeping.caught_up = Some((peer, now));
            keeping.loss = None;
        }
    }

    pub(crate) fn handle_lost(&mut self, epoch: Epoch, loss: u64) {
        if let Some(keeping) = self.of(epoch) {
            keeping.caught_up = None;
            keeping.loss = Some(loss);
        }
    }

    pub(crate) fn handle_written(&mut self, now: Moment, epoch: Epoch, answer: Answer) {
        let Some(keeping) = self.of(epoch) else { return };
        let Some(write) = keeping.under_way.take() else { return };
        let bound_to = write.version;
        match answer {
            Answer::Done { .. } => {
                // Each write makes the version one larger; what else is under way is bound to less.
                let version = bound_to.wrapping_add(1);
                keeping.newest = version;
                keeping.unsettled = None;
                keeping.failures = 0;
                keeping.record = Some(Record { version, ..write });
            }
            Answer::Refused(_) => keeping.fail(now),
            Answer::Ambiguous => {
                keeping.unsettled = keeping.unsettled.max(Some(bound_to));
                keeping.fail(now);
            }
        }
    }

    pub(crate) fn handle_picture(&mut self, now: Moment, picture: &Picture) {
        let me = &self.me.incarnation;
        let Some(keeping) = &mut self.keeping else { return };
        let Some(sync) = &picture.sync else { return };
        let ours = sync.epoch == keeping.fence.epoch
            && picture.epoch.version == keeping.fence.epoch_version;
        // A picture taken while a write is under way may show what was before it, or after it.
        if keeping.under_way.is_some() {
            return;
        }
        if !ours || sync.version < keeping.newest {
            // From a server that lags behind, or not of this mastership.
            if keeping.record.is_none() {
                keeping.not_before = Some(now + RETRY_MS.1);
            }
            return;
        }
        keeping.newest = sync.version;
        let peer = sync.members.iter().find(|member| *member != me).cloned();
        keeping.record = Some(Record { version: sync.version, peer });
    }

    // --- steps

    /// Takes the step that is due.
    pub(crate) fn advance(
        &mut self,
        now: Moment,
        peer: &Detector,
        connected: bool,
        fx: &mut Vec<Effect>,
    ) -> Option<ZooKeeperRequest> {
        let late = self.settings.planted.has(Bug::SyncRecordLate);
        let me = &self.me.incarnation;
        let keeping = self.keeping.as_mut()?;
        if keeping.not_before.is_some_and(|at| now >= at) {
            keeping.not_before = None;
        }
        let epoch = keeping.fence.epoch;
        if late && let Some(loss) = keeping.loss.take() {
            fx.push(Effect::AcknowledgeAlone { epoch, loss });
        }
        let target = keeping.target(peer);
        let record = keeping.record.as_ref()?;
        let settled = keeping.unsettled.is_none_or(|bound| record.version > bound);
        if keeping.under_way.is_some() {
            return None;
        }
        if settled && record.peer == target {
            keeping.unsettled = None;
            if target.is_none()
                && let Some(loss) = keeping.loss.take()
            {
                fx.push(Effect::AcknowledgeAlone { epoch, loss });
            }
            return None;
        }
        if !connected || keeping.not_before.is_some() {
            return None;
        }
        let sync_version = record.version;
        keeping.under_way = Some(Record { version: sync_version, peer: target.clone() });
        let members = std::iter::once(me.clone()).chain(target).collect();
        let epoch_version = keeping.fence.epoch_version;
        Some(ZooKeeperRequest::WriteSync { epoch, epoch_version, sync_version, members })
    }

    fn of(&mut self, epoch: Epoch) -> Option<&mut Keeping> {
        self.keeping.as_mut().filter(|keeping| keeping.fence.epoch == epoch)
    }
}

impl Keeping {
    /// Who should stand in the record besides us. A peer that has been heard under another boot or
    /// from another directory since is not the one that caught up.
    fn target(&self, peer: &Detector) -> Option<Incarnation> {
        let (caught_up, since) = self.caught_up.as_ref()?;
        let another = peer.heard().is_some_and(|heard| {
            let said = &heard.statement.identity.incarnation;
            heard.at >= *since && said.node == caught_up.node && said != caught_up
        });
        (!another).then(|| caught_up.clone())
    }

    fn fail(&mut self, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        let wait = u64::from(self.failures.min(10)) * RETRY_MS.0;
        self.not_before = Some(now + wait.min(RETRY_MS.1));
        self.record = None;
    }
}
