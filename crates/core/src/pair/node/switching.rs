//! The planned switch between the machines: what [`Switchover`] says is next, done by role, tables
//! and election.
//!
//! Looked at at the beginning of each turn, before anything is given back: what became of the
//! mastership meanwhile, whether the peer could still take over, whether a step has taken too long.

use super::{Effect, Event, Guard, Moment, Node, Reason, Role, Wish, ZooKeeperRequest};
use crate::pair::fact::Answer;
use crate::pair::identity::{Contact, Epoch, Statement};
use crate::pair::standalone::ALONE;
use crate::pair::switchover::{Next, Switchover, SwitchoverReport};

const NO_CONTACT: &str = "this node has no contact with ZooKeeper";

impl Node {
    // --- the order

    pub(super) fn handle_switchover(&mut self, now: Moment, order: u64, fx: &mut Vec<Effect>) {
        if let Some(refusal) = self.switchover_refusal(now) {
            let epoch = self.role.epoch().unwrap_or(self.election.seen());
            return finish(order, SwitchoverReport::refused(refusal, epoch), fx);
        }
        let epoch = self.role.epoch().expect("a serving node has an epoch");
        let heard = self.detector.heard().expect("a peer that could take over was heard");
        let to = heard.statement.identity.incarnation.node.clone();
        // The gate first: nobody waits for words.
        let hold = self.role.hold(now, Reason::Switchover { order }, fx);
        fx.push(Effect::Record(Event::Ordered { text: format!("switchover {order} begins") }));
        let switch = Switchover::begin(now, order, epoch, to, hold, self.settings.clone());
        self.orders.switchover = Some(switch);
    }

    /// Why a switchover ordered now would be refused; `None`: it would be begun.
    #[must_use]
    pub fn switchover_refusal(&self, now: Moment) -> Option<String> {
        if self.is_alone() {
            return Some(ALONE.to_owned());
        }
        if let Some(other) = self.orders.under_way() {
            return Some(other.to_owned());
        }
        if !self.role.serving(now) {
            return Some("this node does not serve; order it at the master".to_owned());
        }
        self.handing_refusal()
    }

    /// What keeps this node from handing over, and the peer from taking over.
    fn handing_refusal(&self) -> Option<String> {
        let connected = self.election.contact() == Contact::Connected;
        let ours = (!connected).then(|| NO_CONTACT.to_owned());
        ours.or_else(|| self.peer_refusal())
    }

    /// What keeps the peer from taking over in good order.
    pub(super) fn peer_refusal(&self) -> Option<String> {
        let Some(heard) = self.detector.heard().filter(|_| self.detector.reachable()) else {
            return Some("the peer does not answer pings".to_owned());
        };
        let said = &heard.statement;
        if let Some(mismatch) = Guard::mismatch(&self.me, self.election.cluster(), said) {
            return Some(mismatch.to_string());
        }
        if said.contact != Contact::Connected {
            return Some("the peer has no contact with ZooKeeper".to_owned());
        }
        if said.role != Role::Standby {
            return Some(format!("the peer is {}, not standby", said.role));
        }
        if let Some(guard) = &said.guard {
            return Some(format!("the peer would not claim: {guard}"));
        }
        self.version_refusal(said).or_else(|| self.data_refusal(said))
    }

    /// Programs of one major version understand each other's log, both ways.
    fn version_refusal(&self, said: &Statement) -> Option<String> {
        let major = |version: &str| version.split('.').next().map(str::to_owned);
        let (ours, theirs) = (&self.me.version, &said.identity.version);
        (major(ours) != major(theirs)).then(|| {
            format!("the peer runs version {theirs} and this node {ours}: they do not fit")
        })
    }

    fn data_refusal(&self, said: &Statement) -> Option<String> {
        if !self.settings.tables {
            return None;
        }
        if said.position.is_some() && !said.complete {
            return Some(
                "the peer's tables are not whole, or differ from this node's: they are made anew"
                    .to_owned(),
            );
        }
        (self.sync.in_sync() != Some(true)).then(|| {
            "the peer is not in sync: by the sync record it does not hold every acknowledged \
             change yet"
                .to_owned()
        })
    }

    // --- facts

    pub(super) fn switch_drained(
        &mut self,
        now: Moment,
        epoch: Epoch,
        hold: u64,
        fx: &mut Vec<Effect>,
    ) {
        let next = match self.switch_of(epoch) {
            Some(switch) => switch.drained(now, hold),
            None => return,
        };
        self.take_next(now, next, fx);
    }

    pub(super) fn switch_barrier_held(
        &mut self,
        now: Moment,
        epoch: Epoch,
        of: (u64, u64),
        fx: &mut Vec<Effect>,
    ) {
        let next = match self.switch_of(epoch) {
            Some(switch) => switch.barrier_held(now, of.0, of.1),
            None => return,
        };
        self.take_next(now, next, fx);
    }

    pub(super) fn switch_handed_over(
        &mut self,
        now: Moment,
        epoch: Epoch,
        answer: Answer,
        fx: &mut Vec<Effect>,
    ) {
        let next = match self.switch_of(epoch) {
            Some(switch) => switch.handed_over(now, answer),
            None => return,
        };
        self.take_next(now, next, fx);
    }

    pub(super) fn switch_resigned(&mut self, now: Moment, epoch: Epoch) {
        if let Some(switch) = &mut self.orders.switchover {
            switch.resigned(now, epoch);
        }
    }

    /// This node stood still with its gate held.
    pub(super) fn switch_stalled(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let of = self.orders.switchover.as_ref().filter(|switch| switch.may_be_undone());
        if of.is_some_and(|switch| self.role.held() == Some(switch.epoch)) {
            let why = "this node itself stood still".to_owned();
            self.take_next(now, Next::Undo { why }, fx);
        }
    }

    /// The switch under way in the mastership that holds requests back.
    fn switch_of(&mut self, epoch: Epoch) -> Option<&mut Switchover> {
        let held = self.role.held() == Some(epoch);
        self.orders.switchover.as_mut().filter(|switch| held && switch.epoch == epoch)
    }

    // --- steps

    /// What became of the switch since the last turn.
    pub(super) fn advance_switchover(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let held = self.role.held();
        let Some(switch) = &mut self.orders.switchover else { return };
        if switch.has_left() {
            return;
        }
        if held != Some(switch.epoch) {
            if !switch.may_be_undone() {
                // Perhaps it is the peer's by now.
                self.wishes.push(Wish::HoldOff { ms: self.settings.hold_off_ms });
            }
            let why = format!("this node's mastership ended: {}", self.role.reason());
            switch.lost(now, &why);
            return;
        }
        let undoable = switch.may_be_undone();
        let mut next = switch.missed(now);
        if next == Next::Nothing
            && undoable
            && let Some(why) = self.handing_refusal()
        {
            next = Next::Undo { why };
        }
        self.take_next(now, next, fx);
    }

    fn take_next(&mut self, now: Moment, next: Next, fx: &mut Vec<Effect>) {
        let Some(switch) = &self.orders.switchover else { return };
        let (epoch, hold, to) = (switch.epoch, switch.hold, switch.to.clone());
        match next {
            Next::Nothing => {}
            Next::WriteBarrier => fx.push(Effect::WriteBarrier { epoch, hold }),
            Next::HandOver { number } => {
                let fence = self.election.fence().filter(|fence| fence.epoch == epoch);
                let connected = self.election.contact() == Contact::Connected;
                match fence {
                    Some(fence) if connected => {
                        let epoch_version = fence.epoch_version;
                        let what = ZooKeeperRequest::HandOver { epoch, epoch_version, to, number };
                        self.election.order(what, fx);
                    }
                    // Nothing was sent, so that nothing was given away.
                    Some(_) | None => {
                        self.undo(now, NO_CONTACT, fx);
                    }
                }
            }
            Next::GiveBack => self.role.give_back(now, &mut self.wishes, fx),
            Next::Undo { why } => self.undo(now, &why, fx),
        }
    }

    fn undo(&mut self, now: Moment, why: &str, fx: &mut Vec<Effect>) {
        let Some(switch) = self.orders.switchover.take() else { return };
        self.role.admit(now, Reason::SwitchoverUndone { what: why.to_owned() }, fx);
        let (order, epoch) = (switch.order, switch.epoch);
        let text = format!("{why}; nothing was given away, this node serves on in epoch {epoch}");
        finish(order, switch.report(now, Err(text), epoch), fx);
    }

    /// The process ends before it was seen what came of a switch.
    pub(super) fn end_switchover(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let Some(switch) = self.orders.switchover.take() else { return };
        let text = "this process ends before the peer was seen to serve; see `hotpair status`";
        finish(switch.order, switch.report(now, Err(text.to_owned()), self.election.seen()), fx);
    }

    /// Reports what is seen to have come of a switch that is past its point of no return.
    pub(super) fn settle_switchover(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let Some(switch) = self.orders.switchover.take_if(|switch| switch.has_left()) else {
            return;
        };
        let said = self.detector.heard().map(|heard| &heard.statement);
        let theirs = said.filter(|said| said.serving && said.epoch > switch.epoch);
        let ours = self.role.epoch().filter(|epoch| *epoch > switch.epoch);
        let (outcome, epoch) = if let Some(said) = theirs {
            (Ok(format!("the other node serves now, in epoch {}", said.epoch)), said.epoch)
        } else if let Some(epoch) = ours.filter(|_| self.role.serving(now)) {
            let text = "the peer did not take over in its turn; this node serves again";
            (Err(format!("{text}, in epoch {epoch}")), epoch)
        } else if switch.deadline().is_some_and(|at| now >= at) {
            let text = "the peer was not seen to serve in time; see /why of both nodes";
            (Err(text.to_owned()), self.election.seen())
        } else {
            self.orders.switchover = Some(switch);
            return;
        };
        finish(switch.order, switch.report(now, outcome, epoch), fx);
    }
}

/// Answers an order, and has it kept.
fn finish(order: u64, report: SwitchoverReport, fx: &mut Vec<Effect>) {
    let done = if report.done { "done" } else { "not done" };
    let (text, phases) = (&report.text, report.phases_in_words());
    let text = format!("switchover {order} {done}: {text} ({phases})");
    fx.push(Effect::Record(Event::Ordered { text }));
    fx.push(Effect::FinishSwitchover { order, report });
}
