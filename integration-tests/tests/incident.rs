//! The incident, replayed: one pair on two coordinators that know nothing of each other.
//!
//! Once two stand-alone servers in both nodes' connect string (a client shuffles it), once one server
//! and two roots. Each start is judged by what the nodes wrote down themselves, in nanoseconds of one
//! clock:
//!
//! * *seen* is when the first of the two wrote "the peer answers". The other one has heard of it by
//!   then, in the greeting. Nobody can know of a second master before.
//! * *together* is how long both gates were open at once after *seen*, from the gate logs. It may be
//!   one ping interval, and what a busy machine needs to wake a thread.
//! * *in conflict* is when both wrote "the peer answers" and both had contact with a ZooKeeper. Within
//!   two seconds from then each node raises both alarms.
//!
//! Nodes that start together meet within milliseconds, so that seldom both become master. In the last
//! test they meet late: the way between them opens when both serve.
//!
//! A few starts; `HOTPAIR_SOAK=1` (`make soak`) forty and ten.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hotpair_integration_tests::journal::Journal;
use hotpair_integration_tests::relay::Relay;
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::{Gate, History, check};
use hotpair_lab::node::Pair;
use hotpair_lab::wait::{eventually, throughout};
use hotpair_lab::zookeeper::ZooKeeper;

const LIMIT: Duration = Duration::from_secs(30);
const PING_INTERVAL: Duration = Duration::from_millis(200);
/// From a thread's time to run until it runs, on two cores with two JVMs.
const SCHEDULING: Duration = Duration::from_millis(150);
const ALARM_LIMIT: Duration = Duration::from_secs(2);
/// Alarms of an incident; none of them may fire without one.
const ALARMS: [&str; 2] = ["ensemble_mismatch", "dual_master"];

#[test]
fn two_servers_that_are_no_ensemble_never_keep_two_masters_and_always_raise_both_alarms() {
    let _turn = Turn::alone().unwrap();
    let zookeepers = [ZooKeeper::standalone().unwrap(), ZooKeeper::standalone().unwrap()];
    let servers = zookeepers.each_ref().map(ZooKeeper::addresses).concat();
    let wanted = if soak() { 40 } else { 4 };
    let mut split = 0;
    let mut troubles = Vec::new();
    for start in 0.. {
        // Chance decides which starts are split; a run without any would prove nothing.
        if start >= wanted && split > 0 {
            break;
        }
        assert!(start < wanted + 30, "the client never chose two servers in {start} starts");
        let mut pair = Pair::here(&servers).unwrap();
        for node in &mut pair.nodes {
            // Data of its own for each start: what an earlier one left behind is another subject.
            node.settings.root = format!("/start{start}");
        }
        let (outcome, mismatched) = replay(&mut pair, |pair| is_split(pair, &zookeepers));
        split += usize::from(mismatched);
        print(&format_args!("start {start}: {outcome}"));
        troubles.extend(outcome.troubles.into_iter().map(|why| format!("start {start}: {why}")));
    }
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
}

#[test]
fn two_roots_on_one_server_never_keep_two_masters_and_always_raise_both_alarms() {
    let _turn = Turn::alone().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut troubles = Vec::new();
    for start in 0..if soak() { 10 } else { 2 } {
        let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
        for node in &mut pair.nodes {
            node.settings.root = format!("/start{start}-{}", node.settings.node);
        }
        let (outcome, _) = replay(&mut pair, |_| Ok(true));
        print(&format_args!("start {start}: {outcome}"));
        troubles.extend(outcome.troubles.into_iter().map(|why| format!("start {start}: {why}")));
    }
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
}

#[test]
fn two_masters_that_meet_late_are_one_within_a_ping_and_raise_both_alarms() {
    let _turn = Turn::alone().unwrap();
    let zookeepers = [ZooKeeper::standalone().unwrap(), ZooKeeper::standalone().unwrap()];
    let mut troubles = Vec::new();
    for start in 0..if soak() { 10 } else { 2 } {
        let mut pair = Pair::here(&[]).unwrap();
        let links = pair.nodes.each_ref().map(|node| node.settings.link);
        let relays = links.map(|link| Relay::closed(link).unwrap());
        for (index, node) in pair.nodes.iter_mut().enumerate() {
            node.settings.root = format!("/start{start}");
            node.settings.zookeeper = zookeepers[index].addresses();
            node.settings.peer_link = relays[1 - index].address();
        }
        for node in &mut pair.nodes {
            node.start().unwrap();
        }
        eventually(LIMIT, "both serve", || {
            let serving = pair.serving();
            ensure!(serving.len() == 2, "serving: {serving:?}");
            Ok(())
        })
        .unwrap();
        for relay in &relays {
            relay.open().unwrap();
        }
        let outcome = end(&mut pair, true);
        print(&format_args!("start {start}: {outcome}"));
        assert!(outcome.masters.len() >= 2, "both were master: {outcome}");
        troubles.extend(outcome.troubles.into_iter().map(|why| format!("start {start}: {why}")));
    }
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
}

/// What a start came to.
#[derive(Debug, Default)]
struct StartOutcome {
    mismatched: bool,
    together: Duration,
    /// From the conflict to each alarm, by node and name.
    alarms: BTreeMap<String, Option<Duration>>,
    masters: Vec<String>,
    troubles: Vec<String>,
}

impl Display for StartOutcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mismatched, together, alarms, masters, troubles } = self;
        write!(
            out,
            "mismatched {mismatched}, masters {masters:?}, together {together:.1?}, {alarms:.1?}, \
             {} troubles",
            troubles.len()
        )
    }
}

/// One start of both nodes until all alarms, if there must be some, could be heard; and whether there
/// must be some.
fn replay(pair: &mut Pair, is_mismatched: impl Fn(&Pair) -> Result<bool>) -> (StartOutcome, bool) {
    for node in &mut pair.nodes {
        node.start().unwrap();
    }
    let known = eventually(LIMIT, "both nodes are known to ZooKeeper", || is_mismatched(pair));
    let mismatched = known.unwrap();
    (end(pair, mismatched), mismatched)
}

/// Hears the alarms, or that there are none; ends both nodes; judges.
fn end(pair: &mut Pair, mismatched: bool) -> StartOutcome {
    eventually(LIMIT, "both nodes have met and have contact", || {
        for node in &pair.nodes {
            let role = node.admin().get_json("/role")?;
            ensure!(role["contact"] == "connected", "{role}");
            ensure!(role["peer"]["reachable"] == true, "{role}");
        }
        Ok(())
    })
    .unwrap();
    if mismatched {
        // Alarms that never come are told below, with the journals.
        let _ = eventually(ALARM_LIMIT, "all alarms", || all_alarms(pair));
    } else {
        pair.wait_for_master(LIMIT).unwrap();
        throughout(ALARM_LIMIT / 2, "no alarm", || no_alarm(pair)).unwrap();
    }
    for node in &mut pair.nodes {
        node.stop(LIMIT).unwrap();
    }
    judge(pair, mismatched).unwrap()
}

fn all_alarms(pair: &Pair) -> Result<()> {
    for node in &pair.nodes {
        let firing = node.alerts()?;
        ensure!(ALARMS.iter().all(|name| firing.iter().any(|f| f == name)), "{firing:?}");
    }
    Ok(())
}

fn no_alarm(pair: &Pair) -> Result<()> {
    for node in &pair.nodes {
        let firing = node.alerts()?;
        ensure!(!ALARMS.iter().any(|name| firing.iter().any(|f| f == name)), "{firing:?}");
    }
    Ok(())
}

fn judge(pair: &Pair, mismatched: bool) -> Result<StartOutcome> {
    let mut outcome = StartOutcome { mismatched, ..StartOutcome::default() };
    let journals = [Journal::read(&pair.nodes[0])?, Journal::read(&pair.nodes[1])?];
    let both = |event, text| -> Result<[i64; 2]> {
        Ok([journals[0].first(event, text)?, journals[1].first(event, text)?])
    };
    let [first_ns, second_ns] = both("peer", "the peer answers")?;
    let contacts = both("coordinator", "contact with ZooKeeper: connected")?;
    let seen_ns = first_ns.min(second_ns);
    let conflict_ns = first_ns.max(second_ns).max(contacts[0]).max(contacts[1]);
    let gates = pair.gates()?;
    outcome.masters = gates.iter().map(|g| format!("{}{}", g.node, g.epoch)).collect();
    outcome.masters.dedup();
    outcome.together = together_since(seen_ns, gates);
    if outcome.together > PING_INTERVAL + SCHEDULING {
        outcome.troubles.push(format!("two masters for {:?}", outcome.together));
    }
    for (journal, node) in journals.iter().zip(["a", "b"]) {
        for name in ALARMS {
            let after = journal.alerted(name)?.map(|at_ns| since(conflict_ns, at_ns));
            outcome.alarms.insert(format!("{node} {name}"), after);
            let in_time = after.is_some_and(|after| after <= ALARM_LIMIT);
            if in_time != mismatched {
                let should = if mismatched { "should" } else { "should not" };
                outcome.troubles.push(format!("{node} {should} raise {name}: after {after:?}"));
            }
        }
    }
    if !outcome.troubles.is_empty() {
        for (node, journal) in pair.nodes.iter().zip(&journals) {
            let log = std::fs::read_to_string(node.folder().join("log"))?;
            print(&format_args!("{}:\n{}{log}", node.settings.node, journal.text()));
        }
    }
    Ok(outcome)
}

fn since(from_ns: i64, to_ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(to_ns - from_ns).unwrap_or(0))
}

/// How long both gates were open at once after this moment. The checker does the counting, with all
/// that was before cut away.
fn together_since(from_ns: i64, gates: Vec<Gate>) -> Duration {
    let mut by_opening: BTreeMap<(String, u64, i64), Vec<Gate>> = BTreeMap::new();
    for gate in gates {
        by_opening.entry((gate.node.clone(), gate.epoch, gate.open_ns)).or_default().push(gate);
    }
    let over = |lines: &Vec<Gate>| {
        lines.iter().filter_map(|line| line.close_ns).any(|closed_ns| closed_ns <= from_ns)
    };
    by_opening.retain(|_, lines| !over(lines));
    let gates = by_opening.into_values().flatten();
    let gates = gates.map(|gate| Gate { open_ns: gate.open_ns.max(from_ns), ..gate }).collect();
    let report = check(&History { gates, ..History::default() });
    since(0, report.overlap_ns)
}

/// Whether the two nodes have their sessions at different servers, from the servers' own lists of
/// whose ephemeral znodes they keep.
fn is_split(pair: &Pair, zookeepers: &[ZooKeeper; 2]) -> Result<bool> {
    let lists = [zookeepers[0].four_letters(0, "dump")?, zookeepers[1].four_letters(0, "dump")?];
    let mut chosen = Vec::new();
    for node in &pair.nodes {
        let presence =
            format!("{}/{}/nodes/{}", node.settings.root, node.settings.pair, node.settings.node);
        match lists.each_ref().map(|list| list.lines().any(|line| line.trim() == presence)) {
            [true, false] => chosen.push(0),
            [false, true] => chosen.push(1),
            both => bail!("{presence} at the two servers: {both:?}"),
        }
    }
    Ok(chosen[0] != chosen[1])
}

fn soak() -> bool {
    env::var_os("HOTPAIR_SOAK").is_some()
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs the test with --nocapture")]
fn print(figures: &dyn Display) {
    println!("{figures}");
}
