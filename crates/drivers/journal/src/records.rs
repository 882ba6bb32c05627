//! Records read from a file in blocks and decoded, and what to think of one that is none.
//!
//! A file may end in the middle of a record, because the process or the machine died while it was
//! written: that is a *torn tail*, and nothing that was acknowledged is lost with it. The same look
//! has a record that was whole once and is damaged now. The difference is what follows: behind a
//! torn write there is nothing. So after the first bad record the rest is searched, byte by byte,
//! for a record that is whole.

use std::fs::File;
use std::io;

use hotpair_core::tables::record::{Decoder, Record, RecordError, decode};

use crate::files::read_at;
use crate::walk::{PEEK_BYTES, RECORD_BYTES_MAX, peek};

/// What is read at once. Small enough to stay in the processor's cache until it is decoded.
const BLOCK_BYTES: usize = 512 * 1024;
/// What the search may spend on checksums, in bytes. A file made to exhaust it counts as damaged.
const SEARCH_BYTES_MAX: u64 = 4 << 30;

/// Reads the records of a file from front to back.
#[derive(Debug)]
pub(crate) struct Records {
    file: File,
    buffer: Vec<u8>,
    /// The bytes of the buffer that are not decoded yet.
    pending: std::ops::Range<usize>,
    /// Where in the file the pending bytes begin.
    offset: u64,
    at_end: bool,
    decoder: Decoder,
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A whole record.
    Record(Record),
    /// The file ends between two records.
    End,
    /// Bytes that are none.
    Bad(RecordError),
}

impl Records {
    /// From this place of the file on.
    pub(crate) fn new(file: File, offset: u64) -> Self {
        Self {
            file,
            buffer: vec![0; BLOCK_BYTES],
            pending: 0..0,
            offset,
            at_end: false,
            decoder: Decoder::default(),
        }
    }

    /// Where the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> io::Result<Next> {
        loop {
            match self.decoder.decode(&self.buffer[self.pending.clone()]) {
                Ok((record, size)) => {
                    self.pending.start += size;
                    self.offset += size as u64;
                    return Ok(Next::Record(record));
                }
                Err(RecordError::Torn) if !self.at_end => self.fill()?,
                Err(RecordError::Torn) if self.pending.is_empty() => return Ok(Next::End),
                Err(error) => return Ok(Next::Bad(error)),
            }
        }
    }

    /// More bytes behind those that are pending.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.pending.clone(), 0);
        self.pending = 0..self.pending.len();
        if self.pending.end == self.buffer.len() {
            // A record is longer than the buffer: `decode` has found its length bearable.
            let longer = (self.buffer.len() * 2).min(RECORD_BYTES_MAX);
            self.buffer.resize(longer, 0);
        }
        let wanted = &mut self.buffer[self.pending.end..];
        let count = read_at(&self.file, wanted, self.offset + self.pending.end as u64)?;
        self.at_end = count < wanted.len();
        self.pending.end += count;
        Ok(())
    }

    /// The file, for looking at what follows.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Something whole behind a bad record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// This record, at this place.
    Record { number: u64, offset: u64 },
    /// Too much that looks like records to look at all of it.
    TooMuch,
}

/// The first whole record with a number beyond `last` behind this place.
pub(crate) fn search(file: &File, mut from: u64, last: u64) -> io::Result<Option<Behind>> {
    let length = file.metadata()?.len();
    let mut window = vec![0; BLOCK_BYTES];
    let mut candidate = Vec::new();
    let mut spent = 0;
    loop {
        let filled = read_at(file, &mut window, from)?;
        if filled < PEEK_BYTES {
            return Ok(None);
        }
        let places = filled - PEEK_BYTES + 1;
        for place in 0..places {
            let Some(peeked) = peek(&window[place..filled]) else { continue };
            let offset = from + place as u64;
            // Numbers have no gaps, and no record is shorter than what was peeked at.
            let beyond = last + 1 + length / PEEK_BYTES as u64;
            let plausible = peeked.number > last
                && peeked.number <= beyond
                && offset + peeked.size as u64 <= length;
            if !plausible {
                continue;
            }
            spent += peeked.size as u64;
            if spent > SEARCH_BYTES_MAX {
                return Ok(Some(Behind::TooMuch));
            }
            candidate.resize(peeked.size, 0);
            read_at(file, &mut candidate, offset)?;
            if decode(&candidate).is_ok() {
                return Ok(Some(Behind::Record { number: peeked.number, offset }));
            }
        }
        from += places as u64;
    }
}
