//! The external investment system, by a stand-in that writes down what it hears: a token at login, and a
//! heartbeat with it for each session, again and again, from whoever serves, and from nobody else.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_client::{Client, Error, Session};
use hotpair_integration_tests::steps::{LIMIT, serves, settled};
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::certificates::Certificates;
use hotpair_lab::investment::InvestmentSystem;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Each costs a password's hash.
const SESSIONS: usize = 16;
const INTERVAL: Duration = Duration::from_secs(1);

struct Desk {
    // Dropped first: nodes that ask a system that is gone would only complain.
    lab: TableLab,
    system: InvestmentSystem,
    runtime: Runtime,
}

impl Desk {
    fn new() -> Result<Self> {
        let system = InvestmentSystem::start()?;
        let upstream = system.upstream(INTERVAL);
        let options = Options { more: [upstream.clone(), upstream], ..Options::default() };
        let lab = TableLab::new(&options)?;
        settled(&lab.pair)?;
        Ok(Self { lab, system, runtime: Runtime::new()? })
    }

    fn client(&self) -> Result<Client> {
        let nodes = self.lab.pair.nodes.iter();
        Ok(Client::builder().targets(nodes.map(|node| node.settings.client.to_string())).build()?)
    }

    fn log_in(&self, count: usize) -> Result<Vec<Session>> {
        let (client, user) = (self.client()?, &self.lab.user);
        self.runtime.block_on(async {
            let mut sessions = Vec::new();
            for _ in 0..count {
                sessions.push(client.log_in(&user.name, &user.password).await?);
            }
            Ok(sessions)
        })
    }

    /// How many heartbeats that were taken came for each token since then.
    fn taken_since(&self, at_ms: u64) -> Result<BTreeMap<String, Vec<u64>>> {
        let mut all = BTreeMap::<String, Vec<u64>>::new();
        for beat in self.system.beats()? {
            if beat.at_ms >= at_ms && beat.status == 200 {
                all.entry(beat.user_token).or_default().push(beat.at_ms);
            }
        }
        Ok(all)
    }

    /// Waits until each of so many sessions had so many heartbeats since then.
    fn all_heard(&self, sessions: usize, times: usize, at_ms: u64) -> Result<()> {
        eventually(LIMIT, "every session's heartbeats come", || {
            let taken = self.taken_since(at_ms)?;
            let enough = taken.values().filter(|beats| beats.len() >= times).count();
            ensure!(enough >= sessions, "{enough} of {sessions} sessions, {times} times each");
            Ok(())
        })
    }
}

fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now();
    u64::try_from(now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn metric(desk: &Desk, node: usize, line: &str) -> Result<f64> {
    let text = desk.lab.pair.nodes[node].admin().get("/metrics")?.body;
    let found = text.lines().find(|each| {
        let (name, label) = line.split_once(' ').unwrap_or((line, ""));
        each.starts_with(name) && each.contains(label)
    });
    let value = found.with_context(|| format!("no {line} in {text}"))?;
    Ok(value.rsplit(' ').next().context("no value")?.parse()?)
}

#[test]
fn every_sessions_heartbeats_go_on_after_a_switch_and_after_a_kill_and_from_one_node_only() {
    let _turn = Turn::beside_others().unwrap();
    let mut desk = Desk::new().unwrap();
    let sessions = desk.log_in(SESSIONS).unwrap();
    desk.all_heard(SESSIONS, 2, 0).unwrap();
    // Each has a token of its own, and they are spread over the interval rather than sent together.
    let taken = desk.taken_since(0).unwrap();
    assert_eq!(taken.len(), SESSIONS);
    let firsts: BTreeSet<u64> = taken.values().map(|beats| beats[0] / 100).collect();
    assert!(firsts.len() >= 4, "all within {} tenths of a second", firsts.len());

    desk.lab.switch_over().unwrap();
    let master = desk.lab.in_sync().unwrap();
    desk.all_heard(SESSIONS, 2, wall_ms()).unwrap();
    desk.lab.kill(master).unwrap();
    serves(&desk.lab.pair, 1 - master).unwrap();
    desk.all_heard(SESSIONS, 2, wall_ms()).unwrap();
    // Nobody had to log in again, there or here.
    assert_eq!(desk.system.state().unwrap()["logins"], SESSIONS);
    assert!(sessions.iter().all(|session| session.logins() == 1));
    desk.lab.start(master).unwrap();
    desk.lab.in_sync().unwrap();
    // Two nodes that both send would send twice as many: over some intervals each session has one in each.
    let start = wall_ms();
    desk.all_heard(SESSIONS, 8, start).unwrap();
    let spent_ms = wall_ms() - start;
    let most = desk.taken_since(start).unwrap().values().map(Vec::len).max().unwrap();
    let due = usize::try_from(spent_ms / 1_000).unwrap() + 2;
    assert!(most <= due, "{most} heartbeats of one session within {spent_ms} ms");
}

#[test]
fn a_master_that_was_frozen_sends_nothing_when_it_wakes() {
    let _turn = Turn::beside_others().unwrap();
    let mut desk = Desk::new().unwrap();
    let _sessions = desk.log_in(SESSIONS).unwrap();
    desk.all_heard(SESSIONS, 1, 0).unwrap();
    let master = desk.lab.in_sync().unwrap();
    desk.lab.freeze(master).unwrap();
    serves(&desk.lab.pair, 1 - master).unwrap();
    desk.all_heard(SESSIONS, 1, wall_ms()).unwrap();
    let before = metric(&desk, 1 - master, "hotpair_upstream_heartbeats_total done").unwrap();
    assert!(before > 0.0);
    desk.lab.thaw(master).unwrap();
    desk.lab.in_sync().unwrap();
    let woken = metric(&desk, master, "hotpair_upstream_heartbeats_total done").unwrap();
    // What was under way when it froze may be answered; what was due since is the other one's.
    desk.all_heard(SESSIONS, 3, wall_ms()).unwrap();
    let later = metric(&desk, master, "hotpair_upstream_heartbeats_total done").unwrap();
    assert!(later - woken <= 1.0, "{woken} heartbeats, then {later}, of a node that stands by");
}

#[test]
fn a_system_that_is_slow_dead_or_forgetful_slows_nothing_else() {
    let _turn = Turn::beside_others().unwrap();
    let mut desk = Desk::new().unwrap();
    let sessions = desk.log_in(4).unwrap();
    desk.all_heard(4, 1, 0).unwrap();
    let master = desk.lab.in_sync().unwrap();

    // Answers of 500: counted, and tried again an interval later.
    desk.system.control(&json!({"status": 500})).unwrap();
    eventually(LIMIT, "failures are counted", || {
        let failed = metric(&desk, master, "hotpair_upstream_heartbeats_total failed")?;
        ensure!(failed >= 8.0, "{failed}");
        Ok(())
    })
    .unwrap();
    let refused = refused_login(&desk);
    assert_eq!(refused, 308_000_006, "a system in trouble: again later");

    // Forgotten tokens: the sessions stay, and are told of again and again.
    desk.system.control(&json!({"status": null, "forget": true})).unwrap();
    eventually(LIMIT, "unknown tokens are counted", || {
        let unknown = metric(&desk, master, "hotpair_upstream_heartbeats_total unknown")?;
        ensure!(unknown >= 8.0, "{unknown}");
        Ok(())
    })
    .unwrap();
    call_in_each(&desk, &sessions);

    // It hangs: calls are answered, and a planned switch, which waits for all who are inside, is done.
    desk.system.control(&json!({"delay_ms": 20_000})).unwrap();
    let client = desk.client().unwrap();
    let user = (desk.lab.user.name.clone(), desk.lab.user.password.clone());
    let hanging = desk.runtime.spawn(async move { client.log_in(&user.0, &user.1).await.is_ok() });
    let began = Instant::now();
    call_in_each(&desk, &sessions);
    desk.lab.switch_over().unwrap();
    call_in_each(&desk, &sessions);
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    desk.system.kill().unwrap();
    hanging.abort();
    assert_eq!(refused_login(&desk), 308_000_006, "a system that is gone: again later");
    call_in_each(&desk, &sessions);

    // Back again, it knows nobody; who logs in now is known and told of.
    desk.system.start_again().unwrap();
    let start = wall_ms();
    let _later = desk.log_in(1).unwrap();
    desk.all_heard(1, 2, start).unwrap();
}

#[test]
fn a_user_whom_the_system_refuses_is_not_logged_in_and_tokens_are_shown_nowhere() {
    let _turn = Turn::beside_others().unwrap();
    let mut desk = Desk::new().unwrap();
    desk.system.control(&json!({"status": 403})).unwrap();
    assert_eq!(refused_login(&desk), 308_000_009);
    desk.system.control(&json!({"status": null})).unwrap();
    let _sessions = desk.log_in(2).unwrap();
    desk.all_heard(2, 2, 0).unwrap();
    let tokens: Vec<String> = desk.taken_since(0).unwrap().into_keys().collect();
    for node in &mut desk.lab.pair.nodes {
        let mut seen = vec![node.process().unwrap().log()];
        for path in ["/sessions", "/status", "/metrics", "/why", "/functions"] {
            seen.push(node.admin().get(path).unwrap().body);
        }
        for token in &tokens {
            assert!(!seen.iter().any(|text| text.contains(token.as_str())), "{token} is shown");
        }
    }
}

#[test]
fn over_tls_only_a_system_that_is_vouched_for_hears_passwords() {
    let _turn = Turn::beside_others().unwrap();
    let scratch = Scratch::new("upstream-tls").unwrap();
    let trusted = Certificates::new(&scratch.join("trusted")).unwrap();
    let foreign = Certificates::new(&scratch.join("foreign")).unwrap();
    for certificates in [&trusted, &foreign] {
        certificates.issue("system", &["127.0.0.1"]).unwrap();
    }
    let mut system = InvestmentSystem::make().unwrap();
    system.secure(&foreign, "system").unwrap();
    system.start_again().unwrap();
    let upstream = system.upstream(INTERVAL);
    assert!(upstream.contains("https://"), "{upstream}");
    // As a machine that trusts this authority.
    let authority = trusted.authority().display().to_string();
    let options = Options {
        more: [upstream.clone(), upstream],
        environment: vec![("SSL_CERT_FILE".to_owned(), authority)],
        ..Options::default()
    };
    let lab = TableLab::new(&options).unwrap();
    let mut desk = Desk { lab, system, runtime: Runtime::new().unwrap() };

    for _ in 0..3 {
        assert_eq!(refused_login(&desk), 308_000_006);
    }
    let master = desk.lab.master().unwrap();
    let said = desk.lab.pair.nodes[master].process().unwrap().log();
    let reasons = said.matches("not signed by an authority that is trusted here").count();
    assert_eq!(reasons, 1, "{said}");
    assert_eq!(desk.system.state().unwrap()["logins"], 0);

    desk.system.kill().unwrap();
    desk.system.secure(&trusted, "system").unwrap();
    desk.system.start_again().unwrap();
    let _sessions = desk.log_in(2).unwrap();
    desk.all_heard(2, 2, 0).unwrap();
    desk.lab.switch_over().unwrap();
    desk.all_heard(2, 1, wall_ms()).unwrap();
}

/// The error number of a login at whoever serves, asked once.
fn refused_login(desk: &Desk) -> i64 {
    let master = desk.lab.pair.wait_for_master(LIMIT).unwrap();
    let user = &desk.lab.user;
    let http = desk.lab.pair.nodes[master].client().with_limit(LIMIT);
    let body = json!({"user": user.name, "password": user.password});
    let answer: Value = http.post("/v1/login", &body).unwrap().json().unwrap();
    answer["error_no"].as_i64().unwrap()
}

fn call_in_each(desk: &Desk, sessions: &[Session]) {
    desk.runtime.block_on(async {
        for session in sessions {
            let sum: Result<Value, Error> =
                session.call(1006, json!({"table": "t", "key": "k", "by": 1})).await;
            sum.unwrap();
        }
    });
}
