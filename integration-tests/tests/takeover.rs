//! The master dies, hangs, leaves in order, is told to leave, or only seems to: who serves next, in
//! which epoch, for which reason, and what the old one may still say.
//!
//! Times are generous: `hotpair bench` measures them. What is exact: the epoch, the cause in the
//! journal, the registry, and that no two gates were open together.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::journal::Journal;
use hotpair_integration_tests::steps::{LIMIT, argument, run_hotpair, serves, settled};
use hotpair_integration_tests::turn::Turn;
use hotpair_integration_tests::znodes::Znodes;
use hotpair_lab::checker::{Fault, History, check};
use hotpair_lab::http::Http;
use hotpair_lab::load::{Load, Plan, now_ns};
use hotpair_lab::node::{Pair, Settings};
use hotpair_lab::wait::{eventually, throughout};
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};

const SERVES_NOT: i64 = 308_000_005;
const SERVICES: [&str; 4] = ["dataset", "functions", "table", "test"];
/// The old master gave its znode back, or said before that it had left.
const HANDED_OVER: [&str; 2] = ["first_claim", "peer_left"];
/// Long enough for a session to end, and for any second thoughts.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// A pair in peace, with a client that calls it all the time.
struct Lab {
    load: Option<Load>,
    pair: Pair,
    zookeeper: ZooKeeper,
    faults: Vec<Fault>,
    master: usize,
    epoch: u64,
    _turn: Turn,
}

impl Lab {
    fn new(change: impl Fn(&mut Settings)) -> Self {
        let turn = Turn::alone().unwrap();
        let zookeeper = ZooKeeper::standalone().unwrap();
        let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
        for node in &mut pair.nodes {
            change(&mut node.settings);
        }
        pair.start().unwrap();
        let master = settled(&pair).unwrap();
        let epoch = pair.nodes[master].role().unwrap().epoch;
        let load = Some(Load::start(&pair, Plan::default()));
        Self { load, pair, zookeeper, faults: Vec::new(), master, epoch, _turn: turn }
    }

    fn standby(&self) -> usize {
        1 - self.master
    }

    fn name(&self, node: usize) -> String {
        self.pair.nodes[node].settings.node.clone()
    }

    /// Notes for the checker that this process ends now.
    fn note_end(&mut self, node: usize) {
        let (at_ns, ended) = (now_ns(), Some(self.name(node)));
        self.faults.push(Fault {
            name: "end".to_owned(),
            at_ns,
            until_ns: at_ns,
            ended,
            gone_ns: None,
        });
    }

    fn kill(&mut self, node: usize) {
        self.note_end(node);
        self.pair.nodes[node].kill().unwrap();
        self.faults.last_mut().unwrap().gone_ns = Some(now_ns());
    }

    /// The other node serves, in the next epoch, for one of these causes.
    fn ensure_taken_over(&self, causes: &[&str]) {
        let (successor, next) = (self.standby(), self.epoch + 1);
        assert_eq!(serves(&self.pair, successor).unwrap(), next, "each takeover is one epoch");
        // Written by a thread of its own: a moment later.
        let (journal, told) = eventually(LIMIT, "the journal tells the cause", || {
            let journal = Journal::read(&self.pair.nodes[successor])?;
            let told = journal.causes("promoting").pop().context("no word of it")?;
            Ok((journal, told))
        })
        .unwrap();
        // A claim whose answer a busy ZooKeeper kept to itself is found done at the next look.
        let known = causes.contains(&told.as_str()) || told == "claim_found_done";
        assert!(known, "{told} is none of {causes:?}: {}", journal.text());
    }

    /// No role changes any more.
    fn ensure_it_stays(&self, master: usize, epoch: u64) {
        throughout(AFTERWARDS, "the master stays", || {
            let roles = [self.pair.nodes[master].role()?, self.pair.nodes[1 - master].role()?];
            ensure!(roles[0].serving && roles[0].epoch == epoch, "{roles:?}");
            ensure!(roles[1].role == "standby", "{roles:?}");
            Ok(())
        })
        .unwrap();
    }

    /// All names in the registry, by service.
    fn registry(&self) -> Vec<Vec<String>> {
        let znodes = Znodes::connect(&self.zookeeper.addresses()).unwrap();
        let names =
            |service| znodes.below(&format!("/hotpair/trade/functions/hotpair/{service}/1.0"));
        SERVICES.iter().map(|service| names(service).unwrap()).collect()
    }

    /// What the registry holds when it lists this node in this epoch and nothing else.
    fn only(node: &str, epoch: u64) -> Vec<Vec<String>> {
        vec![vec![format!("{node}-{epoch}")]; SERVICES.len()]
    }

    /// Waits until the registry lists this node in this epoch and nothing else: entries of an old
    /// session go with the session.
    fn ensure_only_registered(&self, node: usize, epoch: u64) {
        let only = Self::only(&self.name(node), epoch);
        eventually(LIMIT, "the registry lists the newest epoch only", || {
            let registry = self.registry();
            ensure!(registry == only, "{registry:?}");
            Ok(())
        })
        .unwrap();
    }

    /// Ends everything and has the history judged.
    fn judge(mut self) {
        let requests = self.load.take().unwrap().stop().unwrap();
        for node in &mut self.pair.nodes {
            node.stop(LIMIT).unwrap();
        }
        let gates = self.pair.gates().unwrap();
        let report = check(&History { requests, gates, faults: self.faults });
        assert!(report.is_good(), "{report}");
        assert_eq!((report.lost, report.unknown, report.overlap_ns), (0, 0, 0), "{report}");
    }
}

/// The envelope that the pair's master answers with, found through ZooKeeper as an operator would.
fn call_by_name(lab: &Lab, asked: usize) -> Result<Value> {
    let config = lab.pair.nodes[asked].folder().join("config.toml");
    let (code, out, said) = run_hotpair(&[
        "call",
        "hotpair/test/1.0:echo",
        "--config",
        argument(&config)?,
        "--arguments",
        r#"{"who":"serves"}"#,
        "--json",
    ])?;
    ensure!(code == 0, "hotpair call ended with {code}: {out}{said}");
    serde_json::from_str(&out).with_context(|| format!("no JSON: {out}"))
}

#[test]
fn a_killed_master_is_replaced_because_its_process_is_dead_and_does_not_fail_back() {
    let mut lab = Lab::new(|_| {});
    let (old, successor) = (lab.master, lab.standby());
    assert_eq!(lab.registry(), Lab::only(&lab.name(old), lab.epoch));
    lab.kill(old);
    lab.ensure_taken_over(&["peer_dead"]);
    let next = lab.epoch + 1;
    // The dead one's session lives on for a while, with its entries: neither hinders anybody.
    let mut both = vec![format!("{}-{}", lab.name(old), lab.epoch)];
    both.push(format!("{}-{next}", lab.name(successor)));
    both.sort();
    eventually(LIMIT, "the new entries stand beside the old ones", || {
        let registry = lab.registry();
        ensure!(registry == vec![both.clone(); SERVICES.len()], "{registry:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(call_by_name(&lab, old).unwrap()["epoch"], next, "a call finds the new master");
    lab.pair.nodes[old].start_and_wait().unwrap();
    assert_eq!(settled(&lab.pair).unwrap(), successor);
    lab.ensure_it_stays(successor, next);
    lab.ensure_only_registered(successor, next);
    lab.judge();
}

#[test]
fn a_frozen_master_is_replaced_when_its_lease_is_over_and_refuses_everybody_when_it_wakes() {
    const SESSION: Duration = Duration::from_secs(4);
    let mut lab = Lab::new(|settings| settings.session_timeout = SESSION);
    let (old, successor) = (lab.master, lab.standby());
    let began = Instant::now();
    lab.pair.nodes[old].freeze().unwrap();
    // The second where ZooKeeper was so busy that the session's end came first.
    lab.ensure_taken_over(&["peer_silent", "holder_gone"]);
    let took = began.elapsed();
    // The bench has the narrow limit, 0.7 T + 0.3 s.
    assert!(took < SESSION.mul_f64(0.7) + Duration::from_secs(3), "it took {took:?}");
    let next = lab.epoch + 1;
    // The gate opens before the registry is written.
    eventually(LIMIT, "a call finds the new master", || {
        let envelope = call_by_name(&lab, old)?;
        ensure!(envelope["epoch"] == next, "{envelope}");
        Ok(())
    })
    .unwrap();
    // The kernel takes the connection for the frozen one; the request waits at its door.
    let client = lab.pair.nodes[old].settings.client;
    let mut stream = lab.pair.nodes[old].place().connect(client, LIMIT).unwrap();
    let body = json!({"function": 1901, "arguments": {"late": true}}).to_string();
    let head = format!(
        "POST /v1/call HTTP/1.1\r\nHost: {client}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    lab.pair.nodes[old].thaw().unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let envelope = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let envelope: Value = serde_json::from_str(envelope).unwrap();
    assert_eq!(envelope["error_no"], SERVES_NOT, "{envelope}");
    assert_eq!(lab.pair.nodes[old].call(1901, &json!({})).unwrap()["error_no"], SERVES_NOT);
    assert_eq!(settled(&lab.pair).unwrap(), successor);
    lab.ensure_it_stays(successor, next);
    // Its entries live as long as its old session, and nobody looks at them.
    assert_eq!(call_by_name(&lab, old).unwrap()["epoch"], next);
    lab.ensure_only_registered(successor, next);
    lab.judge();
}

#[test]
fn a_planned_switch_needs_the_token_can_be_tried_dry_and_moves_the_mastership() {
    let lab = Lab::new(|_| {});
    let master = &lab.pair.nodes[lab.master];
    let admin = master.settings.admin;
    for stranger in [
        Http::new(master.place().clone(), admin),
        Http::new(master.place().clone(), admin).with_token("another-token"),
    ] {
        let answer = stranger.post("/switchover", &json!({"dry_run": false})).unwrap();
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let token_file = master.folder().join("admin.token");
    let admins = lab.pair.nodes.each_ref().map(|node| format!("http://{}", node.settings.admin));
    let order = |more: &[&str]| {
        let mut arguments = vec!["switchover", "--token-file", argument(&token_file).unwrap()];
        arguments.extend(["--admin", &admins[0], "--admin", &admins[1]]);
        arguments.extend(more);
        run_hotpair(&arguments).unwrap()
    };
    let (code, out, said) = order(&["--dry-run"]);
    assert_eq!(code, 0, "{out}{said}");
    lab.ensure_it_stays(lab.master, lab.epoch);
    eventually(LIMIT, "the switch is done", || {
        let (code, out, said) = order(&[]);
        ensure!(code == 0, "{out}{said}");
        Ok(())
    })
    .unwrap();
    lab.ensure_taken_over(&HANDED_OVER);
    let successor = lab.standby();
    assert_eq!(settled(&lab.pair).unwrap(), successor);
    lab.ensure_only_registered(successor, lab.epoch + 1);
    lab.judge();
}

#[test]
fn a_master_that_is_told_to_end_hands_over_at_once() {
    // Were the session's end needed, it would take this long.
    let mut lab = Lab::new(|settings| settings.session_timeout = Duration::from_secs(10));
    let began = Instant::now();
    let old = lab.master;
    lab.pair.nodes[old].stop(LIMIT).unwrap();
    lab.ensure_taken_over(&HANDED_OVER);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "it took {took:?}");
    lab.pair.nodes[old].start_and_wait().unwrap();
    assert_eq!(settled(&lab.pair).unwrap(), lab.standby());
    lab.judge();
}

#[test]
fn a_standby_that_dies_changes_no_role() {
    let mut lab = Lab::new(|_| {});
    let (master, epoch) = (lab.master, lab.epoch);
    let standby = lab.standby();
    lab.kill(standby);
    throughout(AFTERWARDS, "the master stays", || {
        let role = lab.pair.nodes[master].role()?;
        ensure!(role.serving && role.epoch == epoch, "{role:?}");
        Ok(())
    })
    .unwrap();
    assert!(lab.pair.nodes[master].alerts().unwrap().contains(&"peer_unreachable".to_owned()));
    lab.pair.nodes[standby].start_and_wait().unwrap();
    assert_eq!(settled(&lab.pair).unwrap(), master);
    lab.ensure_it_stays(master, epoch);
    lab.judge();
}

#[test]
fn without_fast_takeover_a_dead_master_is_replaced_when_its_session_has_ended() {
    const SESSION: Duration = Duration::from_secs(3);
    let mut lab = Lab::new(|settings| {
        settings.fast_takeover = false;
        settings.session_timeout = SESSION;
    });
    let began = Instant::now();
    let old = lab.master;
    lab.kill(old);
    assert_eq!(serves(&lab.pair, lab.standby()).unwrap(), lab.epoch + 1);
    let took = began.elapsed();
    // The last heartbeat was at most a sixth of the time-out old.
    assert!(took > SESSION.mul_f64(0.8), "it took only {took:?}");
    assert!(took < SESSION * 2 + Duration::from_secs(2), "it took {took:?}");
    lab.pair.nodes[old].start_and_wait().unwrap();
    assert_eq!(settled(&lab.pair).unwrap(), lab.standby());
    lab.judge();
}
