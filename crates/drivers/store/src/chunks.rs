//! Cuts a stream of CSV into chunks that hold whole records, so that threads can parse them apart.
//!
//! Only the end of a record is found here; what is in it is the CSV library's business. A newline
//! ends a record unless it is inside quotes, and a quote opens only at the beginning of a field
//! (anywhere else it is an ordinary character), as the library has it. Files without a quote, the
//! most, are cut at their last newline without looking at anything else.

use std::io::{self, Read};

/// Whole records, and where in the file they are.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Its place among the chunks.
    pub(crate) number: u64,
    /// The line it begins with, counted from 1.
    pub(crate) first_line: u64,
    /// How many lines it has.
    pub(crate) lines: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Why there is no next chunk.
#[derive(Debug)]
pub(crate) enum ChunkError {
    /// Reading or decompressing failed.
    Io(io::Error),
    /// The record that begins at this line does not end within [`RECORD_BYTES_MAX`].
    RecordTooLong { line: u64 },
}

/// The chunks of a stream, in order.
#[derive(Debug)]
pub(crate) struct Chunks<R> {
    reader: R,
    /// The beginning of a record whose end was not in the last chunk.
    carry: Vec<u8>,
    next_number: u64,
    next_line: u64,
    chunk_bytes: usize,
}

impl<R: Read> Chunks<R> {
    pub(crate) fn new(reader: R, chunk_bytes: usize) -> Chunks<R> {
        Chunks { reader, carry: vec![], next_number: 0, next_line: 1, chunk_bytes }
    }

    /// The next chunk, in `bytes` to reuse their memory; nothing at the end.
    pub(crate) fn next(&mut self, mut bytes: Vec<u8>) -> Result<Option<Chunk>, ChunkError> {
        bytes.clear();
        bytes.append(&mut self.carry);
        let mut wanted = self.chunk_bytes;
        loop {
            bytes.reserve_exact(wanted.saturating_sub(bytes.len()));
            let missing = wanted.saturating_sub(bytes.len()) as u64;
            let read = self.reader.by_ref().take(missing).read_to_end(&mut bytes);
            let at_end = (read.map_err(ChunkError::Io)? as u64) < missing;
            if at_end && bytes.is_empty() {
                return Ok(None);
            }
            let cut = if at_end { Some(bytes.len()) } else { last_record_end(&bytes) };
            if let Some(cut) = cut {
                self.carry.extend_from_slice(&bytes[cut..]);
                bytes.truncate(cut);
                return Ok(Some(self.chunk(bytes)));
            }
            if wanted >= RECORD_BYTES_MAX {
                return Err(ChunkError::RecordTooLong { line: self.next_line });
            }
            wanted = (wanted * 2).min(RECORD_BYTES_MAX);
        }
    }

    fn chunk(&mut self, bytes: Vec<u8>) -> Chunk {
        let newlines = memchr::memchr_iter(b'\n', &bytes).count() as u64;
        let open_end = u64::from(bytes.last().is_some_and(|byte| *byte != b'\n'));
        let (number, first_line) = (self.next_number, self.next_line);
        self.next_number += 1;
        self.next_line += newlines;
        Chunk { number, first_line, lines: newlines + open_end, bytes }
    }
}

/// Where the last whole record of `bytes`, which begin with a record, ends.
fn last_record_end(bytes: &[u8]) -> Option<usize> {
    if memchr::memchr(b'"', bytes).is_none() {
        return memchr::memrchr(b'\n', bytes).map(|newline| newline + 1);
    }
    Records::new(bytes, 1).filter(|record| record.ended).last().map(|record| record.end)
}

/// One record: `bytes[start..end]`, its newline included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The line it begins with.
    pub(crate) line: u64,
    /// Whether a newline ended it; the last of a file may do without.
    pub(crate) ended: bool,
    /// Whether the bytes ended inside quotes.
    pub(crate) quote_open: bool,
}

/// The records of some bytes; empty lines are none.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Records<'a> {
    pub(crate) fn new(bytes: &'a [u8], first_line: u64) -> Records<'a> {
        Records { bytes, at: 0, line: first_line }
    }

    fn skip_empty_lines(&mut self) {
        loop {
            match self.bytes.get(self.at..) {
                Some([b'\n', ..]) => self.at += 1,
                Some([b'\r', b'\n', ..]) => self.at += 2,
                Some(_) | None => return,
            }
            self.line += 1;
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.skip_empty_lines();
        let start = self.at;
        if start >= self.bytes.len() {
            return None;
        }
        let line = self.line;
        let (end, quote_open) = record_end(self.bytes, start);
        let record = &self.bytes[start..end];
        self.line += memchr::memchr_iter(b'\n', record).count() as u64;
        self.at = end;
        let ended = !quote_open && record.ends_with(b"\n");
        Some(Record { start, end, line, ended, quote_open })
    }
}

/// The end of the record that begins at `start`, and whether the bytes end inside its quotes.
fn record_end(bytes: &[u8], start: usize) -> (usize, bool) {
    let mut at = start;
    while let Some(found) = memchr::memchr2(b'\n', b'"', &bytes[at..]) {
        let here = at + found;
        if bytes[here] == b'\n' {
            return (here + 1, false);
        }
        let opens = here == start || bytes[here - 1] == b',';
        at = if opens {
            match closing_quote(bytes, here + 1) {
                Some(closing) => closing + 1,
                None => return (bytes.len(), true),
            }
        } else {
            here + 1
        };
    }
    (bytes.len(), false)
}

/// The quote that closes a field whose text begins at `at`; doubled ones are part of the text.
fn closing_quote(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let quote = at + memchr::memchr(b'"', &bytes[at..])?;
        if bytes.get(quote + 1) != Some(&b'"') {
            return Some(quote);
        }
        at = quote + 2;
    }
}

/// The longest record that is waited for.
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &str) -> Vec<(u64, &str)> {
        Records::new(bytes.as_bytes(), 1)
            .map(|record| (record.line, &bytes[record.start..record.end]))
            .collect()
    }

    #[test]
    fn a_newline_in_quotes_ends_no_record() {
        let file = "a,b\n1,\"x\ny\"\n\n2,\"\"\"\n\"\n3,5\" pipe\r\n\r\n\"4\n\",c";
        let expected = [
            (1, "a,b\n"),
            (2, "1,\"x\ny\"\n"),
            (5, "2,\"\"\"\n\"\n"),
            (7, "3,5\" pipe\r\n"),
            (9, "\"4\n\",c"),
        ];
        assert_eq!(texts(file), expected);
    }

    #[test]
    fn an_unclosed_quote_is_seen() {
        let last = Records::new(b"a\n\"b\nc\n", 1).last().unwrap();
        assert!(last.quote_open && !last.ended);
        assert_eq!(last.line, 2);
    }

    #[test]
    fn chunks_of_any_size_hold_whole_records_with_their_lines() {
        let file = "h,i\n1,\"x\n\ny\"\n2,b\n\n3,\"c\"\"\n\",\"\n\"\n4,5\" pipe\n5,d";
        let whole: Vec<(u64, String)> =
            texts(file).into_iter().map(|(line, text)| (line, text.to_owned())).collect();
        for chunk_bytes in 1..file.len() + 2 {
            let mut chunks = Chunks::new(file.as_bytes(), chunk_bytes);
            let (mut found, mut number, mut together) = (vec![], 0, vec![]);
            while let Some(chunk) = chunks.next(vec![]).unwrap() {
                assert_eq!(chunk.number, number);
                number += 1;
                for record in Records::new(&chunk.bytes, chunk.first_line) {
                    let text = String::from_utf8(chunk.bytes[record.start..record.end].to_vec());
                    found.push((record.line, text.unwrap()));
                }
                together.extend_from_slice(&chunk.bytes);
            }
            assert_eq!(together, file.as_bytes(), "chunks of {chunk_bytes}");
            assert_eq!(found, whole, "chunks of {chunk_bytes}");
        }
    }

    #[test]
    fn a_record_without_end_is_an_error_and_not_a_lot_of_memory() {
        let endless = io::repeat(b'x');
        let mut chunks = Chunks::new(endless, 1 << 20);
        let error = chunks.next(vec![]).unwrap_err();
        assert!(matches!(error, ChunkError::RecordTooLong { line: 1 }), "{error:?}");
    }
}
