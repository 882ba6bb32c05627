//! Complaints about what comes in from outside, so that a flood of it makes no flood of log lines.
//!
//! Each kind is logged when it is new and then at most once a minute, with how many were passed over.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const QUIET: Duration = Duration::from_secs(60);
/// Characters of a complaint that are logged; some of it may be a stranger's.
const SHOWN_MAX: usize = 300;

/// What can be complained of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes that are no frame, or a frame out of place.
    Garbage,
    /// No hello, or no frame, in time; or it does not read our answers.
    Slow,
    /// More connections, or more frames a second, than are allowed.
    Excess,
    /// A node of another pair.
    Stranger,
    /// A certificate that does not fit, or none where one is needed.
    Untrusted,
    /// The listener or the name service reported an error.
    System,
}

#[derive(Debug, Default)]
pub(crate) struct Complaints {
    ledger: Mutex<[Entry; 6]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    logged: Option<Instant>,
    passed_over: u64,
}

impl Complaints {
    /// Logs this complaint, unless one of its kind was logged within the last minute.
    pub(crate) fn note(&self, kind: Kind, from: Option<IpAddr>, what: &dyn fmt::Display) {
        let Some(passed_over) = self.due(kind, Instant::now()) else { return };
        let from = from.map(tracing::field::display);
        let what: String = what.to_string().chars().take(SHOWN_MAX).map(plain).collect();
        tracing::warn!(?kind, from, passed_over, "peer link: {what}");
    }

    /// How many were passed over since the last line; `None` while it is too early for another.
    fn due(&self, kind: Kind, now: Instant) -> Option<u64> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = &mut ledger[kind as usize];
        if entry.logged.is_some_and(|at| now.duration_since(at) < QUIET) {
            entry.passed_over += 1;
            return None;
        }
        entry.logged = Some(now);
        Some(std::mem::take(&mut entry.passed_over))
    }
}

/// A stranger's line break must not begin a log line.
fn plain(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_one_line_a_minute() {
        let complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.due(Kind::Garbage, start), Some(0));
        for _ in 0..1_000 {
            assert_eq!(complaints.due(Kind::Garbage, start + QUIET / 2), None);
        }
        assert_eq!(complaints.due(Kind::Slow, start + QUIET / 2), Some(0));
        assert_eq!(complaints.due(Kind::Garbage, start + QUIET), Some(1_000));
    }
}
