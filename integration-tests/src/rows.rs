//! A client that is told exactly what happened: each call goes where the test says, once, and the
//! whole answer is there. For tests of single steps; histories are the laboratory's sessions'.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hotpair_lab::http::Http;
use hotpair_lab::node::Pair;
use hotpair_lab::session::User;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};

use crate::steps::LIMIT;

/// The table that all calls are about.
const TABLE: &str = "state";
/// Longer than it takes to take a silent peer out of the record.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A session, used at whichever node.
#[derive(Debug)]
pub struct Client {
    nodes: Vec<Http>,
    token: String,
}

impl Client {
    /// Logs in, at whichever node lets us.
    pub fn login(nodes: Vec<Http>, user: &User) -> Result<Self> {
        let nodes: Vec<Http> = nodes.into_iter().map(|node| node.with_limit(CALL_LIMIT)).collect();
        let body = json!({"user": user.name, "password": user.password});
        let data = eventually(LIMIT * 2, "somebody lets us log in", || {
            first_done(&nodes, "/v1/login", &body)
        })?;
        let token = data["session"].as_str().with_context(|| format!("no session in {data}"))?;
        Ok(Self { token: token.to_owned(), nodes })
    }

    /// Logs in at a pair.
    pub fn of(pair: &Pair, user: &User) -> Result<Self> {
        Self::login(pair.nodes.iter().map(hotpair_lab::node::Node::client).collect(), user)
    }

    /// The same session, used at these nodes.
    #[must_use]
    pub fn at(self, nodes: Vec<Http>) -> Self {
        let nodes = nodes.into_iter().map(|node| node.with_limit(CALL_LIMIT)).collect();
        Self { nodes, ..self }
    }

    /// Calls a function of one node, once: the whole answer.
    pub fn call(&self, node: usize, function: u32, arguments: &Value) -> Result<Value> {
        self.nodes[node].post("/v1/call", &self.body(function, arguments))?.json()
    }

    /// Puts a value at one node, once: the whole answer.
    pub fn put_at(&self, node: usize, key: &str, value: &str) -> Result<Value> {
        self.call(node, PUT, &json!({"table": TABLE, "key": key, "value": value}))
    }

    /// Puts a value, now here and now there, until it is acknowledged.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.insist(PUT, &json!({"table": TABLE, "key": key, "value": value})).map(drop)
    }

    /// A row's value.
    pub fn value(&self, key: &str) -> Result<Option<String>> {
        let data = self.insist(GET, &json!({"table": TABLE, "key": key}))?;
        Ok(data["value"].as_str().map(str::to_owned))
    }

    /// All rows of a table with their versions.
    pub fn rows_of(&self, table: &str) -> Result<Vec<Value>> {
        let (mut rows, mut from) = (Vec::new(), json!(""));
        loop {
            let page = json!({"table": table, "from": from, "limit": 1_000});
            let mut data = self.insist(SCAN, &page)?;
            let more = data["rows"].as_array_mut().with_context(|| format!("no rows in {page}"))?;
            rows.append(more);
            if data["next"].is_null() {
                return Ok(rows);
            }
            from = data["next"].take();
        }
    }

    /// All rows with their versions.
    pub fn rows(&self) -> Result<Vec<Value>> {
        self.rows_of(TABLE)
    }

    /// Whether the session is alive, as the node that serves says: the number it answers.
    pub fn heartbeat(&self) -> Result<i64> {
        eventually(LIMIT, "somebody who serves answers", || {
            let answers = self.nodes.iter().filter_map(|node| {
                node.post("/v1/heartbeat", &json!({"session": self.token})).ok()?.json().ok()
            });
            let numbers = answers.filter_map(|answer| answer["error_no"].as_i64());
            let mut numbers = numbers.filter(|number| !ELSEWHERE.contains(number));
            numbers.next().context("nobody serves")
        })
    }

    fn insist(&self, function: u32, arguments: &Value) -> Result<Value> {
        let body = self.body(function, arguments);
        eventually(LIMIT * 2, "somebody does what was asked", || {
            first_done(&self.nodes, "/v1/call", &body)
        })
    }

    fn body(&self, function: u32, arguments: &Value) -> Value {
        json!({"session": self.token, "function": function, "arguments": arguments})
    }
}

/// The data of the first node that does it.
fn first_done(nodes: &[Http], path: &str, body: &Value) -> Result<Value> {
    let mut told = Vec::new();
    for node in nodes {
        match node.post(path, body).and_then(|answer| answer.json()) {
            Ok(mut answer) if answer["error_no"] == 0 => return Ok(answer["data"].take()),
            Ok(answer) => told.push(format!("{}: {answer}", node.address())),
            Err(error) => told.push(format!("{}: {error:#}", node.address())),
        }
    }
    bail!("{told:?}")
}

/// The files in a node's directory whose names begin like this, sorted.
pub fn files(directory: &Path, beginning: &str) -> Result<Vec<PathBuf>> {
    ensure!(directory.is_dir(), "{} is no folder", directory.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(beginning) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

const GET: u32 = 1001;
const PUT: u32 = 1002;
const SCAN: u32 = 1005;
/// Switching, and not serving.
const ELSEWHERE: [i64; 2] = [308_000_000, 308_000_005];
