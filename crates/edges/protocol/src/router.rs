//! `GET /status` of a router: the nodes as it sees them, and what it does with requests.

use serde::{Deserialize, Serialize};

use crate::status::RequestTotals;

/// The answer of a router's `GET /status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// The pair that it stands before.
    pub pair: String,
    /// The program's version.
    pub version: String,
    /// `serving`, `switching` (planned), `lost` (after a crash), `blind` (no node was ever heard to
    /// serve) or `down` (503 is answered).
    pub standing: String,
    /// The node that requests go to.
    pub target: Option<String>,
    /// The newest epoch that was heard to be served.
    pub epoch: u64,
    /// For how long nobody has served.
    pub unserved_ms: Option<u64>,
    /// The longest time without a master that one failure should cost, as the nodes say.
    pub bound_ms: u64,
    /// The nodes, in the configuration's order.
    pub nodes: Vec<NodeAsSeen>,
    /// Requests under way to a node.
    pub under_way: usize,
    /// Requests held.
    pub held: usize,
    /// What they cost, in bytes.
    pub held_bytes: usize,
    /// How often a request was sent to a node a further time.
    pub sent_again: u64,
    /// Connections of clients, at the last look.
    pub connections: u64,
    /// Clients' connections refused because all were busy.
    pub connections_refused: u64,
    /// Clients' connections cut because they were slow or stood in the way.
    pub connections_cut: u64,
    /// Answers given so far; 503 stands for the empty one.
    pub requests: RequestTotals,
}

/// A node as a router sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAsSeen {
    /// Its configured name.
    pub name: String,
    /// `never`, `heard`, `refused`, `closed`, `silent` or `other` (something else answers there).
    pub contact: String,
    /// The role it last said.
    pub role: Option<String>,
    /// Whether it last said that it serves.
    pub serving: Option<bool>,
    /// The epoch it last said.
    pub epoch: Option<u64>,
    /// The cluster it last said.
    pub cluster: Option<String>,
    /// It refused what it said that it serves, a moment ago.
    pub doubted: bool,
    /// Connections to it.
    pub connections: usize,
}
