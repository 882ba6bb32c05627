//! What is told to systemd, and what is watched on its behalf.
//!
//! The watchdog is fed from the control thread, and only as long as the loops that accept clients
//! turn. Blocked business workers alone do not count: the acceptor turns without them.

use std::sync::Arc;

use hotpair_core::pair::Moment;
use hotpair_core::pair::fact::Fact;
use hotpair_core::pair::identity::{Contact, Role};
use hotpair_core::pair::view::View;
use hotpair_http::Counters;
use sd_notify::NotifyState;

use crate::boot_clock;

/// How often the acceptors are looked at.
const LOOK_MS: u64 = 500;
/// An acceptor that has not turned for so long is said to stand still.
const STILL_MS: u64 = 3_000;

/// The supervisor's side of the control thread.
pub(crate) struct Supervisor {
    watched: Vec<(&'static str, Arc<Counters>, u64, Moment)>,
    feed_every_ms: Option<u64>,
    next_look: Moment,
    next_feed: Moment,
    ready: bool,
    status: String,
}

impl Supervisor {
    /// Watches these loops; feeds systemd's watchdog if it has one for us.
    pub(crate) fn new(watched: Vec<(&'static str, Arc<Counters>)>) -> Self {
        let now = boot_clock::now();
        let watched =
            watched.into_iter().map(|(name, turns)| (name, turns, u64::MAX, now)).collect();
        let feed_every_ms = sd_notify::watchdog_enabled()
            .map(|limit| u64::try_from(limit.as_millis() / 3).unwrap_or(1_000).max(1));
        Self {
            watched,
            feed_every_ms,
            next_look: now,
            next_feed: now,
            ready: false,
            status: String::new(),
        }
    }

    /// When `turn` wants to be called next.
    pub(crate) fn deadline(&self) -> Moment {
        match self.feed_every_ms {
            Some(_) => self.next_look.min(self.next_feed),
            None => self.next_look,
        }
    }

    /// Looks at the acceptors and feeds the watchdog, when it is time to.
    pub(crate) fn turn(&mut self, now: Moment) -> Option<Fact> {
        if now < self.deadline() {
            return None;
        }
        let mut stalled = None;
        for (name, turns, seen, at) in &mut self.watched {
            let count = turns.turns();
            if count != *seen {
                (*seen, *at) = (count, now);
            }
            let for_ms = now.ms_since(*at);
            if for_ms > STILL_MS {
                tracing::error!(acceptor = *name, for_ms, "an accepting loop stands still");
                stalled = Some(for_ms);
            }
        }
        self.next_look = now + LOOK_MS;
        if let Some(every) = self.feed_every_ms {
            self.next_feed = now + every;
            if stalled.is_none() {
                tell(&[NotifyState::Watchdog]);
            }
        }
        stalled.map(|for_ms| Fact::ServingStalled { for_ms })
    }

    /// Says READY once this node serves or stands by, and its state whenever that changes.
    pub(crate) fn look(&mut self, view: &View) {
        let standing_by = view.role == Role::Standby
            && view.contact == Contact::Connected
            && view.holder.is_some();
        if !self.ready && (view.serving || standing_by) {
            self.ready = true;
            tell(&[NotifyState::Ready]);
        }
        let status = format!("{}, epoch {}: {}", view.role, view.epoch, view.reason);
        if status != self.status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// The process is about to end.
    pub(crate) fn stopping(&mut self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Not under systemd there is nobody to tell, and a supervisor that does not listen is its own
    // affair.
    let _ = sd_notify::notify(states);
}
