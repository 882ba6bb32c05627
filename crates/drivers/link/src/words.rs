//! The bodies of frames in JSON: twins of the core's types, so that the wire can stay when the
//! core moves.
//!
//! A body that can be read is still checked when it becomes a core value: uuids, digests, and the
//! lengths of names, which end up in logs and alerts. Unknown keys are passed over: a later version
//! may say more.

use std::sync::Arc;

use hotpair_core::pair::identity::{
    BootId, ClusterId, Contact, Epoch, Identity, Incarnation, Instance, NodeId, Role, Statement,
};
use hotpair_core::tables::position::Position;
use serde::{Deserialize, Serialize};

/// No name, path or version in a statement is longer.
pub(crate) const TEXT_BYTES_MAX: usize = 1_024;

/// What every hello begins with, in any version of the protocol.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HelloHead {
    pub(crate) magic: String,
    pub(crate) version: u16,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HelloBody {
    pub(crate) magic: String,
    pub(crate) version: u16,
    pub(crate) statement: StatementWord,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WelcomeBody {
    pub(crate) version: u16,
    pub(crate) statement: StatementWord,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PingBody {
    pub(crate) number: u64,
    pub(crate) sent_ms: i64,
    pub(crate) statement: StatementWord,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AnswerBody {
    pub(crate) number: u64,
    pub(crate) sent_ms: i64,
    pub(crate) received_ms: i64,
    pub(crate) answered_ms: i64,
    pub(crate) statement: StatementWord,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RejectBody {
    pub(crate) reason: ReasonWord,
    pub(crate) text: String,
    pub(crate) pair: String,
    pub(crate) node: String,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReasonWord {
    Pair,
    Version,
    Malformed,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StatementWord {
    pair: String,
    node: String,
    instance: String,
    boot_id: String,
    life: String,
    root: String,
    config_digest: String,
    program: String,
    cluster: Option<String>,
    role: RoleWord,
    serving: bool,
    epoch: u64,
    left: u64,
    lease_ms: u64,
    contact: ContactWord,
    position: Option<PositionWord>,
    complete: bool,
    /// Absent from a program that does not say it.
    #[serde(default)]
    guard: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PositionWord {
    epoch: u64,
    number: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoleWord {
    Standby,
    Promoting,
    Master,
    Demoting,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ContactWord {
    Never,
    Connected,
    Lost,
}

impl StatementWord {
    pub(crate) fn of(statement: &Statement) -> Self {
        let identity = &statement.identity;
        Self {
            pair: identity.pair.to_string(),
            node: identity.incarnation.node.to_string(),
            instance: identity.incarnation.instance.to_string(),
            boot_id: identity.incarnation.boot_id.to_string(),
            life: format!("{:016x}", identity.life),
            root: identity.root.to_string(),
            config_digest: format!("{:016x}", identity.config_digest),
            program: identity.version.to_string(),
            cluster: statement.cluster.map(|c| c.to_string()),
            role: RoleWord::of(statement.role),
            serving: statement.serving,
            epoch: statement.epoch.0,
            left: statement.left.0,
            lease_ms: statement.lease_ms,
            contact: ContactWord::of(statement.contact),
            position: statement
                .position
                .map(|at| PositionWord { epoch: at.epoch.0, number: at.number }),
            complete: statement.complete,
            guard: statement.guard.as_deref().map(cut),
        }
    }

    /// The core's value, or what is wrong with this one.
    pub(crate) fn into_statement(self) -> Result<Statement, String> {
        let instance: Instance = parsed("instance", &self.instance)?;
        let boot_id: BootId = parsed("boot_id", &self.boot_id)?;
        let cluster: Option<ClusterId> =
            self.cluster.map(|text| parsed("cluster", &text)).transpose()?;
        let identity = Identity {
            incarnation: Incarnation {
                node: NodeId::new(&short("node", self.node)?),
                instance,
                boot_id,
            },
            life: digits("life", &self.life)?,
            pair: short("pair", self.pair)?.into(),
            root: short("root", self.root)?.into(),
            config_digest: digits("config_digest", &self.config_digest)?,
            version: short("program", self.program)?.into(),
        };
        Ok(Statement {
            identity: Arc::new(identity),
            cluster,
            role: self.role.into_role(),
            serving: self.serving,
            epoch: Epoch(self.epoch),
            left: Epoch(self.left),
            lease_ms: self.lease_ms,
            contact: self.contact.into_contact(),
            position: self
                .position
                .map(|at| Position { epoch: Epoch(at.epoch), number: at.number }),
            complete: self.complete,
            guard: self.guard.map(|text| short("guard", text)).transpose()?.map(Into::into),
        })
    }
}

impl RoleWord {
    fn of(role: Role) -> Self {
        match role {
            Role::Standby => Self::Standby,
            Role::Promoting => Self::Promoting,
            Role::Master => Self::Master,
            Role::Demoting => Self::Demoting,
        }
    }

    fn into_role(self) -> Role {
        match self {
            Self::Standby => Role::Standby,
            Self::Promoting => Role::Promoting,
            Self::Master => Role::Master,
            Self::Demoting => Role::Demoting,
        }
    }
}

impl ContactWord {
    fn of(contact: Contact) -> Self {
        match contact {
            Contact::Never => Self::Never,
            Contact::Connected => Self::Connected,
            Contact::Lost => Self::Lost,
        }
    }

    fn into_contact(self) -> Contact {
        match self {
            Self::Never => Contact::Never,
            Self::Connected => Contact::Connected,
            Self::Lost => Contact::Lost,
        }
    }
}

/// A text of bearable length.
pub(crate) fn short(key: &str, text: String) -> Result<String, String> {
    if text.len() <= TEXT_BYTES_MAX {
        Ok(text)
    } else {
        Err(format!("{key} is {} bytes long, at most {TEXT_BYTES_MAX} are allowed", text.len()))
    }
}

/// As much of a sentence as a statement may hold.
fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn parsed<T>(key: &str, text: &str) -> Result<T, String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| format!("{key}: {e}"))
}

/// 64 bits as 16 hexadecimal digits: JSON numbers of that size are not exact everywhere.
fn digits(key: &str, text: &str) -> Result<u64, String> {
    let exact = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !exact {
        return Err(format!("{key} is not 16 hexadecimal digits"));
    }
    u64::from_str_radix(text, 16).map_err(|e| format!("{key}: {e}"))
}
