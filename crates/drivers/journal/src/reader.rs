//! Reads the log from a record on, while it is being written: to ship it, or to set it aside.
//!
//! A reader has its own file handle and may be on another thread than the journal. What it may hand
//! out it is told by number: up to there the bytes stand still. What lies beyond may be in the
//! middle of being written, or be cut off and written differently, so none of it is kept from one
//! call to the next.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::ReadError;
use crate::files::{Files, read_at};
use crate::layout::{HEADER_BYTES, Listing, Magic, check_header, redo_path};
use crate::walk::{PEEK_BYTES, peek};

/// Roughly how much is handed out at once. A longer record comes alone.
pub const BATCH_BYTES: usize = 512 * 1024;

/// Reads records in order. Drop it when the log is cut or replaced.
#[derive(Debug)]
pub struct RedoReader {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    /// Where the record of number `next` begins.
    offset: u64,
    next: u64,
    /// The first record to be handed out.
    wanted: u64,
    /// The oldest record there was when it began.
    oldest: u64,
    block: Vec<u8>,
}

/// Whole records, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedoBatch {
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// Their bytes. Their checksums were not looked at.
    pub bytes: Vec<u8>,
}

impl RedoReader {
    /// From this record on, which is in the file that begins with record `segment`.
    pub(crate) fn open(
        directory: &Path,
        segment: u64,
        wanted: u64,
        oldest: u64,
    ) -> Result<Self, ReadError> {
        let path = redo_path(directory, segment);
        let file =
            open_segment(&path, segment)?.ok_or(ReadError::Gone { number: wanted, oldest })?;
        Ok(Self {
            directory: directory.to_owned(),
            path,
            file,
            offset: HEADER_BYTES as u64,
            next: segment,
            wanted,
            oldest,
            block: vec![0; BATCH_BYTES],
        })
    }

    /// From this record on, in the directory of another node's journal, which goes on writing it.
    pub fn in_directory(directory: &Path, wanted: u64) -> Result<Self, ReadError> {
        let listing = Listing::read(directory)
            .map_err(|error| ReadError::Io { file: directory.to_owned(), error })?;
        let oldest = listing.redo.first().copied().unwrap_or(wanted + 1);
        let index = listing.redo.partition_point(|first| *first <= wanted);
        match index.checked_sub(1) {
            Some(index) => Self::open(directory, listing.redo[index], wanted, oldest),
            None => Err(ReadError::Gone { number: wanted, oldest }),
        }
    }

    /// The number of the next record to be handed out.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Records that follow, none beyond `up_to`; `None`: there are none yet. Everything up to
    /// `up_to` must have been appended before.
    pub fn next(&mut self, up_to: u64) -> Result<Option<RedoBatch>, ReadError> {
        if up_to < self.wanted {
            return Ok(None);
        }
        self.place()?;
        let first = self.next;
        let size = self.advance(up_to)?;
        self.wanted = self.next;
        let bytes = self.block[..size].to_vec();
        self.block.truncate(BATCH_BYTES);
        Ok(Some(RedoBatch { first, last: self.next - 1, bytes }))
    }

    /// Goes to where the wanted record begins, or will.
    pub(crate) fn place(&mut self) -> Result<(), ReadError> {
        while self.next < self.wanted {
            self.advance(self.wanted - 1)?;
            self.block.truncate(BATCH_BYTES);
        }
        Ok(())
    }

    /// Where in its file the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes over at least one record, and over none beyond `up_to`; how many bytes of the block.
    fn advance(&mut self, up_to: u64) -> Result<usize, ReadError> {
        let mut filled = self.fill()?;
        if filled == 0 {
            self.go_to_next_file()?;
            filled = self.fill()?;
        }
        if let Some(first) = peek(&self.block[..filled])
            && first.size > self.block.len()
        {
            self.block.resize(first.size, 0);
            filled = self.fill()?;
        }
        let (mut size, mut next) = (0, self.next);
        while next <= up_to
            && let Some(record) = peek(&self.block[size..filled])
            && record.number == next
            && record.size <= filled - size
        {
            size += record.size;
            next += 1;
        }
        if size == 0 {
            let (file, offset) = (self.path.clone(), self.offset);
            return Err(ReadError::Corrupt { file, offset, number: self.next });
        }
        self.offset += size as u64;
        self.next = next;
        Ok(size)
    }

    fn fill(&mut self) -> Result<usize, ReadError> {
        debug_assert!(self.block.len() >= PEEK_BYTES, "a block holds the beginning of a record");
        let filled = read_at(&self.file, &mut self.block, self.offset);
        filled.map_err(|error| ReadError::Io { file: self.path.clone(), error })
    }

    fn go_to_next_file(&mut self) -> Result<(), ReadError> {
        let path = redo_path(&self.directory, self.next);
        let gone = ReadError::Gone { number: self.next, oldest: self.oldest };
        self.file = open_segment(&path, self.next)?.ok_or(gone)?;
        (self.path, self.offset) = (path, HEADER_BYTES as u64);
        Ok(())
    }
}

fn open_segment(path: &Path, first: u64) -> Result<Option<File>, ReadError> {
    let failed = |error| ReadError::Io { file: path.to_owned(), error };
    let file = match Files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut header = [0; HEADER_BYTES];
    let filled = read_at(&file, &mut header, 0).map_err(failed)?;
    check_header(Magic::Redo, first, &header[..filled]).map_err(|_| {
        let file = path.to_owned();
        ReadError::Corrupt { file, offset: 0, number: first }
    })?;
    Ok(Some(file))
}
