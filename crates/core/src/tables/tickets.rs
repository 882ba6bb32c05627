//! Asynchronous calls as rows of [`RESULTS`]: first what was asked for, then what came of it.
//!
//! ```text
//!   accepted ──(one record: the function's changes, and the row's new value)──▶ over ──▶ deleted
//! ```
//!
//! A row's key is its session's key and a ticket, so that a session's rows lie side by side and go
//! with it. Whoever works on a call commits only if the row still has the version in which it was
//! accepted: so a call is done once, however many begin it, on whichever node.

use std::ops::RangeFrom;

use super::change::{Bytes, OperationResult, Reply, SessionKey};
use super::record::{Reader, RecordError, decode_reply, encode_reply};

/// The table of asynchronous calls: key = the session's key and the ticket.
pub const RESULTS: &str = "hotpair.results";

/// A row of [`RESULTS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ticketed {
    /// Still to be done.
    Accepted {
        /// The function's number.
        function: u32,
        /// The longest time that the function may take.
        limit_ms: u64,
        /// What it takes, as the caller sent it.
        arguments: Vec<u8>,
    },
    /// Done: what the operations came to.
    Results(Vec<OperationResult>),
    /// Over: an answer in words of the edge that made it.
    Answer(Bytes),
}

impl Ticketed {
    /// As the bytes of a row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Accepted { function, limit_ms, arguments } => {
                bytes.reserve(13 + arguments.len());
                bytes.push(ACCEPTED);
                bytes.extend_from_slice(&function.to_le_bytes());
                bytes.extend_from_slice(&limit_ms.to_le_bytes());
                bytes.extend_from_slice(arguments);
            }
            Self::Results(results) => {
                bytes.push(RESULTS_OF_OPERATIONS);
                encode_reply(&Reply::Results(results.clone()), &mut bytes);
            }
            Self::Answer(answer) => {
                bytes.reserve(1 + answer.len());
                bytes.push(ANSWER);
                bytes.extend_from_slice(answer);
            }
        }
        bytes
    }

    /// Whether a row holds what came of a call, rather than what is to be done.
    #[must_use]
    pub fn is_over(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|kind| *kind != ACCEPTED)
    }

    /// From the bytes of a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let broken = |what| RecordError::Content(what);
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            ACCEPTED => Ok(Self::Accepted {
                function: reader.u32()?,
                limit_ms: reader.u64()?,
                arguments: reader.bytes.to_vec(),
            }),
            RESULTS_OF_OPERATIONS => match decode_reply(&mut reader)? {
                Reply::Results(results) => Ok(Self::Results(results)),
                Reply::Fixed(_) => Err(broken("an asynchronous call with another reply")),
            },
            ANSWER => Ok(Self::Answer(reader.bytes.into())),
            _ => Err(broken("an asynchronous call of an unknown kind")),
        }
    }
}

/// The key of a call's row.
#[must_use]
pub fn row_key(session: SessionKey, ticket: &str) -> Bytes {
    [&session.0, ticket.as_bytes()].concat().into()
}

/// The ticket within a row's key.
#[must_use]
pub fn ticket_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(TICKET)?).ok()
}

/// Whether a row is one of this session's.
#[must_use]
pub fn is_of(key: &[u8], session: SessionKey) -> bool {
    key.starts_with(&session.0)
}

/// Where the ticket begins in a key: behind the session's.
const TICKET: RangeFrom<usize> = 16..;
const ACCEPTED: u8 = 1;
const RESULTS_OF_OPERATIONS: u8 = 2;
const ANSWER: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_reads_as_it_was_written_and_broken_bytes_are_an_error() {
        let all = [
            Ticketed::Accepted { function: 1006, limit_ms: 30_000, arguments: b"{}".to_vec() },
            Ticketed::Results(vec![
                OperationResult::Added { value: -5 },
                OperationResult::Put { version: 7 },
            ]),
            Ticketed::Answer(b"{\"error_no\":0}".as_slice().into()),
        ];
        for call in all {
            let bytes = call.encode();
            let accepted = matches!(call, Ticketed::Accepted { .. });
            assert_eq!(Ticketed::is_over(&bytes), !accepted);
            assert_eq!(Ticketed::decode(&bytes).unwrap(), call);
        }
        for broken in [&b""[..], b"\x01abc", b"\x02", b"\x02\x02\0\0\0\0", b"\x09x"] {
            assert!(Ticketed::decode(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn rows_of_a_session_lie_side_by_side() {
        let (one, other) = (SessionKey([1; 16]), SessionKey([2; 16]));
        let key = row_key(one, "17");
        assert_eq!(ticket_of(&key), Some("17"));
        assert!(is_of(&key, one) && !is_of(&key, other));
        assert_eq!(ticket_of(b"short"), None);
    }
}
