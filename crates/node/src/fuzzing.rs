//! Entrances for the fuzzer.

/// This text as a node's file, and as a router's.
pub fn config(text: &str) {
    crate::config::fuzzing::both(text);
}

/// This text as a users file.
pub fn users(text: &str) {
    let _ = crate::config::users::users_rows(text);
}
