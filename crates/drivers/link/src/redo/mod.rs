//! The redo stream: a connection of its own, dialled by the standby to the master's peer listener.
//!
//! ```text
//!   standby                                master
//!   ──── Follow{history} ────────────────▶ door ──▶ tables
//!   ◀─── Tail | Load, pieces ───────────── shipper thread
//!   ◀─── Records, Digests ────────────────   reads the feed, or the redo files where it is behind
//!   ──── Held{number} ───────────────────▶ reader thread ──▶ tables
//! ```
//!
//! Who may follow whom, what is sent and when it counts, the tables decide (core's `replication`);
//! here bytes are moved, on blocking sockets and threads of their own, so that a slow peer delays
//! neither the tables nor the control thread. Each queue in between has a bound.

mod feed;
mod follow;
mod frame;
mod ship;
mod wire;

pub use feed::Feed;
pub use follow::{MasterAddress, MasterLine, OpenLog, dial};
pub use frame::RedoFrameError;
#[cfg(feature = "fuzzing")]
pub(crate) use frame::fuzzing;
pub(crate) use frame::{Introduction, decode_follow, encode_follow};
pub use ship::{LogReader, Shipment, Standby, Start, ship};
pub use wire::Wire;

use hotpair_core::tables::replication::{Follow, FromMaster};

/// Takes in a standby without the door of a [`crate::LinkDriver`]: for benchmarks and tests.
///
/// # Errors
/// When what comes is no introduction.
pub fn take_in(stream: Wire) -> Result<RedoEvent, RedoFrameError> {
    let Introduction { follow, directory, .. } = frame::read_follow(&mut stream.reader()?)?;
    Ok(RedoEvent::FollowerCame { follow, directory, stream })
}

/// What the tables hear of the streams.
#[derive(Debug)]
pub enum RedoEvent {
    /// A standby wants to follow this node.
    FollowerCame {
        /// What it says.
        follow: Follow,
        /// It reads the redo files itself, and is only told how long the log is.
        directory: bool,
        /// Its connection.
        stream: Wire,
    },
    /// A follower holds all records up to this one.
    FollowerHolds {
        /// Its number.
        connection: u64,
        /// The record.
        number: u64,
    },
    /// A follower's connection ended.
    FollowerGone {
        /// Its number.
        connection: u64,
        /// Why, for people.
        why: String,
    },
    /// The master said something.
    MasterSaid {
        /// By which dial.
        dial: u64,
        /// What.
        frame: FromMaster,
    },
    /// The connection to the master ended, or could not be made.
    MasterGone {
        /// By which dial.
        dial: u64,
        /// Why, for people.
        why: String,
    },
}
