//! A dataset that follows a publisher of updates: subscribe, load, replay, go on; drop it all at a
//! demotion; know when something was missed. The publishers are the stand-in's, and ZeroMQ's own.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use hotpair_integration_tests::steps::{LIMIT, serves, settled, switch_over};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::investment::{InvestmentSystem, positions};
use hotpair_lab::need::{Need, install};
use hotpair_lab::node::{Node, Pair};
use hotpair_lab::process::Process;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};

const ROWS: usize = 500;

struct Desk {
    // Dropped first: nodes that follow a publisher that is gone would only complain.
    pair: Pair,
    system: InvestmentSystem,
    file: std::path::PathBuf,
    _zookeeper: ZooKeeper,
    _scratch: Scratch,
}

impl Desk {
    /// A pair that is not started, with a file of positions at price 1 that follows the stand-in.
    fn new(load: &str) -> Result<Self> {
        let system = InvestmentSystem::start()?;
        let zookeeper = ZooKeeper::standalone()?;
        let scratch = Scratch::new("feed")?;
        let file = scratch.write("positions.csv", rows(1.0))?;
        let mut pair = Pair::here(&zookeeper.addresses())?;
        for node in &mut pair.nodes {
            node.settings.more = format!(
                "[[datasets]]\nname = \"positions\"\nsource = \"file://{}\"\n\
                 key = [\"account\", \"instrument\"]\nload = {load:?}\nfeed = {:?}\n\
                 [datasets.columns]\nprice = \"float\"\n",
                file.display(),
                system.feed(),
            );
        }
        Ok(Self { pair, system, file, _zookeeper: zookeeper, _scratch: scratch })
    }

    fn node(&self, index: usize) -> &Node {
        &self.pair.nodes[index]
    }

    /// What this node says of the dataset in `/status`.
    fn status(&self, node: usize) -> Result<Value> {
        let status = self.node(node).admin().get_json("/status")?;
        status["datasets"].get(0).cloned().with_context(|| format!("no dataset in {status}"))
    }

    fn feed_is(&self, node: usize, wanted: &str) -> Result<()> {
        eventually(LIMIT, &format!("the feed is {wanted}"), || {
            let status = self.status(node)?;
            ensure!(status["feed"]["state"] == wanted, "{status}");
            Ok(())
        })
    }

    /// The row `aN`, `iN`, or null.
    fn row(&self, node: usize, number: usize) -> Result<Value> {
        let key = json!([format!("a{number}"), format!("i{number}")]);
        let answer = self.node(node).call(1101, &json!({"dataset": "positions", "key": key}))?;
        ensure!(answer["error_no"] == 0, "{answer}");
        Ok(answer["data"]["row"].clone())
    }

    fn row_is(&self, node: usize, number: usize, price: f64) -> Result<()> {
        eventually(LIMIT, &format!("row {number} has the price {price}"), || {
            let row = self.row(node, number)?;
            ensure!(row["price"] == price, "{row}");
            Ok(())
        })
    }

    fn describe(&self, node: usize) -> Result<Value> {
        let answer = self.node(node).call(1103, &json!({"dataset": "positions"}))?;
        ensure!(answer["error_no"] == 0, "{answer}");
        Ok(answer["data"].clone())
    }

    /// Every row changes all the time, this many of them a second.
    fn flow(&self, rate: u64) -> Result<()> {
        let rows = positions(ROWS);
        self.system.control(&json!({"rows": rows, "vary": "price", "rate": rate}))
    }

    /// The price of a row goes on growing: what is published now arrives now.
    fn ensure_flows(&self, node: usize) -> Result<()> {
        let before = self.row(node, 7)?["price"].as_f64().context("no price")?;
        eventually(LIMIT, "the price changes", || {
            let now = self.row(node, 7)?["price"].as_f64().context("no price")?;
            ensure!(now > before, "{now} after {before}");
            Ok(())
        })
    }
}

fn rows(price: f64) -> String {
    let mut text = "account,instrument,price,note\n".to_owned();
    for row in 0..ROWS {
        writeln!(text, "a{row},i{row},{price},loaded").unwrap();
    }
    text
}

fn update(number: usize, version: u64, price: f64) -> Value {
    json!({"account": format!("a{number}"), "instrument": format!("i{number}"), "version": version,
        "price": price})
}

#[test]
fn updates_are_followed_by_the_master_only_before_and_after_a_switch_and_a_kill() {
    let _turn = Turn::alone().unwrap();
    let mut desk = Desk::new("on-promote").unwrap();
    desk.flow(2_000).unwrap();
    desk.pair.start().unwrap();
    let master = settled(&desk.pair).unwrap();
    desk.feed_is(master, "live").unwrap();
    desk.ensure_flows(master).unwrap();
    // What the feed does not name stays as it was loaded.
    assert_eq!(desk.row(master, 7).unwrap()["note"], "loaded");
    let described = desk.describe(master).unwrap();
    assert!(described["as_of"]["version"].as_u64() > Some(0), "{described}");
    assert_eq!(described["feed"], "live");
    assert_eq!(desk.status(1 - master).unwrap()["feed"]["state"], "off");
    desk.system.wait_for_subscribers(1).unwrap();

    assert_eq!(switch_over(&desk.pair).unwrap(), 1 - master);
    desk.feed_is(1 - master, "live").unwrap();
    desk.ensure_flows(1 - master).unwrap();
    // The old one dropped the data and the subscription with it.
    desk.feed_is(master, "off").unwrap();
    assert_eq!(desk.status(master).unwrap()["state"], "absent");
    desk.system.wait_for_subscribers(1).unwrap();

    settled(&desk.pair).unwrap();
    desk.pair.nodes[1 - master].kill().unwrap();
    serves(&desk.pair, master).unwrap();
    desk.feed_is(master, "live").unwrap();
    desk.ensure_flows(master).unwrap();
    desk.system.wait_for_subscribers(1).unwrap();
}

#[test]
fn a_preloaded_dataset_is_followed_by_the_standby_too() {
    let _turn = Turn::alone().unwrap();
    let mut desk = Desk::new("preload").unwrap();
    desk.pair.start().unwrap();
    let master = settled(&desk.pair).unwrap();
    for node in [0, 1] {
        desk.feed_is(node, "live").unwrap();
    }
    desk.system.wait_for_subscribers(2).unwrap();
    desk.system.publish(&json!([update(3, 5, 17.25)])).unwrap();
    desk.row_is(master, 3, 17.25).unwrap();
    eventually(LIMIT, "the standby has it", || {
        let status = desk.status(1 - master)?;
        ensure!(status["as_of"]["version"] == 5, "{status}");
        Ok(())
    })
    .unwrap();
    desk.pair.nodes[master].kill().unwrap();
    serves(&desk.pair, 1 - master).unwrap();
    // The first answer, not one of the later ones.
    assert_eq!(desk.row(1 - master, 3).unwrap()["price"], 17.25);
}

#[test]
fn rows_that_cannot_be_meant_change_nothing_and_end_nothing() {
    let _turn = Turn::alone().unwrap();
    let mut desk = Desk::new("on-promote").unwrap();
    desk.pair.start().unwrap();
    let master = settled(&desk.pair).unwrap();
    desk.feed_is(master, "live").unwrap();
    let broken = json!([
        "no row", 5, {}, {"account": "a1", "instrument": "i1", "price": 9.0},
        {"account": "a1", "instrument": "i1", "price": "high", "version": 1},
        {"account": "a1", "instrument": "i1", "colour": "red", "version": 1},
        {"account": "a1", "price": 9.0, "version": 1},
        {"account": "a1", "instrument": ["i1"], "version": 1},
    ]);
    desk.system.publish(&broken).unwrap();
    desk.system.publish(&json!([update(1, 8, 2.5), update(1, 7, 9.0), update(1, 8, 9.0)])).unwrap();
    desk.row_is(master, 1, 2.5).unwrap();
    eventually(LIMIT, "all are counted", || {
        let feed = desk.status(master)?["feed"].clone();
        ensure!(feed["refused"] == 8 && feed["older"] == 2 && feed["applied"] == 1, "{feed}");
        Ok(())
    })
    .unwrap();
    assert_eq!(desk.status(master).unwrap()["feed"]["state"], "live");
    // A new row, and one that is gone: in lookups, in scans, in the count.
    let gone = json!({"account": "a2", "instrument": "i2", "version": 9, "deleted": true});
    let new = json!({"account": "a10", "instrument": "new", "version": 10, "price": 4});
    desk.system.publish(&json!([gone, new, update(499, 11, 3.5)])).unwrap();
    desk.row_is(master, 499, 3.5).unwrap();
    assert_eq!(desk.row(master, 2).unwrap(), Value::Null);
    assert_eq!(desk.describe(master).unwrap()["rows"], ROWS);
    let scan = json!({"dataset": "positions", "from": ["a10"], "limit": 2});
    let scanned = desk.node(master).call(1102, &scan).unwrap()["data"]["rows"].clone();
    assert_eq!(
        (&scanned[0]["instrument"], &scanned[1]["instrument"]),
        (&json!("i10"), &json!("new"))
    );
    let said = desk.pair.nodes[master].process().unwrap().log();
    assert!(said.contains("rows of a feed were refused"), "{said}");
}

#[test]
fn what_was_missed_is_loaded_anew_while_the_old_rows_serve() {
    let _turn = Turn::alone().unwrap();
    let mut desk = Desk::new("on-promote").unwrap();
    desk.flow(2_000).unwrap();
    desk.pair.start().unwrap();
    let master = settled(&desk.pair).unwrap();
    desk.feed_is(master, "live").unwrap();
    desk.ensure_flows(master).unwrap();

    // Versions are left out by a publisher that counts them all: the file is read once more.
    let notes = |note: &str| std::fs::write(&desk.file, rows(1.0).replace("loaded", note)).unwrap();
    notes("again");
    desk.system.control(&json!({"skip": 5})).unwrap();
    let note = |wanted: &str| {
        eventually(LIMIT, "it is loaded anew", || {
            // Answered all the time: old or new, never loading.
            let row = desk.row(master, 7)?;
            ensure!(row["note"] == wanted, "{row}");
            Ok(())
        })
    };
    note("again").unwrap();
    desk.feed_is(master, "live").unwrap();
    desk.ensure_flows(master).unwrap();

    // The publisher is gone for a while.
    notes("once more");
    let mut system = desk.system;
    system.kill().unwrap();
    eventually(LIMIT, "it is stale, and says why", || {
        let node = &desk.pair.nodes[master];
        let answer = node.call(1103, &json!({"dataset": "positions"}))?;
        let described = &answer["data"];
        ensure!(described["feed"] == "stale", "{answer}");
        ensure!(described["stale"].as_str().is_some_and(|why| why.contains("zmq://")), "{answer}");
        ensure!(
            node.admin()
                .get("/metrics")?
                .body
                .lines()
                .any(|line| { line.starts_with("hotpair_dataset_stale") && line.ends_with(" 1") }),
            "no metric"
        );
        Ok(())
    })
    .unwrap();
    system.start_again().unwrap();
    desk.system = system;
    desk.flow(2_000).unwrap();
    desk.feed_is(master, "live").unwrap();
    assert_eq!(desk.row(master, 7).unwrap()["note"], "once more");
    desk.ensure_flows(master).unwrap();
}

#[test]
fn a_feed_that_is_not_there_holds_nothing_up() {
    let _turn = Turn::alone().unwrap();
    let mut desk = Desk::new("on-promote").unwrap();
    desk.system.kill().unwrap();
    desk.pair.start().unwrap();
    let master = settled(&desk.pair).unwrap();
    desk.row_is(master, 1, 1.0).unwrap();
    desk.feed_is(master, "stale").unwrap();
    desk.system.start_again().unwrap();
    desk.feed_is(master, "live").unwrap();
}

/// Publishes two rows again and again, the price the number of the round.
const PUBLISHER: &str = "
import json, sys, time, zmq
socket = zmq.Context().socket(zmq.PUB)
socket.setsockopt(zmq.HEARTBEAT_IVL, 200)
socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
socket.bind('tcp://' + sys.argv[1])
version = 0
while True:
    rows = []
    for number in (1, 2):
        version += 1
        rows.append({'account': f'a{number}', 'instrument': f'i{number}', 'version': version, 'price': version / 2})
    socket.send_json(rows[0])
    socket.send_multipart([b'topic', json.dumps([rows[1]]).encode()])
    time.sleep(0.005)
";

#[test]
fn a_publisher_of_zeromqs_own_make_is_followed_through_a_kill() {
    let _turn = Turn::alone().unwrap();
    install(&[Need::ZeroMq]).unwrap();
    let scratch = Scratch::new("pyzmq").unwrap();
    let mut desk = Desk::new("on-promote").unwrap();
    desk.system.kill().unwrap();
    let start = || -> Result<Process> {
        // Debian's own: another Python does not have its packages.
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", PUBLISHER, &desk.system.publish_address().to_string()]);
        Process::start("pyzmq", &mut command, &scratch.join("log"))
    };
    let mut publisher = start().unwrap();
    desk.pair.start().unwrap();
    let master = settled(&desk.pair).unwrap();
    desk.feed_is(master, "live").unwrap();
    let grows = |number: usize| {
        let before = desk.row(master, number)?["price"].as_f64().context("no price")?;
        eventually(LIMIT, "the price grows", || {
            let now = desk.row(master, number)?["price"].as_f64().context("no price")?;
            if now <= before {
                bail!("{now} after {before}");
            }
            Ok(())
        })
    };
    grows(1).unwrap();
    grows(2).unwrap();
    publisher.kill().unwrap();
    desk.feed_is(master, "stale").unwrap();
    let mut publisher = start().unwrap();
    desk.feed_is(master, "live").unwrap();
    publisher.ensure_running().unwrap();
    // It counts from 1 again, which is older than what it said before its end: loaded anew, it is not.
    eventually(LIMIT, "both rows are its own", || grows(1).and_then(|()| grows(2))).unwrap();
    assert_eq!(desk.status(master).unwrap()["feed"]["refused"], 0);
}
