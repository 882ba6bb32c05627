//! A node's journal as a test reads it: what happened, when, and why.

use std::path::Path;

use anyhow::{Context, Result};
use hotpair_lab::checker::read_log;
use hotpair_lab::node::Node;
use serde_json::Value;

/// All lines that a node wrote so far, of all its lives, in order.
#[derive(Debug, Clone)]
pub struct Journal {
    node: String,
    lines: Vec<Value>,
}

impl Journal {
    /// Reads it from the node's data directory; empty before the node's first line.
    pub fn read(node: &Node) -> Result<Self> {
        let path = node.settings.directory.join("journal.jsonl");
        let lines = if path.exists() { read_log(Path::new(&path))? } else { Vec::new() };
        Ok(Self { node: node.settings.node.clone(), lines })
    }

    /// The lines of this kind.
    pub fn of<'a>(&'a self, event: &'a str) -> impl DoubleEndedIterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| line["event"] == event)
    }

    /// When the first line of this kind with this text was written, in nanoseconds since boot.
    pub fn first(&self, event: &str, text: &str) -> Result<i64> {
        let line = self.of(event).find(|line| line["text"] == text);
        let line = line.with_context(|| format!("{} never wrote {event}: {text}", self.node))?;
        self.moment(line)
    }

    /// When this alert fired first, in nanoseconds since boot; `None` if it never did.
    pub fn alerted(&self, name: &str) -> Result<Option<i64>> {
        let fired = |line: &&Value| line["name"] == name && line["text"].is_string();
        self.of("alert").find(fired).map(|line| self.moment(line)).transpose()
    }

    /// The causes of the moves to this role, in order.
    #[must_use]
    pub fn causes(&self, to: &str) -> Vec<String> {
        let moves = self.of("role").filter(|line| line["to"] == to);
        moves.filter_map(|line| line["cause"].as_str()).map(str::to_owned).collect()
    }

    /// All lines as they are, for the report of a failure.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn moment(&self, line: &Value) -> Result<i64> {
        line["boot_ns"].as_i64().with_context(|| format!("{}: no time in {line}", self.node))
    }
}
