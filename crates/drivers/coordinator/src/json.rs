//! What stands in the znodes: JSON twins of core's types, which know no JSON.
//!
//! Others may write these znodes as well, and newer programs may add fields: unknown fields are
//! passed over, missing ones and other types are errors that name the path. No content is trusted.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use hotpair_core::pair::fact::{EpochZnode, HandoverZnode, MasterZnode, SessionId, SyncZnode};
use hotpair_core::pair::identity::{ClusterId, Epoch, Identity, Incarnation, Instance, NodeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zookeeper_client::Stat;

use crate::settings::{FunctionEntry, MasterEndpoints};

/// A znode holds what no hotpair node wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the znode {path} holds what no hotpair node wrote: {what}")]
pub(crate) struct Foreign {
    path: String,
    what: String,
}

impl Foreign {
    pub(crate) fn new(path: &str, what: &str) -> Self {
        let what = what.chars().take(WHAT_CHARS_MAX).collect();
        Self { path: path.to_owned(), what }
    }
}

/// An error message may quote the content, which may be long.
const WHAT_CHARS_MAX: usize = 200;

/// The `id` znode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IdJson {
    cluster: String,
}

impl IdJson {
    pub(crate) fn fresh() -> Self {
        Self { cluster: ClusterId(uuid::Uuid::new_v4().as_u128()).to_string() }
    }

    pub(crate) fn read(path: &str, data: &[u8]) -> Result<ClusterId, Foreign> {
        let id: Self = parse(path, data)?;
        uuid(path, "cluster", &id.cluster)
    }
}

/// The `epoch` znode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EpochJson {
    epoch: u64,
    #[serde(deserialize_with = "Option::deserialize")] // null is a value here, absence is not
    node: Option<String>,
    clean: bool,
    at: u64,
}

impl EpochJson {
    /// Before the first claim.
    pub(crate) fn none_yet() -> Self {
        Self { epoch: 0, node: None, clean: true, at: wall_clock_ms() }
    }

    pub(crate) fn new(epoch: Epoch, node: &NodeId, clean: bool) -> Self {
        let node = Some(node.as_str().to_owned());
        Self { epoch: epoch.0, node, clean, at: wall_clock_ms() }
    }

    pub(crate) fn read(path: &str, data: &[u8], stat: &Stat) -> Result<EpochZnode, Foreign> {
        let Self { epoch, node, clean, at: _ } = parse(path, data)?;
        Ok(EpochZnode {
            epoch: Epoch(epoch),
            node: node.as_deref().map(NodeId::new),
            clean,
            version: stat.version,
        })
    }
}

/// The `master` znode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MasterJson {
    node: String,
    instance: String,
    boot_id: String,
    life: u64,
    epoch: u64,
    session_timeout_ms: u64,
    endpoints: BTreeMap<String, String>,
    at: u64,
}

impl MasterJson {
    pub(crate) fn new(
        me: &Identity,
        epoch: Epoch,
        session_timeout_ms: u64,
        endpoints: &BTreeMap<String, String>,
    ) -> Self {
        Self {
            node: me.incarnation.node.to_string(),
            instance: me.incarnation.instance.to_string(),
            boot_id: me.incarnation.boot_id.to_string(),
            life: me.life,
            epoch: epoch.0,
            session_timeout_ms,
            endpoints: endpoints.clone(),
            at: wall_clock_ms(),
        }
    }

    /// Where the master says that it is reached, and in which epoch.
    pub(crate) fn reached(path: &str, data: &[u8]) -> Result<MasterEndpoints, Foreign> {
        let Self { epoch, endpoints, .. } = parse(path, data)?;
        Ok(MasterEndpoints { epoch: Epoch(epoch), endpoints })
    }

    pub(crate) fn read(path: &str, data: &[u8], stat: &Stat) -> Result<MasterZnode, Foreign> {
        let json: Self = parse(path, data)?;
        if stat.ephemeral_owner == 0 {
            return Err(Foreign::new(path, "it is not ephemeral"));
        }
        Ok(MasterZnode {
            instance: uuid(path, "instance", &json.instance)?,
            boot_id: uuid(path, "boot_id", &json.boot_id)?,
            node: NodeId::new(&json.node),
            life: json.life,
            epoch: Epoch(json.epoch),
            session_timeout_ms: json.session_timeout_ms,
            version: stat.version,
            created: stat.czxid,
            owner: SessionId(stat.ephemeral_owner),
        })
    }
}

/// The `sync` znode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SyncJson {
    epoch: u64,
    in_sync: Vec<MemberJson>,
}

/// One that holds every acknowledged change.
#[derive(Debug, Serialize, Deserialize)]
struct MemberJson {
    id: String,
    boot_id: String,
    instance: String,
}

impl SyncJson {
    pub(crate) fn new(epoch: Epoch, members: &[Incarnation]) -> Self {
        let member = |member: &Incarnation| MemberJson {
            id: member.node.to_string(),
            boot_id: member.boot_id.to_string(),
            instance: member.instance.to_string(),
        };
        Self { epoch: epoch.0, in_sync: members.iter().map(member).collect() }
    }

    pub(crate) fn read(path: &str, data: &[u8], stat: &Stat) -> Result<SyncZnode, Foreign> {
        let json: Self = parse(path, data)?;
        let member = |member: &MemberJson| {
            Ok(Incarnation {
                node: NodeId::new(&member.id),
                instance: uuid(path, "instance", &member.instance)?,
                boot_id: uuid(path, "boot_id", &member.boot_id)?,
            })
        };
        Ok(SyncZnode {
            epoch: Epoch(json.epoch),
            members: json.in_sync.iter().map(member).collect::<Result<_, Foreign>>()?,
            version: stat.version,
        })
    }
}

/// The `handover` znode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandoverJson {
    epoch: u64,
    #[serde(deserialize_with = "Option::deserialize")] // null is a value here, absence is not
    to: Option<String>,
    number: u64,
    at: u64,
}

impl HandoverJson {
    /// Nothing is handed over, or not any more.
    pub(crate) fn none() -> Self {
        Self { epoch: 0, to: None, number: 0, at: wall_clock_ms() }
    }

    pub(crate) fn new(epoch: Epoch, to: &NodeId, number: u64) -> Self {
        let to = Some(to.as_str().to_owned());
        Self { epoch: epoch.0, to, number, at: wall_clock_ms() }
    }

    pub(crate) fn read(path: &str, data: &[u8], stat: &Stat) -> Result<HandoverZnode, Foreign> {
        let Self { epoch, to, number, at: _ } = parse(path, data)?;
        let to = to.as_deref().map(NodeId::new);
        Ok(HandoverZnode { epoch: Epoch(epoch), to, number, version: stat.version })
    }
}

/// A `nodes/<id>` znode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PresenceJson {
    node: String,
    instance: String,
    boot_id: String,
    life: u64,
    version: String,
    config_digest: u64,
    endpoints: BTreeMap<String, String>,
}

impl PresenceJson {
    pub(crate) fn new(me: &Identity, endpoints: &BTreeMap<String, String>) -> Self {
        Self {
            node: me.incarnation.node.to_string(),
            instance: me.incarnation.instance.to_string(),
            boot_id: me.incarnation.boot_id.to_string(),
            life: me.life,
            version: me.version.to_string(),
            config_digest: me.config_digest,
            endpoints: endpoints.clone(),
        }
    }

    /// Whose presence it is.
    pub(crate) fn read(path: &str, data: &[u8]) -> Result<Instance, Foreign> {
        let json: Self = parse(path, data)?;
        uuid(path, "instance", &json.instance)
    }
}

/// A registry entry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EntryJson {
    pub(crate) node: String,
    pub(crate) epoch: u64,
    pub(crate) endpoints: BTreeMap<String, String>,
    pub(crate) functions: Vec<FunctionJson>,
}

/// A function of a registry entry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FunctionJson {
    pub(crate) number: u32,
    pub(crate) name: String,
}

impl EntryJson {
    pub(crate) fn new(
        node: &NodeId,
        epoch: Epoch,
        endpoints: &BTreeMap<String, String>,
        entry: &FunctionEntry,
    ) -> Self {
        let function =
            |(number, name): &(u32, String)| FunctionJson { number: *number, name: name.clone() };
        Self {
            node: node.to_string(),
            epoch: epoch.0,
            endpoints: endpoints.clone(),
            functions: entry.functions.iter().map(function).collect(),
        }
    }

    pub(crate) fn read(path: &str, data: &[u8]) -> Result<Self, Foreign> {
        parse(path, data)
    }
}

/// Any of the above as bytes.
pub(crate) fn bytes_of(znode: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(znode).expect("text keys and plain values always serialize")
}

fn parse<T: DeserializeOwned>(path: &str, data: &[u8]) -> Result<T, Foreign> {
    serde_json::from_slice(data).map_err(|e| Foreign::new(path, &e.to_string()))
}

fn uuid<T: FromStr<Err: std::fmt::Display>>(
    path: &str,
    field: &str,
    text: &str,
) -> Result<T, Foreign> {
    text.parse().map_err(|e| Foreign::new(path, &format!("in the field `{field}`, {e}")))
}

/// For the eyes of operators; nothing is decided by it.
fn wall_clock_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
