//! Storms that must pass, and that they are what they say.

use hotpair_simulator::{Fault, Options, bench, run, simulate, transcript};

/// `make simulate` runs 100,000; this is what every test run affords.
const SEEDS: u64 = 2_000;

#[test]
fn every_rule_holds_in_two_thousand_storms() {
    let report = run(1, SEEDS, 2, Options::default());
    assert_eq!(report.failed, 0, "{report}");
    assert!(report.elections > 3 * SEEDS, "{report}");
    for fault in Fault::ALL {
        let (storms, times) = report.coverage[fault.index()];
        assert!(storms > SEEDS / 10 && times >= storms, "{fault:?} is too rare: {report}");
    }
}

#[test]
fn storms_with_every_fault_class_hold_at_least_three_elections() {
    let report = bench(20);
    assert_eq!(report.failed, 0, "{report}");
    for fault in Fault::ALL {
        assert_eq!(report.coverage[fault.index()].0, 20, "{fault:?} was not drawn each time");
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in [1, 7, 4_711] {
        let options = Options { transcript: true, ..Options::default() };
        let (first, second) = (simulate(seed, options), simulate(seed, options));
        assert!(first == second, "seed {seed} gave two histories");
        assert!(first.transcript.lines().count() > 100, "seed {seed} tells little");
    }
}

#[test]
fn looking_does_not_change_what_happens() {
    let quiet = simulate(11, Options::default());
    let told = simulate(11, Options { transcript: true, ..Options::default() });
    assert_eq!((quiet.digest, quiet.events), (told.digest, told.events));
}

#[test]
fn the_number_of_threads_does_not_change_what_is_found() {
    let one = run(50, 40, 1, Options::default());
    let two = run(50, 40, 2, Options::default());
    assert_eq!(
        (one.events, one.elections, one.coverage),
        (two.events, two.elections, two.coverage)
    );
}

#[test]
fn a_transcript_begins_with_the_seed_and_its_weather() {
    let text = transcript(3, Options::default());
    let first = text.lines().next().expect("a first line");
    assert!(first.contains("seed 3: session") && first.contains("faults ["), "{first}");
}
