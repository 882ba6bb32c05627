//! Entrances for the fuzzer.

use crate::redo::fuzzing;

/// These bytes as frames of a master, and as frames of a standby.
pub fn redo_frames(bytes: &[u8]) {
    fuzzing::frames(bytes);
}
