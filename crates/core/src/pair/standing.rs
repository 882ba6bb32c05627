//! What an election says: the one word that every kind of coordinator comes down to.

use super::identity::{Epoch, NodeId};
use super::moment::Moment;
use super::reason::Reason;
use super::zookeeper::Timing;

/// Who holds the mastership, seen from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This node, in this epoch, for as long as the lease lasts.
    Elected {
        /// The mastership.
        epoch: Epoch,
        /// The end of the lease.
        until: Moment,
        /// Why it was claimed.
        reason: Reason,
        /// How long the claim took.
        timing: Timing,
    },
    /// Somebody else, or nobody.
    Passed {
        /// Who, if anybody.
        holder: Option<Holder>,
    },
    /// The coordinator says nothing: not known.
    Silent,
}

/// Who holds the mastership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
}
