//! What the driver is told at the start and never again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hotpair_core::pair::Moment;

/// This node's clock: `CLOCK_BOOTTIME` in milliseconds.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// Where ZooKeeper is, and what of this node is written there.
#[derive(Clone, Debug)]
pub struct ZooKeeperSettings {
    /// `host:port` of each server of one ensemble. Servers of different ensembles here make two
    /// masters possible.
    pub servers: Vec<String>,
    /// The session time-out asked for. Safe: 4 s. The server may negotiate another one.
    pub session_timeout: Duration,
    /// The znode below which all pairs are, absolute. Both nodes must have the same.
    pub root: String,
    /// The pair's name. Both nodes must have the same.
    pub pair: String,
    /// Where this node is reached: a name for each use, with an address.
    pub endpoints: BTreeMap<String, String>,
    /// What a master registers.
    pub functions: Vec<FunctionEntry>,
}

/// One group/service/version and the functions that it offers: one znode of the registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionEntry {
    /// The group.
    pub group: String,
    /// The service within the group.
    pub service: String,
    /// The version of the service.
    pub version: String,
    /// Number and name of each function.
    pub functions: Vec<(u32, String)>,
}
