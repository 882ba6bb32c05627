//! Snapshots as files: written piece by piece under another name, and read back whole or not at all.
//!
//! ```text
//! header, then each piece:  u32 length │ u64 XXH3-64 of the bytes │ bytes as core writes them
//! ```
//!
//! A file gets its name only after its last piece is on the disk, so one without a valid end was
//! damaged later. When it gets it, the redo that it needs (up to `End.until`) is on the disk as well.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hotpair_core::tables::position::History;
use hotpair_core::tables::snapshot::{Piece, decode_piece, encode_piece};
use hotpair_core::tables::store::Store;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::FileError;
use crate::files::{Files, read_at};
use crate::layout::{
    HEADER_BYTES, HeaderFault, Listing, Magic, check_header, header, redo_path, snapshot_path,
};

/// Bytes before a piece.
const PIECE_HEAD_BYTES: usize = 12;
/// The longest piece. Core cuts at a quarter of a MiB of rows, but at a number of replies.
const PIECE_BYTES_MAX: usize = 1 << 30;
/// Bytes of the last piece as they stand in the file.
const END_BYTES: usize = PIECE_HEAD_BYTES + 9;
/// So much is written before it is brought to the disk, so that the end does not take long.
const SYNC_BYTES: u64 = 32 << 20;

/// A snapshot being written. Dropped before it is finished, it leaves nothing behind.
///
/// It has its own file handle and may be used on another thread than the journal; finishing takes
/// as long as the disk does.
#[derive(Debug)]
pub struct SnapshotWriter {
    files: Files,
    directory: PathBuf,
    path: PathBuf,
    file: File,
    offset: u64,
    synced: u64,
    scratch: Vec<u8>,
    begin: Option<History>,
    until: Option<u64>,
    /// Got its own name.
    named: bool,
}

/// A snapshot that has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The file.
    pub path: PathBuf,
    /// The log is to be applied after this record.
    pub number: u64,
    /// The log must be applied up to this record.
    pub until: u64,
    /// The file's length.
    pub bytes: u64,
}

impl SnapshotWriter {
    pub(crate) fn create(
        files: &Files,
        directory: &Path,
        path: PathBuf,
    ) -> Result<Self, FileError> {
        let file = files.create(&path).map_err(|e| FileError::new(&path, "creating", e))?;
        Ok(Self {
            files: files.clone(),
            directory: directory.to_owned(),
            path,
            file,
            offset: HEADER_BYTES as u64,
            synced: 0,
            scratch: Vec::new(),
            begin: None,
            until: None,
            named: false,
        })
    }

    /// Writes the next piece. The first is `Begin`, the last `End`.
    pub fn piece(&mut self, piece: &Piece) -> Result<(), FileError> {
        let out_of_order = match piece {
            Piece::Begin { .. } => self.begin.is_some(),
            Piece::Rows { .. } | Piece::Windows { .. } | Piece::End { .. } => {
                self.begin.is_none() || self.until.is_some()
            }
        };
        if out_of_order {
            return Err(self.refuse("a piece of a snapshot out of order"));
        }
        self.write(piece)?;
        match piece {
            Piece::Begin { history } => self.begin = Some(history.clone()),
            Piece::End { until } => self.until = Some(*until),
            Piece::Rows { .. } | Piece::Windows { .. } => {}
        }
        if self.offset - self.synced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Brings it to the disk, with the redo that it needs, and gives it its name.
    pub fn finish(mut self) -> Result<Finished, FileError> {
        let (number, until) = self.complete()?;
        self.sync_redo(number)?;
        self.name()?;
        let path = snapshot_path(&self.directory, number);
        Ok(Finished { path, number, until, bytes: self.offset })
    }

    /// Everything is there and on the disk, though not under its name. What it begins and ends with.
    pub(crate) fn complete(&mut self) -> Result<(u64, u64), FileError> {
        let (Some(begin), Some(until)) = (&self.begin, self.until) else {
            return Err(self.refuse("a snapshot that ends too early"));
        };
        let number = begin.head();
        let header = header(Magic::Snapshot, number);
        let failed = |e| FileError::new(&self.path, "writing", e);
        self.files.write_at(&self.file, &header, 0).map_err(failed)?;
        self.sync()?;
        Ok((number, until))
    }

    /// The history it begins with.
    pub(crate) fn begin(&self) -> Option<&History> {
        self.begin.as_ref()
    }

    /// Gives it its name, for good.
    pub(crate) fn name(&mut self) -> Result<(), FileError> {
        let number = self.begin.as_ref().expect("complete() has been asked").head();
        let path = snapshot_path(&self.directory, number);
        let failed = |doing| {
            let path = self.path.clone();
            move |e| FileError::new(path, doing, e)
        };
        fs::rename(&self.path, &path).map_err(failed("renaming"))?;
        self.named = true;
        self.files.sync_directory(&self.directory).map_err(failed("syncing the directory"))
    }

    /// Without its redo a snapshot is worth nothing, so that must not get lost in a power failure
    /// that the snapshot survives.
    fn sync_redo(&self, number: u64) -> Result<(), FileError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |e| FileError::new(path, "syncing", e)
        };
        let redo = Listing::read(&self.directory).map_err(failed(&self.directory))?.redo;
        let first = redo.partition_point(|first| *first <= number + 1).saturating_sub(1);
        for first in &redo[first..] {
            let path = redo_path(&self.directory, *first);
            let file = Files::open(&path).map_err(failed(&path))?;
            self.files.sync(&file).map_err(failed(&path))?;
        }
        Ok(())
    }

    fn write(&mut self, piece: &Piece) -> Result<(), FileError> {
        self.scratch.clear();
        self.scratch.extend_from_slice(&[0; PIECE_HEAD_BYTES]);
        encode_piece(piece, &mut self.scratch);
        let (head, bytes) = self.scratch.split_at_mut(PIECE_HEAD_BYTES);
        if bytes.len() > PIECE_BYTES_MAX {
            return Err(self.refuse("a piece of a snapshot that is too long"));
        }
        let length = u32::try_from(bytes.len()).expect("just looked at");
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&xxh3_64(bytes).to_le_bytes());
        let failed = |e| FileError::new(&self.path, "writing", e);
        self.files.write_at(&self.file, &self.scratch, self.offset).map_err(failed)?;
        self.offset += self.scratch.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FileError> {
        let failed = |e| FileError::new(&self.path, "syncing", e);
        self.files.sync(&self.file).map_err(failed)?;
        self.synced = self.offset;
        Ok(())
    }

    fn refuse(&self, what: &'static str) -> FileError {
        FileError::Pieces { path: self.path.clone(), what }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.named
            && let Err(error) = Files::remove(&self.path)
        {
            let file = self.path.display();
            tracing::warn!(%file, %error, "an unfinished snapshot stays until the next start");
        }
    }
}

/// A snapshot's first and last piece.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) begin: History,
    pub(crate) until: u64,
}

/// Why a file is no snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotFault {
    Io(io::Error),
    Header(HeaderFault),
    /// What is wrong at this byte.
    Piece {
        offset: u64,
        what: String,
    },
}

impl From<io::Error> for SnapshotFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for SnapshotFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "reading failed: {error}"),
            Self::Header(fault) => write!(f, "byte 0: {fault}"),
            Self::Piece { offset, what } => write!(f, "byte {offset}: {what}"),
        }
    }
}

/// Reads the first and the last piece only.
pub(crate) fn read_ends(path: &Path, number: u64) -> Result<Ends, SnapshotFault> {
    let mut pieces = Pieces::open(path, number)?;
    let begin = match pieces.next()? {
        Some(Piece::Begin { history }) if history.head() == number => history,
        Some(_) | None => return Err(pieces.fault("it does not begin as a snapshot does")),
    };
    let end = pieces.length.saturating_sub(END_BYTES as u64);
    pieces.offset = pieces.offset.max(end);
    match pieces.next()? {
        Some(Piece::End { until }) => Ok(Ends { begin, until }),
        Some(_) | None => Err(pieces.fault("it does not end as a snapshot does")),
    }
}

/// Reads all of it.
pub(crate) fn load(path: &Path, number: u64) -> Result<Store, SnapshotFault> {
    let mut pieces = Pieces::open(path, number)?;
    let mut store = Store::default();
    let mut ended = false;
    while let Some(piece) = pieces.next()? {
        if ended {
            return Err(pieces.fault("something follows its end"));
        }
        ended = matches!(piece, Piece::End { .. });
        store.paste(piece);
    }
    if ended { Ok(store) } else { Err(pieces.fault("it ends too early")) }
}

/// Reads pieces from front to back.
struct Pieces {
    file: File,
    offset: u64,
    length: u64,
    scratch: Vec<u8>,
}

impl Pieces {
    fn open(path: &Path, number: u64) -> Result<Self, SnapshotFault> {
        let file = Files::open(path)?;
        let length = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES];
        let filled = read_at(&file, &mut header, 0)?;
        check_header(Magic::Snapshot, number, &header[..filled]).map_err(SnapshotFault::Header)?;
        Ok(Self { file, offset: HEADER_BYTES as u64, length, scratch: Vec::new() })
    }

    /// The next piece; none at the file's end.
    fn next(&mut self) -> Result<Option<Piece>, SnapshotFault> {
        let rest = self.length - self.offset;
        if rest == 0 {
            return Ok(None);
        }
        let mut head = [0; PIECE_HEAD_BYTES];
        if read_at(&self.file, &mut head, self.offset)? < PIECE_HEAD_BYTES {
            return Err(self.fault("it ends within a piece"));
        }
        let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let wanted = u64::from_le_bytes(head[4..].try_into().expect("eight bytes"));
        let size = (PIECE_HEAD_BYTES + length) as u64;
        if length > PIECE_BYTES_MAX || size > rest {
            return Err(self.fault("a piece longer than the rest of the file"));
        }
        self.scratch.resize(length, 0);
        let filled = read_at(&self.file, &mut self.scratch, self.offset + PIECE_HEAD_BYTES as u64)?;
        if filled < length || xxh3_64(&self.scratch) != wanted {
            return Err(self.fault("the checksum of a piece is wrong"));
        }
        let piece = decode_piece(&self.scratch).map_err(|error| self.fault(error))?;
        self.offset += size;
        Ok(Some(piece))
    }

    fn fault(&self, what: impl std::fmt::Display) -> SnapshotFault {
        SnapshotFault::Piece { offset: self.offset, what: what.to_string() }
    }
}
