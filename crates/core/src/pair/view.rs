//! The view: all that anybody may look at, as one value. Looking never asks back.

use super::guard::Guard;
use super::identity::{ClusterId, Contact, Epoch, NodeId, Role, Statement};
use super::moment::Moment;
use super::reason::{Phase, Reason};
use super::switchover::SwitchoverPhase;
use super::troubles::Troubles;

/// A picture of the node at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// When it was taken.
    pub at: Moment,
    /// The role.
    pub role: Role,
    /// Master with an open gate.
    pub serving: bool,
    /// The epoch this node is elected in, else the largest it knows.
    pub epoch: Epoch,
    /// It never acts again in this epoch or a smaller one.
    pub left: Epoch,
    /// What is still being done, as master or on the way there.
    pub phase: Option<Phase>,
    /// The phases of the newest promotion here, with their lengths in milliseconds.
    pub phases: Vec<(Phase, u64)>,
    /// The step of a planned switch that is under way.
    pub switching: Option<SwitchoverPhase>,
    /// Why a switchover ordered here would be refused; only while this node serves.
    pub switchover_refusal: Option<String>,
    /// The phases of a planned switch, with the limits of those that have one, in milliseconds.
    pub switchover_limits: [(SwitchoverPhase, Option<u64>); SwitchoverPhase::ALL.len()],
    /// Since when it has this role.
    pub since: Moment,
    /// Why it has this role.
    pub reason: Reason,
    /// The end of the lease, if elected.
    pub lease_until: Option<Moment>,
    /// How it stands with the coordinator.
    pub contact: Contact,
    /// The cluster whose data it reads.
    pub cluster: Option<ClusterId>,
    /// The negotiated session time-out.
    pub session_timeout_ms: Option<u64>,
    /// Who else holds the mastership, as the coordinator says.
    pub holder: Option<NodeId>,
    /// What keeps this node from racing.
    pub guard: Option<Guard>,
    /// What keeps it and the others apart, in words.
    pub troubles: Troubles,
    /// Master: the peer holds every acknowledged change, by the `sync` record. Standby: this node
    /// does. None: not known, or there are no two nodes.
    pub in_sync: Option<bool>,
    /// The other node.
    pub peer: PeerView,
    /// The longest time without a master that one failure should cost, in milliseconds.
    pub bound_ms: u64,
}

/// The peer as seen from here.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// Our link to it is open and answered.
    pub reachable: bool,
    /// Its process is proven dead.
    pub gone: bool,
    /// Pings unanswered in a row.
    pub unanswered: u32,
    /// The newest that it said, if it ever did.
    pub said: Option<Statement>,
    /// When it said that.
    pub said_at: Option<Moment>,
    /// Its wall clock minus ours.
    pub clock_offset_ms: Option<i64>,
}
