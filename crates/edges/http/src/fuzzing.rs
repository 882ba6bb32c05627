//! Entrances for the fuzzer.

use crate::{client, pool};

/// These bytes as the head of an answer, as the pool reads it.
pub fn answer_head(bytes: &[u8]) {
    pool::fuzzing::head(bytes);
}

/// These bytes as a stream of events.
pub fn events(bytes: &[u8]) {
    client::fuzzing::events(bytes);
}
