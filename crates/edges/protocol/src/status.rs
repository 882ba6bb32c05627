//! `GET /status` and `GET /why`: all there is to see of a node, and the reasons in sentences.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::alerts::AlertEntry;
use crate::role::Role;

/// The answer of `GET /status`: `/role` and all the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// As `/role` says.
    #[serde(flatten)]
    pub role: Role,
    /// The program's version.
    pub version: String,
    /// The version of these words.
    pub protocol: u32,
    /// Where others reach this node.
    pub addresses: Addresses,
    /// Why it has its role.
    pub reason: String,
    /// What keeps it from becoming master, if anything does.
    pub guard: Option<String>,
    /// It never acts again in this epoch or a smaller one.
    pub left: u64,
    /// Who else holds the mastership, as the coordinator says.
    pub holder: Option<String>,
    /// What is left of the lease, if elected.
    pub lease_left_ms: Option<u64>,
    /// The negotiated session time-out.
    pub session_timeout_ms: Option<u64>,
    /// The longest time without a master that one failure should cost.
    pub bound_ms: u64,
    /// The phases of the newest promotion here.
    pub phases: Vec<PhaseLength>,
    /// More of the other node.
    pub peer_detail: PeerStatus,
    /// The datasets that are configured.
    pub datasets: Vec<DatasetStatus>,
    /// How many functions there are.
    pub functions: usize,
    /// Whether they are registered under this node's epoch now.
    pub registered: bool,
    /// Alerts that fire.
    pub alerts: Vec<AlertEntry>,
    /// Answers given so far.
    pub requests: RequestTotals,
    /// Changes of role by cause, since the process began.
    pub switches: BTreeMap<String, u64>,
    /// The SQL database, where one is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
}

/// The SQL database that the tables are written into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `sqlite` or `postgres`.
    pub kind: String,
    /// The file, or host, port and database.
    pub place: String,
    /// `idle` (not this node's to write now), `closed`, `writing`, `copying`, `current`.
    pub state: String,
    /// The epoch of the last record in it, as far as this node knows.
    pub epoch: Option<u64>,
    /// Its number.
    pub number: Option<u64>,
    /// Records that are acknowledged and not in it; none while this node does not write.
    pub lag_records: Option<u64>,
    /// Rows that do not fit their columns.
    pub quarantined: u64,
    /// What failed last, if nothing went well since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where others reach a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// For clients.
    pub client: String,
    /// For operators and routers.
    pub admin: String,
    /// For the other node.
    pub peer: String,
}

/// How long a phase of a promotion took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseLength {
    /// The phase.
    pub phase: String,
    /// Its length.
    pub ms: u64,
}

/// What is known of the peer beyond [`crate::role::PeerRole`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its process is proven dead.
    pub gone: bool,
    /// Pings unanswered in a row.
    pub unanswered: u32,
    /// How long ago it said what is known of it.
    pub heard_ms_ago: Option<u64>,
    /// Whether it said that it serves.
    pub serving: Option<bool>,
    /// How it stands with the coordinator.
    pub contact: Option<String>,
    /// Its program's version.
    pub version: Option<String>,
    /// Its cluster id.
    pub cluster: Option<String>,
}

/// A dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetStatus {
    /// Its configured name.
    pub name: String,
    /// `absent`, `loading`, `ready` or `failed`.
    pub state: String,
    /// Rows read or held.
    pub rows: u64,
    /// How much of the source is read, 0 to 100; 100 when ready.
    pub percent: u8,
    /// Reading speed.
    pub rows_per_second: u64,
    /// How long loading took, when ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Why it failed, when failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How new it is, when ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<DatasetAsOf>,
    /// Its feed, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<FeedStatus>,
}

impl DatasetStatus {
    /// It without what changes with each update.
    #[must_use]
    pub fn standing(&self) -> Self {
        let feed = self.feed.as_ref().map(|feed| FeedStatus {
            state: feed.state.clone(),
            reason: feed.reason.clone(),
            ..FeedStatus::default()
        });
        Self { as_of: None, feed, ..self.clone() }
    }
}

/// How new a dataset is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetAsOf {
    /// The largest version that its feed brought.
    pub version: Option<u64>,
    /// When the newest update came, or the load began: milliseconds of wall clock since 1970.
    pub time_ms: u64,
}

/// The feed of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// `off`, `subscribing`, `loading`, `replaying`, `live` or `stale`.
    pub state: String,
    /// Why it is stale, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Updates that were brought in, or kept for that, since the process began.
    pub applied: u64,
    /// Updates that were not newer than what was there.
    pub older: u64,
    /// Updates that could not be understood.
    pub refused: u64,
}

/// Answers to clients since the process began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestTotals {
    /// How many had which error number.
    pub by_error_no: BTreeMap<i64, u64>,
    /// How long they took, in seconds.
    pub seconds: Histogram,
}

/// Counts of values up to growing limits, as Prometheus has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// (upper limit, how many values were not above it), limits growing, counts cumulated.
    pub buckets: Vec<(f64, u64)>,
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

/// The answer of `GET /why`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The node asked.
    pub node: String,
    /// Its role.
    pub role: String,
    /// Whether it serves.
    pub serving: bool,
    /// Its epoch.
    pub epoch: u64,
    /// The cause of its role as a fixed word.
    pub cause: String,
    /// The whole story, a sentence an element: role and cause, guard, coordinator, peer, bound.
    pub sentences: Vec<String>,
}

/// The answer of the admin's `/sessions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// How many there are in this node's tables.
    pub sessions: u64,
    /// How long one may be silent, while a master serves, in milliseconds.
    pub idle_timeout_ms: u64,
}
