//! Steps that tests of the pair's data take.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hotpair_lab::node::Node;
use hotpair_lab::wait::{eventually, throughout};

use crate::journal::Journal;
use crate::rows::Client;
use crate::steps::{LIMIT, argument, run_hotpair};
use crate::table_lab::TableLab;

/// A session's end, and any second thoughts.
pub const AFTERWARDS: Duration = Duration::from_secs(5);

/// Gives one node an order of the operator's: the exit code and what was said.
pub fn order(node: &Node, words: &[&str]) -> Result<(i32, String)> {
    let admin = format!("http://{}", node.settings.admin);
    let token = node.folder().join("admin.token");
    let rest = ["--admin", &admin, "--token-file", argument(&token)?];
    let (code, result, notes) = run_hotpair(&[words, &rest[..]].concat())?;
    Ok((code, format!("{result}{notes}")))
}

/// Waits until `/why` has all of these words, whichever sentence they stand in.
pub fn says_why(node: &Node, words: &[&str]) -> Result<()> {
    eventually(LIMIT, &format!("/why says {words:?}"), || {
        let why = node.admin().get("/why")?.body;
        ensure!(words.iter().all(|word| why.contains(word)), "{why}");
        Ok(())
    })
}

/// Waits until this alert fires.
pub fn alerted(node: &Node, name: &str) -> Result<()> {
    eventually(LIMIT, &format!("the alert {name} fires at {}", node.settings.node), || {
        let alerts = node.alerts()?;
        ensure!(alerts.iter().any(|alert| alert == name), "{alerts:?}");
        Ok(())
    })
}

/// Waits until this alert does not fire.
pub fn relieved(node: &Node, name: &str) -> Result<()> {
    eventually(LIMIT, &format!("the alert {name} is over at {}", node.settings.node), || {
        let alerts = node.alerts()?;
        ensure!(!alerts.iter().any(|alert| alert == name), "{alerts:?}");
        Ok(())
    })
}

/// For a while this node does not serve.
pub fn does_not_serve(node: &Node) -> Result<()> {
    throughout(AFTERWARDS, &format!("{} does not serve", node.settings.node), || {
        let role = node.role()?;
        ensure!(!role.serving, "{role:?}");
        Ok(())
    })
}

/// Moves the mastership, and finds the same rows in the same versions at the other node.
pub fn same_rows_at_the_other(lab: &mut TableLab, client: &Client) -> Result<()> {
    let rows = client.rows()?;
    ensure!(!rows.is_empty(), "no rows prove nothing");
    let master = lab.in_sync()?;
    lab.switch_over()?;
    ensure!(lab.in_sync()? == 1 - master, "nothing was moved");
    let there = client.rows()?;
    ensure!(there == rows, "the other node has {there:?}, this one had {rows:?}");
    Ok(())
}

/// Whether the node was ever given an order with this word in it, as its journal says.
pub fn was_ordered(node: &Node, word: &str) -> Result<bool> {
    let journal = Journal::read(node)?;
    let texts = journal.of("order").filter_map(|line| line["text"].as_str());
    Ok(texts.into_iter().any(|text| text.contains(word)))
}

/// What the node said since the beginning of all its lives.
pub fn log(node: &Node) -> Result<String> {
    let path = node.folder().join("log");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// A program in place of the node's, which does what this line of shell says with `"$@"`.
pub fn program(node: &Node, line: &str) -> Result<PathBuf> {
    let path = node.folder().join("program.sh");
    fs::write(&path, format!("#!/bin/sh\n{line}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The newest redo file with a record in it.
pub fn last_redo(directory: &Path) -> Result<PathBuf> {
    let files = crate::rows::files(directory, "redo-")?;
    let filled = |path: &&PathBuf| fs::metadata(path).is_ok_and(|it| it.len() > EMPTY_BYTES);
    files.iter().rev().find(filled).cloned().with_context(|| format!("no redo in {files:?}"))
}

/// A redo file's header.
const EMPTY_BYTES: u64 = 32;
