//! Storms over the tables of a whole pair.

#![expect(clippy::print_stdout, reason = "the figures are asked for with --nocapture")]

use hotpair_simulator::tables::{Options, run, simulate};

/// What every test run affords; `HOTPAIR_SEEDS` asks for more, `HOTPAIR_FROM` for others.
const SEEDS: u64 = 1_000;

fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number of seeds"))
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_in_a_thousand_storms() {
    let (from, seeds) = (asked("HOTPAIR_FROM", 1), asked("HOTPAIR_SEEDS", SEEDS));
    let report = run(from, seeds, 2, Options::default());
    println!("{report}");
    assert_eq!(report.failed, 0, "{report}");
    if seeds >= SEEDS {
        let missing = report.coverage.missing();
        assert!(missing.is_empty(), "never hit: {missing:?}\n{report}");
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
