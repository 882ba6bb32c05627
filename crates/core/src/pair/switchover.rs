//! A planned switch as the master goes through it: which step is under way, how long each took, and
//! where it may still be undone.
//!
//! ```text
//!  preflight ─▶ hold ─▶ drain ─▶ barrier ─▶ handover ──┬─▶ resign ─▶ takeover ─▶ the peer serves
//!      │          │       │         │          │       │
//!      │ no       └───────┴─────────┴──────────┘       └ written, or perhaps: nobody acts in this
//!      ▼            missed, or refused: requests         epoch any more, whatever comes
//!   refused         are let in again, same epoch
//! ```
//!
//! The point of no return is the moment the write of `handover` is sent: only a definite refusal leads
//! back from it. Before it, whatever is missed undoes the switch: a call that does not end in time, a
//! barrier that the peer does not hold in time, a peer that could not take over any more.
//!
//! This machine only says what is next; [`super::node`] has it done. A mastership that ends on the
//! way, by a lost lease or anything else, ends as if no switch had been ordered, and the switch then
//! reports who came to serve.

use std::fmt;
use std::sync::Arc;

use super::fact::{Answer, Refusal};
use super::identity::{Epoch, NodeId};
use super::moment::Moment;
use super::planted::Bug;
use super::settings::Settings;

/// How long the peer may take to serve, once the mastership was left.
const TAKEOVER_MS_MAX: u64 = 5_000;

/// The steps of a planned switch, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SwitchoverPhase {
    /// Could the peer take over at all?
    Preflight,
    /// No request is let in any more.
    Hold,
    /// Those inside come to their end.
    Drain,
    /// A record that the peer must have, and so everything before it.
    Barrier,
    /// Writing down to whom the mastership goes.
    Handover,
    /// Giving the epoch back; the gate is closed.
    Resign,
    /// Until the peer is seen to serve.
    Takeover,
}

impl SwitchoverPhase {
    /// Every phase, in order.
    pub const ALL: [Self; 7] = [
        Self::Preflight,
        Self::Hold,
        Self::Drain,
        Self::Barrier,
        Self::Handover,
        Self::Resign,
        Self::Takeover,
    ];

    /// The outside name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Hold => "hold",
            Self::Drain => "drain",
            Self::Barrier => "barrier",
            Self::Handover => "handover",
            Self::Resign => "resign",
            Self::Takeover => "takeover",
        }
    }

    /// Every phase with its limit, if it has one of its own.
    #[must_use]
    pub fn limits(settings: &Settings) -> [(Self, Option<u64>); Self::ALL.len()] {
        Self::ALL.map(|phase| (phase, phase.ms_max(settings)))
    }

    fn ms_max(self, settings: &Settings) -> Option<u64> {
        match self {
            Self::Preflight | Self::Hold | Self::Resign => None,
            Self::Drain => Some(settings.drain_ms_max),
            Self::Barrier => Some(settings.barrier_ms_max),
            Self::Handover => Some(settings.handover_ms_max),
            Self::Takeover => Some(TAKEOVER_MS_MAX),
        }
    }
}

impl fmt::Display for SwitchoverPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an ordered switchover ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchoverReport {
    /// The other node serves now.
    pub done: bool,
    /// A sentence: what happened, or why it was not done.
    pub text: String,
    /// The phases gone through, the last one perhaps not to its end, in milliseconds.
    pub phases: Vec<(SwitchoverPhase, u64)>,
    /// The epoch that is served at the end, as far as it is known.
    pub epoch: Epoch,
}

impl SwitchoverReport {
    /// Refused before anything was done.
    pub(crate) fn refused(text: String, epoch: Epoch) -> Self {
        Self { done: false, text, phases: vec![(SwitchoverPhase::Preflight, 0)], epoch }
    }

    /// `preflight 0 ms, hold 0 ms, …`
    pub(crate) fn phases_in_words(&self) -> String {
        let words: Vec<String> =
            self.phases.iter().map(|(phase, ms)| format!("{phase} {ms} ms")).collect();
        words.join(", ")
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait.
    Nothing,
    /// Write the barrier.
    WriteBarrier,
    /// Write the handover, with this record as the last.
    HandOver { number: u64 },
    /// Leave the mastership: it is the peer's.
    GiveBack,
    /// Let requests in again.
    Undo { why: String },
}

/// A switch under way. See the file's header.
#[derive(Debug)]
pub(crate) struct Switchover {
    pub(crate) order: u64,
    pub(crate) epoch: Epoch,
    pub(crate) to: NodeId,
    /// The hold of the gate that it began with.
    pub(crate) hold: u64,
    step: SwitchoverPhase,
    since: Moment,
    /// When this step must be over; none: it has no limit of its own.
    until: Option<Moment>,
    phases: Vec<(SwitchoverPhase, u64)>,
    /// What went another way than planned, after the point of no return.
    note: Option<String>,
    settings: Arc<Settings>,
}

impl Switchover {
    /// The gate is held since now.
    pub(crate) fn begin(
        now: Moment,
        order: u64,
        epoch: Epoch,
        to: NodeId,
        hold: u64,
        settings: Arc<Settings>,
    ) -> Self {
        let phases = vec![(SwitchoverPhase::Preflight, 0), (SwitchoverPhase::Hold, 0)];
        let until = Some(now + settings.drain_ms_max);
        let step = SwitchoverPhase::Drain;
        Self { order, epoch, to, hold, step, since: now, until, phases, note: None, settings }
    }

    // --- looks

    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.until
    }

    pub(crate) fn step(&self) -> SwitchoverPhase {
        self.step
    }

    /// Nothing was given away yet: it may be undone.
    pub(crate) fn may_be_undone(&self) -> bool {
        self.step < SwitchoverPhase::Handover
    }

    /// The mastership was left, or is about to be in any case.
    pub(crate) fn has_left(&self) -> bool {
        self.step > SwitchoverPhase::Handover
    }

    // --- facts

    pub(crate) fn drained(&mut self, now: Moment, hold: u64) -> Next {
        if self.step != SwitchoverPhase::Drain || hold != self.hold {
            return Next::Nothing; // late: of a hold that is over
        }
        if self.settings.tables {
            self.enter(now, SwitchoverPhase::Barrier);
            Next::WriteBarrier
        } else {
            self.enter(now, SwitchoverPhase::Handover);
            Next::HandOver { number: 0 }
        }
    }

    pub(crate) fn barrier_held(&mut self, now: Moment, hold: u64, number: u64) -> Next {
        if self.step != SwitchoverPhase::Barrier || hold != self.hold {
            return Next::Nothing; // late
        }
        self.enter(now, SwitchoverPhase::Handover);
        Next::HandOver { number }
    }

    pub(crate) fn handed_over(&mut self, now: Moment, answer: Answer) -> Next {
        if self.step != SwitchoverPhase::Handover {
            return Next::Nothing; // its answer was not waited for any more
        }
        match answer {
            Answer::Done { .. } => {}
            // The mastership is lost by that, which is noticed elsewhere.
            Answer::Refused(Refusal::Epoch) => return Next::Nothing,
            Answer::Refused(Refusal::Master | Refusal::Sync | Refusal::Handover) => {
                return Next::Undo { why: "ZooKeeper refused the handover".to_owned() };
            }
            Answer::Ambiguous if self.settings.planted.has(Bug::HandoverForgotten) => {
                return Next::Undo { why: "the handover had no definite answer".to_owned() };
            }
            Answer::Ambiguous => {
                self.note =
                    Some("the handover had no definite answer, so that it stood".to_owned());
            }
        }
        self.enter(now, SwitchoverPhase::Resign);
        Next::GiveBack
    }

    pub(crate) fn resigned(&mut self, now: Moment, epoch: Epoch) {
        if self.step == SwitchoverPhase::Resign && epoch == self.epoch {
            let until = self.until;
            self.enter(now, SwitchoverPhase::Takeover);
            self.until = until; // both together
        }
    }

    /// The mastership ended by itself on the way.
    pub(crate) fn lost(&mut self, now: Moment, why: &str) {
        self.note = Some(format!("during the step {} {why}", self.step));
        self.enter(now, SwitchoverPhase::Takeover);
    }

    /// What a step's deadline leads to, if it has passed.
    pub(crate) fn missed(&mut self, now: Moment) -> Next {
        if self.until.is_none_or(|until| now < until) {
            return Next::Nothing;
        }
        let ms = now.ms_since(self.since);
        match self.step {
            SwitchoverPhase::Drain => {
                Next::Undo { why: format!("calls inside did not end within {ms} ms") }
            }
            SwitchoverPhase::Barrier => Next::Undo {
                why: format!("{} did not hold the barrier record within {ms} ms", self.to),
            },
            SwitchoverPhase::Handover => {
                self.note =
                    Some(format!("the handover had no answer within {ms} ms, so that it stood"));
                self.enter(now, SwitchoverPhase::Resign);
                Next::GiveBack
            }
            // How these end is seen, not decided.
            SwitchoverPhase::Preflight
            | SwitchoverPhase::Hold
            | SwitchoverPhase::Resign
            | SwitchoverPhase::Takeover => Next::Nothing,
        }
    }

    /// The report, with the step under way as the last phase.
    pub(crate) fn report(
        mut self,
        now: Moment,
        outcome: Result<String, String>,
        epoch: Epoch,
    ) -> SwitchoverReport {
        self.phases.push((self.step, now.ms_since(self.since)));
        let done = outcome.is_ok();
        let mut text = outcome.unwrap_or_else(|why| why);
        if let Some(note) = self.note {
            text = format!("{text} ({note})");
        }
        SwitchoverReport { done, text, phases: self.phases, epoch }
    }

    fn enter(&mut self, now: Moment, step: SwitchoverPhase) {
        self.phases.push((self.step, now.ms_since(self.since)));
        self.step = step;
        self.since = now;
        self.until = match step {
            SwitchoverPhase::Resign => Some(now + TAKEOVER_MS_MAX),
            SwitchoverPhase::Preflight
            | SwitchoverPhase::Hold
            | SwitchoverPhase::Drain
            | SwitchoverPhase::Barrier
            | SwitchoverPhase::Handover
            | SwitchoverPhase::Takeover => step.ms_max(&self.settings).map(|ms| now + ms),
        };
    }
}
