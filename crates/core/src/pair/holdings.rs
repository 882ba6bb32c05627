//! What this node's tables hold, as far as they said: the data side of the right to serve.
//!
//! The tables live on a thread of their own. What they say is a little old when it arrives, so that
//! a position is believed only while nobody writes: [`super::zookeeper`] compares it under that
//! condition.

use super::effect::Effect;
use super::fact::TablesFact;
use super::guard::Guard;
use super::identity::{ClusterId, Epoch};
use crate::tables::position::Position;

/// See the file's header.
#[derive(Debug, Default)]
pub struct Holdings {
    opened: bool,
    /// None: not read yet, or not known since this node left its mastership.
    position: Option<Position>,
    complete: bool,
    /// The cluster that the tables belong to.
    cluster: Option<ClusterId>,
    failed: Option<String>,
    /// What the disk was told to remember last.
    remembered: (Epoch, Option<ClusterId>),
}

impl Holdings {
    // --- looks

    /// How far the log goes, as far as it is known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The tables are whole.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// The tables were read from disk.
    #[must_use]
    pub fn opened(&self) -> bool {
        self.opened
    }

    /// The log cannot be made durable.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The cluster that the tables belong to, if they belong to one.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Would nothing be given up by following a master of this cluster? Tables of another one are
    /// replaced only when an operator says so.
    pub(crate) fn belongs_to(&self, cluster: Option<ClusterId>) -> bool {
        match (self.cluster, cluster) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                self.position == Some(Position::default())
            }
            (Some(_), Some(_)) | (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    /// Has the log failed? Never waived.
    pub(crate) fn sound(&self) -> Result<(), Guard> {
        match &self.failed {
            Some(what) => Err(Guard::LogFailed { what: what.clone() }),
            None => Ok(()),
        }
    }

    /// Could this node serve with what it has? Never waived.
    pub(crate) fn usable(&self) -> Result<(), Guard> {
        self.sound()?;
        if !self.opened {
            return Err(Guard::TablesOpening);
        }
        if self.complete { Ok(()) } else { Err(Guard::HalfLoaded) }
    }

    // --- facts

    /// What concerns the holdings; everything else is passed over.
    pub(crate) fn handle(&mut self, fact: &TablesFact) {
        match fact {
            TablesFact::Opened { position, complete, cluster, seen } => {
                self.opened = true;
                self.position = Some(*position);
                self.complete = *complete;
                self.cluster = *cluster;
                self.remembered = (*seen, *cluster);
            }
            TablesFact::Moved { position, complete } => {
                self.position = Some(*position);
                self.complete = *complete;
            }
            TablesFact::Failed { what } => self.failed = Some(what.clone()),
            TablesFact::Ready { .. }
            | TablesFact::PeerCaughtUp { .. }
            | TablesFact::PeerLost { .. }
            | TablesFact::BarrierHeld { .. }
            | TablesFact::DiskFull { .. }
            | TablesFact::DigestMismatch { .. }
            | TablesFact::Behind { .. }
            | TablesFact::Diverged { .. } => {}
        }
    }

    /// This node left mastership: the position is known again when the tables say it.
    pub(crate) fn stood_down(&mut self) {
        self.position = None;
    }

    // --- commands

    /// The tables belong to this cluster now.
    pub(crate) fn adopt(&mut self, cluster: ClusterId) {
        self.cluster = Some(cluster);
    }

    /// A cluster was read. Tables that belong to none yet, or hold nothing, or are known to hold what
    /// that cluster's do (`proven`), belong to it from now on.
    pub(crate) fn meet(&mut self, cluster: ClusterId, proven: bool) {
        let empty = self.position == Some(Position::default());
        if self.opened && (proven || empty || self.cluster.is_none()) {
            self.cluster = Some(cluster);
        }
    }

    /// Has the disk remember what is new.
    pub(crate) fn remember(&mut self, seen: Epoch, fx: &mut Vec<Effect>) {
        let new = (seen.max(self.remembered.0), self.cluster);
        if self.opened && new != self.remembered {
            self.remembered = new;
            fx.push(Effect::Remember { epoch: new.0, cluster: new.1 });
        }
    }
}
