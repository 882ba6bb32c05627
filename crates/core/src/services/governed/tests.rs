use super::*;

const INTERVAL_MS: u64 = 100;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn members() -> Members {
    Members { primary: address("a:1"), standby: address("b:2") }
}

/// A service with two servers that are up or not, in a time of its own.
struct Scene {
    now: Moment,
    governed: Governed,
    up: Vec<Address>,
    /// What the replicated row says.
    row: Option<Choice>,
    /// Whether what is written is acknowledged at once.
    writes: bool,
    waiting: Vec<(u64, Choice)>,
    routes: Vec<Option<Address>>,
    answers: Vec<(u64, Result<Choice, OrderRefused>)>,
    orders: u64,
}

impl Scene {
    fn new(up: &[&str]) -> Self {
        let settings = GovernedSettings { members: members(), interval_ms: INTERVAL_MS };
        Self {
            now: Moment(1_000),
            governed: Governed::new(Moment(1_000), settings),
            up: up.iter().map(|text| address(text)).collect(),
            row: None,
            writes: true,
            waiting: Vec::new(),
            routes: Vec::new(),
            answers: Vec::new(),
            orders: 0,
        }
    }

    fn serving(up: &[&str]) -> Self {
        let mut scene = Self::new(up);
        scene.begin();
        scene
    }

    fn begin(&mut self) {
        let recorded = self.row.clone();
        self.tell(Fact::MastershipBegan { recorded });
    }

    fn tell(&mut self, fact: Fact) {
        let mut fx = Vec::new();
        self.governed.handle(self.now, fact, &mut fx);
        self.carry_out(fx);
    }

    fn carry_out(&mut self, fx: Vec<Effect>) {
        for effect in fx {
            match effect {
                Effect::Check { check, address } if self.up.contains(&address) => {
                    self.tell(Fact::CheckPassed { check });
                }
                Effect::Check { check, address } => {
                    self.tell(Fact::CheckFailed { check, why: format!("{address} refused") });
                }
                Effect::Record { record, choice } if self.writes => {
                    self.row = Some(choice);
                    self.tell(Fact::Recorded { record });
                }
                Effect::Record { record, choice } => self.waiting.push((record, choice)),
                Effect::Route { to } => self.routes.push(to),
                Effect::Answer { order, outcome } => self.answers.push((order, outcome)),
            }
        }
    }

    /// So many rounds of checks.
    fn rounds(&mut self, rounds: u32) {
        for _ in 0..rounds {
            let due = self.governed.deadline().unwrap();
            assert!(due >= self.now, "a deadline that is over is served");
            self.now = due;
            let mut fx = Vec::new();
            self.governed.handle_timeout(self.now, &mut fx);
            self.carry_out(fx);
        }
    }

    fn set_up(&mut self, up: &[&str]) {
        self.up = up.iter().map(|text| address(text)).collect();
    }

    fn order(&mut self, change: Change) -> Result<Choice, OrderRefused> {
        self.orders += 1;
        self.tell(Fact::Ordered { order: self.orders, change });
        let (order, outcome) = self.answers.pop().expect("an order is answered");
        assert_eq!(order, self.orders);
        outcome
    }

    fn active(&self) -> Option<&str> {
        let active = self.governed.choice().active_address();
        assert_eq!(active, self.routes.last().unwrap_or(&None).as_ref());
        active.map(Address::as_str)
    }

    /// Where connections were led, one after the other.
    fn way(&self) -> Vec<&str> {
        self.routes.iter().map(|to| to.as_ref().map_or("-", Address::as_str)).collect()
    }
}

fn activate(side: Side) -> Change {
    Change { active: Some(Wanted::Side(side)), ..Change::default() }
}

#[test]
fn at_first_the_primary_is_active_if_it_is_up() {
    let scene = Scene::serving(&["a:1", "b:2"]);
    assert_eq!(scene.active(), Some("a:1"));
    assert_eq!(scene.row.unwrap().active, Some(Side::Primary));
}

#[test]
fn at_first_the_standby_is_active_once_the_primary_is_known_to_be_down() {
    let mut scene = Scene::serving(&["b:2"]);
    assert_eq!((scene.active(), scene.governed.member(Side::Primary).failed), (None, 1));
    scene.rounds(1);
    assert_eq!(scene.active(), None);
    scene.rounds(1);
    assert_eq!(scene.active(), Some("b:2"));
    assert_eq!(scene.governed.why(), "the primary was down when it began");
}

#[test]
fn a_member_is_down_after_three_failures_in_a_row_and_then_the_other_one_is_active() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    scene.set_up(&["b:2"]);
    scene.rounds(2);
    assert_eq!(scene.active(), Some("a:1"));
    assert_eq!(scene.governed.member(Side::Primary).health, Health::Up);
    scene.rounds(1);
    assert_eq!(scene.active(), Some("b:2"));
    let primary = scene.governed.member(Side::Primary);
    assert_eq!((primary.health, primary.since), (Health::Down, scene.now));
    assert_eq!(scene.governed.since(), scene.now);
    assert_eq!(scene.governed.why(), "the primary failed: a:1 refused");
}

#[test]
fn a_member_that_is_back_waits_until_the_other_one_is_down() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    scene.set_up(&["b:2"]);
    scene.rounds(3);
    scene.set_up(&["a:1", "b:2"]);
    scene.rounds(20);
    assert_eq!(scene.active(), Some("b:2"));
    assert_eq!(scene.governed.member(Side::Primary).health, Health::Up);
    scene.set_up(&["a:1"]);
    scene.rounds(3);
    assert_eq!(scene.way(), ["a:1", "b:2", "a:1"]);
}

#[test]
fn a_member_that_flaps_within_three_checks_costs_no_switch() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    for _ in 0..50 {
        scene.set_up(&["b:2"]);
        scene.rounds(2);
        scene.set_up(&["a:1", "b:2"]);
        scene.rounds(1);
    }
    assert_eq!(scene.way(), ["a:1"]);
    assert_eq!(scene.governed.member(Side::Primary).checks, 151);
}

#[test]
fn members_that_flap_in_turns_switch_no_faster_than_three_checks() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    for turn in 0..10 {
        scene.set_up(if turn % 2 == 0 { &["b:2"] } else { &["a:1"] });
        scene.rounds(3);
    }
    assert_eq!(scene.routes.len(), 11);
}

#[test]
fn with_both_down_nothing_changes_and_it_says_so() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    scene.set_up(&[]);
    scene.rounds(10);
    assert_eq!(scene.way(), ["a:1"]);
    let why = scene.governed.why();
    assert!(why.starts_with("both members are down: the primary stays active"), "{why}");
    // Whoever is up first is it.
    scene.set_up(&["b:2"]);
    scene.rounds(1);
    assert_eq!(scene.active(), Some("b:2"));
}

#[test]
fn a_check_without_an_answer_has_failed_when_the_next_is_due_and_a_late_answer_is_not_heard() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    let mut silent = Vec::new();
    for round in 1..=3 {
        scene.now = scene.now + INTERVAL_MS;
        let mut fx = Vec::new();
        scene.governed.handle_timeout(scene.now, &mut fx);
        for effect in fx {
            match effect {
                Effect::Check { check, address } if address.as_str() == "a:1" => silent.push(check),
                other => scene.carry_out(vec![other]),
            }
        }
        assert_eq!(scene.governed.member(Side::Primary).failed, round - 1);
    }
    for check in &silent[..2] {
        scene.tell(Fact::CheckPassed { check: *check });
    }
    assert_eq!(scene.governed.member(Side::Primary).failed, 2);
    scene.tell(Fact::CheckPassed { check: silent[2] });
    assert_eq!(scene.governed.member(Side::Primary).failed, 0);
}

#[test]
fn the_next_master_goes_on_with_the_same_active_member() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    scene.set_up(&["b:2"]);
    scene.rounds(3);
    scene.set_up(&["a:1", "b:2"]);
    let mut next = Scene::new(&["a:1", "b:2"]);
    next.row = scene.row.clone();
    next.begin();
    // At once, before any check.
    assert_eq!(next.routes.first(), Some(&Some(address("b:2"))));
    next.rounds(10);
    assert_eq!(next.way(), ["b:2"]);
    assert_eq!(next.governed.why(), "it was active when this node began to serve");
}

#[test]
fn with_the_mastership_connections_checks_and_waiting_orders_end() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    scene.writes = false;
    scene.tell(Fact::Ordered { order: 7, change: activate(Side::Standby) });
    assert_eq!(scene.active(), Some("a:1"));
    scene.tell(Fact::MastershipEnded);
    assert_eq!(scene.way(), ["a:1", "-"]);
    assert_eq!(scene.answers, [(7, Err(OrderRefused::Ended))]);
    assert_eq!(scene.governed.deadline(), None);
    // What comes late changes nothing.
    let (record, _) = scene.waiting[0].clone();
    scene.tell(Fact::Recorded { record });
    scene.tell(Fact::CheckFailed { check: 1, why: "late".to_owned() });
    assert_eq!(scene.way(), ["a:1", "-"]);
    assert_eq!(scene.order(activate(Side::Standby)), Err(OrderRefused::NotServing));
}

#[test]
fn nothing_is_done_before_it_is_written_down() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    scene.writes = false;
    scene.set_up(&["b:2"]);
    scene.rounds(5);
    assert_eq!((scene.active(), scene.waiting.len()), (Some("a:1"), 1));
    let (record, choice) = scene.waiting.pop().unwrap();
    assert_eq!(choice.active, Some(Side::Standby));
    scene.tell(Fact::NotRecorded { record, why: "the disk is full".to_owned() });
    assert_eq!(scene.waiting.len(), 0);
    assert!(scene.governed.why().contains("the disk is full"));
    scene.writes = true;
    scene.rounds(1);
    assert_eq!(scene.active(), Some("b:2"));
}

#[test]
fn an_operator_moves_it_and_it_stays_there() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    let choice = scene.order(activate(Side::Standby)).unwrap();
    assert_eq!((choice.active, choice.held), (Some(Side::Standby), false));
    scene.rounds(10);
    assert_eq!(scene.way(), ["a:1", "b:2"]);
    let by_address = Wanted::Address(address("a:1"));
    scene.order(Change { active: Some(by_address), ..Change::default() }).unwrap();
    assert_eq!(scene.way(), ["a:1", "b:2", "a:1"]);
    assert_eq!(scene.governed.why(), "an operator ordered it");
}

#[test]
fn a_member_that_is_down_becomes_active_by_force_only_and_is_held_until_it_was_up() {
    let mut scene = Scene::serving(&["a:1"]);
    scene.rounds(3);
    let refused = scene.order(activate(Side::Standby)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the standby (b:2) is down; with force it becomes active all the same"
    );
    let choice = scene.order(Change { force: true, ..activate(Side::Standby) }).unwrap();
    assert!(choice.held);
    scene.rounds(10);
    assert_eq!(scene.way(), ["a:1", "b:2"]);
    scene.set_up(&["a:1", "b:2"]);
    scene.rounds(1);
    assert!(!scene.row.as_ref().unwrap().held);
    // From now on it is a member like any other.
    scene.set_up(&["a:1"]);
    scene.rounds(3);
    assert_eq!(scene.way(), ["a:1", "b:2", "a:1"]);
}

#[test]
fn members_change_and_what_is_known_goes_with_the_server() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    let swap = Change {
        primary: Some(address("b:2")),
        standby: Some(address("a:1")),
        ..Change::default()
    };
    let choice = scene.order(swap).unwrap();
    assert_eq!(choice.active, Some(Side::Standby));
    assert_eq!(scene.way(), ["a:1"]);
    assert_eq!(scene.governed.member(Side::Primary).health, Health::Up);
    let other = Change { primary: Some(address("c:3")), ..Change::default() };
    scene.order(other).unwrap();
    assert_eq!(scene.governed.member(Side::Primary).health, Health::Unknown);
    let to_new = scene.order(activate(Side::Primary)).unwrap_err();
    assert!(matches!(to_new, OrderRefused::NotUp { health: Health::Unknown, .. }), "{to_new}");
    scene.set_up(&["c:3"]);
    scene.rounds(4);
    assert_eq!(scene.active(), Some("c:3"));
}

#[test]
fn orders_that_cannot_be_meant_are_refused() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    let primary = |text| Change { primary: Some(address(text)), ..Change::default() };
    assert_eq!(scene.order(primary("b:2")), Err(OrderRefused::Alike(address("b:2"))));
    assert_eq!(scene.order(primary("c:3")), Err(OrderRefused::ActiveReplaced(address("a:1"))));
    let nobody = Change { active: Some(Wanted::Address(address("x:9"))), ..Change::default() };
    assert!(matches!(scene.order(nobody), Err(OrderRefused::NoMember { .. })));
    assert_eq!(scene.way(), ["a:1"]);
    let forced = Change { force: true, ..primary("c:3") };
    assert!(scene.order(forced).unwrap().held);
    assert_eq!(scene.way(), ["a:1", "c:3"]);
}

#[test]
fn an_order_that_changes_nothing_is_done() {
    let mut scene = Scene::serving(&["a:1", "b:2"]);
    scene.writes = false;
    assert!(scene.order(activate(Side::Primary)).is_ok());
    assert!(scene.order(Change::default()).is_ok());
    assert_eq!(scene.waiting.len(), 0);
}
