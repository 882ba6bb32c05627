//! Every move has a reason, and the reason is a value: it becomes the log line, the journal's
//! entry, the console's text and the metric's label.

use std::fmt;

use super::identity::{Epoch, NodeId, Role};

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The role changed.
    RoleChanged { from: Role, to: Role, epoch: Epoch, reason: Reason },
    /// A promotion reached its next phase.
    PhaseReached { epoch: Epoch, phase: Phase, after_ms: u64 },
    /// The election's standing changed.
    StandingChanged { text: String },
    /// A guard keeps this node from racing, or no longer does.
    Guarded { guard: Option<String> },
    /// The peer appeared, went silent, or died.
    PeerChanged { text: String },
    /// The session with the coordinator changed.
    CoordinatorChanged { text: String },
    /// This node itself stood still.
    Stalled { for_ms: u64 },
    /// An operator's order was taken, refused or done.
    Ordered { text: String },
}

/// Why a role changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody held the mastership and the last one was given back in order, or there was none.
    FirstClaim,
    /// The holder's znode is gone and the peer confirmed that it does not act.
    HolderGone,
    /// The peer's process is dead: the link ended and three connections were refused.
    PeerDead { peer: NodeId },
    /// The peer is silent and its lease must be over.
    PeerSilent { peer: NodeId },
    /// The peer said that it left the epoch it still holds the znode of.
    PeerLeft { peer: NodeId },
    /// There is no second node.
    Alone,
    /// The log could not be made durable.
    LogFailed { what: String },
    /// Our own previous life held the znode.
    OwnPreviousLife,
    /// A claim without a definite answer turned out to have succeeded.
    ClaimFoundDone,
    /// The gate is open.
    GateOpen,
    /// The lease ended before a heartbeat was acknowledged.
    LeaseEnded,
    /// Somebody else claimed a newer epoch.
    Deposed,
    /// The master znode vanished under us.
    ZnodeGone,
    /// The session expired.
    SessionEnded,
    /// The peer is master in a larger epoch.
    PeerHasLargerEpoch { epoch: Epoch },
    /// Two ensembles each made a master; this node yields.
    YieldsToPeer { peer: NodeId },
    /// The operator ordered a switchover.
    Switchover { order: u64 },
    /// The process is ending.
    Shutdown,
    /// A step of the promotion failed.
    PromotionFailed { what: String },
    /// The serving loops stood still.
    ServingStalled { for_ms: u64 },
    /// The epoch is given back and the drain is over.
    GivenBack,
    /// A planned switch could not be carried through, and nothing was given away.
    SwitchoverUndone { what: String },
}

impl Reason {
    /// A short word for metric labels; a closed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::FirstClaim => "first_claim",
            Self::HolderGone => "holder_gone",
            Self::PeerDead { .. } => "peer_dead",
            Self::PeerSilent { .. } => "peer_silent",
            Self::PeerLeft { .. } => "peer_left",
            Self::Alone => "alone",
            Self::LogFailed { .. } => "log_failed",
            Self::OwnPreviousLife => "own_previous_life",
            Self::ClaimFoundDone => "claim_found_done",
            Self::GateOpen => "gate_open",
            Self::LeaseEnded => "lease_ended",
            Self::Deposed => "deposed",
            Self::ZnodeGone => "znode_gone",
            Self::SessionEnded => "session_ended",
            Self::PeerHasLargerEpoch { .. } => "peer_has_larger_epoch",
            Self::YieldsToPeer { .. } => "yields_to_peer",
            Self::Switchover { .. } => "switchover",
            Self::Shutdown => "shutdown",
            Self::PromotionFailed { .. } => "promotion_failed",
            Self::ServingStalled { .. } => "serving_stalled",
            Self::GivenBack => "given_back",
            Self::SwitchoverUndone { .. } => "switchover_undone",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstClaim => f.write_str("nobody held the mastership"),
            Self::HolderGone => f.write_str("the holder's znode is gone and nobody acts for it"),
            Self::PeerDead { peer } => write!(
                f,
                "{peer}'s process is dead: its link ended and three connections were refused"
            ),
            Self::PeerSilent { peer } => {
                write!(f, "{peer} is silent and its lease must be over")
            }
            Self::PeerLeft { peer } => write!(f, "{peer} said that it left its mastership"),
            Self::Alone => f.write_str("there is no second node"),
            Self::LogFailed { what } => {
                write!(f, "the log could not be made durable: {what}")
            }
            Self::OwnPreviousLife => f.write_str("took over from this node's own previous life"),
            Self::ClaimFoundDone => f.write_str("a claim without a definite answer had succeeded"),
            Self::GateOpen => f.write_str("the gate is open"),
            Self::LeaseEnded => f.write_str("the lease ended before a heartbeat was acknowledged"),
            Self::Deposed => f.write_str("somebody else claimed a newer epoch"),
            Self::ZnodeGone => f.write_str("the master znode vanished"),
            Self::SessionEnded => f.write_str("the session with the coordinator ended"),
            Self::PeerHasLargerEpoch { epoch } => {
                write!(f, "two masters: the peer's epoch {epoch} is larger")
            }
            Self::YieldsToPeer { peer } => {
                write!(f, "two masters of different ensembles: this node yields to {peer}")
            }
            Self::Switchover { order } => write!(f, "switchover {order} ordered by an operator"),
            Self::Shutdown => f.write_str("the process is ending"),
            Self::PromotionFailed { what } => write!(f, "the promotion failed: {what}"),
            Self::ServingStalled { for_ms } => {
                write!(f, "the serving loops stood still for {for_ms} ms")
            }
            Self::GivenBack => f.write_str("the mastership is given back"),
            Self::SwitchoverUndone { what } => write!(f, "the switchover is undone: {what}"),
        }
    }
}

/// The phases of a promotion, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Making sure that nobody acts any more.
    Confirming,
    /// The claim is under way.
    Fencing,
    /// Bringing the tables up to the last acknowledged change.
    Replaying,
    /// Opening the gate.
    Opening,
    /// Registering the function list; the gate is open.
    Registering,
    /// Loading datasets; the gate is open.
    Loading,
}

impl Phase {
    /// The outside name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirming => "confirming",
            Self::Fencing => "fencing",
            Self::Replaying => "replaying",
            Self::Opening => "opening",
            Self::Registering => "registering",
            Self::Loading => "loading",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
