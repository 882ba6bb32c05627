//! An ensemble of three servers whose servers die and come back: whoever serves afterwards, never two
//! do, and a client that asks both nodes has an answer to everything it asked.

use std::time::Duration;

use anyhow::{Context, Result};
use hotpair_integration_tests::steps::{LIMIT, settled};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::{History, check};
use hotpair_lab::load::{Load, Plan};
use hotpair_lab::node::Pair;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;

/// More than a lease: what a dead server takes away is gone by then.
const A_WHILE: Duration = Duration::from_secs(3);

/// The server at which the master has its session: the one that lists the session which owns the
/// master znode among its connections.
fn server_of_master(zookeeper: &ZooKeeper) -> Result<usize> {
    let leader = zookeeper.leader().context("no leader")?;
    let owners = zookeeper.four_letters(leader, "dump")?;
    let mut session = None;
    for line in owners.lines() {
        match line.trim() {
            "/hotpair/trade/master" => break,
            line if line.starts_with("0x") => session = line.strip_suffix(':'),
            _ => {}
        }
    }
    let session = format!("sid={},", session.with_context(|| format!("no owner in {owners}"))?);
    let serves = |server: &usize| {
        zookeeper.four_letters(*server, "cons").is_ok_and(|list| list.contains(&session))
    };
    (0..zookeeper.len()).find(serves).with_context(|| format!("no server has {session}"))
}

#[test]
fn servers_that_die_and_come_back_never_make_two_masters_and_lose_no_request() {
    let _turn = Turn::alone().unwrap();
    let mut zookeeper = ZooKeeper::ensemble(3).unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    pair.start().unwrap();
    settled(&pair).unwrap();
    let load = Load::start(&pair, Plan::default());
    let leader = zookeeper.wait_for_leader().unwrap();
    zookeeper.kill(leader).unwrap();
    std::thread::sleep(A_WHILE);
    settled(&pair).unwrap();
    zookeeper.start_again(leader).unwrap();
    zookeeper.wait_until_serving().unwrap();
    let server = eventually(LIMIT, "the master's server", || server_of_master(&zookeeper)).unwrap();
    zookeeper.kill(server).unwrap();
    std::thread::sleep(A_WHILE);
    settled(&pair).unwrap();
    zookeeper.start_again(server).unwrap();
    zookeeper.wait_until_serving().unwrap();
    for server in 0..zookeeper.len() {
        zookeeper.stop(server).unwrap();
        zookeeper.start_again(server).unwrap();
        zookeeper.wait_until_serving().unwrap();
    }
    settled(&pair).unwrap();
    let requests = load.stop().unwrap();
    for node in &mut pair.nodes {
        node.stop(LIMIT).unwrap();
    }
    let report = check(&History { requests, gates: pair.gates().unwrap(), ..History::default() });
    assert!(report.is_good(), "{report}");
    assert_eq!((report.lost, report.unknown, report.overlap_ns), (0, 0, 0), "{report}");
}
