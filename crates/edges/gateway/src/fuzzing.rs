//! Entrances for the fuzzer.

/// These bytes as the answer of a program, with each kind of status.
pub fn program_answer(body: &[u8]) {
    crate::sidecar::fuzzing::answer(body);
}
