//! What is kept: rows by key in tables, the numbered log of their changes, and who has how much of it.
//!
//! ```text
//!   Request ──▶ Writer ──record──▶ redo file, peer        (written, held by the peer)
//!                 │ pending                  │
//!                 │                    acknowledged
//!                 └──────── release ◀────────┘ ──▶ Store (what readers see) ──▶ Verdict
//! ```
//!
//! * [`change`]: what a request asks for, and what becomes of it.
//! * [`record`]: one entry of the log, and its bytes.
//! * [`store`]: the tables themselves with the windows of replies; [`table`], [`window`], [`digest`].
//! * [`position`]: how far a log goes, and where two logs part.
//! * [`writer`]: the one that numbers and commits, while this node is master.
//! * [`tickets`]: asynchronous calls and what came of them, as rows.
//! * [`intents`]: calls of other people's programs that may have been begun, as rows.
//! * [`snapshot`]: the whole store in pieces, for a late peer and for the disk.
//! * [`behind`]: when an SQL database is written, and from where; [`coalesced`]: what it is given.
//! * [`replication`]: master's and standby's side of keeping two stores the same.

pub mod behind;
pub mod change;
pub mod coalesced;
pub mod digest;
pub mod intents;
mod key;
pub mod planted;
pub mod position;
pub mod record;
pub mod replication;
pub mod snapshot;
pub mod store;
pub mod table;
pub mod tickets;
pub mod window;
pub mod writer;

/// The table of sessions: key = the digest of a token.
pub const SESSIONS: &str = "hotpair.sessions";
/// The table of users: key = the name.
pub const USERS: &str = "hotpair.users";
/// The table of governed services: key = the name.
pub const SERVICES: &str = "hotpair.services";
/// Tables with such names are the pair's own; functions of clients do not reach them.
pub const OWN_PREFIX: &str = "hotpair.";
