use std::collections::{BTreeMap, BTreeSet};

use super::*;

const A: NodeIndex = NodeIndex(0);
const B: NodeIndex = NodeIndex(1);

fn settings() -> Settings {
    Settings {
        nodes: 2,
        planned_ms: 5_000,
        crash_ms: 500,
        held_bytes_max: 1_000,
        held_max: 4,
        requests_max: 6,
        bound_ms: 15_000,
        seed: 7,
    }
}

/// A router with its clock, and what it did last.
struct Stage {
    now: Moment,
    decider: Decider,
    next: u64,
}

fn view(epoch: u64, role: NodeRole, serving: bool) -> NodeView {
    NodeView { cluster: Some("c".to_owned()), epoch, role, serving }
}

fn master(epoch: u64) -> NodeView {
    view(epoch, NodeRole::Master, true)
}

fn standby(epoch: u64) -> NodeView {
    view(epoch, NodeRole::Standby, false)
}

impl Stage {
    fn blind() -> Self {
        let now = Moment(1_000);
        Self { now, decider: Decider::new(now, settings()), next: 0 }
    }

    /// a serves epoch 7, b stands by.
    fn serving() -> Self {
        let mut stage = Self::blind();
        stage.fact(Fact::Viewed(B, standby(7)));
        stage.fact(Fact::Viewed(A, master(7)));
        stage
    }

    fn fact(&mut self, fact: Fact) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.decider.handle(self.now, fact, &mut effects);
        effects
    }

    fn wait(&mut self, ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let end = self.now + ms;
        while let Some(deadline) = self.decider.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.decider.handle_timeout(self.now, &mut effects);
        }
        self.now = end;
        effects
    }

    fn asked(&mut self, repeatable: Repeatable) -> Asked {
        self.next += 1;
        let id = RequestId(self.next);
        Asked { id, repeatable, bytes: 100, tries: 0, perhaps_executed: false }
    }

    /// A request and its first step.
    fn come(&mut self, repeatable: Repeatable) -> (Asked, Step) {
        let asked = self.asked(repeatable);
        let effects = self.fact(Fact::Came(asked));
        (asked, step_of(&effects, asked))
    }

    fn answered(&mut self, request: Asked, by: Target, told: Told) -> Step {
        let Target { node, epoch } = by;
        let effects = self.fact(Fact::Answered { request, node, epoch, told });
        step_of(&effects, request)
    }

    fn broke(&mut self, request: Asked, by: Target, how: Failed) -> Step {
        let Target { node, epoch } = by;
        let effects = self.fact(Fact::Broke { request, node, epoch, how });
        step_of(&effects, request)
    }
}

fn step_of(effects: &[Effect], asked: Asked) -> Step {
    let steps: Vec<Step> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Take(id, step) if *id == asked.id => Some(*step),
            Effect::Take(..) | Effect::Cut(_) => None,
        })
        .collect();
    assert_eq!(steps.len(), 1, "{effects:?}");
    steps[0]
}

fn target(node: NodeIndex, epoch: u64) -> Target {
    Target { node, epoch }
}

fn forward(node: NodeIndex, epoch: u64, tries: u32) -> Step {
    Step::Forward { node, epoch, tries, perhaps_executed: false }
}

/// The same of one that may have been executed.
fn forward_perhaps_done(node: NodeIndex, epoch: u64, tries: u32) -> Step {
    Step::Forward { node, epoch, tries, perhaps_executed: true }
}

fn done(epoch: u64) -> Told {
    Told { error_no: 0, epoch, perhaps_executed: false }
}

fn refused(perhaps_executed: bool) -> Told {
    Told { error_no: 308_000_005, epoch: 7, perhaps_executed }
}

fn is_switching(step: Step) -> bool {
    matches!(step, Step::Answer(Verdict::Switching { retry_after_ms: 1.. }))
}

#[test]
fn a_blind_router_asks_for_patience() {
    let mut stage = Stage::blind();
    assert!(is_switching(stage.come(Repeatable::Once).1));
    stage.fact(Fact::StreamLost(A, Loss::Silent));
    stage.fact(Fact::StreamLost(B, Loss::Silent));
    stage.wait(60_000);
    assert!(is_switching(stage.come(Repeatable::Once).1), "silence is not known to be an end");
    assert_eq!(stage.decider.under_way(), 0);
}

#[test]
fn requests_go_to_the_highest_epoch_and_never_back() {
    let mut stage = Stage::serving();
    assert_eq!(stage.come(Repeatable::Once).1, forward(A, 7, 0));
    let effects = stage.fact(Fact::Viewed(B, master(8)));
    assert_eq!(effects, [Effect::Cut(A)], "what waits there waits for an older epoch");
    assert_eq!(stage.come(Repeatable::Once).1, forward(B, 8, 0));
    stage.fact(Fact::StreamLost(B, Loss::Refused));
    assert_eq!(stage.decider.target(), None, "epoch 7 is over, whatever a says");
    stage.fact(Fact::Viewed(A, master(9)));
    assert_eq!(stage.decider.target(), Some(target(A, 9)));
}

#[test]
fn of_two_masters_of_one_epoch_the_first_heard_is_kept() {
    let mut stage = Stage::serving();
    stage.fact(Fact::Viewed(B, master(7)));
    assert_eq!(stage.decider.target(), Some(target(A, 7)));
}

#[test]
fn a_pair_that_went_over_to_another_cluster_is_followed_once_both_say_so() {
    let mut stage = Stage::serving();
    let other = |view: NodeView| NodeView { cluster: Some("d".to_owned()), ..view };
    stage.fact(Fact::Viewed(A, other(master(1))));
    assert_eq!(stage.decider.target(), None);
    stage.fact(Fact::Viewed(B, other(standby(1))));
    assert_eq!(stage.decider.target(), Some(target(A, 1)));
}

#[test]
fn in_a_planned_switch_requests_wait_and_go_on_in_order() {
    let mut stage = Stage::serving();
    stage.fact(Fact::Viewed(A, view(7, NodeRole::Demoting, false)));
    let first = stage.come(Repeatable::Once);
    let second = stage.come(Repeatable::Numbered);
    assert_eq!((first.1, second.1), (Step::Hold, Step::Hold));
    assert_eq!(stage.wait(4_000), []);
    stage.fact(Fact::Viewed(A, standby(7)));
    stage.fact(Fact::Viewed(B, view(8, NodeRole::Promoting, false)));
    let effects = stage.fact(Fact::Viewed(B, master(8)));
    let wanted =
        [Effect::Take(first.0.id, forward(B, 8, 0)), Effect::Take(second.0.id, forward(B, 8, 0))];
    assert_eq!(effects, wanted);
    assert_eq!((stage.decider.held(), stage.decider.under_way()), ((0, 0), 2));
}

#[test]
fn a_refusal_that_did_nothing_holds_even_what_bears_no_number() {
    let mut stage = Stage::serving();
    let (asked, _) = stage.come(Repeatable::Once);
    assert_eq!(stage.answered(asked, target(A, 7), refused(false)), Step::Hold);
    assert_eq!(stage.decider.outage().unwrap().kind, OutageKind::Planned);
    let effects = stage.fact(Fact::Viewed(A, master(7)));
    assert_eq!(effects, [Effect::Take(asked.id, forward(A, 7, 1))], "rolled back");
}

#[test]
fn a_node_that_only_closed_its_gate_for_a_moment_is_tried_again() {
    let mut stage = Stage::serving();
    let (asked, _) = stage.come(Repeatable::Once);
    assert_eq!(stage.answered(asked, target(A, 7), refused(false)), Step::Hold);
    let effects = stage.wait(DOUBT_MS);
    assert_eq!(step_of(&effects, asked), forward(A, 7, 1));
}

#[test]
fn what_may_have_been_executed_is_sent_again_under_its_number_only() {
    let mut stage = Stage::serving();
    let [once, numbered, harmless] =
        [Repeatable::Once, Repeatable::Numbered, Repeatable::Harmless].map(|r| stage.come(r).0);
    let unknown = stage.answered(once, target(A, 7), refused(true));
    assert_eq!(unknown, Step::Answer(Verdict::Unknown));
    assert_eq!(stage.answered(numbered, target(A, 7), refused(true)), Step::Hold);
    assert_eq!(stage.broke(harmless, target(A, 7), Failed::Unanswered), Step::Hold);
    let effects = stage.fact(Fact::Viewed(B, master(8)));
    assert_eq!(step_of(&effects, numbered), forward_perhaps_done(B, 8, 1));
    assert_eq!(step_of(&effects, harmless), forward_perhaps_done(B, 8, 1));
    let late = Asked { tries: 1, ..numbered };
    assert_eq!(stage.answered(late, target(B, 8), done(8)), Step::Pass);
}

#[test]
fn a_node_does_not_refuse_as_unexecuted_what_another_one_may_have_executed() {
    let told = |error_no| Told { error_no, epoch: 7, perhaps_executed: false };
    let mut stage = Stage::serving();
    for (error_no, sent_again, passed) in [
        (308_000_006, false, true),
        (308_000_006, true, false),
        (308_000_001, false, true),
        (308_000_003, true, true),
        (0, true, true),
    ] {
        let (fresh, _) = stage.come(Repeatable::Numbered);
        let asked = Asked { perhaps_executed: sent_again, ..fresh };
        let step = stage.answered(asked, target(A, 7), told(error_no));
        assert_eq!(step == Step::Pass, passed, "{error_no} {sent_again}: {step:?}");
        assert!(passed || is_switching(step), "{step:?}");
    }
    let (fresh, _) = stage.come(Repeatable::Numbered);
    let over = Asked { perhaps_executed: true, ..fresh };
    let step = stage.answered(over, target(A, 7), told(308_000_001));
    assert_eq!(step, Step::Answer(Verdict::Unknown));
}

#[test]
fn after_a_crash_requests_wait_for_a_while_and_are_then_answered_at_once() {
    let mut stage = Stage::serving();
    let (sent, _) = stage.come(Repeatable::Numbered);
    let effects = stage.fact(Fact::StreamLost(A, Loss::Refused));
    assert_eq!(effects, [Effect::Cut(A)]);
    assert_eq!(stage.broke(sent, target(A, 7), Failed::Unanswered), Step::Hold);
    let (fresh, step) = stage.come(Repeatable::Once);
    assert_eq!(step, Step::Hold);
    let effects = stage.wait(500);
    assert!(is_switching(step_of(&effects, sent)) && is_switching(step_of(&effects, fresh)));
    assert!(is_switching(stage.come(Repeatable::Numbered).1));
    assert_eq!((stage.decider.held(), stage.decider.under_way()), ((0, 0), 0));
}

#[test]
fn a_refused_connection_is_a_crash_before_the_events_say_so() {
    let mut stage = Stage::serving();
    let (asked, _) = stage.come(Repeatable::Once);
    assert_eq!(stage.broke(asked, target(A, 7), Failed::NotConnected), Step::Hold);
    assert_eq!(stage.decider.outage().unwrap().kind, OutageKind::Crash);
}

#[test]
fn a_broken_connection_to_a_node_that_goes_on_serving_is_tried_anew_a_few_times() {
    let mut stage = Stage::serving();
    let (mut asked, _) = stage.come(Repeatable::Numbered);
    for tries in 1..=UNANSWERED_MAX {
        let step = stage.broke(asked, target(A, 7), Failed::Unanswered);
        assert_eq!(step, forward_perhaps_done(A, 7, tries));
        asked.tries = tries;
    }
    assert!(is_switching(stage.broke(asked, target(A, 7), Failed::Unanswered)));
    let (once, _) = stage.come(Repeatable::Once);
    let step = stage.broke(once, target(A, 7), Failed::Unanswered);
    assert_eq!(step, Step::Answer(Verdict::Unknown));
    let (stale, _) = stage.come(Repeatable::Once);
    assert_eq!(stage.broke(stale, target(A, 7), Failed::NotSent), forward(A, 7, 1));
}

#[test]
fn an_answer_of_an_older_epoch_is_dropped() {
    let mut stage = Stage::serving();
    let [numbered, once, unread] =
        [Repeatable::Numbered, Repeatable::Once, Repeatable::Once].map(|r| stage.come(r).0);
    stage.fact(Fact::Viewed(B, master(8)));
    assert_eq!(stage.answered(numbered, target(A, 7), done(7)), forward_perhaps_done(B, 8, 1));
    assert_eq!(stage.answered(once, target(A, 7), done(7)), Step::Answer(Verdict::Unknown));
    let overloaded = Told { error_no: 308_000_006, epoch: 7, perhaps_executed: false };
    assert_eq!(stage.answered(unread, target(A, 7), overloaded), forward(B, 8, 1));
}

#[test]
fn an_answer_of_a_master_that_left_in_order_may_be_slower_than_the_news() {
    let mut stage = Stage::serving();
    let [numbered, once, late] =
        [Repeatable::Numbered, Repeatable::Once, Repeatable::Once].map(|r| stage.come(r).0);
    stage.fact(Fact::Viewed(A, view(7, NodeRole::Demoting, false)));
    assert_eq!(stage.fact(Fact::Viewed(B, master(8))), [], "nothing there is cut");
    assert_eq!(stage.answered(numbered, target(A, 7), done(7)), forward_perhaps_done(B, 8, 1));
    assert_eq!(stage.answered(once, target(A, 7), done(7)), Step::Pass);
    // One that is not there any more tells nothing.
    assert_eq!(stage.fact(Fact::StreamLost(A, Loss::Silent)), [Effect::Cut(A)]);
    assert_eq!(stage.answered(late, target(A, 7), done(7)), Step::Answer(Verdict::Unknown));
}

#[test]
fn an_answer_may_be_quicker_than_the_event() {
    let mut stage = Stage::serving();
    let (asked, _) = stage.come(Repeatable::Once);
    assert_eq!(stage.answered(asked, target(A, 7), done(9)), Step::Pass);
    assert_eq!(stage.decider.target(), Some(target(A, 9)));
}

#[test]
fn the_empty_answer_needs_both_nodes_down_for_longer_than_the_bound() {
    let mut stage = Stage::serving();
    stage.fact(Fact::BoundTold(A, 8_000));
    stage.fact(Fact::StreamLost(A, Loss::Refused));
    stage.wait(60_000);
    assert!(is_down(stage.come(Repeatable::Once).1), "b stands by, and does not take over");
    let mut stage = Stage::serving();
    stage.fact(Fact::BoundTold(A, 8_000));
    stage.fact(Fact::StreamLost(A, Loss::Refused));
    stage.fact(Fact::Viewed(B, view(8, NodeRole::Promoting, false)));
    stage.wait(60_000);
    assert!(is_switching(stage.come(Repeatable::Once).1), "b takes over");
    stage.fact(Fact::StreamLost(B, Loss::Silent));
    stage.wait(60_000);
    assert!(is_switching(stage.come(Repeatable::Once).1), "nobody knows about b");
    stage.fact(Fact::StreamLost(B, Loss::Refused));
    stage.wait(8_000);
    assert!(is_switching(stage.come(Repeatable::Once).1), "not longer than the bound");
    stage.wait(1);
    assert!(is_down(stage.come(Repeatable::Once).1));
    stage.fact(Fact::Viewed(B, master(8)));
    assert_eq!(stage.come(Repeatable::Once).1, forward(B, 8, 0));
}

fn is_down(step: Step) -> bool {
    step == Step::Answer(Verdict::Down)
}

#[test]
fn what_finds_no_room_is_told_that_it_was_not_executed() {
    let mut stage = Stage::serving();
    stage.fact(Fact::Viewed(A, view(7, NodeRole::Demoting, false)));
    for _ in 0..4 {
        assert_eq!(stage.come(Repeatable::Once).1, Step::Hold);
    }
    let (_, step) = stage.come(Repeatable::Once);
    assert!(matches!(step, Step::Answer(Verdict::Overloaded { .. })), "{step:?}");
    assert_eq!(stage.decider.held(), (4, 400));
    let mut stage = Stage::serving();
    for _ in 0..6 {
        assert_eq!(stage.come(Repeatable::Once).1, forward(A, 7, 0));
    }
    let (_, step) = stage.come(Repeatable::Once);
    assert!(matches!(step, Step::Answer(Verdict::Overloaded { .. })), "{step:?}");
    stage.fact(Fact::LeftUnderWay);
    assert_eq!(stage.come(Repeatable::Once).1, forward(A, 7, 0));
}

#[test]
fn a_held_request_whose_client_is_gone_leaves_its_place() {
    let mut stage = Stage::serving();
    stage.fact(Fact::Viewed(A, view(7, NodeRole::Demoting, false)));
    let (asked, _) = stage.come(Repeatable::Once);
    stage.fact(Fact::LeftHeld(asked.id));
    assert_eq!((stage.decider.held(), stage.decider.under_way()), ((0, 0), 0));
}

#[test]
fn one_that_took_all_its_time_is_not_sent_again() {
    let mut stage = Stage::serving();
    let (once, _) = stage.come(Repeatable::Once);
    let (numbered, _) = stage.come(Repeatable::Numbered);
    let step = stage.broke(once, target(A, 7), Failed::TimedOut);
    assert_eq!(step, Step::Answer(Verdict::Unknown));
    assert!(is_switching(stage.broke(numbered, target(A, 7), Failed::TimedOut)));
}

// --- storms: facts drawn from a seed, and what must hold whatever they are

/// What the storm knows of a request.
struct Known {
    asked: Asked,
    /// To whom it was sent, while it is under way.
    under_way: Option<Target>,
    perhaps_executed: bool,
    /// The last node's answer, 0 if it gave none.
    told: i64,
}

struct Storm {
    stage: Stage,
    dice: fastrand::Rng,
    open: BTreeMap<RequestId, Known>,
    answered: BTreeSet<RequestId>,
    newest: u64,
    forwarded_epoch: u64,
}

impl Storm {
    fn new(seed: u64) -> Self {
        Self {
            stage: Stage::blind(),
            dice: fastrand::Rng::with_seed(seed),
            open: BTreeMap::new(),
            answered: BTreeSet::new(),
            newest: 1,
            forwarded_epoch: 0,
        }
    }

    fn step(&mut self) {
        match self.dice.u8(0..10) {
            0 | 1 => self.come(),
            2 => {
                let ms = self.dice.u64(0..400);
                let effects = self.stage.wait(ms);
                self.check(&effects);
            }
            3 | 4 => self.node(),
            5 => self.leave(),
            _ => self.outcome(),
        }
        let (held, held_bytes) = self.stage.decider.held();
        assert!(held <= 4 && held_bytes <= 1_000);
        assert!(held + self.stage.decider.under_way() <= 6);
        let under_way = self.open.values().filter(|known| known.under_way.is_some()).count();
        assert_eq!(
            (held + under_way, under_way),
            (self.open.len(), self.stage.decider.under_way())
        );
    }

    fn come(&mut self) {
        let kinds = [Repeatable::Numbered, Repeatable::Harmless, Repeatable::Once];
        let repeatable = *self.dice.choice(&kinds).unwrap();
        let asked = self.stage.asked(repeatable);
        self.open
            .insert(asked.id, Known { asked, under_way: None, perhaps_executed: false, told: 0 });
        let effects = self.stage.fact(Fact::Came(asked));
        self.check(&effects);
    }

    fn node(&mut self) {
        let node = NodeIndex(self.dice.usize(0..2));
        let fact = match self.dice.u8(0..6) {
            0 => {
                let all = [Loss::Refused, Loss::Closed, Loss::Silent, Loss::Other];
                Fact::StreamLost(node, *self.dice.choice(&all).unwrap())
            }
            1 => Fact::Viewed(node, standby(self.newest)),
            2 => Fact::Viewed(node, view(self.newest, NodeRole::Demoting, false)),
            3 => {
                self.newest += 1;
                Fact::Viewed(node, master(self.newest))
            }
            4 => Fact::Viewed(node, master(self.newest.saturating_sub(self.dice.u64(0..3)))),
            _ => Fact::BoundTold(node, self.dice.u64(1..2_000)),
        };
        let effects = self.stage.fact(fact);
        self.check(&effects);
    }

    fn leave(&mut self) {
        let Some(id) = self.any(|_| true) else { return };
        let known = self.open.remove(&id).unwrap();
        let fact = known.under_way.map_or(Fact::LeftHeld(id), |_| Fact::LeftUnderWay);
        let effects = self.stage.fact(fact);
        self.check(&effects);
    }

    fn outcome(&mut self) {
        let Some(id) = self.any(|known| known.under_way.is_some()) else { return };
        let known = self.open.get_mut(&id).unwrap();
        let Target { node, epoch } = known.under_way.take().unwrap();
        let request = known.asked;
        let broke = |how| Fact::Broke { request, node, epoch, how };
        let sent_in = epoch;
        let told = |error_no, epoch, perhaps_executed| Fact::Answered {
            request,
            node,
            epoch: sent_in,
            told: Told { error_no, epoch, perhaps_executed },
        };
        let (fact, executed) = match self.dice.u8(0..9) {
            0 => (broke(Failed::NotConnected), false),
            1 => (broke(Failed::NotSent), false),
            2 => (broke(Failed::Unanswered), true),
            3 => (broke(Failed::TimedOut), true),
            4 => (told(308_000_005, epoch, false), false),
            5 => (told(308_000_005, epoch, true), true),
            6 => (told(308_000_006, epoch, false), false),
            7 => (told(308_000_001, epoch, false), false),
            _ => (told(0, epoch, false), true),
        };
        known.told = match &fact {
            Fact::Answered { told, .. } => told.error_no,
            _ => 0,
        };
        known.perhaps_executed |= executed;
        let effects = self.stage.fact(fact);
        self.check(&effects);
    }

    fn any(&mut self, which: impl Fn(&Known) -> bool) -> Option<RequestId> {
        let ids: Vec<RequestId> =
            self.open.iter().filter(|(_, known)| which(known)).map(|(id, _)| *id).collect();
        self.dice.choice(ids).into_iter().next()
    }

    fn check(&mut self, effects: &[Effect]) {
        let mut released = Vec::new();
        for effect in effects {
            let Effect::Take(id, step) = effect else { continue };
            let known = self.open.get_mut(id).expect("a step is for an open request");
            match step {
                Step::Forward { node, epoch, tries, perhaps_executed } => {
                    assert!(*epoch >= self.forwarded_epoch, "back to epoch {epoch}");
                    self.forwarded_epoch = *epoch;
                    let repeated = known.perhaps_executed;
                    assert!(!repeated || known.asked.repeatable != Repeatable::Once);
                    assert_eq!(known.perhaps_executed, *perhaps_executed);
                    (known.asked.tries, known.asked.perhaps_executed) = (*tries, repeated);
                    known.under_way = Some(target(*node, *epoch));
                    released.push(*id);
                }
                Step::Hold => assert!(known.under_way.is_none()),
                Step::Pass | Step::Answer(_) => {
                    self.check_answer(*id, *step);
                    assert!(self.answered.insert(*id), "answered twice");
                    self.open.remove(id);
                }
            }
        }
        if released.len() > 1 {
            // The last one may be what came back and made the others go.
            assert!(released[..released.len() - 1].is_sorted(), "{released:?}");
        }
    }

    fn check_answer(&self, id: RequestId, step: Step) {
        let known = &self.open[&id];
        match step {
            Step::Answer(Verdict::Unknown) => {
                let session_over = known.told == 308_000_001;
                assert!(known.perhaps_executed);
                assert!(known.asked.repeatable == Repeatable::Once || session_over);
            }
            Step::Answer(Verdict::Overloaded { retry_after_ms }) => {
                assert!(!known.perhaps_executed && retry_after_ms > 0);
            }
            Step::Answer(Verdict::Down) => {
                let nodes = self.stage.decider.nodes();
                assert!(nodes.iter().all(NodeSeen::is_positively_down));
            }
            Step::Answer(Verdict::Switching { retry_after_ms }) => {
                let lied = known.perhaps_executed && known.asked.repeatable == Repeatable::Once;
                assert!(!lied && retry_after_ms > 0);
            }
            // What a node says of itself is not said of a request that another one may have executed.
            Step::Pass => {
                let unexecuted = [308_000_001, 308_000_006].contains(&known.told);
                let numbered = known.asked.repeatable == Repeatable::Numbered;
                assert!(!(unexecuted && numbered && known.perhaps_executed), "{}", known.told);
            }
            Step::Forward { .. } | Step::Hold => {}
        }
    }
}

#[test]
fn in_any_storm_each_request_is_answered_once_and_nothing_is_done_twice() {
    for seed in 0..2_000 {
        let mut storm = Storm::new(seed);
        for _ in 0..150 {
            storm.step();
        }
        // Nobody says anything any more: what is under way ends by its limit, what is held by its.
        while let Some(id) = storm.any(|known| known.under_way.is_some()) {
            let known = storm.open.get_mut(&id).unwrap();
            let Target { node, epoch } = known.under_way.take().unwrap();
            known.perhaps_executed = true;
            let (request, how) = (known.asked, Failed::TimedOut);
            let effects = storm.stage.fact(Fact::Broke { request, node, epoch, how });
            storm.check(&effects);
        }
        for _ in 0..100 {
            if storm.open.is_empty() {
                break;
            }
            let effects = storm.stage.wait(5_000);
            storm.check(&effects);
            while let Some(id) = storm.any(|known| known.under_way.is_some()) {
                let known = storm.open.get_mut(&id).unwrap();
                let Target { node, epoch } = known.under_way.take().unwrap();
                let (request, how) = (known.asked, Failed::NotConnected);
                let effects = storm.stage.fact(Fact::Broke { request, node, epoch, how });
                storm.check(&effects);
            }
        }
        assert!(storm.open.is_empty(), "seed {seed}: {} without an answer", storm.open.len());
        assert_eq!((storm.stage.decider.held(), storm.stage.decider.under_way()), ((0, 0), 0));
    }
}
