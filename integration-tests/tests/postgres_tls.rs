//! A real PostgreSQL that takes TLS only: rows are written and datasets loaded over it, a server that is not
//! vouched for gets no password and is named with the reason, and nothing is lost meanwhile.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use anyhow::{Result, ensure};
use hotpair_integration_tests::data_steps::relieved;
use hotpair_integration_tests::rows::Client;
use hotpair_integration_tests::sql::{alert_says, in_postgres, same};
use hotpair_integration_tests::steps::{LIMIT, settled, switch_over};
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::certificates::Certificates;
use hotpair_lab::node::Pair;
use hotpair_lab::postgres::Postgres;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::{Value, json};

const LOOKUP: u32 = 1101;
const FOREIGN: &str = "not signed by an authority that is trusted here";
const NAMED: &str = "not for \"127.0.0.1\" but for db.example";

/// Two authorities, of which one is trusted.
struct Authorities {
    trusted: Certificates,
    foreign: Certificates,
    _scratch: Scratch,
}

impl Authorities {
    fn new() -> Self {
        let scratch = Scratch::new("postgres-tls").unwrap();
        let trusted = Certificates::new(&scratch.join("trusted")).unwrap();
        trusted.issue("server", &["127.0.0.1"]).unwrap();
        trusted.issue("elsewhere", &["db.example"]).unwrap();
        let foreign = Certificates::new(&scratch.join("foreign")).unwrap();
        foreign.issue("server", &["127.0.0.1"]).unwrap();
        Self { trusted, foreign, _scratch: scratch }
    }
}

/// The server goes and comes as somebody else.
fn becomes(server: &mut Postgres, certificates: &Certificates, name: &str) {
    server.kill().unwrap();
    server.secure(certificates, name).unwrap();
    server.start_again().unwrap();
}

/// What the master says of a dataset's row: the row, or why there is none.
fn lookup(client: &Client, node: usize) -> Result<Value> {
    client.call(node, LOOKUP, &json!({"dataset": "positions", "key": [7]}))
}

fn lookup_fails(client: &Client, node: usize, named: &str) {
    eventually(LIMIT, named, || {
        let answer = lookup(client, node)?;
        let reason = answer["data"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains(named), "{named} is not in {answer}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn rows_go_over_tls_to_the_server_that_is_meant_and_to_no_other_and_none_is_lost() {
    let _turn = Turn::beside_others().unwrap();
    let authorities = Authorities::new();
    let mut server = Postgres::make().unwrap();
    server.secure(&authorities.foreign, "server").unwrap();
    server.start_again().unwrap();
    server.ask("CREATE TABLE positions AS SELECT n AS id FROM generate_series(1, 9) AS n").unwrap();
    let url = server.secure_url(&authorities.trusted);
    let more = format!(
        "[store]\nurl = {url:?}\n[[datasets]]\nname = \"positions\"\nkey = [\"id\"]\n\
         source = \"{url}&query=SELECT * FROM positions\"\n"
    );
    let options = Options { more: [more.clone(), more], ..Options::default() };
    let mut lab = TableLab::new(&options).unwrap();
    let master = lab.in_sync().unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("early", "before anybody was trusted").unwrap();
    alert_says(&lab.pair.nodes[master], FOREIGN).unwrap();
    lookup_fails(&client, master, FOREIGN);

    becomes(&mut server, &authorities.trusted, "elsewhere");
    alert_says(&lab.pair.nodes[master], NAMED).unwrap();
    lookup_fails(&client, master, NAMED);
    client.put("later", "nothing was written yet").unwrap();
    let made = "SELECT to_regclass('hotpair_rows') IS NOT NULL";
    assert_eq!(server.ask(made).unwrap(), "f");

    becomes(&mut server, &authorities.trusted, "server");
    assert_eq!(same(&client, &["state"], &|| in_postgres(&server)).unwrap(), 2);
    relieved(&lab.pair.nodes[master], "store_behind").unwrap();
    eventually(LIMIT * 2, "it is loaded", || {
        let answer = lookup(&client, master)?;
        ensure!(answer["data"]["row"]["id"] == 7, "{answer}");
        Ok(())
    })
    .unwrap();
    let ways = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name LIKE 'hotpair %'";
    assert_eq!(server.ask(ways).unwrap(), "t");

    // The other node says nothing of TLS: it is refused by the server, and says so.
    let standby = 1 - master;
    lab.kill(standby).unwrap();
    let settings = &mut lab.pair.nodes[standby].settings;
    settings.more =
        settings.more.replace(&format!("url = {url:?}"), &format!("url = {:?}", server.url()));
    lab.start(standby).unwrap();
    lab.in_sync().unwrap();
    lab.switch_over().unwrap();
    client.put("last", "in plain text").unwrap();
    alert_says(&lab.pair.nodes[standby], "no encryption").unwrap();
    lab.switch_over().unwrap();
    assert_eq!(same(&client, &["state"], &|| in_postgres(&server)).unwrap(), 3);
    for node in &mut lab.pair.nodes {
        let said = node.process().unwrap().log();
        assert!(!said.contains("known-to-tests"), "the password is in the log");
    }
}

#[test]
fn a_query_that_nobody_waits_for_any_more_is_cancelled_over_tls() {
    let _turn = Turn::beside_others().unwrap();
    let authorities = Authorities::new();
    let zookeeper = ZooKeeper::standalone().unwrap();
    let mut server = Postgres::make().unwrap();
    server.secure(&authorities.trusted, "server").unwrap();
    server.start_again().unwrap();
    let mut pair = Pair::here(&zookeeper.addresses()).unwrap();
    for node in &mut pair.nodes {
        node.settings.more = format!(
            "[[datasets]]\nname = \"slow\"\nkey = [\"id\"]\n\
             source = \"{}&query=SELECT 1 AS id FROM pg_sleep(300)\"\n",
            server.secure_url(&authorities.trusted)
        );
    }
    pair.start().unwrap();
    let master = settled(&pair).unwrap();
    let sleeping = "SELECT count(*), bool_and(ssl) FROM pg_stat_activity \
                    JOIN pg_stat_ssl USING (pid) WHERE query LIKE '%pg_sleep%' \
                    AND application_name LIKE 'hotpair dataset%' AND state = 'active'";
    let one_runs = || {
        eventually(LIMIT, "one query runs, over TLS", || {
            let found = server.ask(sleeping)?;
            ensure!(found == "1\tt", "{found}");
            Ok(())
        })
        .unwrap();
    };
    one_runs();
    assert_eq!(switch_over(&pair).unwrap(), 1 - master);
    one_runs();
}
