//! A net that catches nothing proves nothing: each known bug, planted, is caught.
//!
//! For each bug: the fault classes whose meeting brings it out, how many seeds that may take, and
//! the rules by which it shows. The same seeds pass without it.

#![expect(clippy::print_stdout, reason = "the figures are asked for with --nocapture")]

use hotpair_core::pair::planted::{Bug, Planted};
use hotpair_simulator::{Fault, Options, Outcome, Rule, simulate};

/// How one bug is brought out.
struct Scenario {
    bug: Bug,
    faults: &'static [Fault],
    seeds: u64,
    rules: &'static [Rule],
}

const TWO_MASTERS: &[Rule] = &[Rule::OneWriter, Rule::EpochsGoBack];

fn scenario(bug: Bug) -> Scenario {
    let (faults, seeds, rules): (&'static [Fault], u64, &'static [Rule]) = match bug {
        // Slow answers, and then nothing gets out any more while answers still come in.
        Bug::LeaseFromAnswer | Bug::LeaseOnReads => {
            (&[Fault::Isolated, Fault::FollowerLag, Fault::SlowZooKeeper], 150, TWO_MASTERS)
        }
        // The next life finds the znode of the one before.
        Bug::OwnerNotCompared => (&[Fault::QuickRestart], 20, &[Rule::EpochOneLife]),
        // The peer's last word was "master"; what the storm leaves behind is that its machine dies.
        Bug::PingAsVeto => (&[Fault::WallJump, Fault::SessionExpired], 300, &[Rule::Serves]),
        // Ordered away while the connection is broken, so that it cannot be given back at once.
        Bug::EpochReentered => (
            &[Fault::Switchover, Fault::ConnectionMoved, Fault::AmbiguousAnswers],
            150,
            &[Rule::EpochLeft, Rule::OneWriter],
        ),
        // The holder goes while the standby's connection is broken.
        Bug::WatchLostAtReconnect => (
            &[Fault::ConnectionMoved, Fault::LeaderChange, Fault::SessionExpired],
            150,
            &[Rule::Serves, Rule::StandsBy],
        ),
        // A claim succeeds, its answer is lost, and nothing gives the znode back.
        Bug::AmbiguousTakenForFailure => (&[Fault::ClaimAnswerLost], 150, &[Rule::Serves]),
        // A claim held up is executed after another epoch came and went.
        Bug::LateQueuedClaim => (
            &[Fault::SessionExpired, Fault::LateRequests, Fault::AmbiguousAnswers],
            150,
            &[Rule::EpochOneLife, Rule::OneWriter, Rule::EpochsGoBack, Rule::RegistryFence],
        ),
        // Cut off from ZooKeeper, the client goes on believing.
        Bug::WaitForExpired => {
            (&[Fault::ZooKeeperCut, Fault::ZooKeeperUnreachable], 20, TWO_MASTERS)
        }
        // A firewall refuses while the master lives.
        Bug::RefusedAlone => (&[Fault::Reject], 20, TWO_MASTERS),
        // The standby's server lags behind the heartbeats, and the link is silent.
        Bug::DeleteWithoutVersion => {
            (&[Fault::FollowerLag, Fault::FollowerCut, Fault::LinkCut], 300, TWO_MASTERS)
        }
        // The peer is lost and the record still names it when the master dies.
        Bug::SyncRecordLate => (
            &[Fault::LinkCut, Fault::SlowZooKeeper, Fault::Kill],
            300,
            &[Rule::AcknowledgedKept, Rule::AloneByRecord],
        ),
        // A switch whose handover was written, as the servers know and the master does not.
        Bug::HandoverForgotten => {
            (&[Fault::Switchover, Fault::AmbiguousAnswers], 50, &[Rule::HandoverStands])
        }
        // The peer was not in sync when the master died.
        Bug::SyncNotChecked => {
            (&[Fault::LinkCut, Fault::Kill, Fault::HostDeath], 300, &[Rule::AcknowledgedKept])
        }
    };
    Scenario { bug, faults, seeds, rules }
}

/// A storm that could not bring its faults about, because nobody served any more, shows nothing.
fn breaks_a_rule(outcome: &Outcome) -> bool {
    outcome.violation.as_ref().is_some_and(|v| v.rule != Rule::Coverage)
}

impl Scenario {
    fn options(&self) -> Options {
        Options { only: Some(self.faults), ..Options::default() }
    }

    /// The first seed from 1 on that catches the bug.
    fn first_caught(&self) -> Option<Outcome> {
        let options = Options { planted: Planted::bug(self.bug), ..self.options() };
        (1..=self.seeds).map(|seed| simulate(seed, options)).find(breaks_a_rule)
    }
}

fn is_caught(bug: Bug) {
    let scenario = scenario(bug);
    let caught = scenario.first_caught().unwrap_or_else(|| {
        panic!("{bug:?} was not caught in {} seeds of {:?}", scenario.seeds, scenario.faults)
    });
    let violation = caught.violation.expect("it was found by it");
    println!("{bug:?}: seed {} of {:?}: {violation}", caught.seed, scenario.faults);
    assert!(
        scenario.rules.contains(&violation.rule),
        "{bug:?} shows as {violation}, not as one of {:?}",
        scenario.rules
    );
    for seed in 1..=caught.seed {
        let sound = simulate(seed, scenario.options());
        assert_eq!(sound.violation, None, "seed {seed} fails without {bug:?} as well");
    }
}

#[test]
fn a_lease_counted_from_the_answer_is_caught() {
    is_caught(Bug::LeaseFromAnswer);
}

#[test]
fn a_lease_renewed_by_reads_is_caught() {
    is_caught(Bug::LeaseOnReads);
}

#[test]
fn a_znode_taken_for_ours_by_its_name_is_caught() {
    is_caught(Bug::OwnerNotCompared);
}

#[test]
fn a_ping_that_vetoes_for_ever_is_caught() {
    is_caught(Bug::PingAsVeto);
}

#[test]
fn an_epoch_entered_again_is_caught() {
    is_caught(Bug::EpochReentered);
}

#[test]
fn a_watch_lost_at_the_reconnect_is_caught() {
    is_caught(Bug::WatchLostAtReconnect);
}

#[test]
fn an_ambiguous_claim_taken_for_refused_is_caught() {
    is_caught(Bug::AmbiguousTakenForFailure);
}

#[test]
fn a_late_claim_bound_to_no_version_is_caught() {
    is_caught(Bug::LateQueuedClaim);
}

#[test]
fn waiting_for_the_clients_word_of_expiry_is_caught() {
    is_caught(Bug::WaitForExpired);
}

#[test]
fn refused_connections_taken_for_death_are_caught() {
    is_caught(Bug::RefusedAlone);
}

#[test]
fn a_master_znode_deleted_whatever_its_version_is_caught() {
    is_caught(Bug::DeleteWithoutVersion);
}

#[test]
fn acknowledging_alone_before_the_record_says_so_is_caught() {
    is_caught(Bug::SyncRecordLate);
}

#[test]
fn a_claim_that_asks_nobody_who_has_the_changes_is_caught() {
    is_caught(Bug::SyncNotChecked);
}

#[test]
fn a_handover_forgotten_because_its_answer_is_lost_is_caught() {
    is_caught(Bug::HandoverForgotten);
}

#[test]
fn mixed_weather_catches_every_bug_too() {
    for bug in Bug::ALL {
        let options = Options { planted: Planted::bug(bug), ..Options::default() };
        let caught = (1..=4_000).map(|seed| simulate(seed, options)).find(breaks_a_rule);
        let caught =
            caught.unwrap_or_else(|| panic!("{bug:?} was not caught in 4000 mixed storms"));
        println!("{bug:?}: mixed seed {}: {}", caught.seed, caught.violation.expect("found by it"));
    }
}
