//! Datasets as a caller meets them: broken, on their way, there before they are needed. Whatever
//! becomes of one, the node goes on serving what needs none.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hotpair_integration_tests::steps::{LIMIT, serves, settled};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::node::{Node, Pair};
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};

const SERVES_NOT: i64 = 308_000_005;
const LOADING: i64 = 308_000_008;
const FAILED: i64 = 308_000_011;

/// A pair whose nodes both load this file; not started.
fn pair_with(zookeeper: &ZooKeeper, file: &Path, more: &str) -> Pair {
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    for node in &mut pair.nodes {
        node.settings.more = format!(
            "[[datasets]]\nname = \"positions\"\nsource = \"file://{}\"\n\
             key = [\"account\", \"instrument\"]\n{more}\n",
            file.display()
        );
    }
    pair
}

/// Rows with keys `a0,i0`, `a1,i1` …, their number as amount.
fn positions(rows: usize) -> String {
    let mut text = "account,instrument,amount\n".to_owned();
    for row in 0..rows {
        writeln!(text, "a{row},i{row},{row}").unwrap();
    }
    text
}

/// Replaces the file in one step, so that nobody reads half of it.
fn replace(file: &PathBuf, text: &str) {
    let aside = file.with_extension("new");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(&aside, file).unwrap();
}

fn lookup(node: &Node, row: usize) -> Result<Value> {
    let key = json!([format!("a{row}"), format!("i{row}")]);
    node.call(1101, &json!({"dataset": "positions", "key": key}))
}

/// The row is there, with its amount.
fn ensure_row(node: &Node, row: usize) -> Result<()> {
    let answer = lookup(node, row)?;
    ensure!(answer["error_no"] == 0 && answer["data"]["row"]["amount"] == row, "{answer}");
    Ok(())
}

fn ensure_echo(node: &Node) -> Result<()> {
    let answer = node.call(1901, &json!({"still": "here"}))?;
    ensure!(answer["error_no"] == 0 && answer["data"]["still"] == "here", "{answer}");
    Ok(())
}

fn dataset_status(node: &Node) -> Result<Value> {
    let status = node.admin().get_json("/status")?;
    status["datasets"].get(0).cloned().with_context(|| format!("no dataset in {status}"))
}

#[test]
fn a_dataset_with_too_many_broken_rows_is_refused_by_line_and_loads_once_it_is_mended() {
    let _turn = Turn::beside_others().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let scratch = Scratch::new("datasets").unwrap();
    // Inferred as numbers from the first rows; three rows later on are none.
    let good = positions(2_000);
    let mut broken = good.clone();
    for row in [1_000, 1_200, 1_400] {
        broken = broken.replace(&format!("i{row},{row}\n"), &format!("i{row},many\n"));
    }
    let file = scratch.write("positions.csv", &broken).unwrap();
    let columns = "broken_rows_max = 2\n[datasets.columns]\namount = \"integer\"";
    let mut pair = pair_with(&zookeeper, &file, columns);
    let master = pair.start().unwrap();
    let node = &pair.nodes[master];
    eventually(LIMIT, "the load is given up", || {
        let answer = lookup(node, 1)?;
        ensure!(answer["error_no"] == FAILED, "{answer}");
        let reason = answer["data"]["reason"].as_str().context("no reason")?;
        // The header is line 1, row 0 is line 2.
        for named in ["positions.csv", "1002", "amount"] {
            ensure!(reason.contains(named), "{named} is not in {reason}");
        }
        ensure!(node.alerts()?.contains(&"dataset_failed".to_owned()), "no alert");
        Ok(())
    })
    .unwrap();
    ensure_echo(node).unwrap();
    assert!(node.role().unwrap().serving, "a node serves what needs no dataset");
    replace(&file, &good);
    eventually(LIMIT, "the mended file is loaded by itself", || ensure_row(node, 1_200)).unwrap();
    eventually(LIMIT, "the alert is over", || {
        ensure!(!node.alerts()?.contains(&"dataset_failed".to_owned()), "it still fires");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_dataset_on_its_way_says_how_far_it_is_and_holds_nothing_else_up() {
    const ROWS: usize = 400_000;
    let _turn = Turn::beside_others().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let scratch = Scratch::new("datasets").unwrap();
    let file = scratch.write("positions.csv", positions(ROWS)).unwrap();
    let mut pair = pair_with(&zookeeper, &file, "");
    pair.nodes[0].start().unwrap();
    let node = &pair.nodes[0];
    serves(&pair, 0).unwrap();
    let mut percents = Vec::new();
    eventually(LIMIT * 2, "the dataset is there", || {
        let answer = lookup(node, ROWS - 1)?;
        if answer["error_no"] == LOADING {
            ensure_echo(node)?;
            percents.push(answer["data"]["percent"].as_u64().context("no percent")?);
            ensure!(answer["retry_after_ms"].is_u64(), "{answer}");
            bail!("still loading");
        }
        if answer["error_no"] == SERVES_NOT {
            // A lease lost on a busy machine begins the load anew.
            percents.clear();
        }
        ensure_row(node, ROWS - 1)
    })
    .unwrap();
    assert!(!percents.is_empty(), "{ROWS} rows were there before anybody could ask");
    assert!(percents.is_sorted() && percents.iter().all(|percent| *percent <= 100), "{percents:?}");
    let status = dataset_status(node).unwrap();
    assert_eq!((&status["state"], &status["rows"]), (&json!("ready"), &json!(ROWS)), "{status}");
}

#[test]
fn a_preloaded_dataset_is_there_before_the_standby_is_promoted() {
    const ROWS: usize = 50_000;
    let _turn = Turn::beside_others().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let scratch = Scratch::new("datasets").unwrap();
    let file = scratch.write("positions.csv", positions(ROWS)).unwrap();
    let mut pair = pair_with(&zookeeper, &file, "load = \"preload\"");
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let standby = 1 - master;
    eventually(LIMIT, "the standby has it", || {
        let status = dataset_status(&pair.nodes[standby])?;
        ensure!(status["state"] == "ready" && status["rows"] == ROWS, "{status}");
        Ok(())
    })
    .unwrap();
    pair.nodes[master].kill().unwrap();
    serves(&pair, standby).unwrap();
    // The first answer, not one of the later ones.
    ensure_row(&pair.nodes[standby], ROWS / 2).unwrap();
}

#[test]
fn a_dataset_loaded_on_promotion_is_absent_at_the_standby() {
    let _turn = Turn::beside_others().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let scratch = Scratch::new("datasets").unwrap();
    let file = scratch.write("positions.csv", positions(1_000)).unwrap();
    let mut pair = pair_with(&zookeeper, &file, "load = \"on-promote\"");
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let standby = 1 - master;
    eventually(LIMIT, "the master has it", || ensure_row(&pair.nodes[master], 7)).unwrap();
    assert_eq!(dataset_status(&pair.nodes[standby]).unwrap()["state"], "absent");
    pair.nodes[master].kill().unwrap();
    serves(&pair, standby).unwrap();
    eventually(LIMIT, "the new master has it", || ensure_row(&pair.nodes[standby], 7)).unwrap();
}
