//! Guards: what stands in the way of a promotion. `/why` names it, `no_master` too.

use std::fmt;

use super::identity::{ClusterId, Identity, Instance, NodeId, Statement};
use super::moment::Moment;
use crate::tables::position::Position;

/// What keeps this node from racing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// No connected session.
    NoCoordinator,
    /// A znode holds what no hotpair node wrote.
    ForeignZnode { what: String },
    /// ZooKeeper's znodes are closed to this node.
    Barred { what: String },
    /// The process is ending.
    Closing,
    /// `control.act = false`.
    Shadow,
    /// Another data directory runs under this node's name.
    Twin { instance: Instance },
    /// The peer uses another ensemble.
    OtherCluster { peer: NodeId, ours: ClusterId, theirs: ClusterId },
    /// The peer is configured with another root.
    OtherRoot { peer: NodeId, ours: String, theirs: String },
    /// The peer belongs to another pair.
    OtherPair { peer: NodeId, ours: String, theirs: String },
    /// The tables are still being read from disk.
    TablesOpening,
    /// Only a part of a snapshot came: what is here is no state that ever was.
    HalfLoaded,
    /// The log could not be made durable.
    LogFailed { what: String },
    /// The ZooKeeper data is not what this node's tables belong to.
    UnknownCluster { ours: ClusterId, theirs: ClusterId },
    /// Others hold every acknowledged change, and this node may not.
    NotInSync { who: Vec<NodeId> },
    /// Nobody is known to hold every acknowledged change, and the peer cannot be asked.
    NotCompared { missing: String },
    /// The peer's log goes further.
    PeerHasMore { peer: NodeId, ours: Position, theirs: Position },
    /// Claims were refused several times in a row.
    ClaimsRefused { until: Moment },
    /// The peer gets its turn first.
    HoldOff { until: Moment },
    /// Making sure that the last holder does not act any more.
    Confirming { holder: NodeId, until: Moment },
}

impl Guard {
    /// What in the peer's statement does not fit this node; `None` when all fits or is not known yet.
    #[must_use]
    pub fn mismatch(
        me: &Identity,
        cluster: Option<ClusterId>,
        statement: &Statement,
    ) -> Option<Self> {
        let theirs = &statement.identity;
        let peer = theirs.incarnation.node.clone();
        if theirs.pair != me.pair {
            let (ours, theirs) = (me.pair.to_string(), theirs.pair.to_string());
            return Some(Self::OtherPair { peer, ours, theirs });
        }
        if theirs.root != me.root {
            let (ours, theirs) = (me.root.to_string(), theirs.root.to_string());
            return Some(Self::OtherRoot { peer, ours, theirs });
        }
        match (cluster, statement.cluster) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                Some(Self::OtherCluster { peer, ours, theirs })
            }
            _ => None,
        }
    }

    /// Will it pass by itself, as part of a normal switch?
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TablesOpening
            | Self::ClaimsRefused { .. }
            | Self::HoldOff { .. }
            | Self::Confirming { .. } => true,
            Self::HalfLoaded
            | Self::LogFailed { .. }
            | Self::UnknownCluster { .. }
            | Self::NotInSync { .. }
            | Self::NotCompared { .. }
            | Self::PeerHasMore { .. }
            | Self::NoCoordinator
            | Self::ForeignZnode { .. }
            | Self::Barred { .. }
            | Self::Closing
            | Self::Shadow
            | Self::Twin { .. }
            | Self::OtherCluster { .. }
            | Self::OtherRoot { .. }
            | Self::OtherPair { .. } => false,
        }
    }

    /// Is it for the master to know? Who holds every acknowledged change is in its own keeping, and
    /// what the peer has read of that is a little old.
    #[must_use]
    pub fn is_masters_to_know(&self) -> bool {
        match self {
            Self::NotInSync { .. } | Self::NotCompared { .. } | Self::PeerHasMore { .. } => true,
            Self::NoCoordinator
            | Self::ForeignZnode { .. }
            | Self::Barred { .. }
            | Self::Closing
            | Self::Shadow
            | Self::Twin { .. }
            | Self::OtherCluster { .. }
            | Self::OtherRoot { .. }
            | Self::OtherPair { .. }
            | Self::TablesOpening
            | Self::HalfLoaded
            | Self::LogFailed { .. }
            | Self::UnknownCluster { .. }
            | Self::ClaimsRefused { .. }
            | Self::HoldOff { .. }
            | Self::Confirming { .. } => false,
        }
    }

    /// Do the two nodes disagree on where the mastership is kept?
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        match self {
            Self::OtherCluster { .. } | Self::OtherRoot { .. } | Self::OtherPair { .. } => true,
            Self::NoCoordinator
            | Self::ForeignZnode { .. }
            | Self::Barred { .. }
            | Self::Closing
            | Self::Shadow
            | Self::Twin { .. }
            | Self::TablesOpening
            | Self::HalfLoaded
            | Self::LogFailed { .. }
            | Self::UnknownCluster { .. }
            | Self::NotInSync { .. }
            | Self::NotCompared { .. }
            | Self::PeerHasMore { .. }
            | Self::ClaimsRefused { .. }
            | Self::HoldOff { .. }
            | Self::Confirming { .. } => false,
        }
    }

    /// What is wrong with this node's data, and what can be done about it.
    fn data_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TablesOpening => f.write_str("the tables are still being read from disk"),
            Self::HalfLoaded => f.write_str(
                "its tables are half of a snapshot that never came whole: let it follow the other \
                 node, which has everything",
            ),
            Self::LogFailed { what } => write!(
                f,
                "its log could not be made durable ({what}): see to the disk, then start this node \
                 again"
            ),
            Self::UnknownCluster { ours, theirs } => write!(
                f,
                "its tables belong to cluster {ours}, and ZooKeeper's data is that of {theirs}: if \
                 the data in ZooKeeper was lost or moved on purpose, order `hotpair adopt`"
            ),
            Self::NotInSync { who } => {
                let who: Vec<&str> = who.iter().map(NodeId::as_str).collect();
                let who = who.join(" and ");
                write!(
                    f,
                    "this node may lack acknowledged changes: by the sync record {who} has them \
                     all; start {who}, or order `hotpair promote --accept-data-loss` here"
                )
            }
            Self::NotCompared { missing } => write!(
                f,
                "which node has the newest changes is not known, and {missing}: start the peer, or \
                 order `hotpair promote --accept-data-loss` here"
            ),
            Self::PeerHasMore { peer, ours, theirs } => {
                let ours = match *ours {
                    Position { number: 0, .. } => "nothing".to_owned(),
                    ours => format!("up to {ours}"),
                };
                write!(
                    f,
                    "{peer} has more (up to {theirs}, this node {ours}) and goes first; if it \
                     cannot, order `hotpair promote --accept-data-loss` here"
                )
            }
            Self::NoCoordinator
            | Self::ForeignZnode { .. }
            | Self::Barred { .. }
            | Self::Closing
            | Self::Shadow
            | Self::Twin { .. }
            | Self::OtherCluster { .. }
            | Self::OtherRoot { .. }
            | Self::OtherPair { .. }
            | Self::ClaimsRefused { .. }
            | Self::HoldOff { .. }
            | Self::Confirming { .. } => Ok(()), // said by the caller
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCoordinator => f.write_str(
                "no contact with ZooKeeper: check coordinator.zookeeper.servers and the network",
            ),
            Self::ForeignZnode { what } => {
                write!(f, "a znode holds what no hotpair node wrote: {what}")
            }
            Self::Barred { what } => f.write_str(what),
            Self::Closing => f.write_str("the process is ending"),
            Self::Shadow => f.write_str("shadow mode: control.act is false"),
            Self::Twin { instance } => write!(
                f,
                "another process runs under this node's name with data directory {instance}: give \
                 one of the two another `node` name"
            ),
            Self::OtherCluster { peer, ours, theirs } => write!(
                f,
                "{peer} uses another ensemble (cluster id {theirs}, here {ours}): the servers \
                 listed are not one ensemble, or the nodes list different ones"
            ),
            Self::OtherRoot { peer, ours, theirs } => write!(
                f,
                "{peer} is configured with root {theirs}, this node with {ours}: both must name \
                 the same coordinator.zookeeper.root"
            ),
            Self::OtherPair { peer, ours, theirs } => {
                write!(f, "{peer} belongs to pair {theirs}, this node to {ours}")
            }
            Self::TablesOpening
            | Self::HalfLoaded
            | Self::LogFailed { .. }
            | Self::UnknownCluster { .. }
            | Self::NotInSync { .. }
            | Self::NotCompared { .. }
            | Self::PeerHasMore { .. } => self.data_text(f),
            Self::ClaimsRefused { .. } => {
                f.write_str("claims were refused several times in a row; trying again shortly")
            }
            Self::HoldOff { .. } => {
                f.write_str("this node gave mastership away; the peer gets its turn first")
            }
            Self::Confirming { holder, .. } => {
                write!(f, "making sure that {holder} does not act any more")
            }
        }
    }
}
