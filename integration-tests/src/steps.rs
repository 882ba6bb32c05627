//! Steps that many tests take with a pair.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hotpair_lab::node::{Pair, hotpair};
use hotpair_lab::wait::eventually;
use serde_json::json;

/// Longer than anything takes that comes at all, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until one node serves with its functions registered, the other one stands by, knows the
/// epoch and holds every acknowledged change, both have contact with ZooKeeper and hear each other;
/// the index of who serves. Before that the other one need not take over, and often must not.
pub fn settled(pair: &Pair) -> Result<usize> {
    eventually(LIMIT, "one serves, the other one stands by", || {
        let mut master = None;
        let mut epochs = Vec::new();
        for (index, node) in pair.nodes.iter().enumerate() {
            let status = node.admin().get_json("/status")?;
            let all_well = status["contact"] == "connected" && status["peer"]["reachable"] == true;
            ensure!(all_well, "{status}");
            ensure!(status["in_sync"] == true, "{status}");
            epochs.push(status["epoch"].clone());
            if status["serving"] == true {
                ensure!(status["registered"] == true, "{status}");
                ensure!(master.replace(index).is_none(), "both serve");
            } else {
                ensure!(status["role"] == "standby", "{status}");
            }
        }
        ensure!(epochs[0] == epochs[1], "the epochs known are {epochs:?}");
        master.context("nobody serves")
    })
}

/// Waits until this node serves, whatever the other one says; its epoch.
pub fn serves(pair: &Pair, node: usize) -> Result<u64> {
    eventually(LIMIT, &format!("node {node} serves"), || {
        let role = pair.nodes[node].role()?;
        ensure!(role.serving, "{role:?}");
        Ok(role.epoch)
    })
}

/// Switches over: ordered again until it is done, as a busy machine's may be refused or undone; who
/// serves then.
pub fn switch_over(pair: &Pair) -> Result<usize> {
    eventually(LIMIT, "a switch is done", || {
        let master = settled(pair)?;
        let admin = pair.nodes[master].admin().with_limit(LIMIT);
        let answer = admin.post("/switchover", &json!({"dry_run": false}))?;
        ensure!(answer.status == 200, "{answer:?}");
        serves(pair, 1 - master)?;
        Ok(1 - master)
    })
}

/// Runs the binary with these arguments: its exit code and both outputs.
pub fn run_hotpair(arguments: &[&str]) -> Result<(i32, String, String)> {
    let output = Command::new(hotpair()?).args(arguments).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Some(code) = output.status.code() else { bail!("hotpair {arguments:?} ended by a signal") };
    Ok((code, text(&output.stdout), text(&output.stderr)))
}

/// A path as an argument.
pub fn argument(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}
