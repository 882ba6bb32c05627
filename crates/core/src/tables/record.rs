//! One entry of the log, and its bytes.
//!
//! ```text
//! 0        4             12
//! ┌────────┬─────────────┬──────┐   all numbers little endian
//! │ length │ checksum    │ body │   length: of the body; checksum: XXH3-64 of length and body
//! └────────┴─────────────┴──────┘
//! body: u8 kind, u64 epoch, u64 number, then by kind
//!   1 changes      u8 flags (1: numbered, 2: reply), [16 bytes session, u64 request, u64 done up to],
//!                  u16 count × change, [reply]
//!   2 epoch start  u64 life
//! change: u8 (1 put, 2 delete), u8 length + table, u16 length + key, [u32 length + value]
//! reply:  u8 (1 results, 2 bytes); u16 count × (u8 kind, …), or u32 length + bytes
//! ```
//!
//! The same bytes are on disk and on the link. Their version is said once for each file and stream.

use std::sync::Arc;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::change::{
    Bytes, KEY_BYTES_MAX, Numbered, OperationResult, Reply, SessionKey, TABLE_NAME_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use crate::pair::identity::Epoch;

/// The version of these bytes, said by whoever carries them.
pub const RECORD_VERSION: u16 = 1;
/// Bytes before the body.
pub const HEAD_BYTES: usize = 12;
/// The longest body: a request that could become more is refused before it is written.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The mastership that wrote it.
    pub epoch: Epoch,
    /// Counts from 1, without gaps, over all epochs.
    pub number: u64,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// What one request did.
    Changes {
        /// Whose request.
        numbered: Option<Numbered>,
        /// What is different afterwards.
        changes: Vec<Change>,
        /// What was replied; kept if the request was numbered.
        reply: Option<Reply>,
    },
    /// A mastership begins.
    EpochStart {
        /// The process life that is master.
        life: u64,
    },
}

/// One edit as it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The row is this now; its version is the record's number.
    Put { table: Arc<str>, key: Bytes, value: Bytes },
    /// The row is gone.
    Delete { table: Arc<str>, key: Bytes },
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("the bytes end within a record")]
    Torn,
    /// The length cannot be one.
    #[error("a record of {0} bytes")]
    Length(u32),
    /// Not what was written.
    #[error("the checksum of a record is wrong")]
    Checksum,
    /// The checksum is right, the content is none: of another version, perhaps.
    #[error("a record with {0}")]
    Content(&'static str),
}

/// Appends a record's bytes.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    match &record.body {
        Body::Changes { numbered, changes, reply } => {
            out.push(1);
            out.extend_from_slice(&record.epoch.0.to_le_bytes());
            out.extend_from_slice(&record.number.to_le_bytes());
            out.push(u8::from(numbered.is_some()) | u8::from(reply.is_some()) << 1);
            if let Some(numbered) = numbered {
                out.extend_from_slice(&numbered.session.0);
                out.extend_from_slice(&numbered.number.to_le_bytes());
                out.extend_from_slice(&numbered.done_up_to.to_le_bytes());
            }
            put_count(changes.len(), out);
            for change in changes {
                encode_change(change, out);
            }
            if let Some(reply) = reply {
                encode_reply(reply, out);
            }
        }
        Body::EpochStart { life } => {
            out.push(2);
            out.extend_from_slice(&record.epoch.0.to_le_bytes());
            out.extend_from_slice(&record.number.to_le_bytes());
            out.extend_from_slice(&life.to_le_bytes());
        }
    }
    let length = u32::try_from(out.len() - start - HEAD_BYTES).expect("requests are bounded");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(length, &out[start + HEAD_BYTES..]);
    out[start + 4..start + HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// The first record of these bytes, and how many bytes it takes.
pub fn decode(bytes: &[u8]) -> Result<(Record, usize), RecordError> {
    Decoder::default().decode(bytes)
}

/// Decodes records one after the other, and makes the name of a table once where it is the same again.
#[derive(Debug, Default)]
pub struct Decoder {
    table: Option<Arc<str>>,
}

impl Decoder {
    /// The first record of these bytes, and how many bytes it takes.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(Record, usize), RecordError> {
        let (mut reader, size) = body_of(bytes)?;
        reader.last_table = self.table.take();
        let record = decode_body(&mut reader)?;
        self.table = reader.last_table;
        Ok((record, HEAD_BYTES + size))
    }
}

/// The body of the first record, whose checksum is right, and its size.
fn body_of(bytes: &[u8]) -> Result<(Reader<'_>, usize), RecordError> {
    let head = bytes.first_chunk::<HEAD_BYTES>().ok_or(RecordError::Torn)?;
    let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
    let size = length as usize;
    if size == 0 || size > BODY_BYTES_MAX {
        return Err(RecordError::Length(length));
    }
    let body = bytes.get(HEAD_BYTES..HEAD_BYTES + size).ok_or(RecordError::Torn)?;
    let wanted = u64::from_le_bytes(head[4..].try_into().expect("eight bytes"));
    if checksum(length, body) != wanted {
        return Err(RecordError::Checksum);
    }
    Ok((Reader { bytes: body, last_table: None }, size))
}

fn decode_body(reader: &mut Reader<'_>) -> Result<Record, RecordError> {
    let kind = reader.u8()?;
    let epoch = Epoch(reader.u64()?);
    let number = reader.u64()?;
    let body = match kind {
        1 => decode_changes(reader)?,
        2 => Body::EpochStart { life: reader.u64()? },
        _ => return Err(RecordError::Content("an unknown kind")),
    };
    if !reader.bytes.is_empty() {
        return Err(RecordError::Content("bytes after its end"));
    }
    Ok(Record { epoch, number, body })
}

fn checksum(length: u32, body: &[u8]) -> u64 {
    xxh3_64(body) ^ u64::from(length).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What the fuzzer cannot guess.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    /// A body with its length and checksum before it.
    #[must_use]
    pub fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut framed = length.to_le_bytes().to_vec();
        framed.extend_from_slice(&super::checksum(length, body).to_le_bytes());
        framed.extend_from_slice(body);
        framed
    }
}

fn decode_changes(reader: &mut Reader<'_>) -> Result<Body, RecordError> {
    let flags = reader.u8()?;
    let numbered = if flags & 1 != 0 {
        let session = SessionKey(reader.take(16)?.try_into().expect("sixteen bytes"));
        Some(Numbered { session, number: reader.u64()?, done_up_to: reader.u64()? })
    } else {
        None
    };
    let count = reader.u16()?;
    let mut changes = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        changes.push(decode_change(reader)?);
    }
    let reply = if flags & 2 != 0 { Some(decode_reply(reader)?) } else { None };
    Ok(Body::Changes { numbered, changes, reply })
}

fn encode_change(change: &Change, out: &mut Vec<u8>) {
    let (op, table, key) = match change {
        Change::Put { table, key, .. } => (1, table, key),
        Change::Delete { table, key } => (2, table, key),
    };
    out.push(op);
    out.push(u8::try_from(table.len()).expect("names are bounded"));
    out.extend_from_slice(table.as_bytes());
    put_count(key.len(), out);
    out.extend_from_slice(key);
    if let Change::Put { value, .. } = change {
        put_bytes(value, out);
    }
}

fn decode_change(reader: &mut Reader<'_>) -> Result<Change, RecordError> {
    let op = reader.u8()?;
    let table = reader.table()?;
    let key = reader.key()?;
    match op {
        1 => Ok(Change::Put { table, key, value: reader.value()? }),
        2 => Ok(Change::Delete { table, key }),
        _ => Err(RecordError::Content("an unknown change")),
    }
}

/// Appends a reply's bytes.
pub(super) fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Results(results) => {
            out.push(1);
            put_count(results.len(), out);
            for result in results {
                let (kind, value) = match *result {
                    OperationResult::Put { version } => (1, version),
                    OperationResult::Deleted { version } => (2, version),
                    OperationResult::Compared { done: false, version } => (3, version),
                    OperationResult::Compared { done: true, version } => (4, version),
                    OperationResult::Added { value } => (5, value.cast_unsigned()),
                };
                out.push(kind);
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        Reply::Fixed(bytes) => {
            out.push(2);
            put_bytes(bytes, out);
        }
    }
}

pub(super) fn decode_reply(reader: &mut Reader<'_>) -> Result<Reply, RecordError> {
    match reader.u8()? {
        1 => {
            let count = reader.u16()?;
            let mut results = Vec::with_capacity(usize::from(count));
            for _ in 0..count {
                let (kind, value) = (reader.u8()?, reader.u64()?);
                results.push(match kind {
                    1 => OperationResult::Put { version: value },
                    2 => OperationResult::Deleted { version: value },
                    3 => OperationResult::Compared { done: false, version: value },
                    4 => OperationResult::Compared { done: true, version: value },
                    5 => OperationResult::Added { value: value.cast_signed() },
                    _ => return Err(RecordError::Content("an unknown result")),
                });
            }
            Ok(Reply::Results(results))
        }
        2 => Ok(Reply::Fixed(reader.value()?)),
        _ => Err(RecordError::Content("an unknown reply")),
    }
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(count).expect("requests are bounded").to_le_bytes());
}

pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("values are bounded");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a body from its front; every length is looked at before anything is made of it.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    /// The table named last: most often it is the next one's as well.
    last_table: Option<Arc<str>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, last_table: None }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) =
            self.bytes.split_at_checked(count).ok_or(RecordError::Content("an early end"))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    pub(super) fn table(&mut self) -> Result<Arc<str>, RecordError> {
        let length = usize::from(self.u8()?);
        if length > TABLE_NAME_BYTES_MAX {
            return Err(RecordError::Content("a table name that is too long"));
        }
        let name = std::str::from_utf8(self.take(length)?)
            .map_err(|_| RecordError::Content("a table name that is no text"))?;
        match &self.last_table {
            Some(last) if **last == *name => Ok(last.clone()),
            Some(_) | None => Ok(self.last_table.insert(name.into()).clone()),
        }
    }

    pub(super) fn key(&mut self) -> Result<Bytes, RecordError> {
        let length = usize::from(self.u16()?);
        if length > KEY_BYTES_MAX {
            return Err(RecordError::Content("a key that is too long"));
        }
        Ok(self.take(length)?.into())
    }

    pub(super) fn value(&mut self) -> Result<Bytes, RecordError> {
        let length = self.u32()? as usize;
        if length > VALUE_BYTES_MAX {
            return Err(RecordError::Content("a value that is too long"));
        }
        Ok(self.take(length)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let numbered = Some(Numbered { session: SessionKey([7; 16]), number: 3, done_up_to: 1 });
        let put = Change::Put {
            table: "accounts".into(),
            key: b"k".as_slice().into(),
            value: vec![9; 300].into(),
        };
        let delete = Change::Delete { table: "t".into(), key: b"".as_slice().into() };
        let results = Reply::Results(vec![
            OperationResult::Put { version: 1 },
            OperationResult::Deleted { version: 2 },
            OperationResult::Compared { done: true, version: 3 },
            OperationResult::Compared { done: false, version: 4 },
            OperationResult::Added { value: -5 },
        ]);
        let body = |numbered, changes, reply| Body::Changes { numbered, changes, reply };
        let fixed = Some(Reply::Fixed(b"{}".as_slice().into()));
        [
            Body::EpochStart { life: 77 },
            body(numbered, vec![put.clone(), delete], Some(results)),
            body(None, vec![put], None),
            body(numbered, Vec::new(), fixed),
        ]
        .into_iter()
        .zip(1..)
        .map(|(body, number)| Record { epoch: Epoch(5), number, body })
        .collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let mut bytes = Vec::new();
        for record in records() {
            encode(&record, &mut bytes);
        }
        let mut rest = &bytes[..];
        for record in records() {
            let (read, size) = decode(rest).unwrap();
            assert_eq!(read, record);
            rest = &rest[size..];
        }
        assert_eq!(rest, b"");
    }

    #[test]
    fn each_flipped_bit_and_each_early_end_is_found() {
        for record in records() {
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            for length in 0..bytes.len() {
                assert_eq!(decode(&bytes[..length]), Err(RecordError::Torn), "{length} bytes");
            }
            for bit in 0..bytes.len() * 8 {
                let mut broken = bytes.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                decode(&broken).expect_err("a bit was flipped");
            }
        }
    }

    #[test]
    fn a_body_that_lies_about_its_lengths_is_refused() {
        let body = [&[1][..], &[0; 16], &[0], &[1, 0], &[1, 200]].concat();
        let mut bytes = Vec::new();
        let length = u32::try_from(body.len()).unwrap();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&checksum(length, &body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let error = decode(&bytes).unwrap_err();
        assert_eq!(error, RecordError::Content("a table name that is too long"));
    }
}
