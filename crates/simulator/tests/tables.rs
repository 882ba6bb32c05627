//! Storms over the tables of a whole pair, and what they have found, told shortly.

#![expect(clippy::print_stdout, reason = "the figures are asked for with --nocapture")]

use hotpair_core::pair::Moment;
use hotpair_core::pair::fact::TablesFact;
use hotpair_core::pair::identity::{BootId, Epoch, Incarnation, Instance, NodeId};
use hotpair_core::tables::position::{EpochStart, History};
use hotpair_core::tables::record::{Body, Record, encode};
use hotpair_core::tables::replication::{
    Follow, FromMaster, Replication, ReplicationSettings, TablesEffect,
};
use hotpair_core::tables::snapshot::Piece;
use hotpair_core::tables::store::Store;
use hotpair_simulator::tables::{AgentBug, Options, Rule, run, simulate};

/// What every test run affords; `HOTPAIR_SEEDS` asks for more, `HOTPAIR_FROM` for others.
const SEEDS: u64 = 1_000;

fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_in_a_thousand_storms() {
    let (from, seeds) = (asked("HOTPAIR_FROM", 1), asked("HOTPAIR_SEEDS", SEEDS));
    let report = run(from, seeds, 2, Options::default());
    println!("{report}");
    assert!(report.failed == 0, "{report}");
    if seeds >= SEEDS {
        let missing = report.coverage.missing();
        assert!(missing.is_empty(), "never hit: {missing:?}\n{report}");
        assert!(report.flips.1 > seeds / 4, "too few mismatches were told\n{report}");
        assert!(report.barriers > seeds, "too few barriers were held\n{report}");
        assert!(report.programs.0 > 10 * seeds, "too few programs were called\n{report}");
        assert!(report.programs.1 > seeds / 20, "too few calls were of unknown outcome\n{report}");
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in [1, 8, 4_711] {
        let options = Options { transcript: true, ..Options::default() };
        let (first, second) = (simulate(seed, options), simulate(seed, options));
        assert!(first == second, "seed {seed} gave two histories");
        let quiet = simulate(seed, Options::default());
        assert_eq!((first.events, first.answers), (quiet.events, quiet.answers));
    }
}

// --- bugs on purpose

/// Each of these seeds passes without the bug: they are among the first thousand.
fn found(options: Options, seeds: u64, rules: &[Rule]) {
    let caught = (1..=seeds).find_map(|seed| {
        let violation = simulate(seed, options).violation?;
        Some((seed, violation))
    });
    let Some((seed, violation)) = caught else { panic!("not found in {seeds} seeds") };
    println!("{options:?}: seed {seed}: {violation}");
    assert!(rules.contains(&violation.rule), "seed {seed} shows it as {violation}");
    let without = simulate(seed, Options::default());
    assert_eq!(without.violation, None, "seed {seed} fails without the bug");
}

#[test]
fn a_claim_without_a_look_at_the_sync_record_is_found() {
    let bug = Some(AgentBug::ClaimWithoutSync);
    found(Options { bug, ..Options::default() }, 60, &[Rule::Lost, Rule::Vanished]);
}

#[test]
fn a_write_without_an_answer_that_is_taken_for_done_is_found() {
    let bug = Some(AgentBug::AmbiguousTakenForDone);
    found(Options { bug, ..Options::default() }, 200, &[Rule::Members, Rule::Lost, Rule::Live]);
}

#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_of_the_tables_is_found() {
    use hotpair_core::tables::planted::{PlantedInTables, TablesBug};
    let lost: &[Rule] = &[Rule::Lost, Rule::Vanished, Rule::Members];
    for (bug, name) in TablesBug::ALL {
        let (seeds, rules): (u64, &[Rule]) = match bug {
            TablesBug::AckBeforeShip | TablesBug::SyncLate => (100, lost),
            TablesBug::ReplyNotReplicated => (20, &[Rule::Twice]),
            TablesBug::UnacknowledgedShown => (100, &[Rule::Vanished]),
            TablesBug::ProgramBeforeIntent => (100, &[Rule::Effect]),
        };
        println!("{name}");
        found(Options { planted: PlantedInTables::bug(bug), ..Options::default() }, seeds, rules);
    }
}

// --- what the storms have found, each as short as it can be told

const EPOCH: Epoch = Epoch(3);
const LIFE: u64 = 9;

fn incarnation(node: &str, number: u128) -> Incarnation {
    let (instance, boot_id) = (Instance(number), BootId(number));
    Incarnation { node: NodeId::new(node), instance, boot_id }
}

/// A log of epoch 1 that ends with this record.
fn log(head: u64) -> History {
    History::new(vec![EpochStart { epoch: Epoch(1), life: 7, first: 1 }], head)
}

fn node(history: History, complete: bool) -> Replication {
    let settings = ReplicationSettings::default();
    Replication::new(settings, incarnation("b", 2), LIFE, history, complete)
}

/// A standby that has just dialled.
fn standby(history: History, complete: bool) -> Replication {
    let mut standby = node(history, complete);
    let mut fx = Vec::new();
    standby.follow(Moment(0), Some(EPOCH), &mut fx);
    assert!(matches!(fx[..], [TablesEffect::Dial(_)]), "{fx:?}");
    standby
}

fn say(standby: &mut Replication, store: &mut Store, frame: FromMaster) -> Vec<TablesEffect> {
    let mut fx = Vec::new();
    standby.master_said(Moment(1), frame, store, &mut fx).expect("it can be followed");
    fx
}

fn moved(fx: &[TablesEffect]) -> Vec<(u64, bool)> {
    fx.iter()
        .filter_map(|effect| match effect {
            TablesEffect::Tell(TablesFact::Moved { position, complete }) => {
                Some((position.number, *complete))
            }
            _ => None,
        })
        .collect()
}

/// A loading is interrupted, and both lose power; the master comes back with less than it had. The
/// old log of the standby is what is left of it, and a new loading threw it away without a copy,
/// because tables that are not whole were held to be of no use.
#[test]
fn a_tail_is_set_aside_also_by_tables_that_are_not_whole() {
    let (mut standby, mut store) = (standby(log(10), false), Store::default());
    let fx = say(&mut standby, &mut store, FromMaster::Load { epoch: EPOCH, common: 5 });
    let place = |wanted: &TablesEffect| fx.iter().position(|effect| effect == wanted);
    let aside = place(&TablesEffect::SetAside { after: 5 }).expect("it is set aside");
    assert!(aside < place(&TablesEffect::BeginLoading).expect("it loads"));

    // Interrupted, and begun again: once is enough.
    let mut fx = Vec::new();
    standby.master_gone(Moment(2), &mut fx);
    standby.handle_timeout(Moment(200), &mut fx);
    let fx = say(&mut standby, &mut store, FromMaster::Load { epoch: EPOCH, common: 5 });
    assert!(!fx.contains(&TablesEffect::SetAside { after: 5 }), "{fx:?}");
}

/// Nothing was written while the snapshot came. The disk had it whole, the standby waited up to a
/// second for digests; the master lost power, came back with less, and was let in front because its
/// peer called itself half loaded.
#[test]
fn a_snapshot_that_nothing_follows_is_whole_at_its_end() {
    let (mut standby, mut store) = (standby(log(0), true), Store::default());
    say(&mut standby, &mut store, FromMaster::Load { epoch: EPOCH, common: 0 });
    say(&mut standby, &mut store, FromMaster::Piece(Piece::Begin { history: log(8) }));
    assert!(!standby.complete());
    let fx = say(&mut standby, &mut store, FromMaster::Piece(Piece::End { until: 8 }));
    assert!(standby.complete() && fx.contains(&TablesEffect::FinishLoading), "{fx:?}");
    assert_eq!(moved(&fx), [(8, true)]);
}

/// Progress is told at most every so often; what came just before a silence was never told, and
/// positions are compared by what was told.
#[test]
fn the_last_progress_before_a_silence_is_told_in_the_end() {
    let (mut standby, mut store) = (standby(log(0), true), Store::default());
    say(&mut standby, &mut store, FromMaster::Tail { epoch: EPOCH, after: 0 });
    let mut fx = Vec::new();
    for number in 1..=3 {
        let record = Record { epoch: EPOCH, number, body: Body::EpochStart { life: number } };
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        say(&mut standby, &mut store, FromMaster::Records(vec![record], bytes));
        standby.appended(Moment(number), number, &mut store, &mut fx);
    }
    assert_eq!(moved(&fx), [(1, true)]);
    let due = standby.deadline().expect("something is to be told");
    assert!(due <= Moment(101), "told as late as {due}");
    let mut fx = Vec::new();
    standby.handle_timeout(due, &mut fx);
    assert_eq!(moved(&fx), [(3, true)]);
    standby.handle_timeout(standby.deadline().expect("the master's silence"), &mut Vec::new());
}

/// Pieces came for longer than a silent follower is borne: it was given up each time, for ever.
#[test]
fn a_follower_that_loads_for_long_is_not_given_up() {
    let (mut standby, mut store) = (standby(log(0), true), Store::default());
    say(&mut standby, &mut store, FromMaster::Load { epoch: EPOCH, common: 0 });
    say(&mut standby, &mut store, FromMaster::Piece(Piece::Begin { history: log(8) }));
    let rows = Piece::Rows { table: "t".into(), rows: Vec::new() };
    let fx = say(&mut standby, &mut store, FromMaster::Piece(rows));
    assert!(fx.contains(&TablesEffect::Held { number: 0 }), "no sign of life: {fx:?}");

    let (mut master, mut store, mut fx) = (node(log(0), true), Store::default(), Vec::new());
    master.prepare(Moment(0), EPOCH, &mut store, &mut fx);
    master.appended(Moment(0), 1, &mut store, &mut fx);
    let (who, history) = (incarnation("a", 1), log(0));
    let follow = Follow { who, life: 5, history, applied: 0, complete: false };
    master.follower_came(Moment(0), 1, &follow, 1, &mut fx);
    fx.clear();
    for second in 1..=30 {
        let now = Moment(second * 1_000);
        if second % 5 == 0 {
            master.follower_holds(now, 1, 0, &mut store, &mut fx);
        }
        master.handle_timeout(now, &mut fx);
    }
    let given_up = |effect: &TablesEffect| matches!(effect, TablesEffect::CloseFollower { .. });
    assert!(!fx.iter().any(given_up), "{fx:?}");
}

/// The disk was full when the node was elected, so that its tables never were master; what they
/// hold was not told again, and the node counted as one that nobody knows anything of.
#[test]
fn stand_down_is_answered_with_the_position_in_any_case() {
    let (mut node, mut store, mut fx) = (node(log(4), true), Store::default(), Vec::new());
    node.stand_down(Moment(0), &mut store, &mut fx);
    assert_eq!(moved(&fx), [(4, true)]);
}

/// The claim was under way when a snapshot began to come.
#[test]
fn tables_that_are_not_whole_begin_no_mastership() {
    let (mut node, mut store, mut fx) = (node(log(4), false), Store::default(), Vec::new());
    node.prepare(Moment(0), EPOCH, &mut store, &mut fx);
    assert_eq!((node.epoch(), moved(&fx)), (None, vec![(4, false)]));
}
