//! State that survives what happens to a pair: who may serve with which data, and what becomes of
//! what only one node has. Rule 9 of the roles, with real processes.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use hotpair_integration_tests::data_steps::{
    alerted, does_not_serve, log, order, program, same_rows_at_the_other, says_why, was_ordered,
};
use hotpair_integration_tests::rows::{Client, files};
use hotpair_integration_tests::steps::{LIMIT, serves};
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::Enough;
use hotpair_lab::node::hotpair;
use hotpair_lab::table_load::{Plan, TableLoad};
use hotpair_lab::wait::{eventually, throughout};
use hotpair_lab::zookeeper::ZooKeeper;

/// Longer than a silent follower, or a silent master, is borne.
const A_LONG_TIME: Duration = Duration::from_secs(15);

fn load(lab: &TableLab) -> TableLoad {
    let user = lab.user.clone();
    let plan = Plan { clients: 4, threads: 2, watchers: 1, pause_ms_max: 10, seed: 1, user };
    let load = lab.start_load(&plan).unwrap();
    goes_on(&load);
    load
}

/// The clients are served from now on.
fn goes_on(load: &TableLoad) {
    let before = load.acknowledged();
    eventually(LIMIT * 2, "changes are acknowledged", || {
        let since = load.acknowledged() - before;
        ensure!(since >= 50, "{since}");
        Ok(())
    })
    .unwrap();
}

/// All that was acknowledged is there, and nobody logged in twice.
fn judge(lab: &mut TableLab, load: TableLoad, epochs_min: usize) {
    let requests = load.stop(LIMIT).unwrap();
    lab.in_sync().unwrap();
    let enough = Enough { planned: Vec::new(), acknowledged_min: 100, epochs_min };
    let report = lab.judge(requests, &enough).unwrap();
    assert!(report.is_good(), "{report}");
    assert_eq!((report.failed, report.unknown), (0, 0), "{report}");
}

/// A pair whose old standby missed the last changes, and whose nodes are both stopped: the client,
/// who was master last, and what the row `both` was for either.
fn one_is_behind(lab: &mut TableLab) -> (Client, usize) {
    let master = lab.in_sync().unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("both", "old").unwrap();
    lab.pair.nodes[1 - master].stop(LIMIT).unwrap();
    client.put("both", "new").unwrap();
    client.put("alone", "here").unwrap();
    lab.pair.nodes[master].stop(LIMIT).unwrap();
    (client, master)
}

#[test]
fn a_standby_that_is_not_in_sync_serves_only_when_told_to_and_what_it_lacks_is_set_aside() {
    let _turn = Turn::beside_others().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let (client, old) = one_is_behind(&mut lab);
    let behind = 1 - old;
    lab.pair.nodes[behind].start_and_wait().unwrap();
    let node = &lab.pair.nodes[behind];
    let old_name = lab.pair.nodes[old].settings.node.clone();
    let guard = format!("by the sync record {old_name} has them all");
    says_why(node, &[&guard, "--accept-data-loss"]).unwrap();
    alerted(node, "no_master").unwrap();
    does_not_serve(node).unwrap();
    let (code, said) = order(node, &["promote"]).unwrap();
    assert_eq!(code, 1, "an order without the flag is no permission: {said}");
    assert!(said.contains(&old_name), "{said}");
    does_not_serve(node).unwrap();

    let (code, said) = order(node, &["promote", "--accept-data-loss"]).unwrap();
    assert_eq!(code, 0, "{said}");
    serves(&lab.pair, behind).unwrap();
    let node = &lab.pair.nodes[behind];
    assert!(was_ordered(node, "promote").unwrap(), "the order is in the journal");
    alerted(node, "divergence").unwrap();
    assert_eq!(client.heartbeat().unwrap(), 0, "the session is older than the loss");
    assert_eq!(client.value("both").unwrap().as_deref(), Some("old"));
    assert_eq!(client.value("alone").unwrap(), None, "lost, as was accepted");
    client.put("both", "after").unwrap();

    lab.start(old).unwrap();
    assert_eq!(lab.in_sync().unwrap(), behind);
    let node = &lab.pair.nodes[old];
    let aside = files(&node.settings.directory, "aside-").unwrap();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(fs::metadata(&aside[0]).unwrap().len() > 32, "with records in it");
    alerted(node, "divergence").unwrap();
    let name = aside[0].file_name().unwrap().to_str().unwrap().to_owned();
    assert!(log(node).unwrap().contains(&name), "the file is named in the log");
    same_rows_at_the_other(&mut lab, &client).unwrap();
    assert_eq!(client.value("both").unwrap().as_deref(), Some("after"));
    assert_eq!(client.heartbeat().unwrap(), 0);
}

/// Neither lives to see that the other one died.
fn kill_at_once(lab: &mut TableLab, master: usize) {
    for node in [master, 1 - master] {
        lab.freeze(node).unwrap();
    }
    for node in [master, 1 - master] {
        lab.kill(node).unwrap();
    }
}

#[test]
fn both_nodes_killed_at_once_lose_nothing_whichever_comes_back_first() {
    let _turn = Turn::beside_others().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let load = load(&lab);
    for master_first in [true, false] {
        let master = lab.in_sync().unwrap();
        goes_on(&load);
        kill_at_once(&mut lab, master);
        let (first, second) =
            if master_first { (master, 1 - master) } else { (1 - master, master) };
        lab.start(first).unwrap();
        // Each holds everything that was acknowledged: neither need wait for the other.
        serves(&lab.pair, first).unwrap();
        goes_on(&load);
        lab.start(second).unwrap();
        assert_eq!(lab.in_sync().unwrap(), first);
    }
    judge(&mut lab, load, 3);
}

/// From its next start on, the node runs as after a restart of its machine.
fn reboot(lab: &mut TableLab, node: usize) {
    let node = &mut lab.pair.nodes[node];
    let id = node.folder().join("boot_id");
    let digit = char::from(b'0' + u8::from(id.exists()));
    let new =
        format!("0000000{digit}-0000-4000-8000-00000000000{}", node.settings.client.port() % 10);
    fs::write(&id, new).unwrap();
    let line = format!(
        "exec unshare --mount sh -c 'mount --bind {} /proc/sys/kernel/random/boot_id && exec {} \
         \"$@\"' node \"$@\"",
        id.display(),
        hotpair().unwrap().display()
    );
    node.binary = Some(program(node, &line).unwrap());
}

#[test]
fn after_a_power_cut_of_both_the_two_compare_and_the_one_with_more_serves() {
    let _turn = Turn::beside_others().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let (client, old) = one_is_behind(&mut lab);
    reboot(&mut lab, old);
    reboot(&mut lab, 1 - old);
    for alone in [1 - old, old] {
        lab.start(alone).unwrap();
        let node = &lab.pair.nodes[alone];
        says_why(node, &["--accept-data-loss"]).unwrap();
        does_not_serve(node).unwrap();
        lab.pair.nodes[alone].stop(LIMIT).unwrap();
    }
    lab.start(1 - old).unwrap();
    lab.start(old).unwrap();
    assert_eq!(lab.in_sync().unwrap(), old, "it has more");
    assert_eq!(client.value("alone").unwrap().as_deref(), Some("here"));
    same_rows_at_the_other(&mut lab, &client).unwrap();
    assert_eq!(client.heartbeat().unwrap(), 0);
}

#[test]
fn a_standby_that_rebooted_is_in_sync_again_only_once_compared() {
    let _turn = Turn::beside_others().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("row", "one").unwrap();
    let master = lab.in_sync().unwrap();
    let standby = 1 - master;
    lab.kill(standby).unwrap();
    lab.kill(master).unwrap();
    reboot(&mut lab, standby);
    lab.start(standby).unwrap();
    let node = &lab.pair.nodes[standby];
    says_why(node, &["--accept-data-loss"]).unwrap();
    does_not_serve(node).unwrap();
    lab.start(master).unwrap();
    lab.in_sync().unwrap();
    same_rows_at_the_other(&mut lab, &client).unwrap();
    same_rows_at_the_other(&mut lab, &client).unwrap();
    assert_eq!(client.heartbeat().unwrap(), 0);
}

/// Puts of 700 kB until the redo is long enough for a snapshot of one's own, which makes its
/// beginning unnecessary.
fn outgrow_the_redo(lab: &TableLab, client: &Client) {
    let value = "x".repeat(700_000);
    let master = lab.in_sync().unwrap();
    let directory = &lab.pair.nodes[master].settings.directory;
    eventually(LIMIT * 10, "the redo's beginning is gone", || {
        let row = format!("large/{}", value.len() % 7);
        for _ in 0..20 {
            client.put(&row, &value).unwrap();
        }
        let first = files(directory, "redo-").unwrap();
        let begins = first.first().is_some_and(|it| it.ends_with("redo-00000000000000000001.log"));
        ensure!(!begins, "{first:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_late_peer_loads_a_snapshot_and_the_tail_while_the_master_goes_on_serving() {
    let _turn = Turn::beside_others().unwrap();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    outgrow_the_redo(&lab, &client);
    let master = lab.in_sync().unwrap();
    let load = load(&lab);
    lab.kill(1 - master).unwrap();
    fs::remove_dir_all(&lab.pair.nodes[1 - master].settings.directory).unwrap();
    goes_on(&load);
    let epoch = lab.epoch(master).unwrap();
    lab.start(1 - master).unwrap();
    goes_on(&load);
    assert_eq!(lab.in_sync().unwrap(), master);
    goes_on(&load);
    assert_eq!(lab.epoch(master).unwrap(), epoch, "the master went on");
    let told = log(&lab.pair.nodes[master]).unwrap();
    assert!(told.contains("sending a snapshot to the peer"), "{told}");
    let requests = load.stop(LIMIT).unwrap();
    let rows = client.rows_of("load").unwrap();
    same_rows_at_the_other(&mut lab, &client).unwrap();
    assert_eq!(client.rows_of("load").unwrap(), rows);
    let enough = Enough { planned: Vec::new(), acknowledged_min: 200, epochs_min: 1 };
    let report = lab.judge(requests, &enough).unwrap();
    assert!(report.is_good(), "{report}");
    assert_eq!((report.failed, report.unknown), (0, 0), "{report}");
}

/// Nobody serves, and both say what is to be done about it.
fn both_ask_to_be_adopted(lab: &TableLab) {
    for node in &lab.pair.nodes {
        says_why(node, &["hotpair adopt"]).unwrap();
        alerted(node, "no_master").unwrap();
    }
    for node in &lab.pair.nodes {
        does_not_serve(node).unwrap();
    }
}

/// The data in ZooKeeper is adopted at the node that was master in this epoch, then at the other.
fn adopt(lab: &mut TableLab, client: &Client, master: usize, epoch: u64) {
    let (code, said) = order(&lab.pair.nodes[master], &["adopt"]).unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(serves(&lab.pair, master).unwrap() > epoch, "epochs only grow");
    assert_eq!(client.value("row").unwrap().as_deref(), Some("kept"));
    assert_eq!(client.heartbeat().unwrap(), 0);
    client.put("row", "changed").unwrap();
    // What the other one has may be all that is left: it is not given up unasked.
    let other = &lab.pair.nodes[1 - master];
    alerted(other, "ensemble_mismatch").unwrap();
    let (code, said) = order(other, &["adopt"]).unwrap();
    assert_eq!(code, 0, "{said}");
    assert_eq!(lab.in_sync().unwrap(), master);
    same_rows_at_the_other(lab, client).unwrap();
    assert_eq!(client.value("row").unwrap().as_deref(), Some("changed"));
    assert_eq!(client.heartbeat().unwrap(), 0);
}

/// A pair with a row, its master and the epoch.
fn with_a_row() -> (TableLab, Client, usize, u64) {
    let lab = TableLab::new(&Options::default()).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("row", "kept").unwrap();
    let master = lab.in_sync().unwrap();
    let epoch = lab.epoch(master).unwrap();
    (lab, client, master, epoch)
}

#[test]
fn a_pair_started_at_an_empty_zookeeper_serves_once_it_is_adopted_with_all_rows() {
    let _turn = Turn::beside_others().unwrap();
    let (mut lab, client, master, epoch) = with_a_row();
    // The master last, which so remains the last one.
    for node in [1 - master, master] {
        lab.pair.nodes[node].stop(LIMIT).unwrap();
    }
    lab.zookeeper = ZooKeeper::standalone().unwrap();
    for node in &mut lab.pair.nodes {
        node.settings.zookeeper = lab.zookeeper.addresses();
        node.start().unwrap();
    }
    both_ask_to_be_adopted(&lab);
    adopt(&mut lab, &client, master, epoch);
}

#[test]
fn a_pair_whose_zookeeper_loses_its_data_stops_and_serves_once_it_is_adopted() {
    let _turn = Turn::beside_others().unwrap();
    let (mut lab, client, master, epoch) = with_a_row();
    lab.zookeeper.kill(0).unwrap();
    lab.zookeeper.wipe(0).unwrap();
    lab.zookeeper.start_again(0).unwrap();
    lab.zookeeper.wait_until_serving().unwrap();
    both_ask_to_be_adopted(&lab);
    adopt(&mut lab, &client, master, epoch);
}

#[test]
fn a_pair_moved_to_another_root_is_adopted_where_the_data_is_and_an_empty_peer_follows() {
    let _turn = Turn::beside_others().unwrap();
    let (mut lab, client, master, epoch) = with_a_row();
    for node in [1 - master, master] {
        let node = &mut lab.pair.nodes[node];
        node.stop(LIMIT).unwrap();
        node.settings.root = "/elsewhere".to_owned();
    }
    fs::remove_dir_all(&lab.pair.nodes[1 - master].settings.directory).unwrap();
    lab.start(master).unwrap();
    says_why(&lab.pair.nodes[master], &["hotpair adopt"]).unwrap();
    lab.pair.nodes[1 - master].start_and_wait().unwrap();
    for node in &lab.pair.nodes {
        does_not_serve(node).unwrap();
    }
    let (code, said) = order(&lab.pair.nodes[master], &["adopt"]).unwrap();
    assert_eq!(code, 0, "{said}");
    assert_eq!(lab.in_sync().unwrap(), master, "the one with data");
    assert!(lab.epoch(master).unwrap() > epoch, "epochs only grow");
    assert_eq!(client.heartbeat().unwrap(), 0);
    same_rows_at_the_other(&mut lab, &client).unwrap();
    assert_eq!(client.value("row").unwrap().as_deref(), Some("kept"));
}

#[test]
fn acknowledged_locally_changes_need_no_standby_and_what_a_promotion_loses_is_set_aside() {
    let _turn = Turn::beside_others().unwrap();
    let local = vec![("HOTPAIR__TABLES__ACK".to_owned(), "local".to_owned())];
    let mut lab = TableLab::new(&Options { environment: local, ..Options::default() }).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("both", "1").unwrap();
    let master = lab.in_sync().unwrap();
    eventually(LIMIT, "the standby has what was acknowledged here alone", || {
        let figures = lab.pair.nodes[master].admin().get("/metrics")?.body;
        let lag = figures.lines().find(|line| line.starts_with("hotpair_redo_lag_records"));
        ensure!(lag.is_some_and(|line| line.ends_with(" 0")), "{lag:?}");
        Ok(())
    })
    .unwrap();
    lab.freeze(1 - master).unwrap();
    for number in 0..20 {
        // What is sent before the standby is given up it may still find when it is thawed.
        if number == 10 {
            alerted(&lab.pair.nodes[master], "replication_behind").unwrap();
        }
        let told = client.put_at(master, &format!("alone-{number}"), "1").unwrap();
        assert_eq!(told["error_no"], 0, "{told}");
    }
    lab.kill(master).unwrap();
    lab.thaw(1 - master).unwrap();
    serves(&lab.pair, 1 - master).unwrap();
    assert_eq!(client.value("both").unwrap().as_deref(), Some("1"));
    client.put("after", "1").unwrap();
    lab.start(master).unwrap();
    assert_eq!(lab.in_sync().unwrap(), 1 - master);
    assert_eq!(client.value("alone-19").unwrap(), None, "as was configured");
    let node = &lab.pair.nodes[master];
    assert_eq!(files(&node.settings.directory, "aside-").unwrap().len(), 1);
    alerted(node, "divergence").unwrap();
    same_rows_at_the_other(&mut lab, &client).unwrap();
}

#[test]
fn a_pair_that_brings_each_change_to_the_disk_keeps_them_through_a_kill() {
    let _turn = Turn::beside_others().unwrap();
    let disk = vec![("HOTPAIR__TABLES__DURABILITY".to_owned(), "disk".to_owned())];
    let mut lab = TableLab::new(&Options { environment: disk, ..Options::default() }).unwrap();
    let load = load(&lab);
    let master = lab.in_sync().unwrap();
    lab.kill(master).unwrap();
    serves(&lab.pair, 1 - master).unwrap();
    lab.start(master).unwrap();
    lab.in_sync().unwrap();
    goes_on(&load);
    judge(&mut lab, load, 2);
}

#[test]
fn an_idle_pair_stays_in_sync_over_one_stream() {
    let _turn = Turn::beside_others().unwrap();
    let lab = TableLab::new(&Options::default()).unwrap();
    let master = &lab.pair.nodes[lab.in_sync().unwrap()];
    let came = || log(master).unwrap().matches("the peer wants to follow").count();
    let before = came();
    throughout(A_LONG_TIME, "it is in sync", || {
        let role = master.admin().get_json("/role")?;
        ensure!(role["in_sync"] == true, "{role}");
        Ok(())
    })
    .unwrap();
    assert_eq!(came(), before, "{}", log(master).unwrap());
}
