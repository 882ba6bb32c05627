//! The peer detector: is the other node there, what does it say, and is its process dead?
//!
//! One link, dialled by us, carries our pings; the peer dials its own. Three things can be known:
//!
//! ```text
//!            dial ok                        3 pings unanswered
//!   Down ─────────────▶ Open ─────────────────────────────────▶ Down, silent
//!    ▲                   │ FIN or RST
//!    │ other failure     ▼
//!    └─────────────── Proving ── refused 3 times in a row ──▶ gone (until the next welcome)
//! ```
//!
//! *Silent* is the absence of proof of life: a cut, a freeze, a dead machine. *Gone* is proof of
//! death: the peer's kernel closed the link, and nobody listens any more. A refused connection
//! alone is no proof, because a firewall refuses as well while the process lives; and a word heard
//! from the peer over its own link starts the proof again.
//!
//! The detector never decides who serves. It says what it knows, the election asks.

use std::collections::VecDeque;
use std::sync::Arc;

use super::effect::Effect;
use super::fact::{DialFailure, LinkEnd};
use super::identity::{Identity, Statement};
use super::moment::{Moment, earlier};
use super::planted::Bug;
use super::settings::Settings;

/// Refusals in a row that prove, after the link's end, that nobody listens.
const REFUSALS_MIN: u32 = 3;
/// Connections that end before a welcome are dialled again at once, at most so often in a row.
const EARLY_ENDS_MAX: u32 = 20;
/// A peer silent for long is dialled less often, so that a frozen one does not wake to a heap.
const SLOW_DIAL_MS: u64 = 1_000;
/// From so many missed pings on, dialling is slow.
const SLOW_DIAL_AFTER: u32 = 20;

/// What one heard statement was and when.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What the peer said.
    pub statement: Statement,
    /// When it reached us.
    pub at: Moment,
}

/// A statement that answers a ping: it was made after the ping was sent. What the peer says over
/// its own link may have been held up on the way for long.
#[derive(Clone, Debug)]
struct Answered {
    heard: Heard,
    asked_at: Moment,
}

/// The peer, as far as it can be known from here.
#[derive(Debug)]
pub struct Detector {
    settings: Arc<Settings>,
    link: Link,
    outstanding: VecDeque<(u64, Moment)>,
    next_number: u64,
    next_ping: Moment,
    unanswered: u32,
    /// Since when the peer is not quite there: its link's end, or its first missed ping.
    trouble_since: Option<Moment>,
    heard: Option<Heard>,
    answered: Option<Answered>,
    /// Who welcomed us on the newest link: what its end tells is told of that process only.
    welcomed_by: Option<Arc<Identity>>,
    proof: Option<Proof>,
    early_ends: u32,
    /// A dial has ended, well or not.
    tried: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Link {
    Down { next_dial: Moment },
    Dialing { since: Moment },
    Open,
}

/// How far the proof of the peer's death has come.
#[derive(Clone, Debug)]
struct Proof {
    of: Arc<Identity>,
    refused: u32,
}

impl Detector {
    /// A detector that dials at once.
    #[must_use]
    pub fn new(now: Moment, settings: Arc<Settings>) -> Self {
        Self {
            settings,
            link: Link::Down { next_dial: now },
            outstanding: VecDeque::new(),
            next_number: 1,
            next_ping: now,
            unanswered: 0,
            trouble_since: None,
            heard: None,
            answered: None,
            welcomed_by: None,
            proof: None,
            early_ends: 0,
            tried: false,
        }
    }

    // --- looks

    /// Our link to the peer is open.
    #[must_use]
    pub fn reachable(&self) -> bool {
        self.link == Link::Open && !self.silent()
    }

    /// The last pings, as many as configured, got no answer.
    #[must_use]
    pub fn silent(&self) -> bool {
        self.unanswered >= self.settings.ping_count
    }

    /// The process that said this last is proven dead.
    #[must_use]
    pub fn gone(&self) -> Option<&Arc<Identity>> {
        let said_last = |p: &&Proof| {
            self.heard.as_ref().is_some_and(|h| h.statement.identity.life == p.of.life)
        };
        self.proof.as_ref().filter(|p| p.refused >= REFUSALS_MIN).filter(said_last).map(|p| &p.of)
    }

    /// The newest word of the peer.
    #[must_use]
    pub fn heard(&self) -> Option<&Heard> {
        self.heard.as_ref()
    }

    /// The newest answer, if it answers a ping sent at `moment` or later.
    #[must_use]
    pub fn answer_since(&self, moment: Moment) -> Option<&Heard> {
        self.answered.as_ref().filter(|a| a.asked_at >= moment).map(|a| &a.heard)
    }

    /// It was asked at least once, answered or not.
    #[must_use]
    pub fn tried(&self) -> bool {
        self.tried
    }

    /// Pings unanswered in a row.
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Since when something is wrong with the peer, if it is.
    #[must_use]
    pub fn trouble_since(&self) -> Option<Moment> {
        self.trouble_since
    }

    /// When this wants to be woken.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        if !self.settings.peer {
            return None;
        }
        let oldest = self.outstanding.front().map(|(_, at)| *at + self.settings.ping_timeout_ms);
        match self.link {
            Link::Open => earlier(oldest, Some(self.next_ping)),
            Link::Down { next_dial } => Some(next_dial),
            // The driver answers each dial; this is only in case it does not.
            Link::Dialing { since } => Some(since + 10 * self.settings.ping_timeout_ms),
        }
    }

    // --- facts

    pub(crate) fn handle_link_opened(&mut self, now: Moment, statement: Statement) {
        self.tried = true;
        self.link = Link::Open;
        self.early_ends = 0;
        self.proof = None;
        self.outstanding.clear();
        self.unanswered = 0;
        self.trouble_since = None;
        self.next_ping = now;
        self.welcomed_by = Some(statement.identity.clone());
        self.note(now, statement);
    }

    pub(crate) fn handle_dial_failed(&mut self, now: Moment, how: DialFailure) {
        self.tried = true;
        let retry_at_once = match how {
            DialFailure::Refused => {
                self.miss();
                match &mut self.proof {
                    Some(proof) => {
                        proof.refused += 1;
                        proof.refused < REFUSALS_MIN
                    }
                    None => false,
                }
            }
            DialFailure::EndedEarly => {
                self.early_ends += 1;
                self.early_ends < EARLY_ENDS_MAX
            }
            DialFailure::TimedOut | DialFailure::Unreachable | DialFailure::Rejected => {
                self.miss();
                self.proof = None;
                false
            }
        };
        let wait = if retry_at_once { 0 } else { self.dial_wait_ms() };
        self.link = Link::Down { next_dial: now + wait };
    }

    pub(crate) fn handle_link_ended(&mut self, now: Moment, how: LinkEnd) {
        if self.link != Link::Open {
            return;
        }
        self.trouble_since.get_or_insert(now);
        let closed_by_peer = match how {
            LinkEnd::Fin | LinkEnd::Reset => true,
            LinkEnd::Lost => self.settings.planted.has(Bug::RefusedAlone),
        };
        let welcomed_by = self.welcomed_by.take().filter(|_| closed_by_peer);
        self.proof = welcomed_by.map(|of| Proof { of, refused: 0 });
        self.outstanding.clear();
        self.link = Link::Down { next_dial: now };
    }

    pub(crate) fn handle_ping_answered(&mut self, now: Moment, number: u64, statement: Statement) {
        let Some(at) = self.outstanding.iter().position(|(n, _)| *n == number) else {
            return; // answered too late: it was counted as unanswered, and proves nothing now
        };
        let (_, asked_at) = self.outstanding[at];
        self.outstanding.drain(..=at);
        self.unanswered = 0;
        self.trouble_since = None;
        self.answered =
            Some(Answered { heard: Heard { statement: statement.clone(), at: now }, asked_at });
        self.note(now, statement);
    }

    /// The peer said something over its own link.
    pub(crate) fn handle_peer_asked(&mut self, now: Moment, statement: Statement) {
        if let Some(proof) = &mut self.proof
            && proof.of == statement.identity
            && proof.refused > 0
        {
            proof.refused = 0;
            if let Link::Down { next_dial } = &mut self.link {
                *next_dial = now;
            }
        }
        // The peer lives: no need to wait for the next slow dial.
        if let Link::Down { next_dial } = &mut self.link {
            *next_dial = (*next_dial).min(now + self.settings.ping_interval_ms);
        }
        self.note(now, statement);
    }

    pub(crate) fn handle_timeout(
        &mut self,
        now: Moment,
        say: &dyn Fn() -> Statement,
        fx: &mut Vec<Effect>,
    ) {
        if !self.settings.peer {
            return;
        }
        self.count_unanswered(now, fx);
        match self.link {
            Link::Open if now >= self.next_ping => self.send_ping(now, say, fx),
            Link::Down { next_dial } if now >= next_dial => {
                self.link = Link::Dialing { since: now };
                fx.push(Effect::Dial { statement: say() });
            }
            Link::Dialing { since } if now >= since + 10 * self.settings.ping_timeout_ms => {
                self.handle_dial_failed(now, DialFailure::TimedOut);
            }
            Link::Open | Link::Down { .. } | Link::Dialing { .. } => {}
        }
    }

    // --- commands

    /// Ping now, so that a fresh answer comes (or the peer hears our news) without waiting.
    pub(crate) fn ping_now(
        &mut self,
        now: Moment,
        say: &dyn Fn() -> Statement,
        fx: &mut Vec<Effect>,
    ) {
        if self.link == Link::Open {
            self.send_ping(now, say, fx);
        }
    }

    /// After a stall of our own, silence counted so far means nothing.
    pub(crate) fn forget_silence(&mut self, now: Moment) {
        self.unanswered = 0;
        self.trouble_since = None;
        self.outstanding.clear();
        self.proof = None;
        self.next_ping = now;
    }

    fn send_ping(&mut self, now: Moment, say: &dyn Fn() -> Statement, fx: &mut Vec<Effect>) {
        // Bounded: what is older than the time-out leaves the queue in `count_unanswered`.
        if self.outstanding.len() >= 64 {
            self.outstanding.pop_front();
        }
        let number = self.next_number;
        self.next_number += 1;
        self.outstanding.push_back((number, now));
        self.next_ping = now + self.settings.ping_interval_ms;
        fx.push(Effect::SendPing { number, statement: say() });
    }

    fn count_unanswered(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        while let Some((_, sent_at)) = self.outstanding.front().copied()
            && now >= sent_at + self.settings.ping_timeout_ms
        {
            self.outstanding.pop_front();
            self.trouble_since.get_or_insert(sent_at);
            self.miss();
        }
        if self.link == Link::Open && self.silent() {
            // A silent link is not the peer's end of it: no proof starts here. Dialling anew finds
            // the peer sooner than the retransmissions of a connection that was cut.
            fx.push(Effect::DropLink);
            self.handle_link_ended(now, LinkEnd::Lost);
        }
    }

    fn miss(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    fn note(&mut self, now: Moment, statement: Statement) {
        // Both only grow in one life: what says less was said earlier, and held up on the way.
        let old_word = self.heard.as_ref().is_some_and(|heard| {
            let newest = &heard.statement;
            newest.identity.life == statement.identity.life
                && (statement.left < newest.left || statement.epoch < newest.epoch)
        });
        if old_word {
            return;
        }
        self.heard = Some(Heard { statement, at: now });
    }

    fn dial_wait_ms(&self) -> u64 {
        if self.unanswered >= SLOW_DIAL_AFTER {
            SLOW_DIAL_MS.max(self.settings.ping_interval_ms)
        } else {
            self.settings.ping_interval_ms
        }
    }
}
