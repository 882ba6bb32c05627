//! Where to send next, how long to wait first, and whether to send again at all: decided here, done
//! elsewhere.
//!
//! [`Targets`] is what a client knows of the addresses it was given; all its requests share it. A
//! [`Course`] is one request on its way. Whoever does the sending tells both what was [`Heard`], and
//! carries out the [`Next`] step.
//!
//! ```text
//!            ┌──────────── Again { wait } ◀──────────┐
//!            ▼                                       │
//!  choose a target ─▶ send ─▶ heard ─▶ Course::next ─┴▶ Take | Fail
//! ```
//!
//! The rules: the address that answered last is asked again; when it is lost, the first in the given
//! order that is not known to be dead; one that does not serve says who does, or the next one is
//! asked. A request is sent again only if it surely was not executed, or if it may be executed twice
//! without harm: because it is numbered, or changes nothing.

use std::time::Duration;

use hotpair_protocol::{Envelope, ErrorNumber};

/// Milliseconds on the client's own clock.
pub(crate) type Moment = u64;

/// What came of one sending.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    /// An envelope.
    Answer(Envelope),
    /// Empty, status 503: a router's word that both nodes are down.
    BothDown,
    /// No answer.
    Nothing {
        /// Whether the request may have arrived.
        was_sent: bool,
        /// For people.
        why: String,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// The envelope is the answer.
    Take(Envelope),
    /// Send again after so long.
    Again { wait: Duration },
    /// Nobody knows whether it was executed, and sending it again might do it twice.
    Unknown { why: String },
}

/// The addresses a client knows, as all its requests found them.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    all: Vec<Target>,
    preferred: usize,
    /// The largest epoch that was answered in: an answer of a smaller one is none.
    epoch: u64,
}

#[derive(Clone, Debug)]
struct Target {
    address: String,
    /// Not asked before then, unless there is no other.
    dead_until: Moment,
    dead_in_a_row: u32,
}

impl Targets {
    /// These addresses, `host:port`, the first one first.
    pub(crate) fn new(addresses: Vec<String>) -> Self {
        let target = |address| Target { address, dead_until: 0, dead_in_a_row: 0 };
        Self { all: addresses.into_iter().map(target).collect(), preferred: 0, epoch: 0 }
    }

    /// The address to ask now.
    pub(crate) fn choose(&self, now: Moment) -> String {
        let alive = |target: &&Target| target.dead_until <= now;
        let preferred = self.all.get(self.preferred).filter(alive);
        let first = preferred.or_else(|| self.all.iter().find(alive));
        let soonest = || self.all.iter().min_by_key(|target| target.dead_until);
        first.or_else(soonest).map(|target| target.address.clone()).unwrap_or_default()
    }

    /// What an address answered, or that it did not.
    pub(crate) fn handle(&mut self, now: Moment, address: &str, heard: &Heard) {
        let Some(index) = self.all.iter().position(|target| target.address == address) else {
            return;
        };
        match heard {
            Heard::Nothing { .. } => self.lose(now, index),
            // The other router may see more.
            Heard::BothDown => self.lose(now, index),
            Heard::Answer(envelope) => {
                let target = &mut self.all[index];
                (target.dead_until, target.dead_in_a_row) = (0, 0);
                if envelope.error_no == ErrorNumber::NotServing {
                    self.follow(now, index, envelope);
                } else if envelope.epoch >= self.epoch {
                    self.epoch = envelope.epoch;
                    self.preferred = index;
                }
            }
        }
    }

    /// Whether an answer is of an epoch that is over: from a master that does not know it.
    pub(crate) fn is_stale(&self, heard: &Heard) -> bool {
        matches!(heard, Heard::Answer(envelope) if envelope.epoch < self.epoch
            && envelope.error_no != ErrorNumber::NotServing)
    }

    fn lose(&mut self, now: Moment, index: usize) {
        let target = &mut self.all[index];
        let pause = DEAD_MS.saturating_mul(1 << target.dead_in_a_row.min(8)).min(DEAD_MS_MAX);
        target.dead_in_a_row += 1;
        target.dead_until = now + pause;
        if self.preferred == index {
            // The same rule as at the beginning: in the order in which they were given.
            let alive = self.all.iter().position(|target| target.dead_until <= now);
            self.preferred = alive.unwrap_or((index + 1) % self.all.len());
        }
    }

    /// From one that does not serve to the one that does, as far as it says so.
    fn follow(&mut self, now: Moment, index: usize, envelope: &Envelope) {
        if self.preferred != index {
            return; // somebody has been led on since
        }
        let named = envelope.data.get("master").and_then(|master| master.as_str());
        let named =
            named.map(|address| address.split_once("://").map_or(address, |(_, address)| address));
        if let Some(address) = named.filter(|address| is_address(address)) {
            self.preferred = self.place_of(address);
        }
        // Named and dead: what was said is older than what was seen.
        if self.preferred == index || self.all[self.preferred].dead_until > now {
            self.preferred = (index + 1) % self.all.len();
        }
    }

    fn place_of(&mut self, address: &str) -> usize {
        let known = self.all.iter().position(|target| target.address == address);
        known.unwrap_or_else(|| {
            // Those that others named make room for each other, those that were given stay.
            self.all.truncate(TARGETS_MAX - 1);
            let address = address.to_owned();
            self.all.push(Target { address, dead_until: 0, dead_in_a_row: 0 });
            self.all.len() - 1
        })
    }
}

/// One request on its way. See the file's header.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// It may be executed twice without harm.
    repeatable: bool,
    /// Sendings without a definite answer.
    unanswered: u32,
    tries: u32,
}

impl Course {
    pub(crate) fn new(repeatable: bool) -> Self {
        Self { repeatable, unanswered: 0, tries: 0 }
    }

    /// Whether it may have been executed at some sending that was never answered.
    pub(crate) fn may_be_done(&self) -> bool {
        self.unanswered > 0
    }

    /// What to do about what was heard. `permille` is random, of a thousand: those who were sent away
    /// together do not come back together.
    pub(crate) fn next(&mut self, heard: Heard, stale: bool, permille: u64) -> Next {
        self.tries += 1;
        let backoff = BACKOFF_MS << self.tries.min(4);
        match heard {
            Heard::Answer(_) if stale => {
                self.unheard("answered in an epoch that is over".to_owned(), backoff, permille)
            }
            Heard::Nothing { was_sent: true, why } => self.unheard(why, backoff, permille),
            // The next address at once, unless all have been asked.
            Heard::Nothing { was_sent: false, .. } => {
                let wait = if self.tries <= 2 { 0 } else { backoff };
                Next::Again { wait: jittered(wait, permille) }
            }
            Heard::BothDown => Next::Again { wait: jittered(DOWN_MS, permille) },
            Heard::Answer(envelope) => self.answered(envelope, backoff, permille),
        }
    }

    fn unheard(&mut self, why: String, backoff: u64, permille: u64) -> Next {
        self.unanswered += 1;
        if !self.repeatable {
            return Next::Unknown { why };
        }
        let wait = if self.tries <= 2 { 0 } else { backoff };
        Next::Again { wait: jittered(wait, permille) }
    }

    fn answered(&mut self, envelope: Envelope, backoff: u64, permille: u64) -> Next {
        let asked = envelope.retry_after_ms;
        match envelope.error_no {
            ErrorNumber::Switching | ErrorNumber::NotServing => {
                let executed = envelope.data.get("executed").and_then(|known| known.as_str());
                if executed == Some("unknown") {
                    self.unanswered += 1;
                    if !self.repeatable {
                        return Next::Unknown { why: envelope.error_info };
                    }
                }
                // One that names the master, or the first that does not serve: the other one now.
                let at_once = envelope.error_no == ErrorNumber::NotServing && self.tries <= 2;
                let wait = if at_once { 0 } else { asked.unwrap_or(backoff) };
                Next::Again { wait: jittered(wait, permille) }
            }
            ErrorNumber::Overloaded | ErrorNumber::DatasetLoading if envelope.ticket.is_none() => {
                Next::Again { wait: jittered(asked.unwrap_or(backoff), permille) }
            }
            ErrorNumber::Done
            | ErrorNumber::SessionUnknown
            | ErrorNumber::WrongPassword
            | ErrorNumber::Malformed
            | ErrorNumber::NoSuchFunction
            | ErrorNumber::Overloaded
            | ErrorNumber::TooOld
            | ErrorNumber::DatasetLoading
            | ErrorNumber::FunctionFailed
            | ErrorNumber::NotAllowed
            | ErrorNumber::DatasetFailed
            | ErrorNumber::OutcomeUnknown
            | ErrorNumber::TimedOut => Next::Take(envelope),
        }
    }
}

/// Between half of it and one and a half.
fn jittered(ms: u64, permille: u64) -> Duration {
    Duration::from_millis(ms.saturating_mul(500 + permille.min(1_000)) / 1_000)
}

/// Whether this is `host:port`.
pub(crate) fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        !host.is_empty() && host.bytes().all(plain) && port.parse::<u16>().is_ok()
    })
}

/// How long an address that was lost is not asked, the first time.
const DEAD_MS: u64 = 250;
const DEAD_MS_MAX: u64 = 2_000;
const BACKOFF_MS: u64 = 10;
/// Between two looks whether anybody is there again.
const DOWN_MS: u64 = 200;
/// Addresses that are kept.
const TARGETS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn two() -> Targets {
        Targets::new(vec!["a:1".to_owned(), "b:2".to_owned()])
    }

    fn done(epoch: u64) -> Heard {
        Heard::Answer(Envelope::done(epoch, json!({})))
    }

    fn refused(error_no: ErrorNumber, data: serde_json::Value) -> Heard {
        Heard::Answer(Envelope::refused(error_no, 1, "why").with_data(data))
    }

    fn nothing(was_sent: bool) -> Heard {
        Heard::Nothing { was_sent, why: "lost".to_owned() }
    }

    #[test]
    fn the_first_is_asked_first_and_whoever_answers_is_asked_again() {
        let mut targets = two();
        assert_eq!(targets.choose(0), "a:1");
        targets.handle(0, "a:1", &nothing(false));
        assert_eq!(targets.choose(0), "b:2");
        targets.handle(0, "b:2", &done(3));
        assert_eq!(targets.choose(DEAD_MS * 4), "b:2");
        // Lost: by the same rule as at the beginning.
        targets.handle(DEAD_MS * 4, "b:2", &nothing(true));
        assert_eq!(targets.choose(DEAD_MS * 4), "a:1");
    }

    #[test]
    fn one_that_is_lost_again_and_again_is_asked_more_seldom_but_always_again() {
        let mut targets = two();
        let mut now = 0;
        for _ in 0..20 {
            targets.handle(now, "a:1", &nothing(true));
            targets.handle(now, "b:2", &refused(ErrorNumber::NotServing, json!({})));
            assert_eq!(targets.choose(now), "b:2");
            now += DEAD_MS_MAX;
        }
        assert_eq!(targets.choose(now), "a:1");
        // All are dead: the one that is so for the shortest time.
        targets.handle(now, "a:1", &nothing(true));
        targets.handle(now + 1, "b:2", &nothing(true));
        assert_eq!(targets.choose(now + 2), "b:2");
    }

    #[test]
    fn who_does_not_serve_says_where_to_go() {
        let mut targets = two();
        let master = json!({"master": "c:3"});
        targets.handle(0, "a:1", &refused(ErrorNumber::NotServing, master.clone()));
        assert_eq!(targets.choose(0), "c:3");
        targets.handle(0, "c:3", &refused(ErrorNumber::NotServing, json!({"master": "c:3"})));
        assert_eq!(targets.choose(0), "a:1");
        // Named, and seen to be dead.
        targets.handle(0, "c:3", &nothing(false));
        targets.handle(0, "a:1", &refused(ErrorNumber::NotServing, master));
        assert_eq!(targets.choose(0), "b:2");
        targets.handle(
            0,
            "b:2",
            &refused(ErrorNumber::NotServing, json!({"master": "no address"})),
        );
        assert_ne!(targets.choose(0), "no address");
        for port in 0..100 {
            let address = targets.choose(0);
            let other = json!({"master": format!("d:{port}")});
            targets.handle(0, &address, &refused(ErrorNumber::NotServing, other));
        }
        assert!(targets.all.len() <= TARGETS_MAX);
        assert_eq!(targets.all[0].address, "a:1");
    }

    #[test]
    fn an_answer_of_an_epoch_that_is_over_is_none() {
        let mut targets = two();
        targets.handle(0, "b:2", &done(8));
        assert!(targets.is_stale(&done(7)) && !targets.is_stale(&done(8)));
        // One that does not serve knows no better.
        assert!(!targets.is_stale(&refused(ErrorNumber::NotServing, json!({}))));
        let mut numbered = Course::new(true);
        assert!(matches!(numbered.next(done(7), true, 500), Next::Again { .. }));
        let mut other = Course::new(false);
        assert!(matches!(other.next(done(7), true, 500), Next::Unknown { .. }));
    }

    #[test]
    fn a_request_that_may_have_been_done_is_sent_again_only_if_that_is_harmless() {
        let unknown = json!({"executed": "unknown"});
        for heard in [
            nothing(true),
            refused(ErrorNumber::NotServing, unknown.clone()),
            refused(ErrorNumber::Switching, unknown),
        ] {
            let mut numbered = Course::new(true);
            assert!(matches!(numbered.next(heard.clone(), false, 0), Next::Again { .. }));
            assert!(numbered.may_be_done());
            assert!(matches!(Course::new(false).next(heard, false, 0), Next::Unknown { .. }));
        }
        for heard in [
            nothing(false),
            Heard::BothDown,
            refused(ErrorNumber::NotServing, json!({})),
            refused(ErrorNumber::Switching, json!({})),
            refused(ErrorNumber::Overloaded, json!({})),
            refused(ErrorNumber::DatasetLoading, json!({})),
        ] {
            let mut course = Course::new(false);
            assert!(matches!(course.next(heard, false, 0), Next::Again { .. }));
            assert!(!course.may_be_done());
        }
    }

    #[test]
    fn every_other_number_is_the_answer() {
        let again = [
            ErrorNumber::Switching,
            ErrorNumber::NotServing,
            ErrorNumber::Overloaded,
            ErrorNumber::DatasetLoading,
        ];
        for error_no in ErrorNumber::ALL {
            let next = Course::new(true).next(refused(error_no, json!({})), false, 500);
            let is_again = matches!(next, Next::Again { .. });
            assert_eq!(is_again, again.contains(&error_no), "{error_no}");
        }
        // What an asynchronous call came to is an answer whatever it says.
        let mut kept = Envelope::refused(ErrorNumber::Overloaded, 1, "then");
        kept.ticket = Some("7".to_owned());
        assert!(matches!(Course::new(true).next(Heard::Answer(kept), false, 0), Next::Take(_)));
    }

    #[test]
    fn waiting_goes_by_the_answer_and_spreads() {
        let heard = || {
            Heard::Answer(
                Envelope::refused(ErrorNumber::Switching, 1, "why").with_retry_after_ms(1_000),
            )
        };
        let wait = |permille| Course::new(true).next(heard(), false, permille);
        assert_eq!(wait(0), Next::Again { wait: Duration::from_millis(500) });
        assert_eq!(wait(1_000), Next::Again { wait: Duration::from_millis(1_500) });
    }
}
