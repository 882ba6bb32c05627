//! Calls of other people's programs as rows of [`INTENTS`]: first that the program is about to be
//! called, then, in one record with what it changed and the reply, that this is over.
//!
//! ```text
//!   (nothing) ──intent acknowledged──▶ may have been called ──(one record: changes, reply)──▶ gone
//!                                              │
//!              found by a later call ──────────┘  idempotent: called again under the same key
//!                                                 else: nobody can know, and that is the reply
//! ```
//!
//! A row's key is made like that of an asynchronous call: the session's key and the number, so that a
//! session's intents lie side by side and go with it. Whoever ends a call commits only if the row
//! still has the version that its own intent gave it: so a call ends once, whoever else began it.

use super::change::{Bytes, SessionKey};
use super::record::{Reader, RecordError};
use super::tickets;
use crate::pair::identity::Epoch;

/// The table of calls whose program may have been called: key = the session's key and a name.
pub const INTENTS: &str = "hotpair.intents";

/// A row of [`INTENTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The function's number.
    pub function: u32,
    /// The mastership that was about to call its program.
    pub epoch: Epoch,
}

/// What a call may do, from what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Nobody has called the program for it.
    First,
    /// Somebody may have, and it may be called again under the same key.
    Again,
    /// Somebody may have, and nobody will ever know.
    Unknown,
}

/// What a call may do that nobody else is at.
#[must_use]
pub fn begin(found: Option<Intent>, idempotent: bool) -> Beginning {
    match found {
        None => Beginning::First,
        Some(_) if idempotent => Beginning::Again,
        Some(_) => Beginning::Unknown,
    }
}

impl Intent {
    /// As the bytes of a row.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.function.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes
    }

    /// From the bytes of a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(RecordError::Content("an intent of an unknown version"));
        }
        let intent = Self { function: reader.u32()?, epoch: Epoch(reader.u64()?) };
        if reader.bytes.is_empty() {
            Ok(intent)
        } else {
            Err(RecordError::Content("bytes after an intent"))
        }
    }
}

/// The key of a call's row.
#[must_use]
pub fn row_key(session: SessionKey, name: &str) -> Bytes {
    tickets::row_key(session, name)
}

/// What a program knows a call by, whoever calls it and however often: never the session's token.
#[must_use]
pub fn idempotency_key(session: SessionKey, name: &str) -> String {
    format!("{:032x}-{name}", u128::from_be_bytes(session.0))
}

/// The first byte of a row.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_reads_as_it_was_written_and_broken_bytes_are_an_error() {
        let intent = Intent { function: 330_001, epoch: Epoch(7) };
        assert_eq!(Intent::decode(&intent.encode()).unwrap(), intent);
        let mut long = intent.encode();
        long.push(0);
        for broken in [&b""[..], b"\x01abc", b"\x02\0\0\0\0\0\0\0\0\0\0\0\0", &long] {
            assert!(Intent::decode(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn after_an_intent_only_what_bears_it_is_called_again() {
        let found = Some(Intent { function: 1, epoch: Epoch(7) });
        assert_eq!(begin(None, false), Beginning::First);
        assert_eq!(begin(None, true), Beginning::First);
        assert_eq!(begin(found, true), Beginning::Again);
        assert_eq!(begin(found, false), Beginning::Unknown);
    }

    #[test]
    fn a_key_is_the_same_on_either_node_and_another_for_each_call() {
        let key = |session, name| idempotency_key(SessionKey([session; 16]), name);
        assert_eq!(key(1, "17"), "01010101010101010101010101010101-17");
        assert_ne!(key(1, "17"), key(1, "18"));
        assert_ne!(key(1, "17"), key(2, "17"));
    }
}
