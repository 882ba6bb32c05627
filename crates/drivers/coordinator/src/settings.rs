//! What the driver is told at the start and never again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hotpair_core::pair::Moment;
use hotpair_core::pair::identity::Epoch;
use tokio::sync::watch;

use crate::access::Access;
use crate::json::MasterJson;

/// This node's clock: `CLOCK_BOOTTIME` in milliseconds.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// Where ZooKeeper is, and what of this node is written there.
#[derive(Clone, Debug)]
pub struct ZooKeeperSettings {
    /// How the servers are reached, and as whom.
    pub access: Access,
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
    /// Where the holder of the `master` znode is reached, as it says itself; for whoever leads
    /// clients there. Nothing is decided by it.
    pub master_endpoints: watch::Sender<Option<MasterEndpoints>>,
}

/// Where a master says that it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterEndpoints {
    /// The epoch that it holds.
    pub epoch: Epoch,
    /// A name for each use, with an address.
    pub endpoints: BTreeMap<String, String>,
}

impl ZooKeeperSettings {
    /// Takes note of what stands in the `master` znode; none: there is no such znode.
    pub(crate) fn note_master(&self, path: &str, data: Option<&[u8]>) {
        // What cannot be read is complained about by whoever decides on it.
        let seen = data.and_then(|data| MasterJson::reached(path, data).ok());
        self.master_endpoints.send_if_modified(|known| {
            let changed = *known != seen;
            *known = seen;
            changed
        });
    }
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
