//! The clients and their judge together: an honest pair passes, however often it switches and loses
//! answers, and every kind of dishonest one is found.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hotpair_lab::checker::tables::Kind;
use hotpair_lab::checker::{History, Outcome, Report, Request, check};
use hotpair_lab::request_log::RequestLog;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::session::User;
use hotpair_lab::table_load::{Plan, TableLoad};

mod fake;

use fake::{FakePair, Wrong};

const SWITCHES: usize = 10;
const BETWEEN_SWITCHES: Duration = Duration::from_millis(150);
const LIMIT: Duration = Duration::from_secs(30);

fn run(wrong: Wrong) -> (Vec<Request>, Report) {
    let scratch = Scratch::new("table-load").unwrap();
    let log = Arc::new(RequestLog::create(&scratch.join("requests.jsonl")).unwrap());
    let pair = FakePair::start(wrong);
    let user = User { name: "somebody".to_owned(), password: "something".to_owned() };
    let plan = Plan { clients: 4, threads: 3, watchers: 2, pause_ms_max: 8, seed: 1, user };
    let targets = pair.targets(Duration::from_secs(1));
    let load = TableLoad::start(&targets, &plan, &log).unwrap();
    for _ in 0..SWITCHES {
        thread::sleep(BETWEEN_SWITCHES);
        pair.switch();
    }
    let requests = load.stop(LIMIT).unwrap();
    let report = check(&History { requests: requests.clone(), ..History::default() });
    (requests, report)
}

#[test]
fn an_honest_pair_passes_through_switches_and_lost_answers() {
    let (requests, report) = run(Wrong::Nothing);
    assert!(report.is_good(), "{report}");
    assert_eq!((report.failed, report.unknown), (0, 0), "{report}");
    let tables = &report.tables;
    assert!(tables.acknowledged > 200 && tables.looks > 50 && tables.copies > 10, "{report}");
    // What the load is for did happen: answers to later attempts, and numbers before earlier ones.
    let again = requests
        .iter()
        .filter(|each| each.sent_ns.is_some_and(|sent| sent > each.at_ns + 5_000_000));
    assert!(again.count() > 10);
    let numbered = requests.iter().filter(|each| each.client == "client-0" && each.copy == 0);
    let mut answered: Vec<(i64, u64)> = numbered
        .filter(|each| each.outcome == Some(Outcome::Ok))
        .map(|each| (each.at_ns, each.request))
        .collect();
    answered.sort_unstable();
    assert!(answered.windows(2).any(|pair| pair[0].1 > pair[1].1), "never out of order");
}

#[track_caller]
fn assert_found(wrong: Wrong, kind: Kind) {
    let (_, report) = run(wrong);
    assert!(report.tables.broken(kind) > 0, "{kind} not found: {report}");
}

#[test]
fn a_pair_that_loses_its_tail_is_found() {
    assert_found(Wrong::LosesTheTail, Kind::Lost);
}

#[test]
fn a_pair_that_keeps_no_answers_is_found() {
    assert_found(Wrong::KeepsNoAnswers, Kind::Doubled);
}

#[test]
fn a_pair_that_shows_the_past_is_found() {
    assert_found(Wrong::ShowsThePast, Kind::Stale);
}

#[test]
fn a_pair_that_shows_what_does_not_stay_is_found() {
    assert_found(Wrong::ShowsPending, Kind::Unseen);
}

#[test]
fn a_pair_that_forgets_sessions_is_found() {
    assert_found(Wrong::ForgetsSessions, Kind::Sessions);
}

#[test]
fn a_pair_that_speaks_in_riddles_is_found() {
    let (_, report) = run(Wrong::SpeaksInRiddles);
    assert!(report.to_string().contains("failed with undocumented Some(308000099)"), "{report}");
}
