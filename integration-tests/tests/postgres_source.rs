//! A dataset from a real PostgreSQL: types, errors that name what is wrong, a database that goes away.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use anyhow::{Result, ensure};
use hotpair_integration_tests::steps::{LIMIT, serves, settled, switch_over};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::investment::InvestmentSystem;
use hotpair_lab::node::{Node, Pair};
use hotpair_lab::postgres::Postgres;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};

const FAILED: i64 = 308_000_011;
/// More than some batches.
const ROWS: usize = 30_000;

fn table(database: &Postgres) -> Result<()> {
    database.ask(&format!(
        "CREATE TABLE positions (account varchar(20), instrument text, quantity integer, \
         price numeric(12, 4), open boolean, day date, changed timestamptz, id uuid, version bigint); \
         INSERT INTO positions SELECT 'a' || n, 'i' || n, n, n + 0.25, n % 2 = 0, \
         DATE '1990-01-02' + n, TIMESTAMPTZ '2000-01-01 01:00:00+01', \
         '00000000-0000-0000-0000-000000000001', 5 FROM generate_series(0, {ROWS} - 1) AS n; \
         UPDATE positions SET price = NULL, open = NULL WHERE quantity = 3; ANALYZE positions"
    ))?;
    Ok(())
}

/// A pair whose dataset is this query; not started.
fn pair_with(zookeeper: &ZooKeeper, database: &Postgres, query: &str, more: &str) -> Pair {
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    for node in &mut pair.nodes {
        node.settings.more = format!(
            "[[datasets]]\nname = \"positions\"\nsource = {:?}\n\
             key = [\"account\", \"instrument\"]\n{more}\n",
            format!("{}?query={query}", database.url())
        );
    }
    pair
}

fn lookup(node: &Node, row: usize) -> Result<Value> {
    let key = json!([format!("a{row}"), format!("i{row}")]);
    node.call(1101, &json!({"dataset": "positions", "key": key}))
}

fn row(node: &Node, row: usize) -> Result<Value> {
    let answer = lookup(node, row)?;
    ensure!(answer["error_no"] == 0, "{answer}");
    Ok(answer["data"]["row"].clone())
}

#[test]
fn rows_of_a_query_are_loaded_with_their_types_followed_and_loaded_again_after_a_switch() {
    let _turn = Turn::beside_others().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let database = Postgres::start().unwrap();
    table(&database).unwrap();
    let system = InvestmentSystem::start().unwrap();
    let query = "SELECT * FROM positions WHERE quantity %25 5 <> 4; ";
    let more = format!("feed = {:?}", system.feed());
    let mut pair = pair_with(&zookeeper, &database, query, &more);
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let loaded = eventually(LIMIT, "it is loaded", || row(&pair.nodes[master], 10)).unwrap();
    let wanted = json!({
        "account": "a10", "instrument": "i10", "quantity": 10, "price": 10.25, "open": true,
        "day": "1990-01-12", "changed": "2000-01-01T00:00:00Z",
        "id": "00000000-0000-0000-0000-000000000001", "version": 5,
    });
    assert_eq!(loaded, wanted);
    let nulls = row(&pair.nodes[master], 3).unwrap();
    assert!(nulls["price"].is_null() && nulls["open"].is_null(), "{nulls}");
    assert_eq!(row(&pair.nodes[master], 4).unwrap(), Value::Null);
    let status = pair.nodes[master].admin().get_json("/status").unwrap();
    assert_eq!(status["datasets"][0]["rows"], ROWS / 5 * 4);

    // What was loaded says its version: what the feed says is older, or newer.
    eventually(LIMIT, "the feed is live", || {
        let status = pair.nodes[master].admin().get_json("/status")?;
        ensure!(status["datasets"][0]["feed"]["state"] == "live", "{status}");
        Ok(())
    })
    .unwrap();
    let update = |version: u64, price: f64| json!({"account": "a10", "instrument": "i10", "version": version, "price": price});
    system.publish(&json!([update(5, 1.0), update(4, 2.0), update(6, 11.5)])).unwrap();
    eventually(LIMIT, "the newer one is in", || {
        let row = row(&pair.nodes[master], 10)?;
        ensure!(row["price"] == 11.5 && row["version"] == 6, "{row}");
        Ok(())
    })
    .unwrap();

    database.ask("UPDATE positions SET price = 99 WHERE account = 'a11'").unwrap();
    pair.nodes[master].kill().unwrap();
    serves(&pair, 1 - master).unwrap();
    eventually(LIMIT, "the new master has loaded what is true now", || {
        let row = row(&pair.nodes[1 - master], 11)?;
        ensure!(row["price"] == 99.0, "{row}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_wrong_is_named_and_mended_it_is_loaded_by_itself() {
    let _turn = Turn::beside_others().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut database = Postgres::make().unwrap();
    let mut pair = pair_with(&zookeeper, &database, "SELECT * FROM positions", "");
    pair.nodes[0].start().unwrap();
    serves(&pair, 0).unwrap();
    let node = &pair.nodes[0];
    let fails_with = |named: &str| {
        eventually(LIMIT, named, || {
            let answer = lookup(node, 1)?;
            ensure!(answer["error_no"] == FAILED, "{answer}");
            let reason = answer["data"]["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains(named), "{named} is not in {reason}");
            ensure!(
                reason.contains("postgres://") && !reason.contains("known-to-tests"),
                "{reason}"
            );
            Ok(())
        })
        .unwrap();
    };
    fails_with("connecting");
    database.start_again().unwrap();
    fails_with("relation \"positions\" does not exist");
    table(&database).unwrap();
    eventually(LIMIT * 2, "it is loaded", || row(node, 1)).unwrap();
    // What is in memory does not need its source.
    database.kill().unwrap();
    assert_eq!(row(node, 2).unwrap()["quantity"], 2);
    let said = pair.nodes[0].process().unwrap().log();
    assert!(!said.contains("known-to-tests"), "the password is in the log");
}

#[test]
fn a_database_that_stands_still_holds_up_its_dataset_and_nothing_else() {
    let _turn = Turn::beside_others().unwrap();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let database = Postgres::start().unwrap();
    table(&database).unwrap();
    // Some minutes for the first row: the load is under way for as long as the test wants.
    let query = "SELECT positions.* FROM positions, pg_sleep(300)";
    let mut pair = pair_with(&zookeeper, &database, query, "");
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' \
                    AND application_name LIKE 'hotpair dataset%' AND state = 'active'";
    let runs = |wanted: &str| {
        eventually(LIMIT, "as many queries run as are wanted", || {
            let count = database.ask(sleeping)?;
            ensure!(count == wanted, "{count}");
            Ok(())
        })
        .unwrap();
    };
    runs("1");
    let echo = pair.nodes[master].call(1901, &json!({"still": "here"})).unwrap();
    assert_eq!(echo["error_no"], 0, "{echo}");
    // The switch does not wait for it, the old master's query is cancelled, the new one's begins.
    assert_eq!(switch_over(&pair).unwrap(), 1 - master);
    runs("1");
    assert_eq!(settled(&pair).unwrap(), 1 - master);
    pair.nodes[1 - master].kill().unwrap();
    serves(&pair, master).unwrap();
    let echo = pair.nodes[master].call(1901, &json!({"still": "here"})).unwrap();
    assert_eq!(echo["error_no"], 0, "{echo}");
}
