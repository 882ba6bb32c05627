//! What a request asks of the tables, and what becomes of it.

use std::sync::Arc;

use thiserror::Error;

use super::record::BODY_BYTES_MAX;

/// Bytes shared between the log, the tables and whoever reads them. Keys and values.
pub type Bytes = Arc<[u8]>;

/// The longest name of a table, in bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 64;
/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1_024;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Operations of one request.
pub const OPERATIONS_MAX: usize = 1_024;
/// All that a request brings along, in bytes: names, keys, values and reply. Half of the longest record,
/// because the end of a session adds what it takes along.
pub const REQUEST_BYTES_MAX: usize = BODY_BYTES_MAX / 2;

/// What a session is known by in tables and logs: the first half of its token's SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub [u8; 16]);

/// A request's number within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbered {
    /// Whose.
    pub session: SessionKey,
    /// Counts up in each session; may arrive out of order within the window.
    pub number: u64,
    /// Replies up to this number are not needed any more.
    pub done_up_to: u64,
}

/// One edit as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The row becomes this value, whatever it was.
    Put { table: Arc<str>, key: Bytes, value: Bytes },
    /// The row is gone afterwards.
    Delete { table: Arc<str>, key: Bytes },
    /// The row becomes this value if its version is this one; 0: if there is no such row.
    CompareAndPut { table: Arc<str>, key: Bytes, value: Bytes, version: u64 },
    /// The row, a decimal number in ASCII (missing counts as 0), grows by so much.
    Add { table: Arc<str>, key: Bytes, by: i64 },
}

/// What one operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// The row has this version now.
    Put { version: u64 },
    /// The deletion has this version; it is larger than the row's was.
    Deleted { version: u64 },
    /// Whether it was done, and the row's version now (0: there is none).
    Compared { done: bool, version: u64 },
    /// The sum.
    Added { value: i64 },
}

/// A row that a function looked at before it decided: if its version is another one by the time of
/// the commit, the function has to decide again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The table.
    pub table: Arc<str>,
    /// The key.
    pub key: Bytes,
    /// The version seen; 0: there was no such row.
    pub version: u64,
}

/// What is to be replied once the request is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPlan {
    /// What the operations came to.
    Results,
    /// These bytes, whatever the operations came to.
    Fixed(Bytes),
    /// What the operations came to, which also becomes the row of [`RESULTS`] with this key, in the
    /// same record.
    ///
    /// [`RESULTS`]: super::tickets::RESULTS
    ResultsKept {
        /// The row's key.
        key: Bytes,
    },
}

/// What was replied; replicated with the change, so that a request sent again gets the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// What each operation came to.
    Results(Vec<OperationResult>),
    /// Bytes of the function's own.
    Fixed(Bytes),
}

impl Reply {
    /// Roughly how much room it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Results(results) => 8 + 9 * results.len(),
            Self::Fixed(bytes) => 8 + bytes.len(),
        }
    }
}

/// A request to the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the asking side knows it by; comes back with the verdict.
    pub ticket: u64,
    /// Its number, if the client numbers its requests.
    pub numbered: Option<Numbered>,
    /// What must not have changed since it was decided.
    pub reads: Vec<Read>,
    /// Done all together or not at all, in this order.
    pub operations: Vec<Operation>,
    /// What is to be replied.
    pub reply: ReplyPlan,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done and acknowledged as configured (now, or before: a request sent again).
    Done {
        /// What is replied.
        reply: Reply,
        /// The number of its record in the log; 0 for one that had been done before.
        number: u64,
    },
    /// A row that it depends on has changed: decide again. Nothing was done.
    Conflict,
    /// Nothing was done.
    Refused(Refusal),
    /// This node is not master any more; whether it was done, the next master knows.
    Superseded,
}

/// Why a request was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The session ended, or never was.
    #[error("the session is unknown or over")]
    SessionUnknown,
    /// Its reply is not kept any more: it may have been done.
    #[error("request {number} is older than the window: replies up to {floor} are gone")]
    TooOld {
        /// The request's number.
        number: u64,
        /// Replies up to this number are not kept.
        floor: u64,
    },
    /// An addition to something that is no number, or beyond what 64 bits hold.
    #[error("{table}: the row is not a number that can grow by {by}")]
    NotANumber {
        /// The table.
        table: String,
        /// What was to be added.
        by: i64,
    },
    /// A table's name with a character that other systems cannot hold, as an SQL database.
    #[error("the name of table {table:?} holds a control character")]
    BadName {
        /// The table.
        table: String,
    },
    /// A name, key, value or list is longer than allowed.
    #[error("{what} of {got} is more than {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much was asked for.
        got: usize,
        /// How much is allowed.
        max: usize,
    },
    /// The log cannot be written (the disk is full), or too much waits for the peer.
    #[error("{0}")]
    Busy(String),
}

impl Operation {
    /// The table it is about.
    #[must_use]
    pub fn table(&self) -> &Arc<str> {
        match self {
            Self::Put { table, .. }
            | Self::Delete { table, .. }
            | Self::CompareAndPut { table, .. }
            | Self::Add { table, .. } => table,
        }
    }

    /// The key it is about.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. }
            | Self::Delete { key, .. }
            | Self::CompareAndPut { key, .. }
            | Self::Add { key, .. } => key,
        }
    }

    /// The bytes of the value it brings along.
    fn value_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } | Self::CompareAndPut { value, .. } => value.len(),
            Self::Delete { .. } | Self::Add { .. } => 0,
        }
    }
}

impl ReplyPlan {
    /// The bytes that it brings along.
    fn bytes(&self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::ResultsKept { key: bytes } => bytes.len(),
            Self::Results => 0,
        }
    }
}

impl Request {
    /// Whether its names and sizes are bearable.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let too_large = |what, got, max| Err(Refusal::TooLarge { what, got, max });
        if self.operations.len() > OPERATIONS_MAX {
            return too_large("a list of operations", self.operations.len(), OPERATIONS_MAX);
        }
        let mut bytes = self.reply.bytes();
        for operation in &self.operations {
            let (name, key) = (operation.table().len(), operation.key().len());
            let value = operation.value_bytes();
            bytes += name + key + value;
            if name > TABLE_NAME_BYTES_MAX {
                return too_large("a table's name (bytes)", name, TABLE_NAME_BYTES_MAX);
            }
            if operation.table().chars().any(char::is_control) {
                return Err(Refusal::BadName { table: operation.table().to_string() });
            }
            if key > KEY_BYTES_MAX {
                return too_large("a key (bytes)", key, KEY_BYTES_MAX);
            }
            if value > VALUE_BYTES_MAX {
                return too_large("a value (bytes)", value, VALUE_BYTES_MAX);
            }
        }
        if bytes > REQUEST_BYTES_MAX {
            return too_large(
                "a request with all its operations (bytes)",
                bytes,
                REQUEST_BYTES_MAX,
            );
        }
        match &self.reply {
            ReplyPlan::Fixed(bytes) if bytes.len() > VALUE_BYTES_MAX => {
                too_large("a reply (bytes)", bytes.len(), VALUE_BYTES_MAX)
            }
            ReplyPlan::ResultsKept { key } if key.len() > KEY_BYTES_MAX => {
                too_large("a key (bytes)", key.len(), KEY_BYTES_MAX)
            }
            ReplyPlan::Fixed(_) | ReplyPlan::Results | ReplyPlan::ResultsKept { .. } => Ok(()),
        }
    }
}
