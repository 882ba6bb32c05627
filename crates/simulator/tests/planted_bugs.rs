//! A net that catches nothing proves nothing: each known bug, planted, is caught.

use hotpair_core::pair::planted::{Bug, Planted};
use hotpair_simulator::{Options, Outcome, Rule, simulate};

/// The first seed from 1 on that catches the bug.
fn first_caught(bug: Bug, seeds: u64) -> Option<Outcome> {
    let options = Options {
        planted: Planted::bug(bug),
        only: Some(&[
            hotpair_simulator::Fault::Isolated,
            hotpair_simulator::Fault::FollowerLag,
            hotpair_simulator::Fault::SlowZooKeeper,
        ]),
        ..Options::default()
    };
    (1..=seeds).map(|seed| simulate(seed, options)).find(|outcome| outcome.violation.is_some())
}

#[test]
fn survey() {
    for bug in
        [Bug::LeaseFromAnswer, Bug::LeaseOnReads, Bug::DeleteWithoutVersion, Bug::EpochReentered]
    {
        let mut rules: std::collections::BTreeMap<Rule, u32> = std::collections::BTreeMap::new();
        let options = Options {
            planted: Planted::bug(bug),
            only: Some(&[
                hotpair_simulator::Fault::Isolated,
                hotpair_simulator::Fault::FollowerLag,
                hotpair_simulator::Fault::SlowZooKeeper,
            ]),
            ..Options::default()
        };
        let n = 300;
        let mut caught = 0;
        for seed in 1..=n {
            if let Some(v) = simulate(seed, options).violation {
                caught += 1;
                *rules.entry(v.rule).or_default() += 1;
            }
        }
        let first = first_caught(bug, n).map(|o| (o.seed, o.violation.map(|v| v.to_string())));
        println!("{bug:?}: {caught} of {n}, {rules:?}, first {first:?}");
    }
}
