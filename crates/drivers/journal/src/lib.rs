//! The node's log and snapshots on disk, in one directory, written by one thread.
//!
//! It holds no opinion on what to write or when: it makes records durable as configured, finds after
//! any crash what was durable, hands records out to be shipped, and refuses to start from files that
//! it cannot trust. It blocks; whoever calls it has a thread for that.
//!
//! * [`Journal`]: open, append, cut, retain; the way into everything else.
//! * [`RedoReader`]: the log from a record on, on another thread.
//! * [`SnapshotWriter`]: a snapshot of one's own, or from the peer.
//! * [`Recovered`]: what a directory held.
//!
//! The bytes stand in `docs/protocol/redo-files.md`.

mod error;
mod files;
mod journal;
mod layout;
mod loading;
mod reader;
mod records;
mod recovery;
mod small;
mod snapshot;
mod walk;

pub use error::{AppendError, FileError, OpenError, ReadError};
pub use files::Faults;
pub use journal::{Durability, Journal, LeftSegment, Options, Removed, SEGMENT_BYTES};
pub use layout::FORMAT_VERSION;
pub use reader::{BATCH_BYTES, RedoBatch, RedoReader};
pub use recovery::Recovered;
pub use small::SMALL_BYTES_MAX;
pub use snapshot::{Finished, SnapshotWriter};
