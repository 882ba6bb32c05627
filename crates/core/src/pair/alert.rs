//! Alerts: what an operator must be told at once. Derived from the node's state, never stored
//! apart from it; [`super::watch`] decides, the edges deliver.

use std::fmt;

/// The alerts of this node's kind; names are fixed for other people's dashboards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertName {
    /// Two masters, or two coordinators that may each grant a mastership.
    DualMaster,
    /// Nobody serves for longer than the bound, or a guard keeps this node from serving.
    NoMaster,
    /// The peer does not answer pings.
    PeerUnreachable,
    /// No contact with the coordinator.
    CoordinatorLost,
    /// The pair's data with the coordinator is open to everybody, though it should not be.
    CoordinatorOpen,
    /// The peer uses another ensemble, root or pair.
    EnsembleMismatch,
    /// Another data directory runs under this node's name.
    TwinNode,
    /// The wall clocks of the two nodes differ.
    ClockSkew,
    /// A dataset could not be loaded.
    DatasetFailed,
    /// Mastership moves too often.
    Flapping,
    /// The peer's tables are far behind.
    ReplicationBehind,
    /// The tables of the two nodes are not the same.
    DigestMismatch,
    /// The log cannot be written: full, or broken.
    Disk,
    /// Changes are kept aside, or may be lost.
    Divergence,
    /// The SQL database does not get what it should.
    StoreBehind,
}

impl AlertName {
    /// Every alert.
    pub const ALL: [Self; 15] = [
        Self::DualMaster,
        Self::NoMaster,
        Self::PeerUnreachable,
        Self::CoordinatorLost,
        Self::CoordinatorOpen,
        Self::EnsembleMismatch,
        Self::TwinNode,
        Self::ClockSkew,
        Self::DatasetFailed,
        Self::Flapping,
        Self::ReplicationBehind,
        Self::DigestMismatch,
        Self::Disk,
        Self::Divergence,
        Self::StoreBehind,
    ];

    /// The fixed outside name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DualMaster => "dual_master",
            Self::NoMaster => "no_master",
            Self::PeerUnreachable => "peer_unreachable",
            Self::CoordinatorLost => "coordinator_lost",
            Self::CoordinatorOpen => "coordinator_open",
            Self::EnsembleMismatch => "ensemble_mismatch",
            Self::TwinNode => "twin_node",
            Self::ClockSkew => "clock_skew",
            Self::DatasetFailed => "dataset_failed",
            Self::Flapping => "flapping",
            Self::ReplicationBehind => "replication_behind",
            Self::DigestMismatch => "digest_mismatch",
            Self::Disk => "disk",
            Self::Divergence => "divergence",
            Self::StoreBehind => "store_behind",
        }
    }
}

impl fmt::Display for AlertName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An alert that began, changed or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Which.
    pub name: AlertName,
    /// A sentence an operator can act on; `None`: it is over.
    pub firing: Option<String>,
}
