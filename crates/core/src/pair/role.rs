//! The role machine: what this node does about its standing.
//!
//! ```text
//!              elected  tables ready  gate opened
//!   Standby ────────────▶ Promoting ─────────────▶ Master ── registering ▶ loading ▶ settled
//!      ▲                      │ failed              │  ▲ │
//!      │                      │                hold ▼  │ │ told to end: drain, then close the gate
//!      │                      │                  held ─┘ │   admit again
//!      │   given back         ▼                     │    ▼
//!      ├──────────────────────┴─────────────────────┴ Demoting
//!      │ lost: the gate closes first, at once
//!      └── from everywhere
//! ```
//!
//! A held master lets nobody in, answers who is inside, and keeps its lease up; it is shown as
//! demoting. Holding is not leaving: it may admit again in the same epoch. When it may is
//! [`super::switchover`]'s to say.
//!
//! Serving is Master with an open gate. Elected is not serving. The gate is closed before anything
//! is logged, given back or told to anybody. An answer that bears another epoch than the one at
//! hand is late, and ignored.

use std::sync::Arc;

use super::effect::Effect;
use super::identity::{Epoch, Role};
use super::moment::Moment;
use super::reason::{Event, Phase, Reason};
use super::settings::Settings;
use super::standing::Standing;
use super::zookeeper::Timing;

/// The machine. See the file's header.
#[derive(Debug)]
pub struct RoleMachine {
    settings: Arc<Settings>,
    state: State,
    since: Moment,
    reason: Reason,
    /// Phases of the promotion at hand, or of the last one, with their lengths.
    phases: Vec<(Phase, u64)>,
    /// Holds begun by this process, so that the end of an earlier drain is recognised.
    holds: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Standby,
    Promoting { epoch: Epoch, phase: Phase, phase_since: Moment },
    Master { epoch: Epoch, until: Moment, work: Option<(Phase, Moment)>, paused: bool, held: bool },
    Demoting { epoch: Epoch, drain_until: Moment },
}

/// What the role machine wants of the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Give the mastership back: the gate is closed.
    Resign,
    /// Stay out for so long.
    HoldOff { ms: u64 },
    /// Register the function list of this epoch.
    Register { epoch: Epoch },
}

impl RoleMachine {
    pub(crate) fn new(now: Moment, settings: Arc<Settings>) -> Self {
        Self {
            settings,
            state: State::Standby,
            since: now,
            reason: Reason::GivenBack,
            phases: Vec::new(),
            holds: 0,
        }
    }

    // --- looks

    pub(crate) fn role(&self) -> Role {
        match self.state {
            State::Standby => Role::Standby,
            State::Promoting { .. } => Role::Promoting,
            State::Master { held: false, .. } => Role::Master,
            State::Master { held: true, .. } | State::Demoting { .. } => Role::Demoting,
        }
    }

    /// The epoch in which this node holds requests back, and may admit them again.
    pub(crate) fn held(&self) -> Option<Epoch> {
        match self.state {
            State::Master { epoch, held: true, .. } => Some(epoch),
            State::Master { held: false, .. }
            | State::Standby
            | State::Promoting { .. }
            | State::Demoting { .. } => None,
        }
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        match self.state {
            State::Standby => None,
            State::Promoting { epoch, .. }
            | State::Master { epoch, .. }
            | State::Demoting { epoch, .. } => Some(epoch),
        }
    }

    /// Master, gate open, lease running.
    pub(crate) fn serving(&self, now: Moment) -> bool {
        matches!(
            self.state,
            State::Master { until, paused: false, held: false, .. } if now < until
        )
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        match self.state {
            State::Promoting { phase, .. } => Some(phase),
            State::Master { work, .. } => work.map(|(phase, _)| phase),
            State::Standby | State::Demoting { .. } => None,
        }
    }

    pub(crate) fn phases(&self) -> &[(Phase, u64)] {
        &self.phases
    }

    pub(crate) fn since(&self) -> Moment {
        self.since
    }

    pub(crate) fn reason(&self) -> &Reason {
        &self.reason
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        match self.state {
            State::Demoting { drain_until, .. } => Some(drain_until),
            State::Standby | State::Promoting { .. } | State::Master { .. } => None,
        }
    }

    // --- facts

    /// The election's word, after every step of it; `lost` says why it was lost, if it was.
    pub(crate) fn follow(
        &mut self,
        now: Moment,
        standing: &Standing,
        lost: Option<Reason>,
        fx: &mut Vec<Effect>,
    ) {
        match (&mut self.state, standing) {
            (State::Standby, Standing::Elected { epoch, until, reason, timing }) => {
                let (epoch, until) = (*epoch, *until);
                self.become_promoting(now, epoch, until, reason.clone(), *timing, fx);
            }
            (
                State::Master { epoch, until, paused, held, .. },
                Standing::Elected { epoch: elected, until: new, .. },
            ) if epoch == elected => {
                let longer = *new > *until;
                *until = *new;
                // After a stall of our own only a heartbeat sent since then opens the gate again, and
                // never while requests are held: opening would admit them.
                if longer && *paused && !*held {
                    *paused = false;
                    fx.push(Effect::OpenGate { epoch: *epoch, until: *new });
                } else if longer && !*paused {
                    fx.push(Effect::ExtendLease { epoch: *epoch, until: *new });
                }
            }
            (
                State::Promoting { epoch, .. } | State::Demoting { epoch, .. },
                Standing::Elected { epoch: elected, .. },
            ) if epoch == elected => {}
            (State::Standby, Standing::Passed { .. } | Standing::Silent) => {}
            (
                State::Promoting { .. } | State::Master { .. } | State::Demoting { .. },
                Standing::Elected { .. } | Standing::Passed { .. } | Standing::Silent,
            ) => self.become_standby(now, lost.unwrap_or(Reason::LeaseEnded), fx),
        }
    }

    pub(crate) fn handle_gate_opened(
        &mut self,
        now: Moment,
        opened: Epoch,
        until: Moment,
        wishes: &mut Vec<Wish>,
        fx: &mut Vec<Effect>,
    ) {
        let State::Promoting { epoch, phase: Phase::Opening, phase_since } = self.state else {
            return;
        };
        if epoch != opened {
            return; // late: of a promotion given up
        }
        self.note_phase(now, epoch, Phase::Opening, phase_since, fx);
        let work = Some((Phase::Registering, now));
        let state = State::Master { epoch, until, work, paused: false, held: false };
        self.change(now, state, None, fx);
        wishes.push(Wish::Register { epoch });
    }

    /// The tables are ready for this epoch: the gate may open.
    pub(crate) fn handle_ready(
        &mut self,
        now: Moment,
        of: Epoch,
        until: Moment,
        fx: &mut Vec<Effect>,
    ) {
        let State::Promoting { epoch, phase: Phase::Replaying, phase_since } = self.state else {
            return;
        };
        if epoch != of {
            return; // late: of a promotion given up
        }
        // The gate before its record: the shortest time without a master.
        fx.push(Effect::OpenGate { epoch, until });
        self.note_phase(now, epoch, Phase::Replaying, phase_since, fx);
        self.state = State::Promoting { epoch, phase: Phase::Opening, phase_since: now };
    }

    pub(crate) fn handle_registered(&mut self, now: Moment, of: Epoch, fx: &mut Vec<Effect>) {
        let State::Master { epoch, work, .. } = &mut self.state else { return };
        let Some((Phase::Registering, since)) = *work else { return };
        if *epoch != of {
            return; // late
        }
        *work = Some((Phase::Loading, now));
        self.note_phase(now, of, Phase::Registering, since, fx);
        fx.push(Effect::LoadDatasets { epoch: of });
    }

    pub(crate) fn handle_datasets_settled(&mut self, now: Moment, of: Epoch, fx: &mut Vec<Effect>) {
        let State::Master { epoch, work, .. } = &mut self.state else { return };
        let Some((Phase::Loading, since)) = *work else { return };
        if *epoch != of {
            return; // late
        }
        *work = None;
        self.note_phase(now, of, Phase::Loading, since, fx);
    }

    pub(crate) fn handle_promotion_failed(
        &mut self,
        now: Moment,
        of: Epoch,
        what: String,
        wishes: &mut Vec<Wish>,
        fx: &mut Vec<Effect>,
    ) {
        let State::Promoting { epoch, .. } = self.state else { return };
        if epoch != of {
            return; // late
        }
        wishes.push(Wish::Resign);
        wishes.push(Wish::HoldOff { ms: self.settings.hold_off_ms });
        self.become_standby(now, Reason::PromotionFailed { what }, fx);
    }

    pub(crate) fn handle_drained(
        &mut self,
        now: Moment,
        of: Epoch,
        hold: u64,
        wishes: &mut Vec<Wish>,
        fx: &mut Vec<Effect>,
    ) {
        let State::Demoting { epoch, .. } = self.state else { return };
        if epoch == of && hold == self.holds {
            wishes.push(Wish::Resign);
            self.become_standby(now, Reason::GivenBack, fx);
        }
    }

    pub(crate) fn handle_timeout(
        &mut self,
        now: Moment,
        wishes: &mut Vec<Wish>,
        fx: &mut Vec<Effect>,
    ) {
        if let State::Demoting { epoch, drain_until } = self.state
            && now >= drain_until
        {
            self.handle_drained(now, epoch, self.holds, wishes, fx);
        }
    }

    /// This node stood still for long: nothing may pass until a heartbeat proves that we still hold.
    pub(crate) fn handle_stall(&mut self, fx: &mut Vec<Effect>) {
        if let State::Master { epoch, paused, .. } = &mut self.state
            && !*paused
        {
            *paused = true;
            fx.push(Effect::CloseGate { epoch: *epoch });
        }
    }

    // --- commands

    /// Leaves mastership on purpose: drains, then gives the epoch back and lets the peer go first.
    pub(crate) fn step_down(
        &mut self,
        now: Moment,
        reason: Reason,
        wishes: &mut Vec<Wish>,
        fx: &mut Vec<Effect>,
    ) {
        wishes.push(Wish::HoldOff { ms: self.settings.hold_off_ms });
        match self.state {
            State::Master { epoch, .. } => {
                let ms_max = self.settings.drain_ms_max;
                self.holds += 1;
                fx.push(Effect::HoldGate { epoch });
                fx.push(Effect::Drain { epoch, hold: self.holds, ms_max });
                let state = State::Demoting { epoch, drain_until: now + ms_max };
                self.change(now, state, Some(reason), fx);
            }
            State::Promoting { .. } => {
                wishes.push(Wish::Resign);
                self.become_standby(now, reason, fx);
            }
            State::Standby | State::Demoting { .. } => {}
        }
    }

    /// Lets nobody in any more, and waits for who is inside; the number of the hold. Nothing is left
    /// by it yet: see `admit` and `give_back`.
    pub(crate) fn hold(&mut self, now: Moment, reason: Reason, fx: &mut Vec<Effect>) -> u64 {
        let State::Master { epoch, until, work, paused, .. } = self.state else {
            return self.holds;
        };
        self.holds += 1;
        fx.push(Effect::HoldGate { epoch });
        let ms_max = self.settings.drain_ms_max;
        fx.push(Effect::Drain { epoch, hold: self.holds, ms_max });
        let state = State::Master { epoch, until, work, paused, held: true };
        self.change(now, state, Some(reason), fx);
        self.holds
    }

    /// Lets requests in again, in the same epoch: nothing was given away.
    pub(crate) fn admit(&mut self, now: Moment, reason: Reason, fx: &mut Vec<Effect>) {
        let State::Master { epoch, until, work, paused, held: true } = self.state else { return };
        // A gate that a stall closed opens by the next heartbeat.
        if !paused {
            fx.push(Effect::AdmitAgain { epoch });
        }
        let state = State::Master { epoch, until, work, paused, held: false };
        self.change(now, state, Some(reason), fx);
    }

    /// Leaves mastership in order, once nobody is inside any more, and lets the peer go first.
    pub(crate) fn give_back(&mut self, now: Moment, wishes: &mut Vec<Wish>, fx: &mut Vec<Effect>) {
        if self.held().is_some() {
            wishes.push(Wish::Resign);
            wishes.push(Wish::HoldOff { ms: self.settings.hold_off_ms });
            self.become_standby(now, Reason::GivenBack, fx);
        }
    }

    /// Leaves mastership at once, because it cannot be kept up. The gate first.
    pub(crate) fn drop_mastership(
        &mut self,
        now: Moment,
        reason: Reason,
        wishes: &mut Vec<Wish>,
        fx: &mut Vec<Effect>,
    ) {
        match self.state {
            State::Promoting { .. } | State::Master { .. } | State::Demoting { .. } => {
                wishes.push(Wish::Resign);
                wishes.push(Wish::HoldOff { ms: self.settings.hold_off_ms });
                self.become_standby(now, reason, fx);
            }
            State::Standby => {}
        }
    }

    // --- moves

    fn become_promoting(
        &mut self,
        now: Moment,
        epoch: Epoch,
        until: Moment,
        reason: Reason,
        timing: Timing,
        fx: &mut Vec<Effect>,
    ) {
        self.phases.clear();
        // The deed before its record: the shortest time without a master.
        let phase = if self.settings.tables {
            fx.push(Effect::PrepareTables { epoch });
            Phase::Replaying
        } else {
            fx.push(Effect::OpenGate { epoch, until });
            Phase::Opening
        };
        self.change(now, State::Promoting { epoch, phase, phase_since: now }, Some(reason), fx);
        for (phase, ms) in
            [(Phase::Confirming, timing.confirming_ms), (Phase::Fencing, timing.fencing_ms)]
        {
            self.phases.push((phase, ms));
            fx.push(Effect::Record(Event::PhaseReached { epoch, phase, after_ms: ms }));
        }
    }

    /// The gate first, then everything else.
    fn become_standby(&mut self, now: Moment, reason: Reason, fx: &mut Vec<Effect>) {
        if let Some(epoch) = self.epoch() {
            fx.push(Effect::CloseGate { epoch });
            if self.settings.tables {
                fx.push(Effect::StandDown);
            }
            fx.push(Effect::DropDatasets);
        }
        self.change(now, State::Standby, Some(reason), fx);
    }

    fn change(&mut self, now: Moment, to: State, reason: Option<Reason>, fx: &mut Vec<Effect>) {
        let from = self.role();
        let epoch_before = self.epoch();
        self.state = to;
        self.since = now;
        let reason = reason.unwrap_or(Reason::GateOpen);
        let epoch = self.epoch().or(epoch_before).unwrap_or_default();
        fx.push(Effect::Record(Event::RoleChanged {
            from,
            to: self.role(),
            epoch,
            reason: reason.clone(),
        }));
        if reason != Reason::GateOpen && reason != Reason::GivenBack {
            self.reason = reason;
        }
    }

    fn note_phase(
        &mut self,
        now: Moment,
        epoch: Epoch,
        phase: Phase,
        since: Moment,
        fx: &mut Vec<Effect>,
    ) {
        let after_ms = now.ms_since(since);
        self.phases.push((phase, after_ms));
        fx.push(Effect::Record(Event::PhaseReached { epoch, phase, after_ms }));
    }
}
