//! A judge that finds nothing proves nothing: five known bugs of the tables, planted in the real
//! binary, are each found in the history that makes them show, and the same scene without the bug is
//! good.
//!
//! Needs the binary that knows the bugs (`make planted`; `make test` builds it first).

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use hotpair_integration_tests::steps::LIMIT;
use hotpair_integration_tests::table_lab::{ATTEMPT_LIMIT, Options, Planted, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::tables::{Kind, Operation};
use hotpair_lab::checker::{Enough, Report};
use hotpair_lab::load::now_ns;
use hotpair_lab::table_load::{Plan, TableLoad};
use hotpair_lab::wait::{eventually, throughout};

/// A standby that is silent for longer is taken out of the record of who is in sync.
const SILENCE_MAX: Duration = Duration::from_millis(800);
/// Within it: enough for many changes.
const BRIEFLY: Duration = Duration::from_millis(300);
/// A session's end, and any second thoughts.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// A busy machine may miss a moment.
const TRIES: usize = 4;

/// What a scene came to: none where the moment was missed.
type Scene = fn(Planted) -> Result<Option<Report>>;

/// The scene is good without the bug, and with it this kind of promise is found broken.
#[track_caller]
fn assert_found(bug: &'static str, kind: Kind, scene: Scene) {
    let _turn = Turn::alone().unwrap();
    let play = |planted| {
        for _ in 0..TRIES {
            if let Some(report) = scene(planted).unwrap_or_else(|error| panic!("{error:#}")) {
                return report;
            }
        }
        panic!("the moment for {bug} was missed {TRIES} times");
    };
    let honest = play(Planted::Nothing);
    assert!(honest.is_good(), "without {bug}: {honest}");
    let report = play(Planted::Bug(bug));
    print(bug, &report);
    assert!(report.tables.broken(kind) > 0, "{bug}: nothing {kind} in {report}");
}

#[expect(clippy::print_stdout, reason = "what was found, for --nocapture and for failures")]
fn print(bug: &str, report: &Report) {
    println!("{bug}: {}", report.tables);
}

fn lab(planted: Planted, session_timeout: Duration) -> Result<TableLab> {
    let planted = Some(planted);
    TableLab::new(&Options { session_timeout, relays: true, planted, ..Options::default() })
}

fn load(lab: &TableLab) -> Result<TableLoad> {
    let user = lab.user.clone();
    let plan = Plan { clients: 4, threads: 2, watchers: 1, pause_ms_max: 10, seed: 1, user };
    let load = lab.start_load(&plan)?;
    eventually(LIMIT, "the clients are served", || {
        ensure!(load.acknowledged() > 50, "{}", load.acknowledged());
        Ok(())
    })?;
    Ok(load)
}

/// The master, whose link was held, is killed, what it had not shipped is lost, and the other serves.
fn lose_master(lab: &mut TableLab, master: usize) -> Result<()> {
    lab.kill(master)?;
    lab.sever_link();
    serves(lab, 1 - master)
}

fn serves(lab: &TableLab, node: usize) -> Result<()> {
    eventually(LIMIT, "the other one serves", || {
        let role = lab.pair.nodes[node].role()?;
        ensure!(role.serving, "{role:?}");
        Ok(())
    })
}

/// The killed one comes back, the clients find their ends, and all is judged.
fn end(lab: &mut TableLab, dead: usize, load: TableLoad, name: &str) -> Result<Option<Report>> {
    lab.note(name, now_ns());
    lab.start(dead)?;
    lab.in_sync()?;
    let requests = load.stop(LIMIT)?;
    let planned = vec![name.to_owned()];
    lab.judge(requests, &Enough { planned, acknowledged_min: 50, epochs_min: 2 }).map(Some)
}

/// The master is killed while the standby hears nothing of its last changes.
fn unshipped(planted: Planted) -> Result<Option<Report>> {
    let mut lab = lab(planted, Duration::from_secs(2))?;
    let master = lab.in_sync()?;
    let load = load(&lab)?;
    let held = Instant::now();
    lab.hold_link();
    thread::sleep(BRIEFLY);
    lab.pair.nodes[master].freeze()?;
    let missed = held.elapsed() > SILENCE_MAX;
    if missed {
        return Ok(None);
    }
    lose_master(&mut lab, master)?;
    end(&mut lab, master, load, "killed before it shipped")
}

#[test]
fn an_acknowledgement_before_shipping_is_found_as_a_loss() {
    assert_found("ack-before-ship", Kind::Lost, unshipped);
}

/// A request is done and nobody hears it; its master is killed; it is sent again.
fn sent_again(planted: Planted) -> Result<Option<Report>> {
    let mut lab = lab(planted, Duration::from_secs(2))?;
    let master = lab.in_sync()?;
    let (session, _patience) = lab.session("client", ATTEMPT_LIMIT)?;
    let row = "scene/counter";
    let add = Operation::Add { row: row.to_owned() };
    let first = reserve(&session)?;
    session.call(first, &add);
    let second = reserve(&session)?;
    session.call_unheard(second, &add, master);
    eventually(LIMIT, "the change is acknowledged", || {
        let seen = session.look(row, false).answer.and_then(|answer| answer.value);
        ensure!(seen.as_deref() == Some("2"), "{seen:?}");
        Ok(())
    })?;
    lose_master(&mut lab, master)?;
    lab.note("killed before it was heard", now_ns());
    session.call(second, &add);
    session.look(row, true);
    lab.start(master)?;
    lab.in_sync()?;
    let requests = lab.requests()?;
    lab.judge(requests, &Enough { acknowledged_min: 3, epochs_min: 2, ..Enough::default() })
        .map(Some)
}

#[test]
fn a_reply_that_is_not_replicated_is_found_as_a_change_made_twice() {
    assert_found("reply-not-replicated", Kind::Doubled, sent_again);
}

/// The standby falls silent while ZooKeeper cannot be told, and then the master is killed.
///
/// ZooKeeper is dead meanwhile, not frozen: a frozen one would find the record waiting in its socket.
fn unrecorded(planted: Planted) -> Result<Option<Report>> {
    // Its lease outlasts the silence.
    const SESSION: Duration = Duration::from_secs(6);
    let mut lab = lab(planted, SESSION)?;
    let master = lab.in_sync()?;
    let load = load(&lab)?;
    let (latecomer, _patience) = lab.session("latecomer", ATTEMPT_LIMIT)?;
    let add = Operation::Add { row: "scene/counter".to_owned() };
    lab.zookeeper.kill(0)?;
    lab.hold_link();
    let held = Instant::now();
    // What was under way when the link was cut has its answer by then.
    thread::sleep(BRIEFLY);
    let before = load.acknowledged();
    let mut late = Vec::new();
    while load.acknowledged() < before + 5 && held.elapsed() < SESSION.mul_f64(0.4) {
        // The others all wait for their answers: without anything new nothing moves.
        late.push(reserve(&latecomer)?);
        latecomer.call_unheard(late[late.len() - 1], &add, master);
    }
    let missed = held.elapsed() > SESSION / 2;
    lab.kill(master)?;
    lab.zookeeper.start_again(0)?;
    if missed {
        return Ok(None);
    }
    lab.sever_link();
    serves(&lab, 1 - master)?;
    for number in late {
        latecomer.call(number, &add);
    }
    latecomer.look("scene/counter", true);
    end(&mut lab, master, load, "killed before it was recorded")
}

#[test]
fn a_record_of_who_is_in_sync_that_comes_late_is_found_as_a_loss() {
    assert_found("sync-late", Kind::Lost, unrecorded);
}

/// The standby misses changes that are acknowledged without it, and then it is alone.
fn out_of_sync(planted: Planted) -> Result<Option<Report>> {
    // The bug is for whoever comes later: with it a pair could not even begin.
    let mut lab = lab(Planted::Nothing, Duration::from_secs(2))?;
    let master = lab.in_sync()?;
    let standby = 1 - master;
    let load = load(&lab)?;
    lab.kill(standby)?;
    lab.sever_link();
    thread::sleep(BRIEFLY);
    let before = load.acknowledged();
    eventually(LIMIT, "changes are acknowledged without the standby", || {
        let since = load.acknowledged() - before;
        ensure!(since > 50, "{since}");
        Ok(())
    })?;
    lab.kill(master)?;
    lab.plant(planted);
    lab.pair.nodes[standby].start_and_wait()?;
    match planted {
        Planted::Nothing => {
            throughout(AFTERWARDS, "a standby that lacks changes does not serve", || {
                let role = lab.pair.nodes[standby].role()?;
                ensure!(!role.serving, "{role:?}");
                Ok(())
            })?;
        }
        Planted::Bug(_) => serves(&lab, standby)?,
    }
    end(&mut lab, master, load, "alone and out of sync")
}

#[test]
fn a_claim_by_a_node_that_is_not_in_sync_is_found_as_a_loss() {
    assert_found("claim-without-sync", Kind::Lost, out_of_sync);
}

/// Somebody looks while a change waits for the standby, which never hears of it.
fn pending(planted: Planted) -> Result<Option<Report>> {
    let mut lab = lab(planted, Duration::from_secs(2))?;
    let master = lab.in_sync()?;
    let (writer, _patience) = lab.session("writer", ATTEMPT_LIMIT)?;
    let (watcher, _patience) = lab.session("watcher", ATTEMPT_LIMIT)?;
    let row = "scene/counter";
    let add = Operation::Add { row: row.to_owned() };
    let first = reserve(&writer)?;
    writer.call(first, &add);
    let second = reserve(&writer)?;
    let held = Instant::now();
    lab.hold_link();
    writer.call_unheard(second, &add, master);
    while held.elapsed() < BRIEFLY * 2 {
        watcher.look(row, false);
        thread::sleep(Duration::from_millis(10));
    }
    lab.pair.nodes[master].freeze()?;
    if held.elapsed() > SILENCE_MAX {
        return Ok(None);
    }
    lose_master(&mut lab, master)?;
    lab.note("killed while a change was pending", now_ns());
    watcher.look(row, false);
    writer.call(second, &add);
    watcher.look(row, true);
    lab.start(master)?;
    lab.in_sync()?;
    let requests = lab.requests()?;
    lab.judge(requests, &Enough { acknowledged_min: 4, epochs_min: 2, ..Enough::default() })
        .map(Some)
}

#[test]
fn a_look_at_what_is_not_acknowledged_is_found_as_unseen_later() {
    assert_found("unacknowledged-shown", Kind::Unseen, pending);
}

fn reserve(session: &hotpair_lab::session::Session) -> Result<u64> {
    let Some(number) = session.reserve() else { bail!("no number is free") };
    Ok(number)
}
