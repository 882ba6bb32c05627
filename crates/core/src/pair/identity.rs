//! Who is who: nodes, their incarnations, epochs, and what two nodes tell each other.

use std::fmt;
use std::sync::Arc;

use crate::tables::position::Position;

/// The number of a mastership; the fencing token. 0 is "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The configured name of a node within its pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let v = self.0;
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    v >> 96,
                    (v >> 80) & 0xffff,
                    (v >> 64) & 0xffff,
                    (v >> 48) & 0xffff,
                    v & 0xffff_ffff_ffff
                )
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotAUuid;

            fn from_str(text: &str) -> Result<Self, NotAUuid> {
                parse_uuid(text).map(Self)
            }
        }
    };
}

uuid_type!(
    /// What one set of ZooKeeper data is known by; made once, kept in the `id` znode.
    ClusterId
);
uuid_type!(
    /// What one data directory is known by; survives restarts of the process.
    Instance
);
uuid_type!(
    /// What one boot of the machine is known by.
    BootId
);

/// The text is not 32 hexadecimal digits in the usual five groups.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a uuid (32 hexadecimal digits, with or without dashes)")]
pub struct NotAUuid(pub String);

fn parse_uuid(text: &str) -> Result<u128, NotAUuid> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(NotAUuid(text.chars().take(64).collect()));
    }
    u128::from_str_radix(&digits, 16).map_err(|_| NotAUuid(digits))
}

/// One life of a node's data on one boot of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// The configured node name.
    pub node: NodeId,
    /// The data directory's uuid.
    pub instance: Instance,
    /// The machine's boot.
    pub boot_id: BootId,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.instance)
    }
}

/// What never changes while a process lives, said in each hello and ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which data, on which boot.
    pub incarnation: Incarnation,
    /// A number drawn at each start: two lives of one data directory are told apart by it.
    pub life: u64,
    /// The pair's name.
    pub pair: Arc<str>,
    /// The root znode below which the pair's znodes are.
    pub root: Arc<str>,
    /// Digest of what both nodes must have configured alike.
    pub config_digest: u64,
    /// The program's version.
    pub version: Arc<str>,
}

/// The role a node plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Up, hot, not serving.
    Standby,
    /// Elected, on the way to an open gate.
    Promoting,
    /// Elected, gate opened.
    Master,
    /// Gate closed, draining, about to give the epoch back.
    Demoting,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standby => "standby",
            Self::Promoting => "promoting",
            Self::Master => "master",
            Self::Demoting => "demoting",
        })
    }
}

/// How this node stands with its coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contact {
    /// Never reached since the start.
    Never,
    /// A session is open and connected.
    Connected,
    /// A session exists or existed; no connection now.
    Lost,
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::Connected => "connected",
            Self::Lost => "lost",
        })
    }
}

/// What a node says of itself in every hello, welcome, ping and answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What never changes.
    pub identity: Arc<Identity>,
    /// The cluster whose coordinator it uses; none until it has read it.
    pub cluster: Option<ClusterId>,
    /// Its role.
    pub role: Role,
    /// Master with an open gate.
    pub serving: bool,
    /// The epoch it is elected in, else the highest it has seen.
    pub epoch: Epoch,
    /// It will never act again in this epoch or a smaller one.
    pub left: Epoch,
    /// For how long from now it may still act, heartbeats under way counted, in milliseconds.
    pub lease_ms: u64,
    /// How it stands with the coordinator.
    pub contact: Contact,
    /// How far its log goes; none while that is not known.
    pub position: Option<Position>,
    /// Its tables are whole: no snapshot of which only a part came. Says nothing without a position.
    pub complete: bool,
    /// What would keep it from claiming now, in words, but for what the master knows better.
    pub guard: Option<Arc<str>>,
}
