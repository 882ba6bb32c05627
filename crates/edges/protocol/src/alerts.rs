//! Alerts: as `/alerts` lists them, and as Alertmanager's API v2 takes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer of `GET /alerts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alerts {
    /// What fires now.
    pub alerts: Vec<AlertEntry>,
    /// What ended lately, newest first.
    pub recent: Vec<AlertEntry>,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertEntry {
    /// Its fixed name.
    pub name: String,
    /// `critical` or `warning`.
    pub severity: String,
    /// A sentence an operator can act on.
    pub text: String,
    /// When it began: milliseconds of wall clock since 1970.
    pub since_ms: u64,
    /// When it ended; absent while it fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
}

/// One element of the list that is POSTed to Alertmanager's `/api/v2/alerts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertmanagerAlert {
    /// What makes it the same alert from either node: `alertname`, `pair`, `severity`.
    pub labels: BTreeMap<String, String>,
    /// `summary` for people, `node` for who says it.
    pub annotations: BTreeMap<String, String>,
    /// When it began, RFC 3339 in UTC.
    #[serde(rename = "startsAt")]
    pub starts_at: String,
    /// When it ended; absent while it fires.
    #[serde(rename = "endsAt", default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
    /// Where to read more.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
}
