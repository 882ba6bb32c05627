//! `GET /role` and the data of each `view` event: who this node is and what it does right now.

use serde::{Deserialize, Serialize};

/// The answer of `GET /role`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// The pair's name.
    pub pair: String,
    /// This node's name.
    pub node: String,
    /// `standby`, `promoting`, `master` or `demoting`.
    pub role: String,
    /// Master, gate open, lease not over; evaluated when asked.
    pub serving: bool,
    /// The epoch this node is elected in, else the largest it knows.
    pub epoch: u64,
    /// The phase of the promotion that is under way, if any.
    pub phase: Option<String>,
    /// For how long it has had this role.
    pub since_ms: u64,
    /// The kind of coordinator: `zookeeper`.
    pub coordinator: String,
    /// `never`, `connected` or `lost`: how it stands with the coordinator.
    pub contact: String,
    /// The other node as seen from here.
    pub peer: PeerRole,
    /// The peer holds every acknowledged change; null while there are no tables to replicate.
    pub in_sync: Option<bool>,
    /// The cluster whose coordinator data this node reads, once it has read it: routers compare it.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// The other node, briefly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRole {
    /// Its name; null until it said it.
    pub node: Option<String>,
    /// Our link to it is open and answered.
    pub reachable: bool,
    /// The role it last said it had.
    pub role: Option<String>,
    /// The epoch it last said.
    pub epoch: Option<u64>,
    /// Its wall clock minus ours.
    pub clock_offset_ms: Option<i64>,
}
