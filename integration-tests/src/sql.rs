//! What stands in an SQL database, read without the product, and what stands in the tables.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hotpair_lab::node::Node;
use hotpair_lab::postgres::Postgres;
use hotpair_lab::process::run;
use hotpair_lab::wait::eventually;
use serde_json::Value;

use crate::rows::Client;
use crate::steps::{LIMIT, argument};

/// Values and versions by table and key.
pub type Contents = BTreeMap<(String, String), (Value, u64)>;

/// What the master says of these tables.
pub fn in_memory(client: &Client, tables: &[&str]) -> Result<Contents> {
    let mut found = Contents::new();
    for table in tables {
        for row in client.rows_of(table)? {
            let key = row["key"].as_str().context("keys are texts")?;
            let version = row["version"].as_u64().context("a row has a version")?;
            found.insert(((*table).to_owned(), key.to_owned()), (row["value"].clone(), version));
        }
    }
    Ok(found)
}

/// What stands in PostgreSQL's table of keys and values.
pub fn in_postgres(server: &Postgres) -> Result<Contents> {
    let select = "SELECT coalesce(json_agg(json_build_array(name, convert_from(key, 'UTF8'), \
                  convert_from(value, 'UTF8'), version)), '[]') FROM hotpair_rows";
    contents(&server.ask(select)?)
}

/// What stands in the same table of a file.
pub fn in_sqlite(file: &Path) -> Result<Contents> {
    let select = "SELECT name, CAST(key AS TEXT), CAST(value AS TEXT), version FROM hotpair_rows";
    contents(&ask_sqlite(file, select)?)
}

/// What a statement answers from a file, as JSON: an array of rows.
pub fn ask_sqlite(file: &Path, statement: &str) -> Result<String> {
    let program = "import json, sqlite3, sys\n\
                   file = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)\n\
                   print(json.dumps(file.execute(sys.argv[2]).fetchall()))";
    run(Command::new("python3").args(["-c", program, argument(file)?, statement]))
}

fn contents(rows: &str) -> Result<Contents> {
    let rows: Vec<(String, String, String, u64)> = serde_json::from_str(rows)?;
    rows.into_iter()
        .map(|(table, key, value, version)| {
            Ok(((table, key), (serde_json::from_str(&value)?, version)))
        })
        .collect()
}

/// Waits until a database has just what the tables have; how many rows that is.
pub fn same(
    client: &Client,
    tables: &[&str],
    database: &dyn Fn() -> Result<Contents>,
) -> Result<usize> {
    eventually(LIMIT, "the database has what the tables have", || {
        let (wanted, found) = (in_memory(client, tables)?, database()?);
        let differ = wanted.iter().find(|(key, row)| found.get(*key) != Some(*row));
        ensure!(differ.is_none(), "{differ:?} is missing or another one");
        let surplus = found.keys().find(|key| !wanted.contains_key(*key));
        ensure!(surplus.is_none(), "{surplus:?} is too much");
        Ok(wanted.len())
    })
}

/// What a node says of its store.
pub fn status(node: &Node) -> Result<Value> {
    Ok(node.admin().get_json("/status")?["store"].take())
}

/// Waits until a node's store is in this state.
pub fn reaches(node: &Node, state: &str) -> Result<Value> {
    let name = &node.settings.node;
    eventually(LIMIT, &format!("the store of {name} is {state}"), || {
        let store = status(node)?;
        ensure!(store["state"] == state, "{store}");
        Ok(store)
    })
}

/// Waits until the alert says this.
pub fn alert_says(node: &Node, words: &str) -> Result<()> {
    let name = &node.settings.node;
    eventually(LIMIT, &format!("{name} says {words:?} in the alert store_behind"), || {
        let alerts = node.admin().get_json("/alerts")?;
        let list = alerts["alerts"].as_array().context("a list of alerts")?;
        let text = list.iter().find(|alert| alert["name"] == "store_behind");
        let text = text.and_then(|alert| alert["text"].as_str()).context("it does not fire")?;
        ensure!(text.contains(words), "{text}");
        Ok(())
    })
}
