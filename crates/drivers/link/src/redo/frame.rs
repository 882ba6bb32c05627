//! Frames of the redo stream. The same head as on the link (`u32 length | u8 tag`, big endian), and
//! bodies that are no JSON, but for the first: a standby introduces itself in words.

use std::io::{self, Read, Write};

use hotpair_core::pair::identity::{Epoch, Incarnation, NodeId};
use hotpair_core::tables::position::{EpochStart, History, STARTS_MAX};
use hotpair_core::tables::record::{Decoder, RECORD_VERSION, RecordError};
use hotpair_core::tables::replication::{Follow, FromMaster};
use hotpair_core::tables::snapshot::{decode_piece, encode_piece};
use serde::{Deserialize, Serialize};

use crate::frame::FOLLOW_TAG;

/// The longest frame: the longest record, or a piece with the longest row, and some room.
pub(super) const REDO_FRAME_BYTES_MAX: usize = 32 << 20;
const HEAD_BYTES: usize = 5;

const TAIL: u8 = 16;
const LOAD: u8 = 17;
const RECORDS: u8 = 18;
const PIECE: u8 = 19;
const DIGESTS: u8 = 20;
const HELD: u8 = 21;
const GROWN: u8 = 22;

/// Why a redo stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum RedoFrameError {
    /// The connection ended.
    #[error("the connection ended")]
    Ended,
    /// The system says.
    #[error("{0}")]
    Io(io::Error),
    /// The bytes are no frame.
    #[error("{0}")]
    Garbage(String),
}

impl From<io::Error> for RedoFrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

impl From<RecordError> for RedoFrameError {
    fn from(error: RecordError) -> Self {
        Self::Garbage(error.to_string())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct FollowBody {
    version: u16,
    record_version: u16,
    pair: String,
    node: String,
    instance: String,
    boot_id: String,
    life: u64,
    head: u64,
    applied: u64,
    complete: bool,
    /// It reads the redo files themselves, in a directory that both nodes see.
    #[serde(default)]
    directory: bool,
    /// Epoch, life and first record of each mastership, oldest first.
    masterships: Vec<(u64, u64, u64)>,
}

/// The version of this stream's frames.
const STREAM_VERSION: u16 = 1;

/// A follow frame's body.
pub(crate) fn encode_follow(follow: &Follow, pair: &str, directory: bool) -> Vec<u8> {
    let starts = follow.history.starts();
    let body = FollowBody {
        version: STREAM_VERSION,
        record_version: RECORD_VERSION,
        pair: pair.to_owned(),
        node: follow.who.node.to_string(),
        instance: follow.who.instance.to_string(),
        boot_id: follow.who.boot_id.to_string(),
        life: follow.life,
        head: follow.history.head(),
        applied: follow.applied,
        complete: follow.complete,
        directory,
        masterships: starts.iter().map(|s| (s.epoch.0, s.life, s.first)).collect(),
    };
    serde_json::to_vec(&body).expect("words and numbers are JSON")
}

/// What a follow frame says.
pub(crate) struct Introduction {
    /// The pair that it names.
    pub(crate) pair: String,
    /// What the standby's log holds.
    pub(crate) follow: Follow,
    /// It wants to be told how long the log is, not what is in it.
    pub(crate) directory: bool,
}

/// Reads a follow frame's body.
pub(crate) fn decode_follow(bytes: &[u8]) -> Result<Introduction, String> {
    let body: FollowBody = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if (body.version, body.record_version) != (STREAM_VERSION, RECORD_VERSION) {
        return Err(format!(
            "redo stream version {}.{}, this node speaks {STREAM_VERSION}.{RECORD_VERSION}",
            body.version, body.record_version
        ));
    }
    if body.masterships.len() > STARTS_MAX || body.node.len() > 256 || body.pair.len() > 256 {
        return Err("names or lists that are too long".to_owned());
    }
    let start = |(epoch, life, first)| EpochStart { epoch: Epoch(epoch), life, first };
    let starts: Vec<EpochStart> = body.masterships.into_iter().map(start).collect();
    let ordered = starts.windows(2).all(|w| w[0].first < w[1].first && w[0].epoch < w[1].epoch);
    if !ordered || starts.last().is_some_and(|last| last.first > body.head) {
        return Err("masterships out of order".to_owned());
    }
    let who = Incarnation {
        node: NodeId::new(&body.node),
        instance: body.instance.parse().map_err(|error| format!("instance: {error}"))?,
        boot_id: body.boot_id.parse().map_err(|error| format!("boot_id: {error}"))?,
    };
    let history = History::new(starts, body.head);
    let (life, applied, complete) = (body.life, body.applied, body.complete);
    let follow = Follow { who, life, history, applied, complete };
    Ok(Introduction { pair: body.pair, follow, directory: body.directory })
}

// --- from the master

pub(super) fn write_tail(out: &mut impl Write, epoch: Epoch, after: u64) -> io::Result<()> {
    write(out, TAIL, &[&epoch.0.to_le_bytes(), &after.to_le_bytes()])
}

pub(super) fn write_load(out: &mut impl Write, epoch: Epoch, common: u64) -> io::Result<()> {
    write(out, LOAD, &[&epoch.0.to_le_bytes(), &common.to_le_bytes()])
}

pub(super) fn write_records(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write(out, RECORDS, &[bytes])
}

pub(super) fn write_grown(out: &mut impl Write, last: u64) -> io::Result<()> {
    write(out, GROWN, &[&last.to_le_bytes()])
}

pub(super) fn write_piece(
    out: &mut impl Write,
    piece: &hotpair_core::tables::snapshot::Piece,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode_piece(piece, &mut bytes);
    write(out, PIECE, &[&bytes])
}

pub(super) fn write_digests(
    out: &mut impl Write,
    number: u64,
    digests: &[(String, u128)],
) -> io::Result<()> {
    let mut body = number.to_le_bytes().to_vec();
    for (name, digest) in digests {
        body.push(u8::try_from(name.len()).expect("names of tables are bounded"));
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&digest.to_le_bytes());
    }
    write(out, DIGESTS, &[&body])
}

/// A frame of a master: for the tables as it is, or for the thread that reads the redo files.
pub(super) enum MasterFrame {
    Said(FromMaster),
    /// The log, in the directory that both nodes see, goes up to this record.
    Grown(u64),
}

/// Records as they stand in a frame or a file.
pub(super) fn records_of(bytes: Vec<u8>) -> Result<FromMaster, RedoFrameError> {
    let mut records = Vec::with_capacity(bytes.len() / 128);
    let (mut rest, mut decoder) = (&bytes[..], Decoder::default());
    while !rest.is_empty() {
        let (record, size) = decoder.decode(rest)?;
        records.push(record);
        rest = &rest[size..];
    }
    Ok(FromMaster::Records(records, bytes))
}

/// The next frame of a master.
pub(super) fn read_from_master(input: &mut impl Read) -> Result<MasterFrame, RedoFrameError> {
    let (tag, body) = read(input, REDO_FRAME_BYTES_MAX)?;
    if tag == GROWN {
        return Ok(MasterFrame::Grown(number(&mut &body[..])?));
    }
    said(tag, body).map(MasterFrame::Said)
}

fn said(tag: u8, body: Vec<u8>) -> Result<FromMaster, RedoFrameError> {
    let mut rest = &body[..];
    match tag {
        TAIL => {
            let (epoch, after) = (Epoch(number(&mut rest)?), number(&mut rest)?);
            Ok(FromMaster::Tail { epoch, after })
        }
        LOAD => {
            let (epoch, common) = (Epoch(number(&mut rest)?), number(&mut rest)?);
            Ok(FromMaster::Load { epoch, common })
        }
        RECORDS => records_of(body),
        PIECE => Ok(FromMaster::Piece(decode_piece(rest)?)),
        DIGESTS => {
            let number = number(&mut rest)?;
            let mut digests = Vec::new();
            while let Some((length, after)) = rest.split_first() {
                let (name, after) =
                    after.split_at_checked(usize::from(*length)).ok_or_else(short)?;
                let (digest, after) = after.split_first_chunk::<16>().ok_or_else(short)?;
                let name = std::str::from_utf8(name).map_err(|_| short())?.to_owned();
                digests.push((name, u128::from_le_bytes(*digest)));
                rest = after;
            }
            Ok(FromMaster::Digests { number, digests })
        }
        other => Err(RedoFrameError::Garbage(format!("no frame of a master has the tag {other}"))),
    }
}

// --- from the standby

/// Reads the introduction of a standby off a connection that has none of the link's door before it.
pub(super) fn read_follow(input: &mut impl Read) -> Result<Introduction, RedoFrameError> {
    let (tag, body) = read(input, crate::frame::FRAME_BYTES_MAX)?;
    if tag != FOLLOW_TAG {
        return Err(RedoFrameError::Garbage(format!("tag {tag} where a follow was due")));
    }
    decode_follow(&body).map_err(RedoFrameError::Garbage)
}

pub(super) fn write_held(out: &mut impl Write, held: u64) -> io::Result<()> {
    write(out, HELD, &[&held.to_le_bytes()])
}

/// The next word of a standby: the record up to which it holds all.
pub(super) fn read_held(input: &mut impl Read) -> Result<u64, RedoFrameError> {
    let (tag, body) = read(input, 64)?;
    match tag {
        HELD => number(&mut &body[..]),
        other => Err(RedoFrameError::Garbage(format!("no frame of a standby has the tag {other}"))),
    }
}

/// Entrances for the fuzzer.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{read_follow, read_from_master, read_held};

    pub(crate) fn frames(bytes: &[u8]) {
        let mut master = bytes;
        while read_from_master(&mut master).is_ok() {}
        let mut standby = bytes;
        if read_follow(&mut standby).is_ok() {
            while read_held(&mut standby).is_ok() {}
        }
        let mut held = bytes;
        while read_held(&mut held).is_ok() {}
    }
}

// --- bytes

pub(super) fn write(out: &mut impl Write, tag: u8, parts: &[&[u8]]) -> io::Result<()> {
    let size: usize = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(size).expect("frames are bounded");
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = tag;
    if size <= 256 {
        // Small ones in one packet.
        let small = [&head[..], &parts.concat()].concat();
        return out.write_all(&small);
    }
    out.write_all(&head)?;
    parts.iter().try_for_each(|part| out.write_all(part))
}

fn read(input: &mut impl Read, max: usize) -> Result<(u8, Vec<u8>), RedoFrameError> {
    let mut head = [0; HEAD_BYTES];
    input.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length == 0 || length > max {
        return Err(RedoFrameError::Garbage(format!(
            "a frame of {length} bytes was announced, 1 to {max} are allowed"
        )));
    }
    // Memory grows with what really comes, not with what is announced.
    let mut body = Vec::with_capacity((length - 1).min(1 << 20));
    let came = input.take(length as u64 - 1).read_to_end(&mut body)?;
    if came < length - 1 { Err(RedoFrameError::Ended) } else { Ok((head[4], body)) }
}

fn number(rest: &mut &[u8]) -> Result<u64, RedoFrameError> {
    let (taken, after) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    *rest = after;
    Ok(u64::from_le_bytes(*taken))
}

fn short() -> RedoFrameError {
    RedoFrameError::Garbage("a frame that ends early".to_owned())
}
