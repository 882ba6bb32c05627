//! Servers of other people, as `/services` shows and takes them.

use serde::{Deserialize, Serialize};

/// The answer of `GET /services`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// Each configured service, in the order of the configuration.
    pub services: Vec<ServiceStatus>,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// How its active member is chosen; `active-standby`.
    pub policy: String,
    /// Where the primary is.
    pub primary: String,
    /// Where the standby is.
    pub standby: String,
    /// `primary`, `standby`, or null before the first member that was up.
    pub active: Option<String>,
    /// Where the active one is.
    pub active_address: Option<String>,
    /// For how long it is the active one, as this node saw it; null where this node does not serve.
    pub since_ms: Option<u64>,
    /// Held active by force though it was not up.
    pub held: bool,
    /// Whether this node looks after it: whether it serves.
    pub governing: bool,
    /// Why things are as they are, in a sentence.
    pub why: String,
    /// How members are checked.
    pub check: String,
    /// How often.
    pub interval_ms: u64,
    /// The port in front of it, if there is one.
    pub proxy: Option<ProxyStatus>,
    /// Primary, then standby.
    pub members: Vec<ServiceMember>,
}

/// The port in front of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Where it is.
    pub address: String,
    /// Whether it is open.
    pub listening: bool,
    /// Connections now.
    pub connections: u64,
    /// Why it is not open, where it should be.
    pub why: Option<String>,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceMember {
    /// `primary` or `standby`.
    pub member: String,
    /// Where it is.
    pub address: String,
    /// Whether connections are led there.
    pub active: bool,
    /// `up`, `down` or `unknown`.
    pub health: String,
    /// For how long it has that health, as this node saw it; null where this node does not serve.
    pub since_ms: Option<u64>,
    /// Checks that ended, since this node serves.
    pub checks: u64,
    /// Failed ones since the last that passed.
    pub failed: u64,
    /// What the last failed one said; null after one that passed.
    pub why: Option<String>,
}

/// The body of `POST /services/<name>`; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceBody {
    /// `active-standby`; there is no other one.
    pub policy: Option<String>,
    /// Another primary, `host:port`.
    pub primary: Option<String>,
    /// Another standby, `host:port`.
    pub standby: Option<String>,
    /// `primary`, `standby`, or the address of one of them.
    pub active: Option<String>,
    /// Also a member that is not known to be up.
    pub force: bool,
}
