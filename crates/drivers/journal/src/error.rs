//! What can go wrong, one enum for each operation; each variant says what became of the files.

use std::io;
use std::path::PathBuf;

use hotpair_core::tables::record::RecordError;

use crate::files::is_full;

/// What an operator can do about files that cannot be trusted.
const ADVICE: &str = "move the directory's redo and snapshot files away and let this node load \
                      everything from its peer; if there is no peer that has it all, restore the \
                      directory from a copy. Nothing was changed";

/// Why the directory cannot be opened. Nothing is guessed: a state that may lack acknowledged
/// changes is not used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system said no.
    #[error("{}: {doing} failed: {error}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A file of another version.
    #[error(
        "{}: {what}: start the program that wrote it, or {ADVICE}", .file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// Which version it is, and which is known.
        what: String,
    },
    /// A file whose beginning is damaged.
    #[error("{}, byte 0: {what}: {ADVICE}", .file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A damaged record with something whole behind it: it is not merely the end that is missing.
    #[error(
        "{}, byte {offset}: record {number} is damaged ({error}), and {behind}: this is no write \
         that was cut short: {ADVICE}", .file.display()
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// The number it should have.
        number: u64,
        /// What is wrong with it.
        error: RecordError,
        /// What is whole behind it.
        behind: String,
    },
    /// Records are missing.
    #[error(
        "{}, byte {offset}: record {found} stands where record {expected} should: {ADVICE}",
        .file.display()
    )]
    Gap {
        /// The file.
        file: PathBuf,
        /// Where the gap shows.
        offset: u64,
        /// The number that should be there.
        expected: u64,
        /// The number that is.
        found: u64,
    },
    /// The redo begins in the middle, and no snapshot is whole that would lead up to there.
    #[error(
        "{}: the redo begins at record {oldest}, and no whole snapshot leads up to it{found}: \
         {ADVICE}", .directory.display()
    )]
    NoBeginning {
        /// The directory.
        directory: PathBuf,
        /// The first record there is.
        oldest: u64,
        /// What is wrong with the snapshots there are.
        found: String,
    },
    /// A snapshot is of use only together with redo that is missing.
    #[error(
        "{}: the snapshot needs the redo up to record {until}, which ends at record {head}: \
         {ADVICE}", .file.display()
    )]
    Unreached {
        /// The snapshot.
        file: PathBuf,
        /// The record up to which it needs redo.
        until: u64,
        /// The last record there is.
        head: u64,
    },
}

/// Why a batch was not appended. The log ends where it ended before, unless `Broken`.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No room: trying again later may succeed.
    #[error("{}: the disk is full ({error}); nothing was written", .file.display())]
    Full {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The disk fails, now or since an earlier fsync, which is never tried again.
    #[error("{}: {what}; nothing was written", .file.display())]
    Failed {
        /// The file.
        file: PathBuf,
        /// What failed.
        what: String,
    },
    /// After a failed write the file could not be cut back either: how it ends is not known. The
    /// journal takes nothing any more; opened again, it looks.
    #[error("{}: {what}, and cutting the file back failed as well: {error}", .file.display())]
    Broken {
        /// The file.
        file: PathBuf,
        /// What failed first.
        what: String,
        /// What the system said about the truncation.
        error: io::Error,
    },
    /// These bytes do not continue the log: a mistake of the caller, or of the peer.
    #[error(
        "these records do not continue the log after record {head}: {what}; nothing was written"
    )]
    Misplaced {
        /// The last record.
        head: u64,
        /// What is wrong.
        what: String,
    },
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The redo does not go back that far any more: a snapshot is needed.
    #[error("record {number} is not in the redo files any more; the oldest is {oldest}")]
    Gone {
        /// The record that was wanted.
        number: u64,
        /// The oldest there was when the reader began.
        oldest: u64,
    },
    /// The log ends before it.
    #[error("record {number} is beyond the end of the log, {head}")]
    Beyond {
        /// The record that was wanted.
        number: u64,
        /// The last record.
        head: u64,
    },
    /// What stands there is not the record that was written there.
    #[error("{}, byte {offset}: record {number} should be there, but is not", .file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// Which record.
        number: u64,
    },
    /// The file system said no.
    #[error("{}: reading failed: {error}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Why something beside the log (a snapshot, records set aside, a small file, a cut) was not done.
/// The log itself is as before, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No room: trying again later may succeed.
    #[error("{}: {doing} failed: the disk is full ({error})", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The file system said no.
    #[error("{}: {doing} failed: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Pieces out of order, or a snapshot ended too early.
    #[error("{}: {what}", .path.display())]
    Pieces {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The log cannot be cut there, because the snapshots that are left could not be rebuilt into a
    /// state: it has to be loaded from the peer. Nothing was changed.
    #[error("the log cannot be cut after record {after}: {why}")]
    NotCut {
        /// The record after which it should end.
        after: u64,
        /// Why not.
        why: String,
    },
    /// Records could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An earlier failure: the journal takes nothing any more until it is opened again.
    #[error("the journal failed before: {0}")]
    Poisoned(String),
}

impl FileError {
    /// Whether it is for want of room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    pub(crate) fn new(path: impl Into<PathBuf>, doing: &'static str, error: io::Error) -> Self {
        let path = path.into();
        if is_full(&error) {
            Self::Full { path, doing, error }
        } else {
            Self::Io { path, doing, error }
        }
    }
}
