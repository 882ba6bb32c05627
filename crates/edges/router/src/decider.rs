//! The deciding part: who serves, and what becomes of each request. No IO, no clock.
//!
//! ```text
//!             a node says it serves                     nobody serves any more
//!   blind ───────────────────────────▶ serving(node, epoch) ───────────────▶ outage(planned | crash)
//!                                        ▲                                        │
//!                                        └──── a node serves, not in an older epoch ┘
//! ```
//!
//! While somebody serves, requests are forwarded. In an outage they are held, in order of arrival, until
//! somebody serves or the outage has lasted as long as is configured for its kind; from then on they are
//! answered 308000000 at once. A request that came back goes the same way again, unless doing it twice
//! could do harm and nobody can say that it was not done: then its client is told so.
//!
//! An answer of an older epoch than the newest that is served is dropped and its request sent again. One
//! that cannot be sent again is passed on all the same if its master left that epoch in order and still
//! answers: its gate was open when the answer was confirmed, and it only took longer than the news.
//!
//! A node's own word counts for as long as its stream of events lives. A node that refuses what it was
//! believed to serve is *doubted* for a moment: its next word, or the end of the doubt, clears it.

use std::collections::BTreeMap;

use hotpair_core::pair::Moment;
use hotpair_protocol::ErrorNumber;

use crate::fact::{
    Asked, Effect, Fact, Failed, Loss, NodeIndex, NodeRole, NodeView, Repeatable, RequestId, Step,
    Told, Verdict,
};

/// The bounds of a router's deciding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many nodes there are: one or two.
    pub nodes: usize,
    /// The longest wait in a planned switch.
    pub planned_ms: u64,
    /// The longest wait after a crash; 0 answers 308000000 at once.
    pub crash_ms: u64,
    /// What held requests may cost together.
    pub held_bytes_max: usize,
    /// How many may be held.
    pub held_max: usize,
    /// How many may be held or under way.
    pub requests_max: usize,
    /// The longest time without a master, where no node has told it.
    pub bound_ms: u64,
    /// What the advice to wait is drawn from.
    pub seed: u64,
}

/// Why nobody serves, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageKind {
    /// No node was ever heard to serve.
    Blind,
    /// Who served is lost.
    Crash,
    /// Who served is giving its mastership away.
    Planned,
}

/// A time without anybody who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since then.
    pub began: Moment,
    /// Why.
    pub kind: OutageKind,
}

/// Who is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node.
    pub node: NodeIndex,
    /// The epoch that it serves.
    pub epoch: u64,
}

/// How a node is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// Nothing has been tried yet.
    Never,
    /// Its stream of events is open.
    Heard,
    /// It is not.
    Lost(Loss),
}

/// A node as it is seen.
#[derive(Clone, Debug)]
pub struct NodeSeen {
    /// How it is heard.
    pub contact: Contact,
    /// What it last said.
    pub view: Option<NodeView>,
    /// The bound that it told.
    pub bound_ms: Option<u64>,
    doubt: Option<Doubt>,
}

/// It did not serve what it says that it serves.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    until: Moment,
    /// It said itself that it does not, and that nothing was done.
    planned: bool,
}

/// Decides.
#[derive(Debug)]
pub struct Decider {
    settings: Settings,
    nodes: Vec<NodeSeen>,
    target: Option<Target>,
    /// The newest mastership that was heard of.
    newest: Option<(Option<String>, u64)>,
    outage: Option<Outage>,
    /// All nodes are positively down since then.
    down_since: Option<Moment>,
    held: BTreeMap<RequestId, Asked>,
    held_bytes: usize,
    under_way: usize,
    sent_again: u64,
    dice: fastrand::Rng,
}

impl Decider {
    /// A router that has heard nothing yet.
    #[must_use]
    pub fn new(now: Moment, settings: Settings) -> Self {
        let unheard = NodeSeen { contact: Contact::Never, view: None, bound_ms: None, doubt: None };
        Self {
            nodes: vec![unheard; settings.nodes],
            target: None,
            newest: None,
            outage: Some(Outage { began: now, kind: OutageKind::Blind }),
            down_since: None,
            held: BTreeMap::new(),
            held_bytes: 0,
            under_way: 0,
            sent_again: 0,
            dice: fastrand::Rng::with_seed(settings.seed),
            settings,
        }
    }

    /// Something happened; what is to be done is appended, in order.
    pub fn handle(&mut self, now: Moment, fact: Fact, effects: &mut Vec<Effect>) {
        match fact {
            Fact::Viewed(node, view) => self.handle_viewed(now, node, view, effects),
            Fact::BoundTold(node, bound_ms) => self.nodes[node.0].bound_ms = Some(bound_ms),
            Fact::StreamLost(node, loss) => self.handle_stream_lost(now, node, loss, effects),
            Fact::Came(asked) => self.handle_came(now, asked, effects),
            Fact::Answered { request, node, epoch, told } => {
                let asked = Target { node, epoch };
                let step = self.handle_answered(now, request, asked, told, effects);
                self.take(request, step, effects);
            }
            Fact::Broke { request, node, epoch, how } => {
                let asked = Target { node, epoch };
                let step = self.handle_broke(now, request, asked, how, effects);
                self.take(request, step, effects);
            }
            Fact::LeftUnderWay => self.under_way -= 1,
            Fact::LeftHeld(id) => self.let_go(id),
        }
    }

    /// When [`Self::handle_timeout`] is to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let doubts = self.nodes.iter().filter_map(|node| node.doubt.map(|doubt| doubt.until));
        let release = self.outage.filter(|_| !self.held.is_empty());
        doubts.chain(release.map(|outage| self.hold_until(outage))).min()
    }

    /// The deadline has come.
    pub fn handle_timeout(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for node in &mut self.nodes {
            if node.doubt.is_some_and(|doubt| doubt.until <= now) {
                node.doubt = None;
            }
        }
        self.settle(now, effects);
        let Some(outage) = self.outage else { return };
        if now >= self.hold_until(outage) {
            while let Some((id, asked)) = self.held.pop_first() {
                self.held_bytes -= asked.bytes;
                let verdict = self.nobody_serves(now);
                effects.push(Effect::Take(id, Step::Answer(verdict)));
            }
        }
    }

    // --- looks

    /// Who is spoken to now.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        self.target
    }

    /// Since when, and why, nobody is.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.outage
    }

    /// The newest epoch that was heard to be served.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.newest.as_ref().map_or(0, |(_, epoch)| *epoch)
    }

    /// The nodes, in the file's order.
    #[must_use]
    pub fn nodes(&self) -> &[NodeSeen] {
        &self.nodes
    }

    /// Requests that are held, and what they cost.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.held.len(), self.held_bytes)
    }

    /// Requests that are under way to a node.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// How often a request was sent a further time.
    #[must_use]
    pub fn sent_again(&self) -> u64 {
        self.sent_again
    }

    /// The longest time without a master that one failure should cost.
    #[must_use]
    pub fn bound_ms(&self) -> u64 {
        let told = self.nodes.iter().filter_map(|node| node.bound_ms).max();
        told.unwrap_or(self.settings.bound_ms)
    }

    /// All nodes are positively down, and have been for longer than the bound.
    #[must_use]
    pub fn is_down(&self, now: Moment) -> bool {
        self.down_since.is_some_and(|since| now.ms_since(since) > self.bound_ms())
    }

    // --- nodes

    fn handle_viewed(
        &mut self,
        now: Moment,
        node: NodeIndex,
        view: NodeView,
        effects: &mut Vec<Effect>,
    ) {
        let seen = &mut self.nodes[node.0];
        seen.contact = Contact::Heard;
        seen.doubt = None;
        seen.view = Some(view);
        self.settle(now, effects);
    }

    fn handle_stream_lost(
        &mut self,
        now: Moment,
        node: NodeIndex,
        loss: Loss,
        effects: &mut Vec<Effect>,
    ) {
        self.nodes[node.0].contact = Contact::Lost(loss);
        match loss {
            // What is under way there is answered by nobody, or by somebody frozen for long.
            Loss::Refused | Loss::Silent => effects.push(Effect::Cut(node)),
            // It may still answer what it was asked.
            Loss::Closed | Loss::Other => {}
        }
        self.settle(now, effects);
    }

    fn doubt(&mut self, now: Moment, asked: Target, planned: bool, effects: &mut Vec<Effect>) {
        let seen = &mut self.nodes[asked.node.0];
        // What was asked of an older epoch says nothing of the one that it serves now.
        if seen.view.as_ref().is_some_and(|view| view.epoch <= asked.epoch) {
            seen.doubt = Some(Doubt { until: now + DOUBT_MS, planned });
            self.settle(now, effects);
        }
    }

    /// Draws the conclusions of what is known of the nodes.
    fn settle(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let down = self.nodes.iter().all(NodeSeen::is_positively_down);
        self.down_since = down.then(|| self.down_since.unwrap_or(now));
        match self.choose() {
            Some(target) => self.become_serving(target, effects),
            None => self.become_unserved(now),
        }
    }

    /// The highest epoch wins; of two that say the same one, the one that is spoken to already.
    fn choose(&self) -> Option<Target> {
        let serving = (0..self.nodes.len()).map(NodeIndex).filter_map(|node| {
            let epoch = self.nodes[node.0].serving_epoch()?;
            self.may_follow(node).then_some(Target { node, epoch })
        });
        let rank = |target: &Target| {
            let stays = self.target.is_some_and(|now| now.node == target.node);
            (target.epoch, stays, std::cmp::Reverse(target.node))
        };
        serving.max_by_key(rank)
    }

    /// Never back an epoch. A smaller one counts only where every node has gone over to another
    /// cluster, whose epochs have begun anew.
    fn may_follow(&self, node: NodeIndex) -> bool {
        let Some((cluster, epoch)) = &self.newest else { return true };
        let Some(view) = &self.nodes[node.0].view else { return false };
        let moved = || {
            view.cluster.is_some()
                && view.cluster != *cluster
                && self.nodes.iter().all(|other| other.said_cluster() == view.cluster.as_ref())
        };
        view.epoch >= *epoch || moved()
    }

    fn become_serving(&mut self, target: Target, effects: &mut Vec<Effect>) {
        self.outage = None;
        if self.target != Some(target) {
            let cluster = self.nodes[target.node.0].view.as_ref().and_then(|v| v.cluster.clone());
            self.newest = Some((cluster, target.epoch));
            self.target = Some(target);
            // What waits elsewhere waits for an answer of an older epoch: in vain, unless its node
            // left in order and has only not finished telling.
            let others = (0..self.nodes.len()).map(NodeIndex).filter(|n| *n != target.node);
            let gone = others.filter(|node| !self.nodes[node.0].has_left_in_order());
            effects.extend(gone.map(Effect::Cut));
        }
        while let Some((id, asked)) = self.held.pop_first() {
            self.held_bytes -= asked.bytes;
            self.under_way += 1;
            effects.push(Effect::Take(id, self.forward(target, asked)));
        }
    }

    fn become_unserved(&mut self, now: Moment) {
        self.target = None;
        let planned = self.nodes.iter().any(|node| node.is_giving_away(self.epoch()));
        let outage = self.outage.get_or_insert(Outage { began: now, kind: OutageKind::Crash });
        if planned {
            outage.kind = OutageKind::Planned;
        }
    }

    // --- requests

    fn handle_came(&mut self, now: Moment, asked: Asked, effects: &mut Vec<Effect>) {
        let step = if self.under_way + self.held.len() >= self.settings.requests_max {
            Step::Answer(self.overloaded())
        } else {
            self.onward(now, asked)
        };
        // Counted as if it had been under way, which `take` ends where it does not go there.
        self.under_way += 1;
        self.take(asked, step, effects);
    }

    fn handle_answered(
        &mut self,
        now: Moment,
        request: Asked,
        asked: Target,
        told: Told,
        effects: &mut Vec<Effect>,
    ) -> Step {
        if told.error_no == ErrorNumber::NotServing.number() {
            self.doubt(now, asked, !told.perhaps_executed, effects);
            return self.once_more(now, request, told.perhaps_executed);
        }
        if told.epoch < self.epoch() {
            // Of a master that is none any more: nobody may build on it.
            let in_order = told.epoch == asked.epoch
                && request.repeatable == Repeatable::Once
                && self.nodes[asked.node.0].has_left_in_order();
            if in_order {
                return Step::Pass;
            }
            return self.once_more(now, request, !is_unexecuted(told.error_no));
        }
        let done = told.error_no == ErrorNumber::Done.number();
        if done && told.epoch > self.epoch() {
            // The answer was quicker than the event.
            if let Some(view) = &mut self.nodes[asked.node.0].view {
                (view.epoch, view.serving, view.role) = (told.epoch, true, NodeRole::Master);
                self.settle(now, effects);
            }
        }
        self.told_of(request, told.error_no)
    }

    /// What a client is told where a node refused a request that another one may have executed before:
    /// nothing that sounds as if it had not been.
    fn told_of(&mut self, request: Asked, error_no: i64) -> Step {
        if !request.perhaps_executed || request.repeatable != Repeatable::Numbered {
            return Step::Pass;
        }
        match ErrorNumber::from_number(error_no) {
            // Asked again under its number, it is answered what came of it.
            Some(
                ErrorNumber::Overloaded
                | ErrorNumber::Switching
                | ErrorNumber::DatasetLoading
                | ErrorNumber::DatasetFailed,
            ) => Step::Answer(self.switching()),
            // With its session what came of it is gone.
            Some(ErrorNumber::SessionUnknown) => Step::Answer(Verdict::Unknown),
            _ => Step::Pass,
        }
    }

    fn handle_broke(
        &mut self,
        now: Moment,
        request: Asked,
        asked: Target,
        how: Failed,
        effects: &mut Vec<Effect>,
    ) -> Step {
        match how {
            Failed::NotConnected => {
                self.doubt(now, asked, false, effects);
                self.once_more(now, request, false)
            }
            Failed::NotSent => self.once_more(now, request, false),
            Failed::NoRoom => Step::Answer(self.overloaded()),
            // One that breaks its connection each time would go round and round.
            Failed::Unanswered
                if request.tries >= UNANSWERED_MAX
                    && self.target == Some(asked)
                    && request.repeatable != Repeatable::Once =>
            {
                Step::Answer(self.switching())
            }
            Failed::Unanswered => self.once_more(now, request, true),
            Failed::TimedOut => match request.repeatable {
                Repeatable::Once => Step::Answer(Verdict::Unknown),
                Repeatable::Numbered | Repeatable::Harmless => Step::Answer(self.switching()),
            },
        }
    }

    /// A request came back.
    fn once_more(&mut self, now: Moment, request: Asked, perhaps_executed: bool) -> Step {
        match request.repeatable {
            Repeatable::Once if perhaps_executed => return Step::Answer(Verdict::Unknown),
            Repeatable::Once | Repeatable::Numbered | Repeatable::Harmless => {}
        }
        if request.tries >= TRIES_MAX {
            return Step::Answer(self.switching());
        }
        let perhaps_executed = request.perhaps_executed || perhaps_executed;
        self.onward(now, Asked { tries: request.tries + 1, perhaps_executed, ..request })
    }

    /// Where a request goes now.
    fn onward(&mut self, now: Moment, asked: Asked) -> Step {
        match (self.target, self.outage) {
            (Some(target), _) => self.forward(target, asked),
            (None, Some(outage)) if now < self.hold_until(outage) => self.hold(asked),
            (None, _) => Step::Answer(self.nobody_serves(now)),
        }
    }

    fn hold(&mut self, asked: Asked) -> Step {
        let bytes = self.held_bytes + asked.bytes;
        if self.held.len() >= self.settings.held_max || bytes > self.settings.held_bytes_max {
            // "Not executed" can be said of what was never sent only.
            let fresh = asked.tries == 0;
            return Step::Answer(if fresh { self.overloaded() } else { self.switching() });
        }
        self.held_bytes = bytes;
        self.held.insert(asked.id, asked);
        Step::Hold
    }

    fn forward(&mut self, target: Target, asked: Asked) -> Step {
        self.sent_again += u64::from(asked.tries > 0);
        let Asked { tries, perhaps_executed, .. } = asked;
        Step::Forward { node: target.node, epoch: target.epoch, tries, perhaps_executed }
    }

    /// Notes where a request that was under way goes.
    fn take(&mut self, asked: Asked, step: Step, effects: &mut Vec<Effect>) {
        match step {
            Step::Forward { .. } => {}
            Step::Hold | Step::Pass | Step::Answer(_) => self.under_way -= 1,
        }
        effects.push(Effect::Take(asked.id, step));
    }

    fn let_go(&mut self, id: RequestId) {
        if let Some(asked) = self.held.remove(&id) {
            self.held_bytes -= asked.bytes;
        }
    }

    fn hold_until(&self, outage: Outage) -> Moment {
        outage.began
            + match outage.kind {
                OutageKind::Blind => 0,
                OutageKind::Crash => self.settings.crash_ms,
                OutageKind::Planned => self.settings.planned_ms,
            }
    }

    // --- answers of our own

    fn nobody_serves(&mut self, now: Moment) -> Verdict {
        if self.is_down(now) { Verdict::Down } else { self.switching() }
    }

    fn switching(&mut self) -> Verdict {
        let soon = match self.outage.map(|outage| outage.kind) {
            None | Some(OutageKind::Planned) => RETRY_SOON_MS,
            Some(OutageKind::Crash) => RETRY_CRASH_MS,
            Some(OutageKind::Blind) => RETRY_BLIND_MS,
        };
        Verdict::Switching { retry_after_ms: self.dice.u64(soon..=soon * 3) }
    }

    fn overloaded(&mut self) -> Verdict {
        Verdict::Overloaded { retry_after_ms: self.dice.u64(RETRY_CRASH_MS..=RETRY_CRASH_MS * 3) }
    }
}

impl NodeSeen {
    /// Whether its own word is not believed for the moment.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// The epoch that it is believed to serve.
    fn serving_epoch(&self) -> Option<u64> {
        let view = self.view.as_ref()?;
        let believed = match self.contact {
            Contact::Heard => self.doubt.is_none(),
            Contact::Never | Contact::Lost(_) => false,
        };
        (believed && view.serving).then_some(view.epoch)
    }

    /// It lives, and says itself that it does not serve.
    fn has_left_in_order(&self) -> bool {
        let says = self.view.as_ref().is_some_and(|view| match view.role {
            NodeRole::Standby | NodeRole::Demoting => !view.serving,
            NodeRole::Promoting | NodeRole::Master | NodeRole::Other => false,
        });
        says && self.contact == Contact::Heard
    }

    fn said_cluster(&self) -> Option<&String> {
        self.view.as_ref()?.cluster.as_ref()
    }

    /// It does not serve and is not about to: that is known, not only not known.
    fn is_positively_down(&self) -> bool {
        match self.contact {
            Contact::Lost(Loss::Refused) => true,
            Contact::Never | Contact::Lost(Loss::Closed | Loss::Silent | Loss::Other) => false,
            Contact::Heard => self.view.as_ref().is_some_and(|view| match view.role {
                NodeRole::Standby => !view.serving,
                NodeRole::Promoting | NodeRole::Master | NodeRole::Demoting | NodeRole::Other => {
                    false
                }
            }),
        }
    }

    /// Whether it is master of the newest epoch and means not to be.
    fn is_giving_away(&self, newest: u64) -> bool {
        let says = self.contact == Contact::Heard
            && self
                .view
                .as_ref()
                .is_some_and(|view| view.role == NodeRole::Demoting && view.epoch >= newest);
        says || self.doubt.is_some_and(|doubt| doubt.planned)
    }
}

/// Whether an answer with this number says that nothing was done.
fn is_unexecuted(error_no: i64) -> bool {
    match ErrorNumber::from_number(error_no) {
        Some(
            ErrorNumber::Switching
            | ErrorNumber::SessionUnknown
            | ErrorNumber::WrongPassword
            | ErrorNumber::Malformed
            | ErrorNumber::NoSuchFunction
            | ErrorNumber::Overloaded
            | ErrorNumber::TooOld
            | ErrorNumber::DatasetLoading
            | ErrorNumber::NotAllowed
            | ErrorNumber::DatasetFailed,
        ) => true,
        Some(
            ErrorNumber::Done
            | ErrorNumber::NotServing
            | ErrorNumber::FunctionFailed
            | ErrorNumber::OutcomeUnknown
            | ErrorNumber::TimedOut,
        )
        | None => false,
    }
}

/// How long a node that refused what it was believed to serve is left alone, unless it says something
/// itself meanwhile.
const DOUBT_MS: u64 = 250;
/// How often one request may come back; with the doubts between them more than the longest hold.
const TRIES_MAX: u32 = 40;
/// How often it may break its connection to a node that goes on serving.
const UNANSWERED_MAX: u32 = 3;
/// The shortest advice to wait; the longest is three times as long.
const RETRY_SOON_MS: u64 = 50;
const RETRY_CRASH_MS: u64 = 100;
const RETRY_BLIND_MS: u64 = 200;

#[cfg(test)]
mod tests;
