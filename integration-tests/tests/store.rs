//! Write-behind with real databases: what stands in SQL is what stands in the tables, whatever was
//! killed meanwhile; a database that is absent, broken or somebody else's is the operator's trouble and
//! nobody else's.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hotpair_integration_tests::data_steps::relieved;
use hotpair_integration_tests::rows::Client;
use hotpair_integration_tests::sql::{
    alert_says, ask_sqlite, in_memory, in_postgres, in_sqlite, reaches, same, status,
};
use hotpair_integration_tests::steps::LIMIT;
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::node::{Node, Pair, hotpair};
use hotpair_lab::postgres::Postgres;
use hotpair_lab::process::Process;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::table_load::{Plan, TableLoad};
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};

const PUT: u32 = 1002;
const DELETE: u32 = 1003;

fn url(url: &str, more: &str) -> [String; 2] {
    let text = format!("[store]\nurl = {url:?}\n{more}");
    [text.clone(), text]
}

fn load(lab: &TableLab) -> TableLoad {
    let user = lab.user.clone();
    let plan = Plan { clients: 4, threads: 2, watchers: 0, pause_ms_max: 10, seed: 5, user };
    lab.start_load(&plan).unwrap()
}

/// So many more changes are acknowledged.
fn goes_on(load: &TableLoad, more: u64) {
    let before = load.acknowledged();
    eventually(LIMIT, "the clients are served", || {
        let since = load.acknowledged() - before;
        ensure!(since >= more, "only {since}");
        Ok(())
    })
    .unwrap();
}

fn call(client: &Client, node: usize, function: u32, arguments: &Value) {
    let answer = client.call(node, function, arguments).unwrap();
    assert_eq!(answer["error_no"], 0, "{answer}");
}

/// The metric of the lag, if there is one.
fn lag(node: &Node) -> Result<Option<u64>> {
    let page = node.admin().get("/metrics")?;
    let line = page.body.lines().find(|line| line.starts_with("hotpair_store_lag_records{"));
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()))
}

#[test]
fn postgresql_has_what_the_tables_have_whoever_was_killed_meanwhile() {
    let _turn = Turn::alone().unwrap();
    // Not there yet: the pair serves all the same, and says what is missing.
    let mut server = Postgres::make().unwrap();
    let options = Options { more: url(&server.url(), ""), ..Options::default() };
    let mut lab = TableLab::new(&options).unwrap();
    let master = lab.in_sync().unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    client.put("early", "before there was a database").unwrap();
    alert_says(&lab.pair.nodes[master], "refused").unwrap();
    assert!(lag(&lab.pair.nodes[master]).unwrap().unwrap() > 0);
    assert_eq!(lag(&lab.pair.nodes[1 - master]).unwrap(), None, "only the master writes");
    assert_eq!(status(&lab.pair.nodes[1 - master]).unwrap()["state"], "idle");

    server.start_again().unwrap();
    let tables = ["state", "load"];
    let database = |server: &Postgres| in_postgres(server);
    assert!(same(&client, &tables, &|| database(&server)).unwrap() > 0);

    // It stands still: nobody who writes notices, and the operator is told.
    server.freeze().unwrap();
    let load = load(&lab);
    goes_on(&load, 200);
    alert_says(&lab.pair.nodes[master], "does not answer").unwrap();
    server.thaw().unwrap();
    goes_on(&load, 200);
    server.kill().unwrap();
    goes_on(&load, 200);
    lab.kill(master).unwrap();
    goes_on(&load, 50);
    server.start_again().unwrap();
    goes_on(&load, 100);
    lab.start(master).unwrap();
    let master = lab.in_sync().unwrap();
    goes_on(&load, 100);
    server.kill().unwrap();
    server.start_again().unwrap();
    lab.kill(master).unwrap();
    goes_on(&load, 50);
    load.stop(LIMIT).unwrap();
    call(&client, 1 - master, DELETE, &json!({"table": "state", "key": "early"}));
    let rows = same(&client, &tables, &|| database(&server)).unwrap();
    assert!(rows > 10, "{rows}");
    let epoch = lab.epoch(1 - master).unwrap();
    assert_eq!(server.ask("SELECT epoch FROM hotpair_store").unwrap(), epoch.to_string());
    let own = "SELECT count(*) FROM hotpair_rows WHERE name LIKE 'hotpair.%'";
    assert_eq!(server.ask(own).unwrap(), "0", "the pair's own tables stay within the pair");
    relieved(&lab.pair.nodes[1 - master], "store_behind").unwrap();
    assert_eq!(lag(&lab.pair.nodes[1 - master]).unwrap(), Some(0));
}

const ORDERS: &str = "[[store.tables]]\ntable = \"orders\"\nsql = \"orders_now\"\nkey = \"id\"\n\
                      [store.tables.columns]\naccount = \"text\"\namount = \"integer\"\n\
                      price = \"float\"\nopen = \"boolean\"\ntags = \"json\"\n";

/// A node alone, without users.
struct Alone {
    pair: Pair,
    process: Option<Process>,
    scratch: Scratch,
}

impl Alone {
    fn start(store: &str) -> Self {
        let pair = Pair::here(&["127.0.0.1:9".parse().unwrap()]).unwrap();
        let mut alone = Self { pair, process: None, scratch: Scratch::new("store-alone").unwrap() };
        alone.start_with(store);
        alone
    }

    fn start_with(&mut self, store: &str) {
        let settings = &self.node().settings;
        let text = format!(
            "pair = \"trade\"\nnode = {:?}\n[listen]\nclient = \"{}\"\nadmin = \"{}\"\n\
             [coordinator]\nkind = \"standalone\"\n[tables]\ndirectory = {:?}\n{store}",
            settings.node, settings.client, settings.admin, settings.directory
        );
        let config = self.scratch.write("config.toml", text).unwrap();
        let mut command = Command::new(hotpair().unwrap());
        command.arg("node").arg("--config").arg(config);
        let log = self.scratch.join("log");
        self.process = Some(Process::start("node alone", &mut command, &log).unwrap());
        eventually(LIMIT, "it serves", || {
            let role = self.node().role()?;
            ensure!(role.serving, "{role:?}");
            Ok(())
        })
        .unwrap();
    }

    fn stop(&mut self) {
        self.process.take().unwrap().terminate(LIMIT).unwrap();
    }

    fn node(&self) -> &Node {
        &self.pair.nodes[0]
    }

    fn call(&self, function: u32, arguments: &Value) {
        let answer = self.node().call(function, arguments).unwrap();
        assert_eq!(answer["error_no"], 0, "{answer}");
    }

    fn put(&self, table: &str, key: &str, value: &Value) {
        self.call(PUT, &json!({"table": table, "key": key, "value": value}));
    }
}

fn answers(wanted: &str, ask: &dyn Fn() -> Result<String>) {
    eventually(LIMIT, &format!("the database answers {wanted:?}"), || {
        let found = ask()?;
        ensure!(found.trim() == wanted, "{found}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn rows_become_columns_and_what_does_not_fit_is_put_aside_with_its_reason() {
    let server = Postgres::start().unwrap();
    let store = |mapping: &str| format!("[store]\nurl = {:?}\n{mapping}", server.url());
    let mut alone = Alone::start(&store(ORDERS));
    let ask = |statement: &'static str| move |server: &Postgres| server.ask(statement);
    let orders =
        ask("SELECT id, account, amount, price, open, tags->>0 FROM orders_now ORDER BY id");
    let order = json!({"account": "a", "amount": 5, "price": 1.5, "open": true, "tags": ["x"]});
    alone.put("orders", "1", &order);
    alone.put("orders", "2", &json!({"account": "b", "more": 1}));
    alone.put("plain", "k", &json!("v"));
    answers("1\ta\t5\t1.5\tt\tx\n2\tb", &|| Ok(orders(&server)?.trim_end().to_owned()));
    let plain = ask("SELECT name, convert_from(value, 'UTF8') FROM hotpair_rows");
    answers("plain\t\"v\"", &|| plain(&server));

    alone.put("orders", "1", &json!({"amount": "five"}));
    alert_says(alone.node(), "hotpair_quarantine").unwrap();
    let aside = ask("SELECT convert_from(key, 'UTF8'), reason FROM hotpair_quarantine");
    answers("1\tamount: text \"five\" where integer is declared", &|| aside(&server));
    let ids = ask("SELECT string_agg(id, ',' ORDER BY id) FROM orders_now");
    answers("2", &|| ids(&server));
    alone.put("orders", "3", &json!({"amount": 7}));
    answers("2,3", &|| ids(&server));
    alone.put("orders", "1", &json!({"amount": 6}));
    answers("1,2,3", &|| ids(&server));
    answers("", &|| aside(&server));
    relieved(alone.node(), "store_behind").unwrap();
    alone.call(DELETE, &json!({"table": "orders", "key": "2"}));
    answers("1,3", &|| ids(&server));

    // Another mapping is another table; what hotpair did not make, it does not touch.
    alone.stop();
    server.ask("CREATE TABLE ledger (mine integer); INSERT INTO ledger VALUES (1)").unwrap();
    let mapping = |table: &str| {
        format!(
            "[[store.tables]]\ntable = \"orders\"\nsql = {table:?}\nkey = \"id\"\n\
             [store.tables.columns]\nid = \"integer\"\namount = \"integer\"\n"
        )
    };
    alone.start_with(&store(&mapping("ledger")));
    alert_says(alone.node(), "\"ledger\" is there already").unwrap();
    alone.stop();
    alone.start_with(&store(&mapping("orders_by_number")));
    let sums = ask("SELECT sum(id), sum(amount) FROM orders_by_number");
    answers("4\t13", &|| sums(&server));
    let left = ask("SELECT to_regclass('orders_now') IS NULL, count(*) FROM ledger");
    assert_eq!(left(&server).unwrap(), "t\t1");
}

#[test]
fn a_database_that_is_not_ours_to_write_is_refused_by_name_and_costs_nothing_else() {
    let server = Postgres::start().unwrap();
    let wrong = server.url().replace(":known-to-tests@", ":wrong@");
    let mut alone = Alone::start(&format!("[store]\nurl = {wrong:?}\n"));
    alone.put("state", "k", &json!(1));
    alert_says(alone.node(), "password authentication failed for user \"trade\"").unwrap();
    let shown = status(alone.node()).unwrap().to_string();
    assert!(!shown.contains("wrong") && shown.contains("password"), "{shown}");
    alone.stop();
    let right = format!("[store]\nurl = {:?}\n", server.url());
    alone.start_with(&right);
    reaches(alone.node(), "current").unwrap();
    let cluster = server.ask("SELECT cluster FROM hotpair_store").unwrap();

    let other = Alone::start(&right);
    alert_says(other.node(), &cluster).unwrap();
    other.put("state", "k", &json!(2));
    alone.put("state", "l", &json!(3));
    let rows = "SELECT string_agg(convert_from(value, 'UTF8'), ',' ORDER BY key) FROM hotpair_rows";
    answers("1,3", &|| server.ask(rows));
    assert!(!fs::read_to_string(other.scratch.join("log")).unwrap().contains("known-to-tests"));

    // Made by a newer program.
    alone.stop();
    server.ask("INSERT INTO hotpair_migrations (version) VALUES (99)").unwrap();
    alone.start_with(&right);
    alert_says(alone.node(), "version 99").unwrap();
    alone.put("state", "m", &json!(4));
}

#[test]
fn a_file_that_is_lost_is_made_anew_and_one_that_is_damaged_or_anothers_is_refused() {
    let folder = Scratch::new("store-file").unwrap();
    let file = folder.join("store.db");
    let store = format!("[store]\nurl = \"sqlite://{}\"\n", file.display());
    let alone = Alone::start(&store);
    let all = "SELECT CAST(key AS TEXT) FROM hotpair_rows ORDER BY key";
    alone.put("state", "a", &json!(1));
    answers("[[\"a\"]]", &|| ask_sqlite(&file, all));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let away = |name: &str| {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::rename(
                folder.join(format!("store.db{end}")),
                folder.join(format!("{name}{end}")),
            );
        }
    };
    away("lost.db");
    alone.put("state", "b", &json!(2));
    answers("[[\"a\"], [\"b\"]]", &|| ask_sqlite(&file, all));

    away("again.db");
    fs::write(&file, "not a database, but a text that somebody may want to keep").unwrap();
    alone.put("state", "c", &json!(3));
    alert_says(alone.node(), "is no SQLite database").unwrap();
    assert!(fs::read_to_string(&file).unwrap().starts_with("not a database"));
    away("text");
    answers("[[\"a\"], [\"b\"], [\"c\"]]", &|| ask_sqlite(&file, all));

    let other = Alone::start(&store);
    alert_says(other.node(), "standalone-").unwrap();
    alone.put("state", "d", &json!(4));
    answers("[[\"a\"], [\"b\"], [\"c\"], [\"d\"]]", &|| ask_sqlite(&file, all));
    relieved(alone.node(), "store_behind").unwrap();
}

/// How often everything was copied into a node's database.
fn copies(node: &Node) -> usize {
    let log = fs::read_to_string(node.folder().join("log")).unwrap();
    // One that is begun while the node itself loads is dropped, and counts for nothing.
    log.matches("the store is copied").count()
}

#[test]
fn each_node_has_a_copy_of_its_own_in_sqlite_and_both_are_the_same() {
    let _turn = Turn::alone().unwrap();
    let folder = Scratch::new("store-files").unwrap();
    let files: Vec<PathBuf> = ["a.db", "b.db"].into_iter().map(|name| folder.join(name)).collect();
    let address = |file: &Path| format!("[store]\nurl = \"sqlite://{}\"\n", file.display());
    let more = [address(&files[0]), address(&files[1])];
    let mut lab = TableLab::new(&Options { more, ..Options::default() }).unwrap();
    let client = Client::of(&lab.pair, &lab.user).unwrap();
    let load = load(&lab);
    goes_on(&load, 200);
    let master = lab.in_sync().unwrap();
    let survivor = 1 - master;
    lab.pair.nodes.iter().for_each(|node| drop(reaches(node, "current").unwrap()));
    let before: Vec<usize> = lab.pair.nodes.iter().map(copies).collect();
    goes_on(&load, 500);
    // It falls with changes that the other one never saw, before it does without the other one.
    loop {
        assert_eq!(lab.in_sync().unwrap(), master);
        lab.freeze(survivor).unwrap();
        let frozen = Instant::now();
        thread::sleep(Duration::from_millis(100));
        if frozen.elapsed() < Duration::from_millis(500) {
            lab.kill(master).unwrap();
            lab.thaw(survivor).unwrap();
            break;
        }
        lab.thaw(survivor).unwrap();
    }
    goes_on(&load, 100);
    lab.start(master).unwrap();
    lab.in_sync().unwrap();
    lab.switch_over().unwrap();
    goes_on(&load, 100);
    load.stop(LIMIT).unwrap();
    for file in &files {
        let rows = same(&client, &["load"], &|| in_sqlite(file)).unwrap();
        assert!(rows > 10, "{rows}");
    }
    let after: Vec<usize> = lab.pair.nodes.iter().map(copies).collect();
    assert_eq!(after[survivor], before[survivor], "its log went on all the time");
    // What it had and nobody else has is cut off its log, if there is any.
    assert!(after[master] <= before[master] + 1, "{before:?}, {after:?}");
    let wanted = in_memory(&client, &["load"]).unwrap();
    assert_eq!(in_sqlite(&files[0]).unwrap(), wanted);
    for node in &lab.pair.nodes {
        assert_eq!(reaches(node, "current").unwrap()["lag_records"], 0);
    }

    // Both nodes with one file: told, and the file stays whose it is.
    let master = lab.master().unwrap();
    let standby = 1 - master;
    lab.kill(standby).unwrap();
    let own = lab.pair.nodes[standby].settings.more.clone();
    let (from, to) = (files[standby].display().to_string(), files[master].display().to_string());
    lab.pair.nodes[standby].settings.more = own.replace(&from, &to);
    lab.start(standby).unwrap();
    lab.in_sync().unwrap();
    alert_says(&lab.pair.nodes[standby], "give each node a file of its own").unwrap();
    reaches(&lab.pair.nodes[master], "current").unwrap();
}
