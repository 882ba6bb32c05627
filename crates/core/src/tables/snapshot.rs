//! The whole store in pieces: for a late peer, and for the disk, so that old redo can go.
//!
//! ```text
//! Begin{history} ─▶ Rows… ─▶ Windows… ─▶ End{until, digests}
//! ```
//!
//! Pieces are cut while the master goes on: each shows its part of the store as it was at its own
//! moment, between the records `from` (the history's end in `Begin`) and `until`. Changes are
//! absolute, so that applying the log from `from` on, up to `until` at least, leads to one store, the
//! right one. Before that the pieces are of no use to anybody.

use std::sync::Arc;

use super::change::{Bytes, SessionKey};
use super::position::{EpochStart, History, STARTS_MAX};
use super::record::{Reader, RecordError, decode_reply, encode_reply, put_bytes};
use super::store::Store;
use super::table::Row;
use super::window::{WINDOW, Window};
use crate::pair::identity::Epoch;

/// Roughly how large a piece is, in bytes.
pub const PIECE_BYTES: usize = 256 * 1024;

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The first: the history up to the record after which the log is to be applied.
    Begin { history: History },
    /// Rows of one table, in the order of their keys.
    Rows { table: Arc<str>, rows: Vec<(Bytes, Row)> },
    /// Windows of sessions.
    Windows { windows: Vec<(SessionKey, Window)> },
    /// The last: the log must be applied up to this record.
    End { until: u64 },
}

/// Where cutting goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cursor {
    /// At the first row of the first table.
    #[default]
    Start,
    /// In this table, after this key.
    Rows { table: Arc<str>, after: Bytes },
    /// At this session.
    Windows { from: SessionKey },
    /// Everything was cut.
    Done,
}

impl Store {
    /// The next piece after the cursor; `None` when there is no more to cut. Takes as long as
    /// copying [`PIECE_BYTES`] does.
    #[must_use]
    pub fn cut(&self, cursor: &mut Cursor) -> Option<Piece> {
        match cursor.clone() {
            Cursor::Start => {
                let first = self.tables().next().map(|(name, _)| name.clone());
                match first {
                    Some(table) => self.cut_rows(table, None, cursor),
                    None => self.cut_windows(SessionKey([0; 16]), cursor),
                }
            }
            Cursor::Rows { table, after } => self.cut_rows(table, Some(&after), cursor),
            Cursor::Windows { from } => self.cut_windows(from, cursor),
            Cursor::Done => None,
        }
    }

    fn cut_rows(
        &self,
        mut table: Arc<str>,
        mut after: Option<&Bytes>,
        cursor: &mut Cursor,
    ) -> Option<Piece> {
        loop {
            let mut rows = Vec::new();
            let mut bytes = 0;
            if let Some(kept) = self.table(&table) {
                let from: &[u8] = after.map_or(&[], |key| key);
                for (key, row) in kept.scan(from).filter(|(key, _)| Some(*key) != after) {
                    bytes += key.len() + row.value.len() + 16;
                    rows.push((key.clone(), row.clone()));
                    if bytes >= PIECE_BYTES {
                        break;
                    }
                }
            }
            if let Some((last, _)) = rows.last() {
                *cursor = Cursor::Rows { table: table.clone(), after: last.clone() };
                return Some(Piece::Rows { table, rows });
            }
            match self.table_after(&table) {
                Some(next) => (table, after) = (next, None),
                None => return self.cut_windows(SessionKey([0; 16]), cursor),
            }
        }
    }

    fn cut_windows(&self, from: SessionKey, cursor: &mut Cursor) -> Option<Piece> {
        let mut windows = Vec::new();
        let mut bytes = 0;
        *cursor = Cursor::Done;
        for (session, window) in self.windows(from) {
            if bytes >= PIECE_BYTES {
                *cursor = Cursor::Windows { from: *session };
                break;
            }
            bytes +=
                32 + window.replies().iter().map(|(_, reply)| 8 + reply.bytes()).sum::<usize>();
            windows.push((*session, window.clone()));
        }
        (!windows.is_empty()).then_some(Piece::Windows { windows })
    }

    fn table_after(&self, name: &str) -> Option<Arc<str>> {
        self.tables().map(|(name, _)| name).find(|other| ***other > *name).cloned()
    }

    /// Puts a piece into a store that is being made.
    pub fn paste(&mut self, piece: Piece) {
        match piece {
            Piece::Begin { history } => self.set_applied(history.head()),
            Piece::Rows { table, rows } => {
                for (key, row) in rows {
                    self.put(&table, &key, row);
                }
            }
            Piece::Windows { windows } => {
                for (session, window) in windows {
                    self.put_window(session, window);
                }
            }
            Piece::End { .. } => {}
        }
    }
}

/// Appends a piece's bytes (without length and checksum: whoever carries it has those).
pub fn encode_piece(piece: &Piece, out: &mut Vec<u8>) {
    match piece {
        Piece::Begin { history } => {
            out.push(1);
            encode_history(history, out);
        }
        Piece::Rows { table, rows } => {
            out.push(2);
            out.push(u8::try_from(table.len()).expect("names are bounded"));
            out.extend_from_slice(table.as_bytes());
            put_u32(rows.len(), out);
            for (key, row) in rows {
                let length = u16::try_from(key.len()).expect("keys are bounded");
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(&row.version.to_le_bytes());
                put_bytes(&row.value, out);
            }
        }
        Piece::Windows { windows } => {
            out.push(3);
            put_u32(windows.len(), out);
            for (session, window) in windows {
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&window.floor().to_le_bytes());
                put_u32(window.replies().len(), out);
                for (number, reply) in window.replies() {
                    out.extend_from_slice(&number.to_le_bytes());
                    encode_reply(reply, out);
                }
            }
        }
        Piece::End { until } => {
            out.push(4);
            out.extend_from_slice(&until.to_le_bytes());
        }
    }
}

/// Reads a piece.
pub fn decode_piece(bytes: &[u8]) -> Result<Piece, RecordError> {
    let mut reader = Reader::new(bytes);
    let piece = match reader.u8()? {
        1 => Piece::Begin { history: read_history(&mut reader)? },
        2 => {
            let table = reader.table()?;
            let count = reader.u32()?;
            let mut rows = Vec::new();
            for _ in 0..count {
                let key = reader.key()?;
                let version = reader.u64()?;
                rows.push((key, Row { value: reader.value()?, version }));
            }
            Piece::Rows { table, rows }
        }
        3 => {
            let count = reader.u32()?;
            let mut windows = Vec::new();
            for _ in 0..count {
                windows.push(read_window(&mut reader)?);
            }
            Piece::Windows { windows }
        }
        4 => Piece::End { until: reader.u64()? },
        _ => return Err(RecordError::Content("an unknown piece")),
    };
    if reader.bytes.is_empty() {
        Ok(piece)
    } else {
        Err(RecordError::Content("bytes after a piece"))
    }
}

/// Appends a history's bytes.
pub fn encode_history(history: &History, out: &mut Vec<u8>) {
    out.extend_from_slice(&history.head().to_le_bytes());
    put_u32(history.starts().len(), out);
    for start in history.starts() {
        for number in [start.epoch.0, start.life, start.first] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// Reads a history that fills all of these bytes.
pub fn decode_history(bytes: &[u8]) -> Result<History, RecordError> {
    let mut reader = Reader::new(bytes);
    let history = read_history(&mut reader)?;
    if reader.bytes.is_empty() {
        Ok(history)
    } else {
        Err(RecordError::Content("bytes after a history"))
    }
}

fn read_history(reader: &mut Reader<'_>) -> Result<History, RecordError> {
    let head = reader.u64()?;
    let count = reader.u32()? as usize;
    if count > STARTS_MAX {
        return Err(RecordError::Content("more masterships than are remembered"));
    }
    let mut starts: Vec<EpochStart> = Vec::with_capacity(count);
    for _ in 0..count {
        let (epoch, life, first) = (Epoch(reader.u64()?), reader.u64()?, reader.u64()?);
        let after = starts.last().is_none_or(|last| last.first < first && last.epoch < epoch);
        if !after || first == 0 || first > head {
            return Err(RecordError::Content("masterships out of order"));
        }
        starts.push(EpochStart { epoch, life, first });
    }
    Ok(History::new(starts, head))
}

fn read_window(reader: &mut Reader<'_>) -> Result<(SessionKey, Window), RecordError> {
    let session = SessionKey(reader.take(16)?.try_into().expect("sixteen bytes"));
    let floor = reader.u64()?;
    let count = reader.u32()?;
    if u64::from(count) > WINDOW {
        return Err(RecordError::Content("more replies than a window holds"));
    }
    let mut replies: Vec<(u64, super::change::Reply)> = Vec::new();
    for _ in 0..count {
        let number = reader.u64()?;
        if number <= replies.last().map_or(floor, |(last, _)| *last) {
            return Err(RecordError::Content("replies out of order"));
        }
        replies.push((number, decode_reply(reader)?));
    }
    Ok((session, Window::new(floor, replies)))
}

fn put_u32(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(count).expect("pieces are bounded").to_le_bytes());
}
